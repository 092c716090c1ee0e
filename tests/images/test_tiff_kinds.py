"""Tests of kinds of TIFF files that other programs write: YCbCr, old JPEG, bit orders, tiles that are left out."""

import importlib
import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from esrgan import images
from esrgan.errors import ImageError
from tests.helpers.image_files import noise

PLAIN = {"metadata": None, "software": False}
CODES = {"H": 3, "I": 4}


def make_tiff(path, pixels, tags):
    """Write a TIFF file by hand: one strip of these bytes, and tags as (number, struct code, values)."""
    entries = [*tags, (273, "I", [0]), (279, "I", [len(pixels)])]
    end = 8 + 2 + 12 * len(entries) + 4
    position = end + sum(8 * len(values) for _, _, values in entries)
    directory, extra = struct.pack("<H", len(entries)), b""
    for tag, code, values in sorted(entries):
        content = struct.pack(f"<{len(values)}{code}", *(values if tag not in (273, 513) else [position]))
        place = content.ljust(4, b"\0") if len(content) <= 4 else struct.pack("<I", end + len(extra))
        extra += content if len(content) > 4 else b""
        directory += struct.pack("<HHI", tag, CODES[code], len(values)) + place
    path.write_bytes((b"II*\0\x08\0\0\0" + directory + bytes(4) + extra).ljust(position, b"\0") + pixels)
    return path


def size_tags(pixels, bits, photometric, compression):
    height, width, channels = pixels.shape
    numbers = {256: width, 257: height, 259: compression, 262: photometric, 277: channels, 278: height}
    return [(258, "H", [bits] * channels), *((tag, "H", [number]) for tag, number in numbers.items())]


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"planarconfig": "separate"}])
def test_ycbcr_without_jpeg_is_converted(tmp_path, options):
    pixels = noise(3, height=20, width=33)
    stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in options else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="ycbcr", **options, **PLAIN)
    image = images.read_image(tmp_path / "a.tif")
    expected = np.array(Image.fromarray(pixels, "YCbCr").convert("RGB"), int)
    assert np.abs(image.frames[0] - expected).max() <= 1
    assert image.changes == ("YCbCr converted to RGB",)
    with pytest.raises(ImageError, match="YCbCr without JPEG compression"):
        images.read_pixels(tmp_path / "a.tif", 3)


def test_ycbcr_with_fewer_colours_is_refused_by_name(tmp_path):
    make_tiff(tmp_path / "a.tif", bytes(16 * 16 * 3 // 2), size_tags(np.zeros((16, 16, 3)), 8, 6, 1))
    with pytest.raises(ImageError, match="YCbCr without JPEG compression; convert it to RGB"):
        images.read_image(tmp_path / "a.tif")


def test_old_jpeg_is_read(tmp_path):
    memory = io.BytesIO()
    smooth = Image.fromarray(noise(3, height=4, width=6)).resize((48, 32), Image.Resampling.BICUBIC)
    smooth.save(memory, "JPEG", quality=95, subsampling=0)
    data = memory.getvalue()
    tags = [*size_tags(np.zeros((32, 48, 3)), 8, 6, 6), (512, "H", [1]), (513, "I", [0]), (514, "I", [len(data)])]
    make_tiff(tmp_path / "a.tif", data, [*tags, (530, "H", [1, 1])])
    expected = np.array(Image.open(memory), int)
    assert np.abs(images.read_image(tmp_path / "a.tif").frames[0] - expected).max() <= 1


def test_reversed_bits_are_read(tmp_path):
    mask = noise(1, height=8, width=16) > 99
    data = np.packbits(mask[..., 0], axis=1, bitorder="little").tobytes()
    make_tiff(tmp_path / "a.tif", data, [*size_tags(mask, 1, 1, 1), (266, "H", [2])])
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], mask * 255)


