"""Training with several processes, started by torchrun; with one process, every function is a no-op."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore

from esrgan import rendezvous
from esrgan.console import log
from esrgan.devices import is_out_of_memory, select_local_device
from esrgan.errors import DeviceError, LostProcessError, Problem
from esrgan.text import one_line
from esrgan.training.heartbeat import Heartbeat

T = TypeVar("T")

# For processes that are alive; the heartbeat detects dead ones within half a minute. This is long enough for process 0
# to write a checkpoint while the others wait for its gradients.
COLLECTIVE_TIMEOUT = timedelta(minutes=10)

_heartbeat: Heartbeat | None = None


@contextmanager
def process_group(device_name: str) -> Iterator[torch.device]:
    """Join the process group if torchrun started this process, and leave it at the end.

    If the body fails, the other processes receive the reason. All processes but the first show only errors.

    Args:
        device_name: See ``select_local_device``; with "auto" or "cuda", each process of a machine uses its own GPU.

    Yields:
        This process's device.

    Raises:
        DeviceError: If the device does not exist, or the processes have devices of different kinds.
        EsrganError: If the environment variables of torchrun are wrong, or process 0 cannot be reached.
        LostProcessError: If another process has ended.
    """
    global _heartbeat
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        yield _use_device(device_name)
        return
    store, rank, world_size = rendezvous.connect()
    with _translate_errors():
        key = rendezvous.agree_on_key(store, rank, world_size)
    _heartbeat = Heartbeat(store, key, rank, world_size)
    level = log.level
    try:
        device = _use_device(device_name)
        kinds = _heartbeat.all_gather_text("device", device.type)
        if len(set(kinds)) > 1:
            remedy = "choose one that all machines have, or leave out the machine that lacks it"
            raise DeviceError(Problem("--device", "the same kind in all processes", ", ".join(kinds), remedy))
        # Flags and text are exchanged over gloo, which does not wait for the GPU.
        has_nccl = device.type == "cuda" and dist.is_nccl_available()  # which PyTorch for Windows lacks
        backend = "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
        store = PrefixStore(key, store)
        with _translate_errors():
            dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT, store=store, rank=rank, world_size=world_size)
        if rank > 0:
            log.setLevel(logging.ERROR)
        yield device
        all_reduce_sum(torch.zeros(1))  # wait for process 0, which may still be writing files
    except LostProcessError:
        raise
    except BaseException as error:
        _heartbeat.report_failure(error)
        raise
    finally:
        log.setLevel(level)
        _heartbeat.stop()
        _heartbeat = None
    dist.destroy_process_group()  # skipped after an error, because NCCL would wait for the others


def _use_device(name: str) -> torch.device:
    """Select the device of this process. A GPU becomes the current one, or pinning memory would use the first one."""
    device = select_local_device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise ``LostProcessError`` if a collective operation fails; where NCCL only waits, the heartbeat exits."""
    try:
        yield
    except RuntimeError as error:
        # These are errors of this process; NCCL reports some of CUDA's by its own names.
        is_own = is_out_of_memory(error) or isinstance(error, torch.AcceleratorError)
        if is_own or "unhandled cuda error" in str(error) or "Cuda failure" in str(error):
            raise
        failure = _heartbeat.failure() if _heartbeat is not None else ""
        text, _, of_nccl = str(error).partition("Last error:")
        without_cpp_location = re.sub(r"\[\S+\.cc:\d+\] ", "", of_nccl.strip() or text)
        reason = one_line(without_cpp_location.partition(". ")[0], 160)
        raise LostProcessError(
            failure or f"another process of this run has ended or cannot be reached ({reason})"
        ) from error


def rank() -> int:
    """Return this process's number; process 0 writes all files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes on all machines."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_world_size() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@torch.no_grad()
def average_gradients(gradients: list[Tensor]) -> None:
    """Replace each gradient by its mean over the processes, in one collective operation."""
    if world_size() == 1:
        return
    flat = all_reduce_mean(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)])


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum a tensor over the processes, in place."""
    if world_size() > 1:
        with _translate_errors():
            dist.all_reduce(values)
    return values


def all_reduce_mean(values: Tensor) -> Tensor:
    """Average a tensor over the processes, in place."""
    return all_reduce_sum(values).div_(world_size())


def all_reduce_max(*values: float) -> list[float]:
    """Return the maximum of each value over the processes."""
    if world_size() == 1:
        return list(values)
    with _translate_errors():
        dist.all_reduce(tensor := torch.tensor(values), op=dist.ReduceOp.MAX)
    return tensor.tolist()


def any_rank(flag: bool) -> bool:
    """Return whether the flag is set in any process, so that all of them leave a loop at the same step."""
    return bool(all_reduce_max(float(flag))[0])


def all_gather(values: Tensor) -> Tensor:
    """Return the values (…) of all processes as (processes, …)."""
    rows = torch.zeros((world_size(), *values.shape), dtype=values.dtype, device=values.device)
    rows[rank()] = values
    return all_reduce_sum(rows)


def broadcast_object(make: Callable[[], T]) -> T:
    """Call ``make`` in process 0 only and return its result in all processes."""
    if world_size() == 1:
        return make()
    box = [make() if rank() == 0 else None]
    with _translate_errors():
        dist.broadcast_object_list(box, device=torch.device("cpu"))
    return box[0]  # type: ignore[return-value]


def all_gather_text(name: str, text: str) -> list[str]:
    """Return the texts of all processes by rank; see ``Heartbeat.all_gather_text``."""
    return [text] if _heartbeat is None else _heartbeat.all_gather_text(name, text)


@torch.no_grad()
def broadcast_weights(networks: Sequence[nn.Module]) -> None:
    """Copy the weights and buffers of process 0 to all processes."""
    if world_size() > 1:
        with _translate_errors():
            for network in networks:
                for tensor in network.state_dict().values():
                    dist.broadcast(tensor, 0)
