"""The images that ``esrgan prepare --check`` checks: those of datasets, folders and configurations."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from esrgan import images
from esrgan.cli import process
from esrgan.config import Config, load
from esrgan.data.check import ImageSet
from esrgan.data.datasets import DATASET_NAMES, Split, common_channels, find_pairs_and_problems, list_splits
from esrgan.data.pairing import ImagePair
from esrgan.errors import ImageError, Problem

_NAMES: dict[Split, str] = {"train": "training", "val": "validation"}


def list_sets(names: Sequence[str], scale: int, data_root: Path) -> tuple[list[ImageSet], list[str | Problem]]:
    """Return the images of datasets, folders and configurations, and the problems that prevent the use of datasets.

    Args:
        names: Names of datasets, folders, and configuration files, whose stages are checked together.
        scale: Scale factor of datasets and folders.
        data_root: Folder that holds the named datasets.
    """
    sets: list[ImageSet] = []
    problems: list[str | Problem] = []
    for name in names:
        made, found = _read_config(name) if name.endswith(".json") else _find_dataset(name, scale, data_root)
        sets += made
        problems += found
    return sets, list(dict.fromkeys(problems))


def _read_config(path: str) -> tuple[list[ImageSet], list[str | Problem]]:
    config = load(path)
    with process.importing():
        from esrgan.training.inputs import find_images
        from esrgan.training.run_files import STAGES
    chosen: dict[str, dict[ImagePair, tuple[int, int]]] = {}
    problems: list[str | Problem] = []
    for _, split, pairs, (height, width), found in find_images(config, STAGES):
        problems += found
        own = chosen.setdefault(_NAMES[split], {})
        for pair in pairs:
            before = own.get(pair, (0, 0))
            own[pair] = max(before[0], height), max(before[1], width)
    return [
        ImageSet(name, pairs, int(config.scale_factor), int(config.img_channels)) for name, pairs in chosen.items()
    ], problems


def _find_dataset(name: str, scale: int, data_root: Path) -> tuple[list[ImageSet], list[str | Problem]]:
    """Return the images of a named dataset by split, or those of a folder, which count as training images."""
    sets: list[ImageSet] = []
    problems: list[str | Problem] = []
    patch = Config().training.cr_patch_size or (scale, scale)
    for split in list_splits(name):
        pairs, found = find_pairs_and_problems([name], split, scale, data_root)
        problems += found
        channels = set()
        for pair in pairs:
            with suppress(ImageError):  # reported when the image is decoded
                channels.add(images.read_shape(pair.high)[2])
        min_size = patch if split == "train" else (scale, scale)
        group = _NAMES[split] if name in DATASET_NAMES else name
        sets.append(ImageSet(group, dict.fromkeys(pairs, min_size), scale, common_channels(channels)))
    return sets, problems
