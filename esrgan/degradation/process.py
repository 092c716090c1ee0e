"""The second-order degradation of Real-ESRGAN (§3.2 and §3.3), from HR patches to LR patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esrgan.degradation import filters, settings
from esrgan.degradation.filters import Pictures, Size
from esrgan.degradation.jpeg import compress
from esrgan.degradation.kernels import Kernel
from esrgan.degradation.settings import DrawnRound, Round


@dataclass(frozen=True)
class _Drawn:
    """Everything that is drawn for one patch, but for the noise itself."""

    first: DrawnRound
    second: DrawnRound
    last_mode: str
    last_kernel: Kernel
    is_jpeg_last: bool
    noise_seed: int


class Degradation:
    """Makes LR patches from HR patches: blur, resizing, noise and JPEG, twice, with a sinc filter at the end.

    What happens to a patch is a function of the seed and of its position in the stream of patches: neither batch,
    process nor step matter, but for rounding.

    Args:
        scale: Scale factor.
        seed: Any number of at least 0.
        first: Arguments of ``settings.Round`` for the first round.
        second: The same for the second one, whose resizing starts from the size of the LR patch.
        final_sinc_prob: Chance of the sinc filter at the end.
        gt_usm: Sharpen the HR patches, before they are degraded and for the content and perceptual losses.
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
        self.first = Round(**first)
        self.second = Round(**second)
        self.final_sinc_prob = final_sinc_prob
        self.gt_usm = gt_usm

    @torch.no_grad()
    def __call__(self, high: Tensor, first_position: int) -> tuple[Tensor, Tensor]:
        """Degrade a batch, on the device it is on.

        Args:
            high: HR (B, C, H, W), float32 in [0, 1], of 1 or 3 channels; sides are multiples of the scale.
            first_position: Position of the first patch in the stream; the others follow.

        Returns:
            LR (B, C, H / scale, W / scale), 8-bit levels in [0, 1], and what to make of it: HR (B, C, H, W), sharpened
            if that is set.
        """
        drawn = [self._draw(position) for position in range(first_position, first_position + len(high))]
        generators = [torch.Generator(high.device).manual_seed(each.noise_seed) for each in drawn]
        if self.gt_usm:
            high = filters.sharpened(high)
        high_size: Size = (high.shape[2], high.shape[3])
        low_size: Size = (high.shape[2] // self.scale, high.shape[3] // self.scale)

        pictures = Pictures(high, [high_size] * len(high))
        pictures = _before_jpeg(pictures, self.first, [each.first for each in drawn], high_size, generators)
        pictures = compress(pictures, [each.first.quality for each in drawn])
        pictures = _before_jpeg(pictures, self.second, [each.second for each in drawn], low_size, generators)

        # The last JPEG comes before or after the last resizing with the sinc filter (§3.3).
        is_last = filters.on_device(torch.tensor([each.is_jpeg_last for each in drawn]), high)[:, None, None, None]
        qualities = [each.second.quality for each in drawn]
        compressed = compress(pictures, qualities).pixels
        pictures = Pictures(torch.where(is_last, pictures.pixels, compressed), pictures.sizes)
        pictures = filters.resize(pictures, [low_size] * len(high), [each.last_mode for each in drawn], low_size)
        pictures = filters.blur(pictures, _stack([each.last_kernel for each in drawn]))
        low = torch.where(is_last, compress(pictures, qualities).pixels, pictures.pixels)
        low = (low.clamp(0, 1) * 255).round() / 255
        channels_last = torch.channels_last
        return low.contiguous(memory_format=channels_last), high.contiguous(memory_format=channels_last)

    def _draw(self, position: int) -> _Drawn:
        random = settings.generator(self.seed, position)
        return _Drawn(
            first=self.first.draw(random),
            second=self.second.draw(random),
            last_mode=settings.draw_mode(random),
            last_kernel=settings.draw_final_sinc(random, self.final_sinc_prob),
            is_jpeg_last=random.random() < 0.5,
            noise_seed=int(random.integers(2**63)),
        )


def _before_jpeg(
    pictures: Pictures, chances: Round, drawn: Sequence[DrawnRound], size: Size, generators: Sequence[torch.Generator]
) -> Pictures:
    """Blur, resize and add noise; ``size`` is what the factors of resizing are of."""
    pictures = filters.blur(pictures, _stack([each.kernel for each in drawn]))
    sizes = [filters.resized(size, each.factor) for each in drawn]
    greatest = filters.resized(size, chances.resize_range[1])
    pictures = filters.resize(pictures, sizes, [each.mode for each in drawn], greatest)
    return filters.add_noise(pictures, [each.noise for each in drawn], generators)


def _stack(kernels: Sequence[Kernel]) -> Tensor:
    return torch.from_numpy(np.stack(kernels).astype(np.float32))
