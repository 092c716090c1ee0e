"""The generator: RRDBNet, residual-in-residual dense blocks (ESRGAN §3.1, arXiv 1809.00219)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NEGATIVE_SLOPE = 0.2  # of every LeakyReLU in the generator and the discriminators, as the authors released them
INIT_SCALE = 0.1  # on Kaiming initialisation, ESRGAN §3.1 "smaller initialization"; 0.1 is the authors' released code


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


class ResidualDenseBlock(nn.Module):
    """Convolutions that each see the concatenation of all earlier outputs; the last one closes the residual.

    Args:
        channels: Channels of the input and output.
        growth_channels: Channels that each convolution but the last adds to the concatenation.
        num_residual_blocks: Number of convolutions.
        residual_scaling: β, the factor on the residual before it is added to the input.
    """

    def __init__(self, channels: int, growth_channels: int, num_residual_blocks: int, residual_scaling: float) -> None:
        super().__init__()
        self.residual_scaling = residual_scaling
        for k in range(num_residual_blocks):
            is_last = k == num_residual_blocks - 1
            self.add_module(
                f"conv{k + 1}", _conv(channels + k * growth_channels, channels if is_last else growth_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        *convs, last = self.children()
        features = [x]
        for conv in convs:
            features.append(F.leaky_relu(conv(torch.cat(features, 1)), NEGATIVE_SLOPE, inplace=True))
        return torch.add(x, last(torch.cat(features, 1)), alpha=self.residual_scaling)


class RRDB(nn.Module):
    """Residual-in-residual dense block: dense blocks in sequence, their residual scaled by β once more."""

    def __init__(
        self,
        channels: int,
        growth_channels: int,
        num_dense_blocks: int,
        num_residual_blocks: int,
        residual_scaling: float,
    ) -> None:
        super().__init__()
        self.residual_scaling = residual_scaling
        for j in range(num_dense_blocks):
            block = ResidualDenseBlock(channels, growth_channels, num_residual_blocks, residual_scaling)
            self.add_module(f"rdb{j + 1}", block)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        out = x
        for block in self.children():
            out = block(out)
        return torch.add(x, out, alpha=self.residual_scaling)


class RRDBNet(nn.Module):
    """The ESRGAN generator. Its parameter names are those of BasicSR and Real-ESRGAN.

    The defaults are the paper's ×4 network with 16,697,987 parameters.

    Args:
        scale_factor: 1, 2, 4 or 8.
        img_channels: Channels of the image: 1 grey, 3 RGB, 4 RGBA.
        rrdb_channels: Channels of the trunk.
        growth_channels: Channels that each convolution of a dense block adds.
        num_basic_blocks: Number of RRDBs.
        num_dense_blocks: Dense blocks in an RRDB.
        num_residual_blocks: Convolutions in a dense block.
        residual_scaling: β of §3.1.
        use_subpixel_conv: Upsample by convolution to 4× the channels and pixel shuffle (arXiv 1609.05158) instead
            of nearest-neighbour enlargement and convolution.
        pixel_unshuffle: For scale 1 and 2: fold the input by 4 or 2 into channels and upsample by 4, so that the
            trunk works on fewer pixels (Real-ESRGAN §4.1, arXiv 2107.10833).
        small_init: Which convolutions begin with a tenth of Kaiming's weights: "all", or "trunk" for those of the
            RRDBs alone, where §3.1 has reason for it. With "all" the signal fades to nothing on its way through the
            other layers too, and a run needs some hundred steps to find the colours.

    Raises:
        ValueError: If the scale is none of the above, or not 1 or 2 with ``pixel_unshuffle``.
    """

    def __init__(
        self,
        scale_factor: int = 4,
        img_channels: int = 3,
        rrdb_channels: int = 64,
        growth_channels: int = 32,
        num_basic_blocks: int = 23,
        num_dense_blocks: int = 3,
        num_residual_blocks: int = 5,
        residual_scaling: float = 0.2,
        use_subpixel_conv: bool = False,
        pixel_unshuffle: bool = False,
        small_init: str = "all",
    ) -> None:
        super().__init__()
        if scale_factor not in (1, 2, 4, 8):
            raise ValueError(f"scale_factor: expected 1, 2, 4 or 8, got {scale_factor}")
        if small_init not in ("all", "trunk"):
            raise ValueError(f"small_init: expected all or trunk, got {small_init}")
        if pixel_unshuffle and scale_factor > 2:
            raise ValueError(f"pixel_unshuffle: expected scale_factor 1 or 2, got {scale_factor}")
        self.scale_factor = scale_factor
        self.use_subpixel_conv = use_subpixel_conv
        self.activation_checkpointing = False  # in training, keep only what goes into an RRDB, and compute it again
        self.unshuffle_factor = 4 // scale_factor if pixel_unshuffle else 1
        self.num_upsamplings = round(math.log2(scale_factor * self.unshuffle_factor))

        self.conv_first = _conv(img_channels * self.unshuffle_factor**2, rrdb_channels)
        self.body = nn.Sequential(
            *(
                RRDB(rrdb_channels, growth_channels, num_dense_blocks, num_residual_blocks, residual_scaling)
                for _ in range(num_basic_blocks)
            )
        )
        self.conv_body = _conv(rrdb_channels, rrdb_channels)
        for i in range(self.num_upsamplings):
            self.add_module(f"conv_up{i + 1}", _conv(rrdb_channels, rrdb_channels * (4 if use_subpixel_conv else 1)))
        self.conv_hr = _conv(rrdb_channels, rrdb_channels)
        self.conv_last = _conv(rrdb_channels, img_channels)
        self._initialise(small_init)

    def _initialise(self, small_init: str) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in")
                assert module.bias is not None  # noqa: S101  every convolution here has one; for the type checker
                with torch.no_grad():
                    if small_init == "all" or name.startswith("body."):
                        module.weight.mul_(INIT_SCALE)
                    module.bias.zero_()

    def unshuffle(self, low: Tensor) -> Tensor:
        """Map images (B, C, H, W) to what the first convolution sees: with ``pixel_unshuffle`` (B, C·f², ⌈H/f⌉, ⌈W/f⌉).

        A size that is not a multiple of the folding f is continued by its last row and column.
        """
        factor = self.unshuffle_factor
        if factor == 1:
            return low
        right, bottom = -low.shape[3] % factor, -low.shape[2] % factor
        return F.pixel_unshuffle(F.pad(low, (0, right, 0, bottom), mode="replicate"), factor)

    def _trunk(self, x: Tensor) -> Tensor:
        if not (self.activation_checkpointing and torch.is_grad_enabled()):
            trunk: Tensor = self.body(x)
            return trunk
        for block in self.body:
            x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
        return x

    def forward(self, low: Tensor) -> Tensor:
        """Enlarge images.

        Args:
            low: (B, C, H, W) in [0, 1], any H and W of at least 1.

        Returns:
            (B, C, scale·H, scale·W), about [0, 1], not clamped.
        """
        height, width = low.shape[-2:]
        shallow = self.conv_first(self.unshuffle(low))
        x = shallow + self.conv_body(self._trunk(shallow))  # the long skip, unscaled
        for i in range(self.num_upsamplings):
            conv = self.get_submodule(f"conv_up{i + 1}")
            if self.use_subpixel_conv:
                x = F.pixel_shuffle(conv(x), 2)
            else:
                x = conv(F.interpolate(x, scale_factor=2, mode="nearest"))
            x = F.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)
        high: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), NEGATIVE_SLOPE, inplace=True))
        return high[..., : height * self.scale_factor, : width * self.scale_factor]
