"""The metrics by name: how each is displayed, and how it is computed unless it needs a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from esrgan.errors import EsrganError
from esrgan.metrics.psnr_ssim import psnr, ssim, to_y

if TYPE_CHECKING:
    from torch import nn

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Metric:
    """A metric of 8-bit images.

    Attributes:
        name: Name in files and on the command line.
        label: Name for display.
        unit: "dB" or empty.
        higher_is_better: True for a quality such as PSNR, False for a distance such as LPIPS.
        digits: Number of decimal places to display.
        needs_reference: Whether the metric compares with ground truth.
        convention: Short description of how it is computed. All metrics crop the border first.
        function: Computes a score as ``measure`` does; None as long as the network it needs is not loaded.
        network: The network that ``function`` uses, if any.
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool
    digits: int
    needs_reference: bool
    convention: str
    function: Callable[[Pixels, Pixels, int], float] | None = field(default=None, repr=False)
    network: nn.Module | None = field(default=None, repr=False)

    def measure(self, sr: Pixels, hr: Pixels | None, border: int) -> float:
        """Return the score of an upscaled image.

        Args:
            sr: (H, W, C) upscaled image, uint8 in [0, 255]; C is 1, 3 or 4. Alpha is ignored.
            hr: Ground truth of the same shape and type; may be None for a metric without a reference.
            border: Pixels to ignore on each side; by convention the upscaling factor.

        Raises:
            EsrganError: If the metric needs a network, which ``esrgan.metrics.learned.load_metrics`` loads.
            ValueError: If the images do not fit together, or are too small for the metric without the border.
        """
        if self.function is None:
            raise EsrganError(f"{self.label}: needs a network; load it with esrgan.metrics.learned.load_metrics")
        if hr is None and self.needs_reference:
            raise ValueError(f"expected an image to compare with, which {self.label} needs, got none")
        return self.function(sr, sr if hr is None else hr, border)

    def format(self, score: float | None, sign: str = "") -> str:
        """Format a score for display, or a difference with the sign "+"; "–" stands for a missing score."""
        return "–" if score is None or math.isnan(score) else f"{score:{sign}z.{self.digits}f}"


def _niqe(sr: Pixels, _: Pixels, border: int) -> float:
    from esrgan.metrics.niqe import niqe  # imports SciPy

    return niqe(sr, border)


_PSNR = "8 bits, peak 255"
_SSIM = "8 bits, 11x11 Gaussian window with σ 1.5 where it fits"
_NIQE = "Y rounded to 8 bits, 96x96 blocks, the release's pristine model"
_LPIPS = "LPIPS v0.1, no resizing"
_VGGSTATS = "statistics of DISTS, all channels of the image and five layers weighted equally"
_VGG16 = "mean absolute difference of the features before activation"

# The first metric that is measured ranks the images. Distances between features come last.
_METRICS = (
    Metric("psnr_y", "PSNR Y", "dB", True, 2, True, _PSNR, lambda sr, hr, n: psnr(to_y(sr), to_y(hr), n)),
    Metric("ssim_y", "SSIM Y", "", True, 4, True, _SSIM, lambda sr, hr, n: ssim(to_y(sr), to_y(hr), n)),
    Metric("psnr_rgb", "PSNR RGB", "dB", True, 2, True, _PSNR, lambda sr, hr, n: psnr(sr[..., :3], hr[..., :3], n)),
    Metric(
        "ssim_rgb", "SSIM RGB", "", True, 4, True, f"{_SSIM}, mean of the channels",
        lambda sr, hr, n: ssim(sr[..., :3], hr[..., :3], n),
    ),
    Metric("niqe", "NIQE", "", False, 2, False, _NIQE, _niqe),
    Metric("lpips_alex", "LPIPS (AlexNet)", "", False, 4, True, _LPIPS),
    Metric("lpips_vgg", "LPIPS (VGG)", "", False, 4, True, _LPIPS),
    Metric("dists", "DISTS", "", False, 4, True, "no resizing"),
    Metric("vgg16", "VGG16 conv5_3", "", False, 2, True, _VGG16),
    Metric("vggstats", "VGG16 statistics", "", False, 4, True, _VGGSTATS),
)  # fmt: skip
METRICS = {metric.name: metric for metric in _METRICS}


def select_metrics(requested: Iterable[str]) -> list[str]:
    """Return the names of the requested metrics in the order of ``METRICS``.

    Args:
        requested: Names ("psnr_y"), groups of them ("psnr", "ssim", "lpips"), or "all".

    Raises:
        EsrganError: If a name is unknown.
    """
    requested = [each.strip() for each in requested]
    groups = dict.fromkeys(name.partition("_")[0] for name in METRICS)
    for each in requested:
        if each not in ("all", *groups, *METRICS):
            raise EsrganError(f"metrics: expected all, {', '.join(groups)}, got {each!r}")
    return [name for name in METRICS if {"all", name, name.partition("_")[0]} & {*requested}]


def finite_mean(values: Iterable[float]) -> tuple[float, int]:
    """Return the mean of the finite scores, and how many are infinite, as the PSNR of identical images is.

    Returns:
        The mean and the number of infinite scores. The mean is infinite if all scores are, and NaN without scores.

    Example:
        >>> from esrgan.metrics import finite_mean
        >>> finite_mean([30.0, 32.0, float("inf")])
        (31.0, 1)
    """
    values = list(values)
    others = [value for value in values if not math.isinf(value)]
    if not others:
        return (math.inf if values else math.nan), len(values)
    return float(np.mean(others)), len(values) - len(others)
