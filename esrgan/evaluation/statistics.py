"""How sure a difference between two models is, given the images that it was measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

CONFIDENCE = 0.95
_RESAMPLES = 9_999


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of a metric between two models over the same images.

    Attributes:
        mean: Of the images' differences.
        low: Lower end of its confidence interval; NaN for fewer than two images.
        high: Upper end; likewise.
        p: Chance of a mean as far from zero if each image's difference could as well have had the other sign.
        images: How many images it is of: those on which both figures are finite.
    """

    mean: float
    low: float
    high: float
    p: float
    images: int

    @property
    def is_significant(self) -> bool:
        """Whether other images of the kind may be expected to say the same.

        The interval must leave zero out, and the test of signs agree, which can be for no fewer than six images: the
        interval alone is too narrow for few.
        """
        return self.p < 1 - CONFIDENCE and (self.low > 0 or self.high < 0)


def paired_difference(scores: Sequence[float | None], baseline: Sequence[float | None]) -> PairedDifference | None:
    """Give the mean difference of paired figures and its 95 % confidence interval.

    The interval is a bootstrap over images, bias-corrected and accelerated (Efron, "Better bootstrap confidence
    intervals", 1987), with a fixed seed. Of a handful of images it is hardly more than the range of their differences.

    Args:
        scores: One for each image; None where there is none.
        baseline: The same of the other model, in the same order.

    Returns:
        None if no image has both.
    """
    pairs = [(a, b) for a, b in zip(scores, baseline, strict=True) if a is not None and b is not None]
    differences = tuple(a - b for a, b in pairs if np.isfinite(a) and np.isfinite(b))
    return _mean_and_interval(differences) if differences else None


@cache
def _mean_and_interval(differences: tuple[float, ...]) -> PairedDifference:
    from scipy.stats import bootstrap, permutation_test  # take half a second to import

    values = np.array(differences)
    mean = float(values.mean())
    if len(values) == 1:
        return PairedDifference(mean, np.nan, np.nan, 1.0, 1)
    p = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=_RESAMPLES, rng=np.random.default_rng(0)
    ).pvalue
    if np.ptp(values) <= 1e-12 * np.abs(values).max():  # all alike: there is nothing to resample
        return PairedDifference(mean, mean, mean, float(p), len(values))
    low, high = bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, confidence_level=CONFIDENCE, rng=np.random.default_rng(0)
    ).confidence_interval
    return PairedDifference(mean, float(low), float(high), float(p), len(values))
