"""Blur, resize, add noise to and sharpen a batch of patches with individual parameters and sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from scipy import fft
from torch import Tensor

from esrgan.degradation.sampling import Noise
from esrgan.devices import send
from esrgan.images.samples import LUMA_WEIGHTS

Size = tuple[int, int]


# Real-ESRGAN's unsharp masking.
_USM_TAPS = 51
_USM_SIGMA = 0.3 * ((_USM_TAPS - 1) * 0.5 - 1) + 0.8  # px; OpenCV's default for this number of taps
_USM_THRESHOLD = 10 / 255  # smaller differences are not sharpened
_USM_WEIGHT = 0.5  # share of the difference that is added


@dataclass(frozen=True)
class ImageBatch:
    """Images of different sizes in one tensor.

    Attributes:
        pixels: (B, C, H, W), approximately in [0, 1]; each image is in the upper left corner, and the pixels outside
            it are arbitrary.
        sizes: (height, width) of each image, at most (H, W).
    """

    pixels: Tensor
    sizes: Sequence[Size]


def replicate_edges(pixels: Tensor, sizes: Sequence[Size], size: Size) -> Tensor:
    """Return (B, C, *size), where the last row and column of each image are repeated outside it."""
    ends = send(torch.tensor(sizes), pixels.device) - 1
    indices = [torch.arange(length, device=pixels.device).minimum(ends[:, i, None]) for i, length in enumerate(size)]
    return _gather(pixels, indices[0], indices[1])


def _pad_reflect(pixels: Tensor, sizes: Sequence[Size], margin: int) -> Tensor:
    """Return (B, C, margin + H + margin, margin + W + margin), where each image is mirrored at its edges."""
    ends = send(torch.tensor(sizes), pixels.device) - 1
    rows, columns = (_reflected_indices(ends[:, i, None], length, margin) for i, length in enumerate(pixels.shape[-2:]))
    return _gather(pixels, rows, columns)


def _reflected_indices(end: Tensor, length: int, margin: int) -> Tensor:
    """Return the indices (B, margin + length + margin) that mirror rows whose last indices are ``end`` (B, 1).

    The edge is not repeated (c b | a b c | b a), and short rows are mirrored several times if necessary.
    """
    index = torch.arange(-margin, length + margin, device=end.device) % (2 * end).clamp(min=1)
    return index.minimum(2 * end - index)


def _gather(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Select the rows (B, R) and columns (B, S) of each image (B, C, H, W), and return (B, C, R, S)."""
    batch, channels, _, width = pixels.shape
    pixels = pixels.gather(2, rows[:, None, :, None].expand(batch, channels, -1, width))
    return pixels.gather(3, columns[:, None, None, :].expand(batch, channels, rows.shape[1], -1))


