"""Atomic writes, file locks, checksums and the cache folder."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import os
import secrets
import stat
import sys
import tempfile
import time
import unicodedata
import weakref
from collections.abc import Callable, Iterator
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
try:
    import msvcrt
except ImportError:  # every other system
    msvcrt = None  # type: ignore[assignment]

_MAX_NAMES = 10_000  # of a folder that are compared with a missing one
_PREFIX = ".esrgan-"  # of the names of temporary files; a random number follows
_ABANDONED_S = 86_400.0  # age at which a temporary file is taken for abandoned where there are no file locks
_LOCK_VIOLATION = 33  # Windows' error for bytes that another process has locked
_ACCESS_DENIED, _SHARING_VIOLATION = 5, 32  # Windows' errors; a file that another program has open causes either
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # until another program, such as a virus scanner, closes a file
_MAX_WINDOWS_PATH = 259  # characters, unless long paths are enabled
_MOUNT_POINT = 0xA0000003  # st_reparse_tag of a junction
_ALLOWED_CHARACTERS = 'leave out < > : " | ? *'  # which Windows does not allow in names
# What file managers write into folders that they show.
_LITTER = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"}
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
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())


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
            return Problem.failure(path, f"no file can have this name: {describe_error(error)}", _ALLOWED_CHARACTERS)
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
    length = len(os.path.abspath(_temporary_path(path.parent)))  # noqa: PTH100  Path.resolve() would follow links
    if msvcrt and isinstance(error, FileNotFoundError) and length > _MAX_WINDOWS_PATH:
        what = f"the path of the temporary file has {length} characters, and Windows allows {_MAX_WINDOWS_PATH}"
        return Problem.failure(path, f"cannot be written: {what}", "use a shorter folder, or enable long paths")
    return Problem.failure(path, f"cannot be written: {describe_error(error)}", write_remedy(error))


def write_remedy(error: Exception) -> str:
    """Return what to do so that a file can be written, after the error of an attempt."""
    if isinstance(error, OSError) and _may_be_held_open(error):
        or_permissions = ", or change its permissions" if error.winerror == _ACCESS_DENIED else ""  # type: ignore[attr-defined]
        return f"close the program that has it open{or_permissions}"
    remedies = {errno.ENAMETOOLONG: "use shorter names", errno.EINVAL: _ALLOWED_CHARACTERS}
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
        with suppress(OSError):
            with temporary.open("rb") as file:
                is_locked = _try_lock(file)  # if it cannot be locked, it is still being written
            is_old = time.time() - temporary.stat().st_mtime > _ABANDONED_S
            # Windows renames files only when they are closed, and then they are not locked either.
            if (is_locked and fcntl) or (is_locked is not False and is_old):
                temporary.unlink()  # only now, because Windows cannot delete an open file


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
        while _try_lock(file) is False:
            time.sleep(0.2)
    _locked.add(file)
    return file


def _try_lock(file: BinaryIO) -> bool | None:
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

    Windows denies access also if a right is missing. No program has a file open whose name is free, but one may have a
    file in a folder open that is renamed.
    """
    code = getattr(error, "winerror", None) if error.filename2 is not None else None
    may_be_open = code == _ACCESS_DENIED and (os.path.lexists(error.filename2) or Path(error.filename).is_dir())
    return code == _SHARING_VIOLATION or may_be_open


def _exists_error(path: Path) -> FileExistsError:
    got = "a folder" if path.is_dir() else "a file"
    text = f"expected a new file, got {got}; choose another name, or allow overwriting"
    return FileExistsError(errno.EEXIST, text, str(path))
