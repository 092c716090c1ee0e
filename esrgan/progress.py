"""How much of some work is done, and how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager

from esrgan.console import progress
from esrgan.text import format_duration

MIN_ELAPSED_S = 3.0  # before the first estimate
MAX_CHANGE = 0.2  # of an estimate from one report to the next


class TimeLeft:
    """Estimates how long the rest of some work takes, from the running mean of its speed.

    The mean is over the whole time, in which the time just passed counts most: the weight of each moment is
    proportional to the time since the start. For steady work the estimate is exact from the beginning. It changes by at
    most ``MAX_CHANGE`` from one report to the next, apart from the time that has passed between them.

    Args:
        clock: Returns the time in seconds.

    Example:
        >>> from esrgan.progress import TimeLeft
        >>> seconds = iter([0, 10, 20])
        >>> left = TimeLeft(lambda: next(seconds))
        >>> left.update(0.1), left.update(0.2)
        (90.0, 80.0)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin = self._now = clock()
        self._done = self._speed = 0.0
        self._left: float | None = None

    def update(self, done: float) -> float | None:
        """Return the estimate in seconds after a report of the share that is done; None if it is too early for one."""
        now = self._clock()
        elapsed, before, passed = now - self._begin, self._now - self._begin, now - self._now
        if passed > 0:
            self._speed += (1 - (before / elapsed) ** 2) * (max(done - self._done, 0) / passed - self._speed)
            self._now, self._done = now, done
        if elapsed < MIN_ELAPSED_S or self._speed <= 0:
            return self._left
        left = max(1 - done, 0) / self._speed
        if self._left is not None and done < 1:
            expected = self._left - passed
            left = min(max(left, expected * (1 - MAX_CHANGE)), max(expected, 1.0) * (1 + MAX_CHANGE))
        self._left = left
        return left


class Progress:
    """Shows the progress of work on several items on one line: how many are done, the share of the work, the time left.

    Args:
        sizes: The items, each with its size in any unit; the work on an item is proportional to its size.
        label: What the line begins with.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, sizes: Mapping[Hashable, float], label: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sizes, self._label = dict(sizes), label
        self._shares: dict[Hashable, float] = {}
        self._total = sum(self._sizes.values())
        self._finished_size = 0.0
        self._estimate = TimeLeft(clock)
        self.total, self.finished = len(self._sizes), 0
        self.left_s: float | None = None

    def update(self, item: Hashable, share: float, name: str = "") -> None:
        """Show that a share of the work on an item is done, from 0 to 1."""
        if item in self._sizes:
            self._shares[item] = share
            self._show(f": {name}" if name else "")

    def finish(self, item: Hashable, *, without_work: bool = False) -> None:
        """Count an item as finished; ``without_work`` takes its size out of the total."""
        size = self._sizes.pop(item, 0.0)
        self._shares.pop(item, None)
        self.finished += 1
        if without_work:
            self._total -= size
        else:
            self._finished_size += size
        self._show()

    @property
    def worked_on(self) -> list[Hashable]:
        """The items whose work is done, but which are not finished: their files may still be written."""
        return [item for item, share in self._shares.items() if share >= 1]

    def _show(self, name: str = "") -> None:
        size = self._finished_size + sum(self._sizes[item] * share for item, share in self._shares.items())
        done = min(size / self._total, 1.0) if self._total > 0 else 1.0
        self.left_s = self._estimate.update(done)
        count = f"{self.finished + len(self.worked_on)}/{self.total} " if self.total > 1 else ""
        left = "" if self.left_s is None else f", {format_duration(self.left_s)} left"
        progress(f"{self._label}{count}{done:.0%}{left}{name}")


@contextmanager
def explain_interrupt(describe: Callable[[], str]) -> Iterator[None]:
    """Add a text to a KeyboardInterrupt in the block, unless it has one: how much is done and how to resume."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if interrupt.args:
            raise
        raise KeyboardInterrupt(describe()) from interrupt
