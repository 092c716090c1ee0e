"""Read and write WebP files (RFC 9649)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from esrgan.images import samples, vips
from esrgan.images.image import DEFAULT_QUALITY, ImageData
from esrgan.images.source import Source


def read(source: Source) -> ImageData:
    """Read a WebP file."""
    decoded = vips.decode(source, "webp", n=-1)
    frames = decoded.frames
    is_animation = len(frames) > 1
    if is_animation:
        frames = samples.drop_alpha_if_opaque(frames)
    if not source.is_strict:
        frames = samples.drop_colour_if_grey(frames)
    return ImageData(
        tuple(samples.turn_upright(frames, decoded.fields.get("orientation", 1))),
        "WEBP",
        lossless=is_webp_lossless(source.file),
        delays_ms=tuple(decoded.fields.get("delay", ())) if is_animation else (),
        loop=decoded.fields.get("loop", 0) if is_animation else 0,
        notes=tuple(decoded.notes),
        **decoded.metadata,
    )


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a WebP file, lossless if the image was lossless and no quality is given."""
    keep = vips.KEEP_XMP | vips.KEEP_IPTC | vips.KEEP_ICC | (vips.KEEP_EXIF if image.exif else 0)
    options: dict[str, Any] = {"Q": quality or DEFAULT_QUALITY, "smart_subsample": True}
    if image.lossless and quality is None:
        options = {"lossless": True, "exact": True}
    vips.encode(file, image, "WEBP", "webp", keep=keep, **options)
    if image.exif:
        replace_webp_exif(file, image.exif)


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
