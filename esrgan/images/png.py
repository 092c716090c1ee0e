"""Read and write PNG files (PNG 3rd edition, and the extensions registered with it)."""

from __future__ import annotations

import math
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

from esrgan.images import exif, samples, vips
from esrgan.images.detect import PNG_SIGNATURE
from esrgan.images.image import COLOUR_SPACE, ImageData, NativeBlock, describe_left_out
from esrgan.images.source import Source, UnsupportedImageError

_XMP_KEYWORD = b"XML:com.adobe.xmp"
_XMP_START = b"http://ns.adobe.com/xap/1.0/\0"  # of XMP in a JPEG segment, which ImageMagick copies
_METRES_PER_INCH = 0.0254
_HEADER_BYTES = 54  # up to the chunk after the header, which may be the encoder's own resolution
_MAX_CONTENT = 2**28  # bytes of metadata in a chunk that are kept, also after it is decompressed

_COLOUR = (b"cHRM", b"gAMA", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_PLACES = {b"oFFs": "offset", b"grAb": "hot spot", b"sCAL": "physical scale"}
_OTHER = {b"tIME": "time of the last change", b"pCAL": "calibration", b"sBIT": "", b"bKGD": "background colour"}
_METADATA = (*_COLOUR, *_TEXT, *_PLACES, *_OTHER, b"pHYs", b"eXIf", b"PLTE")
_PIXELS = (b"IHDR", b"IDAT", b"tRNS", b"IEND", b"iCCP")  # read by libvips
# Texts of ImageMagick and of thumbnails about the file that they were written to.
_STALE_TEXT = re.compile(rb"(exif:(Orientation|ExifImage|PixelXDim|PixelYDim)|tiff:Orientation|png:IHDR|Thumb::)")
_SIZE = rb"\+?[0-9]*\.?[0-9]+(e[+-]?[0-9]+)?"
_SCALE = re.compile(rb"[\1\2]" + _SIZE + rb"\0" + _SIZE, re.IGNORECASE)  # unit, width and height of a pixel
_PROFILES = {b"Raw profile type exif": "exif", b"Raw profile type xmp": "xmp", b"Raw profile type APP1": "exif"}


def read(source: Source) -> ImageData:
    """Read a PNG file."""
    found = _Inventory.of(source.file)
    decoded = vips.decode(source)
    frames = samples.drop_colour_if_grey(decoded.frames) if "palette" in decoded.fields else decoded.frames
    metadata = decoded.metadata | found.take_blocks()
    if b"iCCP" in found.names and not (metadata.get("icc_profile") or decoded.notes or source.is_strict):
        decoded.notes.append("unreadable colour profile not kept")
    if b"tRNS" in found.names and frames[0].shape[2] in (1, 3):
        decoded.notes.append("misplaced transparency not kept")
    orientation = exif.read_orientation(metadata.get("exif") or b"")
    frames = samples.turn_upright(frames, orientation)
    resolution = found.take_resolution()
    blocks = found.take_native_blocks(is_grey=frames[0].shape[2] < 3)
    if orientation > 1 and (turned := [block for block in blocks if block.key in _PLACES]):
        blocks = [block for block in blocks if block not in turned]
        decoded.notes.append(f"{', '.join(block.label for block in turned)} of an image that was turned not kept")
    if orientation > 4:
        resolution = {name: value and value[::-1] for name, value in resolution.items()}
    notes = (*decoded.notes, *found.notes())
    return ImageData(tuple(frames), "PNG", native_blocks=tuple(blocks), notes=notes, **resolution, **metadata)


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a PNG file."""
    vips.encode(file, image, "PNG", head_length=_HEADER_BYTES, edit=partial(_insert_metadata, image=image))


@dataclass
class _Inventory:
    """The chunks of a PNG file.

    Attributes:
        chunks: Name and content of those that hold metadata; they are taken out when they are understood.
        names: Names of all chunks.
        not_kept: Names of chunks that are left out.
        others: Messages about what else is left out.
    """

    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    names: set[bytes] = field(default_factory=set)
    not_kept: set[str] = field(default_factory=set)
    others: list[str] = field(default_factory=list)
    header: bytes = b""

    @classmethod
    def of(cls, file: BinaryIO) -> _Inventory:
        """Read the chunks of a file."""
        found = cls()
        end = 0
        for name, length in _walk(file):
            end = file.tell() + length + 4
            found.names.add(name)
            if name == b"CgBI":
                got = "a PNG that Apple's Xcode has changed for the iPhone"
                raise UnsupportedImageError("a PNG of the standard", got, "convert it back with pngcrush or pngdefry")
            # An animation whose only frame is the image itself has no fdAT.
            if name == b"fdAT" or (name == b"acTL" and file.read(4) != b"\0\0\0\1"):
                raise UnsupportedImageError("one image", "an animated PNG", "save it as an animated .webp or .gif")
            if name == b"IHDR":
                found.header = file.read(min(length, 13))
            elif name in _METADATA:
                content = file.read(length) if length < _MAX_CONTENT else b""
                if file.read(4) == struct.pack(">I", zlib.crc32(name + content)):
                    found.chunks.append((name, content))
                else:
                    found.not_kept.add(name.decode())
            elif name not in _PIXELS:
                found.not_kept.add(name.decode("ascii", "backslashreplace"))
        if b"IEND" not in found.names:
            found.others.append("the file ends too early; what follows the pixels is missing")
        else:
            found.others += describe_left_out((), file.seek(0, os.SEEK_END) - end)
        return found

    def notes(self) -> tuple[str, ...]:
        """Return messages about what is left out."""
        names = ", ".join(sorted(self.not_kept, key=str.lower))
        return (*([f"PNG chunks {names} not kept"] if names else []), *self.others)

    def take(self, *names: bytes) -> list[tuple[bytes, bytes]]:
        """Take chunks out."""
        taken = [chunk for chunk in self.chunks if chunk[0] in names]
        self.chunks = [chunk for chunk in self.chunks if chunk[0] not in names]
        return taken

    def take_blocks(self) -> dict[str, bytes]:
        """Return the EXIF block and the XMP packet, wherever they are in the file."""
        blocks: dict[str, list[bytes]] = {"exif": [content for _, content in self.take(b"eXIf")], "xmp": []}
        texts = []
        for name, content in self.take(*_TEXT):
            keyword = content.partition(b"\0")[0]
            if keyword not in _PROFILES and keyword != _XMP_KEYWORD:
                texts.append((name, content))
                continue
            block, kind = _read_text(name, content), _PROFILES.get(keyword, "xmp")
            if block and keyword in _PROFILES:
                block = _decode_profile(block)
                if block and block.startswith(_XMP_START):
                    block, kind = block.removeprefix(_XMP_START), "xmp"
            if block:
                blocks[kind].append(block)
            else:
                self.others.append(f"unreadable {kind.upper()} not kept")
        self.chunks += texts
        valid = [block for found in blocks["exif"] if (block := exif.strip_exif_prefix(found))]
        self.others += ["unreadable EXIF not kept"] if len(valid) < len(blocks["exif"]) else []
        blocks["exif"] = valid
        self.others += [f"a second {kind.upper()} not kept" for kind, found in blocks.items() if len(set(found)) > 1]
        return {kind: found[0] for kind, found in blocks.items() if found}

    def take_resolution(self) -> dict[str, Any]:
        """Return the resolution, or the aspect ratio of a pixel, as fields of ``ImageData``."""
        for _, content in self.take(b"pHYs")[:1]:
            x, y, unit = struct.unpack(">IIB", content) if len(content) == 9 else (0, 0, 0)
            if x and y and unit == 1:
                return {"dpi": (x * _METRES_PER_INCH, y * _METRES_PER_INCH)}
            if x and y and x != y:
                return {"pixel_aspect": (y // math.gcd(x, y), x // math.gcd(x, y))}
        return {}

    def take_native_blocks(self, *, is_grey: bool) -> list[NativeBlock]:
        """Return the chunks that only PNG can store."""
        is_unlike_srgb = b"iCCP" not in self.names and _is_unlike_srgb(self.chunks)
        palette = dict(self.take(b"PLTE")).get(b"PLTE", b"")
        bits, colour_type = (self.header[8], self.header[9]) if len(self.header) == 13 else (0, 0)
        blocks: list[NativeBlock] = []
        stale = []
        for name, content in self.chunks:
            label = {**_PLACES, **_OTHER}.get(name, "")
            value: Any = content
            if name in _TEXT:
                label = "comment"
                if _STALE_TEXT.match(content):
                    stale.append(content.partition(b"\0")[0].decode("latin-1"))
                    continue
            elif name in _COLOUR:
                label = COLOUR_SPACE if is_unlike_srgb else ""
            elif name == b"bKGD":
                value = _read_background(content, bits, palette if colour_type == 3 else b"", is_grey=is_grey)
            elif name == b"sBIT" and (set(content) != {bits} or colour_type == 3):
                value = None  # the new samples use all bits
            elif (name == b"pCAL" and colour_type == 3) or not _is_valid(name, content):
                value = None
            if value is None:
                self.not_kept.add(name.decode())
            else:
                blocks.append(NativeBlock(label, name, value))
        if stale:
            self.others.append(f"text {', '.join(dict.fromkeys(stale))} not kept, because it describes the old image")
        return blocks


def _walk(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield name and length of each chunk of a PNG file, with the file at the chunk's content."""
    position = len(PNG_SIGNATURE)
    while file.seek(position) == position and len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        yield name, length
        position += length + 12
        if name == b"IEND":
            return


def _read_text(name: bytes, content: bytes) -> bytes | None:
    """Return the text in a text chunk, or None if it cannot be decompressed or is too long."""
    _, _, text = content.partition(b"\0")
    is_compressed = name == b"zTXt"
    if name == b"zTXt":
        text = text[1:]
    elif name == b"iTXt":
        is_compressed = text[:1] == b"\1"
        text = text[2:].split(b"\0", 2)[-1]
    if not is_compressed:
        return text
    decoder = zlib.decompressobj()
    try:
        text = decoder.decompress(text, _MAX_CONTENT)
    except zlib.error:
        return None
    return text if decoder.eof else None


def _decode_profile(text: bytes) -> bytes | None:
    """Return the block in a text of ImageMagick: a name, a length and hexadecimal digits, each on own lines."""
    try:
        return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except ValueError:
        return None


def _is_unlike_srgb(chunks: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether a PNG file's chunks define colours that differ from sRGB, the default without a profile."""
    found = dict(chunks)
    gamma = int.from_bytes(found.get(b"gAMA", b"")) or 45455  # 1/2.2
    return b"sRGB" not in found and (b"cICP" in found or abs(gamma - 45455) > 500)


def _is_valid(name: bytes, content: bytes) -> bool:
    """Return whether a chunk that states places or sizes has the form that it should have."""
    if name == b"sCAL":
        return _SCALE.fullmatch(content) is not None
    return len(content) == {b"grAb": 8, b"oFFs": 9}.get(name, len(content))


def _read_background(content: bytes, bits: int, palette: bytes, *, is_grey: bool) -> tuple[float, ...] | None:
    """Return the levels of a background colour in [0, 1], or None if there are none or the image lost its colour."""
    if palette:
        levels = [level / 255 for level in palette[3 * content[0] : 3 * content[0] + 3]] if content else []
    else:
        numbers = struct.unpack(f">{len(content) // 2}H", content[: len(content) // 2 * 2])
        levels = [level / (2**bits - 1) for level in numbers]
    if len(levels) == 3 and is_grey and len(set(levels)) == 1:
        levels = levels[:1]
    return tuple(levels) if len(levels) == (1 if is_grey else 3) and max(levels) <= 1 else None


def _insert_metadata(head: bytes, image: ImageData) -> bytes:
    """Return the first 54 bytes of a PNG file with the image's metadata added after the header.

    The encoder's own resolution (pHYs chunk) is replaced.
    """
    bits, channels = head[24], {0: 1, 2: 3, 4: 2, 6: 4}[head[25]]
    blocks = image.native_blocks if image.file_format == "PNG" else ()
    added = [
        (block.key, content)
        for block in blocks
        if (content := _adjust(block.key, block.content, image.factors, bits, channels))
    ]
    if image.icc_profile:
        added.append((b"iCCP", b"ICC\0\0" + zlib.compress(image.icc_profile)))
    if image.exif:
        added.append((b"eXIf", image.exif))
    if image.xmp:
        added.append((b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + image.xmp))
    if image.dpi:
        x, y = (round(value / _METRES_PER_INCH) for value in image.dpi)
        added.append((b"pHYs", struct.pack(">IIB", x, y, 1)))
    elif image.pixel_aspect:
        added.append((b"pHYs", struct.pack(">IIB", image.pixel_aspect[1], image.pixel_aspect[0], 0)))
    chunks = (
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in added
    )
    return head[:33] + b"".join(chunks) + (head[54:] if head[37:41] == b"pHYs" else head[33:])


def _adjust(name: bytes, content: Any, factors: tuple[float, float], bits: int, channels: int) -> bytes:
    """Return the content of a chunk for an image that is larger by these factors."""
    scales = factors[1], factors[0]
    if name == b"bKGD":
        count = 1 if channels < 3 else 3
        levels = [round(level * (2**bits - 1)) for level in (content * count if len(content) == 1 else content)]
        return struct.pack(f">{count}H", *levels) if len(levels) == count else b""
    if name == b"sBIT" and content != bytes([bits]) * channels:
        return b""
    data = bytes(content)
    if name == b"grAb" or (name == b"oFFs" and data[8:] == b"\0"):  # in pixels
        places = struct.unpack(">ii", data[:8])
        place = [round(value * scale) for value, scale in zip(places, scales, strict=True)]
        return struct.pack(">ii", *place) + data[8:]
    if name == b"sCAL":  # the size of a pixel
        sizes = (float(size) / scale for size, scale in zip(data[1:].split(b"\0"), scales, strict=True))
        return data[:1] + b"\0".join(f"{size:.12g}".encode() for size in sizes)
    return data
