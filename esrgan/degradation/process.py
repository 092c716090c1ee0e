"""The second-order degradation of Real-ESRGAN (§3.2 and §3.3), which makes LR patches from HR patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esrgan.degradation import filters, sampling
from esrgan.degradation.filters import ImageBatch, Size
from esrgan.degradation.jpeg import compress
from esrgan.degradation.kernels import Kernel
from esrgan.degradation.sampling import RoundParameters, SampledRound
from esrgan.devices import send


@dataclass(frozen=True)
class _SampledDegradation:
    """All parameters drawn for one patch; the noise itself is drawn from ``noise_seed``."""

    first: SampledRound
    second: SampledRound
    final_mode: str
    final_kernel: Kernel
    is_jpeg_last: bool
    noise_seed: int


class Degradation:
    """Degradation of HR patches: two rounds of blur, resizing, noise and JPEG, then a sinc filter.

    The degradation of a patch depends only on the seed and the position of the patch in the stream. Batch, process and
    step have no influence except through rounding.

    Args:
        scale: Scale factor.
        seed: Non-negative seed.
        first: Arguments of ``sampling.RoundParameters`` for the first round.
        second: Arguments for the second round, whose resize factors are relative to the size of the LR patch.
        final_sinc_prob: Probability of the final sinc filter.
        gt_usm: Sharpen the HR patches before degrading them, and for the content and perceptual losses.
    """

    def __init__(
        self,
        scale: int,
        seed: int,
        *,
        first: Mapping[str, Any],
        second: Mapping[str, Any],
        final_sinc_prob: float,
        gt_usm: bool,
    ) -> None:
        self.scale = scale
        self.seed = seed
        self.first = RoundParameters(**first)
        self.second = RoundParameters(**second)
        self.final_sinc_prob = final_sinc_prob
        self.gt_usm = gt_usm

    @torch.no_grad()
    def __call__(self, high: Tensor, first_position: int, low: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Degrade a batch on its device.

        Args:
            high: HR (B, C, H, W), float32 in [0, 1], with 1 or 3 channels; H and W are multiples of the scale.
            first_position: Position of the first patch in the stream; the other patches follow it.
            low: LR of the dataset, which is not used.

        Returns:
            LR (B, C, H / scale, W / scale), 8-bit levels in [0, 1], and the target: HR (B, C, H, W), sharpened if
            ``gt_usm`` is set.
        """
        sampled = [self._sample(position) for position in range(first_position, first_position + len(high))]
        generators = [torch.Generator(high.device).manual_seed(each.noise_seed) for each in sampled]
        if self.gt_usm:
            high = filters.sharpen(high)
        high_size: Size = (high.shape[2], high.shape[3])
        low_size: Size = (high.shape[2] // self.scale, high.shape[3] // self.scale)

        images = ImageBatch(high, [high_size] * len(high))
        images = _blur_resize_and_add_noise(images, self.first, [each.first for each in sampled], high_size, generators)
        images = compress(images, [each.first.quality for each in sampled])
        images = _blur_resize_and_add_noise(
            images, self.second, [each.second for each in sampled], low_size, generators
        )

        # The last JPEG comes before or after the last resizing with the sinc filter (§3.3).
        is_last = send(torch.tensor([each.is_jpeg_last for each in sampled]), high.device)[:, None, None, None]
        qualities = [each.second.quality for each in sampled]
        compressed = compress(images, qualities).pixels
        images = ImageBatch(torch.where(is_last, images.pixels, compressed), images.sizes)
        images = filters.resize(images, [low_size] * len(high), [each.final_mode for each in sampled], low_size)
        images = filters.blur(images, _stack([each.final_kernel for each in sampled]))
        low = torch.where(is_last, compress(images, qualities).pixels, images.pixels)
        low = (low.clamp(0, 1) * 255).round() / 255
        channels_last = torch.channels_last
        return low.contiguous(memory_format=channels_last), high.contiguous(memory_format=channels_last)

    def _sample(self, position: int) -> _SampledDegradation:
        rng = sampling.patch_rng(self.seed, position)
        return _SampledDegradation(
            first=self.first.sample(rng),
            second=self.second.sample(rng),
            final_mode=sampling.sample_resize_mode(rng),
            final_kernel=sampling.sample_final_sinc(rng, self.final_sinc_prob),
            is_jpeg_last=rng.random() < 0.5,
            noise_seed=int(rng.integers(2**63)),
        )


def _blur_resize_and_add_noise(
    images: ImageBatch,
    parameters: RoundParameters,
    sampled: Sequence[SampledRound],
    size: Size,
    generators: Sequence[torch.Generator],
) -> ImageBatch:
    """Blur, resize and add noise; the resize factors are relative to ``size``."""
    images = filters.blur(images, _stack([each.kernel for each in sampled]))
    sizes = [filters.scaled_size(size, each.factor) for each in sampled]
    max_size = filters.scaled_size(size, parameters.resize_range[1])
    images = filters.resize(images, sizes, [each.mode for each in sampled], max_size)
    return filters.add_noise(images, [each.noise for each in sampled], generators)


def _stack(kernels: Sequence[Kernel]) -> Tensor:
    return torch.from_numpy(np.stack(kernels).astype(np.float32))
