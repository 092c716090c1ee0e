"""Winograd's algorithm gives the results of the networks, for any size, strips and batch."""

import gc
import threading

import pytest
import skimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from esrgan import Upscaler, load_generator
from esrgan.inference import tiling
from esrgan.inference.tiling import Tiling, choose_tiling, estimate_memory
from esrgan.inference.winograd import MIN_COLUMNS, _Scratch, transform_kernels
from esrgan.models import RRDBNet, SRVGGNetCompact
from tests.helpers.tiling import upscale_in_parts

CPU = torch.device("cpu")
NETWORKS = {
    "nearest": lambda: RRDBNet(4, 3, 8, 4, 2),
    "grey": lambda: RRDBNet(2, 1, 8, 8, 1, num_residual_blocks=3),
    "subpixel": lambda: RRDBNet(4, 3, 8, 4, 1, num_dense_blocks=2, num_residual_blocks=1, use_subpixel_conv=True),
    "fold": lambda: RRDBNet(2, 3, 8, 4, 1, pixel_unshuffle=True),
    "plus": lambda: RRDBNet(4, 3, 8, 4, 1, plus=True),
    "×1": lambda: RRDBNet(1, 4, 8, 4, 1),
    "×16": lambda: RRDBNet(16, 3, 8, 4, 1),
    "compact": lambda: SRVGGNetCompact(4, 3, 8, 3),
    "compact ×3": lambda: SRVGGNetCompact(3, 3, 8, 2, "relu"),
}


@pytest.fixture(scope="module", autouse=True)
def small_images_too():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "WINOGRAD_MIN_PIXELS", 0)
        yield


