"""Upscale an image of any size on a device with limited memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from esrgan.devices import check_gpu_after, exact_float32, is_out_of_memory
from esrgan.errors import DeviceError
from esrgan.inference.direct import SMALL_INPUT_ELEMENTS
from esrgan.inference.streaming import estimate_bytes, upscale_strips
from esrgan.inference.winograd import TILE, Kernels
from esrgan.machine import available_memory
from esrgan.models import Generator

# Limit of low-resolution pixels in a strip on a CPU. The features of such a strip mostly fit into the caches.
CPU_STRIP_PIXELS = 1 << 15
# Least lines of a strip by Winograd's algorithm: a dense block transforms 16 lines more than it computes.
WINOGRAD_STRIP_LINES = 32
# Winograd's algorithm takes longer for smaller images, and for those narrower than a tile. They are computed directly.
WINOGRAD_MIN_PIXELS = 1 << 10
# The limit for a strip on a GPU: enough to keep it busy, while a strip of 23 blocks takes about 2.5 GB.
GPU_STRIP_PIXELS = 1 << 18
# Fraction of the free memory to use; the rest is left for the allocator and for other programs.
MEMORY_FRACTION = 0.6
# Fragmentation makes the tensors that are kept between strips occupy this many times their size; a test measures it.
ALLOCATOR_OVERHEAD = 2.0
# How many low-resolution pixels on each side of a band are computed and then discarded. Only images that are too wide
# for full strips are cut into bands; docs/decisions.md states the error.
BAND_OVERLAP_PX = 64

ProgressCallback = Callable[[float], None]
Finish = Callable[[Tensor], Tensor]


class Part(NamedTuple):
    """A part of the output.

    Attributes:
        pixels: float32 (B, C, h, w), about [0, 1], on the network's device; without lines and on the CPU if only the
            work has advanced. If parts are finished by a function, what that returns for them.
        top: Row of its upper left corner.
        left: Column of its upper left corner.
        done: The fraction of the work on the image that is done, up to 1.
    """

    pixels: Tensor
    top: int
    left: int
    done: float

    def copy_to(self, image: Tensor) -> None:
        """Copy the pixels to their place in a tensor (B, C, H, W)."""
        rows = slice(self.top, self.top + self.pixels.shape[2])
        image[:, :, rows, self.left : self.left + self.pixels.shape[3]] = self.pixels


@dataclass(frozen=True)
class Tiling:
    """How to cut an image: into strips across its longer side and, if necessary, into bands along it.

    Attributes:
        lines: Rows or columns in a strip, counted after pixel unshuffle where the network has it; by Winograd's
            algorithm a multiple of 4.
        bands: The number of bands; 1 processes full strips.
    """

    lines: int
    bands: int = 1


def unfinished(pixels: Tensor) -> Tensor:
    """Return the pixels of a part as they are."""
    return pixels


def upscale_tiled(
    network: Generator,
    low: Tensor,
    peak: float = 1.0,
    kernels: Kernels | None = None,
    finish: Finish = unfinished,
) -> Iterator[Part]:
    """Upscale images in parts, with the same result as for the whole images at once.

    Args:
        network: The generator, on its device. In float32 on a CPU, full strips are bit-identical to the whole image.
        low: (B, C, H, W) in [0, peak], of any type and on any device, with the network's number of channels.
        peak: The value of white.
        kernels: The network's kernels for Winograd's algorithm, to compute by it in float32 on a CPU, except for small
            images. Its results do not depend on the strips either, and differ from the above by rounding only.
        finish: Is applied to the pixels of each part. If that runs out of memory, parts become smaller too.

    Yields:
        The parts of the output. If memory runs out, the work starts again with smaller parts, and parts of the same
        place follow one another; the last of them counts.

    Raises:
        DeviceError: If memory is too small even for the smallest parts, or the GPU has failed.
    """
    # In half precision, TF32 is exact enough for the layers after the trunk.
    is_exact = network.trunk_dtype == torch.float32
    precision = partial(exact_float32, network.device) if is_exact else nullcontext
    parts = _upscale_with_fallbacks(network, low, peak, kernels, finish)
    while True:
        # These apply while a part is computed, and not to what the caller does between two parts.
        with torch.inference_mode(), torch.autocast(network.device.type, enabled=False), precision():
            part = next(parts, None)
        if part is None:
            return
        yield part


def _upscale_with_fallbacks(
    network: Generator, low: Tensor, peak: float, kernels: Kernels | None, finish: Finish
) -> Iterator[Part]:
    """Yield all parts of the output; if memory runs out, start again with smaller parts."""
    height, width = low.shape[2:]
    factor = network.unshuffle_factor
    short_side, long_side = sorted((math.ceil(height / factor), math.ceil(width / factor)))
    if long_side * short_side < WINOGRAD_MIN_PIXELS or short_side < TILE:
        kernels = None
    channels = min(conv.in_channels for conv in _convolutions(network))
    is_small = long_side * short_side * channels <= SMALL_INPUT_ELEMENTS
    is_small = is_small and network.trunk_dtype == torch.float32 and kernels is None
    smallest = 1 if kernels is None else TILE
    tiling = choose_tiling(network, long_side, short_side, kernels)
    while True:
        try:
            if is_small:
                yield Part(finish(network(_read(network, low, peak, slice(None), slice(None)))), 0, 0, 1.0)
            else:
                yield from map(partial(_finish_part, finish), _upscale_tiles(network, low, peak, tiling, kernels))
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                check_gpu_after(error, network.device)
                raise
            out_of_memory = error.with_traceback(None)  # the traceback would keep the tensors in memory
        is_small = False
        if network.device.type == "cuda":
            torch.cuda.empty_cache()
        if tiling.lines > smallest:
            tiling = Tiling(tiling.lines // 2 // smallest * smallest, tiling.bands)
        elif short_side // tiling.bands > BAND_OVERLAP_PX:
            tiling = Tiling(tiling.lines, tiling.bands * 2)
        else:
            raise DeviceError(
                f"{network.device}: not enough memory to upscale {width}×{height} px even in small parts; "
                f"close other programs or use another device"
            ) from out_of_memory


def _finish_part(finish: Finish, part: Part) -> Part:
    return part._replace(pixels=finish(part.pixels))


def _read(network: Generator, low: Tensor, peak: float, rows: slice, columns: slice) -> Tensor:
    """Return a region of an image as float32 in [0, 1] on the network's device."""
    region = low[:, :, rows, columns]
    if network.device.type == "cuda":  # PyTorch would convert on the CPU, and send four times as many bytes
        region = region.to(network.device)
    region = region.to(network.device, torch.float32) / peak
    return region.contiguous(memory_format=torch.channels_last)


