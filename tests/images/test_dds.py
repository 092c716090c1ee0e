"""Tests of DDS textures."""

import struct

import numpy as np
import pytest
from PIL import Image

from esrgan import images
from esrgan.errors import ImageError
from tests.helpers.image_files import check_round_trip, noise, to_pillow


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_dds_without_compression(tmp_path, channels):
    to_pillow(noise(channels)).save(tmp_path / "a.dds")
    with Image.open(tmp_path / "a.dds") as image:
        expected = np.array(image).reshape(*image.size[::-1], -1)
    _, notes = check_round_trip(tmp_path, "a.dds", expected)
    assert notes == ("DDS is written without compression and mipmaps",)


def test_dds_of_sixteen_bits(tmp_path):
    to_pillow(noise(3, height=1, width=2)).save(tmp_path / "a.dds")
    data = bytearray((tmp_path / "a.dds").read_bytes()[:128])
    data[88:104] = struct.pack("<4I", 16, 0xF800, 0x7E0, 0x1F)
    (tmp_path / "a.dds").write_bytes(data + struct.pack("<HH", 0xF800, 0x1F))
    assert images.read_image(tmp_path / "a.dds").frames[0].tolist() == [[[255, 0, 0], [0, 0, 255]]]
    (tmp_path / "a.dds").write_bytes(data + b"\0\0\0")
    with pytest.raises(ImageError):
        images.read_image(tmp_path / "a.dds")


def test_dds_of_grey_with_alpha_in_a_byte(tmp_path):
    to_pillow(noise(1, height=1, width=2)).save(tmp_path / "a.dds")
    data = bytearray((tmp_path / "a.dds").read_bytes()[:128])
    data[80:108] = struct.pack("<7I", 0x20001, 0, 8, 0x0F, 0, 0, 0xF0)
    (tmp_path / "a.dds").write_bytes(data + b"\x8f\xf0")
    assert images.read_image(tmp_path / "a.dds").frames[0].tolist() == [[[255, 136], [0, 255]]]


def test_dds_with_padded_rows(tmp_path):
    pixels = noise(3, height=3, width=30)
    to_pillow(pixels).save(tmp_path / "a.dds")
    data = bytearray((tmp_path / "a.dds").read_bytes())
    struct.pack_into("<I", data, 8, struct.unpack_from("<I", data, 8)[0] | 8)
    struct.pack_into("<I", data, 20, 92)
    rows = [bytes(data[start : start + 90]) for start in range(128, 398, 90)]
    for stored in (b"".join(rows), b"".join(row + b"xx" for row in rows)):  # with a pitch that is wrong, and right
        (tmp_path / "a.dds").write_bytes(data[:128] + stored)
        np.testing.assert_array_equal(images.read_image(tmp_path / "a.dds").frames[0], pixels)


@pytest.mark.parametrize(("codec", "channels"), [("DXT1", 3), ("DXT5", 4), ("BC3", 4), ("BC5", 3)])
def test_dds_with_compression(tmp_path, codec, channels):
    pixels = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    to_pillow(pixels).save(tmp_path / "a.dds", pixel_format=codec)
    assert images.read_image(tmp_path / "a.dds").frames[0].shape == (8, 8, channels)


def test_dds_marked_as_srgb(tmp_path):
    to_pillow(noise(4, height=8, width=8)).save(tmp_path / "a.dds", pixel_format="BC3")
    data = (tmp_path / "a.dds").read_bytes()
    linear = images.read_image(tmp_path / "a.dds")
    (tmp_path / "a.dds").write_bytes(data[:128] + struct.pack("<I", 78) + data[132:])
    image = images.read_image(tmp_path / "a.dds")
    np.testing.assert_array_equal(image.frames[0], linear.frames[0])
    assert image.notes == ("mark of sRGB in the DDS not kept",)


@pytest.mark.parametrize(("dxgi", "kept"), [(61, [2]), (87, [2, 1, 0, 3]), (88, [2, 1, 0]), (91, [2, 1, 0, 3])])
def test_dds_of_direct3d_10_without_compression(tmp_path, dxgi, kept):
    pixels = noise(4, height=3, width=5)
    to_pillow(pixels).save(tmp_path / "a.dds")
    head = bytearray((tmp_path / "a.dds").read_bytes()[:128])
    head[80:108] = struct.pack("<I4s5I", 4, b"DX10", 0, 0, 0, 0, 0)
    stored = pixels[..., 2:3] if dxgi == 61 else pixels
    (tmp_path / "a.dds").write_bytes(head + struct.pack("<5I", dxgi, 3, 0, 1, 0) + stored.tobytes())
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.dds").frames[0], pixels[..., kept])


def test_dds_that_cannot_be_kept_is_refused(tmp_path):
    to_pillow(noise(3)).save(tmp_path / "a.dds")
    whole = (tmp_path / "a.dds").read_bytes()
    for place, value, expected in (
        (112, 0x200, "a cube map"),
        (92, 0x3FF00000, "more than 8 bits"),
        (80, 4, "one of 24 bits"),
    ):
        (tmp_path / "a.dds").write_bytes(whole[:place] + struct.pack("<I", value) + whole[place + 4 :])
        with pytest.raises(ImageError, match=f"{expected}.*; (convert|extract) it"):
            images.read_image(tmp_path / "a.dds")
