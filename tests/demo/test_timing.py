"""Estimates of the time."""

import pytest

from esrgan import Upscaler
from esrgan.demo.timing import MIN_RUN_S, Speeds, describe_about
from tests.helpers.models import make_model


def test_speed_is_measured_and_then_taken_from_runs(tmp_path, monkeypatch):
    upscaler = Upscaler.from_file(make_model(tmp_path / "model.pth"), "cpu", width=7)
    speeds = Speeds()
    assert speeds.estimate("model", 100) is None
    speeds.measure("model", upscaler)
    first = speeds.estimate("model", 100)
    assert first > 0
    assert speeds.estimate("model", 200) == pytest.approx(2 * first)
    speeds.measure("model", None)  # it is known already
    speeds.record("model", 10, MIN_RUN_S / 2)
    assert speeds.estimate("model", 100) == first
    speeds.record("model", 10, 2 * MIN_RUN_S)
    assert speeds.estimate("model", 100) == 20 * MIN_RUN_S


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "less than a second"),
        (4.4, "about 4 s"),
        (83, "about 83 s"),
        (119, "about 120 s"),
        (180, "about 3 min"),
        (3599, "about 60 min"),
        (7200, "about 2 h"),
        (360_000, "about 100 h"),
    ],
)
def test_estimates_have_one_or_two_digits(seconds, text):
    assert describe_about(seconds) == text
