"""Tests of the confidence intervals and the significance of paired differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from esrgan.evaluation.statistics import min_images, paired_difference


def test_interval_matches_student_t_for_many_normal_differences():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 400), rng.normal(0, 1, 400)
    result = paired_difference(list(a), list(b))
    low, high = stats.t.interval(0.95, 399, (a - b).mean(), stats.sem(a - b))
    assert result.mean == pytest.approx((a - b).mean())
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.02)
    assert result.images == 400
    assert result.is_significant


@pytest.mark.slow
def test_interval_rarely_excludes_the_true_difference():
    rng = np.random.default_rng(1)
    misses = 0
    for _ in range(60):
        result = paired_difference(list(rng.normal(0, 1, 30)), [0.0] * 30)
        misses += result.is_significant
    assert misses <= 8  # 3 are expected; the probability of more than 8 is 1 in 200


@settings(max_examples=15)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=12), st.floats(-10, 10))
@example([0.0, 2.1e-243], 0.0)
def test_difference_is_antisymmetric_and_shifts_with_its_values(values, shift):
    zeros = [0.0] * len(values)
    one, other = paired_difference(values, zeros), paired_difference(zeros, values)
    assert one.mean == pytest.approx(-other.mean, abs=1e-9)
    assert one.low - 1e-9 <= one.mean <= one.high + 1e-9
    moved = paired_difference([value + shift for value in values], zeros)
    assert moved.mean == pytest.approx(one.mean + shift, abs=1e-6)


def test_few_images_rarely_give_false_significance():
    rng = np.random.default_rng(2)
    shown = [paired_difference(list(rng.exponential(1, 6) - 1), [0.0] * 6).is_significant for _ in range(80)]
    assert sum(shown) <= 9  # the interval on its own gives 12 of 80; 4 are expected with the sign test


def test_the_smallest_number_of_images_is_that_of_the_test():
    for n in range(1, 9):
        differences = [1.0 + i for i in range(n)]
        assert paired_difference(differences, [0.0] * n).is_significant == (n >= min_images())
        assert (paired_difference(differences, [0.0] * n).p < 0.01) == (n >= min_images(0.99))


def test_differences_of_few_images_are_handled():
    assert paired_difference([1.0], [0.5]).mean == 0.5
    assert math.isnan(paired_difference([1.0], [0.5]).low)
    assert not paired_difference([1.0, 2, 3, 4, 5], [0.0] * 5).is_significant
    assert paired_difference([1.0, 2, 3, 4, 5, 6], [0.0] * 6).is_significant
    equal = paired_difference([1.0] * 6, [0.5] * 6)
    assert (equal.low, equal.mean, equal.high) == (0.5, 0.5, 0.5)
    nothing = paired_difference([0.5] * 6, [0.5] * 6)
    assert not nothing.is_significant
    assert paired_difference([None, math.inf], [1.0, 2.0]) is None
    assert paired_difference([None, math.inf, 3.0], [1.0, 2.0, 2.5]).images == 1
