"""Read and write JPEG files (ITU-T T.81, T.871)."""

from __future__ import annotations

import hashlib
import io
import re
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from esrgan.images import photoshop, samples, vips
from esrgan.images.exif import read_orientation, strip_exif_prefix
from esrgan.images.image import DEFAULT_QUALITY, Dpi, ImageData, NativeBlock, describe_left_out
from esrgan.images.jpeg_segments import EXTRA_IMAGES, describe_rest, find_segments
from esrgan.images.source import Decoded, Source, UnsupportedImageError
from esrgan.images.xmp import join_xmp

_COMMENT, _APP0, _APP1, _APP2, _APP13, _APP14 = 0xFE, 0xE0, 0xE1, 0xE2, 0xED, 0xEE
_MAX_SEGMENT_BYTES = 0xFFFF - 2  # without the field that holds the length
_EXIF, _PROFILE, _PHOTOSHOP = b"Exif\0\0", b"ICC_PROFILE\0", b"Photoshop 3.0\0"
_XMP, _EXTENDED_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
# A packet that only says that there is more (XMP specification, part 3, §1.1.3.1).
_MAIN_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="%s"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
_ARITHMETIC = "arithmetic-coded "
_CODINGS = {
    **dict.fromkeys((0xC3, 0xCB), "lossless "),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical "),
    **dict.fromkeys((0xC9, 0xCA), _ARITHMETIC),
}
_JPEG_LS = 0xF7
_SEQUENTIAL = (0xC0, 0xC1)
_FRAME_HEADERS = {*range(0xC0, 0xD0), _JPEG_LS} - {0xC4, 0xC8, 0xCC}


@dataclass
class _Inventory:
    """What a JPEG file holds besides pixels.

    Attributes:
        segments: Contents of the segments that are understood, by their names.
        coding: Marker of the frame, and bits per sample.
        is_complete: Whether the image has an end.
        left_out: What is not kept.
    """

    segments: dict[bytes, list[bytes]] = field(default_factory=dict)
    coding: tuple[int, int] = (0xC0, 8)
    is_complete: bool = True
    left_out: list[str] = field(default_factory=list)