@pytest.mark.parametrize(
    ("channels", "dtype", "got"), [(5, np.uint8, "5 inks of 8 bits"), (4, np.float32, "4 float inks of 32 bits")]
)
def test_inks_that_are_not_converted_are_named(tmp_path, channels, dtype, got):
    options = {"photometric": "separated", "planarconfig": "contig", "extrasamples": [2] * (channels - 4)}
    tifffile.imwrite(tmp_path / "a.tif", noise(channels, dtype), **options, **PLAIN)
    with pytest.raises(ImageError, match=got):
        images.read_image(tmp_path / "a.tif")


def test_layout_of_cmyk_does_not_matter(tmp_path):
    pixels, found = noise(4, height=20, width=33), []
    for planes in ("contig", "separate"):
        for tile in (None, (16, 16)):
            stored = np.moveaxis(pixels, -1, 0) if planes == "separate" else pixels
            options = {"photometric": "separated", "planarconfig": planes, "tile": tile}
            tifffile.imwrite(tmp_path / "a.tif", stored, **options, **PLAIN)
            found.append(images.read_image(tmp_path / "a.tif").frames[0])
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("compression", ["zlib", "lzw", "jpeg"])
def test_damaged_tiles_are_not_black(tmp_path, compression):
    pixels = noise(3, height=40, width=33)
    options = {"photometric": "rgb", "tile": (16, 16), "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options, **PLAIN)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        start, length = file.pages[0].dataoffsets[4], file.pages[0].databytecounts[4]
        expected = file.pages[0].asarray()
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], expected)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:start] + b"\xff" * length + data[start + length :])
    with pytest.raises(ImageError, match="damaged"):
        images.read_image(tmp_path / "a.tif")


def test_samples_of_different_sizes_are_named(tmp_path):
    tags = [tag for tag in size_tags(np.zeros((4, 4, 3)), 8, 2, 1) if tag[0] != 258]
    make_tiff(tmp_path / "a.tif", bytes(32), [*tags, (258, "H", [5, 6, 5])])
    with pytest.raises(ImageError, match="samples of different sizes"):
        images.read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [1, 34661, 32909, 12345])
def test_compressions_that_nothing_reads_are_named(tmp_path, compression):
    make_tiff(tmp_path / "a.tif", bytes(16), size_tags(np.zeros((4, 4, 1)), 8, 1, compression))
    if compression == 1:
        assert images.read_image(tmp_path / "a.tif").frames[0].shape == (4, 4, 1)
        return
    names = {34661: "JBIG compression", 32909: "PIXARLOG compression", 12345: "compression 12345"}
    with pytest.raises(ImageError, match=f"got {names[compression]}; pip install imagecodecs"):
        images.read_image(tmp_path / "a.tif")


@pytest.fixture
def without_imagecodecs(monkeypatch):
    """Let tifffile find only its own decoders, as where the package imagecodecs is not installed."""
    monkeypatch.setattr(tifffile.tifffile, "imagecodecs", importlib.import_module("tifffile._imagecodecs"))
    monkeypatch.setattr(tifffile.TIFF.DECOMPRESSORS, "_codecs", {})


@pytest.mark.parametrize(("compression", "name"), [("webp", "WEBP"), ("lerc", "LERC"), ("jpegxl", "JPEGXL")])
def test_compression_without_imagecodecs_is_named(tmp_path, request, compression, name):
    pixels = noise(3, height=20, width=33)
    options = {"photometric": "rgb", "compression": compression, "compressionargs": {"level": 0}}
    if compression != "lerc":
        options["compressionargs"] = {"lossless": True}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options, **PLAIN)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], pixels)
    request.getfixturevalue("without_imagecodecs")
    expected = f"got {name} compression; pip install imagecodecs, or convert it to deflate"
    with pytest.raises(ImageError, match=expected):
        images.read_image(tmp_path / "a.tif")


@pytest.mark.usefixtures("without_imagecodecs")
def test_lzma_needs_no_imagecodecs(tmp_path):
    pixels = noise(3, height=20, width=33)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", compression="lzma", **PLAIN)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], pixels)


