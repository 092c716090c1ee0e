"""Tests of metadata that is read from one file and written to another."""

import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from esrgan import images
from tests.helpers.image_files import (
    CMYK_PROFILE,
    EXIF,
    HEIGHT,
    KINDS,
    MAKER_NOTE,
    PROFILE,
    UPRIGHT_XMP,
    WIDTH,
    double_size,
    make_exif,
    make_file,
    noise,
    png_with,
    read_metadata_independently,
    smooth,
)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "CMYK" not in kind])
def test_metadata_survives_reading_and_writing(tmp_path, kind):
    path, _ = make_file(tmp_path, kind)
    image_data = images.read_image(path)
    target = path.with_name(f"b{path.suffix}")
    images.write_image(target, double_size(image_data))
    before, after = read_metadata_independently(path), read_metadata_independently(target)
    is_bare = path.suffix in (".bmp", ".gif")
    if before.get("icc_profile") and not is_bare:
        assert after["icc_profile"] == before["icc_profile"]
    if before.get("xmp") and not is_bare:
        assert after["xmp"] in (UPRIGHT_XMP, UPRIGHT_XMP.decode())
    if before.get("dpi"):
        np.testing.assert_allclose(after["dpi"], before["dpi"], rtol=1e-5)
    if before.get("tags") and not is_bare and path.suffix != ".tif":
        expected = before["tags"] | {0x0112: 1, 0xA002: 2 * WIDTH, 0xA003: 2 * HEIGHT}
        for tag, value in expected.items():
            if tag not in (0x8769, 0x8825):
                assert after["tags"][tag] == value, hex(tag)
        if path.suffix in (".jpg", ".png", ".webp"):
            assert len(after["exif"]) == len(before["exif"])  # nothing is added


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif", "avif"])
@pytest.mark.parametrize(
    ("profile", "name"),
    [
        (b"nonsense", "unreadable colour profile"),
        (PROFILE[:-4], "unreadable colour profile"),
        (CMYK_PROFILE, "CMYK colour profile of a grey or RGB image"),
        (PROFILE[:16] + b"Lab " + PROFILE[20:], "Lab colour profile of a grey or RGB image"),
        (PROFILE[:16] + b"\x1b[2J" + PROFILE[20:], "?[2J colour profile of a grey or RGB image"),
        (PROFILE + b"padding", None),
        (PROFILE[:-1], None),
    ],
)
def test_unusable_profiles_are_named(tmp_path, suffix, profile, name):
    """Most writers would leave them out without a message. Missing bytes at the end that only align are added."""
    Image.fromarray(smooth(3)).save(tmp_path / f"a.{suffix}", icc_profile=profile)
    image = images.read_image(tmp_path / f"a.{suffix}")
    assert image.notes == ((f"{name} not kept",) if name else ())
    assert image.icc_profile == (None if name else profile.ljust(len(PROFILE), b"\0"))


