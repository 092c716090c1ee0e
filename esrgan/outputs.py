"""Whose an existing file is: an output of an earlier command, which a new one replaces, or a file of the user."""

from __future__ import annotations

from pathlib import Path

from esrgan.errors import EsrganError, Problem
from esrgan.paths import describe_path

SOFTWARE = "esrgan test"  # stored in each PNG file that an evaluation writes
PREPARE_SOFTWARE = "esrgan prepare"  # stored in LR images, tiles, their contact sheet, and previews of degradations
MARKDOWN_MARK = f"<!-- {SOFTWARE} -->"  # the first line of report.md
HTML_MARK = f'<meta name="generator" content="{SOFTWARE}">'
_HEAD = 4096  # bytes of a file that tell what it is
_MARKS = (  # how outputs begin, and what else their heads contain
    (b"\x89PNG\r\n", f"tEXtSoftware\0{SOFTWARE}".encode()),
    (b"\x89PNG\r\n", f"tEXtSoftware\0{PREPARE_SOFTWARE}".encode()),
    (MARKDOWN_MARK.encode(), b""),
    (b"<!DOCTYPE html>", HTML_MARK.encode()),
    (b"dataset,image,method,", b""),
    (b"tile,image,left,top,", b""),
    (b'{\n "', b'": {\n  "of": {\n'),  # JSON
)


def check_replaceable(path: Path, remedy: str = "move it, or choose another output") -> None:
    """Check that an output may be written to a path: there is no file, an empty one, or an earlier output.

    Raises:
        EsrganError: If there is a file of the user.
    """
    if describe_path(path) == "a file" and path.stat().st_size and not is_output(path):
        what = "exists and is not an output of an earlier run"
        raise EsrganError(Problem.failure(path, what, remedy))


def is_output(path: Path) -> bool:
    """Return whether an earlier evaluation or preparation has written a file."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:  # nobody can tell what it is
        return False
    return any(head.startswith(start) and mark in head for start, mark in _MARKS)
