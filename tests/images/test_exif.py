"""Tests that EXIF blocks follow the size and the direction of the image."""

import io
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from esrgan import images
from esrgan.images.exif import adjust_exif
from tests.helpers.image_files import HEIGHT, WIDTH, noise, upscale

FRAME = np.full((64, 48, 3), 200, np.uint8)


def with_thumbnail(data, behind=b"", orientation=6):
    """Return an EXIF block with a thumbnail in JPEG."""
    first = struct.pack("<HHHII", 1, 0x112, 3, 1, orientation)
    start = 8 + len(first) + 4
    place = start + 2 + 36 + 4
    second = struct.pack("<HHHII", 3, 0x103, 3, 1, 6) + struct.pack("<HHII", 0x201, 4, 1, place)
    second += struct.pack("<HHII", 0x202, 4, 1, len(data)) + bytes(4)
    return b"II*\0\x08\0\0\0" + first + struct.pack("<I", start) + second + data + behind


def with_strips():
    """Return an EXIF block with a thumbnail without compression, in two strips."""
    first = struct.pack("<HHHII", 1, 0x112, 3, 1, 6)
    start = 8 + len(first) + 4
    place = start + 2 + 12 * 6 + 4
    entries = [(0x100, 4, 1, 2), (0x101, 4, 1, 2), (0x103, 3, 1, 1), (0x106, 3, 1, 2)]
    entries += [(0x111, 4, 2, place), (0x117, 3, 2, 6 | 6 << 16)]
    second = struct.pack("<H", 6) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    strips = struct.pack("<II", place + 8, place + 14) + b"pixelspixels"
    return b"II*\0\x08\0\0\0" + first + struct.pack("<I", start) + second + strips


def small_jpeg(size=12):
    memory = io.BytesIO()
    Image.fromarray(noise(3, height=size, width=size)).save(memory, "JPEG")
    return memory.getvalue()


def read_thumbnail(block):
    exif = Image.Exif()
    exif.load(block)
    directory = exif.get_ifd(ExifTags.IFD.IFD1)
    start = directory[0x201]
    return Image.open(io.BytesIO(block[start : start + directory[0x202]])), directory


@pytest.mark.parametrize("behind", [b"", b"other data"])
def test_thumbnail_is_made_anew(behind):
    after, notes = adjust_exif(with_thumbnail(small_jpeg(), behind), FRAME, (4, 4))
    assert after.count(b"\xff\xd8\xff") == 1
    assert behind in after
    assert notes == []
    thumbnail, _ = read_thumbnail(after)
    assert thumbnail.size == (48, 64)
    assert np.abs(np.asarray(thumbnail).astype(int) - 200).max() < 3


def test_thumbnail_without_compression_becomes_jpeg():
    after, notes = adjust_exif(with_strips(), FRAME, (4, 4))
    thumbnail, directory = read_thumbnail(after)
    assert thumbnail.size == (48, 64)
    assert directory[0x103] == 6
    assert not {0x100, 0x101, 0x106, 0x111, 0x117} & set(directory)
    assert b"pixels" not in after
    assert notes == []


def test_thumbnail_is_left_out_before_exif():
    block = with_thumbnail(small_jpeg(), bytes(60000))
    after, notes = adjust_exif(block, FRAME, (4, 4), len(block) + 100)
    assert struct.unpack_from("<I", after, 8 + 14) == (0,)
    assert b"\xff\xd8" not in after
    assert notes == ["thumbnail in EXIF not kept, because EXIF would be too large"]
    after, notes = adjust_exif(block, FRAME, (4, 4), 60000)
    assert after is None
    assert notes[-1] == "EXIF not kept, because it has more than 60000 bytes"


@pytest.mark.parametrize("excess", [30, 10**6])
def test_a_thumbnail_that_is_said_to_be_too_long_ends_where_other_data_begins(excess):
    jpeg = small_jpeg()
    place = 8 + 2 + 24 + 4 + 2 + 24 + 4
    first = struct.pack("<HHHII", 2, 0x10F, 2, 12, place + len(jpeg)) + struct.pack(
        "<HHII", 0x8769, 4, 1, place + len(jpeg) + 12
    )
    second = struct.pack("<HHHII", 2, 0x201, 4, 1, place) + struct.pack("<HHIII", 0x202, 4, 1, len(jpeg) + excess, 0)
    inner = struct.pack("<HHHII", 1, 0x9003, 2, 20, place + len(jpeg) + 30) + bytes(4) + b"2024:01:02 03:04:05\0"
    block = b"II*\0\x08\0\0\0" + first + struct.pack("<I", 38) + second + jpeg + b"Some maker \0" + inner
    after, _ = adjust_exif(block, FRAME, (4, 4))
    exif = Image.Exif()
    exif.load(after)
    assert (exif[0x10F], exif.get_ifd(0x8769)[0x9003]) == ("Some maker ", "2024:01:02 03:04:05")
    assert read_thumbnail(after)[0].size == (48, 64)
    assert jpeg not in after


