"""Compare ways to run RRDBNet on a GPU: python3 benchmarks/gpu_variants.py [--only NAME ...] [--sizes WxH ...].

Each row is a way to upscale the same input, in float16 on a GPU and in float32 on a CPU. Its output is compared with
that of the plain network in channels_last layout before it is timed. Times are from tensor to tensor on the device,
except for "copies", which is from bytes of the host to bytes of the host. The share is that of the speed of a large
matrix product, measured on the same device. "ready" is how long the first two passes take, with everything that is
compiled or tried for them. On a CPU (--device cpu --sizes 24x16) only the ways that need no GPU run, and Triton's
kernels with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from gpu import count_operations, make_image, measure_peak, median_seconds, synchronize
from torch import Tensor, nn

from esrgan import RRDBNet, load_generator
from esrgan.devices import benchmark_convolutions, select_device
from esrgan.inference import tiling
from esrgan.inference.streaming import upscale_strips
from esrgan.models.rrdbnet import NEGATIVE_SLOPE, RRDB
from esrgan.weights import GeneratorFile

Run = Callable[[], Tensor]
Skips = Sequence[tuple[Tensor, float]]  # the result so far is multiplied by the factor and added to the tensor

# Largest difference from the plain network. Rounding in another order changes float16 outputs in [0, 1] by about a
# level of 8 bits (0.003 with 23 blocks on a CPU); a lost bias, skip or edge changes them by far more.
TOLERANCES = {torch.float16: 0.02, torch.float32: 1e-4}
COPIED_IMAGES = 8  # that "copies" upscales one after the other
# After these errors, CUDA refuses everything else in the process.
STICKY_ERRORS = ("illegal memory access", "unspecified launch failure", "misaligned address", "illegal instruction")


@dataclass(frozen=True)
class Case:
    """An input and the network to upscale it with."""

    file: GeneratorFile
    low: Tensor  # (B, 3, H, W) in [0, 1] in the precision of the comparison, channels_last
    strip_pixels: int

    def build(self, dtype: torch.dtype | None = None) -> RRDBNet:
        """Return a new network on the device, in the precision of the input unless another one is given."""
        network = self.file.build().eval().requires_grad_(False)
        assert isinstance(network, RRDBNet)  # noqa: S101  what the buffers are written for
        return network.to(self.low.device, dtype or self.low.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


# The network as it is


def plain(case: Case) -> Run:
    """Return the forward pass of the whole network in channels_last layout."""
    network = case.build()
    return lambda: network(case.low)


def strips(case: Case) -> Run:
    """Return the pass of the package: strips of lines, the trunk in the precision of the input, the rest in float32."""
    network = case.build(torch.float32)
    for layer in network.trunk:
        layer.to(case.low.dtype)
    height, width = case.low.shape[2:]
    dim, low = 2 if height >= width else 3, network.unshuffle(case.low.float())
    lines = max(case.strip_pixels // low.shape[5 - dim], 1)

    def run() -> Tensor:
        parts = upscale_strips(network, low.split(lines, dim), dim, lines, (len(low), *low.shape[2:]))
        return torch.cat([part for part, _ in parts if part is not None], dim)

    return run


# Buffers instead of concatenations


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Return a 3×3 convolution without bias, in a tensor of its own.

    cuDNN could write it to some channels of a buffer, but PyTorch caches cuDNN's plans without the strides of the
    output. One made for such a buffer would later be used for contiguous outputs, and write outside them.
    """
    if not x.is_cuda:
        return F.conv2d(x, weight, padding=1)
    one = (1, 1)  # padding, stride and dilation; then groups, benchmark, deterministic and TF32
    return torch.cudnn_convolution(x, weight, one, one, one, 1, True, False, True)


