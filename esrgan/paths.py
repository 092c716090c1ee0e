"""Paths and names of files: what exists at a path, which names are the same, which are possible."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import sys
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from esrgan.errors import EsrganError, Problem
from esrgan.text import describe_error, find_similar

ALLOWED_CHARACTERS = 'leave out < > : " | ? *'  # which Windows does not allow in names
_MAX_NAMES = 10_000  # of a folder that are compared with a missing one
_MOUNT_POINT = 0xA0000003  # st_reparse_tag of a junction
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
_KINDS |= dict.fromkeys((stat.S_IFCHR, stat.S_IFBLK), "a device")
# What file managers write into folders that they show.
_LITTER = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"}


def expand_user(path: str | Path) -> Path:
    """Return a path with ``~`` at its beginning replaced by the home folder, if there is one."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser() raises for a file such as ~$draft.png


def describe_path(path: Path) -> str:
    """Describe what exists at a path: "a folder", "a file", "a device", "nothing", or why this cannot be determined."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode), "a file")
    except (FileNotFoundError, ValueError):  # ValueError: no file can have this name
        return "nothing"
    except OSError as error:
        if error.errno == errno.EINVAL:  # the same on Windows
            return "nothing"
        return f"a path that cannot be read: {error.strerror}"


def is_link(path: Path) -> bool:
    """Return whether a path is a symbolic link or, on Windows, a junction, which links to a folder."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return False
    return stat.S_ISLNK(found.st_mode) or getattr(found, "st_reparse_tag", 0) == _MOUNT_POINT


def is_litter(name: str) -> bool:
    """Return whether a file manager writes files of this name into the folders that it shows."""
    return name.lower() in _LITTER or name.startswith("._")


def fold_name(name: str) -> str:
    """Return a text that is the same for two names which differ only in case or in how accents are encoded."""
    return unicodedata.normalize("NFC", _fold_case(unicodedata.normalize("NFC", name)))


def _fold_case(name: str) -> str:
    if sys.platform != "win32":
        return name.casefold()
    # NTFS compares character by character, so ß and ss differ there.
    return "".join(folded if len(folded := letter.casefold()) == 1 else letter for letter in name)


def name_key(folder: Path) -> Callable[[str], str]:
    """Return a function that makes names equal if they are the same to the file system of a folder.

    The folder may not exist yet. A name may have several parts.
    """
    return fold_name if _is_case_insensitive(folder) else str


def _is_case_insensitive(folder: Path) -> bool:
    """Return whether the file system of a folder, which may not exist yet, ignores the case of names."""
    for parent in (folder, *folder.parents):
        with suppress(OSError), os.scandir(parent) as entries:
            names = {entry.name for entry in entries if entry.name.isascii() and not entry.is_symlink()}
            name = next((name for name in sorted(names) if name != name.swapcase()), None)
            if name is not None:
                return name.swapcase() not in names and (parent / name.swapcase()).exists()
    return False


def suggest_path(path: Path, otherwise: str) -> str:
    """Return a remedy for a path that does not exist: "did you mean x?", by the most similar name in its folder.

    Args:
        path: The path. If its folder does not exist either, a name for the first missing folder is suggested.
        otherwise: The remedy if there is no similar name.
    """
    missing = path
    while missing.parent != missing and not os.path.lexists(missing.parent):
        missing = missing.parent
    try:
        with os.scandir(missing.parent) as entries:
            names = [entry.name for entry in itertools.islice(entries, _MAX_NAMES) if not entry.name.startswith(".")]
    except (OSError, ValueError):
        return otherwise
    # The name itself is there if it is a link whose target is missing.
    found = find_similar(missing.name, (name for name in names if name != missing.name))
    return otherwise if found is None else f"did you mean {missing.with_name(found)}?"


def cache_dir() -> Path:
    """Return the folder for cached results and downloads: $ESRGAN_CACHE, else esrgan in the user's cache folder.

    Raises:
        EsrganError: If $ESRGAN_CACHE is not set and there is no home folder, or it names a user who does not exist.
    """
    if folder := os.environ.get("ESRGAN_CACHE"):
        path = expand_user(folder)
        if (name := str(path).partition(os.sep)[0][1:]) and str(path).startswith("~"):
            raise EsrganError(f"ESRGAN_CACHE: there is no user {name}; set it to a folder for downloads")
    else:
        path = expand_user(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "esrgan"
    if path.parts[:1] == ("~",):  # the system does not know this user
        raise EsrganError("no home folder found; set ESRGAN_CACHE to a folder for downloads")
    return path


def find_name_problem(path: Path) -> Problem | None:
    """Return why no file can have a path on its disk, such as a name that is too long; None if one can.

    Disks limit the bytes of a name or its characters, to 255 or fewer, so they are asked.
    """
    existing = next((folder for folder in path.parents if folder.is_dir()), path.parent)
    try:
        for place in (path, existing / path.name):
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                place.lstat()
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.EINVAL:
            return Problem.failure(path, f"no file can have this name: {describe_error(error)}", ALLOWED_CHARACTERS)
        length = len(os.fsencode(path.name))
        what = f"no file can have this name of {length} bytes: {describe_error(error)}"
        return Problem.failure(path, what, "use a shorter name or folder")
    return None
