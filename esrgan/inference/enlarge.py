"""Enlarges an image of any size on a device of limited memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn

from esrgan.devices import is_out_of_memory
from esrgan.errors import DeviceError
from esrgan.inference.strips import SMALL_INPUT, stream
from esrgan.models import RRDBNet

# Of low-resolution pixels in a strip on a CPU: what a strip's features take then stays near the caches.
CPU_STRIP_PIXELS = 1 << 15
# Of the free memory, what may be planned for; the rest is the allocator's, and other programs'.
MEMORY_SHARE = 0.6
# What is kept between strips lies scattered over this many times its size; a test measures it.
ALLOCATOR_OVERHEAD = 2.0
# Pixels of the low-resolution image, at either side of a band, that are computed but not used. Only images that are
# too wide for strips across all of them have bands; docs/decisions.md has the error.
BAND_OVERLAP_PX = 64

Read = Callable[[slice, slice], Tensor]
Write = Callable[[Tensor, int, int], None]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class _Plan:
    """How to cut an image: into strips of lines across its longer side, and these, if need be, into bands.

    Lines are those of the folded image, where the network unshuffles pixels.
    """

    lines: int
    bands: int = 1


@torch.inference_mode()
def enlarge(
    network: RRDBNet, height: int, width: int, read: Read, write: Write, progress: Progress = lambda _: None
) -> None:
    """Enlarge an image by parts, exactly as at once.

    Args:
        network: The generator, on its device. In float32 on a CPU the result is that of ``network`` bit for bit.
        height: Of the low-resolution image, in pixels.
        width: Likewise.
        read: Gives some of its rows and columns, as float32 (B, C, h, w) in [0, 1] on the network's device.
        write: Takes a part of the result, float32 (B, C, h, w), about [0, 1], and its row and column. After a lack of
            memory all begins again with smaller parts, so a place may be written more than once.
        progress: Told after each part which share of the image is written, up to 1.

    Raises:
        DeviceError: If there is too little memory even for the smallest parts.
    """
    factor = network.unshuffle_factor
    weight = next(network.body.parameters())  # of the precision that most is computed in
    across, length = sorted((math.ceil(height / factor), math.ceil(width / factor)))
    channels = min(network.conv_first.weight.shape[:2])
    is_small = weight.dtype == torch.float32 and length * across * channels <= SMALL_INPUT
    plan = _plan(network, length, across)
    while True:
        try:
            with torch.autocast(weight.device.type, enabled=False):  # whatever the caller has switched on
                if is_small:
                    write(network(read(slice(0, height), slice(0, width))), 0, 0)
                    progress(1.0)
                else:
                    _pass(network, height, width, read, write, plan, progress)
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            too_much = error.with_traceback(None)  # which would keep what was computed in memory
        is_small = False
        if weight.device.type == "cuda":
            torch.cuda.empty_cache()
        if plan.lines > 1:
            plan = _Plan(plan.lines // 2, plan.bands)
        elif across // plan.bands > BAND_OVERLAP_PX:
            plan = _Plan(plan.lines, plan.bands * 2)
        else:
            raise DeviceError(
                f"{weight.device}: too little memory to enlarge {width}×{height} px even by small parts; "
                f"close other programs, or use another device"
            ) from too_much


def _pass(network: RRDBNet, height: int, width: int, read: Read, write: Write, plan: _Plan, progress: Progress) -> None:
    """Enlarge the image once."""
    dim = 2 if height >= width else 3
    length, across = (height, width) if dim == 2 else (width, height)
    factor, scale = network.unshuffle_factor, network.scale_factor
    lines = plan.lines * factor
    for first, last, wide_first, wide_last in _bands(across, plan.bands, factor):

        def strips(band: slice = slice(wide_first, wide_last)) -> Iterator[Tensor]:
            for start in range(0, length, lines):
                strip = slice(start, min(start + lines, length))
                yield network.fold(read(strip, band) if dim == 2 else read(band, strip))

        position = 0
        for part in stream(network, strips(), dim, plan.lines):
            # What is beyond the true size comes of folding, and what is beyond the band of its overlap.
            thickness = min(part.shape[dim], length * scale - position)
            inner = part.narrow(5 - dim, (first - wide_first) * scale, (last - first) * scale)
            offset = (position, first * scale) if dim == 2 else (first * scale, position)
            write(inner.narrow(dim, 0, thickness), *offset)
            position += thickness
            progress((first + (last - first) * position / (length * scale)) / across)


def _bands(across: int, bands: int, factor: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a width into bands; give each one's first and last pixel, without and with the overlap."""
    size = math.ceil(across / bands / factor) * factor
    for first in range(0, across, size):
        last = min(first + size, across)
        yield first, last, max(0, first - BAND_OVERLAP_PX), min(across, last + BAND_OVERLAP_PX)


def _plan(network: RRDBNet, length: int, across: int) -> _Plan:
    """Choose the strips by the memory that is free now."""
    device = network.conv_first.weight.device
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        budget = int((torch.cuda.mem_get_info(device)[0] + cached) * MEMORY_SHARE)
    else:
        budget = int(psutil.virtual_memory().available * MEMORY_SHARE)
    most = length if device.type == "cuda" else max(CPU_STRIP_PIXELS // across, 1)
    bands = 1
    while True:
        band = min(math.ceil(across / bands) + (bands > 1) * 2 * BAND_OVERLAP_PX, across)
        kept, line = memory_of(network, band)
        if kept + line <= budget or band <= 3 * BAND_OVERLAP_PX:
            lines = max((budget - kept) // line, 1)
            return _Plan(min(lines, most, length), bands)
        bands *= 2


def part_of(progress: Progress, index: int, count: int) -> Progress:
    """Give the progress of one of several equal parts of the work."""
    return lambda share: progress((index + share) / count)


def memory_of(network: RRDBNet, across: int) -> tuple[int, int]:
    """Estimate the memory for streaming an image.

    Args:
        network: The generator.
        across: Shorter side of the image, folded where the network unshuffles pixels.

    Returns:
        Bytes for what is kept between strips, and bytes for each line of a strip.
    """
    weight = next(network.body.parameters())
    sample = weight.element_size()
    channels = network.conv_first.out_channels
    kept_samples = lag = 0
    for block in network.body:
        dense = [
            [conv.in_channels for conv in each.children() if isinstance(conv, nn.Conv2d)] for each in block.children()
        ]
        block_lag = sum(map(len, dense))
        lag += block_lag
        kept_samples += 2 * sum(map(sum, dense))
        # In float32: the skip of the RRDB, and those of its dense blocks.
        kept_samples += 2 * block_lag * channels * 4 // sample
    kept_samples += lag * channels * 4 // sample
    enlarged: int = 2**network.num_upsamplings
    kept_samples += 2 * channels * (2 * enlarged + 2)
    widest = max(each.shape[1] for each in network.parameters() if each.ndim == 4)
    # A window, what is computed from it, and the next window; when enlarging, of twice the lines.
    line_bytes = max(4 * widest * sample, 9 * channels * enlarged * 4)
    return int(kept_samples * across * sample * ALLOCATOR_OVERHEAD), line_bytes * across
