"""Tests of reading image files that were written by other libraries."""

import io
import logging
import multiprocessing
import os
import struct
import sys
from contextlib import suppress

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from esrgan import images
from esrgan.errors import ImageError
from esrgan.images import vips
from tests.helpers.image_files import (
    CMYK_PROFILE,
    HEIGHT,
    KINDS,
    WIDTH,
    double_size,
    find_tolerance,
    hide_transparent_colour,
    make_file,
    max_difference,
    message,
    noise,
    read_independently,
    smooth,
    to_pillow,
)

NOT_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read every file")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_pixels_survive_reading_and_writing(tmp_path, kind):
    path, expected = make_file(tmp_path, kind)
    image_data = images.read_image(path)
    assert image_data.file_format.lower() == kind.split()[0].lower()
    assert len(image_data.frames) == len(expected)
    for frame, other in zip(image_data.frames, expected, strict=True):
        assert frame.shape == other.shape
        assert frame.dtype == other.dtype
        assert frame.flags.c_contiguous
        assert frame.flags.writeable
        assert max_difference(
            hide_transparent_colour(frame, kind), hide_transparent_colour(other, kind)
        ) <= find_tolerance(kind)
    target = path.with_name(f"b{path.suffix}")
    images.write_image(target, double_size(image_data))
    again = read_independently(target)
    assert len(again) == len(expected)
    for frame, other in zip(again, expected, strict=True):
        large = other.repeat(2, 0).repeat(2, 1)
        if frame.shape[2] != large.shape[2]:  # the format cannot store grey
            large = np.concatenate([large[..., [0, 0, 0]], large[..., 1:]], 2) if large.shape[2] < 3 else large
        assert frame.dtype == large.dtype
        if frame.shape[2] == 4 and large.shape[2] == 3:  # in animations alpha marks pixels that have not changed
            assert frame[..., 3].min() == 255
            frame = frame[..., :3]
        assert max_difference(
            hide_transparent_colour(frame, kind), hide_transparent_colour(large, kind)
        ) <= find_tolerance(kind)


def test_unreadable_frames_are_detected(tmp_path, monkeypatch):
    path, _ = make_file(tmp_path, "GIF animation")
    decode = vips.decode

    def decode_fewer(*args, **options):
        decoded = decode(*args, **options)
        del decoded.frames[-1]
        return decoded

    monkeypatch.setattr(vips, "decode", decode_fewer)
    with pytest.raises(ImageError, match="only 2 of 3 images can be read"):
        images.read_image(path)


def test_cmyk_profile_is_used(tmp_path):
    grey = bytearray(CMYK_PROFILE)  # changed below to a profile that maps every colour to grey
    tags = struct.iter_unpack(">4sII", CMYK_PROFILE[132 : 132 + 12 * CMYK_PROFILE[131]])
    for name, start, length in tags:
        # ICC.1 §10.10: the table from inks to Lab lies between the curves for 4 and those for 3 channels.
        if name.startswith(b"A2B"):
            assert CMYK_PROFILE[start : start + 4] == b"mft2"
            before, behind = struct.unpack(">HH", CMYK_PROFILE[start + 48 : start + 52])
            first, last = start + 52 + 4 * 2 * before, start + length - 3 * 2 * behind
            grey[first:last] = b"\x80\0" * ((last - first) // 2)
    Image.new("CMYK", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.jpg", icc_profile=bytes(grey))
    assert np.ptp(images.read_image(tmp_path / "a.jpg").frames[0][0, 0].astype(int)) < 8


def test_ten_bit_white_is_full_white(tmp_path):
    white = np.full((8, 8, 3), 1023, np.uint16)
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(white, level=100, bitspersample=10))
    image_data = images.read_image(tmp_path / "a.avif")
    assert image_data.frames[0].min() == 65535
    images.write_image(tmp_path / "b.avif", image_data)
    np.testing.assert_allclose(imagecodecs.avif_decode((tmp_path / "b.avif").read_bytes())[..., :3], 1023, atol=2)


def raw_file():
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, noise(3), photometric="rgb", extratags=[(50706, 1, 4, (1, 4, 0, 0), True)])
    return buffer.getvalue()


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def uneven_pages():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(noise(3), photometric="rgb")
        writer.write(noise(3, height=5), photometric="rgb")
    return buffer.getvalue()


