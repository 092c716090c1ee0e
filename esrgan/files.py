"""Atomic writes, folders for outputs, and checksums."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from esrgan.errors import EsrganError, Problem
from esrgan.locks import try_lock
from esrgan.paths import ALLOWED_CHARACTERS, describe_path
from esrgan.text import describe_error

_IS_WINDOWS = os.name == "nt"
_PREFIX = ".esrgan-"  # of the names of temporary files; a random number follows
_ABANDONED_S = 86_400.0  # age at which a temporary file is taken for abandoned where there are no file locks
_ACCESS_DENIED, _SHARING_VIOLATION = 5, 32  # Windows' errors; a file that another program has open causes either
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # until another program, such as a virus scanner, closes a file
_MAX_WINDOWS_PATH = 259  # characters, unless long paths are enabled


def file_digest(path: Path, reference: str | None = None) -> str:
    """Return the checksum of a file.

    Args:
        path: The file.
        reference: A checksum to compare with, such as "md5:…", whose algorithm is used; None uses SHA-256.

    Returns:
        "sha256:…", or the same algorithm as ``reference``.
    """
    kind = reference.partition(":")[0] if reference else "sha256"
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"


def check_temporary_folder() -> None:
    """Check that there is a folder for temporary files, which some libraries need as soon as they are imported.

    Raises:
        EsrganError: If there is none.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise EsrganError("no folder for temporary files can be written; set TMPDIR to one that can") from error


def check_output_path(path: Path) -> None:
    """Create the folder of an output file and check that the file can be written, before hours of work.

    Raises:
        EsrganError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # any other error says why the file cannot be written
            if stat.S_ISDIR(path.stat().st_mode):
                raise EsrganError(Problem(str(path), "the name of a file to write", "a folder"))
        if _is_stream(path):
            return
        path = Path(os.path.realpath(path))
        _try_to_write(path.parent)
    except OSError as error:
        raise write_error(path, error) from error


def create_folder(folder: Path) -> None:
    """Create a folder for outputs and its parents, unless they exist.

    Raises:
        EsrganError: If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EsrganError(_describe_folder_error(folder, "cannot create this folder", error)) from error


def find_folder_problem(folder: Path) -> Problem | None:
    """Return why no files can be created in a folder, without creating it; None if they can.

    Only trying shows a read-only medium, and what access control lists and network file systems allow.
    """
    existing = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    try:
        _try_to_write(existing)
    except OSError as error:
        what = "files cannot be created in this folder" if folder.is_dir() else "cannot create this folder"
        return _describe_folder_error(folder, what, error)
    return None


def _try_to_write(folder: Path) -> None:
    """Create a file in a folder and delete it.

    The module tempfile would try again with billions of names where Windows denies access to the folder.
    """
    temporary = _temporary_path(folder)
    temporary.touch(exist_ok=False)
    temporary.unlink(missing_ok=True)  # another process may have taken it for abandoned


def _temporary_path(folder: Path) -> Path:
    """Return a name of fixed length, which is possible wherever that of the file is, unless the path is too long."""
    return folder / f"{_PREFIX}{secrets.token_hex(8)}.tmp"


def _describe_folder_error(folder: Path, what: str, error: OSError) -> Problem:
    return _find_file_in_place_of_folder(folder, error) or Problem.failure(
        folder, f"{what}: {describe_error(error)}", "choose another folder or change the permissions"
    )


def _find_file_in_place_of_folder(folder: Path, error: OSError) -> Problem | None:
    """Return the problem that a folder or one of its parents is a file, if an error says so."""
    if not isinstance(error, (FileExistsError, NotADirectoryError, FileNotFoundError)):  # the last one on Windows
        return None
    existing = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    if (kind := describe_path(existing)) not in ("a file", "a named pipe", "a socket", "a device"):
        return None
    return Problem(str(existing), "a folder", kind, "choose another folder")


def write_text(path: Path, text: str, *, overwrite: bool = True) -> None:
    """Write a UTF-8 text file atomically, and create its folder if needed.

    Characters that stand for bytes of file names which are not UTF-8 are written as these bytes.

    Raises:
        EsrganError: If it cannot be written, or exists and ``overwrite`` is false.
    """
    write_bytes(path, text.encode(errors="surrogateescape"), overwrite=overwrite)


def write_bytes(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write a file atomically, and create its folder if needed.

    Raises:
        EsrganError: If it cannot be written, or exists and ``overwrite`` is false.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, overwrite=overwrite) as file:
            file.write(content)
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> EsrganError:
    """Return an error for users about a file that could not be written with ``atomic_write``."""
    return EsrganError(describe_write_error(path, error))


def describe_write_error(path: Path, error: OSError) -> Problem:
    """Return why a file could not be written with ``atomic_write``."""
    if isinstance(error, FileExistsError) and Path(error.filename).is_dir():
        return Problem(str(error.filename), "a file to write", "a folder", "choose another name")
    # atomic_write has followed links; and this is not about a file in place of the folder
    if isinstance(error, FileExistsError) and os.path.realpath(error.filename) == os.path.realpath(path):
        return Problem(str(path), "a new file", "a file", "choose another name, or allow overwriting")
    if problem := _find_file_in_place_of_folder(path.parent, error):
        return problem
    length = len(os.path.abspath(_temporary_path(path.parent)))  # noqa: PTH100  Path.resolve() would follow links
    if _IS_WINDOWS and isinstance(error, FileNotFoundError) and length > _MAX_WINDOWS_PATH:
        what = f"the path of the temporary file has {length} characters, and Windows allows {_MAX_WINDOWS_PATH}"
        return Problem.failure(path, f"cannot be written: {what}", "use a shorter folder, or enable long paths")
    return Problem.failure(path, f"cannot be written: {describe_error(error)}", write_remedy(error))


