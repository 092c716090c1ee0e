"""Decode and encode images with libvips, which is loaded when it is first needed."""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from esrgan.errors import ImageError
from esrgan.images.exif import strip_exif_prefix
from esrgan.images.formats import FILE_FORMATS
from esrgan.images.image import ImageData, effective_bits, profile_space
from esrgan.images.samples import peak_value
from esrgan.images.source import Decoded, Source, UnsupportedImageError

if TYPE_CHECKING:
    from esrgan.images.tiff_directories import EditedFile

KEEP_EXIF, KEEP_XMP, KEEP_ICC = 1, 2, 8  # VipsForeignKeep
_GREY_AND_RGB = ("b-w", "grey16", "srgb", "rgb16", "scrgb")  # interpretations in libvips
# The fields of an image in libvips, by their names in ImageData.
_METADATA_FIELDS = {"icc_profile": "icc-profile-data", "exif": "exif-data", "xmp": "xmp-data", "iptc": "iptc-data"}
_OTHER_FIELDS = ("orientation", "palette", "bits-per-sample", "page-height", "delay", "loop", "n-pages")
_DTYPES = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}
_VIPS_FORMATS = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_OTHER_DTYPES = {"char": np.int8, "short": np.int16, "int": np.int32, "uint": np.uint32}
_NUMBER = re.compile(r"\([\d.]+\)")  # of an error in libheif, on a line of its own

_Result = TypeVar("_Result")
_process_ids: dict[str, int] = {}


def load_vips() -> Any:
    """Return the module pyvips; its warnings are not printed to stderr if logging is not configured.

    Raises:
        ImageError: This process was forked from one that has used libvips; it would wait for ever.
    """
    if os.getpid() != _process_ids.setdefault("first", os.getpid()):
        raise ImageError(
            "libvips, which reads and writes images, cannot be used in a process forked from one that has used it; "
            "start the process by the method spawn"
        )
    logger = logging.getLogger("pyvips")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return _import_vips()


@cache
def _import_vips() -> Any:
    """Import pyvips, and let libvips call its Python function for log messages only for warnings and errors.

    Otherwise it is called after each image that is read or written, where the KeyboardInterrupt of a Ctrl-C that was
    pressed meanwhile would be raised, and be lost: exceptions cannot leave a function that is called by C code.
    """
    pyvips: Any = import_module("pyvips")
    levels, library = pyvips.GLogLevelFlags, pyvips.glib_lib
    library.g_log_remove_handler(b"VIPS", pyvips._log_handler_id)
    kept = levels.LEVEL_WARNING | levels.LEVEL_CRITICAL | levels.LEVEL_ERROR | levels.FLAG_FATAL | levels.FLAG_RECURSION
    pyvips._log_handler_id = library.g_log_set_handler(b"VIPS", kept, pyvips._log_handler_cb, pyvips.ffi.NULL)
    return pyvips


def describe_vips_error(error: Exception) -> str:
    """Return the cause of an error from libvips on one line.

    It is the last line that states a cause, because libvips' error buffer may still contain older errors.
    """
    lines = [line.strip() for line in str(getattr(error, "detail", error)).splitlines()]
    causes = [line for line in lines if line and "bad seek" not in line and not _NUMBER.fullmatch(line)]
    return causes[-1] if causes else "unknown reason"


