"""Write image files of any supported format, with their metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from esrgan.errors import ImageError
from esrgan.files import atomic_write
from esrgan.images import metadata, native_libraries, tiff
from esrgan.images.flatten import fit_alpha
from esrgan.images.formats import FILE_FORMATS, check_writable, format_for_suffix
from esrgan.images.image import ImageData, effective_bits
from esrgan.text import describe_error

DEFAULT_QUALITY = 95  # for lossy formats, on a scale of 1 to 100

_VIPS_FORMATS = {np.dtype(np.uint8): "uchar", np.dtype(np.uint16): "ushort", np.dtype(np.float32): "float"}
_EXIF, _XMP, _IPTC, _ICC = 1, 2, 4, 8  # VipsForeignKeep
# Beyond this many bytes of pixels a TIFF file becomes a BigTIFF. The margin is for directories and for data that grows
# a little when it is compressed.
_MAX_TIFF_BYTES = 0.98 * 2**32
_BMP_ROWS = 256
_HEADER_BYTES = {"PNG": 54, "JPEG": 2}  # first bytes of a file that are edited before they are written


def write_image(
    path: str | Path,
    image: ImageData,
    *,
    overwrite: bool = False,
    quality: int | None = None,
    reduce_depth: bool = False,
) -> tuple[str, ...]:
    """Write an image with all metadata that the format can store.

    The file is written atomically, so that a failure leaves no partial file. Compression is lossless, except for JPEG,
    HEIC, AVIF, and WebP if the image was lossy already. Colours keep their full resolution (4:4:4), except in lossy
    WebP, which does not support it.

    Args:
        path: Path of the output; the suffix, one of ``SUFFIXES``, chooses the format.
        image: Image to write.
        overwrite: Replace an existing file.
        quality: Quality of a lossy format, 1 to 100; None means ``DEFAULT_QUALITY``. If it is given, WebP is lossy.
        reduce_depth: Allow fewer bits per sample if the format cannot store as many as the image has.

    Returns:
        Messages for the user about what the file does not keep.

    Raises:
        ImageError: The suffix is unknown, the format cannot store the image, the file exists, or writing fails.
        ValueError: The quality is not in 1 to 100.
    """
    path = Path(path)
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100, got {quality}")
    name = format_for_suffix(path)
    image = fit_alpha(image, supports_alpha=FILE_FORMATS[name].supports_alpha)
    frame = image.frames[0]
    height, width, channels = frame.shape
    check_writable(
        path, height, width, channels, frame.dtype, len(image.frames), bits=image.bits, reduce_depth=reduce_depth
    )
    image, notes = _fit_to_format(image, name)
    try:
        with atomic_write(path, overwrite=overwrite) as file:
            if name == "BMP":
                _write_bmp(file, image)
            elif name == "HEIC":
                _write_heic(file, image, quality or DEFAULT_QUALITY)
            else:
                _write_with_vips(file, image, name, quality)
    except ImageError:
        raise
    except FileExistsError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    except Exception as error:
        got = describe_error(error) if isinstance(error, OSError) else native_libraries.describe_vips_error(error)
        remedy = "check the folder and its free disk space, or choose another format"
        raise ImageError(f"{path}: cannot be written as {name}: {got}; {remedy}") from error
    return notes


# The metadata that a format can store. Formats that are not listed can store all of it.
_SUPPORTED_METADATA = {"BMP": ("dpi",), "GIF": (), "PNG": ("icc_profile", "exif", "xmp", "dpi")}
_METADATA_NAMES = {"icc_profile": "colour profile", "exif": "EXIF", "xmp": "XMP", "iptc": "IPTC"}


def _fit_to_format(image: ImageData, name: str) -> tuple[ImageData, tuple[str, ...]]:
    """Return the image with the metadata that the format can store, and notes for the user about the rest.

    Orientation and size in the metadata are set to those of the upright image.
    """
    height, width, channels = image.frames[0].shape
    notes = []
    had, bits = effective_bits(image.frames[0].dtype, image.bits), _output_bits(image, name)
    if had > bits:
        notes.append(f"{'float' if had == 32 else f'{had}-bit'} samples reduced to {bits} bits")
    if name == "GIF":
        notes.append("GIF stores 256 colours per frame and no partial transparency")
    lost = {
        field
        for field in _METADATA_NAMES
        if getattr(image, field) and field not in _SUPPORTED_METADATA.get(name, _METADATA_NAMES)
    }
    if image.exif and name == "JPEG" and len(image.exif) > metadata.MAX_JPEG_EXIF_BYTES:
        lost.add("exif")
    if lost:
        notes.append(f"{name} cannot store {', '.join(_METADATA_NAMES[field] for field in sorted(lost))}")
    if image.icc_profile and channels >= 3 and image.icc_profile[16:20] == b"GRAY":
        lost.add("icc_profile")
        notes.append("grey colour profile of an RGB image not kept")
    if name != "PNG" and not image.icc_profile and metadata.is_unlike_srgb(image.png_chunks):
        notes.append("gamma or colour space of the PNG not kept")
    cleared: dict[str, Any] = dict.fromkeys(lost)
    image = dataclasses.replace(image, **cleared)
    exif = metadata.strip_exif_prefix(image.exif or b"")
    exif = metadata.reset_exif_orientation(exif, width, height) if exif else None
    xmp = metadata.reset_xmp_orientation(image.xmp) if image.xmp else None
    return dataclasses.replace(image, exif=exif, xmp=xmp), tuple(notes)


def _output_bits(image: ImageData, name: str) -> int:
    """Return the bits per sample in the file: the fewest of the format's bit depths that suffice, or else the most."""
    wanted = effective_bits(image.frames[0].dtype, image.bits)
    return min(
        (depth for depth in FILE_FORMATS[name].bit_depths if depth >= wanted),
        default=max(FILE_FORMATS[name].bit_depths),
    )


