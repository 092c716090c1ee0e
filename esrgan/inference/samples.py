"""Prepare samples for a network, and put back what it must not change: missing samples, value ranges and grey."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]
BLOCK_SAMPLES = 1 << 20  # how many samples are converted at once, so that large images need no large temporary arrays


def row_blocks(pixels: Pixels) -> Iterator[Pixels]:
    """Yield views of consecutive rows that together have about ``BLOCK_SAMPLES`` samples."""
    rows = max(BLOCK_SAMPLES * len(pixels) // max(pixels.size, 1), 1)
    for top in range(0, len(pixels), rows):
        yield pixels[top : top + rows]


def is_grey(pixels: Pixels) -> bool:
    """Return whether an image (H, W, C ≥ 3) is grey: red, green and blue are equal in every pixel."""
    return all(
        np.array_equal(block[..., 0], block[..., 1]) and np.array_equal(block[..., 0], block[..., 2])
        for block in row_blocks(pixels)
    )


def peak_value(dtype: np.dtype[Any]) -> float:
    """Return the value of white, and of opaque alpha, in arrays of a type."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def is_visible(alpha: Pixels) -> Mask:
    """Return which samples of alpha are more than 1/255, the weight of a colour that no 8-bit screen can show."""
    visible: Mask = alpha > peak_value(alpha.dtype) / 255
    return visible


def harden(alpha: Pixels) -> None:
    """Make each sample of alpha 0 or the peak, in place; half of the peak becomes the peak."""
    peak = peak_value(alpha.dtype)
    for block in row_blocks(alpha):
        block[...] = np.where(block >= peak / 2, np.asarray(peak, alpha.dtype), np.asarray(0, alpha.dtype))


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
    nearest = ndimage.distance_transform_edt(~is_usable, return_distances=False, return_indices=True)
    filled = pixels.copy()
    filled[is_missing] = pixels[tuple(index[is_missing] for index in nearest)]
    return filled


def put_back(high: Pixels, low: Pixels, is_missing: Mask) -> None:
    """Copy the missing samples of an image to their places in its upscaled version, by nearest neighbour.

    Args:
        high: (H', W'), changed in place.
        low: (H, W), the samples as they were read.
        is_missing: (H, W), which of them to copy.
    """
    if not is_missing.any():
        return
    rows, columns = (
        ((np.arange(size) + 0.5) * (old / size)).astype(int).clip(0, old - 1)
        for size, old in zip(high.shape, low.shape, strict=True)
    )
    first = 0
    for block in row_blocks(high):
        place = np.ix_(rows[first : first + len(block)], columns)
        np.copyto(block, low[place], where=is_missing[place])
        first += len(block)


def avoid_value(high: Pixels, is_missing: Mask, value: Any) -> None:
    """Move measured samples that happen to have the value for missing samples to the nearest other value.

    Args:
        high: (H', W', C), changed in place. A pixel is moved if all of its channels have the value.
        is_missing: (H, W), which pixels of the low-resolution image have the value.
        value: The value, of the type of ``high``.
    """
    if np.issubdtype(high.dtype, np.integer):
        other = value + 1 if value == 0 else value - 1
    else:
        other = np.nextafter(value, high.dtype.type(0 if value else 1))
    places = np.ones(high.shape[:2], np.bool_)
    put_back(places, np.zeros_like(is_missing), is_missing)
    places &= (high == value).all(axis=2)
    high[places] = other


def find_range(pixels: Pixels, is_usable: Mask | None = None) -> tuple[float, float] | None:
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
    """Return which pixels (H, W) of an image (H, W, C) have no data; None if all have.

    These are the pixels whose channels all have the value ``no_data``, or of which one is NaN or infinite.
    """
    missing: Mask | None = None
    if pixels.dtype.kind == "f" and not all(np.isfinite(block).all() for block in row_blocks(pixels)):
        missing = np.asarray(~np.isfinite(pixels).all(axis=2))
    if no_data is not None and np.isfinite(no_data):
        value = np.float32(no_data) if pixels.dtype.kind == "f" else no_data
        marked: Mask = np.asarray((pixels == value).all(axis=2))
        if marked.any():
            missing = marked if missing is None else missing | marked
    return missing
