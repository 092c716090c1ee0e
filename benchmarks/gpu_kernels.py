"""Triton kernels for the 3×3 convolutions of RRDBNet, which benchmarks/gpu_variants.py compares with cuDNN.

Images are (B, C, H, W) in channels_last layout, or consecutive channels of such a tensor, so that consecutive pixels
are a constant number of elements apart. Those of ``convolve`` also have the border of zeros that ``allocate`` makes.
With TRITON_INTERPRET=1 the kernels run on a CPU, slowly.
"""

# Triton's compile-time arguments are in capitals by convention.
# ruff: noqa: N803, N806
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from esrgan.models.rrdbnet import NEGATIVE_SLOPE

SLOPE = tl.constexpr(NEGATIVE_SLOPE)
FINISHED_PIXELS = 64  # pixels that one program of ``finish`` handles
MIN_OUTPUTS = 16  # columns that a matrix product has at least

Skips = Sequence[tuple[Tensor, float]]  # each is added to the result so far times its factor


@triton.jit
def _finish_tile(
    total, bias, out, skip1, skip2, pixel, channel, is_stored, out_step, skip1_step, skip2_step, scale1, scale2,
    ACTIVATE: tl.constexpr, SKIPS: tl.constexpr,
):  # fmt: skip
    """Add bias, LeakyReLU and skip connections to a tile (pixels, channels) of a convolution's result, and store it."""
    total += tl.load(bias + channel)[None, :].to(tl.float32)
    if ACTIVATE:
        total = tl.where(total > 0, total, total * SLOPE)
    pixel = pixel.to(tl.int64)[:, None]
    if SKIPS > 0:
        skipped = tl.load(skip1 + pixel * skip1_step + channel[None, :], mask=is_stored, other=0.0)
        total = skipped.to(tl.float32) + scale1 * total
    if SKIPS > 1:
        skipped = tl.load(skip2 + pixel * skip2_step + channel[None, :], mask=is_stored, other=0.0)
        total = skipped.to(tl.float32) + scale2 * total
    tl.store(out + pixel * out_step + channel[None, :], total.to(out.dtype.element_ty), mask=is_stored)


@triton.jit
def _finish_kernel(
    y, bias, out, skip1, skip2, pixels, y_step, out_step, skip1_step, skip2_step, scale1, scale2,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, ACTIVATE: tl.constexpr, SKIPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, PADDED)
    is_stored = (pixel < pixels)[:, None] & (channel < CHANNELS)[None, :]
    total = tl.load(y + pixel.to(tl.int64)[:, None] * y_step + channel[None, :], mask=is_stored, other=0.0)
    _finish_tile(
        total.to(tl.float32), bias, out, skip1, skip2, pixel, channel, is_stored, out_step, skip1_step, skip2_step,
        scale1, scale2, ACTIVATE, SKIPS,
    )  # fmt: skip


