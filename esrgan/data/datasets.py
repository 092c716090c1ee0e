"""Find the image pairs of datasets: named ones, any folder, or a pair of folders.

Folders are searched to any depth. ``pairing`` matches LR images to HR images; everything that is left out is counted.
"""

from __future__ import annotations

import importlib.resources
import os
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from esrgan import extras, images, resize
from esrgan.console import log
from esrgan.data.pairing import ImagePair, Match, Naming, match_folders, match_within
from esrgan.errors import DatasetError, Problem
from esrgan.paths import describe_path, expand_user, suggest_path
from esrgan.text import did_you_mean, format_count

Split = Literal["train", "val"]


class Folders(NamedTuple):
    """A dataset given as folders.

    Attributes:
        high: Folder of HR images.
        low: Folder of LR images, possibly the same; None to use the LR images in ``high``, or to make them.
        low_template: Names of the LR images without suffix, such as "{stem}_small"; None finds out.
        high_template: Names of the HR images without suffix, if ``low_template`` is given.
    """

    high: str
    low: str | None = None
    low_template: str | None = None
    high_template: str = "{stem}"


DatasetSpec = str | Folders | tuple[str, str | None]  # a name, a folder of HR images, or folders


@dataclass(frozen=True)
class _NamedDataset:
    """Folders of a published dataset below the data root, as its archives unpack, for each split."""

    high: dict[Split, str]
    low: dict[Split, str] = field(default_factory=dict)  # with {scale} as a placeholder
    low_scales: tuple[int, ...] = (2, 4)


def _benchmark(name: str) -> _NamedDataset:
    splits: tuple[Split, ...] = ("train", "val")
    return _NamedDataset(dict.fromkeys(splits, f"{name}/GTmod12"), dict.fromkeys(splits, f"{name}/LRbicx{{scale}}"))


_NAMED_DATASETS = {
    "div2k": _NamedDataset(
        {"train": "DIV2K_train_HR", "val": "DIV2K_valid_HR"},
        {"train": "DIV2K_train_LR_bicubic/X{scale}", "val": "DIV2K_valid_LR_bicubic/X{scale}"},
    ),
    "bsds500": _NamedDataset(
        {"train": "BSR/BSDS500/data/images/train", "val": "BSR/BSDS500/data/images/val"}, low_scales=()
    ),
    "set5": _benchmark("Set5"),
    "set14": _benchmark("Set14"),
    "flickr2k": _NamedDataset({"train": "Flickr2K/Flickr2K_HR"}, {"train": "Flickr2K/Flickr2K_LR_bicubic/X{scale}"}),
}

# Colour photographs in the scikit-image wheel: enough to try training without a download, too few for a useful model.
_SKIMAGE_FILES: dict[Split, tuple[str, ...]] = {
    "train": ("astronaut.png", "ihc.png", "motorcycle_left.png", "rocket.jpg"),
    "val": ("chelsea.png", "coffee.png"),
}
DATASET_NAMES = (*_NAMED_DATASETS, "skimage")

OUTPUT_MARKER = ".made-by-esrgan-prepare"  # in a folder of LR images that ``esrgan prepare`` made
# In a folder of tiles: the measures of the images, and the list and the contact sheet of the tiles that are left out.
TILE_FILES = (".esrgan-tiles.jsonl", "dropped.csv", "dropped.png")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_COLOURED = 4  # mean difference between the channels of a pixel from which an image is not just tinted by noise


def is_missing(name: str, data_root: Path) -> bool:
    """Return whether a name is that of a published dataset, none of whose HR folders exist."""
    return name in _NAMED_DATASETS and all(
        describe_path(data_root / folder) == "nothing" for folder in _NAMED_DATASETS[name].high.values()
    )


def list_splits(name: str) -> tuple[Split, ...]:
    """Return the splits of a dataset; only "train" for a folder, or if there are no validation images or the same."""
    high = _NAMED_DATASETS[name].high if name in _NAMED_DATASETS else {}
    return ("train", "val") if name == "skimage" or len(set(high.values())) > 1 else ("train",)


