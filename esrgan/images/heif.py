"""Read and write AVIF and HEIC files (ISO/IEC 23008-12)."""

from __future__ import annotations

import dataclasses
import io
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from esrgan.images import exif, samples, vips
from esrgan.images.detect import is_image_sequence
from esrgan.images.heif_boxes import LIGHT, Inventory, replace_exif
from esrgan.images.image import DEFAULT_QUALITY, ImageData, NativeBlock, describe_left_out
from esrgan.images.source import Source, UnsupportedImageError

# ITU-T H.273: BT.709, unspecified, BT.601, sRGB
_USUAL_TRANSFERS = (1, 2, 6, 13)
_HDR = {16: ", PQ of HDR", 18: ", HLG of HDR"}
_LIGHT_FIELDS = (  # as pillow-heif names them
    "content_light_level",
    "mastering_display_colour_volume",
    "ambient_viewing_environment",
    "nominal_diffuse_white_luminance",
)


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
    found = Inventory.of(source.file)
    images, left_out = found.sort_items()
    if images > 1:
        raise UnsupportedImageError("one image", f"{images} images", "extract one of them")
    if found.is_premultiplied:
        raise UnsupportedImageError("colours without alpha", "colours multiplied with alpha", "save it as .png")
    source.check_pixel_count(found.pixels)
    is_heic = source.file_format == "HEIC"
    if source.is_strict and not is_heic:
        if found.is_deep_av1:
            raise UnsupportedImageError("samples of 8 bits", "more than 8 bits per sample", "convert it to 8 bits")
        if b"clap" in found.properties:  # Pillow does not cut it
            raise UnsupportedImageError("an image without a cut (clap)", "one with it", "convert it to .png")
    image = _read_heic(source, found) if is_heic else _read_avif(source, found)
    blocks = list(image.native_blocks)
    notes = list(image.notes)
    if any(block.key == LIGHT for block in blocks):
        left_out = [name for name in left_out if name != LIGHT]
    tag = found.colour_tag
    if tag and (tag[0] not in (1, 2) or tag[1] not in _USUAL_TRANSFERS):
        label = f"colour tag (primaries {tag[0]}, transfer {tag[1]}{_HDR.get(tag[1], '')})"
        blocks += [NativeBlock(label, "colour tag", tag)] if is_heic and not image.icc_profile else []
        notes += [] if is_heic and not image.icc_profile else [f"{label} not kept"]
    notes += describe_left_out(left_out, found.bytes_behind)
    return dataclasses.replace(image, native_blocks=tuple(blocks), notes=tuple(notes), pixel_aspect=found.pixel_aspect)


def _read_avif(source: Source, found: Inventory) -> ImageData:
    edited, turns = _remove_turns(source, found)
    decoded = vips.decode(source, edited=edited)
    bits = decoded.fields["bits-per-sample"] if decoded.frames[0].dtype == np.uint16 else 0
    frames = [samples.expand_to_full_range(frame, bits) for frame in decoded.frames] if bits else decoded.frames
    if not source.is_strict:  # strict reading decodes with libavif, which interpolates
        frames = [_interpolate_colours(frame, found, source) for frame in frames]
        # Conversion to YCbCr and back changes grey by at most one step of 10 bits.
        frames = samples.drop_colour_if_grey(frames, 64 if bits else 1)
    frames = samples.turn_upright([_turn(frame, turns) for frame in frames], decoded.fields.get("orientation", 1))
    notes = tuple(decoded.notes)
    return ImageData(tuple(frames), "AVIF", bits=bits, lossless=False, notes=notes, **decoded.metadata)


def _remove_turns(source: Source, found: Inventory) -> tuple[io.BytesIO | None, list[tuple[bytes, int]]]:
    """Return what libheif is to read instead of the file, if anything, and how to turn the pixels afterwards."""
    is_for_libheif = not source.header_only and (not source.is_strict or source.file_format == "HEIC")
    return (found.remove_turns(source.file) if is_for_libheif else None) or (None, [])


