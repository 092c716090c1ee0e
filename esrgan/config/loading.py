"""From a file to a checked configuration, or to the list of all that is wrong with the file."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from esrgan.config.contradictions import contradictions
from esrgan.config.fields import Config
from esrgan.config.json_text import Keys, Report, parse, show
from esrgan.config.wording import explain
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
    report = Report(str(path))
    try:
        data = parse(raw, report)
        if not isinstance(data, dict):
            report.stop("a JSON object", show(data), "write {} for the default run")
        config = _check(data, report)
    except RecursionError:
        report.stop("a JSON object of sections", "hundreds of brackets inside each other", "check the brackets")
    if report.found:
        raise report.error()
    return config


def _check(data: dict[str, Any], report: Report) -> Config:
    """Return the configuration; values that are wrong go to ``report`` and are defaults in what is returned."""
    wrong: set[Keys] = set()  # top-level keys, and keys of sections
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        # A dictionary, because a list that lacks two items is called wrong twice.
        mistakes = {(_keys(item), item["type"]): item["input"] for item in error.errors()}
        for (keys, kind), value in mistakes.items():
            if kind != "too_short" or not value:  # a list is also called too short because its items are wrong
                report.add(keys, *explain(keys, kind, value))
        wrong = {keys[:2] for keys, _ in mistakes}
        if () in wrong:
            raise report.error() from None
        config = Config.model_validate(_without(wrong, data))
    for involved, expected, got, remedy in contradictions(config):
        paths = [tuple(key.split(".")) for key in involved]
        # What a wrong value was meant to be is unknown, so nothing is concluded from its default.
        if wrong.isdisjoint(path[:n] for path in paths for n in (1, 2)):
            report.add(paths[0], expected, got, remedy)
    return config


def _keys(item: Any) -> Keys:
    """Return where one of pydantic's errors is in the file."""
    # Pydantic adds the tag of an alternative behind its index, and "[key]" where a layer's name is wrong.
    keys = tuple(key for before, key in pairwise(("", *item["loc"])) if not isinstance(before, int))
    if keys[:2] == ("perceptual_loss", "layer_weights"):
        keys = keys[:3]
    # Items that are missing are a mistake of their list.
    return keys[:-1] if item["type"] == "missing" and isinstance(keys[-1], int) else keys


def _without(wrong: set[Keys], data: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {inner: value[inner] for inner in value if (key, inner) not in wrong} if isinstance(value, dict) else value
        for key, value in data.items()
        if (key,) not in wrong
    }


def differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """List what differs between two configurations, as ``key: before → after``."""
    changes = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            changes += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            changes.append(f"{prefix}{key}: {old} → {new}")
    return changes
