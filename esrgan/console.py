"""Lines for people: one that is rewritten on a terminal, plain ones elsewhere."""

from __future__ import annotations

import io
import math
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from esrgan.text import format_size

LIVE_INTERVAL_S = 0.5  # between two versions of the live line
PLAIN_INTERVAL_S = 60.0  # between two plain lines that stand in for it


class Console:
    """One line that is rewritten on a terminal; plain lines elsewhere.

    Args:
        stream: Where to; None is standard output.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.is_live = self.stream.isatty()
        self.has_live_line = False
        self.shown_at = -math.inf if self.is_live else time.monotonic()

    def is_update_due(self) -> bool:
        """Tell whether it is time for the next line of progress."""
        return time.monotonic() - self.shown_at > (LIVE_INTERVAL_S if self.is_live else PLAIN_INTERVAL_S)

    def update(self, text: str, *, keep: bool) -> None:
        """Show the state of things, in a line. Where lines cannot be rewritten only those to keep are printed."""
        text = "".join(c if c.isprintable() else "?" for c in text)  # names of files can be anything
        if self.is_live:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[2K{text[:width]}")
            self.has_live_line = True
        elif keep:
            self._write(text + "\n")
        self.shown_at = time.monotonic()

    def print(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        self._write(text + "\n")

    def download_progress(self, name: str) -> Callable[[int, int | None], None]:
        """Make what shows the progress of a download: it takes the bytes that are here, and those in all if known."""

        def show(received: int, total: int | None) -> None:
            if self.is_update_due():
                of = f" of {format_size(total)}, {received / total:.0%}" if total else ""
                self.update(f"{name}: {format_size(received)}{of} downloaded", keep=True)

        return show

    def _write(self, text: str) -> None:
        """Write at once. Where nobody reads any more, as behind ``| head``, work goes on in silence."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            self.stream = io.StringIO()
            self.is_live = False

    def clear(self) -> None:
        """Finish the live line."""
        if self.has_live_line:
            self._write("\r\x1b[2K")
            self.has_live_line = False
