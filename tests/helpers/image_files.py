"""Image files of many kinds, written and read back by other libraries than the one under test."""

import dataclasses
import io
import struct
import zlib

import imagecodecs
import numpy as np
import pillow_heif
import pyvips
import tifffile
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from esrgan import images

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 9, 14
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_PROFILE = PROFILE[:16] + b"GRAY" + PROFILE[20:]  # enough for code that only reads the header
CMYK_PROFILE = bytes(pyvips.Operation.call("profile_load", "cmyk"))
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
UPRIGHT_XMP = XMP.replace(b'"6"', b'"1"')
MAKER_NOTE = b"Unknown\0" + bytes(range(64))


def make_exif(orientation=1, width=WIDTH, height=HEIGHT):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110] = orientation, "Maker", "Model"
    exif.get_ifd(0x8769).update({0x829A: 0.008, 0x927C: MAKER_NOTE, 0xA002: width, 0xA003: height, 0xA434: "Lens"})
    exif.get_ifd(0x8825).update({1: "N", 2: (51.0, 30.0, 0.0)})
    return exif.tobytes()


EXIF = make_exif()


def noise(channels, dtype=np.uint8, height=HEIGHT, width=WIDTH):
    if dtype == np.float32:
        return RNG.random((height, width, channels), np.float32)
    return RNG.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)


def smooth(channels, dtype=np.uint8):
    """Return a gradient image, which lossy encoding hardly changes."""
    rows, columns = np.indices((HEIGHT, WIDTH))[..., None] / [[[[HEIGHT]]], [[[WIDTH]]]]
    unit = np.concatenate([rows, columns, 1 - rows, columns][:channels], axis=2)
    return np.rint(unit * np.iinfo(dtype).max).astype(dtype)


def enlarge(image, factor=4):
    frames = tuple(frame.repeat(factor, axis=0).repeat(factor, axis=1) for frame in image.frames)
    return dataclasses.replace(image, frames=frames)


def upscale(path):
    """Read a file, enlarge it four times, write it, and return the new path and all messages."""
    image = images.read_image(path)
    target = path.with_name(f"b{path.suffix}")
    notes = images.write_image(target, enlarge(image), overwrite=True)
    return target, (*image.notes, *notes)


def message(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def png_with(data, *chunks):
    added = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return data[:33] + added + data[33:]


def pillow_file(pixels, suffix, **options):
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


def imagecodecs_png(pixels):
    def make(path):
        profile = b"ICC\0\0" + zlib.compress(PROFILE if pixels.shape[2] > 2 else GREY_PROFILE)
        xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
        resolution = struct.pack(">IIB", 11811, 11811, 1)
        chunks = [(b"iCCP", profile), (b"eXIf", EXIF[6:]), (b"iTXt", xmp), (b"pHYs", resolution)]
        path.write_bytes(png_with(imagecodecs.png_encode(pixels), *chunks))
        return [pixels]

    return "png", make


def tifffile_file(pixels, photometric, expected=None, pages=1, **options):
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


def palette_file(suffix, colours, transparency=None, **options):
    """Make a palette image that is grey if all colours are, with an optional transparent colour."""
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


def one_bit_file(suffix):
    pixels = RNG.random((HEIGHT, WIDTH)) > 0.5

    def make(path):
        Image.fromarray(pixels).save(path)
        return [np.where(pixels, 255, 0).astype(np.uint8)[..., None]]

    return suffix, make


def animation_file(suffix, **options):
    frames = [Image.fromarray(RNG.integers(0, 4, (HEIGHT, WIDTH, 3), np.uint8) * 85) for _ in range(3)]

    def make(path):
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=[30, 50, 70], loop=2, **options)
        return [np.array(frame) for frame in frames]

    return suffix, make


