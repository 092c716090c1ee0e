"""Find LR images among the HR images of one folder: by names that belong together, and sizes a scale factor apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from esrgan import images
from esrgan.errors import ImageError

SCALES = (2, 3, 4, 8)
# Folders whose images are not originals, and ends of names: LR, LR_bicubic, DIV2K_train_LR_bicubic, LRbicx4, X4.
LR_NAME = re.compile(r"(?:.*[_-])?(?:LR|LQ)(?:[_-].*|bic.*|x?\d+)?|x[2348]", re.IGNORECASE)
_END = re.compile(r"(?=[_\-. ]|x\d|(?<=\d)[LH]R$)", re.IGNORECASE)  # where the end of a name may begin
_START = re.compile(r"(?:LR|LQ|HR|GT)(?:[_\-. ](?=.)|(?=\d))", re.IGNORECASE)  # of a name that says what it is
_SAMPLE = 1000  # images whose versions are searched for in a folder
_KINDS = 20  # combinations of two ends or folders that are examined, the most frequent ones
_COMPARED = 5  # couples of images whose sizes are compared, and versions of an image that are considered


def find_lr_image(folder: Path, keys: Mapping[str, Path]) -> tuple[str, str] | None:
    """Find an LR image among the images of one folder, given by their paths below it without suffix.

    Two images may be versions of one if their paths differ only in folders and the end of the name, or in a start like
    LR_. They are HR and LR image if most couples with the same two ends, or in the same two folders, differ by a scale
    factor.

    Returns:
        The LR image and its HR image as text, and the templates of their names as text; None if there is no LR image.
    """
    for (kind, *parts), couples in _find_couples(keys):
        is_low = [kind != "folder" and bool(LR_NAME.fullmatch(part.strip("_-. "))) for part in parts]
        is_marked = any(is_low) and any(part.strip("_-. ").upper() in ("HR", "GT") for part in parts)
        if len(couples) == 1 and len(keys) > 2 and not any(is_low):
            continue  # two photos may differ by a scale factor by chance
        # Names decide if the files are damaged, or as large as their HR images, as in RealSR.
        expected = {*SCALES, *([None] if any(is_low) else []), *([1] if is_marked else [])}
        chosen = couples[:: max(len(couples) // _COMPARED, 1)]
        found = [couple for couple in chosen if size_ratio(*couple) in expected]
        if 2 * len(found) > len(chosen):
            sides = zip(map(_read_size, found[0]), (not each for each in is_low), found[0], parts, strict=True)
            low, high = sorted(sides)
            if low[-1].strip("_-. ").upper() in ("HR", "GT"):
                continue  # photos such as GT-1 and 1
            got = " of ".join(f"{path.relative_to(folder)}{_format(size)}" for size, _, path, _ in (low, high))
            template = "{part}{{stem}}" if kind == "start" else "{{stem}}{part}"
            lr, hr = (template.format(part=each[-1]) for each in (low, high))
            names = f" (this folder twice) with {describe_templates(lr, hr)}"
            return got, "" if kind == "folder" else names
    return None


def describe_templates(low: str, high: str) -> str:
    """Describe how to give templates for the names of LR and HR images: in a configuration, and to ``esrgan test``."""
    return f'lr_template "{low}" and hr_template "{high}" (HR=LR={low}={high})'


def size_ratio(one: Path, two: Path) -> int | None:
    """Return the scale factor between the sizes of two images; 0 if there is none, None if they cannot be read."""
    low, high = sorted(map(_read_size, (one, two)))
    fits = (scale for scale in (1, *SCALES) if all(abs(a * scale - b) < scale for a, b in zip(low, high, strict=True)))
    return next(fits, 0) if low else None


def _find_couples(keys: Mapping[str, Path]) -> list[tuple[tuple[str, str, str], list[tuple[Path, Path]]]]:
    """Return couples of images by what differs ("start", "end" or "folder"), and their two starts, ends or folders."""
    chosen = list(keys)[:: max(len(keys) // _SAMPLE, 1)]
    groups: dict[tuple[str, ...], dict[str, Path]] = {group: {} for key in chosen for group, _ in _split(key)}
    for key, path in keys.items():
        for group, part in _split(key):
            if group in groups:
                groups[group][part] = path
    kinds: dict[tuple[str, str, str], list[tuple[Path, Path]]] = {}
    for group, paths in groups.items():
        for one, two in combinations(sorted(paths)[:_COMPARED], 2):
            kinds.setdefault((group[0], one, two), []).append((paths[one], paths[two]))
    return sorted(kinds.items(), key=lambda kind: -len(kind[1]))[:_KINDS]


def _split(key: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what the paths of versions of an image share, and in what they differ: start, end, folders, or end too."""
    *folders, name = key.split("/")
    start = _START.match(name)
    yield ("start", *folders, name[start.end() if start else 0 :]), start[0] if start else ""
    for end in (len(name), *(found.start() for found in _END.finditer(name, 1))):
        if end == len(name) or any(map(str.isalpha, name[end:])):  # not numbered photos
            yield ("end", *folders, name[:end]), name[end:]
        yield ("folder", name[:end]), "/".join([*folders, *([f"*{name[end:]}"] if name[end:] else [])])
    for place, folder in enumerate(folders if len(folders) > 1 else []):
        yield ("folder", *folders[:place], "*", *folders[place + 1 :], name), folder


def _read_size(path: Path) -> tuple[int, ...]:
    """Return (height, width), or nothing if the image cannot be read."""
    try:
        return images.read_shape(path)[:2]
    except ImageError:
        return ()


def _format(size: tuple[int, ...]) -> str:
    return f" ({size[1]}×{size[0]} px)" if size else ""
