"""The generator SRVGGNetCompact, the small network of Real-ESRGAN for video and for fast upscaling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from esrgan.models import winograd
from esrgan.models.generator import Generator

ACTIVATIONS = ("prelu", "relu", "leakyrelu")
NEGATIVE_SLOPE = 0.1  # of "leakyrelu"
INNER_SCALE = 0.3  # of Kaiming's weights that are added to the identity


class SRVGGNetCompact(Generator):
    """A plain sequence of 3×3 convolutions, with the parameter names of BasicSR and Real-ESRGAN.

    All convolutions work at the size of the input, the last one computes the pixels of the output by sub-pixel
    convolution (arXiv 1609.05158), and the input, enlarged by nearest neighbour, is added to them. The defaults define
    realesr-animevideov3 with 621,424 parameters; realesr-general-x4v3 has 32 inner convolutions.

    Args:
        scale_factor: Upscaling factor, 1 or more.
        img_channels: Channels of the image: 1 for grey, 3 for RGB, 4 for RGBA.
        num_feat: Channels of the features.
        num_conv: Number of inner convolutions, besides the first and the last.
        act_type: The activation: "prelu" with one slope per channel, "relu", or "leakyrelu" with slope 0.1.

    Raises:
        ValueError: The scale is below 1, or the activation is unknown.

    Example:
        >>> import torch
        >>> from esrgan.models import SRVGGNetCompact
        >>> network = SRVGGNetCompact(scale_factor=3, num_conv=2)
        >>> network(torch.rand(1, 3, 24, 32)).shape
        torch.Size([1, 3, 72, 96])
    """

    def __init__(
        self,
        scale_factor: int = 4,
        img_channels: int = 3,
        num_feat: int = 64,
        num_conv: int = 16,
        act_type: str = "prelu",
    ) -> None:
        if scale_factor < 1:
            raise ValueError(f"scale_factor: expected 1 or more, got {scale_factor}")
        if act_type not in ACTIVATIONS:
            raise ValueError(f"act_type: expected {', '.join(ACTIVATIONS)}, got {act_type}")
        super().__init__(scale_factor, img_channels, img_channels)
        self.num_feat = num_feat
        self.upsampling = 1  # the features never get larger
        self.body = nn.Sequential(nn.Conv2d(img_channels, num_feat, 3, padding=1), _make_activation(act_type, num_feat))
        for _ in range(num_conv):
            self.body.append(nn.Conv2d(num_feat, num_feat, 3, padding=1))
            self.body.append(_make_activation(act_type, num_feat))
        self.body.append(nn.Conv2d(num_feat, img_channels * scale_factor**2, 3, padding=1))
        self._initialise()

    def _initialise(self) -> None:
        """Initialise the weights so that details reach the last layer.

        Without skip connections, PyTorch's own initialisation leaves nothing of them after ten layers, and Kaiming's
        leaves mostly the brightness. So the first layer's filters have zero mean, the inner layers start near the
        identity (as in arXiv 1706.00388), and the last one with a tenth of Kaiming's weights, which makes the output
        nearly the enlarged input.
        """
        first, *inner, last = (layer for layer in self.body if isinstance(layer, nn.Conv2d))
        if first.weight.is_meta:  # as in RRDBNet
            return
        for name, parameter in self.body.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 4:
                nn.init.kaiming_normal_(parameter, mode="fan_in", nonlinearity="relu")
        with torch.no_grad():
            first.weight -= first.weight.mean((1, 2, 3), keepdim=True)
            for layer in inner:
                layer.weight.mul_(INNER_SCALE)[:, :, 1, 1].fill_diagonal_(1.0)
            last.weight.mul_(0.1)

    @property
    @override
    def trunk(self) -> list[nn.Module]:
        return list(self.body)[1:-1]

    @override
    def forward(self, low: Tensor) -> Tensor:
        x = winograd.to_tiles(low) if winograd.is_suitable(low, self.num_feat) else low
        x = winograd.apply(self.body[-1], self._run_trunk(winograd.apply(self.body[0], x)))
        residual = F.pixel_shuffle(winograd.from_tiles(x), self.scale_factor)
        return F.interpolate(low, scale_factor=self.scale_factor, mode="nearest") + residual


def _make_activation(act_type: str, channels: int) -> nn.Module:
    if act_type == "prelu":
        return nn.PReLU(channels)
    # Not in place, which activation checkpointing does not allow for a layer of the trunk.
    return nn.ReLU() if act_type == "relu" else nn.LeakyReLU(NEGATIVE_SLOPE)
