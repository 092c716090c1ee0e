"""Atomic writes, file locks, checksums and the cache folder."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from esrgan.errors import EsrganError, ImageError, Problem

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".esrgan-"  # of the names of temporary files; a random number follows


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


def cache_dir() -> Path:
    """Return the folder for cached results and downloads: $ESRGAN_CACHE, else esrgan in the user's cache folder.

    Raises:
        EsrganError: If $ESRGAN_CACHE is not set and there is no home folder.
    """
    try:
        if folder := os.environ.get("ESRGAN_CACHE"):
            return Path(folder).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "esrgan"
    except RuntimeError as error:  # the system does not know this user
        raise EsrganError("no home folder found; set ESRGAN_CACHE to a folder for downloads") from error


def lock(path: Path, held_by: str) -> BinaryIO:
    """Create and lock a file. The lock lasts until the file is closed or the process ends or is killed.

    Args:
        path: The file.
        held_by: What the process that holds the lock is doing, for the error message.

    Returns:
        The locked file.

    Raises:
        EsrganError: If another process holds the lock.
        OSError: If the file cannot be created.
    """
    file = path.open("ab")
    try:
        # Loader processes would inherit a flock and hold it for seconds after their trainer was killed.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise EsrganError(f"{path.parent}: {held_by}; wait for it to finish, or stop it") from error
    except (OSError, AttributeError):  # Windows, or a file system that does not support these locks
        pass
    return file


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Raises:
        EsrganError: If it cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically, and create its folder if needed.

    Raises:
        EsrganError: If it cannot be written.
    """
    temporary = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        remedy = "check the folder and its free disk space"
        raise EsrganError(f"{path}: cannot be written: {error.strerror}; {remedy}") from error


@contextmanager
def atomic_write(path: Path, *, overwrite: bool, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file that gets its name only when the block ends; if the block raises, it is deleted.

    Args:
        path: The final path. Until the block ends, the file is a hidden one in the same folder.
        overwrite: Replace an existing file. If false, a file created while the block runs is not replaced either.
        sync: Flush the file to disk before it is renamed; otherwise it may be empty after a power loss.

    Yields:
        The open file.

    Raises:
        ImageError: If the path exists and may not be replaced.
        OSError: If the file cannot be created or renamed.
    """
    if os.path.lexists(path) and (path.is_dir() or not overwrite):
        raise _exists_error(path)
    temporary = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}.tmp")
    try:
        # tempfile would create a file that only its owner can read.
        with temporary.open("x+b") as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)  # held while writing: an unlocked temporary file is abandoned
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
            if fcntl:
                _publish(temporary, path, overwrite)
        if not fcntl:  # Windows cannot rename an open file
            _publish(temporary, path, overwrite)
    finally:
        with suppress(OSError):  # on success it no longer exists
            temporary.unlink()


def remove_abandoned(folder: Path) -> None:
    """Delete the temporary files in a folder that were left by processes killed while writing."""
    for temporary in folder.glob(f"{_PREFIX}*.tmp") if fcntl else ():
        with suppress(OSError), temporary.open("rb") as file:  # a locked file is still being written
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], object]) -> Iterator[None]:
    """Run the block in one process at a time; a process that dies in it releases the lock.

    Without file locks, as on Windows and some network file systems, processes do not wait for each other.

    Args:
        path: A file to lock; it is created and kept.
        on_wait: Called if another process is in the block.

    Raises:
        OSError: If the file cannot be created.
    """
    with path.open("ab") as file:
        if fcntl:
            with suppress(OSError):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    on_wait()
                    fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    if overwrite:
        temporary.replace(path)
    else:
        _rename_new(temporary, path)


def _rename_new(temporary: Path, path: Path) -> None:
    """Rename a file without replacing another: creating a hard link fails if the name exists."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise _exists_error(path) from error
    except OSError:  # the file system has no hard links
        if os.path.lexists(path):
            raise _exists_error(path) from None
        temporary.rename(path)


def _exists_error(path: Path) -> ImageError:
    got = "a folder" if path.is_dir() else "a file"
    return ImageError(Problem(str(path), "a new file", got, "choose another name, or allow overwriting"))
