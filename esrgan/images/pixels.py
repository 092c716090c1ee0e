"""Reads and writes image files for training and measuring; every image is a uint8 array (H, W, C) in [0, 255].

Reading refuses whatever it would have to change.
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

_MAX_SIDE = {"JPEG": 65500, "WEBP": 16383}  # pixels, of libjpeg and libwebp

# A fixed list, as Pillow would run Ghostscript on a PostScript file called .png.
_READ_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_READABLE = "an 8-bit PNG, JPEG, WebP, BMP or TIFF image"
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_KIND_NAMES = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}
# Exif 2.32, §4.6.4: what turns an image with this Orientation upright; from 5 on its sides change places.
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
    """Reads an image for training or measuring, so refuses whatever could only be read by changing it.

    Args:
        path: A PNG, JPEG, WebP, BMP or TIFF file.
        channels: 1 grey, 3 RGB, 4 RGB with alpha. A palette image is what its palette holds.

    Returns:
        (H, W, channels) uint8 in [0, 255], upright (EXIF orientation applied), writable.

    Raises:
        ImageError: The file is missing, damaged, animated, not 8-bit, of other channels or beyond Pillow's pixel limit.
    """
    with _open_image(path) as image:
        actual = _count_channels(image)
        if actual != channels:
            remedy = "convert it" if actual == 2 else f"convert it, or set img_channels to {actual}"
            raise ImageError(
                Problem(
                    str(path), f"an image of kind {_KIND_NAMES[channels]}", f"one of kind {_KIND_NAMES[actual]}", remedy
                )
            )
        return _decode(image, _MODES[channels])


def read_shape(path: str | Path) -> tuple[int, int, int]:
    """Reads (height, width, channels) of an image from its header, as ``read_pixels`` would give it.

    Raises:
        ImageError: As ``read_pixels`` does, but for damage behind the header.
    """
    with _open_image(path) as image:
        width, height = image.size
        is_turned = _pending_orientation(image) >= 5
        channels = _count_channels(image)
        return (width, height, channels) if is_turned else (height, width, channels)


def _decode(image: ImageFile.ImageFile, mode: str) -> NDArray[np.uint8]:
    """The upright pixels (H, W, C) of an opened image."""
    orientation = _pending_orientation(image)
    upright: Image.Image = image if image.mode == mode else image.convert(mode)
    if orientation in _ORIENTATION_TRANSFORMS:
        upright = upright.transpose(_ORIENTATION_TRANSFORMS[orientation])
    pixels = np.array(upright, np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)


@contextmanager
def _open_image(path: str | Path) -> Iterator[ImageFile.ImageFile]:
    """Opens an image, refuses the unsuitable, and puts whatever goes wrong until it is closed into words."""
    try:
        with Image.open(path, formats=_READ_FORMATS) as image:
            # Pillow only warns up to twice its limit. Turning the warning into an error would not be thread-safe.
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height}")
            # MPO is what phones write: a JPEG, with a preview or a depth map behind the photograph.
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
        expected = f"at most {Image.MAX_IMAGE_PIXELS} pixels, to be safe from decompression bombs"
        remedy = "cut it into parts, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        raise ImageError(Problem(str(path), expected, f"more ({describe_error(error)})", remedy)) from error
    except UnidentifiedImageError as error:
        raise ImageError(Problem(str(path), _READABLE, "something else or a damaged one", "convert it")) from error
    except Exception as error:  # damaged files make Pillow raise anything from SyntaxError to struct.error
        raise ImageError(Problem(str(path), _READABLE, describe_error(error), "replace it or leave it out")) from error


def _has_deep_samples(image: ImageFile.ImageFile) -> bool:
    """Whether samples have more than 8 bits, of which Pillow's mode tells only in grey: 16-bit RGB is cut to 8 bits."""
    if isinstance(image, TiffImageFile):
        return bool(np.max(image.tag_v2.get(ExifTags.Base.BitsPerSample, 1)) > 8)
    return image.mode[0] in "IF" or (image.format == "PNG" and any(";16" in str(tile[3]) for tile in image.tile))


def _count_channels(image: ImageFile.ImageFile) -> int:
    if image.mode != "P":
        return len(image.getbands())
    if "transparency" in image.info:
        return 4
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)  # decodes the image, but palette images are rare
    return 1 if np.all(palette == palette[:, :1]) else 3


def _pending_orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 to 8, still to be applied to an opened image."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFF files upright itself
    # Not image.getexif(): that of a PNG decodes the whole image when there is no EXIF before the pixels.
    orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    return orientation if orientation in _ORIENTATION_TRANSFORMS else 1


def write_pixels(path: str | Path, image: NDArray[np.uint8], *, overwrite: bool = False) -> None:
    """Writes an image whole or not at all: lossless, except JPEG at quality 95 and full colour resolution (4:4:4).

    Args:
        path: Where to; the suffix, one of ``DATASET_SUFFIXES``, chooses the format. WebP stores grey as RGB.
        image: (H, W, 1 | 3 | 4) uint8 in [0, 255].
        overwrite: Whether a file that is there may be replaced.

    Raises:
        ImageError: The suffix is unknown, the format cannot hold the image, the file exists, or writing fails.
        ValueError: The array is not an image.
    """
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"expected an image of uint8 (H, W, 1, 3 or 4), got {image.dtype} {image.shape}")
    if path.suffix.lower() not in PILLOW_FORMATS:
        expected = f"a suffix of {' '.join(sorted(DATASET_SUFFIXES))}"
        raise ImageError(Problem(str(path), expected, repr(path.suffix), "write to another name"))
    file_format, options = PILLOW_FORMATS[path.suffix.lower()]
    if image.shape[2] == 4 and file_format in ("JPEG", "BMP"):
        raise ImageError(Problem(str(path), "an image without alpha", _KIND_NAMES[4], "write .png, .webp or .tif"))
    longest = _MAX_SIDE.get(file_format, max(image.shape))
    if max(image.shape) > longest:
        expected, got = f"at most {longest} pixels a side for {file_format}", f"{image.shape[0]}x{image.shape[1]}"
        raise ImageError(Problem(str(path), expected, got, "write .png or .tif"))
    try:
        with atomic_write(path, overwrite=overwrite) as file:
            Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, file_format, **options)
    except ImageError:
        raise
    except Exception as error:
        remedy = "check the folder and the space on its disk, or choose another format"
        raise ImageError(Problem(str(path), f"to write a {file_format} file", describe_error(error), remedy)) from error
