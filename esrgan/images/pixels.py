"""Read and write image files for training and evaluation as uint8 arrays (H, W, C) in [0, 255].

Images whose samples would have to be changed are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from esrgan.errors import ImageError, Problem
from esrgan.files import atomic_write
from esrgan.images import metadata, native_libraries, reading, tiff
from esrgan.images.formats import DATASET_SUFFIXES, PILLOW_FORMATS
from esrgan.text import describe_error

_MAX_SIDE = {"JPEG": 65500, "WEBP": 16383}  # limits in pixels of libjpeg and libwebp

_READABLE = "an 8-bit PNG, JPEG, WebP, GIF, TIFF, BMP, AVIF or HEIC image"
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_KIND_NAMES = {1: "a grey image", 2: "a grey image with alpha", 3: "an RGB image", 4: "an RGB image with alpha"}
_TIFF_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # colours of a pixel by PhotometricInterpretation (TIFF 6.0, §8)
# Exif 2.32, §4.6.4: the transform that makes an image with this Orientation upright. From 5 on it swaps the sides.
_ORIENTATION_TRANSFORMS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_pixels(path: str | Path, channels: int) -> NDArray[np.uint8]:
    """Read an image for training or evaluation; one whose samples would have to be changed is refused.

    Grey images are repeated to RGB if ``channels`` is 3, and alpha that is opaque everywhere is dropped if it is
    1 or 3.

    Args:
        path: Path of a PNG, JPEG, WebP, GIF, TIFF, BMP or AVIF file, or of a HEIC file if ``pillow-heif`` is installed.
        channels: Required channels: 1 for grey, 3 for RGB, 4 for RGB with alpha. A palette image has the channels
            of the colours in its palette.

    Returns:
        A writable array (H, W, channels) of uint8 in [0, 255], upright (EXIF orientation applied).

    Raises:
        ImageError: The file is missing, damaged, animated, not 8-bit, has other channels, or more than ``MAX_PIXELS``.
    """
    with _open_image(path) as image:
        actual = _count_channels(image)
        pixels = _decode(image, _MODES[actual])
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
    return np.ascontiguousarray(pixels)


def read_shape(path: str | Path) -> tuple[int, int, int]:
    """Return the shape (height, width, channels) of an image, with the channels that its file has.

    Only the header is read, except for palette images and HEIC.

    Raises:
        ImageError: The file cannot be read by ``read_pixels``. Damage after the header is not detected.
    """
    with _open_image(path) as image:
        width, height = image.size
        is_turned = _pending_orientation(image) >= 5
        channels = _count_channels(image)
        return (width, height, channels) if is_turned else (height, width, channels)


def _decode(image: Image.Image, mode: str) -> NDArray[np.uint8]:
    """Return the upright pixels (H, W, C) of an opened image."""
    orientation = _pending_orientation(image)
    upright = image if image.mode == mode else image.convert(mode)
    if orientation in _ORIENTATION_TRANSFORMS:
        upright = upright.transpose(_ORIENTATION_TRANSFORMS[orientation])
    pixels = np.array(upright, np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)


@contextmanager
def _open_image(path: str | Path) -> Iterator[Image.Image]:
    """Open an image, refuse unsupported ones, and raise any error before it is closed as an ``ImageError``.

    Pillow reads it, because loader processes are forked and libvips cannot be used after a fork.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(4096)
            name = metadata.detect_format(head.ljust(32, b"\0"))
            if name is None:
                kind = metadata.guess_file_kind(head).replace("an unknown format", "another format or a damaged file")
                raise _UnusableImageError(_READABLE, kind, "convert or replace it")
            if name == "TIFF":
                _check_tiff(file)
            file.seek(0)
            with _open_heic(file) if name == "HEIC" else _open_with_pillow(file, name) as image:
                if image.width * image.height > reading.MAX_PIXELS:
                    expected = f"at most {reading.MAX_PIXELS} pixels (a guard against decompression bombs)"
                    raise _UnusableImageError(expected, f"{image.width}×{image.height}", "cut it into parts")
                # Phones write MPO: a JPEG file with a preview or a depth map after the photograph.
                frames = 1 if image.format in ("MPO", "TIFF") else getattr(image, "n_frames", 1)
                if frames > 1:
                    raise _UnusableImageError("one image", f"an animation of {frames} frames", "extract one of them")
                if metadata.is_deep_avif(head) or _has_deep_samples(image):
                    raise _UnusableImageError(_READABLE, "more than 8 bits per sample", "convert it to 8 bits")
                if image.mode not in ("1", "P", *_MODES.values()):
                    raise _UnusableImageError("grey or RGB", f"colour mode {image.mode}", "convert it to RGB")
                yield image
    except ImageError:
        raise
    except _UnusableImageError as error:
        raise ImageError(Problem(str(path), *error.args)) from error
    except Exception as error:  # Pillow raises anything from SyntaxError to struct.error for damaged files
        raise ImageError(Problem(str(path), _READABLE, describe_error(error), "replace or remove it")) from error


class _UnusableImageError(Exception):
    """An image cannot be used. The arguments are those of ``Problem`` after the place: expected, got and remedy."""


def _open_with_pillow(file: BinaryIO, name: str) -> Image.Image:
    """Open an image of a known format; ``Image.open`` would apply Pillow's own, lower limit of pixels."""
    Image.init()
    return Image.OPEN[name][0](file, b"")


