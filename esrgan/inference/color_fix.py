"""Give an upscaled image the colours of its input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA_PX = 8.0  # of the Gaussian that separates coarse colours from details, in pixels of the input


def fix_colors(high: Tensor, low: Tensor, method: str, wraps: tuple[bool, bool]) -> None:
    """Change the colours of an upscaled image, in place.

    Args:
        high: (C, H', W') in [0, 1], float32.
        low: (C, H, W) in [0, 1], its input, float32 on the same device.
        method: "mean" or "low", as for ``UpscaleOptions.color_fix``.
        wraps: Whether the image is repeated horizontally and vertically, as ``UpscaleOptions.wraps``.
    """
    high.clamp_(0, 1)
    if method == "low":
        reduced = F.interpolate(high[None], low.shape[1:], mode="area")
        difference = _blur(low[None] - reduced, wraps)
        high += F.interpolate(difference, high.shape[1:], mode="bilinear")[0]
    for _ in range(3):  # clamping shifts the mean again
        high.clamp_(0, 1)
        high += (low.mean((1, 2), dtype=torch.float64) - high.mean((1, 2), dtype=torch.float64)).float()[:, None, None]
    high.clamp_(0, 1)


def _blur(image: Tensor, wraps: tuple[bool, bool]) -> Tensor:
    channels, radius = image.shape[1], round(3 * SIGMA_PX)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA_PX**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    for is_wrapped in wraps:  # along rows, then along columns
        size = image.shape[3]
        columns = torch.arange(-radius, size + radius, device=image.device)
        columns = columns % size if is_wrapped else columns.clamp(0, size - 1)
        image = F.conv2d(image[..., columns], kernel, groups=channels).transpose(2, 3)
    return image
