"""Files that appear whole or not at all, and what a system error says."""

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

_PREFIX = ".esrgan-"  # of temporary files; the rest is a random number


def file_digest(path: Path, reference: str | None = None) -> str:
    """Compute a file's checksum: "md5:…" if the other one is, else "sha256:…"."""
    kind = reference.partition(":")[0] if reference else "sha256"
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"


def cache_dir() -> Path:
    """Give the folder for what is made or downloaded once: $ESRGAN_CACHE, else esrgan in the user's cache folder."""
    try:
        if folder := os.environ.get("ESRGAN_CACHE"):
            return Path(folder).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "esrgan"
    except RuntimeError as error:  # a user that the system does not know
        raise EsrganError("there is no home folder; set ESRGAN_CACHE to a folder for downloads") from error


def lock(path: Path, held_by: str) -> BinaryIO:
    """Lock a file, which is made, until it is closed or the process ends, however it ends.

    Args:
        path: The file.
        held_by: What another process that has it is doing, for the message.

    Raises:
        EsrganError: Another process has it.
        OSError: It cannot be made.
    """
    file = path.open("ab")
    try:
        # Not flock, which the loader processes would inherit and hold for seconds after their trainer was killed.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise EsrganError(f"{path.parent}: {held_by}; wait until it is done, or stop it") from error
    except (OSError, AttributeError):  # a file system, or a Windows, without such locks
        pass
    return file


def write_text(path: Path, text: str) -> None:
    """Write a report, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

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
        raise EsrganError(f"{path}: cannot be written: {error.strerror}") from error


@contextmanager
def atomic_write(path: Path, *, overwrite: bool, sync: bool = True) -> Iterator[BinaryIO]:
    """Opens a file for an image; it gets its name when the block ends, and is gone if that raises.

    Args:
        path: The name; until it is whole the file is a hidden one beside it.
        overwrite: Whether a file of that name may be replaced. If not, neither is one that comes while writing.
        sync: Whether it is on the disk before it has its name: else it may be empty after a power loss.

    Raises:
        ImageError: The name is taken.
        OSError: The file cannot be made or renamed.
    """
    if os.path.lexists(path) and (path.is_dir() or not overwrite):
        raise _exists_error(path)
    temporary = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}.tmp")
    try:
        # Opened here, not by tempfile, whose files only their owner may read.
        with temporary.open("x+b") as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed: what is not locked is abandoned
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
            if fcntl:
                _publish(temporary, path, overwrite)
        if not fcntl:  # Windows renames no open file
            _publish(temporary, path, overwrite)
    finally:
        with suppress(OSError):  # gone already when all went well
            temporary.unlink()


def remove_abandoned(folder: Path) -> None:
    """Removes what processes that were killed while writing left in a folder."""
    for temporary in folder.glob(f"{_PREFIX}*.tmp") if fcntl else ():
        with suppress(OSError), temporary.open("rb") as file:  # locked: still being written
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], object]) -> Iterator[None]:
    """Lets one process after the other into the block; one that dies there makes way for the next.

    Without file locks, as on Windows and some network file systems, all go in at once.

    Args:
        path: A file to lock; it is made and stays.
        on_wait: Called if another process is in the block.

    Raises:
        OSError: The file cannot be made.
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
    """Renames, but never onto another file: a second name can only be given where there is none yet."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise _exists_error(path) from error
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise _exists_error(path) from None
        temporary.rename(path)


def _exists_error(path: Path) -> ImageError:
    got = "a folder" if path.is_dir() else "a file"
    return ImageError(Problem(str(path), "a new file", got, "choose another name, or allow overwriting files"))
