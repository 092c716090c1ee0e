"""What is drawn for a patch: which blur, how much smaller, how much noise, what JPEG quality."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from esrgan.degradation import kernels
from esrgan.degradation.kernels import Kernel

Range = tuple[float, float]

KERNEL_PX = 21  # the greatest kernel, to which the others are padded so that a batch has one size
_SIZES = range(7, KERNEL_PX + 1, 2)
_MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class Noise:
    """Noise on a patch.

    Attributes:
        is_gaussian: Gaussian, else Poisson.
        strength: Standard deviation of Gaussian noise, in levels of 255; factor of Poisson noise.
        is_gray: The same on all channels.
    """

    is_gaussian: bool
    strength: float
    is_gray: bool


@dataclass(frozen=True)
class DrawnRound:
    """One round for one patch.

    Attributes:
        kernel: (21, 21).
        factor: Of the size.
        mode: Of resizing: "area", "bilinear" or "bicubic".
        noise: Of any kind.
        quality: Of JPEG.
    """

    kernel: Kernel
    factor: float
    mode: str
    noise: Noise
    quality: int


@dataclass(frozen=True)
class Round:
    """One round of blur, resizing, noise and JPEG, by chance (Real-ESRGAN §3.1).

    The names are those of Real-ESRGAN's options; ranges are (least, greatest), drawn from evenly.

    Attributes:
        blur_prob: Chance of any blur.
        sinc_prob: Chance of a sinc kernel, where there is blur.
        kernel_prob: Chances of the others: Gaussian, generalised Gaussian and plateau, each isotropic, then
            anisotropic.
        blur_sigma: Standard deviation in px.
        betag_range: β of generalised Gaussians; half of them are drawn below 1, half above.
        betap_range: β of plateaus, likewise.
        resize_prob: Chances of enlarging, of reducing and of keeping the size.
        resize_range: Least factor of reducing, greatest of enlarging.
        gaussian_noise_prob: Chance of Gaussian noise; the others get Poisson noise.
        noise_range: Standard deviation of Gaussian noise in levels of 255.
        poisson_scale_range: Factor of Poisson noise.
        gray_noise_prob: Chance of noise that is the same on all channels.
        jpeg_range: Quality, 1 to 100.
    """

    blur_prob: float
    sinc_prob: float
    kernel_prob: tuple[float, ...]
    blur_sigma: Range
    betag_range: Range
    betap_range: Range
    resize_prob: tuple[float, ...]
    resize_range: Range
    gaussian_noise_prob: float
    noise_range: Range
    poisson_scale_range: Range
    gray_noise_prob: float
    jpeg_range: tuple[int, int]

    def draw(self, random: Generator) -> DrawnRound:
        """Draw a round for one patch."""
        kernel = self._kernel(random) if random.random() < self.blur_prob else kernels.pulse(KERNEL_PX)
        least, greatest = self.resize_range
        ranges = ((1, greatest), (least, 1), (1, 1))  # enlarging, reducing, keeping
        factor = random.uniform(*ranges[random.choice(3, p=self.resize_prob)])
        mode = draw_mode(random)
        is_gaussian = random.random() < self.gaussian_noise_prob
        strength = random.uniform(*(self.noise_range if is_gaussian else self.poisson_scale_range))
        noise = Noise(is_gaussian, strength, random.random() < self.gray_noise_prob)
        return DrawnRound(kernel, factor, mode, noise, self.draw_quality(random))

    def draw_quality(self, random: Generator) -> int:
        """Draw a JPEG quality."""
        return int(random.integers(*self.jpeg_range, endpoint=True))

    def _kernel(self, random: Generator) -> Kernel:
        size = int(random.choice(_SIZES))
        if random.random() < self.sinc_prob:
            return draw_sinc(random, size, math.pi / 3 if size < 13 else math.pi / 5)
        shape, is_anisotropic = divmod(random.choice(6, p=self.kernel_prob), 2)
        sigma = random.uniform(*self.blur_sigma, size=2)
        angle = random.uniform(-math.pi, math.pi)
        axes = (sigma[0], sigma[1 if is_anisotropic else 0])
        beta = 1.0 if shape == 0 else _around_one(random, self.betag_range if shape == 1 else self.betap_range)
        make = kernels.plateau if shape == 2 else kernels.gaussian
        return kernels.padded(make(size, axes, angle, beta), KERNEL_PX)


def draw_mode(random: Generator) -> str:
    """Draw a way of resizing."""
    return str(random.choice(_MODES))


def draw_final_sinc(random: Generator, prob: float) -> Kernel:
    """Draw the last filter, which with a chance of 1 − prob does nothing."""
    if random.random() >= prob:
        return kernels.pulse(KERNEL_PX)
    return draw_sinc(random, int(random.choice(_SIZES)), math.pi / 3)


def draw_sinc(random: Generator, size: int, least_cutoff: float) -> Kernel:
    """Draw a sinc kernel of a size in px, padded."""
    return kernels.padded(kernels.sinc(size, random.uniform(least_cutoff, math.pi)), KERNEL_PX)


def _around_one(random: Generator, limits: Range) -> float:
    halves = ((limits[0], 1.0), (1.0, limits[1]))
    return float(random.uniform(*halves[random.integers(2)]))


def generator(seed: int, position: int) -> Generator:
    """Give the randomness of a patch, by its position in the stream of patches; apart from that of its crop."""
    return np.random.default_rng(np.random.SeedSequence((seed, position), spawn_key=(1,)))
