"""Shared parts of the command lines: the parser, common options, argument types and checks of output paths."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from esrgan.errors import EsrganError
from esrgan.files import expand_user


def make_parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """Return the argument parser of a command, whose help ends with examples."""
    return argparse.ArgumentParser(
        prog=f"esrgan {name}",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add the ``--device`` option, whose value ``select_device`` accepts."""
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto, which prefers a GPU)"
    )


def path(text: str) -> Path:
    """Parse a path, which may begin with ``~``: shells do not replace it in ``--option=~/folder`` or in quotes."""
    return expand_user(text)


def integer(text: str, at_least: int) -> int:
    """Parse an integer that is at least ``at_least``.

    Raises:
        ArgumentTypeError: If it is anything else.
    """
    if not text.isdecimal() or int(text) < at_least:
        raise argparse.ArgumentTypeError(f"expected an integer of at least {at_least}, got {text}")
    return int(text)


def non_negative_int(text: str) -> int:
    """Parse an integer that is at least 0."""
    return integer(text, 0)


def positive_int(text: str) -> int:
    """Parse an integer that is at least 1."""
    return integer(text, 1)


def positive_float(text: str, at_most: float) -> float:
    """Parse a number above 0 and at most ``at_most``.

    Raises:
        ArgumentTypeError: If it is anything else.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= at_most:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and at most {at_most:g}, got {text}")
    return value


def fraction(text: str) -> float:
    """Parse a number from 0 to 1.

    Raises:
        ArgumentTypeError: If it is anything else.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def create_folder(path: Path) -> None:
    """Create a folder for outputs, if it does not exist.

    Raises:
        EsrganError: If it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EsrganError(
            f"{path}: cannot create this folder: {error.strerror}; choose another folder or change the permissions"
        ) from error


def check_overwrite(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Check that output files may be written.

    Raises:
        EsrganError: If a path is a folder, or if it is a file or broken link and ``overwrite`` is false.
    """
    for path in paths:
        if path.is_dir():
            raise EsrganError(f"{path}: is a folder; give the name of a file")
        if os.path.lexists(path) and not overwrite:
            raise EsrganError(f"{path}: already exists; use --overwrite to replace it")
