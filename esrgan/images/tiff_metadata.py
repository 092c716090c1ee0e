"""Keep what the tags of a TIFF file say, adjusted to the new size, or name what is left out."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from typing import Literal

import numpy as np

from esrgan.images import tiff_directories as tags
from esrgan.images.image import ImageData, NativeBlock
from esrgan.images.tiff_directories import Directory, TagValue

# Tags that define how pixels are stored, which the writer sets (TIFF 6.0; TIFF Technical Notes).
STRUCTURE = {*range(254, 260), 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320}
STRUCTURE |= {*range(322, 326), 338, 339, 347, *range(512, 522), *range(529, 533)}
_EXIF, _GPS = 34665, 34853
# Which ImageData has for the first page, with their names: XMP, IPTC, EXIF, the colour profile and GPS.
_HELD = {tags.XMP: "XMP", tags.IPTC: "IPTC", _EXIF: "EXIF", tags.ICC_PROFILE: "colour profile", _GPS: "GPS"}
# DocumentName, PageName, PageNumber, and GDAL's metadata and value for no data.
_KEPT = {269, 285, 297, 42112, 42113}
_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS = 33550, 33922, 34264, 34735  # GeoTIFF 1.1, §7.1
_GDAL_METADATA, _NO_DATA = 42112, 42113
_SEPARATED = 5  # PhotometricInterpretation of CMYK
_RPC = 50844  # rational polynomial coefficients (NGA STDI-0002)
_GEOGRAPHIC = {_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _RPC, 34735, 34736, 34737}
_RESOLUTION = (tags.X_RESOLUTION, tags.Y_RESOLUTION, tags.RESOLUTION_UNIT)
_UNNAMED = (*_RESOLUTION, tags.EXTRA_SAMPLES)  # which other formats need not store
_IMAGEJ_COUNTS, _IMAGEJ_DATA = 50838, 50839
# What ImageJ stores in addition to its description, and how wide its words are: texts, labels, properties, ranges,
# tables of colours. Everything else there, such as regions of interest, has places in pixels.
_IMAGEJ_WORDS = {b"info": 2, b"labl": 2, b"prop": 2, b"rang": 8, b"luts": 1}

# What says what values of samples mean.
_SCALES, _RANGES = "scale and offset in the metadata of GDAL", "ranges and calibration of values of ImageJ"


def read_blocks(
    pages: Sequence[Directory], images: int, *, is_turned: bool, changes_values: bool
) -> tuple[list[NativeBlock], list[str]]:
    """Return the tags that only TIFF can store, and notes on those that are left out.

    Args:
        pages: The directories of the pages that are read.
        images: How many images they hold; a stack can have a single directory.
        is_turned: Whether the image is turned upright; where it lies on a map is then left out.
        changes_values: Whether decoded samples have other values; what the values mean is then left out.
    """
    blocks, left_out = [], set[str]()
    program = None if is_turned else _find_program(pages, images)
    for number, page in enumerate(pages):
        for tag, value in page.items():
            if not tags.is_readable(value):
                left_out.add(f"unreadable parts of tag {tag} ({name_tag(tag)})")
                if isinstance(value, TagValue):
                    continue
            if number == 0 and tag in tags.DESCRIPTIVE_TAGS and tag != tags.DESCRIPTION:
                continue  # in EXIF
            structure = describe_structure(tags.get_content(page, tag)) if tag == tags.DESCRIPTION else None
            if tag in (_GDAL_METADATA, tags.DESCRIPTION) and isinstance(value, TagValue):
                content = _drop_stale_parts(value.content, left_out, changes_values=changes_values)
                value = TagValue(value.field_type, content)
            if _is_kept(tag, number, pages, program, is_turned=is_turned):
                label = "map coordinates" if tag in _GEOGRAPHIC else "" if tag in _UNNAMED else name_tag(tag)
                blocks.append(NativeBlock(f"description of {structure}" if structure else label, (number, tag), value))
            elif structure:
                left_out.add(f"description of {structure}")
            elif program == "ImageJ" and tag in (_IMAGEJ_COUNTS, _IMAGEJ_DATA):
                continue  # kept below
            elif number and tag in (tags.XMP, _EXIF, _GPS) and value != pages[0].get(tag):
                left_out.add(f"{_HELD[tag]} of a further page")
            # EXIF holds the caption of the first page.
            elif tag not in STRUCTURE | _HELD.keys() | {tags.DESCRIPTION, *_RESOLUTION}:
                left_out.add(f"tag {tag} ({name_tag(tag)})")
        if number:  # a resolution without content removes that of the first page
            blocks += [NativeBlock("", (number, tag), TagValue(3, b"")) for tag in _RESOLUTION if tag not in page]
        if number and _has_other_profile(page, pages[0]):
            profile = page.get(tags.ICC_PROFILE, TagValue(7, b""))  # without content, it removes the first page's
            blocks.append(NativeBlock("colour profile of a further page", (number, tags.ICC_PROFILE), profile))
    if program == "ImageJ" and _IMAGEJ_DATA in pages[0]:
        blocks += _read_imagej_data(pages[0], left_out, changes_values=changes_values)
    return blocks, [f"not kept: {', '.join(sorted(left_out))}"] if left_out else []


def _is_kept(tag: int, number: int, pages: Sequence[Directory], program: str | None, *, is_turned: bool) -> bool:
    """Return whether a tag of a page is written to the output.

    Args:
        tag: The tag.
        number: The number of its page.
        pages: The directories of all pages.
        program: Whose description of the file's structure is kept.
        is_turned: Whether the image is turned upright.
    """
    page = pages[number]
    if tag in _GEOGRAPHIC:
        return not is_turned
    if tag == tags.DESCRIPTION:
        if number == 0:
            return program is not None
        return describe_structure(tags.get_content(page, tag)) is None
    if tag in _RESOLUTION:  # ImageData has the resolution of the first page if it has a unit
        return number > 0 or tags.get_integer(page, tags.RESOLUTION_UNIT, 2) == 1 or program == "ImageJ"
    if tag == tags.EXTRA_SAMPLES:  # alpha after another band counts as a band, but keeps its meaning
        return bool({1, 2} & {*tags.get_integers(page, tag)[1:]})
    if number > 0 and tag in _HELD:  # EXIF and GPS without their directories are only pointers into the old file
        return tag == tags.IPTC or isinstance(page[tag], dict)
    return tag in _KEPT or (number > 0 and tag in tags.DESCRIPTIVE_TAGS)


def _has_other_profile(page: Directory, first: Directory) -> bool:
    """Return whether the colour profile of a page is not that of the first page; CMYK is converted to sRGB."""
    is_converted = tags.get_integer(page, tags.PHOTOMETRIC, 1) == _SEPARATED
    return not is_converted and page.get(tags.ICC_PROFILE) != first.get(tags.ICC_PROFILE)


def describe_structure(text: bytes) -> str | None:
    """Return what program's description of the file's structure an ImageDescription is; None if it is a caption."""
    if text.startswith(b"ImageJ="):
        return "ImageJ"
    if text.startswith(b'{"shape"'):
        return "tifffile"
    if text.startswith(b"Aperio Image") or b"|MPP =" in text:  # scanners; a caption may begin with Aperio as well
        return "Aperio"
    if b"DPUfsImport" in text[:1000]:
        return "Philips"
    if b"<OME" in text[:1000] or b":OME" in text[:1000]:
        # Such a description can name other files, or say that the pixels are within itself.
        return "OME-XML in several files" if b"<UUID" in text or b"BinData" in text else "OME-XML"
    return None


def _find_program(pages: Sequence[Directory], images: int) -> str | None:
    """Return whose description of the structure can be kept because it is true of the images, also when written."""
    page = pages[0]
    if any(page.get(tag) != other.get(tag) for other in pages for tag in (tags.WIDTH, tags.HEIGHT)):
        return None
    text, channels = tags.get_content(page, tags.DESCRIPTION), tags.get_integer(page, tags.SAMPLES_PER_PIXEL, 1)
    kind = describe_structure(text)
    if kind == "ImageJ":
        count = re.search(rb"^images=(\d+)", text, re.M)
        is_true = (int(count[1]) if count else 1) == images and channels in (1, 3)
        # ImageJ expects each image right after the one before, which is only possible without compression.
        return kind if is_true and (images == 1 or tags.get_integer(page, tags.COMPRESSION, 1) == 1) else None
    if kind == "OME-XML":
        planes = 0
        for element in re.findall(rb"<(?:\w+:)?Pixels\b[^>]*>", text):
            sizes = dict(re.findall(rb"\bSize([CZT])=[\"'](\d+)[\"']", element))
            planes += math.prod(int(size) for size in sizes.values())
        if planes == images * channels or planes == images:
            return kind
    return None


def _drop_stale_parts(text: bytes, left_out: set[str], *, changes_values: bool) -> bytes:
    """Return a description or GDAL's metadata without parts that are no longer true, which are named."""
    is_xml = text.lstrip().startswith(b"<")
    for pattern, label, is_stale in (
        (rb"<Item\b[^>]*\bname=[\"']STATISTICS_[^>]*>.*?</Item>\s*", "statistics in the metadata of GDAL", is_xml),
        (rb"<((?:\w+:)?ROI)\b[^>]*>.*?</\1>|<(?:\w+:)?ROIRef\b[^>]*/>", "regions of interest in OME-XML", is_xml),
        (rb"<Item\b[^>]*\brole=[\"'](?:scale|offset)[^>]*>.*?</Item>\s*", _SCALES, is_xml and changes_values),
        (rb"^(?:min|max|cf|c\d|vunit)=[^\n\0]*\n?", _RANGES, text.startswith(b"ImageJ=") and changes_values),
    ):
        shorter = re.sub(pattern, b"", text, flags=re.DOTALL | re.MULTILINE) if is_stale else text
        left_out |= {label} if shorter != text else set()
        text = shorter
    return text


