"""Read and write TIFF files (TIFF 6.0)."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from esrgan.images import samples, vips
from esrgan.images import tiff_directories as tags
from esrgan.images.image import ImageData
from esrgan.images.source import Source, UnsupportedImageError

_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # colours of a pixel by PhotometricInterpretation (TIFF 6.0, §8)
_TIFF_COMPRESSIONS = {1: "none", 5: "lzw", 32773: "packbits"}  # TIFF 6.0, §8 Compression; all others become deflate
# Beyond this many bytes of pixels a TIFF file becomes a BigTIFF. The margin is for directories and for data that grows
# a little when it is compressed.
_MAX_TIFF_BYTES = 0.98 * 2**32


def read(source: Source) -> ImageData:
    """Read a TIFF file."""
    changes: list[str] = []
    notes: list[str] = []
    if source.is_strict:
        _check_strictly(source.file)
    known, count = _read_tiff_metadata(source.file, changes, notes)
    decoded = vips.decode(source, "tiff", n=count)
    if count != len(decoded.frames):
        raise ValueError(f"only {len(decoded.frames)} of {count} images can be read")
    frames = decoded.frames
    if "palette" in decoded.fields:
        frames = samples.drop_colour_if_grey(frames)
    if frames[0].dtype == np.float32:
        lowest, highest = min(float(frame.min()) for frame in frames), max(float(frame.max()) for frame in frames)
        if not np.isfinite(highest - lowest):
            got = f"samples from {lowest:g} to {highest:g}"
            raise UnsupportedImageError("finite samples", got, "replace NaN and infinite samples")
        if lowest < 0 or highest > 1:
            notes.append(f"float samples range from {lowest:g} to {highest:g}; values outside 0 to 1 may be clipped")
    return ImageData(
        tuple(samples.turn_upright(frames, decoded.fields.get("orientation", 1))),
        "TIFF",
        changes=(*changes, *decoded.changes),
        notes=(*notes, *decoded.notes),
        **(decoded.metadata | known),
    )


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a TIFF file, as a BigTIFF if it is large."""
    size = sum(frame.nbytes for frame in image.frames)
    options: dict[str, Any] = {"compression": image.compression, "bigtiff": size > _MAX_TIFF_BYTES, "resunit": "inch"}
    if image.compression in ("lzw", "deflate"):
        options["predictor"] = "float" if image.frames[0].dtype == np.float32 else "horizontal"
    vips.encode(file, image, "TIFF", "tiff", keep=vips.KEEP_XMP | vips.KEEP_IPTC | vips.KEEP_ICC, **options)
    tags.write_metadata(file, image.exif, image.dpi)


def _read_tiff_metadata(file: BinaryIO, changes: list[str], notes: list[str]) -> tuple[dict[str, Any], int]:
    directories = list(tags.read_directories(file))
    if not directories:
        raise UnsupportedImageError("a TIFF image", "a damaged file", "replace it")
    is_reduced = [bool(int((tags.get_numbers(page, tags.SUBFILE_TYPE) or [0])[0]) & 1) for page in directories]
    if is_reduced[0] or tags.DNG_VERSION in directories[0]:
        raise UnsupportedImageError("an image", "a camera raw file", "develop it to a .tif or .png")
    depth, sample_format, meaning = (
        int((tags.get_numbers(directories[0], tag) or [default])[0])
        for tag, default in (
            (tags.BITS_PER_SAMPLE, 1),
            (tags.SAMPLE_FORMAT, 1),
            (tags.PHOTOMETRIC, 1),
        )
    )
    if depth not in ((16, 32) if sample_format == 3 else (1, 2, 4, 8, 16)):
        expected = "integers of 1, 2, 4, 8 or 16 bits, or floats of 16 or 32 bits"
        got = f"{'floats' if sample_format == 3 else 'integers'} of {depth} bits"
        raise UnsupportedImageError(expected, got, "convert it to 16 bits or float")
    if meaning in (8, 9, 10):
        raise UnsupportedImageError("grey, RGB or CMYK", "Lab", "convert it to RGB")
    count = is_reduced.index(True) if True in is_reduced else len(directories)
    kinds = {str([tags.get_numbers(page, tag) for tag in tags.LAYOUT_TAGS]) for page in directories[:count]}
    if len(kinds) > 1 or not all(is_reduced[count:]):
        raise UnsupportedImageError("pages of one size and kind", "pages that differ", "save each page as a file")
    if count < len(directories):
        notes.append("reduced-size copies in the file not kept")
    if tags.get_numbers(directories[0], tags.EXTRA_SAMPLES) == [0]:
        changes.append("channel of unspecified meaning treated as alpha")
    tags.check_complete(file, directories[:count])
    compression = int((tags.get_numbers(directories[0], tags.COMPRESSION) or [1])[0])
    known = {
        "dpi": tags.read_dpi(directories[0]),
        "exif": tags.read_exif(file),
        "compression": _TIFF_COMPRESSIONS.get(compression, "deflate"),
    }
    return known, count


def _check_strictly(file: BinaryIO) -> None:
    """Refuse a TIFF image that Pillow would change, by what it is: deep or signed samples, extra bands, pages."""
    pages = list(tags.read_directories(file))
    if not pages:
        raise UnsupportedImageError("a TIFF image of 8 bits", "a damaged file", "replace it")
    bits, sample_format, colours, samples, subfile = (
        int(max(tags.get_numbers(pages[0], tag) or [default]))
        for tag, default in (
            (tags.BITS_PER_SAMPLE, 1),
            (tags.SAMPLE_FORMAT, 1),
            (tags.PHOTOMETRIC, 1),
            (tags.SAMPLES_PER_PIXEL, 1),
            (tags.SUBFILE_TYPE, 0),
        )
    )
    if subfile & 1 or tags.DNG_VERSION in pages[0]:
        raise UnsupportedImageError("an image", "a camera raw file", "develop it to a .tif or .png of 8 bits")
    if bits > 8:
        kind = "floating-point samples" if sample_format == 3 else "samples"
        raise UnsupportedImageError(
            "a TIFF image of 8 bits", f"{kind} of more than 8 bits ({bits})", "convert it to 8 bits"
        )
    if sample_format != 1:
        raise UnsupportedImageError(
            "a TIFF image of 8 bits", "signed samples", "convert it to unsigned samples of 8 bits"
        )
    extra = tags.get_numbers(pages[0], tags.EXTRA_SAMPLES)
    if samples > _COLOURS.get(colours, samples) and extra not in ([1], [2]):  # associated or unassociated alpha
        got = f"{samples} bands, {samples - _COLOURS[colours]} of them neither colour nor alpha"
        raise UnsupportedImageError(
            "grey or RGB, with or without alpha", got, "write the bands to train on as grey or RGB"
        )