@pytest.mark.parametrize("no_data", [None, "7"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 16}, {"tile": (16, 16)}])
@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_strips_and_tiles_that_gdal_leaves_out(tmp_path, no_data, layout, compression, planes):
    pixels = noise(2, height=40, width=33)
    stored = np.moveaxis(pixels, -1, 0) if planes == "separate" else pixels
    options = {"photometric": "minisblack", "planarconfig": planes, "compression": compression, **layout}
    extra = [(42113, "s", 0, no_data, True)] if no_data else []
    tifffile.imwrite(tmp_path / "a.tif", stored, extratags=extra, **options, **PLAIN)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages[0].tags
        for tag in (324, 325) if "tile" in layout else (273, 279):
            code = {3: "H", 4: "I"}[int(tags[tag].dtype)]
            struct.pack_into(f"<{code}", data, tags[tag].valueoffset, 0)  # the first one
    (tmp_path / "a.tif").write_bytes(data)
    expected = pixels.copy()
    expected[:16, : 16 if "tile" in layout else None, : 1 if planes == "separate" else None] = int(no_data or 0)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], expected)


def test_training_refuses_images_with_gaps(tmp_path):
    tags = size_tags(np.zeros((8, 16, 1)), 8, 1, 1)
    path = make_tiff(tmp_path / "a.tif", bytes(8 * 16), [tag for tag in tags if tag[0] != 278])
    assert images.read_pixels(path, 1).shape == (8, 16, 1)
    tifffile.imwrite(path, noise(1, height=8, width=16)[..., 0], rowsperstrip=4, **PLAIN)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        struct.pack_into("<I", data, file.pages[0].tags[273].valueoffset, 0)
    path.write_bytes(data)
    with pytest.raises(ImageError, match="empty strips or tiles"):
        images.read_pixels(path, 1)


def test_volume_in_one_page_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 32, 32), np.uint8), volumetric=True, tile=(16, 16, 16), **PLAIN)
    with pytest.raises(ImageError, match="got a volume of 16 slices; save each slice as a page"):
        images.read_image(tmp_path / "a.tif")


def test_overviews_without_their_image_are_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif.ovr", noise(3), subfiletype=1, **PLAIN)
    with pytest.raises(ImageError, match="reduced-size copies without the full image, such as overviews of GDAL"):
        images.read_image(tmp_path / "a.tif.ovr")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits_of_each_sample_do_not_matter(tmp_path, dtype):
    pixels = (noise(3) / 255).astype(dtype)
    limits = [(340, "d", 3, (0.0, 0.0, 0.0), True), (341, "d", 3, (1.0, 1.0, 1.0), True)]
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="rgb", compression="zlib", predictor=3, extratags=limits, **PLAIN
    )
    assert np.array_equal(images.read_image(tmp_path / "a.tif").frames[0], pixels.astype(np.float32))


@pytest.mark.parametrize("compression", ["none", "zstd", "lzma"])
@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", [0, 1, 3])
def test_packed_samples_of_any_compression_have_the_full_range(tmp_path, compression, bits, photometric):
    values = np.random.default_rng(0).integers(0, 2**bits, (6, 16))
    packed = np.packbits(values[..., None] >> np.arange(bits)[::-1] & 1).tobytes()
    code, encode = {
        "none": (1, bytes),
        "zstd": (50000, imagecodecs.zstd_encode),
        "lzma": (34925, imagecodecs.lzma_encode),
    }[compression]
    colours = np.random.default_rng(1).integers(0, 256, (3, 2**bits))
    palette = [(320, "H", [257 * int(level) for level in colours.ravel()])] if photometric == 3 else []
    tags = size_tags(values[..., None], bits, photometric, code)
    make_tiff(tmp_path / "a.tif", bytes(encode(packed)), [*tags, *palette])
    grey = np.stack([values * (255 // (2**bits - 1))] * 3, axis=2)
    expected = {0: 255 - grey, 1: grey, 3: colours.T[values]}[photometric]
    frame = images.read_image(tmp_path / "a.tif").frames[0]
    np.testing.assert_array_equal(np.broadcast_to(frame, expected.shape), expected)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_palette_with_alpha(tmp_path, compression):
    pixels, palette = noise(2), np.random.default_rng(0).integers(0, 2**16, (3, 256), dtype=np.uint16)
    code, encode = {"none": (1, bytes), "zstd": (50000, imagecodecs.zstd_encode)}[compression]
    tags = [*size_tags(pixels, 8, 3, code), (320, "H", palette.ravel().tolist()), (338, "H", [2])]
    make_tiff(tmp_path / "a.tif", bytes(encode(pixels.tobytes())), tags)
    image = images.read_image(tmp_path / "a.tif")
    assert image.has_alpha
    np.testing.assert_array_equal(image.frames[0], np.dstack([palette.T[pixels[..., 0]] >> 8, pixels[..., 1]]))


def test_palette_of_16_bits_keeps_them(tmp_path):
    pixels, palette = noise(1, np.uint16)[..., 0], np.random.default_rng(0).integers(0, 2**16, (3, 2**16))
    options = {"photometric": "palette", "colormap": palette.astype(np.uint16)}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options, **PLAIN)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], palette.T[pixels])


