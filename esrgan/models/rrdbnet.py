"""The generator RRDBNet, a network of residual-in-residual dense blocks (ESRGAN §3.1, arXiv 1809.00219)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from esrgan.models import winograd
from esrgan.models.generator import Generator

# All LeakyReLUs of the generator and the discriminators have this slope in the authors' released code.
NEGATIVE_SLOPE = 0.2
# ESRGAN §3.1 scales Kaiming initialisation down ("smaller initialization"); 0.1 is from the authors' released code.
INIT_SCALE = 0.1


def get_unshuffle_factor(scale_factor: int, pixel_unshuffle: bool | int) -> int:
    """Return by how much ``RRDBNet`` folds its input.

    Raises:
        ValueError: If ``pixel_unshuffle`` is a number other than 2 and 4, or True for a scale above 2.
    """
    if pixel_unshuffle is True and scale_factor > 2:
        raise ValueError(f"pixel_unshuffle: expected scale_factor 1 or 2, got {scale_factor}")
    if not isinstance(pixel_unshuffle, bool) and pixel_unshuffle not in (2, 4):
        raise ValueError(f"pixel_unshuffle: expected true, false, 2 or 4, got {pixel_unshuffle}")
    return 4 // scale_factor if pixel_unshuffle is True else pixel_unshuffle or 1


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


class ResidualDenseBlock(nn.Module):
    """Dense block: each convolution sees the concatenation of the input and all earlier outputs.

    The output of the last convolution is the residual, which is added to the input.

    In ESRGAN+ (arXiv 2001.08073, §3.1) the outputs of the second and the fourth convolution are residuals too: a 1×1
    convolution of the input is added to that of the second, and the result to that of the fourth.

    Args:
        channels: Channels of the input and output.
        growth_channels: Channels that each convolution except the last adds to the concatenation.
        num_residual_blocks: Number of convolutions.
        residual_scaling: β, the factor on the residual before it is added to the input.
        plus: Whether this is a block of ESRGAN+.
    """

    def __init__(
        self, channels: int, growth_channels: int, num_residual_blocks: int, residual_scaling: float, plus: bool
    ) -> None:
        super().__init__()
        self.residual_scaling = residual_scaling
        for k in range(num_residual_blocks):
            is_last = k == num_residual_blocks - 1
            self.add_module(
                f"conv{k + 1}", _conv(channels + k * growth_channels, channels if is_last else growth_channels)
            )
        self.conv1x1 = nn.Conv2d(channels, growth_channels, kernel_size=1, bias=False) if plus else None

    @property
    def convs(self) -> list[nn.Conv2d]:
        """The 3×3 convolutions in their order."""
        return [each for each in self.children() if isinstance(each, nn.Conv2d) and each is not self.conv1x1]

    def pad_kernel1x1(self) -> Tensor:
        """Return the kernel of the 1×1 convolution amid zeros, 3×3, with which strips round as whole images do.

        This is no property, because torch.jit reads all properties, also of blocks without that convolution.
        """
        assert self.conv1x1 is not None  # noqa: S101  tells the type checker
        return F.pad(self.conv1x1.weight, (1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W), or tiles to tiles; see ``winograd``."""
        if x.ndim == 5:
            return torch.add(x, winograd.convolve(x, self.convs, NEGATIVE_SLOPE), alpha=self.residual_scaling)
        *convs, last = self.convs
        features = [x]
        for k, conv in enumerate(convs, start=1):
            feature = F.leaky_relu(conv(torch.cat(features, 1)), NEGATIVE_SLOPE, inplace=True)
            if self.conv1x1 is not None and k in (2, 4):
                feature = feature + (F.conv2d(x, self.pad_kernel1x1(), padding=1) if k == 2 else features[2])
            features.append(feature)
        return torch.add(x, last(torch.cat(features, 1)), alpha=self.residual_scaling)


