"""Adjust XMP packets (ISO 16684-1)."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

# Namespaces whose entries announce images or films behind the photograph, which upscaling leaves out.
_GONE = (
    "http://ns.google.com/photos/1.0/",  # camera (motion photos), container, item, depth map, image
    "http://ns.google.com/photos/dd/1.0/",
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
    "http://ns.adobe.com/xmp/note/",  # HasExtendedXMP
)
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
_THUMBNAILS = "{http://ns.adobe.com/xap/1.0/}Thumbnails"
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"


def adjust_xmp(packet: bytes, height: int, width: int, factors: tuple[float, float]) -> tuple[bytes | None, str | None]:
    """Return an XMP packet for an upright image of a new size.

    Orientation and sizes are set, panorama sizes are multiplied, and entries that announce images or films which are
    left out are removed. A packet without any of them is returned unchanged.

    Args:
        packet: The packet.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        factors: How many times larger the height and the width are than those of the image that was read.

    Returns:
        The packet, or None if it cannot be adjusted, and a note on what was left out.
    """
    packet = _set_numbers(packet, height, width, factors)
    if not any(uri.encode() in packet for uri in (*_GONE, "Thumbnails")):
        return packet, None
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        return None, "XMP with definitions of entities not kept"
    try:
        # There are no entities that could grow or name files.
        spaces = dict(each[1] for each in ElementTree.iterparse(io.BytesIO(packet), events=["start-ns"]))  # noqa: S314
        root = ElementTree.fromstring(packet)  # noqa: S314
    except ElementTree.ParseError:
        return None, "unreadable XMP not kept"
    if not _remove(root):
        return packet, None
    for prefix, uri in spaces.items():
        if not re.fullmatch(r"ns\d+", prefix):
            ElementTree.register_namespace(prefix, uri)
    head, tail = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n', b'\n<?xpacket end="w"?>'
    return head + ElementTree.tostring(root) + tail, "XMP entries on images or films that are left out not kept"


def _set_numbers(packet: bytes, height: int, width: int, factors: tuple[float, float]) -> bytes:
    """Return a packet with orientation, sizes and panorama sizes adjusted; everything else stays as it is."""
    sizes = {"ImageWidth": width, "ImageLength": height, "PixelXDimension": width, "PixelYDimension": height}
    sizes |= {"Orientation": 1}

    def adjust(match: re.Match[bytes]) -> bytes:
        start, name, middle, number = match.groups()
        value = sizes.get(name.decode())
        if value is None:
            value = round(int(number) * factors[re.search(rb"(Width|Left)(Pixels)?$", name) is not None])
        return start + name + middle + b"%d" % value

    names = {_TIFF: rb"Orientation|ImageWidth|ImageLength", _EXIF: rb"Pixel[XY]Dimension"}
    names[_PANORAMA] = rb"\w+(?:Width|Left|Height|Top)(?:Pixels)?"
    for uri, name in names.items():
        for prefix in set(re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']%s[\"']" % re.escape(uri.encode()), packet)):
            entry = rb"(\b%s:)(%s)(\s*=\s*[\"']|\s*>\s*)(\d+)" % (re.escape(prefix), name)
            packet = re.sub(entry, adjust, packet)
    return packet


def _is_gone(name: str) -> bool:
    uri = name[1:].partition("}")[0]
    return name == _THUMBNAILS or (uri.startswith(_GONE) and uri != _PANORAMA)


def _remove(element: ElementTree.Element) -> bool:
    """Remove what announces other images from an element and those within it; return whether there was anything."""
    names = [name for name in element.attrib if _is_gone(name)]
    children = [child for child in element if _is_gone(child.tag)]
    for name in names:
        del element.attrib[name]
    for child in children:
        element.remove(child)
    return any([bool(names or children), *map(_remove, element)])
