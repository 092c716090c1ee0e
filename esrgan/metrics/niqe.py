"""Compute NIQE, a no-reference metric: the distance between an image's statistics and those of good photographs.

Mittal, Soundararajan and Bovik, "Making a 'Completely Blind' Image Quality Analyzer", 2013, with the conventions of
the authors' MATLAB release, which published scores follow.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import gamma

from esrgan.metrics.psnr_ssim import to_y
from esrgan.resize import bicubic

_BLOCK = 96  # px, block size of the pristine model; the blocks of the second scale have half of it
_SIGMA, _RADIUS = 7 / 6, 3  # 7x7 Gaussian window, §II-A
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # horizontal, vertical and both diagonals, §II-C
_SHAPES = np.arange(200, 10_001) / 1000  # shape parameters in the release's search: 0.2, 0.201, … 10


def niqe(image: NDArray[np.uint8], border: int) -> float:
    """Return the NIQE (natural image quality evaluator) of an image, on Y rounded to 8 bits; lower is better.

    The image is divided into 96x96 pixel blocks from the upper left; the remainder at the right and bottom is ignored.
    NIQE is defined for natural photographs, of which good ones score about 2 to 5. It is unreliable for small images,
    because it compares the statistics of their few blocks with those of many.

    Args:
        image: (H, W, C), uint8 in [0, 255]; C is 1, 3 or 4. Alpha is ignored.
        border: Pixels to ignore on each side.

    Returns:
        The distance to the model of pristine photographs, at least 0.

    Raises:
        ValueError: If the image is not uint8 (H, W, C), or does not have two blocks with texture inside the border.

    Example:
        >>> from esrgan import images, resize
        >>> from esrgan.metrics.niqe import niqe
        >>> sr = resize.bicubic(images.read_pixels("photo.png", 3), 4)  # at least 96x192 pixels inside the border
        >>> print(f"{niqe(sr, border=4):.2f}")
        8.84
    """
    if image.dtype != np.uint8:
        raise ValueError(f"expected a uint8 image, got {image.dtype}; round and clip it first")
    y = to_y(image)
    rows, columns = ((size - 2 * border) // _BLOCK for size in y.shape)
    if border < 0 or min(rows, columns) < 1 or rows * columns < 2:
        raise ValueError(
            f"expected an image of at least {_BLOCK}x{2 * _BLOCK} or {2 * _BLOCK}x{_BLOCK} pixels inside a border"
            f" of {border} for NIQE, got {y.shape[0]}x{y.shape[1]}"
        )
    y = np.round(y[border : border + rows * _BLOCK, border : border + columns * _BLOCK])
    features = np.hstack([_features(y, _BLOCK), _features(bicubic(y, 0.5), _BLOCK // 2)])  # (blocks, 36)

    complete = features[~np.isnan(features).any(axis=1)]
    if len(complete) < 2:
        raise ValueError(
            f"expected texture in at least two blocks of {_BLOCK}x{_BLOCK} pixels for NIQE, got it in {len(complete)}"
            f" of {len(features)}; the other blocks are flat"
        )
    pristine_mean, pristine_covariance = _pristine_model()
    # As in the release, each mean is over the blocks that have the feature, the covariance over those that have all.
    difference = pristine_mean - np.nanmean(features, axis=0)
    covariance = (pristine_covariance + np.cov(complete, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(covariance) @ difference))  # Eq. 10


@cache
def _pristine_model() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean (36,) and covariance (36, 36) of the features of pristine photographs (see niqe_pristine.txt)."""
    with resources.files("esrgan.metrics").joinpath("niqe_pristine.npz").open("rb") as file, np.load(file) as model:
        return model["mean"], model["covariance"]


def _features(y: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    """Return the statistics of each block of an image at one scale.

    Args:
        y: (rows * block, columns * block), in [0, 255].
        block: Height and width of a block.

    Returns:
        (rows * columns, 18): shape and mean scale of the normalised levels, then shape, mean, left and right scale of
        their products with each of four neighbours. The scale of a side without values is NaN.
    """
    mean = gaussian_filter(y, _SIGMA, mode="nearest", radius=_RADIUS)
    deviation = np.sqrt(np.abs(gaussian_filter(y**2, _SIGMA, mode="nearest", radius=_RADIUS) - mean**2))
    # BasicSR also has the mean in float32, where it equals the level of a flat area. In float64 it is off by 1e-14, and
    # the fit would count these deviations as values left or right of zero, which changes NIQE's second decimal.
    normalised = (y - mean.astype(np.float32)) / (deviation + 1)  # Eq. 1

    features = []
    for band in normalised.reshape(-1, block, y.shape[1]):  # a row of blocks, which fits into the CPU cache
        blocks = np.ascontiguousarray(band.reshape(block, -1, block).swapaxes(0, 1))  # (columns, block, block)
        shape, left, right = fit_aggd(blocks)
        block_features = [shape, (left + right) / 2]
        for offset in _NEIGHBOURS:
            # As in the release, each block is shifted on its own and wraps around at its edges.
            shape, left, right = fit_aggd(blocks * np.roll(blocks, offset, axis=(1, 2)))
            block_features += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]  # Eq. 8
        features.append(np.stack(block_features, axis=1))
    return np.concatenate(features)


def fit_aggd(
    samples: NDArray[Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit asymmetric generalised Gaussian distributions by their moments (Lasmar et al., 2009; Eq. 4 to 7 of NIQE).

    The density is proportional to exp(-(|x| / β)^α), with β the left scale for x < 0 and the right one for x > 0.

    Args:
        samples: (N, …), the samples of N distributions.

    Returns:
        Shape α in 0.2, 0.201, … 10, left scale and right scale, (N,) each. Where a side has no values, its scale is NaN
        and α is 0.2, as in the release.
    """
    samples = samples.reshape(len(samples), -1)
    negative, positive = np.minimum(samples, 0), np.maximum(samples, 0)
    left, right = (np.einsum("ij,ij->i", side, side) for side in (negative, positive))  # sums of squares
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (positive - negative).mean(axis=1) ** 2 / ((left + right) / samples.shape[1])
        left = np.sqrt(left / np.count_nonzero(negative, axis=1))
        right = np.sqrt(right / np.count_nonzero(positive, axis=1))
        skew = left / right
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    ratios, unit_scales = _moments()
    nearest = np.searchsorted((ratios[1:] + ratios[:-1]) / 2, ratio)
    nearest[np.isnan(ratio)] = 0
    return _SHAPES[nearest], left * unit_scales[nearest], right * unit_scales[nearest]


@cache
def _moments() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return E[|x|]² / E[x²], which rises with the shape, and the scale for variance 1, for each of ``_SHAPES``."""
    one, two, three = (gamma(k / _SHAPES) for k in (1, 2, 3))
    return two**2 / (one * three), np.sqrt(one / three)
