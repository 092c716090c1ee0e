"""Lines for people: one that is rewritten on a terminal, plain ones elsewhere."""

from __future__ import annotations

import io
import math
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

LIVE_PAUSE_S = 0.5  # between two versions of the live line
PLAIN_PAUSE_S = 60.0  # between two plain lines that stand in for it


class Console:
    """One line that is rewritten on a terminal; plain lines elsewhere.

    Args:
        stream: Where to; None is standard output.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.is_live = self.stream.isatty()
        self.pending = False
        self.shown_at = -math.inf if self.is_live else time.monotonic()

    def is_stale(self) -> bool:
        """Tell whether it is time for the next line of progress."""
        return time.monotonic() - self.shown_at > (LIVE_PAUSE_S if self.is_live else PLAIN_PAUSE_S)

    def live(self, text: str, *, keep: bool) -> None:
        """Show the state of things, in a line. Where lines cannot be rewritten only those to keep are printed."""
        text = "".join(c if c.isprintable() else "?" for c in text)  # names of files can be anything
        if self.is_live:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[2K{text[:width]}")
            self.pending = True
        elif keep:
            self._write(text + "\n")
        self.shown_at = time.monotonic()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.end()
        self._write(text + "\n")

    def downloading(self, name: str) -> Callable[[int, int | None], None]:
        """Make what shows the progress of a download: it takes the bytes that are here, and those in all if known."""

        def show(there: int, whole: int | None) -> None:
            if self.is_stale():
                of = f" of {gigabytes(whole)}, {there / whole:.0%}" if whole else ""
                self.live(f"{name}: {gigabytes(there)}{of} downloaded", keep=True)

        return show

    def _write(self, text: str) -> None:
        """Write at once. Where nobody reads any more, as behind ``| head``, work goes on in silence."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            self.stream = io.StringIO()
            self.is_live = False

    def end(self) -> None:
        """Finish the live line."""
        if self.pending:
            self._write("\r\x1b[2K")
            self.pending = False


def duration(seconds: float) -> str:
    """Write a time as people do: 3 d 04:05, 4:05:06 or 5:06."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24:02}:{minute:02}"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def gigabytes(size: float) -> str:
    """Write a number of bytes as people do."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"
