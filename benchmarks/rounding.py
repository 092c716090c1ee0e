"""Measure which rounding of half precision matters: that of weights or of features, and in which blocks.

Everything is computed in float32 and rounded explicitly where half precision would round, so it runs on any machine.

    python benchmarks/rounding.py realesrgan-x4plus.param
"""

from __future__ import annotations

import copy
import sys

import skimage
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esrgan import RRDBNet, load_generator
from esrgan.resize import bicubic

BF16, FP16 = torch.bfloat16, torch.float16


def round_to(values: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Round values to a dtype, but keep float32; None does not round."""
    return values if dtype is None else values.to(dtype).float()


def round_keeping_tap_sums(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a weight (O, I, 3, 3), carrying the error of each tap to the next smaller one, to preserve their sum."""
    taps, order = weight.flatten(2).sort(dim=2, descending=True)
    error, result = torch.zeros_like(taps[..., 0]), torch.empty_like(taps)
    for i in range(taps.shape[2]):
        result[..., i] = round_to(taps[..., i] + error, dtype)
        error += taps[..., i] - result[..., i]
    return torch.empty_like(taps).scatter_(2, order, result).view_as(weight)


class RoundedConv2d(nn.Conv2d):
    """A convolution that rounds its input and output."""

    features: torch.dtype | None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        return round_to(F.conv2d(round_to(x, self.features), self.weight, self.bias, padding=1), self.features)


def round_blocks(
    network: RRDBNet,
    weights: torch.dtype | None,
    features: torch.dtype | None,
    blocks: slice = slice(None),
    *,
    keep_sums: bool = False,
) -> RRDBNet:
    """Return a copy of a network whose dense blocks are rounded in the RRDBs selected by ``blocks``."""
    network = copy.deepcopy(network)
    for conv in [each for each in network.body[blocks].modules() if type(each) is nn.Conv2d]:
        if weights is not None:
            conv.weight.data = (round_keeping_tap_sums if keep_sums else round_to)(conv.weight, weights)
            conv.bias.data = round_to(conv.bias, weights)
        conv.__class__ = RoundedConv2d
        conv.features = features
    return network


@torch.inference_mode()
def main() -> None:
    """Print the errors of all variants as a table."""
    network = load_generator(sys.argv[1]).build().eval().requires_grad_(False).to(memory_format=torch.channels_last)
    low = torch.from_numpy(bicubic(skimage.data.astronaut(), 0.25)).movedim(-1, 0)[None].float() / 255
    exact = network(low)
    last = len(network.body) - 4
    variants = {
        "float16": round_blocks(network, FP16, FP16),
        "bfloat16": round_blocks(network, BF16, BF16),
        "bfloat16, weights only": round_blocks(network, BF16, None),
        "bfloat16, features only": round_blocks(network, None, BF16),
        "bfloat16, sums of taps preserved": round_blocks(network, BF16, BF16, keep_sums=True),
        "bfloat16, without the last 4 blocks": round_blocks(network, BF16, BF16, slice(last)),
    }
    print("| rounded | PSNR | largest error | errors above 4 levels |\n|---|--:|--:|--:|")
    for name, coarse in variants.items():
        result = coarse(low)
        psnr = -10 * (result - exact).square().mean().log10()
        levels = ((result.clamp(0, 1) * 255).round() - (exact.clamp(0, 1) * 255).round()).abs()
        print(f"| {name} | {psnr:.1f} | {levels.max():.0f} | {(levels > 4).sum()} |")


if __name__ == "__main__":
    main()
