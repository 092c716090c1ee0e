"""The mild degradation for ordinary photographs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from esrgan.config.schema import PhotoDegradation as PhotoConfig
from esrgan.degradation import PhotoDegradation
from tests.helpers.degradation import batch

NOTHING = {f"{name}_prob": 0.0 for name in ("clean", "earlier_jpeg", "blur", "noise", "sharpen", "jpeg", "full_chroma")}


def degradation(seed: int = 5, **settings: Any) -> PhotoDegradation:
    return PhotoDegradation(seed, **PhotoConfig(**settings).model_dump())


def patches(count: int) -> tuple[Tensor, Tensor]:
    """Return HR (count, 3, 64, 48) and LR (count, 3, 16, 12) of 8-bit levels."""
    high = batch(count)
    return high, (F.avg_pool2d(high, 4) * 255).round() / 255


def to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def jpeg(image: Tensor, quality: int, subsampling: str) -> Tensor:
    file = io.BytesIO()
    to_pil(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return from_pil(Image.open(file))


def mean_levels(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().mean().item() * 255


def test_degradation_depends_only_on_seed_and_position() -> None:
    high, low = patches(6)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    degraded, target = degradation()(high, 10, low)
    assert torch.equal(torch.get_rng_state(), before)
    assert target is high
    assert torch.equal((degraded * 255).round() / 255, degraded)
    assert 0 <= degraded.min() <= degraded.max() <= 1
    for parts in ([2, 4], [1] * 6):  # two processes, or one by one
        place, found = 0, []
        for part in parts:
            chosen = slice(place, place + part)
            found.append(degradation()(high[chosen], 10 + place, low[chosen])[0])
            place += part
        assert torch.equal(torch.cat(found), degraded)
    assert not torch.equal(degradation(6)(high, 10, low)[0], degraded)


@pytest.mark.parametrize("settings", [{"clean_prob": 1.0}, NOTHING])
def test_probability_zero_leaves_patches_as_they_are(settings: dict[str, float]) -> None:
    high, low = patches(4)
    torch.testing.assert_close(degradation(**settings)(high, 0, low)[0], low, rtol=0, atol=1e-6)


def test_clean_patches_have_their_probability() -> None:
    high, low = (each[:1].expand(400, -1, -1, -1) for each in patches(1))
    degraded = degradation(clean_prob=0.25, jpeg_prob=1.0)(high, 0, low)[0]
    clean = (degraded == low).all(dim=(1, 2, 3)).float().mean()
    assert 0.18 < clean < 0.32


@pytest.mark.parametrize(("full_chroma", "subsampling", "other"), [(0.0, "4:2:0", "4:4:4"), (1.0, "4:4:4", "4:2:0")])
def test_jpeg_is_that_of_libjpeg(full_chroma: float, subsampling: str, other: str) -> None:
    low = batch(4)
    settings = NOTHING | {"jpeg_prob": 1.0, "jpeg_range": (70, 70), "full_chroma_prob": full_chroma}
    for made, image in zip(degradation(**settings)(low, 0, low)[0], low, strict=True):
        assert mean_levels(made, jpeg(image, 70, subsampling)) < 0.5
        assert mean_levels(made, jpeg(image, 70, other)) > 1


def test_earlier_jpeg_is_larger_and_made_from_hr() -> None:
    high, low = patches(4)
    settings = {"earlier_jpeg_prob": 1.0, "earlier_factor_range": (2.0, 2.0), "earlier_jpeg_range": (40, 40)}
    for made, image in zip(degradation(**NOTHING | settings)(high, 0, torch.zeros_like(low))[0], high, strict=True):
        larger = to_pil(image).resize((24, 32), Image.Resampling.BICUBIC)
        expected = from_pil(to_pil(jpeg(from_pil(larger), 40, "4:2:0")).resize((12, 16), Image.Resampling.BICUBIC))
        without = from_pil(larger.resize((12, 16), Image.Resampling.BICUBIC))
        assert mean_levels(made, expected) < min(2, mean_levels(made, without) / 2)


def test_blur_noise_and_sharpening_have_their_strength() -> None:
    high, low = patches(4)
    blurred = degradation(**NOTHING | {"blur_prob": 1.0, "blur_sigma": (0.7, 0.7)})(high, 0, low)[0]
    softened = torch.stack([from_pil(to_pil(image).filter(ImageFilter.GaussianBlur(0.7))) for image in low])
    inner = (..., slice(2, -2), slice(2, -2))
    assert mean_levels(blurred[inner], softened[inner]) < mean_levels(blurred[inner], low[inner]) / 4
    sharp = {"sharpen_prob": 1.0, "sharpen_range": (0.5, 0.5), "sharpen_sigma": (0.7, 0.7)}
    sharpened = degradation(**NOTHING | sharp)(high, 0, low)[0]
    torch.testing.assert_close(sharpened, (1.5 * low - 0.5 * blurred).clamp(0, 1), rtol=0, atol=1 / 255)
    gray = torch.full((1, 3, 256, 256), 0.5)
    noisy = degradation(**NOTHING | {"noise_prob": 1.0, "noise_range": (4.0, 4.0), "gray_noise_prob": 1.0})
    noise = (noisy(gray, 0, gray)[0] - gray) * 255
    assert noise.std().item() == pytest.approx(4, abs=0.1)
    assert torch.equal(noise[:, 0], noise[:, 2])


@pytest.mark.parametrize(("scale", "channels", "size"), [(1, 3, 24), (2, 1, 40), (4, 1, 8), (8, 3, 8)])
def test_every_scale_size_and_channel_count(scale: int, channels: int, size: int) -> None:
    high = batch(16, size, size)[:, :channels]
    low = F.avg_pool2d(high, scale)
    assert degradation()(high, 0, low)[0].shape == low.shape
