"""The base class of generators, the networks that upscale."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from esrgan.models import winograd


class Generator(nn.Module):
    """A network that upscales images of any size.

    Args:
        scale_factor: Upscaling factor.
        in_channels: Channels of the input images.
        out_channels: Channels of the output images.
        unshuffle_factor: How many pixels, in each direction, are folded into channels before the first layer.

    Attributes:
        upsampling: How many times larger than the input of the first layer the largest features are.
        activation_checkpointing: Whether training stores only the input of each block of the trunk and recomputes the
            rest in the backward pass.
    """

    def __init__(self, scale_factor: int, in_channels: int, out_channels: int, unshuffle_factor: int = 1) -> None:
        super().__init__()
        self.scale_factor = scale_factor
        self.in_channels, self.out_channels = in_channels, out_channels
        self.unshuffle_factor = unshuffle_factor
        self.upsampling = scale_factor * unshuffle_factor
        self.activation_checkpointing = False

    @property
    def trunk(self) -> list[nn.Module]:
        """The layers in their order that do most of the work and may have half precision, unlike all others."""
        raise NotImplementedError

    @property
    def upsampling_layers(self) -> list[nn.Module]:
        """Convolutions after the trunk that may have bfloat16 as well."""
        return []

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def trunk_dtype(self) -> torch.dtype:
        """The precision of the trunk's weights."""
        return next((weight.dtype for layer in self.trunk for weight in layer.parameters()), torch.float32)

    def unshuffle(self, low: Tensor) -> Tensor:
        """Return the input of the first layer for images (B, C, H, W).

        With an unshuffle factor f it is (B, C·f², ⌈H/f⌉, ⌈W/f⌉). Sizes that are not a multiple of f are padded by
        repeating the last row and column. Without one, the images are returned unchanged.
        """
        factor = self.unshuffle_factor
        if factor == 1:
            return low
        # torch.compile cannot take the remainder of a negative size.
        right, bottom = ((factor - size % factor) % factor for size in (low.shape[3], low.shape[2]))
        padded = F.pad(low, (0, right, 0, bottom), mode="replicate")
        if low.shape[0] == 0:  # PyTorch returns an empty batch unchanged
            batch, channels, height, width = padded.shape
            return padded.reshape(batch, channels * factor**2, height // factor, width // factor)
        return F.pixel_unshuffle(padded, factor)

    def _run_trunk(self, x: Tensor) -> Tensor:
        is_checkpointed = self.activation_checkpointing and torch.is_grad_enabled()
        for layer in self.trunk:
            if is_checkpointed:
                x = checkpoint(winograd.apply, layer, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = winograd.apply(layer, x)
        return x

    def forward(self, low: Tensor) -> Tensor:
        """Upscale images.

        Args:
            low: Images (B, C, H, W) in [0, 1] of any size from 1×1 px, with ``in_channels`` channels.

        Returns:
            Images (B, C', scale·H, scale·W) with ``out_channels`` channels, approximately in [0, 1] but not clamped.
        """
        raise NotImplementedError
