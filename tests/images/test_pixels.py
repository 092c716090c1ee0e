"""Tests of reading and writing the images of datasets."""

import io
import os
import re
import struct
import zlib
from contextlib import suppress

import imagecodecs
import numpy as np
import pytest
import tifffile  # comes with scikit-image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from esrgan import images
from esrgan.errors import ImageError
from esrgan.images import pillow, source
from tests.helpers.image_files import message

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8)
NOT_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")


def pixels(channels, height=9, width=14):
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", sorted(images.DATASET_SUFFIXES))
def test_written_images_are_read_back(tmp_path, suffix, channels):
    path, image = tmp_path / f"a{suffix}", pixels(channels)
    if channels == 4 and suffix in (".jpg", ".jpeg", ".bmp"):
        with pytest.raises(ImageError, match="no transparency"):
            images.write_pixels(path, image)
        assert not path.exists()
        return
    images.write_pixels(path, image)
    stored = 3 if suffix == ".webp" and channels == 1 else channels
    again = images.read_pixels(path, stored)
    assert again.dtype == np.uint8
    assert again.shape == (9, 14, stored)
    assert again.flags.writeable
    assert again.flags.c_contiguous
    tolerance = 40 if suffix in (".jpg", ".jpeg") else 0
    assert np.abs(again.astype(int) - image).max() <= tolerance


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 have no meaning
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    # The upright image is white only at the top left. Exif 2.32 defines where that corner is stored.
    is_top, is_left = orientation not in (3, 4, 6, 7), orientation not in (2, 3, 7, 8)
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[slice(8) if is_top else slice(8, None), slice(8) if is_left else slice(16, None)] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(stored).save(path, exif=exif.tobytes())
    upright = images.read_pixels(path, 3)
    assert images.read_shape(path) == upright.shape
    assert upright.shape == ((24, 16, 3) if 5 <= orientation <= 8 else (16, 24, 3))
    assert upright[:8, :8].mean() > 240
    assert upright.mean() < 60


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_orientation_in_xmp_is_not_applied(tmp_path, suffix):
    """Training turns an image as upscaling does: by EXIF only."""
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    options = {".png": {"pnginfo": info}, ".tif": {"tiffinfo": {700: xmp}}}.get(suffix, {"xmp": xmp})
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8)).save(path, **options)
    assert b"tiff:Orientation" in path.read_bytes()
    assert images.read_image(path).frames[0].shape == images.read_pixels(path, 3).shape == (9, 14, 3)
    assert images.read_shape(path) == (9, 14, 3)


def palette_image(colours, transparency=None):
    image = Image.fromarray(RNG.integers(0, len(colours), (5, 6), dtype=np.uint8)).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(np.array(colours, np.uint8).tobytes())
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


@pytest.mark.parametrize(
    ("image", "channels"),
    [
        (palette_image([(0, 0, 0), (255, 128, 0)]), 3),
        (palette_image([(0, 0, 0), (99, 99, 99), (255, 255, 255)]), 1),
        (palette_image([(0, 0, 0), (255, 128, 0)], transparency=1), 4),
        (Image.fromarray(RGB[..., 0] > 128), 1),
    ],
)
def test_palette_images_have_the_channels_of_their_palette(tmp_path, image, channels):
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    for path in (tmp_path / "a.png", tmp_path / "a.tif")[: 1 if channels == 4 else 2]:
        image.save(path)
        expected = np.array(Image.open(path).convert(mode)).reshape(*image.size[::-1], channels)
        np.testing.assert_array_equal(images.read_pixels(path, channels), expected)
        assert images.read_shape(path) == expected.shape


@pytest.mark.parametrize(
    ("mode", "wanted", "expected"),
    [
        ("L", 4, "got a grey image; convert it, or set img_channels to 1 for training if all images are alike"),
        (
            "RGBA",
            3,
            "got an RGB image with alpha; convert it, or set img_channels to 4 for training if all images are alike",
        ),
        (
            "RGB",
            1,
            "expected a grey image, got an RGB image; "
            "convert it, or set img_channels to 3 for training if all images are alike",
        ),
        (
            "RGB",
            4,
            "expected an RGB image with alpha, got an RGB image; "
            "convert it, or set img_channels to 3 for training if all images are alike",
        ),
        ("LA", 3, "got a grey image with alpha; convert it"),
    ],
)
def test_other_channels_are_refused(tmp_path, mode, wanted, expected):
    path = tmp_path / "a.png"
    Image.new(mode, (4, 4)).save(path)
    with pytest.raises(ImageError) as error:
        images.read_pixels(path, wanted)
    assert message(error).startswith(f"{path}: ")
    assert message(error).endswith(expected)


