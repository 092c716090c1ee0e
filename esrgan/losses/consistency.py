"""The consistency loss, which keeps the colours of large areas."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from esrgan.losses.content import at_least_float32

BLOCK = 32  # px of the HR image


def consistency_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Return the L1 distance between the mean colours of two images in blocks of about 32×32 px.

    A side has round(side / 32) blocks, at least one; if it is not divisible, they overlap by a pixel. In a block the
    gradient is nearly the same for all pixels, so it shifts colours and leaves texture as it is.

    traiNNer-redux has such a loss with blocks of 4 px (``averageloss``), and neosr's ``consistency_loss`` compares
    blurred brightness and colour.

    Args:
        fake: Output of the generator (B, C, H, W) in [0, 1].
        real: Ground truth.

    Returns:
        A float32 scalar, or float64 for float64 images.
    """
    difference = at_least_float32(fake) - at_least_float32(real)
    rows, columns = (max(1, round(side / BLOCK)) for side in difference.shape[2:])
    return F.adaptive_avg_pool2d(difference, (rows, columns)).abs().mean()
