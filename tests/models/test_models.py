import math
import urllib.error

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from esrgan.errors import WeightsError
from esrgan.models import RRDBNet, UNetDiscriminator, VGGDiscriminator, VGGFeatures, vgg
from esrgan.models.vgg import layer_indices

TINY = {
    "rrdb_channels": 4,
    "growth_channels": 3,
    "num_basic_blocks": 2,
    "num_dense_blocks": 2,
    "num_residual_blocks": 3,
}
SIZES = [(1, 1), (1, 4), (3, 2), (7, 5), (8, 4)]
FOLDING = [(1, False), (2, False), (4, False), (8, False), (1, True), (2, True)]  # scale, pixel_unshuffle
# A spot in each block of VGG, by configurations A, B, D and E of arXiv 1409.1556.
LAST_CONV = {"vgg11": ("conv5_2", 18), "vgg13": ("conv5_2", 22), "vgg16": ("conv5_3", 28), "vgg19": ("conv5_4", 34)}
VGG11_CONVS = {
    "conv1_1": 0,
    "conv2_1": 3,
    "conv3_1": 6,
    "conv3_2": 8,
    "conv4_1": 11,
    "conv4_2": 13,
    "conv5_1": 16,
    "conv5_2": 18,
}


def message(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def randomised(network, seed=0):
    """Weights that keep the signal's size, and biases that are not zero, so that nothing in a network goes unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = max(parameter[0].numel(), 1)
            std = math.sqrt(2 / fan_in) if parameter.dim() > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return network


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# The generator


def basicsr_names(num_blocks, ups=("conv_up1", "conv_up2")):
    dense = [f"body.{i}.rdb{j}.conv{k}" for i in range(num_blocks) for j in (1, 2, 3) for k in (1, 2, 3, 4, 5)]
    convs = ["conv_first", *dense, "conv_body", *ups, "conv_hr", "conv_last"]
    return [f"{conv}.{kind}" for conv in convs for kind in ("weight", "bias")]


def test_default_generator_is_the_papers():
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


@pytest.mark.parametrize(("scale", "unshuffle"), FOLDING)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("subpixel", [False, True])
def test_images_of_any_size_come_out_enlarged_by_the_scale(scale, unshuffle, channels, subpixel):
    network = RRDBNet(scale, channels, **TINY, use_subpixel_conv=subpixel, pixel_unshuffle=unshuffle).eval()
    for height, width in SIZES:
        with torch.no_grad():
            high = network(images(2, channels, height, width))
        assert high.shape == (2, channels, scale * height, scale * width)
        assert high.dtype == torch.float32


def expected_output(state, low, *, scale, beta, subpixel, unshuffle):
    """RRDBNet once more, from the paper's figure 4 and the names, without a module."""

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


@pytest.mark.parametrize(("scale", "unshuffle"), FOLDING)
@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.parametrize("beta", [0.2, 0.7])
def test_generator_computes_what_the_paper_says(scale, unshuffle, subpixel, beta):
    network = RRDBNet(scale, **TINY, residual_scaling=beta, use_subpixel_conv=subpixel, pixel_unshuffle=unshuffle)
    randomised(network).double()
    state = {name: value.detach() for name, value in network.named_parameters()}
    for height, width in [(1, 1), (5, 6), (7, 3)]:
        low = images(2, 3, height, width, seed=height).double()
        kept = low.clone()
        expected = expected_output(state, low, scale=scale, beta=beta, subpixel=subpixel, unshuffle=unshuffle)
        assert expected.std() > 0.1  # something to compare
        torch.testing.assert_close(network(low), expected, rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            single = network.float()(low.float())
        torch.testing.assert_close(single, expected.float(), rtol=1e-5, atol=1e-5)
        network.double()
        assert torch.equal(low, kept)


def test_residual_scaling_is_two_tenths_unless_said():
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
def test_initialisation_is_a_tenth_of_kaimings_where_asked_for(small_init, scaled):
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
        assert parameter.abs().max() > 3 * std, name  # normal, where a uniform one ends at 1.73
        standardised.append(parameter.flatten() / std)
    together = torch.cat(standardised)
    assert abs(together.std().item() - 1) < 6 / math.sqrt(2 * together.numel())


def test_initialisation_is_small_everywhere_unless_said():
    torch.manual_seed(0)
    default = RRDBNet(**TINY).state_dict()
    torch.manual_seed(0)
    small = RRDBNet(**TINY, small_init="all").state_dict()
    assert all(torch.equal(default[name], small[name]) for name in small)


@pytest.mark.parametrize("scale", [0, 3, 5, 16, -4])
def test_generator_refuses_other_scales(scale):
    with pytest.raises(ValueError, match=f"1, 2, 4 or 8, got {scale}"):
        RRDBNet(scale, **TINY)


@pytest.mark.parametrize("scale", [4, 8])
def test_generator_refuses_unshuffle_at_scales_that_leave_nothing_to_fold(scale):
    with pytest.raises(ValueError, match="scale_factor 1 or 2"):
        RRDBNet(scale, **TINY, pixel_unshuffle=True)


# The VGG discriminator


def test_default_vgg_discriminator_has_the_layers_of_the_earlier_framework():
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
def test_vgg_discriminator_takes_any_channels_and_hidden_layers(hidden, names):
    network = VGGDiscriminator(1, (4, 6, 6, 6), hidden)
    strides = [module.stride[0] for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert strides == [1, 1, 2, 2]
    linears = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    assert linears == [f"head.{name}" for name in (*names, "linear_out")]
    assert network(images(2, 1, 17, 20)).shape == (2, 1)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (16, 192), (100, 64), (128, 128), (192, 160)])
def test_vgg_discriminator_judges_patches_of_any_size(size):
    network = randomised(VGGDiscriminator(3, (4, 4, 6, 6, 8, 8, 10, 10), (5,)))
    image = images(2, 3, *size).requires_grad_()
    logits = network(image)
    assert logits.shape == (2, 1)
    logits[0].sum().backward()
    assert image.grad.isfinite().all()
    assert image.grad.any()


@pytest.mark.parametrize("size", [(29, 36), (64, 50)])
def test_vgg_discriminator_computes_what_its_description_says(size):
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
            bound = 1 / math.sqrt(parameter[0].numel())  # PyTorch's own
            assert 0.95 * bound < parameter.abs().max() <= bound, name


# The U-Net discriminator


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (33, 8), (15, 64), (17, 31)])
def test_unet_gives_each_pixel_a_logit(channels, size):
    network = UNetDiscriminator(channels, num_features=4)
    logits = network(images(2, channels, *size))
    assert logits.shape == (2, 1, *size)
    assert logits.isfinite().all()


