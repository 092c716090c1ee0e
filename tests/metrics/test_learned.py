"""Tests of LPIPS and DISTS with random weights, against independent implementations of their formulas."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchmetrics
import torchvision

from esrgan import extras
from esrgan.errors import DeviceError, WeightsError
from esrgan.metrics import METRICS, learned
from esrgan.metrics.learned import load_learned

CPU = torch.device("cpu")
NAMES = ["lpips_alex", "lpips_vgg", "dists"]
WEIGHTS_OF_METRICS = Path(torchmetrics.__file__).parent / "functional" / "image"


def random_state(network):
    """Return random weights in torchvision's layout; unused ones are a repeated zero, which keeps files small."""
    with torch.device("meta"):
        shapes = getattr(torchvision.models, network)(weights=None).state_dict()
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, generator=generator) / max(1, value[0].numel()) ** 0.5
        if name.startswith("features")
        else torch.zeros(1).expand(value.shape)
        for name, value in shapes.items()
    }


@pytest.fixture(scope="module")
def states():
    return {network: random_state(network) for network in ("alexnet", "vgg16")}


@pytest.fixture(scope="module")
def torch_home(states, tmp_path_factory):
    """Set a TORCH_HOME that contains random weights of both networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("hub")))
        for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_"):
            patch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)  # skips the slow initialisation
        for network, state in states.items():
            path = learned.torchvision_weights_path(network)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, path)
        yield


@pytest.fixture(scope="module")
def metrics(torch_home):
    metrics, messages = load_learned(NAMES, CPU)
    assert messages == []
    assert list(metrics) == NAMES
    return metrics


@pytest.fixture
def no_network(no_vgg_weights):
    """Return the folder of weights, which does not exist, with all downloads failing."""
    return no_vgg_weights / "hub" / "checkpoints"


def pair(size=(40, 52), channels=3):
    generator = np.random.default_rng(1)
    image = generator.integers(0, 256, (*size, channels), dtype=np.uint8)
    return np.clip(image + generator.normal(0, 30, image.shape), 0, 255).astype(np.uint8), image


def rgb(image, low, high):
    """Convert (H, W, 3) uint8 to (1, 3, H, W) float64 in [low, high]."""
    return torch.from_numpy(image / 255 * (high - low) + low).permute(2, 0, 1)[None]


def activations(state, image, convolutions, pool):
    """Run a network's convolutions, each with a ReLU, and yield the features before each pooling and at taps."""
    state = {name: value.double() for name, value in state.items()}
    for index, stride, padding, ends in convolutions:
        weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
        image = F.relu(F.conv2d(image, weight, bias, stride, padding))
        if ends:
            yield image
        if ends == "pool":
            image = pool(image)


ALEXNET = [(0, 4, 2, "pool"), (3, 1, 2, "pool"), (6, 1, 1, "tap"), (8, 1, 1, "tap"), (10, 1, 1, "tap")]
VGG16 = [
    (index, 1, 1, "pool" if index in (2, 7, 14, 21) else "tap" if index == 28 else "")
    for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
]


def lpips(name, state, sr, hr):
    """Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018, Eq. 1."""
    kind = name.removeprefix("lpips_")
    linear = torch.load(WEIGHTS_OF_METRICS / "lpips_models" / f"{kind}.pth", "cpu", weights_only=True)
    shift = torch.tensor([-0.030, -0.088, -0.188]).double().view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().view(1, 3, 1, 1)
    layers, size, stride = (ALEXNET, 3, 2) if kind == "alex" else (VGG16, 2, 2)
    features = [
        list(activations(state, (rgb(x, -1, 1) - shift) / scale, layers, lambda y: F.max_pool2d(y, size, stride)))
        for x in (sr, hr)
    ]
    total = 0.0
    for level, (a, b) in enumerate(zip(*features, strict=True)):
        a, b = (x / x.norm(dim=1, keepdim=True) for x in (a, b))
        weight = linear[f"lin{level}.model.1.weight"].double()  # (1, C, 1, 1)
        total += ((a - b) ** 2 * weight).sum(dim=1).mean().item()
    return total


