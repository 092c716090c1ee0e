"""Tests that what a TIFF file holds is kept, adjusted to the new size, or named as left out; and of world files."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from esrgan import images
from esrgan.images import tiff_directories
from esrgan.images.sidecars import copy_sidecars
from tests.helpers.image_files import noise, upscale

GEOGRAPHIC = [
    (33550, "d", 3, (10.0, 20.0, 0.0), True),
    (33922, "d", 6, (2.0, 3.0, 0.0, 500000.0, 5400000.0, 0.0), True),
    (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
    (42113, "s", 0, "-9999", True),
]


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
            assert notes == (() if kind == "imagej" else ("not kept: description of tifffile",))


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
    file = io.BytesIO(bytes(data))
    page = next(tiff_directories.read_directories(file))
    assert tiff_directories.read_exif(file, page, with_description=True)


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
    assert notes == ["files next to it not kept: a.png.aux.xml"]
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
    assert copy_sidecars(tmp_path / "a.png", tmp_path / "b.png", (4, 4)) == [
        "b.wld exists already and is kept, but does not fit b.png"
    ]
    assert (tmp_path / "b.wld").read_text() == "the user's"
    assert copy_sidecars(tmp_path / "a.png", tmp_path / "b.png", (4, 4), overwrite=True) == []
    assert (tmp_path / "b.wld").read_text().startswith("0.25\n")
    assert copy_sidecars(tmp_path / "a.png", tmp_path / "b.png", (4, 4)) == []  # the file is as it should be
    (tmp_path / "c.wld").mkdir()
    assert copy_sidecars(tmp_path / "a.png", tmp_path / "c.png", (4, 4)) == [
        "c.wld exists already and is kept, but does not fit c.png"
    ]
    (tmp_path / "no").touch()
    assert copy_sidecars(tmp_path / "a.png", tmp_path / "no/b.png", (4, 4)) == [
        "b.wld cannot be written: Not a directory"
    ]


@pytest.mark.parametrize(("first", "second", "shared"), [("png", "tif", "wld"), ("jpg", "jpeg", "jgw")])
def test_images_that_share_a_world_file_get_their_own(tmp_path, first, second, shared):
    (tmp_path / f"a.{shared}").write_text("1 0 0 -1 0 0")
    sources = [tmp_path / f"a.{first}", tmp_path / f"a.{second}"]
    for number, source in enumerate(sources):
        source.touch()
        sources[1 - number].touch()
        assert copy_sidecars(source, tmp_path / f"b{source.suffix}", (2 + number,) * 2, overwrite=True) == []
    assert (tmp_path / f"b.{first}w").read_text().startswith("0.5\n")
    assert (tmp_path / f"b.{second}w").read_text().startswith("0.33")


def test_world_files_of_the_image_are_never_replaced(tmp_path):
    """Where the output has the stem of the image."""
    for name in ("a.wld", "b.tfw"):
        (tmp_path / name).write_text("1 0 0 -1 0 0")
    assert copy_sidecars(tmp_path / "a.png", tmp_path / "a.jpg", (4, 4), overwrite=True) == []
    assert (tmp_path / "a.jgw").read_text().startswith("0.25\n")
    assert copy_sidecars(tmp_path / "b.tif", tmp_path / "b.tiff", (4, 4), overwrite=True) == [
        "b.tiff gets no world file, because b.tfw is that of b.tif"
    ]
    assert {(tmp_path / name).read_text() for name in ("a.wld", "b.tfw")} == {"1 0 0 -1 0 0"}


@pytest.mark.parametrize("name", ["a.xmp", "a.jpg.xmp", "a.AAE", "a.jpg.aux.xml", "a.prj", "a.jpg.ovr", "a_rpc.txt"])
def test_files_beside_an_image_that_describe_it_are_named(tmp_path, name):
    for other in (name, "a.txt", "b.xmp", "a.png"):
        (tmp_path / other).touch()
    assert copy_sidecars(tmp_path / "a.jpg", tmp_path / "b.jpg", (4, 4)) == [f"files next to it not kept: {name}"]
