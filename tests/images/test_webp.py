"""Tests of WebP files."""

import struct

import pytest
from PIL import Image

from esrgan import images
from tests.helpers.image_files import double_size, noise


def read_durations(path):
    with Image.open(path) as image:
        durations = []
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            durations.append(image.info["duration"])
    return durations


@pytest.mark.parametrize("durations", [[5, 8, 1], [10, 0, 100], [1000, 2, 3]])
def test_short_delays_are_kept(tmp_path, durations):
    first, *others = [Image.fromarray(noise(3)) for _ in durations]
    options = {"lossless": True, "background": (10, 20, 30, 40)}
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, duration=durations, **options)
    image = images.read_image(tmp_path / "a.webp")
    assert list(image.delays_ms) == durations
    assert images.write_image(tmp_path / "b.webp", double_size(image)) == ()
    assert read_durations(tmp_path / "b.webp") == durations
    with Image.open(tmp_path / "b.webp") as written:
        assert written.info["background"] == (10, 20, 30, 40)


def test_equal_frames_keep_their_time(tmp_path):
    frames = (noise(3),) * 2
    image = images.ImageData((*frames, noise(3)), "WEBP", delays_ms=(5, 8, 20))
    images.write_image(tmp_path / "b.webp", image)
    assert sum(read_durations(tmp_path / "b.webp")) == 33


def test_what_is_left_out_is_named(tmp_path):
    Image.fromarray(noise(3)).save(tmp_path / "a.webp", lossless=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0")
    data = (tmp_path / "a.webp").read_bytes() + struct.pack("<4sI", b"what", 3) + b"abc\0"
    (tmp_path / "a.webp").write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:] + b"secret")
    assert images.read_image(tmp_path / "a.webp").notes == (
        "WebP chunks what not kept",
        "6 bytes after the image not kept",
    )
