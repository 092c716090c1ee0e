"""Read, adjust and write the image resources of Photoshop (Adobe Photoshop File Formats Specification)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esrgan.images.exif import make_thumbnail
from esrgan.images.image import ImageData, NativeBlock, find_dpi_factors

_RESOLUTION, _IPTC, _GUIDES, _THUMBNAIL, _DIGEST, _ASPECT = 1005, 1028, 1032, 1036, 1061, 1064
_PATHS = {1025, *range(2000, 3000)}
# What does not depend on the size of the image: captions, copyright, colours of the frame, settings of the printer and
# of the program, and names.
_INDEPENDENT = {*range(1006, 1019), 1020, 1021, 1024, 1026, 1034, 1035, 1037, 1040, 1041, 1044, 1045, 1049, 1051}
_INDEPENDENT |= {1052, 1053, 1054, 1057, 1062, 1069, 1072, 1082, 1083, 10000}
_LABELS = {1030: "JPEG quality", 1032: "guides", 1033: "thumbnail", 1050: "slices", 1064: "pixel aspect ratio"}
_HEADER = re.compile(rb"(8BIM|AgHg|DCSR|MeSa|PHUT)(..)(.)", re.DOTALL)


@dataclass
class Resources:
    """The resources in a file.

    Attributes:
        iptc: The IPTC block.
        kept: The resources that can be kept.
        left_out: What the others are.
    """

    iptc: bytes | None = None
    kept: list[NativeBlock] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_resources(data: bytes, orientation: int) -> Resources:
    """Read resources; of an image that has to be turned, what depends on its direction is left out."""
    found = Resources()
    position = 0
    while match := _HEADER.match(data, position):
        start = match.start(3) + (match[3][0] + 2) // 2 * 2  # the name has an even number of bytes with its length
        if start + 4 > len(data):
            break
        end = start + 4 + int.from_bytes(data[start : start + 4])
        if end > len(data):
            break
        number, content = int.from_bytes(match[2]), data[start + 4 : end]
        head = data[position:start]
        position = end + len(content) % 2
        if number == _IPTC and found.iptc is None:
            found.iptc = content
        elif number == _RESOLUTION and len(content) == 16:
            content = content[8:] + content[:8] if orientation >= 5 else content
            found.kept.append(NativeBlock("", number, (head, content)))
        elif number in (_DIGEST, _THUMBNAIL):
            found.kept.append(NativeBlock("", number, (head, content)))
        elif number in _INDEPENDENT or (number in (_GUIDES, _ASPECT, *_PATHS) and orientation == 1):
            found.kept.append(NativeBlock("Photoshop resources", number, (head, content)))
        else:
            label = "path" if number in _PATHS else _LABELS.get(number, f"resource {number}")
            found.left_out.append(f"Photoshop {label}")
    if rest := len(data[position:].strip(b"\0")):
        found.left_out.append(f"{rest} bytes in Photoshop resources")
    return found


def write_resources(image: ImageData) -> bytes:
    """Return the resources of an image, adjusted to its size."""
    blocks = image.native_blocks if image.file_format == "JPEG" else ()
    parts = [(block.key, *block.content) for block in blocks if block.key != "comment"]
    if image.iptc:
        parts.insert(0, (_IPTC, b"8BIM" + struct.pack(">HH", _IPTC, 0), image.iptc))
    return b"".join(_pack(head, _adjust(number, content, image)) for number, head, content in parts)


def _pack(head: bytes, content: bytes) -> bytes:
    return head + struct.pack(">I", len(content)) + content + bytes(len(content) % 2)


def _adjust(number: int, content: bytes, image: ImageData) -> bytes:
    if number == _GUIDES:
        return _adjust_guides(content, image.factors)
    if number == _RESOLUTION:
        x, x_rest, y, y_rest = struct.unpack(">I4sI4s", content)  # fixed-point numbers of pixels per inch
        vertical, horizontal = find_dpi_factors(image.dpi_change, (x / 65536, y / 65536))
        scaled = (min(round(value * factor), 2**32 - 1) for value, factor in ((x, horizontal), (y, vertical)))
        return struct.pack(">I4sI4s", next(scaled), x_rest, next(scaled), y_rest)
    return _make_resource_thumbnail(image.frames[0]) if number == _THUMBNAIL else content


def _adjust_guides(content: bytes, factors: tuple[float, float]) -> bytes:
    """Multiply the places of the guides; vertical ones, whose last byte is 0, follow the width."""
    result = bytearray(content)
    for place in range(16, len(content) - 4, 5):
        (position,) = struct.unpack_from(">i", content, place)
        scaled = round(position * factors[content[place + 4] == 0])
        struct.pack_into(">i", result, place, min(max(scaled, -(2**31)), 2**31 - 1))
    return bytes(result)


def _make_resource_thumbnail(frame: NDArray[Any]) -> bytes:
    data, (width, height) = make_thumbnail(frame if frame.shape[2] >= 3 else np.repeat(frame[..., :1], 3, axis=2))
    row = (width * 24 + 31) // 32 * 4
    return struct.pack(">6I2H", 1, width, height, row, row * height, len(data), 24, 1) + data
