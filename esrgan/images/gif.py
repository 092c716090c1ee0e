"""Read and write GIF files (GIF89a)."""

from __future__ import annotations

from typing import BinaryIO

from esrgan.images import samples, vips
from esrgan.images.image import ImageData
from esrgan.images.source import Source


def read(source: Source) -> ImageData:
    """Read a GIF file."""
    source.file.seek(0)
    count = count_gif_frames(source.file.read())
    decoded = vips.decode(source, "gif", n=-1)
    if count != len(decoded.frames):
        raise ValueError(f"only {len(decoded.frames)} of {count} images can be read")
    frames = samples.drop_alpha_if_opaque(decoded.frames)
    if not source.is_strict:
        frames = samples.drop_colour_if_grey(frames)
    is_animation = len(frames) > 1
    return ImageData(
        tuple(frames),
        "GIF",
        delays_ms=tuple(decoded.fields.get("delay", ())) if is_animation else (),
        loop=decoded.fields.get("loop", 0) if is_animation else 0,
        notes=tuple(decoded.notes),
        **decoded.metadata,
    )


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a GIF file."""
    keep = vips.KEEP_XMP | vips.KEEP_IPTC | vips.KEEP_ICC
    vips.encode(file, image, "GIF", "gif", keep=keep, keep_duplicate_frames=True, effort=7)


def count_gif_frames(data: bytes) -> int:
    """Return the number of frames in a GIF file.

    Raises:
        ValueError: The file ends within a frame.
    """
    frames = 0
    try:
        position = 13 + _gif_palette_bytes(data[10])
        while position < len(data) and data[position] != 0x3B:
            if data[position] == 0x2C:
                frames += 1
                position += 11 + _gif_palette_bytes(data[position + 9])
            else:  # an extension
                position += 2
            while data[position]:
                position += 1 + data[position]
            position += 1
    except IndexError as error:
        raise ValueError("the file is truncated") from error
    return frames


def _gif_palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
