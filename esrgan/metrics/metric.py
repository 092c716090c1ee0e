"""Describe each metric for tables and captions, without the code that computes it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """The description of a metric.

    Attributes:
        name: Name in files and on the command line.
        label: Name for display.
        unit: "dB" or empty.
        higher_is_better: True for a quality such as PSNR, False for a distance such as LPIPS.
        digits: Number of decimal places to display.
        needs_reference: Whether the metric compares with ground truth.
        channels: "Y" (BT.601 studio range; a grey image is its own Y) or "RGB".
        convention: Short description of how it is computed. All metrics crop the border first.
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool
    digits: int
    needs_reference: bool
    channels: str
    convention: str


_PSNR = "8 bits, peak 255"
_SSIM = "8 bits, 11x11 Gaussian window with σ 1.5 where it fits"
_LPIPS = "LPIPS v0.1, no resizing"

_METRICS = (
    Metric("psnr_y", "PSNR Y", "dB", True, 2, True, "Y", _PSNR),
    Metric("ssim_y", "SSIM Y", "", True, 4, True, "Y", _SSIM),
    Metric("psnr_rgb", "PSNR RGB", "dB", True, 2, True, "RGB", _PSNR),
    Metric("ssim_rgb", "SSIM RGB", "", True, 4, True, "RGB", f"{_SSIM}, mean of the channels"),
    Metric("niqe", "NIQE", "", False, 2, False, "Y", "Y rounded to 8 bits, 96x96 blocks, the release's pristine model"),
    Metric("lpips_alex", "LPIPS (AlexNet)", "", False, 4, True, "RGB", _LPIPS),
    Metric("lpips_vgg", "LPIPS (VGG)", "", False, 4, True, "RGB", _LPIPS),
    Metric("dists", "DISTS", "", False, 4, True, "RGB", "no resizing"),
)
METRICS = {metric.name: metric for metric in _METRICS}


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
    return math.fsum(others) / len(others), len(values) - len(others)
