"""Decode images with Pillow, for training and of formats that libvips lacks, and convert images to Pillow's class.

libvips cannot be used in a forked process, such as a loader of PyTorch, if its parent has used it.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from esrgan.images.exif import adjust_exif
from esrgan.images.image import DEFAULT_QUALITY, ImageData
from esrgan.images.samples import squeeze_grey
from esrgan.images.source import Decoded, Source, UnsupportedImageError

# How dataset images are written: without loss where the format allows it. For WebP that also keeps the resolution of
# the colours, which its lossy mode would halve.
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": DEFAULT_QUALITY, "subsampling": "4:4:4"},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_lzw"},
}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def decode(source: Source, pages: int) -> Decoded:
    """Decode an image of one frame whose samples have 8 bits.

    Args:
        source: The file to read.
        pages: Number of pages of a TIFF file; -1 for other files.

    Raises:
        UnsupportedImageError: The image has too many pixels, several frames, or samples that would have to be changed.
    """
    source.file.seek(0)
    Image.init()
    # Image.open would apply Pillow's own, lower limit of pixels.
    image = Image.OPEN[source.file_format][0](source.file, b"")
    image.info.pop("xmp", None)  # Pillow would apply an orientation in XMP, which libvips does not.
    source.check_pixel_count(image.width * image.height)
    # Phones write MPO: a JPEG file with a preview or a depth map after the photograph.
    frames = 1 if image.format == "MPO" else pages if pages > 0 else getattr(image, "n_frames", 1)
    if frames > 1:
        kind = f"several pages ({frames})" if image.format == "TIFF" else f"an animation of {frames} frames"
        raise UnsupportedImageError("one image", kind, "extract one of them")
    if _has_deep_samples(image):
        raise UnsupportedImageError("samples of 8 bits", "more than 8 bits per sample", "convert it to 8 bits")
    if image.mode not in ("1", "P", *_MODES.values()):
        raise UnsupportedImageError("grey or RGB", f"colour mode {image.mode}", "convert it to RGB")
    channels = _count_channels(image)
    if source.header_only:
        pixels = np.broadcast_to(np.uint8(0), (image.height, image.width, channels))
    else:
        pixels = _to_array(image, _MODES[channels])
    return Decoded([pixels], {"orientation": _pending_orientation(image)})


def decode_any(source: Source, plugin: str, head: bytes | None = None) -> tuple[Any, NDArray[Any]]:
    """Decode an image of a format that libvips lacks.

    Args:
        source: The file to read.
        plugin: Name of the format in Pillow.
        head: What is to be read instead of the bytes before the current position; None to read the file as it is.

    Returns:
        The image of Pillow, and its pixels (H, W, C) of uint8 or uint16, or zeros if only its shape is needed and it
        cannot have alpha.

    Raises:
        UnsupportedImageError: It has too many pixels, or is of a kind that Pillow does not know.
        ValueError: It is damaged.
    """
    if head is None:
        source.file.seek(0)
    data = source.file if head is None else io.BytesIO(head + source.file.read())
    Image.init()
    try:
        image: Any = Image.OPEN[plugin][0](data, b"")  # Image.open would apply Pillow's own, lower limit of pixels
    except OSError as error:
        raise UnsupportedImageError(f"a common kind of {plugin} image", str(error), "convert it to .png") from error
    source.check_pixel_count(image.width * image.height, len(image.getbands()))
    mode = {"1": "L", "I;16": "I", "I;16B": "I"}.get(image.mode, image.mode)
    if mode == "P":
        mode = image.palette.mode if image.palette else "L"
    elif source.header_only and mode in ("L", "I", "RGB"):
        sample = np.uint16(0) if mode == "I" else np.uint8(0)
        return image, np.broadcast_to(sample, (image.height, image.width, 1 if mode == "I" else len(mode)))
    try:
        pixels = np.array(image.convert(mode))
    except OSError as error:
        raise ValueError(str(error)) from error
    pixels = pixels.astype(np.uint16) if mode == "I" else pixels
    return image, pixels.reshape(image.height, image.width, -1)


def _to_array(image: Image.Image, mode: str) -> NDArray[np.uint8]:
    pixels = np.array(image if image.mode == mode else image.convert(mode), np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)


def _has_deep_samples(image: Image.Image) -> bool:
    """Return whether samples have more than 8 bits.

    Pillow's mode only shows this for grey images, because Pillow reduces 16-bit RGB to 8 bits.
    """
    return image.mode[0] in "IF" or (image.format == "PNG" and any(";16" in str(tile[3]) for tile in image.tile))  # type: ignore[attr-defined]


def _count_channels(image: Image.Image) -> int:
    if image.mode != "P":
        return len(image.getbands()) + ("transparency" in image.info and image.mode in ("1", "L", "RGB"))
    if "transparency" in image.info:
        return 4
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)  # This decodes the image, but palette images are rare.
    return 1 if np.all(palette == palette[:, :1]) else 3


def _pending_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that has yet to be applied to an opened image."""
    if image.format == "TIFF":
        return 1  # Pillow has already applied it.
    # For a PNG file without EXIF before the pixels, image.getexif() would decode the whole image.
    orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    return orientation if isinstance(orientation, int) else 1


def encode(file: BinaryIO, pixels: NDArray[np.uint8], name: str, **options: Any) -> None:
    """Write an image (H, W, 1 to 4) in the format of a name in ``FILE_FORMATS``, with options of Pillow's."""
    pixels = np.ascontiguousarray(squeeze_grey(pixels))
    Image.fromarray(pixels).save(file, name, **_OPTIONS.get(name, {}), **options)


def name_software(name: str) -> PngInfo:
    """Return an option for ``encode`` that stores the name of a program in a PNG file."""
    info = PngInfo()
    info.add_text("Software", name)
    return info


def has_pil_mode(image: ImageData) -> bool:
    """Return whether Pillow's class can hold an image: one frame of 8 bits or of 16-bit grey, without extra bands."""
    (_, _, channels), dtype = image.frames[0].shape, image.frames[0].dtype
    is_deep_grey = dtype == np.uint16 and channels == 1
    return len(image.frames) == 1 and not image.extra_bands and (dtype == np.uint8 or is_deep_grey)


def to_pil(image: ImageData) -> Image.Image:
    """Convert an image of which ``has_pil_mode`` is true, with its colour profile, EXIF and resolution."""
    (pixels,) = image.frames
    result = Image.fromarray(squeeze_grey(pixels))
    exif = adjust_exif(image.exif, pixels, image.factors)[0] if image.exif else None
    metadata = {"icc_profile": image.icc_profile, "exif": exif, "dpi": image.dpi}
    result.info |= {key: value for key, value in metadata.items() if value}
    return result
