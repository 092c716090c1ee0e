"""Messages for invalid values: pydantic finds them, and the JSON schema describes what was expected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from typing import Any

from pydantic import ValidationError

from esrgan.config.json_parser import KeyPath, format_path, format_value
from esrgan.config.schema import Config, json_schema

_SchemaNode = dict[str, Any]  # a part of the JSON schema
_schema = cache(json_schema)

_TYPE_NAMES = {
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "a non-empty string",
}
_BOUNDS = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def explain_error(keys: KeyPath, kind: str, value: object) -> tuple[str, str, str]:
    """Explain a validation error of pydantic.

    Args:
        keys: Path of keys and indices to the value in the file.
        kind: Type of the error, such as ``extra_forbidden``.
        value: The value in the file.

    Returns:
        What was expected, what was found, and what to do.
    """
    if kind == "extra_forbidden":
        return "a known key", format_value(keys[-1]), _suggest_keys(keys)
    if kind == "string_unicode":
        return "well-formed Unicode", format_value(value), r"delete the unpaired \ud... escape"
    if kind == "string_pattern_mismatch":
        remedy = "in convB_I, the block B is 1 to 5 and the index I is 1 to 4"
        return "a layer name such as conv5_4 or relu5_4", format_value(value), remedy
    if kind == "missing" and isinstance(value, dict):
        return _describe(_schema_node(keys)), "nothing", "add this key"
    return _describe(_schema_node(keys)), format_value(value), _remedy(keys, value)


def _alternatives(node: _SchemaNode) -> list[_SchemaNode]:
    """Return the alternatives of a schema node, with references resolved."""
    if "$ref" in node:
        node = _schema()["$defs"][node["$ref"].rpartition("/")[2]]
    alternatives = node.get("anyOf", node.get("oneOf"))
    return [option for each in alternatives for option in _alternatives(each)] if alternatives else [node]


def _schema_node(keys: KeyPath) -> _SchemaNode:
    """Return the schema of the value at ``keys``."""
    node = _schema()
    for key in keys:
        node = next(child for option in _alternatives(node) if (child := _child(option, key)))
    return node


def _child(option: _SchemaNode, key: str | int) -> Any:
    if isinstance(key, int):
        return option.get("items", option.get("prefixItems", [None])[0])
    layers = option.get("patternProperties", {}).values()  # all layers have the same schema
    return option.get("properties", {}).get(key, next(iter(layers), None))


def _describe(node: _SchemaNode) -> str:
    """Describe in words what a schema node accepts."""
    texts = [_describe_option(option) for option in _alternatives(node)]
    # The list comes last, because "each an integer or null" would mean that its items may be null.
    return " or ".join(sorted(texts, key=lambda text: text.startswith("a list")))


def _describe_option(option: _SchemaNode) -> str:
    kind: str = option.get("type", "")
    if "enum" in option:
        return "one of " + ", ".join(map(format_value, option["enum"]))
    if kind == "object":
        return "an object with at least one key" if "minProperties" in option else "an object"
    if kind == "array":
        amount = f"{'' if 'maxItems' in option else 'at least '}{option.get('minItems', 0)}"
        return f"a list of {amount}, each {_describe(_child(option, 0))}"
    bounds = " and ".join(f"{words} {option[bound]}" for bound, words in _BOUNDS.items() if bound in option)
    return f"{_TYPE_NAMES.get(kind, kind)} {bounds}".strip()


def _remedy(keys: KeyPath, value: object) -> str:
    """Suggest what to write: the value with the right type if that makes it valid, else the default."""
    for candidate in _corrections(keys, value):
        nested: Any = candidate
        for key in reversed(keys):
            nested = {key: nested}
        with suppress(ValidationError):
            Config.model_validate(nested)
            return f"write {format_value(candidate)}"
    for end in range(len(keys), 0, -1):
        if "default" in (node := _schema_node(keys[:end])):
            return f"the default of {format_path(keys[:end])} is {format_value(node['default'])}"
    return "remove it"


def _corrections(keys: KeyPath, value: object) -> Iterator[object]:
    if isinstance(value, str):
        choices = [str(choice) for option in _alternatives(_schema_node(keys)) for choice in option.get("enum", [])]
        yield from get_close_matches(value.lower(), choices, 1)
        with suppress(ValueError):
            yield json.loads(value)
    if isinstance(value, float) and value.is_integer():
        yield int(value)
    if value in (0, 1):
        yield bool(value)
    yield [value]
    yield [value, value]


def _suggest_keys(keys: KeyPath) -> str:
    """Suggest the known keys that are most like an unknown one, else list all keys of its section."""
    own, top = _known_keys(keys[:-1]), _known_keys(())
    scores = {}
    for known in (*own, *top, *(key for section in top for key in _known_keys(section))):
        likeness = SequenceMatcher(None, str(keys[-1]), str(known[-1])).ratio()
        # A key of another section must have nearly the same name and yields to a fair match in this section.
        scores[known] = likeness if known[:-1] == keys[:-1] else likeness - 0.35
    best = max(scores.values())
    if best < 0.6:  # difflib's default cutoff
        return f"the known keys here are {', '.join(str(key[-1]) for key in own)}"
    return f"did you mean {' or '.join(f'`{format_path(key)}`' for key, score in scores.items() if score == best)}?"


def _known_keys(keys: KeyPath) -> list[KeyPath]:
    return [(*keys, key) for option in _alternatives(_schema_node(keys)) for key in option.get("properties", {})]
