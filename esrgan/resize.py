"""Bicubic resizing that matches MATLAB's ``imresize``, with which published low-resolution images are made.

Pillow, OpenCV and PyTorch each differ from it in kernel, antialiasing or edges, and a network trained on the images of
one scores worse on those of another.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Sample = TypeVar("_Sample", bound=np.generic)

# Parameter of Keys' kernel ("Cubic convolution interpolation", 1981). MATLAB uses -0.5, OpenCV and PyTorch -0.75.
_A = -0.5
_KERNEL_WIDTH = 4.0
# Number of float64 values that stay in the second-level cache while the taps are summed.
_CHUNK_VALUES = 1 << 15


def bicubic(image: NDArray[_Sample], scale: float | Fraction) -> NDArray[_Sample]:
    """Resize an image like MATLAB's ``imresize(im2double(image), scale, "bicubic")``.

    For scales below 1 the kernel is widened by 1 / scale (antialiasing). Edges are mirrored. The computation is in
    float64 and only the result is rounded. Implementations in float32, such as BasicSR's, differ by one grey level in
    about one of 100,000 samples, namely those within 3e-5 of a half.

    Args:
        image: (H, W) or (H, W, C), uint8 in [0, 255] or any float type in any range.
        scale: Output size over input size; the output is ``ceil(H * scale)`` by ``ceil(W * scale)``. A ``Fraction``
            such as ``Fraction(1, 3)`` is exact; with a float, an excess of up to 1e-9 pixel is not rounded up.

    Returns:
        The resized image in the dtype of the input. uint8 is rounded half up and clipped; floats are neither rounded
        nor clipped, and the kernel overshoots at edges.

    Raises:
        ValueError: If the image has another shape or dtype or is empty, or the scale is not positive and finite.
    """
    floating = np.issubdtype(image.dtype, np.floating)
    if not (floating or image.dtype == np.uint8):
        raise ValueError(f"expected an image of uint8 or a float type, got {image.dtype}")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"expected a non-empty image of shape (H, W) or (H, W, C), got {image.shape}")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"expected a positive, finite scale, got {scale}")

    resized = _resize_rows(image.reshape(*image.shape[:2], -1), scale)  # (H', W, C)
    resized = _resize_rows(np.ascontiguousarray(resized.swapaxes(0, 1)), scale).swapaxes(0, 1)  # (H', W', C)
    if not floating:
        resized = np.clip(np.floor(resized + 0.5), 0, 255)
    return np.ascontiguousarray(resized, dtype=image.dtype).reshape(resized.shape[:2] + image.shape[2:])


def _resize_rows(image: NDArray[Any], scale: float | Fraction) -> NDArray[np.float64]:
    """Resize the first axis of an image.

    Args:
        image: (N, M, C), contiguous, of any real dtype.
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
    """Compute the input samples that contribute to each output sample, and their weights.

    Args:
        size: Input length.
        scale: Output length over input length.

    Returns:
        Indices into the input, and their weights, which sum to 1 in each row; both (output length, taps).
    """
    out_size = math.ceil(size * scale) if isinstance(scale, Fraction) else max(1, math.ceil(size * scale - 1e-9))
    ratio = float(scale)
    sharpness = min(ratio, 1.0)
    width = _KERNEL_WIDTH / sharpness
    # Pixel centres are at half-integers, so that the grids of both images cover the same area.
    centre = (np.arange(out_size) + 0.5) / ratio - 0.5
    first = np.floor(centre - width / 2).astype(np.intp)
    index = first[:, None] + np.arange(math.ceil(width) + 2)
    weight = _cubic((centre[:, None] - index) * sharpness)
    weight /= weight.sum(axis=1, keepdims=True)
    used = np.any(weight, axis=0)
    index, weight = index[:, used], weight[:, used]
    # Mirror with the edge sample repeated (c b a | a b c); a kernel wider than the image is mirrored several times.
    index = index % (2 * size)
    return np.minimum(index, 2 * size - 1 - index), weight


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate Keys' cubic convolution kernel at distances ``x`` in samples; it is 0 beyond a distance of 2."""
    x = np.abs(x)
    near = ((_A + 2) * x - (_A + 3)) * x**2 + 1
    far = ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