class Layer:
    """A convolution with all that follows it, by single operations of PyTorch.

    Args:
        conv: The convolution.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        assert conv.bias is not None  # noqa: S101  tells the type checker
        self.weight, self.bias = conv.weight, conv.bias

    @staticmethod
    def allocate(batch: int, channels: int, height: int, width: int, like: Tensor) -> Tensor:
        """Return memory for an image (B, C, H, W)."""
        return like.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)

    def __call__(
        self, x: Tensor, out: Tensor | None = None, activate: bool = False, skips: Skips = (), upsampling: int = 1
    ) -> Tensor:
        """Convolve, add the bias, activate, add the skips, and write the result to ``out`` or a new tensor."""
        if upsampling > 1:
            x = F.interpolate(x, scale_factor=upsampling, mode="nearest")
        y = convolve(x, self.weight)
        return self.finish(y, y if out is None else out, activate, skips)

    def finish(self, y: Tensor, out: Tensor, activate: bool, skips: Skips) -> Tensor:
        """Add the bias and what follows it to a convolution's result, which may be overwritten."""
        y += self.bias[:, None, None]
        if activate:
            return torch.ops.aten.leaky_relu.out(y, NEGATIVE_SLOPE, out=out)
        for skip, scale in skips:
            torch.add(skip, y, alpha=scale, out=y)
        return y if y is out else out.copy_(y)


class FinishingLayer(Layer):
    """A convolution by cuDNN, and one Triton kernel for all that follows it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.kernels = importlib.import_module("gpu_kernels")
        self.padded_bias = F.pad(self.bias, (0, self.kernels.pad_channels(len(self.bias)) - len(self.bias)))

    def finish(self, y: Tensor, out: Tensor, activate: bool, skips: Skips) -> Tensor:
        """Do the same as ``Layer``."""
        return self.kernels.finish(y, self.padded_bias, out, activate=activate, skips=skips)  # type: ignore[no-any-return]


class FusedLayer(FinishingLayer):
    """One Triton kernel for the convolution and all that comes before and follows it.

    Its inputs and outputs have borders of zeros, so outputs are allocated once.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.matrix = self.kernels.pack_weight(self.weight)
        self.out: Tensor | None = None

    @staticmethod
    def allocate(batch: int, channels: int, height: int, width: int, like: Tensor) -> Tensor:
        """Return memory for an image (B, C, H, W)."""
        return importlib.import_module("gpu_kernels").allocate(batch, channels, height, width, like)  # type: ignore[no-any-return]

    def __call__(
        self, x: Tensor, out: Tensor | None = None, activate: bool = False, skips: Skips = (), upsampling: int = 1
    ) -> Tensor:
        """Do the same as ``Layer``; without ``out`` the result is overwritten by the next call."""
        if out is None and self.out is None:
            height, width = (upsampling * length for length in x.shape[2:])
            self.out = self.allocate(len(x), len(self.weight), height, width, x)
        return self.kernels.convolve(  # type: ignore[no-any-return]
            x,
            self.matrix,
            self.padded_bias,
            self.out if out is None else out,
            activate=activate,
            skips=skips,
            upsampling=upsampling,
        )


class Buffers:
    """The forward pass with one buffer per dense block of an RRDB, in which each layer writes behind what it reads.

    A buffer holds the input of a dense block and the outputs of its layers, which other networks concatenate before
    each layer. The buffers take turns: the last layer of a dense block writes to the next one, and that of the last
    dense block to the first one. Skips are read where they are.

    Args:
        case: The input and its network, which upsamples by repeating pixels.
        layer: What computes a convolution and all that follows it.
    """

    def __init__(self, case: Case, layer: type[Layer]) -> None:
        self.network, self.low = case.build(), case.low
        assert not self.network.use_subpixel_conv  # noqa: S101
        self.layers = {each: layer(each) for each in self.network.modules() if isinstance(each, nn.Conv2d)}
        self.channels = self.network.conv_first.out_channels
        folded = self.network.unshuffle(self.low)
        widths = [dense.convs[-1].in_channels for dense in next(self.network.body.children()).children()]
        self.folded, *self.buffers = (
            layer.allocate(len(folded), channels, *folded.shape[2:], folded) for channels in (folded.shape[1], *widths)
        )

    def __call__(self) -> Tensor:
        """Upscale the input."""
        network, layers = self.network, self.layers
        shallow = layers[network.conv_first](self.folded.copy_(network.unshuffle(self.low)))
        trunk = self.buffers[0][:, : self.channels]
        trunk.copy_(shallow)
        for block in network.body:
            self._run_block(block)
        x = layers[network.conv_body](trunk, skips=[(shallow, 1.0)])
        for i in range(network.num_upsamplings):
            x = layers[network.get_submodule(f"conv_up{i + 1}")](x, activate=True, upsampling=2)
        high = layers[network.conv_last](layers[network.conv_hr](x, activate=True))
        return high[..., : self.low.shape[2] * network.scale_factor, : self.low.shape[3] * network.scale_factor]

    def _run_block(self, block: RRDB) -> None:
        """Replace the first channels of the first buffer by the output of an RRDB."""
        following = [*self.buffers[1:], self.buffers[0]]
        last_dense = list(block.children())[-1]
        for dense, buffer, target in zip(block.children(), self.buffers, following, strict=True):
            *convs, last = dense.convs
            for conv in convs:
                end = conv.in_channels
                out = buffer[:, end : end + conv.out_channels]
                self.layers[conv](buffer[:, :end], out, activate=True)
            skips = [(buffer[:, : self.channels], dense.residual_scaling)]
            if dense is last_dense:
                skips.append((target[:, : self.channels], block.residual_scaling))
            self.layers[last](buffer, target[:, : self.channels], skips=skips)


