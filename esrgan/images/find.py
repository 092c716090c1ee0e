"""Find the images given by files, folders and glob patterns."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Collection, Iterable
from pathlib import Path

from esrgan.errors import ImageError, Problem
from esrgan.files import expand_user
from esrgan.images.formats import SUFFIXES
from esrgan.text import describe_error


def find_images(paths: Iterable[str | Path], suffixes: Collection[str] = SUFFIXES) -> dict[Path, Path]:
    """List the images that files, folders and glob patterns stand for.

    Args:
        paths: Files, folders and glob patterns (``**`` included). Files are accepted whatever their suffix. Folders
            and patterns stand for the files with one of the suffixes, sorted and without hidden files. Folders are
            searched to any depth, but symlinked folders are not followed.
        suffixes: Suffixes in lower case.

    Returns:
        A relative path for each file, in the order of ``paths`` and without duplicates. It is relative to the given
        folder or to the part of the pattern before its first wildcard. For a single file it is the name.

    Raises:
        ImageError: Some of the paths contain no image; the error lists all of them.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    problems = []
    for path in map(expand_user, paths):
        try:
            files, got = _expand_path(path, suffixes), "neither"
            if not files and find_linked_folders(path):
                got = "only links to folders, which are not followed"
        except OSError as error:  # for example, a folder without permission to enter it
            files, got = {}, describe_error(error)
        if not files:
            remedy = f"check the path; suffixes searched for: {' '.join(sorted(suffixes))}"
            problems.append(Problem(str(path), "an image file or a folder with images", got, remedy))
        for file, relative_path in files.items():
            found.setdefault(file.parent.resolve() / file.name, (file, relative_path))
    if problems:
        raise ImageError(problems)
    return dict(found.values())


def _expand_path(path: Path, suffixes: Collection[str]) -> dict[Path, Path]:
    """Return the relative path of each file that one path stands for.

    A path that exists is not treated as a pattern, even if its name contains brackets.
    """
    if path.is_dir():
        matches, base = [path], path
    elif path.exists():
        return {path: Path(path.name)}
    else:
        # Path.glob rejects absolute patterns.
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        base = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts[:-1]))
    files = (file for match in matches for file in (list_files(match)[0] if match.is_dir() else [match]))
    return {file: file.relative_to(base) for file in files if file.suffix.lower() in suffixes and file.is_file()}


def list_files(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """List the files in a folder and its subfolders.

    Returns:
        The files, sorted, and what is skipped, each with its kind: "hidden file", "hidden folder", "linked folder" or
        "unreadable folder".

    Raises:
        OSError: If the folder itself cannot be read.
    """
    files: list[Path] = []
    skipped: dict[Path, str] = {}
    folders = [folder]
    for current in folders:  # grows while subfolders are found
        try:
            entries = sorted(current.iterdir())
        except OSError:
            if current == folder:
                raise
            skipped[current] = "unreadable folder"
            continue
        for path in entries:
            if path.name.startswith("."):
                skipped[path] = "hidden folder" if path.is_dir() else "hidden file"
            elif not path.is_dir():
                files.append(path)
            elif path.is_symlink():
                skipped[path] = "linked folder"
            else:
                folders.append(path)
    return sorted(files), skipped


def find_linked_folders(path: str | Path) -> list[Path]:
    """List the links to folders in a folder and its subfolders, sorted and without hidden ones.

    ``find_images`` does not follow these links.
    """
    path = expand_user(path)
    skipped = list_files(path)[1] if path.is_dir() else {}
    return sorted(link for link, kind in skipped.items() if kind == "linked folder")