def make_strong_network(name):
    """Return a network whose every layer matters, biases included."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.2)
    return network.eval().requires_grad_(False)


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@torch.inference_mode()
def upscale_in_double(network, low):
    expected = network.double()(low.double()).float()
    network.float()
    return expected


@settings(max_examples=60)
@given(
    name=st.sampled_from(list(NETWORKS)),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    batch=st.integers(1, 3),
    rows=st.integers(1, 11),
)
@pytest.mark.slow
def test_strips_agree_with_the_network_in_double_precision(name, height, width, batch, rows):
    network = make_strong_network(name)
    low = torch.rand(batch, network.in_channels, height, width)
    high, _ = upscale_in_parts(network, low, Tiling(4 * rows), transform_kernels(network))
    assert relative_error(high, upscale_in_double(network, low)) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(9, 14), (14, 9), (9, 5)])
def test_each_network_agrees_with_double_precision(name, size):
    network = make_strong_network(name)
    low = torch.rand(2, network.in_channels, *size)
    high, _ = upscale_in_parts(network, low, Tiling(4), transform_kernels(network))
    assert relative_error(high, upscale_in_double(network, low)) < 1e-5


@pytest.mark.parametrize("size", [(50, 130), (130, 50)])
def test_strips_change_at_most_the_last_bits(size):
    network, low = make_strong_network("nearest"), torch.rand(1, 3, *size)
    kernels = transform_kernels(network)
    whole, parts = upscale_in_parts(network, low, Tiling(132), kernels)
    assert len(parts) < 20
    for lines in (4, 8, 20):
        high, parts = upscale_in_parts(network, low, Tiling(lines), kernels)
        assert len(parts) > 520 / lines / 2
        assert relative_error(high, whole) < 1e-5


@pytest.mark.parametrize("model", ["esrgan-lite", "realesr-animevideov3"])
def test_bundled_models_keep_their_levels(model):
    low = skimage.data.astronaut()[60:100, 200:252].astype("float32") / 255
    network = load_generator(model).build()
    exact = upscale_in_double(network, torch.from_numpy(low).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    high = Upscaler(network, CPU, winograd=True)(low)
    error = high - exact.clip(0, 1)
    assert 10 * torch.log10(1 / torch.from_numpy(error**2).mean()) > 115
    assert abs((high * 255).round() - (exact.clip(0, 1) * 255).round()).max() <= 1


def test_small_images_are_computed_directly(monkeypatch):
    monkeypatch.setattr(tiling, "WINOGRAD_MIN_PIXELS", 1024)
    network = make_strong_network("nearest")
    exact, fast = (Upscaler(network, CPU, winograd=winograd) for winograd in (False, True))
    for height, width, is_direct in [(1, 1, True), (31, 33, True), (3, 400, True), (32, 32, False), (300, 4, False)]:
        low = torch.rand(1, 3, height, width)
        assert torch.equal(exact(low), fast(low)) is is_direct


def test_threads_share_an_upscaler():
    upscaler = Upscaler(make_strong_network("nearest"), CPU, winograd=True)
    images = [torch.rand(1, 3, 24, 20 + 8 * i) for i in range(4)]
    expected, found = [upscaler(image) for image in images], {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: upscaler(images[i])})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], expected[i]) for i in range(4))


def test_only_float32_on_the_cpu():
    network = make_strong_network("×1")
    for device, dtype in ((CPU, torch.bfloat16), (torch.device("cuda"), torch.float32)):
        with pytest.raises(ValueError, match="winograd: only for float32 on the CPU"):
            Upscaler(network, device, dtype, winograd=True)


def test_strips_are_whole_tiles_and_fit_into_memory(monkeypatch):
    network = RRDBNet(num_basic_blocks=2)
    kernels = transform_kernels(network)
    kept, line = estimate_memory(network, 1000, kernels)
    monkeypatch.setattr("esrgan.inference.tiling.available_memory", lambda: (kept + 11 * line) / 0.6 + 1)
    assert choose_tiling(network, 6000, 1000, kernels) == Tiling(8)
    monkeypatch.setattr("esrgan.inference.tiling.available_memory", lambda: (kept + 3 * line) / 0.6)
    assert choose_tiling(network, 6000, 1000, kernels).bands == 2


def test_thin_images_count_whole_tiles(monkeypatch):
    network = RRDBNet(num_basic_blocks=2)
    kernels = transform_kernels(network)
    kept, line = estimate_memory(network, 4, kernels)
    monkeypatch.setattr("esrgan.inference.tiling.available_memory", lambda: (kept + 800 * line) / 0.6 + 1)
    for width in (1, 2, 4):
        assert choose_tiling(network, 6000, width, kernels) == Tiling(800)


def measure_peak(network, low, lines, kernels):
    """Return the most bytes in tensors that exist after a step of the work, without those of the kernels."""
    ready, peak = {kernel.untyped_storage() for kernel in kernels.values()}, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "choose_tiling", lambda *_: Tiling(lines))
        gc.collect()
        gc.freeze()  # existing tensors are not counted
        for part in tiling.upscale_tiled(network, low, kernels=kernels):
            del part
            storages = {each.untyped_storage() for each in gc.get_objects() if type(each) is torch.Tensor}
            peak = max(peak, sum(each.nbytes() for each in storages - ready))
        gc.unfreeze()
    return peak


@pytest.mark.slow
def test_memory_is_as_planned_and_does_not_grow_with_the_length():
    across, lines = 128, 16
    network = RRDBNet(4, 3, 32, 16, 2).eval().requires_grad_(False)
    kernels = transform_kernels(network)
    kept, line = estimate_memory(network, across, kernels)
    peaks = [
        measure_peak(network, torch.zeros(1, 1, 1, 1).expand(1, 3, length, across), lines, kernels)
        for length in (160, 240)
    ]
    assert peaks[1] < 1.02 * peaks[0]
    assert 0.5 < peaks[0] / (kept + lines * line) < 0.9


@pytest.mark.parametrize("more", [1, MIN_COLUMNS, 100])
def test_scratch_memory_always_has_columns_behind_it(more):
    scratch = _Scratch()
    scratch.take("features", 100)
    values = scratch.take("features", 100 + more)
    assert values.untyped_storage().nbytes() >= 4 * (100 + more + MIN_COLUMNS)


def test_work_is_reported_up_to_its_end():
    network, seen = make_strong_network("fold"), []
    Upscaler(network, CPU, winograd=True)(torch.rand(1, 3, 61, 33), seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 5
    assert seen[-1] == 1.0
