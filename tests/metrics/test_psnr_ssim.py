"""Tests of PSNR and SSIM against BasicSR, scikit-image and torchmetrics."""

import json
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.color
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from esrgan.metrics import METRICS, finite_mean, measure, psnr, ssim, to_y
from esrgan.resize import bicubic

# Computed with BasicSR 1.4.2, as described in the file.
EXPECTED = json.loads((Path(__file__).parent.parent / "assets" / "metrics.json").read_text())
CASES = [(name, scale) for name in ("astronaut", "coffee", "chelsea", "rocket") for scale in (2, 3, 4)]
KEYS = {"psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"}


def noisy_pair(channels, size=(32, 40)):
    generator = np.random.default_rng(channels)
    image = generator.integers(0, 256, (*size, channels), dtype=np.uint8)
    other = np.clip(image + generator.normal(0, 20, image.shape), 0, 255).astype(np.uint8)
    return image, other


@pytest.mark.parametrize(("name", "scale"), CASES)
@pytest.mark.slow
def test_scores_agree_with_basicsr(name, scale):
    image = getattr(skimage.data, name)()
    image = image[: image.shape[0] // 12 * 12, : image.shape[1] // 12 * 12]
    upscaled = bicubic(bicubic(image, Fraction(1, scale)), scale)
    scores = measure(upscaled, image, border=scale)
    expected = EXPECTED[name][f"x{scale}"]
    assert scores.keys() == KEYS
    for key, tolerance in {"psnr_y": 1e-4, "psnr_rgb": 1e-4, "ssim_y": 1e-5, "ssim_rgb": 1e-5}.items():
        assert scores[key] == pytest.approx(expected[key], abs=tolerance), key


def test_ssim_agrees_with_scikit_image():
    a, b = noisy_pair(3)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    _, similarity = structural_similarity(a, b, channel_axis=2, full=True, **options)
    assert ssim(a, b, 0) == pytest.approx(similarity[5:-5, 5:-5].mean(), abs=1e-9)


@given(
    st.integers(0), st.integers(19, 40), st.integers(19, 40), st.sampled_from([1, 10, 80]), st.sampled_from([0, 2, 4])
)
@settings(max_examples=50)
@pytest.mark.slow
def test_scores_agree_with_torchmetrics(seed, height, width, noise, border):
    """torchmetrics gets Y from scikit-image and images without the border; σ 1.5 sets its window to 11 pixels."""
    generator = np.random.default_rng(seed)
    hr = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    sr = np.clip(hr + generator.normal(0, noise, hr.shape), 0, 255).astype(np.uint8)
    scores = measure(sr, hr, border)
    rgb = np.stack([sr, hr])[:, border : height - border, border : width - border].astype(np.float64)
    for channels, images in {"y": skimage.color.rgb2ycbcr(rgb / 255)[..., :1], "rgb": rgb}.items():
        pair = torch.from_numpy(images).permute(0, 3, 1, 2).split(1)
        expected = peak_signal_noise_ratio(*pair, data_range=255.0)
        assert scores[f"psnr_{channels}"] == pytest.approx(
            float(expected), abs=1e-5
        )  # torchmetrics computes logarithms in float32
        options = {"sigma": 1.5, "data_range": 255.0, "return_full_image": True}
        _, similarity = structural_similarity_index_measure(*pair, **options)
        # Average where the window lies inside the image; the mean of torchmetrics includes mirrored edges.
        expected = similarity[..., 5:-5, 5:-5].mean()
        assert scores[f"ssim_{channels}"] == pytest.approx(float(expected), abs=1e-9)


def test_y_of_known_colours_is_exact():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_allclose(to_y(colours), [[16, 235, 81.481, 144.553, 40.966]], atol=1e-9)


def test_psnr_of_a_known_difference_is_exact():
    a = np.full((20, 20, 3), 100, np.uint8)
    assert psnr(a, a + 10, 0) == pytest.approx(20 * math.log10(255 / 10))
    assert psnr(a + 10, a, 0) == psnr(a, a + 10, 0)  # no wrap-around below zero


def test_identical_images_have_infinite_psnr_and_unit_ssim():
    a, _ = noisy_pair(3)
    scores = measure(a, a, 4)
    assert scores["psnr_y"] == scores["psnr_rgb"] == math.inf
    assert scores["ssim_y"] == pytest.approx(1)
    assert scores["ssim_rgb"] == pytest.approx(1)


def test_grey_is_its_own_y():
    a, b = noisy_pair(1)
    scores = measure(a, b, 2)
    assert scores["psnr_y"] == scores["psnr_rgb"] == psnr(a, b, 2)
    assert scores["ssim_y"] == scores["ssim_rgb"] == ssim(a[..., 0], b[..., 0], 2)


def test_alpha_is_ignored():
    a, b = noisy_pair(3)
    with_alpha = [np.dstack([image, alpha]) for image, alpha in ((a, a[..., 0]), (b, b[..., 1]))]
    assert measure(*with_alpha, 2) == measure(a, b, 2)


def test_border_is_ignored():
    a, b = noisy_pair(3)
    damaged = b.copy()
    damaged[:3], damaged[-3:], damaged[:, :3], damaged[:, -3:] = 0, 0, 0, 0
    assert measure(a, damaged, 3) == measure(a, b, 3)
    assert measure(a, damaged, 2) != measure(a, b, 2)


@given(arrays(np.uint8, (2, 12, 14, 3)), st.sampled_from([0, 2]))
@settings(max_examples=50)
def test_scores_are_symmetric_and_in_range(pair, border):
    a, b = pair
    assert psnr(a, b, border) == psnr(b, a, border) >= 0
    border = 0
    assert ssim(a, b, border) == pytest.approx(ssim(b, a, border), abs=1e-12)
    assert -1 - 1e-9 <= ssim(a, b, border) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("sr_shape", "hr_shape", "border", "message"),
    [
        ((20, 20, 3), (20, 21, 3), 0, r"equal shape, got \(20, 20, 3\) and \(20, 21, 3\)"),
        ((20, 20, 1), (20, 20, 3), 0, r"equal shape, got \(20, 20, 1\) and \(20, 20, 3\)"),
        ((20, 20, 4), (20, 20, 3), 0, r"equal shape, got \(20, 20, 4\) and \(20, 20, 3\)"),
        ((18, 30, 3), (18, 30, 3), 4, "at least 11x11 pixels inside a border of 4, got 18x30"),
        ((20, 20, 2), (20, 20, 2), 0, r"\(20, 20, 2\)"),
        ((20, 20), (20, 20), 0, r"\(20, 20\)"),
        ((20, 20, 3), (20, 20, 3), -1, "border of -1"),
    ],
)
def test_mismatched_and_invalid_shapes_are_rejected(sr_shape, hr_shape, border, message):
    with pytest.raises(ValueError, match=message):
        measure(np.zeros(sr_shape, np.uint8), np.ones(hr_shape, np.uint8), border)