def _write_with_vips(file: BinaryIO, image: ImageData, name: str, quality: int | None) -> None:
    vips_image = _to_vips_image(image, name)
    head: Callable[[bytes], bytes] = bytes
    keep = _XMP | _IPTC | _ICC
    options: dict[str, Any] = {}
    if name == "PNG":
        head, keep = partial(metadata.insert_png_metadata, image=image), 0
    elif name == "JPEG":
        head = partial(metadata.insert_jpeg_metadata, image=image)
        # optimize_coding would save a few per cent, but needs three times the size of the image in memory.
        options = {"Q": quality or DEFAULT_QUALITY, "subsample_mode": "off"}
    elif name == "WEBP":
        keep |= _EXIF if image.exif else 0
        options = {"Q": quality or DEFAULT_QUALITY, "smart_subsample": True}
        if image.lossless and quality is None:
            options = {"lossless": True, "exact": True}
    elif name == "GIF":
        options = {"keep_duplicate_frames": True, "effort": 7}
    elif name == "TIFF":
        size = sum(frame.nbytes for frame in image.frames)
        options = {"compression": image.compression, "bigtiff": size > _MAX_TIFF_BYTES, "resunit": "inch"}
        if image.compression in ("lzw", "deflate"):
            options["predictor"] = "float" if image.frames[0].dtype == np.float32 else "horizontal"
    else:
        keep |= _EXIF if image.exif else 0
        bits = _output_bits(image, name)
        options = {"compression": "av1", "Q": quality or DEFAULT_QUALITY, "subsample_mode": "off", "bitdepth": bits}
    target = _VipsTarget(file, _HEADER_BYTES.get(name, 0), head)
    save = getattr(vips_image, f"{'heif' if name == 'AVIF' else name.lower()}save_target")
    try:
        save(target.target, keep=keep, **options)
    except Exception as error:
        raise (target.error or error) from error
    if target.error:
        raise target.error
    if name == "TIFF":
        tiff.write_metadata(file, image.exif, image.dpi)
    elif name == "WEBP" and image.exif:
        metadata.replace_webp_exif(file, image.exif)


