"""Compare models on the most detailed parts of an image."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from esrgan.images import ImageData
from esrgan.images.image import profile_space
from esrgan.images.samples import drop_colour_if_grey, to_uint8
from esrgan.images.sheet import make_contact_sheet
from esrgan.inference.frames import scale_to_unit
from esrgan.inference.tiling import ProgressCallback, subprogress
from esrgan.inference.upscaler import Upscaler

CROP_PX, MAX_CROPS = 96, 3
CONTEXT_PX = 32  # around each crop, so that its edges are those of a larger image


def compare_models(
    upscalers: Mapping[str, Upscaler], image: ImageData, progress: ProgressCallback = lambda _: None
) -> ImageData:
    """Return a sheet of parts of an image, with a column for the input and one for each model.

    Args:
        upscalers: The upscalers by their headings; they must keep colour and alpha apart, as is the default.
        image: The image; only its first frame is shown, as 8-bit grey or RGB, with alpha. Float samples outside 0 to 1
            are scaled by their range in the whole file.
        progress: Called after each part of the work with the fraction that is done, up to 1.

    Returns:
        The sheet, uint8 RGB, with a row for each of up to ``MAX_CROPS`` parts of ``CROP_PX`` pixels. It has the colour
        space of the image, and is grey if the image has a grey profile, which does not fit RGB.

    Example:
        >>> from esrgan import Upscaler, images
        >>> from esrgan.inference import compare_models
        >>> upscalers = {name: Upscaler.from_file(name) for name in ("esrgan-lite", "esrgan-lite-psnr")}
        >>> sheet = compare_models(upscalers, images.read_image("photo.png"))
        >>> sheet.frames[0].shape
        (436, 1208, 3)
    """
    pixels = to_uint8(scale_to_unit(image).frames[0][..., : image.base_channels])
    if pixels.shape[2] == 2:
        pixels = pixels[..., [0, 0, 0, 1]]
    upscalers = {name: _fix_factor(upscaler, *pixels.shape[:2]) for name, upscaler in upscalers.items()}
    rows: list[list[NDArray[np.uint8]]] = []
    corners = list(_find_crops(pixels))
    total = len(corners) * len(upscalers)
    for top, left in corners:
        first, second = max(top - CONTEXT_PX, 0), max(left - CONTEXT_PX, 0)
        low = pixels[first : top + CROP_PX + CONTEXT_PX, second : left + CROP_PX + CONTEXT_PX]
        cells = [pixels[top : top + CROP_PX, left : left + CROP_PX]]
        height, width = cells[0].shape[:2]
        for upscaler in upscalers.values():
            done = len(rows) * len(upscalers) + len(cells) - 1
            high = upscaler(low, subprogress(progress, done, total))
            scale = upscaler.options.outscale or upscaler.scale
            y, x = round((top - first) * scale), round((left - second) * scale)
            cells.append(high[y : y + max(round(height * scale), 1), x : x + max(round(width * scale), 1)])
        rows.append(cells)
    frames = [make_contact_sheet(rows, ["input", *upscalers])]
    if profile_space(image.icc_profile) == "GRAY":
        frames = drop_colour_if_grey(frames)
    return ImageData(tuple(frames), image.file_format, icc_profile=image.icc_profile, native_blocks=image.colour_blocks)


def _fix_factor(upscaler: Upscaler, height: int, width: int) -> Upscaler:
    """Return an upscaler that enlarges parts of an image by as much as the whole image."""
    if not upscaler.options.has_size:
        return upscaler
    upscaler.count_steps(height, width)  # refuses impossible sizes
    fixed = copy.copy(upscaler)
    fixed.options = upscaler.options.with_outscale(max(upscaler.output_size(height, width)) / max(height, width))
    return fixed


def _find_crops(pixels: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Yield the corners of parts that do not overlap, the most detailed first; the image itself if it is small."""
    light = pixels[..., : 3 if pixels.shape[2] >= 3 else 1].mean(axis=2)
    corners = [
        (top, left)
        for top in range(0, max(light.shape[0] - CROP_PX, 0) + 1, CROP_PX)
        for left in range(0, max(light.shape[1] - CROP_PX, 0) + 1, CROP_PX)
    ]

    def detail(corner: tuple[int, int]) -> float:
        part = light[corner[0] : corner[0] + CROP_PX, corner[1] : corner[1] + CROP_PX]
        return sum(float(np.abs(np.diff(part, axis=axis)).mean()) for axis in (0, 1) if part.shape[axis] > 1)

    yield from sorted(corners, key=detail, reverse=True)[:MAX_CROPS]
