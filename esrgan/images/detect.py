"""Tell what a file is from its first bytes."""

from __future__ import annotations

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SEQUENCES = (b"avis", b"hevc", b"hevx", b"msf1")  # ISO/IEC 23008-12: major brands of image sequences
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", *_SEQUENCES)


def detect_format(head: bytes) -> str | None:
    """Return the format of a file from its first 32 bytes or more, or None if it is unknown."""
    if head.startswith(PNG_SIGNATURE):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[start : start + 4] for start in range(16, len(head) - 3, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & set(_HEIF_BRANDS):
            return "HEIC"
    return None


def guess_file_kind(head: bytes) -> str:
    """Return what a file that is not a supported image seems to be, from its first bytes."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    known = {b"": "an empty file", b"<!doctype html": "a web page", b"<html": "a web page", b"<svg": "SVG"}
    known |= {b"<?xml": "XML", b"%!ps": "PostScript", b"%pdf": "PDF", b"8bps": "Photoshop's PSD"}
    known |= {b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cjxl ": "JPEG XL", b"\0\0\0\x0cjp  ": "JPEG 2000"}
    if not head:
        return known[b""]
    return next((name for magic, name in known.items() if magic and start.startswith(magic)), "an unknown format")


def is_image_sequence(head: bytes) -> bool:
    """Return whether an AVIF or HEIC file with these first bytes is an animation."""
    return head[8:12] in _SEQUENCES
