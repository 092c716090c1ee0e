"""Parts of images, compared with the same parts of the whole output."""

import numpy as np
import pytest
from PIL import Image

from esrgan import Upscaler, images
from esrgan.demo import parts, views
from esrgan.demo.uploads import read_upload
from esrgan.images.image import COLOUR_SPACE, NativeBlock
from esrgan.inference import upscale_image
from tests.helpers.models import make_model

POSITIONS = ((0, 0), (1, 1), (0.5, 0.3))


def photograph(height, width, channels):
    blots = np.random.default_rng(1).integers(0, 256, (max(height // 8, 1), max(width // 8, 1), channels), np.uint8)
    bands = [Image.fromarray(blots[..., i]).resize((width, height), Image.Resampling.BICUBIC) for i in range(channels)]
    return np.stack([np.asarray(band) for band in bands], axis=2)


def compare(upscaler, path, across, down):
    """Return a part, and the same part of the whole output."""
    data = read_upload(path, 10**6)
    whole = views.render(upscale_image(upscaler, data))
    part = parts.locate_part(data.frames[0].shape[:2], (whole.height, whole.width), across, down)
    done = []
    view = parts.upscale_part(upscaler, data, part, done.append)
    assert done[-1] == 1
    assert view.size == (part.width, part.height)
    return np.asarray(view, int), np.asarray(whole.crop(part.output_box), int)


@pytest.mark.parametrize("shape", [(230, 310, 3), (230, 310, 1), (30, 20, 4), (400, 30, 3)])
@pytest.mark.slow
def test_part_equals_the_whole_output(tmp_path, shape):
    images.write_image(tmp_path / "a.png", images.ImageData((photograph(*shape),)))
    upscaler = Upscaler.from_file(make_model(tmp_path / "model.pth"), "cpu")
    for position in POSITIONS:
        view, whole = compare(upscaler, tmp_path / "a.png", *position)
        np.testing.assert_allclose(view, whole, atol=1)
        assert (view != whole).mean() < 0.01


def test_part_of_a_png_with_a_gamma_equals_the_whole_output(tmp_path):
    gamma = NativeBlock(COLOUR_SPACE, b"gAMA", (100_000).to_bytes(4, "big"))
    images.write_image(tmp_path / "a.png", images.ImageData((photograph(30, 20, 3),), native_blocks=(gamma,)))
    view, whole = compare(Upscaler.from_file(make_model(tmp_path / "model.pth"), "cpu"), tmp_path / "a.png", 0, 0)
    np.testing.assert_allclose(view, whole, atol=1)


@pytest.mark.slow
def test_part_of_a_float_image_has_the_range_of_the_whole(tmp_path):
    frame = photograph(230, 310, 3).astype(np.float32) * 10
    frame[200:, 250:] += 2000
    images.write_image(tmp_path / "a.tif", images.ImageData((frame,)))
    upscaler = Upscaler.from_file(make_model(tmp_path / "model.pth"), "cpu")
    for position in POSITIONS:
        view, whole = compare(upscaler, tmp_path / "a.tif", *position)
        np.testing.assert_allclose(view, whole, atol=1)
        assert view.std() > 10


@pytest.mark.parametrize("size", [{"outscale": 3}, {"width": 451}, {"outscale": 1.5}])
@pytest.mark.slow
def test_part_of_a_resized_output_nearly_equals_the_whole(tmp_path, size):
    images.write_image(tmp_path / "a.png", images.ImageData((photograph(170, 230, 3),)))
    upscaler = Upscaler.from_file(make_model(tmp_path / "model.pth"), "cpu", **size)
    for position in POSITIONS:
        view, whole = compare(upscaler, tmp_path / "a.png", *position)
        assert np.abs(view - whole).max() <= 3
        assert np.abs(view - whole).mean() < 0.5


@pytest.mark.slow
def test_part_of_a_bundled_model_nearly_equals_the_whole(tmp_path):
    images.write_image(tmp_path / "a.png", images.ImageData((photograph(150, 150, 3),)))
    view, whole = compare(Upscaler.from_file("esrgan-photo", "cpu"), tmp_path / "a.png", 0.5, 0.5)
    np.testing.assert_allclose(view, whole, atol=2)
    assert (np.abs(view - whole) > 1).mean() < 0.001


def test_bicubic_part_is_a_part_of_the_whole():
    low = Image.fromarray(photograph(230, 310, 3))
    whole = low.resize((620, 460), Image.Resampling.BICUBIC)
    for position in POSITIONS:
        part = parts.locate_part((230, 310), (460, 620), *position)
        crop = np.asarray(parts.crop_bicubic(low, part), int)
        np.testing.assert_allclose(crop, np.asarray(whole.crop(part.output_box), int), atol=1)


@pytest.mark.parametrize(("point", "expected"), [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0.5, 0.5), (0.5, 0.5))])
def test_clicked_point_is_in_the_centre_if_possible(point, expected):
    assert parts.find_position((300, 400), (600, 800), *point) == pytest.approx(expected)
    across, down = parts.find_position((300, 400), (600, 800), 0.3, 0.4)
    part = parts.locate_part((300, 400), (600, 800), across, down)
    assert (part.left + part.width / 2, part.top + part.height / 2) == pytest.approx((240, 240), abs=1)
    assert parts.find_position((10, 10), (20, 20), 0.9, 0.1) == (0.5, 0.5)
