"""Account for the boxes and items of an AVIF or HEIC file (ISO/IEC 14496-12, ISO/IEC 23008-12)."""

from __future__ import annotations

import io
import itertools
import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

_MAX_CONTENT = 2**16  # bytes of a property that are read
_FILE_BOXES = (b"ftyp", b"meta", b"mdat", b"free", b"skip", b"wide")
_META_BOXES = (b"hdlr", b"pitm", b"iloc", b"iinf", b"iref", b"iprp", b"idat", b"dinf", b"grpl", b"free", b"skip")
# Properties that define how an image is decoded, and those that are kept.
_PROPERTIES = frozenset(
    b"ispe pixi colr nclx nclc prof rICC irot imir clap pasp auxC av1C a1op a1lx lsel hvcC vvcC avcC jpgC".split()
)
LIGHT = "HDR light levels"
_LIGHT_LEVELS = (b"clli", b"mdcv", b"amve", b"ndwt")
_TURNS = (b"irot", b"imir")
_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}  # of red and blue
_IMAGES = (b"hvc1", b"av01", b"vvc1", b"avc1", b"jpeg", b"j2k1", b"unci", b"grid", b"iovl", b"iden")
_KEPT = (b"Exif", b"mime application/rdf+xml")
_ALPHA, _DEPTH = (":auxiliary:alpha", "2015:auxid:1"), (":auxiliary:depth", "2015:auxid:2")
_NAMES = {b"moov": "image sequence", b"mpvd": "video", b"udes": "description", b"altt": "alternative text"}
_NAMES |= {b"tmap": "HDR gain map", b"Exif": "EXIF", b"mime application/rdf+xml": "XMP", b"uri ": "data with a URI"}