def default_data_root() -> Path:
    """Return the folder that holds the named datasets: ``$ESRGAN_DATA`` if set, else ``data``."""
    return expand_user(os.environ.get("ESRGAN_DATA") or "data")


def find_pairs(
    datasets: Sequence[DatasetSpec], split: Split, scale: int, data_root: Path, *, degraded: bool = False
) -> list[ImagePair]:
    """Return the image pairs of several datasets as one list.

    Args:
        datasets: Names among ``DATASET_NAMES``, folders, or pairs of folders.
        split: Part of a named dataset: "train" or "val".
        scale: Scale factor, which selects the LR folder of a named dataset.
        data_root: Folder that holds the named datasets.
        degraded: Whether a degradation makes the LR patches. Otherwise, scale 1 needs LR images.

    Returns:
        The pairs, dataset by dataset.

    Raises:
        DatasetError: If folders are missing or empty, or images have no partner. All of them are listed.
    """
    pairs, problems = find_pairs_and_problems(datasets, split, scale, data_root, degraded=degraded)
    if problems:
        raise DatasetError(problems)
    return pairs


def find_pairs_and_problems(
    datasets: Sequence[DatasetSpec], split: Split, scale: int, data_root: Path, *, degraded: bool = False
) -> tuple[list[ImagePair], list[Problem]]:
    """Return the pairs that ``find_pairs`` finds and the problems it would raise, so that callers can add their own."""
    pairs: list[ImagePair] = []
    problems: list[Problem] = []
    for spec in datasets:
        match = find_dataset(spec, split, scale, data_root, degraded=degraded)
        pairs += match.pairs
        problems += match.problems
    return pairs, problems


def find_dataset(spec: DatasetSpec, split: Split, scale: int, data_root: Path, *, degraded: bool = False) -> Match:
    """Find the pairs of one dataset and the problems that prevent its use, and log what is left out.

    The arguments are those of ``find_pairs``.
    """
    match = _find_dataset(spec, split, scale, data_root)
    if scale == 1 and not degraded and any(pair.low is None for pair in match.pairs):
        place = f"dataset {spec if isinstance(spec, str) else spec[0]}"
        remedy = 'name their folder too, as {"hr": …, "lr": …} or HR=LR; images made here would be the HR images'
        match.problems.append(Problem(place, "LR images for scale 1", "none", remedy))
    return match


def _find_dataset(spec: DatasetSpec, split: Split, scale: int, data_root: Path) -> Match:
    if spec == "skimage":
        if "skimage" in extras.missing_modules("train"):
            problem = Problem("dataset skimage", "the scikit-image package", "none", "pip install 'esrgan[train]'")
            return Match(problems=[problem])
        folder = Path(str(importlib.resources.files("skimage"))) / "data"
        return Match([ImagePair(folder / name, None) for name in _SKIMAGE_FILES[split]])
    folders = _resolve_folders(spec, split, scale, expand_user(data_root))
    if isinstance(folders, list):
        return Match(problems=folders)
    high, low, namings = folders
    unused: dict[Path, str] = {}
    problems: list[Problem] = []
    highs = _list_images(high, unused, problems)
    lows = highs if low in (None, high) else _list_images(low, unused, problems)
    if low is not None and low != high:  # one folder may be in the other
        highs, lows = _remove_below(highs, high, low), _remove_below(lows, low, high)
    if problems:
        return Match(problems=problems)
    if low is None and (high / TILE_FILES[0]).exists():
        match = Match([ImagePair(path, None) for path in highs])  # tiles are HR images, whatever their names and sizes
    elif low is None:
        match = match_within(high, highs, scale)
    else:
        match = match_folders(high, highs, low, lows, scale, namings)
    match.unused = unused | match.unused
    _note_unused(match, spec if isinstance(spec, str) else spec[0])
    return match


def _remove_below(paths: list[Path], folder: Path, other: Path) -> list[Path]:
    """Return the images of a folder without those of another folder that is in it."""
    below = os.path.relpath(other.resolve(), folder.resolve())  # begins with .. if it is not in it
    return [path for path in paths if not path.is_relative_to(folder / below)]


