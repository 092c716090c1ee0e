"""What a picture is, and what each file format can hold of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from esrgan.errors import ImageError, Problem
from esrgan.pictures import library

Dpi = tuple[float, float] | None  # resolution (x, y) in pixels an inch


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, animation or series of pages, and what its file says about it.

    Attributes:
        frames: One or more arrays of one shape (H, W, C) and type, upright; C is 1 grey, 2 grey with alpha, 3 RGB,
            4 RGB with alpha; uint8 in [0, 255], uint16 in [0, 65535], or float32 as in the file, nominally in [0, 1].
            Alpha is not multiplied in.
        file_format: A name in ``FORMATS``: what the file was, whatever its suffix.
        bits: 10 or 12 if samples had so many, which come as uint16; 0 if they had those of the array.
        lossless: Whether the file lost nothing when it was written.
        compression: That of a TIFF file, in libvips' words.
        delays_ms: How long each frame of an animation stays.
        loop: How often an animation is played; 0 is for ever.
        icc_profile: The embedded colour profile.
        exif: The EXIF block, from its TIFF header on.
        xmp: The XMP packet.
        iptc: The IPTC block.
        dpi: Resolution (x, y) in pixels an inch.
        png_chunks: Name and content of a PNG file's chunks on colour and of its comments.
        notes: What reading changed or left out, in words for the user.
    """

    frames: tuple[NDArray[Any], ...]
    file_format: str = "PNG"
    bits: int = 0
    lossless: bool = True
    compression: str = "deflate"
    delays_ms: tuple[int, ...] = ()
    loop: int = 0
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: Dpi = None
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        first = self.frames[0] if self.frames else np.empty(0)
        alike = all(frame.shape == first.shape and frame.dtype == first.dtype for frame in self.frames)
        if not alike or first.ndim != 3 or not 1 <= first.shape[2] <= 4 or 0 in first.shape:
            raise ValueError(f"expected frames of one shape (H, W, 1 to 4), got {[f.shape for f in self.frames]}")
        if first.dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(f"expected frames of uint8, uint16 or float32, got {first.dtype}")


@dataclass(frozen=True)
class Format:
    """What a file format can hold.

    Attributes:
        suffixes: Of its files.
        depths: How many bits a sample may have, 32 being float.
        longest_side: In pixels.
        holds_alpha: Whether with transparency.
        holds_frames: Whether more than one image.
    """

    suffixes: tuple[str, ...]
    depths: tuple[int, ...]
    longest_side: int
    holds_alpha: bool = True
    holds_frames: bool = False


FORMATS = {
    "PNG": Format((".png",), (8, 16), 2**31 - 1),
    "JPEG": Format((".jpg", ".jpeg", ".jfif"), (8,), 65500, holds_alpha=False),  # JPEG_MAX_DIMENSION of libjpeg
    "WEBP": Format((".webp",), (8,), 16383, holds_frames=True),  # WEBP_MAX_DIMENSION of libwebp
    "GIF": Format((".gif",), (8,), 65535, holds_frames=True),
    "TIFF": Format((".tif", ".tiff"), (8, 16, 32), 2**31 - 1, holds_frames=True),
    "BMP": Format((".bmp",), (8,), 2**31 - 1, holds_alpha=False),
    "AVIF": Format((".avif",), (8, 10, 12), 16384),  # the limit of libvips
    "HEIC": Format((".heic", ".heif"), (8, 10), 16384),
}
_LARGEST_BMP = 2**32 - 2048  # bytes of rows; the whole is counted in 32 bits
SUFFIXES = frozenset(suffix for file_format in FORMATS.values() for suffix in file_format.suffixes)  # in lower case


def format_of(path: Path) -> str:
    """The name of the format that a suffix stands for.

    Raises:
        ImageError: It stands for none.
    """
    for name, file_format in FORMATS.items():
        if path.suffix.lower() in file_format.suffixes:
            return name
    expected = f"a suffix of {' '.join(sorted(SUFFIXES))}"
    raise ImageError(Problem(str(path), expected, repr(path.suffix), "write to another name, or choose a --format"))


def check_writable(
    path: str | Path,
    height: int,
    width: int,
    channels: int,
    dtype: DTypeLike,
    frames: int = 1,
    *,
    bits: int = 0,
    reduce_depth: bool = False,
) -> None:
    """Checks before the work whether the format that a suffix stands for can hold its result.

    Args:
        path: Where the result is to go.
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        channels: 1 to 4.
        dtype: uint8, uint16 or float32.
        frames: How many.
        bits: As ``Picture.bits``.
        reduce_depth: Whether samples may lose bits that the format cannot hold, as when the user chose the format.

    Raises:
        ImageError: The suffix is unknown, or the format cannot hold the picture.
    """
    path = Path(path)
    name = format_of(path)
    limits = FORMATS[name]

    def refuse(expected: str, got: str, remedy: str) -> None:
        raise ImageError(Problem(str(path), f"{expected} for {name}", got, remedy))

    if name == "HEIC" and library.heif() is None:
        refuse("pillow-heif", "none", "pip install pillow-heif, or write .avif, .png or .tif")
    if frames > 1 and not limits.holds_frames:
        others = ".tif" if np.dtype(dtype) != np.uint8 else ".webp, .gif or .tif"
        refuse("one image", f"{frames} frames", f"write {others}")
    if channels in (2, 4) and not limits.holds_alpha:
        refuse("no transparency", "an alpha channel", "write .png, .webp or .tif")
    if max(height, width) > limits.longest_side:
        refuse(f"at most {limits.longest_side} pixels a side", f"{width}×{height}", "write .png or .tif")
    if name == "BMP" and height * (width * channels + 3) > _LARGEST_BMP:
        refuse("at most 4 GiB", f"{width}×{height} pixels", "write .png or .tif")
    depth = bits_of(np.dtype(dtype), bits)
    if depth > max(limits.depths) and not reduce_depth:
        got = "float samples" if depth == 32 else f"{depth} bits a sample"
        remedy = f"write {'.tif' if depth == 32 else '.png or .tif'}, or allow fewer bits"
        refuse(f"at most {max(limits.depths)} bits a sample", got, remedy)


def bits_of(dtype: np.dtype[Any], bits: int) -> int:
    """How many bits of a sample count: those of the array's type, unless the file had fewer."""
    whole = dtype.itemsize * 8
    return bits if 0 < bits < whole else whole
