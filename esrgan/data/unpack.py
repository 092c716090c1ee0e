"""Unpacks archives of images: only what is wanted, never outside the folder, and all of it or nothing."""

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
from esrgan.files import reason

# Photographs are compressed already: BSR_bsds500.tgz, the one with most other things in it, has 1.05 times its size.
MOST_GROWTH = 8
_GROWTH_FREE = 1 << 20  # bytes that need no excuse, as the headers of small archives weigh more
MOST_MEMBERS = 200_000
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
    wanted: tuple[str, ...],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Unpack folders of an archive; they appear under their name when they are whole.

    What an interrupted call left is thrown away.

    Args:
        archive: A zip or tar file, of any compression; what it is is told by its content.
        data_root: Where to.
        folder: Folder in the archive and under ``data_root`` that is renamed into place; must not be there yet.
        wanted: Folders at or below ``folder`` whose files are unpacked; the rest of the archive is left out.
        progress: Called with the bytes written and the bytes in all.

    Raises:
        DatasetError: If the archive is damaged, has none of the folders or names that lead out of it, grows beyond
            reason, or does not fit on the disk.
    """
    temporary = data_root / f"{_PREFIX}{archive.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        with _open(archive) as members:
            _write(archive, temporary, wanted, members, progress)
        if not (temporary / folder).is_dir():
            remedy = "delete it and run this again, or report that the dataset has changed"
            raise DatasetError(Problem(str(archive), f"the folder {folder} in it", "none", remedy))
        target = data_root / folder
        target.parent.mkdir(parents=True, exist_ok=True)
        (temporary / folder).rename(target)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise _damaged(archive, reason(error)) from error
    except OSError as error:
        if error.errno is None:  # gzip and bz2 tell of damage by an OSError that no system call made
            raise _damaged(archive, reason(error)) from error
        place = error.filename or temporary
        raise DatasetError(f"{place}: cannot be unpacked: {reason(error)}; free some space or allow writing") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    archive: Path,
    temporary: Path,
    wanted: tuple[str, ...],
    members: list[_Member],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Check every name and size before the first byte is written; then write."""
    files: dict[PurePosixPath, _Member] = {}
    for member in members:
        path = _safe(archive, member.name)
        if member.is_folder or any(part.startswith(".") for part in path.parts):
            continue  # .DS_Store and the like
        if not any(path.is_relative_to(folder) for folder in wanted):
            continue
        if not member.is_file:
            raise _hostile(archive, "files and folders alone", f"a link or a device, {member.name!r}")
        if files.setdefault(path, member) is not member:
            raise _hostile(archive, "every name once", f"{member.name!r} twice")
    total = sum(member.size for member in members)
    limit = archive.stat().st_size * MOST_GROWTH + _GROWTH_FREE
    if total > limit or len(members) > MOST_MEMBERS:
        got = f"{total:,} bytes in {len(members):,} files"
        raise _hostile(archive, f"at most {limit:,} bytes in {MOST_MEMBERS:,} files", got)
    total = sum(member.size for member in files.values())
    free = shutil.disk_usage(temporary).free
    if total > free:
        remedy = "free some, or choose another --data-root"
        raise DatasetError(
            Problem(str(temporary.parent), f"{total / 1e9:.1f} GB free to unpack", f"{free / 1e9:.1f} GB", remedy)
        )
    written = 0
    for path, member in files.items():
        target = temporary / path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = member.open()
        if source is None:
            raise _damaged(archive, f"{member.name!r} has no content")
        with source, target.open("xb") as file:
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                file.write(chunk)
                if progress:
                    progress(written, total)
        if target.stat().st_size != member.size:
            raise _damaged(archive, f"{member.name!r} is cut off")


def _safe(archive: Path, name: str) -> PurePosixPath:
    """Give a member's path if it leads nowhere else on any system."""
    windows = PureWindowsPath(name)
    if name.startswith("/") or windows.drive or windows.root or ".." in windows.parts or "\0" in name:
        raise _hostile(archive, "names inside the folder", repr(name))
    return PurePosixPath(name)


@contextmanager
def _open(archive: Path) -> Iterator[list[_Member]]:
    """List the members of a zip or tar file, to be read until the block ends."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield [_zip_member(file, info) for info in file.infolist()]
    else:
        with tarfile.open(archive) as tar:
            yield list(_tar_members(archive, tar))
            _read_on(archive, tar)


def _zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
    is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
    return _Member(info.filename, info.file_size, info.is_dir(), is_file, lambda: file.open(info))


def _tar_members(archive: Path, tar: tarfile.TarFile) -> Iterator[_Member]:
    """List the members; stop early where a compressed archive goes on and on."""
    limit = archive.stat().st_size * MOST_GROWTH + _GROWTH_FREE
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
        if total > limit or count > MOST_MEMBERS:
            return  # the caller finds it too large


def _read_on(archive: Path, tar: tarfile.TarFile) -> None:
    """Read to the very end, where gzip, bzip2 and xz have their sums; tarfile stops at its own end mark."""
    left = archive.stat().st_size * MOST_GROWTH + _GROWTH_FREE
    while tar.fileobj is not None and (chunk := tar.fileobj.read(_CHUNK)):
        left -= len(chunk)
        if left < 0:
            raise _damaged(archive, "more behind its end")


def _damaged(archive: Path, got: str) -> DatasetError:
    return DatasetError(Problem(str(archive), "a whole archive", got, "delete it and run this again"))


def _hostile(archive: Path, expected: str, got: str) -> DatasetError:
    return DatasetError(Problem(str(archive), expected, got, "delete it; it is not the published archive"))
