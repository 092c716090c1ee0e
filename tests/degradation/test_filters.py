"""Blur, resizing, noise and sharpening against SciPy, OpenCV and statistics."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from esrgan.degradation import filters, kernels
from esrgan.degradation.filters import ImageBatch
from esrgan.degradation.sampling import Noise
from tests.helpers.degradation import canvas, cut, photo


def test_blur_reflects_edges_and_ignores_pixels_outside_the_image() -> None:
    images = [photo(30, 41), photo(17, 9), photo(3, 40), photo(1, 2)]
    random = np.random.default_rng(0)
    own = [kernels.gaussian(21, tuple(random.uniform(0.5, 4, 2)), random.uniform(0, 3)) for _ in images]
    stacked = torch.tensor(np.stack(own), dtype=torch.float32)
    for beyond in (0.0, 1e3):
        blurred = cut(filters.blur(canvas(images, beyond), stacked))
        for made, image, kernel in zip(blurred, images, own, strict=True):
            expected = [ndimage.correlate(channel, kernel, mode="mirror") for channel in image[0].double().numpy()]
            np.testing.assert_allclose(made[0], expected, atol=1e-6 * max(1, beyond))


def test_each_image_is_resized_to_its_own_size() -> None:
    images = [photo(30, 41), photo(17, 9), photo(20, 20)]
    sizes, modes = [(7, 50), (25, 9), (20, 20)], ["area", "bicubic", "bilinear"]
    resized = filters.resize(canvas(images, 9.0), sizes, modes, (60, 50))
    assert resized.pixels.shape == (3, 3, 60, 50)
    for made, image, size, mode in zip(cut(resized), images, sizes, modes, strict=True):
        torch.testing.assert_close(made, F.interpolate(image, size=size, mode=mode), rtol=0, atol=0)


def noisy(image: Tensor, noise: Noise, seed: int = 0) -> Tensor:
    images = ImageBatch(image, [(image.shape[2], image.shape[3])])
    return filters.add_noise(images, [noise], [torch.Generator().manual_seed(seed)]).pixels


@pytest.mark.parametrize("is_gray", [False, True])
def test_gaussian_noise_has_the_requested_deviation(is_gray: bool) -> None:
    noise = noisy(torch.full((1, 3, 200, 200), 0.5), Noise(True, 20.0, is_gray))[0] - 0.5
    assert noise.std().item() * 255 == pytest.approx(20, rel=0.02)
    assert abs(noise.mean().item()) * 255 < 0.3
    correlation = np.corrcoef(noise.flatten(1))[0, 1]
    assert (correlation > 0.999) if is_gray else (abs(correlation) < 0.02)


@pytest.mark.parametrize("is_gray", [False, True])
@pytest.mark.parametrize("count", [2, 5, 200])
def test_poisson_noise_variance_is_proportional_to_brightness(is_gray: bool, count: int) -> None:
    levels = torch.arange(20, 20 + count).repeat(60_000 // count + 1)[:60_000].view(1, 1, 200, 300)
    image = levels.expand(-1, 3, -1, -1) / 255
    noise = noisy(image, Noise(False, 0.3, is_gray)) - image
    photons = 2 ** math.ceil(math.log2(count))
    expected = 0.3**2 * image.mean().item() / photons
    is_free = (image + noise > 0) & (image + noise < 1)
    assert is_free.float().mean() > 0.95 or count < 10
    if count > 10:  # with a few photons noise is clipped
        assert noise[is_free].var().item() == pytest.approx(expected, rel=0.05)
        assert abs(noise[is_free].mean().item()) < 0.005
    steps = noise[:, :, 0, 0] + image[:, :, 0, 0] * 0.3  # multiples of the brightness of one photon
    assert torch.allclose((steps / 0.3 * photons).round(), steps / 0.3 * photons, atol=1e-2) or count < 10
    assert torch.equal(noise[:, 0], noise[:, 1]) == is_gray


def test_sharpening_matches_unsharp_masking_with_opencv() -> None:
    high = photo(70, 90)
    image = high[0].permute(1, 2, 0).numpy()
    detail = image - cv2.GaussianBlur(image, (51, 51), 0, borderType=cv2.BORDER_REFLECT_101)
    mask = cv2.GaussianBlur((np.abs(detail) * 255 > 10).astype(np.float32), (51, 51), 0)
    expected = mask * np.clip(image + 0.5 * detail, 0, 1) + (1 - mask) * image
    made = filters.sharpen(high)[0].permute(1, 2, 0).numpy()
    assert 0.01 < mask.mean() < 0.99
    assert np.abs(made - expected).max() < 1e-3  # OpenCV rounds its taps
    assert np.abs(made - image).max() > 0.02
    flat = torch.full((2, 1, 8, 12), 0.25)
    torch.testing.assert_close(filters.sharpen(flat), flat)
