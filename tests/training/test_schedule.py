"""The length of a stage, its position in steps, epochs and patches, and what is due after a step."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from esrgan.config import Config
from esrgan.training import TrainOptions
from esrgan.training.schedule import Due, Timeline, what_is_due

NOTHING = Due(report=False, validation=False, checkpoint=False, model_epoch=None, end=False, stop=False)


def due(done: int, seconds: float = 0, timeline: Timeline | None = None, **options: Any) -> Due:
    config = Config(checkpoint_minutes=5, validation_interval=40, logging={"interval": 30})
    timeline = timeline or Timeline(batch_size=2, steps_per_epoch=3, total_steps=100)
    return what_is_due(done, timeline, config, TrainOptions(**options), seconds)


@pytest.mark.parametrize(
    ("steps", "log_interval", "validation_interval"),
    [(1, 1, 1), (19, 1, 1), (40, 2, 2), (59, 2, 2), (3000, 100, 150), (200_000, 100, 5000), (10**6, 100, 5000)],
)
def test_default_intervals_give_twenty_points_in_a_stage(
    steps: int, log_interval: int, validation_interval: int
) -> None:
    timeline = Timeline(batch_size=2, steps_per_epoch=3, total_steps=steps)
    assert timeline.log_interval(Config()) == log_interval
    assert timeline.validation_interval(Config()) == validation_interval
    due = [what_is_due(done, timeline, Config(), TrainOptions(), 0) for done in range(1, min(steps, 3000) + 1)]
    assert sum(each.validation for each in due) >= min(steps, 20) or steps > 3000
    explicit = Config(validation_interval=7, logging={"interval": 5})
    assert (timeline.log_interval(explicit), timeline.validation_interval(explicit)) == (5, 7)


@pytest.mark.parametrize(
    ("batch_size", "images", "length", "total", "epochs"),
    [
        # 20 steps were 6 2/3 epochs. 5 1/3 epochs of one step remain, which is rounded up.
        (6, 6, {"num_epochs": 12}, 26, Fraction(38, 3)),
        (1, 6, {"num_epochs": 12}, 52, 12),
        (2, 3, {"num_epochs": 12}, 26, Fraction(38, 3)),  # fewer images
        (2, 6, {"num_epochs": 12}, 36, 12),  # nothing has changed
        (2, 6, {"num_steps": 30}, 30, 10),  # the length is given in steps now
        (6, 6, {"num_steps": 30}, 30, Fraction(20, 3) + 10),
        (2, 6, {"num_steps": 10}, 20, Fraction(20, 3)),  # already longer than that
        (6, 6, {"num_epochs": 3}, 20, Fraction(20, 3)),
    ],
)
def test_a_resumed_stage_continues_with_what_remains(
    batch_size: int, images: int, length: dict[str, int], total: int, epochs: Fraction
) -> None:
    earlier = Timeline(batch_size=2, steps_per_epoch=3).with_length(12, None, None, 0)
    assert (earlier.total_steps, earlier.epochs(20), earlier.first_patch(20)) == (36, Fraction(20, 3), 40)
    timeline = Timeline(batch_size, max(1, images // batch_size)).resumed_at(20, earlier.to_dict())
    timeline = timeline.with_length(length.get("num_epochs"), length.get("num_steps"), None, 20)
    assert (timeline.total_steps, timeline.epochs(timeline.total_steps)) == (total, epochs)
    # The stream of patches continues where it was.
    assert timeline.first_patch(20) == 40
    assert timeline.first_patch(21) == 40 + batch_size


def test_repeated_changes_of_the_batch_size_add_up() -> None:
    timeline = Timeline(2, 3).with_length(12, None, None, 0)
    for done, batch_size, per_epoch in ((20, 6, 1), (22, 3, 2), (25, 2, 3)):
        timeline = Timeline(batch_size, per_epoch).resumed_at(done, timeline.to_dict())
        timeline = timeline.with_length(12, None, None, done)
    assert timeline.epochs(25) == Fraction(20, 3) + 2 + Fraction(3, 2)
    assert timeline.first_patch(25) == 40 + 12 + 9
    assert timeline.total_steps == 25 + 6  # 1 5/6 epochs of 3 steps, rounded up


def test_an_unchanged_timeline_keeps_its_origin() -> None:
    timeline = Timeline(4, 10).with_length(3, None, None, 0)
    assert Timeline(4, 10).resumed_at(17, timeline.to_dict()).with_length(3, None, None, 17) == timeline


def test_the_length_is_limited_by_max_steps() -> None:
    assert Timeline(2, 3).with_length(12, None, 7, 0).total_steps == 7
    assert Timeline(2, 3).with_length(None, 100, 7, 9).total_steps == 9


def test_each_thing_is_due_at_its_interval() -> None:
    assert due(1) == NOTHING
    assert due(30) == replace(NOTHING, report=True)
    assert due(40) == replace(NOTHING, validation=True)
    assert due(100) == replace(NOTHING, report=True, validation=True, end=True)
    assert what_is_due(1, Timeline(1, 1, 9), Config(), TrainOptions(), 0, stop=True).stop
    # Every third step ends an epoch.
    assert [step for step in range(1, 13) if due(step, checkpoint_interval=2).checkpoint] == [6, 12]
    assert [due(step, store_model_interval=2).model_epoch for step in range(5, 8)] == [None, 2, None]


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [(0, []), (61, [3, 6]), (300, [1, 2, 3, 4, 5, 6])],  # never within an epoch before checkpoint_minutes
)
def test_checkpoints_are_due_by_time(seconds: float, steps: list[int]) -> None:
    assert [step for step in range(1, 7) if due(step, seconds).checkpoint] == steps


def test_epochs_end_correctly_after_a_change() -> None:
    timeline = Timeline(6, 4, 100, origin_step=20, origin_epoch=Fraction(20, 3))
    assert [step for step in range(21, 32) if timeline.ends_epoch(step)] == [22, 26, 30]
    assert due(22, timeline=timeline, store_model_interval=7).model_epoch == 7
