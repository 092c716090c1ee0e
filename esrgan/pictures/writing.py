"""Writes picture files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from esrgan.errors import ImageError, Problem
from esrgan.files import new_image_file, reason
from esrgan.pictures import containers, library, tiff
from esrgan.pictures.formats import FORMATS, Picture, bits_of, check_writable, format_of

QUALITY = 95  # of lossy formats, 1 to 100

_FORMATS = {np.dtype(np.uint8): "uchar", np.dtype(np.uint16): "ushort", np.dtype(np.float32): "float"}
_EXIF, _XMP, _IPTC, _ICC = 1, 2, 4, 8  # VipsForeignKeep
_LARGEST_TIFF = 0.98 * 2**32  # bytes of pixels; what cannot be compressed grows a little, and directories follow
_BMP_ROWS = 256
_HEADS = {"PNG": 54, "JPEG": 2}  # bytes that are looked at before they are written


def write(
    path: str | Path,
    picture: Picture,
    *,
    overwrite: bool = False,
    quality: int | None = None,
    reduce_depth: bool = False,
) -> tuple[str, ...]:
    """Writes a picture whole or not at all, in the format of the suffix, with all metadata that it can hold.

    Lossless, except JPEG, HEIC, AVIF, and WebP of what was lossy already. Colours keep their full resolution (4:4:4),
    except in lossy WebP, which has no such mode.

    Args:
        path: Where to; the suffix, one of ``SUFFIXES``, chooses the format.
        picture: What to write.
        overwrite: Whether a file that is there may be replaced.
        quality: Of a lossy format, 1 to 100; ``QUALITY`` if None. If given, WebP is lossy.
        reduce_depth: Whether samples may lose bits that the format cannot hold, as when the user chose the format.

    Returns:
        What the file does not keep of the picture, in words for the user.

    Raises:
        ImageError: The suffix is unknown, the format cannot hold the picture, the file exists, or writing fails.
        ValueError: The quality is none.
    """
    path = Path(path)
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100, got {quality}")
    frame = picture.frames[0]
    height, width, channels = frame.shape
    check_writable(
        path, height, width, channels, frame.dtype, len(picture.frames), bits=picture.bits, reduce_depth=reduce_depth
    )
    name = format_of(path)
    picture, notes = _fitted(picture, name)
    try:
        with new_image_file(path, overwrite=overwrite) as file:
            if name == "BMP":
                _write_bmp(file, picture)
            elif name == "HEIC":
                _write_heic(file, picture, quality or QUALITY)
            else:
                _write_with_vips(file, picture, name, quality)
    except ImageError:
        raise
    except Exception as error:
        got = reason(error) if isinstance(error, OSError) else library.explain(error)
        remedy = "check the folder and the space on its disk, or choose another format"
        raise ImageError(Problem(str(path), f"to write a {name} file", got, remedy)) from error
    return notes


# Which of a picture's metadata a format holds, where it is not all.
_HELD = {"BMP": ("dpi",), "GIF": (), "PNG": ("icc_profile", "exif", "xmp", "dpi")}
_WORDS = {"icc_profile": "colour profile", "exif": "EXIF", "xmp": "XMP", "iptc": "IPTC"}


def _fitted(picture: Picture, name: str) -> tuple[Picture, tuple[str, ...]]:
    """The picture with metadata for its upright self, less what the format does not hold, and what that is."""
    height, width, channels = picture.frames[0].shape
    notes = []
    had, bits = bits_of(picture.frames[0].dtype, picture.bits), _bits(picture, name)
    if had > bits:
        notes.append(f"{'float' if had == 32 else f'{had} bits a sample'} reduced to {bits} bits")
    if name == "GIF":
        notes.append("GIF has 256 colours a frame, and no half transparency")
    lost = {field for field in _WORDS if getattr(picture, field) and field not in _HELD.get(name, _WORDS)}
    if picture.exif and name == "JPEG" and len(picture.exif) > containers.JPEG_LONGEST_EXIF:
        lost.add("exif")
    if lost:
        notes.append(f"{name} does not hold {', '.join(_WORDS[field] for field in sorted(lost))}")
    if picture.icc_profile and channels >= 3 and picture.icc_profile[16:20] == b"GRAY":
        lost.add("icc_profile")
        notes.append("left out a colour profile for grey")
    if name != "PNG" and not picture.icc_profile and containers.is_colour_odd(picture.png_chunks):
        notes.append("gamma or colour space of the PNG not kept")
    without: dict[str, Any] = dict.fromkeys(lost)
    picture = dataclasses.replace(picture, **without)
    exif = containers.bare_exif(picture.exif or b"")
    exif = containers.upright_exif(exif, width, height) if exif else None
    xmp = containers.upright_xmp(picture.xmp) if picture.xmp else None
    return dataclasses.replace(picture, exif=exif, xmp=xmp), tuple(notes)


def _bits(picture: Picture, name: str) -> int:
    """How many bits a sample will have: the least of the format's choice that are enough, or the most."""
    wanted = bits_of(picture.frames[0].dtype, picture.bits)
    return min((depth for depth in FORMATS[name].depths if depth >= wanted), default=max(FORMATS[name].depths))


