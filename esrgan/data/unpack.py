"""Unpack folders of image archives: either completely or not at all, and never outside the target folder."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from esrgan.errors import DatasetError, Problem
from esrgan.text import describe_error, format_count

# Image files hardly compress: even BSR_bsds500.tgz, which has the most other files, expands only 1.05 times.
MAX_EXPANSION = 8
_EXPANSION_ALLOWANCE = 1 << 20  # bytes that are always allowed, because headers dominate small archives
MAX_MEMBERS = 200_000
_CHUNK = 1 << 20
_PREFIX = ".esrgan-unpack-"


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_folder: bool
    is_file: bool
    open: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path,
    data_root: Path,
    folder: str,
    folders: tuple[str, ...],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Unpack folders of an archive to a temporary folder, which is renamed into place when it is complete.

    The remains of an interrupted call are deleted.

    Args:
        archive: A zip or tar file of any compression; the format is detected from the content.
        data_root: Folder to unpack into.
        folder: Folder in the archive that is renamed to the same path below ``data_root``, which must not exist.
        folders: Folders at or below ``folder`` whose files are unpacked; the rest of the archive is skipped.
        progress: Called with the bytes written and the total bytes.

    Raises:
        DatasetError: If the archive is damaged, lacks the folders, has unsafe members, expands too much, or does not
            fit on the disk.
    """
    temporary = data_root / f"{_PREFIX}{archive.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        with _open_members(archive) as members:
            _extract(archive, temporary, folders, members, progress)
        if not (temporary / folder).is_dir():
            remedy = "delete it and run this again, or report that the dataset has changed"
            raise DatasetError(Problem(str(archive), f"the folder {folder} in it", "none", remedy))
        target = data_root / folder
        target.parent.mkdir(parents=True, exist_ok=True)
        (temporary / folder).rename(target)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise _damaged_error(archive, describe_error(error)) from error
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report damage as an OSError without errno
            raise _damaged_error(archive, describe_error(error)) from error
        place = error.filename or temporary
        remedy = "free some space or make the folder writable"
        raise DatasetError(f"{place}: cannot be unpacked: {describe_error(error)}; {remedy}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract(
    archive: Path,
    temporary: Path,
    folders: tuple[str, ...],
    members: list[_Member],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the members after checking all their names and sizes."""
    files: dict[PurePosixPath, _Member] = {}
    for member in members:
        path = _safe_path(archive, member.name)
        if member.is_folder or any(part.startswith(".") for part in path.parts):
            continue  # .DS_Store and the like
        if not any(path.is_relative_to(folder) for folder in folders):
            continue
        if not member.is_file:
            raise _unsafe_error(archive, "only files and folders", f"a link or a device, {member.name!r}")
        if files.setdefault(path, member) is not member:
            raise _unsafe_error(archive, "every name only once", f"{member.name!r} twice")
    total = sum(member.size for member in members)
    limit = archive.stat().st_size * MAX_EXPANSION + _EXPANSION_ALLOWANCE
    if total > limit or len(members) > MAX_MEMBERS:
        got = f"{total:,} bytes in {format_count(len(members), 'file')}"
        raise _unsafe_error(archive, f"at most {limit:,} bytes in {MAX_MEMBERS:,} files", got)
    total = sum(member.size for member in files.values())
    free = shutil.disk_usage(temporary).free
    if total > free:
        remedy = "free some space, or choose another --data-root"
        raise DatasetError(
            Problem(str(temporary.parent), f"{total / 1e9:.1f} GB free to unpack", f"{free / 1e9:.1f} GB", remedy)
        )
    written = 0
    for path, member in files.items():
        target = temporary / path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = member.open()
        if source is None:
            raise _damaged_error(archive, f"{member.name!r} without content")
        with source, target.open("xb") as file:
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                file.write(chunk)
                if progress:
                    progress(written, total)
        if target.stat().st_size != member.size:
            raise _damaged_error(archive, f"{member.name!r} truncated")


def _safe_path(archive: Path, name: str) -> PurePosixPath:
    """Return the path of a member, after checking that on no system it leads outside the target folder."""
    windows = PureWindowsPath(name)
    if name.startswith("/") or windows.drive or windows.root or ".." in windows.parts or "\0" in name:
        raise _unsafe_error(archive, "only paths inside the target folder", repr(name))
    return PurePosixPath(name)


@contextmanager
def _open_members(archive: Path) -> Iterator[list[_Member]]:
    """Yield the members of a zip or tar file, which can be read until the block ends."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield [_zip_member(file, info) for info in file.infolist()]
    else:
        with tarfile.open(archive) as tar:
            yield list(_tar_members(archive, tar))
            _read_to_end(archive, tar)


def _zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if the archive was not made on Unix
    is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
    return _Member(info.filename, info.file_size, info.is_dir(), is_file, lambda: file.open(info))


def _tar_members(archive: Path, tar: tarfile.TarFile) -> Iterator[_Member]:
    """Yield the members; stop early if they exceed the limits, because listing a compressed tar unpacks it."""
    limit = archive.stat().st_size * MAX_EXPANSION + _EXPANSION_ALLOWANCE
    total = 0
    for count, info in enumerate(tar, 1):
        total += info.size
        yield _Member(
            info.name,
            info.size,
            info.isdir(),
            info.isreg(),
            lambda info=info: tar.extractfile(info),  # type: ignore[misc]
        )
        if total > limit or count > MAX_MEMBERS:
            return  # the caller raises


def _read_to_end(archive: Path, tar: tarfile.TarFile) -> None:
    """Read to the end of the file, so that gzip, bzip2 and xz verify their checksums; tarfile stops earlier."""
    remaining = archive.stat().st_size * MAX_EXPANSION + _EXPANSION_ALLOWANCE
    while tar.fileobj is not None and (chunk := tar.fileobj.read(_CHUNK)):
        remaining -= len(chunk)
        if remaining < 0:
            raise _damaged_error(archive, "data after its end")


def _damaged_error(archive: Path, got: str) -> DatasetError:
    return DatasetError(Problem(str(archive), "an intact archive", got, "delete it and run this again"))


def _unsafe_error(archive: Path, expected: str, got: str) -> DatasetError:
    return DatasetError(Problem(str(archive), expected, got, "delete it; it is not the published archive"))
