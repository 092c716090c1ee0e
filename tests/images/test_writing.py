"""Tests of writing image files, which are read back by other libraries."""

import io
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from esrgan import images
from esrgan.errors import ImageError
from esrgan.images import png, vips
from tests.helpers.image_files import GREY_PROFILE, max_difference, message, noise, read_independently, smooth


def test_compression_is_kept(tmp_path):
    for compression in (None, "lzw", "zlib", "packbits"):
        tifffile.imwrite(tmp_path / "a.tif", smooth(3), photometric="rgb", compression=compression)
        images.write_image(tmp_path / "b.tif", images.read_image(tmp_path / "a.tif"), overwrite=True)
        with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(tmp_path / "b.tif") as after:
            assert after.pages[0].compression == before.pages[0].compression
    for lossless in (True, False):
        Image.fromarray(smooth(3)).save(tmp_path / "a.webp", lossless=lossless)
        image_data = images.read_image(tmp_path / "a.webp")
        assert image_data.lossless == lossless
        images.write_image(tmp_path / "b.webp", image_data, overwrite=True)
        assert (b"VP8L" in (tmp_path / "b.webp").read_bytes()) == lossless
    images.write_image(tmp_path / "b.webp", images.ImageData((smooth(3),)), overwrite=True, quality=80)
    assert b"VP8 " in (tmp_path / "b.webp").read_bytes()


@pytest.mark.parametrize("height", [1, 255, 256, 257, 600])
@pytest.mark.parametrize("channels", [1, 3])
def test_bmp_is_written_in_blocks_of_rows(tmp_path, height, channels):
    for width in (1, 2, 3, 4):
        frame = noise(channels, height=height, width=width)
        images.write_image(tmp_path / "a.bmp", images.ImageData((frame,)), overwrite=True)
        np.testing.assert_array_equal(read_independently(tmp_path / "a.bmp")[0], frame)
        with Image.open(tmp_path / "a.bmp") as image:
            assert image.mode == {1: "L", 3: "RGB"}[channels]


def test_jpeg_quality(tmp_path):
    for quality, coarsest in ((None, 20), (50, 130)):
        images.write_image(tmp_path / "a.jpg", images.ImageData((smooth(3),)), overwrite=True, quality=quality)
        with Image.open(tmp_path / "a.jpg") as image:
            assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
            assert coarsest / 2 < max(image.quantization[0]) < coarsest
    with pytest.raises(ValueError, match="quality: expected 1 to 100, got 0"):
        images.write_image(tmp_path / "a.jpg", images.ImageData((smooth(3),)), quality=0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (13, 1), (3, 5)])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tif", "bmp", "avif", "heic"])
def test_tiny_images(tmp_path, suffix, shape):
    path = tmp_path / f"a.{suffix}"
    images.write_image(path, images.ImageData((np.full((*shape, 3), (200, 90, 10), np.uint8),)))
    frame = images.read_image(path).frames[0]
    assert frame.shape == (*shape, 3)
    assert max_difference(frame, [[[200, 90, 10]]]) < 0.03


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "webp"])
def test_bit_depth_is_reduced_only_if_allowed(tmp_path, suffix):
    deep = images.ImageData((smooth(3, np.uint16),))
    with pytest.raises(ImageError, match="or pass reduce_depth=True in Python"):
        images.write_image(tmp_path / f"a.{suffix}", deep)
    assert list(tmp_path.iterdir()) == []
    notes = images.write_image(tmp_path / f"a.{suffix}", deep, reduce_depth=True)
    assert notes[0] == "16-bit samples reduced to 8 bits"
    assert max_difference(images.read_image(tmp_path / f"a.{suffix}").frames[0], smooth(3)) < 0.05