def read(source: Source) -> ImageData:
    """Read a JPEG file."""
    found = _take_inventory(source.file)
    exif = _take_exif(found)
    orientation = read_orientation(exif or b"")
    resources = photoshop.read_resources(b"".join(found.segments.get(_PHOTOSHOP, [])), orientation)
    dpi, aspect = _read_resolution(found.segments.get(b"JFIF\0", []), is_turned=orientation >= 5)
    metadata: dict[str, Any] = {"exif": exif, "xmp": _take_xmp(found), "iptc": resources.iptc}
    decoded = _decode(source, found.coding)
    if not found.is_complete and _CODINGS.get(found.coding[0]) == _ARITHMETIC:
        raise ValueError("premature end of JPEG image")  # libjpeg fills in what an arithmetic code lacks
    if _PROFILE in found.segments and not (decoded.metadata.get("icc_profile") or decoded.notes or source.is_strict):
        decoded.notes.append("unreadable colour profile not kept")
    comments = [NativeBlock("comment", "comment", text) for text in found.segments.get(b"", [])]
    return ImageData(
        tuple(samples.turn_upright(decoded.frames, orientation)),
        "JPEG",
        lossless=False,
        dpi=dpi,
        pixel_aspect=aspect,
        native_blocks=(*comments, *resources.kept),
        changes=tuple(decoded.changes),
        notes=(*decoded.notes, *describe_left_out([*found.left_out, *resources.left_out])),
        **decoded.metadata | metadata,
    )


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a JPEG file."""
    # optimize_coding would save a few per cent, but needs three times the size of the image in memory.
    vips.encode(
        file,
        image,
        "JPEG",
        keep=vips.KEEP_ICC,
        head_length=2,
        edit=partial(_insert_metadata, image=image),
        Q=quality or DEFAULT_QUALITY,
        subsample_mode="off",
    )


def _decode_without_end(source: Source) -> Decoded | None:
    """Decode an image of one scan that lacks only the marker of its end; return None if it lacks more."""
    source.file.seek(0)
    data = source.file.read().removesuffix(b"\xff")
    # If lines are missing, libjpeg takes them from whatever follows, so they depend on it.
    endings = (bytes(256), bytes(range(255)), bytes(range(254, -1, -1)))
    with suppress(Exception):
        first, *others = (vips.decode(source, edited=io.BytesIO(data + each + b"\xff\xd9")) for each in endings)
        is_complete = all(np.array_equal(first.frames[0], other.frames[0]) for other in others)
        if is_complete and data[data.rfind(b"\xff\xda") + 4] >= first.frames[0].shape[2]:  # the components in the scan
            first.notes.append("the marker of the end was missing")
            return first
    return None


def _decode(source: Source, coding: tuple[int, int]) -> Decoded:
    """Decode the pixels, and name the kind of a JPEG file that cannot be decoded because it is rare."""
    try:
        return vips.decode(source)
    except UnsupportedImageError:
        raise
    except Exception as error:
        marker, bits = coding
        if "premature end" in str(error) and marker in _SEQUENTIAL and (decoded := _decode_without_end(source)):
            return decoded
        kind = _CODINGS.get(marker, "") + ("JPEG-LS" if marker == _JPEG_LS else "JPEG")
        kind += f" of {bits} bits per sample" if bits != 8 else ""
        if kind == "JPEG" or "premature end" in str(error) or "truncated" in str(error):
            raise
        remedy = "convert it to PNG or TIFF with the program that it comes from"
        raise UnsupportedImageError("a baseline or progressive JPEG of 8 bits", f"a {kind}", remedy) from error


def _take_inventory(file: BinaryIO) -> _Inventory:
    """Account for every segment of a JPEG file, and for what follows the image (CIPA DC-007)."""
    file.seek(0)
    data = file.read()
    found = _Inventory()
    segments, end = find_segments(data, 2)
    for marker, content in segments:
        name = next((name for kind, name in _KNOWN_SEGMENTS if kind == marker and content.startswith(name)), None)
        if marker in _FRAME_HEADERS:
            found.coding = (marker, content[0] if content else 8)
        elif name is not None:
            found.segments.setdefault(name, []).append(content[len(name) :])
        elif marker == _APP2 and content.startswith(b"MPF\0"):
            found.left_out.append(EXTRA_IMAGES)
        elif _APP0 <= marker <= _APP0 + 15:
            text = re.match(rb"[ -~]*", content)
            found.left_out.append(f"segment APP{marker - _APP0} {text[0][:40].decode() if text else ''}".rstrip())
    if any(len(content) > 8 and content[7] and content[8] for content in found.segments.get(b"JFIF\0", [])):
        found.left_out.append("thumbnail in JFIF")
    found.is_complete = end is not None
    found.left_out += describe_rest(data[end:]) if end else []
    return found


# The segments whose content ImageData holds, or that only describe how the pixels are stored.
_KNOWN_SEGMENTS = [(_COMMENT, b""), (_APP0, b"JFIF\0"), (_APP1, b"Exif\0"), (_APP1, _XMP), (_APP1, _EXTENDED_XMP)]
_KNOWN_SEGMENTS += [(_APP2, _PROFILE), (_APP13, _PHOTOSHOP), (_APP14, b"Adobe")]


def _take_exif(found: _Inventory) -> bytes | None:
    """Return the EXIF block; one that is too large for a segment continues in the next one."""
    blocks: list[bytes] = []
    for content in found.segments.get(b"Exif\0", []):
        block = strip_exif_prefix(content[1:])
        if block:
            blocks.append(block)
        elif blocks:
            blocks[-1] += content[1:]
    if len(set(blocks)) > 1:
        found.left_out.append("a second EXIF")
    return blocks[0] if blocks else None


def _take_xmp(found: _Inventory) -> bytes | None:
    """Return the XMP packet, with the properties of its extension (XMP specification, part 3, §1.1.3.1)."""
    packets = found.segments.get(_XMP, [])
    packet = packets[0] if packets else None
    if len(set(packets)) > 1:
        found.left_out.append("a second XMP")
    extensions: dict[tuple[bytes, int], dict[int, bytes]] = {}
    for content in found.segments.get(_EXTENDED_XMP, []):
        offset = int.from_bytes(content[36:40])
        extensions.setdefault((content[:32], int.from_bytes(content[32:36])), {})[offset] = content[40:]
    for (name, length), parts in extensions.items():
        extension = b"".join(parts[offset] for offset in sorted(parts))
        joined = None
        if packet and re.search(rb"HasExtendedXMP\W+%s" % re.escape(name), packet) and len(extension) == length:
            joined = join_xmp(packet, extension)
        if joined is None:
            found.left_out.append("extended XMP")
        packet = joined or packet
    return packet


def _read_resolution(headers: list[bytes], *, is_turned: bool) -> tuple[Dpi, tuple[int, int] | None]:
    """Return resolution and pixel aspect ratio of the upright image, given the contents of JFIF headers."""
    for content in headers:
        if len(content) < 7:
            continue
        unit, x, y = struct.unpack_from(">BHH", content, 2)
        if is_turned:
            x, y = y, x
        inches = {1: 1.0, 2: 2.54}.get(unit)
        # Without a unit these are densities: the wider a pixel, the fewer there are.
        aspect = (y, x) if unit == 0 and x and y and x != y else None
        return (x * inches, y * inches) if inches and x and y else None, aspect
    return None, None


def _insert_metadata(head: bytes, image: ImageData) -> bytes:
    """Return the first 2 bytes of a JPEG file with a JFIF header and the image's metadata added."""
    x, y = (min(round(value), 0xFFFF) for value in image.dpi or (image.pixel_aspect or (1, 1))[::-1])
    jfif = struct.pack(">5sHBHHBB", b"JFIF\0", 0x0102, 1 if image.dpi else 0, x, y, 0, 0)
    parts = [head[:2], _pack(_APP0, b"", jfif), _pack(_APP1, _EXIF, image.exif or b""), _pack_xmp(image.xmp or b"")]
    parts.append(_pack(_APP13, _PHOTOSHOP, photoshop.write_resources(image)))
    if image.file_format == "JPEG":
        parts += [_pack(_COMMENT, b"", block.content) for block in image.native_blocks if block.key == "comment"]
    return b"".join([*parts, head[2:]])


def _pack(marker: int, header: bytes, content: bytes) -> bytes:
    """Return content in as many segments as it needs, each with the same header."""
    size = _MAX_SEGMENT_BYTES - len(header)
    parts = [header + content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(struct.pack(">BBH", 0xFF, marker, len(part) + 2) + part for part in parts)


def _pack_xmp(packet: bytes) -> bytes:
    """Return an XMP packet in one segment, or as an extension if it is too large."""
    if len(_XMP + packet) <= _MAX_SEGMENT_BYTES:
        return _pack(_APP1, _XMP, packet)
    extension = re.sub(rb"<\?xpacket[^>]*\?>", b"", packet).strip(b"\0\r\n\t ")
    name = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper().encode()
    result = _pack(_APP1, _XMP, _MAIN_XMP % name)
    size = 65000
    for start in range(0, len(extension), size):
        header = _EXTENDED_XMP + name + struct.pack(">II", len(extension), start)
        result += _pack(_APP1, header, extension[start : start + size])
    return result
