"""Create a small network, and upscale with it at once or in parts."""

import pytest
import torch

from esrgan.inference import tiling
from esrgan.models import RRDBNet


def make_network(**options):
    torch.manual_seed(0)
    sizes = {"rrdb_channels": 8, "growth_channels": 4, "num_basic_blocks": 1, "small_init": "trunk"} | options
    network = RRDBNet(**sizes).eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)


def upscale_whole(network, low):
    with torch.inference_mode():
        return network(low.contiguous(memory_format=torch.channels_last))


def upscale_in_parts(network, low, chosen=None, kernels=None):
    """Upscale with the chosen tiling, or the automatic one; return the output and the sizes of its parts."""
    scale, parts = network.scale_factor, []
    high = torch.full((len(low), network.out_channels, low.shape[2] * scale, low.shape[3] * scale), torch.nan)

    with pytest.MonkeyPatch.context() as patch:
        if chosen is not None:
            patch.setattr(tiling, "choose_tiling", lambda *_: chosen)
        for part in tiling.upscale_tiled(network, low, kernels=kernels):
            if part.pixels.numel():
                parts.append(tuple(part.pixels.shape[2:]))
            part.copy_to(high)
    return high, parts