STILLS = [Image.fromarray(noise(3, height=64, width=64)) for _ in range(2)]
UNSUPPORTED = {
    "animated PNG": (encoded(STILLS[0], "PNG", save_all=True, append_images=STILLS[1:]), "an animated PNG; save it as"),
    "AVIF sequence": (encoded(STILLS[0], "AVIF", save_all=True, append_images=STILLS[1:]), "an image sequence"),
    "camera": (raw_file(), "a camera raw file"),
    "preview": (tiff(noise(3), photometric="rgb", subfiletype=1), "a camera raw file"),
    "Lab": (tiff(noise(3), photometric="cielab"), "Lab; convert it to RGB"),
    "complex": (tiff(np.zeros((4, 4), np.complex64)), "complex numbers; save their magnitude"),
    "empty": (b"", "got an empty file"),
    "web page": (b"\n<!DOCTYPE html><html></html>", "got a web page"),
    "drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "got a drawing (SVG)"),
    "postscript": (encoded(STILLS[0], "EPS"), "got a PostScript document"),
    "text": (b"not an image", "got a text file"),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_unsupported_files_are_refused(tmp_path, kind):
    content, expected = UNSUPPORTED[kind]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as error:
        images.read_image(path)
    assert message(error).startswith(f"{path}: expected ")
    assert expected in message(error)


def test_format_is_detected_by_content_not_suffix(tmp_path):
    for kind in ("JPEG RGB", "PNG 16-bit RGB", "GIF animation", "TIFF float RGB"):
        path, expected = make_file(tmp_path, kind)
        path.rename(tmp_path / "mislabelled.webp")
        image_data = images.read_image(tmp_path / "mislabelled.webp")
        assert image_data.file_format == kind.split()[0]
        assert image_data.frames[0].dtype == expected[0].dtype


@NOT_ROOT
def test_unreadable_file(tmp_path):
    (tmp_path / "a.png").touch(0o000)
    with pytest.raises(ImageError, match="Permission denied"):
        images.read_image(tmp_path / "a.png")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        images.read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="got a folder"):
        images.read_image(tmp_path)


def test_heic_without_pillow_heif(tmp_path, monkeypatch):
    path, _ = make_file(tmp_path, "HEIC 10-bit RGB")
    image_data = images.read_image(path)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="expected pillow-heif for HEIC, got none; pip install pillow-heif"):
        images.read_image(path)
    with pytest.raises(ImageError, match="pip install pillow-heif"):
        images.check_writable(path, 4, 4, 3, np.uint8)
    with pytest.raises(ImageError, match="pip install pillow-heif"):
        images.write_image(tmp_path / "b.heic", image_data)


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    for kind in ("PNG RGB", "BMP RGB", "HEIC 10-bit RGB", "GIF animation"):
        path, _ = make_file(tmp_path, kind)
        monkeypatch.setattr("esrgan.images.source.MAX_PIXELS", HEIGHT * WIDTH - 1)
        with pytest.raises(ImageError, match=r"at most 125 pixels.*; cut it into parts"):
            images.read_image(path)


@pytest.mark.parametrize("kind", ["PNG RGB", "BMP RGB", "HEIC 10-bit RGB", "GIF animation"])
def test_max_pixels_is_checked_before_decoding(tmp_path, kind):
    path, frames = make_file(tmp_path, kind)
    pixels = sum(frame.shape[0] * frame.shape[1] for frame in frames)
    assert len(images.read_image(path, pixels).frames) == len(frames)
    with pytest.raises(ImageError, match=r"expected at most 0\.0\d+ megapixels, got .* megapixels; make it smaller"):
        images.read_image(path, pixels - 1)


