"""Define how the samples of a page of a TIFF file are stored (TIFF 6.0)."""

from __future__ import annotations

import math

from esrgan.images import tiff_directories as tags
from esrgan.images.tiff_directories import Directory

PALETTE, MASK, SEPARATED, _YCBCR = 3, 4, 5, 6  # PhotometricInterpretations
_JPEG = (6, 7)  # compressions whose decoder converts YCbCr to RGB
_KINDS = {2: "i", 3: "f"}  # of NumPy, by SampleFormat (TIFF 6.0, §19); all others are read as unsigned integers
STRIPS = (tags.STRIP_OFFSETS, tags.STRIP_BYTE_COUNTS)
_TILES = (tags.TILE_OFFSETS, tags.TILE_BYTE_COUNTS)


class Layout:
    """How the samples of a page are stored, as its tags of the same names state it.

    ``extra`` has the meanings of the samples after the colours (TIFF 6.0, §18): 1 is premultiplied alpha, 2 other
    alpha. ``tile_width`` and ``tile_height`` are 0 where the page consists of strips.
    """

    def __init__(self, page: Directory) -> None:
        def read(tag: int, default: int) -> int:
            return tags.get_integer(page, tag, default)

        self.width, self.height = read(tags.WIDTH, 0), read(tags.HEIGHT, 0)
        self.bits, self.channels = read(tags.BITS_PER_SAMPLE, 1), read(tags.SAMPLES_PER_PIXEL, 1)
        self.sample_format, self.photometric = read(tags.SAMPLE_FORMAT, 1), read(tags.PHOTOMETRIC, 1)
        self.compression, self.predictor = read(tags.COMPRESSION, 1), read(tags.PREDICTOR, 1)
        self.extra = tuple(tags.get_integers(page, tags.EXTRA_SAMPLES))
        self.is_planar = read(tags.PLANAR, 1) == 2 and self.channels > 1
        self.tile_width, self.tile_height = read(tags.TILE_WIDTH, 0), read(tags.TILE_HEIGHT, 0)
        self.rows_per_strip = min(read(tags.ROWS_PER_STRIP, self.height) or self.height, self.height)

    @property
    def kind(self) -> str:
        """NumPy's kind of the samples: "u", "i" or "f"."""
        return _KINDS.get(self.sample_format, "u")

    @property
    def colours(self) -> int:
        """How many of the channels of a decoded page are colours."""
        return 1 if self.photometric in (0, 1, MASK) else 3

    @property
    def has_alpha(self) -> bool:
        """Whether the first channel after the colours is alpha."""
        return self.extra[:1] in ((1,), (2,))

    @property
    def is_palette(self) -> bool:
        """Whether the first channel has the numbers of colours."""
        return self.photometric == PALETTE

    @property
    def is_grey_or_rgb(self) -> bool:
        """Whether the samples are those of grey, RGB or a mask, and need no conversion."""
        return self.photometric in (0, 1, 2, MASK)

    @property
    def is_ycbcr(self) -> bool:
        """Whether the samples are YCbCr, which no decoder of a compression converts."""
        return self.photometric == _YCBCR and self.compression not in _JPEG

    @property
    def is_raw(self) -> bool:
        """Whether libvips can only decompress the samples, but does not know what they mean."""
        known = (16, 24, 32) if self.kind == "f" else (8, 16, 32)
        is_known = self.bits in known or (self.bits in (1, 2, 4) and self.channels == 1)
        return not is_known and self.is_grey_or_rgb

    @property
    def has_peak(self) -> bool:
        """Whether the largest sample is white."""
        return self.kind == "u" and self.bits <= 16

    @property
    def changes_values(self) -> bool:
        """Whether decoded samples have other values than those in the file."""
        is_scaled = self.bits not in (8, 16) or self.photometric == 0
        return self.photometric in (PALETTE, SEPARATED) or (self.has_peak and is_scaled)

    @property
    def is_premultiplied(self) -> bool:
        """Whether the colours are multiplied with alpha."""
        return self.extra[:1] == (1,)

    @property
    def has_single_planes(self) -> bool:
        """Whether each plane is decoded by itself, because libvips takes the first for all."""
        return self.is_planar and (self.is_grey_or_rgb or self.is_ycbcr)

    @property
    def segment_size(self) -> tuple[int, int]:
        """Width and height of a strip or tile; the last strip may be less high."""
        return (self.tile_width, self.tile_height) if self.tile_width else (self.width, self.rows_per_strip)

    @property
    def segments(self) -> tuple[int, int]:
        """How many strips or tiles of a plane are side by side, and one below the other; (0, 0) if a size is 0."""
        across, down = self.segment_size
        return (math.ceil(self.width / across), math.ceil(self.height / down)) if across and down else (0, 0)

    @property
    def row_bits(self) -> int:
        """The bits of a row of a strip or tile."""
        return self.segment_size[0] * self.bits * (1 if self.is_planar else self.channels)


def find_segment_tags(page: Directory) -> tuple[int, int]:
    """Return the tags that state the places and the byte counts of the strips or tiles of a page."""
    return _TILES if tags.TILE_OFFSETS in page else STRIPS


def find_gaps(page: Directory) -> list[int]:
    """Return which strips or tiles are not in the file, as GDAL leaves out empty ones."""
    return [i for i, offset in enumerate(tags.get_integers(page, find_segment_tags(page)[0])) if not offset]


def find_segment_sizes(layout: Layout, most: int) -> list[int]:
    """Return the bytes of each strip or tile without compression, up to a number of them; none if they are unknown."""
    across, down = layout.segments
    is_subsampled = layout.photometric == _YCBCR and layout.channels == 3
    if layout.compression != 1 or is_subsampled or not across or not down:
        return []
    planes = layout.channels if layout.is_planar else 1
    row, rows = math.ceil(layout.row_bits / 8), layout.segment_size[1]
    missing = 0 if layout.tile_width else down * rows - layout.height  # rows of the last strip
    return [row * (rows - missing * ((i + 1) % (across * down) == 0)) for i in range(min(across * down * planes, most))]
