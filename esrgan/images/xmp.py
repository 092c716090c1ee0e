"""Adjust and join XMP packets (ISO 16684-1)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from xml.parsers import expat

from esrgan.images.exif import adjust_subject, turn_point

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns# "
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/ ", "http://ns.adobe.com/exif/1.0/ "
_DIMENSIONS, _AREA = "http://ns.adobe.com/xap/1.0/sType/Dimensions# ", "http://ns.adobe.com/xmp/sType/Area# "
_APPLIED_TO = "http://www.metadataworkinggroup.com/schemas/regions/ AppliedToDimensions"
_EXTENDED = "http://ns.adobe.com/xmp/note/ HasExtendedXMP"
# What announces or holds images and films besides the photograph, which upscaling leaves out: namespace and name.
_GONE = re.compile(
    r"http://ns\.\w+\.com/photos/1\.0/camera/ (MotionPhoto|MicroVideo|OLivePhoto|VideoLength).*"
    r"|http://ns\.google\.com/photos/1\.0/(container|depthmap|image)/.*|http://ns\.google\.com/photos/dd/1\.0/.*"
    r"|http://ns\.adobe\.com/hdr-gain-map/1\.0/ .*|http://ns\.apple\.com/HDRGainMap/1\.0/ .*"
    rf"|http://ns\.adobe\.com/xap/1\.0/ Thumbnails|{_EXTENDED}"
)
_PANORAMA = re.compile(r"http://ns\.google\.com/photos/1\.0/panorama/ \w+(Width|Left|Height|Top)(?:Pixels)?")
# The texts without which a packet needs no change.
_CLUES = re.compile(
    rb"/photos/1\.0/|/photos/dd/|hdr-gain-map|HDRGainMap|Thumbnails|HasExtendedXMP|ns\.adobe\.com/(?:tiff|exif)/1\.0/"
    rb"|AppliedToDimensions"
)
_ATTRIBUTE = re.compile(rb"\s([^\s=]+)\s*=\s*(\"[^\"]*\"|'[^']*')")
_START_TAG = re.compile(rb"<(?:[^>\"']|\"[^\"]*\"|'[^']*')*>")
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"<\0\0\0": "utf-32-le",
    b"\0\0\0<": "utf-32-be",
    b"<\0": "utf-16-le",
    b"\0<": "utf-16-be",
}


@dataclass(frozen=True)
class _Image:
    """The image that a packet is adjusted to, as the arguments of ``adjust_xmp`` describe it."""

    height: int
    width: int
    factors: tuple[float, float]
    orientation: int


@dataclass
class _Value:
    """A property with a simple value: its name, and where its value is in the packet."""

    name: str
    start: int
    end: int
    text: str


@dataclass
class _Element:
    """An element that is being read: its name, where its content starts, and the simple values in it."""

    name: str
    start: int = 0
    content: int = 0
    values: list[_Value] = field(default_factory=list)
    is_simple: bool = True


def adjust_xmp(
    packet: bytes, height: int, width: int, factors: tuple[float, float], orientation: int = 1
) -> tuple[bytes | None, str | None]:
    """Return an XMP packet for an upright image of a new size; everything else in the packet stays as it is.

    Orientation and sizes are set, sizes of panoramas are multiplied, regions follow the image, and entries that
    announce images or films which are left out are removed.

    Args:
        packet: The packet, in UTF-8, UTF-16 or UTF-32. It is returned in UTF-8.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        factors: How many times larger the height and the width are than those of the upright image that was read.
        orientation: The orientation that the image had before it was turned upright.

    Returns:
        The packet, or None if it cannot be adjusted, and a note on what was left out.
    """
    try:
        text = _to_utf8(packet)
        if not _CLUES.search(text + packet):
            return text, None
        editor = _Editor(text, _Image(height, width, factors, orientation))
    except (expat.ExpatError, LookupError, ValueError) as error:
        is_definition = isinstance(error, _DefinitionError)
        return None, f"{'XMP with definitions of entities' if is_definition else 'unreadable XMP'} not kept"
    note = "XMP entries on images or films that are left out not kept" if editor.gone - {_EXTENDED} else None
    return editor.result(), note


def join_xmp(packet: bytes, extension: bytes) -> bytes | None:
    """Return a packet with the properties of another one added, or None if one of them has no properties."""
    ours, theirs = (
        re.search(rb"<([\w.-]+):RDF\b[^>]*(>)(.*)</\1:RDF\s*>", each, re.DOTALL) for each in (packet, extension)
    )
    if not ours or not theirs:
        return None
    known = dict(_ATTRIBUTE.findall(packet[: ours.end(2)]))
    names = {
        name: uri
        for name, uri in _ATTRIBUTE.findall(extension[: theirs.end(2)])
        if name.startswith(b"xmlns") and name not in known
    }
    added = b"".join(b" %s=%s" % each for each in names.items())
    return packet[: ours.start(2)] + added + packet[ours.start(2) : ours.end(3)] + theirs[3] + packet[ours.end(3) :]


def _to_utf8(packet: bytes) -> bytes:
    """Return a packet in UTF-8, which is the only encoding that all files may have."""
    for start, encoding in _ENCODINGS.items():
        if packet.startswith(start):
            text = packet[: len(packet) // 4 * 4 if "32" in encoding else len(packet) // 2 * 2].decode(encoding)
            return re.sub(r"^(<\?xml[^>]*?)\s+encoding\s*=\s*[\"'][^\"']*[\"']", r"\1", text).encode()
    return packet


class _DefinitionError(ValueError):
    """A packet defines entities, which could grow or name files."""


class _Editor:
    """What has to be changed in a packet, which is found while it is parsed.

    Attributes:
        gone: Namespaces and names of the entries that are removed.
    """

    def __init__(self, packet: bytes, image: _Image) -> None:
        self.gone: set[str] = set()
        self._packet, self._image = packet, image
        self._edits: list[tuple[int, int, bytes]] = []
        self._open = [_Element("")]
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.ordered_attributes = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = self._refuse
        try:
            self._parser.Parse(packet.rstrip(b"\0"), True)
        except expat.ExpatError:
            if len(self._open) > 1 or not self._open[0].content:  # padding may follow the only element
                raise

    def result(self) -> bytes:
        """Return the packet with all changes."""
        parts, position = [], 0
        for start, end, text in sorted(self._edits, key=lambda edit: (edit[0], -edit[1])):
            if start >= position:  # what is inside of a removed element needs no change
                parts += [self._packet[position:start], text]
                position = end
        return b"".join([*parts, self._packet[position:]])

    def _refuse(self, *_: object) -> None:
        raise _DefinitionError

    def _start(self, name: str, attributes: list[str]) -> None:
        start = self._parser.CurrentByteIndex
        tag = _START_TAG.match(self._packet, start)
        if tag is None:
            raise ValueError("no start tag")
        element = _Element(name, start, tag.end())
        spans = [each for each in _ATTRIBUTE.finditer(tag[0]) if not each[1].startswith(b"xmlns")]
        for attribute, text, span in zip(attributes[::2], attributes[1::2], spans, strict=True):
            if _GONE.fullmatch(attribute):
                self._remove(attribute, start + span.start(), start + span.end())
            else:
                element.values.append(_Value(attribute, start + span.start(2) + 1, start + span.end(2) - 1, text))
        self._open[-1].is_simple = False
        self._open.append(element)

    def _end(self, name: str) -> None:
        element = self._open.pop()
        parent = self._open[-1]
        position = self._parser.CurrentByteIndex
        is_empty = self._packet[element.content - 2 : element.content] == b"/>"
        if len(self._open) == 1:
            parent.content = position
        if _GONE.fullmatch(name):
            end = element.content if is_empty else self._packet.index(b">", position) + 1
            self._remove(name, element.start, end)
            return
        path = [each.name for each in (*self._open, element)]
        for value, text in _adjust_values(path, element.values, self._image):
            if text != value.text:
                self._edits.append((value.start, value.end, text.encode()))
        if element.is_simple and not is_empty:
            text = self._packet[element.content : position].decode("utf-8", "replace").strip()
            parent.values.append(_Value(name, element.content, position, text))

    def _remove(self, name: str, start: int, end: int) -> None:
        self.gone.add(name)
        self._edits.append((start, end, b""))


def _adjust_values(path: list[str], values: list[_Value], image: _Image) -> Iterator[tuple[_Value, str]]:
    """Yield values of an element, given the names of all elements around it, and their new texts."""
    sizes = {f"{_TIFF}ImageWidth": image.width, f"{_TIFF}ImageLength": image.height, f"{_TIFF}Orientation": 1}
    sizes |= {f"{_EXIF}PixelXDimension": image.width, f"{_EXIF}PixelYDimension": image.height}
    by_name = {value.name: value for value in values}
    vertical, horizontal = image.factors
    for name, value in by_name.items():
        if name in sizes:
            yield value, str(sizes[name])
        elif match := _PANORAMA.fullmatch(name):
            yield value, _multiply(value.text, horizontal if match[1] in ("Width", "Left") else vertical)
    pairs = [(_TIFF, "XResolution", "YResolution", 1.0, 1.0)]
    pairs += [(_EXIF, "FocalPlaneXResolution", "FocalPlaneYResolution", horizontal, vertical)]
    if _APPLIED_TO in path and by_name.get(f"{_DIMENSIONS}unit", _Value("", 0, 0, "pixel")).text == "pixel":
        pairs += [(_DIMENSIONS, "w", "h", horizontal, vertical)]
    for space, x, y, *factors in pairs:
        if f"{space}{x}" in by_name and f"{space}{y}" in by_name:
            found = [by_name[f"{space}{x}"], by_name[f"{space}{y}"]]
            texts = [value.text for value in found][:: -1 if image.orientation >= 5 else 1]
            for value, text, factor in zip(found, texts, factors, strict=True):
                yield value, _multiply(text, factor)
    if path[-1] == f"{_RDF}Seq" and path[-2] in (f"{_EXIF}SubjectArea", f"{_EXIF}SubjectLocation"):
        numbers = [int(value.text) for value in values if value.text.isdigit()]
        if 2 <= len(numbers) == len(values) <= 4:
            place = adjust_subject(numbers, image.orientation, (image.height, image.width), image.factors)
            yield from zip(values, map(str, place), strict=True)
    area = {value.name.removeprefix(_AREA): value for value in values if value.name.startswith(_AREA)}
    with suppress(ValueError):
        yield from _turn_area(area, image.orientation)


def _turn_area(area: dict[str, _Value], orientation: int) -> Iterator[tuple[_Value, str]]:
    """Yield the values of a region, whose numbers are parts of the image's sides, and their new texts."""
    if "x" in area and "y" in area and orientation > 1:
        x, y = turn_point(float(area["x"].text), float(area["y"].text), orientation, 1, 1)
        yield area["x"], f"{x:.9g}"
        yield area["y"], f"{y:.9g}"
    if "w" in area and "h" in area and orientation >= 5:
        yield area["w"], area["h"].text
        yield area["h"], area["w"].text


def _multiply(text: str, factor: float) -> str:
    """Return a number, or the number above a fraction bar, multiplied."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?)(/\d+)?", text)
    return f"{round(float(match[1]) * factor)}{match[2] or ''}" if match and factor != 1 else text
