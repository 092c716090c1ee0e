"""Read and write TGA, DDS, PPM and PGM files with Pillow."""

from __future__ import annotations

import io
import re
import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from esrgan.images import samples, vips
from esrgan.images.detect import TGA_FOOTER
from esrgan.images.image import ImageData, NativeBlock
from esrgan.images.source import Source, UnsupportedImageError

_LINEAR_DXGI = {72: 71, 75: 74, 78: 77}  # BC1 to BC3 marked as sRGB, which Pillow does not know
_SRGB_DXGI = (29, *_LINEAR_DXGI, 99)
_MODES = {"1": "L", "I;16": "I", "I;16B": "I"}  # in Pillow, and what they are converted to


def read(source: Source) -> ImageData:
    """Read a TGA, DDS, PPM or PGM file."""
    source.file.seek(0)
    head = source.file.read(148)
    if source.file_format == "DDS":
        return _read_dds(source, head.ljust(148, b"\0"))
    return _read_ppm(source) if source.file_format == "PPM" else _read_tga(source, head)


def _decode(source: Source, plugin: str, head: bytes | None = None) -> tuple[Any, NDArray[Any]]:
    """Return an image of Pillow and its pixels (H, W, C), or zeros if only its shape is needed and alpha cannot be.

    Args:
        source: The file to read.
        plugin: Name of the format in Pillow.
        head: What is to be read instead of the bytes before the current position; None to read the file as it is.
    """
    from PIL import DdsImagePlugin, PpmImagePlugin, TgaImagePlugin

    files = {
        "DDS": DdsImagePlugin.DdsImageFile,
        "PPM": PpmImagePlugin.PpmImageFile,
        "TGA": TgaImagePlugin.TgaImageFile,
    }
    data = source.file if head is None else io.BytesIO(head + source.file.read())
    if head is None:
        source.file.seek(0)
    try:
        image = files[plugin](data)  # the pixel limit of Image.open would be too low here
    except OSError as error:
        raise UnsupportedImageError(f"a usual {plugin} image", str(error), "convert it to .png") from error
    source.check_pixel_count(image.width * image.height, len(image.getbands()))
    mode = _MODES.get(image.mode, image.mode)
    try:
        if mode == "P":
            mode = image.palette.mode if image.palette else "L"
            pixels = np.array(image.convert(mode))
        elif source.header_only and mode in ("L", "I", "RGB"):
            pixels = np.broadcast_to(np.uint8(0), (image.height, image.width, 1 if mode == "I" else len(mode)))
        else:
            pixels = np.array(image.convert(mode))
    except OSError as error:
        raise ValueError(str(error)) from error
    if mode == "I":
        pixels = pixels.astype(np.uint16)
    return image, pixels.reshape(image.height, image.width, -1)


def to_eight_bits(image: ImageData, name: str) -> NDArray[np.uint8]:
    """Return the first frame with the samples of 8 bits that a format stores."""
    pixels = image.frames[0]
    if pixels.dtype == np.uint8:
        return pixels
    data = vips.to_vips_image(image, name).write_to_memory()
    return np.frombuffer(data, np.uint8).reshape(pixels.shape)


def _save(file: BinaryIO, image: ImageData, name: str, **options: Any) -> None:
    from PIL import Image

    pixels = to_eight_bits(image, name)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels)).save(
        file, name, **options
    )


def _read_tga(source: Source, head: bytes) -> ImageData:
    image, pixels = _decode(source, "TGA")
    alpha_bits, notes = head[17] & 15, []
    if pixels.shape[2] in (2, 4):
        alpha = pixels[..., -1]
        is_opaque = alpha_bits == 0 and (alpha.min() == 255 or head[16] == 16)
        if not alpha.any() or is_opaque:  # many programs leave the fourth byte at 0
            pixels = np.ascontiguousarray(pixels[..., :-1])
            notes = [] if is_opaque or alpha_bits == 0 else ["alpha that is 0 everywhere not kept"]
    frames = samples.drop_colour_if_grey([pixels]) if image.mode == "P" else [pixels]
    blocks = [NativeBlock("", "layout", {"rle": head[2] > 8, "orientation": 1 if head[17] & 0x20 else -1})]
    if name := image.info.get("id_section"):
        blocks.append(NativeBlock("image ID", "id_section", name))
    if any(head[8:12]):
        blocks.append(NativeBlock("origin", "origin", struct.unpack("<HH", head[8:12])))
    notes += _describe_tga_areas(source.file)
    return ImageData(tuple(frames), "TGA", native_blocks=tuple(blocks), notes=tuple(notes))


def _describe_tga_areas(file: BinaryIO) -> list[str]:
    """Return messages about what a TGA file of version 2 states behind its pixels.

    Raises:
        UnsupportedImageError: The colours are multiplied with alpha.
    """
    end = file.seek(0, 2)
    file.seek(max(end - 26, 0))
    footer = file.read()
    if not footer.endswith(TGA_FOOTER) or len(footer) < 26:
        return []
    extension, developer = struct.unpack("<II", footer[:8])
    notes = []
    if 0 < extension < end - 26:
        file.seek(extension + 494)
        if file.read(1) == b"\4":
            raise UnsupportedImageError("colours without alpha", "colours multiplied with alpha", "save it as .png")
        notes.append("TGA extension area (author, comments, date, gamma, aspect ratio) not kept")
    return [*notes, "TGA developer area not kept"] if 0 < developer < end - 26 else notes


