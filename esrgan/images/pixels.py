"""Read and write image files for training and evaluation as uint8 arrays (H, W, C) in [0, 255].

Images that could only be read by converting them are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from esrgan.errors import ImageError, Problem
from esrgan.files import atomic_write
from esrgan.images.formats import DATASET_SUFFIXES, PILLOW_FORMATS
from esrgan.text import describe_error

_MAX_SIDE = {"JPEG": 65500, "WEBP": 16383}  # limits in pixels of libjpeg and libwebp

# The formats are fixed because Pillow would otherwise run Ghostscript on a PostScript file that is called .png.
_READ_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_READABLE = "an 8-bit PNG, JPEG, WebP, BMP or TIFF image"
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_KIND_NAMES = {1: "a grey image", 2: "a grey image with alpha", 3: "an RGB image", 4: "an RGB image with alpha"}
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
    """Read an image for training or evaluation; one that would have to be converted is refused.

    Args:
        path: Path of a PNG, JPEG, WebP, BMP or TIFF file.
        channels: Required channels: 1 for grey, 3 for RGB, 4 for RGB with alpha. A palette image has the channels
            of the colours in its palette.

    Returns:
        A writable array (H, W, channels) of uint8 in [0, 255], upright (EXIF orientation applied).

    Raises:
        ImageError: The file is missing, damaged, animated, not 8-bit, has other channels, or exceeds Pillow's pixel
            limit.
    """
    with _open_image(path) as image:
        actual = _count_channels(image)
        if actual != channels:
            remedy = "convert it" if actual == 2 else f"convert it, or set img_channels to {actual}"
            raise ImageError(Problem(str(path), _KIND_NAMES[channels], _KIND_NAMES[actual], remedy))
        return _decode(image, _MODES[channels])


def read_shape(path: str | Path) -> tuple[int, int, int]:
    """Return the shape (height, width, channels) of the array that ``read_pixels`` would return.

    Only the header is read, except for palette images.

    Raises:
        ImageError: The file cannot be read by ``read_pixels``. Damage after the header is not detected.
    """
    with _open_image(path) as image:
        width, height = image.size
        is_turned = _pending_orientation(image) >= 5
        channels = _count_channels(image)
        return (width, height, channels) if is_turned else (height, width, channels)


def _decode(image: ImageFile.ImageFile, mode: str) -> NDArray[np.uint8]:
    """Return the upright pixels (H, W, C) of an opened image."""
    orientation = _pending_orientation(image)
    upright: Image.Image = image if image.mode == mode else image.convert(mode)
    if orientation in _ORIENTATION_TRANSFORMS:
        upright = upright.transpose(_ORIENTATION_TRANSFORMS[orientation])
    pixels = np.array(upright, np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)


@contextmanager
def _open_image(path: str | Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image, refuse unsupported ones, and raise any error before it is closed as an ``ImageError``."""
    try:
        with Image.open(path, formats=_READ_FORMATS) as image:
            # Pillow only warns up to twice its limit, and turning its warning into an error is not thread-safe.
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height}")
            # Phones write MPO: a JPEG file with a preview or a depth map after the photograph.
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise ImageError(
                    Problem(str(path), "one image", "an animation or several pages", "extract one of them")
                )
            if _has_deep_samples(image):
                raise ImageError(Problem(str(path), _READABLE, "more than 8 bits per sample", "convert it to 8 bits"))
            if image.mode not in ("1", "P", *_MODES.values()):
                raise ImageError(Problem(str(path), "grey or RGB", f"Pillow mode {image.mode}", "convert it to RGB"))
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        expected = f"at most {Image.MAX_IMAGE_PIXELS} pixels (a guard against decompression bombs)"
        remedy = "cut it into parts, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        raise ImageError(Problem(str(path), expected, f"more ({describe_error(error)})", remedy)) from error
    except UnidentifiedImageError as error:
        got = "another format or a damaged file"
        raise ImageError(Problem(str(path), _READABLE, got, "convert or replace it")) from error
    except Exception as error:  # Pillow raises anything from SyntaxError to struct.error for damaged files
        raise ImageError(Problem(str(path), _READABLE, describe_error(error), "replace or remove it")) from error


def _has_deep_samples(image: ImageFile.ImageFile) -> bool:
    """Return whether samples have more than 8 bits.

    Pillow's mode only shows this for grey images, because Pillow reduces 16-bit RGB to 8 bits.
    """
    if isinstance(image, TiffImageFile):
        return bool(np.max(image.tag_v2.get(ExifTags.Base.BitsPerSample, 1)) > 8)
    return image.mode[0] in "IF" or (image.format == "PNG" and any(";16" in str(tile[3]) for tile in image.tile))


def _count_channels(image: ImageFile.ImageFile) -> int:
    if image.mode != "P":
        return len(image.getbands())
    if "transparency" in image.info:
        return 4
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)  # This decodes the image, but palette images are rare.
    return 1 if np.all(palette == palette[:, :1]) else 3


def _pending_orientation(image: ImageFile.ImageFile) -> int:
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