SAMPLES = ["PNG RGB", "JPEG RGB", "WebP lossless RGB", "WebP animation", "GIF", "GIF animation", "TIFF RGB, LZW"]
SAMPLES += [
    "TGA RGB",
    "DDS RGB with alpha",
    "PPM RGB",
    "TIFF 16-bit RGB, pages",
    "BMP RGB",
    "AVIF RGB",
    "HEIC 10-bit RGB",
    "PNG palette with transparency",
]


@pytest.mark.parametrize("kind", SAMPLES)
def test_truncated_files_are_refused(tmp_path, kind):
    path, expected = make_file(tmp_path, kind)
    whole = path.read_bytes()
    refused = 0
    for share in (0.02, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97):
        path.write_bytes(whole[: int(len(whole) * share)])
        try:
            frames = images.read_image(path).frames  # correct if only data after the pixels is missing
            assert len(frames) == len(expected)
            assert all(max_difference(*pair) <= find_tolerance(kind) for pair in zip(frames, expected, strict=True))
        except ImageError:
            refused += 1
    assert refused >= 4


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on damaged EXIF
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([*SAMPLES, "TIFF float RGB", "JPEG CMYK", "WebP lossy RGB"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5),
    st.booleans(),
)
@pytest.mark.slow
def test_damaged_files_raise_only_image_errors(tmp_path, kind, changes, is_in_head):
    path, _ = make_file(tmp_path, kind)
    damaged = bytearray(path.read_bytes())
    for place, value in changes:
        damaged[int(place * (min(len(damaged), 400) if is_in_head else len(damaged)))] = value
    path.write_bytes(damaged)
    with suppress(ImageError):
        image_data = images.read_image(path)
        assert all(frame.ndim == 3 for frame in image_data.frames)
        images.write_image(path.with_name(f"b{path.suffix}"), image_data, overwrite=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([*SAMPLES, "TIFF float RGB", "JPEG CMYK", "WebP lossy RGB"]),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3),
    st.sampled_from(["shuffled", "repeated", "removed", "length"]),
)
@pytest.mark.slow
def test_files_with_misplaced_parts_raise_only_image_errors(tmp_path, kind, places, change):
    path, _ = make_file(tmp_path, kind)
    data = path.read_bytes()
    first, second, third = sorted(int(place * len(data)) // 4 * 4 for place in places)
    parts = {
        "shuffled": (data[:first], data[second:third], data[first:second], data[third:]),
        "repeated": (data[:second], data[first:]),
        "removed": (data[:first], data[second:]),
        "length": (data[: first % 600], b"\xff\xff\xff\x7f", data[first % 600 + 4 :]),
    }
    path.write_bytes(b"".join(parts[change]))
    with suppress(ImageError):
        images.read_pixels(path, 3)
    with suppress(ImageError):
        image_data = images.read_image(path)
        images.write_image(path.with_name(f"b{path.suffix}"), image_data, overwrite=True)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"BM"]), st.binary(max_size=99)
)
def test_random_files_raise_only_image_errors(tmp_path, magic, content):
    (tmp_path / "a.png").write_bytes(magic + content)
    with suppress(ImageError):
        images.read_image(tmp_path / "a.png")


def test_changed_file_is_read_again(tmp_path):
    for suffix in ("png", "jpg", "webp", "gif", "tif", "bmp", "avif"):
        for level in (10, 200, 90):
            path = tmp_path / f"a.{suffix}"
            Image.new("RGB", (8, 8), (level, level, level)).save(path)
            assert abs(int(images.read_image(path).frames[0].mean()) - level) <= 2


