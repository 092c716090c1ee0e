"""What json.loads does not say about a JSON text: where every key is, and which keys are there twice."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from esrgan.errors import ConfigError, Problem

Keys = tuple[str | int, ...]  # ("training", "train_datasets", 0)

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


def show(value: object) -> str:
    """Return a value as the file would write it, on one short printable line."""
    text = json.dumps(value, ensure_ascii=False)
    text = "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)
    return text if len(text) <= 80 else text[:77] + "..."


def dotted(keys: Keys) -> str:
    """Return ``training.train_datasets[0]``; a key that is not a plain word is quoted."""
    text = ""
    for key in keys:
        word = key if re.fullmatch(r"[\w$-]{1,60}", str(key)) else show(key)
        text += f"[{key}]" if isinstance(key, int) else f".{word}"
    return text.removeprefix(".")


@dataclass
class Report:
    """The problems of one JSON file, each placed at its line and column."""

    file_name: str
    text: str = ""
    offsets: dict[Keys, int] = field(default_factory=lambda: {(): 0})  # where in the text every key and list item is
    found: list[tuple[int, Problem]] = field(default_factory=list)  # with their offsets

    def add(self, keys: Keys, expected: str, got: str, remedy: str, offset: int | None = None) -> None:
        """Note one problem, at ``offset`` or at the innermost of ``keys`` that is written in the text."""
        if offset is None:
            offset = next(self.offsets[keys[:n]] for n in range(len(keys), -1, -1) if keys[:n] in self.offsets)
        place = f"{self.file_name}:{self.line(offset)}:{offset - self.text.rfind(chr(10), 0, offset)}"
        place += f": {dotted(keys)}" if keys else ""
        self.found.append((offset, Problem(place, expected, got, remedy)))

    def line(self, offset: int) -> int:
        """Return the number of the line that ``offset`` is in."""
        return self.text.count("\n", 0, offset) + 1

    def error(self) -> ConfigError:
        """Return all problems, in the order of the text."""
        return ConfigError(problem for _, problem in sorted(self.found, key=lambda pair: pair[0]))

    def stop(self, expected: str, got: str, remedy: str, offset: int = 0) -> NoReturn:
        """Note a problem that leaves nothing more to check, and raise ConfigError."""
        self.add((), expected, got, remedy, offset)
        raise self.error()


def parse(raw: bytes, report: Report) -> Any:
    """Return the value of a JSON file; what is wrong with its text, and where its keys are, goes to ``report``.

    Raises:
        ConfigError: Where the text cannot be understood.
    """
    try:
        report.text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        report.text = raw[: error.start].decode("utf-8")
        report.stop("UTF-8 text", f"the byte 0x{raw[error.start]:02x}", "save the file as UTF-8", len(report.text))
    if report.text.startswith("\ufeff"):
        report.text = report.text[1:]
        report.add((), "plain UTF-8", "a byte order mark", "save the file as UTF-8 without BOM")
    if not report.text.strip():
        report.stop("a JSON object", "an empty file", "write {} for the default run")
    # A trailing comma is no reason to stop: a blank in its place keeps every offset.
    text = _TOKEN.sub(lambda token: " " if token["trailing"] else token[0], report.text)
    try:
        # Longer integers than a float can hold become infinite, which every field refuses with its own words.
        value = json.loads(text, parse_int=lambda digits: (int if len(digits) < 300 else float)(digits))
    except json.JSONDecodeError as error:
        rest = report.text[error.pos :].strip().split("\n")[0]
        starts = (start for start in _SYNTAX_REMEDIES if rest.startswith(start) or error.msg.startswith(start))
        report.stop("JSON", show(rest) if rest else "the end of the file", _SYNTAX_REMEDIES[next(starts)], error.pos)
    _locate(report)
    return value


def _locate(report: Report) -> None:
    """Note where every key and list item of a valid text is, which keys are there twice, and trailing commas."""
    path: list[str | int] = []  # the key or index we are at, in each open bracket
    for token in _TOKEN.finditer(report.text):
        kind, offset = token[0][0], token.start()
        if token["trailing"]:
            report.add((), "no comma before a closing bracket", "one", "delete it", offset)
        elif kind in "}]":
            path.pop()
        else:
            if token["is_key"]:
                path[-1] = json.loads(token["string"])
                _forget_first((*path,), offset, report)
            elif path and isinstance(index := path[-1], int):
                path[-1] = index + 1
            report.offsets.setdefault((*path,), offset)  # the value of a key is found where the key is
            if kind in "{[":
                path.append("" if kind == "{" else -1)


def _forget_first(keys: Keys, offset: int, report: Report) -> None:
    """Report a key that was there before; json keeps the last one, so that is where its problems are."""
    if keys in report.offsets:
        remedy = f"delete it or the one in line {report.line(report.offsets[keys])}"
        report.add(keys, "each key once", "a second one", remedy, offset)
        report.offsets = {other: at for other, at in report.offsets.items() if other[: len(keys)] != keys}
