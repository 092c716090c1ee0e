"""Unpack folders of image archives, either completely or not at all. The archives' checksums were verified before."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from esrgan.errors import DatasetError, Problem
from esrgan.files import replace_file
from esrgan.progress import Progress
from esrgan.text import describe_error, format_size

_PREFIX = ".esrgan-unpack-"


def unpack(archive: Path, data_root: Path, folder: str, folders: tuple[str, ...]) -> None:
    """Unpack folders of an archive to a temporary folder, which is renamed into place when it is complete.

    The remains of an interrupted call are deleted.

    Args:
        archive: A zip or tar file of any compression; the format is detected from the content.
        data_root: Folder to unpack into.
        folder: Folder in the archive that is renamed to the same path below ``data_root``, which must not exist.
        folders: Folders at or below ``folder`` whose files are unpacked; the rest of the archive is skipped.

    Raises:
        DatasetError: If the archive is damaged, lacks the folders, has unsafe members, or does not fit on the disk.
    """
    temporary = data_root / f"{_PREFIX}{archive.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        with zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive) as opened:
            _extract(archive, opened, temporary, folders)
        if not (temporary / folder).is_dir():
            remedy = "delete it and run this again, or report that the dataset has changed"
            raise DatasetError(Problem(str(archive), f"the folder {folder} in it", "none", remedy))
        target = data_root / folder
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(temporary / folder, target)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if not isinstance(error, OSError) or error.errno is None:  # gzip reports damage as an OSError without errno
            got, remedy = describe_error(error), "delete it and run this again"
            raise DatasetError(Problem(str(archive), "an intact archive", got, remedy)) from error
        place = error.filename or temporary
        remedy = "free some space or make the folder writable"
        raise DatasetError(f"{place}: cannot be unpacked: {describe_error(error)}; {remedy}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract(
    archive: Path, opened: zipfile.ZipFile | tarfile.TarFile, temporary: Path, folders: tuple[str, ...]
) -> None:
    """Extract the files of some folders. Both formats' methods refuse or change paths that lead out of the folder."""
    if isinstance(opened, zipfile.ZipFile):
        sizes = {info.filename: info.file_size for info in opened.infolist() if not info.is_dir()}
    else:
        opened.extraction_filter = tarfile.data_filter
        sizes = {info.name: info.size for info in opened if not info.isdir()}
    names = []
    for name in sizes:
        path = PurePosixPath(name)
        is_hidden = any(part.startswith(".") for part in path.parts)  # .DS_Store and the like
        if not is_hidden and any(map(path.is_relative_to, folders)):
            names.append(name)
    total, free = sum(sizes[name] for name in names), shutil.disk_usage(temporary).free
    if total > free:
        remedy = "free some space, or choose another --data-root"
        expected = f"{format_size(total)} free to unpack"
        raise DatasetError(Problem(str(temporary.parent), expected, format_size(free), remedy))
    shown = Progress({name: sizes[name] for name in names}, f"unpacking {archive.name}: ")
    for name in names:
        opened.extract(name, temporary)
        shown.finish(name)
