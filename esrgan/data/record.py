"""The record in a folder of prepared images: what they were made from, so that a later run makes only what is missing.

Each line is the key of an image and what is known of it, in JSON. A line is added when a piece of work is finished.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

Key = tuple[str, int, int, int]


def file_key(path: Path, name: str | None = None) -> Key:
    """Return the identity of a file: its name (default: the real path), size, modification and change time.

    Renaming sets the change time, while images in an archive may all have the same size and modification time.

    Raises:
        OSError: If the file cannot be found.
    """
    status = path.stat()
    return name or os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns


def add_line(record: BinaryIO, key: Key, *values: object) -> None:
    """Add a line to a record that is open for appending."""
    record.write(b"\n" + json.dumps([key, *values]).encode())  # a line that an interruption has cut off is ended by it
    record.flush()


def read_lines(path: Path) -> Iterator[tuple[Key, list[Any]]]:
    """Yield key and values of each line, without empty and damaged lines."""
    for line in path.read_text("ascii", "replace").splitlines():
        try:
            (name, size, modified, changed), *values = json.loads(line)
            yield (str(name), int(size), int(modified), int(changed)), values
        except (ValueError, TypeError, OverflowError):  # an empty line, a damaged one, or one of an earlier version
            continue