class RRDB(nn.Module):
    """Residual-in-residual dense block: a sequence of dense blocks whose result is scaled by β and added to the input.

    Args:
        channels: Channels of the input and output.
        growth_channels: Channels that each convolution of a dense block except its last adds to the concatenation.
        num_dense_blocks: Number of dense blocks.
        num_residual_blocks: Number of convolutions in a dense block.
        residual_scaling: β, the scaling factor.
        plus: Whether the dense blocks are those of ESRGAN+.
    """

    def __init__(
        self,
        channels: int,
        growth_channels: int,
        num_dense_blocks: int,
        num_residual_blocks: int,
        residual_scaling: float,
        plus: bool,
    ) -> None:
        super().__init__()
        self.residual_scaling = residual_scaling
        for j in range(num_dense_blocks):
            block = ResidualDenseBlock(channels, growth_channels, num_residual_blocks, residual_scaling, plus)
            self.add_module(f"rdb{j + 1}", block)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W), or tiles to tiles."""
        out = x
        for block in self.children():
            out = block(out)
        return torch.add(x, out, alpha=self.residual_scaling)


class RRDBNet(Generator):
    """The ESRGAN generator, with the parameter names of BasicSR and Real-ESRGAN.

    The defaults define the paper's ×4 network with 16,697,987 parameters.

    Args:
        scale_factor: Upscaling factor: 1, 2, 4, 8 or 16.
        img_channels: Channels of the image: 1 for grey, 3 for RGB, 4 for RGBA.
        rrdb_channels: Channels of the trunk.
        growth_channels: Channels that each convolution of a dense block adds.
        num_basic_blocks: Number of RRDBs.
        num_dense_blocks: Dense blocks per RRDB.
        num_residual_blocks: Convolutions per dense block.
        residual_scaling: β of §3.1.
        use_subpixel_conv: Upsample by convolution to 4× the channels and pixel shuffle (arXiv 1609.05158) instead
            of nearest-neighbour upsampling and convolution.
        pixel_unshuffle: Fold the input into channels and upsample by so much more, so that the trunk processes fewer
            pixels (Real-ESRGAN §4.1, arXiv 2107.10833). True folds by 4 (scale 1) or 2 (scale 2); a number, 2 or 4,
            by itself.
        small_init: Convolutions that start with a tenth of the Kaiming weights: "all", or "trunk" for only those of
            the RRDBs, for which §3.1 motivates it. With "all", the signal also vanishes in the other layers, and
            training needs a few hundred steps to learn the colours.
        plus: Use the dense blocks of ESRGAN+.
        in_channels: Channels of the input; None means ``img_channels``. Some networks colour grey images.

    Raises:
        ValueError: The scale, ``small_init`` or ``pixel_unshuffle`` is not one of the above, or ``pixel_unshuffle`` is
            True for a scale above 2.

    Example:
        >>> import torch
        >>> from esrgan import RRDBNet
        >>> network = RRDBNet(scale_factor=2, num_basic_blocks=1)
        >>> network(torch.rand(1, 3, 24, 32)).shape
        torch.Size([1, 3, 48, 64])
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
        pixel_unshuffle: bool | int = False,
        small_init: str = "all",
        *,
        plus: bool = False,
        in_channels: int | None = None,
    ) -> None:
        if scale_factor not in (1, 2, 4, 8, 16):
            raise ValueError(f"scale_factor: expected 1, 2, 4, 8 or 16, got {scale_factor}")
        if small_init not in ("all", "trunk"):
            raise ValueError(f"small_init: expected all or trunk, got {small_init}")
        factor = get_unshuffle_factor(scale_factor, pixel_unshuffle)
        super().__init__(scale_factor, in_channels or img_channels, img_channels, factor)
        self.use_subpixel_conv = use_subpixel_conv
        self._has_tile_layers = not (use_subpixel_conv or plus)  # of all its layers; see ``winograd``
        self.num_upsamplings = round(math.log2(self.upsampling))

        self.conv_first = _conv(self.in_channels * factor**2, rrdb_channels)
        self.body = nn.Sequential(
            *(
                RRDB(rrdb_channels, growth_channels, num_dense_blocks, num_residual_blocks, residual_scaling, plus)
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
        if self.conv_first.weight.is_meta:  # normal_() of a tensor without data imports PyTorch's compiler: a second
            return
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in")
                with torch.no_grad():
                    if small_init == "all" or name.startswith("body."):
                        module.weight.mul_(INIT_SCALE)
                    if module.bias is not None:
                        module.bias.zero_()

    @property
    @override
    def trunk(self) -> list[nn.Module]:
        return list(self.body)

    @property
    @override
    def upsampling_layers(self) -> list[nn.Module]:
        return [*(self.get_submodule(f"conv_up{i + 1}") for i in range(self.num_upsamplings)), self.conv_hr]

    @override
    def forward(self, low: Tensor) -> Tensor:
        height, width = low.shape[-2:]
        x = self.unshuffle(low)
        if self._has_tile_layers and winograd.is_suitable(x, self.conv_body.in_channels):
            x = winograd.to_tiles(x)
        shallow = winograd.apply(self.conv_first, x)
        # The long skip connection is not scaled by β.
        x = shallow + winograd.apply(self.conv_body, self._run_trunk(shallow))
        for i in range(self.num_upsamplings):
            conv = self.get_submodule(f"conv_up{i + 1}")
            x = F.pixel_shuffle(conv(x), 2) if self.use_subpixel_conv else winograd.apply(conv, winograd.upsample(x))
            x = F.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)
        x = F.leaky_relu(winograd.apply(self.conv_hr, x), NEGATIVE_SLOPE, inplace=True)
        high = winograd.from_tiles(winograd.apply(self.conv_last, x))
        return high[..., : height * self.scale_factor, : width * self.scale_factor]
