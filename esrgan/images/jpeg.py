"""Read and write JPEG files (ITU-T T.81, T.871)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from esrgan.images import samples, vips
from esrgan.images.image import DEFAULT_QUALITY, Dpi, ImageData, NativeBlock
from esrgan.images.source import Source

MAX_JPEG_XMP_BYTES = 0xFFFF - 2 - 29  # the largest segment, less its length field and its name
MAX_JPEG_EXIF_BYTES = 0xFFFF - 2 - 6  # the largest segment, less its length field and "Exif\0\0"


@dataclass
class _Inventory:
    """What a JPEG file holds besides pixels, EXIF, XMP, IPTC and its colour profile."""

    dpi: Dpi = None
    pixel_aspect: tuple[int, int] | None = None
    comments: list[bytes] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read(source: Source) -> ImageData:
    """Read a JPEG file."""
    found = _take_inventory(source.file)
    decoded = vips.decode(source, "jpeg")
    frames = samples.turn_upright(decoded.frames, decoded.fields.get("orientation", 1))
    aspect = found.pixel_aspect
    if aspect and decoded.fields.get("orientation", 1) >= 5:
        aspect = aspect[::-1]
    left_out = [f"{', '.join(dict.fromkeys(found.left_out))} not kept"] if found.left_out else []
    return ImageData(
        tuple(frames),
        "JPEG",
        lossless=False,
        dpi=found.dpi,
        pixel_aspect=aspect,
        native_blocks=tuple(NativeBlock("comment", "comment", text) for text in found.comments),
        changes=tuple(decoded.changes),
        notes=(*decoded.notes, *left_out),
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


def _take_inventory(file: BinaryIO) -> _Inventory:
    """Account for every segment of a JPEG file, and for what follows the image (CIPA DC-007)."""
    file.seek(0)
    data = file.read()
    found = _Inventory()
    position = 2
    while match := _MARKER.search(data, position):
        marker, position = data[match.start() + 1], match.end()
        if marker == _END:
            break
        if marker in _WITHOUT_LENGTH or position + 2 > len(data):
            continue
        end = position + int.from_bytes(data[position : position + 2])
        _add_segment(found, marker, data[position + 2 : end])
        position = end
    rest = data[position:].strip(b"\0")
    if rest and (kind := _describe_rest(rest)) not in found.left_out:
        found.left_out.append(kind)
    return found


_MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)  # in compressed data, 0 follows a byte of 255
_END, _COMMENT, _APP0 = 0xD9, 0xFE, 0xE0
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_EXTRA_IMAGES = "extra images after the photograph (a phone's preview, depth map or gain map)"
# The application segments whose content ImageData holds or that only describe how the pixels are stored.
_KNOWN_SEGMENTS = {
    0xE1: (b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0"),
    0xE2: (b"ICC_PROFILE\0",),
    0xED: (b"Photoshop 3.0\0",),
    0xEE: (b"Adobe",),
}


def _add_segment(found: _Inventory, marker: int, content: bytes) -> None:
    if marker == _COMMENT:
        found.comments.append(content)
    elif marker == _APP0 and content.startswith(b"JFIF\0") and len(content) >= 12:
        unit, x, y = struct.unpack_from(">BHH", content, 7)
        inches = {1: 1.0, 2: 2.54}.get(unit)
        found.dpi = (x * inches, y * inches) if inches and x and y else None
        # Without a unit these are densities: the wider a pixel, the fewer there are.
        found.pixel_aspect = (y, x) if unit == 0 and x and y and x != y else None
    elif marker == 0xE2 and content.startswith(b"MPF\0"):
        found.left_out.append(_EXTRA_IMAGES)
    elif marker == 0xE1 and content.startswith(b"http://ns.adobe.com/xmp/extension/\0"):
        found.left_out.append("extended XMP")
    elif _APP0 <= marker <= 0xEF and not content.startswith(_KNOWN_SEGMENTS.get(marker, ())):
        name = re.match(rb"[ -~]*", content)
        found.left_out.append(f"segment APP{marker - _APP0} {name[0][:40].decode() if name else ''}".rstrip())


def _describe_rest(rest: bytes) -> str:
    """Return what the bytes behind the image are."""
    if b"ftyp" in rest[: 1 << 16]:
        return "the video of a motion photo"
    if rest.startswith(b"\xff\xd8"):
        return _EXTRA_IMAGES
    return f"{len(rest)} bytes behind the image"


def insert_jpeg_metadata(head: bytes, image: ImageData) -> bytes:
    """Return the first 2 bytes of a JPEG file with a JFIF header and the image's EXIF added."""
    x, y = (min(round(value), 0xFFFF) for value in image.dpi or (image.pixel_aspect or (1, 1))[::-1])
    jfif = b"\xff\xe0" + struct.pack(">H5sHBHHBB", 16, b"JFIF\0", 0x0102, 1 if image.dpi else 0, x, y, 0, 0)
    block = b"Exif\0\0" + image.exif if image.exif else b""
    app1 = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block if block else b""
    texts = [each.content for each in image.native_blocks if image.file_format == "JPEG"]
    comments = b"".join(b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text for text in texts)
    return head[:2] + jfif + app1 + comments + head[2:]
