"""Whose an existing file is: an output of an earlier evaluation, which a new one replaces, or a file of the user."""

from __future__ import annotations

from pathlib import Path

from esrgan.errors import EsrganError, Problem
from esrgan.files import describe_path

SOFTWARE = "esrgan test"  # stored in each PNG file that an evaluation writes
# In PNG files, report.md, report.html and JSON.
_MARKS = (f"tEXtSoftware\0{SOFTWARE}".encode(), b"\nconventions: ", b"\n<title>Evaluation of ", b'"conventions": "')
_CSV_MARK = b"dataset,image,method,"


def check_replaceable(path: Path) -> None:
    """Check that an output may be written to a path: there is no file, an empty one, or an earlier output.

    Raises:
        EsrganError: If there is a file that no evaluation has written.
    """
    if describe_path(path) == "a file" and path.stat().st_size and not _is_output(path):
        what = "exists and is not an output of an earlier evaluation"
        raise EsrganError(Problem.failure(path, what, "move it, or choose another output"))


def _is_output(path: Path) -> bool:
    try:
        content = path.read_bytes()
    except OSError:  # nobody can tell what it is
        return False
    return content.startswith(_CSV_MARK) or any(mark in content for mark in _MARKS)
