"""Decode the pages of TIFF files: with libvips, which is shown pages of kinds that it knows."""

from __future__ import annotations

import itertools
import logging
import math
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from esrgan.images import tiff_directories as tags
from esrgan.images import vips
from esrgan.images.image import profile_space
from esrgan.images.samples import MOST_ALPHA, peak_value, row_blocks
from esrgan.images.source import Decoded, Source, UnsupportedImageError
from esrgan.images.tiff_directories import Directory, EditedFile
from esrgan.images.tiff_layout import MASK, SEPARATED, STRIPS, Layout, find_gaps, find_segment_tags
from esrgan.images.tiff_metadata import STRUCTURE, read_no_data
from esrgan.images.tiff_pages import Page

_OLD_JPEG = 6
# The compressions of libtiff that are always there. libvips makes tiles of all others black, without an error.
_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32766, 32771, 32773, 32809, 32946}
_METADATA_TAGS = {"icc_profile": tags.ICC_PROFILE, "xmp": tags.XMP}  # IPTC is read by tiff_directories
# libvips reads pages at once only if they are stored alike, and takes the metadata of one of them for all.
_ALIKE = STRUCTURE - {*STRIPS, tags.TILE_OFFSETS, tags.TILE_BYTE_COUNTS} | {*_METADATA_TAGS.values()}
_PER_SAMPLE = (280, 281, 340, 341)  # MinSampleValue, MaxSampleValue, SMinSampleValue and SMaxSampleValue
_ROWS_AT_ONCE = 256
_MAX_PADDING = 1 << 24  # pixels of tiles outside of an image


def decode(source: Source, pages: list[Page]) -> Decoded:
    """Decode pages to frames (H, W, C) with the samples of the file, not turned upright.

    Raises:
        UnsupportedImageError: They have too many pixels, a compression that cannot be read, or unknown samples.
        ValueError: They are damaged.
    """
    layout = pages[0].layout
    bytes_per_pixel = layout.channels * math.ceil(layout.bits / 8)
    source.check_pixel_count(sum(page.layout.width * page.layout.height for page in pages), bytes_per_pixel)
    decoded = _decode_pages(source, pages)
    if any(page.layout.is_ycbcr for page in pages):
        decoded.frames = [
            _convert_ycbcr(frame, page.directory) if page.layout.is_ycbcr else frame
            for frame, page in zip(decoded.frames, pages, strict=True)
        ]
        decoded.changes.append("YCbCr converted to RGB")
    if layout.photometric == 0 and not layout.has_peak:
        decoded.notes.append("0 is white in the file; its values are kept, but 0 is black in the output")
    if layout.is_premultiplied:
        decoded.frames = [_unpremultiply(frame, layout, decoded.changes) for frame in decoded.frames]
    return decoded


def decode_masks(source: Source, pages: list[Page]) -> list[NDArray[Any]]:
    """Decode the transparency masks of pages to arrays (H, W, 1) of uint8."""
    frames = _decode_pages(source, [page.mask for page in pages if page.mask]).frames
    if frames[0].dtype != np.uint8 or frames[0].shape[2] != 1:
        raise UnsupportedImageError("a mask of 1 or 8 bits", f"one of type {frames[0].dtype}", "save it as alpha")
    return frames


