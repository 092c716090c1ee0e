"""Decode the pages of TIFF files: with libvips, which is shown pages of kinds that it knows."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from esrgan.images import tiff_directories as tags
from esrgan.images import vips
from esrgan.images.samples import peak_value
from esrgan.images.source import Decoded, Source, UnsupportedImageError
from esrgan.images.tiff_directories import Directory, EditedFile, TagValue
from esrgan.images.tiff_metadata import read_no_data
from esrgan.images.tiff_pages import JPEG, YCBCR, Page, find_gaps, get_size

_OLD_JPEG = 6
# The compressions of libtiff that are always there. libvips makes tiles of all others black, without an error.
_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32766, 32771, 32773, 32809, 32946}
_METADATA_TAGS = {"icc_profile": 34675, "xmp": 700}  # IPTC is read by tiff_directories
_STRIPS = (tags.STRIP_OFFSETS, tags.STRIP_BYTE_COUNTS)
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # SampleFormat (TIFF 6.0, §19)
_MASK = 4  # PhotometricInterpretation
_ROWS_AT_ONCE = 256
_MAX_PADDING = 1 << 24  # pixels of tiles outside of an image


@dataclass(frozen=True)
class _Layout:
    """How the samples of a page are stored."""

    width: int
    height: int
    bits: int
    channels: int
    sample_format: int
    photometric: int
    is_planar: bool
    tile_width: int
    tile_height: int
    predictor: int
    is_ycbcr: bool

    @classmethod
    def of(cls, page: Directory) -> _Layout:
        channels = tags.get_integer(page, tags.SAMPLES_PER_PIXEL, 1)
        sample_format = tags.get_integer(page, tags.SAMPLE_FORMAT, _UNSIGNED)
        photometric = tags.get_integer(page, tags.PHOTOMETRIC, 1)
        return cls(
            *get_size(page),
            bits=tags.get_integer(page, tags.BITS_PER_SAMPLE, 1),
            channels=channels,
            sample_format=sample_format if sample_format in (_SIGNED, _FLOAT) else _UNSIGNED,
            photometric=photometric,
            is_planar=tags.get_integer(page, tags.PLANAR, 1) == 2 and channels > 1,
            tile_width=tags.get_integer(page, tags.TILE_WIDTH, 0),
            tile_height=tags.get_integer(page, tags.TILE_HEIGHT, 0),
            predictor=tags.get_integer(page, tags.PREDICTOR, 1),
            is_ycbcr=photometric == YCBCR and tags.get_integer(page, tags.COMPRESSION, 1) not in JPEG,
        )

    @property
    def is_raw(self) -> bool:
        """Whether libvips can only decompress the samples, but not tell what they are."""
        known = (16, 24, 32) if self.sample_format == _FLOAT else (8, 16, 32)
        is_known = self.bits in known or (self.bits in (1, 2, 4) and self.channels == 1)
        return not is_known and self.photometric in (0, 1, 2, 4)

    @property
    def is_inverted(self) -> bool:
        """Whether white is 0 in samples that have no peak."""
        return self.photometric == 0 and (self.sample_format != _UNSIGNED or self.bits > 16)

    @property
    def has_single_planes(self) -> bool:
        """Whether each plane is decoded by itself, because libvips takes the first for all."""
        return self.is_planar and (self.photometric in (0, 1, 2, 4) or self.is_ycbcr)

    @property
    def tiles(self) -> tuple[int, int]:
        """How many tiles are one below the other, and side by side; (0, 0) without tiles."""
        if not (self.tile_width and self.tile_height):
            return 0, 0
        return math.ceil(self.height / self.tile_height), math.ceil(self.width / self.tile_width)

    @property
    def row_bits(self) -> int:
        """The bits of a row of the page, or of a tile."""
        return (self.tile_width or self.width) * self.bits * (1 if self.is_planar else self.channels)


def decode(source: Source, pages: list[Page]) -> Decoded:
    """Decode pages to frames (H, W, C) with the samples of the file, not turned upright.

    Raises:
        UnsupportedImageError: They have too many pixels, a compression that cannot be read, or unknown samples.
        ValueError: They are damaged.
    """
    layout = _Layout.of(pages[0].directory)
    bytes_per_pixel = layout.channels * math.ceil(layout.bits / 8)
    source.check_pixel_count(sum(math.prod(get_size(page.directory)) for page in pages), bytes_per_pixel)
    numbers = [page.number for page in pages]
    is_stored = all(page.is_stored for page in pages) and numbers == list(range(len(pages)))
    decoded = _decode_directories(source, [page.directory for page in pages], numbers, is_stored=is_stored)
    if layout.is_ycbcr:
        decoded.frames = [_convert_ycbcr(frame, pages[0].directory) for frame in decoded.frames]
        decoded.changes.append("YCbCr converted to RGB")
    if layout.is_inverted:
        decoded.notes.append("0 is white in the file; its values are kept, but 0 is black in the output")
    if _is_premultiplied(pages[0].directory):
        colours = 1 if layout.photometric in (0, 1) else 3
        decoded.frames = [_unpremultiply(frame, colours, decoded.changes) for frame in decoded.frames]
    return decoded


def decode_masks(source: Source, pages: list[Page]) -> list[NDArray[Any]]:
    """Decode the transparency masks of pages to arrays (H, W, 1) of uint8."""
    masks = [page.mask for page in pages if page.mask]
    frames = _decode_directories(source, masks, [page.mask_number for page in pages], is_stored=False).frames
    if frames[0].dtype != np.uint8 or frames[0].shape[2] != 1:
        raise UnsupportedImageError("a mask of 1 or 8 bits", f"one of type {frames[0].dtype}", "save it as alpha")
    return frames


def _decode_directories(
    source: Source, directories: list[Directory], numbers: list[int], *, is_stored: bool
) -> Decoded:
    """Decode directories; the numbers are those of their pages in the file."""
    layout = _Layout.of(directories[0])
    if layout.is_raw and layout.bits > 64:
        raise UnsupportedImageError("samples of at most 64 bits", f"{layout.bits} bits", "convert it to 16 bits")
    if any(tags.get_integer(directory, tags.COMPRESSION, 1) not in _COMPRESSIONS for directory in directories):
        return _decode_with_tifffile(source, directories, numbers)
    views = [_make_views(directory) for directory in directories]
    is_stored = is_stored and all(page == [directory] for page, directory in zip(views, directories, strict=True))
    shown = [view for page in views for view in page]
    edited = None if is_stored else EditedFile(source.file, shown)
    decoded = _decode_views(source, [get_size(view) for view in shown], edited)
    flat = iter(decoded.frames)
    frames = []
    for directory, page in zip(directories, views, strict=True):
        layout = _Layout.of(directory)
        planes = [next(flat) for _ in page]
        if layout.is_raw and edited:
            planes = [_unpack(plane[..., 0], layout, edited.order) for plane in planes]
        elif layout.has_single_planes and layout.photometric == 0 and not layout.is_inverted:
            planes[0] = np.iinfo(planes[0].dtype).max - planes[0]
        frames.append(planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2))
    if layout.is_raw or layout.has_single_planes:
        decoded = Decoded(frames, {}, _read_metadata(directories[0], layout), decoded.changes, [])
    frames = [
        _convert(_join_tiles(frame, _Layout.of(page)), layout, decoded.changes)
        for frame, page in zip(frames, directories, strict=True)
    ]
    decoded.frames = [_fill_gaps(frame, page) for frame, page in zip(frames, directories, strict=True)]
    decoded.changes = list(dict.fromkeys(decoded.changes))
    return decoded


def _decode_views(source: Source, sizes: list[tuple[int, int]], edited: EditedFile | None) -> Decoded:
    """Decode all directories of a file, at once if they are of one size."""
    if len(set(sizes)) == 1:
        decoded = vips.decode(source, "tiff", edited=edited, n=len(sizes))
        if len(sizes) != len(decoded.frames):
            raise ValueError(f"only {len(decoded.frames)} of {len(sizes)} images can be read")
        return decoded
    each = [vips.decode(source, "tiff", edited=edited, n=1, page=number) for number in range(len(sizes))]
    each[0].frames = [page.frames[0] for page in each]
    return each[0]


def _make_views(page: Directory) -> list[Directory]:
    """Return the directories that libvips is shown for a page: one, or one for each plane."""
    layout = _Layout.of(page)
    view = _stack_tiles(page, layout)
    gaps = find_gaps(page)
    if gaps:
        offsets, counts = ([int(number) for number in tags.get_numbers(view, tag)] for tag in _STRIPS)
        largest = counts.index(max(counts))
        for i in gaps:  # libtiff would fail; what it decodes instead is overwritten
            offsets[i], counts[i] = offsets[largest], counts[largest]
        view |= {tag: tags.make_integers(*numbers) for tag, numbers in zip(_STRIPS, (offsets, counts), strict=True)}
    if layout.is_inverted or layout.photometric == _MASK:
        view[tags.PHOTOMETRIC] = tags.make_integers(1)
    if layout.is_ycbcr:
        view[tags.PHOTOMETRIC] = tags.make_integers(2)
    if _is_premultiplied(page):  # libvips would round down, and make colours without alpha black
        extra = [int(kind) for kind in tags.get_numbers(page, tags.EXTRA_SAMPLES)]
        view[tags.EXTRA_SAMPLES] = tags.make_integers(2, *extra[1:])
    if layout.is_raw:
        view[tags.PHOTOMETRIC] = tags.make_integers(1)
        view[tags.WIDTH] = tags.make_integers(math.ceil(layout.row_bits / 8))
        view[tags.BITS_PER_SAMPLE] = tags.make_integers(8)
        for tag in (tags.SAMPLE_FORMAT, tags.PREDICTOR):
            view.pop(tag, None)
    if layout.is_raw or layout.has_single_planes:
        view[tags.SAMPLES_PER_PIXEL] = tags.make_integers(1)
        view.pop(tags.EXTRA_SAMPLES, None)
    if not layout.has_single_planes:
        return [view]
    view[tags.PLANAR] = tags.make_integers(1)
    for tag in (tags.BITS_PER_SAMPLE, tags.SAMPLE_FORMAT):
        if tag in view:
            view[tag] = tags.make_integers(tags.get_integer(view, tag, 1))
    view[tags.PHOTOMETRIC] = tags.make_integers(1)
    planes = [dict(view) for _ in range(layout.channels)]
    for number, plane in enumerate(planes):
        for tag in _STRIPS:
            values = [int(value) for value in tags.get_numbers(view, tag)]
            share = len(values) // layout.channels
            plane[tag] = tags.make_integers(*values[number * share : (number + 1) * share])
    return planes


def _stack_tiles(page: Directory, layout: _Layout) -> Directory:
    """Return a page with its tiles as strips, because libvips makes tiles black that it cannot decode."""
    view, (down, across) = dict(page), layout.tiles
    if not down:
        return view
    height, area = layout.tile_height * down * across, layout.width * layout.height
    planes = layout.channels if layout.is_planar else 1
    offsets, counts = (tags.TILE_OFFSETS, tags.TILE_BYTE_COUNTS) if tags.TILE_OFFSETS in page else _STRIPS
    if (
        height * layout.tile_width > 8 * area + _MAX_PADDING
        or len(tags.get_numbers(page, offsets)) < planes * down * across
    ):
        raise ValueError("tiles that do not fit the image")
    moved = {tag: page[source] for tag, source in zip(_STRIPS, (offsets, counts), strict=True)}
    for tag in (tags.TILE_WIDTH, tags.TILE_HEIGHT, tags.TILE_OFFSETS, tags.TILE_BYTE_COUNTS):
        view.pop(tag, None)
    sizes = {tags.WIDTH: layout.tile_width, tags.HEIGHT: height, tags.ROWS_PER_STRIP: layout.tile_height}
    return view | moved | {tag: tags.make_integers(size) for tag, size in sizes.items()}


def _join_tiles(frame: NDArray[Any], layout: _Layout) -> NDArray[Any]:
    """Return tiles that lie one below the other side by side."""
    down, across = layout.tiles
    if not down:
        return frame
    tiles = frame.reshape(down, across, layout.tile_height, layout.tile_width, -1)
    joined = np.empty((layout.height, layout.width, frame.shape[2]), frame.dtype)
    for i in range(down):
        rows = joined[i * layout.tile_height : (i + 1) * layout.tile_height]
        for j in range(across):
            part = rows[:, j * layout.tile_width : (j + 1) * layout.tile_width]
            part[...] = tiles[i, j, : part.shape[0], : part.shape[1]]
    return joined


def _unpack(rows: NDArray[np.uint8], layout: _Layout, order: Literal["<", ">"]) -> NDArray[Any]:
    """Return the samples (H, W, C) in decompressed rows of bytes."""
    channels = 1 if layout.is_planar else layout.channels
    height, bits = len(rows), layout.bits
    if bits in (8, 16, 32, 64):
        dtype = np.dtype({_SIGNED: "i", _FLOAT: "f"}.get(layout.sample_format, "u") + str(bits // 8))
        if layout.predictor == 3:
            samples = _undo_float_predictor(rows, channels, dtype)
        else:
            samples = rows.view(dtype.newbyteorder(order)).astype(dtype)
        samples = samples.reshape(height, -1, channels)
        if layout.predictor == 2:
            whole = samples.view(f"u{dtype.itemsize}")
            np.cumsum(whole, axis=1, dtype=whole.dtype, out=whole)
        return samples
    if bits > 32 or layout.sample_format != _UNSIGNED:
        got = f"{'floats' if layout.sample_format == _FLOAT else 'integers'} of {bits} bits"
        raise UnsupportedImageError("samples of common sizes", got, "convert it to 16 bits or float")
    samples = np.empty((height, layout.row_bits // bits), np.uint32)
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


def _convert(frame: NDArray[Any], layout: _Layout, changes: list[str]) -> NDArray[Any]:
    """Return samples as uint8, uint16 or float32, with a message if they were converted."""
    bits, kind = layout.bits, layout.sample_format
    if kind == _UNSIGNED and layout.is_raw and bits < 16:
        peak = 255 if bits < 8 else 65535
        changes.append(f"{bits}-bit samples scaled to {8 if bits < 8 else 16} bits")
        values = 2**bits - 1 - frame if layout.photometric == 0 else frame
        scaled: NDArray[Any] = np.rint(values * (peak / (2**bits - 1)))
        return scaled.astype(np.uint8 if bits < 8 else np.uint16)
    if frame.dtype in (np.uint8, np.uint16, np.float32):
        return np.ascontiguousarray(frame)
    limits = np.finfo(np.float32)
    values = frame.clip(limits.min, limits.max, where=np.isfinite(frame), out=frame.copy()) if kind == _FLOAT else frame
    converted = np.ascontiguousarray(values, np.float32)
    is_exact = bool(((converted == frame) | (frame != frame)).all())
    name = f"{bits}-bit {'float' if kind == _FLOAT else 'signed' if kind == _SIGNED else 'integer'} samples"
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


def _fill_gaps(frame: NDArray[Any], page: Directory) -> NDArray[Any]:
    """Return a frame with the value for no data in strips and tiles that GDAL has not written."""
    gaps = find_gaps(page)
    if not gaps:
        return frame
    stated = read_no_data(page)
    value = 0.0 if stated is None else convert_value(page, stated) or 0.0
    height, width, channels = frame.shape
    layout = _Layout.of(page)
    rows = tags.get_integer(page, tags.TILE_HEIGHT if layout.tile_width else tags.ROWS_PER_STRIP, height)
    columns = layout.tile_width or width
    across, down = math.ceil(width / columns), math.ceil(height / rows)
    filled = frame.copy()
    for gap in gaps:
        plane, place = divmod(gap, across * down)
        top, left = place // across * rows, place % across * columns
        bands = slice(plane, plane + 1) if layout.is_planar else slice(channels)
        filled[top : top + rows, left : left + columns, bands] = value
    return filled


def convert_value(page: Directory, value: float) -> float | None:
    """Return what becomes of a value of samples of a page; None if they cannot have it."""
    layout = _Layout.of(page)
    kind = {_SIGNED: "i", _FLOAT: "f"}.get(layout.sample_format, "u")
    sizes = (2, 4, 8) if kind == "f" else (1, 2, 4, 8)
    dtype = np.dtype(f"{kind}{next(size for size in (*sizes, 8) if layout.bits <= size * 8 or size == 8)}")
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        if value % 1 or not limits.min <= value <= min(int(limits.max), 2**layout.bits - 1):  # this includes NaN
            return None
    return float(_convert(np.full((1, 1, 1), value, dtype), layout, [])[0, 0, 0])


def _is_premultiplied(page: Directory) -> bool:
    return tags.get_numbers(page, tags.EXTRA_SAMPLES)[:1] == [1]


def _unpremultiply(frame: NDArray[Any], colours: int, changes: list[str]) -> NDArray[Any]:
    """Divide colours by alpha, which is behind them; where alpha is 0 they stay."""
    peak = peak_value(frame.dtype)
    alpha = frame[..., colours : colours + 1]
    if alpha.min() >= peak:
        return frame
    note = "premultiplied alpha converted to alpha that is not premultiplied"
    result = frame.copy()
    for top in range(0, len(frame), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        divisor = np.where(alpha[rows] > 0, alpha[rows] / peak, 1.0)
        values = frame[rows, :, :colours] / divisor
        if peak > 1:
            if (values.round() > peak).any():
                note = "premultiplied alpha removed; colours brighter than their alpha allows are clipped"
            values = values.round().clip(0, peak)
        result[rows, :, :colours] = values
    changes.append(note)
    return result


def _read_metadata(page: Directory, layout: _Layout) -> dict[str, bytes]:
    """Return the blocks of a directory that every format has, by their names in ImageData."""
    values = {name: page.get(tag) for name, tag in _METADATA_TAGS.items()}
    blocks = {name: value.content for name, value in values.items() if isinstance(value, TagValue)}
    if layout.photometric in (0, 1) and blocks.get("icc_profile", b"")[16:20] == b"RGB ":
        del blocks["icc_profile"]
    return blocks


def _decode_with_pillow(source: Source, number: int) -> NDArray[np.uint8]:
    """Decode a page of JPEG as TIFF 6.0 had it, which only Pillow's libtiff knows."""
    from PIL import TiffImagePlugin

    with TiffImagePlugin.TiffImageFile(source.path) as image:
        image.seek(number)
        pixels = np.array(image if image.mode == "L" else image.convert("RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)


def _decode_with_tifffile(source: Source, directories: list[Directory], numbers: list[int]) -> Decoded:
    """Decode grey or RGB pages whose compression libtiff may not know; most need the package imagecodecs."""
    import tifffile

    logger = logging.getLogger("tifffile")
    if not logger.handlers:  # its warnings on damaged tags would be printed to stderr
        logger.addHandler(logging.NullHandler())
    layout, changes, frames = _Layout.of(directories[0]), list[str](), []
    compression = tags.get_integer(directories[0], tags.COMPRESSION, 1)
    if compression == _OLD_JPEG:
        frames = [_decode_with_pillow(source, number) for number in numbers]
        return Decoded(frames, {}, _read_metadata(directories[0], layout), [], [])
    names = {int(member): f"{member.name} compression" for member in tifffile.COMPRESSION}
    got = names.get(compression, f"compression {compression}")
    remedy = "pip install imagecodecs, or convert it to deflate, for example by `gdal_translate -co COMPRESS=DEFLATE`"
    problem = UnsupportedImageError("a compression that can be read", got, remedy)
    if layout.photometric not in (0, 1, 2, 4) or (layout.photometric == 0 and layout.channels > 1):
        raise problem
    with tifffile.TiffFile(source.path) as file:
        for number in numbers:
            page = file.pages[number]
            try:
                pixels = page.asarray()
            except ValueError as error:  # it says which codec is missing
                raise problem from error
            if isinstance(page, tifffile.TiffPage) and page.axes.startswith("S"):
                pixels = np.moveaxis(pixels, 0, -1)
            pixels = pixels.reshape(*pixels.shape[:2], -1)
            if pixels.dtype == np.bool_:
                pixels = pixels.astype(np.uint8) * 255
            if layout.photometric == 0 and not layout.is_inverted and not layout.is_raw:
                pixels = np.iinfo(pixels.dtype).max - pixels
            pixels = pixels.astype(np.float32) if pixels.dtype == np.float16 else pixels
            frames.append(_convert(pixels, layout, changes))
    return Decoded(frames, {}, _read_metadata(directories[0], layout), list(dict.fromkeys(changes)), [])
