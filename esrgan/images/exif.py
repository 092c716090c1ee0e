"""Adjust EXIF blocks (Exif 2.32)."""

from __future__ import annotations

import struct
from contextlib import suppress


def strip_exif_prefix(block: bytes) -> bytes | None:
    """Return an EXIF block from its TIFF header on, or None if it has no such header."""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    return block if len(block) > 8 and block[:4] in (b"II*\0", b"MM\0*") else None


def read_orientation(block: bytes) -> int:
    """Return the orientation in an EXIF block that starts with its TIFF header, or 1 if it has none that is valid."""
    order = ">" if block[:2] == b"MM" else "<"
    with suppress(struct.error):
        (directory,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, entry)
            if tag == 0x112 and kind == 3:
                return int(value) if 1 <= value <= 8 else 1
    return 1


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