def find_unpaired(name: str) -> Match:
    """Find images without partners in a folder, or of a file or glob pattern, and log what is left out."""
    path = expand_user(name)
    match = Match()
    paths = _list_images(path, match.unused, match.problems) if path.is_dir() else images.find_images([path])
    match.pairs = [ImagePair(each, None) for each in paths]
    _note_unused(match, name)
    return match


def _note_unused(match: Match, name: str) -> None:
    """Add a line on what is left out to a match, and log it."""
    if not match.unused or not match.pairs:
        return
    counts = f"{format_count(len(match.pairs), 'image')}; left out: {_describe_unused(match.unused)}"
    match.note = f"dataset {name}: {counts}"
    log.info("%s", match.note)


def _describe_unused(unused: dict[Path, str]) -> str:
    """Describe files that are left out, given with what they are: their numbers, and the first of them."""
    counts = Counter(unused.values()).most_common()
    return f"{', '.join(format_count(number, kind) for kind, number in counts)} (first: {min(unused)})"


def common_channels(found: Collection[int]) -> int:
    """Return the channels with which images of these numbers of channels can be used together.

    Grey images become RGB next to colour images, and alpha is dropped where it is opaque, as training does it.
    """
    return 4 if set(found) == {4} else 1 if set(found) <= {1, 2} else 3


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
        raise DatasetError(
            Problem(str(pair.low), expected, _format_dimensions(low), _explain_sizes(image.shape, low.shape, scale))
        )
    is_grey = channels > 1 and np.ptp(low) > 0 and not np.ptp(low[..., :3], axis=2).any()
    if is_grey and np.ptp(high[..., :3], axis=2).mean() > _COLOURED:
        expected = f"a colour image like {pair.high}"
        raise DatasetError(Problem(str(pair.low), expected, "a grey image", "recreate it in colour"))
    return low, high


