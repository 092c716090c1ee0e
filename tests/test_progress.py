"""The estimate of the time left, and the line that shows it."""

from __future__ import annotations

import random

import pytest

from esrgan import progress
from esrgan.progress import MAX_CHANGE, MIN_ELAPSED_S, Progress, TimeLeft, explain_interrupt
from tests.helpers.console import captured_messages


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def estimates(durations, shares=None):
    """Return (time passed, share done, estimate) for each report of work whose parts take the given seconds."""
    clock = Clock()
    left = TimeLeft(clock)
    shares = shares or [1 / len(durations)] * len(durations)
    done, reports = 0.0, []
    for seconds, share in zip(durations, shares, strict=True):
        clock.now += seconds
        done = min(done + share, 1.0)
        reports.append((clock.now - 1000, done, left.update(done)))
    return reports


@pytest.mark.parametrize("parts", [25, 100, 5000])
@pytest.mark.parametrize("total_s", [40, 100_000])
def test_steady_work_is_estimated_within_a_tenth(parts, total_s):
    numbers = random.Random(parts)
    durations = [numbers.uniform(0.9, 1.1) for _ in range(parts)]
    factor = total_s / sum(durations)
    checked = 0
    for passed, done, estimate in estimates([seconds * factor for seconds in durations]):
        if done > 0.1 and passed >= MIN_ELAPSED_S:
            checked += 1
            assert estimate == pytest.approx(total_s - passed, rel=0.1, abs=0.02 * total_s)
    assert checked >= parts * 0.8


def test_estimates_never_jump():
    """The speed changes by a factor of 20 within a moment, and a part of the work comes all at once."""
    durations = [1.0] * 40 + [20.0] * 20 + [0.05] * 40 + [300.0] + [1.0] * 20
    shares = [1 / 200] * 120 + [80 / 200]
    random.Random(0).shuffle(shares)
    before = None
    changes = []
    for passed, done, estimate in estimates(durations, shares):
        if before is not None and done < 1:
            expected = max(before[1] - (passed - before[0]), 1.0)
            changes.append(abs(estimate / expected - 1))
        before = (passed, estimate) if estimate is not None else None
    assert len(changes) > 100
    assert max(changes) <= MAX_CHANGE + 1e-9


def test_the_estimate_follows_a_new_speed():
    reports = estimates([1.0] * 50 + [3.0] * 150)
    total = 50 + 450
    for passed, done, estimate in reports:
        if done > 0.6:
            assert estimate == pytest.approx(total - passed, rel=0.25, abs=2)


def test_no_estimate_is_shown_at_first():
    reports = estimates([0.1] * 100)
    assert {estimate is None for passed, _, estimate in reports if passed < MIN_ELAPSED_S - 0.01} == {True}
    assert {estimate is None for passed, _, estimate in reports if passed > MIN_ELAPSED_S + 0.01} == {False}
    assert reports[-1][2] == 0


def test_work_that_starts_again_does_not_go_back_in_time():
    reports = estimates([1.0] * 20, [0.05] * 10 + [-0.5] + [0.05] * 9)
    assert all(estimate is None or estimate > 0 for *_, estimate in reports)


def test_the_line_counts_items_and_weighs_them_by_size():
    clock = Clock()
    with captured_messages(interval_s=0) as output:
        shown = Progress({"a": 1.0, "b": 7.0, "c": 2.0, "d": 90.0}, clock=clock)
        shown.finish("d", without_work=True)  # it exists
        clock.now += 10
        shown.update("a", 0.5, "a_sr.png")
        shown.update("a", 1.0, "a_sr.png")
        assert shown.worked_on == ["a"]
        shown.finish("a")
        clock.now += 90
        shown.update("b", 1.0, "b_sr.png")
        shown.finish("b")
        clock.now += 20
        shown.finish("c")
    assert output.getvalue().splitlines() == [
        "1/4 0%",
        "1/4 5%, 3:10 left: a_sr.png",
        "2/4 10%, 3:00 left: a_sr.png",
        "2/4 10%, 3:00 left",
        "3/4 80%, 1:12 left: b_sr.png",
        "3/4 80%, 0:58 left",
        "4/4 100%, 0:00 left",
    ]


def test_a_single_item_is_not_counted():
    with captured_messages(interval_s=0) as output:
        shown = Progress({"a": 3.0}, "unpacking x.zip: ")
        shown.update("a", 0.25)
        shown.finish("a")
        Progress({}).finish("unknown")
    assert output.getvalue() == "unpacking x.zip: 25%\nunpacking x.zip: 100%\n100%\n"


def test_an_interrupt_gets_an_explanation():
    with pytest.raises(KeyboardInterrupt, match="2 of 3 done"), explain_interrupt(lambda: "2 of 3 done"):
        raise KeyboardInterrupt
    with (
        pytest.raises(KeyboardInterrupt, match="2 of 3 done"),
        explain_interrupt(lambda: "outside"),
        explain_interrupt(lambda: "2 of 3 done"),
    ):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="x"), explain_interrupt(lambda: pytest.fail("not interrupted")):
        raise ValueError("x")


def test_library_prints_nothing(capsys):
    progress.Progress({"a": 1.0}).update("a", 0.5)
    assert capsys.readouterr() == ("", "")
