"""Several processes training one model, started by torchrun. With one process every function does nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from esrgan.devices import process_device

T = TypeVar("T")


def start(device_name: str) -> torch.device:
    """Join the other processes, if torchrun started several, and give this one's device.

    Args:
        device_name: As for ``process_device``; "auto" and "cuda" give each process of a machine its own GPU.

    Raises:
        DeviceError: If the device is not there.
    """
    device = process_device(device_name)
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Give this process's number; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Give the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@torch.no_grad()
def average_gradients(gradients: list[Tensor]) -> None:
    """Replace each gradient by its mean over the processes, in one exchange."""
    if world_size() == 1:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)])


def silence() -> TextIO:
    """Give a stream that goes nowhere, for the processes that do not report."""
    return Path(os.devnull).open("w", encoding="utf-8")


def total(values: Tensor) -> Tensor:
    """Sum a tensor over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def any_process(flag: bool, device: torch.device) -> bool:
    """Tell whether the flag is set in any process, so that all leave a loop at the same step."""
    return flag if world_size() == 1 else bool(total(torch.tensor(float(flag), device=device)).item())


def share(value: T) -> T:
    """Give what process 0 has."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box)
    return box[0]
