"""Tests of the sentences about the differences between methods."""

from __future__ import annotations

import math

import pytest

from esrgan.evaluation import DatasetEvaluation, ImageResult
from esrgan.evaluation.comparison import describe_differences
from esrgan.metrics import METRICS

NAMES = ("psnr_y", "ssim_y", "niqe")


def sentence(psnr_y, ssim_y=None, niqe=None):
    """Return the sentence about a model with the given differences from bicubic; None is a missing score."""
    rows = {}
    for i, gains in enumerate(zip(psnr_y, ssim_y or psnr_y, niqe or [None] * len(psnr_y), strict=True)):
        bicubic = {name: None if gain is None else 20.0 for name, gain in zip(NAMES, gains, strict=True)}
        model = {name: None if gain is None else 20 + gain for name, gain in zip(NAMES, gains, strict=True)}
        rows[str(i)] = {"bicubic": ImageResult(bicubic, 1.0, 1), "m\u202e": ImageResult(model, 1.0, 1)}
    metrics = [METRICS[name] for name in (NAMES if niqe else NAMES[: 2 if ssim_y else 1])]
    (found,) = describe_differences(
        DatasetEvaluation("photos", ("bicubic", "m\u202e"), metrics, len(rows), results=rows)
    )
    return found.replace("m\N{REPLACEMENT CHARACTER}", "m")


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (([0.5],), "m and bicubic: 1 image is too few to tell; at least 6 are needed."),
        (([0.5] * 5, [0.5] * 5), "m and bicubic: 5 images are too few to tell; at least 6 are needed."),
        (
            ([-0.5, 0.5] * 6, [-0.5, 0.4] * 6, [-0.5, 0.6] * 6),
            "m and bicubic: no difference in PSNR Y, SSIM Y or NIQE that 12 images can show.",
        ),
        (
            ([0.25, 0.75] * 6, [0.5] * 12, [-0.5] * 12),
            "m is better than bicubic in PSNR Y by 0.50 dB on average, 95 % interval 0.38 to 0.62; also in SSIM Y "
            "and NIQE.",
        ),
        (
            ([-0.25, -0.75] * 6, [0.5] * 12, [-1.0, 1.0] * 6),
            "m is worse than bicubic in PSNR Y by 0.50 dB on average, 95 % interval 0.38 to 0.62; better in SSIM Y; "
            "no difference in NIQE that 12 images can show.",
        ),
        (
            ([0.5] * 6, [0.5] * 6, [0.5, 0.5, None, None, None, None]),
            "m is better than bicubic in PSNR Y by 0.50 dB on average, 95 % interval 0.50 to 0.50; also in SSIM Y; "
            "2 images are too few to tell in NIQE; at least 6 are needed.",
        ),
        (([-0.001, -0.002] * 6,), "m is worse than bicubic in PSNR Y by less than 0.01 dB on average."),
        (
            ([0.5, *[math.inf] * 5], [0.5] * 6),
            "m and bicubic: 1 image is too few to tell in PSNR Y; at least 6 are needed; m is better in SSIM Y.",
        ),
        (([None] * 2,), "m and bicubic: no image on which all methods have a finite score."),
    ],
)  # fmt: skip
def test_a_sentence_says_what_the_scores_show(differences, expected):
    assert sentence(*differences) == expected
