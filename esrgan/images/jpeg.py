"""Read and write JPEG files (ITU-T T.81, T.871)."""

from __future__ import annotations

import struct
from functools import partial
from typing import BinaryIO

from esrgan.images import samples, vips
from esrgan.images.image import DEFAULT_QUALITY, Dpi, ImageData
from esrgan.images.source import Source

MAX_JPEG_EXIF_BYTES = 0xFFFF - 2 - 6  # the largest segment, less its length field and "Exif\0\0"


def read(source: Source) -> ImageData:
    """Read a JPEG file."""
    dpi, is_multiple = read_jpeg_header(source.file)
    decoded = vips.decode(source, "jpeg")
    if is_multiple:
        decoded.notes.append("extra images after the photograph not kept (a phone's preview, depth map or gain map)")
    frames = samples.turn_upright(decoded.frames, decoded.fields.get("orientation", 1))
    return ImageData(
        tuple(frames),
        "JPEG",
        lossless=False,
        dpi=dpi,
        changes=tuple(decoded.changes),
        notes=tuple(decoded.notes),
        **decoded.metadata,
    )


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a JPEG file."""
    # optimize_coding would save a few per cent, but needs three times the size of the image in memory.
    vips.encode(
        file,
        image,
        "JPEG",
        "jpeg",
        keep=vips.KEEP_XMP | vips.KEEP_IPTC | vips.KEEP_ICC,
        head_length=2,
        edit=partial(insert_jpeg_metadata, image=image),
        Q=quality or DEFAULT_QUALITY,
        subsample_mode="off",
    )


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
    x, y = (min(round(value), 0xFFFF) for value in image.dpi or (image.pixel_aspect or (1, 1))[::-1])
    jfif = b"\xff\xe0" + struct.pack(">H5sHBHHBB", 16, b"JFIF\0", 0x0102, 1 if image.dpi else 0, x, y, 0, 0)
    block = b"Exif\0\0" + image.exif if image.exif else b""
    app1 = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block if block else b""
    return head[:2] + jfif + app1 + head[2:]