def _upscale_tiles(
    network: Generator, low: Tensor, peak: float, tiling: Tiling, kernels: Kernels | None
) -> Iterator[Part]:
    """Yield all parts of the output with one tiling; raise if memory runs out."""
    height, width = low.shape[2:]
    dim = 2 if height >= width else 3
    long_side, short_side = (height, width) if dim == 2 else (width, height)
    factor, scale = network.unshuffle_factor, network.scale_factor
    lines = tiling.lines * factor
    for first, last, padded_first, padded_last in _split_into_bands(short_side, tiling.bands, factor):

        def strips(band: slice = slice(padded_first, padded_last)) -> Iterator[Tensor]:
            for start in range(0, long_side, lines):
                strip = slice(start, min(start + lines, long_side))
                region = (strip, band) if dim == 2 else (band, strip)
                yield network.unshuffle(_read(network, low, peak, *region))

        position, work, total = 0, 0.0, math.ceil(long_side / factor)
        band_size = math.ceil((padded_last - padded_first) / factor)
        shape = (len(low), total, band_size) if dim == 2 else (len(low), band_size, total)
        for part, more in upscale_strips(network, strips(), dim, tiling.lines, shape, kernels):
            work += more
            done = (first + (last - first) * min(work / total, 1.0)) / short_side
            if part is None:
                yield Part(low.new_empty(len(low), network.out_channels, 0, 0, dtype=torch.float32), 0, 0, done)
                continue
            # Lines beyond the true size come from padding for pixel unshuffle; those outside the band are its overlap.
            thickness = min(part.shape[dim], long_side * scale - position)
            inner = part.narrow(5 - dim, (first - padded_first) * scale, (last - first) * scale)
            offset = (position, first * scale) if dim == 2 else (first * scale, position)
            position += thickness
            if position == long_side * scale:  # in spite of rounding
                done = last / short_side
            yield Part(inner.narrow(dim, 0, thickness), *offset, done)


