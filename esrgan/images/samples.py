"""Examine decoded samples and change their layout: orientation, grey, opaque alpha."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
BLOCK_SAMPLES = 1 << 20  # how many samples are converted at once, so that large images need no large temporary arrays
MOST_ALPHA = 2.0  # of opaque float alpha, which filters of other programs may have exceeded

# Exif 2.32, §4.6.4: the transform that makes an image with this Orientation upright. From 5 on it swaps the sides.
_ORIENTATION_TRANSFORMS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda frame: frame[:, ::-1],
    3: lambda frame: frame[::-1, ::-1],
    4: lambda frame: frame[::-1],
    5: lambda frame: frame.swapaxes(0, 1),
    6: lambda frame: frame[::-1].swapaxes(0, 1),
    7: lambda frame: frame[::-1, ::-1].swapaxes(0, 1),
    8: lambda frame: frame[:, ::-1].swapaxes(0, 1),
}


def peak_value(dtype: np.dtype[Any]) -> float:
    """Return the value of white, and of opaque alpha, in arrays of a type."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert uint8, uint16 or float samples to uint8, with rounding; NaN becomes 0."""
    if pixels.dtype == np.uint8:
        return pixels
    result = np.empty(pixels.shape, np.uint8)
    for block, source in zip(row_blocks(result), row_blocks(pixels), strict=True):
        block[...] = np.rint(np.nan_to_num(source / peak_value(pixels.dtype)).clip(0, 1) * 255)
    return result


def row_blocks(pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield views of consecutive rows that together have about ``BLOCK_SAMPLES`` samples."""
    rows = max(BLOCK_SAMPLES * len(pixels) // max(pixels.size, 1), 1)
    for top in range(0, len(pixels), rows):
        yield pixels[top : top + rows]


def is_grey(pixels: NDArray[Any], tolerance: int = 0) -> bool:
    """Return whether red, green and blue of an image (H, W, C ≥ 3) differ by at most ``tolerance`` in every pixel."""
    if tolerance:
        return all(np.ptp(block[..., :3], axis=2).max() <= tolerance for block in row_blocks(pixels))
    return all(
        np.array_equal(block[..., 0], block[..., 1]) and np.array_equal(block[..., 0], block[..., 2])
        for block in row_blocks(pixels)
    )


def squeeze_grey(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return a grey image (H, W, 1) as (H, W), as Pillow and tifffile expect it; others are returned unchanged."""
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def turn_upright(frames: list[NDArray[Any]], orientation: int) -> list[NDArray[Any]]:
    """Return frames (H, W, C) turned upright, given their EXIF orientation."""
    transform = _ORIENTATION_TRANSFORMS.get(orientation)
    return [np.ascontiguousarray(transform(frame)) for frame in frames] if transform else frames


def drop_alpha_if_opaque(frames: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return RGBA frames of uint8 without alpha if no pixel is transparent; other frames are returned unchanged."""
    if frames[0].shape[2] != 4 or any(frame[..., 3].min() < 255 for frame in frames):
        return frames
    return [np.ascontiguousarray(frame[..., :3]) for frame in frames]


def drop_colour_if_grey(frames: list[NDArray[Any]], tolerance: int = 0) -> list[NDArray[Any]]:
    """Reduce frames to grey (H, W, 1), or grey with alpha (H, W, 2), if none of them has colour.

    Args:
        frames: Frames (H, W, C) with at least 3 channels; frames with fewer are returned unchanged.
        tolerance: Largest difference between the channels of a pixel that counts as grey.
    """
    if frames[0].shape[2] < 3 or not all(is_grey(frame, tolerance) for frame in frames):
        return frames
    return [np.ascontiguousarray(frame[..., [1, *range(3, frame.shape[2])]]) for frame in frames]


def unpack_channels(words: NDArray[Any], masks: Sequence[int]) -> NDArray[np.uint8]:
    """Return the channels of uint8 in unsigned integers (H, W), given which bits, 8 at most, hold each of them."""
    pixels = np.zeros((*words.shape, len(masks)), np.uint8)
    for channel, mask in enumerate(masks):
        if mask:
            unit = mask & -mask
            levels = np.rint(np.arange(mask // unit + 1) * (255 / (mask // unit))).astype(np.uint8)
            pixels[..., channel] = levels[(words & words.dtype.type(mask)) // words.dtype.type(unit)]
    return pixels


def interpolate_repeated_colours(pixels: NDArray[Any], red_weight: float, blue_weight: float) -> None:
    """Interpolate colours, in place, that a decoder has repeated for each block of 2 × 2 pixels (4:2:0).

    In such a block the differences R − G and B − G are the same for all pixels, whatever the matrix of the file. They
    are interpolated linearly between the centres of the blocks; luma stays.

    Args:
        pixels: An array (H, W, C ≥ 3) of uint8 or uint16. Alpha stays.
        red_weight: The share of red in luma.
        blue_weight: The share of blue in luma.
    """
    if pixels.shape[0] % 2 or pixels.shape[1] % 2:
        even = np.pad(pixels, [(0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)], "edge")
        interpolate_repeated_colours(even, red_weight, blue_weight)
        pixels[...] = even[: pixels.shape[0], : pixels.shape[1]]
        return
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    padded = np.empty((height + 2, width + 2, 2), np.float32)  # a difference for each block, and a border
    rows = max(BLOCK_SAMPLES // (12 * width), 1)
    bands = [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
    for band in bands:
        block = pixels[2 * band.start : 2 * band.stop, :, :3].astype(np.float32)
        differences = (block[..., ::2] - block[..., 1:2]).reshape(-1, 2, width, 2, 2)
        padded[band.start + 1 : band.stop + 1, 1:-1] = differences.mean((1, 3))
    padded[[0, -1]] = padded[[1, -2]]
    padded[:, [0, -1]] = padded[:, [1, -2]]
    for band in bands:
        around = padded[band.start : band.stop + 2]
        change = _double(_double(around, 0), 1) - around[1:-1, 1:-1].repeat(2, 0).repeat(2, 1)
        green = -change @ np.array([red_weight, blue_weight], np.float32)
        change = np.stack([change[..., 0] + green, green, change[..., 1] + green], 2)
        block = pixels[2 * band.start : 2 * band.stop, :, :3]
        block[...] = np.rint(block + change).clip(0, peak_value(pixels.dtype))


def _double(samples: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return samples between the centres of others, twice as many, without the first and the last of those."""
    first, middle, last = (samples.take(range(start, samples.shape[axis] - 2 + start), axis) for start in range(3))
    middle = 0.75 * middle
    pairs = np.stack([0.25 * first + middle, middle + 0.25 * last], axis + 1)
    return pairs.reshape([-1 if index == axis else size for index, size in enumerate(samples.shape)])


def expand_to_full_range(frame: NDArray[np.uint16], bits: int) -> NDArray[np.uint16]:
    """Scale samples of 10 or 12 bits, which the decoder has shifted up, so that white is 65535."""
    lower = frame >> (16 - bits)
    return (lower << (16 - bits) | lower >> (2 * bits - 16)).astype(np.uint16)
