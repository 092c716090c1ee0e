"""Tests of TIFF files whose pages were written by different programs, or with a directory for the first page only."""

import struct
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from esrgan import images
from esrgan.errors import ImageError
from tests.helpers.image_files import EXIF, GREY_PROFILE, PROFILE, XMP, enlarge, noise, upscale

PLAIN = {"metadata": None, "software": False}


def write_pages(path, *pages):
    with tifffile.TiffWriter(path) as writer:
        for pixels, options in pages:
            writer.write(pixels, **{"photometric": "rgb"} | PLAIN | options)
    return path


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"rowsperstrip": 5}, {"tile": (16, 16)}, {}])
def test_pages_may_be_stored_in_different_ways(tmp_path, options):
    first, second, planar = (noise(3, height=40, width=32) for _ in range(3))
    pages = [(first, {}), (second, options)]
    if not options:
        pages.append((np.moveaxis(planar, -1, 0), {"planarconfig": "separate"}))
    frames = images.read_image(write_pages(tmp_path / "a.tif", *pages)).frames
    np.testing.assert_array_equal(frames, [first, second, planar][: len(pages)])


def test_each_page_is_turned_by_its_own_orientation(tmp_path):
    pages = [noise(3) for _ in range(3)]
    tags = [{"extratags": [(274, 3, 1, orientation, True)]} for orientation in (1, 3, 6)]
    path = write_pages(tmp_path / "a.tif", *zip(pages, tags, strict=True))
    expected = [pages[0], pages[1][::-1, ::-1], np.rot90(pages[2], -1)]
    for frame, upright in zip(images.read_image(path).frames, expected, strict=True):
        np.testing.assert_array_equal(frame, upright)


def test_exif_of_each_page_is_kept(tmp_path):
    first, *others = [Image.fromarray(noise(3)) for _ in range(2)]
    first.save(tmp_path / "a.tif", save_all=True, append_images=others, exif=EXIF)
    target, _ = upscale(tmp_path / "a.tif")
    with tifffile.TiffFile(target) as file:
        for page in file.pages:
            exif, gps = page.tags[34665].value, page.tags[34853].value
            assert (exif["LensModel"], gps["GPSLatitudeRef"]) == ("Lens", "N")
        assert "PixelXDimension" not in exif  # which would have to be scaled


@pytest.mark.parametrize("first", [None, PROFILE])
def test_each_page_keeps_its_colour_profile(tmp_path, first):
    other = PROFILE[:-4] + b"\1\2\3\4"
    path = write_pages(
        tmp_path / "a.tif", *((noise(3), {"iccprofile": profile}) for profile in (first, None, other, PROFILE))
    )
    target, notes = upscale(path)
    assert notes == ()
    with tifffile.TiffFile(target) as file:
        profiles = [page.tags[34675].value if 34675 in page.tags else None for page in file.pages]
    assert profiles == [first, None, other, PROFILE]


def test_metadata_of_further_pages_is_kept_or_named(tmp_path):
    more = [(700, 1, len(XMP), XMP, True), (33723, 7, 10, b"\x1c\x02\x05\0\5hello", True)]
    path = write_pages(tmp_path / "a.tif", (noise(3), {}), (noise(3), {"extratags": more}))
    target, notes = upscale(path)
    assert notes == ("not kept: XMP of a further page",)
    with tifffile.TiffFile(target) as file:
        assert [33723 in page.tags for page in file.pages] == [False, True]


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (noise(4), [{"extrasamples": [2]}, {"extrasamples": [0]}]),
        (noise(4), [{"photometric": "separated"}, {"photometric": "separated", "extratags": [(332, 3, 1, 2, True)]}]),
        (noise(1, np.float32)[..., 0], [{"extratags": [(42113, 2, 0, text, True)]} for text in ("-1e38", "-9999")]),
    ],
)
def test_pages_whose_samples_mean_something_else_are_refused(tmp_path, pixels, options):
    if pixels.ndim == 2:
        options = [{"photometric": "minisblack"} | each for each in options]
    path = write_pages(tmp_path / "a.tif", *((pixels, each) for each in options))
    with pytest.raises(ImageError, match="got pages whose samples, or values for missing ones, differ; save each page"):
        images.read_image(path)


def test_inks_that_are_not_cmyk_are_refused(tmp_path):
    ink_set = {"photometric": "separated", "extratags": [(332, 3, 1, 2, True)]}
    with pytest.raises(ImageError, match="inks other than CMYK; convert it to RGB"):
        images.read_image(write_pages(tmp_path / "a.tif", (noise(4), ink_set)))


def test_planes_of_a_metamorph_stack_are_read(tmp_path):
    stack = noise(5, np.uint16).transpose(2, 0, 1)
    dates = struct.pack("<6I", 1, 1, 2459000, 0, 2459000, 0)  # distance, creation and modification of each plane
    numbers = struct.unpack("<30I", dates * 5)
    path, half = tmp_path / "a.tif", numbers[:10]  # the tag counts a fraction for each plane, though there are three
    tifffile.imwrite(path, stack[0], **PLAIN, extratags=[(33629, 5, 5, half, True)])
    path.write_bytes(path.read_bytes() + stack[1:].tobytes())
    np.testing.assert_array_equal(np.stack(images.read_image(path).frames)[..., 0], stack)


