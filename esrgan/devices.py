"""Selection of the device and of the precision that it computes fast."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch

from esrgan.console import log
from esrgan.errors import DeviceError, LostDeviceError, Problem
from esrgan.machine import FreeCpus, cpu_quota
from esrgan.text import format_count, one_line

_USERS_THREADS = {"OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"}  # set how many, or where


def select_device(name: str) -> torch.device:
    """Return the device with the given name.

    Args:
        name: "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda", "cuda:N" or "mps".

    Returns:
        A device of this machine that can be used. PyTorch then uses no more threads than a CPU quota allows.

    Raises:
        DeviceError: If the name is unknown, or this machine has no such device or cannot use it.
    """
    if name == "auto":
        name = _find_usable_gpu() or ("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"device: expected auto, cpu, cuda, cuda:N or mps, got {name}") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available():
            raise DeviceError(f"device {name}: this PyTorch ({torch.__version__}) finds no CUDA GPU; use cpu")
        if device.index is not None and device.index >= count:
            existing = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
            raise DeviceError(f"device {name}: this machine has only {existing}; choose another device")
        if problem := find_gpu_problem(device):
            raise DeviceError(f"device {name}: {problem}; choose another device")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device {name}: this machine has no Apple GPU that PyTorch can use; use cpu")
    elif device.type not in ("cpu", "mps"):
        raise DeviceError(f"device: expected auto, cpu, cuda, cuda:N or mps, got {name}")
    _limit_threads()
    return device


def _find_usable_gpu() -> str | None:
    """Return the name of the first CUDA GPU that can be used, with a warning about each one before it."""
    if not torch.cuda.is_available():
        return None
    for name in ["cuda", *(f"cuda:{number}" for number in range(1, torch.cuda.device_count()))]:
        problem = find_gpu_problem(torch.device(name))
        if problem is None:
            return name
        log.warning("device %s: %s; looking for another device", name, problem)
    return None


def find_gpu_problem(device: torch.device) -> str | None:
    """Run something small on a CUDA GPU, and return why it cannot be used, or None."""
    try:
        _try(device)
    except (RuntimeError, torch.cuda.DeferredCudaCallError) as error:
        if is_out_of_memory(error):
            return "its memory is full"
        if "no kernel image" not in str(error):
            return one_line(str(error).strip().partition("\n")[0].rstrip("."), 200)
        capability, supported = torch.cuda.get_device_capability(device), ", ".join(torch.cuda.get_arch_list())
        return (
            f"its compute capability, {capability[0]}.{capability[1]}, is not among those that this PyTorch "
            f"({torch.__version__}) supports: {supported}"
        )
    return None


def _try(device: torch.device) -> None:
    torch.ones(1, device=device).item()  # needs a kernel, unlike zeros


def _limit_threads() -> None:
    """Use no more threads than a container's CPU quota, unless the user set a number.

    PyTorch and libvips, which reads this variable when it is loaded, know only the CPUs of the machine.

    More threads would use up the quota early in each period and then wait for the next one.
    """
    quota = cpu_quota()
    if quota is None:
        return
    os.environ.setdefault("VIPS_CONCURRENCY", str(math.ceil(quota)))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), math.ceil(quota)))


def follow_free_cpus(free: FreeCpus, most: int) -> None:
    """Use as many threads as there were CPUs free for this process, at most so many, unless the user set a number.

    The number also stays as it is if the user binds threads to CPUs: OpenMP then leaves the main thread only one CPU.
    Next to another busy process, two threads can be slower than one, as one waits for a CPU and the other one for it.
    """
    if not _USERS_THREADS & os.environ.keys():
        torch.set_num_threads(min(free.count(), most))


def select_local_device(name: str) -> torch.device:
    """Return the device with the given name; each process that torchrun starts on a machine gets its own GPU.

    Args:
        name: As for ``select_device``.

    Returns:
        The device. For "auto" and "cuda", its index is that of the process on this machine.

    Raises:
        DeviceError: As ``select_device``, or if there are more processes than GPUs.
    """
    rank, has_gpu = os.environ.get("LOCAL_RANK"), torch.cuda.is_available()
    if rank is None or not (has_gpu and name in ("auto", "cuda")):
        return select_device(name)
    if rank.isdecimal() and int(rank) >= (count := torch.cuda.device_count()):
        raise DeviceError(
            f"device {name}: this machine has {format_count(count, 'GPU')}, but more processes were started; set "
            f"--nproc-per-node of torchrun to {count} or less"
        )
    return select_device(f"cuda:{rank}")


def has_native_bfloat16(device: torch.device) -> bool:
    """Return whether a device has native bfloat16 arithmetic, which is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def has_fast_winograd() -> bool:
    """Return whether Winograd's algorithm convolves faster than PyTorch's convolutions, in float32 on this CPU.

    It consists of matrix products, for which PyTorch uses MKL. On AMD's processors MKL computes with vectors of 256
    bits, but the convolutions with 512, which Zen 5 computes at full width. Only AMD has sse4a, and of its
    processors only Zen 5 has avx512_vp2intersect.
    """
    capabilities = torch.cpu.get_capabilities()
    return not (capabilities.get("sse4a", False) and capabilities.get("avx512_vp2intersect", False))


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


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device; on CUDA without waiting for pending work there.

    With ``non_blocking``, MPS would read from the CPU's tensor later, when its memory may have another content.
    """
    return values.to(device, non_blocking=device.type == "cuda")


def move_to_cpu(value: Any, *, copy: bool = False) -> Any:
    """Return nested dictionaries and lists with all tensors on the CPU; with ``copy``, none shares its memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=copy)
    if isinstance(value, dict):
        return {key: move_to_cpu(each, copy=copy) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(move_to_cpu(each, copy=copy) for each in value)
    return value


# What PyTorch reports without an exception of its own: a lack of memory on CPU and MPS, and in CUDA's libraries.
_OUT_OF_MEMORY_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "_ALLOC_FAILED",  # CUDNN_STATUS_, CUBLAS_STATUS_ and CUFFT_
    "unable to find an engine to execute this computation",  # every algorithm of cuDNN needs more workspace
)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error is a lack of memory, for which PyTorch often raises a plain RuntimeError."""
    is_typed = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return is_typed or any(sign in str(error) for sign in _OUT_OF_MEMORY_SIGNS)


@contextmanager
def explain_lack_of_memory(device: torch.device, what: str) -> Iterator[None]:
    """Raise a ``DeviceError`` that says for what the memory is too small, if the block runs out of it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        is_of_host = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
        place = torch.device("cpu") if is_of_host else device
        raise DeviceError(
            f"{place}: not enough memory for {what}; close other programs or use another device"
        ) from error