def _to_vips_image(image: ImageData, name: str) -> Any:
    """Return a libvips image with the frames stacked vertically, without copying them."""
    pyvips = native_libraries.load_vips()
    frames = []
    for frame in image.frames:
        contiguous = np.ascontiguousarray(frame)
        frames.append(
            pyvips.Image.new_from_memory(contiguous, *_width_height_bands(contiguous), _VIPS_FORMATS[contiguous.dtype])
        )
    vips_image = frames[0] if len(frames) == 1 else pyvips.Image.arrayjoin(frames, across=1)
    height, _, channels = image.frames[0].shape
    vips_image = _convert_depth(vips_image, image, name)
    grey, colour = {"uchar": ("b-w", "srgb"), "ushort": ("grey16", "rgb16"), "float": ("b-w", "scrgb")}[
        vips_image.format
    ]
    if channels < 3 and image.icc_profile and image.icc_profile[16:20] == b"RGB ":
        vips_image, channels = vips_image[0].bandjoin([vips_image[0], *vips_image.bandsplit()]), channels + 2
    vips_image = vips_image.copy(interpretation=grey if channels < 3 else colour)
    types = pyvips.GValue
    blocks = {"icc-profile-data": image.icc_profile, "xmp-data": image.xmp, "iptc-data": image.iptc}
    if name == "AVIF":
        blocks["exif-data"] = image.exif
    for field, block in blocks.items():
        if block:
            vips_image.set_type(types.blob_type, field, block)
    if len(frames) > 1:
        vips_image.set_type(types.gint_type, "page-height", height)
        if image.delays_ms:
            vips_image.set_type(types.array_int_type, "delay", list(image.delays_ms))
            vips_image.set_type(types.gint_type, "loop", image.loop)
    return vips_image


def _width_height_bands(frame: NDArray[Any]) -> tuple[int, int, int]:
    return frame.shape[1], frame.shape[0], frame.shape[2]


def _convert_depth(vips_image: Any, image: ImageData, name: str) -> Any:
    """Round the samples to the bit depth of the file; 10 and 12 bits are stored as the upper bits of 16."""
    dtype, bits = image.frames[0].dtype, _output_bits(image, name)
    peak = {8: 255, 16: 65535}.get(dtype.itemsize * 8, 1)
    if bits == 32 or peak == 2**bits - 1:
        return vips_image
    unit = vips_image.clamp(min=0, max=1) if peak == 1 else vips_image
    # In float32, some halves of 65535 would be rounded to the wrong side.
    scaled = (unit.cast("double") * ((2**bits - 1) / peak)).rint()
    return scaled.cast("uchar") if bits == 8 else (scaled * 2 ** (16 - bits)).cast("ushort")


class _VipsTarget:
    """A target for libvips that writes to an open file after editing the first bytes."""

    def __init__(self, file: BinaryIO, head_length: int, edit: Callable[[bytes], bytes]) -> None:
        self.error: BaseException | None = None
        self._file, self._missing, self._edit = file, head_length, edit
        self._head = b""
        self.target = native_libraries.load_vips().TargetCustom()
        self.target.on_write(self._write)
        self.target.on_read(self._file.read)
        self.target.on_seek(self._seek)

    def _write(self, data: Any) -> int:
        try:
            rest = memoryview(data)
            if self._missing:
                self._head += bytes(rest[: self._missing])
                taken = min(len(rest), self._missing)
                self._missing -= taken
                rest = rest[taken:]
                if not self._missing:
                    self._file.write(self._edit(self._head))
            self._file.write(rest)
        except BaseException as error:  # exceptions must not propagate through C code
            self.error = error
            return -1
        return len(data)

    def _seek(self, offset: int, whence: int) -> int:
        return self._file.seek(offset, whence)


def _write_bmp(file: BinaryIO, image: ImageData) -> None:
    """Write a BMP file in blocks of rows, because Pillow would copy the whole image first."""
    pixels = image.frames[0]
    if pixels.dtype != np.uint8:
        vips_image = _convert_depth(_to_vips_image(image, "TIFF"), image, "BMP")
        pixels = np.frombuffer(vips_image.write_to_memory(), np.uint8).reshape(pixels.shape)
    file.write(metadata.make_bmp_header(pixels.shape, image.dpi))
    padding = -pixels[0].size % 4
    for end in range(len(pixels), 0, -_BMP_ROWS):  # BMP stores rows from the bottom up and blue first
        rows = pixels[max(end - _BMP_ROWS, 0) : end][::-1, :, ::-1]
        file.write(np.pad(rows.reshape(len(rows), -1), ((0, 0), (0, padding))).tobytes())


def _write_heic(file: BinaryIO, image: ImageData, quality: int) -> None:
    heif: Any = native_libraries.load_heif()  # check_writable has made sure that it is installed
    pixels = image.frames[0]
    if pixels.dtype == np.float32:
        pixels = np.rint(pixels.clip(0, 1) * 65535).astype(np.uint16)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]] + (";16" if pixels.dtype == np.uint16 else "")
    heif_image = heif.from_bytes(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels).tobytes())
    blocks = {"icc_profile": image.icc_profile, "exif": image.exif, "xmp": image.xmp}
    heif_image.save(file, quality=quality, chroma=444, **{key: block for key, block in blocks.items() if block})
