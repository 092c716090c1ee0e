"""The distributions of the sampled parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from esrgan.config import load
from esrgan.config.schema import Degradation as DegradationConfig
from esrgan.degradation import kernels, sampling
from esrgan.degradation.sampling import RoundParameters
from tests.helpers.degradation import PUBLISHED, ROOT


def published_round(name: str) -> RoundParameters:
    return RoundParameters(**PUBLISHED[name])


@pytest.mark.parametrize("name", ["first", "second"])
@pytest.mark.slow
def test_samples_have_the_published_probabilities_and_ranges(name: str) -> None:
    parameters, count = published_round(name), 2500
    draws = [parameters.sample(sampling.patch_rng(0, position)) for position in range(count)]

    def share(condition: Callable[[sampling.SampledRound], bool]) -> Any:
        return pytest.approx(sum(map(condition, draws)) / count, abs=0.03)

    assert parameters.resize_prob[0] == share(lambda draw: draw.factor > 1)
    assert parameters.resize_prob[1] == share(lambda draw: draw.factor < 1)
    assert parameters.blur_prob == share(lambda draw: draw.kernel[10, 10] < 0.9999 or draw.kernel[10, 11] != 0)
    assert parameters.blur_prob * parameters.sinc_prob == share(lambda draw: draw.kernel.min() < -1e-4)
    assert parameters.gaussian_noise_prob == share(lambda draw: draw.noise.is_gaussian)
    assert parameters.gray_noise_prob == share(lambda draw: draw.noise.is_gray)
    assert share(lambda draw: draw.mode == "area") == 1 / 3
    for values, limits in (
        ([draw.factor for draw in draws], parameters.resize_range),
        ([draw.quality for draw in draws], parameters.jpeg_range),
        ([draw.noise.strength for draw in draws if draw.noise.is_gaussian], parameters.noise_range),
        ([draw.noise.strength for draw in draws if not draw.noise.is_gaussian], parameters.poisson_scale_range),
    ):
        assert limits[0] <= min(values) < limits[0] + 0.05 * (limits[1] - limits[0])
        assert limits[1] >= max(values) > limits[1] - 0.05 * (limits[1] - limits[0])
    assert all(draw.kernel.shape == (21, 21) for draw in draws)
    np.testing.assert_allclose([draw.kernel.sum() for draw in draws], 1)
    assert all(np.allclose(draw.kernel, draw.kernel[::-1, ::-1], atol=1e-12) for draw in draws)


@pytest.mark.slow
def test_kernel_types_are_sampled_with_the_published_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def note(kind: str) -> Callable[..., Any]:
        def make(size: int, axes: tuple[float, float], angle: float, beta: float) -> Any:
            assert size in range(7, 22, 2)
            drawn.append((kind, axes[0] == axes[1], beta))
            return kernels.pulse(size)

        return make

    monkeypatch.setattr(sampling.kernels, "gaussian", note("gaussian"))
    monkeypatch.setattr(sampling.kernels, "plateau", note("plateau"))
    for position in range(4000):
        published_round("first").sample(sampling.patch_rng(0, position))
    kinds = Counter((kind if kind == "plateau" or beta == 1 else "generalized", iso) for kind, iso, beta in drawn)
    order = [(kind, is_isotropic) for kind in ("gaussian", "generalized", "plateau") for is_isotropic in (True, False)]
    shares = [kinds[kind] / len(drawn) for kind in order]
    assert shares == pytest.approx([0.45, 0.25, 0.12, 0.03, 0.12, 0.03], abs=0.02)
    betas = [beta for kind, _, beta in drawn if kind == "gaussian" and beta != 1]
    assert 0.5 <= min(betas) < 0.6
    assert 3.8 < max(betas) <= 4
    assert np.mean(np.array(betas) < 1) == pytest.approx(0.5, abs=0.06)


def test_shipped_configuration_matches_the_published_settings() -> None:
    config = load(ROOT / "configs/real_esrgan_x4.json")
    assert config.pretraining.degradation == config.training.degradation == DegradationConfig()
    assert (config.batch_size, config.scale_factor, config.ema_decay) == (48, 4, 0.999)
    assert (config.pretraining.num_steps, config.training.num_steps) == (1_000_000, 400_000)
    assert (config.pretraining.lr, config.training.g_lr, config.training.d_lr) == (2e-4, 1e-4, 1e-4)
    assert config.pretraining.cr_patch_size == config.training.cr_patch_size == (256, 256)
    assert config.pretraining.betas == config.training.betas == (0.9, 0.99)
    assert config.training.g_adversarial_loss_scaling == 0.1
    assert config.training.g_content_loss_scaling == 1.0
    assert config.perceptual_loss.layer_weights == {
        "conv1_2": 0.1,
        "conv2_2": 0.1,
        "conv3_4": 1,
        "conv4_4": 1,
        "conv5_4": 1,
    }
    assert config.discriminator.type == "unet"
    generator = config.generator
    assert (generator.rrdb_channels, generator.growth_channels, generator.num_basic_blocks) == (64, 32, 23)
    # Values of Real-ESRGAN's options/train_realesrgan_x4plus.yml, repeated here on purpose.
    first, second = PUBLISHED["first"], PUBLISHED["second"]
    assert (first["blur_sigma"], second["blur_sigma"]) == ((0.2, 3), (0.2, 1.5))
    assert (first["resize_prob"], second["resize_prob"]) == ((0.2, 0.7, 0.1), (0.3, 0.4, 0.3))
    assert (first["resize_range"], second["resize_range"]) == ((0.15, 1.5), (0.3, 1.2))
    assert (first["noise_range"], second["noise_range"]) == ((1, 30), (1, 25))
    assert (first["poisson_scale_range"], second["poisson_scale_range"]) == ((0.05, 3), (0.05, 2.5))
    assert (first["blur_prob"], second["blur_prob"], PUBLISHED["final_sinc_prob"]) == (1, 0.8, 0.8)
    for each in (first, second):
        assert each["kernel_prob"] == (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
        assert (each["sinc_prob"], each["gaussian_noise_prob"], each["gray_noise_prob"]) == (0.1, 0.5, 0.4)
        assert (each["betag_range"], each["betap_range"], each["jpeg_range"]) == ((0.5, 4), (1, 2), (30, 95))
