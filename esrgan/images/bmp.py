"""Read and write BMP files."""

from __future__ import annotations

import dataclasses
import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from esrgan.images import pillow, samples, vips
from esrgan.images.detect import DIB_START
from esrgan.images.flatten import fit_alpha
from esrgan.images.image import Dpi, ImageData, describe_left_out, profile_space
from esrgan.images.source import Source, UnsupportedImageError

_METRES_PER_INCH = 0.0254
_ROWS_AT_ONCE = 256
_RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS = 1, 2, 3, 6
_PACKED = {4: "JPEG", 5: "PNG"}
_XRGB = (0xFF0000, 0xFF00, 0xFF, 0)


def read(source: Source) -> ImageData:
    """Read a BMP file."""
    source = _add_file_header(source)
    header = _Header.of(source.file)
    source.check_pixel_count(header.width * header.height, max(header.bits // 8, 1))
    if header.compression in _PACKED:
        kind = _PACKED[header.compression]
        raise UnsupportedImageError("pixels", f"a BMP that contains a {kind}", f"extract the {kind}")
    notes = header.notes
    is_packed = header.compression in (_BITFIELDS, _ALPHA_BITFIELDS) or (header.bits, header.compression) == (32, 0)
    if is_packed and header.bits in (16, 32):
        pixels = _read_packed(source, header, notes)
        is_palette = False
    elif header.compression in (_RLE8, _RLE4):
        pixels, is_palette = _read_rle(source.file, header), True
    else:
        image, pixels = pillow.decode_any(source, "BMP")
        is_palette = image.mode == "P"
    frames = samples.drop_colour_if_grey([pixels]) if is_palette else [pixels]
    notes += describe_left_out((), header.count_bytes_behind(source.file))
    profile = header.read_profile(source.file)
    if frames[0].shape[2] < 3 and profile_space(profile) == "RGB":
        profile = None
        notes.append("RGB colour profile of a grey image not kept")
    return ImageData(tuple(frames), "BMP", dpi=header.dpi, icc_profile=profile, notes=tuple(notes))


def _add_file_header(source: Source) -> Source:
    """Return a bitmap that starts with its BITMAPINFOHEADER, as Pillow writes .dib, as a whole BMP file."""
    source.file.seek(0)
    head = source.file.read(40)
    if not head.startswith(DIB_START) or len(head) < 40:
        return source
    bits, compression = struct.unpack("<HI", head[14:20])
    colours = int.from_bytes(head[32:36], "little") or (2**bits if bits <= 8 else 0)
    masks = {_BITFIELDS: 12, _ALPHA_BITFIELDS: 16}.get(compression, 0)
    start = 14 + 40 + masks + 4 * colours
    data = head + source.file.read()
    file = io.BytesIO(struct.pack("<2sIII", b"BM", 14 + len(data), 0, start) + data)
    return dataclasses.replace(source, file=file)


@dataclass
class _Header:
    """The headers of a BMP file (wingdi.h: BITMAPFILEHEADER, BITMAPCOREHEADER, BITMAPINFOHEADER, BITMAPV5HEADER)."""

    start: int  # of the pixels in the file
    width: int
    height: int
    bits: int
    is_top_down: bool
    compression: int
    masks: tuple[int, ...]
    palette: bytes  # blue, green, red and a byte that is not used
    dpi: Dpi
    profile: tuple[int, int]  # start and length
    notes: list[str]

    @classmethod
    def of(cls, file: BinaryIO) -> _Header:
        """Read the headers of a file."""
        file.seek(0)
        head = file.read(138).ljust(138, b"\0")
        start, size = struct.unpack("<II", head[10:18])
        if size == 12:
            width, height, _, bits = struct.unpack("<HHHH", head[18:26])
            return cls(start, width, height, bits, False, 0, _XRGB, b"", None, (0, 0), [])
        if size < 40 or (size == 64 and head[30] > _RLE4):  # OS/2
            raise UnsupportedImageError("a BMP of Windows", f"one with a header of {size} bytes", "convert it to .png")
        width, height, _, bits, compression, _, x, y, colours = struct.unpack("<iiHHIIiiI", head[18:50])
        dpi = (x * _METRES_PER_INCH, y * _METRES_PER_INCH) if x > 0 and y > 0 else None
        masks: tuple[int, ...] = struct.unpack("<4I", head[54:70])
        if size < 56 and compression != _ALPHA_BITFIELDS:  # BITMAPV3INFOHEADER is the first with a mask of alpha
            masks = (*masks[:3], 0)
        file.seek(14 + size)
        palette = file.read(4 * min(colours or 256, 256))
        profile, notes = (0, 0), []
        if size >= 108 and head[70:74] == b"\0\0\0\0" and any(head[74:122]):  # LCS_CALIBRATED_RGB
            notes.append("calibrated colours of the BMP not kept")
        if size >= 124 and head[70:74] == b"DEBM":  # PROFILE_EMBEDDED
            profile = struct.unpack("<II", head[126:134])
        elif size >= 124 and head[70:74] == b"KNIL":  # PROFILE_LINKED
            notes.append("link to a colour profile not kept")
        if not 0 < width < 2**31 or not height:
            raise ValueError("it states no size")
        return cls(start, width, abs(height), bits, height < 0, compression, masks, palette, dpi, profile, notes)

    @property
    def stride(self) -> int:
        """How many bytes a row has, unless it is compressed."""
        return (self.width * self.bits + 31) // 32 * 4

    def read_profile(self, file: BinaryIO) -> bytes | None:
        """Return the embedded colour profile."""
        start, length = self.profile
        file.seek(14 + start)
        return file.read(length) or None if length else None

    def count_bytes_behind(self, file: BinaryIO) -> int:
        """Return how many bytes follow the pixels and the profile, not counting zeros."""
        end = self.start + self.stride * self.height
        if self.compression in (_RLE8, _RLE4):
            return 0
        if self.profile[1]:
            end = max(end, 14 + sum(self.profile))
        file.seek(end)
        rest = file.read()
        return len(rest) if rest.strip(b"\0") else 0


def _read_packed(source: Source, header: _Header, notes: list[str]) -> NDArray[np.uint8]:
    """Read pixels of 16 or 32 bits, whose channels are given by masks."""
    masks = header.masks if header.compression else _XRGB
    if not any(masks):
        masks = (*_XRGB[:3], 0xFF000000)
    if any(mask // (mask & -mask) > 255 for mask in masks if mask):
        raise UnsupportedImageError("samples of 8 bits", "a BMP of more than 8 bits", "convert it to a .png of 16 bits")
    if not all(masks[:3]):
        raise UnsupportedImageError("RGB", "a BMP without some of the colours", "convert it to .png")
    if source.header_only and not masks[3]:
        return np.broadcast_to(np.uint8(0), (header.height, header.width, 3))
    source.file.seek(header.start)
    size = header.stride * header.height
    data = source.file.read(size)
    padding = header.stride - header.width * header.bits // 8
    if len(data) < size - padding:  # that of the last row may be missing
        raise ValueError("the file is truncated")
    data = data.ljust(size, b"\0")
    words = np.frombuffer(data, f"<u{header.bits // 8}").reshape(header.height, -1)[:, : header.width]
    words = words if header.is_top_down else words[::-1]
    pixels = samples.unpack_channels(words, masks if masks[3] else masks[:3])
    if header.bits == 32 and not header.compression and np.ptp(words >> 24):
        notes.append("fourth byte of each pixel not kept, because the file does not call it alpha")
    if masks[3] and not pixels[..., 3].any():
        notes.append("alpha that is 0 everywhere not kept")
        pixels = np.ascontiguousarray(pixels[..., :3])
    return pixels


def _read_rle(file: BinaryIO, header: _Header) -> NDArray[np.uint8]:
    """Read pixels with run-length encoding; those that are left out have the first colour of the palette."""
    file.seek(header.start)
    data, position, x, y = file.read(), 0, 0, 0
    rows = np.zeros((header.height, header.width), np.uint8)
    is_half = header.compression == _RLE4

    def put(values: bytes, count: int) -> None:
        nonlocal x
        if y >= header.height:
            raise ValueError("more rows than it states")
        if is_half:
            values = bytes(half for value in values for half in (value >> 4, value & 15))
        part = np.frombuffer(values[:count], np.uint8)[: max(header.width - x, 0)]
        rows[y, x : x + len(part)] = part
        x += count

    while True:
        if position + 2 > len(data):
            if y + (x >= header.width) >= header.height:  # only the code of the end is missing
                break
            raise ValueError("the file is truncated")
        count, value = data[position], data[position + 1]
        position += 2
        if count:
            put(bytes([value]) * count, count)
        elif value == 0:
            x, y = 0, y + 1
        elif value == 1:
            break
        elif value == 2:
            x, y = x + data[position], y + data[position + 1]
            position += 2
        else:
            length = (value + 1) // 2 if is_half else value
            put(data[position : position + length], value)
            position += length + length % 2
    palette = np.frombuffer(header.palette.ljust(1024, b"\0"), np.uint8).reshape(256, 4)[:, 2::-1]
    return np.ascontiguousarray(palette[rows if header.is_top_down else rows[::-1]])


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a BMP file in blocks of rows, because Pillow would copy the whole image first.

    Alpha that is opaque everywhere is left out, because many programs do not read it.
    """
    image = fit_alpha(image, supports_alpha=False)
    pixels, profile = vips.convert_samples(image, "BMP"), image.icc_profile or b""
    order = {1: [0], 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]  # blue first
    file.write(_make_header((*pixels.shape[:2], len(order)), image.dpi, len(profile)))
    padding = -pixels.shape[1] * len(order) % 4
    for end in range(len(pixels), 0, -_ROWS_AT_ONCE):  # BMP stores rows from the bottom up
        rows = pixels[max(end - _ROWS_AT_ONCE, 0) : end][::-1, :, order]
        file.write(np.pad(rows.reshape(len(rows), -1), ((0, 0), (0, padding))).tobytes())
    file.write(profile)


def _make_header(shape: tuple[int, ...], dpi: Dpi, profile_length: int = 0) -> bytes:
    """Return the start of a BMP file, up to its rows of grey, RGB or RGBA pixels.

    It has a file header, a BITMAPINFOHEADER, or a BITMAPV5HEADER if there is alpha or a colour profile follows the
    pixels, and, for grey images, a palette of greys.
    """
    height, width, channels = shape
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256)) if channels == 1 else b""
    header = 124 if profile_length or channels == 4 else 40
    size, start = height * (-(-width * channels // 4) * 4), 14 + header + len(palette)
    x, y = (round(value / _METRES_PER_INCH) for value in dpi or (0, 0))
    packing = _BITFIELDS if channels == 4 else 0
    info = struct.pack(
        "<IiiHHIIiiII", header, width, height, 1, 8 * channels, packing, size, x, y, len(palette) // 4, 0
    )
    if header == 124:  # LCS_GM_IMAGES is 4; "BGRs" stands for sRGB and "DEBM" for an embedded profile
        info += struct.pack("<4I", *_XRGB[:3], 0xFF000000) if channels == 4 else bytes(16)
        info += (b"DEBM" if profile_length else b"BGRs") + bytes(48)
        info += struct.pack("<4I", 4, start - 14 + size if profile_length else 0, profile_length, 0)
    return struct.pack("<2sIII", b"BM", start + size + profile_length, 0, start) + info + palette
