"""Read and write PPM, PGM and PBM files (Netpbm)."""

from __future__ import annotations

import os
import re
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from esrgan.images import pillow, vips
from esrgan.images.image import ImageData, describe_left_out
from esrgan.images.source import Source, UnsupportedImageError

_NEWLINE = 2  # bytes, at most


def read(source: Source) -> ImageData:
    """Read a PPM, PGM or PBM file."""
    source.file.seek(0)
    start = source.file.read(4096)
    space = rb"(?:\s|#[^\r\n]*[\r\n])+"
    header = rb"P([1-6])" + space + rb"(\d+)" + space + rb"(\d+)"
    if not start.startswith((b"P1", b"P4")):  # a bitmap has no largest value; its samples may look like one
        header += space + rb"(\d+)"
    found = re.match(header, start)
    if not found:
        raise ValueError("its header is not complete")
    kind, width, height, peak = map(int, [*found.groups(), 1][:4])
    notes, changes = ["comment not kept"] if b"#" in found[0] else [], []
    if kind not in (1, 4) and peak not in (255, 65535):
        changes.append(f"samples of 0 to {peak} changed to 0 to {255 if peak < 255 else 65535}")
    if kind == 3 and peak > 255:
        raise UnsupportedImageError("binary samples", "16-bit samples as text", "convert it to a .png of 16 bits")
    if kind == 6 and peak > 255:  # Pillow would reduce it to 8 bits
        source.check_pixel_count(width * height, 6)
        source.file.seek(found.end() + 1)
        content = source.file.read(6 * width * height)
        if len(content) < 6 * width * height:
            raise ValueError("the file is truncated")
        data = np.frombuffer(content, ">u2").reshape(height, width, 3)
        pixels = data.astype(np.uint16) if peak == 65535 else np.rint(data * (65535 / peak)).clip(0, 65535)
        frame: NDArray[Any] = pixels.astype(np.uint16)
    else:
        frame = pillow.decode_any(source, "PPM")[1]
    if kind > 3:
        size = height * -(-width // 8) if kind == 4 else frame.nbytes
        behind = source.file.seek(0, os.SEEK_END) - (found.end() + 1 + size)
        source.file.seek(-max(min(behind, _NEWLINE), 0), os.SEEK_END)
        if behind > _NEWLINE or source.file.read().strip():  # some programs end the file with a newline
            notes += describe_left_out((), behind)
    elif _is_followed_by_another(source.file, found.end()):
        notes.append("further images in the file not kept")
    return ImageData((frame,), "PPM", changes=tuple(changes), notes=tuple(notes))


def _is_followed_by_another(file: BinaryIO, position: int) -> bool:
    """Return whether the samples of an image, which are numbers in text, are followed by the header of another one."""
    file.seek(position)
    return re.search(rb"\sP[1-6]\s", re.sub(rb"#[^\r\n]*", b"", file.read())) is not None


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a PPM or, of a grey image, a PGM file."""
    pixels = vips.convert_samples(image, "PPM")
    height, width, channels = pixels.shape
    peak, order = (255, "u1") if pixels.dtype == np.uint8 else (65535, ">u2")
    file.write(f"P{5 if channels == 1 else 6}\n{width} {height}\n{peak}\n".encode())
    file.write(np.ascontiguousarray(pixels, order).data)