def _explain_sizes(high: tuple[int, ...], low: tuple[int, ...], scale: int) -> str:
    """Return what to do about an LR image (height, width, …) that does not fit the size of its HR image."""
    if low[:2] == high[:2]:
        return f"it is as large as its HR image; use LR images of 1/{scale}, or scale_factor 1"
    if all(abs(a * scale - b) < scale for a, b in zip(high[:2], low[:2], strict=True)):
        return "HR and LR are exchanged; name the folder of the larger images as hr"
    if low[0] > high[0] and low[1] > high[1]:
        return "the LR image is the larger one; check which folder is hr and which is lr"
    for other in (2, 3, 4, 8):
        if low[:2] == (high[0] // other, high[1] // other):
            return f"the LR images are those of ×{other}; name the folder for ×{scale}, or set scale_factor to {other}"
    return "recreate it, or omit the LR folder to have LR images made"


def _format_dimensions(image: np.ndarray) -> str:
    return f"{image.shape[1]}×{image.shape[0]} px"


def _resolve_folders(
    spec: DatasetSpec, split: Split, scale: int, data_root: Path
) -> tuple[Path, Path | None, list[Naming]] | list[Problem]:
    """Return the HR folder, the LR folder and the given naming of a dataset, or the problems that prevent its use."""
    if isinstance(spec, str) and spec in _NAMED_DATASETS:
        named = _NAMED_DATASETS[spec]
        if split not in named.high:
            remedy = "validate on div2k or on your own folder"
            return [Problem(f"dataset {spec}", "validation images", "only training images", remedy)]
        high = data_root / named.high[split]
        low = data_root / named.low[split].format(scale=scale) if scale in named.low_scales else None
        found = {folder: describe_path(folder) for folder in (high, low) if folder}
        for folder, got in found.items():
            if got == "a folder" or (got == "nothing" and folder == low):
                continue
            remedy = "fix this, or set data_root or ESRGAN_DATA to another folder"
            if got == "nothing":
                remedy = (
                    f"download it with: {prepare_command(spec, scale, data_root)} (or set data_root or ESRGAN_DATA to "
                    "the folder that contains it; the dataset skimage needs no download)"
                )
            return [Problem(f"dataset {spec}", f"the folder {folder}", got, remedy)]
        return high, low if low and found[low] == "a folder" else None, []
    high_name, low_name, low_template, high_template = Folders(spec) if isinstance(spec, str) else Folders(*spec)
    problems = [problem for name in (high_name, low_name) if name is not None for problem in _check_folder(name)]
    for template in (low_template or "{stem}", high_template):
        names = template.replace("{stem}", "", 1).replace("{scale}", "")
        if "{stem}" not in template or set(names) & set("/{}") or Path(template).suffix.lower() in images.SUFFIXES:
            expected = "a file name without suffix (.png) that contains {stem} once, and {scale} or not"
            problems.append(Problem(f"dataset {high_name}", expected, template, "such as {stem}_small"))
    if problems:
        return problems
    high = expand_user(high_name)
    low = expand_user(low_name) if low_name else None
    if low and low.samefile(high):
        low = high
    if low_template is None:
        return high, low, []
    return high, low or high, [Naming(high_template, low_template)]


def _check_folder(name: str) -> list[Problem]:
    """Return the problem of a dataset's path that is not a folder: what it is, and what to name instead."""
    path = expand_user(name)
    got = describe_path(path)
    if got == "a folder":
        return []
    suffix = path.suffix.lower()
    remedy = "correct the path" if path.is_absolute() else f"correct the path, which is relative to {Path.cwd()}"
    if got == "a file" and suffix in _ARCHIVES:
        got, remedy = "an archive", "unpack it, and name the folder of the images"
    elif got == "a file" and suffix in images.SUFFIXES:
        got, remedy = "an image", "name its folder"
    elif got == "a file":
        got = f"a {suffix or 'suffixless'} file"
        remedy = "lists of files are not read; name the folder of the images"
    elif path != Path(name):
        remedy = f"correct the path, which stands for {path}"
    elif "\\" in name:
        remedy = "separate folders by / instead of \\"
    elif got == "nothing":
        remedy = did_you_mean(name, DATASET_NAMES, suggest_path(path, remedy))
    expected = f"a folder of images or one of {', '.join(DATASET_NAMES)}"
    return [Problem(f"dataset {name}", expected, got, remedy)]


def prepare_command(name: str, scale: int, data_root: Path) -> str:
    """Return the command that downloads a dataset."""
    scale_option = f" --scale {scale}" if scale in _NAMED_DATASETS[name].low_scales and scale != 4 else ""
    root_option = "" if data_root == default_data_root() else f" --data-root {shlex.quote(str(data_root))}"
    return f"esrgan prepare {name}{scale_option}{root_option}"


def _belongs_to_tiles(path: Path) -> bool:
    """Return whether a file describes the tiles in its folder, and so is not an image of a dataset."""
    return path.name in TILE_FILES and (path.parent / TILE_FILES[0]).exists()


def _list_images(folder: Path, unused: dict[Path, str], problems: list[Problem]) -> list[Path]:
    """Return the images below a folder, and add everything else in it to ``unused``."""
    try:
        files, skipped = images.list_files(folder)
    except OSError as error:
        problems.append(Problem(f"dataset {folder}", "a readable folder", str(error.strerror), "make it readable"))
        return []
    if any(path.name == TILE_FILES[0] for path in skipped):
        files = [path for path in files if not _belongs_to_tiles(path)]
    paths = [path for path in files if path.suffix.lower() in images.SUFFIXES]
    rest = [path for path in files if path.suffix.lower() not in images.SUFFIXES]
    others = skipped | {path: f"{path.suffix.lower() or 'suffixless'} file" for path in rest}
    others = {path: kind for path, kind in others.items() if path.name not in (OUTPUT_MARKER, TILE_FILES[0])}
    unused |= others
    if not paths:
        got, remedy = "none", f"put images into it: {' '.join(sorted(images.SUFFIXES))}"
        if others:
            got = f"only {_describe_unused(others)}"
        if any(path.name == "data.mdb" for path in files):
            got, remedy = "an LMDB of BasicSR", "LMDB is not read; name the folder of images that it was made from"
        elif any(kind.split()[0] in _ARCHIVES for kind in others.values()):
            remedy = "unpack the archives"
        elif "linked folder" in others.values():
            remedy = "links to folders are not followed; name the folder itself"
        problems.append(Problem(f"dataset {folder}", "images in this folder", got, remedy))
    return paths