def _write_with_vips(file: BinaryIO, picture: Picture, name: str, quality: int | None) -> None:
    image = _image(picture, name)
    head: Callable[[bytes], bytes] = bytes
    keep = _XMP | _IPTC | _ICC
    options: dict[str, Any] = {}
    if name == "PNG":
        head, keep = partial(containers.png_head, picture=picture), 0
    elif name == "JPEG":
        head = partial(containers.jpeg_head, picture=picture)
        # Not optimize_coding, which saves a few per cent but keeps the whole picture in memory, three times its size.
        options = {"Q": quality or QUALITY, "subsample_mode": "off"}
    elif name == "WEBP":
        keep |= _EXIF if picture.exif else 0
        options = {"Q": quality or QUALITY, "smart_subsample": True}
        if picture.lossless and quality is None:
            options = {"lossless": True, "exact": True}
    elif name == "GIF":
        options = {"keep_duplicate_frames": True, "effort": 7}
    elif name == "TIFF":
        size = sum(frame.nbytes for frame in picture.frames)
        options = {"compression": picture.compression, "bigtiff": size > _LARGEST_TIFF, "resunit": "inch"}
        if picture.compression in ("lzw", "deflate"):
            options["predictor"] = "float" if picture.frames[0].dtype == np.float32 else "horizontal"
    else:
        keep |= _EXIF if picture.exif else 0
        bits = _bits(picture, name)
        options = {"compression": "av1", "Q": quality or QUALITY, "subsample_mode": "off", "bitdepth": bits}
    target = _Target(file, _HEADS.get(name, 0), head)
    save = getattr(image, f"{'heif' if name == 'AVIF' else name.lower()}save_target")
    try:
        save(target.target, keep=keep, **options)
    except Exception as error:
        raise (target.error or error) from error
    if target.error:
        raise target.error
    if name == "TIFF":
        tiff.rewrite(file, picture.exif, picture.dpi)
    elif name == "WEBP" and picture.exif:
        containers.replace_webp_exif(file, picture.exif)