@pytest.mark.parametrize(("stored", "wanted"), [(1, 3), (2, 3), (2, 1), (4, 3)])
def test_grey_is_repeated_and_opaque_alpha_dropped(tmp_path, stored, wanted):
    image = pixels(stored)
    if stored in (2, 4):
        image[..., -1] = 255
    Image.fromarray(image.squeeze()).save(tmp_path / "a.png")
    read = images.read_pixels(tmp_path / "a.png", wanted)
    assert read.shape == (9, 14, wanted)
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, np.broadcast_to(image[..., : 1 if stored < 3 else 3], read.shape))
    if stored in (2, 4):
        image[3, 4, -1] = 254
        Image.fromarray(image.squeeze()).save(tmp_path / "b.png")
        with pytest.raises(ImageError, match="with alpha"):
            images.read_pixels(tmp_path / "b.png", wanted)


def test_opaque_alpha_is_kept_for_four_channels(tmp_path):
    image = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    images.write_pixels(tmp_path / "a.png", image)
    np.testing.assert_array_equal(images.read_pixels(tmp_path / "a.png", 4), image)


def test_transparent_colour_of_a_png_counts_as_alpha(tmp_path):
    image = Image.fromarray(RGB)
    image.save(tmp_path / "a.png", transparency=tuple(RGB[2, 3]))
    Image.fromarray(RGB[..., 0] > 128).save(tmp_path / "bits.png", transparency=0)
    for name, channels in (("a.png", 3), ("bits.png", 1)):
        with pytest.raises(ImageError, match="with alpha"):
            images.read_pixels(tmp_path / name, channels)
    image.save(
        tmp_path / "b.png",
        transparency=next(c for c in np.ndindex(9, 9, 9) if c not in set(map(tuple, RGB.reshape(-1, 3)))),
    )
    np.testing.assert_array_equal(images.read_pixels(tmp_path / "b.png", 3), RGB)


@pytest.mark.parametrize("suffix", [".jfif", ".gif", ".avif", ".heic", ".heif"])
def test_formats_of_upscaling_are_read(tmp_path, suffix):
    path, smooth = tmp_path / f"a{suffix}", np.linspace(0, 255, 24 * 32).reshape(24, 32).astype(np.uint8)
    image = Image.fromarray(np.dstack([smooth, smooth[::-1], smooth[:, ::-1]]))
    if suffix in (".heic", ".heif"):
        pytest.importorskip("pillow_heif").from_pillow(image).save(path, quality=95)
    else:
        image.save(path, {".jfif": "JPEG"}.get(suffix))
    assert suffix in images.SUFFIXES
    assert images.read_shape(path) == (24, 32, 3)
    read = images.read_pixels(path, 3)
    upscaled = images.read_image(path).frames[0]
    assert np.abs(read.astype(int) - upscaled).max() <= 8  # decoders differ in their rounding of YCbCr
    assert np.abs(read.astype(int) - np.array(image)).mean() < 10


