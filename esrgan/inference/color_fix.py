"""Give an upscaled image the colours of its input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA_PX = 8.0  # of the Gaussian that separates coarse colours from details, in pixels of the input


def fix_colors(high: Tensor, low: Tensor, method: str, pad_mode: str = "replicate") -> None:
    """Change the colours of an upscaled image, in place.

    Args:
        high: (C, H', W') in [0, 1], float32.
        low: (C, H, W) in [0, 1], its input, float32 on the same device.
        method: "mean" or "low", as for ``UpscaleOptions.color_fix``.
        pad_mode: How the image continues beyond its edges, as for ``torch.nn.functional.pad``.
    """
    high.clamp_(0, 1)
    if method == "low":
        reduced = F.interpolate(high[None], low.shape[1:], mode="area")
        difference = _blur(low[None] - reduced, pad_mode)
        high += F.interpolate(difference, high.shape[1:], mode="bilinear")[0]
    for _ in range(3):  # clamping shifts the mean again
        high.clamp_(0, 1)
        high += (low.mean((1, 2), dtype=torch.float64) - high.mean((1, 2), dtype=torch.float64)).float()[:, None, None]
    high.clamp_(0, 1)


def _blur(image: Tensor, pad_mode: str) -> Tensor:
    channels, radius = image.shape[1], round(3 * SIGMA_PX)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA_PX**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    for _ in range(2):  # along rows, then along columns
        mode = "replicate" if radius >= image.shape[3] else pad_mode
        padded = F.pad(image, (radius, radius, 0, 0), mode=mode)
        image = F.conv2d(padded, kernel, groups=channels).transpose(2, 3)
    return image
