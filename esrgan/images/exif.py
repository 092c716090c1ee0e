"""Adjust EXIF blocks (Exif 2.32)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esrgan.images.image import DpiChange, find_dpi_factors
from esrgan.images.samples import peak_value, squeeze_grey

_EXIF_DIRECTORY, _GPS_DIRECTORY, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005
_SUBJECTS = (0x9214, 0xA214)  # SubjectArea, SubjectLocation
_CODES = {3: "H", 4: "I", 5: "II", 11: "f", 12: "d", 13: "I"}  # types of numbers, as the module struct names them
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
# Tags of a thumbnail without compression that one in JPEG does not have (Exif 2.32, §4.6.8, table 21).
_STRIP_TAGS = (0x100, 0x101, 0x102, 0x106, 0x111, 0x115, 0x116, 0x117, 0x11C)


def strip_exif_prefix(block: bytes) -> bytes | None:
    """Return an EXIF block from its TIFF header on, or None if it has no such header."""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    return block if len(block) > 8 and block[:4] in (b"II*\0", b"MM\0*") else None


def read_orientation(block: bytes, missing: int = 1) -> int:
    """Return the orientation in an EXIF block that starts with its TIFF header: 1 if it is invalid, or ``missing``."""
    order = ">" if block[:2] == b"MM" else "<"
    with suppress(struct.error):
        (directory,) = struct.unpack_from(f"{order}I", block, 4)
        for tag, place in _find_entries(block, order, directory):
            if tag == 0x112:
                layout, _, values = _read_numbers(block, order, place)
                is_valid = layout[1:] in ("H", "I") and 1 <= values[0] <= 8  # others could not be reset
                return int(values[0]) if is_valid else 1
    return missing


def read_resolution(block: bytes, *, is_upright: bool = False) -> tuple[float, float] | None:
    """Return the resolution (x, y) in pixels per inch in an EXIF block that starts with its TIFF header, if any.

    EXIF describes the image as it is stored; the resolution of the upright image can be its reverse.
    """
    order = ">" if block[:2] == b"MM" else "<"
    with suppress(struct.error, ZeroDivisionError, ValueError):
        (directory,) = struct.unpack_from(f"{order}I", block, 4)
        entries = {tag: _read_numbers(block, order, place)[2] for tag, place in _find_entries(block, order, directory)}
        inches = {2: 1.0, 3: 2.54}.get(entries.get(0x128, (2,))[0])
        (x, x_unit), (y, y_unit) = entries.get(0x11A, ()), entries.get(0x11B, ())
        if inches and x and y:
            found = x / x_unit * inches, y / y_unit * inches
            return found[::-1] if is_upright and read_orientation(block) >= 5 else found
    return None


def adjust_exif(
    block: bytes,
    frame: NDArray[Any],
    factors: tuple[float, float],
    max_bytes: int | None = None,
    dpi_change: DpiChange = (1.0, 1.0),
) -> tuple[bytes | None, list[str]]:
    """Return an EXIF block for an upright image of a new size; everything else in the block stays in place.

    Orientation and size are set, the focal plane's pixels per unit are multiplied, the place of the subject follows
    the size, resolutions are exchanged if the image was turned on its side, and a thumbnail is replaced by one of the
    new image.

    Args:
        block: The EXIF block, starting with its TIFF header.
        frame: The image (H, W, C).
        factors: How many times larger height and width are than those of the upright image that was read.
        max_bytes: Largest size of a block; the thumbnail is left out, or else the whole block, if it is larger.
        dpi_change: How to change the resolution.

    Returns:
        The block, or None if it is too large, and notes on what was left out.
    """
    result, notes = bytearray(block), []
    order = ">" if block[:2] == b"MM" else "<"
    dpi_factors = find_dpi_factors(dpi_change, read_resolution(block, is_upright=True))
    with suppress(struct.error):  # no reader finds an orientation in a damaged block either
        _adjust_directories(result, order, frame.shape[:2], factors, dpi_factors)
    with suppress(struct.error):
        (first,) = struct.unpack_from(f"{order}I", block, 4)
        link = first + 2 + 12 * struct.unpack_from(f"{order}H", block, first)[0]
        if struct.unpack_from(f"{order}I", block, link)[0]:
            notes += _replace_thumbnail(result, order, link, frame)
            if max_bytes is not None and len(result) > max_bytes:
                _clear_thumbnail(result, order, struct.unpack_from(f"{order}I", block, link)[0])
                del result[len(block) :]
                struct.pack_into(f"{order}I", result, link, 0)
                notes.append("thumbnail in EXIF not kept, because EXIF would be too large")
    if max_bytes is not None and len(result) > max_bytes:
        return None, [f"EXIF not kept, because it has more than {max_bytes} bytes"]
    return bytes(result), notes


def adjust_subject(
    values: Sequence[int], orientation: int, size: tuple[int, ...], factors: tuple[float, float]
) -> list[int]:
    """Return the place of the subject in the upright image, given the one in the image as it is stored.

    Args:
        values: x and y of the centre, and possibly a diameter or width and height (Exif 2.32, §4.6.5, SubjectArea).
        orientation: The orientation of the stored image.
        size: Height and width of the upright image.
        factors: How many times larger height and width are than those of the upright image that was read.
    """
    height, width = (round(side / factor) for side, factor in zip(size, factors, strict=True))
    right, bottom = (height, width)[orientation < 5] - 1, (width, height)[orientation < 5] - 1
    x, y = turn_point(values[0], values[1], orientation, right, bottom)
    extent = list(values[2:])
    if orientation >= 5:
        extent.reverse()
    return [round(value * factors[1 - number % 2]) for number, value in enumerate([x, y, *extent])]


def turn_point(x: float, y: float, orientation: int, right: float, bottom: float) -> tuple[float, float]:
    """Return where a point of a stored image is in the upright one; the last point is at ``right`` and ``bottom``."""
    x = right - x if orientation in (2, 3, 7, 8) else x
    y = bottom - y if orientation in (3, 4, 6, 7) else y
    return (y, x) if orientation >= 5 else (x, y)


def _find_entries(block: bytes | bytearray, order: str, directory: int) -> Iterator[tuple[int, int]]:
    """Yield tag and place of each entry of a directory."""
    (count,) = struct.unpack_from(f"{order}H", block, directory)
    for place in range(directory + 2, directory + 2 + 12 * count, 12):
        yield struct.unpack_from(f"{order}H", block, place)[0], place


def _read_numbers(block: bytes | bytearray, order: str, place: int) -> tuple[str, int, tuple[Any, ...]]:
    """Return format, place and values of an entry's numbers; fractions are pairs, and other types have no values."""
    kind, count, offset = struct.unpack_from(f"{order}HII", block, place + 2)
    layout = order + _CODES.get(kind, "") * min(count, len(block))
    start = place + 8 if struct.calcsize(layout) <= 4 else offset
    return layout, start, struct.unpack_from(layout, block, start)


