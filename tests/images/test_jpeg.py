"""Tests of the segments of JPEG files and of what follows the image."""

import hashlib
import io
import re
import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from esrgan import images
from esrgan.errors import ImageError
from tests.helpers.image_files import EXIF, PROFILE, make_exif, noise, upscale

XMP_NAME, EXTENSION_NAME = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
RDF = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" %s/></rdf:RDF></x:xmpmeta>'
)
EXTRA = "extra images after the photograph (a phone's preview, depth map or gain map)"
FILM = struct.pack(">I", 24) + b"ftypmp42" + bytes(12) + struct.pack(">I", 108) + b"mdat" + b"x" * 100


def encode(pixels=None, **options):
    memory = io.BytesIO()
    Image.fromarray(noise(3) if pixels is None else pixels).save(memory, "JPEG", quality=95, **options)
    return memory.getvalue()


def jpeg_file(path, *segments, behind=b"", data=None):
    data = data or encode()
    parts = [b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in segments]
    path.write_bytes(data[:2] + b"".join(parts) + data[2:] + behind)
    return path


def read_xmp(path):
    """Return the main packet and the extension, checked against the name and the length that the file states."""
    data, position, main, parts = path.read_bytes(), 2, None, {}
    while data[position + 1] != 0xDA:
        length = int.from_bytes(data[position + 2 : position + 4])
        content = data[position + 4 : position + 2 + length]
        if content.startswith(XMP_NAME):
            main = content[len(XMP_NAME) :]
        elif content.startswith(EXTENSION_NAME):
            name, total, offset = struct.unpack_from(">32sII", content, len(EXTENSION_NAME))
            parts[offset] = content[len(EXTENSION_NAME) + 40 :]
        position += 2 + length
    if parts:
        extension = b"".join(parts[offset] for offset in sorted(parts))
        assert len(extension) == total
        assert hashlib.md5(extension).hexdigest().upper().encode() == name
        assert b'HasExtendedXMP="%s"' % name in main
        return main, extension
    return main, None


def test_comments_and_pixel_shape_are_kept(tmp_path):
    path = jpeg_file(tmp_path / "a.jpg", (0xFE, b"album of 1931"), (0xFE, b"x" * 65533))
    data = bytearray(path.read_bytes())
    place = data.index(b"JFIF\0")
    struct.pack_into(">BHH", data, place + 7, 0, 16, 11)
    path.write_bytes(data)
    target, notes = upscale(path)
    after = target.read_bytes()
    assert b"album of 1931\xff\xfe\xff\xff" + b"x" * 65533 in after
    assert struct.unpack_from(">BHH", after, after.index(b"JFIF\0") + 7) == (0, 16, 11)
    assert notes == ()
    assert images.write_image(tmp_path / "c.png", images.read_image(path)) == ("PNG cannot store comment",)


def test_resolution_is_turned_with_the_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(dpi=(300, 150), exif=make_exif(6)))
    target, _ = upscale(tmp_path / "a.jpg")
    assert Image.open(target).info["dpi"] == (150, 300)


@pytest.mark.parametrize(
    ("segments", "names"),
    [
        ([(0xEB, b"JP\0\1"), (0xEC, b"Ducky\0\1")], "segment APP11 JP, segment APP12 Ducky"),
        ([(0xE0, b"JFXX\0\x10")], "segment APP0 JFXX"),
        ([(0xE1, b"Exif\0\0nothing")], "unreadable EXIF"),
        ([(0xE1, EXIF), (0xE1, EXIF)], None),
        ([(0xE1, EXIF), (0xE1, make_exif(3))], "a second EXIF"),
        ([(0xE1, XMP_NAME + b"<a/>"), (0xE1, XMP_NAME + b"<b/>")], "a second XMP"),
        ([(0xE1, EXTENSION_NAME + b"0" * 32 + struct.pack(">II", 99, 0) + b"<a/>")], "extended XMP"),
        ([(0xE2, b"ICC_PROFILE\0\0\0" + PROFILE)], "unreadable colour profile"),
    ],
)
def test_segments_that_are_not_kept_are_named(tmp_path, segments, names):
    _, notes = upscale(jpeg_file(tmp_path / "a.jpg", *segments))
    assert notes == ((f"{names} not kept",) if names else ())


