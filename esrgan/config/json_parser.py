"""What json.loads does not say about a JSON text: where every key is, and which keys are there twice."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from esrgan.errors import ConfigError, Problem

KeyPath = tuple[str | int, ...]  # ("training", "train_datasets", 0)

# Strings (and whether they are keys), trailing commas, brackets, and numbers or words. Other commas are left out.
_TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*+")(?P<is_key>\s*:)?|(?P<trailing>,(?=\s*[}\]]))|[{}\[\]]|[^\s{}\[\]:,"]+', re.DOTALL
)

_SYNTAX_REMEDIES = {  # by the start of the rest of the text, or of json's message
    "//": "delete the comment, JSON has none",
    "#": "delete the comment, JSON has none",
    "'": "use double quotes",
    "True": "write true",
    "False": "write false",
    "None": "write null",
    "Expecting ','": "put a comma before it, or close the bracket",
    "Extra data": "delete what follows the first value",
    "Invalid \\escape": r"write a backslash as \\, or use / in paths",
    "": "check the quotes, commas and brackets here",
}


def format_value(value: object) -> str:
    """Return a value as the file would write it, on one short printable line."""
    text = json.dumps(value, ensure_ascii=False)
    text = "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)
    return text if len(text) <= 80 else text[:77] + "..."


def format_path(keys: KeyPath) -> str:
    """Return ``training.train_datasets[0]``; a key that is not a plain word is quoted."""
    text = ""
    for key in keys:
        word = key if re.fullmatch(r"[\w$-]{1,60}", str(key)) else format_value(key)
        text += f"[{key}]" if isinstance(key, int) else f".{word}"
    return text.removeprefix(".")


@dataclass
class Diagnostics:
    """The problems of one JSON file, each placed at its line and column."""

    file_name: str
    text: str = ""
    offsets: dict[KeyPath, int] = field(default_factory=lambda: {(): 0})  # where in the text every key and list item is
    problems: list[tuple[int, Problem]] = field(default_factory=list)  # with their offsets

    def add(self, keys: KeyPath, expected: str, got: str, remedy: str, offset: int | None = None) -> None:
        """Note one problem, at ``offset`` or at the innermost of ``keys`` that is written in the text."""
        if offset is None:
            offset = next(self.offsets[keys[:n]] for n in range(len(keys), -1, -1) if keys[:n] in self.offsets)
        place = f"{self.file_name}:{self.line_number(offset)}:{offset - self.text.rfind(chr(10), 0, offset)}"
        place += f": {format_path(keys)}" if keys else ""
        self.problems.append((offset, Problem(place, expected, got, remedy)))

    def line_number(self, offset: int) -> int:
        """Return the number of the line that ``offset`` is in."""
        return self.text.count("\n", 0, offset) + 1

    def to_error(self) -> ConfigError:
        """Return all problems, in the order of the text."""
        return ConfigError(problem for _, problem in sorted(self.problems, key=lambda pair: pair[0]))

    def fail(self, expected: str, got: str, remedy: str, offset: int = 0) -> NoReturn:
        """Note a problem that leaves nothing more to check, and raise ConfigError."""
        self.add((), expected, got, remedy, offset)
        raise self.to_error()


def parse(raw: bytes, diagnostics: Diagnostics) -> Any:
    """Return the value of a JSON file; what is wrong with its text, and where its keys are, goes to ``diagnostics``.

    Raises:
        ConfigError: Where the text cannot be understood.
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
    # A trailing comma is no reason to stop: a blank in its place keeps every offset.
    text = _TOKEN.sub(lambda token: " " if token["trailing"] else token[0], diagnostics.text)
    try:
        # Longer integers than a float can hold become infinite, which every field refuses with its own words.
        value = json.loads(text, parse_int=lambda digits: (int if len(digits) < 300 else float)(digits))
    except json.JSONDecodeError as error:
        rest = diagnostics.text[error.pos :].strip().split("\n")[0]
        starts = (start for start in _SYNTAX_REMEDIES if rest.startswith(start) or error.msg.startswith(start))
        diagnostics.fail(
            "JSON", format_value(rest) if rest else "the end of the file", _SYNTAX_REMEDIES[next(starts)], error.pos
        )
    _record_offsets(diagnostics)
    return value


def _record_offsets(diagnostics: Diagnostics) -> None:
    """Note where every key and list item of a valid text is, which keys are there twice, and trailing commas."""
    path: list[str | int] = []  # the key or index we are at, in each open bracket
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
            diagnostics.offsets.setdefault((*path,), offset)  # the value of a key is found where the key is
            if kind in "{[":
                path.append("" if kind == "{" else -1)


def _report_duplicate(keys: KeyPath, offset: int, diagnostics: Diagnostics) -> None:
    """Report a key that was there before; json keeps the last one, so that is where its problems are."""
    if keys in diagnostics.offsets:
        remedy = f"delete it or the one in line {diagnostics.line_number(diagnostics.offsets[keys])}"
        diagnostics.add(keys, "each key once", "a second one", remedy, offset)
        diagnostics.offsets = {other: at for other, at in diagnostics.offsets.items() if other[: len(keys)] != keys}