def test_grey_profile_of_the_first_page_does_not_reach_others(tmp_path):
    grey = {"photometric": "minisblack"}
    path = write_pages(
        tmp_path / "a.tif", (noise(1)[..., 0], grey | {"iccprofile": GREY_PROFILE}), (noise(1)[..., 0], grey)
    )
    target, _ = upscale(path)
    with tifffile.TiffFile(target) as file:
        assert [34675 in page.tags for page in file.pages] == [True, False]


def test_tags_of_the_first_page_alone_hold_for_all(tmp_path):
    pages = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(pages[0], photometric="rgb", metadata=None, extratags=[(42113, "s", 0, "-9999", True)])
        writer.write(pages[1], photometric="rgb", metadata=None)
    assert [frame.shape for frame in images.read_image(tmp_path / "a.tif").frames] == [(8, 8, 3)] * 2


@pytest.mark.parametrize("second", [0, 1])
def test_each_page_has_the_colours_of_its_own_palette(tmp_path, second):
    indices, palettes = noise(1)[..., 0], np.random.default_rng(0).integers(0, 256, (2, 3, 256))
    palettes[second] = palettes[second][:1]  # grey
    options = {"photometric": "palette"}
    path = write_pages(
        tmp_path / "a.tif", *((indices, options | {"colormap": (257 * each).astype(np.uint16)}) for each in palettes)
    )
    frames = images.read_image(path).frames
    for frame, palette in zip(frames, palettes, strict=True):
        np.testing.assert_array_equal(frame, palette.T[indices])


def test_place_and_resolution_follow_the_size_of_each_page(tmp_path):
    extra = [(33550, "d", 3, (10.0, 10.0, 0.0), True), (33922, "d", 6, (4.0, 0.0, 0.0, 500.0, 900.0, 0.0), True)]
    options = {"extratags": extra, "resolution": (100, 100), "resolutionunit": 2}
    path = write_pages(
        tmp_path / "a.tif", (noise(3, height=6, width=8), options), (noise(3, height=12, width=16), options)
    )
    image = images.read_image(path)
    frames = tuple(frame.repeat(32 // len(frame[0]), 0).repeat(32 // len(frame[0]), 1) for frame in image.frames)
    images.write_image(path, images.set_resolution(replace(image, frames=frames), "scale"), overwrite=True)
    with tifffile.TiffFile(path) as file:
        found = [(page.tags[33550].value[0], page.tags[33922].value[0], page.tags[282].value[0]) for page in file.pages]
    assert found == [(2.5, 16, 400), (5, 8, 200)]


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [
        ("keep", [(300, 300), (150, 100), None]),
        ("scale", [(1200, 1200), (600, 400), None]),
        (600, [(600, 600)] * 3),
    ],
)
def test_resolution_of_each_page_follows_the_choice(tmp_path, resolution, expected):
    first, second = ({"resolution": each, "resolutionunit": 2} for each in ((300, 300), (150, 100)))
    path = write_pages(tmp_path / "a.tif", (noise(3), first), (noise(3), second), (noise(3), first))
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        for tag in (282, 283):
            struct.pack_into("<H", data, file.pages[2].tags[tag].offset, tag + 65000 - 282)  # private tags
    path.write_bytes(data)
    images.write_image(path, images.set_resolution(enlarge(images.read_image(path)), resolution), overwrite=True)
    with tifffile.TiffFile(path) as file:
        for page, values in zip(file.pages, expected, strict=True):
            found = tuple(page.tags[tag].value[0] for tag in (282, 283) if tag in page.tags)
            assert (found or None) == values


def test_resolution_without_unit_is_replaced(tmp_path):
    options = {"resolution": (16, 11), "resolutionunit": 1}
    path = write_pages(tmp_path / "a.tif", (noise(3), options), (noise(3), options))
    images.write_image(path, images.set_resolution(enlarge(images.read_image(path)), 600), overwrite=True)
    with tifffile.TiffFile(path) as file:
        found = [[page.tags[tag].value for tag in (282, 283, 296)] for page in file.pages]
    assert found == [[(600, 1), (600, 1), 2]] * 2


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("turned", [0, 1])
def test_resolution_of_each_page_is_turned_with_it(tmp_path, unit, turned):
    options = {"resolution": (204, 98), "resolutionunit": unit}
    pages = [(noise(3), options | {"extratags": [(274, 3, 1, 6, True)]} if i == turned else options) for i in range(2)]
    target, _ = upscale(write_pages(tmp_path / "a.tif", *pages))
    with tifffile.TiffFile(target) as file:
        found = [tuple(page.tags[tag].value[0] for tag in (282, 283)) for page in file.pages]
    ratios = [x / y for x, y in found]
    assert ratios == pytest.approx([98 / 204 if i == turned else 204 / 98 for i in range(2)])
    if unit == 2:
        assert {*found[0]} == {204, 98}
