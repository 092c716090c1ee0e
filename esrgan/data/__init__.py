"""Training data: find image pairs, decode them once, cut and transform patches."""

from esrgan.data.cache import CachedPair, prepare
from esrgan.data.datasets import ImagePair, Source, find_pairs, load_pair, search_pairs
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
