"""Formatting for messages and reports."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches


def one_line(text: str, limit: int = 80) -> str:
    """Return the first line of untrusted text, with unprintable characters replaced and cut to ``limit`` characters."""
    line = "".join(c if c.isprintable() else "?" for c in text.strip().partition("\n")[0][: limit + 1])
    return f"{line[:limit]}…" if len(line) > limit else line


def printable(text: str) -> str:
    """Return text for display: whitespace becomes spaces, other unprintable characters U+FFFD.

    Unprintable are, for example, characters that reverse the direction of text, and bytes of a file name that are not
    UTF-8, which Python represents as surrogates.
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def cut_to_width(text: str, columns: int) -> str:
    """Return the beginning of a text that fits into the columns of a terminal; some characters take two or none."""
    used = 0
    for i, c in enumerate(text):
        used += 0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        if used > columns:
            return text[:i]
    return text


def find_similar(word: str, choices: Iterable[str], prefix: str = "") -> str | None:
    """Return the choice that is most like a word, whatever their case; None if none is like it.

    Args:
        word: The word that is none of the choices.
        choices: The words that are known.
        prefix: A beginning of words that does not make them alike.
    """

    def normalise(text: str) -> str:
        return text.lower().removeprefix(prefix).replace("_", "-")

    known = {normalise(choice): choice for choice in choices}
    return next((known[found] for found in get_close_matches(normalise(word), known, 1)), None)


def did_you_mean(word: str, choices: Iterable[str], otherwise: str, prefix: str = "") -> str:
    """Return "did you mean x?" for the choice that is most like a word, as a remedy, or another remedy."""
    found = find_similar(word, choices, prefix)
    return otherwise if found is None else f"did you mean {found}?"


def describe_error(error: BaseException) -> str:
    """Return the message of an exception on one line; for a system error, without the file name."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def format_duration(seconds: float) -> str:
    """Format a duration as 3 d 04:05, 4:05:06 or 5:06."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24:02}:{minute:02}"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def format_count(number: int, noun: str) -> str:
    """Format a number with a noun, adding "s" to the noun unless the number is 1: "1 image", "1,200 images"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_size(size: float) -> str:
    """Format a number of bytes in GB, MB or kB (powers of 1000)."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"
