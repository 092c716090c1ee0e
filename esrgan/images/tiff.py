"""Read and write TIFF files (TIFF 6.0)."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from esrgan.images import samples, tiff_metadata, vips
from esrgan.images import tiff_directories as tags
from esrgan.images.image import ImageData
from esrgan.images.source import Decoded, Source, UnsupportedImageError
from esrgan.images.tiff_directories import Directory

_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # colours of a pixel by PhotometricInterpretation (TIFF 6.0, §8)
_TIFF_COMPRESSIONS = {1: "none", 5: "lzw", 32773: "packbits"}  # TIFF 6.0, §8 Compression; all others become deflate
# Compressions that the libtiff of libvips may lack.
_OTHER_COMPRESSIONS = {34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "ZSTD", 50001: "WebP", 50002: "JPEG XL"}
# Beyond this many bytes of pixels a TIFF file becomes a BigTIFF. The margin is for directories and for data that grows
# a little when it is compressed.
_MAX_TIFF_BYTES = 0.98 * 2**32


def read(source: Source) -> ImageData:
    """Read a TIFF file."""
    notes: list[str] = []
    if source.is_strict:
        _check_strictly(source.file)
    pages, numbers = _find_pages(source.file, notes)
    if source.is_strict and len(pages) > 1:
        raise UnsupportedImageError("one image", f"several pages ({len(pages)})", "extract one of them")
    frames, decoded = _decode(source, pages, numbers)
    if "palette" in decoded.fields:
        frames = samples.drop_colour_if_grey(frames)
    orientation = int((tags.get_numbers(pages[0], tags.ORIENTATION) or [1])[0])
    blocks, left_out = tiff_metadata.read_blocks(pages, is_turned=orientation in range(2, 9))
    compression = int((tags.get_numbers(pages[0], tags.COMPRESSION) or [1])[0])
    is_caption = tiff_metadata.describe_structure(pages[0].get(tags.DESCRIPTION)) is None
    return ImageData(
        tuple(samples.turn_upright(frames, decoded.fields.get("orientation", 1))),
        "TIFF",
        extra_bands=_count_extra_bands(pages[0], frames[0].shape[2]),
        no_data=tiff_metadata.read_no_data(pages[0]),
        compression=_TIFF_COMPRESSIONS.get(compression, "deflate"),
        native_blocks=tuple(blocks),
        changes=tuple(decoded.changes),
        notes=(*notes, *decoded.notes, *left_out),
        **(
            decoded.metadata
            | {"dpi": tags.read_dpi(pages[0]), "exif": tags.read_exif(source.file, with_description=is_caption)}
        ),
    )


def _decode(source: Source, pages: list[Directory], numbers: list[int]) -> tuple[list[NDArray[Any]], Decoded]:
    """Decode the pages of the given numbers, all at once if they are alike."""
    is_alike = len({str([tags.get_numbers(page, tag) for tag in tags.SIZE_TAGS]) for page in pages}) == 1
    try:
        if is_alike and numbers == list(range(len(numbers))):
            decoded = vips.decode(source, "tiff", n=len(numbers))
            if len(numbers) != len(decoded.frames):
                raise ValueError(f"only {len(decoded.frames)} of {len(numbers)} images can be read")
            return decoded.frames, decoded
        each = [vips.decode(source, "tiff", n=1, page=number) for number in numbers]
        return [page.frames[0] for page in each], each[0]
    except UnsupportedImageError:
        raise
    except Exception as error:
        compression = int((tags.get_numbers(pages[0], tags.COMPRESSION) or [1])[0])
        if compression not in _OTHER_COMPRESSIONS:
            raise
        decoded = _decode_with_tifffile(source, pages, numbers, _OTHER_COMPRESSIONS[compression], error)
        return decoded.frames, decoded


def _decode_with_tifffile(
    source: Source, pages: list[Directory], numbers: list[int], compression: str, cause: Exception
) -> Decoded:
    """Decode grey or RGB pages whose compression libvips does not know; most need the package imagecodecs."""
    import tifffile

    remedy = "pip install imagecodecs, or convert it to deflate, for example by `gdal_translate -co COMPRESS=DEFLATE`"
    problem = UnsupportedImageError("a compression that can be read", f"{compression} compression", remedy)
    frames = []
    with tifffile.TiffFile(source.path) as file:
        for number in numbers:
            page = file.pages[number]
            source.check_pixel_count(sum(int(np.prod(file.pages[each].shape[:2])) for each in numbers))
            if not isinstance(page, tifffile.TiffPage) or page.photometric not in (1, 2):
                raise problem from cause
            try:
                pixels = page.asarray()
            except ValueError as error:  # it says which codec is missing
                raise problem from error
            pixels = np.moveaxis(pixels, 0, -1) if page.axes.startswith("S") else pixels
            frames.append(np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1)))
    if frames[0].dtype not in (np.uint8, np.uint16, np.float32):
        raise problem from cause
    fields = {"orientation": int((tags.get_numbers(pages[0], tags.ORIENTATION) or [1])[0])}
    blocks = {name: pages[0].get(tag) for name, tag in (("icc_profile", 34675), ("xmp", 700))}
    metadata = {name: block.content for name, block in blocks.items() if isinstance(block, tags.TagValue)}
    return Decoded(frames, fields, metadata, [], [])


def _count_extra_bands(page: Directory, channels: int) -> int:
    """Return how many of the channels are neither colour nor alpha, by what the tags say."""
    meaning = int((tags.get_numbers(page, tags.PHOTOMETRIC) or [1])[0])
    has_alpha = any(kind in (1, 2) for kind in tags.get_numbers(page, tags.EXTRA_SAMPLES)[:1])
    colours = 1 if meaning in (0, 1) else 3
    return max(channels - colours - has_alpha, 0)


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a TIFF file, as a BigTIFF if it is large."""
    if len({frame.shape for frame in image.frames}) > 1:
        _write_different_pages(file, image)
        return
    size = sum(frame.nbytes for frame in image.frames)
    options: dict[str, Any] = {"compression": image.compression, "bigtiff": size > _MAX_TIFF_BYTES, "resunit": "inch"}
    if image.compression in ("lzw", "deflate"):
        options["predictor"] = "float" if image.frames[0].dtype == np.float32 else "horizontal"
    vips.encode(file, image, "TIFF", "tiff", keep=vips.KEEP_XMP | vips.KEEP_IPTC | vips.KEEP_ICC, **options)
    tags.write_metadata(file, image.exif, image.dpi, tiff_metadata.adjust_blocks(image))


