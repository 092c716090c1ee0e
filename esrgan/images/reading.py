"""Read image files of any supported format, with their metadata."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from esrgan.errors import ImageError, Problem
from esrgan.images import metadata, native_libraries, tiff
from esrgan.images.image import ImageData
from esrgan.text import describe_error

MAX_PIXELS = 2**29
"""Largest number of pixels in a file, all frames together (23,000 × 23,000): a guard against decompression bombs."""

# No other loaders of libvips are used, because some of them run interpreters or fetch files.
_LOADERS = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp", "GIF": "gif", "TIFF": "tiff", "AVIF": "heif"}
_READABLE = "a PNG, JPEG, WebP, GIF, TIFF, BMP, AVIF or HEIC image"
_GREY_AND_RGB = ("b-w", "grey16", "srgb", "rgb16", "scrgb")  # interpretations in libvips
# The fields of an image in libvips, by their names in ImageData.
_METADATA_FIELDS = {"icc_profile": "icc-profile-data", "exif": "exif-data", "xmp": "xmp-data", "iptc": "iptc-data"}
_VIPS_FIELDS = ("orientation", "palette", "bits-per-sample", "page-height", "delay", "loop", *_METADATA_FIELDS.values())
_DTYPES = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}
_TIFF_COMPRESSIONS = {1: "none", 5: "lzw", 32773: "packbits"}  # TIFF 6.0, §8 Compression; all others become deflate

# Exif 2.32, §4.6.4: the transform that makes an image with this Orientation upright.
_ORIENTATION_TRANSFORMS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda frame: frame[:, ::-1],
    3: lambda frame: frame[::-1, ::-1],
    4: lambda frame: frame[::-1],
    5: lambda frame: frame.swapaxes(0, 1),
    6: lambda frame: frame[::-1].swapaxes(0, 1),
    7: lambda frame: frame[::-1, ::-1].swapaxes(0, 1),
    8: lambda frame: frame[:, ::-1].swapaxes(0, 1),
}


class _UnsupportedImageError(Exception):
    """An image cannot be read. The arguments are those of ``Problem`` after the place: expected, got and remedy."""


def read_image(path: str | Path, max_pixels: int | None = None) -> ImageData:
    """Read an image of any kind that can be upscaled; the format is detected from its content.

    The image is turned upright. CMYK becomes RGB, and 1-bit and palette images become 8-bit grey or RGB. WebP, GIF,
    AVIF and palette images are returned as grey if all their colours are grey.

    Args:
        path: Path of a PNG, JPEG, WebP, GIF, TIFF, BMP or AVIF file, or of a HEIC file if ``pillow-heif`` is installed.
        max_pixels: Largest accepted number of pixels, all frames together, which is checked before decoding; None
            means ``MAX_PIXELS``.

    Returns:
        The frames and metadata of the file, with notes for the user about what could not be kept.

    Raises:
        ImageError: The file is missing, damaged, truncated, not of a supported kind (see
            ``docs/reference/image_formats.md``), or has too many pixels.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
            file_format = metadata.detect_format(head.ljust(32, b"\0"))
            if file_format is None:
                raise _UnsupportedImageError(
                    _READABLE, metadata.guess_file_kind(head), "replace it or convert it to one of these formats"
                )
            if file_format == "BMP":
                return _read_bmp(file, max_pixels)
            if file_format in ("AVIF", "HEIC") and metadata.is_image_sequence(head):
                raise _UnsupportedImageError(
                    "one image", "an image sequence", "extract one of its frames, or save it as .webp"
                )
            if file_format == "HEIC":
                return _read_heic(file, max_pixels)
            return _read_with_vips(path, file, file_format, max_pixels)
    except _UnsupportedImageError as error:
        raise ImageError(Problem(str(path), *error.args)) from error
    except OSError as error:
        raise ImageError(
            Problem(str(path), _READABLE, describe_error(error), "check the path and the permissions")
        ) from error
    except Exception as error:  # libraries raise all kinds of exceptions for damaged files
        got = f"a damaged or unsupported file ({native_libraries.describe_vips_error(error)})"
        raise ImageError(Problem(str(path), _READABLE, got, "replace it or re-export it")) from error


def _check_pixel_count(pixels: int, max_pixels: int | None) -> None:
    if max_pixels is not None and pixels > max_pixels:
        expected, got = (f"{number / 1e6:.3g} megapixels" for number in (max_pixels, pixels))
        raise _UnsupportedImageError(f"at most {expected}", got, "make it smaller, or cut it into parts")
    if pixels > MAX_PIXELS:
        expected = f"at most {MAX_PIXELS} pixels (a guard against decompression bombs)"
        remedy = "cut it into parts and upscale these"
        raise _UnsupportedImageError(expected, f"{pixels}", remedy)


