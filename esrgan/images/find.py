"""Find the images given by files, folders and glob patterns."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from esrgan.errors import ImageError, Problem
from esrgan.images.detect import HEAD_BYTES, detect_format
from esrgan.images.formats import SUFFIXES
from esrgan.paths import describe_path, expand_user, is_link, suggest_path
from esrgan.text import describe_error

# Suffixes of images and videos that people expect to be upscaled. Those that are not supported are counted as skipped.
_FAMILIAR = """
.tga .icb .dds .ppm .pgm .pbm .pnm .pam .pfm .jp2 .j2k .jpf .jpx .j2c .jxl .jxr .wdp .qoi .ico .cur .pcx .sgi .ras
.xbm .xpm .svg .svgz .eps .wmf .emf .psd .psb .xcf .kra .ora .exr .hdr .fits .fit .fts .xisf .dcm .heics .avifs .apng
.mng .jng .jps .insp .icns .dpx .cin .ktx .ktx2 .vtf .blp .iff .lbm .ai .cdr .djvu .nii .mrc .jls .flif .bpg .afphoto
.3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .gpr .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2
.srf .srw .x3f
.mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .3gp .mts .m2ts .y4m .ogv .mxf
"""
FAMILIAR_SUFFIXES = frozenset(_FAMILIAR.split())
# Folders for thumbnails, deleted files and the like, which file managers hide, of Synology, QNAP, Windows and macOS.
_SYSTEM_FOLDERS = {"@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "__macosx"}
_REASONS = {"linked folder": "symlinked folders are not followed", "unreadable folder": "folders that cannot be read"}


@dataclass
class ImageSearch:
    """What files, folders and glob patterns stand for.

    Attributes:
        files: A relative path for each image, in the order of the search and without duplicates. It is relative to the
            given folder or to the part of the pattern before its first wildcard. For a single file it is the name.
        skipped: What folders and patterns also contain, each with the reason why it is not in ``files``: symlinked
            folders, folders that cannot be read, and images and videos of formats that are not supported.
        problems: The paths that contain no image.
    """

    files: dict[Path, Path] = field(default_factory=dict)
    skipped: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def find_images(paths: Iterable[str | Path], suffixes: Collection[str] = SUFFIXES) -> dict[Path, Path]:
    """List the images that files, folders and glob patterns stand for, as ``search_images`` does.

    Returns:
        A relative path for each file, as in ``ImageSearch.files``.

    Raises:
        ImageError: Some of the paths contain no image; the error lists all of them.
    """
    search = search_images(paths, suffixes)
    if search.problems:
        raise ImageError(search.problems)
    return search.files


def search_images(paths: Iterable[str | Path], suffixes: Collection[str] = SUFFIXES) -> ImageSearch:
    """List the images that files, folders and glob patterns stand for.

    Args:
        paths: Files, folders and glob patterns (``**`` included). Files are accepted whatever their suffix. Folders
            and patterns stand for the files with one of the suffixes, sorted and without hidden files. Folders are
            searched to any depth, but symlinked folders are not followed.
        suffixes: Suffixes in lower case.

    Raises:
        TypeError: If ``paths`` is itself a path.
    """
    if isinstance(paths, (str, os.PathLike)):
        raise TypeError(f"expected a list of paths, got {paths!r}; put it in a list")
    result = ImageSearch()
    found: dict[Path, tuple[Path, Path]] = {}
    expected = "an image file or a folder with images"
    for given in paths:
        if not str(given):  # such as a variable that is not set; it must not mean the current folder
            result.problems.append(Problem("''", expected, "an empty text", "check the path"))
            continue
        if "://" in str(given):
            remedy = "download it first, or use esrgan bulk"
            result.problems.append(Problem(str(given), expected, "an address", remedy))
            continue
        path = expand_user(given)
        try:
            files, skipped = _expand_path(path, suffixes)
        except OSError as error:  # for example, a folder without permission to enter it
            files, skipped, got = {}, {}, describe_error(error)
        else:
            got = _describe_rest(path, skipped)
        if not files:
            remedy = "check the path"
            if describe_path(path) == "nothing" and not glob.has_magic(str(path)):
                remedy = suggest_path(path, remedy)
            elif got in ("a named pipe", "a socket", "a device"):
                remedy = "save its content as a file first"
            else:
                remedy += f"; suffixes searched for: {' '.join(sorted(suffixes))}"
            result.problems.append(Problem(str(path), expected, got, remedy))
        for file, relative_path in files.items():
            found.setdefault(file.parent.resolve() / file.name, (file, relative_path))
        result.skipped |= skipped
    result.files = dict(found.values())
    return result


def _expand_path(path: Path, suffixes: Collection[str]) -> tuple[dict[Path, Path], dict[Path, str]]:
    """Return the relative path of each file that one path stands for, and what is skipped with the reason.

    A path that exists is not treated as a pattern, even if its name contains brackets.
    """
    if path.is_dir():
        matches, base = [path], path
    elif path.exists():
        return ({path: Path(path.name)} if path.is_file() else {}), {}
    else:
        # Path.glob rejects absolute patterns.
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        base = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts[:-1]))
    files: dict[Path, Path] = {}
    skipped: dict[Path, str] = {}
    for match in matches:
        listed, others = list_files(match) if match.is_dir() else ([match], {})
        skipped |= {other: _REASONS[kind] for other, kind in others.items() if kind in _REASONS}
        for file in listed:
            suffix = file.suffix.lower()
            if suffix not in suffixes:
                if suffix in FAMILIAR_SUFFIXES:
                    skipped[file] = f"not a supported format: {suffix}"
                elif _is_image(file, suffix):
                    skipped[file] = f"images with the suffix {suffix}" if suffix else "images without a suffix"
            elif file.is_file():
                files[file] = file.relative_to(base)
            else:
                skipped[file] = "broken links" if not file.exists() else "not regular files"
    return files, skipped


def _is_image(file: Path, suffix: str) -> bool:
    """Return whether a file without a suffix, or with one such as .jpg_large of a browser, has an image's content."""
    if suffix and not suffix.startswith((".jp", ".png", ".web", ".gif", ".tif", ".avif", ".hei")):
        return False
    try:
        if not file.is_file():  # a pipe would wait for a writer
            return False
        with file.open("rb") as opened:
            return detect_format(opened.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def _describe_rest(path: Path, skipped: dict[Path, str]) -> str:
    """Describe a path that contains no images."""
    reasons = sorted({*skipped.values()})
    if reasons == [_REASONS["linked folder"]]:
        return "only links to folders, which are not followed"
    if reasons:
        return f"only files and folders that are skipped ({'; '.join(reasons)})"
    kind = describe_path(path)
    return "neither" if kind in ("nothing", "a folder") else kind


def is_omitted(name: str) -> bool:
    """Return whether files and folders of this name are not searched for images: hidden ones and those of systems."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def list_files(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """List the files in a folder and its subfolders.

    Returns:
        The files, sorted, and what is skipped, each with its kind: "hidden file", "hidden folder", "system folder"
        (such as @eaDir), "linked folder" or "unreadable folder".

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
            if is_omitted(path.name):
                kind = "hidden" if path.name.startswith(".") else "system"
                skipped[path] = f"{kind} folder" if path.is_dir() else f"{kind} file"
            elif not path.is_dir():
                files.append(path)
            elif is_link(path):
                skipped[path] = "linked folder"
            else:
                folders.append(path)
    return sorted(files), skipped
