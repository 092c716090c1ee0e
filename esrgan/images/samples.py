"""Change the layout of decoded samples: orientation, grey, opaque alpha."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    if frames[0].shape[2] < 3 or any(np.ptp(frame[..., :3], axis=2).max() > tolerance for frame in frames):
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


def expand_to_full_range(frame: NDArray[np.uint16], bits: int) -> NDArray[np.uint16]:
    """Scale samples of 10 or 12 bits, which the decoder has shifted up, so that white is 65535."""
    lower = frame >> (16 - bits)
    return (lower << (16 - bits) | lower >> (2 * bits - 16)).astype(np.uint16)
