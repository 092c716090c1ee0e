"""Tests that Photoshop's resources in JPEG files are kept, adjusted to the image, or named as left out."""

import dataclasses
import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from esrgan import images
from tests.helpers.image_files import make_exif, noise, upscale
from tests.images.test_jpeg import jpeg_file

IPTC = b"\x1c\x02\x05\0\x04test"
RESOLUTION = struct.pack(">IHHIHH", 300 << 16, 1, 1, 150 << 16, 1, 1)
TURNED_RESOLUTION = struct.pack(">IHHIHH", 150 << 16, 1, 1, 300 << 16, 1, 1)
GUIDES = struct.pack(">4IiBiB", 1, 576, 576, 2, 320, 0, 64, 1)


def resource(number, content, name=b"", signature=b"8BIM"):
    name = bytes([len(name)]) + name
    head = signature + struct.pack(">H", number) + name + bytes(len(name) % 2)
    return head + struct.pack(">I", len(content)) + content + bytes(len(content) % 2)


def segment(*resources):
    return 0xED, b"Photoshop 3.0\0" + b"".join(resources)


def test_resources_are_kept_or_named(tmp_path):
    caption, path = resource(1008, b"\3old"), resource(2000, bytes(26), b"outline")
    kept = (resource(1028, IPTC), caption, path, resource(1005, RESOLUTION), resource(1034, b"\1", signature=b"AgHg"))
    lost = (resource(1050, b"x"), resource(1033, b"x"), resource(1500, b"x"))
    target, notes = upscale(jpeg_file(tmp_path / "a.jpg", segment(*kept[:3], *lost), segment(*kept[3:])))
    assert notes == ("Photoshop slices, Photoshop thumbnail, Photoshop resource 1500 not kept",)
    assert b"".join(kept) in target.read_bytes()
    assert Image.open(target).info["photoshop"][1028] == IPTC
    image = images.read_image(target)
    assert image.iptc == IPTC
    assert images.write_image(tmp_path / "b.png", image) == ("PNG cannot store IPTC, Photoshop resources",)


def test_resources_follow_the_size(tmp_path):
    pixels = np.full((24, 48, 3), 200, np.uint8)
    small = resource(1036, struct.pack(">6I2H", 1, 1, 1, 4, 4, 1, 24, 1) + b"x")
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG")
    path = jpeg_file(tmp_path / "a.jpg", segment(small, resource(1032, GUIDES)), data=data.getvalue())
    image = images.read_image(path)
    assert image.notes == ()
    image = dataclasses.replace(image, frames=tuple(frame.repeat(4, 0).repeat(8, 1) for frame in image.frames))
    assert images.write_image(tmp_path / "b.jpg", image) == ()
    found = Image.open(tmp_path / "b.jpg").info["photoshop"]
    assert found[1032] == struct.pack(">4IiBiB", 1, 576, 576, 2, 2560, 0, 256, 1)
    kind, width, height, row, size, length, bits, planes = struct.unpack_from(">6I2H", found[1036])
    assert (kind, width, height, row, size, bits, planes) == (1, 160, 40, 480, 19200, 24, 1)
    thumbnail = Image.open(io.BytesIO(found[1036][28:]))
    assert (thumbnail.size, thumbnail.mode, length) == ((160, 40), "RGB", len(found[1036]) - 28)
    assert np.abs(np.asarray(thumbnail).astype(int) - 200).max() < 3


def test_resources_of_turned_images(tmp_path):
    resources = segment(resource(1005, RESOLUTION), resource(1032, GUIDES), resource(2001, bytes(26)))
    target, notes = upscale(jpeg_file(tmp_path / "a.jpg", (0xE1, make_exif(6)), resources))
    assert notes == ("Photoshop guides, Photoshop path not kept",)
    assert resource(1005, TURNED_RESOLUTION) in target.read_bytes()


def test_many_resources_are_written_in_several_segments(tmp_path):
    captions = [resource(1008, bytes([number]) * 40000) for number in range(3)]
    target, notes = upscale(jpeg_file(tmp_path / "a.jpg", *(segment(caption) for caption in captions)))
    assert notes == ()
    blocks = images.read_image(target).native_blocks
    assert [block.content[1] for block in blocks] == [bytes([number]) * 40000 for number in range(3)]


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_iptc_survives_format_changes(tmp_path, suffix):
    path = jpeg_file(tmp_path / "a.jpg", segment(resource(1028, IPTC)))
    images.write_image(tmp_path / f"b.{suffix}", images.read_image(path))
    images.write_image(tmp_path / "c.jpg", images.read_image(tmp_path / f"b.{suffix}"))
    assert Image.open(tmp_path / "c.jpg").info["photoshop"][1028].rstrip(b"\0") == IPTC


@pytest.mark.parametrize("order", "<>")
def test_iptc_of_tiff_may_be_stored_as_numbers(tmp_path, order):
    block = IPTC.ljust(12, b"\0")
    tag = (33723, 4, 3, struct.unpack(f"{order}3I", block), True)
    tifffile.imwrite(tmp_path / "a.tif", noise(3), photometric="rgb", byteorder=order, extratags=[tag], metadata=None)
    assert images.read_image(tmp_path / "a.tif").iptc == block


def test_damaged_resources_are_named(tmp_path):
    damaged = resource(1008, b"\3old")[:-2]
    _, notes = upscale(jpeg_file(tmp_path / "a.jpg", segment(resource(1028, IPTC), damaged)))
    assert notes == ("14 bytes in Photoshop resources not kept",)
    grey = images.ImageData((noise(1),), native_blocks=images.read_image(tmp_path / "a.jpg").native_blocks)
    assert images.write_image(tmp_path / "c.jpg", grey) == ()