def deep_rgb_png():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + bytes(12) for _ in range(2))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def tiff_file(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def deep_colour_tiff(planes):
    shape = (3, 8, 9) if planes == "separate" else (8, 9, 3)
    return tiff_file(np.zeros(shape, np.uint16), photometric="rgb", planarconfig=planes)


def deep_avif():
    return bytes(imagecodecs.avif_encode(np.zeros((16, 16, 3), np.uint16), bitspersample=10))


FRAMES = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
UNSUPPORTED = {
    "deep grey": (encoded(Image.fromarray(np.zeros((2, 2), np.uint16)), "PNG"), "more than 8 bits"),
    "deep colour": (deep_rgb_png(), "more than 8 bits"),
    "deep tiff": (encoded(Image.fromarray(np.zeros((2, 2), np.uint16)), "TIFF"), "more than 8 bits"),
    "deep colour tiff": (deep_colour_tiff("contig"), "more than 8 bits"),
    "deep colour planes": (deep_colour_tiff("separate"), "more than 8 bits"),
    "float": (encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), "more than 8 bits"),
    "signed tiff": (tiff_file(np.zeros((8, 9), np.int8), photometric="minisblack"), "signed samples"),
    "near infrared": (
        tiff_file(np.zeros((8, 9, 4), np.uint8), photometric="rgb", extrasamples=["unspecified"]),
        "4 bands, 1 of them neither colour nor alpha",
    ),
    "five bands": (
        tiff_file(np.zeros((8, 9, 5), np.uint8), photometric="rgb", extrasamples=["unassalpha", "unspecified"]),
        "5 bands, 2 of them",
    ),
    "two bands": (
        tiff_file(np.zeros((8, 9, 2), np.uint8), photometric="minisblack", planarconfig="contig"),
        "2 bands, 1 of them",
    ),
    "float tiff": (
        tiff_file(np.zeros((8, 9), np.float32), photometric="minisblack"),
        "floating-point samples of more than 8 bits (32)",
    ),
    "deep avif": (deep_avif(), "more than 8 bits"),
    "deep pgm": (b"P5\n1 1\n65535\n\0\0", "more than 8 bits"),
    "palette of 8 bits": (
        tiff_file(RGB[..., 0], photometric="palette", colormap=np.arange(768, dtype=np.uint16).reshape(3, 256) // 3),
        "a palette of 8 bits",
    ),
    "gif animation": (encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "an animation of 2 frames"),
    "animation": (encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "an animated PNG"),
    "pages": (encoded(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), "several pages"),
    "cmyk": (encoded(Image.new("CMYK", (4, 4)), "JPEG"), "mode CMYK; convert it to RGB"),
    "cmyk tiff": (encoded(Image.new("CMYK", (4, 4)), "TIFF"), "mode CMYK; convert it to RGB"),
    "postscript": (encoded(FRAMES[0], "EPS"), "got a PostScript document"),
    "text": (b"not an image", "a text file"),
    "empty": (b"", "got an empty file"),
}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_unsupported_files_are_refused(tmp_path, kind, channels):
    content, expected = UNSUPPORTED[kind]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as error:
        images.read_pixels(path, channels)
    assert message(error).startswith(f"{path}: expected ")
    assert expected in message(error)
    with pytest.raises(ImageError, match=re.escape(expected)):
        images.read_shape(path)


def test_tiff_with_reduced_copies_or_alpha_is_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "overviews.tif") as file:
        file.write(RGB, photometric="rgb")
        file.write(RGB[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(images.read_pixels(tmp_path / "overviews.tif", 3), RGB)
    alpha = np.dstack([RGB, RGB[..., 0]])
    tifffile.imwrite(tmp_path / "alpha.tif", alpha, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(images.read_pixels(tmp_path / "alpha.tif", 4), alpha)


def test_jpeg_with_preview_is_read(tmp_path):
    path = tmp_path / "phone.jpg"
    FRAMES[0].save(path, "MPO", save_all=True, append_images=FRAMES[1:])
    assert Image.open(path).format == "MPO"
    assert images.read_pixels(path, 3)[0, 0, 0] > 200


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageError) as error:
        images.read_pixels(tmp_path / "none.png", 3)
    assert "No such file" in message(error)
    with pytest.raises(ImageError) as error:
        images.read_pixels(tmp_path, 3)
    assert "got a folder" in message(error)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on damaged EXIF
@pytest.mark.parametrize("suffix", sorted(images.DATASET_SUFFIXES - {".jpeg", ".tiff"}))
def test_truncated_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    images.write_pixels(path, pixels(3, 64, 64))
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.7):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ImageError) as error:
            images.read_pixels(path, 3)
        assert str(path) in message(error)
        assert "check the path and the permissions" not in message(error)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on damaged EXIF
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(images.DATASET_SUFFIXES)), st.integers(0, 2**32), st.integers(0, 255), st.integers(1, 4))
@pytest.mark.slow
def test_damaged_files_raise_only_image_errors(tmp_path, suffix, where, value, count):
    path = tmp_path / f"a{suffix}"
    images.write_pixels(path, RGB, overwrite=True)
    damaged = bytearray(path.read_bytes())
    for step in range(count):
        damaged[(where >> (7 * step)) % len(damaged)] = value
    path.write_bytes(damaged)
    with suppress(ImageError):
        assert images.read_pixels(path, 3).shape[2] == 3