def _decode_pages(source: Source, pages: list[Page]) -> Decoded:
    """Decode pages as they are stored, with samples of types that ``ImageData`` has."""
    layout = pages[0].layout
    if layout.is_raw and layout.bits > 64:
        raise UnsupportedImageError("samples of at most 64 bits", f"{layout.bits} bits", "convert it to 16 bits")
    if any(page.layout.compression not in _COMPRESSIONS for page in pages):
        return _decode_with_tifffile(source, pages)
    views = [_make_views(page) for page in pages]
    shown = list(itertools.chain.from_iterable(views))
    is_stored = all(
        page.is_stored and page.number == i and [page.directory] == views[i] for i, page in enumerate(pages)
    )
    edited = None if is_stored else EditedFile(source.file, shown)
    decoded = _decode_views(source, shown, edited)
    flat, frames = iter(decoded.frames), []
    for page, of_page in zip(pages, views, strict=True):
        planes = [next(flat) for _ in of_page]
        if layout.is_raw and edited:
            planes = [_unpack(plane[..., 0], page.layout, edited.order) for plane in planes]
        frame = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
        frame = _convert(_join_tiles(frame, page.layout), page, decoded.changes)
        frames.append(_fill_gaps(frame, page))
    if layout.is_raw or layout.is_palette or any(page.layout.has_single_planes for page in pages):
        return _join_metadata(pages[0], frames, decoded.changes)
    decoded.frames, decoded.changes = frames, list(dict.fromkeys(decoded.changes))
    return decoded


def _join_metadata(page: Page, frames: list[NDArray[Any]], changes: list[str]) -> Decoded:
    """Return frames that libvips has not decoded as what they are, with the colour profile and XMP of their page."""
    metadata = {name: tags.get_content(page.directory, tag) for name, tag in _METADATA_TAGS.items()}
    metadata = {name: content for name, content in metadata.items() if content}
    notes = []
    if page.layout.colours == 1 and profile_space(metadata.get("icc_profile")) == "RGB":
        del metadata["icc_profile"]
        notes.append("RGB colour profile of a grey image not kept")
    return Decoded(frames, {}, metadata, list(dict.fromkeys(changes)), notes)


def _decode_views(source: Source, views: list[Directory], edited: EditedFile | None) -> Decoded:
    """Decode all directories of a file, at once if they are alike."""
    if all(view.get(tag) == views[0].get(tag) for view in views for tag in _ALIKE):
        decoded = vips.decode(source, edited=edited, n=len(views))
        if len(views) != len(decoded.frames):
            raise ValueError(f"only {len(decoded.frames)} of {len(views)} images can be read")
        return decoded
    each = [vips.decode(source, edited=EditedFile(source.file, [view]), n=1) for view in views]
    each[0].frames = [page.frames[0] for page in each]
    return each[0]


def _make_views(page: Page) -> list[Directory]:
    """Return the directories that libvips is shown for a page: one, or one for each plane."""
    layout = page.layout
    view = _stack_tiles(page)
    if gaps := {*find_gaps(page.directory)}:
        largest = int(np.argmax(tags.get_integers(view, tags.STRIP_BYTE_COUNTS)))
        for tag in STRIPS:  # libtiff would fail; what it decodes instead is overwritten
            numbers = tags.get_integers(view, tag)
            view[tag] = tags.make_integers(*(numbers[largest if i in gaps else i] for i in range(len(numbers))))
    is_converted_later = layout.photometric in (0, MASK) or layout.is_palette
    if is_converted_later or layout.is_raw or layout.has_single_planes:
        view[tags.PHOTOMETRIC] = tags.make_integers(1)
    elif layout.is_ycbcr:
        view[tags.PHOTOMETRIC] = tags.make_integers(2)
    if layout.is_premultiplied:  # libvips would round down, and make colours without alpha black
        view[tags.EXTRA_SAMPLES] = tags.make_integers(2, *layout.extra[1:])
    if layout.is_raw:
        view[tags.WIDTH] = tags.make_integers(math.ceil(layout.row_bits / 8))
        view[tags.BITS_PER_SAMPLE] = tags.make_integers(8)
        for tag in (tags.SAMPLE_FORMAT, tags.PREDICTOR):
            view.pop(tag, None)
    for tag in _PER_SAMPLE:  # libtiff refuses other numbers of them than there are samples
        view.pop(tag, None)
    if layout.is_raw or layout.has_single_planes:
        view[tags.SAMPLES_PER_PIXEL] = tags.make_integers(1)
        view.pop(tags.EXTRA_SAMPLES, None)
    return _split_planes(view, layout.channels) if layout.has_single_planes else [view]


