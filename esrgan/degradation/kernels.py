"""Blur kernels (Real-ESRGAN §3.1 and §3.3), each (size, size) float64 with the sum 1, size odd."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

Kernel = NDArray[np.float64]


def gaussian(size: int, sigma: tuple[float, float], angle: float = 0.0, beta: float = 1.0) -> Kernel:
    """Give exp(−½ (xᵀ Σ⁻¹ x)^β): a Gaussian where β is 1, else a generalised one.

    Args:
        size: Side in px.
        sigma: Standard deviations in px, along the kernel's own axes.
        angle: By which those are turned from the image's, in radians, from x (to the right) to y (downward).
        beta: Shape; below 1 the peak is sharper and the tails are heavier.
    """
    return _normalise(np.exp(-0.5 * _squared_distance(size, sigma, angle) ** beta))


def plateau(size: int, sigma: tuple[float, float], angle: float, beta: float) -> Kernel:
    """Give 1 / (1 + (xᵀ Σ⁻¹ x)^β), arguments as for ``gaussian``; the top is flatter the greater β is."""
    return _normalise(1 / (1 + _squared_distance(size, sigma, angle) ** beta))


def sinc(size: int, cutoff: float) -> Kernel:
    """Give the low-pass filter of all directions, cutoff · J₁(cutoff · r) / (2π r), which rings at edges.

    Args:
        size: Side in px.
        cutoff: Highest angular frequency that it passes, in radians per px; π is the highest there is.
    """
    x, y = _offsets(size)
    r = np.hypot(x, y)
    r[size // 2, size // 2] = 1  # where the limit is taken instead
    kernel = cutoff * special.j1(cutoff * r) / (2 * math.pi * r)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return _normalise(kernel)


def pulse(size: int) -> Kernel:
    """Give the kernel that changes nothing."""
    kernel = np.zeros((size, size))
    kernel[size // 2, size // 2] = 1
    return kernel


def pad(kernel: Kernel, size: int) -> Kernel:
    """Put zeros around a kernel."""
    return np.pad(kernel, (size - len(kernel)) // 2)


def _offsets(size: int) -> tuple[Kernel, Kernel]:
    """Give x and y of each tap from the centre, in px."""
    x, y = np.meshgrid(*2 * [np.arange(size, dtype=np.float64) - size // 2])
    return x, y


def _squared_distance(size: int, sigma: tuple[float, float], angle: float) -> Kernel:
    """Give xᵀ Σ⁻¹ x with Σ = R diag(σ²) Rᵀ."""
    x, y = _offsets(size)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    distance: Kernel = (along / sigma[0]) ** 2 + (across / sigma[1]) ** 2
    return distance


def _normalise(kernel: Kernel) -> Kernel:
    normalised: Kernel = kernel / kernel.sum()
    return normalised