def test_no_metadata_is_invented(tmp_path):
    for suffix in ("png", "jpg", "webp", "tif"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(noise(3)).save(path)
        images.write_image(tmp_path / f"b.{suffix}", images.read_image(path))
        found = read_metadata_independently(tmp_path / f"b.{suffix}")
        assert not found.get("exif")
        assert not found.get("icc_profile")
        assert not found.get("xmp")
        assert (found.get("dpi") or (1, 1)) == (1, 1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 have no meaning
def test_orientation_is_applied_once(tmp_path, suffix, orientation):
    # The upright image is white only at the top left. Exif 2.32 defines where that corner is stored.
    is_top, is_left = orientation not in (3, 4, 6, 7), orientation not in (2, 3, 7, 8)
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[slice(8) if is_top else slice(8, None), slice(8) if is_left else slice(16, None)] = 255
    path, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, stored, photometric="rgb", metadata=None, extratags=[(274, 3, 1, orientation, True)])
    else:
        Image.fromarray(stored).save(path, exif=make_exif(orientation, 24, 16), quality=95, lossless=True)
    image_data = images.read_image(path)
    is_odd = suffix == "tif" and orientation in (0, 9)
    assert image_data.notes == (("an orientation that does not exist is ignored",) if is_odd else ())
    shape = (24, 16, 3) if 5 <= orientation <= 8 else (16, 24, 3)
    assert image_data.frames[0].shape[:2] == shape[:2]  # the channels may differ: WebP is read as grey
    assert image_data.frames[0][:8, :8].mean() > 240
    assert image_data.frames[0].mean() < 60
    images.write_image(target, image_data)
    assert images.read_image(target).frames[0].shape[:2] == shape[:2]
    with Image.open(target) as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert np.array(image)[:8, :8].mean() > 240
        if suffix != "tif":
            exif = image.getexif().get_ifd(0x8769)
            assert (exif[0xA003], exif[0xA002]) == shape[:2]
            assert exif[0x927C] == MAKER_NOTE


def test_exif_survives_format_changes(tmp_path):
    Image.fromarray(smooth(3)).save(tmp_path / "a.jpg", exif=EXIF, dpi=(72, 72))
    for step, name in enumerate(("b.tif", "c.webp", "d.png", "e.tif", "f.jpg")):
        previous = sorted(tmp_path.iterdir())[step]
        images.write_image(tmp_path / name, images.read_image(previous))
    tags = read_metadata_independently(tmp_path / "f.jpg")["tags"]
    assert (tags[0x010F], tags[0x0110], tags[0xA434], tags[0x927C]) == ("Maker", "Model", "Lens", MAKER_NOTE)
    assert tags[2] == (51.0, 30.0, 0.0)
    assert read_metadata_independently(tmp_path / "b.tif")["dpi"] == (72, 72)


def test_damaged_exif_does_not_prevent_writing(tmp_path):
    for suffix in ("png", "jpg", "webp", "tif", "avif"):
        for exif in (b"", b"x", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", EXIF[6:40]):
            image_data = images.ImageData((noise(3),), exif=exif)
            images.write_image(tmp_path / f"a.{suffix}", image_data, overwrite=True)
            assert images.read_image(tmp_path / f"a.{suffix}").frames[0].shape == (HEIGHT, WIDTH, 3)


def test_cmyk_profile_is_replaced_by_rgb(tmp_path):
    for kind in ("JPEG CMYK with profile", "TIFF CMYK with profile", "JPEG CMYK"):
        path, _ = make_file(tmp_path, kind)
        image_data = images.read_image(path)
        assert "CMYK converted to RGB" in image_data.notes
        assert image_data.icc_profile[16:20] == b"RGB "


def test_pixel_aspect_ratio_is_not_a_resolution(tmp_path):
    shape = struct.pack(">IIB", 2, 1, 0)
    (tmp_path / "a.png").write_bytes(png_with(imagecodecs.png_encode(noise(3)), (b"pHYs", shape)))
    assert images.read_image(tmp_path / "a.png").dpi is None


def test_png_colour_and_text_chunks_are_kept(tmp_path):
    gamma = struct.pack(">I", 100000)
    text = b"Title\0caf\xe9"
    data = png_with(imagecodecs.png_encode(noise(3)), (b"gAMA", gamma), (b"tEXt", text))
    (tmp_path / "a.png").write_bytes(data)
    image_data = images.read_image(tmp_path / "a.png")
    assert images.write_image(tmp_path / "b.png", image_data) == ()
    written = (tmp_path / "b.png").read_bytes()
    assert b"gAMA" + gamma in written
    assert b"tEXt" + text in written
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["gamma"] == 1.0
    assert "TIFF cannot store gamma or colour space, comment" in images.write_image(tmp_path / "b.tif", image_data)


def test_grey_with_rgb_profile_is_written_as_rgb(tmp_path):
    images.write_image(tmp_path / "a.png", images.ImageData((noise(2),), icc_profile=PROFILE))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGBA"
        assert image.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("suffix", ["gif", "webp"])
@pytest.mark.parametrize("loop", [0, 1, 5])
def test_animations_keep_their_timing(tmp_path, suffix, loop):
    frames = [Image.fromarray(noise(3) // 128 * 255) for _ in range(4)]
    path, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[20, 50, 70, 1000], loop=loop)
    images.write_image(target, double_size(images.read_image(path)))
    for file in (path, target):
        with Image.open(file) as image:
            assert image.info["loop"] == loop
            durations = []
            for number in range(image.n_frames):
                image.seek(number)
                image.load()
                durations.append(image.info["duration"])
            assert durations == [20, 50, 70, 1000]
