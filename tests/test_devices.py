"""Selection of devices and precisions."""

import subprocess
import sys
from contextlib import suppress

import pytest
import torch

from esrgan import devices
from esrgan.devices import (
    benchmark_convolutions,
    exact_float32,
    find_gpu_problem,
    has_fast_winograd,
    has_native_bfloat16,
    is_out_of_memory,
    low_precision_dtype,
    select_device,
    select_local_device,
    send,
)
from esrgan.errors import DeviceError
from esrgan.inference import upscaler
from esrgan.inference.upscaler import choose_arithmetic
from esrgan.models import winograd
from tests.helpers.console import captured_messages

CPU = torch.device("cpu")
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
NO_MPS = pytest.mark.skipif(torch.backends.mps.is_available(), reason="needs a machine without an Apple GPU")


def device_error(name):
    with pytest.raises(DeviceError) as error:
        select_device(name)
    text = str(error.value)
    assert "\n" not in text
    assert "device" in text
    return text


def test_cpu_is_selected():
    assert select_device("cpu") == CPU


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(False, False, "cpu"), (True, False, "cuda"), (False, True, "mps"), (True, True, "cuda")],
)
def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch, gpu_problems, cuda, mps, expected):
    gpu_problems(*[None] * cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert select_device("auto") == torch.device(expected)


@pytest.mark.parametrize(
    "name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "tpu", "meta", "xpu", "cpu:", "Cpu", " cpu", None]
)
def test_unknown_names_are_refused(name):
    text = device_error(name)
    assert text == f"device: expected auto, cpu, cuda, cuda:N or mps, got {name}"


@NO_CUDA
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_missing_cuda_error_suggests_the_cpu(name):
    text = device_error(name)
    assert name in text
    assert torch.__version__ in text
    assert "use cpu" in text


@NO_MPS
def test_missing_mps_error_suggests_the_cpu():
    assert "use cpu" in device_error("mps")


@pytest.mark.parametrize(
    ("problems", "expected"), [(["old", None], "cuda:1"), (["old", "busy"], "cpu"), ([None, "old"], "cuda")]
)
def test_auto_warns_about_gpus_that_cannot_be_used(gpu_problems, capsys, problems, expected):
    gpu_problems(*problems)
    with captured_messages():
        assert str(select_device("auto")) == expected
    tried = problems[: problems.index(None) if None in problems else 2]
    assert capsys.readouterr().err.splitlines() == [
        f"warning: device {name}: {problem}; looking for another device"
        for name, problem in zip(["cuda", "cuda:1"], tried, strict=False)
    ]


def test_a_gpu_that_cannot_be_used_is_refused(gpu_problems):
    gpu_problems(None, "it is busy")
    assert select_device("cuda") == torch.device("cuda")
    assert device_error("cuda:1") == "device cuda:1: it is busy; choose another device"


UNSUPPORTED = "CUDA error: no kernel image is available for execution on the device\nSearch for it\n"


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (UNSUPPORTED, "its compute capability, 6.1, is not among those that this PyTorch (2.0) supports: sm_75, sm_80"),
        ("CUDA error: busy or unavailable.\nCUDA kernel errors might be", "CUDA error: busy or unavailable"),
        ("CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 8 GiB", "its memory is full"),
        (torch.cuda.DeferredCudaCallError("CUDA call failed lazily"), "CUDA call failed lazily"),
    ],
)
def test_a_gpu_is_tried_before_it_is_used(monkeypatch, error, problem):
    def fail(*_, device):
        raise error if isinstance(error, Exception) else torch.AcceleratorError(error)

    assert find_gpu_problem(CPU) is None
    monkeypatch.setattr(torch, "ones", fail)
    monkeypatch.setattr(torch, "__version__", "2.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    assert find_gpu_problem(torch.device("cuda")) == problem


def test_gpus_beyond_the_last_are_refused(gpu_problems):
    gpu_problems(None, None)
    assert select_device("cuda:1") == torch.device("cuda:1")
    assert "cuda:0 to cuda:1" in device_error("cuda:2")


def test_float16_on_a_cpu_is_refused():
    with pytest.raises(DeviceError, match="bfloat16"):
        low_precision_dtype(CPU, "float16")


def test_requested_dtypes_are_returned():
    assert low_precision_dtype(CPU, "bfloat16") == torch.bfloat16
    assert low_precision_dtype(torch.device("cuda"), "float16") == torch.float16
    assert low_precision_dtype(torch.device("cuda"), "bfloat16") == torch.bfloat16


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_auto_is_float16_only_on_gpus_without_bfloat16(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert low_precision_dtype(torch.device("cuda")) == dtype
    assert has_native_bfloat16(torch.device("cuda")) == (dtype == torch.bfloat16)
    assert low_precision_dtype(CPU) == torch.bfloat16


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", "bf16"])
@pytest.mark.parametrize("value", [True, False])
def test_cpu_bfloat16_follows_its_capabilities(monkeypatch, feature, value):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, feature: value})
    assert has_native_bfloat16(CPU) is value
    assert has_native_bfloat16(torch.device("mps")) is False