def test_reduced_bit_depth_is_rounded(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    images.write_image(tmp_path / "a.bmp", images.ImageData((values,)), reduce_depth=True)
    np.testing.assert_array_equal(read_independently(tmp_path / "a.bmp")[0], np.rint(values / 257))
    unit = np.linspace(-0.1, 1.1, 999, dtype=np.float32).reshape(1, 999, 1)
    images.write_image(tmp_path / "a.png", images.ImageData((unit,)), reduce_depth=True)
    expected = np.rint(unit.clip(0, 1).astype(float) * 65535)
    np.testing.assert_array_equal(read_independently(tmp_path / "a.png")[0], expected)


def test_existing_files_are_kept_unless_overwriting(tmp_path):
    path = tmp_path / "a.png"
    first, second = images.ImageData((noise(3),)), images.ImageData((noise(3),))
    images.write_image(path, first)
    with pytest.raises(ImageError, match="got a file; choose another name, or allow overwriting"):
        images.write_image(path, second)
    np.testing.assert_array_equal(read_independently(path)[0], first.frames[0])
    images.write_image(path, second, overwrite=True)
    np.testing.assert_array_equal(read_independently(path)[0], second.frames[0])
    (tmp_path / "b.png").mkdir()
    with pytest.raises(ImageError, match="got a folder"):
        images.write_image(tmp_path / "b.png", first, overwrite=True)


@pytest.mark.parametrize("has_links", [True, False])
def test_file_created_during_writing_is_kept(tmp_path, monkeypatch, has_links):
    path, write = tmp_path / "a.png", png.write

    def slow(*arguments):
        write(*arguments)
        path.write_bytes(b"another's")

    monkeypatch.setattr(png, "write", slow)
    if not has_links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
    with pytest.raises(ImageError, match="got a file"):
        images.write_image(path, images.ImageData((noise(3),)))
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"another's"


@pytest.mark.parametrize("overwrite", [False, True])
def test_image_is_synced_before_it_is_renamed(tmp_path, monkeypatch, overwrite):
    path, synced = tmp_path / "a.png", []

    def sync(number):
        assert not path.exists()
        synced.append(os.fstat(number).st_size)

    monkeypatch.setattr(os, "fsync", sync)
    images.write_image(path, images.ImageData((noise(3),)), overwrite=overwrite)
    assert synced == [path.stat().st_size]


def test_writing_without_hard_links(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
    images.write_image(tmp_path / "a.png", images.ImageData((noise(3),)))
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("method", ["write", "seek", "read"])
def test_a_full_disk_leaves_no_traceback_of_callbacks(tmp_path, capfd, method):
    """TIFF seeks back while it is written."""

    class Full(io.BytesIO):
        def fail(self, *_):
            raise OSError(28, "No space left on device")

    setattr(Full, method, Full.fail)
    image = images.ImageData((noise(3, height=200, width=300),))
    with pytest.raises(OSError, match="No space left") if method != "read" else nullcontext():
        vips.encode(Full(), image, "TIFF", compression="lzw")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "gif", "avif"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.slow
def test_failed_write_keeps_existing_file(tmp_path, monkeypatch, suffix, failure):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"old")
    seen = []

    class Full(io.FileIO):
        def write(self, data):
            seen.extend(tmp_path.iterdir())
            raise failure

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode, *rest: Full(self, "x+"))
    with pytest.raises(ImageError if isinstance(failure, OSError) else type(failure)) as error:
        images.write_image(path, images.ImageData((noise(3, height=200, width=300),)), overwrite=True)
    monkeypatch.setattr(Path, "open", opened)
    if isinstance(failure, OSError):
        assert "No space left on device; check the folder" in message(error)
    assert len(set(seen)) == 2
    hidden = next(file for file in seen if file != path)
    assert hidden.name.startswith(".")
    assert hidden.suffix not in images.SUFFIXES
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_float_samples_of_another_range_are_not_cut_off(tmp_path, suffix):
    heights, gaps, bright = noise(1, np.float32) * 3000, noise(1, np.float32), noise(3, np.float32)
    gaps[:4] = np.nan
    for frame in (heights, gaps):
        with pytest.raises(ImageError, match=r"samples from 0 to 1 for .*; write \.tif, or scale them first"):
            images.write_image(tmp_path / f"a.{suffix}", images.ImageData((frame,)), reduce_depth=True)
    bright[0, 0] = 1.5
    notes = images.write_image(tmp_path / f"a.{suffix}", images.ImageData((bright,)), reduce_depth=True)
    assert "float samples outside 0 to 1 cut off (0.79%)" in notes


def test_delays_that_tiff_cannot_store_are_named(tmp_path):
    animation = images.ImageData((noise(3), noise(3)), "GIF", delays_ms=(40, 70))
    assert images.write_image(tmp_path / "a.tif", animation) == ("TIFF cannot store delays and repetitions",)


def test_missing_output_folder_is_reported(tmp_path):
    with pytest.raises(ImageError, match="No such file or directory; check the folder"):
        images.write_image(tmp_path / "none/a.png", images.ImageData((noise(3),)))


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
@pytest.mark.slow
def test_writing_needs_little_extra_memory(tmp_path, suffix):
    code = (
        "import resource, sys, numpy as np; from esrgan import images;"
        "frame = np.random.default_rng(0).integers(0, 256, (6000, 6000, 3), np.uint8);"
        "small = images.ImageData((np.ascontiguousarray(frame[:64, :64]),));"
        f"images.write_image({str(tmp_path / f'small.{suffix}')!r}, small);"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        f"images.write_image({str(tmp_path / f'a.{suffix}')!r}, images.ImageData((frame,)));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    growth = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert growth < 60 * 1024  # KiB, for an array of 103 MiB


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "gif", "heic", "webp", "avif"])
def test_grey_profiles_are_kept_or_named(tmp_path, suffix):
    image = images.ImageData((noise(1),), icc_profile=GREY_PROFILE)
    notes = images.write_image(tmp_path / f"a.{suffix}", image)
    is_named = any("grey colour profile not kept" in note for note in notes)
    assert is_named == (images.read_image(tmp_path / f"a.{suffix}").icc_profile is None) == (suffix in ("webp", "avif"))


def test_extra_bands_do_not_make_a_grey_profile_wrong(tmp_path):
    assert (
        images.write_image(tmp_path / "a.tif", images.ImageData((noise(3),), "TIFF", 2, icc_profile=GREY_PROFILE)) == ()
    )
    assert images.read_image(tmp_path / "a.tif").icc_profile == GREY_PROFILE
