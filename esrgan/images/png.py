"""Read and write PNG files (PNG 3rd edition)."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import BinaryIO

from esrgan.images import samples, vips
from esrgan.images.detect import PNG_SIGNATURE
from esrgan.images.image import Dpi, ImageData
from esrgan.images.source import Source, UnsupportedImageError

# The chunks of PNG 3rd edition, §11.3.2, that define colour, except iCCP, and the text chunks of §11.3.3.
_PNG_COLOUR = (b"cHRM", b"gAMA", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_PNG_XMP = b"XML:com.adobe.xmp\0"
_SRGB_GAMMA = (45455).to_bytes(4)  # 1/2.2
_METRES_PER_INCH = 0.0254
_HEADER_BYTES = 54  # up to the chunk after the header, which may be the encoder's own resolution


def read(source: Source) -> ImageData:
    """Read a PNG file."""
    chunks = list(read_png_chunks(source.file))
    if any(name == b"acTL" for name, _ in chunks):
        raise UnsupportedImageError("one image", "an animated PNG", "save it as an animated .webp or .gif")
    decoded = vips.decode(source, "png")
    frames = samples.drop_colour_if_grey(decoded.frames) if "palette" in decoded.fields else decoded.frames
    frames = samples.turn_upright(frames, decoded.fields.get("orientation", 1))
    return ImageData(
        tuple(frames),
        "PNG",
        dpi=next((parse_png_dpi(content) for name, content in chunks if name == b"pHYs"), None),
        png_chunks=tuple(chunk for chunk in chunks if is_preserved_png_chunk(*chunk)),
        notes=tuple(decoded.notes),
        **decoded.metadata,
    )


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a PNG file."""
    edit = partial(insert_png_metadata, image=image)
    vips.encode(file, image, "PNG", "png", head_length=_HEADER_BYTES, edit=edit)


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
