"""Read image files of any supported format."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from esrgan.errors import ImageError, Problem
from esrgan.images import detect, formats, vips
from esrgan.images.image import ImageData, check_profile
from esrgan.images.source import Source, UnsupportedImageError
from esrgan.paths import describe_path, suggest_path
from esrgan.text import describe_error

MEASURE_S = 2.0  # for reading the sizes of images before the work
_Key = TypeVar("_Key")
_READABLE = "a PNG, JPEG, WebP, GIF, TIFF, BMP, TGA, DDS, PPM, AVIF or HEIC image"
_KIND_NAMES = {1: "a grey image", 2: "a grey image with alpha", 3: "an RGB image", 4: "an RGB image with alpha"}


def read_image(path: str | Path, max_pixels: int | None = None, max_bytes: int | None = None) -> ImageData:
    """Read an image of any kind that can be upscaled; the format is detected from its content.

    The image is turned upright. CMYK becomes RGB, and 1-bit and palette images become 8-bit grey or RGB. WebP, GIF,
    AVIF and palette images are returned as grey if all their colours are grey.

    Args:
        path: Path of a file of one of the formats in ``FILE_FORMATS``; HEIC needs ``pillow-heif``.
        max_pixels: Largest accepted number of pixels, all frames together, which is checked before decoding; None
            means ``MAX_PIXELS``.
        max_bytes: Largest accepted number of bytes of all samples, which is checked before decoding; None means any.

    Returns:
        The frames and metadata of the file, with notes for the user about what could not be kept.

    Raises:
        ImageError: The file is missing, damaged, truncated, not of a supported kind (see
            ``docs/reference/image_formats.md``), or has too many pixels.
    """
    return _read(Path(path), max_pixels, max_bytes)


def read_pixels(path: str | Path, channels: int) -> NDArray[np.uint8]:
    """Read an image for training or evaluation; one whose samples would have to be changed is refused.

    Grey images are repeated to RGB if ``channels`` is 3, and alpha that is opaque everywhere is dropped if it is
    1 or 3.

    Args:
        path: Path of a file of one of the formats in ``FILE_FORMATS``; HEIC needs ``pillow-heif``.
        channels: Required channels: 1 for grey, 3 for RGB, 4 for RGB with alpha. A palette image has the channels
            of the colours in its palette.

    Returns:
        A writable array (H, W, channels) of uint8 in [0, 255], upright (EXIF orientation applied).

    Raises:
        ImageError: The file is missing, damaged, animated, not 8-bit, has other channels, or more than ``MAX_PIXELS``.
    """
    (pixels,) = _read_strictly(Path(path)).frames
    actual = pixels.shape[2]
    if actual in (2, 4) and channels < 4 and pixels[..., -1].min() == 255:
        pixels, actual = pixels[..., :-1], actual - 1
    if (actual, channels) == (1, 3):
        return pixels.repeat(3, axis=2)
    if actual != channels:
        remedy = (
            "convert it"
            if actual == 2
            else f"convert it, or set img_channels to {actual} for training if all images are alike"
        )
        raise ImageError(Problem(str(path), _KIND_NAMES[channels], _KIND_NAMES[actual], remedy))
    return np.require(pixels, requirements=["C", "W"])


def read_shape(path: str | Path) -> tuple[int, int, int]:
    """Return the shape (height, width, channels) of an image, with the channels that its file has.

    Only the header is read, except for palette images and HEIC.

    Raises:
        ImageError: The file cannot be read by ``read_pixels``. Damage after the header is not detected.
    """
    height, width, channels = _read_strictly(Path(path), header_only=True).frames[0].shape
    return height, width, channels


def measure_images(paths: Mapping[_Key, Path]) -> dict[_Key, float]:
    """Return the sizes of images in megapixels, to weigh the work on them, as far as reading them takes little time.

    An image whose size is not known gets the mean of the others.
    """
    sizes: dict[_Key, float | None] = dict.fromkeys(paths)
    end = time.monotonic() + MEASURE_S
    for key, path in paths.items():
        if time.monotonic() < end:
            with suppress(ImageError):  # whatever is wrong is reported when the image is read
                height, width = _read(path, header_only=True).frames[0].shape[:2]
                sizes[key] = height * width / 1e6
    known = [size for size in sizes.values() if size is not None]
    mean = sum(known) / len(known) if known else 1.0
    return {key: mean if size is None else size for key, size in sizes.items()}


def _read_strictly(path: Path, *, header_only: bool = False) -> ImageData:
    """Read one frame of 8 bits, and refuse an image whose samples would have to be changed for that."""
    image = _read(path, is_strict=True, header_only=header_only)
    problem = None
    if image.frames[0].dtype != np.uint8:
        problem = ("samples of 8 bits", f"more than 8 bits per sample ({image.bits or 16})", "convert it to 8 bits")
    elif image.changes:
        problem = ("an image whose samples can be used as they are", ", ".join(image.changes), "convert it to RGB")
    if problem:
        raise ImageError(Problem(str(path), *problem))
    return image


def _read(
    path: Path,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
    *,
    is_strict: bool = False,
    header_only: bool = False,
) -> ImageData:
    """Read an image and raise any error as an ``ImageError``."""
    try:
        if (kind := describe_path(path)) in ("a folder", "a named pipe", "a socket", "a device"):
            remedy = "choose one of its files" if kind == "a folder" else "save the data to a file first"
            raise UnsupportedImageError(_READABLE, kind, remedy)
        with _open(path) as file:
            head, suffix = file.read(detect.HEAD_BYTES), path.suffix.lower()
            file.seek(max(file.seek(0, os.SEEK_END) - len(detect.TGA_FOOTER), 0))
            name = detect.detect_format(head.ljust(32, b"\0"), file.read(), suffix)
            if name is None:
                raise UnsupportedImageError(_READABLE, *detect.guess_file_kind(head, suffix))
            file_source = Source(path, file, name, max_pixels, max_bytes, is_strict=is_strict, header_only=header_only)
            image: ImageData = formats.load_module(name).read(file_source)
            notes = (*image.changes, *image.notes)
            if image.icc_profile and not is_strict:
                profile, note = check_profile(image.icc_profile)
                image, notes = dataclasses.replace(image, icc_profile=profile), (*notes, *([note] if note else []))
            sizes = tuple(frame.shape[:2] for frame in image.frames)
            return dataclasses.replace(image, read_sizes=sizes, notes=notes)
    except ImageError:
        raise
    except UnsupportedImageError as error:
        raise ImageError(Problem(str(path), *error.args)) from error
    except OSError as error:
        if error.errno is None:  # not of the system but of a library, about the content
            raise _damaged(path, describe_error(error)) from error
        remedy = "check the path and the permissions"
        remedy = suggest_path(path, remedy) if isinstance(error, FileNotFoundError) else remedy
        raise ImageError(Problem(str(path), _READABLE, describe_error(error), remedy)) from error
    except Exception as error:  # libraries raise all kinds of exceptions for damaged files
        raise _damaged(path, vips.describe_vips_error(error)) from error


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except ValueError as error:
        raise UnsupportedImageError(_READABLE, f"a name that no file can have ({error})", "check the path") from error


def _damaged(path: Path, reason: str) -> ImageError:
    got = f"a damaged or unsupported file ({reason})"
    return ImageError(Problem(str(path), _READABLE, got, "replace it or re-export it"))