def _adjust_directories(
    block: bytearray,
    order: str,
    size: tuple[int, ...],
    factors: tuple[float, float],
    dpi_factors: tuple[float, float],
) -> None:
    """Adjust the numbers in the main directory, in EXIF's, and in that of interoperability."""
    height, width = size
    # The tags are Orientation, ImageWidth and ImageLength (TIFF 6.0, §8), PixelXDimension and PixelYDimension
    # (Exif 2.32, §4.6.5), and RelatedImageWidth and RelatedImageLength (DCF 2.0, §3.3.4).
    values = {0x112: 1, 0x100: width, 0x101: height, 0xA002: width, 0xA003: height, 0x1001: width, 0x1002: height}
    orientation = read_orientation(bytes(block))
    (directory,) = struct.unpack_from(f"{order}I", block, 4)
    for pointer in (_EXIF_DIRECTORY, _INTEROPERABILITY, None):
        entries = dict(_find_entries(block, order, directory))
        for tag, place in entries.items():
            if tag in values:
                _set_number(block, order, place, values[tag])
            elif tag in _SUBJECTS:
                layout, start, numbers = _read_numbers(block, order, place)
                if 2 <= len(numbers) <= 4:
                    numbers = tuple(adjust_subject(numbers, orientation, size, factors))
                    top = 0xFFFF if "H" in layout else 2**32 - 1
                    struct.pack_into(layout, block, start, *(min(max(number, 0), top) for number in numbers))
        # XResolution and YResolution, which define the size in print, and those of the focal plane
        for x_tag, y_tag, (y_factor, x_factor) in ((0x11A, 0x11B, dpi_factors), (0xA20E, 0xA20F, factors)):
            places = [(entries.get(x_tag), x_factor), (entries.get(y_tag), y_factor)]
            _adjust_resolutions(block, order, places, is_turned=orientation >= 5)
        if pointer not in entries:
            return
        (directory,) = struct.unpack_from(f"{order}I", block, entries[pointer] + 8)


def _set_number(block: bytearray, order: str, place: int, value: int) -> None:
    """Set the only number of an entry, which gets a larger type if it needs one."""
    kind, count = struct.unpack_from(f"{order}HI", block, place + 2)
    if _CODES.get(kind) in ("H", "I") and count == 1:
        kind = kind if value <= 0xFFFF else 4
        struct.pack_into(f"{order}HI{'H2x' if kind == 3 else 'I'}", block, place + 2, kind, 1, value)


