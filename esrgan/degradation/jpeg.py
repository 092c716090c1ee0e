"""Simulation of JPEG compression: libjpeg's baseline coding without the lossless entropy coding.

It follows ITU-T T.81 and JFIF 1.02; ``tests/degradation/test_jpeg.py`` compares it with libjpeg.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from esrgan.degradation.filters import ImageBatch, Size, replicate_edges
from esrgan.devices import send
from esrgan.images.samples import LUMA_WEIGHTS

_BLOCK = 8  # px
_MCU = 16  # px; side of a unit of four luma blocks and one block of each chroma channel

# Quantisation steps for quality 50 (ITU-T T.81, tables K.1 and K.2); frequency increases downward and to the right.
# fmt: off
_LUMA_QUANTISATION = (
    16, 11, 10, 16,  24,  40,  51,  61,
    12, 12, 14, 19,  26,  58,  60,  55,
    14, 13, 16, 24,  40,  57,  69,  56,
    14, 17, 22, 29,  51,  87,  80,  62,
    18, 22, 37, 56,  68, 109, 103,  77,
    24, 35, 55, 64,  81, 104, 113,  92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103,  99,
)
_CHROMA_QUANTISATION = (
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    *32 * (99,),
)
# fmt: on


def _chroma_weights() -> list[list[float]]:
    """Return the weights of R, G and B in Cb and Cr: (B − Y) and (R − Y) scaled to ±½ (JFIF 1.02)."""
    rows = []
    for own in (2, 0):
        difference = [(index == own) - weight for index, weight in enumerate(LUMA_WEIGHTS)]
        rows.append([each / (2 * (1 - LUMA_WEIGHTS[own])) for each in difference])
    return rows


_TO_YCC = torch.tensor([list(LUMA_WEIGHTS), *_chroma_weights()], dtype=torch.float64)
_TO_RGB = torch.linalg.inv(_TO_YCC)


def _dct_matrix() -> Tensor:
    """Return the orthonormal DCT of a block as a (64, 64) matrix."""
    frequency, sample = torch.meshgrid(*2 * [torch.arange(_BLOCK, dtype=torch.float64)], indexing="ij")
    rows = torch.cos(math.pi * (2 * sample + 1) * frequency / (2 * _BLOCK)) * math.sqrt(2 / _BLOCK)
    rows[0] /= math.sqrt(2)
    return torch.kron(rows, rows)


_DCT = _dct_matrix()


def compress(images: ImageBatch, qualities: Sequence[int], has_full_chroma: Sequence[bool] = ()) -> ImageBatch:
    """Compress images with JPEG and decompress them.

    Args:
        images: RGB or single-channel images; they are clipped to [0, 1] and rounded to 8 bits first.
        qualities: Quality of each image, 1 to 100, on libjpeg's scale.
        has_full_chroma: For each image whether its chroma has full resolution (4:4:4); by default none has (4:2:0).

    Returns:
        Images of 8-bit levels in [0, 1], with the same sizes.
    """
    height, width = images.pixels.shape[-2:]
    padded_size = (-(-height // _MCU) * _MCU, -(-width // _MCU) * _MCU)
    levels = (images.pixels.clamp(0, 1) * 255).round()
    levels = replicate_edges(levels, images.sizes, padded_size)
    if levels.shape[1] == 1:
        levels = _quantise_dct(levels, _quantisation_steps(_LUMA_QUANTISATION, qualities, levels))
    else:
        colours = _convert_colours(levels, _TO_YCC).round()  # chroma is centred on 0
        y = _quantise_dct(colours[:, :1], _quantisation_steps(_LUMA_QUANTISATION, qualities, levels))
        steps = _quantisation_steps(_CHROMA_QUANTISATION, qualities, levels)
        chroma = _code_halved(colours[:, 1:], steps, images.sizes)
        if any(has_full_chroma):
            is_full = send(torch.tensor(has_full_chroma), levels.device)[:, None, None, None]
            chroma = torch.where(is_full, _quantise_dct(colours[:, 1:] + 128, steps) - 128, chroma)
        levels = _convert_colours(torch.cat((y, chroma), 1), _TO_RGB).round().clamp(0, 255)
    return ImageBatch(levels[..., :height, :width] / 255, images.sizes)


def _code_halved(chroma: Tensor, steps: Tensor, sizes: Sequence[Size]) -> Tensor:
    """Halve, quantise and enlarge chroma (B, 2, H, W), centred on 0, of padded images of these sizes."""
    halves = _round_levels(F.avg_pool2d(chroma + 128, 2).clamp(max=255), 1 / 4, 1 / 2)
    half = (chroma.shape[2] // 2, chroma.shape[3] // 2)
    # The encoder pads to the right before it downsamples the chroma, and downward after that.
    halves = replicate_edges(halves, [((h + 1) // 2, half[1]) for h, _ in sizes], half)
    halves = _quantise_dct(halves, steps) - 128
    # The decoder uses no chroma from outside the image.
    halves = replicate_edges(halves, [((h + 1) // 2, (w + 1) // 2) for h, w in sizes], half)
    return _round_levels(F.interpolate(halves, scale_factor=2, mode="bilinear", align_corners=False), 8 / 16, 7 / 16)


def _convert_colours(images: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the channels of (B, 3, H, W) by a (3, 3) matrix."""
    return (send(matrix.to(images.dtype), images.device) @ images.flatten(2)).view_as(images)


def _round_levels(images: Tensor, even: float, odd: float) -> Tensor:
    """Round (B, C, H, W), W even, to integers like libjpeg: add ``even`` or ``odd`` by column, then round down."""
    return (images + send(torch.tensor([even, odd]), images.device).repeat(images.shape[3] // 2)).floor()


def _quantisation_steps(table: Sequence[int], qualities: Sequence[int], like: Tensor) -> Tensor:
    """Return the quantisation steps (B, 1, 1, 1, 64) for each quality, scaled like in libjpeg."""
    percents = torch.tensor([5000 // quality if quality < 50 else 200 - 2 * quality for quality in qualities])
    steps = ((torch.tensor(table) * percents[:, None] + 50) // 100).clamp(1, 255)
    return send(steps.to(like.dtype), like.device)[:, None, None, None]


def _quantise_dct(planes: Tensor, steps: Tensor) -> Tensor:
    """Quantise the DCT coefficients of planes.

    Args:
        planes: (B, P, H, W) in [0, 255]; H and W are multiples of 8.
        steps: Quantisation steps, (B, 1, 1, 1, 64).

    Returns:
        The decoded planes, in the same shape and range.
    """
    dct = send(_DCT.to(planes.dtype), planes.device)
    batch, count, height, width = planes.shape
    blocks = (planes - 128).reshape(batch, count, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    blocks = blocks.transpose(3, 4).flatten(4)  # (B, P, rows, columns, 64)
    quotients = blocks @ dct.T / steps
    # Halves are common and are rounded away from 0. Rounding them to even, like round(), would reduce contrast.
    coefficients = (quotients.abs() + 0.5).floor() * quotients.sign() * steps
    blocks = (coefficients @ dct).view(*blocks.shape[:4], _BLOCK, _BLOCK).transpose(3, 4)
    return (blocks.reshape(planes.shape) + 128).round().clamp(0, 255)
