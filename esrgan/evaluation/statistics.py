"""How sure a difference between two models is, given the images that it was measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
_RESAMPLES = 9_999
_FEWEST = 6  # images that may show a difference: 2 · 2⁻⁶ is less than 1 − CONFIDENCE


@dataclass(frozen=True)
class Difference:
    """The mean difference of a metric between two models over the same images.

    Attributes:
        mean: Of the images' differences.
        low: Lower end of its confidence interval; NaN for fewer than two images.
        high: Upper end; likewise.
        images: How many images it is of: those on which both figures are finite.
    """

    mean: float
    low: float
    high: float
    images: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves zero out, so that other images of the kind would say the same.

        Fewer than six images never show that: were there no difference, five would all fall on one side by chance in
        one case of 16.
        """
        return self.images >= _FEWEST and (self.low > 0 or self.high < 0)


def difference(figures: Sequence[float | None], baseline: Sequence[float | None]) -> Difference | None:
    """Give the mean difference of paired figures and its 95 % confidence interval.

    The interval is a bootstrap over images, bias-corrected and accelerated (Efron, "Better bootstrap confidence
    intervals", 1987), with a fixed seed. Of a handful of images it is hardly more than the range of their differences.

    Args:
        figures: One for each image; None where there is none.
        baseline: The same of the other model, in the same order.

    Returns:
        None if no image has both.
    """
    pairs = [(a, b) for a, b in zip(figures, baseline, strict=True) if a is not None and b is not None]
    differences = np.array([a - b for a, b in pairs if np.isfinite(a) and np.isfinite(b)])
    if not len(differences):
        return None
    mean = float(differences.mean())
    if len(differences) == 1:
        return Difference(mean, np.nan, np.nan, 1)
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():  # all alike: there is nothing to resample
        return Difference(mean, mean, mean, len(differences))
    from scipy.stats import bootstrap  # takes half a second to import

    result = bootstrap(
        (differences,), np.mean, n_resamples=_RESAMPLES, confidence_level=CONFIDENCE, rng=np.random.default_rng(0)
    )
    low, high = result.confidence_interval
    return Difference(mean, float(low), float(high), len(differences))
