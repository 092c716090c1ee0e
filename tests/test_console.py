"""Console output on terminals and pipes."""

from __future__ import annotations

import io
import time

import pytest

from esrgan.console import Console

CLEAR = "\r\x1b[2K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_only_the_lines_to_keep() -> None:
    stream = io.StringIO()
    console = Console(stream)
    console.update("reading 1 of 2", keep=False)
    console.update("step 1", keep=True)
    console.print("done")
    console.clear()
    assert stream.getvalue() == "step 1\ndone\n"


def test_a_terminal_line_is_rewritten_and_cut_to_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    stream = Terminal()
    console = Console(stream)
    console.update("reading 1 of 2", keep=False)
    console.update("step 1", keep=True)
    assert stream.getvalue() == f"{CLEAR}reading 1 o{CLEAR}step 1"
    console.print("a line that stays, however long")
    assert stream.getvalue().endswith(f"step 1{CLEAR}a line that stays, however long\n")
    console.print("the next")
    console.clear()
    assert stream.getvalue().endswith("however long\nthe next\n")


def test_an_unfinished_live_line_is_erased_at_the_end() -> None:
    stream = Terminal()
    console = Console(stream)
    console.update("step 1", keep=True)
    console.clear()
    console.clear()
    assert stream.getvalue() == f"{CLEAR}step 1{CLEAR}"


def test_progress_is_more_frequent_on_terminals_than_in_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    terminal, pipe = Console(Terminal()), Console(io.StringIO())
    assert (terminal.is_update_due(), pipe.is_update_due()) == (True, False)
    for console in (terminal, pipe):
        console.update("step 1", keep=True)
    assert (terminal.is_update_due(), pipe.is_update_due()) == (False, False)
    now[0] += 0.6
    assert (terminal.is_update_due(), pipe.is_update_due()) == (True, False)
    now[0] += 60
    assert (terminal.is_update_due(), pipe.is_update_due()) == (True, True)
