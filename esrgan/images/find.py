"""Finds the images that files, folders and glob patterns stand for."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Collection, Iterable
from pathlib import Path

from esrgan.errors import ImageError, Problem
from esrgan.images.formats import DATASET_SUFFIXES
from esrgan.text import describe_error


def find_images(paths: Iterable[str | Path], suffixes: Collection[str] = DATASET_SUFFIXES) -> dict[Path, Path]:
    """Lists the images that files, folders and glob patterns stand for.

    Args:
        paths: Files are taken as they are; folders, searched to any depth but not through links, and patterns
            (``**`` too) give the files with one of the suffixes, sorted, hidden ones left out.
        suffixes: In lower case; ``SUFFIXES`` for images to be upscaled.

    Returns:
        The files in the order asked for, each once, with their place below the folder that was asked for, or below
        what of a pattern comes before its first wildcard; of single files that is the name.

    Raises:
        ImageError: Some of the paths give no file; it names all of them.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    problems = []
    for path in map(Path, paths):
        try:
            files, got = _expand_path(path, suffixes), "none there"
            if not files and find_linked_folders(path):
                got = "links to folders alone, which are not followed"
        except OSError as error:  # such as a folder that may not be entered
            files, got = {}, describe_error(error)
        if not files:
            remedy = f"check the path; suffixes searched for: {' '.join(sorted(suffixes))}"
            problems.append(Problem(str(path), "an image file or a folder with some", got, remedy))
        for file, place in files.items():
            found.setdefault(file.parent.resolve() / file.name, (file, place))
    if problems:
        raise ImageError(problems)
    return dict(found.values())


def _expand_path(path: Path, suffixes: Collection[str]) -> dict[Path, Path]:
    """The files that one path stands for, and their places; names that hold brackets come before patterns."""
    if path.is_dir():
        return {file: file.relative_to(path) for file in _images_below(path, suffixes)}
    if path.exists():
        return {path: Path(path.name)}
    matches = map(Path, sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207 Path.glob takes no absolute ones
    files = [
        file
        for match in matches
        for file in (_images_below(match, suffixes) if match.is_dir() else [match])
        if _is_image(file, suffixes)
    ]
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts[:-1]))
    return {file: file.relative_to(fixed) for file in files}


def _is_image(path: Path, suffixes: Collection[str]) -> bool:
    return path.suffix.lower() in suffixes and path.is_file()


def _images_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The images in a folder and the folders in it, sorted; nothing hidden."""
    return [path for path in _visible_paths_below(folder) if _is_image(path, suffixes)]


def _visible_paths_below(folder: Path) -> list[Path]:
    paths = folder.rglob("*")
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def find_linked_folders(path: str | Path) -> list[Path]:
    """Lists the links to folders in a folder and below, which ``find_images`` does not follow; sorted, none hidden."""
    return [link for link in _visible_paths_below(Path(path)) if link.is_symlink() and link.is_dir()]
