"""Training data: find image pairs, decode them once, cut and transform patches."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from esrgan.data.cache import CachedPair, prepare
from esrgan.data.datasets import ImagePair, Source, find_pairs, load_pair, search_pairs

if TYPE_CHECKING:
    from esrgan.data.patches import PatchDataset, batches, read_whole

__all__ = [
    "CachedPair",
    "ImagePair",
    "PatchDataset",
    "Source",
    "batches",
    "find_pairs",
    "load_pair",
    "prepare",
    "read_whole",
    "search_pairs",
]


def __getattr__(name: str) -> Any:
    """Load what needs PyTorch when it is first used: ``esrgan prepare`` and its processes do without."""
    if name in ("PatchDataset", "batches", "read_whole"):
        return getattr(importlib.import_module("esrgan.data.patches"), name)
    raise AttributeError(f"module 'esrgan.data' has no attribute {name!r}")
