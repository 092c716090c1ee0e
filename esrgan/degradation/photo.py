"""What cameras, phones and web sites do to photographs, applied to the LR patches of the datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from esrgan.degradation import filters, kernels, sampling
from esrgan.degradation.filters import ImageBatch, Size
from esrgan.degradation.jpeg import compress
from esrgan.degradation.kernels import Kernel
from esrgan.degradation.sampling import Noise, Range
from esrgan.devices import send

_KERNEL_PX = 9
_LOSSLESS = 100  # stands for no JPEG; what it gives is not used


@dataclass(frozen=True)
class _Jpeg:
    quality: int
    has_full_chroma: bool


@dataclass(frozen=True)
class _SampledPhoto:
    """All parameters drawn for one patch; the noise itself is drawn from ``noise_seed``."""

    earlier_factor: float | None  # size of an earlier JPEG relative to the LR patch
    earlier_jpeg: _Jpeg
    blur: Kernel
    noise: Noise
    sharpening: Kernel
    jpeg: _Jpeg | None
    noise_seed: int


@dataclass(frozen=True)
class PhotoDegradation:
    """Mild degradation of LR patches: an earlier JPEG of larger size, slight blur, noise, sharpening and JPEG.

    Cameras blur, add noise, sharpen and compress; who publishes a photograph resizes it and compresses it again. The
    degradation of a patch depends only on the seed and the position of the patch in the stream. Ranges are (minimum,
    maximum) of uniform distributions.

    Attributes:
        seed: Non-negative seed.
        clean_prob: Probability that a patch stays as it is.
        earlier_jpeg_prob: Probability that the LR patch is made again from HR, compressed at a larger size.
        earlier_factor_range: Size of that one relative to LR, at least 1; at most, it is the size of HR.
        earlier_jpeg_range: Its quality.
        blur_prob: Probability of a Gaussian blur.
        blur_sigma: Its standard deviation in px.
        noise_prob: Probability of Gaussian noise.
        noise_range: Its standard deviation in levels of 255.
        gray_noise_prob: Probability of noise that is the same on all channels.
        sharpen_prob: Probability of unsharp masking.
        sharpen_range: Share of the difference from the blurred patch that is added.
        sharpen_sigma: Standard deviation of that blur in px.
        jpeg_prob: Probability of JPEG at the end.
        jpeg_range: Its quality, 1 to 100.
        full_chroma_prob: Probability that the chroma of a JPEG has full resolution (4:4:4); otherwise 4:2:0.
    """

    seed: int
    clean_prob: float
    earlier_jpeg_prob: float
    earlier_factor_range: Range
    earlier_jpeg_range: tuple[int, int]
    blur_prob: float
    blur_sigma: Range
    noise_prob: float
    noise_range: Range
    gray_noise_prob: float
    sharpen_prob: float
    sharpen_range: Range
    sharpen_sigma: Range
    jpeg_prob: float
    jpeg_range: tuple[int, int]
    full_chroma_prob: float

    @torch.no_grad()
    def __call__(self, high: Tensor, first_position: int, low: Tensor) -> tuple[Tensor, Tensor]:
        """Degrade a batch on its device.

        Args:
            high: HR (B, C, H, W), float32 in [0, 1], with 1 or 3 channels.
            first_position: Position of the first patch in the stream; the other patches follow it.
            low: LR (B, C, h, w), float32 in [0, 1].

        Returns:
            Degraded LR (B, C, h, w), 8-bit levels in [0, 1], and HR as it is.
        """
        size: Size = (low.shape[2], low.shape[3])
        sampled = [self._sample(position) for position in range(first_position, first_position + len(high))]
        generators = [torch.Generator(high.device).manual_seed(each.noise_seed) for each in sampled if each is not None]
        indices = [index for index, each in enumerate(sampled) if each is not None]
        chosen = [each for each in sampled if each is not None]
        if not chosen:
            return low, high
        pixels = torch.cat([_compressed_before(each, high[i], low[i]) for i, each in zip(indices, chosen, strict=True)])
        images = ImageBatch(pixels, [size] * len(chosen))
        images = filters.blur(images, _stack([each.blur for each in chosen]))
        images = filters.add_noise(images, [each.noise for each in chosen], generators)
        images = filters.blur(images, _stack([each.sharpening for each in chosen]))
        pixels = (images.pixels.clamp(0, 1) * 255).round() / 255
        last = [each.jpeg or _Jpeg(_LOSSLESS, False) for each in chosen]
        compressed = _compress(ImageBatch(pixels, images.sizes), last)
        is_compressed = send(torch.tensor([each.jpeg is not None for each in chosen]), low.device)
        result = low.clone()
        result[indices] = torch.where(is_compressed[:, None, None, None], compressed, pixels)
        return result.contiguous(memory_format=torch.channels_last), high

    def _sample(self, position: int) -> _SampledPhoto | None:
        """Draw the parameters of a patch; None leaves it as it is."""
        rng = sampling.patch_rng(self.seed, position)
        if rng.random() < self.clean_prob:
            return None
        has_earlier, factor = rng.random() < self.earlier_jpeg_prob, rng.uniform(*self.earlier_factor_range)
        earlier = self._sample_jpeg(rng, self.earlier_jpeg_range)
        blur = self._sample_gaussian(rng, self.blur_prob, self.blur_sigma)
        is_noisy, strength = rng.random() < self.noise_prob, rng.uniform(*self.noise_range)
        noise = Noise(True, strength if is_noisy else 0.0, rng.random() < self.gray_noise_prob)
        softened = self._sample_gaussian(rng, self.sharpen_prob, self.sharpen_sigma)
        amount = rng.uniform(*self.sharpen_range)
        has_jpeg, jpeg = rng.random() < self.jpeg_prob, self._sample_jpeg(rng, self.jpeg_range)
        return _SampledPhoto(
            factor if has_earlier else None,
            earlier,
            blur,
            noise,
            kernels.pulse(_KERNEL_PX) * (1 + amount) - softened * amount,
            jpeg if has_jpeg else None,
            int(rng.integers(2**63)),
        )

    def _sample_gaussian(self, rng: Generator, prob: float, sigma: Range) -> Kernel:
        """Draw a Gaussian kernel, or with the remaining probability one that leaves images unchanged."""
        drawn, width = rng.random() < prob, rng.uniform(*sigma)
        return kernels.gaussian(_KERNEL_PX, (width, width)) if drawn else kernels.pulse(_KERNEL_PX)

    def _sample_jpeg(self, rng: Generator, quality: tuple[int, int]) -> _Jpeg:
        return _Jpeg(int(rng.integers(*quality, endpoint=True)), rng.random() < self.full_chroma_prob)


def _compressed_before(sampled: _SampledPhoto, high: Tensor, low: Tensor) -> Tensor:
    """Return a patch (1, C, h, w) of LR, made from a JPEG of larger size if one was drawn."""
    if sampled.earlier_factor is None:
        return low[None]
    size: Size = (low.shape[1], low.shape[2])
    rows, columns = filters.scaled_size(size, sampled.earlier_factor)
    larger = (min(rows, high.shape[1]), min(columns, high.shape[2]))
    image = _resize(high[None], larger)
    return _resize(_compress(ImageBatch(image, [larger]), [sampled.earlier_jpeg]), size)


def _compress(images: ImageBatch, settings: Sequence[_Jpeg]) -> Tensor:
    return compress(images, [each.quality for each in settings], [each.has_full_chroma for each in settings]).pixels


def _resize(image: Tensor, size: Size) -> Tensor:
    return F.interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False)


def _stack(each: Sequence[Kernel]) -> Tensor:
    return torch.from_numpy(np.stack(each).astype(np.float32))
