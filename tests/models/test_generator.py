import math
import warnings

import pytest
import torch
import torch.nn.functional as F

from esrgan.models import RRDBNet
from tests.helpers.networks import images, randomised

TINY = {
    "rrdb_channels": 4,
    "growth_channels": 3,
    "num_basic_blocks": 2,
    "num_dense_blocks": 2,
    "num_residual_blocks": 3,
}
SIZES = [(1, 1), (1, 4), (3, 2), (7, 5), (8, 4)]
UNSHUFFLES = [(1, False), (2, False), (4, False), (8, False), (1, True), (2, True)]  # scale, pixel_unshuffle


def basicsr_names(num_blocks, ups=("conv_up1", "conv_up2")):
    dense = [f"body.{i}.rdb{j}.conv{k}" for i in range(num_blocks) for j in (1, 2, 3) for k in (1, 2, 3, 4, 5)]
    convs = ["conv_first", *dense, "conv_body", *ups, "conv_hr", "conv_last"]
    return [f"{conv}.{kind}" for conv in convs for kind in ("weight", "bias")]


def test_default_generator_matches_the_paper():
    with torch.device("meta"):
        network = RRDBNet()
    assert sum(parameter.numel() for parameter in network.parameters()) == 16_697_987
    state = network.state_dict()
    assert list(state) == basicsr_names(23)
    assert state["conv_first.weight"].shape == (64, 3, 3, 3)
    assert [state[f"body.22.rdb3.conv{k}.weight"].shape for k in (1, 2, 3, 4, 5)] == [
        (32, 64, 3, 3),
        (32, 96, 3, 3),
        (32, 128, 3, 3),
        (32, 160, 3, 3),
        (64, 192, 3, 3),
    ]
    assert state["conv_last.weight"].shape == (3, 64, 3, 3)


@pytest.mark.parametrize(
    ("scale", "unshuffle", "ups", "channels_in"),
    [(1, False, 0, 3), (2, False, 1, 3), (4, False, 2, 3), (8, False, 3, 3), (1, True, 2, 48), (2, True, 2, 12)],
)
@pytest.mark.parametrize("subpixel", [False, True])
def test_other_generators_keep_basicsr_names(scale, unshuffle, ups, channels_in, subpixel):
    with torch.device("meta"):
        network = RRDBNet(scale, num_basic_blocks=2, use_subpixel_conv=subpixel, pixel_unshuffle=unshuffle)
    state = network.state_dict()
    assert list(state) == basicsr_names(2, [f"conv_up{i + 1}" for i in range(ups)])
    assert state["conv_first.weight"].shape == (64, channels_in, 3, 3)
    for i in range(ups):
        assert state[f"conv_up{i + 1}.weight"].shape == (256 if subpixel else 64, 64, 3, 3)


@pytest.mark.parametrize(("scale", "unshuffle"), UNSHUFFLES)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.slow
def test_images_of_any_size_are_upscaled_by_the_scale(scale, unshuffle, channels, subpixel):
    network = RRDBNet(scale, channels, **TINY, use_subpixel_conv=subpixel, pixel_unshuffle=unshuffle).eval()
    for height, width in SIZES:
        with torch.no_grad():
            high = network(images(2, channels, height, width))
        assert high.shape == (2, channels, scale * height, scale * width)
        assert high.dtype == torch.float32


@pytest.mark.parametrize(("scale", "unshuffle"), UNSHUFFLES)
def test_an_empty_batch_is_upscaled_to_an_empty_batch(scale, unshuffle):
    network = RRDBNet(scale, 3, **TINY, pixel_unshuffle=unshuffle)
    assert network(torch.rand(0, 3, 7, 5)).shape == (0, 3, scale * 7, scale * 5)


def expected_output(state, low, *, scale, beta, subpixel, unshuffle):
    """Compute RRDBNet's output without a module, from figure 4 of the paper and the parameter names."""

    def conv(x, name):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def lrelu(x):
        return torch.where(x > 0, x, 0.2 * x)

    height, width = low.shape[-2:]
    x = low
    if unshuffle:
        fold = 4 // scale
        rows = torch.arange(math.ceil(height / fold) * fold).clamp(max=height - 1)
        columns = torch.arange(math.ceil(width / fold) * fold).clamp(max=width - 1)
        x = x[:, :, rows][..., columns]
        x = x.unflatten(3, (-1, fold)).unflatten(2, (-1, fold)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    shallow = x = conv(x, "conv_first")
    for i in range(TINY["num_basic_blocks"]):
        block_input = x
        for j in range(1, TINY["num_dense_blocks"] + 1):
            dense = x
            for k in range(1, TINY["num_residual_blocks"]):
                dense = torch.cat([dense, lrelu(conv(dense, f"body.{i}.rdb{j}.conv{k}"))], 1)
            x = x + beta * conv(dense, f"body.{i}.rdb{j}.conv{TINY['num_residual_blocks']}")
        x = block_input + beta * x
    x = shallow + conv(x, "conv_body")
    for name in [name.removesuffix(".weight") for name in state if name.startswith("conv_up") and "weight" in name]:
        if subpixel:
            x = conv(x, name).unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
        else:
            x = conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), name)
        x = lrelu(x)
    x = conv(lrelu(conv(x, "conv_hr")), "conv_last")
    return x[:, :, : height * scale, : width * scale]


