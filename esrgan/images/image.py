"""Define an image in memory: its samples and everything else that its file holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esrgan.text import format_count, one_line

DEFAULT_QUALITY = 95  # of lossy formats, on a scale of 1 to 100
COLOUR_SPACE = "gamma or colour space"  # the label of what a file says of its colours besides a profile
Dpi = tuple[float, float] | None  # resolution (x, y) in pixels per inch
DpiChange = tuple[float, float] | float  # factors (vertical, horizontal) of the resolution, or the new resolution


@dataclass(frozen=True)
class NativeBlock:
    """Metadata that only the file format it was read from can store.

    Attributes:
        label: What it is, for messages that another format cannot store it, such as "comment". It is empty for
            what other formats need not store.
        key: How the format identifies it, such as a PNG file's chunk name.
        content: Its content, in a form that only the module of the format knows.
    """

    label: str
    key: Any
    content: Any


@dataclass(frozen=True, eq=False)
class ImageData:
    """The frames of an image, animation or multi-page file, with its metadata.

    The metadata describes the image as it was read. ``write_image`` adjusts it to the size of the frames.

    Attributes:
        frames: One or more upright arrays (H, W, C) of the same C and type. Only the pages of a TIFF file may differ in
            height and width. The channels are grey or RGB, then alpha if there is one, then ``extra_bands``. The type
            is uint8 in [0, 255], uint16 in [0, 65535], or float32 with the values of the file, nominally in [0, 1].
            Alpha is not premultiplied.
        file_format: A name in ``FILE_FORMATS``, detected from the content of the file and not from its suffix.
        extra_bands: How many of the last channels are neither colour nor alpha, such as near infrared. Without them
            there are 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha) channels.
        no_data: The value of samples that were not measured; None if the file names none.
        read_sizes: Height and width of each frame when it was read; empty if the image does not come from a file.
        is_turned: Whether the image was turned upright when it was read, as far as EXIF does not say so.
        bits: 10 or 12 for samples of that many bits, which are stored as uint16; otherwise 0.
        lossless: Whether the file is compressed without loss.
        compression: Compression of a TIFF file, as libvips names it.
        delays_ms: How long each frame of an animation is shown.
        loop: How many times an animation is played; 0 means endlessly.
        icc_profile: The embedded colour profile.
        exif: The EXIF block, starting with its TIFF header.
        xmp: The XMP packet.
        iptc: The IPTC block.
        dpi: Resolution (x, y) in pixels per inch.
        pixel_aspect: Width and height of a pixel in relation to each other, if they differ.
        native_blocks: Metadata that only ``file_format`` can store.
        dpi_change: How writers change the resolution wherever it is stated, here and in EXIF, XMP and native blocks.
        changes: Those of the notes that are about changed samples, such as a converted colour space.
        notes: Messages for the user about what reading changed or left out.
    """

    frames: tuple[NDArray[Any], ...]
    file_format: str = "PNG"
    extra_bands: int = 0
    no_data: float | None = None
    read_sizes: tuple[tuple[int, int], ...] = ()
    is_turned: bool = False
    bits: int = 0
    lossless: bool = True
    compression: str = "deflate"
    delays_ms: tuple[int, ...] = ()
    loop: int = 0
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: Dpi = None
    pixel_aspect: tuple[int, int] | None = None
    dpi_change: DpiChange = (1.0, 1.0)
    native_blocks: tuple[NativeBlock, ...] = ()
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        first = self.frames[0] if self.frames else np.empty(0)
        shapes = [frame.shape for frame in self.frames]
        is_uniform = all(frame.shape[2:] == first.shape[2:] and frame.dtype == first.dtype for frame in self.frames)
        if not is_uniform or first.ndim != 3 or not 1 <= self.base_channels <= 4 or any(0 in shape for shape in shapes):
            raise ValueError(
                f"expected frames (H, W, C) of the same C, of which 1 to 4 are grey or RGB and alpha, "
                f"got {shapes} with {self.extra_bands} extra bands"
            )
        if first.dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(f"expected frames of uint8, uint16 or float32, got {first.dtype}")

    @property
    def base_channels(self) -> int:
        """The number of channels without ``extra_bands``: 1 (grey), 2 (with alpha), 3 (RGB) or 4 (with alpha)."""
        return int(self.frames[0].shape[2]) - self.extra_bands

    @property
    def has_alpha(self) -> bool:
        """Whether one of the channels is alpha."""
        return self.base_channels in (2, 4)

    @property
    def colour_blocks(self) -> tuple[NativeBlock, ...]:
        """The native blocks that say which colours the samples are, such as a gamma."""
        return tuple(block for block in self.native_blocks if block.label == COLOUR_SPACE)

    @property
    def factors(self) -> tuple[float, float]:
        """How many times the height and the width of the first frame are those of the image that was read."""
        return self.find_factors(0)

    def find_factors(self, number: int) -> tuple[float, float]:
        """Return how many times the height and the width of a frame are those of the frame that was read."""
        height, width = self.frames[number].shape[:2]
        read_height, read_width = self.read_sizes[number] if number < len(self.read_sizes) else (height, width)
        return height / read_height, width / read_width


def find_dpi_factors(change: DpiChange, stated: Dpi) -> tuple[float, float]:
    """Return the factors of the vertical and the horizontal resolution in a place that states one, or none."""
    if isinstance(change, tuple):
        return change
    return (change / stated[1], change / stated[0]) if stated and all(stated) else (1.0, 1.0)


def profile_space(profile: bytes | None) -> str:
    """Return the colour space of an ICC profile (ICC.1, §7.2.6), such as "RGB", or nothing without a profile."""
    return (profile or b"")[16:20].decode("latin-1").rstrip()


def check_profile(profile: bytes) -> tuple[bytes | None, str]:
    """Return an ICC profile, or None and a message if it is damaged or not one of RGB or grey images.

    Writers would leave such profiles out without a message. Some files lack the last bytes, which align a profile to
    4 bytes; they are added.
    """
    size = int.from_bytes(profile[:4], "big")
    if profile[36:40] != b"acsp" or not 128 <= size < len(profile) + 4:  # ICC.1, §7.2
        return None, "unreadable colour profile not kept"
    space = profile_space(profile)
    if space not in ("RGB", "GRAY"):
        return None, f"{one_line(space)} colour profile of a grey or RGB image not kept"
    return profile.ljust(size, b"\0"), ""


def describe_left_out(names: Iterable[str], bytes_behind: int = 0) -> list[str]:
    """Return messages that parts of a file, and bytes after its image, are not kept."""
    parts = ", ".join(dict.fromkeys(names))
    notes = [f"{parts} not kept"] if parts else []
    return [*notes, f"{format_count(bytes_behind, 'byte')} after the image not kept"] if bytes_behind > 0 else notes


def effective_bits(dtype: np.dtype[Any], bits: int) -> int:
    """Return how many bits of each sample are used: all of the array's type, unless the file had fewer."""
    dtype_bits = dtype.itemsize * 8
    return bits if 0 < bits < dtype_bits else dtype_bits