def blur(images: ImageBatch, kernels: Tensor) -> ImageBatch:
    """Blur each image with its own kernel.

    Args:
        images: Images to blur.
        kernels: (B, K, K) float32, K odd, each symmetric under rotation by 180°.
    """
    height, width = images.pixels.shape[-2:]
    size = kernels.shape[-1]
    bordered = _pad_reflect(images.pixels, images.sizes, size // 2)
    # With large individual kernels, Fourier transforms are faster than convolutions.
    shape = [fft.next_fast_len(length, real=True) for length in bordered.shape[-2:]]
    spectrum = torch.fft.rfft2(bordered, shape) * torch.fft.rfft2(send(kernels, bordered.device), shape)[:, None]
    blurred = torch.fft.irfft2(spectrum, shape)
    return ImageBatch(blurred[..., size - 1 :, size - 1 :][..., :height, :width], images.sizes)


def resize(images: ImageBatch, sizes: Sequence[Size], modes: Sequence[str], canvas: Size) -> ImageBatch:
    """Resize each image to its own size with ``torch.nn.functional.interpolate``; only "area" is antialiased.

    Args:
        images: Images to resize.
        sizes: (height, width) of each result.
        modes: "area", "bilinear" or "bicubic" for each image.
        canvas: (height, width) of the resulting tensor. It should be the same for every batch: changing shapes are
            slow on GPUs, and results would depend on the other patches in the batch.
    """
    batch, channels = images.pixels.shape[:2]
    pixels = images.pixels.new_zeros(batch, channels, *canvas)
    # This step cannot be batched, because interpolate() accepts only one size.
    for i, ((height, width), size, mode) in enumerate(zip(images.sizes, sizes, modes, strict=True)):
        image = images.pixels[i : i + 1, :, :height, :width]
        pixels[i, :, : size[0], : size[1]] = F.interpolate(image, size=size, mode=mode)[0]
    return ImageBatch(pixels, sizes)


def add_noise(images: ImageBatch, noises: Sequence[Noise], generators: Sequence[torch.Generator]) -> ImageBatch:
    """Add individual noise to each image and clip the result to [0, 1].

    Args:
        images: Images with 1 or 3 channels.
        noises: Noise parameters of each image.
        generators: Random generator of each image, on the device of the images.
    """
    pixels = torch.zeros_like(images.pixels)
    for i, ((height, width), noise, generator) in enumerate(zip(images.sizes, noises, generators, strict=True)):
        image = images.pixels[i, :, :height, :width]
        make = _gaussian_noise if noise.is_gaussian else _poisson_noise
        pixels[i, :, :height, :width] = (image + make(image, noise, generator)).clamp(0, 1)
    return ImageBatch(pixels, images.sizes)


def _gaussian_noise(image: Tensor, noise: Noise, generator: torch.Generator) -> Tensor:
    shape = (1 if noise.is_gray else len(image), *image.shape[1:])
    sample = torch.randn(shape, generator=generator, device=image.device, dtype=image.dtype)
    return sample * (noise.strength / 255)


def _poisson_noise(image: Tensor, noise: Noise, generator: torch.Generator) -> Tensor:
    """Return the shot noise of an image.

    The number of photons at full brightness is the number of distinct levels in the image, rounded up to a power of 2.
    """
    if noise.is_gray and len(image) == 3:
        image = sum(weight * channel for weight, channel in zip(LUMA_WEIGHTS, image, strict=True))[None]
    levels = (image * 255).round().clamp(0, 255)
    is_present = levels.new_zeros(256).index_fill_(0, levels.flatten().long(), 1)
    photons = 2 ** is_present.sum().log2().ceil()
    signal = levels / 255
    return (torch.poisson(signal * photons, generator) / photons - signal) * noise.strength


def sharpen(high: Tensor) -> Tensor:
    """Sharpen images by unsharp masking where they differ from their blurred versions, as for Real-ESRGAN+.

    Args:
        high: (B, C, H, W) in [0, 1].

    Returns:
        The sharpened images, in the same shape and range.
    """
    rows, columns = (_usm_blur_matrix(length, high.device, high.dtype) for length in high.shape[-2:])
    detail = high - rows @ high @ columns.T
    mask = rows @ (detail.abs() > _USM_THRESHOLD).to(high.dtype) @ columns.T
    return high.lerp((high + _USM_WEIGHT * detail).clamp(0, 1), mask)


@lru_cache(maxsize=8)
def _usm_blur_matrix(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the matrix (length, length) that blurs a row, which is mirrored at its ends."""
    taps = torch.arange(_USM_TAPS, dtype=torch.float64) - _USM_TAPS // 2
    taps = (-0.5 * (taps / _USM_SIGMA) ** 2).exp()
    indices = _reflected_indices(torch.tensor([[length - 1]]), length, _USM_TAPS // 2)[0].unfold(0, _USM_TAPS, 1)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    return matrix.scatter_add(1, indices, (taps / taps.sum()).expand(length, -1)).to(device, dtype)


def scaled_size(size: Size, factor: float) -> Size:
    """Return the size after resizing by a factor, rounded down to whole px but at least 1."""
    height, width = (max(1, math.floor(length * factor)) for length in size)
    return height, width
