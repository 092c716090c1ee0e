"""Progress and messages of the library, through the logger "esrgan", and how commands show them.

``log.info`` is a line that stays, on standard output. ``log.warning`` and ``log.error`` go to standard error, and so
does ``progress``, a line that the next one replaces. A program that configures logging itself receives all of them as
log records.
"""

from __future__ import annotations

import io
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from esrgan.text import cut_to_width

log = logging.getLogger("esrgan")

FIRST = {"first": True}  # ``extra`` of a line that ``hold_lines`` shows before the others
PROGRESS = logging.INFO - 5  # the level of progress lines
LIVE_INTERVAL_S = 0.1  # between updates of the live line on a terminal
PLAIN_INTERVAL_S = 60.0  # between progress lines elsewhere
CLEAR_LINE = "\r\x1b[2K"


def progress(text: str, *, keep: bool = False) -> None:
    """Log a progress line, which a terminal shows until the next one; elsewhere one is printed each minute.

    Args:
        text: The line; a terminal shows as much as fits into its width.
        keep: Whether to show it in any case, however short the time since the last one. If standard output is no
            terminal, the line stays there.
    """
    log.log(PROGRESS, "%s", text, extra={"keep": keep})


class OutputError(Exception):
    """Raised if standard output cannot be written. It is no OSError, which other code takes for one of its own files.

    Args:
        error: The error of the system.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


class StandardOutput:
    """Standard output as text or bytes; its errors are raised as ``OutputError``.

    Args:
        stream: The stream, whose other attributes can be used, too.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # such as those of copying
            raise AttributeError(name)
        return getattr(self._stream, name)

    def write(self, data: Any) -> Any:
        """Write text or bytes."""
        return self._try(self._stream.write, data)

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write lines of text or bytes."""
        self._try(self._stream.writelines, lines)

    def flush(self) -> None:
        """Write what is buffered."""
        self._try(self._stream.flush)

    def close(self) -> None:
        """Write what is buffered, and close the stream."""
        self._try(self._stream.close)

    def _try(self, action: Callable[..., Any], *values: Any) -> Any:
        try:
            return action(*values)
        except OSError as error:
            raise OutputError(error) from error


def accept_any_text() -> None:
    """Print characters that standard output and error cannot encode as escapes, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def hold_lines() -> Iterator[None]:
    """Hold back the lines of the block (``log.info``) until its end, where those logged with ``FIRST`` come first.

    Progress, warnings and errors are shown at once.
    """
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        if record.levelno != logging.INFO:
            return True
        held.append(record)
        return False

    log.addFilter(hold)
    try:
        yield
    finally:
        log.removeFilter(hold)
        for record in sorted(held, key=lambda record: not getattr(record, "first", False)):
            log.handle(record)


class ConsoleHandler(logging.Handler):
    """A log handler that rewrites one line for progress on a terminal, and prints plain lines elsewhere.

    Args:
        stream: Where messages go, and progress that is kept; None is standard output.
        progress_stream: Where other progress goes; None is standard error. Warnings and errors go to standard error.
    """

    def __init__(self, stream: TextIO | None = None, progress_stream: TextIO | None = None) -> None:
        super().__init__()
        self.stream = stream or sys.stdout or io.StringIO()  # a program without a console may have none
        self.progress_stream = progress_stream or sys.stderr or io.StringIO()
        self.is_live = self.progress_stream.isatty() and os.environ.get("TERM") != "dumb"
        self.has_live_line = False
        self.shown_at = -math.inf if self.is_live else time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a log record."""
        text = record.getMessage()
        if record.levelno == PROGRESS:
            self._show_progress(text, keep=getattr(record, "keep", False))
            return
        self.clear()
        if record.levelno >= logging.WARNING:
            with suppress(OSError):  # the terminal may have gone
                print(f"{record.levelname.lower()}: {text}", file=sys.stderr, flush=True)
        else:
            self._write(text + "\n")

    def _show_progress(self, text: str, *, keep: bool) -> None:
        elapsed = time.monotonic() - self.shown_at
        if not keep and elapsed < (LIVE_INTERVAL_S if self.is_live else PLAIN_INTERVAL_S):
            return
        text = "".join(c if c.isprintable() else "?" for c in text)  # file names may contain control characters
        if keep and not (self.is_live and self.stream.isatty()):
            self.clear()
            self._write(text + "\n")
        elif self.is_live:
            self._write_progress(f"{CLEAR_LINE}{cut_to_width(text, self._columns() - 1)}")
            self.has_live_line = True
        else:
            self._write_progress(text + "\n")
        self.shown_at = time.monotonic()

    def clear(self) -> None:
        """Erase the live line, if there is one."""
        if self.has_live_line:
            self._write_progress(CLEAR_LINE)
            self.has_live_line = False

    def _columns(self) -> int:
        columns, lines = 80, 24
        with suppress(OSError, ValueError):  # the terminal may have gone, or be simulated
            columns, lines = os.get_terminal_size(self.progress_stream.fileno())
        return shutil.get_terminal_size((columns or 80, lines)).columns  # some terminals do not know their size

    def _write(self, text: str) -> None:
        """Write and flush. If the reader has gone, as after ``| head``, discard all further output."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, OutputError):
            self.stream = io.StringIO()

    def _write_progress(self, text: str) -> None:
        """Write and flush progress. If the terminal has gone, discard all further progress."""
        try:
            self.progress_stream.write(text)
            self.progress_stream.flush()
        except OSError:
            self.progress_stream, self.is_live = io.StringIO(), False


@contextmanager
def show_messages() -> Iterator[None]:
    """Show messages and progress of the block on the console, unless this program has configured its logging for them.

    A handler of the root logger does not suffice, because notebooks have one. It must let messages of level INFO pass.
    """
    if log.handlers or (log.hasHandlers() and log.isEnabledFor(logging.INFO)):
        yield
        return
    handler, level = ConsoleHandler(), log.level
    log.addHandler(handler)
    log.propagate = False
    if level == logging.NOTSET:  # a level set by the user is kept, such as WARNING for quiet training in a notebook
        log.setLevel(PROGRESS)
    try:
        yield
    finally:
        handler.clear()
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = True