def phone_jpeg_file():
    pixels = smooth(3)

    def make(path):
        options = {"append_images": [Image.new("RGB", (4, 4))], "quality": 95, "subsampling": "4:4:4"}
        Image.fromarray(pixels).save(path, "MPO", save_all=True, icc_profile=PROFILE, exif=EXIF, **options)
        return [pixels]

    return "jpg", make


def cmyk_file(suffix, profile=None, **options):
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


def deep_heic_file(bits=10):
    pixels = smooth(3, np.uint16)

    def make(path):
        image = pillow_heif.from_bytes("RGB;16", (WIDTH, HEIGHT), pixels.tobytes())
        image.save(path, quality=-1, chroma=444, exif=EXIF, xmp=UPRIGHT_XMP, icc_profile=PROFILE)
        return [pixels]

    return "heic", make


def deep_avif_file():
    pixels = smooth(3, np.uint16)

    def make(path):
        path.write_bytes(imagecodecs.avif_encode(pixels >> 6, level=100, bitspersample=10))
        return [pixels]

    return "avif", make


LOSSLESS_WEBP = {"lossless": True, "exact": True}
FINE_JPEG = {"quality": 95, "subsampling": "4:4:4"}
GREYS, COLOURS = [(0, 0, 0), (99, 99, 99), (255, 255, 255)], [(0, 0, 0), (255, 128, 0), (9, 200, 90)]
KINDS = {
    "PNG grey": pillow_file(noise(1), "png"),
    "PNG grey with alpha": pillow_file(noise(2), "png"),
    "PNG RGB": pillow_file(noise(3), "png"),
    "PNG RGB with alpha": pillow_file(noise(4), "png"),
    "PNG 16-bit grey": imagecodecs_png(noise(1, np.uint16)),
    "PNG 16-bit grey with alpha": imagecodecs_png(noise(2, np.uint16)),
    "PNG 16-bit RGB": imagecodecs_png(noise(3, np.uint16)),
    "PNG 16-bit RGB with alpha": imagecodecs_png(noise(4, np.uint16)),
    "PNG 1-bit": one_bit_file("png"),
    "PNG palette": palette_file("png", COLOURS),
    "PNG palette of greys": palette_file("png", GREYS),
    "PNG palette with transparency": palette_file("png", COLOURS, 1),
    "JPEG grey": pillow_file(smooth(1), "jpg", **FINE_JPEG),
    "JPEG RGB": pillow_file(smooth(3), "jpg", **FINE_JPEG),
    "JPEG of a phone (MPO)": phone_jpeg_file(),
    "JPEG CMYK": cmyk_file("jpg"),
    "JPEG CMYK with profile": cmyk_file("jpg", CMYK_PROFILE),
    "WebP lossless RGB": pillow_file(noise(3), "webp", **LOSSLESS_WEBP),
    "WebP lossless RGB with alpha": pillow_file(noise(4), "webp", **LOSSLESS_WEBP),
    "WebP lossless grey": pillow_file(np.repeat(noise(1), 3, 2), "webp", **LOSSLESS_WEBP),
    "WebP lossy RGB": pillow_file(smooth(3), "webp", quality=95),
    "WebP animation": animation_file("webp", lossless=True),
    "GIF": palette_file("gif", COLOURS),
    "GIF with transparency": palette_file("gif", COLOURS, 1),
    "GIF animation": animation_file("gif"),
    "TIFF grey": tifffile_file(noise(1), "minisblack"),
    "TIFF grey, white is 0": tifffile_file(PALE := noise(1), "miniswhite", 255 - PALE),
    "TIFF RGB, LZW": tifffile_file(noise(3), "rgb", compression="lzw"),
    "TIFF RGB with alpha": tifffile_file(noise(4), "rgb", extrasamples=["unassalpha"]),
    "TIFF 16-bit grey with alpha": tifffile_file(
        noise(2, np.uint16), "minisblack", extrasamples=["unassalpha"], planarconfig="contig"
    ),
    "TIFF 16-bit RGB, deflate": tifffile_file(noise(3, np.uint16), "rgb", compression="zlib", predictor=True),
    "TIFF float grey": tifffile_file(noise(1, np.float32), "minisblack"),
    "TIFF float RGB": tifffile_file(noise(3, np.float32), "rgb"),
    "TIFF float RGB with alpha": tifffile_file(noise(4, np.float32), "rgb", extrasamples=["unassalpha"]),
    "TIFF 16-bit RGB, pages": tifffile_file(noise(3, np.uint16), "rgb", pages=3),
    "TIFF 1-bit": one_bit_file("tif"),
    "TIFF CMYK": cmyk_file("tif"),
    "TIFF CMYK with profile": cmyk_file("tif", CMYK_PROFILE),
    "BMP grey": pillow_file(noise(1), "bmp"),
    "BMP RGB": pillow_file(noise(3), "bmp"),
    "BMP palette": palette_file("bmp", COLOURS),
    "TGA grey": pillow_file(noise(1), "tga"),
    "TGA RGB": pillow_file(noise(3), "tga"),
    "TGA RGB with alpha": pillow_file(noise(4), "tga"),
    "DDS RGB": pillow_file(noise(3), "dds"),
    "DDS RGB with alpha": pillow_file(noise(4), "dds"),
    "PPM grey": pillow_file(noise(1), "pgm"),
    "PPM RGB": pillow_file(noise(3), "ppm"),
    "AVIF RGB": pillow_file(smooth(3), "avif", quality=95, subsampling="4:4:4"),
    "AVIF RGB with alpha": pillow_file(smooth(4), "avif", quality=95, subsampling="4:4:4"),
    "AVIF 10-bit RGB": deep_avif_file(),
    "HEIC 10-bit RGB": deep_heic_file(),
}
# The tolerances are steps of 255: the errors of encoders on smooth images, and of the profile on inks.
TOLERANCES = {"JPEG": 9, "AVIF": 9, "HEIC": 6, "WebP lossy": 30, "CMYK": 9}