def test_pixel_limit_is_that_of_upscaling(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    images.write_pixels(path, RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # Pillow's own limit would refuse this image
    np.testing.assert_array_equal(images.read_pixels(path, 3), RGB)
    monkeypatch.setattr(source, "MAX_PIXELS", 100)
    with pytest.raises(ImageError) as error:
        images.read_pixels(path, 3)
    assert message(error).endswith(
        ": expected at most 100 pixels (a guard against decompression bombs), got 126 pixels; cut it into parts"
    )


def test_jpeg_keeps_colour_resolution(tmp_path):
    images.write_pixels(tmp_path / "a.JPG", RGB)
    with Image.open(tmp_path / "a.JPG") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
        assert max(image.quantization[0]) < 20  # true at quality 95; Pillow's default of 75 reaches 61


def test_existing_files_are_kept_unless_overwriting(tmp_path):
    path = tmp_path / "a.png"
    images.write_pixels(path, RGB)
    with pytest.raises(ImageError, match="got a file; choose another name, or allow overwriting"):
        images.write_pixels(path, 255 - RGB)
    np.testing.assert_array_equal(images.read_pixels(path, 3), RGB)
    images.write_pixels(path, 255 - RGB, overwrite=True)
    np.testing.assert_array_equal(images.read_pixels(path, 3), 255 - RGB)
    (tmp_path / "b.png").mkdir()
    with pytest.raises(ImageError, match="got a folder"):
        images.write_pixels(tmp_path / "b.png", RGB, overwrite=True)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), ValueError("odd"), KeyboardInterrupt()])
def test_failed_write_keeps_existing_file(tmp_path, monkeypatch, failure):
    path = tmp_path / "a.png"
    images.write_pixels(path, RGB)

    def write(file, *_):
        file.write(b"half")
        raise failure

    monkeypatch.setattr(pillow, "encode", write)
    with pytest.raises(KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else ImageError) as error:
        images.write_pixels(path, 255 - RGB, overwrite=True)
    if isinstance(failure, OSError):
        assert "No space left on device; check the folder" in message(error)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    np.testing.assert_array_equal(images.read_pixels(path, 3), RGB)


def test_target_appears_only_when_complete(tmp_path, monkeypatch):
    seen, write = [], pillow.encode

    def spy(*arguments):
        write(*arguments)
        seen.extend(tmp_path.iterdir())

    monkeypatch.setattr(pillow, "encode", spy)
    images.write_pixels(tmp_path / "a.png", RGB)
    assert len(seen) == 1
    assert seen[0].name.startswith(".")
    assert seen[0].suffix not in images.DATASET_SUFFIXES
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has these permissions")
def test_written_files_have_ordinary_permissions(tmp_path):
    images.write_pixels(tmp_path / "a.png", RGB)
    (tmp_path / "b").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b").stat().st_mode


@NOT_ROOT
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ImageError, match="Permission denied"):
        images.write_pixels(tmp_path / "a.png", RGB)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("a.gif", (4, 4, 3), "expected one of the suffixes .bmp .jpeg .jpg .png .tif .tiff .webp, got '.gif'"),
        ("a", (4, 4, 3), "got ''"),
        (
            "none/a.png",
            (4, 4, 3),
            "cannot be written: No such file or directory; check the folder and its free disk space",
        ),
        (f"{'a' * 300}.png", (4, 4, 3), "cannot be written: File name too long; use shorter names"),
        ("a.webp", (1, 16384, 3), "at most 16383 pixels per side for WEBP, got 16384×1; write .png or .tif"),
        ("a.jpg", (1, 65536, 3), "at most 65500 pixels per side for JPEG, got 65536×1; write .png or .tif"),
    ],
)
def test_unwritable_targets_are_refused(tmp_path, name, shape, expected):
    (tmp_path / "file").touch()
    with pytest.raises(ImageError) as error:
        images.write_pixels(tmp_path / name, np.zeros(shape, np.uint8))
    assert message(error).startswith((f"{tmp_path / name}: expected ", f"{tmp_path / name}: cannot be written: "))
    assert expected in message(error)
    assert "format" not in message(error)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match=f"{tmp_path / 'file'}: expected a folder, got a file; choose another folder"):
        images.write_pixels(tmp_path / "file" / "a.png", RGB)


@pytest.mark.parametrize("image", [RGB[..., :2], RGB[..., 0], RGB.astype(np.float32), RGB[:0]])
def test_invalid_arrays_are_refused(tmp_path, image):
    with pytest.raises(ValueError, match="expected a uint8 image"):
        images.write_pixels(tmp_path / "a.png", image)


def test_samples_that_reading_would_scale_are_refused(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 2 2 100\n" + bytes([0, 50, 100, 100]))
    images.read_image(tmp_path / "a.pgm")
    with pytest.raises(ImageError, match="whose samples can be used as they are"):
        images.read_pixels(tmp_path / "a.pgm", 1)
