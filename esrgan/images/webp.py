"""Read and write WebP files (RFC 9649)."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from esrgan.images import exif, samples, vips
from esrgan.images.image import DEFAULT_QUALITY, ImageData, NativeBlock, describe_left_out
from esrgan.images.source import Source

_KNOWN_CHUNKS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ")
_SHORTEST_MS = 11  # libvips changes shorter delays to 100 ms


def read(source: Source) -> ImageData:
    """Read a WebP file."""
    decoded = vips.decode(source, n=-1)
    chunks = list(_walk(source.file))
    blocks = [_read(source.file, position + 8, length) for name, position, length in chunks if name == b"EXIF"]
    orientation = exif.read_orientation(exif.strip_exif_prefix(b"".join(blocks[:1])) or b"")
    frames = decoded.frames
    is_animation = len(frames) > 1
    if is_animation:
        frames = samples.drop_alpha_if_opaque(frames)
    if not source.is_strict:
        frames = samples.drop_colour_if_grey(frames)
    delays = [_read_duration(source.file, position) for name, position, _ in chunks if name == b"ANMF"]
    # The background colour of an animation, which viewers need not show.
    backgrounds = [_read(source.file, position + 8, 4) for name, position, _ in chunks if name == b"ANIM"]
    if is_animation and len(delays) != len(frames):
        raise ValueError(f"only {len(frames)} of {len(delays)} frames can be read")
    return ImageData(
        tuple(samples.turn_upright(frames, orientation)),
        "WEBP",
        lossless=_is_lossless(source.file, chunks),
        delays_ms=tuple(delays) if is_animation else (),
        loop=decoded.fields.get("loop", 0) if is_animation else 0,
        native_blocks=tuple(NativeBlock("", "background", each) for each in backgrounds if is_animation),
        notes=(*decoded.notes, *_describe_rest(source.file, {name for name, _, _ in chunks})),
        **decoded.metadata,
    )


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a WebP file, lossless if the image was lossless and no quality is given."""
    keep = vips.KEEP_XMP | vips.KEEP_ICC | (vips.KEEP_EXIF if image.exif else 0)
    options: dict[str, Any] = {"Q": quality or DEFAULT_QUALITY, "smart_subsample": True}
    if image.lossless and quality is None:
        options = {"lossless": True, "exact": True}
    longer = tuple(delay + _SHORTEST_MS for delay in image.delays_ms)
    vips.encode(file, dataclasses.replace(image, delays_ms=longer), "WEBP", keep=keep, **options)
    if image.exif:
        _replace_exif(file, image.exif)
    if image.delays_ms and len(image.frames) > 1:
        _restore_animation(file, image)


def _walk(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, position and length of a WebP file's chunks."""
    position, end = 12, _stated_size(file)
    while position < end and len(head := _read(file, position, 8)) == 8:
        name, length = struct.unpack("<4sI", head)
        yield name, position, length
        position += 8 + length + length % 2


def _read(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


def _stated_size(file: BinaryIO) -> int:
    """Return the size of a WebP file in bytes according to its header."""
    length = int.from_bytes(_read(file, 4, 4), "little")
    return 8 + length + length % 2


def _read_duration(file: BinaryIO, position: int) -> int:
    """Return how many milliseconds the frame in the ANMF chunk at a position is shown."""
    return int.from_bytes(_read(file, position + 8 + 12, 3), "little")


def _describe_rest(file: BinaryIO, names: set[bytes]) -> list[str]:
    """Return messages about chunks and bytes that are left out, given the names of all chunks."""
    unknown = ", ".join(sorted(name.decode("ascii", "backslashreplace").strip() for name in names - {*_KNOWN_CHUNKS}))
    behind = file.seek(0, os.SEEK_END) - _stated_size(file)
    return describe_left_out([f"WebP chunks {unknown}"] if unknown else [], behind)


def _restore_animation(file: BinaryIO, image: ImageData) -> None:
    """Write the delays and the background colour that libvips would have changed.

    Equal frames may have become one, which is shown for the sum of their delays.
    """
    delays = iter(image.delays_ms)
    background = [block.content for block in image.native_blocks if block.key == "background"]
    for name, position, _ in list(_walk(file)):
        if name == b"ANIM" and background and image.file_format == "WEBP":
            file.seek(position + 8)
            file.write(background[0])
        elif name == b"ANMF":
            total, written = 0, _read_duration(file, position)
            while written > 0 and (delay := next(delays, None)) is not None:
                total, written = total + delay, written - delay - _SHORTEST_MS
            file.seek(position + 8 + 12)
            file.write(total.to_bytes(3, "little"))


def _is_lossless(file: BinaryIO, chunks: list[tuple[bytes, int, int]]) -> bool:
    """Return whether the first frame of a WebP file is compressed without loss."""
    for name, position, _ in chunks:
        if name in (b"ANMF", b"VP8L", b"VP8 "):
            return (_read(file, position + 8 + 16, 4) if name == b"ANMF" else name) == b"VP8L"
    return False


def _replace_exif(file: BinaryIO, block: bytes) -> None:
    """Replace the EXIF block of a WebP file; a file without one is left unchanged."""
    positions = [(position, length) for name, position, length in _walk(file) if name == b"EXIF"]
    for position, length in positions[:1]:
        file.seek(position + 8 + length + length % 2)
        rest = file.read()
        file.seek(position)
        file.write(struct.pack("<4sI", b"EXIF", len(block)) + block + b"\0" * (len(block) % 2) + rest)
        size = file.tell()
        file.truncate()
        file.seek(4)
        file.write(struct.pack("<I", size - 8))