def make_file(folder, kind):
    """Write a file of a kind; return its path and the frames that it should be read as."""
    suffix, make = KINDS[kind]
    path = folder / f"a.{suffix}"
    expected = make(path)
    if np.all([np.ptp(frame[..., :3], axis=2).max() == 0 for frame in expected]) and expected[0].shape[2] > 2:
        expected = [np.delete(frame, (1, 2), axis=2) for frame in expected]
    return path, expected


def find_tolerance(kind):
    return max((most for name, most in TOLERANCES.items() if name in kind), default=0) / 255


def max_difference(frame, other):
    peak = {1: 255, 2: 65535, 4: 1}[frame.itemsize]
    return float(np.abs(frame.astype(float) - other).max() / peak)


def hide_transparent_colour(frame, kind):
    """Clear the colour of transparent pixels, which GIF does not keep."""
    return frame * (frame[..., 3:] > 0) if kind == "GIF with transparency" else frame


def double_size(image_data):
    frames = tuple(frame.repeat(2, 0).repeat(2, 1) for frame in image_data.frames)
    return dataclasses.replace(image_data, frames=frames)


def read_independently(path):
    """Read the frames (H, W, C) of a file with Pillow or, where Pillow is not enough, with another library."""
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


def read_metadata_independently(path):
    """Read metadata with Pillow, tifffile or pillow-heif."""
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


def to_pillow(pixels):
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def check_round_trip(folder, name, expected):
    """Check that a file is read as expected, and that a second program reads the same from what is written."""
    image = images.read_image(folder / name)
    np.testing.assert_array_equal(image.frames[0], expected)
    target = folder / f"b.{name.split('.')[1]}"
    notes = (*image.notes, *images.write_image(target, double_size(image), overwrite=True))
    with Image.open(target) as written:
        large = expected.repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(np.array(written).reshape(large.shape), large)
    return target.read_bytes(), notes
