"""Load libvips and pillow-heif when they are first needed."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any


def load_vips() -> Any:
    """Return the module pyvips; its warnings are not printed to stderr if logging is not configured."""
    logger = logging.getLogger("pyvips")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return import_module("pyvips")


def load_heif() -> Any | None:
    """Return the module pillow_heif, or None if it is not installed."""
    try:
        return import_module("pillow_heif")
    except ImportError:
        return None


def describe_vips_error(error: Exception) -> str:
    """Return the cause of an error from libvips on one line.

    It is the last line that states a cause, because libvips' error buffer may still contain older errors.
    """
    lines = [line.strip() for line in str(getattr(error, "detail", error)).splitlines()]
    causes = [line for line in lines if line and "bad seek" not in line]
    return causes[-1] if causes else "unknown reason"
