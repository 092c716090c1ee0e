"""What an image is, and what each file format can hold of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from esrgan.errors import ImageError, Problem
from esrgan.images import native_libraries

Dpi = tuple[float, float] | None  # resolution (x, y) in pixels an inch


@dataclass(frozen=True, eq=False)
class ImageData:
    """An image, animation or series of pages, and what its file says about it.

    Attributes:
        frames: One or more arrays of one shape (H, W, C) and type, upright; C is 1 grey, 2 grey with alpha, 3 RGB,
            4 RGB with alpha; uint8 in [0, 255], uint16 in [0, 65535], or float32 as in the file, nominally in [0, 1].
            Alpha is not multiplied in.
        file_format: A name in ``FILE_FORMATS``: what the file was, whatever its suffix.
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
class FileFormat:
    """What a file format can hold.

    Attributes:
        suffixes: Of its files.
        bit_depths: How many bits a sample may have, 32 being float.
        max_side: In pixels.
        supports_alpha: Whether with transparency.
        supports_frames: Whether more than one image.
    """

    suffixes: tuple[str, ...]
    bit_depths: tuple[int, ...]
    max_side: int
    supports_alpha: bool = True
    supports_frames: bool = False


FILE_FORMATS = {
    "PNG": FileFormat((".png",), (8, 16), 2**31 - 1),
    "JPEG": FileFormat((".jpg", ".jpeg", ".jfif"), (8,), 65500, supports_alpha=False),  # JPEG_MAX_DIMENSION of libjpeg
    "WEBP": FileFormat((".webp",), (8,), 16383, supports_frames=True),  # WEBP_MAX_DIMENSION of libwebp
    "GIF": FileFormat((".gif",), (8,), 65535, supports_frames=True),
    "TIFF": FileFormat((".tif", ".tiff"), (8, 16, 32), 2**31 - 1, supports_frames=True),
    "BMP": FileFormat((".bmp",), (8,), 2**31 - 1, supports_alpha=False),
    "AVIF": FileFormat((".avif",), (8, 10, 12), 16384),  # the limit of libvips
    "HEIC": FileFormat((".heic", ".heif"), (8, 10), 16384),
}
_MAX_BMP_BYTES = 2**32 - 2048  # bytes of rows; the whole is counted in 32 bits
# In lower case.
SUFFIXES = frozenset(suffix for file_format in FILE_FORMATS.values() for suffix in file_format.suffixes)

_JPEG = ("JPEG", {"quality": 95, "subsampling": "4:4:4"})
_TIFF = ("TIFF", {"compression": "tiff_lzw"})
# Of datasets: Pillow's name and options by suffix.
# Lossless wherever the format can be: WebP's lossy mode would halve the resolution of the colours.
PILLOW_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".bmp": ("BMP", {}),
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
DATASET_SUFFIXES: frozenset[str] = frozenset(PILLOW_FORMATS)  # in lower case; compared without regard to case


def format_for_suffix(path: Path) -> str:
    """The name of the format that a suffix stands for.

    Raises:
        ImageError: It stands for none.
    """
    for name, file_format in FILE_FORMATS.items():
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
        bits: As ``ImageData.bits``.
        reduce_depth: Whether samples may lose bits that the format cannot hold, as when the user chose the format.

    Raises:
        ImageError: The suffix is unknown, or the format cannot hold the image.
    """
    path = Path(path)
    name = format_for_suffix(path)
    limits = FILE_FORMATS[name]

    def refuse(expected: str, got: str, remedy: str) -> None:
        raise ImageError(Problem(str(path), f"{expected} for {name}", got, remedy))

    if name == "HEIC" and native_libraries.load_heif() is None:
        refuse("pillow-heif", "none", "pip install pillow-heif, or write .avif, .png or .tif")
    if frames > 1 and not limits.supports_frames:
        others = ".tif" if np.dtype(dtype) != np.uint8 else ".webp, .gif or .tif"
        refuse("one image", f"{frames} frames", f"write {others}")
    if channels in (2, 4) and not limits.supports_alpha:
        refuse("no transparency", "an alpha channel", "write .png, .webp or .tif")
    if max(height, width) > limits.max_side:
        refuse(f"at most {limits.max_side} pixels a side", f"{width}×{height}", "write .png or .tif")
    if name == "BMP" and height * (width * channels + 3) > _MAX_BMP_BYTES:
        refuse("at most 4 GiB", f"{width}×{height} pixels", "write .png or .tif")
    depth = effective_bits(np.dtype(dtype), bits)
    if depth > max(limits.bit_depths) and not reduce_depth:
        got = "float samples" if depth == 32 else f"{depth} bits a sample"
        remedy = f"write {'.tif' if depth == 32 else '.png or .tif'}, or allow fewer bits"
        refuse(f"at most {max(limits.bit_depths)} bits a sample", got, remedy)


def effective_bits(dtype: np.dtype[Any], bits: int) -> int:
    """How many bits of a sample count: those of the array's type, unless the file had fewer."""
    whole = dtype.itemsize * 8
    return bits if 0 < bits < whole else whole
