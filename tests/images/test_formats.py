"""Tests of image data and of the limits of each file format."""

import numpy as np
import pytest

from esrgan import images
from esrgan.errors import ImageError
from tests.helpers.image_files import RNG, message, noise


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("a.xyz", (4, 4, 3, np.uint8), "expected one of the suffixes .avif .bmp"),
        ("a.jpg", (4, 4, 4, np.uint8), "expected no transparency for JPEG, got an alpha channel; write .png"),
        ("a.ppm", (4, 4, 2, np.uint8), "no transparency for PPM"),
        (
            "a.jpg",
            (4, 4, 3, np.uint16),
            "at most 8 bits per sample for JPEG, got 16 bits per sample; write .png or .tif, or",
        ),
        ("a.webp", (4, 4, 3, np.float32), "got float samples; write .tif, or pass reduce_depth=True in Python"),
        ("a.png", (4, 4, 3, np.float32), "at most 16 bits per sample for PNG, got float"),
        ("a.avif", (4, 4, 3, np.uint16), "at most 12 bits per sample for AVIF, got 16"),
        ("a.png", (4, 4, 3, np.uint8, 3), "expected one image for PNG, got 3 frames; write .webp, .gif or .tif"),
        ("a.webp", (4, 16384, 3, np.uint8), "at most 16383 pixels per side for WEBP, got 16384×4; write .png or .tif"),
        ("a.jpg", (65501, 4, 3, np.uint8), "at most 65500 pixels per side for JPEG"),
        ("a.bmp", (40000, 40000, 3, np.uint8), "expected at most 4 GiB for BMP, got 40000×40000 pixels"),
        ("a.avif", (4, 16385, 3, np.uint8), "at most 16384 pixels per side for AVIF"),
        ("a.tif", (10**6, 4, 3, np.uint8, 101), "expected at most 100,000,000 rows for TIFF, got 101 frames of"),
    ],
)
def test_check_writable_refuses_images_beyond_the_format(tmp_path, name, arguments, expected):
    with pytest.raises(ImageError) as error:
        images.check_writable(tmp_path / name, *arguments)
    assert message(error).startswith(f"{tmp_path / name}: expected ")
    assert expected in message(error)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.dds", "a.ppm"])
@pytest.mark.parametrize(("channels", "extra"), [(2, 1), (4, 1), (5, 2), (6, 2)])
def test_only_tiff_stores_bands_that_are_neither_colour_nor_alpha(tmp_path, name, channels, extra):
    image = images.ImageData((np.full((8, 8, channels), 255, np.uint8),), extra_bands=extra)
    with pytest.raises(
        ImageError, match=r"expected only colour and transparency for \w+, got \d more bands?; write .tif"
    ):
        images.write_image(tmp_path / name, image)
    images.write_image(tmp_path / "a.tif", image)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_only_tiff_stores_pages_that_differ_in_size(tmp_path, name):
    image = images.ImageData(tuple(np.zeros((side, 8, 3), np.uint8) for side in (8, 16)))
    with pytest.raises(ImageError, match=r"expected frames of one size for \w+, got pages that differ; write .tif"):
        images.write_image(tmp_path / name, image)


def test_size_limits_match_the_encoders(tmp_path):
    for name, side in (("a.webp", 16383), ("a.jpg", 65500), ("a.gif", 65535), ("a.avif", 16384), ("a.png", 70000)):
        images.check_writable(tmp_path / name, 1, side, 3, np.uint8)
        images.write_image(tmp_path / name, images.ImageData((np.zeros((1, side, 3), np.uint8),)))
        assert images.read_image(tmp_path / name).frames[0].shape[:2] == (1, side)


def test_image_data_refuses_invalid_frames():
    for frames in ((), (noise(3), noise(1)), (noise(5),), (noise(3)[:0],), (noise(3)[..., 0],)):
        with pytest.raises(ValueError, match=r"frames \(H, W, C\) of the same C"):
            images.ImageData(frames)
    with pytest.raises(ValueError, match="uint8, uint16 or float32, got float64"):
        images.ImageData((RNG.random((4, 4, 3)),))
