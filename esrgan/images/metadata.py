"""Read and write the metadata of image files byte by byte.

Encoders reorder, complete or drop metadata. Writing it directly keeps it unchanged.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import BinaryIO

from esrgan.images.image import Dpi, ImageData

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The chunks of PNG 3rd edition, §11.3.2, that define colour, except iCCP, and the text chunks of §11.3.3.
_PNG_COLOUR = (b"cHRM", b"gAMA", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_PNG_XMP = b"XML:com.adobe.xmp\0"
_SRGB_GAMMA = (45455).to_bytes(4)  # 1/2.2
_METRES_PER_INCH = 0.0254
_SEQUENCES = (b"avis", b"hevc", b"hevx", b"msf1")  # ISO/IEC 23008-12: major brands of image sequences
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", *_SEQUENCES)


def detect_format(head: bytes) -> str | None:
    """Return the format of a file from its first 32 bytes or more, or None if it is unknown."""
    if head.startswith(PNG_SIGNATURE):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[start : start + 4] for start in range(16, len(head) - 3, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & set(_HEIF_BRANDS):
            return "HEIC"
    return None


def guess_file_kind(head: bytes) -> str:
    """Return what a file that is not a supported image seems to be, from its first bytes."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    known = {b"": "an empty file", b"<!doctype html": "a web page", b"<html": "a web page", b"<svg": "SVG"}
    known |= {b"<?xml": "XML", b"%!ps": "PostScript", b"%pdf": "PDF", b"8bps": "Photoshop's PSD"}
    known |= {b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cjxl ": "JPEG XL", b"\0\0\0\x0cjp  ": "JPEG 2000"}
    if not head:
        return known[b""]
    return next((name for magic, name in known.items() if magic and start.startswith(magic)), "an unknown format")


def is_image_sequence(head: bytes) -> bool:
    """Return whether an AVIF or HEIC file with these first bytes is an animation."""
    return head[8:12] in _SEQUENCES


def is_deep_avif(head: bytes) -> bool:
    """Return whether an AVIF file with these first bytes has samples of 10 or 12 bits (AV1-ISOBMFF, §2.3.3)."""
    position = head.find(b"av1C")
    return 0 <= position < len(head) - 6 and bool(head[position + 6] & 0x40)


def read_heif_colour_tag(file: BinaryIO) -> tuple[int, int] | None:
    """Read the primaries and the transfer function (ITU-T H.273) that an AVIF or HEIC file has instead of a profile."""
    file.seek(0)
    position = (head := file.read(1 << 16)).find(b"colrnclx")
    return struct.unpack_from(">HH", head, position + 8) if 0 <= position <= len(head) - 12 else None


# PNG


def read_png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of a PNG file's chunks on colour, text, resolution and animation."""
    file.seek(len(PNG_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name in (*_PNG_COLOUR, *_PNG_TEXT, b"pHYs", b"acTL"):
            yield name, file.read(length)
            file.seek(4, os.SEEK_CUR)
        else:
            file.seek(length + 4, os.SEEK_CUR)


def is_preserved_png_chunk(name: bytes, content: bytes) -> bool:
    """Return whether a chunk is copied unchanged into the output."""
    return name in _PNG_COLOUR or (name in _PNG_TEXT and not content.startswith(_PNG_XMP))


def parse_png_dpi(content: bytes) -> Dpi:
    """Return the resolution in a pHYs chunk, or None if the chunk only defines the aspect ratio of a pixel."""
    x, y, unit = struct.unpack(">IIB", content) if len(content) == 9 else (0, 0, 0)
    return (x * _METRES_PER_INCH, y * _METRES_PER_INCH) if unit == 1 and x and y else None


def is_unlike_srgb(chunks: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether a PNG file's chunks define colours that differ from sRGB, the default without a profile."""
    found = dict(chunks)
    gamma = found.get(b"gAMA", _SRGB_GAMMA)
    return b"sRGB" not in found and (b"cICP" in found or abs(int.from_bytes(gamma) - 45455) > 500)


def insert_png_metadata(head: bytes, image: ImageData) -> bytes:
    """Return the first 54 bytes of a PNG file with the image's metadata added after the header.

    The encoder's own resolution (pHYs chunk) is replaced.
    """
    added = list(image.png_chunks)
    if image.icc_profile:
        added.append((b"iCCP", b"ICC\0\0" + zlib.compress(image.icc_profile)))
    if image.exif:
        added.append((b"eXIf", image.exif))
    if image.xmp:
        added.append((b"iTXt", _PNG_XMP + b"\0\0\0\0" + image.xmp))
    if image.dpi:
        x, y = (round(value / _METRES_PER_INCH) for value in image.dpi)
        added.append((b"pHYs", struct.pack(">IIB", x, y, 1)))
    chunks = (
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in added
    )
    return head[:33] + b"".join(chunks) + (head[54:] if head[37:41] == b"pHYs" else head[33:])


# JPEG


def read_jpeg_header(file: BinaryIO) -> tuple[Dpi, bool]:
    """Return the resolution in a JPEG file's JFIF header, and whether more images follow the first (CIPA DC-007)."""
    dpi, is_multiple = None, False
    file.seek(2)
    while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] != 0xDA:
        length = struct.unpack(">H", head[2:])[0] - 2
        content = file.read(max(length, 0))
        if head[1] == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 12:
            unit, x, y = struct.unpack_from(">BHH", content, 7)
            inches = {1: 1.0, 2: 2.54}.get(unit)
            dpi = (x * inches, y * inches) if inches and x and y else None
        is_multiple = is_multiple or (head[1] == 0xE2 and content.startswith(b"MPF\0"))
    return dpi, is_multiple


def insert_jpeg_metadata(head: bytes, image: ImageData) -> bytes:
    """Return the first 2 bytes of a JPEG file with a JFIF header and the image's EXIF added."""
    x, y = (min(round(value), 0xFFFF) for value in image.dpi or (1, 1))
    jfif = b"\xff\xe0" + struct.pack(">H5sHBHHBB", 16, b"JFIF\0", 0x0102, 1 if image.dpi else 0, x, y, 0, 0)
    block = b"Exif\0\0" + image.exif if image.exif else b""
    app1 = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block if block else b""
    return head[:2] + jfif + app1 + head[2:]


MAX_JPEG_EXIF_BYTES = 0xFFFF - 2 - 6  # the largest segment, less its length field and "Exif\0\0"


# BMP


def make_bmp_header(shape: tuple[int, ...], dpi: Dpi) -> bytes:
    """Return the start of a BMP file, up to its rows of grey or RGB pixels.

    It has a file header, a BITMAPINFOHEADER and, for grey images, a palette of greys.
    """
    height, width, channels = shape
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256)) if channels == 1 else b""
    size, start = height * (-(-width * channels // 4) * 4), 54 + len(palette)
    x, y = (round(value / _METRES_PER_INCH) for value in dpi or (0, 0))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8 * channels, 0, size, x, y, len(palette) // 4, 0)
    return struct.pack("<2sIII", b"BM", start + size, 0, start) + info + palette


# GIF and WebP


def count_gif_frames(data: bytes) -> int:
    """Return the number of frames in a GIF file.

    Raises:
        ValueError: The file ends within a frame.
    """
    frames = 0
    try:
        position = 13 + _gif_palette_bytes(data[10])
        while position < len(data) and data[position] != 0x3B:
            if data[position] == 0x2C:
                frames += 1
                position += 11 + _gif_palette_bytes(data[position + 9])
            else:  # an extension
                position += 2
            while data[position]:
                position += 1 + data[position]
            position += 1
    except IndexError as error:
        raise ValueError("the file is truncated") from error
    return frames


def _gif_palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _read_riff_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, position and length of a WebP file's chunks."""
    position = 12
    while file.seek(position) == position and len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        yield name, position, length
        position += 8 + length + length % 2


def is_webp_lossless(file: BinaryIO) -> bool:
    """Return whether the first frame of a WebP file is compressed without loss."""
    for name, position, _ in _read_riff_chunks(file):
        if name == b"ANMF":
            file.seek(position + 8 + 16)
            return file.read(4) == b"VP8L"
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
    return False


def replace_webp_exif(file: BinaryIO, exif: bytes) -> None:
    """Replace the EXIF block of a WebP file; a file without one is left unchanged."""
    positions = [(position, length) for name, position, length in _read_riff_chunks(file) if name == b"EXIF"]
    for position, length in positions[:1]:
        file.seek(position + 8 + length + length % 2)
        rest = file.read()
        file.seek(position)
        file.write(struct.pack("<4sI", b"EXIF", len(exif)) + exif + b"\0" * (len(exif) % 2) + rest)
        size = file.tell()
        file.truncate()
        file.seek(4)
        file.write(struct.pack("<I", size - 8))


# Orientation and size in EXIF and XMP


def strip_exif_prefix(block: bytes) -> bytes | None:
    """Return an EXIF block from its TIFF header on, or None if it has no such header."""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    return block if len(block) > 8 and block[:4] in (b"II*\0", b"MM\0*") else None


def reset_exif_orientation(block: bytes, width: int, height: int) -> bytes:
    """Return an EXIF block for an upright image of a new size; everything else in the block stays in place.

    Args:
        block: The EXIF block, starting with its TIFF header.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """
    # The tags are Orientation, ImageWidth and ImageLength (TIFF 6.0, §8), and PixelXDimension and PixelYDimension
    # (Exif 2.32, §4.6).
    values = {0x112: 1, 0x100: width, 0x101: height, 0xA002: width, 0xA003: height}
    order = ">" if block[:2] == b"MM" else "<"
    result = bytearray(block)

    def update(directory: int, depth: int) -> None:
        (count,) = struct.unpack_from(f"{order}H", block, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", block, entry)
            code = {3: "H", 4: "I"}.get(kind)
            if tag in values and code and (code == "I" or values[tag] <= 0xFFFF):
                struct.pack_into(f"{order}{code}", result, entry + 8, values[tag])
            elif tag == 0x8769 and depth == 0:
                update(struct.unpack_from(f"{order}I", block, entry + 8)[0], depth + 1)

    with suppress(struct.error):  # no reader finds an orientation in a damaged block either
        update(struct.unpack_from(f"{order}I", block, 4)[0], 0)
    return bytes(result)


def reset_xmp_orientation(packet: bytes) -> bytes:
    """Return an XMP packet whose orientation is that of an upright image."""
    return re.sub(rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>)\s*)[2-8]", rb"\g<1>1", packet)