def decode(source: Source, *, edited: EditedFile | io.BytesIO | None = None, **options: Any) -> Decoded:
    """Decode an image, with Pillow if reading is strict.

    CMYK is converted to sRGB. An RGB profile of a grey image is left out. Samples of TIFF files can also be signed
    or have 32 bits.

    Args:
        source: The file to read.
        edited: What to read instead of the file; its pixels have already been counted.
        options: Options of libvips' loader, such as ``n=-1`` for all frames.

    Raises:
        UnsupportedImageError: The image has too many pixels, or samples or channels that cannot be upscaled.
    """
    if source.is_strict:
        return import_module("esrgan.images.pillow").decode(source, options.get("n", -1))  # type: ignore[no-any-return]
    changes, notes = [], []
    data, is_tiff = _open(source, edited), source.file_format == "TIFF"
    loader = FILE_FORMATS[source.file_format].module  # the modules have the names of libvips' loaders and savers
    if is_tiff:  # without it, large strips are errors and large texts crash; pixels are limited by the source
        options["unlimited"] = True
    # fail_on="truncated" would accept truncated TIFF files, and "warning" would refuse intact ones that contain a text
    # without its terminator.
    image = getattr(load_vips().Image, f"{loader}load_source")(data, access="sequential", fail_on="error", **options)
    if edited is None:
        bytes_per_sample = np.dtype((_DTYPES | _OTHER_DTYPES).get(image.format, np.uint8)).itemsize
        source.check_pixel_count(image.width * image.height, image.bands * bytes_per_sample)
    if image.interpretation == "cmyk" and image.bands == 4:
        image = _convert_cmyk_to_rgb(image)
        changes.append("CMYK converted to RGB")
    is_known = image.interpretation in _GREY_AND_RGB and 1 <= image.bands <= 4
    if not is_known and not (is_tiff and image.interpretation in (*_GREY_AND_RGB, "multiband")):
        got = f"{image.bands} channels ({image.interpretation})"
        raise UnsupportedImageError("grey, RGB or CMYK", got, "convert it to RGB")
    if image.format not in _DTYPES and not (is_tiff and image.format in _OTHER_DTYPES):
        raise UnsupportedImageError(
            "samples of 8 or 16 bits or float", f"samples of type {image.format}", "convert it to 16 bits or float"
        )
    # Only the fields that are needed are read, because texts in others may not be valid UTF-8.
    fields = {name: image.get(name) for name in _OTHER_FIELDS if image.get_typeof(name)}
    metadata = {
        name: block
        for name, field in _METADATA_FIELDS.items()
        if image.get_typeof(field) and (block := image.get(field))
    }
    if "exif" in metadata:
        metadata["exif"] = strip_exif_prefix(metadata["exif"])
        notes += [] if metadata["exif"] else ["unreadable EXIF not kept"]
    if image.bands < 3 and profile_space(metadata.get("icc_profile")) == "RGB":
        del metadata["icc_profile"]
        notes.append("RGB colour profile of a grey image not kept")
    return Decoded(_to_frames(image, fields, header_only=source.header_only), fields, metadata, changes, notes)


def _open(source: Source, edited: EditedFile | io.BytesIO | None) -> Any:
    """Return a source for libvips; a file is opened as one because libvips would look up its name in a cache."""
    pyvips = load_vips()
    if edited is None:
        # The path is passed as bytes because file names are not always valid UTF-8.
        return pyvips.Source.new_from_file(str(source.path).encode("utf-8", "surrogateescape"))
    custom = pyvips.SourceCustom()
    custom.on_read(edited.read)
    custom.on_seek(edited.seek)
    return custom


