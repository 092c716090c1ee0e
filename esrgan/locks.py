"""Locks on files, which hold until the file is closed or the process ends or is killed."""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from pathlib import Path
from typing import BinaryIO

from esrgan.console import log
from esrgan.errors import EsrganError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # every other system
    msvcrt = None  # type: ignore[assignment]

_LOCK_VIOLATION = 33  # Windows' error for bytes that another process has locked
_locked: weakref.WeakSet[BinaryIO] = weakref.WeakSet()


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
    if try_lock(file) is False:
        if not wait:
            file.close()
            raise EsrganError(f"{busy}; wait for it to finish, or stop it")
        log.info("%s; waiting for it", busy)
        while try_lock(file) is False:
            time.sleep(0.2)
    _locked.add(file)
    return file


def try_lock(file: BinaryIO) -> bool | None:
    """Lock a file; return False if another process has locked it, and None if its file system has no locks."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return _lock_on_windows(file) if msvcrt else None
    except BlockingIOError:
        return False
    except OSError:
        return None


def _lock_on_windows(file: BinaryIO) -> bool | None:
    """Lock the byte at 2**62: nobody else can read what is locked, so it must be one that no file has.

    ``msvcrt.locking`` can only lock bytes below 2**31.
    """
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    handle = ctypes.c_void_p(msvcrt.get_osfhandle(file.fileno()))  # type: ignore[attr-defined]
    if kernel.LockFile(handle, 0, 2**30, 1, 0):
        return True
    is_locked = ctypes.get_last_error() == _LOCK_VIOLATION  # type: ignore[attr-defined]
    return False if is_locked else None


def _close_locked() -> None:
    """Close inherited locks in a forked process, such as a loader, which may outlive the process that holds them."""
    for file in list(_locked):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locked)
