"""Read and write the directories of TIFF files and EXIF blocks (TIFF 6.0, §2; BigTIFF) that libvips does not handle."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Literal, NamedTuple, Union

import numpy as np

# The bytes of a value of each field type, and of the words that it consists of where they are smaller.
_FIELD_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WORD_BYTES = {5: 4, 10: 4}
_SHORT, _LONG, _RATIONAL, _LONG8 = 3, 4, 5, 16
# NumPy's types of the numeric field types; 13 (IFD) and 18 (IFD8) are pointers, as libtiff writes them.
_NUMBER_CODES = {1: "<u1", 3: "<u2", 4: "<u4", 11: "<f4", 12: "<f8", 13: "<u4", 16: "<u8", 18: "<u8"}

SUBFILE_TYPE, BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, SAMPLE_FORMAT, DNG_VERSION = 254, 258, 259, 262, 339, 50706
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
DESCRIPTION, IPTC = 270, 33723
WIDTH, HEIGHT, PLANAR, PREDICTOR = 256, 257, 284, 317
STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_BYTE_COUNTS = 273, 278, 279
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTE_COUNTS = 322, 323, 324, 325
SAMPLES_PER_PIXEL, EXTRA_SAMPLES = 277, 338
ORIENTATION, SUB_DIRECTORIES, SUBSAMPLING = 274, 330, 530
COLOUR_MAP, YCBCR_COEFFICIENTS, REFERENCE_BLACK_WHITE = 320, 529, 532
INK_SET, ICC_PROFILE, XMP = 332, 34675, 700
LAYOUT_TAGS = (BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, SAMPLE_FORMAT)
_EXIF, _GPS, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005
# The tags of Exif 2.32, §4.6.4, that do not define the structure of a TIFF file, and those that Windows adds.
DESCRIPTIVE_TAGS = {270, 271, 272, 305, 306, 315, 316, 33432, 18246, 18249, *range(40091, 40096), _EXIF, _GPS}
_PIXEL_DIMENSIONS = (0xA002, 0xA003)  # of Exif 2.32, §4.6.5

_MAX_VALUE_BYTES = 1 << 26
MAX_PAGES = 10_000


@dataclass(frozen=True)
class TagValue:
    """The field type and the little-endian content of a tag; one without content could not be read."""

    field_type: int
    content: bytes

    def to_numbers(self) -> list[float]:
        """Return the content as numbers, or an empty list if its type is not numeric."""
        if self.field_type == _RATIONAL:
            pairs = np.frombuffer(self.content, "<u4").reshape(-1, 2)
            return [int(top) / int(bottom) if bottom else 0.0 for top, bottom in pairs]
        code = _NUMBER_CODES.get(self.field_type)
        return np.frombuffer(self.content, code).tolist() if code else []


Directory = dict[int, Union[TagValue, "Directory"]]


class _ByteLayout(NamedTuple):
    """The byte order of a file, and how its numbers of entries, its offsets and its entries are packed."""

    order: str
    number: str = "<H"
    pointer: str = "<I"
    entry: str = "<HHI4s"


def _read_byte_layout(file: BinaryIO) -> tuple[_ByteLayout, int]:
    """Return the layout of a file or block and the position of the pointer to its first directory."""
    file.seek(0)
    head = file.read(4)
    order = ">" if head[:2] == b"MM" else "<"
    is_big = struct.unpack(f"{order}H", head[2:])[0] == 43
    codes = ("Q", "Q", "HHQ8s") if is_big else ("H", "I", "HHI4s")
    return _ByteLayout(order, *(order + code for code in codes)), 8 if is_big else 4


def _read_number(file: BinaryIO, code: str) -> int:
    return int(struct.unpack(code, file.read(struct.calcsize(code)))[0])


def _seek(file: BinaryIO, offset: int) -> None:
    try:
        file.seek(offset)
    except (OSError, OverflowError, ValueError) as error:  # no file is that long
        raise struct.error(f"there is nothing at {offset}") from error


def _read_directory(file: BinaryIO, layout: _ByteLayout, offset: int) -> tuple[Directory, int]:
    """Return a directory and the offset of the next one."""
    _seek(file, offset)
    count = _read_number(file, layout.number)
    size = struct.calcsize(layout.entry)
    entries = file.read(count * size)
    following = _read_number(file, layout.pointer)
    directory: Directory = {}
    for tag, field_type, number, field in struct.iter_unpack(layout.entry, entries):
        if not number:
            continue
        length = _FIELD_BYTES.get(field_type, 0) * number
        content = field[:length]
        if len(field) < length <= _MAX_VALUE_BYTES:
            with suppress(struct.error):
                _seek(file, struct.unpack(layout.pointer, field)[0])
                content = file.read(length)
        is_read = length and len(content) == length
        content = _convert_byte_order(content, field_type, layout.order, "<") if is_read else b""
        directory[tag] = TagValue(field_type, content)
    return directory, following


def is_readable(value: TagValue | Directory) -> bool:
    """Return whether all of a value could be read."""
    return bool(value.content) if isinstance(value, TagValue) else all(map(is_readable, value.values()))


def _convert_byte_order(content: bytes, field_type: int, source: str, target: str) -> bytes:
    word = _WORD_BYTES.get(field_type, _FIELD_BYTES[field_type])
    return np.frombuffer(content, f"{source}u{word}").astype(f"{target}u{word}").tobytes()


def _pack_directory(directory: Directory, layout: _ByteLayout, offset: int, following: int = 0) -> bytes:
    """Return the bytes of a directory at an offset, followed by its values, without those that have no content."""
    directory = {tag: value for tag, value in directory.items() if isinstance(value, dict) or value.content}
    size = struct.calcsize(layout.entry)
    position = offset + struct.calcsize(layout.number) + len(directory) * size + struct.calcsize(layout.pointer)
    entries, values = b"", b""
    for tag, value in sorted(directory.items()):
        value_position = position + len(values)
        field = struct.pack(layout.pointer, value_position)
        if isinstance(value, dict):
            content, field_type, number = _pack_directory(value, layout, value_position), _LONG, 1
            field = struct.pack(f"{layout.order}I", value_position).ljust(len(field), b"\0")
        else:
            content, field_type = (
                _convert_byte_order(value.content, value.field_type, "<", layout.order),
                value.field_type,
            )
            number = len(content) // _FIELD_BYTES[field_type]
            if len(content) <= len(field):
                field, content = content.ljust(len(field), b"\0"), b""
        entries += struct.pack(layout.entry, tag, field_type, number, field)
        values += content + b"\0" * (len(content) % 2)
    return struct.pack(layout.number, len(directory)) + entries + struct.pack(layout.pointer, following) + values


def read_directories(file: BinaryIO, most: int = MAX_PAGES) -> Iterator[Directory]:
    """Yield the directories of a TIFF file, one per page and at most a number of them.

    Raises:
        ValueError: The file ends within the directories, or their chain loops or is too long.
    """
    try:
        layout, position = _read_byte_layout(file)
        file.seek(position)
        offset = _read_number(file, layout.pointer)
        seen: set[int] = set()
        while offset:
            if offset in seen or len(seen) >= most:
                raise ValueError("its list of pages loops or is too long")
            seen.add(offset)
            directory, offset = _read_directory(file, layout, offset)
            yield directory
    except struct.error as error:
        raise ValueError("the file is truncated") from error


def get_numbers(directory: Directory, tag: int) -> list[float]:
    """Return the numbers of a tag, or an empty list if the directory does not have it."""
    value = directory.get(tag)
    return value.to_numbers() if isinstance(value, TagValue) else []


def get_integers(directory: Directory, tag: int) -> list[int]:
    """Return the numbers of a tag as integers, or an empty list if the directory does not have it."""
    return [int(number) for number in get_numbers(directory, tag)]


def get_content(directory: Directory, tag: int) -> bytes:
    """Return the bytes of a tag, or none if the directory does not have it."""
    value = directory.get(tag)
    return value.content if isinstance(value, TagValue) else b""


def get_integer(directory: Directory, tag: int, default: int) -> int:
    """Return the first number of a tag, or a default if the directory does not have it."""
    return int((get_numbers(directory, tag) or [default])[0])


def make_integers(*numbers: int) -> TagValue:
    """Return a value of the smallest type that holds all numbers."""
    field_type = _SHORT if max(numbers) < 2**16 else _LONG if max(numbers) < 2**32 else _LONG8
    return TagValue(field_type, np.array(numbers, _NUMBER_CODES[field_type]).tobytes())


def make_rational(*numbers: float) -> TagValue:
    """Return a value of fractions that are close to some numbers of at least 0."""
    content = b""
    for number in numbers:
        largest = int(min(max((2**32 - 1) / max(number, 1), 1), 1e6))
        ratio = Fraction(min(number, 2**32 - 1)).limit_denominator(largest)
        content += struct.pack("<II", ratio.numerator, ratio.denominator)
    return TagValue(_RATIONAL, content)


class EditedFile:
    """A TIFF file as it would be with other directories; the file itself stays as it is until they are saved."""

    def __init__(self, file: BinaryIO, pages: Sequence[Directory]) -> None:
        layout, link = _read_byte_layout(file)
        self.order: Literal["<", ">"] = ">" if layout.order == ">" else "<"
        self._file, self._position = file, 0
        self._size = file.seek(0, os.SEEK_END)
        start = self._size + self._size % 2
        tail = [bytes(self._size % 2)]
        position = start
        for number, page in enumerate(pages, 1):
            length = len(_pack_directory(page, layout, position))
            following = position + length if number < len(pages) else 0
            tail.append(_pack_directory(page, layout, position, following))
            position += length
        file.seek(0)
        self._head, self._tail = file.read(link) + struct.pack(layout.pointer, start), b"".join(tail)

    def read(self, length: int) -> bytes:
        """Return at most this many of the next bytes; fewer where unchanged bytes meet others."""
        start, behind = self._position, self._position - self._size
        if start < len(self._head):
            data = self._head[start : start + length]
        elif behind >= 0:
            data = self._tail[behind : behind + length]
        else:
            self._file.seek(start)
            data = self._file.read(min(length, -behind))
        self._position += len(data)
        return data

    def save(self) -> None:
        """Change the file, which must be open for writing; what was in it stays in its place."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(self._tail)
        self._file.seek(0)
        self._file.write(self._head)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size + len(self._tail)}[whence]
        self._position = base + offset
        return self._position


