"""Downloads that resume where they were cut off, and get their name only once their checksum is verified.

Each file has a published checksum. A part file of another version is therefore found at the end and downloaded again.
"""

from __future__ import annotations

import http
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from esrgan.console import log, progress
from esrgan.errors import DownloadError, Problem
from esrgan.files import file_digest, replace_file
from esrgan.locks import lock
from esrgan.text import describe_error, format_count, format_size

TIMEOUT_S = 30.0  # longest wait for the next bytes
MAX_ATTEMPTS = 5  # consecutive attempts without progress
RETRY_DELAY_S = 2.0  # after the first failure; doubled after each further one
MAX_RETRY_DELAY_S = 60.0
_RETRYABLE_STATUS_CODES = {408, 425, 429, 500, 502, 503, 504}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Download:
    """A file to download.

    Attributes:
        url: Address of the file.
        path: Destination. Until the download is complete, the bytes are in ``<path>.part``.
        digest: "sha256:…" or "md5:…", or the beginning of it.
        size: Size in bytes, if known.
        setting: Option or variable of the environment that chooses another folder, for error messages.
    """

    url: str
    path: Path
    digest: str
    size: int | None = None
    setting: str = "ESRGAN_CACHE"

    @property
    def part_path(self) -> Path:
        """Path of the incomplete download."""
        return self.path.with_name(f"{self.path.name}.part")

    def make_error(self, expected: str, got: str, remedy: str) -> DownloadError:
        """Return an error about this URL."""
        return DownloadError(Problem(self.url, expected, got, remedy))


class _RetryableError(Exception):
    """A failed request that may succeed if it is repeated, after the seconds that the server asks for."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def download(target: Download) -> None:
    """Download a file, or the missing rest of it, and verify its checksum. An existing file is only verified.

    Args:
        target: File to download.

    Raises:
        DownloadError: If the server has no such file or a different one, the network keeps failing, the disk is full,
            another process is downloading it, or the checksum is wrong twice.
    """
    if target.path.exists():
        return verify(target)
    try:
        target.path.parent.mkdir(parents=True, exist_ok=True)
        with lock(target.part_path, f"{target.path}: another process is downloading this file") as file:
            if target.path.exists():  # another process has just finished and may have renamed the file opened here
                return verify(target)
            _download_verified(target, file)
            if os.name == "nt":  # Windows cannot rename open files
                file.close()
            replace_file(target.part_path, target.path)
    except OSError as error:
        place = error.filename or target.part_path
        remedy = f"free some space, or set {target.setting} to a folder that can be written"
        raise DownloadError(f"{place}: cannot be written: {describe_error(error)}; {remedy}") from error


def verify(target: Download) -> None:
    """Verify a downloaded file.

    Raises:
        DownloadError: If its checksum differs from the published one, or it cannot be read.
    """
    try:
        digest = file_digest(target.path, target.digest)
    except OSError as error:
        remedy = "move it away and run this again"
        raise DownloadError(f"{target.path}: cannot be read: {describe_error(error)}; {remedy}") from error
    if not digest.startswith(target.digest):
        raise DownloadError(Problem(str(target.path), target.digest, digest, "delete it and run this again"))


def _download_verified(target: Download, file: BinaryIO) -> None:
    for last in (False, True):
        _download_with_retries(target, file)
        digest = file_digest(target.part_path, target.digest)
        if digest.startswith(target.digest):
            return
        _truncate(file)  # any byte may be the wrong one
        if last:
            remedy = f"download it by other means to {target.path}, or report that the file has changed"
            raise target.make_error(target.digest, f"{digest}, twice", remedy)


def _download_with_retries(target: Download, file: BinaryIO) -> None:
    furthest, failures = file.seek(0, os.SEEK_END), 0
    while True:
        try:
            return _download_once(target, file)
        except _RetryableError as error:
            failures = 0 if file.tell() > furthest else failures + 1
            furthest = max(furthest, file.tell())
            if failures >= MAX_ATTEMPTS:
                resume = f"run this again to resume at byte {furthest:,}"
                remedy = f"{resume}, or download it by other means to {target.path}"
                got = f"{error} ({format_count(failures, 'attempt')} without progress)"
                raise target.make_error("the complete file", got, remedy) from error
            pause_s = RETRY_DELAY_S * 2 ** max(0, failures - 1) if error.retry_after_s is None else error.retry_after_s
            pause_s = min(pause_s, MAX_RETRY_DELAY_S)
            log.info("%s: %s; next attempt in %.0f s", target.path.name, error, pause_s)
            time.sleep(pause_s)


def _truncate(file: BinaryIO) -> None:
    """Discard everything downloaded so far."""
    file.seek(0)
    file.truncate()


def _download_once(target: Download, file: BinaryIO) -> None:
    """Send one request, for the missing rest of the file."""
    offset = file.seek(0, os.SEEK_END)
    if offset and offset == target.size:
        return  # an earlier process was killed before it could rename the file
    headers = {"User-Agent": "esrgan", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(target.url, headers=headers)  # noqa: S310  an address from this package
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            total = _prepare_part_file(target, file, response)
            _receive(target, file, response, target.size or total)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if error.headers.get("Content-Range") == f"bytes */{offset}":
                return  # the part file was complete
            _truncate(file)
            raise _RetryableError("a different file than before") from error
        got = f"HTTP {error.code} {' '.join(error.reason.split())}"  # that of a redirect loop has two lines
        if error.code in _RETRYABLE_STATUS_CODES:
            seconds = str(error.headers.get("Retry-After", ""))  # a date is not understood
            raise _RetryableError(got, float(seconds) if seconds.isdecimal() else None) from error
        raise target.make_error("a file", got, f"download it from elsewhere to {target.path}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            got = f"a certificate that cannot be verified ({error.reason.verify_message})"
            remedy = "install the system's certificates or correct its clock"
            raise target.make_error("a trusted server", got, remedy) from error
        cause = error.reason
        raise _RetryableError(describe_error(cause) if isinstance(cause, OSError) else str(cause)) from error
    except (ValueError, http.client.InvalidURL) as error:  # also of a redirect or a proxy
        whose, remedy = "to which it is redirected", f"download it by other means to {target.path}"
        if _has_proxy(target.url):
            whose, remedy = "of the proxy", "check https_proxy and http_proxy"
        what = f"the address {whose} is not valid ({describe_error(error)})"
        raise DownloadError(Problem.failure(target.url, what, remedy)) from error
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _RetryableError(describe_error(error)) from error


def _has_proxy(url: str) -> bool:
    """Return whether requests to an address go through a proxy."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.netloc)


