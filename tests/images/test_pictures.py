"""Pictures made by other libraries than the one that reads them, and read back by others."""

import dataclasses
import io
import os
import re
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import pyvips
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from esrgan import pictures
from esrgan.errors import ImageError
from esrgan.pictures import writing

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 9, 14
NOT_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
DOCS = Path(__file__).parents[2] / "docs/images.md"

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_PROFILE = PROFILE[:16] + b"GRAY" + PROFILE[20:]  # enough for those that only look at its head
CMYK_PROFILE = bytes(pyvips.Operation.call("profile_load", "cmyk"))
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
UPRIGHT_XMP = XMP.replace(b'"6"', b'"1"')
MAKER_NOTE = b"Unknown\0" + bytes(range(64))


def exif_block(orientation=1, width=WIDTH, height=HEIGHT):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110] = orientation, "Maker", "Model"
    exif.get_ifd(0x8769).update({0x829A: 0.008, 0x927C: MAKER_NOTE, 0xA002: width, 0xA003: height, 0xA434: "Lens"})
    exif.get_ifd(0x8825).update({1: "N", 2: (51.0, 30.0, 0.0)})
    return exif.tobytes()


EXIF = exif_block()


def noise(channels, dtype=np.uint8, height=HEIGHT, width=WIDTH):
    if dtype == np.float32:
        return RNG.random((height, width, channels), np.float32)
    return RNG.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)


def smooth(channels, dtype=np.uint8):
    """Survives lossy encoding."""
    rows, columns = np.indices((HEIGHT, WIDTH))[..., None] / [[[[HEIGHT]]], [[[WIDTH]]]]
    unit = np.concatenate([rows, columns, 1 - rows, columns][:channels], axis=2)
    return np.rint(unit * np.iinfo(dtype).max).astype(dtype)


def message(error):
    text = str(error.value)
    assert "\n" not in text
    return text


# What files are made of


def png_with(data, *chunks):
    added = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return data[:33] + added + data[33:]


def by_pillow(pixels, suffix, **options):
    def make(path):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        metadata = {"dpi": (300, 300), "exif": EXIF, "xmp": XMP}
        metadata["icc_profile"] = PROFILE if pixels.shape[2] > 2 else GREY_PROFILE
        if suffix == "png":
            info = PngInfo()
            info.add_itxt("XML:com.adobe.xmp", XMP.decode())
            metadata["pnginfo"] = info
        image.save(path, **metadata | options)
        return [pixels]

    return suffix, make


def by_imagecodecs_png(pixels):
    def make(path):
        profile = b"ICC\0\0" + zlib.compress(PROFILE if pixels.shape[2] > 2 else GREY_PROFILE)
        xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
        resolution = struct.pack(">IIB", 11811, 11811, 1)
        chunks = [(b"iCCP", profile), (b"eXIf", EXIF[6:]), (b"iTXt", xmp), (b"pHYs", resolution)]
        path.write_bytes(png_with(imagecodecs.png_encode(pixels), *chunks))
        return [pixels]

    return "png", make


def by_tifffile(pixels, photometric, expected=None, pages=1, **options):
    def make(path):
        profile = PROFILE if pixels.shape[2] > 2 else GREY_PROFILE
        tags = [(34675, 7, len(profile), profile, True), (700, 1, len(XMP), XMP, True), (271, 2, 6, "Maker", True)]
        with tifffile.TiffWriter(path) as writer:
            for page in range(pages):
                frame = np.roll(pixels, page, 0)
                writer.write(
                    frame[..., 0] if frame.shape[2] == 1 else frame,
                    photometric=photometric,
                    extratags=tags,
                    resolution=(300, 300),
                    resolutionunit="INCH",
                    metadata=None,
                    software=False,
                    **options,
                )
        return [np.roll(pixels, page, 0) if expected is None else expected for page in range(pages)]

    return "tif", make


def palette(suffix, colours, transparency=None, **options):
    """Grey or not, and with a transparent colour or none."""
    indices = RNG.integers(0, len(colours), (HEIGHT, WIDTH), np.uint8)
    expected = np.array(colours, np.uint8)[indices]
    if transparency is not None:
        expected = np.dstack([expected, np.where(indices == transparency, 0, 255).astype(np.uint8)])

    def make(path):
        image = Image.frombytes("P", (WIDTH, HEIGHT), indices.tobytes())
        image.putpalette(np.array(colours, np.uint8).tobytes())
        image.save(path, **options | ({} if transparency is None else {"transparency": transparency}))
        grey = np.ptp(expected[..., :3], axis=2).max() == 0
        return [np.delete(expected, (1, 2), axis=2) if grey else expected]

    return suffix, make


def one_bit(suffix):
    pixels = RNG.random((HEIGHT, WIDTH)) > 0.5

    def make(path):
        Image.fromarray(pixels).save(path)
        return [np.where(pixels, 255, 0).astype(np.uint8)[..., None]]

    return suffix, make


def animation(suffix, **options):
    frames = [Image.fromarray(RNG.integers(0, 4, (HEIGHT, WIDTH, 3), np.uint8) * 85) for _ in range(3)]

    def make(path):
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=[30, 50, 70], loop=2, **options)
        return [np.array(frame) for frame in frames]

    return suffix, make


def phone_jpeg():
    pixels = smooth(3)

    def make(path):
        options = {"append_images": [Image.new("RGB", (4, 4))], "quality": 95, "subsampling": "4:4:4"}
        Image.fromarray(pixels).save(path, "MPO", save_all=True, icc_profile=PROFILE, exif=EXIF, **options)
        return [pixels]

    return "jpg", make


