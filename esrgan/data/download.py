"""Resumable downloads, which are renamed to their final name only after their checksum is verified."""

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

from esrgan.data.http_responses import (
    RETRYABLE_STATUS_CODES,
    RetryableError,
    get_validator,
    parse_content_range,
    parse_retry_after,
    read_chunk,
)
from esrgan.errors import DatasetError, Problem
from esrgan.files import file_digest
from esrgan.text import describe_error, format_count

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TIMEOUT_S = 30.0  # longest wait for the next bytes
MAX_ATTEMPTS = 5  # consecutive attempts without progress
RETRY_DELAY_S = 2.0  # after the first failure; doubled after each further one
MAX_RETRY_DELAY_S = 60.0

ProgressCallback = Callable[[int, int | None], None]  # bytes so far, total bytes if known


@dataclass(frozen=True)
class Download:
    """A file to download.

    Attributes:
        url: Address of the file.
        path: Destination. Until the download is complete, the bytes are in ``<path>.part`` and the metadata of the
            server's file in ``<path>.part.json``.
        size: Size in bytes, if known.
        digest: "sha256:…" or "md5:…", if known.
    """

    url: str
    path: Path
    size: int | None = None
    digest: str | None = None

    @property
    def part_path(self) -> Path:
        """Path of the incomplete download."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def metadata_path(self) -> Path:
        """Path of what the server said about the file, whose beginning is in ``part_path``."""
        return self.path.with_name(f"{self.path.name}.part.json")

    def make_error(self, expected: str, got: str, remedy: str) -> DatasetError:
        """Return a ``DatasetError`` about this URL."""
        return DatasetError(Problem(self.url, expected, got, remedy))


def download(
    target: Download, progress: ProgressCallback | None = None, on_retry: Callable[[str], None] | None = None
) -> str:
    """Download a file, or the missing rest of it, and verify its checksum. An existing file is only verified.

    Args:
        target: File to download.
        progress: Called after each chunk.
        on_retry: Called before each retry with the reason and the delay.

    Returns:
        The checksum, "sha256:…" unless ``target`` has one of another type.

    Raises:
        DatasetError: If the server has no such file or a different one, the network keeps failing, the disk is full,
            or the checksum is wrong twice.
    """
    if target.path.exists():
        return verify(target)
    try:
        target.path.parent.mkdir(parents=True, exist_ok=True)
        with target.part_path.open("ab") as file, _exclusive_lock(target, file):
            if target.path.exists():  # another process has just finished and may have renamed the file opened here
                return verify(target)
            for last in (False, True):
                _download_with_retries(target, file, progress, on_retry)
                digest = file_digest(target.part_path, target.digest)
                if target.digest in (None, digest):
                    break
                _truncate(file)  # any byte may be the wrong one
                if last:
                    remedy = f"download it by other means to {target.path}, or report that the file has changed"
                    raise target.make_error(target.digest or "", f"{digest}, twice", remedy)
            if fcntl is None:
                file.close()  # Windows cannot rename open files; there is no lock that closing would release
            target.part_path.replace(target.path)
        target.metadata_path.unlink(missing_ok=True)
    except OSError as error:
        place, remedy = error.filename or target.part_path, "free some space or make the folder writable"
        raise DatasetError(f"{place}: cannot be written: {describe_error(error)}; {remedy}") from error
    return digest


def verify(target: Download) -> str:
    """Verify a downloaded file and return its checksum.

    Raises:
        DatasetError: If the checksum differs from the expected one, or the file cannot be read.
    """
    try:
        digest = file_digest(target.path, target.digest)
    except OSError as error:
        raise DatasetError(
            f"{target.path}: cannot be read: {describe_error(error)}; move it away and run this again"
        ) from error
    if target.digest not in (None, digest):
        raise DatasetError(Problem(str(target.path), target.digest or "", digest, "delete it and run this again"))
    return digest


@contextmanager
def _exclusive_lock(target: Download, file: BinaryIO) -> Iterator[None]:
    """Keep other processes from writing the same file; the system releases the lock when the process ends."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "wait for the other process to finish"
            problem = Problem(str(target.part_path), "exclusive access", "a second download of the same file", remedy)
            raise DatasetError(problem) from error
    yield


def _download_with_retries(
    target: Download, file: BinaryIO, progress: ProgressCallback | None, on_retry: Callable[[str], None] | None
) -> None:
    """Retry until the part file is complete."""
    furthest, failures = file.tell(), 0
    if (
        target.digest
        and furthest == _read_metadata(target).get("total")
        and file_digest(target.part_path, target.digest) == target.digest
    ):
        return  # an earlier process was killed before it could rename the file
    while True:
        try:
            _download_once(target, file, progress)
            return
        except RetryableError as error:
            failures = 0 if file.tell() > furthest else failures + 1
            furthest = max(furthest, file.tell())
            if failures >= MAX_ATTEMPTS:
                resume = f"run this again to resume at byte {furthest:,}"
                remedy = f"{resume}, or download it by other means to {target.path}"
                got = f"{error} ({format_count(failures, 'attempt')} without progress)"
                raise target.make_error("the complete file", got, remedy) from error
            pause_s = RETRY_DELAY_S * 2 ** max(0, failures - 1) if error.retry_after_s is None else error.retry_after_s
            pause_s = min(pause_s, MAX_RETRY_DELAY_S)
            if on_retry:
                on_retry(f"{error}; next attempt in {pause_s:.0f} s")
            time.sleep(pause_s)


