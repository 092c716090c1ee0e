import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from esrgan.resize import bicubic

# BasicSR 1.4.2 made these from the photographs in scikit-image; see tests/assets/metrics.json.
REFERENCES = sorted((Path(__file__).parent / "assets" / "bicubic").glob("*.png"))
SCALES = st.sampled_from([Fraction(1, 4), Fraction(1, 3), Fraction(1, 2), Fraction(2, 3), 1, 2, 3, 4, 0.7, 1.3])
SMALL = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.sampled_from([1, 3])))


def photograph(name):
    image = getattr(skimage.data, name)()
    return image[: image.shape[0] // 12 * 12, : image.shape[1] // 12 * 12]


def exact_weights(position, size, factor):
    """Compute the weights of one output sample when downscaling by an integer factor, in rational arithmetic."""
    centre = (position + Fraction(1, 2)) * factor - Fraction(1, 2)
    weights = {}
    for sample in range(math.floor(centre) - 2 * factor, math.ceil(centre) + 2 * factor + 1):
        x = abs(centre - sample) / factor
        if x <= 1:
            weight = Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
        elif x <= 2:
            weight = -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2
        else:
            continue
        mirrored = -1 - sample if sample < 0 else 2 * size - 1 - sample if sample >= size else sample
        weights[mirrored] = weights.get(mirrored, 0) + weight
    return {sample: weight / sum(weights.values()) for sample, weight in weights.items()}


def exact(image, factor, row, column, channel):
    rows = exact_weights(row, image.shape[0], factor)
    columns = exact_weights(column, image.shape[1], factor)
    return sum(v * h * int(image[i, j, channel]) for i, v in rows.items() for j, h in columns.items())


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_matches_the_reference(path):
    name, factor = path.stem.split("_x")
    image, expected = photograph(name), np.array(Image.open(path))
    low = bicubic(image, Fraction(1, int(factor)))
    assert low.shape == expected.shape
    assert low.dtype == np.uint8
    differing = np.argwhere(low != expected)
    # The reference was computed in float32, which rounds two of all these samples to the wrong side of a half.
    assert len(differing) == (2 if path.stem == "astronaut_x4" else 0)
    for where in differing:
        assert low[tuple(where)] == math.floor(exact(image, int(factor), *where) + Fraction(1, 2))


def test_all_references_exist():
    assert len(REFERENCES) == 6


@pytest.mark.parametrize(
    ("name", "factor", "where"),
    [("rocket", 2, (2, 93, 0)), ("rocket", 2, (131, 143, 1)), ("astronaut", 2, (206, 216, 2))],
)
def test_exact_halves_are_rounded_up(name, factor, where):
    image = photograph(name)
    value = exact(image, factor, *where)
    assert value % 1 == Fraction(1, 2)
    assert bicubic(image, Fraction(1, factor))[where] == math.ceil(value)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_matches_rational_arithmetic_everywhere(factor):
    image = np.random.default_rng(0).integers(0, 256, (12, 13, 1), dtype=np.uint8)
    low = bicubic(image.astype(np.float64), Fraction(1, factor))
    for where in np.ndindex(low.shape):
        assert low[where] == pytest.approx(float(exact(image, factor, *where)), abs=1e-10)


@given(st.integers(0, 255), st.integers(1, 40), st.integers(1, 40), SCALES)
def test_constant_image_stays_constant(value, height, width, scale):
    resized = bicubic(np.full((height, width), value, np.uint8), scale)
    assert np.all(resized == value)


@given(SMALL, SCALES)
def test_shape_type_and_transposition_are_consistent(image, scale):
    resized = bicubic(image, scale)
    size = tuple(math.ceil(Fraction(scale).limit_denominator(100) * n) for n in image.shape[:2])
    assert resized.shape == (*size, image.shape[2])
    assert resized.dtype == np.uint8
    assert resized.flags.c_contiguous
    floats = image.astype(np.float64)
    transposed = bicubic(floats.swapaxes(0, 1), scale).swapaxes(0, 1)
    np.testing.assert_allclose(transposed, bicubic(floats, scale), atol=1e-9)


@given(SMALL, SCALES)
def test_channels_are_resized_independently(image, scale):
    planes = [bicubic(image[..., channel], scale) for channel in range(image.shape[2])]
    np.testing.assert_array_equal(bicubic(image, scale), np.stack(planes, axis=-1))


@given(SMALL)
@settings(max_examples=20)
def test_scale_one_changes_nothing(image):
    np.testing.assert_array_equal(bicubic(image, 1), image)


@given(SMALL, SCALES)
@settings(max_examples=50)
def test_uint8_result_is_the_rounded_clipped_float_result(image, scale):
    floats = bicubic(image.astype(np.float64), scale)
    np.testing.assert_array_equal(bicubic(image, scale), np.clip(np.floor(floats + 0.5), 0, 255))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_keep_their_type_and_overshoot(dtype):
    edge = np.zeros((8, 8), dtype)
    edge[:, 4:] = 1
    resized = bicubic(edge, 2)
    assert resized.dtype == dtype
    assert resized.min() < 0
    assert resized.max() > 1


def test_float_noise_is_not_rounded_up():
    assert 100 * 0.07 > 7
    assert bicubic(np.zeros((100, 10)), 0.07).shape == (7, 1)
    assert bicubic(np.zeros((100, 10)), 0.071).shape == (8, 1)


@pytest.mark.parametrize(
    ("image", "scale", "message"),
    [
        (np.zeros((4, 4), np.int32), 2, "uint8 or a float type, got int32"),
        (np.zeros((4,)), 2, r"shape \(H, W\) or \(H, W, C\).*\(4,\)"),
        (np.zeros((0, 4)), 2, r"\(0, 4\)"),
        (np.zeros((4, 4)), 0, "positive, finite scale, got 0"),
        (np.zeros((4, 4)), math.nan, "got nan"),
        (np.zeros((4, 4)), math.inf, "got inf"),
    ],
)
def test_invalid_image_or_scale_raises(image, scale, message):
    with pytest.raises(ValueError, match=message):
        bicubic(image, scale)