def buffered(layer: type[Layer]) -> Callable[[Case], Run]:
    """Return a maker of passes with buffers."""
    return lambda case: Buffers(case, layer)


# Ways to run a pass


def searched(make: Callable[[Case], Run]) -> Callable[[Case], Run]:
    """Have cuDNN try its algorithms at the first pass."""

    def make_searched(case: Case) -> Run:
        run = make(case)

        def run_searched() -> Tensor:
            with benchmark_convolutions(case.low.device):
                return run()

        return run_searched

    return make_searched


def graphed(make: Callable[[Case], Run]) -> Callable[[Case], Run]:
    """Capture a pass as a CUDA graph, which is launched as a whole."""

    def make_graphed(case: Case) -> Run:
        run, stream = make(case), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), benchmark_convolutions(case.low.device):
            for _ in range(2):  # compiles and tries what must not happen while the graph is captured
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with benchmark_convolutions(case.low.device), torch.cuda.graph(graph):
            high = run()

        def replay(_: Run = run) -> Tensor:  # keeps the weights, whose memory the graph reads
            graph.replay()
            return high

        return replay

    return make_graphed


def compiled(mode: str) -> Callable[[Case], Run]:
    """Compile the plain network for the shape of the input."""

    def make_compiled(case: Case) -> Run:
        torch._dynamo.reset()
        network = torch.compile(case.build(), mode=mode, dynamic=False)
        return lambda: network(case.low)

    return make_compiled


def one_by_one(make: Callable[[Case], Run]) -> Callable[[Case], Run]:
    """Upscale the images of a batch one after the other, each from the same place."""

    def make_each(case: Case) -> Run:
        place = case.low[:1].clone(memory_format=torch.channels_last)
        run = make(Case(case.file, place, case.strip_pixels))

        def run_each() -> Tensor:
            highs = []
            for image in case.low.split(1):
                place.copy_(image)
                highs.append(run().clone())
            return torch.cat(highs)

        return run_each

    return make_each


def copies(*, overlapped: bool) -> Callable[[Case], Run]:
    """Upscale several images from bytes of the host to bytes of the host.

    Overlapped copies use pinned memory, and those of an output a second stream while the next image is computed.
    """

    def make_copies(case: Case) -> Run:
        device, network = case.low.device, case.build()
        pixels = (case.low * 255).round().byte().cpu()
        pixels = pixels.pin_memory() if overlapped else pixels
        places: list[Tensor] = []
        copied = [torch.cuda.Event() for _ in range(2)] if overlapped else []
        stream = torch.cuda.Stream() if overlapped else None

        def upscale() -> Tensor:
            low = pixels.to(device, non_blocking=overlapped).to(case.low.dtype) / 255
            return (network(low).clamp(0, 1) * 255).round().byte()

        def run() -> Tensor:
            if stream is None:
                return [upscale().cpu() for _ in range(COPIED_IMAGES)][-1]
            for i in range(COPIED_IMAGES):
                high = upscale()
                while len(places) < 2:
                    places.append(torch.empty_like(high, device="cpu", pin_memory=True))
                copied[i % 2].synchronize()  # the place is free once its last output has arrived and been used
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    places[i % 2].copy_(high, non_blocking=True)
                    copied[i % 2].record()
                high.record_stream(stream)
            stream.synchronize()
            return places[(COPIED_IMAGES - 1) % 2]

        return run

    return make_copies


