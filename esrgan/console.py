"""Progress output: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import math
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from esrgan.text import format_size

LIVE_INTERVAL_S = 0.5  # between updates of the live line
PLAIN_INTERVAL_S = 60.0  # between plain progress lines


class Console:
    """A writer of progress and results, with one line that is rewritten on a terminal.

    Args:
        stream: Where to write; None is standard output.

    Attributes:
        is_live: Whether lines can be rewritten, because the stream is a terminal.
        has_live_line: Whether the last line can still be rewritten.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.is_live = self.stream.isatty()
        self.has_live_line = False
        self.shown_at = -math.inf if self.is_live else time.monotonic()

    def is_update_due(self) -> bool:
        """Return whether the next progress line is due."""
        return time.monotonic() - self.shown_at > (LIVE_INTERVAL_S if self.is_live else PLAIN_INTERVAL_S)

    def update(self, text: str, *, keep: bool) -> None:
        """Show a progress line.

        Args:
            text: The line; it is cut to the width of the terminal.
            keep: Whether to print it also where lines cannot be rewritten.
        """
        text = "".join(c if c.isprintable() else "?" for c in text)  # file names may contain control characters
        if self.is_live:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[2K{text[:width]}")
            self.has_live_line = True
        elif keep:
            self._write(text + "\n")
        self.shown_at = time.monotonic()

    def print(self, text: str) -> None:
        """Print a permanent line."""
        self.clear()
        self._write(text + "\n")

    def download_progress(self, name: str) -> Callable[[int, int | None], None]:
        """Return a callback that shows the progress of a download.

        It is called with the number of bytes received and the total, or None if the total is unknown.
        """

        def show(received: int, total: int | None) -> None:
            if self.is_update_due():
                of = f" of {format_size(total)}, {received / total:.0%}" if total else ""
                self.update(f"{name}: {format_size(received)}{of} downloaded", keep=True)

        return show

    def _write(self, text: str) -> None:
        """Write and flush. If the reader has gone, as after ``| head``, discard all further output."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            self.stream = io.StringIO()
            self.is_live = False

    def clear(self) -> None:
        """Erase the live line, if there is one."""
        if self.has_live_line:
            self._write("\r\x1b[2K")
            self.has_live_line = False
