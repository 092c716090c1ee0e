"""Tests of the chunks of PNG files."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from esrgan import images
from esrgan.errors import ImageError
from tests.helpers.image_files import EXIF, double_size, make_exif, noise, png_with

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


END = chunk(b"IEND", b"")


def read_chunks(path):
    """Return names and contents of the chunks of a file."""
    data, position, found = path.read_bytes(), 8, {}
    while position < len(data):
        length, name = struct.unpack(">I4s", data[position : position + 8])
        found[name] = data[position + 8 : position + 8 + length]
        position += length + 12
    return found


def convert(tmp_path, *chunks, before=b"", behind=END, pixels=None, suffix=".png"):
    """Write a PNG with these chunks before the pixels, double it, and return the chunks of the result and all notes."""
    data = png_with(imagecodecs.png_encode(noise(3) if pixels is None else pixels), *chunks)
    end = len(data) - 12
    (tmp_path / "a.png").write_bytes(data[:8] + before + data[8:end] + behind)
    image = images.read_image(tmp_path / "a.png")
    target = tmp_path / f"b{suffix}"
    notes = (*image.notes, *images.write_image(target, double_size(image), overwrite=True))
    return read_chunks(target) if suffix == ".png" else {}, notes


def test_metadata_behind_the_pixels_is_kept(tmp_path):
    found, notes = convert(
        tmp_path, behind=chunk(b"eXIf", EXIF) + chunk(b"tEXt", b"Title\0a") + chunk(b"tIME", bytes(7)) + END
    )
    assert len(found[b"eXIf"]) == len(EXIF.removeprefix(b"Exif\0\0"))
    assert found[b"tEXt"] == b"Title\0a"
    assert found[b"tIME"] == bytes(7)
    assert notes == ()


def test_orientation_behind_the_pixels_is_applied(tmp_path):
    exif = make_exif(6, 8, 6)
    exif = (exif if isinstance(exif, bytes) else exif.tobytes()).removeprefix(b"Exif\0\0")
    pixels = np.zeros((6, 8, 3), np.uint8)
    convert(tmp_path, behind=chunk(b"eXIf", exif) + END, pixels=pixels)
    assert Image.open(tmp_path / "b.png").size == (12, 16)


def test_places_grow_with_the_image(tmp_path):
    found, notes = convert(
        tmp_path,
        (b"grAb", struct.pack(">ii", 12, -7)),
        (b"oFFs", struct.pack(">iiB", -5, 9, 0)),
        (b"sCAL", b"\x01" + b"0.5\x00" + b"1e-3"),
    )
    assert found[b"grAb"] == struct.pack(">ii", 24, -14)
    assert found[b"oFFs"] == struct.pack(">iiB", -10, 18, 0)
    assert found[b"sCAL"] == b"\x010.25\x000.0005"
    assert notes == ()
    micrometres = struct.pack(">iiB", -5, 9, 1)
    assert convert(tmp_path, (b"oFFs", micrometres))[0][b"oFFs"] == micrometres
    assert convert(tmp_path, (b"grAb", b"\0"))[1] == ("PNG chunks grAb not kept",)


def test_pixel_aspect_is_kept(tmp_path):
    found, notes = convert(tmp_path, (b"pHYs", struct.pack(">IIB", 4, 2, 0)))
    assert images.read_image(tmp_path / "b.png").pixel_aspect == (1, 2)
    assert found[b"pHYs"] == struct.pack(">IIB", 2, 1, 0)
    assert notes == ()
    _, notes = convert(tmp_path, (b"pHYs", struct.pack(">IIB", 4, 2, 0)), suffix=".jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert (image.info["jfif_unit"], image.info["jfif_density"]) == (0, (2, 1))
    assert notes == ()
    _, notes = convert(tmp_path, (b"pHYs", struct.pack(">IIB", 4, 2, 0)), suffix=".tif")
    assert images.read_image(tmp_path / "b.tif").pixel_aspect == (1, 2)
    assert notes == ()


def test_background_and_significant_bits(tmp_path):
    found, _ = convert(tmp_path, (b"bKGD", struct.pack(">3H", 1, 2, 255)), (b"sBIT", b"\x08\x08\x08"))
    assert found[b"bKGD"] == struct.pack(">3H", 1, 2, 255)
    assert found[b"sBIT"] == b"\x08\x08\x08"
    found, notes = convert(tmp_path, (b"sBIT", b"\x05\x06\x05"))
    assert b"sBIT" not in found
    assert notes == ("PNG chunks sBIT not kept",)
    image = Image.fromarray(noise(3)).quantize(4)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    image.save(tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    place = data.index(b"IDAT") - 4
    (tmp_path / "p.png").write_bytes(data[:place] + chunk(b"bKGD", b"\1") + data[place:])
    images.write_image(tmp_path / "q.png", images.read_image(tmp_path / "p.png"))
    assert read_chunks(tmp_path / "q.png")[b"bKGD"] == struct.pack(">3H", 255, 0, 0)


def test_what_is_left_out_is_named(tmp_path):
    _, notes = convert(
        tmp_path,
        (b"sTER", b"\0"),
        (b"caBX", b"claim"),
        (b"hIST", bytes(8)),
        (b"tEXt", b"exif:Orientation\x006"),
        behind=chunk(b"zzZz", b"x") + chunk(b"tEXt", b"a\0b")[:-1] + b"?" + END + b"secret",
    )
    assert notes == (
        "PNG chunks caBX, hIST, sTER, tEXt, zzZz not kept",
        "6 bytes after the image not kept",
        "text exif:Orientation not kept, because it describes the old image",
    )
    _, notes = convert(tmp_path, behind=chunk(b"tRNS", bytes(6)) + END)
    assert notes == ("misplaced transparency not kept",)
    _, notes = convert(tmp_path, behind=b"")
    assert notes == ("the file ends too early; what follows the pixels is missing",)


@pytest.mark.parametrize(
    "text",
    [
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0\0" + zlib.compress(XMP)),
        (b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(b"\nxmp\n  37\n" + XMP.hex().encode())),
    ],
)
def test_xmp_is_found_wherever_it_is(tmp_path, text):
    for place in ("before", "behind"):
        if place == "before":
            found, notes = convert(tmp_path, text, behind=END)
        else:
            found, notes = convert(tmp_path, behind=chunk(*text) + END)
        assert found[b"iTXt"] == b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
        assert notes == ()


def test_exif_in_a_text_becomes_exif(tmp_path):
    text = b"\nexif\n  99\n" + (b"Exif\0\0" + EXIF.removeprefix(b"Exif\0\0")).hex().encode() + b"\n"
    found, notes = convert(tmp_path, (b"tEXt", b"Raw profile type exif\0" + text), behind=END)
    assert len(found[b"eXIf"]) == len(EXIF.removeprefix(b"Exif\0\0"))
    assert b"tEXt" not in found
    assert notes == ()
    _, notes = convert(tmp_path, (b"tEXt", b"Raw profile type exif\0\nexif\n 3\nxyz"), behind=END)
    assert notes == ("unreadable EXIF not kept",)
    _, notes = convert(tmp_path, (b"eXIf", b"what?"))
    assert notes == ("unreadable EXIF not kept",)


def test_other_formats_name_what_they_cannot_store(tmp_path):
    chunks = ((b"tEXt", b"a\0b"), (b"grAb", bytes(8)), (b"gAMA", struct.pack(">I", 100000)))
    _, notes = convert(tmp_path, *chunks, behind=END, suffix=".webp")
    assert notes == ("WEBP cannot store hot spot, gamma or colour space, comment",)
    _, notes = convert(tmp_path, (b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45455)), behind=END, suffix=".webp")
    assert notes == ()


def test_apples_variant_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"got a PNG that Apple's Xcode has changed .*; convert it back with"):
        convert(tmp_path, before=chunk(b"CgBI", bytes(4)), behind=END)


def test_animation_of_one_frame_is_an_image(tmp_path):
    pixels = noise(3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    control = struct.pack(">IIIIIHHBB", 0, pixels.shape[1], pixels.shape[0], 0, 0, 1, 10, 0, 0)
    chunks = (b"acTL", struct.pack(">II", 1, 0)), (b"fcTL", control)
    (tmp_path / "a.png").write_bytes(png_with((tmp_path / "a.png").read_bytes(), *chunks))
    image = images.read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.frames[0], pixels)
    assert image.notes == ("PNG chunks acTL, fcTL not kept",)
    other = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels[::-1]))
    animated = png_with((tmp_path / "a.png").read_bytes(), (b"fdAT", struct.pack(">I", 1) + other))
    (tmp_path / "a.png").write_bytes(animated)  # its only frame is not the image
    with pytest.raises(ImageError, match="an animated PNG"):
        images.read_image(tmp_path / "a.png")
