"""Read and write GIF files (GIF89a)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

from esrgan.images import samples, vips
from esrgan.images.image import ImageData, NativeBlock, describe_left_out
from esrgan.images.source import Source, UnsupportedImageError

_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_XMP, _ICC = b"XMP DataXMP", b"ICCRGBG1012"
_TRANSPARENT_FRAME = b"!\xf9\4\1\0\0\0\0," + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x08\2\x4c\1\0;"
_XMP_TRAILER = bytes([1, *range(255, -1, -1), 0])  # XMP specification, part 3: leads readers to the end of the packet


def read(source: Source) -> ImageData:
    """Read a GIF file."""
    source.file.seek(0)
    stored = source.file.read()
    data = _remove_gaps(stored)
    found = _Inventory(data)
    if found.has_partial_image:
        if source.is_strict and len(found.delays_ms) == 1:
            raise UnsupportedImageError("an image that fills its canvas", "one that is smaller", "convert it to .png")
        # Without a transparent frame, libvips makes what no frame has covered opaque and black.
        data = data[: found.end] + _TRANSPARENT_FRAME
    if data != stored:
        width, height = struct.unpack("<HH", data[6:10])
        source.check_pixel_count(width * height * len(found.delays_ms), 4)
    edited = io.BytesIO(data) if data != stored else None
    decoded = vips.decode(source, edited=edited, n=len(found.delays_ms) if edited else -1)
    if len(found.delays_ms) != len(decoded.frames):
        raise ValueError(f"only {len(decoded.frames)} of {len(found.delays_ms)} images can be read")
    frames = samples.drop_alpha_if_opaque(decoded.frames)
    if not source.is_strict:
        frames = samples.drop_colour_if_grey(frames)
    is_animation = len(frames) > 1
    aspect = Fraction(data[12] + 15, 64) if data[12] else Fraction(1)
    return ImageData(
        tuple(frames),
        "GIF",
        delays_ms=tuple(found.delays_ms) if is_animation else (),
        loop=decoded.fields.get("loop", 0) if is_animation else 0,
        pixel_aspect=aspect.as_integer_ratio() if aspect != 1 else None,
        native_blocks=tuple(NativeBlock("comment", "comment", text) for text in found.comments),
        notes=(*decoded.notes, *found.notes),
        **(decoded.metadata | found.metadata),
    )


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a GIF file."""
    vips.encode(file, image, "GIF", keep_duplicate_frames=True, effort=7)
    file.seek(0)
    data = file.read()
    places = [start + 2 for kind, start, _ in _walk(data) if kind == 0xF9]
    for place, delay in zip(places, image.delays_ms, strict=False):
        file.seek(place)
        file.write(min((delay + 5) // 10, 0xFFFF).to_bytes(2, "little"))
    if image.pixel_aspect:
        width, height = image.pixel_aspect
        file.seek(12)
        file.write(bytes([min(max(round(64 * width / height) - 15, 1), 255)]))
    blocks = image.native_blocks if image.file_format == "GIF" else ()
    extensions = [b"!\xfe" + _split(block.content) for block in blocks]
    if image.icc_profile:
        extensions.append(b"!\xff\x0b" + _ICC + _split(image.icc_profile))
    if image.xmp:
        extensions.append(b"!\xff\x0b" + _XMP + image.xmp + _XMP_TRAILER)
    file.seek(len(data) - 1)
    file.write(b"".join(extensions) + b";")


class _Inventory:
    """What a GIF file holds; a file that ends within an image is refused.

    Attributes:
        delays_ms: How long each image is shown.
        comments: Its comments.
        metadata: ``icc_profile`` and ``xmp``, if it has them.
        notes: Messages about what is left out.
        has_partial_image: Whether an image does not fill the canvas.
        end: Where the file says that it ends.
    """

    def __init__(self, data: bytes) -> None:
        self.delays_ms = list[int]()
        self.comments, self.metadata = list[bytes](), dict[str, bytes]()
        self.has_partial_image, self.end = False, 0
        delay, left_out = 0, dict[str, None]()
        for kind, start, end in _walk(data):
            if kind == "image":
                self.delays_ms.append(delay)
                self.has_partial_image |= data[start + 1 : start + 9] != bytes(4) + data[6:10]
                delay = 0
            elif kind == 0xF9:
                delay = 10 * int.from_bytes(data[start + 2 : start + 4], "little")
            elif kind == 0xFE:
                self.comments.append(_join(data[start:end]))
            elif kind == 0xFF and data[start + 1 : start + 12] == _XMP:
                self.metadata["xmp"] = data[start + 12 : end].removesuffix(_XMP_TRAILER)
            elif kind == 0xFF and data[start + 1 : start + 12] == _ICC:
                self.metadata["icc_profile"] = _join(data[start + 12 : end])
            elif kind == 0xFF and data[start + 1 : start + 12] not in _LOOPS:
                left_out[f"extension {data[start + 1 : start + 12].decode('ascii', 'backslashreplace')}"] = None
            elif kind == 0x01:
                left_out["plain text"] = None
            elif kind not in (0xFF, "end"):
                left_out[f"extension {kind}"] = None
            self.end = start
        names = [f"GIF {', '.join(left_out)}"] if left_out else []
        self.notes = describe_left_out(names, len(data) - end)


def _walk(data: bytes) -> Iterator[tuple[int | str, int, int]]:
    """Yield "image", "gap" or "end" with its place, or the number of an extension with the place of its content.

    Raises:
        ValueError: The file ends within a frame.
    """
    try:
        position = 13 + _palette_bytes(data[10])
        while position < len(data) and data[position] != 0x3B:
            kind: int | str = data[position + 1]
            start = position
            if data[position] == 0x2C:
                kind = "image"
                position += 11 + _palette_bytes(data[position + 9])
            elif data[position] == 0x21:  # an extension
                position += 2
                start = position
            elif data[position] == 0:  # some programs write one more byte between blocks
                position += 1
                yield "gap", start, position
                continue
            else:
                raise ValueError("a block of an unknown kind")
            while data[position]:
                position += 1 + data[position]
            position += 1
            yield kind, start, position
    except IndexError as error:
        raise ValueError("the file is truncated") from error
    yield "end", position, min(position + 1, len(data))


def _remove_gaps(data: bytes) -> bytes:
    """Return a file without zeros between its blocks, where libvips would take it for complete."""
    gaps = [start for kind, start, _ in _walk(data) if kind == "gap"]
    return b"".join(
        data[start:end] for start, end in zip([0, *(gap + 1 for gap in gaps)], [*gaps, len(data)], strict=True)
    )


def _join(blocks: bytes) -> bytes:
    """Return the content of sub-blocks, each of which starts with its length."""
    position, parts = 0, []
    while position < len(blocks) and blocks[position]:
        parts.append(blocks[position + 1 : position + 1 + blocks[position]])
        position += 1 + blocks[position]
    return b"".join(parts)


def _split(content: bytes) -> bytes:
    """Return content as sub-blocks, each of which starts with its length."""
    parts = [content[start : start + 255] for start in range(0, len(content), 255)]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
