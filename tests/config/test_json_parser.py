# ruff: noqa: E501  (each message is on one line)
"""Syntax errors and other mistakes in the text of a JSON file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.config_files import assert_only_problem

# For each mistake, the content of a file and its message.
MISTAKES = {
    "empty": ("", "x.json:1:1: expected a JSON object, got an empty file; write {} for the default run"),
    "blank": (" \n", "x.json:1:1: expected a JSON object, got an empty file; write {} for the default run"),
    "list": ("[1]", "x.json:1:1: expected a JSON object, got [1]; write {} for the default run"),
    "not JSON": ("seed = 3", "x.json:1:1: expected JSON, got \"seed = 3\"; check the quotes, commas and brackets here"),
    "cut off": ('{"seed": ', "x.json:1:10: expected JSON, got the end of the file; check the quotes, commas and brackets here"),
    "comment": ('{\n  // x\n  "seed": 1}', 'x.json:2:3: expected JSON, got "// x"; delete the comment; JSON has no comments'),
    "quotes": ("{'seed': 1}", "x.json:1:2: expected JSON, got \"'seed': 1}\"; use double quotes"),
    "Python": ('{"seed": None}', 'x.json:1:10: expected JSON, got "None}"; write null'),
    "no comma": (
        '{"seed": 1\n  "batch_size": 2}',
        'x.json:2:3: expected JSON, got "\\"batch_size\\": 2}"; add a comma before it, or close the bracket',
    ),
    "two values": ("{} {}", 'x.json:1:4: expected JSON, got "{}"; delete everything after the first value'),
    "backslash": (
        '{"data_root": "C:\\data"}',
        'x.json:1:18: expected JSON, got "\\\\data\\"}"; write a backslash as \\\\, or use / in paths',
    ),
    "backslash that is an escape": (
        '{"pretraining": {"train_datasets": ["photos\\train\\new"]}}',
        'x.json:1:37: pretraining.train_datasets[0]: expected text without control characters, got "photos\\train\\new"; write a backslash as \\\\, or use / in paths',
    ),
    "YAML": (
        "# general settings\nname: run\nscale: 4\ndatasets:\n  train:\n    gt_size: 128\n",
        "x.json:1:1: expected JSON, got YAML, the format of BasicSR and Real-ESRGAN; docs/how_to/migrate.md lists which keys here stand for those of BasicSR and Real-ESRGAN",
    ),
    "trailing comma": ('{"seed": 1,\n}', "x.json:1:11: expected no comma before a closing bracket, got one; delete it"),
    "BOM": (b"\xef\xbb\xbf{}", "x.json:1:1: expected plain UTF-8, got a byte order mark; save the file as UTF-8 without BOM"),
    "Latin-1": (b'{\n "data_root": "\xe9"}', "x.json:2:16: expected UTF-8 text, got the byte 0xe9; save the file as UTF-8"),
    "Latin-1 after UTF-8": (
        b'{\n "data_root": "\xc3\xa9\xe9"}',
        "x.json:2:17: expected UTF-8 text, got the byte 0xe9; save the file as UTF-8",
    ),
    "UTF-16": ("{}".encode("utf-16"), "x.json:1:1: expected UTF-8 text, got the byte 0xff; save the file as UTF-8"),
    "too deep": (
        "[" * 100000,
        "x.json:1:1: expected a JSON object of sections, got hundreds of nested brackets; check the brackets",
    ),
    "duplicate": (
        '{"seed": 1,\n "seed": 2}',
        "x.json:2:2: seed: expected each key once, got a second one; delete it or the one on line 1",
    ),
    "duplicate section": (
        '{"logging": {"interval": 1},\n "logging": {"interval": 2}}',
        "x.json:2:2: logging: expected each key once, got a second one; delete it or the one on line 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_in_the_text_are_explained(content: str | bytes, message: str, tmp_path: Path) -> None:
    assert_only_problem(content, message, tmp_path)
