"""Upscale PIL images, and files as PIL images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from esrgan import images
from esrgan.errors import ImageError, Problem
from esrgan.images.samples import is_grey
from esrgan.inference.frames import upscale_image
from esrgan.inference.tiling import ProgressCallback
from esrgan.text import format_count

if TYPE_CHECKING:
    from esrgan.inference.upscaler import Upscaler


def upscale_file(upscaler: Upscaler, path: Path, progress: ProgressCallback) -> Image.Image:
    """Read an image file and return it upscaled.

    Raises:
        ImageError: If the file cannot be read, or PIL has no mode for its samples.
    """
    image = images.read_image(path)
    if not images.has_pil_mode(image):
        got = f"{format_count(len(image.frames), 'frame')} of {image.frames[0].dtype}"
        remedy = "use esrgan.inference.upscale_files, or upscale_image with what esrgan.images.read_image returns"
        raise ImageError(Problem(str(path), "an image that PIL can represent", got, remedy))
    return images.to_pil(upscale_image(upscaler, image, progress))


def upscale_pil(upscaler: Upscaler, image: Image.Image, progress: ProgressCallback) -> Image.Image:
    """Return a PIL image upscaled, with its colour profile, EXIF and resolution.

    Raises:
        ValueError: If the image has several frames or an unsupported mode.
    """
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ValueError(
            f"expected one image, got {getattr(image, 'n_frames', 1)} frames; upscale a copy of each frame"
        )
    if image.mode == "I;16" and image.has_transparency_data:
        remedy = 'delete image.info["transparency"], or upscale the array that esrgan.images.read_image returns'
        raise ValueError(f"expected 16-bit grey without a transparent colour (PIL has no 16-bit alpha); {remedy}")
    mode = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
    if mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
        raise ValueError(
            f"expected a PIL image of mode 1, P, L, LA, RGB, RGBA or I;16, got {image.mode}; use convert()"
        )
    if image.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    pixels = np.asarray(image.convert(mode))
    if image.mode == "P" and is_grey(pixels):
        pixels = pixels[..., [0, 3]] if mode == "RGBA" else pixels[..., 0]
    high = Image.fromarray(upscaler(pixels, progress))
    high.info |= {key: image.info[key] for key in ("icc_profile", "exif", "dpi") if key in image.info}
    return high
