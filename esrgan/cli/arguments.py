"""Shared parts of the command lines: the parser, common options, argument types and checks of output paths."""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import override

from esrgan.cli.foreign_options import FOREIGN_OPTIONS
from esrgan.errors import EsrganError, Problem
from esrgan.paths import expand_user
from esrgan.text import did_you_mean, one_line

_MAX_INTEGER = 2**63 - 1
AUTO_PRECISION = "precision of the computation (default: auto, which is fp16 on CUDA and otherwise fp32)"


class Parser(argparse.ArgumentParser):
    """A parser that explains unknown options, those of other programs among them, and prints errors on one line."""

    @override
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; `{self.prog} --help` explains the options\n")

    @override
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else [*args]
        if explanations := dict.fromkeys(self._explain_options(itertools.takewhile(lambda word: word != "--", words))):
            self.exit(2, "".join(f"error: {explanation}\n" for explanation in explanations))
        return super().parse_known_args(words, namespace)

    def _explain_options(self, words: Iterable[str]) -> Iterator[str]:
        """Yield an explanation of each option that this parser does not know."""
        known = self._option_string_actions
        hints = FOREIGN_OPTIONS.get(self.prog.rpartition(" ")[2], {})
        for word in words:
            option = word.partition("=")[0]
            if option in known or not re.match("-[^0-9.]", option):
                continue
            is_short = not option.startswith("--")
            if hint := hints.get(option) or (is_short and option[:2] not in known and hints.get(option[:2])):
                yield f"{option}: {hint}"
            elif not (option[:2] in known if is_short else any(each.startswith(option) for each in known)):
                others = [each for each in known if each.startswith("--")]
                remedy = did_you_mean(option, others, f"`{self.prog} --help` explains the options", prefix="--")
                yield f"{option}: unknown option; {remedy}"


def make_parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """Return the argument parser of a command, whose help ends with examples."""
    return Parser(
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


def add_precision(parser: argparse._ActionsContainer, default: str, text: str) -> None:
    """Add the option ``--precision`` with a default and a help text."""
    parser.add_argument("--precision", choices=["auto", "exact", "fp32", "bf16", "fp16"], default=default, help=text)


def location(text: str) -> str:
    """Check that the text of a path or URI is not empty, as the value of a variable that is not set would be."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got an empty text")
    return text


def path(text: str) -> Path:
    """Parse a path, which may begin with ``~``: shells do not replace it in ``--option=~/folder`` or in quotes."""
    return expand_user(location(text))


def integer(at_least: int, at_most: int = _MAX_INTEGER) -> Callable[[str], int]:
    """Return a function that parses an integer in a range, for ``type`` of an argument."""
    has_limit = at_most != _MAX_INTEGER
    expected = f"an integer from {at_least} to {at_most}" if has_limit else f"an integer of at least {at_least}"

    def parse(text: str) -> int:
        if not text.isdecimal() or len(text) > len(str(at_most)) or not at_least <= int(text) <= at_most:
            raise argparse.ArgumentTypeError(f"expected {expected}, got {one_line(text, 30)}")
        return int(text)

    return parse


def number(expected: str, is_valid: Callable[[float], bool]) -> Callable[[str], float]:
    """Return a function that parses a number with a property, for ``type`` of an argument."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not is_valid(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text}")
        return value

    return parse


def positive_float(at_most: float) -> Callable[[str], float]:
    """Return a function that parses a number above 0 and at most ``at_most``."""
    return number(f"a number above 0 and at most {at_most:g}", lambda value: 0 < value <= at_most)


fraction = number("a number from 0 to 1", lambda value: 0 <= value <= 1)


def add_number(
    parser: argparse._ActionsContainer, *flags: str, at_least: int = 1, at_most: int = _MAX_INTEGER, **settings: Any
) -> None:
    """Add an option whose value N is an integer in a range."""
    parser.add_argument(*flags, type=integer(at_least, at_most), metavar="N", **settings)


def add_path(parser: argparse._ActionsContainer, *flags: str, metavar: str = "FILE", **settings: Any) -> None:
    """Add an option whose value is the path of a file, or of a folder if ``metavar`` is "DIR"."""
    parser.add_argument(*flags, type=path, metavar=metavar, **settings)


def add_data_root(parser: argparse._ActionsContainer) -> None:
    """Add the option ``--data-root``."""
    text = "folder of the named datasets (default: $ESRGAN_DATA or data)"
    add_path(parser, "--data-root", metavar="DIR", help=text)


def check_overwrite(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Check that output files may be written.

    Raises:
        EsrganError: If a path is a folder, or if it is a file or broken link and ``overwrite`` is false.
    """
    for path in paths:
        if path.is_dir():
            raise EsrganError(Problem.failure(path, "is a folder", "give the name of a file"))
        if os.path.lexists(path) and not overwrite:
            raise EsrganError(Problem.failure(path, "already exists", "use --overwrite to replace it"))
