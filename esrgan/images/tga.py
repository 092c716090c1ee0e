"""Read and write TGA files (Truevision TGA, version 2.0)."""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

from esrgan.images import pillow, samples, vips
from esrgan.images.detect import TGA_FOOTER
from esrgan.images.image import ImageData, NativeBlock
from esrgan.images.source import Source, UnsupportedImageError


def read(source: Source) -> ImageData:
    """Read a TGA file."""
    source.file.seek(0)
    head = source.file.read(18)
    # In pixels of 15 bits, which Pillow does not know, the bit that can be alpha is not used.
    edited = head[:16] + bytes([16, head[17] & 0xF0]) if head[16] == 15 else None
    image, pixels = pillow.decode_any(source, "TGA", edited)
    alpha_bits, notes = 0 if edited else head[17] & 15, list[str]()
    attributes, areas = _read_areas(source.file)
    if pixels.shape[2] in (2, 4):
        alpha = pixels[..., -1]
        is_opaque = alpha_bits == 0 and (alpha.min() == 255 or head[16] in (15, 16))
        if not alpha.any() or is_opaque:  # many programs leave the fourth byte at 0
            pixels = np.ascontiguousarray(pixels[..., :-1])
            notes = [] if is_opaque or alpha_bits == 0 else ["alpha that is 0 everywhere not kept"]
        elif attributes in (0, 1):
            pixels = np.ascontiguousarray(pixels[..., :-1])
            notes = [f"alpha that the file calls {'undefined' if attributes else 'absent'} not kept"]
    frames = samples.drop_colour_if_grey([pixels]) if image.mode == "P" else [pixels]
    blocks = [NativeBlock("", "layout", {"rle": head[2] > 8, "orientation": 1 if head[17] & 0x20 else -1})]
    if name := image.info.get("id_section"):
        blocks.append(NativeBlock("image ID", "id_section", name))
    if any(head[8:12]):
        blocks.append(NativeBlock("origin", "origin", struct.unpack("<HH", head[8:12])))
    return ImageData(tuple(frames), "TGA", native_blocks=tuple(blocks), notes=(*notes, *areas))


def _read_areas(file: BinaryIO) -> tuple[int | None, list[str]]:
    """Return the attributes type of a TGA file of version 2, if it has one, and messages about what follows the pixels.

    Raises:
        UnsupportedImageError: The colours are multiplied with alpha.
    """
    end = file.seek(0, 2)
    file.seek(max(end - 26, 0))
    footer = file.read()
    if not footer.endswith(TGA_FOOTER) or len(footer) < 26:
        return None, []
    extension, developer = struct.unpack("<II", footer[:8])
    attributes, notes = None, []
    if 0 < extension < end - 26:
        file.seek(extension + 494)
        attributes = int.from_bytes(file.read(1))
        if attributes == 4:
            raise UnsupportedImageError("colours without alpha", "colours multiplied with alpha", "save it as .png")
        notes.append("TGA extension area (author, comments, date, gamma, aspect ratio) not kept")
    return attributes, [*notes, "TGA developer area not kept"] if 0 < developer < end - 26 else notes


def write(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a TGA file."""
    found = {block.key: block.content for block in image.native_blocks if image.file_format == "TGA"}
    options = found.get("layout", {"rle": True, "orientation": 1})
    pillow.encode(file, vips.convert_samples(image, "TGA"), "TGA", id_section=found.get("id_section", b""), **options)
    if "origin" in found:
        scaled = (round(place * factor) for place, factor in zip(found["origin"], image.factors[::-1], strict=True))
        file.seek(8)
        file.write(struct.pack("<HH", *(min(place, 0xFFFF) for place in scaled)))
