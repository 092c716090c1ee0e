"""libvips and pillow-heif, loaded when first needed."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any


def load_vips() -> Any:
    """The module pyvips, quiet: its warnings go to its logger, but not to stderr where logging is not set up."""
    logger = logging.getLogger("pyvips")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return import_module("pyvips")


def load_heif() -> Any | None:
    """The module pillow_heif, or None if it is not installed."""
    try:
        return import_module("pillow_heif")
    except ImportError:
        return None


def describe_vips_error(error: Exception) -> str:
    """What libvips says, on one line: the last cause that it gives, as its buffer may hold older ones."""
    lines = [line.strip() for line in str(getattr(error, "detail", error)).splitlines()]
    causes = [line for line in lines if line and "bad seek" not in line]
    return causes[-1] if causes else "it cannot be read"
