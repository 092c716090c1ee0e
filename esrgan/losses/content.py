"""The pixel loss: L1 by default, the paper's choice in both stages (ESRGAN §3.3, §4.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ContentLoss(nn.Module):
    """Mean pixel-wise distance between two images.

    Args:
        loss_f: "l1" for the absolute difference, "l2" or "mse" for the squared difference.
    """

    def __init__(self, loss_f: str = "l1") -> None:
        super().__init__()
        self.distance = {"l1": F.l1_loss, "l2": F.mse_loss, "mse": F.mse_loss}[loss_f]

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the distance between images (B, C, H, W) as a float32 scalar, or float64 for float64 images."""
        return self.distance(at_least_float32(fake), at_least_float32(real))


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32; tensors of float32 and float64 are returned unchanged."""
    return x.float() if x.dtype.itemsize < 4 else x
