"""Tests of BMP files."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from esrgan import images
from esrgan.errors import ImageError
from tests.helpers.image_files import PROFILE, double_size, noise

MASKS = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)


def make_bmp(path, words, bits, compression=0, masks=(0, 0, 0, 0), size=124, palette=b"", height=None, behind=b""):
    """Write a BMP of 2 rows from words of the given bits, or from packed bytes."""
    rows = words if isinstance(words, bytes) else np.asarray(words, f"<u{bits // 8}").tobytes()
    width = 2 if isinstance(words, bytes) else len(words[0])
    info = struct.pack(
        "<IiiHHIIiiII", size, width, height or 2, 1, bits, compression, len(rows), 0, 0, len(palette) // 4, 0
    )
    info += struct.pack("<4I", *masks) + (b"BGRs" + bytes(size - 60) if size > 40 else b"")
    start = 14 + len(info) + len(palette)
    path.write_bytes(struct.pack("<2sIII", b"BM", start + len(rows), 0, start) + info + palette + rows + behind)
    return path


def read(path):
    image = images.read_image(path)
    return image.frames[0], image.notes


def test_alpha_is_read_where_the_file_says_so(tmp_path):
    words = [[0x80112233, 0xFF445566], [0, 0xFFFFFFFF]]
    pixels, notes = read(make_bmp(tmp_path / "a.bmp", words, 32, 3, MASKS))
    assert pixels.tolist() == [[[0, 0, 0, 0], [255] * 4], [[0x11, 0x22, 0x33, 0x80], [0x44, 0x55, 0x66, 255]]]
    assert notes == ()
    pixels, notes = read(make_bmp(tmp_path / "a.bmp", words, 32))
    assert pixels.shape == (2, 2, 3)
    assert notes == ("fourth byte of each pixel not kept, because the file does not call it alpha",)
    pixels, notes = read(make_bmp(tmp_path / "a.bmp", [[0x112233, 0], [0, 0]], 32, 3, MASKS))
    assert pixels.shape == (2, 2, 3)
    assert notes == ("alpha that is 0 everywhere not kept",)


@pytest.mark.parametrize("bits", [16, 32])
def test_missing_rows_are_detected(tmp_path, bits):
    path = make_bmp(tmp_path / "a.bmp", [[1] * 4] * 2, bits, 3, (0xF800, 0x7E0, 0x1F, 0))
    for missing in (1, 4 * bits // 8):
        path.write_bytes(path.read_bytes()[:-missing])
        with pytest.raises(ImageError, match="truncated"):
            images.read_image(path)


def test_padding_of_the_last_row_may_be_missing(tmp_path):
    path = make_bmp(tmp_path / "a.bmp", [[1, 2, 3, 0]] * 2, 16, 3, (0xF800, 0x7E0, 0x1F, 0))
    data = bytearray(path.read_bytes())
    data[18] = 3  # the width
    path.write_bytes(data)
    expected, _ = read(path)
    path.write_bytes(data[:-2])
    np.testing.assert_array_equal(read(path)[0], expected)


def test_opaque_alpha_is_dropped_when_written(tmp_path):
    image = images.read_image(make_bmp(tmp_path / "a.bmp", [[0xFF112233] * 2] * 2, 32, 3, MASKS))
    images.write_image(tmp_path / "b.bmp", double_size(image))
    assert images.read_image(tmp_path / "b.bmp").frames[0].shape == (4, 4, 3)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("profile", [None, PROFILE])
def test_alpha_is_written(tmp_path, channels, profile):
    pixels = noise(channels)
    assert images.write_image(tmp_path / "a.bmp", images.ImageData((pixels,), "BMP", icc_profile=profile)) == ()
    again = images.read_image(tmp_path / "a.bmp")
    expected = pixels if channels == 4 else pixels[..., [0, 0, 0, 1]]
    np.testing.assert_array_equal(again.frames[0], expected)
    assert again.notes == ()
    assert again.icc_profile == profile
    with Image.open(tmp_path / "a.bmp") as image:
        np.testing.assert_array_equal(np.array(image), expected)


@pytest.mark.parametrize(
    ("masks", "word", "expected"),
    [
        ((0xF800, 0x7E0, 0x1F, 0), 0xF800 | 0x1F, [255, 0, 255]),
        ((0x7C00, 0x3E0, 0x1F, 0x8000), 0x8000 | 0x3E0, [0, 255, 0, 255]),
        ((0xF00, 0xF0, 0xF, 0xF000), 0x7F08, [255, 0, 136, 119]),
    ],
)
@pytest.mark.parametrize("size", [40, 124])
def test_sixteen_bits(tmp_path, masks, word, expected, size):
    compression = 6 if size == 40 and masks[3] else 3
    pixels, _ = read(make_bmp(tmp_path / "a.bmp", [[word, word]] * 2, 16, compression, masks, size))
    assert pixels[1, 1].tolist() == expected


def test_header_with_masks_but_none_of_alpha(tmp_path):
    words = struct.pack("<4H", 0xF81F, 0, 0x7E0, 0xFFFF)  # the header ends where others have the mask of alpha
    info = struct.pack("<IiiHHIIiiII", 52, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0) + struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
    (tmp_path / "a.bmp").write_bytes(struct.pack("<2sIII", b"BM", 74, 0, 66) + info + words)
    assert read(tmp_path / "a.bmp")[0].tolist() == [[[0, 255, 0], [255] * 3], [[255, 0, 255], [0] * 3]]


def test_rows_from_the_top(tmp_path):
    words = [[1, 1], [2, 2]]
    assert read(make_bmp(tmp_path / "a.bmp", words, 32, height=-2))[0][0, 0].tolist() == [0, 0, 1]
    assert read(make_bmp(tmp_path / "a.bmp", words, 32))[0][0, 0].tolist() == [0, 0, 2]


def test_run_length_encoding(tmp_path):
    palette = bytes([0, 0, 0, 0, 255, 0, 0, 0, 0, 255, 0, 0, 0, 0, 255, 0])
    black, blue, green = [0, 0, 0], [0, 0, 255], [0, 255, 0]
    for compression, bits, data, top in (
        (1, 8, b"\2\1\0\0\1\2\0\1", green),  # a run, the end of a row, a short run, the end of the image
        (1, 8, b"\2\1\0\2\0\1" + b"\0\0\0\1", black),
        (2, 4, b"\2\x11\0\0\1\x20\0\1", green),
    ):
        pixels, _ = read(make_bmp(tmp_path / "a.bmp", data, bits, compression, size=124, palette=palette))
        assert pixels[1].tolist() == [blue, blue]
        assert pixels[0].tolist() == [top, black]
    for end in (b"", b"\0\0"):  # only the code of the end is missing
        pixels, _ = read(make_bmp(tmp_path / "a.bmp", b"\2\1\0\0\2\2" + end, 8, 1, palette=palette))
        assert pixels.tolist() == [[green, green], [blue, blue]]
    make_bmp(tmp_path / "a.bmp", b"\2\1\0\0", 8, 1, palette=palette)
    with pytest.raises(ImageError, match="truncated"):
        images.read_image(tmp_path / "a.bmp")


def test_os2(tmp_path):
    data = struct.pack("<2sIII", b"BM", 0, 0, 26) + struct.pack("<IHHHH", 12, 1, 1, 1, 24) + bytes([1, 2, 3, 0])
    (tmp_path / "a.bmp").write_bytes(data)
    assert read(tmp_path / "a.bmp")[0].tolist() == [[[3, 2, 1]]]


def test_profile_is_kept(tmp_path):
    image = images.ImageData((noise(3),), "BMP", icc_profile=PROFILE, dpi=(300, 300))
    assert images.write_image(tmp_path / "b.bmp", image) == ()
    again = images.read_image(tmp_path / "b.bmp")
    assert again.icc_profile == PROFILE
    assert again.dpi == pytest.approx((300, 300), abs=0.01)
    assert again.notes == ()
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "b.bmp")), image.frames[0])


def test_what_is_left_out_is_named(tmp_path):
    _, notes = read(make_bmp(tmp_path / "a.bmp", [[1, 1], [2, 2]], 32, behind=b"secret"))
    assert notes == ("6 bytes after the image not kept",)
    data = bytearray((tmp_path / "a.bmp").read_bytes()[:-6])
    data[70:78] = bytes(4) + b"\1\0\0\0"
    (tmp_path / "a.bmp").write_bytes(data)
    assert read(tmp_path / "a.bmp")[1] == ("calibrated colours of the BMP not kept",)
    buffer = io.BytesIO()
    Image.fromarray(noise(3)).save(buffer, "JPEG")
    with pytest.raises(ImageError, match="a BMP that contains a JPEG; extract the JPEG"):
        images.read_image(make_bmp(tmp_path / "a.bmp", buffer.getvalue(), 24, 4))


@pytest.mark.parametrize("masks", [(0x3FF00000, 0xFFC00, 0x3FF, 0), (0xFF, 0, 0, 0)])
def test_unusual_masks_are_refused(tmp_path, masks):
    with pytest.raises(ImageError, match=r"got a BMP (of more than 8 bits|without some)"):
        images.read_image(make_bmp(tmp_path / "a.bmp", [[1, 1]] * 2, 32, 3, masks))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_grey_with_an_rgb_profile_is_written(tmp_path, dtype):
    image = images.ImageData((noise(1, dtype),), icc_profile=PROFILE)
    images.write_image(tmp_path / "a.bmp", image, reduce_depth=True)
    with Image.open(tmp_path / "a.bmp") as written:
        peak = 1 if dtype == np.float32 else np.iinfo(dtype).max
        np.testing.assert_array_equal(np.array(written), np.rint(image.frames[0][..., 0] * (255 / peak)))


def test_bitmap_without_file_header_is_read(tmp_path):
    colours, grey = noise(3, height=5, width=7), noise(1, height=5, width=7)
    for number, pixels in enumerate((colours, grey)):
        path = tmp_path / f"{number}.dib"
        Image.fromarray(pixels.squeeze()).save(path)
        assert path.read_bytes()[:2] != b"BM"
        assert np.array_equal(read(path)[0], pixels)
        assert images.read_shape(path) == pixels.shape
        assert np.array_equal(images.read_pixels(path, pixels.shape[2]), pixels)
