"""The artefact loss of LDL, which punishes texture where the moving average of the generator does better."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from esrgan.losses.content import at_least_float32

WINDOW = 7  # px, of the local variance
MIN_SIDE = WINDOW // 2 + 1  # px; images are mirrored at their edges
GLOBAL_EXPONENT = 1 / 5
MIN_VARIANCE = 1e-12  # the gradient of the global factor would be infinite at 0


def artifact_loss(fake: Tensor, averaged: Tensor, real: Tensor) -> Tensor:
    """Return the artefact loss L_artif of LDL (arXiv 2203.09195, §3).

    The residual R is the absolute difference of real and fake, summed over the channels. Artefacts are where it varies:
    the map is its variance in windows of 7×7 px, times its variance over the whole image to the power 1/5. It is 0
    where R is smaller than the residual of ``averaged``. The loss is the mean absolute difference of the images, both
    multiplied by the map. As in the authors' code, its gradient also flows through the map.

    Args:
        fake: Output of the generator (B, C, H, W) in [0, 1], with sides of at least 4 px.
        averaged: Output of the averaged generator for the same input.
        real: Ground truth.

    Returns:
        A float32 scalar, or float64 for float64 images.
    """
    fake, averaged, real = at_least_float32(fake), at_least_float32(averaged), at_least_float32(real)
    residual = (real - fake).abs().sum(1, keepdim=True)
    averaged_residual = (real - averaged).abs().sum(1, keepdim=True)
    overall = residual.var((1, 2, 3), keepdim=True).clamp(min=MIN_VARIANCE) ** GLOBAL_EXPONENT
    weight = (overall * _local_variance(residual)).masked_fill(residual < averaged_residual, 0)
    return (weight * fake - weight * real).abs().mean()


def _local_variance(x: Tensor) -> Tensor:
    """Return the unbiased variance of x (B, 1, H, W) in the window around each pixel."""
    padded = F.pad(x, [WINDOW // 2] * 4, mode="reflect")
    mean, mean_square = (F.avg_pool2d(each, WINDOW, stride=1) for each in (padded, padded.square()))
    count = WINDOW**2
    return (mean_square - mean.square()).clamp(min=0) * (count / (count - 1))
