import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from esrgan.models import UNetDiscriminator, VGGDiscriminator
from tests.helpers.networks import images, randomised

# The VGG discriminator


def test_default_vgg_discriminator_has_layers_of_the_earlier_framework():
    with torch.device("meta"):
        network = VGGDiscriminator()
    parameters = dict(network.named_parameters())
    assert set(parameters) == {
        "features.block_0.conv.weight",
        "features.block_0.conv.bias",
        *(f"features.block_{i}.{name}" for i in range(1, 8) for name in ("conv.weight", "bn.weight", "bn.bias")),
        *(f"head.{name}.{kind}" for name in ("block_0.linear", "linear_out") for kind in ("weight", "bias")),
    }
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.stride for conv in convs] == [(1, 1), (2, 2)] * 4
    assert {(conv.kernel_size, conv.padding, conv.dilation, conv.groups) for conv in convs} == {
        ((3, 3), (1, 1), (1, 1), 1)
    }
    assert [conv.out_channels for conv in convs] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert parameters["head.block_0.linear.weight"].shape == (100, 512 * 7 * 7)
    assert parameters["head.linear_out.weight"].shape == (1, 100)
    slopes = {module.negative_slope for module in network.modules() if isinstance(module, nn.LeakyReLU)}
    assert slopes == {0.2}


@pytest.mark.parametrize(("hidden", "names"), [((), []), ((6, 5), ["block_0.linear", "block_1.linear"])])
def test_vgg_discriminator_accepts_any_channels_and_hidden_layers(hidden, names):
    network = VGGDiscriminator(1, (4, 6, 6, 6), hidden)
    strides = [module.stride[0] for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert strides == [1, 1, 2, 2]
    linears = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    assert linears == [f"head.{name}" for name in (*names, "linear_out")]
    assert network(images(2, 1, 17, 20)).shape == (2, 1)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (16, 192), (100, 64), (128, 128), (192, 160)])
@pytest.mark.slow
def test_vgg_discriminator_judges_patches_of_any_size(size):
    network = randomised(VGGDiscriminator(3, (4, 4, 6, 6, 8, 8, 10, 10), (5,)))
    image = images(2, 3, *size).requires_grad_()
    logits = network(image)
    assert logits.shape == (2, 1)
    logits[0].sum().backward()
    assert image.grad.isfinite().all()
    assert image.grad.any()


@pytest.mark.parametrize("size", [(29, 36), (64, 50)])
def test_vgg_discriminator_matches_its_description(size):
    network = randomised(VGGDiscriminator(3, (4, 4, 6, 6), (5,))).double().eval()
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    state = network.state_dict()

    def lrelu(x):
        return torch.where(x > 0, x, 0.2 * x)

    image = images(2, 3, *size).double() * torch.tensor([0.2, 1.0]).view(2, 1, 1, 1)
    x = lrelu(F.conv2d(image, state["features.block_0.conv.weight"], state["features.block_0.conv.bias"], padding=1))
    for i, stride in ((1, 2), (2, 1), (3, 2)):
        x = F.conv2d(x, state[f"features.block_{i}.conv.weight"], padding=1, stride=stride)
        mean, var, weight, bias = (
            state[f"features.block_{i}.bn.{name}"].view(-1, 1, 1)
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = lrelu((x - mean) / (var + 1e-5).sqrt() * weight + bias)
    height, width = x.shape[-2:]
    cells = [
        x[:, :, i * height // 7 : -(-(i + 1) * height // 7), j * width // 7 : -(-(j + 1) * width // 7)].mean((2, 3))
        for i in range(7)
        for j in range(7)
    ]
    x = torch.stack(cells, 2).flatten(1)
    x = lrelu(x @ state["head.block_0.linear.weight"].T + state["head.block_0.linear.bias"])
    expected = x @ state["head.linear_out.weight"].T + state["head.linear_out.bias"]
    assert expected.std() > 1e-3
    torch.testing.assert_close(network(image), expected, rtol=1e-9, atol=1e-9)


def test_vgg_discriminator_starts_at_full_scale():
    torch.manual_seed(0)
    for name, parameter in VGGDiscriminator(3, (32, 32, 32)).named_parameters():
        if "conv.weight" in name or "linear.weight" in name:
            bound = 1 / math.sqrt(parameter[0].numel())  # PyTorch's default
            assert 0.95 * bound < parameter.abs().max() <= bound, name


# The U-Net discriminator


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (33, 8), (15, 64), (17, 31)])
def test_unet_returns_a_logit_per_pixel(channels, size):
    network = UNetDiscriminator(channels, num_features=4)
    logits = network(images(2, channels, *size))
    assert logits.shape == (2, 1, *size)
    assert logits.isfinite().all()


def test_spectral_norm_bounds_the_inner_convolutions():
    network = randomised(UNetDiscriminator(3, num_features=4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(20)  # singular values far from 1 without spectral normalisation
        outer = {name: network.get_submodule(name).weight.clone() for name in ("conv0", "conv9")}
        for _ in range(40):  # each forward pass in training mode is one power iteration
            network(images(1, 3, 8, 8))
    network.eval()
    for i in range(1, 9):
        largest = torch.linalg.svdvals(network.get_submodule(f"conv{i}").weight.detach().flatten(1))[0]
        assert abs(largest - 1) < 0.02, f"conv{i}"
    for name, weight in outer.items():
        assert torch.equal(network.get_submodule(name).weight, weight)
        assert torch.linalg.svdvals(weight.flatten(1))[0] > 2


def test_unet_matches_real_esrgan():
    network = randomised(UNetDiscriminator(3, num_features=3)).double().eval()

    def conv(x, name, stride=1):
        module = network.get_submodule(name)
        return F.conv2d(x, module.weight, module.bias, stride=stride, padding=1)

    def lrelu(x):
        return torch.where(x > 0, x, 0.2 * x)

    def up(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    image = images(1, 3, 16, 24).double()
    x0 = lrelu(conv(image, "conv0"))
    x1 = lrelu(conv(x0, "conv1", 2))
    x2 = lrelu(conv(x1, "conv2", 2))
    x3 = lrelu(conv(x2, "conv3", 2))
    x4 = lrelu(conv(up(x3), "conv4")) + x2
    x5 = lrelu(conv(up(x4), "conv5")) + x1
    x6 = lrelu(conv(up(x5), "conv6")) + x0
    expected = conv(lrelu(conv(lrelu(conv(x6, "conv7")), "conv8")), "conv9")
    assert expected.std() > 1e-3
    torch.testing.assert_close(network(image), expected, rtol=1e-9, atol=1e-9)
    biased = [name for name, _ in network.named_parameters() if name.endswith("bias")]
    assert biased == ["conv0.bias", "conv9.bias"]
