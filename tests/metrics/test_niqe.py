"""Tests of NIQE against BasicSR, SciPy and the formulas of the paper."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import gamma

from esrgan.metrics import to_y
from esrgan.metrics.niqe import fit_aggd, niqe
from esrgan.resize import bicubic

# Computed with BasicSR 1.4.2, as described in the file.
EXPECTED = json.loads((Path(__file__).parent.parent / "assets" / "metrics.json").read_text())
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")


def photo(name):
    image = getattr(skimage.data, name)()
    return image[: image.shape[0] // 12 * 12, : image.shape[1] // 12 * 12]


@pytest.fixture(scope="module")
def cat():
    return photo("chelsea")  # 300×444 px: 3×4 blocks and a remainder


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.slow
def test_niqe_agrees_with_basicsr(name):
    image = photo(name)
    upscaled = bicubic(bicubic(image, Fraction(1, 4)), 4)
    assert niqe(image, 0) == pytest.approx(EXPECTED[name]["niqe_of_original"], abs=0.003)
    assert niqe(upscaled, 4) == pytest.approx(EXPECTED[name]["niqe_of_bicubic_x4"], abs=0.003)


def test_worse_images_score_higher(cat):
    noise = np.random.default_rng(0).normal(0, 25, cat.shape)
    noisy = np.clip(cat + noise, 0, 255).astype(np.uint8)
    blurred = scipy.ndimage.gaussian_filter(cat, (2, 2, 0))
    assert niqe(cat, 0) + 1 < min(niqe(noisy, 0), niqe(blurred, 0))


def test_mirrored_images_score_nearly_the_same(cat):
    whole = cat[:288, :384]
    assert niqe(whole[:, ::-1], 0) == pytest.approx(niqe(whole, 0), rel=0.05)
    assert niqe(whole[::-1], 0) == pytest.approx(niqe(whole, 0), rel=0.05)


def test_pixels_beyond_whole_blocks_are_ignored(cat):
    damaged = cat.copy()
    damaged[288:], damaged[:, 384:] = 0, 255
    assert niqe(damaged, 0) == niqe(cat[:288, :384], 0)


def test_border_is_ignored(cat):
    assert niqe(cat, 4) == niqe(cat[4:-4, 4:-4], 0) != niqe(cat, 0)


def test_grey_is_its_own_y_and_alpha_is_ignored(cat):
    grey = np.round(to_y(cat)).astype(np.uint8)[..., None]
    assert niqe(grey, 0) == niqe(cat, 0) == niqe(np.dstack([cat, grey]), 0)


@pytest.mark.parametrize("level", [0, 1, 77, 100, 255])
def test_flat_areas_are_rejected_at_any_level(cat, level):
    flat = np.full((96, 192, 1), level, np.uint8)
    with pytest.raises(ValueError, match=r"texture in at least two blocks of 96x96 pixels for NIQE, got it in 0 of 2"):
        niqe(flat, 0)
    one_block = np.hstack([cat[:96, :96, :1], np.repeat(flat, 2, axis=1)])
    with pytest.raises(ValueError, match="got it in 1 of 5"):
        niqe(one_block, 0)


@pytest.mark.parametrize(
    ("shape", "border"),
    [((95, 500, 3), 0), ((500, 95, 3), 0), ((191, 191, 3), 0), ((96, 199, 3), 4), ((96, 192, 3), -1), ((9, 9, 1), 5)],
)
def test_images_of_less_than_two_blocks_are_rejected(shape, border):
    with pytest.raises(ValueError, match=rf"96x192 or 192x96 pixels inside a border of {border} for NIQE, got"):
        niqe(np.zeros(shape, np.uint8), border)


def test_two_blocks_are_enough(cat):
    assert 0 < niqe(cat[:104, :200], 4) < 100
    assert 0 < niqe(cat[:192, :96], 0) < 100


def test_other_types_and_shapes_are_rejected(cat):
    with pytest.raises(ValueError, match="expected a uint8 image, got float64"):
        niqe(cat / 255, 0)
    with pytest.raises(ValueError, match=r"\(300, 444\)"):
        niqe(cat[..., 0], 0)


@pytest.mark.parametrize(
    ("shape", "left", "right"), [(0.5, 1.0, 1.0), (1.0, 0.3, 2.0), (2.0, 2.0, 1.0), (4.0, 1.0, 1.5)]
)
def test_fit_finds_the_parameters_of_samples(shape, left, right):
    """A share of β_l / (β_l + β_r) of an asymmetric distribution is left of zero, half of a symmetric one."""
    generator = np.random.default_rng(0)
    sizes = np.abs(scipy.stats.gennorm(shape).rvs(200_000, random_state=generator))
    samples = np.where(generator.random(sizes.size) < left / (left + right), -left * sizes, right * sizes)
    fitted = fit_aggd(samples[None])
    np.testing.assert_allclose(np.concatenate(fitted), [shape, left, right], rtol=0.03)


def test_symmetric_fit_matches_scipy():
    samples = scipy.stats.gennorm(1.3, scale=2).rvs(50_000, random_state=0)
    shape, _, scale = scipy.stats.gennorm.fit(samples, floc=0)
    np.testing.assert_allclose(np.concatenate(fit_aggd(samples[None])), [shape, scale, scale], rtol=0.03)


@given(arrays(np.float64, (3, 40), elements=st.floats(-4, 4).map(lambda x: round(x, 3))))
@settings(max_examples=40)
@pytest.mark.slow
def test_fit_matches_the_formula(samples):
    """The reference fits each distribution separately and tries every shape, as in Eq. 4 to 7."""
    shapes = 0.2 + np.arange(9801) / 1000
    ratios = gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))
    for x, *fitted in zip(samples, *fit_aggd(samples), strict=True):
        if not (x.min() < 0 < x.max()):
            assert np.isnan(fitted[1]) or np.isnan(fitted[2])
            assert fitted[0] == 0.2
            continue
        left, right = np.sqrt(np.mean(x[x < 0] ** 2)), np.sqrt(np.mean(x[x > 0] ** 2))
        skew = left / right
        ratio = np.mean(np.abs(x)) ** 2 / np.mean(x**2) * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
        shape = shapes[np.argmin(np.abs(ratios - ratio))]
        scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
        assert fitted[0] == pytest.approx(shape, abs=1.1e-3)
        np.testing.assert_allclose(fitted[1:], [left * scale, right * scale], rtol=0.02)
