"""Keep what the tags of a TIFF file say, adjusted to the new size, or name what is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from esrgan.images import tiff_directories as tags
from esrgan.images.image import ImageData, NativeBlock
from esrgan.images.tiff_directories import Directory, TagValue

# Tags that the writer makes anew (TIFF 6.0; TIFF Technical Notes), or that ImageData holds: XMP, IPTC, ICC and EXIF.
_WRITTEN_ANEW = {
    254,
    255,
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    274,
    277,
    278,
    279,
    282,
    283,
    284,
    292,
    293,
    296,
    317,
    320,
}
_WRITTEN_ANEW |= {
    322,
    323,
    324,
    325,
    338,
    339,
    347,
    *range(512, 522),
    529,
    530,
    531,
    532,
    700,
    33723,
    34665,
    34675,
    34853,
}
# DocumentName, PageName, PageNumber, GeoTIFF's keys (34735 to 34737), and GDAL's metadata and value for no data.
_KEPT = {269, 285, 297, 34735, 34736, 34737, 42112, 42113}
_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _NO_DATA = 33550, 33922, 34264, 42113  # GeoTIFF 1.1, §7.1; GDAL
_GEOGRAPHIC = {_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, 34735, 34736, 34737}


def read_blocks(pages: Sequence[Directory], images: int, *, is_turned: bool) -> tuple[list[NativeBlock], list[str]]:
    """Return the tags that only TIFF can store, and notes on those that are left out.

    Args:
        pages: The directories of the pages that are read.
        images: How many images they hold; a stack can have a single directory.
        is_turned: Whether the image is turned upright; where it lies on a map is then left out.
    """
    blocks, left_out = [], set()
    for number, page in enumerate(pages):
        for tag, value in page.items():
            is_kept = tag in _KEPT or (tag in _GEOGRAPHIC and not is_turned)
            is_kept = is_kept or (number > 0 and tag in tags.DESCRIPTIVE_TAGS and tag != tags.DESCRIPTION)
            if tag == tags.DESCRIPTION:
                kind = describe_structure(value)
                is_kept = kind == "OME-XML" or (kind is None and number > 0)
            elif number == 0 and tag in tags.DESCRIPTIVE_TAGS:
                continue
            if is_kept:
                label = "map coordinates" if tag in _GEOGRAPHIC else _name(tag)
                blocks.append(NativeBlock(label, (number, tag), value))
            elif tag == tags.DESCRIPTION:
                left_out |= {f"description of {kind}"} if kind else set()  # EXIF holds the caption of the first page
            elif tag not in _WRITTEN_ANEW:
                left_out.add(f"tag {tag} ({_name(tag)})")
    return blocks, [f"not kept: {', '.join(sorted(left_out))}"] if left_out else []


def describe_structure(value: object) -> str | None:
    """Return what program's description of the file's structure an ImageDescription is; None if it is a caption."""
    text = value.content.rstrip(b"\0") if isinstance(value, TagValue) else b""
    if text.startswith(b"ImageJ="):
        return "ImageJ"
    if text.startswith(b'{"shape"'):
        return "tifffile"
    if b"<OME" in text[:1000]:
        # Such a description can name other files, or say that the pixels are within itself.
        return "OME-XML in several files" if b"<UUID" in text or b"<BinData" in text else "OME-XML"
    return None


def read_no_data(page: Directory) -> float | None:
    """Return GDAL's value of samples without data, or None if there is none."""
    value = page.get(_NO_DATA)
    try:
        return float(value.content.rstrip(b"\0 ")) if isinstance(value, TagValue) else None
    except ValueError:
        return None


def adjust_blocks(image: ImageData) -> list[Directory]:
    """Return the tags of each page of the output, adjusted to its size."""
    vertical, horizontal = image.factors
    pages: list[Directory] = [{} for _ in image.frames]
    alpha = [2] if image.has_alpha else []  # unassociated alpha (TIFF 6.0, §18)
    extra = np.array(alpha + [0] * image.extra_bands, "<u2")
    for page in pages:
        if len(extra):
            page[tags.EXTRA_SAMPLES] = TagValue(3, extra.tobytes())
    for block in image.native_blocks if image.file_format == "TIFF" else ():
        number, tag = block.key
        if number >= len(pages):
            continue
        value: TagValue = block.content
        numbers = np.array(value.to_numbers())
        if tag == _PIXEL_SCALE and len(numbers) >= 2:
            numbers[:2] /= horizontal, vertical
            value = TagValue(12, numbers.astype("<f8").tobytes())
        elif tag == _TIE_POINTS and len(numbers) % 6 == 0:
            numbers = numbers.reshape(-1, 6)
            numbers[:, :2] *= horizontal, vertical
            value = TagValue(12, numbers.astype("<f8").tobytes())
        elif tag == _TRANSFORMATION and len(numbers) == 16:
            numbers = numbers.reshape(4, 4)
            numbers[:, 0] /= horizontal
            numbers[:, 1] /= vertical
            value = TagValue(12, numbers.astype("<f8").tobytes())
        elif tag == tags.DESCRIPTION and describe_structure(value):
            value = TagValue(2, _adjust_ome(value.content, horizontal, vertical))
        pages[number][tag] = value
    return pages


def _adjust_ome(text: bytes, horizontal: float, vertical: float) -> bytes:
    """Return OME-XML with sizes in pixels multiplied, and the sizes of a pixel divided."""
    factors = {b"X": horizontal, b"Y": vertical}

    def adjust(match: re.Match[bytes]) -> bytes:
        name, axis, value = match.groups()
        if name == b"Size":
            return b'Size%s="%d"' % (axis, round(int(value) * factors[axis]))
        return b'PhysicalSize%s="%s"' % (axis, repr(float(value) / factors[axis]).encode())

    return re.sub(rb'\b(Size|PhysicalSize)([XY])="([\d.eE+-]+)"', adjust, text)


def _name(tag: int) -> str:
    """Return the name of a tag, which is looked up in tifffile's table."""
    from tifffile import TIFF

    return str(TIFF.TAGS.get(tag, "private"))