ZEN_4, ZEN_5 = {"sse4a": True, "avx512_f": True}, {"sse4a": True, "avx512_f": True, "avx512_vp2intersect": True}
TIGER_LAKE, ARM = {"sse4a": False, "avx512_f": True, "avx512_vp2intersect": True}, {"neon": True}


@pytest.mark.parametrize(("capabilities", "is_fast"), [(ZEN_4, True), (ZEN_5, False), (TIGER_LAKE, True), (ARM, True)])
def test_zen_5_convolves_directly(monkeypatch, capabilities, is_fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(devices, "has_fast_winograd", has_fast_winograd)
    assert choose_arithmetic(CPU, "fp32") == choose_arithmetic(CPU, "auto") == (torch.float32, is_fast)
    assert choose_arithmetic(CPU, "exact") == (torch.float32, False)
    with winograd.winograd_convolutions(CPU):
        assert winograd.is_suitable(torch.zeros(1, 3, 32, 32), 64) is is_fast


@pytest.mark.parametrize(
    ("name", "expected"), [("auto", "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0"), ("cpu", "cpu")]
)
def test_each_process_of_a_machine_gets_its_own_gpu(monkeypatch, gpu_problems, name, expected):
    gpu_problems(None, None)
    assert str(select_local_device(name)) == ("cuda" if name == "auto" else name)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(select_local_device(name)) == expected
    monkeypatch.setenv("LOCAL_RANK", "2")
    if name in ("auto", "cuda"):
        with pytest.raises(DeviceError, match=r"has 2 GPUs, .* set --nproc-per-node of torchrun to 2 or less"):
            select_local_device(name)


def test_a_process_of_torchrun_takes_no_gpu_of_another_one(monkeypatch, gpu_problems):
    gpu_problems("it is busy", None)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(DeviceError, match="device cuda:0: it is busy"):
        select_local_device("auto")
    monkeypatch.setenv("LOCAL_RANK", "1")  # and does not even try it, which would take memory there
    assert select_local_device("auto") == torch.device("cuda:1")


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_convolutions_are_benchmarked_on_gpus_and_the_setting_restored(kind):
    assert torch.backends.cudnn.benchmark is False
    with suppress(KeyError), benchmark_convolutions(torch.device(kind)):
        assert torch.backends.cudnn.benchmark is (kind == "cuda")
        raise KeyError
    assert torch.backends.cudnn.benchmark is False


def convolution_precision():
    return torch.backends.cudnn.conv.fp32_precision


def test_float32_is_exact_until_the_last_block_ends():
    """Threads upscale at the same time, so the blocks need not end in the order of their beginnings."""
    before = convolution_precision()
    assert before == "tf32"  # PyTorch's default
    with exact_float32(CPU):
        assert convolution_precision() == before
    first, second = exact_float32(torch.device("cuda")), exact_float32(torch.device("cuda"))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert convolution_precision() == "ieee"
    second.__exit__(None, None, None)
    assert convolution_precision() == before
    with suppress(KeyError), exact_float32(torch.device("cuda")):
        raise KeyError
    assert convolution_precision() == before


def test_convolutions_follow_pytorchs_settings_after_a_block_as_before():
    """In a process of its own, because other tests may have set the convolutions' own value."""
    text = """
import torch
from esrgan.devices import exact_float32
backends = torch.backends
for level in (backends, backends.cudnn):
    with exact_float32(torch.device("cuda")):
        assert backends.cudnn.conv.fp32_precision == "ieee"
    level.fp32_precision = "ieee"
    assert backends.cudnn.conv.fp32_precision == "ieee"
    with exact_float32(torch.device("cuda")):
        pass
    level.fp32_precision = "none"
    assert backends.cudnn.conv.fp32_precision == "tf32"
"""
    subprocess.run([sys.executable, "-c", text], check=True, timeout=120)


def test_a_setting_of_convolutions_themselves_is_restored():
    """In a process of its own, because it cannot be undone."""
    text = """
import torch
from esrgan.devices import exact_float32
backends = torch.backends
backends.cudnn.conv.fp32_precision = "tf32"
with exact_float32(torch.device("cuda")):
    assert backends.cudnn.conv.fp32_precision == "ieee"
backends.fp32_precision = "ieee"
assert backends.cudnn.conv.fp32_precision == "tf32"
"""
    subprocess.run([sys.executable, "-c", text], check=True, timeout=120)


def test_settings_of_convolutions_do_not_break_pytorchs_older_getters():
    """torch.compile reads the precision of matrix products by the older interface."""
    with exact_float32(torch.device("cuda")), benchmark_convolutions(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cuda.matmul.allow_tf32 is False
    assert torch.backends.cudnn.allow_tf32 is True


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
        "GET was unable to find an engine to execute this computation",
        "FIND was unable to find an engine to execute this computation",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuFFT error: CUFFT_ALLOC_FAILED",
    ],
)
def test_a_lack_of_memory_is_recognised_in_every_library(text):
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))


