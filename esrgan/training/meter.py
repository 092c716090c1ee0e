"""Means of losses and rates between two log records."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from esrgan.training import distributed

T = TypeVar("T")


class Meter:
    """Accumulator of losses and times between two log records, which does not wait for the device.

    Args:
        batch_size: Number of patches in a step, over all processes.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.reset()

    def reset(self) -> None:
        """Start a new interval."""
        self.names: list[str] = []
        self.sums = self.peaks = self.finite_steps = torch.zeros(())
        self.summed_steps = 0  # exceeds ``steps`` if the interval began before a resume
        self.steps = 0
        self.data_wait_s = 0.0
        self.started_at = time.perf_counter()

    def time_waits(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield the batches, and measure the time spent waiting for each of them."""
        before = time.perf_counter()
        for batch in batches:
            self.data_wait_s += time.perf_counter() - before
            yield batch
            before = time.perf_counter()

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add the losses and gradient norms of a step, on the device.

        A step with a non-finite value was skipped. It is counted but not included in any mean.
        """
        if list(losses) != self.names:  # the first step, or the first after resuming with different losses
            self.names, self.summed_steps = list(losses), 0
            self.sums = self.peaks = self.finite_steps = torch.zeros(())
        values = torch.stack([value.float() for value in losses.values()])
        is_finite = values.isfinite().all()
        values = torch.where(is_finite, values, 0)
        self.sums = self.sums.to(values.device) + values
        self.peaks = torch.maximum(self.peaks.to(values.device), values)
        self.finite_steps = self.finite_steps.to(values.device) + is_finite
        self.summed_steps += 1
        self.steps += 1

    def exclude(self, seconds: float) -> None:
        """Exclude seconds that were spent on something else from the rates."""
        self.started_at += seconds

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of all processes in an unfinished interval, for a run that resumes within it."""
        tensors = {"sums": distributed.all_gather(self.sums), "peaks": self.peaks, "finite_steps": self.finite_steps}
        return tensors | {"names": self.names, "steps": self.summed_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sums of ``state_dict``; the rates start from zero."""
        sums = state["sums"]  # (processes, names)
        self.sums = sums[distributed.rank()] if len(sums) == distributed.world_size() else sums.mean(0)
        self.peaks, self.finite_steps = state["peaks"], state["finite_steps"]
        self.names, self.summed_steps = list(state["names"]), state["steps"]

    def statistics(self) -> dict[str, float]:
        """Return the means of losses and gradient norms, the norms' peaks and the number of skipped steps.

        They cover the time since the last reset. Means are over all processes. This waits for the device.
        """
        means = dict(zip(self.names, distributed.all_reduce_mean(self.sums / self.finite_steps).tolist(), strict=True))
        peaks = zip(self.names, self.peaks.tolist(), strict=True)
        skipped = {"skipped_steps": self.summed_steps - int(self.finite_steps)}
        return means | {f"{name}_peak": peak for name, peak in peaks if name.endswith("norm")} | skipped

    def rates(self) -> dict[str, float]:
        """Return the speed since the last reset, and the share of time spent waiting for data; {} without a step."""
        if not self.steps:
            return {}
        seconds = time.perf_counter() - self.started_at
        return {
            "steps_per_s": self.steps / seconds,
            "images_per_s": self.steps * self.batch_size / seconds,
            "data_wait_share": self.data_wait_s / seconds,
        }
