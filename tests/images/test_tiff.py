"""Tests of TIFF files."""

import dataclasses
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from esrgan import images
from esrgan.errors import ImageError
from esrgan.images import tiff
from tests.helpers.image_files import EXIF, PROFILE, UPRIGHT_XMP, WIDTH, noise


@pytest.mark.parametrize("options", [{"byteorder": ">"}, {"bigtiff": True}, {"byteorder": ">", "bigtiff": True}])
def test_byte_orders_and_bigtiff_round_trip(tmp_path, monkeypatch, options):
    path, pixels = tmp_path / "a.tif", [noise(3, np.uint16) for _ in range(3)]
    with tifffile.TiffWriter(path, **options) as writer:
        for page in pixels:
            tags = [(271, 2, 6, "Maker", True), (700, 1, len(UPRIGHT_XMP), UPRIGHT_XMP, True)]
            writer.write(page, photometric="rgb", extratags=tags, resolution=(300.5, 150), resolutionunit="INCH")
    monkeypatch.setattr(tiff, "_MAX_TIFF_BYTES", 0 if "bigtiff" in options else 2**32)
    image_data = images.read_image(path)
    np.testing.assert_array_equal(image_data.frames, pixels)
    images.write_image(tmp_path / "b.tif", dataclasses.replace(image_data, icc_profile=PROFILE))
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_bigtiff == ("bigtiff" in options)
        assert len(file.pages) == 3
        for page, other in zip(file.pages, pixels, strict=True):
            np.testing.assert_array_equal(page.asarray(), other)
            assert page.tags["XResolution"].value == (601, 2)
            assert page.tags[34675].value == PROFILE
            assert page.tags["XMP"].value == UPRIGHT_XMP
        assert file.pages[0].tags["Make"].value == "Maker"


def test_reduced_copies_are_skipped(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(noise(3), photometric="rgb", metadata=None)
        writer.write(noise(3, height=4, width=7), photometric="rgb", subfiletype=1, metadata=None)
    image_data = images.read_image(tmp_path / "a.tif")
    assert image_data.notes == ("reduced-size copies in the file not kept",)
    assert len(image_data.frames) == 1


def test_many_pages(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", pages := noise(3, height=1500 * 2).reshape(1500, 2, WIDTH, 3), photometric="rgb"
    )
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames, pages)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_truncated_files_are_refused(tmp_path, tile, compression, dtype):
    """A file is refused wherever it ends: between strips or tiles, within one, or on the last page."""
    path = tmp_path / "a.tif"
    frames = np.stack([noise(3, dtype, 40, 48) for _ in range(2)])
    tifffile.imwrite(path, frames, photometric="rgb", tile=tile, compression=compression, rowsperstrip=8)
    np.testing.assert_array_equal(images.read_image(path).frames, frames)
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        page = file.pages[1]
        ends = {offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)}
    for end in (len(whole) // 2, *(end - 1 for end in ends), *sorted(ends)[:-1]):
        path.write_bytes(whole[:end])
        with pytest.raises(ImageError, match=r"\(the file is truncated\)|Read error|read error"):
            images.read_image(path)


def test_text_without_terminator_is_accepted(tmp_path):
    pixels, tag = noise(3, height=32, width=32), (271, 2, 5, b"Maker", True)
    for tile in (None, (16, 16)):
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=tile, extratags=[tag])
        path = tmp_path / "a.tif"
        path.write_bytes(path.read_bytes().replace(b"Maker\0", b"Maker!"))
        np.testing.assert_array_equal(images.read_image(path).frames[0], pixels)


def test_places_outside_of_any_file(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(3), photometric="rgb", bigtiff=True, description="x" * 99, metadata=None)
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].tags[270]
    path.write_bytes(data[:8] + b"\xff" * 8 + data[16:])
    with pytest.raises(ImageError, match="the file is truncated"):
        images.read_image(path)
    path.write_bytes(data[: tag.offset + 12] + b"\xff" * 8 + data[tag.offset + 20 :])
    assert b"xxx" not in images.read_image(path).exif


def test_many_announced_strips_take_no_time(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(3), photometric="rgb", rowsperstrip=4, metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        height, rows = file.pages[0].tags[257], file.pages[0].tags[278]
    for tag, value in ((height, 2**31), (rows, 1)):
        struct.pack_into("<HII", data, tag.offset + 2, 4, 1, value)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ImageError, match="pixels"):
        images.read_image(tmp_path / "a.tif")


def test_large_descriptions_do_not_end_the_process(tmp_path):
    pixels, text = noise(1)[..., 0], "x" * (26 << 20)
    tifffile.imwrite(tmp_path / "a.tif", pixels, description=text, metadata=None)
    image_data = images.read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image_data.frames[0][..., 0], pixels)
    assert text.encode() in image_data.exif


@pytest.mark.parametrize("megabytes", [26, 65])
def test_large_tags_are_named(tmp_path, megabytes):
    pixels, size = noise(1)[..., 0], megabytes << 20
    extra = [(37724, 7, size, bytes(size), True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata=None, extratags=extra)
    image_data = images.read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image_data.frames[0][..., 0], pixels)
    assert "tag 37724 (ImageSourceData)" in " ".join(image_data.notes)


def test_large_compressed_strips_are_read(tmp_path):
    pixels, options = noise(3, height=4200, width=4200), {"compressionargs": {"level": 0}, "rowsperstrip": 4200}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", compression="zlib", **options)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], pixels)


@pytest.mark.parametrize("missing", [1, 2, 4, 8])
def test_missing_ends_of_tags_are_errors_or_named(tmp_path, missing):
    image, path = Image.fromarray(noise(3)), tmp_path / "a.tif"
    image.save(path, compression="tiff_lzw")
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(ImageError, match="the file is truncated"):
        images.read_image(path)
    image.save(path, compression="tiff_lzw", icc_profile=PROFILE)
    path.write_bytes(path.read_bytes()[:-missing])
    image_data = images.read_image(path)
    assert image_data.icc_profile is None
    assert image_data.notes == ("not kept: unreadable parts of tag 34675 (InterColorProfile)",)


def test_unreadable_exif_is_named(tmp_path):
    image, path = Image.fromarray(noise(3)), tmp_path / "a.tif"
    image.save(path, exif=EXIF)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].tags[34665].offset + 8
        (start,) = struct.unpack_from("<I", data, offset)
    for place in (offset, start + 10):  # the directory, and the value of its first tag
        changed = bytearray(data)
        struct.pack_into("<I", changed, place, 2**31)
        path.write_bytes(changed)
        assert "unreadable parts of tag 34665 (ExifTag)" in " ".join(images.read_image(path).notes)
