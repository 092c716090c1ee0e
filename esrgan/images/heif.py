"""Read and write AVIF and HEIC files (ISO/IEC 23008-12)."""

from __future__ import annotations

import struct
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np

from esrgan.images import exif, samples, vips
from esrgan.images.detect import detect_format, is_image_sequence
from esrgan.images.image import DEFAULT_QUALITY, ImageData
from esrgan.images.source import Source, UnsupportedImageError


def load_heif() -> Any | None:
    """Return the module pillow_heif, or None if it is not installed."""
    try:
        return import_module("pillow_heif")
    except ImportError:
        return None


def read(source: Source) -> ImageData:
    """Read an AVIF or HEIC file."""
    source.file.seek(0)
    head = source.file.read(4096)
    if is_image_sequence(head):
        raise UnsupportedImageError("one image", "an image sequence", "extract one of its frames, or save it as .webp")
    if detect_format(head) != "AVIF":
        return _read_heic(source)
    if source.is_strict and _is_deep(head):
        raise UnsupportedImageError("samples of 8 bits", "more than 8 bits per sample", "convert it to 8 bits")
    return _read_avif(source)


def _is_deep(head: bytes) -> bool:
    """Return whether an AVIF file with these first bytes has samples of 10 or 12 bits (AV1-ISOBMFF, §2.3.3)."""
    position = head.find(b"av1C")
    return 0 <= position < len(head) - 6 and bool(head[position + 6] & 0x40)


def _read_avif(source: Source) -> ImageData:
    decoded = vips.decode(source, "heif")
    if (images := decoded.fields.get("n-pages", 1)) > 1:
        raise UnsupportedImageError("one image", f"{images} images", "extract one of them")
    bits = decoded.fields["bits-per-sample"] if decoded.frames[0].dtype == np.uint16 else 0
    frames = [samples.expand_to_full_range(frame, bits) for frame in decoded.frames] if bits else decoded.frames
    if not source.is_strict:
        # Conversion to YCbCr and back changes grey by at most one step of 10 bits.
        frames = samples.drop_colour_if_grey(frames, 64 if bits else 1)
    return ImageData(
        tuple(samples.turn_upright(frames, decoded.fields.get("orientation", 1))),
        "AVIF",
        bits=bits,
        lossless=False,
        notes=(*decoded.notes, *_describe_lost_colour_tag(source.file)),
        **decoded.metadata,
    )


def _read_heic(source: Source) -> ImageData:
    heif = load_heif()
    if heif is None:
        raise UnsupportedImageError("pillow-heif for HEIC", "none", "pip install pillow-heif, or convert it")
    source.file.seek(0)
    container = heif.open_heif(source.file, convert_hdr_to_8bit=False)
    if len(container) > 1:
        raise UnsupportedImageError("one image", f"{len(container)} images", "extract one of them")
    image = container[0]
    width, height = image.size
    source.check_pixel_count(width * height, 3)
    pixels = np.ascontiguousarray(np.asarray(image)).reshape(height, width, -1)
    info = image.info
    bits = int(info["bit_depth"]) if pixels.dtype == np.uint16 else 0
    if bits:
        pixels = samples.expand_to_full_range(pixels, bits)
    if not source.is_strict:
        (pixels,) = samples.drop_colour_if_grey([pixels], 64 if bits else 1)
    return ImageData(
        (pixels,),
        "HEIC",
        bits=bits,
        lossless=False,
        icc_profile=info.get("icc_profile"),
        exif=exif.strip_exif_prefix(info.get("exif") or b""),
        xmp=info.get("xmp"),
        notes=tuple(_describe_lost_colour_tag(source.file)),
    )


def _describe_lost_colour_tag(file: BinaryIO) -> list[str]:
    """Return a note if the file has a colour tag, which is not kept, that differs from sRGB."""
    primaries, transfer = read_heif_colour_tag(file) or (1, 13)
    is_usual = primaries in (1, 2) and transfer in (1, 2, 6, 13)  # ITU-T H.273: BT.709, unspecified, BT.601, sRGB
    return [] if is_usual else [f"colour tag (primaries {primaries}, transfer {transfer}) not kept"]


def read_heif_colour_tag(file: BinaryIO) -> tuple[int, int] | None:
    """Read the primaries and the transfer function (ITU-T H.273) that an AVIF or HEIC file has instead of a profile."""
    file.seek(0)
    position = (head := file.read(1 << 16)).find(b"colrnclx")
    return struct.unpack_from(">HH", head, position + 8) if 0 <= position <= len(head) - 12 else None


def write_avif(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write an AVIF file."""
    vips.encode(
        file,
        image,
        "AVIF",
        "heif",
        keep=vips.KEEP_XMP | vips.KEEP_IPTC | vips.KEEP_ICC | (vips.KEEP_EXIF if image.exif else 0),
        compression="av1",
        Q=quality or DEFAULT_QUALITY,
        subsample_mode="off",
        bitdepth=vips.output_bits(image, "AVIF"),
    )


def write_heic(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a HEIC file."""
    heif: Any = load_heif()  # check_writable has made sure that it is installed
    pixels = image.frames[0]
    if pixels.dtype == np.float32:
        pixels = np.rint(pixels.clip(0, 1) * 65535).astype(np.uint16)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]] + (";16" if pixels.dtype == np.uint16 else "")
    heif_image = heif.from_bytes(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels).tobytes())
    blocks = {"icc_profile": image.icc_profile, "exif": image.exif, "xmp": image.xmp}
    heif_image.save(
        file, quality=quality or DEFAULT_QUALITY, chroma=444, **{key: block for key, block in blocks.items() if block}
    )
