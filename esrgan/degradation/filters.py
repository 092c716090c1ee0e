"""Blur, resizing, noise and sharpening of patches, each with its own parameters and, once resized, its own size."""

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

Size = tuple[int, int]

LUMA = (0.299, 0.587, 0.114)  # of R, G, B; ITU-R BT.601

_USM_TAPS = 51  # Real-ESRGAN's sharpening: its blur …
_USM_SIGMA = 0.3 * ((_USM_TAPS - 1) * 0.5 - 1) + 0.8  # … whose deviation OpenCV takes for so many taps, in px …
_USM_THRESHOLD = 10 / 255  # … the least difference that is sharpened, and how much of it is added
_USM_WEIGHT = 0.5


@dataclass(frozen=True)
class ImageBatch:
    """Images of several sizes in one tensor.

    Attributes:
        pixels: (B, C, H, W) in about [0, 1]; each image is in the upper left corner, and what is beyond it is
            arbitrary.
        sizes: (height, width) of each, at most (H, W).
    """

    pixels: Tensor
    sizes: Sequence[Size]


def to_device_of(values: Tensor, like: Tensor) -> Tensor:
    """Bring a few values to where a tensor is, without waiting for what the device has still to do."""
    return values.to(like.device, non_blocking=True)


def replicate_edges(pixels: Tensor, sizes: Sequence[Size], size: Size) -> Tensor:
    """Give (B, C, *size), in which what is beyond each image repeats its last row and column."""
    ends = to_device_of(torch.tensor(sizes), pixels) - 1
    indices = [torch.arange(length, device=pixels.device).minimum(ends[:, i, None]) for i, length in enumerate(size)]
    return _gather(pixels, indices[0], indices[1])


def _pad_reflect(pixels: Tensor, sizes: Sequence[Size], margin: int) -> Tensor:
    """Give (B, C, margin + H + margin, margin + W + margin), in which each image is mirrored at its edges."""
    ends = to_device_of(torch.tensor(sizes), pixels) - 1
    rows, columns = (_reflected_indices(ends[:, i, None], length, margin) for i, length in enumerate(pixels.shape[-2:]))
    return _gather(pixels, rows, columns)


def _reflected_indices(end: Tensor, length: int, margin: int) -> Tensor:
    """Give the places of what is seen from −margin to length + margin, in a row from 0 to each end (B, 1).

    The edge itself is not repeated (c b | a b c | b a), and short rows are mirrored as often as needed.
    """
    place = torch.arange(-margin, length + margin, device=end.device) % (2 * end).clamp(min=1)
    return place.minimum(2 * end - place)


def _gather(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Take rows (B, R) and columns (B, S) of each image of (B, C, H, W): (B, C, R, S)."""
    batch, channels, _, width = pixels.shape
    pixels = pixels.gather(2, rows[:, None, :, None].expand(batch, channels, -1, width))
    return pixels.gather(3, columns[:, None, None, :].expand(batch, channels, rows.shape[1], -1))


def blur(images: ImageBatch, kernels: Tensor) -> ImageBatch:
    """Blur each image with its own kernel, (B, K, K) float32 with K odd, the same when turned by 180°."""
    height, width = images.pixels.shape[-2:]
    size = kernels.shape[-1]
    bordered = _pad_reflect(images.pixels, images.sizes, size // 2)
    # Large kernels, each for one image, are what convolutions are slow at and Fourier transforms are not.
    shape = [fft.next_fast_len(length, real=True) for length in bordered.shape[-2:]]
    spectrum = torch.fft.rfft2(bordered, shape) * torch.fft.rfft2(to_device_of(kernels, bordered), shape)[:, None]
    blurred = torch.fft.irfft2(spectrum, shape)
    return ImageBatch(blurred[..., size - 1 :, size - 1 :][..., :height, :width], images.sizes)


def resize(images: ImageBatch, sizes: Sequence[Size], modes: Sequence[str], canvas: Size) -> ImageBatch:
    """Resize each image to its own size, as ``torch.nn.functional.interpolate`` does; only "area" is antialiased.

    Args:
        images: To be resized.
        sizes: One for each.
        modes: "area", "bilinear" or "bicubic", one for each.
        canvas: Size of the tensor they are put into. The same for every batch: to meet other shapes at each step
            is slow on GPUs, and lets results depend on which patches are in a batch.
    """
    batch, channels = images.pixels.shape[:2]
    pixels = images.pixels.new_zeros(batch, channels, *canvas)
    # One by one: this is what cannot be done to all at once.
    for i, ((height, width), size, mode) in enumerate(zip(images.sizes, sizes, modes, strict=True)):
        image = images.pixels[i : i + 1, :, :height, :width]
        pixels[i, :, : size[0], : size[1]] = F.interpolate(image, size=size, mode=mode)[0]
    return ImageBatch(pixels, sizes)


def add_noise(images: ImageBatch, noises: Sequence[Noise], generators: Sequence[torch.Generator]) -> ImageBatch:
    """Add to each image its own noise and clip it to [0, 1].

    Args:
        images: RGB or of one channel.
        noises: One for each.
        generators: One for each, on the device of the images.
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
    """Give the noise of counting so many photons at full light as the image has levels, up to a power of 2."""
    if noise.is_gray and len(image) == 3:
        image = sum(weight * channel for weight, channel in zip(LUMA, image, strict=True))[None]
    levels = (image * 255).round().clamp(0, 255)
    is_present = levels.new_zeros(256).index_fill_(0, levels.flatten().long(), 1)
    photons = 2 ** is_present.sum().log2().ceil()
    signal = levels / 255
    return (torch.poisson(signal * photons, generator) / photons - signal) * noise.strength


def sharpen(high: Tensor) -> Tensor:
    """Sharpen images by unsharp masking, where they differ from their blurred selves, as for Real-ESRGAN+.

    Args:
        high: (B, C, H, W) in [0, 1].

    Returns:
        The same shape and range.
    """
    rows, columns = (_usm_blur_matrix(length, high.device, high.dtype) for length in high.shape[-2:])
    detail = high - rows @ high @ columns.T
    mask = rows @ (detail.abs() > _USM_THRESHOLD).to(high.dtype) @ columns.T
    return high.lerp((high + _USM_WEIGHT * detail).clamp(0, 1), mask)


@lru_cache(maxsize=8)
def _usm_blur_matrix(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Give the matrix (length, length) that blurs a row, mirrored at its ends."""
    taps = torch.arange(_USM_TAPS, dtype=torch.float64) - _USM_TAPS // 2
    taps = (-0.5 * (taps / _USM_SIGMA) ** 2).exp()
    indices = _reflected_indices(torch.tensor([[length - 1]]), length, _USM_TAPS // 2)[0].unfold(0, _USM_TAPS, 1)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    return matrix.scatter_add(1, indices, (taps / taps.sum()).expand(length, -1)).to(device, dtype)


def scaled_size(size: Size, factor: float) -> Size:
    """Give the size in whole px after resizing by a factor."""
    height, width = (max(1, math.floor(length * factor)) for length in size)
    return height, width
