"""Compute PSNR and SSIM of 8-bit images on luma and on RGB, by the conventions of super-resolution papers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

_PEAK = 255.0
# ITU-R BT.601 studio range: Y = 16 + 65.481 R + 128.553 G + 24.966 B for R, G, B in [0, 1].
_Y_WEIGHTS = np.array([65.481, 128.553, 24.966]) / _PEAK
_Y_BLACK = 16.0
# Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, §III-C.
_WINDOW_SIZE, _WINDOW_SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03
_OFFSETS = np.arange(_WINDOW_SIZE) - _WINDOW_SIZE // 2
_WINDOW = np.exp(-(_OFFSETS**2) / (2 * _WINDOW_SIGMA**2))
_WINDOW /= _WINDOW.sum()


def measure(sr: NDArray[np.uint8], hr: NDArray[np.uint8], border: int) -> dict[str, float]:
    """Return PSNR and SSIM of an upscaled image against the ground truth, on Y and on RGB.

    A grey image is its own Y, in [0, 255], and all scores are computed on that single channel. Alpha is ignored.

    Args:
        sr: (H, W, C) upscaled image, uint8 in [0, 255]; C is 1, 3 or 4.
        hr: Ground truth of the same shape and type.
        border: Pixels to ignore on each side; by convention the upscaling factor.

    Returns:
        ``psnr_y``, ``psnr_rgb`` in dB (``inf`` for identical images) and ``ssim_y``, ``ssim_rgb`` in [-1, 1].

    Raises:
        ValueError: If the images differ in shape, are not uint8 (H, W, C), or are too small for the SSIM window
            without the border.

    Example:
        >>> from esrgan import images, metrics, resize
        >>> hr = images.read_pixels("photo.png", 3)
        >>> sr = resize.bicubic(resize.bicubic(hr, 0.25), 4)
        >>> scores = metrics.measure(sr, hr, border=4)
        >>> print(f"PSNR {scores['psnr_y']:.2f} dB, SSIM {scores['ssim_y']:.4f}")
        PSNR 28.41 dB, SSIM 0.7461
    """
    check_pair(sr, hr)
    sr_y, hr_y = to_y(sr), to_y(hr)
    scores = {"psnr_y": psnr(sr_y, hr_y, border), "ssim_y": ssim(sr_y, hr_y, border)}
    if sr.shape[2] == 1:
        return scores | {"psnr_rgb": scores["psnr_y"], "ssim_rgb": scores["ssim_y"]}
    sr, hr = sr[..., :3], hr[..., :3]
    return scores | {"psnr_rgb": psnr(sr, hr, border), "ssim_rgb": ssim(sr, hr, border)}


def to_y(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the luma of an image: BT.601 studio-range Y, not rounded.

    Args:
        image: (H, W, 1 | 3 | 4) in [0, 255]: grey, RGB, or RGB with alpha, which is ignored.

    Returns:
        (H, W) in [16, 235]; for a grey image the channel itself, in [0, 255].

    Raises:
        ValueError: If the image has another shape.

    Example:
        >>> import numpy as np
        >>> from esrgan.metrics import to_y
        >>> to_y(np.full((1, 1, 3), 255, np.uint8))  # white
        array([[235.]])
    """
    _check_channels(image)
    if image.shape[2] == 1:
        return image[..., 0].astype(np.float64)
    return np.asarray(image[..., :3] @ _Y_WEIGHTS + _Y_BLACK, np.float64)


def psnr(a: NDArray[Any], b: NDArray[Any], border: int) -> float:
    """Return the peak signal-to-noise ratio over all samples of two images.

    Args:
        a: (H, W) or (H, W, C), any real type, in [0, 255].
        b: Image of the same shape as ``a``.
        border: Pixels to ignore on each side.

    Returns:
        PSNR in dB with a peak of 255; ``inf`` for identical images.

    Raises:
        ValueError: If the shapes differ, or nothing is left inside the border.

    Example:
        >>> import numpy as np
        >>> from esrgan.metrics import psnr
        >>> black, grey = np.zeros((8, 8), np.uint8), np.full((8, 8), 51, np.uint8)
        >>> round(psnr(black, grey, border=0), 2)  # 51 is a fifth of the peak, so 20·log10(5)
        13.98
    """
    a, b = crop_borders(a, b, border, min_size=1)
    mean_squared_error = float(np.mean((a - b) ** 2))
    return 10 * math.log10(_PEAK**2 / mean_squared_error) if mean_squared_error else math.inf


