"""Define the limits of each file format."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from esrgan.errors import ImageError, Problem
from esrgan.images.image import ImageData, effective_bits
from esrgan.images.samples import row_blocks


@dataclass(frozen=True)
class FileFormat:
    """The limits of a file format.

    Attributes:
        module: The module in ``esrgan.images`` that reads and writes it.
        suffixes: File suffixes in lower case.
        bit_depths: Numbers of bits that a sample may have; 32 means float.
        max_side: Largest height or width in pixels.
        supports_alpha: Whether the format stores transparency.
        supports_frames: Whether a file can hold several images.
        is_compressed: Whether samples are written compressed; in TIFF they are if they were in the input.
        encoder_copies: How many times the samples of a frame its encoder holds in memory at least, as measured.
        metadata: The fields of ``ImageData`` that the format stores, of those in ``METADATA_NAMES``.
        dpi_limits: Lowest and highest resolution in pixels per inch that it stores.
        max_exif_bytes: Largest size of an EXIF block; None if there is no limit.
        limitation: A note for the user on every file of the format.
    """

    module: str
    suffixes: tuple[str, ...]
    bit_depths: tuple[int, ...]
    max_side: int
    supports_alpha: bool = True
    supports_frames: bool = False
    is_compressed: bool = True
    encoder_copies: int = 0
    metadata: tuple[str, ...] = ()
    dpi_limits: tuple[float, float] = (0.0, math.inf)
    max_exif_bytes: int | None = None
    limitation: str | None = None


_BLOCKS = ("icc_profile", "exif", "xmp")
METADATA_NAMES = {"icc_profile": "colour profile", "exif": "EXIF", "xmp": "XMP", "iptc": "IPTC"}
METADATA_NAMES |= {"dpi": "resolution", "pixel_aspect": "pixel aspect ratio"}
_METRIC_LIMITS = 0.5 * 0.0254, (2**31 - 1) * 0.0254  # of resolutions in integers of pixels per metre
_MAX_VIPS_ROWS = 100_000_000  # of all frames, which libvips stacks (VIPS_MAX_COORD)
FILE_FORMATS = {
    "PNG": FileFormat(
        "png",
        (".png",),
        (8, 16),
        _MAX_VIPS_ROWS,
        metadata=(*_BLOCKS, "dpi", "pixel_aspect"),
        dpi_limits=_METRIC_LIMITS,
    ),
    "JPEG": FileFormat(
        "jpeg",
        (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        (8,),
        65500,  # JPEG_MAX_DIMENSION of libjpeg
        supports_alpha=False,
        metadata=tuple(METADATA_NAMES),
        dpi_limits=(0.5, 0xFFFF),
        max_exif_bytes=0xFFFF - 8,  # the length of a segment, without the field that holds it and the name of EXIF
    ),
    "WEBP": FileFormat(
        "webp",
        (".webp",),
        (8,),
        16383,  # WEBP_MAX_DIMENSION of libwebp
        supports_frames=True,
        encoder_copies=5,
        metadata=_BLOCKS,
    ),
    "GIF": FileFormat(
        "gif",
        (".gif",),
        (8,),
        65535,
        supports_frames=True,
        metadata=("icc_profile", "xmp", "pixel_aspect"),
        limitation="GIF stores 256 colours per frame and no partial transparency",
    ),
    "TIFF": FileFormat(
        "tiff",
        (".tif", ".tiff"),
        (8, 16, 32),
        _MAX_VIPS_ROWS,
        supports_frames=True,
        metadata=tuple(METADATA_NAMES),
    ),
    "BMP": FileFormat(
        "bmp",
        (".bmp", ".dib"),
        (8,),
        2**31 - 1,
        is_compressed=False,
        metadata=("icc_profile", "dpi"),
        dpi_limits=_METRIC_LIMITS,
    ),
    "TGA": FileFormat("tga", (".tga", ".icb", ".vda", ".vst"), (8,), 65535, encoder_copies=1),
    "DDS": FileFormat(
        "dds",
        (".dds",),
        (8,),
        16384,  # the limit of Direct3D
        is_compressed=False,
        encoder_copies=1,
        limitation="DDS is written without compression and mipmaps",
    ),
    "PPM": FileFormat(
        "ppm",
        (".ppm", ".pgm", ".pnm"),
        (8, 16),
        2**31 - 1,
        supports_alpha=False,
        is_compressed=False,
    ),
    # The limits of sides are those of libvips.
    "AVIF": FileFormat("heif", (".avif",), (8, 10, 12), 16384, encoder_copies=5, metadata=_BLOCKS),
    "HEIC": FileFormat(
        "heif", (".heic", ".heif", ".hif"), (8, 10), 16384, encoder_copies=5, metadata=(*_BLOCKS, "pixel_aspect")
    ),
}
MOST_CUT_OFF = 0.25  # share of float samples outside 0 to 1, such as highlights, that other formats may cut off
_MAX_BMP_BYTES = 2**32 - 2048  # of all rows; the header stores the file size in 32 bits
# All suffixes are in lower case.
SUFFIXES = frozenset(suffix for file_format in FILE_FORMATS.values() for suffix in file_format.suffixes)

# The suffixes of datasets: formats that are lossless, or that everybody uses.
DATASET_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def share_cut_off(image: ImageData) -> float:
    """Return which share of the samples are floats outside 0 to 1, or NaN, which only TIFF can store."""
    if image.frames[0].dtype != np.float32:
        return 0.0
    inside = sum(np.count_nonzero((block >= 0) & (block <= 1)) for frame in image.frames for block in row_blocks(frame))
    return 1 - inside / sum(frame.size for frame in image.frames)


def load_module(name: str) -> ModuleType:
    """Return the module that reads and writes a format."""
    return importlib.import_module(f"esrgan.images.{FILE_FORMATS[name].module}")


def load_writer(name: str) -> Callable[[BinaryIO, ImageData, int | None], None]:
    """Return the function that writes a format, given an open file, the image and the quality."""
    module = load_module(name)
    writer: Callable[[BinaryIO, ImageData, int | None], None] = (
        getattr(module, f"write_{name.lower()}", None) or module.write
    )
    return writer


def format_for_suffix(path: Path) -> str:
    """Return the name of the format that the suffix of a path stands for, in either case.

    Raises:
        ImageError: The suffix is unknown.
    """
    for name, file_format in FILE_FORMATS.items():
        if path.suffix.lower() in file_format.suffixes:
            return name
    expected = f"one of the suffixes {' '.join(sorted(SUFFIXES))}"
    raise ImageError(Problem(str(path), expected, repr(path.suffix), "use another suffix"))


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
    """Check that a file format can store an image, before time is spent on computing it.

    Args:
        path: Path of the output; the suffix chooses the format.
        height: Height of the output in pixels.
        width: Width of the output in pixels.
        channels: Number of channels, 1 to 4.
        dtype: uint8, uint16 or float32.
        frames: Number of frames or pages.
        bits: Bits per sample, like ``ImageData.bits``.
        reduce_depth: Allow fewer bits per sample if the format cannot store as many as the image has.

    Raises:
        ImageError: The suffix is unknown, or the format cannot store the image.
    """
    path = Path(path)
    name = format_for_suffix(path)
    limits = FILE_FORMATS[name]

    def refuse(expected: str, got: str, remedy: str) -> None:
        raise ImageError(Problem(str(path), f"{expected} for {name}", got, remedy))

    if name == "HEIC" and find_spec("pillow_heif") is None:
        refuse("pillow-heif", "none", "pip install pillow-heif, or write .avif, .png or .tif")
    if frames > 1 and not limits.supports_frames:
        others = ".tif" if np.dtype(dtype) != np.uint8 else ".webp, .gif or .tif"
        refuse("one image", f"{frames} frames", f"write {others}")
    if channels in (2, 4) and not limits.supports_alpha:
        refuse("no transparency", "an alpha channel", "write .png, .webp or .tif, or choose a --background")
    if frames * height > _MAX_VIPS_ROWS:
        refuse(f"at most {_MAX_VIPS_ROWS:,} rows", f"{frames} frames of {height}", "write its frames one by one")
    if max(height, width) > limits.max_side:
        refuse(f"at most {limits.max_side} pixels per side", f"{width}×{height}", "write .png or .tif")
    if path.suffix.lower() == ".pgm" and channels > 2:
        refuse("a grey image (.pgm)", "an RGB image", "write .ppm")
    if name == "BMP" and height * (width * (4 if channels == 2 else channels) + 3) > _MAX_BMP_BYTES:
        refuse("at most 4 GiB", f"{width}×{height} pixels", "write .png or .tif")
    depth = effective_bits(np.dtype(dtype), bits)
    if depth > max(limits.bit_depths) and not reduce_depth:
        got = "float samples" if depth == 32 else f"{depth} bits per sample"
        remedy = f"write {'.tif' if depth == 32 else '.png or .tif'}, or pass reduce_depth=True in Python"
        refuse(f"at most {max(limits.bit_depths)} bits per sample", got, remedy)


def check_image_writable(
    path: str | Path, image: ImageData, sizes: Sequence[tuple[int, int]], *, reduce_depth: bool = False
) -> None:
    """Check, as ``check_writable`` does, that a file format can store an image whose frames have certain sizes.

    Args:
        path: Path of the output; the suffix chooses the format.
        image: The image.
        sizes: Height and width of each frame in the output.
        reduce_depth: Allow fewer bits per sample if the format cannot store as many as the image has.

    Raises:
        ImageError: The suffix is unknown, or the format cannot store the image.
    """
    height, width = map(max, zip(*sizes, strict=True))
    channels, dtype = image.base_channels, image.frames[0].dtype
    check_writable(path, height, width, channels, dtype, len(sizes), bits=image.bits, reduce_depth=reduce_depth)
    if (name := format_for_suffix(Path(path))) == "TIFF":
        return
    if share_cut_off(image) > MOST_CUT_OFF:
        got = "float samples of another range, or without data"
        raise ImageError(Problem(str(path), f"samples from 0 to 1 for {name}", got, "write .tif, or scale them first"))
    if image.extra_bands:
        got = f"{image.extra_bands} more band{'s' * (image.extra_bands > 1)}"
        raise ImageError(Problem(str(path), f"only colour and transparency for {name}", got, "write .tif"))
    if len({*sizes}) > 1:
        raise ImageError(Problem(str(path), f"frames of one size for {name}", "pages that differ", "write .tif"))
