"""The pixel loss: L1 by default, the paper's choice in both stages (ESRGAN §3.3, §4.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ContentLoss(nn.Module):
    """Mean distance between images, pixel by pixel.

    Args:
        loss_f: "l1" for the absolute difference, "l2" or "mse" for its square.
    """

    def __init__(self, loss_f: str = "l1") -> None:
        super().__init__()
        self.distance = {"l1": F.l1_loss, "l2": F.mse_loss, "mse": F.mse_loss}[loss_f]

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Compare (B, C, H, W) images of any float dtype: a float32 scalar (float64 for float64)."""
        return self.distance(at_least_float32(fake), at_least_float32(real))


def at_least_float32(x: Tensor) -> Tensor:
    """Turn half precision into float32; what is more precise stays."""
    return x.float() if x.dtype.itemsize < 4 else x