@pytest.mark.parametrize(("scale", "unshuffle"), UNSHUFFLES)
@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.parametrize("beta", [0.2, 0.7])
@pytest.mark.slow
def test_generator_matches_the_paper(scale, unshuffle, subpixel, beta):
    network = RRDBNet(scale, **TINY, residual_scaling=beta, use_subpixel_conv=subpixel, pixel_unshuffle=unshuffle)
    randomised(network).double()
    state = {name: value.detach() for name, value in network.named_parameters()}
    for height, width in [(1, 1), (5, 6), (7, 3)]:
        low = images(2, 3, height, width, seed=height).double()
        kept = low.clone()
        expected = expected_output(state, low, scale=scale, beta=beta, subpixel=subpixel, unshuffle=unshuffle)
        assert expected.std() > 0.1  # the comparison would mean nothing for a constant output
        torch.testing.assert_close(network(low), expected, rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            single = network.float()(low.float())
        torch.testing.assert_close(single, expected.float(), rtol=1e-5, atol=1e-5)
        network.double()
        assert torch.equal(low, kept)


def test_residual_scaling_defaults_to_0_2():
    network = randomised(RRDBNet(**TINY))
    state = {name: value.detach() for name, value in network.named_parameters()}
    low = images(1, 3, 4, 4)
    expected = expected_output(state, low, scale=4, beta=0.2, subpixel=False, unshuffle=False)
    torch.testing.assert_close(network(low), expected, rtol=1e-5, atol=1e-5)


def test_trunk_without_residual_scaling_is_the_identity():
    network = randomised(RRDBNet(**TINY, residual_scaling=0))
    x = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    for dense_block in network.body[0].children():
        assert torch.equal(dense_block(x), x)
    for block in network.body:
        assert torch.equal(block(x), x)
    assert torch.equal(network.body(x), x)


def test_every_parameter_of_the_generator_learns():
    network = randomised(RRDBNet(**TINY))
    network(images(1, 3, 4, 4)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("small_init", "scaled"), [("all", ""), ("trunk", "body.")])
def test_small_init_scales_kaiming_weights_by_a_tenth(small_init, scaled):
    torch.manual_seed(0)
    network = RRDBNet(num_basic_blocks=1, small_init=small_init)
    standardised = []
    for name, parameter in network.named_parameters():
        if name.endswith(".bias"):
            assert not parameter.any(), name
            continue
        fan_in = parameter[0].numel()
        std = math.sqrt(2 / fan_in) * (0.1 if name.startswith(scaled) else 1)
        sampling_error = 1 / math.sqrt(2 * parameter.numel())
        assert abs(parameter.std().item() / std - 1) < 6 * sampling_error, name
        assert abs(parameter.mean().item() / std) < 6 / math.sqrt(parameter.numel()), name
        # The distribution is normal: a uniform one would end at 1.73 standard deviations.
        assert parameter.abs().max() > 3 * std, name
        standardised.append(parameter.flatten() / std)
    together = torch.cat(standardised)
    assert abs(together.std().item() - 1) < 6 / math.sqrt(2 * together.numel())


@pytest.mark.parametrize("plus", [False, True])
def test_generators_are_traced(plus):
    network = randomised(RRDBNet(**TINY, plus=plus)).eval()
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(network, torch.rand(1, 3, 6, 5))
    low = torch.rand(1, 3, 6, 5)
    assert torch.equal(traced(low), network(low))


def test_initialisation_is_small_everywhere_by_default():
    torch.manual_seed(0)
    default = RRDBNet(**TINY).state_dict()
    torch.manual_seed(0)
    small = RRDBNet(**TINY, small_init="all").state_dict()
    assert all(torch.equal(default[name], small[name]) for name in small)


@pytest.mark.parametrize("scale", [0, 3, 5, 32, -4])
def test_generator_rejects_other_scales(scale):
    with pytest.raises(ValueError, match=f"1, 2, 4, 8 or 16, got {scale}"):
        RRDBNet(scale, **TINY)


@pytest.mark.parametrize("scale", [4, 8])
def test_generator_rejects_pixel_unshuffle_above_scale_2(scale):
    with pytest.raises(ValueError, match="scale_factor 1 or 2"):
        RRDBNet(scale, **TINY, pixel_unshuffle=True)


def test_pixel_unshuffle_is_compiled_for_any_size():
    network = randomised(RRDBNet(**TINY | {"scale_factor": 2}, pixel_unshuffle=True)).eval()
    compiled = torch.compile(network, backend="aot_eager")
    for size in ((8, 12), (10, 6), (7, 9)):
        low = torch.rand(1, 3, *size)
        with torch.no_grad():
            assert torch.equal(compiled(low), network(low))
