"""Load and validate a configuration file, collecting every problem in it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from esrgan.config.cross_checks import find_conflicts
from esrgan.config.json_parser import Diagnostics, KeyPath, format_value, parse
from esrgan.config.messages import explain_error
from esrgan.config.schema import Config
from esrgan.console import log
from esrgan.errors import ConfigError, Problem
from esrgan.paths import suggest_path

# Keys of the earlier framework (enhanced-srgan) that no longer mean anything, and what replaces them.
_EARLIER_KEYS = {"network_interpolation_alpha": "esrgan interpolate --alpha blends models"}


def load(path: str | Path) -> Config:
    """Load and validate a configuration file.

    Args:
        path: A JSON file in UTF-8. Keys that it does not contain have their defaults.

    Returns:
        The configuration.

    Raises:
        ConfigError: If anything is wrong with the file. It contains all problems, in the order of the lines.

    Example:
        >>> from pathlib import Path
        >>> from esrgan import load_config
        >>> _ = Path("small.json").write_text('{"batch_size": 8, "generator": {"num_basic_blocks": 6}}')
        >>> config = load_config("small.json")
        >>> config.batch_size, config.generator.num_basic_blocks, config.training.g_lr
        (8, 6, 0.0001)
    """
    try:
        raw = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a ValueError is raised for a null character in the path
        is_missing = isinstance(error, FileNotFoundError)
        got = "no file of that name" if is_missing else f"an error ({getattr(error, 'strerror', error)})"
        remedy = suggest_path(Path(path), "check the path; the repository has examples in configs/")
        raise ConfigError(Problem(str(path), "a JSON file", got, remedy)) from None
    if Path(path).suffix.lower() in (".yml", ".yaml"):
        remedy = "docs/how_to/migrate.md has a table of the keys of BasicSR and Real-ESRGAN"
        raise ConfigError(Problem(str(path), "a JSON file", "a YAML file", remedy))
    diagnostics = Diagnostics(str(path))
    try:
        data = parse(raw, diagnostics)
        if not isinstance(data, dict):
            diagnostics.fail("a JSON object", format_value(data), "write {} for the default run")
        for key in [key for key in _EARLIER_KEYS if key in data]:
            log.info(f"{path}: ignoring {key}, a key of the earlier framework: {_EARLIER_KEYS[key]}")
            del data[key]
        config = _validate(data, diagnostics)
    except RecursionError:
        diagnostics.fail("a JSON object of sections", "hundreds of nested brackets", "check the brackets")
    if diagnostics.problems:
        raise diagnostics.to_error()
    return config


def _validate(data: dict[str, Any], diagnostics: Diagnostics) -> Config:
    """Return the configuration; add invalid values to ``diagnostics`` and use their defaults instead."""
    wrong: set[KeyPath] = set()  # top-level keys, and keys of sections
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        # A dictionary, because pydantic reports a list that lacks two items twice.
        mistakes = {(_key_path(item), item["type"]): item["input"] for item in error.errors()}
        for (keys, kind), value in mistakes.items():
            if kind != "too_short" or not value:  # pydantic also calls a list too short if its items are invalid
                diagnostics.add(keys, *explain_error(keys, kind, value))
        wrong = {keys[:2] for keys, _ in mistakes}
        if () in wrong:
            raise diagnostics.to_error() from None
        config = Config.model_validate(_drop_keys(wrong, data))
    for involved, expected, got, remedy in find_conflicts(config):
        paths = [tuple(key.split(".")) for key in involved]
        # The intended value of an invalid key is unknown, so conflicts with its default are not reported.
        if wrong.isdisjoint(path[:n] for path in paths for n in (1, 2)):
            diagnostics.add(paths[0], expected, got, remedy)
    return config


def _key_path(item: Any) -> KeyPath:
    """Return the path in the file of one of pydantic's errors."""
    # Pydantic adds the tag of an alternative after its index, and "[key]" if the name of a layer is invalid.
    keys = tuple(key for before, key in pairwise(("", *item["loc"])) if not isinstance(before, int))
    if keys[:2] == ("perceptual_loss", "layer_weights"):
        keys = keys[:3]
    # A missing item is a mistake in its list.
    return keys[:-1] if item["type"] == "missing" and isinstance(keys[-1], int) else keys


def _drop_keys(wrong: set[KeyPath], data: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {inner: value[inner] for inner in value if (key, inner) not in wrong} if isinstance(value, dict) else value
        for key, value in data.items()
        if (key,) not in wrong
    }


def describe_changes(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """List the differences between two configurations, each as ``key: before → after``."""
    changes = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            changes += describe_changes(old, new, f"{prefix}{key}.")
        elif old != new:
            changes.append(f"{prefix}{key}: {_show(old)} → {_show(new)}")
    return changes


def _show(value: Any) -> Any:
    return "null" if value is None else value
