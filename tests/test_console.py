"""Messages and progress on terminals and in pipes."""

from __future__ import annotations

import io
import logging
import time
from contextlib import suppress

import pytest

from esrgan.console import FIRST, PROGRESS, ConsoleHandler, hold_lines, log, progress, show_messages
from esrgan.text import cut_to_width

CLEAR = "\r\x1b[2K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def attach(monkeypatch: pytest.MonkeyPatch):
    """Return a function that sends the library's messages to a stream."""

    def start(stream: io.StringIO, progress_stream: io.StringIO | None = None) -> ConsoleHandler:
        monkeypatch.setenv("TERM", "xterm")
        handler = ConsoleHandler(stream, progress_stream or stream)
        monkeypatch.setattr(log, "handlers", [handler])
        monkeypatch.setattr(log, "level", PROGRESS)
        log.manager._clear_cache()
        return handler

    return start


def test_a_pipe_gets_only_the_lines_to_keep(attach) -> None:
    stream = io.StringIO()
    handler = attach(stream)
    progress("reading 1 of 2")
    progress("step 1", keep=True)
    log.info("done")
    handler.clear()
    assert stream.getvalue() == "step 1\ndone\n"


def test_a_terminal_line_is_rewritten_and_cut_to_width(attach, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    stream = Terminal()
    handler = attach(stream)
    progress("reading 1 of 2")
    progress("step 1", keep=True)
    assert stream.getvalue() == f"{CLEAR}reading 1 o{CLEAR}step 1"
    log.info("a line that stays, however long")
    assert stream.getvalue().endswith(f"step 1{CLEAR}a line that stays, however long\n")
    log.info("the next")
    handler.clear()
    assert stream.getvalue().endswith("however long\nthe next\n")


def test_an_unfinished_live_line_is_erased_at_the_end(attach) -> None:
    stream = Terminal()
    handler = attach(stream)
    progress("step 1", keep=True)
    handler.clear()
    handler.clear()
    assert stream.getvalue() == f"{CLEAR}step 1{CLEAR}"


def test_progress_is_more_frequent_on_terminals_than_in_pipes(attach, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for stream, expected in ((Terminal(), "a c d"), (io.StringIO(), "d")):
        now[0] = 100.0
        attach(stream)
        for text, seconds in (("a", 0.05), ("b", 0.55), ("c", 60), ("d", 0)):
            progress(text)
            now[0] += seconds
        assert stream.getvalue().replace(CLEAR, " ").split() == expected.split()


def test_held_lines_come_at_the_end_with_the_first_ones_first(attach, capsys) -> None:
    stream = io.StringIO()
    attach(stream)
    with suppress(ValueError), hold_lines():
        log.info("details")
        log.warning("at once")
        log.info("the estimate", extra=FIRST)
        assert stream.getvalue() == ""
        assert capsys.readouterr().err == "warning: at once\n"
        raise ValueError
    assert stream.getvalue() == "the estimate\ndetails\n"


def test_warnings_go_to_standard_error(attach, capsys) -> None:
    stream = Terminal()
    attach(stream)
    progress("step 1")
    log.warning("too small")
    log.error("broken")
    assert stream.getvalue() == f"{CLEAR}step 1{CLEAR}"
    assert capsys.readouterr().err == "warning: too small\nerror: broken\n"


def test_unprintable_characters_of_a_file_name_are_replaced_in_progress(attach) -> None:
    stream = Terminal()
    attach(stream)
    progress("a\x1b[2J\nb")
    assert stream.getvalue() == f"{CLEAR}a?[2J?b"


def test_standard_output_gets_no_passing_progress(attach) -> None:
    """With output to a file, lines to keep go there, and the terminal shows the others."""
    stream, terminal = io.StringIO(), Terminal()
    handler = attach(stream, terminal)
    progress("a 10%")
    progress("a is done", keep=True)
    log.info("total")
    progress("b 10%", keep=False)
    handler.clear()
    assert stream.getvalue() == "a is done\ntotal\n"
    assert terminal.getvalue() == f"{CLEAR}a 10%{CLEAR}"


def test_a_dumb_terminal_gets_plain_lines(attach, monkeypatch) -> None:
    terminal = Terminal()
    attach(terminal)
    monkeypatch.setenv("TERM", "dumb")
    ConsoleHandler(terminal, terminal)._show_progress("step 1", keep=True)
    assert terminal.getvalue() == "step 1\n"


def test_wide_characters_count_twice(attach, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "8")
    terminal = Terminal()
    attach(terminal)
    progress("写真の画像.png")
    assert terminal.getvalue() == f"{CLEAR}写真の"
    assert cut_to_width("e\u0301te\u0301", 3) == "e\u0301te\u0301"


def test_a_closed_stream_is_no_error(attach) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    attach(Closed())
    log.info("one")
    log.info("two")


def test_a_program_that_handles_messages_itself_receives_them(attach, capsys) -> None:
    stream = io.StringIO()
    attach(stream)
    with show_messages():
        log.info("one")
    assert stream.getvalue() == "one\n"
    assert capsys.readouterr().out == ""


def test_messages_are_shown_in_the_block_only(capsys) -> None:
    with show_messages():
        log.info("one")
    log.info("two")
    assert capsys.readouterr().out == "one\n"
    assert log.level == logging.NOTSET


def test_a_closed_error_stream_is_ignored(monkeypatch):
    class Gone(io.StringIO):
        def write(self, _):
            raise OSError("no terminal")

    monkeypatch.setattr("sys.stderr", Gone())
    with show_messages():
        log.warning("nobody reads this")


def test_programs_that_configure_logging_get_records(capsys, monkeypatch):
    root, records = logging.getLogger(), []
    handler = logging.Handler()
    handler.emit = records.append
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(root, "level", logging.WARNING)  # as in notebooks, whose root logger has a handler
    with show_messages():
        log.info("shown")
    assert capsys.readouterr().out == "shown\n"
    assert not records
    monkeypatch.setattr(root, "level", logging.INFO)
    log.manager._clear_cache()
    with show_messages():
        log.info("logged")
    assert capsys.readouterr().out == ""
    assert [record.getMessage() for record in records] == ["logged"]