def samsung_trailer(**entries):
    """Return a trailer as Samsung's cameras write it."""
    blocks = [
        struct.pack("<HHI", 0, 0xA00 + number, len(name)) + name.encode() + content
        for number, (name, content) in enumerate(entries.items())
    ]
    offsets = [sum(map(len, blocks[number:])) for number in range(len(blocks))]
    table = b"".join(struct.pack("<HHII", 0, 0xA00, offset, 9) for offset in offsets)
    directory = b"SEFH" + struct.pack("<II", 106, len(blocks)) + table
    return b"".join(blocks) + directory + struct.pack("<I", len(directory)) + b"SEFT"


@pytest.mark.parametrize(
    ("behind", "names"),
    [
        (b"SEFH", "4 bytes after the image"),
        (bytes(2000), None),
        (b"text" + bytes(9) + FILM, "the video of a motion photo, 4 bytes after the image"),
        (bytes(100000) + FILM + b"rest", "the video of a motion photo, 4 bytes after the image"),
        (encode() + bytes(99) + encode(exif=make_exif(3)) + FILM, f"{EXTRA}, the video of a motion photo"),
        (encode() + b"rest", f"{EXTRA}, 4 bytes after the image"),
        (b"\xff\xd8\xff" * 300_000, EXTRA),
        (b"\xff\xd8\xff\xd9" * 300_000, EXTRA),
        (b"\0\0\0\3ftypmp42", "the video of a motion photo, 4 bytes after the image"),
        (FILM[:24] * 50_000, "the video of a motion photo"),
        (b"\xff\xd8\xff\xe0" + FILM, f"{EXTRA}, the video of a motion photo"),
        (samsung_trailer(Image_UTC_Data=b"1"), "Samsung's trailer (Image_UTC_Data)"),
        (
            encode() + samsung_trailer(MotionPhoto_Data=FILM, Image_UTC_Data=b"1"),
            f"the video of a motion photo, Samsung's trailer (MotionPhoto_Data, Image_UTC_Data), {EXTRA}",
        ),
        (b"\0\0SEFH\0\0\0\0\xff\xff\xff\xffSEFT", "16 bytes after the image"),
    ],
)
def test_all_that_follows_the_image_is_named(tmp_path, behind, names):
    _, notes = upscale(jpeg_file(tmp_path / "a.jpg", behind=behind))
    assert notes == ((f"{names} not kept",) if names else ())


def test_large_exif_loses_its_thumbnail_first(tmp_path):
    exif = bytearray(make_exif())
    first = 14 + 2 + 12 * struct.unpack_from("<H" if exif[6:8] == b"II" else ">H", exif, 14)[0]
    order = "<" if exif[6:8] == b"II" else ">"
    exif += bytes(len(exif) % 2)
    directory = len(exif) - 6
    struct.pack_into(f"{order}I", exif, first, directory)
    exif += struct.pack(f"{order}HHHIIHHIII", 2, 0x201, 4, 1, directory + 30, 0x202, 4, 1, 4, 0) + b"\xff\xd8\xff\xd9"
    exif += bytes(65533 - len(exif))
    target, notes = upscale(jpeg_file(tmp_path / "a.jpg", (0xE1, bytes(exif))))
    assert notes == ("thumbnail in EXIF not kept, because EXIF would be too large",)
    assert Image.open(target).getexif()[0x010F] == "Maker"
    image = images.ImageData((noise(3),), exif=EXIF[6:] + bytes(66000))
    assert images.write_image(tmp_path / "c.jpg", image) == ("EXIF not kept, because it has more than 65527 bytes",)


def test_exif_of_several_segments_is_joined(tmp_path):
    path = jpeg_file(tmp_path / "a.jpg", (0xE1, EXIF[:200]), (0xE1, b"Exif\0\0" + EXIF[200:]))
    assert images.read_image(path).exif == EXIF[6:]


def test_large_xmp_is_written_as_an_extension(tmp_path):
    packet = b'<?xpacket begin=""?>' + RDF % (b'dc:title="%s"' % (b"t" * 150000)) + b'<?xpacket end="w"?>'
    assert images.write_image(tmp_path / "a.jpg", images.ImageData((noise(3),), xmp=packet)) == ()
    main, extension = read_xmp(tmp_path / "a.jpg")
    assert extension == RDF % (b'dc:title="%s"' % (b"t" * 150000))
    assert b"title" not in main
    image = images.read_image(tmp_path / "a.jpg")
    assert image.notes == ()
    assert images.write_image(tmp_path / "b.png", image) == ()
    after = images.read_image(tmp_path / "b.png").xmp
    assert b"t" * 150000 in after
    assert b"HasExtendedXMP" not in after