def _adjust_resolutions(
    block: bytearray, order: str, places: Sequence[tuple[int | None, float]], *, is_turned: bool
) -> None:
    """Multiply the fractions at two places, each by its factor, after exchanging them if the image was turned."""
    found = [(_read_numbers(block, order, place), factor) for place, factor in places if place is not None]
    layouts = {layout for (layout, _, _), _ in found}
    if len(layouts) != 1 or not layouts <= {f"{order}{code}" for code in ("II", "f", "d")}:
        return
    values = [numbers for (_, _, numbers), _ in found][:: -1 if is_turned else 1]
    for ((layout, start, _), factor), (top, *bottom) in zip(found, values, strict=True):
        scaled = round(top * factor) if bottom else top * factor
        while bottom and scaled >= 2**32:
            scaled, bottom = scaled // 2, [max(bottom[0] // 2, 1)]
        struct.pack_into(layout, block, start, scaled, *bottom)


def _replace_thumbnail(block: bytearray, order: str, link: int, frame: NDArray[Any]) -> list[str]:
    """Put a small JPEG of the image at the end of a block, in place of the thumbnail in it (Exif 2.32, §4.5.5)."""
    (directory,) = struct.unpack_from(f"{order}I", block, link)
    entries = {tag: bytes(block[place : place + 12]) for tag, place in _find_entries(block, order, directory)}
    end = directory + 2 + 12 * struct.unpack_from(f"{order}H", block, directory)[0]
    notes = ["further images in EXIF not kept"] if struct.unpack_from(f"{order}I", block, end)[0] else []
    if not _clear_thumbnail(block, order, directory):
        return []
    data, (width, height) = make_thumbnail(frame)
    if 0x201 not in entries:
        entries = {tag: entry for tag, entry in entries.items() if tag not in _STRIP_TAGS}
    for tag, value in {0x103: 6, 0x112: 1, 0x100: width, 0x101: height}.items():
        if tag in entries:
            entries[tag] = struct.pack(f"{order}HHIH2x", tag, 3, 1, value)
    block += bytes(len(block) % 2)
    for tag, value in {0x201: len(block), 0x202: len(data)}.items():
        entries[tag] = struct.pack(f"{order}HHII", tag, 4, 1, value)
    table = struct.pack(f"{order}H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
    block[directory : end + 4] = table.ljust(end + 4 - directory, b"\0")
    block += data
    return notes


def _clear_thumbnail(block: bytearray, order: str, directory: int) -> bool:
    """Clear the data of a thumbnail, and return whether there was one; at the end of a block it is cut off.

    The data ends where other data begins, even if the block states that it is longer.
    """
    used = _find_used_parts(block, order)
    places = dict(_find_entries(block, order, directory))
    for start_tag, length_tag in ((0x201, 0x202), (0x111, 0x117)):
        if start_tag in places and length_tag in places:
            starts, lengths = (_read_numbers(block, order, places[tag])[2] for tag in (start_tag, length_tag))
            for start, length in sorted(zip(starts, lengths, strict=False), reverse=True):
                end = min(start + length, *(each for each, stop in used if stop > start), len(block))
                if start < end:
                    block[start:end] = bytes(end - start) if end < len(block) else b""
            return True
    return False


def _find_used_parts(block: bytes | bytearray, order: str) -> list[tuple[int, int]]:
    """Return where the header, the directories and their values begin and end."""
    used, directories = {0: 8}, [*struct.unpack_from(f"{order}I", block, 4)]
    while directories:
        if (directory := directories.pop()) in used:
            continue
        with suppress(struct.error):
            (count,) = struct.unpack_from(f"{order}H", block, directory)
            used[directory] = end = directory + 2 + 12 * count + 4
            for tag, place in _find_entries(block, order, directory):
                kind, number, start = struct.unpack_from(f"{order}HII", block, place + 2)
                if tag in (_EXIF_DIRECTORY, _GPS_DIRECTORY, _INTEROPERABILITY):
                    directories.append(start)
                elif (size := number * _TYPE_BYTES.get(kind, 0)) > 4:
                    used[start] = max(start + size, used.get(start, 0))
            directories += struct.unpack_from(f"{order}I", block, end - 4)
    return list(used.items())


def make_thumbnail(frame: NDArray[Any]) -> tuple[bytes, tuple[int, int]]:
    """Return a JPEG of at most 160 × 160 pixels of an image, and its width and height."""
    from PIL import Image

    step = max(max(frame.shape[:2]) // 640, 1)
    pixels = frame[::step, ::step, : 3 if frame.shape[2] >= 3 else 1]
    pixels = (np.nan_to_num(pixels / peak_value(pixels.dtype)).clip(0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(squeeze_grey(pixels))
    image.thumbnail((160, 160))
    memory = io.BytesIO()
    image.save(memory, "JPEG", quality=80)
    return memory.getvalue(), image.size