def _to_frames(image: Any, fields: dict[str, Any], *, header_only: bool) -> list[NDArray[Any]]:
    """Decode an opened image; if only the shape of its frames matters, their samples are 0."""
    dtype: Any = (_DTYPES | _OTHER_DTYPES)[image.format]
    height = fields.get("page-height", image.height)
    if header_only:
        return list(np.broadcast_to(dtype(0), (image.height // height, height, image.width, image.bands)))
    pixels: NDArray[Any] = np.frombuffer(image.write_to_memory(), dtype)
    return list(pixels.reshape(-1, height, image.width, image.bands))


def _convert_cmyk_to_rgb(image: Any) -> Any:
    """Convert a CMYK image to sRGB and attach the sRGB profile.

    If the image has no CMYK profile, the one that comes with libvips is used.
    """
    profile = image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else None
    depth = 16 if image.format == "ushort" else 8
    source = {"embedded": True} if profile_space(profile) == "CMYK" else {"input_profile": "cmyk"}
    return image.icc_transform("srgb", depth=depth, intent="relative", black_point_compensation=True, **source)


def encode(
    file: BinaryIO,
    image: ImageData,
    name: str,
    *,
    keep: int = 0,
    head_length: int = 0,
    edit: Callable[[bytes], bytes] = bytes,
    **options: Any,
) -> None:
    """Encode an image without copying its frames.

    Args:
        file: The file to write, open for reading and writing.
        image: The image.
        name: Name of the format in ``FILE_FORMATS``.
        keep: The metadata that libvips writes, as flags of VipsForeignKeep.
        head_length: How many of the first bytes of the file are edited before they are written.
        edit: Return what is written instead of the first bytes.
        options: Options of libvips' saver.
    """
    target = _Target(file, head_length, edit)
    save = getattr(to_vips_image(image, name), f"{FILE_FORMATS[name].module}save_target")
    try:
        save(target.target, keep=keep, **options)
    except Exception as error:
        raise (target.error or error) from error
    if target.error:
        raise target.error


def to_vips_image(image: ImageData, name: str) -> Any:
    """Return a libvips image with the bit depth of a format and the frames stacked vertically, without copying them."""
    pyvips = load_vips()
    frames = []
    for frame in map(np.ascontiguousarray, image.frames):
        height, width, bands = frame.shape
        frames.append(pyvips.Image.new_from_memory(frame, width, height, bands, _VIPS_FORMATS[frame.dtype]))
    vips_image = frames[0] if len(frames) == 1 else pyvips.Image.arrayjoin(frames, across=1)
    vips_image = _convert_depth(vips_image, image, name)
    grey, colour = {"uchar": ("b-w", "srgb"), "ushort": ("grey16", "rgb16"), "float": ("b-w", "scrgb")}[
        vips_image.format
    ]
    channels = image.base_channels
    if channels < 3 and profile_space(image.icc_profile) == "RGB":
        vips_image, channels = vips_image[0].bandjoin([vips_image[0], *vips_image.bandsplit()]), channels + 2
    vips_image = vips_image.copy(interpretation=grey if channels < 3 else colour)
    types = pyvips.GValue
    blocks = {"icc-profile-data": image.icc_profile, "xmp-data": image.xmp}
    if name == "AVIF":
        blocks["exif-data"] = image.exif
    for field, block in blocks.items():
        if block:
            vips_image.set_type(types.blob_type, field, block)
    if len(frames) > 1:
        vips_image.set_type(types.gint_type, "page-height", image.frames[0].shape[0])
        if image.delays_ms:
            vips_image.set_type(types.array_int_type, "delay", list(image.delays_ms))
            vips_image.set_type(types.gint_type, "loop", min(image.loop, 65535))  # of 16 bits; 0 is endless
    return vips_image


def convert_samples(image: ImageData, name: str) -> NDArray[Any]:
    """Return the first frame (H, W, C) with the samples of uint8 or uint16 that a format stores."""
    pixels = image.frames[0]
    if pixels.dtype.kind == "u" and pixels.itemsize * 8 == output_bits(image, name):
        return pixels
    vips_image = to_vips_image(dataclasses.replace(image, icc_profile=None), name)
    return np.frombuffer(vips_image.write_to_memory(), _DTYPES[vips_image.format]).reshape(pixels.shape)


def output_bits(image: ImageData, name: str) -> int:
    """Return the bits per sample in the file: the fewest of the format's bit depths that suffice, or else the most."""
    wanted, depths = effective_bits(image.frames[0].dtype, image.bits), FILE_FORMATS[name].bit_depths
    return min((depth for depth in depths if depth >= wanted), default=max(depths))


def _convert_depth(vips_image: Any, image: ImageData, name: str) -> Any:
    """Round the samples to the bit depth of the file; 10 and 12 bits are stored as the upper bits of 16."""
    dtype, bits = image.frames[0].dtype, output_bits(image, name)
    peak = peak_value(dtype)
    if bits == 32 or peak == 2**bits - 1:
        return vips_image
    unit = vips_image.clamp(min=0, max=1) if peak == 1 else vips_image
    # In float32, some halves of 65535 would be rounded to the wrong side.
    scaled = (unit.cast("double") * ((2**bits - 1) / peak)).rint()
    return scaled.cast("uchar") if bits == 8 else (scaled * 2 ** (16 - bits)).cast("ushort")


class _Target:
    """A target for libvips that writes to an open file after editing the first bytes."""

    def __init__(self, file: BinaryIO, head_length: int, edit: Callable[[bytes], bytes]) -> None:
        self.error: BaseException | None = None
        self._file, self._missing, self._edit = file, head_length, edit
        self._head = b""
        self.target = load_vips().TargetCustom()
        self.target.on_write(self._write)
        self.target.on_read(self._read)
        self.target.on_seek(self._seek)

    def _write(self, data: Any) -> int:
        return self._attempt(lambda: self._write_edited(memoryview(data)), -1)

    def _write_edited(self, data: memoryview) -> int:
        rest = data
        if self._missing:
            self._head += bytes(rest[: self._missing])
            taken = min(len(rest), self._missing)
            self._missing -= taken
            rest = rest[taken:]
            if not self._missing:
                self._file.write(self._edit(self._head))
        self._file.write(rest)
        return len(data)

    def _read(self, length: int) -> bytes:
        return self._attempt(lambda: self._file.read(length), b"")

    def _seek(self, offset: int, whence: int) -> int:
        return self._attempt(lambda: self._file.seek(offset, whence), -1)

    def _attempt(self, action: Callable[[], _Result], failed: _Result) -> _Result:
        try:
            return action()
        except BaseException as error:  # exceptions must not propagate through C code
            self.error = error
            return failed
