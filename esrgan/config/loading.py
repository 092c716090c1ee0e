"""From a file to a checked configuration, or to the list of all that is wrong with the file."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from esrgan.config.cross_checks import find_conflicts
from esrgan.config.json_parser import Diagnostics, KeyPath, format_value, parse
from esrgan.config.messages import explain_error
from esrgan.config.schema import Config
from esrgan.errors import ConfigError, Problem


def load(path: str | Path) -> Config:
    """Read and check a configuration file.

    Args:
        path: A JSON file in UTF-8.

    Raises:
        ConfigError: With everything that is wrong with the file, in the order of its lines.
    """
    try:
        raw = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        is_missing = isinstance(error, FileNotFoundError)
        got = "nothing of that name" if is_missing else f"an error ({getattr(error, 'strerror', error)})"
        remedy = "check the path; the shipped ones are in the repository's configs/"
        raise ConfigError(Problem(str(path), "a JSON file", got, remedy)) from None
    diagnostics = Diagnostics(str(path))
    try:
        data = parse(raw, diagnostics)
        if not isinstance(data, dict):
            diagnostics.fail("a JSON object", format_value(data), "write {} for the default run")
        config = _validate(data, diagnostics)
    except RecursionError:
        diagnostics.fail("a JSON object of sections", "hundreds of brackets inside each other", "check the brackets")
    if diagnostics.problems:
        raise diagnostics.to_error()
    return config


def _validate(data: dict[str, Any], diagnostics: Diagnostics) -> Config:
    """Return the configuration; values that are wrong go to ``diagnostics`` and are defaults in what is returned."""
    wrong: set[KeyPath] = set()  # top-level keys, and keys of sections
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        # A dictionary, because a list that lacks two items is called wrong twice.
        mistakes = {(_key_path(item), item["type"]): item["input"] for item in error.errors()}
        for (keys, kind), value in mistakes.items():
            if kind != "too_short" or not value:  # a list is also called too short because its items are wrong
                diagnostics.add(keys, *explain_error(keys, kind, value))
        wrong = {keys[:2] for keys, _ in mistakes}
        if () in wrong:
            raise diagnostics.to_error() from None
        config = Config.model_validate(_drop_keys(wrong, data))
    for involved, expected, got, remedy in find_conflicts(config):
        paths = [tuple(key.split(".")) for key in involved]
        # What a wrong value was meant to be is unknown, so nothing is concluded from its default.
        if wrong.isdisjoint(path[:n] for path in paths for n in (1, 2)):
            diagnostics.add(paths[0], expected, got, remedy)
    return config


def _key_path(item: Any) -> KeyPath:
    """Return where one of pydantic's errors is in the file."""
    # Pydantic adds the tag of an alternative behind its index, and "[key]" where a layer's name is wrong.
    keys = tuple(key for before, key in pairwise(("", *item["loc"])) if not isinstance(before, int))
    if keys[:2] == ("perceptual_loss", "layer_weights"):
        keys = keys[:3]
    # Items that are missing are a mistake of their list.
    return keys[:-1] if item["type"] == "missing" and isinstance(keys[-1], int) else keys


def _drop_keys(wrong: set[KeyPath], data: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {inner: value[inner] for inner in value if (key, inner) not in wrong} if isinstance(value, dict) else value
        for key, value in data.items()
        if (key,) not in wrong
    }


def describe_changes(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """List what differs between two configurations, as ``key: before → after``."""
    changes = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            changes += describe_changes(old, new, f"{prefix}{key}.")
        elif old != new:
            changes.append(f"{prefix}{key}: {old} → {new}")
    return changes
