"""Blur kernels (Real-ESRGAN §3.1 and §3.3): (size, size) float64 arrays with sum 1 and odd size."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

Kernel = NDArray[np.float64]


def gaussian(size: int, sigma: tuple[float, float], angle: float = 0.0, beta: float = 1.0) -> Kernel:
    """Return exp(−½ (xᵀ Σ⁻¹ x)^β): a Gaussian if β is 1, otherwise a generalised Gaussian.

    Args:
        size: Side length in px.
        sigma: Standard deviations in px along the kernel's axes.
        angle: Rotation of these axes in radians, from x (to the right) towards y (downward).
        beta: Shape; below 1 the peak is sharper and the tails are heavier.
    """
    return _normalise(np.exp(-0.5 * _squared_distance(size, sigma, angle) ** beta))


def plateau(size: int, sigma: tuple[float, float], angle: float, beta: float) -> Kernel:
    """Return 1 / (1 + (xᵀ Σ⁻¹ x)^β), whose top is flatter for greater β.

    Args:
        size: Side length in px.
        sigma: Standard deviations in px along the kernel's axes.
        angle: Rotation of these axes in radians, as for ``gaussian``.
        beta: Shape.
    """
    return _normalise(1 / (1 + _squared_distance(size, sigma, angle) ** beta))


def sinc(size: int, cutoff: float) -> Kernel:
    """Return the isotropic low-pass filter cutoff · J₁(cutoff · r) / (2π r), which causes ringing at edges.

    Args:
        size: Side length in px.
        cutoff: Cutoff frequency in radians per px, at most π.
    """
    x, y = _offsets(size)
    r = np.hypot(x, y)
    r[size // 2, size // 2] = 1  # avoids 0 / 0; the limit is set below
    kernel = cutoff * special.j1(cutoff * r) / (2 * math.pi * r)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return _normalise(kernel)


def pulse(size: int) -> Kernel:
    """Return the kernel that leaves images unchanged."""
    kernel = np.zeros((size, size))
    kernel[size // 2, size // 2] = 1
    return kernel


def pad(kernel: Kernel, size: int) -> Kernel:
    """Pad a kernel with zeros to (size, size)."""
    return np.pad(kernel, (size - len(kernel)) // 2)


def _offsets(size: int) -> tuple[Kernel, Kernel]:
    """Return the x and y offsets of each tap from the centre, in px."""
    x, y = np.meshgrid(*2 * [np.arange(size, dtype=np.float64) - size // 2])
    return x, y


def _squared_distance(size: int, sigma: tuple[float, float], angle: float) -> Kernel:
    """Return xᵀ Σ⁻¹ x with Σ = R diag(σ²) Rᵀ."""
    x, y = _offsets(size)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    distance: Kernel = (along / sigma[0]) ** 2 + (across / sigma[1]) ** 2
    return distance


def _normalise(kernel: Kernel) -> Kernel:
    normalised: Kernel = kernel / kernel.sum()
    return normalised
