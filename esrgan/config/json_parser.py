"""A JSON parser that records the position of every key and reports duplicate keys, which ``json.loads`` does not."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from esrgan.errors import ConfigError, Problem

KeyPath = tuple[str | int, ...]  # ("training", "train_datasets", 0)

# Matches strings (and whether they are keys), trailing commas, brackets, numbers and words. Other commas are skipped.
_TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*+")(?P<is_key>\s*:)?|(?P<trailing>,(?=\s*[}\]]))|[{}\[\]]|[^\s{}\[\]:,"]+', re.DOTALL
)

_YAML_START = re.compile(r"(?:\s|#.*\n|---.*\n)*[\w-]+:(?:\s|$)")  # a key without quotes, after comments

# The keys are how the rest of the text, or the message of json, may start.
_SYNTAX_REMEDIES = {
    "//": "delete the comment; JSON has no comments",
    "#": "delete the comment; JSON has no comments",
    "'": "use double quotes",
    "True": "write true",
    "False": "write false",
    "None": "write null",
    "Expecting ','": "add a comma before it, or close the bracket",
    "Extra data": "delete everything after the first value",
    "Invalid \\escape": r"write a backslash as \\, or use / in paths",
    "": "check the quotes, commas and brackets here",
}


def format_value(value: object) -> str:
    """Return a value as JSON, on one line of at most 80 printable characters."""
    text = json.dumps(value, ensure_ascii=False)
    text = "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)
    return text if len(text) <= 80 else text[:77] + "..."


def format_path(keys: KeyPath) -> str:
    """Format a path such as ``training.train_datasets[0]``, quoting keys that are not plain words."""
    text = ""
    for key in keys:
        word = key if re.fullmatch(r"[\w$-]{1,60}", str(key)) else format_value(key)
        text += f"[{key}]" if isinstance(key, int) else f".{word}"
    return text.removeprefix(".")


@dataclass
class Diagnostics:
    """The problems of one JSON file, each with its line and column."""

    file_name: str
    text: str = ""
    offsets: dict[KeyPath, int] = field(default_factory=lambda: {(): 0})  # of every key and list item, in characters
    problems: list[tuple[int, Problem]] = field(default_factory=list)  # each with its offset

    def add(self, keys: KeyPath, expected: str, got: str, remedy: str, offset: int | None = None) -> None:
        """Add a problem at ``offset`` or, by default, at the innermost of ``keys`` that occurs in the text."""
        if offset is None:
            offset = next(self.offsets[keys[:n]] for n in range(len(keys), -1, -1) if keys[:n] in self.offsets)
        place = f"{self.file_name}:{self.line_number(offset)}:{offset - self.text.rfind(chr(10), 0, offset)}"
        place += f": {format_path(keys)}" if keys else ""
        self.problems.append((offset, Problem(place, expected, got, remedy)))

    def line_number(self, offset: int) -> int:
        """Return the number of the line that contains ``offset``, counted from 1."""
        return self.text.count("\n", 0, offset) + 1

    def to_error(self) -> ConfigError:
        """Return an error with all problems, in the order of the text."""
        return ConfigError(problem for _, problem in sorted(self.problems, key=lambda pair: pair[0]))

    def fail(self, expected: str, got: str, remedy: str, offset: int = 0) -> NoReturn:
        """Add a problem after which nothing can be checked, and raise ConfigError."""
        self.add((), expected, got, remedy, offset)
        raise self.to_error()


def parse(raw: bytes, diagnostics: Diagnostics) -> Any:
    """Parse a JSON file, and add the positions of its keys and its syntax errors to ``diagnostics``.

    Args:
        raw: The content of the file.
        diagnostics: Receives the positions and the problems.

    Returns:
        The value, as ``json.loads`` returns it.

    Raises:
        ConfigError: If the text cannot be parsed.
    """
    try:
        diagnostics.text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        diagnostics.text = raw[: error.start].decode("utf-8")
        diagnostics.fail(
            "UTF-8 text", f"the byte 0x{raw[error.start]:02x}", "save the file as UTF-8", len(diagnostics.text)
        )
    if diagnostics.text.startswith("\ufeff"):
        diagnostics.text = diagnostics.text[1:]
        diagnostics.add((), "plain UTF-8", "a byte order mark", "save the file as UTF-8 without BOM")
    if not diagnostics.text.strip():
        diagnostics.fail("a JSON object", "an empty file", "write {} for the default run")
    # A trailing comma need not stop the parser: replacing it by a space keeps all offsets.
    text = _TOKEN.sub(lambda token: " " if token["trailing"] else token[0], diagnostics.text)
    try:
        # Integers too large for a float become infinite, which every field rejects with its own message.
        value = json.loads(text, parse_int=lambda digits: (int if len(digits) < 300 else float)(digits))
    except json.JSONDecodeError as error:
        if _YAML_START.match(text):
            remedy = "docs/how_to/migrate.md lists which keys here stand for those of BasicSR and Real-ESRGAN"
            diagnostics.fail("JSON", "YAML, the format of BasicSR and Real-ESRGAN", remedy)
        rest = diagnostics.text[error.pos :].strip().split("\n")[0]
        starts = (start for start in _SYNTAX_REMEDIES if rest.startswith(start) or error.msg.startswith(start))
        diagnostics.fail(
            "JSON", format_value(rest) if rest else "the end of the file", _SYNTAX_REMEDIES[next(starts)], error.pos
        )
    _record_offsets(diagnostics)
    return value


def _record_offsets(diagnostics: Diagnostics) -> None:
    """Record the offset of every key and list item of a valid text, and report duplicate keys and trailing commas."""
    path: list[str | int] = []  # the current key or index in each open bracket
    for token in _TOKEN.finditer(diagnostics.text):
        kind, offset = token[0][0], token.start()
        if token["trailing"]:
            diagnostics.add((), "no comma before a closing bracket", "one", "delete it", offset)
        elif kind in "}]":
            path.pop()
        else:
            if token["is_key"]:
                path[-1] = json.loads(token["string"])
                _report_duplicate((*path,), offset, diagnostics)
            elif path and isinstance(index := path[-1], int):
                path[-1] = index + 1
            diagnostics.offsets.setdefault((*path,), offset)  # a value gets the offset of its key
            if kind == '"' and not token["is_key"] and re.search(r"[\0-\x1f]", text := json.loads(token["string"])):
                expected, remedy = "text without control characters", r"write a backslash as \\, or use / in paths"
                diagnostics.add((*path,), expected, format_value(text), remedy, offset)
            if kind in "{[":
                path.append("" if kind == "{" else -1)


def _report_duplicate(keys: KeyPath, offset: int, diagnostics: Diagnostics) -> None:
    """Report a duplicate key, and forget the offsets of the first one: ``json`` keeps the value of the last."""
    if keys in diagnostics.offsets:
        remedy = f"delete it or the one on line {diagnostics.line_number(diagnostics.offsets[keys])}"
        diagnostics.add(keys, "each key once", "a second one", remedy, offset)
        diagnostics.offsets = {other: at for other, at in diagnostics.offsets.items() if other[: len(keys)] != keys}