def _read_imagej_data(page: Directory, left_out: set[str], *, changes_values: bool) -> list[NativeBlock]:
    """Return ImageJ's labels and other texts in the byte order of this machine, without what is no longer true."""
    data, lengths = tags.get_content(page, _IMAGEJ_DATA), iter(tags.get_integers(page, _IMAGEJ_COUNTS))
    order, head, body = ">" if data[:4] == b"IJIJ" else "<", b"", b""
    counts = [0]
    try:
        position = size = next(lengths)
        for entry in range(4, size, 8):
            kind, number = struct.unpack_from(f"{order}II", data, entry)
            name = kind.to_bytes(4, "big")
            word, parts = _IMAGEJ_WORDS.get(name), [next(lengths) for _ in range(number)]
            if word is None:
                left_out.add("regions of interest and overlays of ImageJ")
            elif name == b"rang" and changes_values:
                left_out.add(_RANGES)
            else:
                head += struct.pack("=II", kind, number)
                counts += parts
                content = np.frombuffer(data[position : position + sum(parts)], f"{order}u{word}")
                body += content.astype(f"=u{word}").tobytes()
            position += sum(parts)
    except (StopIteration, ValueError, struct.error):
        left_out.add("labels of ImageJ")
        return []
    counts[0] = 4 + len(head)
    joined = struct.pack("=I", 0x494A494A) + head + body
    values = {_IMAGEJ_COUNTS: TagValue(4, np.array(counts, "<u4").tobytes()), _IMAGEJ_DATA: TagValue(1, joined)}
    return [NativeBlock("labels of ImageJ", (0, tag), value) for tag, value in values.items()] if body else []


