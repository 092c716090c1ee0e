"""Match the LR images of a folder to its HR images by the naming scheme that the folder follows."""

from __future__ import annotations

import os.path
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from esrgan.data.mixtures import LR_NAME, SCALES, describe_templates, find_lr_image, size_ratio
from esrgan.errors import Problem
from esrgan.text import format_count


@dataclass(frozen=True)
class ImagePair:
    """An HR image and its LR image; ``low`` is None if the LR image is to be made by bicubic downscaling."""

    high: Path
    low: Path | None


@dataclass(frozen=True)
class Naming:
    """Templates for the paths of an HR image and its LR image, without suffix.

    Attributes:
        high: Template with {stem}, and possibly {scale}; all templates may be below the same subfolder.
        low: The same for the LR image; {variant} is one of several LR images of an HR image, 1 to 4.
    """

    high: str
    low: str


_HIGH_ENDS = ("", "_HR", "-HR", "_gt")
_LOW_ENDS = (
    "",  # also BasicSR's Set5 and Set14
    *("x{scale}", "_x{scale}", "-x{scale}"),  # DIV2K, Flickr2K, EDSR's benchmark
    *("x{scale}m", "x{scale}d", "x{scale}w", "x{scale}w{variant}"),  # DIV2K mild, difficult, wild with four LR images
    *("_LR", "-LR", "_LR{scale}", "_LRx{scale}", "_LR_x{scale}", "_bicLRx{scale}", "_LRBI_x{scale}", "_lq"),
)
# One of them has to fit a whole folder. The first is preferred where several fit equally many images.
_NAMINGS = (
    *(Naming("{stem}" + high, "{stem}" + low) for high in _HIGH_ENDS for low in _LOW_ENDS),  # RealSR: _HR, _LR4
    Naming("{stem}_x1", "{stem}_x{scale}"),  # DRealSR
    Naming("{stem}_SRF_{scale}_HR", "{stem}_SRF_{scale}_LR"),  # SelfExSR
    Naming("HR/{stem}", "LR_bicubic/X{scale}/{stem}x{scale}"),  # EDSR's benchmark, given as one folder
)
_SUB_IMAGE = re.compile(r"_s\d{3,}$")  # BasicSR's names of crops
# Results of other methods for an HR image, which are as large as it.
_VERSION = re.compile(r"_SRF_\d_(?!(?:HR|LR)$)[^/]+$|[_-](?:bicubic|bilinear|nearest|lanczos)$", re.IGNORECASE)
_SHOWN = 3  # names in a message

Keys = dict[str, Path]  # images by their path below a folder, without suffix and in composed Unicode (NFC)


