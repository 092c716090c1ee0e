"""Compare upscaling on a GPU with plain PyTorch: python3 benchmarks/gpu.py [--models NAME ...] [--sizes WxH ...].

Everything runs in this environment, and nothing is installed. Times are from tensor to tensor on the device, except for
"from array to array", which includes the transfers of an 8-bit image and of its output. The first passes, which load
kernels and compile, are not timed; "ready" is how long they take. The share is that of the speed of a large matrix
product, measured on the same device. PSNR is against ``esrgan, fp32``. With --device cpu the script can be tried.
"""

from __future__ import annotations

import argparse
import gc
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from esrgan import Upscaler, load_generator
from esrgan.devices import select_device
from esrgan.models import Generator
from esrgan.weights import GeneratorFile

Run = Callable[[], Any]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(run: Run, device: torch.device, seconds: float) -> float:
    """Return the median time of a run, repeated for about the given time but at least three times."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        synchronize(device)
        began = time.perf_counter()
        run()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure_peak(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Return the operations per second of a large matrix product."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    torch.matmul(a, b)
    return 2 * side**3 / median_seconds(lambda: torch.matmul(a, b), device, seconds)


def count_operations(network: Generator, low: Tensor) -> int:
    """Return the additions and multiplications of all convolutions for an image."""
    total = 0

    def add(module: torch.nn.Module, _: Any, high: Tensor) -> None:
        nonlocal total
        assert isinstance(module, torch.nn.Conv2d)  # noqa: S101  tells the type checker
        total += 2 * module.weight.numel() * high[0, 0].numel()

    hooks = [each.register_forward_hook(add) for each in network.modules() if isinstance(each, torch.nn.Conv2d)]
    small = low[..., :16, :16]  # a whole number of folded pixels
    with torch.inference_mode():
        network(small)
    for hook in hooks:
        hook.remove()
    return round(total * low[0, 0].numel() / small[0, 0].numel())


def make_image(width: int, height: int, device: torch.device) -> Tensor:
    """Return a smooth image (1, 3, H, W) in [0, 1] with some noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, -(-height // 16), -(-width // 16), generator=generator)
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    image += torch.randn(image.shape, generator=generator) * 0.02
    return image.clamp(0, 1).to(device, memory_format=torch.channels_last)


def make_contenders(
    file: GeneratorFile, low: Tensor, dtype: torch.dtype, *, compiled: bool
) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Yield the names of all contenders and functions that make them ready."""
    device, name = low.device, str(dtype).removeprefix("torch.")

    def plain(layout: torch.memory_format, mode: str | None = None) -> Run:
        network = file.build().eval().requires_grad_(False)
        network = network.to(device, dtype, memory_format=layout)  # type: ignore[call-overload]
        image = low.to(dtype, memory_format=layout)
        forward = torch.compile(network, mode=mode, dynamic=False) if mode else network
        return lambda: forward(image)

    def esrgan(precision: str) -> Run:
        upscaler = Upscaler.from_file(file, str(device), precision)
        return lambda: upscaler(low)

    def from_array() -> Run:
        upscaler = Upscaler.from_file(file, str(device))
        pixels = (low[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        return lambda: upscaler(pixels)

    yield "esrgan, fp32", lambda: esrgan("fp32")
    yield "esrgan, auto", lambda: esrgan("auto")
    yield "esrgan, auto, from array to array", from_array
    yield f"PyTorch, {name}", lambda: plain(torch.contiguous_format)
    yield f"PyTorch, {name} channels_last", lambda: plain(torch.channels_last)
    if compiled:
        yield f"PyTorch, {name} channels_last compiled", lambda: plain(torch.channels_last, "default")
        if device.type == "cuda":
            yield "the same with CUDA graphs", lambda: plain(torch.channels_last, "reduce-overhead")


def psnr(found: Any, expected: Tensor) -> str:
    """Return the PSNR of images in [0, 1] in dB, as text."""
    if not isinstance(found, Tensor):
        return "–"  # the array is rounded to 8 bits
    error = float((found.float().cpu().clamp(0, 1) - expected.clamp(0, 1)).square().mean())
    return f"{-10 * math.log10(error):.1f}" if error else "inf"


def measure_size(name: str, size: str, device: torch.device, peak: float, options: argparse.Namespace) -> None:
    """Print a row for each contender that can begin before the time is over."""
    width, height = map(int, size.split("x"))
    file, low = load_generator(name), make_image(width, height, device)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    operations = count_operations(file.build(), low.cpu())
    reference = torch.empty(0)
    for contender, make in make_contenders(file, low, dtype, compiled=size in options.compile):
        row = f"| {name} | {size} | {contender} |"
        if time.perf_counter() > options.deadline:
            print(f"{row} not measured, because --seconds were over |", flush=True)
            continue
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        base, began = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0, time.perf_counter()
        try:
            with torch.inference_mode():
                run = make()
                run()
                result = run()
                synchronize(device)
                ready = time.perf_counter() - began
                reference = result.float().cpu() if contender == "esrgan, fp32" else reference
                quality = psnr(result, reference) if reference.numel() else "–"
                del result
                seconds = median_seconds(run, device, options.measure)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            print(f"{row} failed: {' '.join(str(error).split())[:200]} |", flush=True)
            continue
        used = torch.cuda.max_memory_allocated(device) - base if device.type == "cuda" else 0
        rate = operations / seconds
        memory = f"{used / 2**30:.2f} GiB" if used else "–"
        cells = f"{seconds * 1e3:.1f} | {rate / 1e12:.1f} | {rate / peak:.0%} | {memory} | {quality} | {ready:.1f}"
        print(f"{row} {cells} |", flush=True)
        del run


def main() -> None:
    """Measure all models at all sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="as for the commands (default: %(default)s)")
    parser.add_argument(
        "--models", nargs="+", default=["esrgan-full", "esrgan-lite"], help="names or files (default: %(default)s)"
    )
    parser.add_argument(
        "--sizes", nargs="+", default=["256x256", "640x480", "1920x1080"], help="(default: %(default)s)"
    )
    parser.add_argument(
        "--compile", nargs="*", default=["640x480"], help="sizes at which to compile too (default: %(default)s)"
    )
    parser.add_argument("--measure", type=float, default=1.0, help="seconds for each row (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=500, help="begin no row after that (default: %(default)s)")
    options = parser.parse_args()
    options.deadline = time.perf_counter() + options.seconds
    device = select_device(options.device)
    is_cuda = device.type == "cuda"
    peak = measure_peak(device, torch.float16 if is_cuda else torch.float32, options.measure)
    hardware = torch.cuda.get_device_name(device) if is_cuda else f"CPU, {torch.get_num_threads()} threads"
    libraries = f"cuDNN {torch.backends.cudnn.version()}, CUDA {torch.version.cuda}" if is_cuda else platform.machine()
    print(f"{hardware}; PyTorch {torch.__version__}, {libraries}; matrix product {peak / 1e12:.1f} TFLOP/s\n")
    print("| model | input | software | median ms | TFLOP/s | share | memory | PSNR | ready s |")
    print("|---|---|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for name in options.models:
        for size in options.sizes:
            measure_size(name, size, device, peak, options)


if __name__ == "__main__":
    main()
