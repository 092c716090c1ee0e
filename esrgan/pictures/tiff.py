"""The directories of TIFF files and EXIF blocks (TIFF 6.0, §2; BigTIFF), for what libvips neither reads nor writes."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Union

import numpy as np

# Bytes of a value of each type, and of the words it consists of.
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WORD = {5: 4, 10: 4}
_SHORT, _LONG, _RATIONAL = 3, 4, 5

SUBFILE, BITS, COMPRESSION, PHOTOMETRIC, SAMPLE_FORMAT, DNG_VERSION = 254, 258, 259, 262, 339, 50706
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
_OFFSETS, _BYTE_COUNTS = (273, 324), (279, 325)  # of strips and of tiles
EXTRA_SAMPLES = 338
STRUCTURE = (256, 257, BITS, PHOTOMETRIC, 277, SAMPLE_FORMAT)  # ImageWidth, ImageLength, …, SamplesPerPixel
_EXIF, _GPS, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005
# What Exif 2.32, §4.6.4 has in a TIFF file's first directory besides its structure, and what Windows adds.
_DESCRIPTIONS = {270, 271, 272, 305, 306, 315, 316, 33432, 18246, 18249, *range(40091, 40096), _EXIF, _GPS}

_LONGEST_VALUE = 1 << 26  # bytes
_MOST_PAGES = 10_000


@dataclass(frozen=True)
class Value:
    """Of a tag: its type and little-endian content."""

    kind: int
    content: bytes

    def numbers(self) -> list[float]:
        """What it says, if that is numbers."""
        if self.kind == _RATIONAL:
            pairs = np.frombuffer(self.content, "<u4").reshape(-1, 2)
            return [int(top) / int(bottom) if bottom else 0.0 for top, bottom in pairs]
        code = {1: "<u1", 3: "<u2", 4: "<u4", 16: "<u8"}.get(self.kind)
        return [int(number) for number in np.frombuffer(self.content, code)] if code else []


Directory = dict[int, Union[Value, "Directory"]]


@dataclass(frozen=True)
class _Layout:
    order: str
    is_big: bool

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.is_big else "H")

    @property
    def pointer(self) -> str:
        return self.order + ("Q" if self.is_big else "I")

    @property
    def entry(self) -> str:
        return self.order + ("HHQ8s" if self.is_big else "HHI4s")


def _open(file: BinaryIO) -> tuple[_Layout, int]:
    """The layout of a file or block, and where the pointer to its first directory is."""
    file.seek(0)
    head = file.read(4)
    order = ">" if head[:2] == b"MM" else "<"
    is_big = struct.unpack(f"{order}H", head[2:])[0] == 43
    return _Layout(order, is_big), 8 if is_big else 4


def _unpack(file: BinaryIO, code: str) -> int:
    return int(struct.unpack(code, file.read(struct.calcsize(code)))[0])


def _read(file: BinaryIO, layout: _Layout, offset: int) -> tuple[Directory, int, int]:
    """A directory, where the next one is, and where that is written."""
    file.seek(offset)
    count = _unpack(file, layout.count)
    size = struct.calcsize(layout.entry)
    entries = file.read(count * size)
    link = file.tell()
    following = _unpack(file, layout.pointer)
    directory: Directory = {}
    for tag, kind, number, field in struct.iter_unpack(layout.entry, entries):
        length = _BYTES.get(kind, 0) * number
        if not 0 < length <= _LONGEST_VALUE:
            continue
        content = field[:length]
        if length > len(field):
            file.seek(struct.unpack(layout.pointer, field)[0])
            content = file.read(length)
        if len(content) == length:
            directory[tag] = Value(kind, _swapped(content, kind, layout.order, "<"))
    return directory, following, link


def _swapped(content: bytes, kind: int, source: str, target: str) -> bytes:
    word = _WORD.get(kind, _BYTES[kind])
    return np.frombuffer(content, f"{source}u{word}").astype(f"{target}u{word}").tobytes()


def _write(directory: Directory, layout: _Layout, offset: int, following: int = 0) -> bytes:
    """The bytes of a directory that is to lie at an offset, its values behind it."""
    size = struct.calcsize(layout.entry)
    place = offset + struct.calcsize(layout.count) + len(directory) * size + struct.calcsize(layout.pointer)
    entries, values = b"", b""
    for tag, value in sorted(directory.items()):
        place_here = place + len(values)
        field = struct.pack(layout.pointer, place_here)
        if isinstance(value, dict):
            content, kind, number = _write(value, layout, place_here), _LONG, 1
            field = struct.pack(f"{layout.order}I", place_here).ljust(len(field), b"\0")
        else:
            content, kind = _swapped(value.content, value.kind, "<", layout.order), value.kind
            number = len(content) // _BYTES[kind]
            if len(content) <= len(field):
                field, content = content.ljust(len(field), b"\0"), b""
        entries += struct.pack(layout.entry, tag, kind, number, field)
        values += content + b"\0" * (len(content) % 2)
    return struct.pack(layout.count, len(directory)) + entries + struct.pack(layout.pointer, following) + values


def directories(file: BinaryIO) -> Iterator[Directory]:
    """The directories of a TIFF file, one for each page.

    Raises:
        ValueError: The file ends before one of them, or they go round in circles.
    """
    try:
        layout, place = _open(file)
        file.seek(place)
        offset = _unpack(file, layout.pointer)
        seen: set[int] = set()
        while offset:
            if offset in seen or len(seen) >= _MOST_PAGES:
                raise ValueError("its pages never end")
            seen.add(offset)
            directory, offset, _ = _read(file, layout, offset)
            yield directory
    except struct.error as error:
        raise ValueError("the file ends too soon") from error


def check_whole(file: BinaryIO, pages: Iterable[Directory]) -> None:
    """Checks that a file holds all the strips or tiles of its pages: libvips makes tiles black that are missing.

    Raises:
        ValueError: It ends before them.
    """
    size = file.seek(0, os.SEEK_END)
    for page in pages:
        offsets, counts = (
            [number for tag in tags for number in numbers(page, tag)] for tags in (_OFFSETS, _BYTE_COUNTS)
        )
        ends = [offset + count for offset, count in zip(offsets, counts, strict=False)]
        if not offsets or len(offsets) != len(counts) or max(ends) > size:
            raise ValueError("the file ends too soon")


def numbers(directory: Directory, tag: int) -> list[float]:
    """The numbers of a tag; none if it is not there."""
    value = directory.get(tag)
    return value.numbers() if isinstance(value, Value) else []


def dpi(directory: Directory) -> tuple[float, float] | None:
    """The resolution in pixels an inch."""
    unit = {2: 1.0, 3: 2.54}.get(int((numbers(directory, RESOLUTION_UNIT) or [2])[0]))
    x, y = numbers(directory, X_RESOLUTION), numbers(directory, Y_RESOLUTION)
    return (x[0] * unit, y[0] * unit) if unit and x and y and x[0] and y[0] else None


def _descriptions(file: BinaryIO) -> Directory:
    """What the first directory of a TIFF file or EXIF block says of the picture, with the directories in it."""
    layout, place = _open(file)
    file.seek(place)

    def enter(directory: Directory) -> Directory:
        for tag in (_EXIF, _GPS, _INTEROPERABILITY):
            offset = [int(number) for number in numbers(directory, tag)]
            directory.pop(tag, None)
            if offset:
                with suppress(struct.error):
                    inner = _read(file, layout, offset[0])[0]
                    inner = enter(inner) if tag == _EXIF else inner
                    if inner:
                        directory[tag] = inner
        return directory

    first = enter(_read(file, layout, _unpack(file, layout.pointer))[0])
    return {tag: value for tag, value in first.items() if tag in _DESCRIPTIONS}


def read_exif(file: BinaryIO) -> bytes | None:
    """What a TIFF file says of the picture, as an EXIF block; None if nothing."""
    with suppress(struct.error):
        if found := _descriptions(file):
            return b"II*\0\x08\0\0\0" + _write(found, _Layout("<", False), 8)
    return None


def rewrite(file: BinaryIO, exif: bytes | None, resolution: tuple[float, float] | None) -> None:
    """Puts EXIF (from its TIFF header on) and resolution into a TIFF file, or takes out an invented resolution.

    Changed directories go to the end of the file; the pixels stay where they are.
    """
    found: Directory = {}
    if exif:
        with suppress(struct.error):
            found = _descriptions(io.BytesIO(exif))
    layout, link = _open(file)
    file.seek(link)
    offset = _unpack(file, layout.pointer)
    while offset:
        directory, following, _ = _read(file, layout, offset)
        for tag in (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT):
            directory.pop(tag, None)
        if resolution:
            for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), resolution, strict=True):
                ratio = Fraction(value).limit_denominator(10_000)
                directory[tag] = Value(_RATIONAL, struct.pack("<II", ratio.numerator, ratio.denominator))
            directory[RESOLUTION_UNIT] = Value(_SHORT, struct.pack("<H", 2))
        directory.update(found)
        found = {}  # on the first page only
        end = file.seek(0, os.SEEK_END)
        place = end + end % 2
        file.write(b"\0" * (end % 2) + _write(directory, layout, place, following))
        file.seek(link)
        file.write(struct.pack(layout.pointer, place))
        link = place + struct.calcsize(layout.count) + len(directory) * struct.calcsize(layout.entry)
        offset = following