def test_spectral_norm_bounds_the_inner_convolutions():
    network = randomised(UNetDiscriminator(3, num_features=4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(20)  # far from 1 without a norm
        outer = {name: network.get_submodule(name).weight.clone() for name in ("conv0", "conv9")}
        for _ in range(40):  # each forward in training is one power iteration
            network(images(1, 3, 8, 8))
    network.eval()
    for i in range(1, 9):
        largest = torch.linalg.svdvals(network.get_submodule(f"conv{i}").weight.detach().flatten(1))[0]
        assert abs(largest - 1) < 0.02, f"conv{i}"
    for name, weight in outer.items():
        assert torch.equal(network.get_submodule(name).weight, weight)
        assert torch.linalg.svdvals(weight.flatten(1))[0] > 2


def test_unet_computes_what_real_esrgan_does():
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


# VGG features


def vgg11_features():
    with torch.device("meta"):
        return torchvision.models.vgg11(weights=None).features


@pytest.fixture(scope="module")
def vgg11_state():
    """Random weights, under the names and of the shapes of torchvision's VGG11."""
    generator = torch.Generator().manual_seed(0)
    return {
        f"features.{name}": torch.randn(value.shape, generator=generator)
        * (math.sqrt(2 / value[0].numel()) if value.dim() > 1 else 0.1)
        for name, value in vgg11_features().state_dict().items()
    }


@pytest.fixture(scope="module")
def reference_activations(vgg11_state):
    """The output of each layer of torchvision's own network for an image as it is given."""
    features = vgg11_features()
    features.load_state_dict({name.removeprefix("features."): v for name, v in vgg11_state.items()}, assign=True)

    def activations(x):
        outputs = []
        for layer in features.eval():
            x = F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)  # torchvision's would overwrite its input
            outputs.append(x)
        return outputs

    return activations


@pytest.mark.parametrize("vgg_type", sorted(LAST_CONV))
def test_layer_names_are_those_of_the_vgg_paper(vgg_type):
    indices = layer_indices(vgg_type)
    name, index = LAST_CONV[vgg_type]
    assert indices[name] == index
    assert indices[name.replace("conv", "relu")] == index + 1
    assert max(indices.values()) == index + 1
    assert indices["conv1_1"] == 0
    assert {indices[f"relu{name[4:]}"] - i for name, i in indices.items() if name.startswith("conv")} == {1}
    num_convs = sum(name.startswith("conv") for name in indices)
    assert num_convs == int(vgg_type[3:]) - 3  # the other three are linear
    if vgg_type == "vgg11":
        assert {name: i for name, i in indices.items() if name.startswith("conv")} == VGG11_CONVS
    if vgg_type == "vgg19":
        assert [indices[f"conv{i}_{j}"] for i in (1, 2, 3) for j in (1, 2)] == [0, 2, 5, 7, 10, 12]
        assert [indices[f"conv{i}_4"] for i in (3, 4, 5)] == [16, 25, 34]


@pytest.mark.parametrize("normalize_input", [True, False])
def test_features_are_those_of_torchvision_at_every_layer(vgg11_state, reference_activations, normalize_input):
    indices = layer_indices("vgg11")
    image = images(2, 3, 32, 40)
    kept = image.clone()
    activations = VGGFeatures("vgg11", indices, vgg11_state, normalize_input)(image)
    x = image
    if normalize_input:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    expected = reference_activations(x)
    assert set(activations) == set(indices)
    for name, index in indices.items():
        torch.testing.assert_close(activations[name], expected[index], rtol=1e-5, atol=1e-5, msg=name)
        if name.startswith("conv"):
            assert activations[name].min() < -0.1, name  # before the activation, and not overwritten by it
        else:
            assert activations[name].min() == 0, name
    assert torch.equal(image, kept)


def test_input_is_normalised_unless_said(vgg11_state):
    image = images(1, 3, 16, 16)
    default, normalised = (VGGFeatures("vgg11", ["conv1_1"], vgg11_state, *args)(image) for args in ((), (True,)))
    assert torch.equal(default["conv1_1"], normalised["conv1_1"])


def test_features_stop_at_the_last_layer_asked_for(vgg11_state):
    features = VGGFeatures("vgg11", ["conv3_1", "conv1_1"], vgg11_state)
    assert len(features.features) == VGG11_CONVS["conv3_1"] + 1
    assert set(features(images(1, 3, 8, 8))) == {"conv1_1", "conv3_1"}


def test_layers_may_come_from_any_iterable(vgg11_state):
    features = VGGFeatures("vgg11", iter(["conv1_1", "relu2_1"]), vgg11_state)
    assert set(features(images(1, 3, 8, 8))) == {"conv1_1", "relu2_1"}


def test_feature_network_is_frozen_and_stays_in_evaluation_mode(vgg11_state):
    features = VGGFeatures("vgg11", ["conv2_1"], vgg11_state)
    assert not any(parameter.requires_grad for parameter in features.parameters())
    around = nn.Sequential(features, nn.BatchNorm2d(3)).train()
    assert around.training
    assert not any(module.training for module in features.modules())
    assert not any(module.training for module in features.train().modules())
    image = images(1, 3, 16, 16).requires_grad_()
    features(image)["conv2_1"].sum().backward()
    assert image.grad.any()
    assert all(parameter.grad is None for parameter in features.parameters())


def test_grey_is_repeated_and_alpha_ignored(vgg11_state):
    features = VGGFeatures("vgg11", ["conv3_2"], vgg11_state)
    grey, rgba = images(2, 1, 16, 16), images(2, 4, 16, 16, seed=1)
    torch.testing.assert_close(features(grey)["conv3_2"], features(torch.cat([grey] * 3, 1))["conv3_2"])
    assert torch.equal(features(rgba)["conv3_2"], features(rgba[:, :3])["conv3_2"])


def test_half_precision_weights_are_computed_in_float32(vgg11_state):
    half = {name: value.half() for name, value in vgg11_state.items()}
    features = VGGFeatures("vgg11", ["conv2_1"], half)
    assert features(images(1, 3, 8, 8))["conv2_1"].dtype == torch.float32
    assert half["features.0.weight"].dtype == torch.float16


def test_weights_beyond_the_last_layer_may_be_there_or_not(vgg11_state):
    cut = {name: value for name, value in vgg11_state.items() if int(name.split(".")[1]) <= 3}
    whole = {**vgg11_state, "classifier.0.weight": torch.zeros(2, 2)}
    image = images(1, 3, 8, 8)
    a, b = (VGGFeatures("vgg11", ["conv2_1"], state)(image)["conv2_1"] for state in (cut, whole))
    assert torch.equal(a, b)


def test_missing_weights_are_counted_and_named(vgg11_state):
    state = {name: value for name, value in vgg11_state.items() if not name.startswith(("features.3.", "features.8."))}
    with pytest.raises(WeightsError) as error:
        VGGFeatures("vgg11", ["conv3_2"], state)
    text = message(error)
    assert "vgg11" in text
    assert "4 of 8" in text
    assert "features.3.weight" in text
    with pytest.raises(WeightsError, match="missing"):
        VGGFeatures("vgg11", ["conv1_1"], {})


@pytest.mark.parametrize("shape", [(64, 3, 5, 5), (64, 1, 3, 3), (3,), ()])
def test_weights_of_another_shape_are_refused(vgg11_state, shape):
    with pytest.raises(WeightsError) as error:
        VGGFeatures("vgg11", ["conv1_1"], {**vgg11_state, "features.0.weight": torch.zeros(shape)})
    assert "another network" in message(error)


def test_weights_of_another_vgg_are_refused(vgg11_state):
    with pytest.raises(WeightsError) as error:
        VGGFeatures("vgg13", ["conv5_2"], vgg11_state)
    assert "vgg13" in message(error)


def test_layers_that_a_network_lacks_are_refused(vgg11_state):
    with pytest.raises(ValueError, match="vgg11 has no layer conv5_4, conv6_1"):
        VGGFeatures("vgg11", ["conv5_4", "conv1_1", "conv6_1"], vgg11_state)


@pytest.mark.parametrize(
    "failure", [urllib.error.URLError("no network"), TimeoutError("timed out"), RuntimeError("invalid hash value")]
)
def test_failed_download_says_where_to_put_the_file(monkeypatch, tmp_path, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(vgg.urllib.request, "urlopen", fail)
    with pytest.raises(WeightsError) as error:
        vgg.download_torchvision_weights("vgg19")
    text = message(error)
    assert str(tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth") in text
    assert "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in text
