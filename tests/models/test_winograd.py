"""Winograd's algorithm, compared with PyTorch's convolutions and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esrgan.models import Generator, RRDBNet, SRVGGNetCompact, VGGFeatures, winograd
from esrgan.models.rrdbnet import ResidualDenseBlock
from esrgan.models.winograd import from_tiles, is_suitable, to_tiles, winograd_convolutions
from esrgan.weights import load_file

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("winograd_on_every_cpu")


def with_gradients(function: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module) -> list[Tensor]:
    """Return the output of a function and the gradients of its input and of a module's parameters."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    output = function(x)
    random = torch.Generator().manual_seed(1)
    output.backward(torch.randn(output.shape, generator=random, dtype=output.dtype))
    gradients = [parameter.grad for parameter in module.parameters()]
    assert x.grad is not None
    return [output.detach(), x.grad, *(each for each in gradients if each is not None)]


def randomise(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    return module


@pytest.fixture
def always_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "MIN_TILES", 1)
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)


@pytest.mark.parametrize("size", [(4, 4), (4, 12), (16, 8)])
@pytest.mark.parametrize("batch", [1, 3])
def test_tiles_contain_the_pixels_of_images(size: tuple[int, int], batch: int) -> None:
    images = torch.rand(batch, 5, *size)
    tiles = to_tiles(images)
    assert tiles.shape == (16, 5, size[0] // 4, size[1] // 4, batch)
    assert tiles[4 * 2 + 3, 1, -1, 0, 0] == images[0, 1, -2, 3]
    assert torch.equal(from_tiles(tiles), images)
    assert from_tiles(images) is images


@pytest.mark.parametrize("size", [(4, 4), (4, 12), (16, 8)])
@pytest.mark.parametrize("num_convs", [1, 5])
def test_dense_block_and_its_gradients_are_those_of_pytorch(size: tuple[int, int], num_convs: int) -> None:
    torch.manual_seed(0)
    block = randomise(ResidualDenseBlock(6, 4, num_convs, 0.2, plus=False)).double()
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    torch.testing.assert_close(
        with_gradients(lambda x: from_tiles(block(to_tiles(x))), x, block),
        with_gradients(block, x, block),
        rtol=0,
        atol=1e-11,
    )


def test_frozen_kernels_get_no_gradients() -> None:
    block = randomise(ResidualDenseBlock(6, 4, 3, 0.2, plus=False)).double().requires_grad_(False)
    x = torch.randn(2, 6, 8, 4, dtype=torch.float64)
    tiled = with_gradients(lambda x: from_tiles(block(to_tiles(x))), x, block)
    torch.testing.assert_close(tiled, with_gradients(block, x, block), rtol=0, atol=1e-11)
    assert len(tiled) == 2


def test_upsampling_and_its_gradient_are_those_of_pytorch() -> None:
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(
        with_gradients(lambda x: from_tiles(winograd.upsample(to_tiles(x))), x, nn.Identity()),
        with_gradients(lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), x, nn.Identity()),
    )


@pytest.mark.usefixtures("always_in_tiles")
@pytest.mark.parametrize("size", [(8, 16), (12, 8), (4, 4)])
def test_maximum_and_its_gradient_are_those_of_pytorch(size: tuple[int, int]) -> None:
    pool = nn.MaxPool2d(2)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(
        with_gradients(lambda x: from_tiles(winograd.apply(pool, to_tiles(x))), x, pool), with_gradients(pool, x, pool)
    )


@pytest.mark.usefixtures("always_in_tiles")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        partial(RRDBNet, 4, 3, 8, 4, 2),
        partial(RRDBNet, 2, 1, 8, 4, 1, pixel_unshuffle=True),
        partial(RRDBNet, 4, 3, 8, 4, 1, use_subpixel_conv=True),
        partial(RRDBNet, 4, 3, 8, 4, 1, plus=True),
        partial(SRVGGNetCompact, 4, 3, 8, 3),
    ],
    ids=["x4", "unshuffle", "subpixel", "plus", "compact"],
)
def test_networks_compute_the_same_by_winograd(make: Callable[[], Generator], checkpointing: bool) -> None:
    torch.manual_seed(0)
    network = make()
    randomise(network)
    network.activation_checkpointing = checkpointing
    images = torch.rand(2, network.in_channels, 16, 32)
    expected = with_gradients(network, images, network)
    with winograd_convolutions(CPU):
        values = with_gradients(network, images, network)
    for value, other in zip(values, expected, strict=True):
        assert (value - other).norm() <= 1e-4 * other.norm()


@pytest.mark.usefixtures("always_in_tiles")
@pytest.mark.parametrize("size", [(32, 16), (8, 12)])
def test_vgg_features_are_the_same_by_winograd(vgg11_weights: Path, size: tuple[int, int]) -> None:
    network = VGGFeatures("vgg11", ["conv1_1", "relu1_1", "conv2_1"], load_file(vgg11_weights))
    images = torch.rand(2, 3, *size)
    expected = network(images)
    with winograd_convolutions(CPU):
        features = network(images)
    assert all(not torch.equal(features[name], expected[name]) for name in expected)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_gradients_are_the_same_bits_each_time() -> None:
    """As resumed trainings need."""
    network, images = RRDBNet(2, 3, 32, 16, 1), torch.rand(2, 3, 32, 32)
    randomise(network)
    plain = with_gradients(network, images, network)
    with winograd_convolutions(CPU):
        first, *others = (with_gradients(network, images, network) for _ in range(3))
    assert not torch.equal(first[0], plain[0])
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_a_step_leaves_other_threads_and_the_time_after_it_alone() -> None:
    images, seen = torch.rand(1, 3, 32, 32), []
    with ThreadPoolExecutor(1) as other, winograd_convolutions(CPU):
        seen.append(other.submit(is_suitable, images, 64).result())
        with pytest.raises(ValueError, match="failed"), winograd_convolutions(CPU):
            raise ValueError("failed")
        assert is_suitable(images, 64)
    assert not is_suitable(images, 64)
    assert seen == [False]


def test_only_training_in_float32_on_a_cpu_is_in_tiles() -> None:
    images = torch.rand(1, 3, 32, 32)
    assert not is_suitable(images, 64)
    with winograd_convolutions(torch.device("cuda")):
        assert not is_suitable(images, 64)
    with winograd_convolutions(CPU):
        assert is_suitable(images, 64)
        assert not is_suitable(images, 16)
        assert not is_suitable(images.double(), 64)
        assert not is_suitable(images.to("meta"), 64)
        assert not is_suitable(images[:, :, :28], 64)  # too few tiles
        assert not is_suitable(torch.rand(1, 3, 34, 32), 64)
        assert not is_suitable(torch.rand(1, 3, 32, 34), 64)
        with torch.autocast("cpu", torch.bfloat16):
            assert not is_suitable(images, 64)
    assert not is_suitable(images, 64)
