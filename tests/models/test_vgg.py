import hashlib
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from esrgan import download
from esrgan.errors import WeightsError
from esrgan.models import VGGFeatures, vgg
from esrgan.models.vgg import layer_indices
from tests.helpers.dataset_server import run_server
from tests.helpers.networks import images, message

# The last convolution of VGG in configurations A, B, D and E of arXiv 1409.1556.
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


def vgg11_features():
    with torch.device("meta"):
        return torchvision.models.vgg11(weights=None).features


@pytest.fixture(scope="module")
def vgg11_state():
    """Return random weights with the names and shapes of torchvision's VGG11."""
    generator = torch.Generator().manual_seed(0)
    return {
        f"features.{name}": torch.randn(value.shape, generator=generator)
        * (math.sqrt(2 / value[0].numel()) if value.dim() > 1 else 0.1)
        for name, value in vgg11_features().state_dict().items()
    }


@pytest.fixture(scope="module")
def reference_activations(vgg11_state):
    """Return a function that computes the output of each layer of torchvision's network, without normalisation."""
    features = vgg11_features()
    features.load_state_dict({name.removeprefix("features."): v for name, v in vgg11_state.items()}, assign=True)

    def activations(x):
        outputs = []
        for layer in features.eval():
            x = F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)  # torchvision's ReLU overwrites its input
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
    assert num_convs == int(vgg_type[3:]) - 3  # the other three layers are linear
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
            assert activations[name].min() < -0.1, name  # the values before the activation were not overwritten
        else:
            assert activations[name].min() == 0, name
    assert torch.equal(image, kept)


def test_input_is_normalised_by_default(vgg11_state):
    image = images(1, 3, 16, 16)
    default, normalised = (VGGFeatures("vgg11", ["conv1_1"], vgg11_state, *args)(image) for args in ((), (True,)))
    assert torch.equal(default["conv1_1"], normalised["conv1_1"])


def test_features_stop_at_the_last_layer_asked_for(vgg11_state):
    features = VGGFeatures("vgg11", ["conv3_1", "conv1_1"], vgg11_state)
    assert len(features.features) == VGG11_CONVS["conv3_1"] + 1
    assert set(features(images(1, 3, 8, 8))) == {"conv1_1", "conv3_1"}


def test_layers_accept_any_iterable(vgg11_state):
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


def test_weights_beyond_the_last_layer_are_optional(vgg11_state):
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
def test_weights_of_another_shape_are_rejected(vgg11_state, shape):
    with pytest.raises(WeightsError) as error:
        VGGFeatures("vgg11", ["conv1_1"], {**vgg11_state, "features.0.weight": torch.zeros(shape)})
    assert "another network" in message(error)


def test_weights_that_are_not_finite_are_rejected(vgg11_state):
    state = {name: value.clone() for name, value in vgg11_state.items()}
    state["features.3.bias"][0] = math.nan
    with pytest.raises(WeightsError, match=r"vgg11 weights: NaN or infinity in 1 of 4 tensors .*features\.3\.bias"):
        VGGFeatures("vgg11", ["conv2_1"], state)


def test_weights_of_another_vgg_are_rejected(vgg11_state):
    with pytest.raises(WeightsError) as error:
        VGGFeatures("vgg13", ["conv5_2"], vgg11_state)
    assert "vgg13" in message(error)


def test_unknown_layers_are_rejected(vgg11_state):
    with pytest.raises(ValueError, match="vgg11 has no layer conv5_4, conv6_1"):
        VGGFeatures("vgg11", ["conv5_4", "conv1_1", "conv6_1"], vgg11_state)


def test_failed_download_names_url_and_target_path(monkeypatch, no_vgg_weights):
    with pytest.raises(WeightsError) as error:
        vgg.download_torchvision_weights("vgg19")
    text = message(error)
    assert str(no_vgg_weights / "hub/checkpoints/vgg19-dcbb9e9d.pth") in text
    assert "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in text
    assert "no network in tests (5 attempts" in text


def test_download_resumes_and_is_verified(monkeypatch, tmp_path):
    content = bytes(range(256)) * 40
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(download, "RETRY_DELAY_S", 0.0)
    with run_server() as server:
        name = f"vgg19-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        monkeypatch.setattr(vgg, "torchvision_weights_url", lambda _: server.url(name))
        server.files[name], server.faults = content, ["cut 5000"]
        path = vgg.download_torchvision_weights("vgg19")
        assert path == tmp_path / "checkpoints" / name
        assert path.read_bytes() == content
        assert [asked for _, asked, _ in server.requests] == [None, "bytes=5000-"]
        path.unlink()
        server.files[name] = content[::-1]
        with pytest.raises(WeightsError, match="twice"):
            vgg.download_torchvision_weights("vgg19")
        assert not path.exists()
