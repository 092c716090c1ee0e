"""Read and write BMP files."""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

from esrgan.images import samples, vips
from esrgan.images.image import Dpi, ImageData
from esrgan.images.source import Source, UnsupportedImageError

_METRES_PER_INCH = 0.0254
_BMP_ROWS = 256


def read(source: Source) -> ImageData:
    """Read a BMP file."""
    from PIL.BmpImagePlugin import BmpImageFile  # The pixel limit of Image.open would be too low here.

    source.file.seek(0)
    image = BmpImageFile(source.file)
    source.check_pixel_count(image.width * image.height)
    mode = image.mode if image.mode in ("L", "RGB", "RGBA") else {"1": "L", "P": "RGB"}.get(image.mode)
    if mode is None:
        raise UnsupportedImageError("grey or RGB", f"Pillow mode {image.mode}", "convert it to RGB")
    if source.header_only and mode == image.mode:
        pixels = np.broadcast_to(np.uint8(0), (image.height, image.width, len(mode)))
    else:
        pixels = np.array(image.convert(mode)).reshape(image.height, image.width, -1)
    frames = samples.drop_colour_if_grey([pixels]) if image.mode == "P" else [pixels]
    return ImageData(tuple(frames), "BMP", dpi=image.info.get("dpi"))


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a BMP file in blocks of rows, because Pillow would copy the whole image first."""
    pixels = image.frames[0]
    if pixels.dtype != np.uint8:
        vips_image = vips.to_vips_image(image, "BMP")
        pixels = np.frombuffer(vips_image.write_to_memory(), np.uint8).reshape(pixels.shape)
    file.write(make_bmp_header(pixels.shape, image.dpi))
    padding = -pixels[0].size % 4
    for end in range(len(pixels), 0, -_BMP_ROWS):  # BMP stores rows from the bottom up and blue first
        rows = pixels[max(end - _BMP_ROWS, 0) : end][::-1, :, ::-1]
        file.write(np.pad(rows.reshape(len(rows), -1), ((0, 0), (0, padding))).tobytes())


def make_bmp_header(shape: tuple[int, ...], dpi: Dpi) -> bytes:
    """Return the start of a BMP file, up to its rows of grey or RGB pixels.

    It has a file header, a BITMAPINFOHEADER and, for grey images, a palette of greys.
    """
    height, width, channels = shape
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256)) if channels == 1 else b""
    size, start = height * (-(-width * channels // 4) * 4), 54 + len(palette)
    x, y = (round(value / _METRES_PER_INCH) for value in dpi or (0, 0))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8 * channels, 0, size, x, y, len(palette) // 4, 0)
    return struct.pack("<2sIII", b"BM", start + size, 0, start) + info + palette
