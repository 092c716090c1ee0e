"""Parsing of HTTP responses: the version of a file, the part that is sent, and whether to retry."""

from __future__ import annotations

import http.client
from email.message import Message
from typing import IO

from esrgan.text import describe_error

RETRYABLE_STATUS_CODES = {408, 425, 429, 500, 502, 503, 504}
_CHUNK = 1 << 20


class RetryableError(Exception):
    """A failed request that may succeed if it is repeated.

    Args:
        message: Description for the user.
        retry_after_s: Delay in seconds that the server asked for, if it did.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def get_validator(headers: Message) -> str | None:
    """Return the header that identifies a version of the file: a strong ETag, else Last-Modified.

    A weak ETag is not used because it does not guarantee identical bytes.
    """
    tag: str | None = headers.get("ETag")
    modified: str | None = headers.get("Last-Modified")
    return tag if tag and not tag.startswith("W/") else modified


def parse_content_range(headers: Message) -> tuple[int, int | None]:
    """Return the first byte's position and the file's size, if known, from ``bytes 100-199/200``.

    Raises:
        RetryableError: If the header is missing or malformed.
    """
    unit, _, rest = str(headers.get("Content-Range", "")).partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdecimal():
        raise RetryableError("a partial response without a valid Content-Range")
    return int(first), int(total) if total.isdecimal() else None


def parse_retry_after(headers: Message) -> float | None:
    """Return the delay in seconds that the server asks for; None if there is none or it is a date."""
    wait = str(headers.get("Retry-After", ""))
    return float(wait) if wait.isdecimal() else None


def read_chunk(response: IO[bytes]) -> bytes:
    """Read the next chunk. It is separate from writing so that a full disk is not mistaken for a network error.

    Raises:
        RetryableError: If the connection fails.
    """
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise RetryableError(describe_error(error)) from error
