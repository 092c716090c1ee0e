"""Estimate how certain a difference between two models is, given the images it was measured on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count

import numpy as np

CONFIDENCE = 0.95
_RESAMPLES = 9_999


def min_images(confidence: float = CONFIDENCE) -> int:
    """Return the smallest number of images with which a difference can be significant.

    If all n differences have the same sign, 2 of the 2ⁿ sign flips give a mean at least as far from zero. This is the
    smallest p-value of the permutation test.

    Example:
        >>> from esrgan.evaluation.statistics import min_images
        >>> min_images(), min_images(0.99)
        (6, 8)
    """
    return next(n for n in count(1) if 2 / 2**n < 1 - confidence)


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of a metric between two models over the same images.

    Attributes:
        mean: Mean of the differences per image.
        low: Lower end of the confidence interval of the mean; NaN for fewer than two images.
        high: Upper end of the interval; NaN for fewer than two images.
        p: p-value of a sign-flip permutation test: the probability of a mean at least as far from zero if the sign of
            each image's difference were random.
        images: Number of images on which both scores are finite.
    """

    mean: float
    low: float
    high: float
    p: float
    images: int

    @property
    def is_significant(self) -> bool:
        """Whether other images of the same kind can be expected to confirm the sign of the difference.

        The interval must exclude zero and the permutation test must agree, which takes at least ``min_images``. The
        interval on its own is too narrow for few images.
        """
        return self.p < 1 - CONFIDENCE and (self.low > 0 or self.high < 0)


def paired_difference(scores: Sequence[float | None], baseline: Sequence[float | None]) -> PairedDifference | None:
    """Return the mean difference of paired scores with its 95 % confidence interval.

    The interval is a bias-corrected and accelerated bootstrap over images (Efron, "Better bootstrap confidence
    intervals", 1987) with a fixed seed. For a handful of images it is hardly more than the range of their differences.

    Args:
        scores: One score for each image; None where it is missing.
        baseline: Scores of the other model on the same images, in the same order.

    Returns:
        The difference, or None if no image has both scores.
    """
    pairs = [(a, b) for a, b in zip(scores, baseline, strict=True) if a is not None and b is not None]
    differences = tuple(a - b for a, b in pairs if math.isfinite(a) and math.isfinite(b))
    return _mean_and_interval(differences) if differences else None


@cache
def _mean_and_interval(differences: tuple[float, ...]) -> PairedDifference:
    from scipy.stats import bootstrap, permutation_test  # importing them takes half a second

    values = np.array(differences)
    mean = float(values.mean())
    if len(values) == 1:
        return PairedDifference(mean, np.nan, np.nan, 1.0, 1)
    p = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=_RESAMPLES, rng=np.random.default_rng(0)
    ).pvalue
    # A spread below rounding means that all are equal: there is nothing to resample, and bootstrap would return NaN.
    if np.ptp(values) <= 1e-12 * max(1.0, np.abs(values).max()):
        return PairedDifference(mean, mean, mean, float(p), len(values))
    low, high = bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, confidence_level=CONFIDENCE, rng=np.random.default_rng(0)
    ).confidence_interval
    return PairedDifference(mean, float(low), float(high), float(p), len(values))