@pytest.mark.usefixtures("winograd_on_every_cpu")
@pytest.mark.parametrize(
    ("kind", "precision", "arithmetic"),
    [
        ("cuda", "auto", (torch.float16, False)),
        ("cpu", "auto", (torch.float32, True)),
        ("mps", "auto", (torch.float32, False)),
        ("cpu", "exact", (torch.float32, False)),
        ("cuda", "fp32", (torch.float32, False)),
        ("cpu", "bf16", (torch.bfloat16, False)),
    ],
)
def test_precisions_have_their_meaning_on_each_device(kind, precision, arithmetic):
    assert upscaler.choose_arithmetic(torch.device(kind), precision) == arithmetic


@pytest.mark.parametrize(("kind", "is_asynchronous"), [("cuda", True), ("mps", False), ("cpu", False)])
def test_only_cuda_receives_tensors_asynchronously(monkeypatch, kind, is_asynchronous):
    """MPS reads from the memory of the CPU after it was released (issue 189690 of PyTorch)."""
    calls = []
    monkeypatch.setattr(torch.Tensor, "to", lambda _, *to, **options: calls.append((*to, options)))
    send(torch.zeros(1), torch.device(kind))
    assert calls == [(torch.device(kind), {"non_blocking": is_asynchronous})]


def test_a_local_rank_that_is_no_number_is_refused(monkeypatch, gpu_problems):
    gpu_problems(None)
    monkeypatch.setenv("LOCAL_RANK", "x")
    with pytest.raises(DeviceError, match="got cuda:x"):
        select_local_device("cuda")