@pytest.mark.parametrize("name", ["a[1].png", "ü %20.png", "x[Q=3].jpg", "[n=-1]", "-a.png", "\udcff.png"])
def test_unusual_file_names(tmp_path, name):
    path = tmp_path / name
    try:
        Image.fromarray(smooth(3)).save(path, "PNG")
    except OSError:
        pytest.skip("this file system does not allow the name")
    assert images.read_image(path).frames[0].shape == (HEIGHT, WIDTH, 3)
    if path.suffix:
        images.write_image(path, images.ImageData((smooth(1),)), overwrite=True)
        assert images.read_image(path).frames[0].shape == (HEIGHT, WIDTH, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX forks")
def test_a_forked_process_reads_strictly_and_refuses_otherwise(tmp_path):
    """libvips would wait for ever for the threads of the parent."""
    Image.fromarray(noise(3)).save(tmp_path / "a.png")
    images.read_image(tmp_path / "a.png")

    def read(results):
        images.write_pixels(tmp_path / "b.png", images.read_pixels(tmp_path / "a.png", 3))
        results.put(images.read_pixels(tmp_path / "b.png", 3).shape)
        try:
            images.read_image(tmp_path / "a.png")
        except ImageError as error:
            results.put(str(error))

    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=read, args=(results,))
    process.start()
    assert results.get(timeout=30) == noise(3).shape
    assert "start the process by the method spawn" in results.get(timeout=30)
    process.join()


def test_shape_is_that_of_the_pixels(tmp_path):
    for name, channels in (("a.tga", 3), ("b.tga", 4), ("c.tga", 1), ("d.dds", 4), ("e.ppm", 3)):
        to_pillow(noise(channels)).save(tmp_path / name)
        pixels = images.read_image(tmp_path / name).frames[0]
        assert images.read_shape(tmp_path / name) == pixels.shape
        np.testing.assert_array_equal(images.read_pixels(tmp_path / name, channels), pixels)


def test_libvips_calls_python_only_for_warnings(tmp_path, monkeypatch):
    """A KeyboardInterrupt in such a call would be lost, and one is due if Ctrl-C was pressed while libvips worked."""
    calls = []
    monkeypatch.setattr(vips.load_vips().logger, "log", lambda level, text: calls.append((level, text)))
    images.write_image(tmp_path / "a.png", images.ImageData((noise(3),)))
    images.read_image(tmp_path / "a.png")
    assert calls == []
    content = (tmp_path / "a.png").read_bytes()
    vips.load_vips().Image.pngload_buffer(content[: len(content) * 3 // 4], fail_on="none").avg()
    assert {level for level, _ in calls} == {logging.WARNING}


def test_images_are_measured_in_megapixels(tmp_path, monkeypatch):
    images.write_pixels(tmp_path / "a.png", np.zeros((100, 200, 3), np.uint8))
    images.write_image(tmp_path / "deep.png", images.ImageData((np.zeros((300, 400, 3), np.uint16),)))
    (tmp_path / "bad.png").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.png")  # would block if it were opened
    paths = {name: tmp_path / f"{name}.png" for name in ("a", "deep", "bad", "pipe", "missing")}
    sizes = images.measure_images(paths)
    assert sizes == pytest.approx({"a": 0.02, "deep": 0.12, "bad": 0.07, "pipe": 0.07, "missing": 0.07})
    with (tmp_path / "a.png").open("r+b") as file:
        file.truncate(60)  # pixels are not decoded
    assert images.measure_images(paths) == sizes
    monkeypatch.setattr("esrgan.images.reading.MEASURE_S", -1.0)
    assert images.measure_images(paths) == dict.fromkeys(paths, 1.0)
    assert images.measure_images({}) == {}


def test_names_that_no_file_can_have_are_named(tmp_path):
    with pytest.raises(ImageError, match=r"got a name that no file can have \(embedded null byte\); check the path"):
        images.read_image(f"{tmp_path}/a\0b.png")
