"""Tests of contact sheets."""

import numpy as np
import pytest

from esrgan import images

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8)


def test_contact_sheet_places_and_upscales_images():
    low, high = np.full((4, 5, 1), 10, np.uint8), np.full((16, 20, 3), 200, np.uint8)
    wide = np.full((8, 60, 3), 77, np.uint8)
    sheet = images.make_contact_sheet([[low, high], [high, wide]], ["LR", "SR"], gap=6)
    top = 6 + 28 + 6
    second = 6 + max(20, 16) + 6  # the labels are narrower than the images
    assert sheet.shape == (top + 16 + 6 + 16 + 6, second + 120 + 6, 3)
    assert np.all(sheet[top : top + 16, 6:26] == 10)
    assert np.all(sheet[top : top + 16, second : second + 20] == 200)
    assert np.all(sheet[top + 22 : top + 38, second : second + 120] == 77)
    assert np.all(sheet[:, :6] == 255)
    assert np.all(sheet[top + 16 : top + 22] == 255)
    labels = sheet[6 : top - 6]
    assert labels[:, 6:26].min() < 100
    assert labels[:, second:].min() < 100


def test_contact_sheet_makes_room_for_labels():
    tiny = np.zeros((2, 2, 3), np.uint8)
    assert images.make_contact_sheet([[tiny]], ["a rather long label"]).shape[1] > 100


def test_contact_sheet_shows_transparency():
    clear = np.zeros((16, 16, 4), np.uint8)
    assert set(np.unique(images.make_contact_sheet([[clear]], [""])[-24:-8, 8:24])) == {102, 153}
    clear[..., 3], clear[..., 0] = 255, 9
    assert np.all(images.make_contact_sheet([[clear]], [""])[-24:-8, 8:24] == [9, 0, 0])


@pytest.mark.parametrize("rows", [[], [[RGB]], [[RGB, RGB], [RGB]]])
def test_contact_sheet_needs_full_rows(rows):
    with pytest.raises(ValueError, match="rows of 2 images, one for each label"):
        images.make_contact_sheet(rows, ["LR", "SR"])