@triton.jit
def _convolution_kernel(
    x, weight, bias, out, skip1, skip2, height, width, x_height, x_width, x_step, out_height, out_width, out_step,
    skip1_step, skip2_step, scale1, scale2,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, PADDED: tl.constexpr, UPSAMPLING: tl.constexpr,
    ACTIVATE: tl.constexpr, SKIPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Compute a tile of ROWS × COLUMNS pixels of the output as a product (pixels, 9·inputs) × (9·inputs, outputs).

    STEP is how many input channels of a tap are multiplied at once. Loads and products overlap only in the innermost
    loop, so there is a single one. Computing addresses takes about as long as the products, so as much of it as
    possible is done outside the loop, and the border of zeros saves a comparison for each pixel. ``x_height``,
    ``out_width`` and so on include the border.
    """
    tiles_x, tiles_y = tl.cdiv(width, COLUMNS), tl.cdiv(height, ROWS)
    tile = tl.program_id(0)
    image = tile // (tiles_x * tiles_y)
    offset = tl.arange(0, ROWS * COLUMNS)
    row = tile // tiles_x % tiles_y * ROWS + offset // COLUMNS
    column = tile % tiles_x * COLUMNS + offset % COLUMNS
    pixel = (image * out_height + row).to(tl.int64) * out_width + column
    channel, k = tl.arange(0, PADDED), tl.arange(0, STEP)
    centres = x + (pixel * x_step)[:, None] + k[None, :]
    factors = weight + k[:, None] * PADDED + channel[None, :]
    total = tl.zeros((ROWS * COLUMNS, PADDED), dtype=tl.float32)
    STEPS: tl.constexpr = (INPUTS + STEP - 1) // STEP
    for step in range(9 * STEPS):
        tap, first = step // STEPS, step % STEPS * STEP
        dy, dx = tap // 3 - 1, tap % 3 - 1
        if UPSAMPLING == 1:
            places = centres + ((dy * x_width + dx).to(tl.int64) * x_step + first)
        else:  # rounded down also for -1
            y, z = (row + dy + UPSAMPLING) // UPSAMPLING - 1, (column + dx + UPSAMPLING) // UPSAMPLING - 1
            source = (image * x_height + y).to(tl.int64) * x_width + z
            places = x + (source * x_step + first)[:, None] + k[None, :]
        if INPUTS % STEP == 0:
            inputs = tl.load(places)
            weights = tl.load(factors + (tap * INPUTS + first) * PADDED)
        else:
            is_input = first + k < INPUTS
            inputs = tl.load(places, mask=is_input[None, :], other=0.0)
            weights = tl.load(factors + (tap * INPUTS + first) * PADDED, mask=is_input[:, None], other=0.0)
        total = tl.dot(inputs, weights, total)
    is_stored = ((row < height) & (column < width))[:, None] & (channel < OUTPUTS)[None, :]
    _finish_tile(
        total, bias, out, skip1, skip2, pixel, channel, is_stored, out_step, skip1_step, skip2_step, scale1, scale2,
        ACTIVATE, SKIPS,
    )  # fmt: skip


# Rows and columns of a tile, input channels of a product, warps, and stages of the pipeline.
_TILES = [(8, 16, 32, 4, 5), (8, 16, 64, 4, 3), (8, 32, 64, 8, 3), (16, 16, 32, 8, 3), (16, 16, 64, 8, 3)]
# The output is restored between trials, because it may be a skip.
_tuned_convolution_kernel: Any = triton.autotune(
    [
        triton.Config({"ROWS": rows, "COLUMNS": columns, "STEP": step}, num_warps=warps, num_stages=stages)
        for rows, columns, step, warps, stages in _TILES
    ],
    key=["INPUTS", "OUTPUTS", "UPSAMPLING"],
    restore_value=["out"],
)(_convolution_kernel)


def allocate(batch: int, channels: int, height: int, width: int, like: Tensor) -> Tensor:
    """Return zeros (B, C, H, W) that have a border of zeros, one pixel wide, in the memory around them.

    Below the last image there is room for reading tiles that begin inside it.
    """
    rows = height + 2 + max(tile[0] for tile in _TILES)
    return like.new_zeros(batch, rows, width + 2, channels)[:, 1 : height + 1, 1:-1].permute(0, 3, 1, 2)


def pack_weight(weight: Tensor) -> Tensor:
    """Return the weights (O, I, 3, 3) of a convolution as the matrix (9·I, O) of ``convolve``, padded with zeros."""
    matrix = weight.permute(2, 3, 1, 0).reshape(-1, len(weight))
    return torch.nn.functional.pad(matrix, (0, pad_channels(len(weight)) - len(weight))).contiguous()


def pad_channels(channels: int) -> int:
    """Return the number of channels of a tile, which is a power of 2."""
    return max(triton.next_power_of_2(channels), MIN_OUTPUTS)


def _skip_arguments(out: Tensor, skips: Skips) -> tuple[tuple[Tensor, Tensor], tuple[int, int], tuple[float, float]]:
    (skip1, scale1), (skip2, scale2) = (*skips, (out, 1.0), (out, 1.0))[:2]
    return (skip1, skip2), (skip1.stride(3), skip2.stride(3)), (scale1, scale2)


def finish(y: Tensor, bias: Tensor, out: Tensor, *, activate: bool, skips: Skips) -> Tensor:
    """Write a convolution's result plus bias, activated and added to at most two skip connections, to a tensor.

    Args:
        y: (B, C, H, W).
        bias: (padded C,), see ``pad_channels``.
        out: (B, C, H, W), which may be ``y`` or a skip.
        activate: Whether LeakyReLU follows.
        skips: Tensors (B, C, H, W), and what the result so far is multiplied by before it is added to each.
    """
    pixels = y[:, 0].numel()
    tensors, steps, scales = _skip_arguments(out, skips)
    kernel: Any = _finish_kernel
    kernel[(triton.cdiv(pixels, FINISHED_PIXELS),)](
        y, bias, out, *tensors, pixels, y.stride(3), out.stride(3), *steps, *scales, CHANNELS=y.shape[1],
        PADDED=len(bias), ACTIVATE=activate, SKIPS=len(skips), BLOCK=FINISHED_PIXELS,
    )  # fmt: skip
    return out


def convolve(
    x: Tensor, matrix: Tensor, bias: Tensor, out: Tensor, *, activate: bool, skips: Skips, upsampling: int
) -> Tensor:
    """Upsample an image by repeating pixels, convolve it, and do what ``finish`` does, in one kernel.

    Args:
        x: (B, C, H, W), all or some channels of what ``allocate`` returns.
        matrix: The result of ``pack_weight``.
        bias: As for ``finish``.
        out: (B, C', upsampling·H, upsampling·W), which may be a skip; like ``x``.
        activate: As for ``finish``.
        skips: As for ``finish``; like ``out``.
        upsampling: 1 or 2.
    """
    batch, channels, height, width = out.shape
    tensors, steps, scales = _skip_arguments(out, skips)
    kernel: Any = _tuned_convolution_kernel if x.is_cuda else _convolution_kernel
    fixed = {} if x.is_cuda else {"ROWS": 16, "COLUMNS": 16, "STEP": 32}

    def layout(image: Tensor) -> tuple[int, int, int]:
        return image.stride(0) // image.stride(2), image.stride(2) // image.stride(3), image.stride(3)

    def grid(tile: dict[str, int]) -> tuple[int]:
        return (batch * triton.cdiv(height, tile["ROWS"]) * triton.cdiv(width, tile["COLUMNS"]),)

    kernel[grid](
        x, matrix, bias, out, *tensors, height, width, *layout(x), *layout(out), *steps, *scales, INPUTS=x.shape[1],
        OUTPUTS=channels, PADDED=len(bias), UPSAMPLING=upsampling, ACTIVATE=activate, SKIPS=len(skips), **fixed,
    )  # fmt: skip
    return out
