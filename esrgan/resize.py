"""Bicubic resizing that agrees with MATLAB's ``imresize``, which the field makes its low-resolution images with.

Pillow, OpenCV and PyTorch each differ from it in kernel, antialiasing or edges, and a network trained on one scores
worse on another.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Sample = TypeVar("_Sample", bound=np.generic)

_A = -0.5  # Keys, "Cubic convolution interpolation", 1981; MATLAB's choice, where OpenCV and PyTorch take -0.75
_KERNEL_WIDTH = 4.0
# Several taps' worth of float64 that stays in the second-level cache while the taps are summed.
_CHUNK_VALUES = 1 << 15


def bicubic(image: NDArray[_Sample], scale: float | Fraction) -> NDArray[_Sample]:
    """Resizes an image as MATLAB's ``imresize(im2double(image), scale, "bicubic")`` does.

    The kernel is widened by 1 / scale when shrinking (antialiasing) and edges are mirrored. Computed in float64, and
    only the result is rounded. Implementations in float32, BasicSR's among them, differ by one grey level in about one
    of 100,000 samples, those within 3e-5 of a half.

    Args:
        image: (H, W) or (H, W, C), uint8 in [0, 255] or any float type in any range.
        scale: Output size over input size; the output is ``ceil(H * scale)`` by ``ceil(W * scale)``. A ``Fraction``
            such as ``Fraction(1, 3)`` is exact; a float is forgiven an error of 1e-9 pixel before rounding up.

    Returns:
        The resized image in the type of the input: uint8 rounded half up and clipped, floats neither rounded nor
        clipped (the kernel overshoots at edges).

    Raises:
        ValueError: The image has another shape or type, is empty, or the scale is not positive and finite.
    """
    floating = np.issubdtype(image.dtype, np.floating)
    if not (floating or image.dtype == np.uint8):
        raise ValueError(f"expected an image of uint8 or a float type, got {image.dtype}")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"expected an image of shape (H, W) or (H, W, C), none of them 0, got {image.shape}")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"expected a positive, finite scale, got {scale}")

    resized = _resize_rows(image.reshape(*image.shape[:2], -1), scale)  # (H', W, C)
    resized = _resize_rows(np.ascontiguousarray(resized.swapaxes(0, 1)), scale).swapaxes(0, 1)  # (H', W', C)
    if not floating:
        resized = np.clip(np.floor(resized + 0.5), 0, 255)
    return np.ascontiguousarray(resized, dtype=image.dtype).reshape(resized.shape[:2] + image.shape[2:])


def _resize_rows(image: NDArray[Any], scale: float | Fraction) -> NDArray[np.float64]:
    """Resizes the first axis of an image.

    Args:
        image: (N, M, C), contiguous, of any real type.
        scale: Output size over input size.

    Returns:
        (N', M, C), neither rounded nor clipped.
    """
    index, weight = _taps(image.shape[0], scale)
    flat = image.reshape(image.shape[0], -1)
    out = np.zeros((len(index), flat.shape[1]))
    rows_at_once = max(1, _CHUNK_VALUES // flat.shape[1])
    product = np.empty((rows_at_once, flat.shape[1]))
    for start in range(0, len(index), rows_at_once):
        rows = slice(start, start + rows_at_once)
        total = out[rows]
        for tap in range(index.shape[1]):
            np.multiply(flat[index[rows, tap]], weight[rows, tap, None], out=product[: len(total)])
            total += product[: len(total)]
    return out.reshape(len(index), *image.shape[1:])


def _taps(size: int, scale: float | Fraction) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Says which input samples make each output sample.

    Args:
        size: Input length.
        scale: Output length over input length.

    Returns:
        Indices into the input and their weights, which add up to 1 in each row; both (output length, taps).
    """
    out_size = math.ceil(size * scale) if isinstance(scale, Fraction) else max(1, math.ceil(size * scale - 1e-9))
    ratio = float(scale)
    sharpness = min(ratio, 1.0)
    width = _KERNEL_WIDTH / sharpness
    # Pixel centres are at half-integers, so the grids of both images cover the same area.
    centre = (np.arange(out_size) + 0.5) / ratio - 0.5
    first = np.floor(centre - width / 2).astype(np.intp)
    index = first[:, None] + np.arange(math.ceil(width) + 2)
    weight = _cubic((centre[:, None] - index) * sharpness)
    weight /= weight.sum(axis=1, keepdims=True)
    used = np.any(weight, axis=0)
    index, weight = index[:, used], weight[:, used]
    # Mirrored with the edge sample repeated (c b a | a b c), as often as a kernel wider than the image needs.
    index = index % (2 * size)
    return np.minimum(index, 2 * size - 1 - index), weight


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel, 0 beyond a distance of 2; same shape as ``x``, a distance in samples."""
    x = np.abs(x)
    near = ((_A + 2) * x - (_A + 3)) * x**2 + 1
    far = ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
