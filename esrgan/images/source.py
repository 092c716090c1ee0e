"""Define the file that an image is read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from esrgan.text import format_size

MAX_PIXELS = 2**29
"""Largest number of pixels in a file, all frames together (23,000 × 23,000): a guard against decompression bombs."""


class UnsupportedImageError(Exception):
    """An image cannot be used. The arguments are those of ``Problem`` after the place: expected, got and remedy."""


@dataclass(frozen=True)
class Source:
    """An open image file and how it is to be read.

    Attributes:
        path: Path of the file.
        file: The open file.
        file_format: A name in ``FILE_FORMATS``.
        max_pixels: Largest accepted number of pixels, all frames together; None means ``MAX_PIXELS``.
        max_bytes: Largest accepted number of bytes of all samples; None means any.
        is_strict: Whether samples must be returned exactly as they are decoded, with all channels of the file.
        header_only: Whether only the shape of the frames matters. Their samples are then 0 in strict reading.
    """

    path: Path
    file: BinaryIO
    file_format: str
    max_pixels: int | None = None
    max_bytes: int | None = None
    is_strict: bool = False
    header_only: bool = False

    def check_pixel_count(self, pixels: int, bytes_per_pixel: int = 1) -> None:
        """Check the number of pixels, all frames together, before they are decoded.

        Args:
            pixels: The number of pixels.
            bytes_per_pixel: How many bytes each of them has when it is decoded; at least one.

        Raises:
            UnsupportedImageError: There are too many.
        """
        if self.max_pixels is not None and pixels > self.max_pixels:
            expected, got = (f"{number / 1e6:.3g} megapixels" for number in (self.max_pixels, pixels))
            raise UnsupportedImageError(f"at most {expected}", got, "make it smaller, or cut it into parts")
        if pixels > MAX_PIXELS:
            expected = f"at most {MAX_PIXELS} pixels (a guard against decompression bombs)"
            raise UnsupportedImageError(expected, f"{pixels} pixels", "cut it into parts")
        if self.max_bytes is not None and (size := pixels * bytes_per_pixel) > self.max_bytes:
            expected = (
                f"at most {format_size(self.max_bytes)} of pixels, a fifth of the memory that this process can have"
            )
            raise UnsupportedImageError(expected, format_size(size), "cut it into parts, or free some memory")


@dataclass
class Decoded:
    """What a decoder returns.

    Attributes:
        frames: Arrays (H, W, C) of uint8, uint16 or float32, not turned upright.
        fields: Further properties, by their names in libvips, such as orientation.
        metadata: ``icc_profile``, ``exif``, ``xmp`` and ``iptc`` where the file has them, for ``ImageData``.
        changes: Messages about samples that were changed.
        notes: Messages about metadata that was left out.
    """

    frames: list[NDArray[Any]]
    fields: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
