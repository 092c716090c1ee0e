"""Tests of TGA, DDS, PPM and PGM files."""

import struct

import numpy as np
import pytest
from PIL import Image

from esrgan import images
from esrgan.errors import ImageError
from tests.helpers.image_files import double_size, noise


def to_pillow(pixels):
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def check_round_trip(folder, name, expected):
    """Check that a file is read as expected, and that a second program reads the same from what is written."""
    image = images.read_image(folder / name)
    np.testing.assert_array_equal(image.frames[0], expected)
    target = folder / f"b.{name.split('.')[1]}"
    notes = (*image.notes, *images.write_image(target, double_size(image), overwrite=True))
    with Image.open(target) as written:
        large = expected.repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(np.array(written).reshape(large.shape), large)
    return target.read_bytes(), notes


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("rle", [False, True])
@pytest.mark.parametrize("orientation", [1, -1])
def test_tga_keeps_its_layout(tmp_path, channels, rle, orientation):
    pixels = noise(channels)
    to_pillow(pixels).save(tmp_path / "a.tga", rle=rle, orientation=orientation, id_section=b"name")
    data = bytearray((tmp_path / "a.tga").read_bytes())
    data[8:12] = struct.pack("<HH", 5, 7)
    (tmp_path / "a.tga").write_bytes(data[:-26])  # without a footer, as in version 1
    written, notes = check_round_trip(tmp_path, "a.tga", pixels)
    assert (written[2] > 8) == rle
    assert bool(written[17] & 0x20) == (orientation > 0)
    assert struct.unpack("<HH", written[8:12]) == (10, 14)
    assert written[18:22] == b"name"
    assert notes == ()


def test_tga_alpha_that_is_not_used_is_dropped(tmp_path):
    pixels = noise(4)
    pixels[..., 3] = 0
    to_pillow(pixels).save(tmp_path / "a.tga")
    data = bytearray((tmp_path / "a.tga").read_bytes())
    data[17] &= 0xF0
    (tmp_path / "a.tga").write_bytes(data)
    check_round_trip(tmp_path, "a.tga", pixels[..., :3])


def test_tga_is_known_by_its_footer(tmp_path):
    to_pillow(noise(3)).save(tmp_path / "a.tga")
    (tmp_path / "a.tga").rename(tmp_path / "a.png")
    assert images.read_image(tmp_path / "a.png").file_format == "TGA"


def test_tga_areas_are_named(tmp_path):
    to_pillow(noise(3)).save(tmp_path / "a.tga")
    data = (tmp_path / "a.tga").read_bytes()
    data = data[:-26] + bytes(495) + struct.pack("<II", len(data) - 26, 0) + data[-18:]
    (tmp_path / "a.tga").write_bytes(data)
    assert "TGA extension area" in images.read_image(tmp_path / "a.tga").notes[0]


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


def test_shape_is_that_of_the_pixels(tmp_path):
    for name, channels in (("a.tga", 3), ("b.tga", 4), ("c.tga", 1), ("d.dds", 4), ("e.ppm", 3)):
        to_pillow(noise(channels)).save(tmp_path / name)
        pixels = images.read_image(tmp_path / name).frames[0]
        assert images.read_shape(tmp_path / name) == pixels.shape
        np.testing.assert_array_equal(images.read_pixels(tmp_path / name, channels), pixels)


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ppm(tmp_path, channels, dtype):
    pixels = noise(channels, dtype)
    peak = np.iinfo(dtype).max
    header = f"P{5 if channels == 1 else 6}\n{pixels.shape[1]} {pixels.shape[0]}\n{peak}\n".encode()
    content = header + pixels.astype(np.dtype(dtype).newbyteorder(">")).tobytes()
    (tmp_path / "a.ppm").write_bytes(content)
    image = images.read_image(tmp_path / "a.ppm")
    np.testing.assert_array_equal(image.frames[0], pixels)
    assert image.notes == ()
    images.write_image(tmp_path / "b.ppm", image)
    assert (tmp_path / "b.ppm").read_bytes() == content
    (tmp_path / "a.ppm").write_bytes(content[:-1])
    with pytest.raises(ImageError):
        images.read_image(tmp_path / "a.ppm")


def test_ppm_variants(tmp_path):
    for content, expected, notes in (
        (b"P6\n# x\n1 1\n255\n\1\2\3rest", [1, 2, 3], ("comment not kept", "4 bytes behind the image not kept")),
        (b"P6\n1 1\n1023\n\3\xff\0\0\0\1", [65535, 0, 64], ("samples of 0 to 1023 changed to 0 to 65535",)),
        (b"P5\n1 1\n1023\n\3\xff", [65535], ("samples of 0 to 1023 changed to 0 to 65535",)),
        (b"P2\n1 1\n15\n15\n", [255], ("samples of 0 to 15 changed to 0 to 255",)),
        (b"P3\n1 1\n255\n1 2 3\n", [1, 2, 3], ()),
        (b"P1\n1 1\n1\n", [0], ()),
        (b"P4\n1 1\n\0", [255], ()),
    ):
        (tmp_path / "a.pnm").write_bytes(content)
        image = images.read_image(tmp_path / "a.pnm")
        assert image.frames[0].ravel().tolist() == expected
        assert image.notes == notes
