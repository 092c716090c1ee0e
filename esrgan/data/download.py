"""Downloads that go on where they were cut off, and give a file its name only when its checksum is right."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any, BinaryIO

from esrgan.data.answers import PASSING, TryAgainError, content_range, read_on, validator, wait_s
from esrgan.errors import DatasetError, Problem
from esrgan.files import file_digest, reason

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TIMEOUT_S = 30.0  # without a byte
ATTEMPTS = 5  # in a row without a byte more than before
PAUSE_S = 2.0  # after the first failure, twice that after the second, and so on
LONGEST_PAUSE_S = 60.0

Progress = Callable[[int, int | None], None]  # bytes there, bytes in all if the server tells


@dataclass(frozen=True)
class Wanted:
    """A file to download.

    Attributes:
        url: Its address.
        path: Where it goes. Until it is whole it is ``<path>.part``, beside ``<path>.part.json``.
        size: Bytes, if known.
        digest: "sha256:…" or "md5:…", if known.
    """

    url: str
    path: Path
    size: int | None = None
    digest: str | None = None

    @property
    def part(self) -> Path:
        """Where the bytes gather."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def notes(self) -> Path:
        """What the server said about the file whose beginning is in ``part``."""
        return self.path.with_name(f"{self.path.name}.part.json")

    def problem(self, expected: str, got: str, remedy: str) -> DatasetError:
        """Give the error for this address."""
        return DatasetError(Problem(self.url, expected, got, remedy))


def download(wanted: Wanted, progress: Progress | None = None, trouble: Callable[[str], None] | None = None) -> str:
    """Download a file, or the rest of it, and check it. A file that is there already is only checked.

    Args:
        wanted: What to download.
        progress: Called after each piece.
        trouble: Told why it waits before it asks again.

    Returns:
        Its checksum, "sha256:…" unless another kind was wanted.

    Raises:
        DatasetError: If the address has nothing or something else, the network stays away, the disk is full, or the
            checksum is wrong twice.
    """
    if wanted.path.exists():
        return check(wanted)
    try:
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        with wanted.part.open("ab") as file, _alone(wanted, file):
            if wanted.path.exists():  # another process has just finished, and what is open may be its file
                return check(wanted)
            for last in (False, True):
                _fetch(wanted, file, progress, trouble)
                digest = file_digest(wanted.part, wanted.digest)
                if wanted.digest in (None, digest):
                    break
                _clear(file)  # nobody knows which byte is wrong
                if last:
                    remedy = f"download it elsewhere to {wanted.path}, or report that it has changed"
                    raise wanted.problem(wanted.digest or "", f"{digest}, twice", remedy)
            if fcntl is None:
                file.close()  # Windows cannot rename it otherwise, and has no lock to lose
            wanted.part.replace(wanted.path)
        wanted.notes.unlink(missing_ok=True)
    except OSError as error:
        raise DatasetError(
            f"{error.filename or wanted.part}: cannot be written: {reason(error)}; free some space or allow writing"
        ) from error
    return digest


def check(wanted: Wanted) -> str:
    """Check a file that has been downloaded; give its checksum.

    Raises:
        DatasetError: If it is another than wanted, or cannot be read.
    """
    try:
        digest = file_digest(wanted.path, wanted.digest)
    except OSError as error:
        raise DatasetError(f"{wanted.path}: cannot be read: {reason(error)}; move it away") from error
    if wanted.digest not in (None, digest):
        raise DatasetError(Problem(str(wanted.path), wanted.digest or "", digest, "delete it and run this again"))
    return digest