def check_gpu_after(error: Exception, device: torch.device) -> None:
    """Check that a GPU can still be used after an error; some make it unusable for the rest of the process.

    Raises:
        LostDeviceError: If it cannot.
    """
    if device.type != "cuda":
        return
    try:
        _try(device)
    except torch.AcceleratorError as again:
        if is_out_of_memory(again):
            return
        reason = one_line(str(error).strip().partition("\n")[0].rstrip("."), 200)
        what = f"the GPU failed ({reason}), and this process cannot use it any more"
        raise LostDeviceError(Problem.failure(device, what, "start the program again")) from error


def end_worker(error: LostDeviceError) -> NoReturn:
    """End this process, a worker of a Ray cluster whose GPU has failed. Ray then starts another one for its work."""
    print(f"error: {error.with_remedy('Ray starts another process')}", file=sys.stderr, flush=True)
    os._exit(1)


@contextmanager
def benchmark_convolutions(device: torch.device) -> Iterator[None]:
    """On CUDA, have cuDNN try its algorithms for each new convolution in the block, and use the fastest.

    This takes time and memory for each size of its input, so it pays off only for many batches of one shape.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


_exact_lock = threading.Lock()
_exact_blocks = 0  # that are running
_undo_exact: Callable[[], None]  # of the first of them


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """On CUDA, compute the float32 convolutions in the block in float32.

    By default PyTorch allows TF32, which rounds their factors to 10 bits. The setting belongs to the whole process, so
    while one thread is in such a block it applies to all threads.
    """
    global _exact_blocks, _undo_exact
    if device.type != "cuda":
        yield
        return
    with _exact_lock:
        if _exact_blocks == 0:
            _undo_exact = _disallow_tf32()
        _exact_blocks += 1
    try:
        yield
    finally:
        with _exact_lock:
            _exact_blocks -= 1
            if _exact_blocks == 0:
                _undo_exact()


def _disallow_tf32() -> Callable[[], None]:
    """Let cuDNN compute convolutions in float32, and return a function that restores PyTorch's settings.

    A setting that inherits from another one is read like a value of its own. Written back it would be one, and no
    longer follow the other. So the setting above that of convolutions is changed, which does not reach a value of their
    own. If it equals the one above it, it is taken for inherited and follows that one afterwards.
    """
    cudnn: Any = torch.backends.cudnn
    convolutions, own = cudnn.conv.fp32_precision, None
    inherited = torch.backends.fp32_precision  # type: ignore[attr-defined]
    above = "none" if cudnn.fp32_precision == inherited else cudnn.fp32_precision
    cudnn.fp32_precision = "ieee"
    if cudnn.conv.fp32_precision != "ieee":
        own = convolutions
        cudnn.conv.fp32_precision = "ieee"

    def undo() -> None:
        cudnn.fp32_precision = above
        if own is not None:
            cudnn.conv.fp32_precision = own

    return undo
