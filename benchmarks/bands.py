"""Measure the error at the seams between bands of very wide images: python benchmarks/bands.py MODEL [OVERLAP_PX …]."""

import sys

import numpy as np
import skimage.data
import torch

from esrgan import load_generator
from esrgan.inference import tiling

network = load_generator(sys.argv[1]).build().requires_grad_(False).to(memory_format=torch.channels_last)
photograph = np.ascontiguousarray(skimage.data.astronaut()[100:300, 150:358])
low = torch.from_numpy(photograph).permute(2, 0, 1)[None].float() / 255


def upscale_in_bands(bands: int) -> torch.Tensor:
    """Upscale the photograph in the given number of bands.

    Returns:
        (1, 3, H, W), integers in [0, 255] as float32.
    """
    high = torch.zeros(1, 3, low.shape[2] * network.scale_factor, low.shape[3] * network.scale_factor)

    tiling.choose_tiling = lambda *_: tiling.Tiling(lines=64, bands=bands)
    for part in tiling.upscale_tiled(network, low):
        part.copy_to(high)
    return (high.clamp(0, 1) * 255).round()


reference = upscale_in_bands(1)
for overlap_px in map(int, sys.argv[2:] or [tiling.BAND_OVERLAP_PX]):
    tiling.BAND_OVERLAP_PX = overlap_px
    error = (upscale_in_bands(2) - reference).abs()
    share = (error > 1).float().mean()
    print(f"overlap {overlap_px} px: largest error {error.max():.0f} levels, {share:.2%} of values off by more than 1")
