"""The pattern loss, which avoids patterns that repeat with every LR pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from esrgan.losses.content import at_least_float32

BLOCK = 64  # px of the HR image


def pattern_loss(fake: Tensor, real: Tensor, period: int) -> Tensor:
    """Return the L1 distance between the mean colours of two images at each place within an LR pixel.

    A generator computes pixels at different places within an LR pixel by different weights, so it can leave a pattern
    that repeats with every LR pixel, and the perceptual loss may reward it. Such a pattern remains in the means, which
    are over blocks of about 64×64 px, and texture does not.

    Args:
        fake: Output of the generator (B, C, H, W) in [0, 1]. H and W are divisible by the period.
        real: Ground truth.
        period: Side of an LR pixel, in px.

    Returns:
        A float32 scalar, or float64 for float64 images.
    """
    places = F.pixel_unshuffle(at_least_float32(fake) - at_least_float32(real), period)
    rows, columns = (max(1, round(side * period / BLOCK)) for side in places.shape[2:])
    return F.adaptive_avg_pool2d(places, (rows, columns)).abs().mean()
