"""Adjust EXIF blocks (Exif 2.32)."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray


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


def adjust_exif(block: bytes, frame: NDArray[Any], factors: tuple[float, float]) -> bytes:
    """Return an EXIF block for an upright image of a new size; everything else in the block stays in place.

    Orientation and size are set, the focal plane's pixels per unit multiplied, and a thumbnail is made anew.

    Args:
        block: The EXIF block, starting with its TIFF header.
        frame: The image (H, W, C).
        factors: How many times larger height and width are than those of the image that was read.
    """
    height, width = frame.shape[:2]
    # The tags are Orientation, ImageWidth and ImageLength (TIFF 6.0, §8), and PixelXDimension and PixelYDimension
    # (Exif 2.32, §4.6).
    values = {0x112: 1, 0x100: width, 0x101: height, 0xA002: width, 0xA003: height}
    order = ">" if block[:2] == b"MM" else "<"
    result = bytearray(block)

    def update(directory: int, depth: int) -> int:
        (count,) = struct.unpack_from(f"{order}H", block, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _, offset = struct.unpack_from(f"{order}HHII", block, entry)
            code = {3: "H", 4: "I"}.get(kind)
            if tag in values and code and (code == "I" or values[tag] <= 0xFFFF):
                struct.pack_into(f"{order}{code}", result, entry + 8, values[tag])
            elif tag in (0xA20E, 0xA20F) and kind == 5:  # FocalPlaneXResolution and FocalPlaneYResolution
                top = round(struct.unpack_from(f"{order}I", block, offset)[0] * factors[tag == 0xA20E])
                struct.pack_into(f"{order}I", result, offset, min(top, 2**32 - 1))
            elif tag == 0x8769 and depth == 0:
                update(offset, depth + 1)
        return int(directory + 2 + 12 * count)

    with suppress(struct.error):  # no reader finds an orientation in a damaged block either
        following = update(struct.unpack_from(f"{order}I", block, 4)[0], 0)
        if thumbnails := struct.unpack_from(f"{order}I", block, following)[0]:
            _replace_thumbnail(result, order, thumbnails, frame)
    return bytes(result)


def _replace_thumbnail(block: bytearray, order: str, directory: int, frame: NDArray[Any]) -> None:
    """Put a small JPEG of the image at the end of a block, and clear the thumbnail in it (Exif 2.32, §4.5.5)."""
    (count,) = struct.unpack_from(f"{order}H", block, directory)
    entries = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHII", block, entry)
        entries[tag] = entry, kind, value
    if 0x201 not in entries or 0x202 not in entries:
        return
    old, length = entries[0x201][2], entries[0x202][2]
    data, (width, height) = _make_thumbnail(frame)
    block[old : old + length] = bytes(min(length, max(len(block) - old, 0)))
    if old + length >= len(block):
        del block[old:]
    else:
        block += bytes(len(block) % 2)
        old = len(block)
    block += data
    values = {0x201: old, 0x202: len(data), 0x112: 1, 0x100: width, 0x101: height}
    for tag, value in values.items():
        if tag in entries:
            entry, kind, _ = entries[tag]
            struct.pack_into(f"{order}{'H' if kind == 3 else 'I'}", block, entry + 8, value)


def _make_thumbnail(frame: NDArray[Any]) -> tuple[bytes, tuple[int, int]]:
    """Return a JPEG of at most 160 × 160 pixels of an image, and its width and height."""
    from PIL import Image

    step = max(max(frame.shape[:2]) // 640, 1)
    pixels = frame[::step, ::step, : 3 if frame.shape[2] >= 3 else 1]
    peak = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
    pixels = (np.nan_to_num(pixels / peak).clip(0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((160, 160))
    memory = io.BytesIO()
    image.save(memory, "JPEG", quality=80)
    return memory.getvalue(), image.size
