"""Find the image pairs of datasets: named ones, any folder, or a pair of folders."""

from __future__ import annotations

import importlib.resources
import os
import shlex
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from esrgan import extras, images, resize
from esrgan.errors import DatasetError, Problem

Split = Literal["train", "val"]
DatasetSpec = str | tuple[str, str | None]  # a name or folder of HR images, or (HR folder, LR folder or None)


@dataclass(frozen=True)
class ImagePair:
    """An HR image and its LR image; ``low`` is None if the LR image is to be made by bicubic downscaling."""

    high: Path
    low: Path | None


@dataclass(frozen=True)
class _NamedDataset:
    """Folders of a published dataset below the data root, as its archives unpack."""

    high: dict[Split, str]
    low: dict[Split, str]  # with {scale} as a placeholder
    low_scales: tuple[int, ...]


_NAMED_DATASETS = {
    "div2k": _NamedDataset(
        high={"train": "DIV2K_train_HR", "val": "DIV2K_valid_HR"},
        low={"train": "DIV2K_train_LR_bicubic/X{scale}", "val": "DIV2K_valid_LR_bicubic/X{scale}"},
        low_scales=(2, 4),
    ),
    "bsds500": _NamedDataset(
        high={"train": "BSR/BSDS500/data/images/train", "val": "BSR/BSDS500/data/images/val"},
        low={},
        low_scales=(),
    ),
    "set5": _NamedDataset(
        high={"train": "Set5/GTmod12", "val": "Set5/GTmod12"},
        low={"train": "Set5/LRbicx{scale}", "val": "Set5/LRbicx{scale}"},
        low_scales=(2, 4),
    ),
    "set14": _NamedDataset(
        high={"train": "Set14/GTmod12", "val": "Set14/GTmod12"},
        low={"train": "Set14/LRbicx{scale}", "val": "Set14/LRbicx{scale}"},
        low_scales=(2, 4),
    ),
    "flickr2k": _NamedDataset(
        high={"train": "Flickr2K/Flickr2K_HR"},
        low={"train": "Flickr2K/Flickr2K_LR_bicubic/X{scale}"},
        low_scales=(2, 4),
    ),
}

# Colour photographs in the scikit-image wheel: enough to try training without a download, too few for a useful model.
_SKIMAGE_FILES: dict[Split, tuple[str, ...]] = {
    "train": ("astronaut.png", "ihc.png", "motorcycle_left.png", "rocket.jpg"),
    "val": ("chelsea.png", "coffee.png"),
}
DATASET_NAMES = (*_NAMED_DATASETS, "skimage")


def describe_path(path: Path) -> str:
    """Describe what exists at a path: "a folder", "a file", "nothing", or why this cannot be determined."""
    try:
        return "a folder" if stat.S_ISDIR(path.stat().st_mode) else "a file"
    except (FileNotFoundError, ValueError):  # ValueError: no file can have this name
        return "nothing"
    except OSError as error:
        return f"a path that cannot be read: {error.strerror}"


def is_missing(name: str, data_root: Path) -> bool:
    """Return whether a name is that of a published dataset, none of whose HR folders exist."""
    return name in _NAMED_DATASETS and all(
        describe_path(data_root / folder) == "nothing" for folder in _NAMED_DATASETS[name].high.values()
    )


def default_data_root() -> Path:
    """Return the folder that holds the named datasets: ``$ESRGAN_DATA`` if set, else ``data``."""
    return Path(os.environ.get("ESRGAN_DATA") or "data")


def find_pairs(datasets: Sequence[DatasetSpec], split: Split, scale: int, data_root: Path) -> list[ImagePair]:
    """Return the image pairs of several datasets as one list.

    Args:
        datasets: Names among ``DATASET_NAMES``, folders, or pairs of folders.
        split: Part of a named dataset: "train" or "val".
        scale: Scale factor, which selects the LR folder of a named dataset.
        data_root: Folder that holds the named datasets.

    Returns:
        The pairs, dataset by dataset.

    Raises:
        DatasetError: If folders are missing or empty, or images have no partner. All of them are listed.
    """
    pairs, problems = find_pairs_and_problems(datasets, split, scale, data_root)
    if problems:
        raise DatasetError(problems)
    return pairs


def find_pairs_and_problems(
    datasets: Sequence[DatasetSpec], split: Split, scale: int, data_root: Path
) -> tuple[list[ImagePair], list[Problem]]:
    """Return the pairs that ``find_pairs`` finds and the problems it would raise, so that callers can add their own."""
    pairs: list[ImagePair] = []
    problems: list[Problem] = []
    for spec in datasets:
        folders = _resolve_folders(spec, split, scale, data_root)
        if isinstance(folders, list):
            problems += folders
        else:
            _match_pairs(*folders, scale, pairs, problems)
    return pairs, problems


