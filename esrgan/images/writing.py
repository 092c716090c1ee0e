"""Write image files of any supported format, with their metadata."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from esrgan.errors import ImageError, Problem
from esrgan.files import atomic_write, describe_write_error
from esrgan.images import formats, tiff_metadata, vips
from esrgan.images.exif import adjust_exif, read_orientation, read_resolution, strip_exif_prefix
from esrgan.images.flatten import fit_alpha
from esrgan.images.formats import (
    DATASET_SUFFIXES,
    FILE_FORMATS,
    METADATA_NAMES,
    check_image_writable,
    check_writable,
    format_for_suffix,
    share_cut_off,
)
from esrgan.images.image import Dpi, ImageData, effective_bits, find_dpi_factors, profile_space
from esrgan.images.xmp import adjust_xmp
from esrgan.text import describe_error


def write_image(
    path: str | Path,
    image: ImageData,
    *,
    overwrite: bool = False,
    quality: int | None = None,
    reduce_depth: bool = False,
) -> tuple[str, ...]:
    """Write an image with all metadata that the format can store.

    The file is written atomically, so that a failure leaves no partial file. Compression is lossless, except for JPEG,
    HEIC, AVIF, and WebP if the image was lossy already. Colours keep their full resolution (4:4:4), except in lossy
    WebP, which does not support it.

    Args:
        path: Path of the output; the suffix, one of ``SUFFIXES``, chooses the format.
        image: Image to write.
        overwrite: Replace an existing file.
        quality: Quality of a lossy format, 1 to 100; None means ``DEFAULT_QUALITY``. If it is given, WebP is lossy.
        reduce_depth: Allow fewer bits per sample if the format cannot store as many as the image has.

    Returns:
        Messages for the user about what the file does not keep.

    Raises:
        ImageError: The suffix is unknown, the format cannot store the image, the file exists, or writing fails.
        ValueError: The quality is not in 1 to 100.
    """
    path = Path(path)
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100, got {quality}")
    name = format_for_suffix(path)
    image = fit_alpha(image, supports_alpha=FILE_FORMATS[name].supports_alpha)
    check_image_writable(path, image, [frame.shape[:2] for frame in image.frames], reduce_depth=reduce_depth)
    image, notes = _fit_to_format(image, name)
    _write_atomically(path, name, lambda file: formats.load_writer(name)(file, image, quality), overwrite=overwrite)
    return notes


def least_file_size(path: Path, image: ImageData, pixels: int) -> int:
    """Return the least bytes that a file with a number of pixels needs, where the suffix chooses the format.

    That is every sample if they are not compressed, and otherwise a hundredth: the smallest JPEG of an image needs
    about that, and so does a PNG of a page of text.
    """
    name = format_for_suffix(path)
    size = pixels * int(image.frames[0].shape[2]) * -(-vips.output_bits(image, name) // 8)
    is_compressed = image.compression != "none" if name == "TIFF" else FILE_FORMATS[name].is_compressed
    return size // 100 if is_compressed else size


def _fit_to_format(image: ImageData, name: str) -> tuple[ImageData, tuple[str, ...]]:
    """Return the image with the metadata that the format can store, and notes for the user about the rest.

    Orientation and size in the metadata are set to those of the upright image.
    """
    height, width, _ = image.frames[0].shape
    notes = []
    had, bits = effective_bits(image.frames[0].dtype, image.bits), vips.output_bits(image, name)
    if had > bits:
        notes.append(f"{'float' if had == 32 else f'{had}-bit'} samples reduced to {bits} bits")
    if name != "TIFF" and (cut_off := share_cut_off(image)):
        notes.append(f"float samples outside 0 to 1 cut off ({f'{cut_off:.2%}' if cut_off >= 1e-4 else 'under 0.01%'})")
    if limitation := FILE_FORMATS[name].limitation:
        notes.append(limitation)
    if name == "GIF" and any(delay % 10 for delay in image.delays_ms):
        notes.append("delays rounded to hundredths of a second")
    lost = {field for field in METADATA_NAMES if getattr(image, field) and field not in FILE_FORMATS[name].metadata}
    labels = [METADATA_NAMES[field] for field in sorted(lost)]
    labels += ["delays and repetitions"] if image.delays_ms and name == "TIFF" else []
    if image.file_format != name:
        labels += dict.fromkeys(block.label for block in image.native_blocks if block.label)
    if labels:
        notes.append(f"{name} cannot store {', '.join(labels)}")
    if "icc_profile" not in lost and profile_space(image.icc_profile) == "GRAY":
        if image.base_channels >= 3:
            lost.add("icc_profile")
            notes.append("grey colour profile of an RGB image not kept")
        elif name in ("WEBP", "AVIF") or (name == "BMP" and image.has_alpha):
            lost.add("icc_profile")
            notes.append(f"grey colour profile not kept, because {name} stores such an image as RGB")
    exif = strip_exif_prefix(image.exif or b"")
    # These formats are turned by EXIF alone, so an orientation in XMP alone has not been applied.
    is_turned_by_exif = image.file_format in ("JPEG", "PNG", "WEBP")
    orientation = read_orientation(exif or b"", 0 if is_turned_by_exif else 1) or None
    cleared: dict[str, Any] = dict.fromkeys(lost)
    dpi, more = _find_output_dpi(image, exif, name)
    notes += more
    image = dataclasses.replace(image, **cleared)
    if image.exif and exif:
        limit = FILE_FORMATS[name].max_exif_bytes
        exif, more = adjust_exif(exif, image.frames[0], image.factors, limit, image.dpi_change)
        notes += more
    elif image.exif:
        notes.append("unreadable EXIF not kept")
    xmp = image.xmp
    if xmp:
        xmp, note = adjust_xmp(xmp, height, width, image.factors, orientation, image.dpi_change)
        notes += [note] if note else []
    return dataclasses.replace(image, exif=exif if image.exif else None, xmp=xmp, dpi=dpi), tuple(notes)


def _find_output_dpi(image: ImageData, exif: bytes | None, name: str) -> tuple[Dpi, list[str]]:
    """Return the resolution that a file states outside of EXIF, and notes on one that it cannot state."""
    dpi, (lowest, highest) = image.dpi, FILE_FORMATS[name].dpi_limits
    if not dpi and exif and not image.pixel_aspect:
        dpi = read_resolution(exif, is_upright=True)
    if not dpi or "dpi" not in FILE_FORMATS[name].metadata:
        return None, []
    vertical, horizontal = find_dpi_factors(image.dpi_change, dpi)
    dpi = dpi[0] * horizontal, dpi[1] * vertical
    if lowest <= min(dpi) and max(dpi) <= highest:
        return dpi, []
    return None, [f"resolution of {dpi[0]:g} × {dpi[1]:g} pixels per inch not kept, because {name} cannot store it"]


def set_resolution(image: ImageData, resolution: float | Literal["keep", "scale"]) -> ImageData:
    """Return an upscaled image with the resolution that its file is to state.

    Args:
        image: The image.
        resolution: Pixels per inch; "keep" leaves the resolution of the input, so that the image is larger in print;
            "scale" multiplies it like the size, so that the image is as large in print as before.
    """
    if resolution == "keep":
        return image
    image = dataclasses.replace(image, native_blocks=tiff_metadata.set_page_resolutions(image, resolution))
    if resolution == "scale":
        return dataclasses.replace(image, dpi_change=image.factors)
    return dataclasses.replace(image, dpi=(resolution, resolution), dpi_change=resolution)


def write_pixels(
    path: str | Path, image: NDArray[np.uint8], *, overwrite: bool = False, software: str | None = None
) -> None:
    """Write an image for training or evaluation atomically, so that a failure leaves no partial file.

    Compression is lossless, except for JPEG, which has quality 95 and full colour resolution (4:4:4).

    Args:
        path: Path of the output; the suffix, one of ``DATASET_SUFFIXES``, chooses the format. WebP stores grey as RGB.
        image: Array (H, W, 1 | 3 | 4) of uint8 in [0, 255].
        overwrite: Replace an existing file.
        software: Name of the program, which is stored in PNG files; None stores none.

    Raises:
        ImageError: The suffix is unknown, the format cannot store the image, the file exists, or writing fails.
        ValueError: The array is not an image.
    """
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"expected a uint8 image (H, W, 1, 3 or 4), got {image.dtype} {image.shape}")
    if path.suffix.lower() not in DATASET_SUFFIXES:
        expected = f"one of the suffixes {' '.join(sorted(DATASET_SUFFIXES))}"
        raise ImageError(Problem(str(path), expected, repr(path.suffix), "use another suffix"))
    name = format_for_suffix(path)
    height, width, channels = image.shape
    check_writable(path, height, width, channels, image.dtype)
    if name == "BMP" and channels == 4:
        raise ImageError(Problem(str(path), "no transparency for BMP", "an alpha channel", "write .png, .webp or .tif"))
    pillow = importlib.import_module("esrgan.images.pillow")
    options = {"pnginfo": pillow.name_software(software)} if software and name == "PNG" else {}
    _write_atomically(path, name, lambda file: pillow.encode(file, image, name, **options), overwrite=overwrite)


def _write_atomically(path: Path, name: str, write: Callable[[BinaryIO], None], *, overwrite: bool) -> None:
    """Write a file of a format, and raise any error as an ``ImageError``."""
    try:
        with atomic_write(path, overwrite=overwrite) as file:
            write(file)
    except ImageError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the file; encoders raise errors without one
            raise ImageError(describe_write_error(path, error)) from error
        got = describe_error(error) if isinstance(error, OSError) else vips.describe_vips_error(error)
        remedy = "check the folder and its free disk space, or choose another format"
        raise ImageError(Problem.failure(path, f"cannot be written as {name}: {got}", remedy)) from error
