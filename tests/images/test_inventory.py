"""Tests that what a TIFF or JPEG file holds is kept, adjusted to the new size, or named as left out."""

import dataclasses
import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from esrgan import images
from esrgan.images import tiff_directories
from esrgan.images.exif import adjust_exif
from esrgan.images.sidecars import copy_sidecars
from esrgan.images.xmp import adjust_xmp
from tests.helpers.image_files import noise

GEOGRAPHIC = [
    (33550, "d", 3, (10.0, 20.0, 0.0), True),
    (33922, "d", 6, (2.0, 3.0, 0.0, 500000.0, 5400000.0, 0.0), True),
    (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
    (42113, "s", 0, "-9999", True),
]


def enlarge(image, factor=4):
    frames = tuple(frame.repeat(factor, axis=0).repeat(factor, axis=1) for frame in image.frames)
    return dataclasses.replace(image, frames=frames)


def upscale(path):
    """Read a file, enlarge it four times, write it, and return the new path and all messages."""
    image = images.read_image(path)
    target = path.with_name(f"b{path.suffix}")
    notes = images.write_image(target, enlarge(image), overwrite=True)
    return target, (*image.notes, *notes)


@pytest.mark.parametrize(
    ("bands", "photometric", "extra", "colours"),
    [
        (4, "rgb", ["unspecified"], 3),
        (5, "rgb", ["unassalpha", "unspecified"], 4),
        (2, "minisblack", ["unspecified"], 1),
        (2, "minisblack", ["unassalpha"], 2),
        (7, "minisblack", ["unspecified"] * 6, 1),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_bands_are_what_the_file_says(tmp_path, bands, photometric, extra, colours, dtype):
    pixels = np.random.default_rng(0).random((6, 7, bands)) * (1 if dtype == np.float32 else np.iinfo(dtype).max)
    options = {"planarconfig": "contig", "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(dtype), photometric=photometric, extrasamples=extra, **options)
    image = images.read_image(tmp_path / "a.tif")
    assert (image.base_channels, image.extra_bands) == (colours, bands - colours)
    target, notes = upscale(tmp_path / "a.tif")
    assert notes == ()
    with tifffile.TiffFile(target) as file:
        page = file.pages[0]
        np.testing.assert_array_equal(page.asarray()[::4, ::4], pixels.astype(dtype))
        assert [tifffile.EXTRASAMPLE(kind).name.lower() for kind in page.extrasamples] == extra
        assert page.photometric.name.lower() == photometric


def test_map_coordinates_follow_the_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(3), photometric="rgb", extratags=GEOGRAPHIC, metadata=None)
    assert images.read_image(tmp_path / "a.tif").no_data == -9999
    target, notes = upscale(tmp_path / "a.tif")
    assert notes == ()
    with tifffile.TiffFile(target) as file:
        tags = file.pages[0].tags
        assert tags[33550].value == (2.5, 5, 0)
        assert tags[33922].value == (8, 12, 0, 500000, 5400000, 0)
        assert tags[34735].value == (1, 1, 0, 1, 1024, 0, 1, 1)
        assert tags[42113].value == "-9999"
    assert "map coordinates" in " ".join(images.write_image(tmp_path / "b.png", images.read_image(target)))


def test_map_transformation_follows_the_size(tmp_path):
    matrix = (10.0, 1.0, 0.0, 500.0, 2.0, -20.0, 0.0, 900.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    extratags = [(34264, "d", 16, matrix, True)]
    tifffile.imwrite(tmp_path / "a.tif", noise(3), photometric="rgb", extratags=extratags, metadata=None)
    target, _ = upscale(tmp_path / "a.tif")
    with tifffile.TiffFile(target) as file:
        expected = np.reshape(matrix, (4, 4)) / [4, 4, 1, 1]
        np.testing.assert_allclose(np.reshape(file.pages[0].tags[34264].value, (4, 4)), expected)


def test_unknown_tags_are_named(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", noise(3), photometric="rgb", extratags=[(65000, "s", 0, "text", True)], metadata=None
    )
    _, notes = upscale(tmp_path / "a.tif")
    assert notes == ("not kept: tag 65000 (private)",)


@pytest.mark.parametrize("kind", ["imagej", "ome", "shaped"])
def test_stacks_open_as_stacks_in_their_programs(tmp_path, kind):
    stack = np.random.default_rng(0).integers(0, 2**16, (5, 8, 9), dtype=np.uint16)
    name = "a.ome.tif" if kind == "ome" else "a.tif"
    options = {"imagej": {"imagej": True}, "ome": {"ome": True}, "shaped": {}}[kind]
    extra = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25} if kind == "ome" else {}
    tifffile.imwrite(tmp_path / name, stack, photometric="minisblack", metadata={"axes": "ZYX", **extra}, **options)
    target, notes = upscale(tmp_path / name)
    with tifffile.TiffFile(target) as file:
        series = np.stack([page.asarray() for page in file.pages]) if kind != "ome" else file.series[0].asarray()
        np.testing.assert_array_equal(series[:, ::4, ::4], stack)
        assert len(file.pages) == 5
        if kind == "ome":
            description = file.pages[0].description
            for text in ('SizeX="36"', 'SizeY="32"', 'PhysicalSizeX="0.125"', 'PhysicalSizeY="0.0625"'):
                assert text in description
        else:
            assert notes == (f"not kept: description of {'ImageJ' if kind == 'imagej' else 'tifffile'}",)


def test_captions_are_kept(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for text in ("first", "second"):
            file.write(noise(3), photometric="rgb", description=text, metadata=None)
    target, notes = upscale(tmp_path / "a.tif")
    assert notes == ()
    with tifffile.TiffFile(target) as file:
        assert [page.description for page in file.pages] == ["first", "second"]


def test_strips_without_byte_counts_are_read(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels := noise(3), photometric="rgb", metadata=None, rowsperstrip=999)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    (offset,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, offset)
    for entry in range(offset + 2, offset + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry)[0] == 279:
            struct.pack_into("<H", data, entry, 65001)  # a private tag in the place of StripByteCounts
    (tmp_path / "a.tif").write_bytes(data)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], pixels)


def test_pointers_of_type_ifd_are_followed(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    memory = io.BytesIO()
    Image.fromarray(noise(3)).save(memory, "TIFF", exif=exif.tobytes())
    data = bytearray(memory.getvalue())
    place = data.index(struct.pack("<HH", 0x8769, 4))
    struct.pack_into("<H", data, place + 2, 13)
    (tmp_path / "a.tif").write_bytes(data)
    target, _ = upscale(tmp_path / "a.tif")
    assert Image.open(target).getexif().get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
    assert tiff_directories.read_exif(io.BytesIO(bytes(data)), with_description=True)


def jpeg_file(path, *segments, behind=b""):
    memory = io.BytesIO()
    Image.fromarray(noise(3)).save(memory, "JPEG", quality=95)
    data = memory.getvalue()
    parts = [b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in segments]
    path.write_bytes(data[:2] + b"".join(parts) + data[2:] + behind)
    return path


def test_jpeg_comments_and_pixel_shape_are_kept(tmp_path):
    path = jpeg_file(tmp_path / "a.jpg", (0xFE, b"album of 1931"))
    data = bytearray(path.read_bytes())
    place = data.index(b"JFIF\0")
    struct.pack_into(">BHH", data, place + 7, 0, 16, 11)
    path.write_bytes(data)
    target, notes = upscale(path)
    after = target.read_bytes()
    assert b"album of 1931" in after
    assert struct.unpack_from(">BHH", after, after.index(b"JFIF\0") + 7) == (0, 16, 11)
    assert notes == ()
    assert images.write_image(tmp_path / "c.png", images.read_image(path)) == ("PNG cannot store comment",)


def test_what_a_jpeg_has_besides_is_named(tmp_path):
    path = jpeg_file(
        tmp_path / "a.jpg", (0xEB, b"JP\0\1"), (0xEC, b"Ducky\0\1"), behind=b"\0\0\0\x18ftypmp42" + bytes(99)
    )
    _, notes = upscale(path)
    assert notes == ("segment APP11 JP, segment APP12 Ducky, the video of a motion photo not kept",)
    _, notes = upscale(jpeg_file(tmp_path / "a.jpg", behind=b"SEFH"))
    assert notes == ("4 bytes behind the image not kept",)


PACKET = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:GCamera="http://ns.google.com/photos/1.0/camera/"
 xmlns:Container="http://ns.google.com/photos/1.0/container/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 GPano:CroppedAreaLeftPixels="10" GPano:PoseHeadingDegrees="30" tiff:Orientation="6" %s>
<GPano:FullPanoHeightPixels>50</GPano:FullPanoHeightPixels><dc:title>kept</dc:title>%s</rdf:Description></rdf:RDF></x:xmpmeta>"""


def test_xmp_follows_the_size_and_announces_nothing_that_is_gone():
    motion = b'GCamera:MotionPhoto="1"', b"<Container:Directory><rdf:Seq/></Container:Directory>"
    for gone in ((b"", b""), motion):
        adjusted, note = adjust_xmp(PACKET % gone, 100, 200, (4, 2))
        assert b'GPano:CroppedAreaLeftPixels="20"' in adjusted
        assert b">200</GPano:FullPanoHeightPixels>" in adjusted
        assert b'GPano:PoseHeadingDegrees="30"' in adjusted
        assert b'tiff:Orientation="1"' in adjusted
        assert b"kept</dc:title>" in adjusted
        assert b"MotionPhoto" not in adjusted
        assert b"Directory" not in adjusted
        assert (note is None) == (gone is not motion)


def test_unreadable_xmp_that_may_be_stale_is_left_out():
    assert adjust_xmp(PACKET[:-9] % (b'GCamera:MotionPhoto="1"', b""), 1, 1, (1, 1)) == (
        None,
        "unreadable XMP not kept",
    )
    bomb = b'<!DOCTYPE a [<!ENTITY b "c">]>' + PACKET % (b'GCamera:MotionPhoto="1"', b"")
    assert adjust_xmp(bomb, 1, 1, (1, 1))[0] is None


@pytest.mark.parametrize("behind", [b"", b"other data"])
def test_exif_thumbnail_is_made_anew(behind):
    small = io.BytesIO()
    Image.fromarray(noise(3, height=12, width=16)).save(small, "JPEG")
    first = struct.pack("<HHHII", 1, 0x112, 3, 1, 6)
    start = 8 + len(first) + 4
    place = start + 2 + 36 + 4
    second = struct.pack("<HHHII", 3, 0x103, 3, 1, 6) + struct.pack("<HHII", 0x201, 4, 1, place)
    second += struct.pack("<HHII", 0x202, 4, 1, len(small.getvalue())) + bytes(4)
    block = b"II*\0\x08\0\0\0" + first + struct.pack("<I", start) + second + small.getvalue() + behind
    frame = np.full((64, 48, 3), 200, np.uint8)
    after = adjust_exif(block, frame, (4, 4))
    assert after.count(b"\xff\xd8\xff") == 1
    assert behind in after
    thumbnail = Image.open(io.BytesIO(after[after.index(b"\xff\xd8\xff") :]))
    assert thumbnail.size == (48, 64)
    assert np.abs(np.asarray(thumbnail).astype(int) - 200).max() < 3


SUFFIXES_OF_WORLD_FILES = [
    (".pgw", "b.png", ".pgw"),
    (".pngw", "b.png", ".pngw"),
    (".wld", "b.webp", ".wld"),
    (".PGW", "b.PNG", ".PGW"),
    (".pgw", "b.tif", ".tfw"),
    (".PNGW", "b.jpeg", ".JPEGW"),
]


@pytest.mark.parametrize(("suffix", "target", "new_suffix"), SUFFIXES_OF_WORLD_FILES)
def test_world_files_follow_the_size(tmp_path, suffix, target, new_suffix):
    (tmp_path / f"a{suffix}").write_text("10\n1\n2\n-20\n500005\n5399990\n")
    (tmp_path / "a.png.aux.xml").touch()
    notes = copy_sidecars(tmp_path / "a.png", tmp_path / target, (4, 2))
    a, d, b, e, c, f = map(float, (tmp_path / f"b{new_suffix}").read_text().split())
    assert notes == ["files beside it not kept: a.png.aux.xml"]
    for old, new in (((-0.5, -0.5), (-0.5, -0.5)), ((9.5, 5.5), (19.5, 23.5))):  # corners of 10 × 6 and 20 × 24 pixels
        x, y = 10 * old[0] + 2 * old[1] + 500005, 1 * old[0] - 20 * old[1] + 5399990
        assert (a * new[0] + b * new[1] + c, d * new[0] + e * new[1] + f) == pytest.approx((x, y))


def test_world_file_may_have_a_mark_decimal_commas_and_two_byte_line_ends(tmp_path):
    (tmp_path / "a.tfw").write_bytes(b"\xef\xbb\xbf0,5\r\n0\r\n0\r\n-0,5\r\n100,25\r\n1e3\r\n")
    assert copy_sidecars(tmp_path / "a.TIF", tmp_path / "b.TIF", (1, 1)) == []
    assert [*map(float, (tmp_path / "b.tfw").read_text().split())] == [0.5, 0, 0, -0.5, 100.25, 1000]


@pytest.mark.parametrize("content", ["hello", "1 2 3 4 5", "1 2 3 4 5 nan", "1 2 3 4 5 6 7", "\xff" * 2000])
def test_other_file_in_the_place_of_a_world_file_is_named(tmp_path, content):
    (tmp_path / "a.wld").write_text(content)
    assert copy_sidecars(tmp_path / "a.png", tmp_path / "b.png", (4, 4)) == ["a.wld is no world file, not kept"]
    assert not (tmp_path / "b.wld").exists()


def test_existing_world_file_is_replaced_only_if_asked(tmp_path):
    (tmp_path / "a.wld").write_text("1 0 0 -1 0 0")
    (tmp_path / "b.wld").write_text("the user's")
    assert copy_sidecars(tmp_path / "a.png", tmp_path / "b.png", (4, 4)) == ["b.wld exists already and is kept"]
    assert (tmp_path / "b.wld").read_text() == "the user's"
    assert copy_sidecars(tmp_path / "a.png", tmp_path / "b.png", (4, 4), overwrite=True) == []
    assert (tmp_path / "b.wld").read_text().startswith("0.25\n")
    (tmp_path / "no").touch()
    assert copy_sidecars(tmp_path / "a.png", tmp_path / "no/b.png", (4, 4)) == [
        "b.wld cannot be written: Not a directory"
    ]


@pytest.mark.parametrize("name", ["a.xmp", "a.jpg.xmp", "a.AAE", "a.jpg.aux.xml", "a.prj", "a.jpg.ovr", "a_rpc.txt"])
def test_files_beside_an_image_that_describe_it_are_named(tmp_path, name):
    for other in (name, "a.txt", "b.xmp", "a.png"):
        (tmp_path / other).touch()
    assert copy_sidecars(tmp_path / "a.jpg", tmp_path / "b.jpg", (4, 4)) == [f"files beside it not kept: {name}"]