def write_remedy(error: Exception) -> str:
    """Return what to do so that a file can be written, after the error of an attempt."""
    if isinstance(error, OSError) and _may_be_held_open(error):
        or_permissions = ", or change its permissions" if error.winerror == _ACCESS_DENIED else ""  # type: ignore[attr-defined]
        return f"close the program that has it open{or_permissions}"
    remedies = {errno.ENAMETOOLONG: "use shorter names", errno.EINVAL: ALLOWED_CHARACTERS}
    return remedies.get(getattr(error, "errno", None) or 0, "check the folder and its free disk space")


@contextmanager
def atomic_write(path: Path, *, overwrite: bool = True, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file that gets its name only when the block ends; if the block raises, it is deleted.

    Args:
        path: The final path. Until the block ends, the file is a hidden one in the same folder.
        overwrite: Replace an existing file. If false, a file created while the block runs is not replaced either.
        sync: Flush the file to disk before it is renamed; otherwise it may be empty after a power loss.

    Yields:
        The open file.

    Raises:
        FileExistsError: If the path is a folder, or a file that may not be replaced.
        OSError: If the file cannot be created, written or renamed.
    """
    if os.path.lexists(path) and (path.is_dir() or not overwrite):
        raise _exists_error(path)
    if _is_stream(path):
        with _open_stream(path) as file:
            yield file
        return
    path = Path(os.path.realpath(path))  # a symbolic link stays one
    temporary = _temporary_path(path.parent)  # tempfile would create a file that only its owner can read
    try:
        with temporary.open("x+b") as file:
            try_lock(file)  # held while writing: an unlocked temporary file is abandoned
            yield file
            file.flush()
            if sync:
                _sync(file)
            if not _IS_WINDOWS:
                _publish(temporary, path, overwrite)
        if _IS_WINDOWS:  # Windows cannot rename an open file
            _publish(temporary, path, overwrite)
    finally:
        with suppress(OSError):  # on success it no longer exists
            temporary.unlink()


def _is_stream(path: Path) -> bool:
    """Return whether a path is a device, a pipe or a redirected standard stream, which must not be replaced."""
    return path.exists() and (_standard_stream(path) is not None or not (path.is_file() or path.is_dir()))


def _standard_stream(path: Path) -> TextIO | None:
    """Return the standard stream that writes to the same file: /dev/stdout can be a link to a regular file."""
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError, AttributeError):  # a closed stream, or one without a file
            if os.path.samestat(path.stat(), os.fstat(stream.fileno())):  # type: ignore[union-attr]
                return stream
    return None


def _open_stream(path: Path) -> BinaryIO:
    if stream := _standard_stream(path):
        stream.flush()
        return os.fdopen(os.dup(stream.fileno()), "wb")  # shares the position in the file
    return path.open("wb")


def remove_abandoned(folder: Path) -> None:
    """Delete the temporary files in a folder that were left by processes killed while writing."""
    for temporary in folder.glob(f"{_PREFIX}*.tmp"):
        with suppress(OSError):
            with temporary.open("rb") as file:
                is_locked = try_lock(file)  # if it cannot be locked, it is still being written
            is_old = time.time() - temporary.stat().st_mtime > _ABANDONED_S
            # Windows renames files only when they are closed, and then they are not locked either.
            if (is_locked and not _IS_WINDOWS) or (is_locked is not False and is_old):
                temporary.unlink()  # only now, because Windows cannot delete an open file


def _sync(file: BinaryIO) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # those file systems cannot do this
            raise


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    """Rename a file. Without ``overwrite``, creating a hard link fails if the name exists."""
    if overwrite:
        replace_file(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _exists_error(path) from None
    except OSError:  # the file system has no hard links
        if os.path.lexists(path):
            raise _exists_error(path) from None
        temporary.rename(path)


def replace_file(source: Path, target: Path) -> None:
    """Rename a file, over an existing one if there is one.

    Windows refuses this while another program has one of them open, so that is waited for, for some seconds.

    Raises:
        OSError: If it cannot be renamed.
    """
    for pause_s in _PAUSES_S:
        try:
            source.replace(target)
            return
        except OSError as error:
            if not _may_be_held_open(error):
                raise
        time.sleep(pause_s)
    source.replace(target)


def _may_be_held_open(error: OSError) -> bool:
    """Return whether a file could not be renamed perhaps because a program has it open.

    Windows reports a sharing violation if the file itself is open. It denies access if the file that would be replaced
    or one in a folder that is renamed is open, but also if a right is missing.
    """
    code = getattr(error, "winerror", None) if error.filename2 is not None else None
    may_be_open = code == _ACCESS_DENIED and (os.path.lexists(error.filename2) or Path(error.filename).is_dir())
    return code == _SHARING_VIOLATION or may_be_open


def _exists_error(path: Path) -> FileExistsError:
    got = "a folder" if path.is_dir() else "a file"
    text = f"expected a new file, got {got}; choose another name, or allow overwriting"
    return FileExistsError(errno.EEXIST, text, str(path))