def _split_planes(view: Directory, channels: int) -> list[Directory]:
    """Return a directory for each plane of a page, with its share of the strips."""
    same: Directory = {tags.PLANAR: tags.make_integers(1)}
    for tag in {tags.BITS_PER_SAMPLE, tags.SAMPLE_FORMAT} & view.keys():
        same[tag] = tags.make_integers(tags.get_integer(view, tag, 1))
    strips = {tag: tags.get_integers(view, tag) for tag in STRIPS}
    share = len(strips[tags.STRIP_OFFSETS]) // channels
    parts = [slice(i * share, (i + 1) * share) for i in range(channels)]
    return [view | same | {tag: tags.make_integers(*strips[tag][part]) for tag in STRIPS} for part in parts]


def _stack_tiles(page: Page) -> Directory:
    """Return a page with its tiles as strips, because libvips makes tiles black that it cannot decode."""
    view, layout = {tag: value for tag, value in page.directory.items() if tags.is_readable(value)}, page.layout
    if not layout.tile_width:
        return view
    across, down = layout.segments
    height, area = layout.tile_height * down * across, layout.width * layout.height
    planes = layout.channels if layout.is_planar else 1
    offsets, counts = (tags.get_integers(page.directory, tag) for tag in find_segment_tags(page.directory))
    most = 8 * area + _MAX_PADDING
    if not height or height * layout.tile_width > most or len(offsets) < planes * down * across:
        raise ValueError("tiles that do not fit the image")
    for tag in (tags.TILE_WIDTH, tags.TILE_HEIGHT, tags.TILE_OFFSETS, tags.TILE_BYTE_COUNTS):
        view.pop(tag, None)
    view |= {tag: tags.make_integers(*numbers) for tag, numbers in zip(STRIPS, (offsets, counts), strict=True)}
    sizes = {tags.WIDTH: layout.tile_width, tags.HEIGHT: height, tags.ROWS_PER_STRIP: layout.tile_height}
    return view | {tag: tags.make_integers(size) for tag, size in sizes.items()}


