import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esrgan.inference.direct import SMALL_INPUT_ELEMENTS
from esrgan.inference.tiling import Tiling
from esrgan.models import SRVGGNetCompact
from tests.helpers.tiling import make_network, upscale_in_parts, upscale_whole


@settings(max_examples=60)
@given(
    height=st.integers(1, 130),
    width=st.integers(1, 130),
    lines=st.integers(1, 140),
    options=st.sampled_from(
        [
            {"scale_factor": 4},
            {"scale_factor": 2, "use_subpixel_conv": True},
            {"scale_factor": 1, "rrdb_channels": 16},
            {"scale_factor": 8, "num_dense_blocks": 1},
            {"scale_factor": 2, "pixel_unshuffle": True, "rrdb_channels": 24},
            {"scale_factor": 1, "pixel_unshuffle": True, "rrdb_channels": 48},
            {"scale_factor": 2, "img_channels": 1, "num_residual_blocks": 3},
            {"scale_factor": 2, "img_channels": 4, "num_basic_blocks": 2},
            {"scale_factor": 1, "residual_scaling": 0.3, "num_residual_blocks": 1},
            {"scale_factor": 4, "plus": True, "num_residual_blocks": 5},
            {"scale_factor": 16},
            {"scale_factor": 4, "pixel_unshuffle": 2, "rrdb_channels": 24},
            {"scale_factor": 1, "in_channels": 1},
        ]
    ),
    seed=st.integers(0, 2**16),
)
@pytest.mark.slow
def test_strips_are_bit_identical_to_the_whole_image(height, width, lines, options, seed):
    network = make_network(**options)
    # Sizes close to the limit below which images are not streamed, and above it.
    enough = SMALL_INPUT_ELEMENTS // (min(network.conv_first.weight.shape[:2]) * height) * network.unshuffle_factor**2
    low = torch.rand(1, network.in_channels, height, max(width, min(enough + 3, 700)))
    high, _ = upscale_in_parts(network, low, Tiling(lines))
    assert torch.equal(high, upscale_whole(network, low))


@settings(max_examples=30)
@given(
    height=st.integers(1, 130),
    width=st.integers(1, 130),
    lines=st.integers(1, 140),
    options=st.sampled_from(
        [
            {"scale_factor": 4, "num_conv": 4},
            {"scale_factor": 3, "num_conv": 0},
            {"scale_factor": 2, "img_channels": 4, "act_type": "relu"},
            {"scale_factor": 1, "img_channels": 1, "act_type": "leakyrelu"},
        ]
    ),
    seed=st.integers(0, 2**16),
)
@pytest.mark.slow
def test_strips_of_compact_networks_are_bit_identical_to_the_whole_image(height, width, lines, options, seed):
    torch.manual_seed(seed)
    network = SRVGGNetCompact(**{"num_feat": 24, "num_conv": 2, **options}).to(memory_format=torch.channels_last)
    low = torch.rand(1, network.in_channels, height, max(width, min(SMALL_INPUT_ELEMENTS // height + 3, 700)))
    high, _ = upscale_in_parts(network, low, Tiling(lines))
    assert torch.equal(high, upscale_whole(network, low))


def test_half_precision_is_used_for_the_trunk_of_compact_networks_only():
    network = SRVGGNetCompact(num_feat=24, num_conv=2)
    low = torch.rand(1, 3, 60, 50)
    whole = upscale_whole(network, low)
    for layer in network.trunk:
        layer.bfloat16()
    assert network.trunk_dtype == torch.bfloat16
    assert network.body[0].weight.dtype == network.body[-1].weight.dtype == torch.float32
    high, _ = upscale_in_parts(network, low, Tiling(9))
    assert high.dtype == torch.float32
    assert 0 < (high - whole).abs().max() < 0.02


@pytest.mark.parametrize("shape", [(300, 40), (40, 300)])
@pytest.mark.slow
def test_an_image_is_cut_across_its_longer_side(shape):
    low, network = torch.rand(1, 3, *shape), make_network()
    high, parts = upscale_in_parts(network, low, Tiling(lines=16))
    assert torch.equal(high, upscale_whole(network, low))
    assert len(parts) > 300 * 4 / 24
    assert {part[shape.index(40)] for part in parts} == {160}
    assert max(part[shape.index(300)] for part in parts) <= 24  # none is much thicker than requested
    # Most parts have the requested thickness.
    assert sum(part[shape.index(300)] == 16 for part in parts) > len(parts) / 2


def test_batches_are_bit_identical_to_the_whole():
    low, network = torch.rand(3, 3, 80, 90), make_network()
    high, parts = upscale_in_parts(network, low, Tiling(lines=7))
    assert torch.equal(high, upscale_whole(network, low))
    assert len(parts) > 1


def test_nothing_is_computed_twice(monkeypatch):
    network, low = make_network(), torch.rand(1, 3, 200, 60)
    computed = []
    convolve = torch.mkldnn_convolution

    def counted(x, weight, bias, *options):
        result = convolve(x, weight, bias, *options)
        computed.append(result.numel() * weight[0].numel())
        return result

    monkeypatch.setattr(torch, "mkldnn_convolution", counted)
    upscale_in_parts(network, low, Tiling(lines=5))
    needed = sum(
        weight.numel() * 200 * 60 * {"conv_up1": 4, "conv_up2": 16, "conv_hr": 16, "conv_last": 16}.get(name[:-7], 1)
        for name, weight in network.named_parameters()
        if weight.ndim == 4
    )
    assert sum(computed) == needed