def _read_with_vips(path: Path, file: BinaryIO, file_format: str, max_pixels: int | None) -> ImageData:
    known, count, notes = _read_metadata(file, file_format)
    image = _open_with_vips(path, file_format, count)
    _check_pixel_count(image.width * image.height, max_pixels)
    if file_format == "AVIF" and (images := image.get("n-pages")) > 1:
        raise _UnsupportedImageError("one image", f"{images} images", "extract one of them")
    if image.interpretation == "cmyk" and image.bands == 4:
        image = _convert_cmyk_to_rgb(image)
        notes.append("CMYK converted to RGB")
    if image.interpretation not in _GREY_AND_RGB or not 1 <= image.bands <= 4:
        got = f"{image.bands} channels ({image.interpretation})"
        raise _UnsupportedImageError("grey, RGB or CMYK", got, "convert it to RGB")
    if image.format not in _DTYPES:
        raise _UnsupportedImageError(
            "samples of 8 or 16 bits or float", f"samples of type {image.format}", "convert it to 16 bits or float"
        )
    # Only the fields that are needed are read, because texts in others may not be valid UTF-8.
    fields = {name: image.get(name) for name in _VIPS_FIELDS if image.get_typeof(name)}
    pixels: NDArray[Any] = np.frombuffer(image.write_to_memory(), _DTYPES[image.format])
    frames = list(pixels.reshape(-1, fields.get("page-height", image.height), image.width, image.bands))
    if count not in (None, len(frames)):
        raise ValueError(f"only {len(frames)} of {count} images can be read")
    if len(frames) > 1 and file_format in ("WEBP", "GIF"):
        known |= {"delays_ms": tuple(fields.get("delay", ())), "loop": fields.get("loop", 0)}
    known |= {name: fields[field] for name, field in _METADATA_FIELDS.items() if fields.get(field)}
    if image.bands < 3 and known.get("icc_profile", bytes(20))[16:20] == b"RGB ":
        del known["icc_profile"]
        notes.append("RGB colour profile of a grey image not kept")
    if known.get("exif"):
        known["exif"] = metadata.strip_exif_prefix(known["exif"])
    return ImageData(
        _postprocess(frames, file_format, fields, notes),
        file_format,
        bits=fields["bits-per-sample"] if file_format == "AVIF" and image.format == "ushort" else 0,
        notes=tuple(notes),
        **known,
    )


def _postprocess(
    frames: list[NDArray[Any]], file_format: str, fields: dict[str, Any], notes: list[str]
) -> tuple[NDArray[Any], ...]:
    """Return decoded frames upright and in the form that ``ImageData`` documents."""
    if file_format == "AVIF" and frames[0].dtype == np.uint16:
        frames = [_expand_to_full_range(frame, fields["bits-per-sample"]) for frame in frames]
    if file_format == "GIF" or (file_format == "WEBP" and len(frames) > 1):
        frames = _drop_alpha_if_opaque(frames)
    if file_format in ("WEBP", "GIF", "AVIF") or "palette" in fields:
        # Conversion to YCbCr and back changes grey by at most one step of 10 bits.
        frames = drop_colour_if_grey(frames, {1: 1, 2: 64}[frames[0].itemsize] if file_format == "AVIF" else 0)
    if frames[0].dtype == np.float32:
        lowest, highest = min(float(frame.min()) for frame in frames), max(float(frame.max()) for frame in frames)
        if not np.isfinite(highest - lowest):
            got = f"samples from {lowest:g} to {highest:g}"
            raise _UnsupportedImageError("finite samples", got, "replace NaN and infinite samples")
        if lowest < 0 or highest > 1:
            notes.append(f"float samples range from {lowest:g} to {highest:g}; values outside 0 to 1 may be clipped")
    transform = _ORIENTATION_TRANSFORMS.get(fields.get("orientation", 1))
    return tuple(np.ascontiguousarray(transform(frame)) for frame in frames) if transform else tuple(frames)


