"""Adjust XMP packets (ISO 16684-1)."""

from __future__ import annotations

import re


def reset_xmp_orientation(packet: bytes) -> bytes:
    """Return an XMP packet whose orientation is that of an upright image."""
    return re.sub(rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>)\s*)[2-8]", rb"\g<1>1", packet)
