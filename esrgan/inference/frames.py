"""Upscale the frames of an image file, whatever their bands and the range of their samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from esrgan.images import ImageData
from esrgan.inference.samples import (
    Mask,
    Pixels,
    avoid_value,
    fill,
    find_missing,
    find_range,
    from_unit,
    put_back,
    to_unit,
)
from esrgan.inference.tiling import ProgressCallback, subprogress
from esrgan.inference.upscaler import Upscaler

Range = tuple[float, float]


def upscale_image(upscaler: Upscaler, image: ImageData, progress: ProgressCallback = lambda _: None) -> ImageData:
    """Upscale all frames of an image, and keep its metadata.

    Colour and alpha are upscaled as ``Upscaler`` does with arrays, and each extra band by itself as a grey image.
    Float samples outside 0 to 1 are scaled to 0–1 by their range in the whole file, colours together and each extra
    band by itself, and back. Samples without data are filled from the nearest ones with data, and put back into the
    output; so are NaN and infinity.

    Args:
        upscaler: The upscaler.
        image: The image, as ``images.read_image`` returns it.
        progress: Called with the fraction of the work that is done, up to 1.

    Returns:
        The image with larger frames, and with notes about what was scaled or left out of the computation.

    Raises:
        DeviceError: If the device has too little memory.
        WeightsError: If the network's output is not finite.

    Example:
        >>> from esrgan import Upscaler, images
        >>> from esrgan.inference import upscale_image
        >>> high = upscale_image(Upscaler.from_file(), images.read_image("photo.png"))
        >>> high.frames[0].shape
        (288, 384, 3)
    """
    groups = [slice(0, image.base_channels)]
    groups += [slice(band, band + 1) for band in range(image.base_channels, image.frames[0].shape[2])]
    missing = [[find_missing(frame[..., group], image.no_data) for group in groups] for frame in image.frames]
    ranges = _find_ranges(image, groups, missing)
    frames = []
    for i, frame in enumerate(image.frames):
        high = np.empty((*upscaler.output_size(*frame.shape[:2]), frame.shape[2]), frame.dtype)
        for j, group in enumerate(groups):
            part = subprogress(subprogress(progress, i, len(image.frames)), j, len(groups))
            pixels, mask, limits = frame[..., group], missing[i][j], ranges[j]
            if mask is None and limits is None and len(groups) == 1:
                high = upscaler(pixels, part)  # needs no memory besides the output
            else:
                high[..., group] = _upscale_group(upscaler, pixels, mask, limits, image.no_data, part)
        frames.append(high)
    return replace(image, frames=tuple(frames), notes=(*image.notes, *_describe(image, missing, ranges)))


def _find_ranges(image: ImageData, groups: list[slice], missing: list[list[Mask | None]]) -> list[Range | None]:
    """Return the range of each group's samples in all frames, or None where it needs no scaling."""
    if image.frames[0].dtype != np.float32:
        return [None] * len(groups)
    ranges: list[Range | None] = []
    for j, group in enumerate(groups):
        colours = slice(group.start, group.stop - (j == 0 and image.has_alpha))
        found = [
            limits
            for frame, masks in zip(image.frames, missing, strict=True)
            if (limits := find_range(frame[..., colours], None if (mask := masks[j]) is None else ~mask[..., None]))
        ]
        lowest, highest = min((low for low, _ in found), default=0), max((high for _, high in found), default=0)
        ranges.append((lowest, highest) if lowest < 0 or highest > 1 else None)
    return ranges


def _upscale_group(
    upscaler: Upscaler,
    pixels: Pixels,
    missing: Mask | None,
    limits: Range | None,
    no_data: float | None,
    progress: ProgressCallback,
) -> Pixels:
    """Upscale colours with alpha, or one extra band."""
    low = pixels if missing is None else fill(pixels, missing, ~missing)
    if missing is not None and missing.all():
        low = np.zeros_like(pixels)
    colours = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    if limits is not None:
        low = np.concatenate([to_unit(low[..., :colours], *limits), low[..., colours:]], axis=2)
    high: Pixels = upscaler(np.ascontiguousarray(low), progress)
    if limits is not None:
        from_unit(high[..., :colours], *limits)
    if missing is not None:
        if no_data is not None and np.isfinite(no_data):
            avoid_value(high[..., :colours], missing, high.dtype.type(no_data))
        for channel in range(colours):
            put_back(high[..., channel], pixels[..., channel], missing)
    return high


def _describe(image: ImageData, missing: list[list[Mask | None]], ranges: list[Range | None]) -> Iterator[str]:
    for j, limits in enumerate(ranges):
        if limits is not None:
            band = f" of band {image.base_channels + j}" if j else ""
            yield f"float samples{band} from {limits[0]:g} to {limits[1]:g} scaled to 0–1 for the network and back"
    if any(mask is not None for masks in missing for mask in masks):
        yield "samples without data filled in for the network and put back"