def _turn(pixels: NDArray[Any], turns: list[tuple[bytes, int]]) -> NDArray[Any]:
    """Turn and mirror an image (H, W, C) as its file says (ISO/IEC 23008-12, §6.5.10 and §6.5.12)."""
    for kind, value in turns:
        pixels = np.rot90(pixels, value & 3) if kind == b"irot" else np.flip(pixels, value & 1)
    return np.ascontiguousarray(pixels)


def _interpolate_colours(pixels: NDArray[Any], found: Inventory, source: Source) -> NDArray[Any]:
    """Return an image as it would be if libheif did not repeat colours of half the width and height."""
    if source.header_only or not found.has_halved_colours or pixels.shape[2] < 3:
        return pixels
    pixels = np.require(pixels, requirements=["C", "W"])
    samples.interpolate_repeated_colours(pixels, *found.luma_weights)
    return pixels


def _read_heic(source: Source, found: Inventory) -> ImageData:
    heif = load_heif()
    if heif is None:
        raise UnsupportedImageError("pillow-heif for HEIC", "none", "pip install pillow-heif, or convert it")
    edited, turns = _remove_turns(source, found)
    source.file.seek(0)
    container = heif.open_heif(edited or source.file, convert_hdr_to_8bit=False)
    image = container[container.primary_index]
    width, height = image.size
    pixels = np.ascontiguousarray(np.asarray(image)).reshape(height, width, -1)
    info = image.info
    bits = int(info["bit_depth"]) if pixels.dtype == np.uint16 else 0
    if bits:
        pixels = samples.expand_to_full_range(pixels, bits)
    pixels = _turn(_interpolate_colours(pixels, found, source), turns)
    if not source.is_strict:
        (pixels,) = samples.drop_colour_if_grey([pixels], 64 if bits else 1)
    light = {name: info[name] for name in _LIGHT_FIELDS if name in info}
    return ImageData(
        (pixels,),
        "HEIC",
        bits=bits,
        lossless=False,
        icc_profile=info.get("icc_profile"),
        exif=exif.strip_exif_prefix(info.get("exif") or b""),
        xmp=info.get("xmp"),
        native_blocks=(NativeBlock(LIGHT, LIGHT, light),) if light else (),
    )


def write_avif(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write an AVIF file."""
    vips.encode(
        file,
        image,
        "AVIF",
        keep=vips.KEEP_XMP | vips.KEEP_ICC | (vips.KEEP_EXIF if image.exif else 0),
        compression="av1",
        Q=quality or DEFAULT_QUALITY,
        subsample_mode="off",
        bitdepth=vips.output_bits(image, "AVIF"),
    )
    if image.exif:  # libvips leaves out tags that it does not know, such as the rating
        replace_exif(file, image.exif)


def write_heic(file: BinaryIO, image: ImageData, quality: int | None) -> None:
    """Write a HEIC file."""
    heif: Any = load_heif()  # check_writable has made sure that it is installed
    pixels = image.frames[0]
    if pixels.dtype == np.float32:
        pixels = np.rint(pixels.clip(0, 1) * 65535).astype(np.uint16)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]] + (";16" if pixels.dtype == np.uint16 else "")
    heif_image = heif.from_bytes(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels).tobytes())
    blocks: dict[str, Any] = {"icc_profile": image.icc_profile, "exif": image.exif, "xmp": image.xmp}
    blocks["pixel_aspect_ratio"] = image.pixel_aspect
    options = {key: block for key, block in blocks.items() if block}
    for block in image.native_blocks if image.file_format == "HEIC" else ():
        names = ("color_primaries", "transfer_characteristics")
        options |= block.content if block.key == LIGHT else dict(zip(names, block.content, strict=True))
    heif_image.save(file, quality=quality or DEFAULT_QUALITY, chroma=444, **options)
