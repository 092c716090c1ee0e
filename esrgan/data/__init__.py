"""Training data: find image pairs, decode them into a cache, and cut and transform patches."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from esrgan.data.cache import CachedPair, cache_pairs
from esrgan.data.datasets import DatasetSpec, Folders, find_pairs, find_pairs_and_problems, load_pair
from esrgan.data.pairing import ImagePair

if TYPE_CHECKING:
    from esrgan.data.patches import PatchDataset, load_batches, read_cached_pair

__all__ = [
    "CachedPair",
    "DatasetSpec",
    "Folders",
    "ImagePair",
    "PatchDataset",
    "cache_pairs",
    "find_pairs",
    "find_pairs_and_problems",
    "load_batches",
    "load_pair",
    "read_cached_pair",
]


def __getattr__(name: str) -> Any:
    """Import names that need PyTorch on first use, because ``esrgan prepare`` and its workers do without it."""
    if name in ("PatchDataset", "load_batches", "read_cached_pair"):
        return getattr(importlib.import_module("esrgan.data.patches"), name)
    raise AttributeError(f"module 'esrgan.data' has no attribute {name!r}")