@pytest.mark.parametrize(("photometric", "name"), [("separated", "CMYK"), ("ycbcr", "YCbCr")])
def test_colours_that_a_rare_compression_lacks_are_named(tmp_path, photometric, name):
    pixels = noise(4 if name == "CMYK" else 3)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, compression="zstd", **PLAIN)
    with pytest.raises(ImageError, match=f"got {name} with ZSTD compression; convert it to deflate"):
        images.read_image(tmp_path / "a.tif")


def test_missing_tiles_of_palettes_have_its_colours(tmp_path):
    palette, indices = np.random.default_rng(0).integers(0, 256, (3, 256)), noise(1, height=16, width=32)[..., 0]
    options = {"photometric": "palette", "colormap": (257 * palette).astype(np.uint16), "tile": (16, 16)}
    tifffile.imwrite(tmp_path / "a.tif", indices, extratags=[(42113, "s", 0, "7", True)], **options, **PLAIN)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        for tag in (324, 325):
            entry = file.pages[0].tags[tag]
            struct.pack_into({3: "<H", 4: "<I"}[int(entry.dtype)], data, entry.valueoffset, 0)
    (tmp_path / "a.tif").write_bytes(data)
    indices[:, :16] = 7
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], palette.T[indices])


@pytest.mark.parametrize(("tag", "value"), [(266, 0), (296, 0), (296, 4)])
def test_units_and_bit_orders_that_do_not_exist_are_ignored(tmp_path, tag, value):
    pixels, rationals = noise(3), [(282, "I", [300, 1]), (283, "I", [300, 1])]
    tags = [*size_tags(pixels, 8, 2, 1), *rationals, (tag, "H", [value])]
    content = make_tiff(tmp_path / "a.tif", pixels.tobytes(), tags).read_bytes()
    for number in (282, 283):  # fractions
        content = content.replace(struct.pack("<HHI", number, 4, 2), struct.pack("<HHI", number, 5, 1))
    (tmp_path / "a.tif").write_bytes(content)
    image = images.read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.frames[0], pixels)
    assert image.dpi == (None if tag == 296 else (300, 300))
    images.write_image(tmp_path / "b.tif", image)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages[0].tags[282].value == (300, 1)
        assert file.pages[0].tags[296].value == (1 if tag == 296 else 2)


def test_damaged_tags_that_are_not_needed_are_ignored(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    options = {"photometric": "rgb", "metadata": None, "extratags": [(293, "I", 1, 0, True)]}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    content = (tmp_path / "a.tif").read_bytes()
    place = content.index(struct.pack("<HH", 293, 4))
    (tmp_path / "a.tif").write_bytes(content[: place + 2] + b"\0\0" + content[place + 4 :])  # a type that no tag has
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], pixels)
    np.testing.assert_array_equal(images.read_pixels(tmp_path / "a.tif", 3), pixels)