def _join_tiles(frame: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Return tiles that lie one below the other side by side."""
    if not layout.tile_width:
        return frame
    across, down = layout.segments
    tiles = frame.reshape(down, across, layout.tile_height, layout.tile_width, -1)
    joined = np.empty((layout.height, layout.width, frame.shape[2]), frame.dtype)
    for i in range(down):
        rows = joined[i * layout.tile_height : (i + 1) * layout.tile_height]
        for j in range(across):
            part = rows[:, j * layout.tile_width : (j + 1) * layout.tile_width]
            part[...] = tiles[i, j, : part.shape[0], : part.shape[1]]
    return joined


def _unpack(rows: NDArray[np.uint8], layout: Layout, order: Literal["<", ">"]) -> NDArray[Any]:
    """Return the samples (H, W, C) in decompressed rows of bytes."""
    channels = 1 if layout.is_planar else layout.channels
    height, bits = len(rows), layout.bits
    if bits in (8, 16, 32, 64):
        dtype = np.dtype(f"{layout.kind}{bits // 8}")
        if layout.predictor == 3:
            samples = _undo_float_predictor(rows, channels, dtype)
        else:
            samples = rows.view(dtype.newbyteorder(order)).astype(dtype)
        samples = samples.reshape(height, -1, channels)
        if layout.predictor == 2:
            whole = samples.view(f"u{dtype.itemsize}")
            np.cumsum(whole, axis=1, dtype=whole.dtype, out=whole)
        return samples
    if bits > 32 or layout.kind != "u":
        got = f"{'floats' if layout.kind == 'f' else 'integers'} of {bits} bits"
        raise UnsupportedImageError("samples of common sizes", got, "convert it to 16 bits or float")
    samples = np.empty((height, layout.row_bits // bits), np.uint16 if bits < 16 else np.uint32)
    weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.uint32)
    for top in range(0, height, _ROWS_AT_ONCE):
        part = np.unpackbits(rows[top : top + _ROWS_AT_ONCE], axis=1)[:, : layout.row_bits]
        samples[top : top + len(part)] = part.reshape(len(part), -1, bits) @ weights
    return samples.reshape(height, -1, channels)


def _undo_float_predictor(rows: NDArray[np.uint8], channels: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Sum up the differences of the floating-point predictor and join each sample's bytes (TIFF Technical Note 3)."""
    summed = rows.reshape(len(rows), -1, channels).cumsum(axis=1, dtype=np.uint8)
    joined = np.ascontiguousarray(summed.reshape(len(rows), dtype.itemsize, -1).swapaxes(1, 2))
    samples: NDArray[Any] = joined.view(dtype.newbyteorder(">")).astype(dtype)
    return samples


def _convert(frame: NDArray[Any], page: Page, changes: list[str]) -> NDArray[Any]:
    """Return a frame with samples of uint8, uint16 or float32, and colours instead of numbers in a palette."""
    frame, layout = _convert_type(frame, page.layout, changes), page.layout
    if layout.photometric == 0 and layout.has_peak:
        frame = frame.copy()
        frame[..., 0] = np.iinfo(frame.dtype).max - frame[..., 0]
    if layout.is_palette:
        numbers = frame[..., 0] // (255 // (2**layout.bits - 1) if layout.bits < 8 else 1)
        frame = np.concatenate([_read_palette(page)[numbers], frame[..., 1:]], axis=2)
    return frame


def _read_palette(page: Page) -> NDArray[Any]:
    """Return the colours (N, 3) of a palette with 8 bits, or 16 if its numbers have as many.

    Some programs store 8 instead of 16 bits.
    """
    stored = tags.get_integers(page.directory, tags.COLOUR_MAP)
    number = 2**page.layout.bits
    if len(stored) != 3 * number:
        raise UnsupportedImageError(f"a palette of {number} colours", f"{len(stored)} numbers", "save it as RGB")
    colours = np.array(stored, np.uint16).reshape(3, -1).T
    if page.layout.bits > 8:
        return colours
    return (colours if colours.max(initial=0) < 256 else colours >> 8).astype(np.uint8)


def _spread_bits(samples: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Return samples of 1, 2 or 4 bits, which have a byte each, as libvips returns them: scaled to 8 bits."""
    is_packed = layout.bits < 8 and not layout.is_raw
    return samples.astype(np.uint8) * np.uint8(255 // (2**layout.bits - 1)) if is_packed else samples


def _convert_type(frame: NDArray[Any], layout: Layout, changes: list[str]) -> NDArray[Any]:
    """Return samples as uint8, uint16 or float32, with a message if they were converted."""
    bits, kind = layout.bits, layout.kind
    if kind == "u" and layout.is_raw and bits < 16:
        peak = 255 if bits < 8 else 65535
        changes.append(f"{bits}-bit samples scaled to {8 if bits < 8 else 16} bits")
        scaled = np.empty(frame.shape, np.uint8 if bits < 8 else np.uint16)
        for block, source in zip(row_blocks(scaled), row_blocks(frame), strict=True):
            block[...] = np.rint(source * (peak / (2**bits - 1)))
        return scaled
    if frame.dtype in (np.uint8, np.uint16, np.float32):
        return np.ascontiguousarray(frame)
    limits = np.finfo(np.float32)
    values = frame.clip(limits.min, limits.max, where=np.isfinite(frame), out=frame.copy()) if kind == "f" else frame
    converted = np.ascontiguousarray(values, np.float32)
    is_exact = bool(((converted == frame) | (frame != frame)).all())
    name = f"{bits}-bit {'float' if kind == 'f' else 'signed' if kind == 'i' else 'integer'} samples"
    changes.append(f"{name} {'stored as' if is_exact else 'rounded to'} 32-bit float{', exactly' if is_exact else ''}")
    return converted


def _convert_ycbcr(frame: NDArray[Any], page: Directory) -> NDArray[np.uint8]:
    """Convert YCbCr of 8 bits to RGB (TIFF 6.0, §20 and §21)."""
    red, green, blue = tags.get_numbers(page, tags.YCBCR_COEFFICIENTS) or [0.299, 0.587, 0.114]
    limits = tags.get_numbers(page, tags.REFERENCE_BLACK_WHITE) or [0, 255, 128, 255, 128, 255]
    black, white = np.array(limits).reshape(3, 2).T
    result = np.empty_like(frame)
    for top in range(0, len(frame), _ROWS_AT_ONCE):
        luma, cb, cr = np.moveaxis(
            (frame[top : top + _ROWS_AT_ONCE] - black) * ([255, 127, 127] / (white - black)), 2, 0
        )
        r, b = luma + cr * (2 - 2 * red), luma + cb * (2 - 2 * blue)
        rgb = np.stack([r, (luma - blue * b - red * r) / green, b], axis=2)
        result[top : top + _ROWS_AT_ONCE] = rgb.round().clip(0, 255)
    return result


def _fill_gaps(frame: NDArray[Any], page: Page) -> NDArray[Any]:
    """Return a frame with the value for no data in strips and tiles that GDAL has not written."""
    gaps = find_gaps(page.directory)
    if not gaps:
        return frame
    layout, stated = page.layout, read_no_data(page.directory)
    pixel = None if stated is None else _convert_value(page, stated)
    pixel = _convert_value(page, 0.0) if pixel is None else pixel
    (columns, rows), (across, down) = layout.segment_size, layout.segments
    filled = frame.copy()
    for gap in gaps:
        plane, place = divmod(gap, across * down)
        top, left = place // across * rows, place % across * columns
        bands = slice(plane, plane + 1) if layout.is_planar else slice(None)
        filled[top : top + rows, left : left + columns, bands] = 0 if pixel is None else pixel[bands]
    return filled


def convert_no_data(pages: list[Page], value: float) -> float | None:
    """Return the value for no data in decoded pages; None if it does not tell samples without data from others."""
    layout, pixels = pages[0].layout, [_convert_value(page, value) for page in pages]
    found: list[NDArray[Any]] = []
    for page, pixel in zip(pages, pixels, strict=True):
        if pixel is None or (layout.is_palette and (_read_palette(page) == pixel[:3]).all(axis=1).sum() > 1):
            return None
        found.append(np.delete(pixel, layout.colours) if layout.has_alpha else pixel)
    values = np.unique(found)
    return float(values[0]) if len(values) == 1 else None


def _convert_value(page: Page, value: float) -> NDArray[Any] | None:
    """Return a decoded pixel whose samples all have a value in the file; None if they cannot have it."""
    layout = page.layout
    if layout.photometric == SEPARATED:
        return None
    size = next((size for size in (1, 2, 4) if layout.bits <= size * 8 and f"{layout.kind}{size}" != "f1"), 8)
    dtype = np.dtype(f"{layout.kind}{size}")
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        if value % 1 or not limits.min <= value <= min(int(limits.max), 2**layout.bits - 1):  # this includes NaN
            return None
    samples = _spread_bits(np.full((1, 1, layout.channels), value, dtype), layout)
    return cast("NDArray[Any]", _convert(samples, page, [])[0, 0])


def _unpremultiply(frame: NDArray[Any], layout: Layout, changes: list[str]) -> NDArray[Any]:
    """Divide colours by alpha, the channel after them; where alpha is 0 they stay."""
    is_float, colours = layout.kind == "f", layout.colours
    peak = peak_value(frame.dtype) if is_float or layout.has_peak else 2.0 ** (layout.bits - (layout.kind == "i")) - 1
    alpha = frame[..., colours : colours + 1]
    if is_float and alpha.max() > MOST_ALPHA:
        got = f"colours multiplied with float alpha of up to {alpha.max():g}"
        raise UnsupportedImageError("alpha from 0 to 1", got, "scale the samples, or save it without multiplying")
    if alpha.min() >= peak:
        return frame
    note = "premultiplied alpha converted to alpha that is not premultiplied"
    result = frame.copy()
    for top in range(0, len(frame), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        divisor = np.where(alpha[rows] > 0, alpha[rows] / peak, 1.0)
        values = frame[rows, :, :colours] / divisor
        if not is_float:
            if (values.round() > peak).any():
                note = "premultiplied alpha removed; colours brighter than their alpha allows are clipped"
            values = values.round().clip(0, peak)
        result[rows, :, :colours] = values
    changes.append(note)
    return result


def _decode_with_pillow(source: Source, number: int) -> NDArray[np.uint8]:
    """Decode a page of JPEG as TIFF 6.0 had it, which only Pillow's libtiff knows."""
    from PIL import TiffImagePlugin

    with TiffImagePlugin.TiffImageFile(source.path) as image:
        image.seek(number)
        pixels = np.array(image if image.mode == "L" else image.convert("RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)


def _decode_with_tifffile(source: Source, pages: list[Page]) -> Decoded:
    """Decode grey or RGB pages whose compression libtiff may not know; most need the package imagecodecs."""
    import tifffile

    logger = logging.getLogger("tifffile")
    if not logger.handlers:  # its warnings on damaged tags would be printed to stderr
        logger.addHandler(logging.NullHandler())
    layout, changes = pages[0].layout, list[str]()
    if layout.compression == _OLD_JPEG:
        return _join_metadata(pages[0], [_decode_with_pillow(source, page.number) for page in pages], changes)
    names = {int(member): f"{member.name} compression" for member in tifffile.COMPRESSION}
    got = names.get(layout.compression, f"compression {layout.compression}")
    remedy = "convert it to deflate, for example by `gdal_translate -co COMPRESS=DEFLATE`"
    if not layout.is_grey_or_rgb and not layout.is_palette:
        colours = "CMYK" if layout.photometric == SEPARATED else "YCbCr"
        raise UnsupportedImageError("grey, RGB or a palette for this compression", f"{colours} with {got}", remedy)
    frames = []
    with tifffile.TiffFile(source.path) as file:
        for page in pages:
            try:
                pixels, is_complete = _read_segments(file.pages[page.number])
            except ValueError as error:  # it says which codec is missing
                expected = "a compression that can be read"
                raise UnsupportedImageError(expected, got, f"pip install imagecodecs, or {remedy}") from error
            if not is_complete:
                raise ValueError("strips or tiles are shorter than the image")
            pixels = pixels.astype(np.float32) if pixels.dtype == np.float16 else _spread_bits(pixels, layout)
            frames.append(_convert(pixels, page, changes))
    return _join_metadata(pages[0], frames, changes)


def _read_segments(page: Any) -> tuple[NDArray[Any], bool]:
    """Return the samples (H, W, C) of a page of tifffile, and whether its strips and tiles cover all of them.

    ``asarray`` of tifffile would not say so, and leave what is in memory where they do not.
    """
    pixels, covered = np.zeros(page.shaped, page.dtype), 0  # (planes, depth, H, W, C)
    for segment, (plane, depth, top, left, _), shape in page.segments(_fullsize=False):
        place = pixels[plane, depth : depth + shape[0], top : top + shape[1], left : left + shape[2]]
        place[...] = page.nodata if segment is None else segment[tuple(map(slice, place.shape))]
        covered += place.size
    joined = pixels[0, 0] if len(pixels) == 1 else np.moveaxis(pixels[:, 0, ..., 0], 0, -1)
    return joined, covered >= pixels.size
