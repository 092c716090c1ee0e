"""Selection of the device and of the precision that it computes fast."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from esrgan.errors import DeviceError
from esrgan.machine import cpu_quota


def select_device(name: str) -> torch.device:
    """Return the device with the given name.

    Args:
        name: "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda", "cuda:N" or "mps".

    Returns:
        A device that exists on this machine. PyTorch then uses no more threads than a CPU quota allows.

    Raises:
        DeviceError: If the name is unknown or this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device: expected auto, cpu, cuda, cuda:N or mps, got {name}") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available():
            raise DeviceError(f"device {name}: this PyTorch ({torch.__version__}) finds no CUDA GPU; use cpu")
        if device.index is not None and device.index >= count:
            existing = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
            raise DeviceError(f"device {name}: this machine has only {existing}; choose another device")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device {name}: this machine has no Apple GPU that PyTorch can use; use cpu")
    elif device.type not in ("cpu", "mps"):
        raise DeviceError(f"device: expected auto, cpu, cuda, cuda:N or mps, got {name}")
    _limit_threads()
    return device


def _limit_threads() -> None:
    """Use no more threads than a container's CPU quota, unless the user set a number.

    PyTorch and libvips, which reads this variable when it is loaded, know only the CPUs of the machine.

    More of them would spend the quota in a fraction of each period and then all wait for the next one.
    """
    quota = cpu_quota()
    if quota is None:
        return
    os.environ.setdefault("VIPS_CONCURRENCY", str(math.ceil(quota)))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), math.ceil(quota)))


def select_local_device(name: str) -> torch.device:
    """Return the device with the given name; each process that torchrun starts on a machine gets its own GPU.

    Args:
        name: As for ``select_device``.

    Returns:
        The device. For "auto" and "cuda", its index is that of the process on this machine.

    Raises:
        DeviceError: If the name is unknown or this machine has no such device.
    """
    device = select_device(name)
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return select_device(f"cuda:{os.environ['LOCAL_RANK']}")
    return device


def has_native_bfloat16(device: torch.device) -> bool:
    """Return whether a device has native bfloat16 arithmetic, which is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def low_precision_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """Return the dtype for autocast.

    Args:
        device: The device to compute on.
        name: "bfloat16", "float16" or "auto", which is float16 only on a GPU without native bfloat16.

    Returns:
        ``torch.bfloat16`` or ``torch.float16``.

    Raises:
        DeviceError: For float16 on a CPU, where it would overflow because there is no loss scaling.
    """
    if name == "float16" and device.type == "cpu":
        raise DeviceError("float16 needs a GPU; use bfloat16 on the CPU")
    if name == "auto":
        name = "float16" if device.type != "cpu" and not has_native_bfloat16(device) else "bfloat16"
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error is a lack of memory, for which PyTorch raises a plain RuntimeError on CPU and MPS."""
    is_typed = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return is_typed or any(sign in str(error) for sign in ("can't allocate memory", "out of memory"))


@contextmanager
def allow_tf32(device: torch.device) -> Iterator[None]:
    """Use TF32 on CUDA in the block: tensor cores compute float32 operations with factors rounded to 10 bits.

    This is PyTorch's default for convolutions but not for matrix products. cuDNN also benchmarks its convolution
    algorithms and uses the fastest, which pays off if all batches have the same shape.
    """
    if device.type != "cuda":
        yield
        return
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    matrices = torch.backends.cuda.matmul
    before = convolutions.fp32_precision, matrices.fp32_precision, torch.backends.cudnn.benchmark
    convolutions.fp32_precision = matrices.fp32_precision = "tf32"
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        convolutions.fp32_precision, matrices.fp32_precision, torch.backends.cudnn.benchmark = before
