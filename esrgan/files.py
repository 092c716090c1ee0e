"""Atomic writes, file locks, checksums and the cache folder."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import secrets
import stat
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from esrgan.console import log
from esrgan.errors import EsrganError, Problem
from esrgan.text import describe_error, find_similar

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MAX_NAMES = 10_000  # of a folder that are compared with a missing one
_PREFIX = ".esrgan-"  # of the names of temporary files; a random number follows
_ABANDONED_S = 86_400.0  # age at which a temporary file is taken for abandoned where there are no file locks
_locked: weakref.WeakSet[BinaryIO] = weakref.WeakSet()


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


def expand_user(path: str | Path) -> Path:
    """Return a path with ``~`` at its beginning replaced by the home folder, if there is one."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser() raises for a file such as ~$draft.png


_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
_KINDS |= dict.fromkeys((stat.S_IFCHR, stat.S_IFBLK), "a device")


def describe_path(path: Path) -> str:
    """Describe what exists at a path: "a folder", "a file", "a device", "nothing", or why this cannot be determined."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode), "a file")
    except (FileNotFoundError, ValueError):  # ValueError: no file can have this name
        return "nothing"
    except OSError as error:
        return f"a path that cannot be read: {error.strerror}"


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
        if path.parts[0].startswith("~"):
            raise EsrganError(f"ESRGAN_CACHE: there is no user {path.parts[0][1:]}; set it to a folder for downloads")
        return path
    path = expand_user(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "esrgan"
    if path.parts[0] == "~":  # the system does not know this user
        raise EsrganError("no home folder found; set ESRGAN_CACHE to a folder for downloads")
    return path


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
        with tempfile.TemporaryFile(dir=path.parent):
            pass
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
        with tempfile.TemporaryFile(dir=existing):
            return None
    except OSError as error:
        what = "files cannot be created in this folder" if folder.is_dir() else "cannot create this folder"
        return _describe_folder_error(folder, what, error)


def _describe_folder_error(folder: Path, what: str, error: OSError) -> Problem:
    return _find_file_in_place_of_folder(folder, error) or Problem.failure(
        folder, f"{what}: {describe_error(error)}", "choose another folder or change the permissions"
    )


def _find_file_in_place_of_folder(folder: Path, error: OSError) -> Problem | None:
    """Return the problem that a folder or one of its parents is a file, if an error says so."""
    if not isinstance(error, (FileExistsError, NotADirectoryError)):
        return None
    existing = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    if (kind := describe_path(existing)) not in ("a file", "a named pipe", "a socket", "a device"):
        return None
    return Problem(str(existing), "a folder", kind, "choose another folder")


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
        length = len(os.fsencode(path.name))
        what = f"no file can have this name of {length} bytes: {describe_error(error)}"
        return Problem.failure(path, what, "use a shorter name or folder")
    return None


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
    remedy = "use shorter names" if error.errno == errno.ENAMETOOLONG else "check the folder and its free disk space"
    return Problem.failure(path, f"cannot be written: {describe_error(error)}", remedy)


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
    # tempfile would create a file that only its owner can read. A name of fixed length is possible for every path.
    temporary = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x+b") as file:
            _try_lock(file)  # held while writing: an unlocked temporary file is abandoned
            yield file
            file.flush()
            if sync:
                _sync(file)
            if fcntl:
                _publish(temporary, path, overwrite)
        if not fcntl:  # Windows cannot rename an open file
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
        with suppress(OSError), temporary.open("rb") as file:
            is_locked = _try_lock(file)  # if it cannot be locked, it is still being written
            if is_locked or (is_locked is None and time.time() - temporary.stat().st_mtime > _ABANDONED_S):
                temporary.unlink()


def lock(path: Path, busy: str, *, wait: bool = False) -> BinaryIO:
    """Create and lock a file. The lock lasts until the file is closed or the process ends or is killed.

    On file systems without locks, such as some network file systems, every process gets the lock.

    Args:
        path: The file, which is kept.
        busy: What the process that holds the lock is doing, and where.
        wait: Whether to wait for that process, with a message, instead of raising an error.

    Returns:
        The locked file.

    Raises:
        EsrganError: If another process holds the lock and ``wait`` is false.
        OSError: If the file cannot be created.
    """
    file = path.open("ab")
    if _try_lock(file) is False:
        if not wait:
            file.close()
            raise EsrganError(f"{busy}; wait for it to finish, or stop it")
        log.info("%s; waiting for it", busy)
        fcntl.flock(file, fcntl.LOCK_EX)
    _locked.add(file)
    return file


def _try_lock(file: BinaryIO) -> bool | None:
    """Lock a file; return False if another process has locked it, and None if its file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _close_locked() -> None:
    """Close inherited locks in a forked process, such as a loader, which may outlive the process that holds them."""
    for file in list(_locked):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locked)


def _sync(file: BinaryIO) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # those file systems cannot do this
            raise


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    """Rename a file. Without ``overwrite``, creating a hard link fails if the name exists."""
    if overwrite:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _exists_error(path) from None
    except OSError:  # the file system has no hard links
        if os.path.lexists(path):
            raise _exists_error(path) from None
        temporary.rename(path)


def _exists_error(path: Path) -> FileExistsError:
    got = "a folder" if path.is_dir() else "a file"
    text = f"expected a new file, got {got}; choose another name, or allow overwriting"
    return FileExistsError(errno.EEXIST, text, str(path))