def _prepare_part_file(target: Download, file: BinaryIO, response: Any) -> int | None:
    """Check the headers, and empty the part file if the response is not the rest of it.

    Returns:
        The size of the whole file, if the server sends it.
    """
    headers = response.headers
    if headers.get_content_type() == "text/html":
        remedy = f"open the address in a browser and save the file as {target.path}"
        raise target.make_error("a file to download", "a web page", remedy)
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if not match or int(match[1]) != file.tell():
            _truncate(file)
            raise _RetryableError("a different part than requested")
        length = match[2]
    else:
        _truncate(file)  # the server does not support ranges
        length = headers.get("Content-Length") or ""
    total = int(length) if length.isdecimal() else None
    if target.size is not None and total not in (None, target.size):
        remedy = f"download it by other means to {target.path}, or report that the file has changed"
        raise target.make_error(f"{target.size:,} bytes", f"{total:,}", remedy)
    missing, free = (total or 0) - file.seek(0, os.SEEK_END), shutil.disk_usage(target.path.parent).free
    if missing > free:
        remedy = f"free some space, or set {target.setting} to another folder"
        raise DownloadError(Problem(str(target.path.parent), f"{format_size(missing)} free", format_size(free), remedy))
    return total


def _receive(target: Download, file: BinaryIO, response: Any, size: int | None) -> None:
    while True:
        try:
            chunk = response.read1(_CHUNK)  # read() would lose what came before the connection failed
        except (OSError, http.client.HTTPException) as error:  # caught here, as a full disk is no network error
            raise _RetryableError(describe_error(error)) from error
        if not chunk:
            break
        file.write(chunk)
        if size is not None and file.tell() > size:
            _truncate(file)
            raise _RetryableError("more bytes than announced")
        of = f" of {format_size(size)}, {file.tell() / size:.0%}" if size else ""
        progress(f"{target.path.name}: {format_size(file.tell())}{of} downloaded")
    file.flush()
    if size is not None and file.tell() < size:  # read() does not raise if the connection is cut
        raise _RetryableError(f"a response that ended after {file.tell():,} of {size:,} bytes")