def cmyk(suffix, profile=None, **options):
    inks = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    inks[:3, :, 0], inks[3:6, :, 2], inks[6:] = 255, 255, (0, 0, 0, 255)

    def make(path):
        if suffix == "tif":
            tags = [(34675, 7, len(profile), profile, True)] if profile else []
            tifffile.imwrite(path, inks, photometric="separated", extratags=tags, metadata=None, software=False)
        else:
            kept = {"icc_profile": profile} if profile else {}
            Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes()).save(path, exif=EXIF, dpi=(300, 300), **kept)
        image = Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes())
        rgb = ImageCms.profileToProfile(
            image, *map(io.BytesIO, (CMYK_PROFILE, PROFILE)), 1, "RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION
        )
        return [np.array(rgb)]

    return suffix, make


def deep_heic(bits=10):
    pixels = smooth(3, np.uint16)

    def make(path):
        image = pillow_heif.from_bytes("RGB;16", (WIDTH, HEIGHT), pixels.tobytes())
        image.save(path, quality=-1, chroma=444, exif=EXIF, xmp=UPRIGHT_XMP, icc_profile=PROFILE)
        return [pixels]

    return "heic", make


def deep_avif():
    pixels = smooth(3, np.uint16)

    def make(path):
        path.write_bytes(imagecodecs.avif_encode(pixels >> 6, level=100, bitspersample=10))
        return [pixels]

    return "avif", make


LOSSLESS_WEBP = {"lossless": True, "exact": True}
FINE_JPEG = {"quality": 95, "subsampling": "4:4:4"}
GREYS, COLOURS = [(0, 0, 0), (99, 99, 99), (255, 255, 255)], [(0, 0, 0), (255, 128, 0), (9, 200, 90)]
KINDS = {
    "PNG grey": by_pillow(noise(1), "png"),
    "PNG grey with alpha": by_pillow(noise(2), "png"),
    "PNG RGB": by_pillow(noise(3), "png"),
    "PNG RGB with alpha": by_pillow(noise(4), "png"),
    "PNG 16-bit grey": by_imagecodecs_png(noise(1, np.uint16)),
    "PNG 16-bit grey with alpha": by_imagecodecs_png(noise(2, np.uint16)),
    "PNG 16-bit RGB": by_imagecodecs_png(noise(3, np.uint16)),
    "PNG 16-bit RGB with alpha": by_imagecodecs_png(noise(4, np.uint16)),
    "PNG 1-bit": one_bit("png"),
    "PNG palette": palette("png", COLOURS),
    "PNG palette of greys": palette("png", GREYS),
    "PNG palette with transparency": palette("png", COLOURS, 1),
    "JPEG grey": by_pillow(smooth(1), "jpg", **FINE_JPEG),
    "JPEG RGB": by_pillow(smooth(3), "jpg", **FINE_JPEG),
    "JPEG of a phone (MPO)": phone_jpeg(),
    "JPEG CMYK": cmyk("jpg"),
    "JPEG CMYK with profile": cmyk("jpg", CMYK_PROFILE),
    "WebP lossless RGB": by_pillow(noise(3), "webp", **LOSSLESS_WEBP),
    "WebP lossless RGB with alpha": by_pillow(noise(4), "webp", **LOSSLESS_WEBP),
    "WebP lossless grey": by_pillow(np.repeat(noise(1), 3, 2), "webp", **LOSSLESS_WEBP),
    "WebP lossy RGB": by_pillow(smooth(3), "webp", quality=95),
    "WebP animation": animation("webp", lossless=True),
    "GIF": palette("gif", COLOURS),
    "GIF with transparency": palette("gif", COLOURS, 1),
    "GIF animation": animation("gif"),
    "TIFF grey": by_tifffile(noise(1), "minisblack"),
    "TIFF grey, white is 0": by_tifffile(PALE := noise(1), "miniswhite", 255 - PALE),
    "TIFF RGB, LZW": by_tifffile(noise(3), "rgb", compression="lzw"),
    "TIFF RGB with alpha": by_tifffile(noise(4), "rgb", extrasamples=["unassalpha"]),
    "TIFF 16-bit grey with alpha": by_tifffile(
        noise(2, np.uint16), "minisblack", extrasamples=["unassalpha"], planarconfig="contig"
    ),
    "TIFF 16-bit RGB, deflate": by_tifffile(noise(3, np.uint16), "rgb", compression="zlib", predictor=True),
    "TIFF float grey": by_tifffile(noise(1, np.float32), "minisblack"),
    "TIFF float RGB": by_tifffile(noise(3, np.float32), "rgb"),
    "TIFF float RGB with alpha": by_tifffile(noise(4, np.float32), "rgb", extrasamples=["unassalpha"]),
    "TIFF 16-bit RGB, pages": by_tifffile(noise(3, np.uint16), "rgb", pages=3),
    "TIFF 1-bit": one_bit("tif"),
    "TIFF CMYK": cmyk("tif"),
    "TIFF CMYK with profile": cmyk("tif", CMYK_PROFILE),
    "BMP grey": by_pillow(noise(1), "bmp"),
    "BMP RGB": by_pillow(noise(3), "bmp"),
    "BMP palette": palette("bmp", COLOURS),
    "AVIF RGB": by_pillow(smooth(3), "avif", quality=95, subsampling="4:4:4"),
    "AVIF RGB with alpha": by_pillow(smooth(4), "avif", quality=95, subsampling="4:4:4"),
    "AVIF 10-bit RGB": deep_avif(),
    "HEIC 10-bit RGB": deep_heic(),
}
# Of 255; what encoders may do to a smooth picture, and the profile to inks.
TOLERANCES = {"JPEG": 9, "AVIF": 9, "HEIC": 6, "WebP lossy": 30, "CMYK": 9}
SHAPES = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}
DEPTHS = {np.uint8: "8-bit", np.uint16: "16-bit", np.float32: "float"}


