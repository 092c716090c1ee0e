"""Draw the degradation parameters of a patch: blur kernel, resize factor, noise and JPEG quality."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from esrgan.degradation import kernels
from esrgan.degradation.kernels import Kernel

Range = tuple[float, float]

KERNEL_PX = 21  # largest kernel size; smaller kernels are padded to it so that they can be batched
_KERNEL_SIZES = range(7, KERNEL_PX + 1, 2)
_RESIZE_MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class Noise:
    """Noise parameters of a patch.

    Attributes:
        is_gaussian: Whether the noise is Gaussian; otherwise it is Poisson noise.
        strength: Standard deviation of Gaussian noise in levels of 255, or factor of Poisson noise.
        is_gray: Whether the noise is the same on all channels.
    """

    is_gaussian: bool
    strength: float
    is_gray: bool


@dataclass(frozen=True)
class SampledRound:
    """Parameters of one round for one patch.

    Attributes:
        kernel: Blur kernel, (21, 21).
        factor: Resize factor.
        mode: Resize mode: "area", "bilinear" or "bicubic".
        noise: Noise parameters.
        quality: JPEG quality.
    """

    kernel: Kernel
    factor: float
    mode: str
    noise: Noise
    quality: int


@dataclass(frozen=True)
class RoundParameters:
    """Distributions of the parameters of one round of blur, resizing, noise and JPEG (Real-ESRGAN §3.1).

    The names are those of Real-ESRGAN's options. Ranges are (minimum, maximum) of uniform distributions.

    Attributes:
        blur_prob: Probability of any blur.
        sinc_prob: Probability of a sinc kernel if there is blur.
        kernel_prob: Probabilities of the other kernels, in pairs of isotropic and anisotropic: Gaussian, generalised
            Gaussian and plateau.
        blur_sigma: Range of the standard deviation in px.
        betag_range: Range of β of generalised Gaussians; half of the values are drawn below 1, half above.
        betap_range: Range of β of plateaus, drawn in the same way.
        resize_prob: Probabilities of upscaling, downscaling and keeping the size.
        resize_range: Minimum factor of downscaling and maximum factor of upscaling.
        gaussian_noise_prob: Probability of Gaussian noise; the other patches get Poisson noise.
        noise_range: Range of the standard deviation of Gaussian noise in levels of 255.
        poisson_scale_range: Range of the factor of Poisson noise.
        gray_noise_prob: Probability of noise that is the same on all channels.
        jpeg_range: Range of the JPEG quality, 1 to 100.
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

    def sample(self, rng: Generator) -> SampledRound:
        """Draw the parameters of one patch."""
        kernel = self._sample_kernel(rng) if rng.random() < self.blur_prob else kernels.pulse(KERNEL_PX)
        least, greatest = self.resize_range
        ranges = ((1, greatest), (least, 1), (1, 1))  # upscaling, downscaling, keeping
        factor = rng.uniform(*ranges[rng.choice(3, p=self.resize_prob)])
        mode = sample_resize_mode(rng)
        is_gaussian = rng.random() < self.gaussian_noise_prob
        strength = rng.uniform(*(self.noise_range if is_gaussian else self.poisson_scale_range))
        noise = Noise(is_gaussian, strength, rng.random() < self.gray_noise_prob)
        return SampledRound(kernel, factor, mode, noise, self.sample_quality(rng))

    def sample_quality(self, rng: Generator) -> int:
        """Draw a JPEG quality from ``jpeg_range``, including both ends."""
        return int(rng.integers(*self.jpeg_range, endpoint=True))

    def _sample_kernel(self, rng: Generator) -> Kernel:
        size = int(rng.choice(_KERNEL_SIZES))
        if rng.random() < self.sinc_prob:
            return sample_sinc(rng, size, math.pi / 3 if size < 13 else math.pi / 5)
        shape, is_anisotropic = divmod(rng.choice(6, p=self.kernel_prob), 2)
        sigma = rng.uniform(*self.blur_sigma, size=2)
        angle = rng.uniform(-math.pi, math.pi)
        axes = (sigma[0], sigma[1 if is_anisotropic else 0])
        beta = 1.0 if shape == 0 else _sample_beta(rng, self.betag_range if shape == 1 else self.betap_range)
        make = kernels.plateau if shape == 2 else kernels.gaussian
        return kernels.pad(make(size, axes, angle, beta), KERNEL_PX)


def sample_resize_mode(rng: Generator) -> str:
    """Draw "area", "bilinear" or "bicubic"."""
    return str(rng.choice(_RESIZE_MODES))


def sample_final_sinc(rng: Generator, prob: float) -> Kernel:
    """Draw the final kernel: a sinc kernel with probability ``prob``, otherwise one that leaves images unchanged."""
    if rng.random() >= prob:
        return kernels.pulse(KERNEL_PX)
    return sample_sinc(rng, int(rng.choice(_KERNEL_SIZES)), math.pi / 3)


def sample_sinc(rng: Generator, size: int, least_cutoff: float) -> Kernel:
    """Draw a sinc kernel of a size in px and with a cutoff of at least ``least_cutoff``, and pad it."""
    return kernels.pad(kernels.sinc(size, rng.uniform(least_cutoff, math.pi)), KERNEL_PX)


def _sample_beta(rng: Generator, limits: Range) -> float:
    halves = ((limits[0], 1.0), (1.0, limits[1]))
    return float(rng.uniform(*halves[rng.integers(2)]))


def patch_rng(seed: int, position: int) -> Generator:
    """Return the random generator of a patch by its position in the stream, independent of the one for its crop."""
    return np.random.default_rng(np.random.SeedSequence((seed, position), spawn_key=(1,)))
