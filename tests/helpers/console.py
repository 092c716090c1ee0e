"""Capture the messages and progress of the library."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from esrgan import console


@contextmanager
def captured_messages(interval_s: float = console.PLAIN_INTERVAL_S) -> Iterator[io.StringIO]:
    """Show messages of the block in a stream that is no terminal, with progress lines at an interval in seconds."""
    output = io.StringIO()
    handler = console.ConsoleHandler(output, output)
    console.log.addHandler(handler)
    console.log.setLevel(console.PROGRESS)
    try:
        with mock.patch.object(console, "PLAIN_INTERVAL_S", interval_s):
            yield output
    finally:
        console.log.removeHandler(handler)
        console.log.setLevel("NOTSET")
