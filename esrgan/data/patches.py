"""Patch pairs for training and whole pairs for validation.

Each patch, its crop and its transforms depend only on the seed and the position in the stream. The number of loader
processes therefore has no influence, and a run can resume at any position without saved loader state.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from esrgan.data.augment import Augmentation
from esrgan.data.cache import CachedPair, open_pair
from esrgan.errors import EsrganError, TrainingError
from esrgan.text import describe_error

_POLL_S = 1.0  # between looks at the loader processes while no batch arrives
_LAST_WAIT_S = 10.0  # longest wait for a batch once the run should end

Batch = tuple[Tensor, Tensor]


class PatchDataset:
    """An endless stream of patch pairs: every image once per pass, in a new order each pass.

    Args:
        pairs: Cached images, each at least as large as the patch.
        scale: Scale factor.
        patch_size: HR (height, width) in px, multiples of the scale; None for whole images.
        seed: Determines, together with the position, all random choices.
        spatial_transforms: The ``spatial`` argument of ``Augmentation``.
        hard_transforms: The ``hard`` argument of ``Augmentation``.
    """

    def __init__(
        self,
        pairs: Sequence[CachedPair],
        *,
        scale: int,
        patch_size: tuple[int, int] | None,
        seed: int,
        spatial_transforms: str = "d4",
        hard_transforms: bool = False,
    ) -> None:
        self.pairs = pairs
        self.scale = scale
        self.patch_size = patch_size
        self.seed = seed
        square = patch_size is not None and patch_size[0] == patch_size[1]
        self.augmentation = Augmentation(spatial_transforms, hard_transforms, square)

    def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pair at a position of the stream: LR (h, w, C) and HR (H, W, C), uint8."""
        pair = self.pair_at(position)
        rng = np.random.default_rng((self.seed, position))
        low, high = open_pair(pair)
        if self.patch_size is not None:
            height, width = (size // self.scale for size in self.patch_size)
            top = int(rng.integers(low.shape[0] - height + 1))  # on the LR grid, so that both crops align
            left = int(rng.integers(low.shape[1] - width + 1))
            low = low[top : top + height, left : left + width]
            s = self.scale
            high = high[top * s : (top + height) * s, left * s : (left + width) * s]
        return self.augmentation(low, high, rng)

    def pair_at(self, position: int) -> CachedPair:
        """Return the images that the patch at a position of the stream is cut from."""
        count = len(self.pairs)
        index: int = _epoch_order(self.seed, position // count, count)[position % count]
        return self.pairs[index]


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, count)).permutation(count)


@dataclass
class _ArrayBatch:
    """A batch as NumPy arrays (B, H, W, C), which loader processes send through pipes.

    PyTorch would send tensors through shared memory, of which containers often have only 64 MB.
    """

    low: NDArray[np.uint8]
    high: NDArray[np.uint8]

    def to_tensors(self) -> Batch:
        """Return tensors (B, C, H, W), channels last in memory as the networks need them."""
        return torch.from_numpy(self.low).permute(0, 3, 1, 2), torch.from_numpy(self.high).permute(0, 3, 1, 2)

    def pin_memory(self) -> Batch:
        """Return tensors in page-locked memory; PyTorch calls this in a thread."""
        low, high = self.to_tensors()
        return low.pin_memory(), high.pin_memory()


class _BatchDataset(Dataset[_ArrayBatch | EsrganError]):
    """Whole batches, each indexed by the positions of its patches.

    An ``EsrganError`` is returned, not raised, because PyTorch would wrap it in the traceback of the loader process.
    """

    def __init__(self, dataset: PatchDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, positions: Sequence[int]) -> _ArrayBatch | EsrganError:
        try:
            lows, highs = zip(*(self.dataset[position] for position in positions), strict=True)
        except EsrganError as error:
            return error
        return _ArrayBatch(np.stack(lows), np.stack(highs))


