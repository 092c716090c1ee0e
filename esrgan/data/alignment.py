"""Compare LR images with their HR images: shifted or unrelated pairs cannot teach a network anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from esrgan import resize
from esrgan.errors import EsrganError

PairT = TypeVar("PairT")

_COMPARED = 8  # pairs
_MAX_SIDE = 512  # px of the part of an HR image that is compared
_REACH = 3  # LR pixels; larger shifts are not searched for
_LEAST_LIKENESS = 0.5  # correlation of images of one scene: heavy noise leaves 0.8, two photographs have about 0
_LEAST_PEAK = 0.4  # correlation of edges that makes a shift certain


class Comparison(NamedTuple):
    """How an LR image compares with its HR image.

    Attributes:
        down: By how many HR px it is shifted down.
        right: By how many HR px it is shifted to the right.
        peak: The correlation of the edges at that shift.
        likeness: The correlation of the images as they are.
        reach: The largest shift that is searched for, in HR px.
    """

    down: int
    right: int
    peak: float
    likeness: float
    reach: int


def describe_misalignment(
    pairs: Sequence[PairT], load: Callable[[PairT], tuple[NDArray[np.uint8], NDArray[np.uint8]]], scale: int
) -> str | None:
    """Compare a few of the pairs and return what is wrong with most of these, or None.

    Args:
        pairs: Image pairs.
        load: Function from a pair to LR (H, W, C) and HR (scale·H, scale·W, C). If it raises, the pair is skipped,
            because the error is reported when the pair is used.
        scale: Scale factor.
    """
    found = []
    for pair in [pairs[len(pairs) * i // _COMPARED] for i in range(_COMPARED)] if len(pairs) > _COMPARED else pairs:
        with suppress(EsrganError, MemoryError):
            if comparison := compare(*load(pair), scale):
                found.append(comparison)
    return describe_most(found)


def describe_most(found: Sequence[Comparison]) -> str | None:
    """Return what is wrong with most of some pairs, or None."""
    if sum(is_unlike(each) for each in found) * 2 > len(found):
        return "do not seem to show what their HR images show; check how they are paired"
    shifts = [(y, x) for y, x, peak, *_ in found if peak >= _LEAST_PEAK]
    if not shifts:
        return None
    down, right = (float(value) for value in np.median(shifts, axis=0))
    agreeing = sum(abs(y - down) <= 1 and abs(x - right) <= 1 for y, x in shifts)
    if max(abs(down), abs(right)) < 1 or 2 * agreeing <= len(found):
        return None
    shift = _format_shift(down, right, max(each.reach for each in found))
    return f"shifted against their HR images by {shift}; align them, or results will be shifted too"


def describe_one(found: Comparison) -> str | None:
    """Return what is wrong with one pair, or None.

    A shift by 1 px is not certain for a single pair: noise and JPEG can cause it.
    """
    if is_unlike(found):
        return "does not seem to show what its HR image shows; check how they are paired"
    if found.peak < _LEAST_PEAK or max(abs(found.down), abs(found.right)) < 2:
        return None
    shift = _format_shift(found.down, found.right, found.reach)
    return f"shifted against its HR image by {shift}; align or remove it"


def is_unlike(found: Comparison) -> bool:
    """Return whether the images of a pair show different scenes."""
    return found.likeness < _LEAST_LIKENESS


def _format_shift(down: float, right: float, reach: int) -> str:
    parts = (
        f"{'at least ' if abs(shift) == reach else ''}{abs(shift):g} px {names[shift > 0]}"
        for shift, names in ((down, ("up", "down")), (right, ("left", "right")))
    )
    return f"{' and '.join(parts)}, in pixels of the HR images"


def compare(low: NDArray[np.uint8], high: NDArray[np.uint8], scale: int) -> Comparison | None:
    """Compare an LR image, upscaled by bicubic interpolation, with its HR image.

    Returns:
        The comparison, or None if they are too small or have no structure.
    """
    side = max(_MAX_SIDE // scale, 1)
    top, left = (max(size - side, 0) // 2 for size in low.shape[:2])
    low = low[top : top + side, left : left + side]
    height, width = (size * scale for size in low.shape[:2])
    high = high[top * scale :, left * scale :][:height, :width]
    if min(low.shape[:2]) < 2 * _REACH + 2:
        return None
    greys = [image[..., :3].mean(axis=2) for image in (high, resize.bicubic(low, Fraction(scale)))]
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    smooth = [uniform_filter(grey, 4 * scale + 1) for grey in greys]
    edges = [(grey - blurred) * window for grey, blurred in zip(greys, smooth, strict=True)]
    norm = float(np.sqrt((edges[0] ** 2).sum() * (edges[1] ** 2).sum()))
    if min(each.std() for each in (*smooth, *edges)) < 1:
        return None
    spectrum = np.fft.rfft2(edges[1]) * np.conj(np.fft.rfft2(edges[0]))
    correlation = np.fft.irfft2(spectrum, edges[0].shape) / norm
    reach = _REACH * scale
    near = np.roll(correlation, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    likeness = float(np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1])
    return Comparison(int(y) - reach, int(x) - reach, float(near[y, x]), likeness, reach)
