"""Remove alpha: where it is opaque everywhere, or by placing an image on a background."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from esrgan.errors import ImageError
from esrgan.images.image import ImageData
from esrgan.images.samples import MOST_ALPHA, peak_value, row_blocks

Colour = tuple[int, int, int]  # red, green and blue from 0 to 255
# HDR images also have white at 1, and only their light sources exceed it. If more samples than this share are so
# bright, white is another value.
_BRIGHT, _MOST_BRIGHT = 5.0, 0.7


def parse_colour(text: str) -> Colour:
    """Return the colour that a name (white) or a code (#ffffff) stands for.

    Raises:
        ValueError: If it stands for none, or for a transparent one.
    """
    from PIL import ImageColor

    colour = ImageColor.getcolor(text, "RGBA")
    if not isinstance(colour, tuple) or len(colour) != 4 or colour[3] != 255:
        raise ValueError(f"expected an opaque colour, got {text}")
    return colour[0], colour[1], colour[2]


def fit_alpha(image: ImageData, *, supports_alpha: bool, background: Colour | None = None) -> ImageData:
    """Return an image with no more alpha than wanted.

    Args:
        image: The image.
        supports_alpha: Whether its alpha can be stored. If not, it is dropped where it is opaque in every pixel of
            every frame; otherwise the image is returned unchanged.
        background: The colour to place the image on, whatever can be stored; None keeps it transparent. It is taken in
            the colour space of the image.

    Raises:
        ImageError: There is a background, and float samples have another range than 0 to 1.
    """
    if not image.has_alpha:
        return image
    if background is not None:
        return _flatten(image, background)
    if supports_alpha:
        return image
    channel, opaque = image.base_channels - 1, peak_value(image.frames[0].dtype)
    if image.frames[0].dtype.kind == "f":  # another range than 0 to 1
        opaque = max(opaque, *(float(frame[..., channel].max()) for frame in image.frames))
    if any(frame[..., channel].min() < opaque for frame in image.frames):
        return image
    return replace(image, frames=tuple(np.delete(frame, channel, axis=2) for frame in image.frames))


def _flatten(image: ImageData, background: Colour) -> ImageData:
    """Place every frame on a colour. Grey becomes RGB if the colour is not grey."""
    if image.frames[0].dtype.kind == "f":
        _check_range(image)
    colours = image.base_channels - 1
    count = 1 if colours == 1 and len({*background}) == 1 else 3
    frames = []
    for frame in image.frames:
        peak = peak_value(frame.dtype)
        flat = np.empty((*frame.shape[:2], count + image.extra_bands), frame.dtype)
        ground = np.array(background[:count]) * (peak / 255)
        bottom = 0
        for block in row_blocks(frame):
            rows = slice(bottom, bottom := bottom + len(block))
            alpha = block[..., colours : colours + 1] / peak
            mixed = block[..., :colours] * alpha + ground * (1 - alpha)
            flat[rows, :, :count] = mixed if frame.dtype.kind == "f" else np.rint(mixed)
            flat[rows, :, count:] = block[..., colours + 1 :]
        frames.append(flat)
    return replace(image, frames=tuple(frames))


def _check_range(image: ImageData) -> None:
    """Refuse float samples whose white is not 1.

    Samples of 0 and transparent pixels are left out, because they say nothing about the range.
    """
    channel = image.base_channels - 1
    count = bright = 0
    most_alpha = 0.0
    for block in itertools.chain.from_iterable(map(row_blocks, image.frames)):
        colours, alpha = block[..., :channel], block[..., channel : channel + 1]
        count += int(np.count_nonzero((colours > 0) & (alpha > 0)))
        bright += int(np.count_nonzero((colours > _BRIGHT) & (alpha > 0)))
        most_alpha = max(most_alpha, float(alpha.max()))
    if most_alpha > MOST_ALPHA or bright > _MOST_BRIGHT * count:
        raise ImageError("a background needs samples from 0 to 1, got floats of another range; scale them first")