def _open_with_vips(path: Path, file_format: str, count: int | None) -> Any:
    """Open an image lazily, as a source because libvips would look up a file name in its cache."""
    pyvips = native_libraries.load_vips()
    loader = getattr(pyvips.Image, f"{_LOADERS[file_format]}load_source")
    # The path is passed as bytes because file names are not always valid UTF-8.
    source = pyvips.Source.new_from_file(str(path).encode("utf-8", "surrogateescape"))
    number = count if file_format == "TIFF" else -1 if file_format in ("WEBP", "GIF") else None
    options = {} if number is None else {"n": number}
    # fail_on="truncated" would accept truncated TIFF files, and "warning" would refuse intact ones that contain a text
    # without its terminator.
    return loader(source, access="sequential", fail_on="error", **options)


def _convert_cmyk_to_rgb(image: Any) -> Any:
    """Convert a CMYK image to sRGB and attach the sRGB profile.

    If the image has no CMYK profile, the one that comes with libvips is used.
    """
    profile = image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else b""
    depth = 16 if image.format == "ushort" else 8
    source = {"embedded": True} if profile[16:20] == b"CMYK" else {"input_profile": "cmyk"}
    return image.icc_transform("srgb", depth=depth, intent="relative", black_point_compensation=True, **source)


def _drop_alpha_if_opaque(frames: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Drop alpha from the frames if no pixel is transparent.

    Animations without transparency have alpha too, because it marks the pixels that have not changed.
    """
    if frames[0].shape[2] != 4 or any(frame[..., 3].min() < 255 for frame in frames):
        return frames
    return [np.ascontiguousarray(frame[..., :3]) for frame in frames]


def drop_colour_if_grey(frames: list[NDArray[Any]], tolerance: int = 0) -> list[NDArray[Any]]:
    """Reduce frames to grey (H, W, 1), or grey with alpha (H, W, 2), if none of them has colour.

    Args:
        frames: Frames (H, W, C) with at least 3 channels; frames with fewer are returned unchanged.
        tolerance: Largest difference between the channels of a pixel that counts as grey.
    """
    if frames[0].shape[2] < 3 or any(np.ptp(frame[..., :3], axis=2).max() > tolerance for frame in frames):
        return frames
    return [np.ascontiguousarray(frame[..., [1, *range(3, frame.shape[2])]]) for frame in frames]


def _expand_to_full_range(frame: NDArray[np.uint16], bits: int) -> NDArray[np.uint16]:
    """Scale 10- or 12-bit samples, which the decoder has shifted up, so that white is 65535."""
    lower = frame >> (16 - bits)
    return (lower << (16 - bits) | lower >> (2 * bits - 16)).astype(np.uint16)


def _read_metadata(file: BinaryIO, file_format: str) -> tuple[dict[str, Any], int | None, list[str]]:
    """Read the metadata that libvips does not provide.

    Returns:
        Fields of ``ImageData``, the number of frames in a GIF or TIFF file (else None), and notes for the user.
    """
    known: dict[str, Any] = {}
    notes: list[str] = []
    count = None
    if file_format == "PNG":
        chunks = list(metadata.read_png_chunks(file))
        if any(name == b"acTL" for name, _ in chunks):
            raise _UnsupportedImageError("one image", "an animated PNG", "save it as an animated .webp or .gif")
        known["png_chunks"] = tuple(chunk for chunk in chunks if metadata.is_preserved_png_chunk(*chunk))
        known["dpi"] = next((metadata.parse_png_dpi(content) for name, content in chunks if name == b"pHYs"), None)
    elif file_format == "JPEG":
        known["lossless"] = False
        known["dpi"], is_multiple = metadata.read_jpeg_header(file)
        if is_multiple:
            notes.append("extra images after the photograph not kept (a phone's preview, depth map or gain map)")
    elif file_format == "WEBP":
        known["lossless"] = metadata.is_webp_lossless(file)
    elif file_format == "GIF":
        file.seek(0)
        count = metadata.count_gif_frames(file.read())
    elif file_format == "TIFF":
        known, count = _read_tiff_metadata(file, notes)
    else:
        known["lossless"] = False
        notes += _describe_lost_colour_tag(file)
    return known, count, notes


def _read_tiff_metadata(file: BinaryIO, notes: list[str]) -> tuple[dict[str, Any], int]:
    directories = list(tiff.read_directories(file))
    if not directories:
        raise _UnsupportedImageError("a TIFF image", "a damaged file", "replace it")
    is_reduced = [bool(int((tiff.get_numbers(page, tiff.SUBFILE_TYPE) or [0])[0]) & 1) for page in directories]
    if is_reduced[0] or tiff.DNG_VERSION in directories[0]:
        raise _UnsupportedImageError("an image", "a camera raw file", "develop it to a .tif or .png")
    depth, sample_format, meaning = (
        int((tiff.get_numbers(directories[0], tag) or [default])[0])
        for tag, default in ((tiff.BITS_PER_SAMPLE, 1), (tiff.SAMPLE_FORMAT, 1), (tiff.PHOTOMETRIC, 1))
    )
    if depth not in ((16, 32) if sample_format == 3 else (1, 2, 4, 8, 16)):
        expected = "integers of 1, 2, 4, 8 or 16 bits, or floats of 16 or 32 bits"
        got = f"{'floats' if sample_format == 3 else 'integers'} of {depth} bits"
        raise _UnsupportedImageError(expected, got, "convert it to 16 bits or float")
    if meaning in (8, 9, 10):
        raise _UnsupportedImageError("grey, RGB or CMYK", "Lab", "convert it to RGB")
    count = is_reduced.index(True) if True in is_reduced else len(directories)
    kinds = {str([tiff.get_numbers(page, tag) for tag in tiff.LAYOUT_TAGS]) for page in directories[:count]}
    if len(kinds) > 1 or not all(is_reduced[count:]):
        raise _UnsupportedImageError("pages of one size and kind", "pages that differ", "save each page as a file")
    if count < len(directories):
        notes.append("reduced-size copies in the file not kept")
    if tiff.get_numbers(directories[0], tiff.EXTRA_SAMPLES) == [0]:
        notes.append("channel of unspecified meaning treated as alpha")
    tiff.check_complete(file, directories[:count])
    compression = int((tiff.get_numbers(directories[0], tiff.COMPRESSION) or [1])[0])
    known = {
        "dpi": tiff.read_dpi(directories[0]),
        "exif": tiff.read_exif(file),
        "compression": _TIFF_COMPRESSIONS.get(compression, "deflate"),
    }
    return known, count


def _describe_lost_colour_tag(file: BinaryIO) -> list[str]:
    """Return a note if the file has a colour tag, which is not kept, that differs from sRGB."""
    primaries, transfer = metadata.read_heif_colour_tag(file) or (1, 13)
    is_usual = primaries in (1, 2) and transfer in (1, 2, 6, 13)  # ITU-T H.273: BT.709, unspecified, BT.601, sRGB
    return [] if is_usual else [f"colour tag (primaries {primaries}, transfer {transfer}) not kept"]


def _read_bmp(file: BinaryIO, max_pixels: int | None) -> ImageData:
    from PIL.BmpImagePlugin import BmpImageFile  # The pixel limit of Image.open would be too low here.

    file.seek(0)
    image = BmpImageFile(file)
    _check_pixel_count(image.width * image.height, max_pixels)
    mode = image.mode if image.mode in ("L", "RGB", "RGBA") else {"1": "L", "P": "RGB"}.get(image.mode)
    if mode is None:
        raise _UnsupportedImageError("grey or RGB", f"Pillow mode {image.mode}", "convert it to RGB")
    pixels = np.array(image.convert(mode)).reshape(image.height, image.width, -1)
    frames = drop_colour_if_grey([pixels]) if image.mode == "P" else [pixels]
    return ImageData(tuple(frames), "BMP", dpi=image.info.get("dpi"))


def _read_heic(file: BinaryIO, max_pixels: int | None) -> ImageData:
    heif = native_libraries.load_heif()
    if heif is None:
        raise _UnsupportedImageError("pillow-heif for HEIC", "none", "pip install pillow-heif, or convert it")
    file.seek(0)
    container = heif.open_heif(file, convert_hdr_to_8bit=False)
    if len(container) > 1:
        raise _UnsupportedImageError("one image", f"{len(container)} images", "extract one of them")
    image = container[0]
    width, height = image.size
    _check_pixel_count(width * height, max_pixels)
    pixels = np.ascontiguousarray(np.asarray(image)).reshape(height, width, -1)
    info = image.info
    bits = int(info["bit_depth"]) if pixels.dtype == np.uint16 else 0
    if bits:
        pixels = _expand_to_full_range(pixels, bits)
    (pixels,) = drop_colour_if_grey([pixels], 64 if bits else 1)
    return ImageData(
        (pixels,),
        "HEIC",
        bits=bits,
        lossless=False,
        icc_profile=info.get("icc_profile"),
        exif=metadata.strip_exif_prefix(info.get("exif") or b""),
        xmp=info.get("xmp"),
        notes=tuple(_describe_lost_colour_tag(file)),
    )
