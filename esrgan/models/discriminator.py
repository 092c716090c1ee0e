"""The discriminators: VGG style (ESRGAN §3.2, after SRGAN) and U-Net with spectral normalisation (Real-ESRGAN §3.4)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from esrgan.models.rrdbnet import NEGATIVE_SLOPE

# Side in px of the linear layers' input for patches of any size: that of VGG (arXiv 1409.1556), and BasicSR's.
POOLED_SIZE, BASICSR_POOLED_SIZE = 7, 4


class VGGDiscriminator(nn.Module):
    """Discriminator in VGG style, which computes one logit per image of any size.

    The logit is the unbounded C(x) of the relativistic loss.

    Args:
        img_channels: Channels of the image.
        vgg_blk_ch: Output channels of each 3×3 convolution. A convolution that does not change the number of channels
            has stride 2, except the first. The first has a bias and no batch normalisation; the others have batch
            normalisation and no bias.
        fc_features: Widths of the hidden linear layers.
        basicsr: Use the layers of BasicSR, with which ESRGAN was trained: every second convolution is 4×4 with stride
            2, and the linear layers see 4×4 px, which is the whole of a 128 px patch after ten convolutions.
    """

    def __init__(
        self,
        img_channels: int = 3,
        vgg_blk_ch: Sequence[int] = (64, 64, 128, 128, 256, 256, 512, 512),
        fc_features: Sequence[int] = (100,),
        *,
        basicsr: bool = False,
    ) -> None:
        super().__init__()
        self.pooled_size = BASICSR_POOLED_SIZE if basicsr else POOLED_SIZE
        self.features = nn.Sequential()
        for i, (before, after) in enumerate(pairwise([img_channels, *vgg_blk_ch])):
            is_first = i == 0
            is_strided = i % 2 == 1 if basicsr else before == after and not is_first
            kernel_size, stride = 4 if basicsr and is_strided else 3, 2 if is_strided else 1
            conv = nn.Conv2d(before, after, kernel_size, stride, padding=1, bias=is_first)
            layers: list[tuple[str, nn.Module]] = [("conv", conv)]
            if not is_first:
                layers.append(("bn", nn.BatchNorm2d(after)))
            layers.append(("act", nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)))
            self.features.add_module(f"block_{i}", nn.Sequential(OrderedDict(layers)))
        self.head = nn.Sequential()
        widths = [vgg_blk_ch[-1] * self.pooled_size**2, *fc_features]
        for i, (before, after) in enumerate(pairwise(widths)):
            block = OrderedDict(linear=nn.Linear(before, after), act=nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True))
            self.head.add_module(f"block_{i}", nn.Sequential(block))
        self.head.add_module("linear_out", nn.Linear(widths[-1], 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, 1) of images (B, C, H, W) in [0, 1]."""
        pooled = F.adaptive_avg_pool2d(self.features(image), self.pooled_size)
        logits: Tensor = self.head(pooled.flatten(1))
        return logits


class UNetDiscriminator(nn.Module):
    """U-Net discriminator, which computes one logit per pixel and has spectral normalisation on inner convolutions.

    Args:
        img_channels: Channels of the image.
        num_features: Channels at full resolution. They double at each of the three downsampling steps.
    """

    def __init__(self, img_channels: int = 3, num_features: int = 64) -> None:
        super().__init__()
        n = num_features

        def normalised_conv(before: int, after: int, kernel_size: int = 3) -> nn.Module:
            stride = 2 if kernel_size == 4 else 1
            return spectral_norm(nn.Conv2d(before, after, kernel_size, stride, padding=1, bias=False))

        self.conv0 = nn.Conv2d(img_channels, n, kernel_size=3, padding=1)
        self.conv1 = normalised_conv(n, 2 * n, kernel_size=4)
        self.conv2 = normalised_conv(2 * n, 4 * n, kernel_size=4)
        self.conv3 = normalised_conv(4 * n, 8 * n, kernel_size=4)
        self.conv4 = normalised_conv(8 * n, 4 * n)
        self.conv5 = normalised_conv(4 * n, 2 * n)
        self.conv6 = normalised_conv(2 * n, n)
        self.conv7 = normalised_conv(n, n)
        self.conv8 = normalised_conv(n, n)
        self.conv9 = nn.Conv2d(n, 1, kernel_size=3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, 1, H, W) of images (B, C, H, W) in [0, 1] with sides of at least 8 px."""

        def activated(conv: nn.Module, x: Tensor) -> Tensor:
            return F.leaky_relu(conv(x), NEGATIVE_SLOPE, inplace=True)

        def upsampled(x: Tensor, like: Tensor) -> Tensor:
            return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)

        x0 = activated(self.conv0, image)
        x1 = activated(self.conv1, x0)
        x2 = activated(self.conv2, x1)
        x3 = activated(self.conv3, x2)
        x = activated(self.conv4, upsampled(x3, x2)) + x2
        x = activated(self.conv5, upsampled(x, x1)) + x1
        x = activated(self.conv6, upsampled(x, x0)) + x0
        logits: Tensor = self.conv9(activated(self.conv8, activated(self.conv7, x)))
        return logits