def dists(state, sr, hr):
    """Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", 2020, Eq. 1 to 6."""
    weights = torch.load(WEIGHTS_OF_METRICS / "dists_models" / "weights.pt", "cpu", weights_only=True)
    alpha, beta = (weights[name].double().flatten() for name in ("alpha", "beta"))
    hann = torch.tensor([0.25, 0.5, 0.25]).double()

    def pool(x):
        kernel = torch.outer(hann, hann).expand(x.shape[1], 1, 3, 3)
        return (F.conv2d(x**2, kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()

    mean = torch.tensor([0.485, 0.456, 0.406]).double().view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).double().view(1, 3, 1, 1)
    pair_as_rgb = [rgb(x, 0, 1) for x in (sr, hr)]
    features = [[x, *activations(state, (x - mean) / deviation, VGG16, pool)] for x in pair_as_rgb]
    similarities = [], []
    for a, b in zip(*features, strict=True):
        a, b = a.flatten(2)[0], b.flatten(2)[0]  # (C, pixels)
        (mean_a, mean_b), covariance = (a.mean(1), b.mean(1)), torch.stack([a, b])
        covariance = (covariance - covariance.mean(2, keepdim=True)).prod(0).mean(1)
        variances = a.var(1, correction=0) + b.var(1, correction=0)
        similarities[0].append((2 * mean_a * mean_b + 1e-6) / (mean_a**2 + mean_b**2 + 1e-6))
        similarities[1].append((2 * covariance + 1e-6) / (variances + 1e-6))
    texture, structure = (torch.cat(values) for values in similarities)
    return 1 - float((alpha * texture + beta * structure).sum() / (alpha.sum() + beta.sum()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_distance_matches_the_formula(metrics, states, name):
    sr, hr = pair()
    inside = sr[4:-4, 4:-4], hr[4:-4, 4:-4]
    if name == "dists":
        expected = dists(states["vgg16"], *inside)
    else:
        expected = lpips(name, states["alexnet" if name == "lpips_alex" else "vgg16"], *inside)
    assert expected > 1e-3
    assert metrics[name].measure(sr, hr, 4) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_distance_is_symmetric_and_zero_for_identical_images(metrics, name):
    sr, hr = pair()
    assert metrics[name].measure(hr, hr, 0) == pytest.approx(0, abs=1e-6)
    assert metrics[name].measure(sr, hr, 0) == pytest.approx(metrics[name].measure(hr, sr, 0), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_grey_is_repeated_and_alpha_ignored(metrics, name):
    grey = pair(channels=1)
    colour = [image.repeat(3, axis=2) for image in grey]
    with_alpha = [np.dstack([image, image[..., 0] // (i + 1)]) for i, image in enumerate(colour)]
    assert metrics[name].measure(*grey, 2) == metrics[name].measure(*colour, 2) == metrics[name].measure(*with_alpha, 2)


@pytest.mark.parametrize(("name", "min_side"), [("lpips_alex", 31), ("lpips_vgg", 16), ("dists", 1)])
def test_minimum_size_is_reported(metrics, name, min_side):
    metric = metrics[name]
    assert np.isfinite(metric.measure(*pair((min_side + 8, min_side + 8)), 4))
    message = rf"at least {min_side}x{min_side} pixels inside a border of 4, got {min_side + 7}x50"
    with pytest.raises(ValueError, match=message):
        metric.measure(*pair((min_side + 7, 50)), 4)


def test_images_that_cannot_be_compared_are_rejected(metrics):
    sr, hr = pair()
    with pytest.raises(ValueError, match="expected uint8 images, got float64"):
        metrics["dists"].measure(sr / 255, hr / 255, 0)
    with pytest.raises(ValueError, match="equal shape"):
        metrics["dists"].measure(sr, hr[:-1], 0)
    with pytest.raises(ValueError, match=r"\(40, 52, 2\)"):
        metrics["dists"].measure(sr[..., :2], hr[..., :2], 0)


def test_metrics_without_a_network_are_skipped(torch_home):
    assert load_learned([name for name in METRICS if name not in (*NAMES, "vgg16", "vggstats")], CPU) == ({}, [])


def test_metrics_without_weights_are_explained_and_the_others_returned(torch_home, monkeypatch):
    learned.torchvision_weights_path("vgg16").rename(learned.torchvision_weights_path("vgg16").with_suffix(".away"))
    try:
        metrics, messages = load_learned(["psnr_y", *NAMES], CPU)
    finally:
        learned.torchvision_weights_path("vgg16").with_suffix(".away").rename(learned.torchvision_weights_path("vgg16"))
    assert list(metrics) == ["lpips_alex"]
    assert [line.partition(":")[0] for line in messages] == ["LPIPS (VGG)", "DISTS"]
    for line in messages:
        assert "\n" not in line
        assert "--download" in line
        assert "https://download.pytorch.org/models/vgg16-397923af.pth" in line
        assert str(learned.torchvision_weights_path("vgg16")) in line


def test_missing_library_is_reported_for_each_metric(torch_home, monkeypatch):
    monkeypatch.setattr(extras, "missing_modules", lambda extra: ["torchmetrics"])
    metrics, messages = load_learned(NAMES, CPU)
    assert metrics == {}
    assert [line.partition(":")[0] for line in messages] == [METRICS[name].label for name in NAMES]
    assert all("pip install 'esrgan[metrics]'" in line for line in messages)


def test_nothing_is_downloaded_unless_asked(no_network, states, monkeypatch):
    asked = []

    def download(network):
        asked.append(network)
        no_network.mkdir(parents=True, exist_ok=True)
        torch.save(states[network], learned.torchvision_weights_path(network))

    monkeypatch.setattr(learned, "download_torchvision_weights", download)
    assert load_learned(["lpips_alex"], CPU)[0] == {}
    assert asked == []
    for _ in range(2):
        metrics, messages = load_learned(["lpips_alex"], CPU, download=True)
        assert (list(metrics), messages, asked) == (["lpips_alex"], [], ["alexnet"])


def test_failed_download_is_reported(no_network):
    metrics, (line,) = load_learned(["lpips_alex"], CPU, download=True)
    assert metrics == {}
    for part in (
        "LPIPS (AlexNet)",
        "no network in tests",
        "cannot download https://",
        "alexnet-owt-7be5be79.pth: expected the complete file",
        str(no_network),
    ):
        assert part in line
    assert [path.stat().st_size for path in no_network.iterdir()] == [0]  # the part file, for the next attempt


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("kind", ["truncated", "of another network", "hostile", "empty", "a web page"])
def test_damaged_weights_are_reported_and_never_executed(no_network, states, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    no_network.mkdir(parents=True)
    path = learned.torchvision_weights_path("alexnet")
    if kind == "of another network":
        torch.save(states["vgg16"], path)
    else:
        torch.save(states["alexnet"], path)
        content = path.read_bytes()
        contents = {"truncated": content[: len(content) // 2], "empty": b"", "a web page": b"<html>404</html>"}
        path.write_bytes(contents.get(kind, pickle.dumps(Hostile(), protocol=2)))
    metrics, (line,) = load_learned(["lpips_alex"], CPU)
    assert metrics == {}
    assert line.startswith(f"LPIPS (AlexNet): {path}: cannot be used: ")
    assert line.endswith("; download it again")
    assert "\n" not in line
    assert not Path("executed").exists()
    torch.save({"p": Hostile()}, path)
    with pytest.raises(WeightsError, match="cannot be used"):
        learned.LearnedMetric("lpips_alex", CPU)
    assert not Path("executed").exists()


@pytest.mark.parametrize("before", [None, "0"])
def test_weights_only_variable_is_restored(torch_home, monkeypatch, before):
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    if before:
        monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", before)
    learned.LearnedMetric("lpips_alex", CPU)
    assert learned.os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == before


def test_full_memory_is_reported_in_one_line(monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(learned, "_load_network", lambda *_: torch.nn.Linear(1, 1))
    monkeypatch.setattr(torch.nn.Module, "to", fail)
    with pytest.raises(DeviceError, match=r"^cpu: not enough memory for the network of dists; close other programs"):
        learned.LearnedMetric("dists", CPU)