def _split_into_bands(short_side: int, bands: int, factor: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut the shorter side into bands.

    Yields:
        For each band its first pixel and the one after its last, without and then with the overlap.
    """
    size = math.ceil(short_side / bands / factor) * factor
    for first in range(0, short_side, size):
        last = min(first + size, short_side)
        yield first, last, max(0, first - BAND_OVERLAP_PX), min(short_side, last + BAND_OVERLAP_PX)


def choose_tiling(network: Generator, long_side: int, short_side: int, kernels: Kernels | None = None) -> Tiling:
    """Choose the largest strips, and as few bands as possible, that fit into the free memory.

    Args:
        network: The generator, on its device.
        long_side: Longer side of the image, after pixel unshuffle where the network has it.
        short_side: Shorter side, after pixel unshuffle where the network has it.
        kernels: The network's kernels for Winograd's algorithm, if it is used.
    """
    device = network.device
    is_cuda = device.type == "cuda"
    budget = int((_free_gpu_memory(device) if is_cuda else available_memory()) * MEMORY_FRACTION)
    bands, smallest = 1, 1 if kernels is None else TILE
    short_side = math.ceil(short_side / smallest) * smallest  # images are padded to whole tiles
    least = 1 if kernels is None else WINOGRAD_STRIP_LINES
    max_lines = max((GPU_STRIP_PIXELS if is_cuda else CPU_STRIP_PIXELS) // short_side, least)
    while True:
        band = min(math.ceil(short_side / bands) + (bands > 1) * 2 * BAND_OVERLAP_PX, short_side)
        fixed_bytes, line_bytes = estimate_memory(network, band, kernels)
        if fixed_bytes + smallest * line_bytes <= budget or band <= 3 * BAND_OVERLAP_PX:
            lines = min((budget - fixed_bytes) // line_bytes, max_lines, long_side)
            return Tiling(max(lines // smallest, 1) * smallest, bands)
        bands *= 2


def _free_gpu_memory(device: torch.device) -> int:
    """Return how many bytes this process may still allocate on a GPU, which a program can limit to a fraction."""
    allocated = torch.cuda.memory_allocated(device)
    free, total = torch.cuda.mem_get_info(device)
    limit = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return min(free + torch.cuda.memory_reserved(device), limit) - allocated


def subprogress(progress: ProgressCallback, index: int, count: int) -> ProgressCallback:
    """Return a callback that reports the progress of one of ``count`` equal parts of the work to ``progress``."""
    return lambda share: progress((index + share) / count)


def estimate_memory(network: Generator, short_side: int, kernels: Kernels | None = None) -> tuple[int, int]:
    """Estimate the memory that streaming an image needs.

    Args:
        network: The generator.
        short_side: Shorter side of the image or band, after pixel unshuffle where the network has it.
        kernels: The network's kernels for Winograd's algorithm, if it is used.

    Returns:
        Bytes that are kept between strips, and bytes for each line of a strip.
    """
    kept, work = estimate_bytes(network, kernels)
    return int(kept * short_side * ALLOCATOR_OVERHEAD), work * short_side


def _convolutions(network: Generator) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]
