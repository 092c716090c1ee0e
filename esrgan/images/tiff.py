"""Read and write TIFF files (TIFF 6.0)."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from esrgan.images import samples, tiff_decoding, tiff_metadata, tiff_pages, vips
from esrgan.images import tiff_directories as tags
from esrgan.images.image import ImageData
from esrgan.images.source import Decoded, Source, UnsupportedImageError
from esrgan.images.tiff_layout import find_gaps
from esrgan.images.tiff_pages import Page

_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # colours of a pixel by PhotometricInterpretation (TIFF 6.0, §8)
_TIFF_COMPRESSIONS = {1: "none", 5: "lzw", 32773: "packbits"}  # TIFF 6.0, §8 Compression; all others become deflate
# Beyond this many bytes of pixels a TIFF file becomes a BigTIFF. The margin is for directories and for data that grows
# a little when it is compressed.
_MAX_TIFF_BYTES = 0.98 * 2**32


def read(source: Source) -> ImageData:
    """Read a TIFF file."""
    notes: list[str] = []
    pages = tiff_pages.find_pages(source.file, notes)
    decoded = _decode_strictly(source, pages) if source.is_strict else tiff_decoding.decode(source, pages)
    first, layout, frames = pages[0].directory, pages[0].layout, decoded.frames
    if layout.is_palette and not source.is_strict:  # Pillow has looked at the palette
        frames = samples.drop_colour_if_grey(frames)
    extra_bands = max(decoded.frames[0].shape[2] - layout.colours - layout.has_alpha, 0)
    if all(page.mask for page in pages):
        masks = tiff_decoding.decode_masks(source, pages)
        frames = [_append_mask(frame, mask) for frame, mask in zip(frames, masks, strict=True)]
    turns = [1 if source.is_strict else tags.get_integer(page.directory, tags.ORIENTATION, 1) for page in pages]
    is_turned = any(turn > 1 for turn in turns)
    _, *further = {page.number: page.directory for page in pages}.values()
    stored = [page | tags.read_nested(source.file, page) for page in (first, *further)]
    for number, turn in enumerate(turns[: len(stored)]):
        if turn >= 5:
            stored[number] = tags.exchange_resolution(stored[number])
    blocks, left_out = tiff_metadata.read_blocks(
        stored, len(pages), is_turned=is_turned, changes_values=layout.changes_values
    )
    no_data = stated = tiff_metadata.read_no_data(first)
    if stated is not None and (decoded.changes or layout.changes_values):
        no_data = tiff_decoding.convert_no_data(pages, stated)
        if no_data is None:
            why = "because converted samples cannot hold it or tell it from others"
            left_out.append(f"value for no data ({stated:g}) not kept, {why}")
        if no_data != stated:
            blocks = tiff_metadata.replace_no_data(blocks, no_data)
    is_caption = tiff_metadata.describe_structure(tags.get_content(first, tags.DESCRIPTION)) is None
    return ImageData(
        tuple(samples.turn_upright([frame], turn)[0] for frame, turn in zip(frames, turns, strict=True)),
        "TIFF",
        extra_bands=extra_bands,
        no_data=no_data,
        is_turned=is_turned,
        compression=_TIFF_COMPRESSIONS.get(layout.compression, "deflate"),
        icc_profile=decoded.metadata.get("icc_profile"),
        exif=tags.read_exif(source.file, first, with_description=is_caption, orientation=turns[0]),
        xmp=decoded.metadata.get("xmp"),
        iptc=tags.read_iptc(first),
        dpi=tags.read_dpi(stored[0]),
        pixel_aspect=tiff_metadata.read_pixel_aspect(stored[0]),
        native_blocks=tuple(blocks),
        changes=tuple(decoded.changes),
        notes=(*notes, *decoded.notes, *left_out),
    )


def _decode_strictly(source: Source, pages: list[Page]) -> Decoded:
    """Decode one page with Pillow, and refuse those that Pillow would change."""
    page, layout = pages[0], pages[0].layout
    expected = "a TIFF image of 8 bits"
    if layout.bits > 8:
        kind = "floating-point samples" if layout.kind == "f" else "samples"
        got = f"{kind} of more than 8 bits ({layout.bits})"
        raise UnsupportedImageError(expected, got, "convert it to 8 bits")
    if layout.sample_format != 1:
        raise UnsupportedImageError(expected, "signed samples", "convert it to unsigned samples of 8 bits")
    more = layout.channels - _COLOURS.get(layout.photometric, layout.channels)
    if more > 0 and layout.extra not in ((1,), (2,)):
        got = f"{layout.channels} bands, {more} of them neither colour nor alpha"
        remedy = "write the bands to train on as grey or RGB"
        raise UnsupportedImageError("grey or RGB, with or without alpha", got, remedy)
    if len(pages) > 1:
        raise UnsupportedImageError("one image", f"several pages ({len(pages)})", "extract one of them")
    if page.mask:
        raise UnsupportedImageError("grey or RGB", "a transparency mask", "save it without, or as alpha")
    if page.number:
        raise UnsupportedImageError("an image on the first page", f"one on page {page.number + 1}", "save it alone")
    if layout.is_ycbcr:
        raise UnsupportedImageError("grey or RGB", "YCbCr without JPEG compression", "convert it to RGB")
    if layout.is_palette and max(tags.get_integers(page.directory, tags.COLOUR_MAP), default=0) < 256:
        raise UnsupportedImageError("a palette of 16 bits", "a palette of 8 bits", "convert it to RGB")
    if find_gaps(page.directory):
        raise UnsupportedImageError("an image without gaps", "one with empty strips or tiles", "fill them")
    decoded = vips.decode(source, n=1)
    if layout.is_premultiplied and not source.header_only and decoded.frames[0][..., -1].min() < 255:
        decoded.changes.append("premultiplied alpha")
    return decoded


def _append_mask(frame: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([frame, (mask * (samples.peak_value(frame.dtype) / 255)).astype(frame.dtype)], axis=2)


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a TIFF file, as a BigTIFF if it is large."""
    if len({frame.shape for frame in image.frames}) > 1 or tiff_metadata.is_imagej_stack(image):
        _write_with_tifffile(file, image)
        return
    size = sum(frame.nbytes for frame in image.frames)
    options: dict[str, Any] = {"compression": image.compression, "bigtiff": size > _MAX_TIFF_BYTES, "resunit": "inch"}
    if image.compression in ("lzw", "deflate"):
        options["predictor"] = "float" if image.frames[0].dtype == np.float32 else "horizontal"
    vips.encode(file, image, "TIFF", keep=vips.KEEP_XMP | vips.KEEP_ICC, **options)
    tags.write_metadata(file, image.exif, image.dpi, tiff_metadata.adjust_blocks(image))


def _write_with_tifffile(file: BinaryIO, image: ImageData) -> None:
    """Write pages that differ in size, or that follow one another without compression, which libvips cannot."""
    import tifffile

    frames = [samples.squeeze_grey(frame) for frame in image.frames]
    options: dict[str, Any] = {
        "photometric": "minisblack" if image.base_channels < 3 else "rgb",
        "planarconfig": None if frames[0].ndim == 2 else "contig",
        "extrasamples": [2] * image.has_alpha + [0] * image.extra_bands or None,
        "iccprofile": image.icc_profile,
        "extratags": [(700, 1, len(image.xmp), image.xmp, True)] if image.xmp else (),
        "metadata": None,
        "software": False,
    }
    is_big = sum(frame.nbytes for frame in frames) > _MAX_TIFF_BYTES
    with tifffile.TiffWriter(file, bigtiff=is_big) as writer:
        if tiff_metadata.is_imagej_stack(image):
            writer.write(iter(frames), shape=(len(frames), *frames[0].shape), dtype=frames[0].dtype, **options)
        else:
            for frame in frames:
                writer.write(frame, compression=None if image.compression == "none" else "zlib", **options)
    tags.write_metadata(file, image.exif, image.dpi, tiff_metadata.adjust_blocks(image))
