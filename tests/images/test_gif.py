"""Tests of GIF files."""

import struct

import numpy as np
import pytest
from PIL import Image

from esrgan import images
from esrgan.errors import ImageError
from tests.helpers.image_files import HEIGHT, PROFILE, WIDTH, double_size, noise
from tests.images.test_webp import read_durations

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
XMP_TRAILER = bytes([1, *range(255, -1, -1), 0])


def make_gif(path, *extensions, behind=b"", **options):
    frames = [Image.fromarray(noise(3) // 128 * 255) for _ in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    path.write_bytes(path.read_bytes()[:-1] + b"".join(extensions) + b";" + behind)


def convert(folder):
    image = images.read_image(folder / "a.gif")
    notes = images.write_image(folder / "b.gif", double_size(image))
    assert notes == ("GIF stores 256 colours per frame and no partial transparency",)
    return image, (folder / "b.gif").read_bytes()


@pytest.mark.parametrize("durations", [[0, 10, 20], [10, 10, 10], [50, 0, 655350]])
def test_short_delays_are_kept(tmp_path, durations):
    make_gif(tmp_path / "a.gif", duration=durations, loop=3)
    image, _ = convert(tmp_path)
    assert list(image.delays_ms) == durations
    assert list(images.read_image(tmp_path / "b.gif").delays_ms) == durations
    assert read_durations(tmp_path / "b.gif") == durations


def place_on_canvas(data, width, height, left, top):
    """Return a GIF of one image with a larger canvas."""
    start = data.index(b"\x2c" + bytes(4) + data[6:10])
    canvas, place = struct.pack("<HH", width, height), struct.pack("<HH", left, top)
    return data[:6] + canvas + data[10 : start + 1] + place + data[start + 5 :]


@pytest.mark.parametrize("extra", [b"", b"\0", b"\0\0"])
def test_what_no_frame_covers_is_transparent(tmp_path, extra):
    Image.fromarray(noise(1)[..., 0]).save(tmp_path / "a.gif")
    before = images.read_image(tmp_path / "a.gif").frames[0]
    data = place_on_canvas((tmp_path / "a.gif").read_bytes(), 2 * WIDTH, 2 * HEIGHT, 4, 3)
    (tmp_path / "a.gif").write_bytes(data[:-1] + extra + b";")
    (frame,) = images.read_image(tmp_path / "a.gif").frames
    assert frame.shape == (2 * HEIGHT, 2 * WIDTH, 2)
    np.testing.assert_array_equal(frame[3 : 3 + HEIGHT, 4 : 4 + WIDTH, :1], before)
    assert frame[..., 1].sum() == 255 * HEIGHT * WIDTH
    with pytest.raises(ImageError, match="fills its canvas"):
        images.read_pixels(tmp_path / "a.gif", 3)
    with pytest.raises(ImageError, match="at most"):
        images.read_image(tmp_path / "a.gif", HEIGHT * WIDTH)


def test_zeros_between_blocks_are_skipped(tmp_path):
    make_gif(tmp_path / "a.gif", b"!\xfe\5hello\0\0", duration=20)
    before = images.read_image(tmp_path / "a.gif")
    data = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(data.replace(b"\0!\xf9", b"\0\0\0!\xf9"))
    image = images.read_image(tmp_path / "a.gif")
    assert len(image.native_blocks) == 1
    np.testing.assert_array_equal(image.frames, before.frames)
    make_gif(tmp_path / "a.gif", b"x", duration=20)
    with pytest.raises(ImageError, match="a block of an unknown kind"):
        images.read_image(tmp_path / "a.gif")


def test_very_many_repetitions_do_not_become_endless(tmp_path):
    make_gif(tmp_path / "a.gif", duration=20, loop=65535)
    images.write_image(tmp_path / "b.webp", images.read_image(tmp_path / "a.gif"))
    assert images.read_image(tmp_path / "b.webp").loop == 65535


def test_comments_profile_and_xmp_are_kept(tmp_path):
    profile = b"".join(
        bytes([len(part)]) + part for part in (PROFILE[i : i + 255] for i in range(0, len(PROFILE), 255))
    )
    make_gif(
        tmp_path / "a.gif",
        b"!\xfe\5hello\3 me\0",
        b"!\xff\x0bXMP DataXMP" + XMP + XMP_TRAILER,
        b"!\xff\x0bICCRGBG1012" + profile + b"\0",
        duration=20,
    )
    image, data = convert(tmp_path)
    assert image.notes == ()
    assert (image.xmp, image.icc_profile) == (XMP, PROFILE)
    assert b"!\xfe\x08hello me\0" in data
    assert b"XMP DataXMP" + XMP + XMP_TRAILER in data
    again = images.read_image(tmp_path / "b.gif")
    assert (again.xmp, again.icc_profile, len(again.frames)) == (XMP, PROFILE, 3)
    assert "comment" in images.write_image(tmp_path / "b.webp", image)[0]


def test_pixel_aspect_is_kept(tmp_path):
    make_gif(tmp_path / "a.gif", duration=20)
    data = bytearray((tmp_path / "a.gif").read_bytes())
    data[12] = 17  # 32/64
    (tmp_path / "a.gif").write_bytes(data)
    image, written = convert(tmp_path)
    assert image.pixel_aspect == (1, 2)
    assert written[12] == 17


def test_what_is_left_out_is_named(tmp_path):
    make_gif(
        tmp_path / "a.gif",
        b"!\xff\x0bMAGIC GAME1\1x\0",
        b"!\x01\x0c" + bytes(12) + b"\2hi\0",
        behind=b"secret",
        duration=20,
    )
    assert images.read_image(tmp_path / "a.gif").notes == (
        "GIF extension MAGIC GAME1, plain text not kept",
        "6 bytes after the image not kept",
    )