def test_further_images_are_named():
    block = bytearray(with_thumbnail(small_jpeg()))
    place = 26 + 2 + 36
    struct.pack_into("<I", block, place, 26)
    after, notes = adjust_exif(bytes(block), FRAME, (4, 4))
    assert notes == ["further images in EXIF not kept"]
    assert struct.unpack_from("<I", after, place) == (0,)


# The centre of the subject at (10, 20) in a stored image of 48 × 64, and where it is in the upright one.
@pytest.mark.parametrize(
    ("orientation", "x", "y"),
    [(1, 10, 20), (2, 37, 20), (3, 37, 43), (4, 10, 43), (5, 20, 10), (6, 43, 10), (7, 43, 37), (8, 20, 37)],
)
def test_subject_and_resolutions_are_turned_and_scaled(tmp_path, orientation, x, y):
    pixels = np.zeros((64, 48, 3), np.uint8)
    pixels[20, 10] = 255
    exif = Image.Exif()
    exif[0x112], exif[0x11A], exif[0x11B] = orientation, IFDRational(300), IFDRational(150)
    directory = exif.get_ifd(0x8769)
    directory |= {0x9214: (10, 20, 5, 7), 0xA214: (10, 20), 0xA20E: IFDRational(100), 0xA20F: IFDRational(200)}
    directory[0xA005] = {1: "R98", 0x1001: 48, 0x1002: 64}
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif.tobytes())
    assert images.read_image(tmp_path / "a.png").frames[0][y, x, 0] == 255
    target, notes = upscale(tmp_path / "a.png")
    assert notes == ()
    after = Image.open(target).getexif()
    directory, is_turned = after.get_ifd(0x8769), orientation >= 5
    assert directory[0xA214] == (4 * x, 4 * y)
    assert directory[0x9214] == (4 * x, 4 * y, *((28, 20) if is_turned else (20, 28)))
    assert (directory[0xA20E], directory[0xA20F]) == ((800, 400) if is_turned else (400, 800))
    assert (after[0x11A], after[0x11B]) == ((150, 300) if is_turned else (300, 150))
    interoperability = after.get_ifd(0xA005)
    assert (interoperability[0x1001], interoperability[0x1002]) == ((256, 192) if is_turned else (192, 256))


def test_sizes_get_a_larger_type_if_they_need_it():
    block = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x100, 3, 1, 7, 0, 0)
    after, _ = adjust_exif(block, np.zeros((1, 70000, 3), np.uint8), (1, 10000))
    assert struct.unpack_from(">HHII", after, 10) == (0x100, 4, 1, 70000)


def test_damaged_blocks_stay_blocks():
    random = np.random.default_rng(0)
    original = with_thumbnail(small_jpeg(), b"behind")
    for _ in range(300):
        block = bytearray(original)
        for place in random.integers(4, 60, 3):
            block[place] = random.integers(256)
        after, _ = adjust_exif(bytes(block), FRAME, (4, 4), 65000)
        assert after is None or after[:4] == b"II*\0"


def test_exif_and_resolution_of_tiff_are_turned(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    exif.get_ifd(0x8769)[0xA214] = (10, 20)
    pixels = noise(3, height=64, width=48)
    Image.fromarray(pixels).save(tmp_path / "a.tif", exif=exif.tobytes(), dpi=(300, 150))
    target, notes = upscale(tmp_path / "a.tif")
    assert notes == ()
    with Image.open(target) as image:
        assert image.info["dpi"] == (150, 300)
        assert image.getexif().get_ifd(0x8769)[0xA214] == (172, 40)


@pytest.mark.parametrize("suffix", ["webp", "jpg"])
def test_unreadable_exif_is_named(tmp_path, suffix):
    Image.fromarray(noise(3)).save(tmp_path / f"a.{suffix}", exif=b"Exif\0\0no EXIF at all")
    _, notes = upscale(tmp_path / f"a.{suffix}")
    assert notes == ("unreadable EXIF not kept",)
    image = images.ImageData((noise(3),), exif=b"no EXIF at all")
    assert images.write_image(tmp_path / f"c.{suffix}", image) == ("unreadable EXIF not kept",)


@pytest.mark.parametrize(("kind", "count"), [(1, 1), (6, 1), (8, 1), (9, 1), (3, 2), (4, 1), (11, 1), (13, 1)])
@pytest.mark.parametrize("suffix", ["webp", "png", "jpg"])
def test_an_orientation_of_any_type_is_applied_at_most_once(tmp_path, suffix, kind, count):
    value = struct.pack("<f", 6.0) if kind == 11 else struct.pack("<I", 6)
    block = b"II*\0\x08\0\0\0" + struct.pack("<HHHI", 1, 0x112, kind, count) + value + bytes(4)
    Image.fromarray(noise(3)).save(tmp_path / f"a.{suffix}", exif=b"Exif\0\0" + block)
    image = images.read_image(tmp_path / f"a.{suffix}")
    images.write_image(tmp_path / f"b.{suffix}", image)
    assert image.frames[0].shape[:2] == ((WIDTH, HEIGHT) if kind in (4, 13) else (HEIGHT, WIDTH))
    assert images.read_image(tmp_path / f"b.{suffix}").frames[0].shape == image.frames[0].shape