@dataclass
class Inventory:
    """What a file holds.

    Attributes:
        primary: Number of the image that is shown.
        items: Kind of each item by its number, followed by its type if it is a MIME type.
        hidden: Numbers of the items that are not shown on their own.
        references: Targets of the references between items, by their kind and origin.
        groups: Kind and members of each group of items.
        definitions: Kind and content of each property, and where its content begins in the file.
        associations: Indices of the properties of each item, from 1.
        left_out: Names of boxes and items that are not kept.
        bytes_behind: How many bytes follow the last box.
    """

    primary: int = 0
    items: dict[int, bytes] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    references: dict[tuple[bytes, int], set[int]] = field(default_factory=dict)
    groups: list[tuple[bytes, tuple[int, ...]]] = field(default_factory=list)
    definitions: list[tuple[bytes, bytes, int]] = field(default_factory=list)
    associations: dict[int, list[int]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    bytes_behind: int = 0

    @classmethod
    def of(cls, file: BinaryIO) -> Inventory:
        """Read the boxes of a file.

        Raises:
            ValueError: The boxes are damaged.
        """
        found, end = cls(), 0
        seen: set[bytes] = set()
        size = file.seek(0, os.SEEK_END)
        for kind, start, stop in _walk(file, 0, size):
            if kind == b"ftyp" and seen:  # a video after a photograph
                break
            end = stop
            if kind not in _FILE_BOXES or (kind == b"meta" and kind in seen):
                found.left_out.append(_name("box", kind))
            elif kind == b"meta":
                try:
                    found._read_meta(file, start + 4, stop)
                except (struct.error, IndexError) as error:
                    raise ValueError("its boxes are damaged") from error
            seen.add(kind)
        found.bytes_behind = size - end
        return found

    @property
    def properties(self) -> dict[bytes, bytes]:
        """The properties of the image that is shown; the colour tag (nclx) and the profile have names of their own.

        Where it is made of tiles, these may have the colour tag and the properties of the codec.
        """
        result: dict[bytes, bytes] = {}
        for item in [self.primary, *sorted(self._with_parts({self.primary}))]:
            for kind, content, _ in self._properties_of(item):
                if item == self.primary or kind in (b"colr", b"av1C", b"hvcC"):
                    result.setdefault(content[:4] if kind == b"colr" else kind, content)
        return result

    def _properties_of(self, item: int) -> list[tuple[bytes, bytes, int]]:
        """Return the definitions of an item's properties, in the order in which they are applied."""
        indices = self.associations.get(item, ())
        return [self.definitions[index - 1] for index in indices if 0 < index <= len(self.definitions)]

    def remove_turns(self, file: BinaryIO) -> tuple[io.BytesIO, list[tuple[bytes, int]]] | None:
        """Return a copy of the file in which the image is not turned, and how it is to be turned after decoding.

        libheif turns colours of lower resolution (4:2:0, 4:2:2) before it converts them to RGB. If a size is odd, the
        last column or row then has colours of other pixels.

        Returns:
            The copy, and kind (irot or imir) and value of each turn in order. None if the image is not turned, or is
            cut afterwards, or if its alpha channel is turned in another way.
        """
        images = [self.primary, *(item for item in self.items if self._auxiliary_kind(item) == "alpha")]
        steps = [
            [
                (kind, content[0], place)
                for kind, content, place in self._properties_of(item)
                if kind in _TURNS and content
            ]
            for item in images
        ]
        turns = [each[:2] for each in steps[0]]
        kinds = [kind for kind, _, _ in self._properties_of(self.primary) if kind in (*_TURNS, b"clap")]
        if not turns or any([each[:2] for each in other] != turns for other in steps) or b"clap" in kinds[1:]:
            return None
        file.seek(0)
        copy = bytearray(file.read())
        for _, _, place in itertools.chain(*steps):
            copy[place - 4 : place + 1] = b"irot\0"  # by 0°
        return io.BytesIO(copy), turns

    @property
    def pixel_aspect(self) -> tuple[int, int] | None:
        """Width and height of a pixel of the upright image, if they differ."""
        found = self.properties
        x, y = struct.unpack(">II", found[b"pasp"]) if len(found.get(b"pasp", b"")) == 8 else (0, 0)
        if x == y or not x or not y:
            return None
        pair = x // math.gcd(x, y), y // math.gcd(x, y)
        return pair[::-1] if found.get(b"irot", b"\0")[0] & 1 else pair

    @property
    def colour_tag(self) -> tuple[int, int] | None:
        """The primaries and the transfer function (ITU-T H.273)."""
        content = self.properties.get(b"nclx", b"")
        return (int.from_bytes(content[4:6]), int.from_bytes(content[6:8])) if len(content) >= 8 else None

    @property
    def is_deep_av1(self) -> bool:
        """Whether the samples of an AV1 image have 10 or 12 bits (AV1-ISOBMFF, §2.3.3)."""
        return any(flags & 0x40 for flags in self.properties.get(b"av1C", b"")[2:3])

    @property
    def has_halved_colours(self) -> bool:
        """Whether colours have half of the width and the height (4:2:0) in an AV1 or HEVC image.

        Not where the image is cut between two pixels of one colour.
        """
        found = self.properties
        av1, hevc = found.get(b"av1C", b"")[2:3], found.get(b"hvcC", b"")[16:17]  # ISO/IEC 14496-15, §8.3.2
        is_halved = any(flags & 0x1C == 0x0C for flags in av1) or any(flags & 3 == 1 for flags in hevc)
        return is_halved and not any(begin % 2 for begin in self._cut)

    @property
    def _cut(self) -> tuple[Fraction, Fraction]:
        """How many columns and rows are cut off before the image (clap; ISO/IEC 14496-12, §12.1.4)."""
        found = self.properties
        if len(cut := found.get(b"clap", b"")) != 32 or not all(
            cut[4 * k : 4 * k + 4] != bytes(4) for k in (1, 3, 5, 7)
        ):
            return Fraction(), Fraction()
        sizes = struct.unpack(">II", found.get(b"ispe", b"")[4:12].ljust(8, b"\0"))
        kept, offsets = struct.unpack(">4I", cut[:16]), struct.unpack(">iIiI", cut[16:])
        x, y = (
            (sizes[k] - Fraction(*kept[2 * k : 2 * k + 2])) / 2 + Fraction(*offsets[2 * k : 2 * k + 2]) for k in (0, 1)
        )
        return x, y

    @property
    def luma_weights(self) -> tuple[float, float]:
        """The shares of red and blue in luma (ITU-T H.273, table 4), by default those of BT.601."""
        return _LUMA_WEIGHTS.get(int.from_bytes(self.properties.get(b"nclx", b"")[8:10]), (0.299, 0.114))

    @property
    def pixels(self) -> int:
        """The number of pixels that the file states; encoders often cut what they have padded (clap)."""
        found = self.properties
        if len(cut := found.get(b"clap", b"")) == 32:
            width, width_unit, height, height_unit = struct.unpack(">4I", cut[:16])
        else:
            width, height = struct.unpack(">II", found.get(b"ispe", b"")[4:12].ljust(8, b"\0"))
            width_unit = height_unit = 1
        return int(width // max(width_unit, 1)) * int(height // max(height_unit, 1))

    @property
    def is_premultiplied(self) -> bool:
        """Whether the colours of the image are multiplied with alpha."""
        return any(kind == b"prem" and self.primary in (origin, *to) for (kind, origin), to in self.references.items())

    def sort_items(self) -> tuple[int, list[str]]:
        """Return how many images are shown, and the names of boxes, items and properties that are left out."""
        used = self._with_parts({self.primary, *(item for item in self.items if self._auxiliary_kind(item) == "alpha")})
        others = sorted(set(self.items) - used)
        parts = {part for item in others for part in self._targets(item, b"dimg")}
        images, kept, names = 1, set(), []
        for item in others:
            kind, described = self.items[item], self._targets(item, b"cdsc")
            is_own = not described or not described.isdisjoint(used)  # what describes another image is a part of it
            if kind in _IMAGES and item not in parts:
                name = self._describe_image(item)
                images += not name
                names += [name] if name else []
            elif kind in _KEPT and is_own:
                name = _name("item", kind)
                names += [f"a second {name}"] if kind in kept else [] if described else [f"{name} of no image"]
                kept |= {kind} if described else set()
            elif kind not in _IMAGES and is_own:
                names.append(_name("item", kind))
        unknown = [kind for kind in self.properties if kind not in _PROPERTIES]
        names += [LIGHT if kind in _LIGHT_LEVELS else _name("property", kind) for kind in unknown]
        return images, list(dict.fromkeys([*self.left_out, *names]))

    def _targets(self, item: int, kind: bytes) -> set[int]:
        """Return the items that an item refers to."""
        return self.references.get((kind, item), set())

    def _with_parts(self, items: set[int]) -> set[int]:
        """Return images and the images that they are made of."""
        found, new = set(items), set(items)
        while new:
            new = {part for item in new for part in self._targets(item, b"dimg")} - found
            found |= new
        return found

    def _auxiliary_kind(self, item: int) -> str:
        """Return what an auxiliary image is, or nothing if the item is none."""
        if not (targets := self._targets(item, b"auxl")):
            return ""
        contents = [content for kind, content, _ in self._properties_of(item) if kind == b"auxC"]
        urn = contents[0][4:].split(b"\0")[0].decode("ascii", "replace") if contents else ""
        if urn.endswith(_ALPHA):
            return "alpha of another image" if targets.isdisjoint(self._with_parts({self.primary})) else "alpha"
        if urn.endswith(_DEPTH):
            return "depth map"
        return "gain map" if "gainmap" in urn.lower() else f"auxiliary image {urn.rpartition(':')[2]}".strip()

    def _describe_image(self, item: int) -> str:
        """Return what an image other than the primary one is, or nothing if it is shown too."""
        if name := self._auxiliary_kind(item):
            return name
        if self._targets(item, b"thmb"):
            return "thumbnail"
        if any(kind == b"altr" and {item, self.primary} <= set(members) for kind, members in self.groups):
            return "alternative image"
        return "hidden image" if item in self.hidden else ""

    def _read_meta(self, file: BinaryIO, start: int, end: int) -> None:
        for kind, begin, stop in _walk(file, start, end):
            file.seek(begin)
            version = file.read(4)[:1] != b"\0"
            if kind == b"pitm":
                self.primary = int.from_bytes(file.read(4 if version else 2))
            elif kind == b"iinf":
                for _, inner, last in _walk(file, begin + (8 if version else 6), stop):
                    self._read_item(_read(file, inner, last))
            elif kind == b"iref":
                for name, inner, last in _walk(file, begin + 4, stop):
                    data, code = _read(file, inner, last, 2**20), "I" if version else "H"
                    (origin, count), size = struct.unpack_from(f">{code}H", data), struct.calcsize(code)
                    targets = struct.unpack_from(f">{count}{code}", data, size + 2)
                    self.references.setdefault((name, origin), set()).update(targets)
            elif kind == b"iprp":
                self._read_properties(file, begin, stop)
            elif kind == b"grpl":
                for name, inner, last in _walk(file, begin, stop):
                    data = _read(file, inner, last)
                    (count,) = struct.unpack_from(">I", data, 8)
                    self.groups.append((name, struct.unpack_from(f">{min(count, len(data))}I", data, 12)))
            elif kind not in _META_BOXES:
                self.left_out.append(_name("box", kind))

    def _read_item(self, data: bytes) -> None:
        """Read the information on an item."""
        start = 6 if data[0] > 2 else 4
        number, kind = int.from_bytes(data[4 : 4 + start - 2]), data[4 + start : 8 + start]
        if kind == b"mime":
            kind += b" " + data[8 + start :].split(b"\0")[1]
        self.items[number] = kind
        if data[3] & 1:
            self.hidden.add(number)

    def _read_properties(self, file: BinaryIO, start: int, end: int) -> None:
        for kind, begin, stop in _walk(file, start, end):
            if kind == b"ipco":
                for name, inner, last in _walk(file, begin, stop):
                    self.definitions.append((name, _read(file, inner, last), inner))
            elif kind == b"ipma":
                data = _read(file, begin, stop, 2**22)
                code, layout, bits = "I" if data[0] else "H", "H" if data[3] & 1 else "B", 15 if data[3] & 1 else 7
                (entries,), position = struct.unpack_from(">I", data, 4), 8
                for _ in range(entries):
                    number, count = struct.unpack_from(f">{code}B", data, position)
                    position += struct.calcsize(code) + 1
                    indices = struct.unpack_from(f">{count}{layout}", data, position)
                    position += count * struct.calcsize(layout)
                    self.associations.setdefault(number, []).extend(index & (2**bits - 1) for index in indices)


def replace_exif(file: BinaryIO, exif: bytes) -> None:
    """Replace the EXIF block of a file that has one, by appending the new one."""
    found = Inventory.of(file)
    numbers = [number for number, kind in found.items.items() if kind == b"Exif"]
    end = file.seek(0, os.SEEK_END)
    metas = [(start, stop) for kind, start, stop in _walk(file, 0, end) if kind == b"meta"]
    boxes = [each[1:] for start, stop in metas for each in _walk(file, start + 4, stop) if each[0] == b"iloc"]
    content = b"\0\0\0\6Exif\0\0" + exif  # 6 bytes precede the TIFF header (ISO/IEC 23008-12, annex A)
    for place, size, length_size, base in _find_extents(file, *boxes[0], numbers[0]) if numbers and boxes else ():
        file.seek(place)
        file.write((end + 8 - base).to_bytes(size) + len(content).to_bytes(length_size))
        file.seek(end)
        file.write(struct.pack(">I4s", 8 + len(content), b"mdat") + content)


def _find_extents(file: BinaryIO, start: int, end: int, wanted: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield where an iloc box states the place of an item, the sizes of place and length there, and what is added."""
    data = _read(file, start, end)
    version, sizes = data[0], [data[4] >> 4, data[4] & 15, data[5] >> 4, data[5] & 15 if data[0] else 0]
    wide, position = 4 if version == 2 else 2, 6

    def take(size: int) -> int:
        nonlocal position
        position += size
        return int.from_bytes(data[position - size : position])

    for _ in range(take(wide)):
        number = take(wide)
        take(4 if version else 2)
        base = take(sizes[2])
        for _ in range(take(2)):
            take(sizes[3])
            if number == wanted:
                yield start + position, sizes[0], sizes[1], base
            take(sizes[0] + sizes[1])


def _walk(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start of the content, and end of the boxes in a part of a file, up to what is no box."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16).ljust(16, b"\0")
        size, kind = struct.unpack(">I4s", head[:8])
        begin = start + (16 if size == 1 else 8)
        stop = start + int.from_bytes(head[8:]) if size == 1 else start + size if size else end
        if stop < begin or stop > end or not re.fullmatch(rb"[ -~\xa9]{4}", kind):
            return
        yield kind, begin, stop
        start = stop


def _read(file: BinaryIO, start: int, end: int, limit: int = _MAX_CONTENT) -> bytes:
    file.seek(start)
    return file.read(min(end - start, limit))


def _name(what: str, kind: bytes) -> str:
    """Return what users know a box, item or property as."""
    label = kind.removeprefix(b"mime ").decode("latin-1").strip()
    return _NAMES.get(kind, f"{'data of type' if kind.startswith(b'mime ') else what} {label}")