def test_extended_xmp_is_joined(tmp_path):
    extension = RDF % b'dc:rights="ours"'
    name = hashlib.md5(extension).hexdigest().upper().encode()
    note = b'dc:title="mine" xmlns:n="http://ns.adobe.com/xmp/note/" n:HasExtendedXMP="%s"' % name
    parts = [
        (0xE1, EXTENSION_NAME + name + struct.pack(">II", len(extension), start) + extension[start:end])
        for start, end in ((50, None), (0, 50), (0, -4))
    ]
    target, notes = upscale(jpeg_file(tmp_path / "a.jpg", (0xE1, XMP_NAME + RDF % note), *parts[:2]))
    assert notes == ()
    main, extension = read_xmp(target)
    assert b'dc:title="mine"' in main
    assert b'dc:rights="ours"' in main
    assert b"HasExtendedXMP" not in main
    for part in parts:
        _, notes = upscale(jpeg_file(tmp_path / "a.jpg", (0xE1, XMP_NAME + RDF % note), part))
        assert notes == ("extended XMP not kept",)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (imagecodecs.jpeg_encode(noise(1, np.uint16)[..., 0] >> 4, bitspersample=12), "JPEG of 12 bits per sample"),
        (
            imagecodecs.jpeg_encode(noise(1, np.uint16)[..., 0], lossless=True, bitspersample=16),
            "lossless JPEG of 16 bits per sample",
        ),
        (imagecodecs.jpegls_encode(noise(1)[..., 0]), "JPEG-LS"),
    ],
)
def test_rare_kinds_of_jpeg_are_named(tmp_path, data, kind):
    (tmp_path / "a.jpg").write_bytes(data)
    for read in (images.read_image, lambda path: images.read_pixels(path, 1)):
        with pytest.raises(ImageError, match=f"got a {kind}; convert it to PNG or TIFF"):
            read(tmp_path / "a.jpg")


@pytest.mark.parametrize("channels", [1, 3])
def test_only_the_marker_of_the_end_may_be_missing(tmp_path, channels):
    pixels = noise(channels, height=99, width=99).squeeze()
    data = encode(pixels)
    (tmp_path / "whole.jpg").write_bytes(data)
    (whole,) = images.read_image(tmp_path / "whole.jpg").frames
    for cut in (1, 2):
        (tmp_path / "a.jpg").write_bytes(data[:-cut])
        image = images.read_image(tmp_path / "a.jpg")
        np.testing.assert_array_equal(image.frames[0], whole)
        assert image.notes == ("the marker of the end was missing",)
    for cut in (5, 12, 50, len(data) // 2):
        (tmp_path / "a.jpg").write_bytes(data[:-cut])
        with pytest.raises(ImageError, match="premature end"):
            images.read_image(tmp_path / "a.jpg")
    progressive = encode(pixels, progressive=True)
    for place in [match.start() for match in re.finditer(b"\xff\xda", progressive)][1:]:
        (tmp_path / "a.jpg").write_bytes(progressive[:place])
        with pytest.raises(ImageError, match=r"premature end|load error"):
            images.read_image(tmp_path / "a.jpg")


def test_cut_off_file_of_a_rare_kind_is_called_so(tmp_path):
    data = encode(noise(3, height=99, width=99)).replace(b"\xff\xc0", b"\xff\xc9", 1)
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="premature end"):
        images.read_image(tmp_path / "a.jpg")


def test_thumbnail_in_jfif_is_named(tmp_path):
    memory = io.BytesIO()
    Image.fromarray(noise(3)).save(memory, "JPEG")
    jfif = b"\xff\xe0" + struct.pack(">H5sHBHHBB", 16 + 12, b"JFIF\0", 0x0102, 1, 72, 72, 2, 2) + bytes(12)
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8" + jfif + memory.getvalue()[20:])
    assert images.read_image(tmp_path / "a.jpg").notes == ("thumbnail in JFIF not kept",)
