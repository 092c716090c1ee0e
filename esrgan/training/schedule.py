"""The length of a stage and what is due after each of its steps, as pure functions of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from esrgan.config import Config
from esrgan.text import format_count
from esrgan.training.options import TrainOptions

# Intervals that the configuration leaves out give this many points in each chart, or more in a long stage.
MIN_POINTS = 20
MAX_LOG_INTERVAL = 100  # steps
MAX_VALIDATION_INTERVAL = 5000
MIN_EPOCH_CHECKPOINT_S = 60  # an epoch of few images can be shorter than writing a checkpoint


@dataclass(frozen=True)
class Timeline:
    """The relation between the steps, epochs and patches of a stage, and its length.

    A run can be resumed with another batch size, another number of images, or a length in another unit. Its position
    is therefore known in all three units: it is linear from an origin, which is the start of the stage or the last
    resume that changed the slope.
    """

    batch_size: int  # patches per step
    steps_per_epoch: int  # number of training images // batch size, but at least 1
    total_steps: int = 0  # length of the stage
    origin_step: int = 0  # what was completed at the origin, in each unit
    origin_epoch: Fraction = Fraction(0)
    origin_patch: int = 0

    def epochs(self, done: int) -> Fraction:
        """Return the number of epochs that are complete after ``done`` steps, with its fraction."""
        return self.origin_epoch + Fraction(done - self.origin_step, self.steps_per_epoch)

    def first_patch(self, step: int) -> int:
        """Return the position of the first patch of a step, which is counted from 0."""
        return self.origin_patch + (step - self.origin_step) * self.batch_size

    def ends_epoch(self, done: int) -> bool:
        """Return whether the last of ``done`` steps has completed an epoch."""
        return math.floor(self.epochs(done)) > math.floor(self.epochs(done - 1))

    def with_length(self, num_epochs: int | None, num_steps: int | None, max_steps: int | None, done: int) -> Timeline:
        """Return a timeline with the configured length, in epochs or steps, which is at least the ``done`` steps.

        After ``max_steps`` the stage ends in any case; None is no limit.
        """
        total = num_steps or self.origin_step + math.ceil(
            ((num_epochs or 0) - self.origin_epoch) * self.steps_per_epoch
        )
        return replace(self, total_steps=max(done, total if max_steps is None else min(total, max_steps)))

    def resumed_at(self, done: int, earlier: dict[str, Any]) -> Timeline:
        """Return this timeline continued after ``done`` steps from ``earlier``, the ``to_dict`` in a checkpoint."""
        before = Timeline(**earlier | {"origin_epoch": Fraction(earlier["origin_epoch"])})
        if (before.batch_size, before.steps_per_epoch) == (self.batch_size, self.steps_per_epoch):
            return replace(before, total_steps=self.total_steps)
        return replace(self, origin_step=done, origin_epoch=before.epochs(done), origin_patch=before.first_patch(done))

    def log_interval(self, config: Config) -> int:
        """Return the number of steps between log lines."""
        return config.logging.interval or self._default_interval(MAX_LOG_INTERVAL)

    def validation_interval(self, config: Config) -> int:
        """Return the number of steps between validations."""
        return config.validation_interval or self._default_interval(MAX_VALIDATION_INTERVAL)

    def _default_interval(self, maximum: int) -> int:
        return min(maximum, max(1, self.total_steps // MIN_POINTS))

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as types that a checkpoint can contain."""
        return vars(self) | {"origin_epoch": str(self.origin_epoch)}

    def describe_rest(self, done: int) -> str:
        """Describe the position and what remains: "6.7 epochs or 20 steps are done, 6 steps remain (1 per epoch)"."""
        epochs = f"{float(self.epochs(done)):.1f}".removesuffix(".0")
        left = self.total_steps - done
        rest = f"{format_count(left, 'step')} {'remains' if left == 1 else 'remain'}"
        done_steps = format_count(done, "step")
        unit = "epoch" if epochs == "1" else "epochs"
        verb = "is" if done == 1 else "are"
        return f"{epochs} {unit} or {done_steps} {verb} done, {rest} ({self.steps_per_epoch} per epoch)"


@dataclass(frozen=True)
class Due:
    """What is due after a step."""

    report: bool  # of the statistics of the last interval
    validation: bool
    checkpoint: bool
    model_epoch: int | None  # the epoch whose model file is to be kept
    end: bool  # of the stage, which has reached its length
    stop: bool  # because a signal has asked for it

    @property
    def needs_health(self) -> bool:
        """Whether something is due that only a healthy generator is worth."""
        return self.validation or self.checkpoint or self.model_epoch is not None or self.end


def what_is_due(
    done: int, timeline: Timeline, config: Config, options: TrainOptions, seconds: float, *, stop: bool = False
) -> Due:
    """Return what is due after ``done`` steps.

    Args:
        done: Number of completed steps.
        timeline: Epochs and length of the stage.
        config: Has the intervals in steps and minutes.
        options: Have the intervals in epochs.
        seconds: Time since the last checkpoint.
        stop: See ``Due``.
    """
    end = done == timeline.total_steps
    epoch = math.floor(timeline.epochs(done)) if timeline.ends_epoch(done) else 0

    def is_due(interval: int | None) -> bool:
        return bool(epoch and interval and epoch % interval == 0)

    is_long_epoch = bool(epoch) and options.checkpoint_interval is None and seconds >= MIN_EPOCH_CHECKPOINT_S
    return Due(
        report=end or done % timeline.log_interval(config) == 0,
        validation=end or done % timeline.validation_interval(config) == 0,
        checkpoint=is_due(options.checkpoint_interval) or is_long_epoch or seconds >= 60 * config.checkpoint_minutes,
        model_epoch=epoch if is_due(options.store_model_interval) else None,
        end=end,
        stop=stop,
    )
