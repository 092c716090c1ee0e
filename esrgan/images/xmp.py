"""Adjust and join XMP packets (ISO 16684-1)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from xml.parsers import expat

from esrgan.images.exif import adjust_subject, turn_point
from esrgan.images.image import Dpi, DpiChange, find_dpi_factors

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns# "
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/ ", "http://ns.adobe.com/exif/1.0/ "
_DIMENSIONS, _AREA = "http://ns.adobe.com/xap/1.0/sType/Dimensions# ", "http://ns.adobe.com/xmp/sType/Area# "
_BOUNDARY, _RECTANGLE = (
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/ rb",
    "http://ns.microsoft.com/photo/1.2/t/Region# Rectangle",
)
_APPLIED_TO = "http://www.metadataworkinggroup.com/schemas/regions/ AppliedToDimensions"
_EXTENDED = "http://ns.adobe.com/xmp/note/ HasExtendedXMP"
# What announces or holds images and videos other than the photograph, which upscaling leaves out: namespace and name.
_GONE = re.compile(
    r"http://ns\.\w+\.com/photos/1\.0/camera/ (MotionPhoto|MicroVideo|OLivePhoto|VideoLength).*"
    r"|http://ns\.google\.com/photos/1\.0/(container|depthmap|image)/.*|http://ns\.google\.com/photos/dd/1\.0/.*"
    r"|http://ns\.adobe\.com/hdr-gain-map/1\.0/ .*|http://ns\.apple\.com/HDRGainMap/1\.0/ .*"
    rf"|http://ns\.adobe\.com/xap/1\.0/ Thumbnails|{_EXTENDED}"
)
# Numbers of pixels across and down: of panoramas, and of the camera, as DJI's drones state them for photogrammetry.
_PANORAMA, _DJI = (
    r"http://ns\.google\.com/photos/1\.0/panorama/ \w+",
    r"http://www\.dji\.com/drone-dji/1\.0/ Calibrated",
)
_ACROSS = re.compile(rf"{_PANORAMA}(Width|Left)(Pixels)?|{_DJI}(FocalLength|OpticalCenterX)")
_DOWN = re.compile(rf"{_PANORAMA}(Height|Top)(Pixels)?|{_DJI}OpticalCenterY")
_DEWARP = "http://www.dji.com/drone-dji/1.0/ DewarpData"  # date;fx,fy,cx,cy,… with the first four in pixels
# The texts without which a packet needs no change.
_CLUES = re.compile(
    rb"/photos/1\.0/|/photos/dd/|hdr-gain-map|HDRGainMap|Thumbnails|HasExtendedXMP|ns\.adobe\.com/(?:tiff|exif)/1\.0/"
    rb"|AppliedToDimensions|sType/Area#|Iptc4xmpExt|photo/1\.2/t/Region#|drone-dji"
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
    dpi_change: DpiChange
    keeps_orientation: bool


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
    packet: bytes,
    height: int,
    width: int,
    factors: tuple[float, float],
    orientation: int | None = 1,
    dpi_change: DpiChange = (1.0, 1.0),
) -> tuple[bytes | None, str | None]:
    """Return an XMP packet for an upright image of a new size; everything else in the packet stays as it is.

    Orientation and sizes are set, sizes of panoramas are multiplied, regions follow the image, and entries that
    announce images or videos which are left out are removed.

    Args:
        packet: The packet, in UTF-8, UTF-16 or UTF-32. It is returned in UTF-8.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        factors: How many times larger the height and the width are than those of the upright image that was read.
        orientation: The orientation that the image had before it was turned upright; None if only the packet states
            one, which was not applied and stays.
        dpi_change: How to change the resolution.

    Returns:
        The packet, or None if it cannot be adjusted, and a note on what was left out.
    """
    try:
        text = _to_utf8(packet)
        if not _CLUES.search(text + packet):
            return text, None
        editor = _Editor(text, _Image(height, width, factors, orientation or 1, dpi_change, orientation is None))
    except (expat.ExpatError, LookupError, ValueError) as error:
        is_definition = isinstance(error, _DefinitionError)
        return None, f"{'XMP with definitions of entities' if is_definition else 'unreadable XMP'} not kept"
    note = "XMP entries on images or videos that are left out not kept" if editor.gone - {_EXTENDED} else None
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
            self._parser.Parse(packet, True)
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
    sizes = {f"{_TIFF}ImageWidth": image.width, f"{_TIFF}ImageLength": image.height}
    sizes |= {} if image.keeps_orientation else {f"{_TIFF}Orientation": 1}
    sizes |= {f"{_EXIF}PixelXDimension": image.width, f"{_EXIF}PixelYDimension": image.height}
    by_name = {value.name: value for value in values}
    vertical, horizontal = image.factors
    for name, value in by_name.items():
        if name in sizes:
            yield value, str(sizes[name])
        elif _ACROSS.fullmatch(name) or _DOWN.fullmatch(name):
            yield value, _multiply(value.text, horizontal if _ACROSS.fullmatch(name) else vertical)
        elif name == _DEWARP:
            date, mark, data = value.text.rpartition(";")
            lengths = data.split(",")
            scaled = map(_multiply, lengths, (horizontal, vertical) * 2)
            yield value, f"{date}{mark}{','.join([*scaled, *lengths[4:]])}"
    dpi_vertical, dpi_horizontal = find_dpi_factors(image.dpi_change, _read_resolution(by_name, image.orientation))
    pairs = [(_TIFF, "XResolution", "YResolution", dpi_horizontal, dpi_vertical)]
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
    with suppress(ValueError):
        yield from _adjust_regions(by_name, image)


def _adjust_regions(values: dict[str, _Value], image: _Image) -> Iterator[tuple[_Value, str]]:
    """Yield the values of a region that belong to an element, and their new texts."""
    if _RECTANGLE in values and image.orientation > 1:
        box = [float(number) for number in values[_RECTANGLE].text.split(",")]
        yield values[_RECTANGLE], ", ".join(f"{number:.9g}" for number in _turn_box(box, image.orientation, 1, 1))
    for space, is_centre in ((_AREA, True), (_BOUNDARY, False)):
        sides = [values.get(f"{space}{side}") for side in ("xywh" if is_centre else "XYWH")]
        x, y, width, height = (float(value.text) if value else 0.0 for value in sides)
        if is_centre:
            x, y = x - width / 2, y - height / 2
        unit = values.get(f"{space}{'unit' if is_centre else 'Unit'}")  # the corners of a polygon have none
        is_pixels = unit.text == "pixel" if unit else max(x, y, width, height) > 1
        across, down = (image.width / image.factors[1], image.height / image.factors[0]) if is_pixels else (1.0, 1.0)
        if image.orientation >= 5:
            across, down = down, across
        x, y, width, height = _turn_box([x, y, width, height], image.orientation, across, down)
        if is_centre:
            x, y = x + width / 2, y + height / 2
        factors = image.factors[::-1] * 2 if is_pixels else (1.0,) * 4
        for value, number, factor in zip(sides, (x, y, width, height), factors, strict=True):
            if value and (is_pixels or image.orientation > 1):
                yield value, f"{number * factor:.9g}"
        if (radius := values.get(f"{space}Rx")) and is_pixels:
            yield radius, _multiply(radius.text, factors[0])


def _turn_box(box: list[float], orientation: int, right: float, bottom: float) -> list[float]:
    """Return left, top, width and height of a box in the upright image, given those in the stored one."""
    x, y, width, height = box
    left, top = turn_point(x, y, orientation, right, bottom)
    end, floor = turn_point(x + width, y + height, orientation, right, bottom)
    return [min(left, end), min(top, floor), abs(end - left), abs(floor - top)]


def _read_resolution(values: dict[str, _Value], orientation: int) -> Dpi:
    """Return the resolution (x, y) of the upright image in pixels per inch that properties of an element state."""
    unit = values.get(f"{_TIFF}ResolutionUnit")
    inches = {"2": 1.0, "3": 2.54}.get(unit.text if unit else "2")
    with suppress(KeyError, ValueError, ZeroDivisionError):
        x, y = (float(Fraction(values[f"{_TIFF}{axis}Resolution"].text)) for axis in "XY")
        x, y = (y, x) if orientation >= 5 else (x, y)
        return (x * inches, y * inches) if inches else None
    return None


def _multiply(text: str, factor: float) -> str:
    """Return a number, or the number above a fraction bar, multiplied."""
    match = re.fullmatch(r"(-?\d+(?:\.\d*)?)(/\d+)?", text)
    if not match or factor == 1:
        return text
    number = float(match[1]) * factor
    return f"{number if '.' in match[1] else round(number)}{match[2] or ''}"
