"""Tests of the window that a report shows, and of the versions of an image that are cropped to it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from esrgan.evaluation.crops import ImageVersions, Window, find_most_different_window
from tests.helpers.evaluation import make_versions


def test_alpha_does_not_choose_the_window():
    versions = make_versions((40, 50), channels=4)
    versions.outputs["first"][...] = versions.outputs["second"][...] = 7
    versions.outputs["first"][100:, 100:, 3] = 255
    versions.outputs["first"][:4, :4, 0] = 9
    assert versions.find_window() == Window(0, 0, 128, 128)


def test_a_single_model_is_compared_with_bicubic():
    versions = make_versions((40, 50), models=("only",))
    versions.outputs["bicubic"][...] = versions.outputs["only"]
    versions.outputs["bicubic"][156:, 196:] ^= 255
    assert versions.find_window() == Window(32, 72, 128, 128)
    more = ImageVersions(versions.low, {**versions.outputs, "other": versions.outputs["only"]})
    assert more.find_window() == Window(
        0, 0, 128, 128
    )  # only bicubic differs at (32, 72), and with two models it is ignored


@given(
    arrays(np.uint8, st.tuples(st.integers(2, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]))),
    st.integers(1, 3),
    st.integers(1, 9),
)
@settings(max_examples=200)
def test_window_matches_a_brute_force_search(small, step, size):
    images = small.repeat(step, axis=1).repeat(step, axis=2)
    images[:, ::2] ^= np.arange(images.shape[2], dtype=np.uint8)[:, None]  # makes pixels differ within an LR pixel
    size = max(size, step)
    window = find_most_different_window(list(images), step, size)
    height, width = (min(size, side) // step * step for side in images.shape[1:3])
    assert (window.height, window.width) == (height, width)
    spread = images.max(axis=0).astype(int) - images.min(axis=0)
    sums = {
        (top, left): spread[top : top + height, left : left + width].sum()
        for top in range(0, images.shape[1] - height + 1, step)
        for left in range(0, images.shape[2] - width + 1, step)
    }
    assert (window.top, window.left) == max(sums, key=sums.__getitem__)