def read_pixel_aspect(page: Directory) -> tuple[int, int] | None:
    """Return width and height of a pixel if the resolution of a page has no unit and differs in its directions."""
    x, y = tags.get_numbers(page, tags.X_RESOLUTION), tags.get_numbers(page, tags.Y_RESOLUTION)
    if tags.get_integer(page, tags.RESOLUTION_UNIT, 2) != 1 or not (x and y and x[0] and y[0]) or x == y:
        return None
    ratio = Fraction(y[0] / x[0]).limit_denominator(1000)
    return (ratio.numerator, ratio.denominator) if ratio else None


def is_imagej_stack(image: ImageData) -> bool:
    """Return whether the pages of the output must follow one another in the file, as ImageJ expects."""
    return len(image.frames) > 1 and _is_for_imagej(_get_native_tags(image))


def _get_native_tags(image: ImageData) -> dict[tuple[int, int], TagValue]:
    """Return the kept tags of an image that was a TIFF file, each by the number of its page and its own."""
    return {block.key: block.content for block in image.native_blocks} if image.file_format == "TIFF" else {}


def _is_for_imagej(native: dict[tuple[int, int], TagValue]) -> bool:
    description = native.get((0, tags.DESCRIPTION))
    return description is not None and describe_structure(description.content) == "ImageJ"


