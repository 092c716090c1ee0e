"""What a server's answer says about the file: its version, the part that is sent, whether to ask again."""

from __future__ import annotations

import http.client
from email.message import Message
from typing import IO

from esrgan.text import describe_error

RETRYABLE_STATUS_CODES = {408, 425, 429, 500, 502, 503, 504}  # status codes of trouble that may pass
_CHUNK = 1 << 20


class RetryableError(Exception):
    """Trouble that may pass.

    Args:
        message: In words.
        retry_after_s: What the server asked to wait, if it did.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def get_validator(headers: Message) -> str | None:
    """What tells one version of the file from another; a weak ETag does not vouch for bytes."""
    tag: str | None = headers.get("ETag")
    modified: str | None = headers.get("Last-Modified")
    return tag if tag and not tag.startswith("W/") else modified


def parse_content_range(headers: Message) -> tuple[int, int | None]:
    """Where the answer begins and how long the whole file is: ``bytes 100-199/200``."""
    unit, _, rest = str(headers.get("Content-Range", "")).partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdecimal():
        raise RetryableError("a part of unknown place")
    return int(first), int(total) if total.isdecimal() else None


def parse_retry_after(headers: Message) -> float | None:
    """Give what the server asks to wait, if it says so in seconds."""
    wait = str(headers.get("Retry-After", ""))
    return float(wait) if wait.isdecimal() else None


def read_chunk(response: IO[bytes]) -> bytes:
    """Read on; apart from writing, so that a full disk is not taken for a broken network."""
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise RetryableError(describe_error(error)) from error
