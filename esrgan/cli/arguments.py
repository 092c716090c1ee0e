"""Arguments that commands share: the style of the parser, common options, types, and checks of output paths."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from esrgan.errors import EsrganError


def make_parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """Make a parser whose help ends with examples."""
    return argparse.ArgumentParser(
        prog=f"esrgan {name}",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto, a GPU if there is one)"
    )


def integer(text: str, at_least: int) -> int:
    """Parse an integer of at least ``at_least``."""
    if not text.isdecimal() or int(text) < at_least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {at_least}, got {text}")
    return int(text)


def non_negative_int(text: str) -> int:
    """Parse an integer of at least 0."""
    return integer(text, 0)


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    return integer(text, 1)


def positive_float(text: str, at_most: float) -> float:
    """Parse a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= at_most:
        raise argparse.ArgumentTypeError(f"expected a number above 0, at most {at_most:g}, got {text}")
    return value


def fraction(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def create_folder(path: Path) -> None:
    """Make a folder for results."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EsrganError(f"{path}: the folder cannot be made: {error.strerror}") from error


def check_overwrite(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse to replace files, and links that lead nowhere, unless that was asked for, and folders even then."""
    for path in paths:
        if path.is_dir():
            raise EsrganError(f"{path}: is a folder; name a file to write")
        if os.path.lexists(path) and not overwrite:
            raise EsrganError(f"{path}: is there already; --overwrite replaces it")