def made(folder, kind):
    """A file, and the frames that it was made of."""
    suffix, make = KINDS[kind]
    path = folder / f"a.{suffix}"
    expected = make(path)
    if np.all([np.ptp(frame[..., :3], axis=2).max() == 0 for frame in expected]) and expected[0].shape[2] > 2:
        expected = [np.delete(frame, (1, 2), axis=2) for frame in expected]
    return path, expected


def tolerance(kind):
    return max((most for name, most in TOLERANCES.items() if name in kind), default=0) / 255


def distance(frame, other):
    peak = {1: 255, 2: 65535, 4: 1}[frame.itemsize]
    return float(np.abs(frame.astype(float) - other).max() / peak)


def visible(frame, kind):
    """GIF does not keep the colour of what is transparent."""
    return frame * (frame[..., 3:] > 0) if kind == "GIF with transparency" else frame


def enlarged(picture):
    frames = tuple(frame.repeat(2, 0).repeat(2, 1) for frame in picture.frames)
    return dataclasses.replace(picture, frames=frames)


def read_otherwise(path):
    """The frames of a file, (H, W, C), by Pillow or, where that cannot, by another."""
    kind = path.read_bytes()[:4]
    if kind in (b"II*\0", b"II+\0"):
        with tifffile.TiffFile(path) as file:
            frames = [page.asarray().reshape(page.imagelength, page.imagewidth, -1) for page in file.pages]
            return [frame * np.uint8(255) if frame.dtype == bool else frame for frame in frames]
    if kind == b"\x89PNG":
        return [np.atleast_3d(imagecodecs.png_decode(path.read_bytes()))]
    if path.suffix == ".heic":
        image = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)[0]
        return [np.asarray(image).reshape(*image.size[::-1], -1)]
    if path.suffix == ".avif":
        pixels = imagecodecs.avif_decode(path.read_bytes())
        return [pixels << 6 if pixels.dtype == np.uint16 else pixels]
    with Image.open(path) as image:
        frames = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            alpha = "A" if image.mode in ("RGBA", "LA") or "transparency" in image.info else ""
            mode = image.mode if image.mode == "L" else f"RGB{alpha}"
            frames.append(np.atleast_3d(np.array(image.convert(mode))))
        return frames