def _open_heic(file: BinaryIO) -> Image.Image:
    heif = native_libraries.load_heif()
    if heif is None:
        raise _UnusableImageError("pillow-heif for HEIC", "none", "pip install pillow-heif, or convert it")
    container = heif.open_heif(file, convert_hdr_to_8bit=False)
    if len(container) > 1:
        raise _UnusableImageError("one image", f"{len(container)} images", "extract one of them")
    if int(container[0].info["bit_depth"]) > 8:
        raise _UnusableImageError(_READABLE, "more than 8 bits per sample", "convert it to 8 bits")
    image: Image.Image = container[0].to_pillow()
    image.info.pop("exif", None)  # libheif has already turned it upright
    return image


def _check_tiff(file: BinaryIO) -> None:
    """Refuse a TIFF image that Pillow would change, by what it is: deep or signed samples, extra bands, pages."""
    pages = list(tiff.read_directories(file))
    if not pages:
        raise _UnusableImageError(_READABLE, "a damaged file", "replace it")
    bits, sample_format, colours, samples, subfile = (
        int(max(tiff.get_numbers(pages[0], tag) or [default]))
        for tag, default in (
            (tiff.BITS_PER_SAMPLE, 1),
            (tiff.SAMPLE_FORMAT, 1),
            (tiff.PHOTOMETRIC, 1),
            (tiff.SAMPLES_PER_PIXEL, 1),
            (tiff.SUBFILE_TYPE, 0),
        )
    )
    if subfile & 1 or tiff.DNG_VERSION in pages[0]:
        raise _UnusableImageError("an image", "a camera raw file", "develop it to a .tif or .png of 8 bits")
    if bits > 8:
        kind = "floating-point samples" if sample_format == 3 else "samples"
        raise _UnusableImageError(_READABLE, f"{kind} of more than 8 bits ({bits})", "convert it to 8 bits")
    if sample_format != 1:
        raise _UnusableImageError(_READABLE, "signed samples", "convert it to unsigned samples of 8 bits")
    extra = tiff.get_numbers(pages[0], tiff.EXTRA_SAMPLES)
    if samples > _TIFF_COLOURS.get(colours, samples) and extra not in ([1], [2]):  # associated or unassociated alpha
        got = f"{samples} bands, {samples - _TIFF_COLOURS[colours]} of them neither colour nor alpha"
        raise _UnusableImageError(
            "grey or RGB, with or without alpha", got, "write the bands to train on as grey or RGB"
        )
    count = sum(not int((tiff.get_numbers(page, tiff.SUBFILE_TYPE) or [0])[0]) & 1 for page in pages)
    if count > 1:
        raise _UnusableImageError("one image", f"several pages ({count})", "extract one of them")


def _has_deep_samples(image: Image.Image) -> bool:
    """Return whether samples have more than 8 bits.

    Pillow's mode only shows this for grey images, because Pillow reduces 16-bit RGB to 8 bits.
    """
    return image.mode[0] in "IF" or (image.format == "PNG" and any(";16" in str(tile[3]) for tile in image.tile))  # type: ignore[attr-defined]


def _count_channels(image: Image.Image) -> int:
    if image.mode != "P":
        return len(image.getbands()) + ("transparency" in image.info and image.mode in ("L", "RGB"))
    if "transparency" in image.info:
        return 4
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)  # This decodes the image, but palette images are rare.
    return 1 if np.all(palette == palette[:, :1]) else 3


def _pending_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, that has yet to be applied to an opened image."""
    if image.format == "TIFF":
        return 1  # Pillow has already applied it.
    # For a PNG file without EXIF before the pixels, image.getexif() would decode the whole image.
    orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    return orientation if orientation in _ORIENTATION_TRANSFORMS else 1


def write_pixels(path: str | Path, image: NDArray[np.uint8], *, overwrite: bool = False) -> None:
    """Write an image atomically, so that a failure leaves no partial file.

    Compression is lossless, except for JPEG, which has quality 95 and full colour resolution (4:4:4).

    Args:
        path: Path of the output; the suffix, one of ``DATASET_SUFFIXES``, chooses the format. WebP stores grey as RGB.
        image: Array (H, W, 1 | 3 | 4) of uint8 in [0, 255].
        overwrite: Replace an existing file.

    Raises:
        ImageError: The suffix is unknown, the format cannot store the image, the file exists, or writing fails.
        ValueError: The array is not an image.
    """
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"expected a uint8 image (H, W, 1, 3 or 4), got {image.dtype} {image.shape}")
    if path.suffix.lower() not in PILLOW_FORMATS:
        expected = f"one of the suffixes {' '.join(sorted(DATASET_SUFFIXES))}"
        raise ImageError(Problem(str(path), expected, repr(path.suffix), "use another suffix"))
    file_format, options = PILLOW_FORMATS[path.suffix.lower()]
    if image.shape[2] == 4 and file_format in ("JPEG", "BMP"):
        raise ImageError(Problem(str(path), "an image without alpha", _KIND_NAMES[4], "write .png, .webp or .tif"))
    longest = _MAX_SIDE.get(file_format, max(image.shape))
    if max(image.shape) > longest:
        expected, got = f"at most {longest} pixels per side for {file_format}", f"{image.shape[0]}x{image.shape[1]}"
        raise ImageError(Problem(str(path), expected, got, "write .png or .tif"))
    try:
        with atomic_write(path, overwrite=overwrite) as file:
            Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, file_format, **options)
    except ImageError:
        raise
    except Exception as error:
        remedy = "check the folder and its free disk space, or choose another format"
        raise ImageError(f"{path}: cannot be written as {file_format}: {describe_error(error)}; {remedy}") from error