@dataclass(frozen=True)
class Variant:
    """A way to upscale.

    Attributes:
        make: Makes it ready for a case.
        needs: "", "cuda" or "triton".
        group: "" for all sizes, "batch" for batches, "compile" for the sizes of --compile.
        images: How many times a run upscales the input.
    """

    make: Callable[[Case], Run]
    needs: str = "cuda"
    group: str = ""
    images: int = 1


# Triton's kernels come late, because one that fails may take the process with it.
VARIANTS = {
    "plain": Variant(plain, ""),
    "plain, searched": Variant(searched(plain)),
    "plain, graph": Variant(graphed(plain)),
    "strips": Variant(strips, ""),
    "strips, searched": Variant(searched(strips)),
    "strips, graph": Variant(graphed(strips)),
    "buffers": Variant(buffered(Layer), ""),
    "buffers, graph": Variant(graphed(buffered(Layer))),
    "one by one": Variant(one_by_one(plain), "", "batch"),
    "one by one, graph": Variant(one_by_one(graphed(plain)), group="batch"),
    "copies": Variant(copies(overlapped=False), "", images=COPIED_IMAGES),
    "copies, overlapped": Variant(copies(overlapped=True), images=COPIED_IMAGES),
    "Triton after cuDNN": Variant(buffered(FinishingLayer), "triton"),
    "Triton after cuDNN, graph": Variant(graphed(buffered(FinishingLayer))),
    "Triton": Variant(buffered(FusedLayer), "triton"),
    "Triton, graph": Variant(graphed(buffered(FusedLayer))),
    "compiled, graph": Variant(compiled("reduce-overhead"), group="compile"),
    "compiled, tuned": Variant(compiled("max-autotune-no-cudagraphs"), group="compile"),
}


def measure(run: Run, device: torch.device, seconds: float) -> float:
    """Return the median time of a run, by the clock of the GPU where there is one."""
    if device.type != "cuda":
        return median_seconds(run, device, seconds)
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        run()
        last.record()
        last.synchronize()
        times.append(first.elapsed_time(last) / 1e3)
    return statistics.median(times)


def make_case(options: argparse.Namespace, size: str, device: torch.device) -> Case:
    """Return the input of a size, WxH or WxHxIMAGES."""
    width, height, images = (*map(int, size.split("x")), 1)[:3]
    low = make_image(width, height * images, device).unflatten(2, (images, height))[0].transpose(0, 1)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    low = ((low * 255).round() / 255).to(dtype).contiguous(memory_format=torch.channels_last)
    return Case(load_generator(options.model), low, options.strip_pixels)


def try_variant(variant: Variant, case: Case, reference: Tensor, seconds: float) -> tuple[float, int, float, float]:
    """Return seconds per upscaled input, bytes of memory, the largest difference, and seconds to be ready.

    Raises:
        ArithmeticError: If the difference is larger than rounding explains.
    """
    device = case.low.device
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    base, began = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0, time.perf_counter()
    run = variant.make(case)
    run()
    high = run()
    synchronize(device)
    ready = time.perf_counter() - began
    tolerance = TOLERANCES[case.low.dtype]
    if high.dtype == torch.uint8:
        high, reference, tolerance = high / 255, reference.clamp(0, 1), tolerance + 0.5 / 255
    error = float((high.float().cpu() - reference).abs().max())
    del high
    if not error <= tolerance:
        raise ArithmeticError(f"differs from plain by {error:.3g}, more than {tolerance:.3g}")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # what trying algorithms and kernels took does not count
    elapsed = measure(run, device, seconds) / variant.images
    memory = torch.cuda.max_memory_allocated(device) - base if device.type == "cuda" else 0
    return elapsed, memory, error, ready


def is_wanted(name: str, size: str, options: argparse.Namespace) -> bool:
    """Return whether a variant has a row for a size."""
    if options.only and name not in options.only:
        return False
    group = VARIANTS[name].group
    return not group or (size in options.compile if group == "compile" else size.count("x") == 2)


