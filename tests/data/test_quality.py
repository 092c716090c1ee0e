"""Measures of images by which tiles are chosen."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from esrgan.data.quality import (
    MAX_DISTANCE,
    NearDuplicates,
    hash_image,
    measure_blockiness,
    measure_detail,
    measure_luma,
)


def texture(height, width, seed=0, sigma=2.0):
    """Return smooth random texture (H, W), float32 in [0, 255]."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), sigma)
    return np.clip(128 + 40 * noise / noise.std(), 0, 255).round().astype(np.float32)


def code(luma, quality):
    file = io.BytesIO()
    Image.fromarray(luma.astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file), np.float32)


def test_steps_of_four_levels_have_the_computed_blockiness():
    stairs = np.arange(64) // 8 * 4
    # The second difference is 4 at each edge, 2 on both sides of it and 0 elsewhere, so that the median is 0.
    assert measure_blockiness((stairs + stairs[:, None]).astype(np.float32)) == pytest.approx(4 / 0.1**0.5)
    assert measure_blockiness(np.tile(stairs, (64, 1)).astype(np.float32)) == pytest.approx(2 / 0.1**0.5)


def test_blockiness_grows_with_compression_wherever_the_grid_begins():
    image = texture(203, 197)
    assert abs(measure_blockiness(image)) < 0.1
    found = [measure_blockiness(code(image, quality)[top:, left:]) for quality, top, left in [(90, 0, 0), (60, 3, 5)]]
    assert 0.1 < found[0] < found[1]
    assert measure_blockiness(code(image, 20)) > found[1]


def test_steps_without_a_period_of_eight_are_not_blocky():
    for period in (7, 9):
        stairs = np.arange(8 * period + 3) // period * 4
        assert measure_blockiness((stairs + stairs[:, None]).astype(np.float32)) == pytest.approx(0, abs=1e-6), period


def test_detail_is_the_deviation_from_block_means():
    rows, columns = np.indices((42, 50))
    assert measure_detail(np.float32(100 + 10 * (-1.0) ** (rows + columns))) == 10
    assert measure_detail(np.float32(rows // 4 * 9 + columns // 4 * 5)) == 0


def test_luma_weighs_the_channels_and_ignores_alpha():
    image = np.array([[[100, 50, 200, 7]]], np.uint8)
    expected = 0.299 * 100 + 0.587 * 50 + 0.114 * 200
    assert measure_luma(image)[0, 0] == pytest.approx(expected)
    assert measure_luma(image[..., :3])[0, 0] == pytest.approx(expected)
    assert measure_luma(image[..., 2:3])[0, 0] == 200


def test_hash_states_where_an_image_becomes_brighter():
    rows, columns = np.indices((170, 340), np.float32)
    assert hash_image(rows + columns).bit_count() == 512
    assert hash_image(rows - columns / 2).bit_count() == 256
    assert hash_image(-rows - columns) == 0


def test_hash_hardly_changes_with_size_brightness_and_compression():
    image = texture(240, 240, sigma=12)
    value = hash_image(image)
    for version in (image[::2, ::2], 255 * (image / 255) ** 0.7, code(image, 40)):
        assert (hash_image(np.float32(version)) ^ value).bit_count() <= MAX_DISTANCE
    assert (hash_image(texture(240, 240, seed=1, sigma=12)) ^ value).bit_count() > 100


def test_near_duplicates_are_those_of_a_comparison_of_all():
    random = np.random.default_rng(0)
    known, values = NearDuplicates(), [int.from_bytes(random.bytes(66)) for _ in range(50)]
    for i, value in enumerate(values):
        known.add(value, str(i))
    for distance in (0, 1, MAX_DISTANCE, MAX_DISTANCE + 1):
        for i, value in enumerate(values):
            other = value
            for bit in random.choice(528, distance, replace=False):
                other ^= 1 << int(bit)
            assert known.find(other) == ((distance, str(i)) if distance <= MAX_DISTANCE else None)
    known.add(values[3] ^ 1, "near")
    assert known.find(values[3] ^ 3) == (1, "near")


@pytest.mark.parametrize("shape", [(1, 1), (3, 20), (8, 8), (20, 11)])
def test_tiny_images_can_be_measured(shape):
    image = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    assert np.isfinite([measure_blockiness(image), measure_detail(image)]).all()
    assert hash_image(image) >= 0
