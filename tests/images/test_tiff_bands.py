"""Tests of the samples of TIFF files: types, planes, masks, premultiplied alpha, and odd places in the file."""

import dataclasses
import struct
import tracemalloc

import numpy as np
import pytest
import tifffile

from esrgan import images
from esrgan.errors import ImageError
from esrgan.images import samples, tiff_decoding
from tests.helpers.image_files import PROFILE, noise

RNG = np.random.default_rng(0)
PLAIN = {"metadata": None, "software": False}


def read(folder, pixels, **options):
    tifffile.imwrite(folder / "a.tif", pixels, **PLAIN, **options)
    return images.read_image(folder / "a.tif")


def round_trip(path):
    """Read a file, write it enlarged twice, and return the new path."""
    image = images.read_image(path)
    frames = tuple(frame.repeat(2, axis=0).repeat(2, axis=1) for frame in image.frames)
    images.write_image(path.with_name("b.tif"), dataclasses.replace(image, frames=frames), overwrite=True)
    return path.with_name("b.tif")


def patch_tag(path, tag, values):
    """Overwrite the numbers of a tag in the first directory, which must be stored as they would be."""
    with tifffile.TiffFile(path) as file:
        entry = file.pages[0].tags[tag]
        data, code = bytearray(path.read_bytes()), {3: "H", 4: "I"}[int(entry.dtype)]
    struct.pack_into(f"<{len(values)}{code}", data, entry.valueoffset, *values)
    path.write_bytes(data)


@pytest.mark.parametrize("layout", [{"rowsperstrip": 5}, {"tile": (16, 16)}])
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_separate_planes_are_all_read(tmp_path, layout, photometric, dtype):
    pixels = noise(5, dtype, 20, 33)
    options = {"planarconfig": "separate", "extrasamples": [0] * (2 if photometric == "rgb" else 4)}
    image = read(tmp_path, np.moveaxis(pixels, -1, 0), photometric=photometric, **options, **layout)
    np.testing.assert_array_equal(image.frames[0], pixels)
    assert image.extra_bands == len(options["extrasamples"])


@pytest.mark.parametrize("compression", ["zstd", "lzma"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_tiles_of_rare_compressions_are_not_black(tmp_path, compression, planes):
    pixels = noise(3, height=20, width=33)
    stored = pixels if planes == "contig" else np.moveaxis(pixels, -1, 0)
    image = read(tmp_path, stored, photometric="rgb", planarconfig=planes, tile=(16, 16), compression=compression)
    np.testing.assert_array_equal(image.frames[0], pixels)


@pytest.mark.parametrize("compression", ["zstd", "lzma"])
def test_short_tiles_of_rare_compressions_are_refused(tmp_path, compression):
    options = {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16), "compression": compression}
    read(tmp_path, noise(3, height=20, width=33).transpose(2, 0, 1), **options)
    patch_tag(tmp_path / "a.tif", 284, [6])  # so that each tile seems to need three times the samples
    with pytest.raises(ImageError, match="shorter than the image"):
        images.read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16), "compression": "zlib"}, {"compression": "zlib"}])
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint32, np.int64, np.uint64, np.float64])
@pytest.mark.parametrize("byteorder", "<>")
def test_wide_and_signed_samples_become_float(tmp_path, layout, dtype, byteorder):
    low = 0 if np.dtype(dtype).kind == "u" else -100
    pixels = RNG.integers(low, 100, (20, 33, 2)).astype(dtype)
    predictor = {"predictor": True} if "compression" in layout and np.dtype(dtype).itemsize <= 4 else {}
    options = {"planarconfig": "contig", "photometric": "minisblack", "byteorder": byteorder}
    image = read(tmp_path, pixels, **layout, **predictor, **options)
    np.testing.assert_array_equal(image.frames[0], pixels.astype(np.float32))
    assert image.notes == image.changes
    assert "exactly" in image.notes[0]
    with tifffile.TiffFile(round_trip(tmp_path / "a.tif")) as file:
        np.testing.assert_array_equal(file.pages[0].asarray()[::2, ::2], pixels.astype(np.float32))


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_float_predictor_of_doubles_is_undone(tmp_path, tile, channels):
    pytest.importorskip("imagecodecs")
    pixels = RNG.random((20, 33, channels))
    options = {"photometric": "minisblack", "compression": "zlib", "predictor": True, "tile": tile}
    planes = {"planarconfig": "contig"} if channels > 1 else {}
    image = read(tmp_path, pixels if channels > 1 else pixels[..., 0], **options, **planes)
    np.testing.assert_array_equal(image.frames[0], pixels.astype(np.float32))
    assert image.notes == ("64-bit float samples rounded to 32-bit float",)