@dataclass
class Match:
    """What was found in the folders of a dataset.

    Attributes:
        pairs: Image pairs, in the order of the HR images.
        problems: What prevents the use of the dataset.
        unused: Images that are left out, with what they are.
        note: A line on what is left out, or empty.
    """

    pairs: list[ImagePair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unused: dict[Path, str] = field(default_factory=dict)
    note: str = ""


def match_folders(
    high: Path, highs: Sequence[Path], low: Path, lows: Sequence[Path], scale: int, namings: Sequence[Naming] = ()
) -> Match:
    """Pair the images of two folders, or of one that holds both.

    Args:
        high: Folder of HR images.
        highs: Images below it.
        low: Folder of LR images; may be the same.
        lows: Images below it.
        scale: Scale factor of the LR images.
        namings: How the images may be named; the one that fits most is used. Empty stands for the known ones.
    """
    match = Match()
    is_one_folder = low == high
    high_keys = _index(high, highs, match.problems)
    low_keys = high_keys if is_one_folder else _index(low, lows, match.problems)
    best, found = _best_naming(namings or _NAMINGS, high_keys, low_keys, scale)
    match.pairs = [ImagePair(high_path, low_path) for high_path, low_paths in found.items() for low_path in low_paths]
    match.problems += _find_ambiguous(found, high)
    used = set(found).union(*found.values())
    if found and not used.issuperset(low_keys.values()):
        others = _of_other_scales(high_keys, low_keys, scale, namings or _NAMINGS)
        folders = {path.parent for path in used}  # another HR image there lacks its LR image
        of_others = [path for path in others.values() if "{scale}" in best.high or path.parent not in folders]
        versions = [path for key, path in high_keys.items() if _VERSION.search(key)]
        match.unused = dict.fromkeys(others, "other-scale image")
        if is_one_folder:
            match.unused |= dict.fromkeys(of_others, "other-scale image") | dict.fromkeys(versions, "other version")
        match.unused = {path: kind for path, kind in match.unused.items() if path not in used}
    sides = [(high_keys, "image" if is_one_folder else "HR image", high)]
    sides += [] if is_one_folder else [(low_keys, "LR image", low)]
    got = []
    for keys, kind, folder in sides:
        if lonely := [path for path in keys.values() if path not in used and path not in match.unused]:
            got.append(f"{format_count(len(lonely), kind)} without partner ({_name_some(lonely, folder)})")
    if got:
        expected = f"an LR image in {low} for each HR image"
        if found:
            example = match.pairs[0]
            remedy = f"add or remove images; others are paired as {example.high.name} and {example.low.name}"  # type: ignore[union-attr]
        elif namings:
            remedy = f"correct {describe_templates(namings[0].low, namings[0].high)}, which fit none of them"
        else:
            remedy = _explain_mismatch(high_keys, low_keys, scale)
        match.problems.append(Problem(f"dataset {high}", expected, " and ".join(got), remedy))
    return match


def match_within(folder: Path, paths: Sequence[Path], scale: int) -> Match:
    """Return the images of one folder: pairs if a known naming explains most of them, else HR images only."""
    keys = _index(folder, paths, [])
    marked = [naming for naming in _NAMINGS if "{stem}" not in (naming.high, naming.low)]
    for each in (scale, *SCALES):
        best, found = _best_naming(marked, keys, keys, each)
        # Names like those of DRealSR may be the positions of tiles, which have one size.
        if not found or ("_x1" in best.high and all(size_ratio(high, lows[0]) == 1 for high, lows in found.items())):
            continue
        match = match_folders(folder, paths, folder, paths, each, [best])
        explained = match.unused.keys() | {path for pair in match.pairs for path in (pair.high, pair.low)}
        if 2 * len(explained) >= len(paths):
            return match if each == scale else match_folders(folder, paths, folder, paths, scale)
    got = remedy = ""
    low = [path for path in paths if any(map(LR_NAME.fullmatch, path.relative_to(folder).parts[:-1]))]
    if 0 < len(low) < len(paths):
        got = f"{format_count(len(low), 'image')} that seem to be LR images ({_name_some(low, folder)})"
    elif found_lr := find_lr_image(folder, keys):
        got, remedy = f"images that seem to be LR images, such as {found_lr[0]}", found_lr[1]
    if got:
        remedy = 'move them, or give both folders, as {"hr": …, "lr": …} or HR=LR' + remedy
        return Match(problems=[Problem(f"dataset {folder}", "HR images only", got, remedy)])
    versions = [path for key, path in keys.items() if (end := _VERSION.search(key)) and key[: end.start()] in keys]
    unused = dict.fromkeys(versions, "other version")
    return Match([ImagePair(path, None) for path in paths if path not in unused], unused=unused)


def _index(folder: Path, paths: Sequence[Path], problems: list[Problem]) -> Keys:
    """Return images by their keys; of several with one key, all but the first are a problem."""
    keys: Keys = {}
    doubles = []
    for path in paths:
        key = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if keys.setdefault(key, path) != path:
            doubles.append(path)
    if doubles:
        got = f"{format_count(len(doubles), 'more image')} of the same name ({_name_some(doubles, folder)})"
        problems.append(Problem(f"dataset {folder}", "only one image of each name", got, "remove one of them"))
    return keys


def _find_ambiguous(found: dict[Path, list[Path]], folder: Path) -> list[Problem]:
    """Return a problem if images of one pair differ only by upper and lower case, which namings ignore."""
    groups: dict[tuple[Path, str], dict[Path, None]] = {}  # by partner and name
    for high, lows in found.items():
        for low in lows:
            groups.setdefault((high, low.stem.lower()), {})[low] = None
            groups.setdefault((low, high.stem.lower()), {})[high] = None
    doubles = [(partner, list(group)) for (partner, _), group in groups.items() if len(group) > 1]
    if not doubles:
        return []
    partner, group = doubles[0]
    got = f"{' and '.join(path.name for path in group)} for {partner.name}"
    got += f" and {len(doubles) - 1:,} more" if len(doubles) > 1 else ""
    return [Problem(f"dataset {folder}", "one LR image for each HR image", got, "remove or rename one of them")]


def _identities(keys: Iterable[str], template: str, scale: int) -> dict[str, str]:
    """Return the identity (subfolder and stem) of each key that follows a template, in upper or lower case."""
    text = template.replace("{scale}", str(scale))
    end = text.rpartition("{stem}")[2].removesuffix("{variant}").lower()
    pattern = re.escape(text).replace(r"\{variant\}", "[1-4]").replace(r"\{stem\}", r"([^/]+)(?<!_SRF_\d)")
    regex = re.compile(f"((?:.*/)?){pattern}", re.DOTALL | re.IGNORECASE)
    # Most keys fail the first test, which is faster.
    return {key: found[1] + found[2] for key in keys if end in key.lower() and (found := regex.fullmatch(key))}


def _matches(
    namings: Sequence[Naming], high_keys: Keys, low_keys: Keys, scale: int, *, nested: bool
) -> Iterator[tuple[Naming, dict[Path, list[Path]]]]:
    """Yield each naming that fits some images, and their LR images; ``nested`` ignores folders around a whole side."""
    all_highs = cache(lambda template: _identities(high_keys, template, scale))
    all_lows = cache(lambda template: _identities(low_keys, template, scale))
    for naming in namings:
        if not all_highs(naming.high) or not all_lows(naming.low):
            continue
        lows = all_lows(naming.low)
        highs = {
            key: each for key, each in all_highs(naming.high).items() if high_keys is not low_keys or key not in lows
        }
        if nested:
            highs, lows = _strip_common_folder(highs), _strip_common_folder(lows)
        low_paths: dict[str, list[Path]] = {}
        for key, identity in lows.items():
            low_paths.setdefault(identity, []).append(low_keys[key])
        if found := {high_keys[key]: low_paths[each] for key, each in highs.items() if each in low_paths}:
            yield naming, found


def _strip_common_folder(identities: dict[str, str]) -> dict[str, str]:
    folders = {identity.rpartition("/")[0] for identity in identities.values()}
    prefix = os.path.commonpath(folders) if folders and all(folders) else ""
    return {key: identity[len(prefix) :].lstrip("/") for key, identity in identities.items()}


def _best_naming(
    namings: Sequence[Naming], high_keys: Keys, low_keys: Keys, scale: int
) -> tuple[Naming, dict[Path, list[Path]]]:
    """Return the naming that fits the most HR images, and their LR images."""
    for nested in (False, True):
        if fits := list(_matches(namings, high_keys, low_keys, scale, nested=nested)):
            return max(fits, key=lambda fit: len(fit[1]))
    return namings[0], {}


def _of_other_scales(high_keys: Keys, low_keys: Keys, scale: int, namings: Sequence[Naming]) -> dict[Path, Path]:
    """Return the images whose names say that they are LR images of another scale, with their HR images."""
    scaled = [naming for naming in namings if "{scale}" in naming.low]
    return {
        low: high
        for other in SCALES
        if other != scale
        for _, found in _matches(scaled, high_keys, low_keys, other, nested=high_keys is not low_keys)
        for high, lows in found.items()
        for low in lows
    }


def _name_some(paths: Sequence[Path], folder: Path) -> str:
    names = [str(path.relative_to(folder)) for path in paths[:_SHOWN]]
    return ", ".join([*names, "…"] if len(paths) > _SHOWN else names)


def _explain_mismatch(high_keys: Keys, low_keys: Keys, scale: int) -> str:
    """Return what to do about folders of which no images match."""
    for other in (each for each in SCALES if each != scale):
        naming, found = _best_naming(_NAMINGS, high_keys, low_keys, other)
        first = next(((high, lows[0]) for high, lows in found.items()), None)
        low, high = (each.replace("{scale}", str(other)) for each in (naming.low, naming.high))
        if first and size_ratio(*first) == scale and not set("/{}") & set((low + high).replace("{stem}", "")):
            templates = describe_templates(low, high)
            return f"their names are those of ×{other}, but their sizes fit; describe the names with {templates}"
        if found:
            return f"their names are those of ×{other}; name the folder for ×{scale}, or set scale_factor to {other}"
    if high_keys is low_keys:
        return 'name it once to have LR images made, or describe the names with "lr_template", such as "{stem}_small"'
    for kind, keys, others in (("HR", high_keys, low_keys), ("LR", low_keys, high_keys)):
        whole = {_SUB_IMAGE.sub("", key): path for key, path in keys.items()}
        if _best_naming(_NAMINGS, *((whole, others) if kind == "HR" else (others, whole)), scale)[1]:
            return f"the {kind} images are cut into sub-images (_s001) and the others are not; cut both or neither"
    example = '"lr_template", such as "{stem}_small", and "hr_template", if the HR images have more than a stem as well'
    return f"correct the folders, or describe the names with {example}"
