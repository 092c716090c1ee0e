"""The complete degradation, and training with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from esrgan.config import Config
from esrgan.degradation import Degradation, filters, kernels
from esrgan.degradation.filters import ImageBatch
from esrgan.degradation.jpeg import compress
from esrgan.training import TrainOptions, state, train
from esrgan.training.meter import Meter
from esrgan.training.schedule import Timeline
from esrgan.training.stages import AdversarialStage, PixelStage
from esrgan.weights import load_file
from tests.helpers.degradation import PUBLISHED, batch

pytestmark = pytest.mark.usefixtures("foreground_signals")


def test_degradation_depends_only_on_seed_and_position() -> None:
    degradation, high = Degradation(4, 5, **PUBLISHED), batch(6)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  the global state must not matter
    before = torch.get_rng_state()
    low, sharp = degradation(high, 10)
    assert torch.equal(torch.get_rng_state(), before)
    assert low.shape == (6, 3, 16, 12)
    torch.testing.assert_close((low * 255).round() / 255, low, rtol=0, atol=0)
    assert low.min() >= 0
    assert low.max() <= 1
    assert torch.equal(sharp, filters.sharpen(high))
    for parts in ([2, 4], [1] * 6):  # two processes, or one by one
        place, found = 0, []
        for part in parts:
            found.append(degradation(high[place : place + part], 10 + place)[0])
            place += part
        assert torch.equal(torch.cat(found), low)
    same = degradation(high[:1].expand(40, -1, -1, -1), 0)[0]
    assert len({tuple(each.flatten().tolist()) for each in same}) == 40
    assert not torch.equal(Degradation(4, 6, **PUBLISHED)(high, 10)[0], low)


def test_steps_are_applied_in_the_published_order() -> None:
    """Repeat the steps patch by patch with SciPy's filter and PyTorch's resizing."""
    # With Poisson noise, one level rounded differently would change all the noise.
    gaussian = {name: PUBLISHED[name] | {"gaussian_noise_prob": 1.0} for name in ("first", "second")}
    degradation, high = Degradation(4, 1, **PUBLISHED | gaussian), batch(8)
    low = degradation(high, 0)[0]

    def blurred(image: Tensor, kernel: Any) -> Tensor:
        channels = [ndimage.correlate(channel, kernel, mode="mirror") for channel in image[0].double().numpy()]
        return torch.tensor(np.stack(channels), dtype=torch.float32)[None]

    def jpeg(image: Tensor, quality: int) -> Tensor:
        return compress(ImageBatch(image, [(image.shape[2], image.shape[3])]), [quality]).pixels

    orders = set()
    for position in range(8):
        drawn = degradation._sample(position)
        generator = torch.Generator().manual_seed(drawn.noise_seed)
        image = filters.sharpen(high[position : position + 1])
        for each, (height, width) in ((drawn.first, (64, 48)), (drawn.second, (16, 12))):
            size = (max(1, int(height * each.factor)), max(1, int(width * each.factor)))
            image = F.interpolate(blurred(image, each.kernel), size, mode=each.mode)
            image = filters.add_noise(ImageBatch(image, [size]), [each.noise], [generator]).pixels
            if each is drawn.first or not drawn.is_jpeg_last:
                image = jpeg(image, each.quality)
        image = blurred(F.interpolate(image, (16, 12), mode=drawn.final_mode), drawn.final_kernel)
        if drawn.is_jpeg_last:
            image = jpeg(image, drawn.second.quality)
        difference = (image[0].clamp(0, 1) - low[position]).abs() * 255
        assert difference.mean() < 1, position
        orders.add(drawn.is_jpeg_last)
    assert orders == {True, False}


@pytest.mark.parametrize(("scale", "channels", "size"), [(1, 3, 24), (2, 1, 40), (4, 1, 8), (8, 3, 8), (4, 3, 36)])
def test_degradation_supports_every_scale_size_and_channel_count(scale: int, channels: int, size: int) -> None:
    high = batch(16, size, size)[:, :channels]
    low, sharp = Degradation(scale, 0, **PUBLISHED)(high, 0)
    assert low.shape == (16, channels, size // scale, size // scale)
    assert sharp.shape == high.shape
    assert low.isfinite().all()


@pytest.mark.slow
def test_mean_lr_patch_is_not_shifted_or_recoloured() -> None:
    """The mean of many degradations is the downscaled image: not shifted, mirrored or discoloured."""
    high = batch(1, 64, 64)
    low = Degradation(4, 0, **PUBLISHED | {"gt_usm": False})(high.expand(200, -1, -1, -1), 0)[0].mean(0)
    reduced = F.interpolate(
        filters.blur(ImageBatch(high, [(64, 64)]), gaussian_like_the_mean()).pixels, (16, 16), mode="area"
    )[0]
    errors = {
        (down, right): (low - reduced.roll((down, right), (1, 2)))[:, 2:-2, 2:-2].abs().mean().item()
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    assert min(errors, key=lambda shift: errors[shift]) == (0, 0)
    assert errors[0, 0] < 0.04
    per_channel = (low - reduced)[:, 2:-2, 2:-2].mean((1, 2))
    assert per_channel.abs().max() < 0.02


def gaussian_like_the_mean() -> Tensor:
    return torch.tensor(kernels.gaussian(21, (4.0, 4.0)), dtype=torch.float32)[None]


def test_zero_probabilities_leave_only_resizing_and_jpeg() -> None:
    none = {"blur_prob": 0.0, "resize_prob": (0.0, 0.0, 1.0), "gaussian_noise_prob": 1.0, "noise_range": (1e-6, 1e-6)}
    rounds = {name: PUBLISHED[name] | none | {"jpeg_range": (100, 100)} for name in ("first", "second")}
    high = batch(8)
    low, same = Degradation(4, 0, **rounds, final_sinc_prob=0.0, gt_usm=False)(high, 0)
    assert torch.equal(same, high)
    reduced = [F.interpolate(high, (16, 12), mode=mode) for mode in ("area", "bilinear", "bicubic")]
    distances = torch.stack([(low - each).abs().mean((1, 2, 3)) for each in reduced]).amin(0)
    assert distances.max() < 0.02


def test_rank_and_step_determine_the_position(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def degradation(high: Tensor, position: int, low: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((len(high), position))
        return high, high

    part = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    monkeypatch.setattr(state.distributed, "rank", lambda: 1)
    monkeypatch.setattr(state, "load_batches", lambda *_, **__: iter([(part, part)]))
    data = SimpleNamespace(patches=None, timeline=Timeline(4, 10), degradation=degradation)
    stage = SimpleNamespace(data=data, meter=Meter(4))
    run = SimpleNamespace(config=Config.model_validate({"batch_size": 4}), device=torch.device("cpu"))
    assert len(list(state.iterate_batches(run, stage, 7))) == 1
    assert seen == [(2, 7 * 4 + 2)]


SETTINGS: dict[str, dict[str, Any]] = {"degradation": {"second": {"blur_prob": 0.5}}, "photo_degradation": {}}


def degraded(tiny_config: Callable[..., dict[str, Any]], key: str = "degradation") -> Config:
    stage = {"num_steps": 3, key: SETTINGS[key]}
    return Config.model_validate(tiny_config(pretraining=stage, training=stage))


def trained(folder: Path) -> dict[str, Any]:
    result = {}
    for path in sorted(folder.glob("*.pth")):
        content = load_file(path)
        result[path.name.partition("_RRDB_")[2]] = content["params"] | content.get("params_ema", {})
    return result


@pytest.mark.slow
@pytest.mark.parametrize("key", SETTINGS)
def test_both_stages_train_and_resume_exactly(
    key: str, tiny_config: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = degraded(tiny_config, key)
    lows: list[Tensor] = []
    for kind in (PixelStage, AdversarialStage):

        def step(self: Any, low: Tensor, high: Tensor, number: int, target: Tensor, original: Any = kind.step) -> Any:
            lows.append(low)
            return original(self, low, high, number, target)

        monkeypatch.setattr(kind, "step", step)

    def run(name: str, **options: Any) -> None:
        assert train(config, TrainOptions("tiny", tmp_path / name, device="cpu", **options))

    run("whole")
    whole, lows[:] = list(lows), []
    for steps in (1, 2, 3):  # each call ends a stage early, like an interruption; the next one resumes
        run("parts", stage="pretraining", max_steps=steps, resume=True)
    for steps in (1, 3):
        run("parts", stage="training", max_steps=steps, resume=True)
    assert len(whole) == len(lows) == 6
    assert all(torch.equal(one, other) for one, other in zip(whole, lows, strict=True))
    assert len({tuple(low.flatten().tolist()) for low in whole}) == 6
    one, other = (trained(tmp_path / name)["ESRGAN_x4.pth"] for name in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_dry_run_applies_the_degradation(tiny_config: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        original = Degradation.__call__
        patch.setattr(Degradation, "__call__", lambda self, *args: calls.append(args[1]) or original(self, *args))
        assert train(degraded(tiny_config), TrainOptions("tiny", tmp_path, device="cpu", dry_run=True))
    assert calls == [0, 2, 0, 2]  # positions of two steps of each stage
