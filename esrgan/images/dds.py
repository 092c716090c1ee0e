"""Read and write DDS textures (Microsoft, programming guide for DDS)."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from esrgan.images import pillow, samples, vips
from esrgan.images.image import ImageData
from esrgan.images.source import Source, UnsupportedImageError

_LINEAR_DXGI = {72: 71, 75: 74, 78: 77}  # BC1 to BC3 marked as sRGB, which Pillow does not know
_SRGB_DXGI = (29, *_LINEAR_DXGI, 91, 93, 99)
_BGR = (0xFF0000, 0xFF00, 0xFF)
# Bits and masks of formats without compression that Pillow does not know: R8, B8G8R8A8 and B8G8R8X8.
_DXGI_WORDS = {
    61: (8, (0xFF,)),
    **dict.fromkeys((87, 91), (32, (*_BGR, 0xFF000000))),
    **dict.fromkeys((88, 93), (32, _BGR)),
}


def read(source: Source) -> ImageData:
    """Read a DDS file."""
    source.file.seek(0)
    head = source.file.read(148).ljust(148, b"\0")
    flags, code, bits, *masks = struct.unpack("<I4sI4I", head[80:108])
    (caps,) = struct.unpack("<I", head[112:116])
    dx10, _, other, count, alpha = struct.unpack("<5I", head[128:148]) if code == b"DX10" else (0, 0, 0, 1, 0)
    if caps & 0x200200 or other & 4 or count > 1:  # DDSCAPS2_CUBEMAP, DDSCAPS2_VOLUME, D3D10_RESOURCE_MISC_TEXTURECUBE
        raise UnsupportedImageError("one image", "a cube map, volume or array of textures", "extract its images")
    if code in (b"DXT2", b"DXT4") or alpha == 2:
        raise UnsupportedImageError("colours without alpha", "colours multiplied with alpha", "save it as .png")
    widths = [mask // (mask & -mask) for mask in masks if mask]
    if (flags & 0x40 and max(widths, default=0) > 255) or dx10 in (95, 96):  # DDPF_RGB; DXGI_FORMAT_BC6H
        raise UnsupportedImageError("samples of 8 bits", "a DDS texture of more than 8 bits", "convert it to .tif")
    if code in (b"BC5S", b"BC4S") or dx10 in (81, 84):
        raise UnsupportedImageError("samples from 0", "a DDS texture of signed samples", "convert it to .png")
    if dx10 in _LINEAR_DXGI:
        head = head[:128] + struct.pack("<I", _LINEAR_DXGI[dx10]) + head[132:]
    source.file.seek(148)
    try:
        if dx10 in _DXGI_WORDS:
            pixels = _read_words(source, head, 148, *_DXGI_WORDS[dx10])
        elif flags & 0x40:
            pixels = _read_words(source, head, 128, bits, masks if flags & 1 else masks[:3])
        elif flags & 0x20001 == 0x20001 and bits == 8:  # A4L4, which Pillow takes for L8
            pixels = _read_words(source, head, 128, bits, (masks[0], masks[3]))
        else:
            _, pixels = pillow.decode_any(source, "DDS", head if dx10 in _LINEAR_DXGI else None)
    except NotImplementedError as error:
        kind = f"format {dx10}" if dx10 else repr(code.decode("latin-1")) if code.strip(b"\0") else f"{bits} bits"
        raise UnsupportedImageError("a common kind of DDS texture", f"one of {kind}", "convert it to .png") from error
    is_dxt1 = code == b"DXT1" or dx10 in (70, 71, 72)
    frames = samples.drop_alpha_if_opaque([pixels]) if is_dxt1 else [pixels]
    notes = ["mark of sRGB in the DDS not kept"] if dx10 in _SRGB_DXGI else []
    return ImageData(tuple(frames), "DDS", notes=tuple(notes))


def _read_words(source: Source, head: bytes, place: int, bits: int, masks: Sequence[int]) -> NDArray[np.uint8]:
    """Read pixels without compression, for which Pillow takes minutes.

    Args:
        source: The file.
        head: Its first bytes.
        place: Where the pixels begin.
        bits: Bits of a pixel.
        masks: Which of them hold each channel.
    """
    height, width = struct.unpack("<II", head[12:20])
    source.check_pixel_count(width * height)
    if bits not in (8, 16, 24, 32):
        raise NotImplementedError
    row, length = width * bits // 8, source.file.seek(0, os.SEEK_END) - place
    (pitch,) = struct.unpack("<I", head[20:24])
    # Rows are rarely padded, and many programs write a wrong pitch, so only one that the length confirms is believed.
    pitch = pitch if head[8] & 8 and row < pitch and pitch * height == length else row  # DDSD_PITCH
    if length < pitch * height:
        raise ValueError("the file is truncated")
    source.file.seek(place)
    data = np.frombuffer(source.file.read(pitch * height), np.uint8)
    data = data.reshape(height, pitch)[:, :row].reshape(height, width, bits // 8)
    words = np.zeros((height, width), np.uint32)
    for byte in range(bits // 8):
        words |= data[..., byte].astype(np.uint32) << np.uint32(8 * byte)
    return samples.unpack_channels(words, masks)


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a DDS file without compression."""
    pillow.encode(file, vips.convert_samples(image, "DDS"), "DDS")