def load_pair(pair: ImagePair, scale: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode a pair, and make the LR image if the pair has none.

    The HR image is cropped at the bottom and right to a multiple of the scale. A missing LR image is made with
    MATLAB's antialiased bicubic, which all published ×2 to ×4 results assume (ESRGAN §4.1).

    Returns:
        LR (H, W, C) and HR (scale·H, scale·W, C), uint8.

    Raises:
        EsrganError: If a file is unreadable or has another number of channels, or the sizes do not match.
    """
    image = images.read_pixels(pair.high, channels)
    height, width = (size // scale * scale for size in image.shape[:2])
    if min(height, width) == 0:
        expected = f"at least {scale}×{scale} px"
        raise DatasetError(Problem(str(pair.high), expected, _format_dimensions(image), "remove it"))
    high = image[:height, :width]
    if pair.low is None:
        return resize.bicubic(high, Fraction(1, scale)), high
    low = images.read_pixels(pair.low, channels)
    if low.shape[:2] != (height // scale, width // scale):
        expected = f"{width // scale}×{height // scale} px, 1/{scale} of {pair.high}"
        remedy = "recreate it, or omit the LR folder to have LR images made"
        raise DatasetError(Problem(str(pair.low), expected, _format_dimensions(low), remedy))
    return low, high


def _format_dimensions(image: np.ndarray) -> str:
    return f"{image.shape[1]}×{image.shape[0]} px"


def _resolve_folders(
    spec: DatasetSpec, split: Split, scale: int, data_root: Path
) -> tuple[list[Path] | Path, Path | None] | list[Problem]:
    """Return the HR images (or their folder) and the LR folder of a dataset, or the problems that prevent it."""
    if spec == "skimage":
        if "skimage" in extras.missing_modules("train"):
            return [Problem("dataset skimage", "the scikit-image package", "none", "pip install 'esrgan[train]'")]
        folder = Path(str(importlib.resources.files("skimage"))) / "data"
        return [folder / name for name in _SKIMAGE_FILES[split]], None
    if isinstance(spec, str) and spec in _NAMED_DATASETS:
        named = _NAMED_DATASETS[spec]
        if split not in named.high:
            remedy = "validate on div2k or on your own folder"
            return [Problem(f"dataset {spec}", "validation images", "only training images", remedy)]
        high = data_root / named.high[split]
        low = data_root / named.low[split].format(scale=scale) if scale in named.low_scales else None
        found = {folder: describe_path(folder) for folder in (high, low) if folder}
        if found[high] == "nothing":
            remedy = (
                f"download it with: {prepare_command(spec, scale, data_root)} (or set data_root or ESRGAN_DATA to the "
                f"folder that contains it; the dataset skimage needs no download)"
            )
            return [Problem(f"dataset {spec}", f"the folder {high}", found[high], remedy)]
        for folder, got in found.items():
            if got not in ("a folder", "nothing"):
                remedy = "fix this, or set data_root or ESRGAN_DATA to another folder"
                return [Problem(f"dataset {spec}", f"the folder {folder}", got, remedy)]
        return high, low if low and found[low] == "a folder" else None
    high_name, low_name = (spec, None) if isinstance(spec, str) else spec
    kinds = {name: describe_path(Path(name)) for name in (high_name, low_name) if name is not None}
    if wrong := {name: got for name, got in kinds.items() if got != "a folder"}:
        remedy = "correct the path, which is relative to the current folder"
        expected = f"a folder of images or one of {', '.join(DATASET_NAMES)}"
        return [Problem(f"dataset {name}", expected, got, remedy) for name, got in wrong.items()]
    return Path(high_name), Path(low_name) if low_name else None


def prepare_command(name: str, scale: int, data_root: Path) -> str:
    """Return the command that downloads a dataset."""
    scale_option = f" --scale {scale}" if scale in _NAMED_DATASETS[name].low_scales and scale != 4 else ""
    root_option = "" if data_root == default_data_root() else f" --data-root {shlex.quote(str(data_root))}"
    return f"esrgan prepare {name}{scale_option}{root_option}"


def _match_pairs(
    high: list[Path] | Path, low: Path | None, scale: int, pairs: list[ImagePair], problems: list[Problem]
) -> None:
    """Pair the images of two folders by stem; an LR stem may end in the scale, as in DIV2K (0001x4.png)."""
    highs = high if isinstance(high, list) else _list_images(high, problems)
    if low is None:
        pairs += [ImagePair(path, None) for path in highs]
        return
    high_by_stem = _index_by_stem(highs, problems)
    low_by_stem = {
        stem if stem in high_by_stem else stem.removesuffix(f"x{scale}"): path
        for stem, path in _index_by_stem(_list_images(low, problems), problems).items()
    }
    pairs += [ImagePair(path, low_by_stem[stem]) for stem, path in high_by_stem.items() if stem in low_by_stem]
    problems += [
        Problem(str(path), f"an image of the same name in {other}", "none", "add it or remove this one")
        for paths, others, other in ((high_by_stem, low_by_stem, low), (low_by_stem, high_by_stem, high))
        for stem, path in paths.items()
        if stem not in others
    ]


def _index_by_stem(paths: Sequence[Path], problems: list[Problem]) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for path in paths:
        first = stems.setdefault(path.stem, path)
        if first != path:
            got = f"{first.name} as well"
            problems.append(Problem(str(path), "only one image of this name", got, "remove one of them"))
    return stems


def _list_images(folder: Path, problems: list[Problem]) -> list[Path]:
    try:
        paths = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in images.DATASET_SUFFIXES and not path.name.startswith(".") and not path.is_dir()
        )
    except OSError as error:
        problems.append(Problem(f"dataset {folder}", "a readable folder", str(error.strerror), "make it readable"))
        return []
    if not paths:
        remedy = "put images directly in it; subfolders are not searched"
        problems.append(Problem(f"dataset {folder}", "images in this folder", "none", remedy))
    return paths