def write_tga(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a TGA file."""
    found = {block.key: block.content for block in image.native_blocks if image.file_format == "TGA"}
    options = found.get("layout", {"rle": True, "orientation": 1})
    _save(file, image, "TGA", id_section=found.get("id_section", b""), **options)
    if "origin" in found:
        scaled = (round(place * factor) for place, factor in zip(found["origin"], image.factors[::-1], strict=True))
        file.seek(8)
        file.write(struct.pack("<HH", *(min(place, 0xFFFF) for place in scaled)))


def _read_dds(source: Source, head: bytes) -> ImageData:
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
        if flags & 0x40:
            pixels = _read_dds_words(source, head)
        else:
            _, pixels = _decode(source, "DDS", head if dx10 in _LINEAR_DXGI else None)
    except NotImplementedError as error:
        kind = f"format {dx10}" if dx10 else repr(code.decode("latin-1")) if code.strip(b"\0") else f"{bits} bits"
        raise UnsupportedImageError("a usual DDS texture", f"one of {kind}", "convert it to .png") from error
    is_dxt1 = code == b"DXT1" or dx10 in (70, 71, 72)
    frames = samples.drop_alpha_if_opaque([pixels]) if is_dxt1 else [pixels]
    notes = ["mark of sRGB in the DDS not kept"] if dx10 in _SRGB_DXGI else []
    return ImageData(tuple(frames), "DDS", notes=tuple(notes))


def _read_dds_words(source: Source, head: bytes) -> NDArray[np.uint8]:
    """Read pixels without compression, for which Pillow takes minutes."""
    height, width = struct.unpack("<II", head[12:20])
    flags, _, bits, *masks = struct.unpack("<I4sI4I", head[80:108])
    source.check_pixel_count(width * height)
    if bits not in (8, 16, 24, 32):
        raise NotImplementedError
    source.file.seek(128)
    data = np.frombuffer(source.file.read(height * width * bits // 8), np.uint8)
    if len(data) < height * width * bits // 8:
        raise ValueError("the file is truncated")
    data = data.reshape(height, width, bits // 8)
    words = np.zeros((height, width), np.uint32)
    for byte in range(bits // 8):
        words |= data[..., byte].astype(np.uint32) << np.uint32(8 * byte)
    return samples.unpack_channels(words, masks if flags & 1 else masks[:3])


def write_dds(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a DDS file without compression."""
    _save(file, image, "DDS")


def _read_ppm(source: Source) -> ImageData:
    source.file.seek(0)
    start = source.file.read(4096)
    space = rb"(?:\s|#[^\r\n]*[\r\n])+"
    found = re.match(rb"P([1-6])" + space + rb"(\d+)" + space + rb"(\d+)(?:" + space + rb"(\d+))?", start)
    if not found:
        raise ValueError("its header is not complete")
    kind, width, height, peak = (int(number or 1) for number in found.groups())
    notes, changes = ["comment not kept"] if b"#" in found[0] else [], []
    if kind in (1, 4):
        peak = 1
    elif peak not in (255, 65535):
        changes.append(f"samples of 0 to {peak} changed to 0 to {255 if peak < 255 else 65535}")
    if kind == 3 and peak > 255:
        raise UnsupportedImageError("binary samples", "16-bit samples as text", "convert it to a .png of 16 bits")
    if kind == 6 and peak > 255:  # Pillow would reduce it to 8 bits
        source.check_pixel_count(width * height, 6)
        source.file.seek(found.end() + 1)
        data = np.frombuffer(source.file.read(6 * width * height), ">u2").reshape(height, width, 3)
        pixels = data.astype(np.uint16) if peak == 65535 else np.rint(data * (65535 / peak)).clip(0, 65535)
        frame: NDArray[Any] = pixels.astype(np.uint16)
    else:
        frame = _decode(source, "PPM")[1]
    behind = source.file.seek(0, 2) - found.end() - 1 - frame.nbytes
    if kind > 4 and behind > 0:
        notes.append(f"{behind} bytes behind the image not kept")
    return ImageData((frame,), "PPM", changes=tuple(changes), notes=tuple(notes))


def write_ppm(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a PPM or, of a grey image, a PGM file."""
    pixels = image.frames[0]
    if pixels.dtype == np.float32:
        data = vips.to_vips_image(image, "PPM").write_to_memory()
        pixels = np.frombuffer(data, np.uint16).reshape(pixels.shape)
    height, width, channels = pixels.shape
    peak, order = (255, "u1") if pixels.dtype == np.uint8 else (65535, ">u2")
    file.write(f"P{5 if channels == 1 else 6}\n{width} {height}\n{peak}\n".encode())
    file.write(np.ascontiguousarray(pixels, order).data)