def read_dpi(directory: Directory) -> tuple[float, float] | None:
    """Return the resolution (x, y) in pixels per inch, or None if the directory does not define one."""
    unit = {2: 1.0, 3: 2.54}.get(get_integer(directory, RESOLUTION_UNIT, 2))
    x, y = get_numbers(directory, X_RESOLUTION), get_numbers(directory, Y_RESOLUTION)
    return (x[0] * unit, y[0] * unit) if unit and x and y and x[0] and y[0] else None


def exchange_resolution(directory: Directory) -> Directory:
    """Return a directory with the horizontal instead of the vertical resolution and the other way round."""
    names = {X_RESOLUTION: Y_RESOLUTION, Y_RESOLUTION: X_RESOLUTION}
    return {names.get(tag, tag): value for tag, value in directory.items()}


def _read_descriptive_tags(file: BinaryIO, page: Directory) -> Directory:
    """Return the descriptive tags of a page, or of the first directory of an EXIF block, with nested directories."""
    layout, _ = _read_byte_layout(file)

    def expand(directory: Directory) -> Directory:
        for tag in (_EXIF, _GPS, _INTEROPERABILITY):
            offset = get_integers(directory, tag)
            directory.pop(tag, None)
            if offset:
                try:
                    inner = _read_directory(file, layout, offset[0])[0]
                except struct.error:
                    directory[tag] = TagValue(_LONG, b"")
                    continue
                if inner:
                    directory[tag] = expand(inner) if tag == _EXIF else inner
        return directory

    return {tag: value for tag, value in expand(dict(page)).items() if tag in DESCRIPTIVE_TAGS}