@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_predictor_of_long_integers_is_undone(tmp_path, tile):
    pixels = RNG.integers(-(2**40), 2**40, (20, 33, 2))
    stored = np.diff(pixels, axis=1, prepend=0)
    if tile:
        stored[:, ::16] = pixels[:, ::16]  # differences begin in each tile
    options = {"planarconfig": "contig", "photometric": "minisblack", "tile": tile}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options, extratags=[(65000, 3, 1, 2, True)], **PLAIN)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data.replace(struct.pack("<HHI", 65000, 3, 1), struct.pack("<HHI", 317, 3, 1)))
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], pixels.astype(np.float32))


@pytest.mark.parametrize("bits", [3, 6, 10, 12, 14])
def test_samples_of_odd_sizes_are_scaled(tmp_path, bits):
    values = RNG.integers(0, 2**bits, (7, 9, 3))
    planes = [[f"{value:0{bits}b}" for value in row.ravel()] for row in values]
    rows = [int("".join(row).ljust(-(-27 * bits // 8) * 8, "0"), 2) for row in planes]
    data = b"".join(row.to_bytes(-(-27 * bits // 8), "big") for row in rows)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((7, 9, 3), np.uint16), photometric="rgb", **PLAIN)
    path = tmp_path / "a.tif"
    patch_tag(path, 258, [bits] * 3)
    with tifffile.TiffFile(path) as file:
        (offset,) = file.pages[0].dataoffsets
    path.write_bytes(path.read_bytes()[:offset] + data)
    image, peak = images.read_image(path), 255 if bits < 8 else 65535
    np.testing.assert_array_equal(image.frames[0], np.rint(values * (peak / (2**bits - 1))))
    assert image.notes == (f"{bits}-bit samples scaled to {8 if bits < 8 else 16} bits",)


@pytest.mark.parametrize("bits", [4, 12])
def test_samples_of_odd_sizes_take_five_times_their_memory(tmp_path, monkeypatch, bits):
    monkeypatch.setattr(samples, "BLOCK_SAMPLES", 1 << 12)
    monkeypatch.setattr(tiff_decoding, "_ROWS_AT_ONCE", 2)
    pixels = np.zeros((600, 400, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", **PLAIN)
    patch_tag(tmp_path / "a.tif", 258, [bits] * 3)
    images.read_image(tmp_path / "a.tif")  # so that all modules are loaded
    tracemalloc.start()
    (frame,) = images.read_image(tmp_path / "a.tif").frames
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * frame.nbytes


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("is_first", [False, True])
def test_transparency_mask_becomes_alpha(tmp_path, bands, dtype, is_first):
    pixels, mask = noise(bands, dtype, 9, 14), noise(1, np.uint8, 9, 14)[..., 0] > 99
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for is_mask in (is_first, not is_first):
            if is_mask:
                file.write(mask, photometric=4, subfiletype=4, compression="zlib", **PLAIN)
            else:
                options = {
                    "photometric": "rgb" if bands == 3 else "minisblack",
                    "extratags": [(271, "s", 0, "Maker", True)],
                }
                file.write(pixels.squeeze(), **options, **PLAIN)
    image = images.read_image(tmp_path / "a.tif")
    peak = 1 if dtype == np.float32 else np.iinfo(dtype).max
    assert image.has_alpha
    np.testing.assert_array_equal(image.frames[0][..., :bands], pixels)
    np.testing.assert_array_equal(image.frames[0][..., bands], mask * dtype(peak))
    assert image.notes == ("transparency mask read as alpha",)
    with tifffile.TiffFile(round_trip(tmp_path / "a.tif")) as file:
        assert len(file.pages) == 1
        assert file.pages[0].extrasamples == (2,)
        assert file.pages[0].tags["Make"].value == "Maker"
    with pytest.raises(ImageError, match=r"transparency mask|more than 8 bits"):
        images.read_pixels(tmp_path / "a.tif", 3)


def test_file_of_a_mask_alone_is_an_image(tmp_path):
    mask = noise(1)[..., 0] > 99
    image = read(tmp_path, mask, photometric=4, subfiletype=4)
    np.testing.assert_array_equal(image.frames[0][..., 0], mask * 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_premultiplied_alpha_is_divided_out(tmp_path, dtype):
    peak = 1 if dtype == np.float32 else np.iinfo(dtype).max
    alpha = noise(1, dtype, 30, 30)
    colours = (noise(3, np.float32, 30, 30) * alpha).astype(dtype)
    image = read(tmp_path, np.concatenate([colours, alpha], 2), photometric="rgb", extrasamples=[1])
    np.testing.assert_array_equal(image.frames[0][..., 3:], alpha)
    again = image.frames[0][..., :3].astype(np.float64) * (alpha / peak)
    np.testing.assert_allclose(again, np.where(alpha > 0, colours, again), atol=0.5 if peak > 1 else 1e-6)
    assert image.changes == ("premultiplied alpha converted to alpha that is not premultiplied",)
    if dtype == np.uint8:
        with pytest.raises(ImageError, match="premultiplied alpha"):
            images.read_pixels(tmp_path / "a.tif", 4)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32])
def test_premultiplied_alpha_of_converted_integers_is_divided_out(tmp_path, dtype):
    peak = np.iinfo(dtype).max
    pixels = np.array([[[peak // 4, peak // 8, 0, peak // 2], [9, 8, 7, peak]]], dtype)
    image = read(tmp_path, pixels, photometric="rgb", extrasamples=[1])
    np.testing.assert_allclose(image.frames[0][0, 0] / peak, [0.5, 0.25, 0, 0.5], atol=1e-3)
    np.testing.assert_array_equal(image.frames[0][0, 1, :3], [9, 8, 7])


def test_premultiplied_float_alpha_of_another_range_is_refused(tmp_path):
    pixels = np.array([[[9, 8, 7, 255], [1, 2, 3, 100]]], np.float32)
    with pytest.raises(ImageError, match=r"alpha from 0 to 1, got .* of up to 255; scale"):
        read(tmp_path, pixels, photometric="rgb", extrasamples=[1])


def test_premultiplied_alpha_at_its_limits(tmp_path):
    pixels = np.array([[[9, 8, 7, 0], [200, 20, 0, 100], [1, 2, 3, 255]]], np.uint8)
    image = read(tmp_path, pixels, photometric="rgb", extrasamples=[1])
    assert image.frames[0].tolist() == [[[9, 8, 7, 0], [255, 51, 0, 100], [1, 2, 3, 255]]]
    assert "clipped" in image.notes[0]
    opaque = noise(4) | np.array([0, 0, 0, 255], np.uint8)
    assert read(tmp_path, opaque, photometric="rgb", extrasamples=[1]).notes == ()
    np.testing.assert_array_equal(images.read_pixels(tmp_path / "a.tif", 3), opaque[..., :3])


@pytest.mark.parametrize(("channels", "extra"), [(1, []), (2, [2]), (3, []), (4, [2]), (5, [0, 0])])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_of_different_sizes_are_written(tmp_path, channels, extra, compression):
    pages = [noise(channels, np.uint16, *size) for size in ((20, 33), (5, 4), (20, 32))]
    photometric = "rgb" if channels >= 3 else "minisblack"
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in pages:
            pixels = page[..., 0] if channels == 1 else page
            options = {"planarconfig": "contig", "extrasamples": extra} if channels > 1 else {}
            tags = [(271, 2, 6, "Maker", True)]
            file.write(pixels, photometric=photometric, compression=compression, extratags=tags, **options, **PLAIN)
    with pytest.raises(ImageError, match=r"several pages \(3\)|more than 8 bits"):
        images.read_pixels(tmp_path / "a.tif", 3)
    with tifffile.TiffFile(round_trip(tmp_path / "a.tif")) as file:
        for page, pixels in zip(file.pages, pages, strict=True):
            np.testing.assert_array_equal(np.atleast_3d(page.asarray())[::2, ::2], pixels)
            assert [int(kind) for kind in page.extrasamples] == extra
            assert (int(page.compression) == 1) == (compression is None)
        assert file.pages[0].tags["Make"].value == "Maker"


@pytest.mark.parametrize("change", [lambda n: n + 7, lambda n: 0, lambda n: n - 3])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_wrong_byte_counts_without_compression_do_not_matter(tmp_path, change, tile):
    pixels = noise(3, height=20, width=33)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", rowsperstrip=6, tile=tile, **PLAIN)
    tag = 325 if tile else 279
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        counts = file.pages[0].tags[tag].value
    patch_tag(tmp_path / "a.tif", tag, [change(count) for count in counts])
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], pixels)
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-2])
    with pytest.raises(ImageError, match="the file is truncated"):
        images.read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits"])
def test_missing_byte_counts_of_compressed_strips_are_found(tmp_path, compression):
    if compression == "lzw":
        pytest.importorskip("imagecodecs")
    pixels = noise(3, height=20, width=33)
    options = {"photometric": "rgb", "rowsperstrip": 6, "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options, **PLAIN)
    patch_tag(tmp_path / "a.tif", 279, [0] * 4)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], pixels)


@pytest.mark.parametrize("program", ["ImageJ", "tifffile"])
@pytest.mark.parametrize("byteorder", "<>")
def test_stacks_with_one_directory_are_read(tmp_path, program, byteorder):
    stack = RNG.integers(0, 2**16, (5, 8, 9), dtype=np.uint16)
    options = {"imagej": program == "ImageJ", "truncate": True, "byteorder": byteorder, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", stack, metadata={"axes": "ZYX"}, **options)
    image = images.read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.stack(image.frames)[..., 0], stack)
    with pytest.raises(ImageError, match="1e-05 megapixels"):
        images.read_image(tmp_path / "a.tif", max_pixels=10)
    with tifffile.TiffFile(round_trip(tmp_path / "a.tif")) as file:
        assert file.series[0].shape == (5, 16, 18)
        np.testing.assert_array_equal(file.series[0].asarray()[:, ::2, ::2], stack)
    with pytest.raises(ImageError, match=r"several pages \(5\)|more than 8 bits"):
        images.read_pixels(tmp_path / "a.tif", 1)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[:-2])
    with pytest.raises(ImageError, match="the file is truncated"):
        images.read_image(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(whole[: -8 * 9 * 2 * 4])  # the description has outlived its stack
    image = images.read_image(tmp_path / "a.tif")
    assert len(image.frames) == 1
    assert "announces 5 images" in image.notes[0]


def test_reduced_copy_before_the_image(tmp_path):
    pixels = noise(3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(noise(3, height=4, width=5), photometric="rgb", subfiletype=1, **PLAIN)
        file.write(pixels, photometric="rgb", **PLAIN)
    image = images.read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.frames[0], pixels)
    assert image.notes == ("reduced-size copies in the file not kept",)


def test_file_without_pages_is_not_called_damaged(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0\0\0\0\0")
    with pytest.raises(ImageError, match="a file without pages"):
        images.read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_only_the_grey_band_is_inverted_where_white_is_zero(tmp_path, planes, compression):
    pixels = noise(2)
    stored = np.moveaxis(pixels, -1, 0) if planes == "separate" else pixels
    options = {"photometric": "miniswhite", "planarconfig": planes, "extrasamples": [0]}
    image = read(tmp_path, stored, compression=compression, **options)
    np.testing.assert_array_equal(image.frames[0], np.dstack([255 - pixels[..., 0], pixels[..., 1]]))
    with tifffile.TiffFile(round_trip(tmp_path / "a.tif")) as file:
        assert file.pages[0].photometric == tifffile.PHOTOMETRIC.MINISBLACK


def test_only_the_grey_band_of_12_bits_is_inverted(tmp_path):
    values = RNG.integers(0, 2**12, (4, 6, 2))
    read(tmp_path, np.zeros((4, 9, 2), np.uint8), photometric="miniswhite", planarconfig="contig", extrasamples=[2])
    for tag, numbers in ((256, [6]), (258, [12, 12])):
        patch_tag(tmp_path / "a.tif", tag, numbers)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        (offset,) = file.pages[0].dataoffsets
    packed = np.packbits(values[..., None] >> np.arange(12)[::-1] & 1).tobytes()
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:offset] + packed)
    expected = np.rint(np.dstack([4095 - values[..., 0], values[..., 1]]) * (65535 / 4095))
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], expected)


def test_floats_of_which_the_lowest_is_white_keep_their_values(tmp_path):
    pixels = noise(1, np.float32)[..., 0]
    image = read(tmp_path, pixels, photometric="miniswhite")
    np.testing.assert_array_equal(image.frames[0][..., 0], pixels)
    assert "0 is black in the output" in image.notes[0]


@pytest.mark.parametrize("compression", ["zlib", "zstd", None])
@pytest.mark.parametrize("bits", [16, 64])
def test_rgb_profile_of_a_grey_image_is_named(tmp_path, compression, bits):
    tags = [(34675, 7, len(PROFILE), PROFILE, True)]
    image = read(tmp_path, noise(1, np.dtype(f"u{bits // 8}"))[..., 0], compression=compression, extratags=tags)
    assert image.icc_profile is None
    assert image.notes[-1] == "RGB colour profile of a grey image not kept"


@pytest.mark.parametrize("compression", ["zlib", None])
def test_missing_byte_counts_of_tiles_are_found(tmp_path, compression):
    pixels = noise(3, height=40, width=33)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(16, 16), compression=compression, **PLAIN)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        entry = file.pages[0].tags[325]
        data = bytearray((tmp_path / "a.tif").read_bytes())
    struct.pack_into("<H", data, entry.offset, 326)  # another tag
    (tmp_path / "a.tif").write_bytes(data)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif").frames[0], pixels)
