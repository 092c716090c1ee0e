"""Patch pairs for training and whole pairs for validation.

Which patch comes when, and how it is transformed, is a function of (seed, position in the stream of samples) alone:
the number of loader processes does not matter, and a run continues anywhere without any saved loader state.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from esrgan.data.augment import Augmentation
from esrgan.data.cache import CachedPair, open_pair
from esrgan.errors import EsrganError, Problem, TrainingError

Batch = tuple[Tensor, Tensor]


class PatchDataset(Dataset[Batch]):
    """An endless stream of patch pairs: every image once per pass, in a new order each pass.

    Args:
        pairs: Cached images, each at least as large as the patch.
        scale: Scale factor.
        patch_size: HR (height, width) in px, multiples of the scale; None for whole images.
        seed: Whatever is drawn is a function of it and the position.
        spatial_transforms: See ``Augmentation``.
        hard_transforms: See ``Augmentation``.
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

    def __getitem__(self, position: int) -> Batch:
        """Give the pair at a position of the stream: (C, h, w) and (C, H, W) uint8, channels last in memory."""
        pair = self.pair_at(position)
        rng = np.random.default_rng((self.seed, position))
        low, high = open_pair(pair)
        if self.patch_size is not None:
            height, width = (size // self.scale for size in self.patch_size)
            top = int(rng.integers(low.shape[0] - height + 1))  # drawn on the LR grid, so both crops align
            left = int(rng.integers(low.shape[1] - width + 1))
            low = low[top : top + height, left : left + width]
            s = self.scale
            high = high[top * s : (top + height) * s, left * s : (left + width) * s]
        low, high = self.augmentation(low, high, rng)
        return torch.from_numpy(low).permute(2, 0, 1), torch.from_numpy(high).permute(2, 0, 1)

    def pair_at(self, position: int) -> CachedPair:
        """Give the images that the patch at a position of the stream is cut from."""
        count = len(self.pairs)
        index: int = _epoch_order(self.seed, position // count, count)[position % count]
        return self.pairs[index]


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, count)).permutation(count)


class _BatchDataset(Dataset[Batch | EsrganError]):
    """Gives whole batches by their positions.

    An error of ours is given too, not raised: PyTorch would wrap it into the traceback of the loader process.
    """

    def __init__(self, dataset: PatchDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, positions: Sequence[int]) -> Batch | EsrganError:
        try:
            low, high = zip(*(self.dataset[position] for position in positions), strict=True)
        except EsrganError as error:
            return error
        return _stack(low), _stack(high)


def _stack(patches: Sequence[Tensor]) -> Tensor:
    """Put (C, H, W) tensors into one (B, C, H, W), row by row as they lie: channels last, as the networks want them."""
    return torch.stack([patch.permute(1, 2, 0) for patch in patches]).permute(0, 3, 1, 2)


def load_batches(
    dataset: PatchDataset,
    *,
    batch_size: int,
    first_step: int,
    last_step: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Load the batches of steps ``first_step`` up to but not including ``last_step``.

    Args:
        dataset: The stream.
        batch_size: Patches of one step over all ranks, a multiple of ``world_size``.
        first_step: Where to begin; a resumed run begins in the middle.
        last_step: Where to end.
        rank: Which part of each batch is this process's.
        world_size: Number of processes that share each batch.
        num_workers: Loader processes; 0 loads in this one.
        pin_memory: Load into page-locked memory, for a CUDA device.

    Yields:
        LR (B, C, h, w) and HR (B, C, H, W), uint8, channels last in memory.

    Raises:
        DatasetError: If a cached image cannot be made again.
        TrainingError: If a loader process dies.
    """
    local_batch_size = batch_size // world_size
    positions = (
        list(range(step * batch_size + rank * local_batch_size, step * batch_size + (rank + 1) * local_batch_size))
        for step in range(first_step, last_step)
    )
    loader = DataLoader(
        _BatchDataset(dataset),
        batch_size=None,
        sampler=positions,
        collate_fn=_identity,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=_init_worker,
    )
    for batch in _watch_workers(loader) if num_workers else loader:
        if isinstance(batch, EsrganError):
            raise batch
        yield batch


def _identity(batch: Any) -> Any:
    return batch


def _init_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all; the trainer decides what to do
    cv2.setNumThreads(0)  # one core per loader process; OpenCV would take them all in each


def _watch_workers(loader: DataLoader[Any]) -> Iterator[Any]:
    """Iterate over what loader processes load; end with an error when one of them dies."""
    others = multiprocessing.active_children()
    handled = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if handled else None
    iterator = iter(loader)
    if handled:
        # PyTorch's handler would raise wherever the run just is, be it in the middle of writing a checkpoint.
        signal.signal(signal.SIGCHLD, handler)
    processes = [process for process in multiprocessing.active_children() if process not in others]
    while True:
        _check_workers_alive(processes)
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except RuntimeError:  # PyTorch looks after them every few seconds while it waits
            _check_workers_alive(processes)
            raise
        yield batch


def _check_workers_alive(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        if (code := process.exitcode) is not None:
            got = f"signal {-code}" if code < 0 else f"exit code {code}"
            if code == -9:
                got += ", which is how the system ends processes for want of memory"
            remedy = "lower num_workers, then continue with --resume auto"
            raise TrainingError(Problem(f"loader process {process.pid}", "to live as long as the run", got, remedy))


def read_cached_pair(pair: CachedPair) -> tuple[np.ndarray, np.ndarray]:
    """Read a whole pair for validation: LR (H, W, C) and HR (scale·H, scale·W, C), uint8."""
    low, high = open_pair(pair)
    return low.copy(), high.copy()