def is_possible(variant: Variant, device: torch.device) -> bool:
    """Return whether the device can run a variant."""
    can_interpret = variant.needs == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    return not variant.needs or device.type == "cuda" or can_interpret


def measure_all(work: list[tuple[str, str]], options: argparse.Namespace, device: torch.device) -> int:
    """Print a row for each size and variant in turn, and return how many were tried before CUDA stopped working."""
    peak = measure_peak(device, torch.float16 if device.type == "cuda" else torch.float32, options.measure)
    before, operations = "", 0
    for number, (size, name) in enumerate(work, start=1):
        row, variant = f"| {size} | {name} |", VARIANTS[name]
        if not is_possible(variant, device):
            print(f"{row} needs a GPU |")
            continue
        if time.time() > options.end:
            print(f"{row} not measured, because --seconds were over |", flush=True)
            continue
        try:
            if size != before:
                case = make_case(options, size, device)
                reference, before = plain(case)().float().cpu(), size
                operations = count_operations(case.build(), case.low) * len(case.low)
            seconds, memory, error, ready = try_variant(variant, case, reference, options.measure)
        except Exception as failure:  # also what Triton and the compiler raise
            text = " ".join(str(failure).split())
            print(f"{row} failed: {type(failure).__name__}: {text[:200]} |", flush=True)
            if any(sign in text for sign in STICKY_ERRORS):
                return number
            continue
        rate, used = operations / seconds, f"{memory / 2**30:.2f} GiB" if memory else "–"
        cells = f"{seconds * 1e3:.2f} | {rate / 1e12:.1f} | {rate / peak:.0%} | {used} | {error:.1e} | {ready:.1f}"
        print(f"{row} {cells} |", flush=True)
    return len(work)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="as for the commands (default: %(default)s)")
    parser.add_argument("--model", default="esrgan-full", help="name or file of an RRDBNet (default: %(default)s)")
    sizes = ["256x256", "512x256", "640x480", "64x64x16"]
    parser.add_argument("--sizes", nargs="+", default=sizes, help="WxH, or WxHxIMAGES (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=VARIANTS, metavar="NAME", help=f"variants to run: {'; '.join(VARIANTS)}"
    )
    parser.add_argument(
        "--compile", nargs="*", default=["512x256"], help="sizes at which to compile too (default: %(default)s)"
    )
    parser.add_argument(
        "--strip-pixels",
        type=int,
        default=tiling.GPU_STRIP_PIXELS,
        help="low-resolution pixels in a strip of the package (default: %(default)s)",
    )
    parser.add_argument("--measure", type=float, default=0.5, help="seconds for each row (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=420, help="begin no row after that (default: %(default)s)")
    parser.add_argument("--end", type=float, help=argparse.SUPPRESS)  # the time at which --seconds are over
    parser.add_argument("--begin", type=int, default=0, help=argparse.SUPPRESS)  # rows that another process printed
    return parser


def main() -> None:
    """Measure all variants at all sizes."""
    options = make_parser().parse_args()
    options.end = options.end or time.time() + options.seconds
    device = select_device(options.device)
    if not options.begin:
        is_cuda = device.type == "cuda"
        hardware = torch.cuda.get_device_name(device) if is_cuda else f"CPU, {torch.get_num_threads()} threads"
        print(f"{hardware}; PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}\n")
        print("| input | variant | median ms | TFLOP/s | share | memory | largest error | ready s |")
        print("|---|---|--:|--:|--:|--:|--:|--:|", flush=True)
    work = [(size, name) for size in options.sizes for name in VARIANTS if is_wanted(name, size, options)]
    work.sort(key=lambda each: VARIANTS[each[1]].group == "compile")  # what takes long comes last
    with torch.inference_mode():
        done = options.begin + measure_all(work[options.begin :], options, device)
    if done < len(work):  # the rest needs a process in which CUDA works
        command = [sys.executable, __file__, *sys.argv[1:], "--begin", str(done), "--end", str(options.end)]
        sys.exit(subprocess.call(command))


if __name__ == "__main__":
    main()