def _image(picture: Picture, name: str) -> Any:
    """The picture as libvips sees it: the frames below each other, none of them copied."""
    pyvips = library.vips()
    frames = []
    for frame in picture.frames:
        whole = np.ascontiguousarray(frame)
        frames.append(pyvips.Image.new_from_memory(whole, *_sides(whole), _FORMATS[whole.dtype]))
    image = frames[0] if len(frames) == 1 else pyvips.Image.arrayjoin(frames, across=1)
    height, _, channels = picture.frames[0].shape
    image = _with_depth(image, picture, name)
    grey, colour = {"uchar": ("b-w", "srgb"), "ushort": ("grey16", "rgb16"), "float": ("b-w", "scrgb")}[image.format]
    if channels < 3 and picture.icc_profile and picture.icc_profile[16:20] == b"RGB ":
        image, channels = image[0].bandjoin([image[0], *image.bandsplit()]), channels + 2
    image = image.copy(interpretation=grey if channels < 3 else colour)
    kinds = pyvips.GValue
    blocks = {"icc-profile-data": picture.icc_profile, "xmp-data": picture.xmp, "iptc-data": picture.iptc}
    if name == "AVIF":
        blocks["exif-data"] = picture.exif
    for field, block in blocks.items():
        if block:
            image.set_type(kinds.blob_type, field, block)
    if len(frames) > 1:
        image.set_type(kinds.gint_type, "page-height", height)
        if picture.delays_ms:
            image.set_type(kinds.array_int_type, "delay", list(picture.delays_ms))
            image.set_type(kinds.gint_type, "loop", picture.loop)
    return image


def _sides(frame: NDArray[Any]) -> tuple[int, int, int]:
    return frame.shape[1], frame.shape[0], frame.shape[2]


def _with_depth(image: Any, picture: Picture, name: str) -> Any:
    """With as many bits a sample as will be written, rounded; 10 and 12 bits are the upper ones of 16."""
    dtype, bits = picture.frames[0].dtype, _bits(picture, name)
    peak = {8: 255, 16: 65535}.get(dtype.itemsize * 8, 1)
    if bits == 32 or peak == 2**bits - 1:
        return image
    unit = image.clamp(min=0, max=1) if peak == 1 else image
    # float64, as float32 would put some halves of 65535 on the wrong side
    scaled = (unit.cast("double") * ((2**bits - 1) / peak)).rint()
    return scaled.cast("uchar") if bits == 8 else (scaled * 2 ** (16 - bits)).cast("ushort")


class _Target:
    """Where libvips writes to: an open file, after something has been done to its first bytes."""

    def __init__(self, file: BinaryIO, head_length: int, edit: Callable[[bytes], bytes]) -> None:
        self.error: BaseException | None = None
        self._file, self._missing, self._edit = file, head_length, edit
        self._head = b""
        self.target = library.vips().TargetCustom()
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
        except BaseException as error:  # must not leave through C
            self.error = error
            return -1
        return len(data)

    def _seek(self, offset: int, whence: int) -> int:
        return self._file.seek(offset, whence)


def _write_bmp(file: BinaryIO, picture: Picture) -> None:
    """Some rows at a time: Pillow would copy them all first."""
    pixels = picture.frames[0]
    if pixels.dtype != np.uint8:
        image = _with_depth(_image(picture, "TIFF"), picture, "BMP")
        pixels = np.frombuffer(image.write_to_memory(), np.uint8).reshape(pixels.shape)
    file.write(containers.bmp_head(pixels.shape, picture.dpi))
    padding = -pixels[0].size % 4
    for end in range(len(pixels), 0, -_BMP_ROWS):  # from the bottom up, blue first
        rows = pixels[max(end - _BMP_ROWS, 0) : end][::-1, :, ::-1]
        file.write(np.pad(rows.reshape(len(rows), -1), ((0, 0), (0, padding))).tobytes())


def _write_heic(file: BinaryIO, picture: Picture, quality: int) -> None:
    heif: Any = library.heif()  # is there, says check_writable
    pixels = picture.frames[0]
    if pixels.dtype == np.float32:
        pixels = np.rint(pixels.clip(0, 1) * 65535).astype(np.uint16)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]] + (";16" if pixels.dtype == np.uint16 else "")
    image = heif.from_bytes(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels).tobytes())
    blocks = {"icc_profile": picture.icc_profile, "exif": picture.exif, "xmp": picture.xmp}
    image.save(file, quality=quality, chroma=444, **{key: block for key, block in blocks.items() if block})