def metadata_of(path):
    """What Pillow finds, or pillow-heif."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            tags = {tag.code: tag.value for tag in file.pages[0].tags}
        dpi = tuple(round(tags[tag][0] / tags[tag][1]) for tag in (282, 283)) if tags.get(296) == 2 else None
        return {"icc_profile": tags.get(34675), "xmp": tags.get(700), "exif": tags.get(271), "dpi": dpi, "tags": tags}
    if path.suffix == ".heic":
        return dict(pillow_heif.open_heif(path)[0].info)
    with Image.open(path) as image:
        exif = image.getexif()
        info = dict(image.info)
        info["xmp"] = info.get("xmp", info.get("XML:com.adobe.xmp"))
        tags = dict(exif) | dict(exif.get_ifd(0x8769)) | dict(exif.get_ifd(0x8825))
        return info | {"exif": info.get("exif") or tags.get(0x010F), "tags": tags}


def kept(before, after, key):
    """Whether metadata that was there still is."""
    if key == "icc_profile" and after.get(key) != before.get(key) and after.get(key):
        return "sRGB"
    if not before.get(key):
        return "–"
    return "kept" if after.get(key) else "lost"


def row(folder, kind):
    """A line of the table in the documentation, from what really happens."""
    path, _ = made(folder, kind)
    picture = pictures.read(path)
    target = path.with_name(f"b{path.suffix}")
    words = [*picture.notes, *pictures.write(target, enlarged(picture), overwrite=True)]
    frame = picture.frames[0]
    count = f", {len(picture.frames)} frames" if len(picture.frames) > 1 else ""
    bits = f"{picture.bits}-bit" if picture.bits else DEPTHS[frame.dtype.type]
    before, after = metadata_of(path), metadata_of(target)
    cells = [kept(before, after, key) for key in ("icc_profile", "exif", "xmp", "dpi")]
    return f"| {kind} | {bits} {SHAPES[frame.shape[2]]}{count} | {' | '.join(cells)} | {'; '.join(words)} |"


def test_documentation_says_what_happens(tmp_path):
    rows = [row(tmp_path, kind) for kind in KINDS]
    documented = [line for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    assert documented == rows, "docs/images.md should have\n" + "\n".join(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_stay(tmp_path, kind):
    path, expected = made(tmp_path, kind)
    picture = pictures.read(path)
    assert picture.file_format.lower() == kind.split()[0].lower()
    assert len(picture.frames) == len(expected)
    for frame, other in zip(picture.frames, expected, strict=True):
        assert frame.shape == other.shape
        assert frame.dtype == other.dtype
        assert frame.flags.c_contiguous
        assert frame.flags.writeable
        assert distance(visible(frame, kind), visible(other, kind)) <= tolerance(kind)
    target = path.with_name(f"b{path.suffix}")
    pictures.write(target, enlarged(picture))
    again = read_otherwise(target)
    assert len(again) == len(expected)
    for frame, other in zip(again, expected, strict=True):
        large = other.repeat(2, 0).repeat(2, 1)
        if frame.shape[2] != large.shape[2]:  # a format without grey
            large = np.concatenate([large[..., [0, 0, 0]], large[..., 1:]], 2) if large.shape[2] < 3 else large
        assert frame.dtype == large.dtype
        if frame.shape[2] == 4 and large.shape[2] == 3:  # animations have alpha to say what has not changed
            assert frame[..., 3].min() == 255
            frame = frame[..., :3]
        assert distance(visible(frame, kind), visible(large, kind)) <= tolerance(kind)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "CMYK" not in kind])
def test_metadata_stays(tmp_path, kind):
    path, _ = made(tmp_path, kind)
    picture = pictures.read(path)
    target = path.with_name(f"b{path.suffix}")
    pictures.write(target, enlarged(picture))
    before, after = metadata_of(path), metadata_of(target)
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
            assert len(after["exif"]) == len(before["exif"])  # nothing added either


def test_nothing_is_invented(tmp_path):
    for suffix in ("png", "jpg", "webp", "tif"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(noise(3)).save(path)
        pictures.write(tmp_path / f"b.{suffix}", pictures.read(path))
        found = metadata_of(tmp_path / f"b.{suffix}")
        assert not found.get("exif")
        assert not found.get("icc_profile")
        assert not found.get("xmp")
        assert (found.get("dpi") or (1, 1)) == (1, 1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
def test_orientation_is_applied_once(tmp_path, suffix, orientation):
    # White only at the top left of what the camera saw; Exif 2.32 says where that is in the file.
    at_the_top, at_the_left = orientation not in (3, 4, 6, 7), orientation not in (2, 3, 7, 8)
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[slice(8) if at_the_top else slice(8, None), slice(8) if at_the_left else slice(16, None)] = 255
    path, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    else:
        Image.fromarray(stored).save(path, exif=exif_block(orientation, 24, 16), quality=95, lossless=True)
    if suffix == "tif" and orientation in (0, 9):
        with pytest.raises(ImageError, match=r"Bad value \d for \"Orientation\" tag"):
            pictures.read(path)
        return
    picture = pictures.read(path)
    shape = (24, 16, 3) if 5 <= orientation <= 8 else (16, 24, 3)
    assert picture.frames[0].shape[:2] == shape[:2]  # WebP of grey is grey
    assert picture.frames[0][:8, :8].mean() > 240
    assert picture.frames[0].mean() < 60
    pictures.write(target, picture)
    assert pictures.read(target).frames[0].shape[:2] == shape[:2]
    with Image.open(target) as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert np.array(image)[:8, :8].mean() > 240
        if suffix != "tif":
            exif = image.getexif().get_ifd(0x8769)
            assert (exif[0xA003], exif[0xA002]) == shape[:2]
            assert exif[0x927C] == MAKER_NOTE


@pytest.mark.parametrize("options", [{"byteorder": ">"}, {"bigtiff": True}, {"byteorder": ">", "bigtiff": True}])
def test_tiff_layouts(tmp_path, monkeypatch, options):
    path, pixels = tmp_path / "a.tif", [noise(3, np.uint16) for _ in range(3)]
    with tifffile.TiffWriter(path, **options) as writer:
        for page in pixels:
            tags = [(271, 2, 6, "Maker", True), (700, 1, len(UPRIGHT_XMP), UPRIGHT_XMP, True)]
            writer.write(page, photometric="rgb", extratags=tags, resolution=(300.5, 150), resolutionunit="INCH")
    monkeypatch.setattr(writing, "_LARGEST_TIFF", 0 if "bigtiff" in options else 2**32)
    picture = pictures.read(path)
    np.testing.assert_array_equal(picture.frames, pixels)
    pictures.write(tmp_path / "b.tif", dataclasses.replace(picture, icc_profile=PROFILE))
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_bigtiff == ("bigtiff" in options)
        assert len(file.pages) == 3
        for page, other in zip(file.pages, pixels, strict=True):
            np.testing.assert_array_equal(page.asarray(), other)
            assert page.tags["XResolution"].value == (601, 2)
            assert page.tags[34675].value == PROFILE
            assert page.tags["XMP"].value == UPRIGHT_XMP
        assert file.pages[0].tags["Make"].value == "Maker"


def test_reduced_copies_are_left_out(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(noise(3), photometric="rgb")
        writer.write(noise(3, height=4, width=7), photometric="rgb", subfiletype=1)
    picture = pictures.read(tmp_path / "a.tif")
    assert picture.notes == ("left out the reduced copies in the file",)
    assert len(picture.frames) == 1


def test_a_channel_of_unknown_meaning_is_said_to_be_taken_as_alpha(tmp_path):
    word = "a channel of unspecified meaning is taken as alpha"
    for meaning, notes in (("unspecified", (word,)), ("unassalpha", ())):
        tifffile.imwrite(tmp_path / "a.tif", noise(4), photometric="rgb", extrasamples=[meaning])
        assert pictures.read(tmp_path / "a.tif").notes == notes


def test_many_pages(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", pages := noise(3, height=1500 * 2).reshape(1500, 2, WIDTH, 3), photometric="rgb"
    )
    np.testing.assert_array_equal(pictures.read(tmp_path / "a.tif").frames, pages)


def test_frames_that_cannot_be_read_are_missed(tmp_path, monkeypatch):
    path, _ = made(tmp_path, "GIF animation")
    monkeypatch.setattr("esrgan.pictures.containers.count_gif_frames", lambda _: 4)
    with pytest.raises(ImageError, match="4 images, of which 3 can be read"):
        pictures.read(path)


def test_exif_goes_from_one_format_into_another(tmp_path):
    Image.fromarray(smooth(3)).save(tmp_path / "a.jpg", exif=EXIF, dpi=(72, 72))
    for step, name in enumerate(("b.tif", "c.webp", "d.png", "e.tif", "f.jpg")):
        previous = sorted(tmp_path.iterdir())[step]
        pictures.write(tmp_path / name, pictures.read(previous))
    tags = metadata_of(tmp_path / "f.jpg")["tags"]
    assert (tags[0x010F], tags[0x0110], tags[0xA434], tags[0x927C]) == ("Maker", "Model", "Lens", MAKER_NOTE)
    assert tags[2] == (51.0, 30.0, 0.0)
    assert metadata_of(tmp_path / "b.tif")["dpi"] == (72, 72)


def test_damaged_exif_does_not_spoil_a_result(tmp_path):
    for suffix in ("png", "jpg", "webp", "tif", "avif"):
        for exif in (b"", b"x", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", EXIF[6:40]):
            picture = pictures.Picture((noise(3),), exif=exif)
            pictures.write(tmp_path / f"a.{suffix}", picture, overwrite=True)
            assert pictures.read(tmp_path / f"a.{suffix}").frames[0].shape == (HEIGHT, WIDTH, 3)


def test_cmyk_profile_does_not_stay(tmp_path):
    for kind in ("JPEG CMYK with profile", "TIFF CMYK with profile", "JPEG CMYK"):
        path, _ = made(tmp_path, kind)
        picture = pictures.read(path)
        assert "CMYK converted to RGB" in picture.notes
        assert picture.icc_profile[16:20] == b"RGB "


def test_cmyk_profile_is_used(tmp_path):
    grey = bytearray(CMYK_PROFILE)  # which makes everything grey
    tags = struct.iter_unpack(">4sII", CMYK_PROFILE[132 : 132 + 12 * CMYK_PROFILE[131]])
    for name, start, length in tags:
        if name.startswith(b"A2B"):  # ICC.1 §10.10: from inks to Lab, between curves of 4 and of 3 channels
            assert CMYK_PROFILE[start : start + 4] == b"mft2"
            before, behind = struct.unpack(">HH", CMYK_PROFILE[start + 48 : start + 52])
            first, last = start + 52 + 4 * 2 * before, start + length - 3 * 2 * behind
            grey[first:last] = b"\x80\0" * ((last - first) // 2)
    Image.new("CMYK", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.jpg", icc_profile=bytes(grey))
    assert np.ptp(pictures.read(tmp_path / "a.jpg").frames[0][0, 0].astype(int)) < 8


def test_white_of_ten_bits_is_white(tmp_path):
    white = np.full((8, 8, 3), 1023, np.uint16)
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(white, level=100, bitspersample=10))
    picture = pictures.read(tmp_path / "a.avif")
    assert picture.frames[0].min() == 65535
    pictures.write(tmp_path / "b.avif", picture)
    np.testing.assert_allclose(imagecodecs.avif_decode((tmp_path / "b.avif").read_bytes())[..., :3], 1023, atol=2)


def test_shape_of_a_pixel_is_no_resolution(tmp_path):
    shape = struct.pack(">IIB", 2, 1, 0)
    (tmp_path / "a.png").write_bytes(png_with(imagecodecs.png_encode(noise(3)), (b"pHYs", shape)))
    assert pictures.read(tmp_path / "a.png").dpi is None


def test_png_colour_and_comments_stay(tmp_path):
    gamma = struct.pack(">I", 100000)
    text = b"Title\0caf\xe9"
    data = png_with(imagecodecs.png_encode(noise(3)), (b"gAMA", gamma), (b"tEXt", text))
    (tmp_path / "a.png").write_bytes(data)
    picture = pictures.read(tmp_path / "a.png")
    assert pictures.write(tmp_path / "b.png", picture) == ()
    written = (tmp_path / "b.png").read_bytes()
    assert b"gAMA" + gamma in written
    assert b"tEXt" + text in written
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["gamma"] == 1.0
    assert "gamma or colour space of the PNG not kept" in pictures.write(tmp_path / "b.tif", picture)


def test_grey_with_a_profile_for_colour_becomes_rgb(tmp_path):
    pictures.write(tmp_path / "a.png", pictures.Picture((noise(2),), icc_profile=PROFILE))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGBA"
        assert image.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("suffix", ["gif", "webp"])
@pytest.mark.parametrize("loop", [0, 1, 5])
def test_animations_keep_their_time(tmp_path, suffix, loop):
    frames = [Image.fromarray(noise(3) // 128 * 255) for _ in range(4)]
    path, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[20, 50, 70, 1000], loop=loop)
    pictures.write(target, enlarged(pictures.read(path)))
    for file in (path, target):
        with Image.open(file) as image:
            assert image.info["loop"] == loop
            durations = []
            for number in range(image.n_frames):
                image.seek(number)
                image.load()
                durations.append(image.info["duration"])
            assert durations == [20, 50, 70, 1000]


def test_compression_stays(tmp_path):
    for compression in (None, "lzw", "zlib", "packbits"):
        tifffile.imwrite(tmp_path / "a.tif", smooth(3), photometric="rgb", compression=compression)
        pictures.write(tmp_path / "b.tif", pictures.read(tmp_path / "a.tif"), overwrite=True)
        with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(tmp_path / "b.tif") as after:
            assert after.pages[0].compression == before.pages[0].compression
    for lossless in (True, False):
        Image.fromarray(smooth(3)).save(tmp_path / "a.webp", lossless=lossless)
        picture = pictures.read(tmp_path / "a.webp")
        assert picture.lossless == lossless
        pictures.write(tmp_path / "b.webp", picture, overwrite=True)
        assert (b"VP8L" in (tmp_path / "b.webp").read_bytes()) == lossless
    pictures.write(tmp_path / "b.webp", pictures.Picture((smooth(3),)), overwrite=True, quality=80)
    assert b"VP8 " in (tmp_path / "b.webp").read_bytes()


@pytest.mark.parametrize("height", [1, 255, 256, 257, 600])
@pytest.mark.parametrize("channels", [1, 3])
def test_bmp_is_written_in_parts(tmp_path, height, channels):
    for width in (1, 2, 3, 4):
        frame = noise(channels, height=height, width=width)
        pictures.write(tmp_path / "a.bmp", pictures.Picture((frame,)), overwrite=True)
        np.testing.assert_array_equal(read_otherwise(tmp_path / "a.bmp")[0], frame)
        with Image.open(tmp_path / "a.bmp") as image:
            assert image.mode == {1: "L", 3: "RGB"}[channels]


def test_jpeg_quality(tmp_path):
    for quality, coarsest in ((None, 20), (50, 130)):
        pictures.write(tmp_path / "a.jpg", pictures.Picture((smooth(3),)), overwrite=True, quality=quality)
        with Image.open(tmp_path / "a.jpg") as image:
            assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
            assert coarsest / 2 < max(image.quantization[0]) < coarsest
    with pytest.raises(ValueError, match="quality: expected 1 to 100, got 0"):
        pictures.write(tmp_path / "a.jpg", pictures.Picture((smooth(3),)), quality=0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (13, 1), (3, 5)])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tif", "bmp", "avif", "heic"])
def test_tiny_pictures(tmp_path, suffix, shape):
    path = tmp_path / f"a.{suffix}"
    pictures.write(path, pictures.Picture((np.full((*shape, 3), (200, 90, 10), np.uint8),)))
    frame = pictures.read(path).frames[0]
    assert frame.shape == (*shape, 3)
    assert distance(frame, [[[200, 90, 10]]]) < 0.03


# What is refused


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
UNSUITABLE = {
    "animated PNG": (encoded(STILLS[0], "PNG", save_all=True, append_images=STILLS[1:]), "an animated PNG; save it as"),
    "AVIF sequence": (encoded(STILLS[0], "AVIF", save_all=True, append_images=STILLS[1:]), "an image sequence"),
    "camera": (raw_file(), "a camera's raw file"),
    "preview": (tiff(noise(3), photometric="rgb", subfiletype=1), "a camera's raw file"),
    "Lab": (tiff(noise(3), photometric="cielab"), "Lab; convert it to RGB"),
    "long integers": (tiff(noise(1, np.uint32)), "integers of 32 bits; convert"),
    "double": (tiff(RNG.random((4, 4))), "float of 64 bits"),
    "signed": (tiff(np.zeros((4, 4), np.int16)), "samples of type short"),
    "twelve bits": (tiff(np.zeros((4, 8), np.uint16), bitspersample=12), "integers of 12 bits"),
    "five channels": (tiff(noise(5), photometric="rgb"), "5 channels"),
    "not a number": (tiff(np.full((4, 4), np.nan, np.float32)), "expected finite samples"),
    "unknown compression": (tiff(noise(3), photometric="rgb", compression="zstd"), "ZSTD"),
    "uneven pages": (uneven_pages(), "pages of one size"),
    "empty": (b"", "got an empty file"),
    "web page": (b"\n<!DOCTYPE html><html></html>", "got a web page"),
    "drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "got SVG"),
    "postscript": (encoded(STILLS[0], "EPS"), "got PostScript"),
    "text": (b"not an image", "got something else"),
}


@pytest.mark.parametrize("kind", UNSUITABLE)
def test_unsuitable_files_are_refused(tmp_path, kind):
    content, says = UNSUITABLE[kind]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as error:
        pictures.read(path)
    assert message(error).startswith(f"{path}: expected ")
    assert says in message(error)


def test_content_counts_and_not_the_suffix(tmp_path):
    for kind in ("JPEG RGB", "PNG 16-bit RGB", "GIF animation", "TIFF float RGB"):
        path, expected = made(tmp_path, kind)
        path.rename(tmp_path / "liar.webp")
        picture = pictures.read(tmp_path / "liar.webp")
        assert picture.file_format == kind.split()[0]
        assert picture.frames[0].dtype == expected[0].dtype


@NOT_ROOT
def test_unreadable_file(tmp_path):
    (tmp_path / "a.png").touch(0o000)
    with pytest.raises(ImageError, match="Permission denied"):
        pictures.read(tmp_path / "a.png")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        pictures.read(tmp_path / "none.png")
    with pytest.raises(ImageError, match="directory"):
        pictures.read(tmp_path)


def test_heic_without_its_library(tmp_path, monkeypatch):
    path, _ = made(tmp_path, "HEIC 10-bit RGB")
    picture = pictures.read(path)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="got HEIC; pip install pillow-heif"):
        pictures.read(path)
    with pytest.raises(ImageError, match="pip install pillow-heif"):
        pictures.check_writable(path, 4, 4, 3, np.uint8)
    with pytest.raises(ImageError, match="pip install pillow-heif"):
        pictures.write(tmp_path / "b.heic", picture)


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    for kind in ("PNG RGB", "BMP RGB", "HEIC 10-bit RGB", "GIF animation"):
        path, _ = made(tmp_path, kind)
        monkeypatch.setattr("esrgan.pictures.reading.MAX_PIXELS", HEIGHT * WIDTH - 1)
        with pytest.raises(ImageError, match=r"at most 125 pixels.* or raise esrgan\.pictures\.reading\.MAX_PIXELS"):
            pictures.read(path)


@pytest.mark.parametrize("kind", ["PNG RGB", "BMP RGB", "HEIC 10-bit RGB", "GIF animation"])
def test_larger_pictures_than_asked_for_are_refused_before_they_are_decoded(tmp_path, kind):
    path, frames = made(tmp_path, kind)
    pixels = sum(frame.shape[0] * frame.shape[1] for frame in frames)
    assert len(pictures.read(path, pixels).frames) == len(frames)
    with pytest.raises(ImageError, match=r"expected at most 0\.0\d+ megapixels, got .* megapixels; make it smaller"):
        pictures.read(path, pixels - 1)


SAMPLES = ["PNG RGB", "JPEG RGB", "WebP lossless RGB", "WebP animation", "GIF", "GIF animation", "TIFF RGB, LZW"]
SAMPLES += ["TIFF 16-bit RGB, pages", "BMP RGB", "AVIF RGB", "HEIC 10-bit RGB", "PNG palette with transparency"]


@pytest.mark.parametrize("kind", SAMPLES)
def test_truncated_files_are_refused(tmp_path, kind):
    path, expected = made(tmp_path, kind)
    whole = path.read_bytes()
    refused = 0
    for share in (0.02, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97):
        path.write_bytes(whole[: int(len(whole) * share)])
        try:
            frames = pictures.read(path).frames  # right if nothing of the pixels is missing
            assert len(frames) == len(expected)
            assert all(distance(*pair) <= tolerance(kind) for pair in zip(frames, expected, strict=True))
        except ImageError:
            refused += 1
    assert refused >= 4


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_tiff_files_that_end_too_soon_are_refused(tmp_path, tile, compression, dtype):
    """Wherever they end: between two strips or tiles, in one, on the last page."""
    path = tmp_path / "a.tif"
    frames = np.stack([noise(3, dtype, 40, 48) for _ in range(2)])
    tifffile.imwrite(path, frames, photometric="rgb", tile=tile, compression=compression, rowsperstrip=8)
    np.testing.assert_array_equal(pictures.read(path).frames, frames)
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        page = file.pages[1]
        ends = {offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)}
    for end in (len(whole) // 2, *(end - 1 for end in ends), *sorted(ends)[:-1]):
        path.write_bytes(whole[:end])
        with pytest.raises(ImageError, match=r"\(the file ends too soon\)|Read error|read error"):
            pictures.read(path)


def test_tiff_texts_without_their_last_byte_are_no_damage(tmp_path):
    pixels, tag = noise(3, height=32, width=32), (271, 2, 5, b"Maker", True)
    for tile in (None, (16, 16)):
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=tile, extratags=[tag])
        path = tmp_path / "a.tif"
        path.write_bytes(path.read_bytes().replace(b"Maker\0", b"Maker!"))
        np.testing.assert_array_equal(pictures.read(path).frames[0], pixels)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on damaged EXIF
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from([*SAMPLES, "TIFF float RGB", "JPEG CMYK", "WebP lossy RGB"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5),
    st.booleans(),
)
def test_damaged_files_raise_nothing_else(tmp_path, kind, changes, is_in_head):
    path, _ = made(tmp_path, kind)
    damaged = bytearray(path.read_bytes())
    for place, value in changes:
        damaged[int(place * (min(len(damaged), 400) if is_in_head else len(damaged)))] = value
    path.write_bytes(damaged)
    with suppress(ImageError):
        picture = pictures.read(path)
        assert all(frame.ndim == 3 for frame in picture.frames)
        pictures.write(path.with_name(f"b{path.suffix}"), picture, overwrite=True)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"BM"]), st.binary(max_size=99)
)
def test_random_files_raise_nothing_else(tmp_path, magic, content):
    (tmp_path / "a.png").write_bytes(magic + content)
    with suppress(ImageError):
        pictures.read(tmp_path / "a.png")


def test_a_changed_file_is_read_anew(tmp_path):
    for suffix in ("png", "jpg", "webp", "gif", "tif", "bmp", "avif"):
        for level in (10, 200, 90):
            path = tmp_path / f"a.{suffix}"
            Image.new("RGB", (8, 8), (level, level, level)).save(path)
            assert abs(int(pictures.read(path).frames[0].mean()) - level) <= 2


@pytest.mark.parametrize("name", ["a[1].png", "ü %20.png", "x[Q=3].jpg", "[n=-1]", "-a.png", "\udcff.png"])
def test_unusual_names(tmp_path, name):
    path = tmp_path / name
    try:
        Image.fromarray(smooth(3)).save(path, "PNG")
    except OSError:
        pytest.skip("this file system has no such names")
    assert pictures.read(path).frames[0].shape == (HEIGHT, WIDTH, 3)
    if path.suffix:
        pictures.write(path, pictures.Picture((smooth(1),)), overwrite=True)
        assert pictures.read(path).frames[0].shape == (HEIGHT, WIDTH, 1)


# Writing


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("a.xyz", (4, 4, 3, np.uint8), "expected a suffix of .avif .bmp"),
        ("a.jpg", (4, 4, 4, np.uint8), "expected no transparency for JPEG, got an alpha channel; write .png"),
        ("a.bmp", (4, 4, 2, np.uint8), "no transparency for BMP"),
        (
            "a.jpg",
            (4, 4, 3, np.uint16),
            "at most 8 bits a sample for JPEG, got 16 bits a sample; write .png or .tif, or",
        ),
        ("a.webp", (4, 4, 3, np.float32), "got float samples; write .tif, or allow fewer bits"),
        ("a.png", (4, 4, 3, np.float32), "at most 16 bits a sample for PNG, got float"),
        ("a.avif", (4, 4, 3, np.uint16), "at most 12 bits a sample for AVIF, got 16"),
        ("a.png", (4, 4, 3, np.uint8, 3), "expected one image for PNG, got 3 frames; write .webp, .gif or .tif"),
        ("a.webp", (4, 16384, 3, np.uint8), "at most 16383 pixels a side for WEBP, got 16384×4; write .png or .tif"),
        ("a.jpg", (65501, 4, 3, np.uint8), "at most 65500 pixels a side for JPEG"),
        ("a.bmp", (40000, 40000, 3, np.uint8), "expected at most 4 GiB for BMP, got 40000×40000 pixels"),
        ("a.avif", (4, 16385, 3, np.uint8), "at most 16384 pixels a side for AVIF"),
    ],
)
def test_what_cannot_be_written_is_told_before(tmp_path, name, arguments, says):
    with pytest.raises(ImageError) as error:
        pictures.check_writable(tmp_path / name, *arguments)
    assert message(error).startswith(f"{tmp_path / name}: expected ")
    assert says in message(error)


def test_limits_are_those_of_the_encoders(tmp_path):
    for name, side in (("a.webp", 16383), ("a.jpg", 65500), ("a.gif", 65535), ("a.avif", 16384), ("a.png", 70000)):
        pictures.check_writable(tmp_path / name, 1, side, 3, np.uint8)
        pictures.write(tmp_path / name, pictures.Picture((np.zeros((1, side, 3), np.uint8),)))
        assert pictures.read(tmp_path / name).frames[0].shape[:2] == (1, side)


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "webp"])
def test_bits_are_only_lost_if_allowed(tmp_path, suffix):
    deep = pictures.Picture((smooth(3, np.uint16),))
    with pytest.raises(ImageError, match="allow fewer bits"):
        pictures.write(tmp_path / f"a.{suffix}", deep)
    assert list(tmp_path.iterdir()) == []
    notes = pictures.write(tmp_path / f"a.{suffix}", deep, reduce_depth=True)
    assert notes[0] == "16 bits a sample reduced to 8 bits"
    assert distance(pictures.read(tmp_path / f"a.{suffix}").frames[0], smooth(3)) < 0.05


def test_fewer_bits_are_rounded(tmp_path):
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    pictures.write(tmp_path / "a.bmp", pictures.Picture((every,)), reduce_depth=True)
    np.testing.assert_array_equal(read_otherwise(tmp_path / "a.bmp")[0], np.rint(every / 257))
    unit = np.linspace(-0.1, 1.1, 999, dtype=np.float32).reshape(1, 999, 1)
    pictures.write(tmp_path / "a.png", pictures.Picture((unit,)), reduce_depth=True)
    expected = np.rint(unit.clip(0, 1).astype(float) * 65535)
    np.testing.assert_array_equal(read_otherwise(tmp_path / "a.png")[0], expected)


def test_only_pictures_are_written():
    for frames in ((), (noise(3), noise(1)), (noise(5),), (noise(3)[:0],), (noise(3)[..., 0],)):
        with pytest.raises(ValueError, match="frames of one shape"):
            pictures.Picture(frames)
    with pytest.raises(ValueError, match="uint8, uint16 or float32, got float64"):
        pictures.Picture((RNG.random((4, 4, 3)),))


def test_existing_files_are_kept_unless_told(tmp_path):
    path = tmp_path / "a.png"
    first, second = pictures.Picture((noise(3),)), pictures.Picture((noise(3),))
    pictures.write(path, first)
    with pytest.raises(ImageError, match="got a file; choose another name, or allow overwriting"):
        pictures.write(path, second)
    np.testing.assert_array_equal(read_otherwise(path)[0], first.frames[0])
    pictures.write(path, second, overwrite=True)
    np.testing.assert_array_equal(read_otherwise(path)[0], second.frames[0])
    (tmp_path / "b.png").mkdir()
    with pytest.raises(ImageError, match="got a folder"):
        pictures.write(tmp_path / "b.png", first, overwrite=True)


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_comes_while_writing_is_kept(tmp_path, monkeypatch, has_links):
    path, write = tmp_path / "a.png", writing._write_with_vips

    def slow(*arguments):
        write(*arguments)
        path.write_bytes(b"another's")

    monkeypatch.setattr(writing, "_write_with_vips", slow)
    if not has_links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
    with pytest.raises(ImageError, match="got a file"):
        pictures.write(path, pictures.Picture((noise(3),)))
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"another's"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_picture_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, overwrite):
    path, synced = tmp_path / "a.png", []

    def sync(number):
        assert not path.exists()
        synced.append(os.fstat(number).st_size)

    monkeypatch.setattr(os, "fsync", sync)
    pictures.write(path, pictures.Picture((noise(3),)), overwrite=overwrite)
    assert synced == [path.stat().st_size]


def test_writing_without_hard_links(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
    pictures.write(tmp_path / "a.png", pictures.Picture((noise(3),)))
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "gif", "avif"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(3)])
def test_failed_write_leaves_what_was_there(tmp_path, monkeypatch, suffix, failure):
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
        pictures.write(path, pictures.Picture((noise(3, height=200, width=300),)), overwrite=True)
    monkeypatch.setattr(Path, "open", opened)
    if isinstance(failure, OSError):
        assert "No space left on device; check the folder" in message(error)
    assert len(set(seen)) == 2
    hidden = next(file for file in seen if file != path)
    assert hidden.name.startswith(".")
    assert hidden.suffix not in pictures.SUFFIXES
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(ImageError, match="No such file or directory; check the folder"):
        pictures.write(tmp_path / "none/a.png", pictures.Picture((noise(3),)))


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_memory_of_writing(tmp_path, suffix):
    code = (
        "import resource, sys, numpy as np; from esrgan import pictures;"
        "frame = np.random.default_rng(0).integers(0, 256, (6000, 6000, 3), np.uint8);"
        "small = pictures.Picture((np.ascontiguousarray(frame[:64, :64]),));"
        f"pictures.write({str(tmp_path / f'small.{suffix}')!r}, small);"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        f"pictures.write({str(tmp_path / f'a.{suffix}')!r}, pictures.Picture((frame,)));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    grown = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert grown < 60 * 1024  # KiB, of an array of 103 MiB


def test_import_is_light():
    code = "import sys, esrgan.pictures; assert not {'pyvips', 'pillow_heif', 'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_documentation_names_every_suffix():
    named = set(re.findall(r"`(\.\w+)`", DOCS.read_text("utf-8")))
    assert named >= pictures.SUFFIXES