def read_nested(file: BinaryIO, page: Directory) -> Directory:
    """Return the EXIF and GPS directories of a page, without the size of the image."""
    found = _read_descriptive_tags(file, page)
    for tag in (_EXIF, _GPS):
        if isinstance(each := found.get(tag), dict):
            found[tag] = {key: each[key] for key in each if key not in _PIXEL_DIMENSIONS}
    return {tag: found[tag] for tag in (_EXIF, _GPS) if tag in found}


def read_iptc(directory: Directory) -> bytes | None:
    """Return the IPTC block of a directory; some programs store its bytes as numbers of 32 bits."""
    content = get_content(directory, IPTC)
    if content[:1] != b"\x1c" and content[3:4] == b"\x1c":
        content = np.frombuffer(content[: len(content) // 4 * 4], "<u4").byteswap().tobytes()
    return content or None


def read_exif(file: BinaryIO, page: Directory, *, with_description: bool, orientation: int = 1) -> bytes | None:
    """Return the descriptive tags of a page as an EXIF block with an orientation, or None if it has none."""
    found = _read_descriptive_tags(file, page)
    if not with_description:
        found.pop(DESCRIPTION, None)
    if not any(isinstance(value, dict) or value.content for value in found.values()):
        return None
    if orientation > 1:
        found[ORIENTATION] = TagValue(_SHORT, struct.pack("<H", orientation))
    return b"II*\0\x08\0\0\0" + _pack_directory(found, _ByteLayout("<"), 8)


def write_metadata(
    file: BinaryIO, exif: bytes | None, resolution: tuple[float, float] | None, pages: Sequence[Directory]
) -> None:
    """Write EXIF and resolution into a TIFF file.

    Changed directories are appended to the file; the pixels are not moved.

    Args:
        file: The TIFF file, open for reading and writing.
        exif: An EXIF block, starting with its TIFF header.
        resolution: Resolution (x, y) in pixels per inch; None removes the one that libvips has invented.
        pages: Further tags of each page, which replace those of the same number; those without content remove them.
    """
    found: Directory = {}
    if exif:
        with suppress(struct.error, ValueError):
            block = io.BytesIO(exif)
            found = _read_descriptive_tags(block, next(read_directories(block), {}))
    directories = list(read_directories(file, len(pages)))
    for directory, added in zip(directories, pages, strict=True):
        for tag in (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT):
            directory.pop(tag, None)
        if resolution:
            for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), resolution, strict=True):
                directory[tag] = make_rational(value)
            directory[RESOLUTION_UNIT] = make_integers(2)
        directory.update(found | added)
        found = {}  # only the first page gets EXIF
    EditedFile(file, directories).save()
