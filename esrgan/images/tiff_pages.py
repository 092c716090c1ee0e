"""Find the pages of a TIFF file, and mend what their directories say about where the pixels lie."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

from esrgan.images import tiff_directories as tags
from esrgan.images.source import UnsupportedImageError
from esrgan.images.tiff_directories import Directory
from esrgan.images.tiff_layout import Layout, find_segment_sizes, find_segment_tags
from esrgan.images.tiff_metadata import STRUCTURE, name_tag, read_no_data

# Without these, pixels cannot be found or would be wrong: sizes, bits, compression, strips, tiles, predictor and kinds.
_NEEDED = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339}
_FILL_ORDER = 266
_REDUCED, _MASK = 1, 4  # flags of NewSubfileType (TIFF 6.0, §8)
# PhotometricInterpretations that are not converted to RGB (TIFF 6.0, §23; TIFF Technical Note on LogLuv; TIFF/EP).
_COLOUR_SPACES = {8: "Lab", 9: "Lab", 10: "Lab", 32844: "LogLuv", 32845: "LogLuv"}
_SEPARATED = 5
_RAW_SENSOR = (32803, 34892)
_METAMORPH_PLANES = 33629  # UIC2Tag of MetaMorph stacks, which counts one fraction for each plane
_IMAGE_DEPTH = 32997  # the number of slices in each strip or tile (an extension by Silicon Graphics)


@dataclass
class Page:
    """A page to read.

    Attributes:
        number: Its number in the file, or that of the page that the whole stack starts with.
        directory: Its directory; what was invalid about strips, tiles and orientation is put right.
        mask: Its transparency mask, if it has one.
        is_stored: Whether the file has this directory as it is.
    """

    number: int
    directory: Directory
    mask: Page | None = None
    is_stored: bool = False

    @cached_property
    def layout(self) -> Layout:
        """How its samples are stored."""
        return Layout(self.directory)


def find_pages(file: BinaryIO, notes: list[str]) -> list[Page]:
    """Return the pages of a file, without reduced copies.

    Raises:
        UnsupportedImageError: Pages differ in kind, or are none that can be read.
        ValueError: The file is truncated.
    """
    directories = list(tags.read_directories(file))
    if not directories:
        raise UnsupportedImageError("a TIFF image", "a file without pages", "export it again")
    kinds = [tags.get_integer(page, tags.SUBFILE_TYPE, 0) for page in directories]
    has_full = any(not kind & _REDUCED for kind in kinds)
    is_raw = kinds[0] & _REDUCED and tags.SUB_DIRECTORIES in directories[0]
    photometric = tags.get_integer(directories[0], tags.PHOTOMETRIC, 1)
    if is_raw or tags.DNG_VERSION in directories[0] or photometric in _RAW_SENSOR:
        raise UnsupportedImageError("an image", "a camera raw file", "develop it to a .tif or .png")
    if not has_full:
        got = "reduced-size copies without the full image, such as overviews of GDAL or a camera raw file"
        raise UnsupportedImageError("an image", got, "upscale the full image, or develop the raw file first")
    size = file.seek(0, os.SEEK_END)
    full = []
    for number, page in enumerate(directories):
        if not kinds[number] & _REDUCED:
            mended = _mend(page, size)
            full.append(Page(number, mended, is_stored=mended == page))
            if tags.ORIENTATION in page.keys() - mended.keys():
                notes.append("an orientation that does not exist is ignored")
    # A file of nothing but masks has them as images.
    pages = [page for page in full if not kinds[page.number] & _MASK] or full
    if len(pages) < len(full):
        _assign_masks(pages, [page for page in full if kinds[page.number] & _MASK], notes)
    if has_full != all(not kind & _REDUCED for kind in kinds):
        notes.append("reduced-size copies in the file not kept")
    if len({_describe_samples(page, pages[0]) for page in pages}) > 1:
        got = "pages whose samples, or values for missing ones, differ"
        raise UnsupportedImageError("pages of one kind", got, "save each page as a file")
    _check_kind(pages[0])
    return _expand_stack(pages[0], size, notes) if len(pages) == 1 else pages


def _describe_samples(page: Page, first: Page) -> str:
    """Return what must be the same on all pages. The value for missing samples is that of the first page by default."""
    own = read_no_data(page.directory)
    is_separated = tags.get_integer(page.directory, tags.PHOTOMETRIC, 1) == _SEPARATED
    inks = tags.get_integer(page.directory, tags.INK_SET, 1) if is_separated else None
    extra = [kind for kind in tags.get_integers(page.directory, tags.EXTRA_SAMPLES) if kind]
    layout = [tags.get_numbers(page.directory, tag) for tag in tags.LAYOUT_TAGS]
    return str([read_no_data(first.directory) if own is None else own, inks, extra, layout])


def _assign_masks(pages: list[Page], masks: list[Page], notes: list[str]) -> None:
    """Give each page its transparency mask, which follows it, or comes before the first one, and has its size."""
    for mask in masks:
        page = next((page for page in reversed(pages) if page.number < mask.number), pages[0])
        sizes = {(each.layout.width, each.layout.height) for each in (page, mask)}
        if page.mask is None and len(sizes) == 1:
            page.mask = mask
    used = sum(page.mask is not None for page in pages)
    # Alpha, if there is one already, says more than a mask.
    takes_alpha = pages[0].layout.channels in (1, 3)
    if used == len(pages) and takes_alpha:
        notes.append("transparency mask read as alpha")
    else:
        for page in pages:
            page.mask = None
    if used < len(masks) or not takes_alpha or used < len(pages):
        notes.append("transparency mask in the file not kept")


def _check_kind(page: Page) -> None:
    layout = page.layout
    bits, photometric = layout.bits, layout.photometric
    if (slices := tags.get_integer(page.directory, _IMAGE_DEPTH, 1)) > 1:
        raise UnsupportedImageError("one slice per page", f"a volume of {slices} slices", "save each slice as a page")
    if photometric in _COLOUR_SPACES:
        raise UnsupportedImageError("grey, RGB or CMYK", _COLOUR_SPACES[photometric], "convert it to RGB")
    if layout.sample_format in (5, 6):
        raise UnsupportedImageError("real numbers", "complex numbers", "save their magnitude")
    if photometric == _SEPARATED and tags.get_integer(page.directory, tags.INK_SET, 1) != 1:
        raise UnsupportedImageError("grey, RGB or CMYK", "inks other than CMYK", "convert it to RGB")
    if photometric == _SEPARATED and (layout.channels != 4 or bits not in (8, 16) or layout.kind == "f"):
        got = f"{layout.channels} {'float ' * (layout.kind == 'f')}inks of {bits} bits"
        raise UnsupportedImageError("grey, RGB or CMYK of 8 or 16 bits", got, "convert it to RGB")
    is_subsampled = (tags.get_integers(page.directory, tags.SUBSAMPLING) or [2, 2]) != [1, 1]
    if layout.is_ycbcr and (is_subsampled or bits != 8):
        raise UnsupportedImageError("grey, RGB or CMYK", "YCbCr without JPEG compression", "convert it to RGB")
    if len(set(tags.get_numbers(page.directory, tags.BITS_PER_SAMPLE))) > 1:
        raise UnsupportedImageError("samples of one size", "samples of different sizes", "convert it to 8 or 16 bits")


def _mend(page: Directory, file_size: int) -> Directory:
    """Return a directory that libtiff accepts wherever all pixels are in the file.

    Byte counts that are missing, zero or, without compression, wrong are replaced. An orientation and an order of bits
    that do not exist are left out, and a unit of the resolution that does not becomes none.

    Raises:
        ValueError: The file is truncated.
    """
    mended = dict(page)
    for tag in sorted(STRUCTURE & page.keys()):
        is_needed = tag in _NEEDED or (tags.get_integer(page, tags.PHOTOMETRIC, 1), tag) == (3, tags.COLOUR_MAP)
        if is_needed and not tags.is_readable(page[tag]):
            raise ValueError(f"the file is truncated, or damaged at tag {tag} ({name_tag(tag)})")
    if tags.get_integer(page, tags.ORIENTATION, 1) not in range(1, 9):
        del mended[tags.ORIENTATION]
    if tags.get_integer(page, _FILL_ORDER, 1) not in (1, 2):
        del mended[_FILL_ORDER]
    if tags.get_integer(page, tags.RESOLUTION_UNIT, 2) not in (1, 2, 3):
        mended[tags.RESOLUTION_UNIT] = tags.make_integers(1)
    segment_tags = find_segment_tags(page)
    offsets, stated = (tags.get_integers(page, tag) for tag in segment_tags)
    if not offsets or max(offsets) >= file_size:
        raise ValueError("the file is truncated")
    if not any(offsets):
        raise UnsupportedImageError("an image", "a file without any pixels", "fill it first")
    counts = stated[: len(offsets)] + [0] * (len(offsets) - len(stated))
    sizes = find_segment_sizes(Layout(page), len(offsets))
    starts = sorted({*offsets, file_size})
    following = dict(itertools.pairwise(starts))
    for i, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        if not offset:  # a tile that GDAL has left out because it is empty
            continue
        if sizes and i < len(sizes):
            counts[i] = sizes[i]
            if count < sizes[i] > following[offset] - offset and following[offset] < file_size:
                raise ValueError("strips or tiles are shorter than the image")
        elif not count:
            counts[i] = following[offset] - offset
        if offset + counts[i] > file_size:
            raise ValueError("the file is truncated")
    if counts != stated:
        mended[segment_tags[1]] = tags.make_integers(*counts)
    return mended


def _expand_stack(page: Page, file_size: int, notes: list[str]) -> list[Page]:
    """Return the images of a stack whose only directory is that of the first image; the others follow it."""
    images, program = _count_images(page)
    offsets = tags.get_integers(page.directory, tags.STRIP_OFFSETS)
    sizes = find_segment_sizes(page.layout, len(offsets) + 1)
    if images < 2 or not sizes or len(sizes) != len(offsets):
        return [page]
    if any(start + size != end for start, size, end in zip(offsets, sizes, offsets[1:], strict=False)):
        return [page]
    total = sum(sizes)
    if offsets[0] + 2 * total > file_size:
        notes.append(f"{program} announces {images} images, but the file has one")
        return [page]
    if offsets[0] + images * total > file_size:
        raise ValueError("the file is truncated")
    if images > tags.MAX_PAGES:
        raise UnsupportedImageError(f"at most {tags.MAX_PAGES} pages", f"{images} pages", "save it in parts")
    return [
        Page(page.number, {**page.directory, tags.STRIP_OFFSETS: tags.make_integers(*(o + i * total for o in offsets))})
        for i in range(images)
    ]


def _count_images(page: Page) -> tuple[int, str]:
    """Return how many images of one directory a program's description announces, and whose it is."""
    if planes := tags.get_content(page.directory, _METAMORPH_PLANES):
        return len(planes) // 8, "MetaMorph"
    text, layout = tags.get_content(page.directory, tags.DESCRIPTION).rstrip(b"\0"), page.layout
    if match := re.match(rb"ImageJ=.*?^images=(\d+)", text, re.DOTALL | re.M):
        return int(match[1]), "ImageJ"
    if text.startswith(b'{"shape"'):
        try:
            samples = math.prod(json.loads(text)["shape"])
            return samples // (layout.width * layout.height * layout.channels), "tifffile"
        except (ValueError, TypeError, ArithmeticError):
            return 1, "tifffile"
    return 1, ""