def _find_pages(file: BinaryIO, notes: list[str]) -> tuple[list[Directory], list[int]]:
    """Return the directories of the pages to read, and their numbers in the file."""
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
    subfile = [int((tags.get_numbers(page, tags.SUBFILE_TYPE) or [0])[0]) for page in directories]
    numbers = [number for number, kind in enumerate(subfile) if not kind & 5]
    pages = [directories[number] for number in numbers]
    if len({str([tags.get_numbers(page, tag) for tag in tags.LAYOUT_TAGS]) for page in pages}) > 1:
        raise UnsupportedImageError("pages of one kind", "pages that differ", "save each page as a file")
    if any(kind & 1 for kind in subfile):
        notes.append("reduced-size copies in the file not kept")
    if any(kind & 5 == 4 for kind in subfile):
        notes.append("transparency mask in the file not kept")
    if (images := tiff_metadata.count_imagej_images(directories[0])) > len(pages) == 1:
        got = f"an ImageJ stack of {images} images with one directory"
        raise UnsupportedImageError("a directory for each image", got, "save it in ImageJ as an image sequence")
    tags.check_complete(file, pages)
    return pages, numbers


def _write_different_pages(file: BinaryIO, image: ImageData) -> None:
    """Write pages that differ in size, which libvips cannot."""
    import tifffile

    compression = None if image.compression == "none" else "zlib"
    is_grey = image.base_channels < 3
    with tifffile.TiffWriter(file) as writer:
        for frame in image.frames:
            extra = [2] * image.has_alpha + [0] * image.extra_bands
            writer.write(
                frame[..., 0] if frame.shape[2] == 1 else frame,
                photometric="minisblack" if is_grey else "rgb",
                planarconfig=None if frame.shape[2] == 1 else "contig",
                extrasamples=extra or None,
                compression=compression,
                iccprofile=image.icc_profile,
                extratags=[(700, 1, len(image.xmp), image.xmp, True)] if image.xmp else (),
                metadata=None,
                software=False,
            )
    tags.write_metadata(file, image.exif, image.dpi, tiff_metadata.adjust_blocks(image))


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
