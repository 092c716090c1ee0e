"""Prepare samples for a network, and put back what it must not change: missing samples, value ranges and grey."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from esrgan.images.samples import peak_value, row_blocks

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]
Range = tuple[float, float]
_LARGEST = 3.39e38  # of float samples with data; ArcGIS and GDAL mark those without by -3.4028235e38 or -3.4e38


def repeat_grey(pixels: Pixels) -> Pixels:
    """Return an image (H, W), (H, W, 1) or (H, W, 2 and more) as RGB, followed by the channels after the first."""
    grey = np.atleast_3d(pixels)
    return np.concatenate([grey[..., :1].repeat(3, axis=2), grey[..., 1:]], axis=2)


def is_visible(alpha: Pixels) -> Mask:
    """Return which samples of alpha are more than 1/255, the weight of a colour that no 8-bit screen can show."""
    visible: Mask = alpha > peak_value(alpha.dtype) / 255
    return visible


def harden(alpha: Pixels) -> None:
    """Make each sample of alpha 0 or the peak, in place; half of the peak becomes the peak."""
    peak = peak_value(alpha.dtype)
    for block in row_blocks(alpha):
        block[...] = np.where(block >= peak / 2, np.asarray(peak, alpha.dtype), np.asarray(0, alpha.dtype))


def is_partial(alpha: Pixels) -> bool:
    """Return whether alpha varies and has values between 0 and the peak."""
    peak = peak_value(alpha.dtype)
    has_between = any(((block != 0) & (block != peak)).any() for block in row_blocks(alpha))
    return bool(has_between and alpha.min() < alpha.max())


def fill(pixels: Pixels, is_missing: Mask, is_usable: Mask) -> Pixels:
    """Replace missing pixels by the nearest usable ones.

    Args:
        pixels: (H, W, ...) of any type.
        is_missing: (H, W), which pixels to replace.
        is_usable: (H, W), which pixels may replace them.

    Returns:
        A copy; ``pixels`` itself if no pixel is missing or usable.
    """
    if not is_missing.any() or not is_usable.any():
        return pixels
    from scipy import ndimage  # the import takes a third of a second, and few images need it

    nearest = ndimage.distance_transform_edt(~is_usable, return_distances=False, return_indices=True)
    filled = pixels.copy()
    filled[is_missing] = pixels[tuple(index[is_missing] for index in nearest)]
    return filled


def fill_missing(pixels: Pixels, missing: Mask, usable: Mask | None) -> None:
    """Replace missing samples by the nearest usable ones of their channel, in place.

    Args:
        pixels: (H, W, C) of any type.
        missing: (H, W, C), which samples to replace.
        usable: (H, W, 1 or C), which may replace them; where a channel has none, the missing samples become 0.
    """
    usable = np.broadcast_to(~missing if usable is None else usable, missing.shape)
    for channel in range(pixels.shape[2]):
        values, is_missing = pixels[..., channel], missing[..., channel]
        if usable[..., channel].any():
            values[...] = fill(values, is_missing, usable[..., channel])
        else:
            values[is_missing] = 0


def put_back(high: Pixels, low: Pixels, missing: Mask | None, no_data: float | None) -> None:
    """Copy the missing samples of an image to their places in its upscaled version, by nearest neighbour.

    Others that happen to have the value ``no_data``, by the rule of ``find_missing``, get the next value, so that no
    more samples are missing than before.

    Args:
        high: (H', W', C), changed in place.
        low: (H, W, C), the samples as they were read.
        missing: (H, W, C), which of them to copy; None if there are none.
        no_data: The value for missing samples; None if there is none.
    """
    value = _as_sample(no_data, high.dtype)
    if missing is None and value is None:
        return
    rows, columns = (
        ((np.arange(size) + 0.5) * (old / size)).astype(int).clip(0, old - 1)
        for size, old in zip(high.shape[:2], low.shape[:2], strict=True)
    )
    first = 0
    for block in row_blocks(high):
        place = np.ix_(rows[first : first + len(block)], columns)
        if value is not None:
            marked = _find_value(block, value)
            block[marked if missing is None else marked & ~missing[place]] = _next_value(value)
        if missing is not None:
            np.copyto(block, low[place], where=missing[place])
        first += len(block)


def _as_sample(value: float | None, dtype: np.dtype[Any]) -> Any:
    """Return a value in the type of the samples; None if no finite sample can have it."""
    if value is None or not np.isfinite(value):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            sample = dtype.type(value)
        return sample if np.isfinite(sample) else None
    return dtype.type(value) if value == int(value) and 0 <= value <= np.iinfo(dtype).max else None


def _next_value(value: Any) -> Any:
    """Return the next value towards 0, or from 0 towards 1."""
    if value.dtype.kind == "f":
        return np.nextafter(value, value.dtype.type(0 if value else 1))
    return value - value.dtype.type(1) if value else value.dtype.type(1)


def _find_value(pixels: Pixels, value: Any) -> Mask:
    """Return which samples (H, W, C) have a value; in integers, only those of pixels that have it in all channels."""
    marked: Mask = pixels == value
    if pixels.dtype.kind != "f":
        marked[...] = marked.all(axis=2, keepdims=True)
    return marked


def find_range(pixels: Pixels, is_usable: Mask | None = None) -> Range | None:
    """Return the lowest and highest of the usable finite samples; None if there are none."""
    lowest, highest = np.inf, -np.inf
    first = 0
    for block in row_blocks(pixels):
        usable = np.isfinite(block)
        if is_usable is not None:
            usable &= is_usable[first : first + len(block)]
        first += len(block)
        lowest = min(lowest, float(block.min(where=usable, initial=np.inf)))
        highest = max(highest, float(block.max(where=usable, initial=-np.inf)))
    return (lowest, highest) if lowest <= highest else None


def to_unit(pixels: Pixels, lowest: float, highest: float) -> Pixels:
    """Scale samples from [lowest, highest] to float32 in [0, 1]; others are clipped. If the two are equal, return 0."""
    unit = np.zeros(pixels.shape, np.float32)
    if highest > lowest:
        for block, source in zip(row_blocks(unit), row_blocks(pixels), strict=True):
            # In double precision, because the difference of two float32 values can exceed the range of float32.
            block[...] = ((source.astype(np.float64) - lowest) / (highest - lowest)).clip(0, 1)
    return unit


def from_unit(unit: Pixels, lowest: float, highest: float) -> None:
    """Scale float32 samples from [0, 1] to [lowest, highest] in place."""
    for block in row_blocks(unit):
        block[...] = (block.astype(np.float64) * (highest - lowest) + lowest).clip(lowest, highest)


def find_missing(pixels: Pixels, no_data: float | None) -> Mask | None:
    """Return which samples of an image (H, W, C) have no data; None if all have.

    These are NaN, infinity, ``no_data``, and the largest floats, with which programs mark samples without data although
    the file does not say so. In integers, where 0 is often both black and the value for missing samples, all channels
    of a pixel must have the value ``no_data``.
    """
    value = _as_sample(no_data, pixels.dtype)
    if value is None and pixels.dtype.kind != "f":
        return None
    missing = np.zeros(pixels.shape, np.bool_)
    for block, place in zip(row_blocks(pixels), row_blocks(missing), strict=True):
        if value is not None:
            place |= _find_value(block, value)
        if pixels.dtype.kind == "f":
            place |= ~(np.abs(block) < _LARGEST)
    return missing if missing.any() else None