def load_batches(
    dataset: PatchDataset,
    *,
    batch_size: int,
    first_step: int,
    last_step: int,
    offset: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Batch]:
    """Load the batches of steps ``first_step`` (inclusive) to ``last_step`` (exclusive).

    Args:
        dataset: Stream of patch pairs.
        batch_size: Number of patches per step over all ranks, a multiple of ``world_size``.
        first_step: First step to load; greater than 0 in a resumed run.
        last_step: Step to stop before.
        offset: Added to the positions of all patches, which otherwise begin at ``first_step`` × ``batch_size``.
        rank: Index of this process, which loads the corresponding part of each batch.
        world_size: Number of processes that share each batch.
        num_workers: Number of loader processes; 0 loads in this process.
        pin_memory: Load into page-locked memory, for a CUDA device.
        stop: Whether the run should end; asked while no batch arrives.

    Yields:
        LR (B, C, h, w) and HR (B, C, H, W), uint8, channels last in memory.

    Raises:
        DatasetError: If a damaged cache file cannot be rebuilt.
        TrainingError: If a loader process cannot start or dies, or if no batch arrives although the run should end.
    """
    local_batch_size = batch_size // world_size
    starts = (offset + step * batch_size + rank * local_batch_size for step in range(first_step, last_step))
    positions = (list(range(start, start + local_batch_size)) for start in starts)
    loader = DataLoader(
        _BatchDataset(dataset),
        batch_size=None,
        sampler=positions,
        collate_fn=_identity,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=_init_worker,
        timeout=_POLL_S if num_workers else 0,
    )
    for batch in _watch_workers(loader, stop) if num_workers else loader:
        if isinstance(batch, EsrganError):
            raise batch
        yield batch.to_tensors() if isinstance(batch, _ArrayBatch) else batch


def _identity(batch: Any) -> Any:
    return batch


def _init_worker(_: int) -> None:
    # Ctrl-C in a terminal reaches all processes, but only the trainer handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # By default, OpenCV in each loader process would use all cores.
    cv2.setNumThreads(0)


def _watch_workers(loader: DataLoader[Any], stop: Callable[[], bool]) -> Iterator[Any]:
    """Iterate over a loader, and raise ``TrainingError`` if one of its processes has died or none of them answers."""
    handled = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if handled else None
    try:
        iterator = iter(loader)
    except OSError as error:  # they need semaphores in /dev/shm, memory, and a number of processes that may be limited
        remedy = "set num_workers to 0, or raise the limits of the container (--shm-size, --pids-limit)"
        _MultiProcessingDataLoaderIter._shutdown = True  # otherwise its __del__ fails and prints a traceback
        raise TrainingError(f"loader processes cannot start: {describe_error(error)}; {remedy}") from error
    if handled:
        # PyTorch's handler would raise anywhere, even while a checkpoint is being written.
        signal.signal(signal.SIGCHLD, handler)
    processes = list(iterator._workers)  # type: ignore[attr-defined]
    waits = 0
    while True:
        _check_workers_alive(processes)
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            _check_workers_alive(processes)
            if not str(error).startswith("DataLoader timed out"):
                raise
            waits = waits + 1 if stop() else 0
            if waits * _POLL_S >= _LAST_WAIT_S:
                raise TrainingError("the run was asked to stop while loader processes did not answer") from None
        else:
            yield batch


def _check_workers_alive(processes: Sequence[BaseProcess]) -> None:
    reasons = {
        "SIGKILL": ", which the system sends when memory runs out",
        "SIGBUS": ", which the system sends when /dev/shm is full or a file was cut while it was read",
    }
    for process in processes:
        if (code := process.exitcode) is not None:
            end = f"exited too early with code {code}"
            if code < 0:
                end = f"was killed by signal {-code}{reasons.get(signal.Signals(-code).name, '')}"
            remedy = "lower num_workers, then resume with --resume auto"
            if code == 1 and multiprocessing.get_start_method() != "fork":  # the process runs a script again
                guard = 'if __name__ == "__main__":'
                remedy += f"; if a script of yours trains, put what it runs under `{guard}`"
            raise TrainingError(f"loader process {process.pid}: {end}; {remedy}")


def read_cached_pair(pair: CachedPair) -> tuple[np.ndarray, np.ndarray]:
    """Return writable copies of a whole pair, for validation: LR (H, W, C) and HR (scale·H, scale·W, C), uint8."""
    low, high = open_pair(pair)
    return low.copy(), high.copy()