def read_no_data(page: Directory) -> float | None:
    """Return GDAL's value of samples without data, or None if there is none."""
    with suppress(ValueError):
        return float(tags.get_content(page, _NO_DATA).rstrip(b"\0 "))
    return None


def replace_no_data(blocks: Sequence[NativeBlock], value: float | None) -> list[NativeBlock]:
    """Return blocks with another value of samples without data, or none."""
    others = [block for block in blocks if block.key[1] != _NO_DATA]
    if value is None:
        return others
    text = repr(int(value) if value.is_integer() and abs(value) < 2**53 else value)
    return [*others, NativeBlock(name_tag(_NO_DATA), (0, _NO_DATA), TagValue(2, text.encode() + b"\0"))]


def adjust_blocks(image: ImageData) -> list[Directory]:
    """Return the tags of each page of the output, adjusted to its size."""
    pages: list[Directory] = [{} for _ in image.frames]
    if image.iptc:
        pages[0][tags.IPTC] = TagValue(7, image.iptc)  # libvips would write a quarter of it
    alpha = [2] if image.has_alpha else []  # unassociated alpha (TIFF 6.0, §18)
    extra = np.array(alpha + [0] * image.extra_bands, "<u2")
    for page in pages:
        if len(extra):
            page[tags.EXTRA_SAMPLES] = TagValue(3, extra.tobytes())
        if image.pixel_aspect and not image.dpi:
            width, height = image.pixel_aspect
            page |= {tags.X_RESOLUTION: tags.make_rational(height), tags.Y_RESOLUTION: tags.make_rational(width)}
            page[tags.RESOLUTION_UNIT] = tags.make_integers(1)
    blocks = _get_native_tags(image)
    is_imagej = _is_for_imagej(blocks)
    for (number, tag), value in blocks.items():
        if number >= len(pages) or (tag == tags.EXTRA_SAMPLES and len(value.to_numbers()) != len(extra)):
            continue
        factors = image.find_factors(number)
        if tag in (_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _RPC):
            value = _adjust_place(tag, value, factors, is_point=_is_point(blocks.get((number, _GEO_KEYS))))
        elif tag in _RESOLUTION[:2] and is_imagej:
            value = _scale_resolution(tag, value, factors)
        elif tag == tags.DESCRIPTION and is_imagej:
            value = TagValue(2, _adjust_imagej(value.content, image.factors))
        elif tag == tags.DESCRIPTION and describe_structure(value.content):
            value = TagValue(2, _adjust_ome(value.content, image))
        pages[number][tag] = value
    return pages


def set_page_resolutions(image: ImageData, resolution: float | Literal["keep", "scale"]) -> tuple[NativeBlock, ...]:
    """Return the blocks of an upscaled image with the resolutions that its pages are to state.

    Those of the first page are in ``ImageData``, and ImageJ's, which are not about print, are always scaled.
    """
    native = _get_native_tags(image)
    if resolution == "keep" or not native or _is_for_imagej(native):
        return image.native_blocks
    blocks = []
    for block in image.native_blocks:
        number, tag = block.key
        if tag not in _RESOLUTION:
            blocks.append(block)
        elif resolution == "scale":  # pixels of which only the aspect is known stay as they are
            unit = native.get((number, tags.RESOLUTION_UNIT), tags.make_integers(2)).to_numbers()
            is_scaled = number < len(image.frames) and tag in _RESOLUTION[:2] and unit != [1]
            content = _scale_resolution(tag, block.content, image.find_factors(number)) if is_scaled else block.content
            blocks.append(replace(block, content=content))
    return tuple(blocks)


