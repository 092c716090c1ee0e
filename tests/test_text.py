"""Text for messages and reports."""

from __future__ import annotations

import pytest

from esrgan.text import format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (0.6, "0:01"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.7, "1:00:00"),
        (4 * 3600 + 5 * 60 + 6, "4:05:06"),
        (26 * 3600, "26:00:00"),
        (48 * 3600, "2 d 00:00"),
        (3 * 86400 + 4 * 3600 + 5 * 60 + 59, "3 d 04:05"),
    ],
)
def test_durations_are_human_readable(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