def test_float_images_are_rejected():
    with pytest.raises(ValueError, match="expected uint8 images, got float64 and uint8"):
        measure(np.zeros((20, 20, 3)), np.zeros((20, 20, 3), np.uint8), 0)


def test_psnr_needs_at_least_one_pixel():
    assert psnr(np.zeros((9, 9)), np.ones((9, 9)), 4) == pytest.approx(48.1308, abs=1e-4)
    with pytest.raises(ValueError, match="at least 1x1 pixels inside a border of 5"):
        psnr(np.zeros((9, 9)), np.ones((9, 9)), 5)


def test_metric_directions_match_image_quality():
    image = skimage.data.chelsea()
    noisy = [
        np.clip(image + np.random.default_rng(0).normal(0, s, image.shape), 0, 255).astype(np.uint8) for s in (5, 20)
    ]
    better, worse = (measure(other, image, 0) for other in noisy)
    assert better.keys() == {name for name, metric in METRICS.items() if metric.higher_is_better}
    assert all(better[name] > worse[name] for name in better)


def test_import_loads_neither_torch_nor_scipy():
    code = "import sys, esrgan.metrics; assert not {'torch', 'scipy', 'torchmetrics'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_perfect_images_are_counted_but_not_part_of_the_mean():
    assert finite_mean([30.0, math.inf, 31.0]) == (30.5, 1)
    assert finite_mean([30.0, 31.0]) == (30.5, 0)
    assert finite_mean([math.inf] * 2) == (math.inf, 2)
    mean, count = finite_mean([])
    assert math.isnan(mean)
    assert count == 0
    assert math.isnan(finite_mean([1.0, math.nan])[0])  # a broken score is not hidden