def _scale_resolution(tag: int, value: TagValue, factors: tuple[float, float]) -> TagValue:
    factor = factors[1 if tag == tags.X_RESOLUTION else 0]
    return tags.make_rational(*(number * factor for number in value.to_numbers()))


def _is_point(value: object) -> bool:
    """Return whether integer coordinates stand for centres of pixels (GTRasterTypeGeoKey; GeoTIFF 1.1, §7.2.2)."""
    keys = np.array(value.to_numbers() if isinstance(value, TagValue) else [])
    keys = keys[4 : len(keys) // 4 * 4].reshape(-1, 4)
    return bool(((keys[:, 0] == 1025) & (keys[:, 3] == 2)).any())


def _adjust_place(tag: int, value: TagValue, factors: tuple[float, float], *, is_point: bool) -> TagValue:
    """Return where an image lies on a map, for an image of another size."""
    numbers = np.array(value.to_numbers())
    factor = np.array(factors[::-1])  # columns, rows
    # Where centres of pixels have integer coordinates, the corner of the image is at -0.5. RPCs are always like that.
    corner = 0.5 if is_point or tag == _RPC else 0.0
    if tag == _PIXEL_SCALE and len(numbers) >= 2:
        numbers[:2] /= factor
    elif tag == _TIE_POINTS and len(numbers) % 6 == 0:
        points = numbers.reshape(-1, 6)
        points[:, :2] = (points[:, :2] + corner) * factor - corner
    elif tag == _TRANSFORMATION and len(numbers) == 16:
        matrix = numbers.reshape(4, 4)
        matrix[:3, 3] += matrix[:3, :2] @ (corner / factor - corner)
        matrix[:3, :2] /= factor
    elif tag == _RPC and len(numbers) >= 9:
        numbers[[3, 2]] = (numbers[[3, 2]] + corner) * factor - corner  # offsets of samples and lines
        numbers[[8, 7]] *= factor  # and their scales
    return TagValue(12, numbers.astype("<f8").tobytes())


def _adjust_imagej(text: bytes, factors: tuple[float, float]) -> bytes:
    """Return ImageJ's description with its origin, which is in pixels, multiplied; sizes are in other tags."""

    def adjust(match: re.Match[bytes]) -> bytes:
        return b"%sorigin=%s" % (match[1], repr(float(match[2]) * factors[match[1] == b"x"]).encode())

    return re.sub(rb"^([xy])origin=([\d.eE+-]+)", adjust, text, flags=re.M)


def _adjust_ome(text: bytes, image: ImageData) -> bytes:
    """Return OME-XML with sizes in pixels multiplied, the sizes of a pixel divided, and the type of the samples."""
    vertical, horizontal = image.factors
    factors = {b"X": horizontal, b"Y": vertical}
    sample_type = {"uint8": b"uint8", "uint16": b"uint16", "float32": b"float"}[image.frames[0].dtype.name]

    def adjust(match: re.Match[bytes]) -> bytes:
        name, axis, value = match.groups()
        if name == b"Size":
            return b'Size%s="%d"' % (axis, round(int(value) * factors[axis]))
        return b'PhysicalSize%s="%s"' % (axis, repr(float(value) / factors[axis]).encode())

    def adjust_pixels(match: re.Match[bytes]) -> bytes:
        element = re.sub(rb"\b(Size|PhysicalSize)([XY])=[\"']([\d.eE+-]+)[\"']", adjust, match[0])
        if not re.search(rb"\bType=[\"']%s[\"']" % sample_type, element):  # the bits are those of another type
            element = re.sub(rb"\s+SignificantBits=[\"']\d*[\"']", b"", element)
        return re.sub(rb"\bType=[\"']\w+[\"']", b'Type="%s"' % sample_type, element)

    return re.sub(rb"<(?:\w+:)?Pixels\b[^>]*>", adjust_pixels, text)


def name_tag(tag: int) -> str:
    """Return the name of a tag, which is looked up in tifffile's table."""
    from tifffile import TIFF

    return str(TIFF.TAGS.get(tag, "private"))