@contextmanager
def _alone(wanted: Wanted, file: BinaryIO) -> Iterator[None]:
    """Keep other processes from writing the same file; the system forgets the lock when the process ends."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "wait for the other process"
            raise DatasetError(Problem(str(wanted.part), "to write it alone", "a second download", remedy)) from error
    yield


def _fetch(wanted: Wanted, file: BinaryIO, progress: Progress | None, trouble: Callable[[str], None] | None) -> None:
    """Try until ``part`` is whole."""
    most, failures = file.tell(), 0
    if (
        wanted.digest
        and most == _read_notes(wanted).get("total")
        and file_digest(wanted.part, wanted.digest) == (wanted.digest)
    ):
        return  # the process was killed before it could rename it
    while True:
        try:
            _attempt(wanted, file, progress)
            return
        except TryAgainError as error:
            failures = 0 if file.tell() > most else failures + 1
            most = max(most, file.tell())
            if failures >= ATTEMPTS:
                remedy = f"run this again to go on from byte {most:,}, or download it elsewhere to {wanted.path}"
                raise wanted.problem("an answer", f"{error}, {failures} times", remedy) from error
            pause_s = PAUSE_S * 2 ** max(0, failures - 1) if error.pause_s is None else error.pause_s
            pause_s = min(pause_s, LONGEST_PAUSE_S)
            if trouble:
                trouble(f"{error}; next attempt in {pause_s:.0f} s")
            time.sleep(pause_s)


def _attempt(wanted: Wanted, file: BinaryIO, progress: Progress | None) -> None:
    """Ask once, for what is missing if the beginning is of the same file."""
    notes = _read_notes(wanted)
    if notes.get("url") != wanted.url or not (notes.get("validator") or wanted.digest):
        _clear(file)  # without a checksum or validator a mixture of two files could go unnoticed
    there = file.seek(0, 2)
    headers = {"User-Agent": "esrgan", "Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
        if notes.get("validator"):
            headers["If-Range"] = notes["validator"]
    request = urllib.request.Request(wanted.url, headers=headers)  # noqa: S310  an address of ours
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            total = _begin(wanted, file, answer.status, answer.headers)
            _receive(wanted, file, answer, total, progress)
    except urllib.error.HTTPError as error:
        _refused(wanted, file, there, error)
    except ssl.SSLCertVerificationError as error:
        raise _untrusted(wanted, error) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise _untrusted(wanted, error.reason) from error
        said = error.reason
        raise TryAgainError(reason(said) if isinstance(said, OSError) else str(said)) from error
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise TryAgainError(reason(error)) from error


def _begin(wanted: Wanted, file: BinaryIO, status: int, headers: Message) -> int | None:
    """Decide where the answer's bytes go; give the size of the whole file if the server tells."""
    if headers.get_content_type() == "text/html":
        remedy = f"open the address in a browser and save the file as {wanted.path}"
        raise wanted.problem("a file to download", "a web page", remedy)
    length = headers.get("Content-Length")
    total = int(length) if length and length.isdecimal() else None
    version = validator(headers)
    if status == http.HTTPStatus.PARTIAL_CONTENT:
        first, total = content_range(headers)
        known = _read_notes(wanted)
        if first != file.tell() or version != known.get("validator") or total != (known.get("total") or total):
            _clear(file)
            raise TryAgainError("another part or another file than before")
    else:
        _clear(file)  # the file has changed, or the server knows no ranges
    if wanted.size is not None and total not in (None, wanted.size):
        remedy = f"download it elsewhere to {wanted.path}, or report that it has changed"
        raise wanted.problem(f"{wanted.size:,} bytes", f"{total:,}", remedy)
    missing = (total or 0) - file.tell()
    free = shutil.disk_usage(wanted.part.parent).free
    if missing > free:
        expected = f"{missing / 1e9:.1f} GB free"
        remedy = "free some, or choose another folder"
        raise DatasetError(Problem(str(wanted.part.parent), expected, f"{free / 1e9:.1f} GB", remedy))
    wanted.notes.write_text(json.dumps({"url": wanted.url, "validator": version, "total": total}))
    return total


def _receive(wanted: Wanted, file: BinaryIO, answer: IO[bytes], total: int | None, progress: Progress | None) -> None:
    most = wanted.size or total
    while chunk := read_on(answer):
        file.write(chunk)
        if most is not None and file.tell() > most:
            _clear(file)
            raise TryAgainError("more bytes than announced")
        if progress:
            progress(file.tell(), most)
    file.flush()
    if most is not None and file.tell() < most:  # read() is silent about a connection that was cut
        raise TryAgainError(f"the end of the answer at {file.tell():,} of {most:,} bytes")


def _clear(file: BinaryIO) -> None:
    """Begin the file anew."""
    file.seek(0)
    file.truncate()


def _refused(wanted: Wanted, file: BinaryIO, there: int, error: urllib.error.HTTPError) -> None:
    """Make an error of an answer that is one. Returns only if there is nothing left to ask for."""
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        if error.headers.get("Content-Range") == f"bytes */{there}":
            return  # it was whole already
        _clear(file)
        raise TryAgainError("another file than before") from error
    if error.code in PASSING:
        raise TryAgainError(f"HTTP {error.code} {error.reason}", wait_s(error.headers)) from error
    remedy = f"find it elsewhere and save it as {wanted.path}"
    said = " ".join(error.reason.split())  # of a loop of redirections two lines
    raise wanted.problem("a file", f"HTTP {error.code} {said}", remedy) from error


def _untrusted(wanted: Wanted, error: ssl.SSLCertVerificationError) -> DatasetError:
    got = f"a certificate that cannot be verified ({error.verify_message})"
    return wanted.problem("a server to trust", got, "install your system's certificates, or correct its clock")


def _read_notes(wanted: Wanted) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        notes = json.loads(wanted.notes.read_text())
        if isinstance(notes, dict):
            return notes
    return {}