def ssim(a: NDArray[Any], b: NDArray[Any], border: int) -> float:
    """Return the structural similarity of two images, averaged over the channels.

    The 11x11 Gaussian window with σ 1.5 is used only where it lies inside the image.

    Args:
        a: (H, W) or (H, W, C), any real type, in [0, 255].
        b: Image of the same shape as ``a``.
        border: Pixels to ignore on each side.

    Returns:
        Mean SSIM in [-1, 1]; 1 for identical images.

    Raises:
        ValueError: If the shapes differ, or fewer than 11x11 pixels are left inside the border.

    Example:
        >>> import numpy as np
        >>> from esrgan.metrics import ssim
        >>> image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        >>> round(ssim(image, image, border=4), 6)
        1.0
    """
    a, b = crop_borders(a, b, border, min_size=_WINDOW_SIZE)
    # The planes are made contiguous because strided ones take twice as long.
    planes_a, planes_b = (np.ascontiguousarray(np.moveaxis(np.atleast_3d(image), -1, 0)) for image in (a, b))
    return float(np.mean([_ssim_plane(x, y) for x, y in zip(planes_a, planes_b, strict=True)]))


def _ssim_plane(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the mean SSIM of two (H, W) planes in [0, 255]."""
    mean_a, mean_b = _blur(a), _blur(b)
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance = _blur(a * b) - product
    # SSIM needs only the sum of both variances; computing the sum directly saves one blur.
    variances = _blur(a**2 + b**2) - squares
    c1, c2 = (_K1 * _PEAK) ** 2, (_K2 * _PEAK) ** 2
    return float(np.mean((2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))))


def _blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filter an (H, W) plane with the SSIM window, inside the image only: (H - 10, W - 10)."""
    for _ in range(2):
        # Filter down the columns of a contiguous plane each time, because BLAS is several times slower along rows.
        plane = (sliding_window_view(np.ascontiguousarray(plane), _WINDOW_SIZE, axis=0) @ _WINDOW).T
    return plane


def check_pair(sr: NDArray[Any], hr: NDArray[Any]) -> None:
    """Raise ValueError unless both are uint8 images of one shape (H, W, 1 | 3 | 4)."""
    if sr.dtype != np.uint8 or hr.dtype != np.uint8:
        raise ValueError(f"expected uint8 images, got {sr.dtype} and {hr.dtype}; round and clip them first")
    if sr.shape != hr.shape:
        raise ValueError(f"expected two images of equal shape, got {sr.shape} and {hr.shape}")
    _check_channels(sr)


def _check_channels(image: NDArray[Any]) -> None:
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise ValueError(f"expected an image of shape (H, W, 1, 3 or 4), got {image.shape}")


def crop_borders(a: NDArray[Any], b: NDArray[Any], border: int, min_size: int) -> tuple[NDArray[np.float64], ...]:
    """Check that two images can be compared, and crop the border of both.

    Args:
        a: (H, W) or (H, W, C).
        b: Image of the same shape as ``a``.
        border: Pixels to crop on each side.
        min_size: Minimum height and width of what is left.

    Returns:
        Both images as float64, without the border.

    Raises:
        ValueError: If the shapes differ, or the images are too small.
    """
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise ValueError(f"expected two images of equal shape (H, W) or (H, W, C), got {a.shape} and {b.shape}")
    if border < 0 or min(a.shape[:2]) - 2 * border < min_size:
        raise ValueError(
            f"expected images of at least {min_size}x{min_size} pixels inside a border of {border},"
            f" got {a.shape[0]}x{a.shape[1]}"
        )
    rows, columns = (slice(border, size - border) for size in a.shape[:2])
    return a[rows, columns].astype(np.float64), b[rows, columns].astype(np.float64)