def _download_once(target: Download, file: BinaryIO, progress: ProgressCallback | None) -> None:
    """Send one request: for the missing rest if the part file is certainly of the same file, else for all of it."""
    metadata = _read_metadata(target)
    if metadata.get("url") != target.url or not (metadata.get("validator") or target.digest):
        _truncate(file)  # without a checksum or validator, a mixture of two files could go unnoticed
    offset = file.seek(0, 2)
    headers = {"User-Agent": "esrgan", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if metadata.get("validator"):
            headers["If-Range"] = metadata["validator"]
    request = urllib.request.Request(target.url, headers=headers)  # noqa: S310  an address from this package
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            total = _process_headers(target, file, response.status, response.headers)
            _receive_body(target, file, response, total, progress)
    except urllib.error.HTTPError as error:
        _handle_http_error(target, file, offset, error)
    except ssl.SSLCertVerificationError as error:
        raise _certificate_error(target, error) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise _certificate_error(target, error.reason) from error
        cause = error.reason
        raise RetryableError(describe_error(cause) if isinstance(cause, OSError) else str(cause)) from error
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise RetryableError(describe_error(error)) from error


def _process_headers(target: Download, file: BinaryIO, status: int, headers: Message) -> int | None:
    """Position the part file for the response's bytes and write the metadata file.

    Returns:
        The size of the whole file, if the server sends it.
    """
    if headers.get_content_type() == "text/html":
        remedy = f"open the address in a browser and save the file as {target.path}"
        raise target.make_error("a file to download", "a web page", remedy)
    length = headers.get("Content-Length")
    total = int(length) if length and length.isdecimal() else None
    version = get_validator(headers)
    if status == http.HTTPStatus.PARTIAL_CONTENT:
        first, total = parse_content_range(headers)
        known = _read_metadata(target)
        if first != file.tell() or version != known.get("validator") or total != (known.get("total") or total):
            _truncate(file)
            raise RetryableError("a different part or a different file than requested")
    else:
        _truncate(file)  # the file has changed, or the server does not support ranges
    if target.size is not None and total not in (None, target.size):
        remedy = f"download it by other means to {target.path}, or report that the file has changed"
        raise target.make_error(f"{target.size:,} bytes", f"{total:,}", remedy)
    missing = (total or 0) - file.tell()
    free = shutil.disk_usage(target.part_path.parent).free
    if missing > free:
        expected = f"{missing / 1e9:.1f} GB free"
        remedy = "free some space, or choose another folder"
        raise DatasetError(Problem(str(target.part_path.parent), expected, f"{free / 1e9:.1f} GB", remedy))
    target.metadata_path.write_text(json.dumps({"url": target.url, "validator": version, "total": total}))
    return total


def _receive_body(
    target: Download, file: BinaryIO, response: IO[bytes], total: int | None, progress: ProgressCallback | None
) -> None:
    expected_size = target.size or total
    while chunk := read_chunk(response):
        file.write(chunk)
        if expected_size is not None and file.tell() > expected_size:
            _truncate(file)
            raise RetryableError("more bytes than announced")
        if progress:
            progress(file.tell(), expected_size)
    file.flush()
    if expected_size is not None and file.tell() < expected_size:  # read() does not raise if the connection is cut
        raise RetryableError(f"a response that ended after {file.tell():,} of {expected_size:,} bytes")


def _truncate(file: BinaryIO) -> None:
    """Discard everything downloaded so far."""
    file.seek(0)
    file.truncate()


def _handle_http_error(target: Download, file: BinaryIO, offset: int, error: urllib.error.HTTPError) -> None:
    """Raise the error for an HTTP error status. Return only if the part file turns out to be complete."""
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        if error.headers.get("Content-Range") == f"bytes */{offset}":
            return  # the part file was complete
        _truncate(file)
        raise RetryableError("a different file than before") from error
    if error.code in RETRYABLE_STATUS_CODES:
        raise RetryableError(f"HTTP {error.code} {error.reason}", parse_retry_after(error.headers)) from error
    remedy = f"download it from elsewhere to {target.path}"
    status_text = " ".join(error.reason.split())  # the reason for a redirect loop has two lines
    raise target.make_error("a file", f"HTTP {error.code} {status_text}", remedy) from error


def _certificate_error(target: Download, error: ssl.SSLCertVerificationError) -> DatasetError:
    got = f"a certificate that cannot be verified ({error.verify_message})"
    return target.make_error("a trusted server", got, "install the system's certificates or correct its clock")


def _read_metadata(target: Download) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        metadata = json.loads(target.metadata_path.read_text())
        if isinstance(metadata, dict):
            return metadata
    return {}
