"""Convert decoded frames of videos to RGB and back, in float32 by the definitions of ITU-T H.273.

FFmpeg's swscale is not used for this: it was up to four levels off in luma of 10 bits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from av import VideoFormat
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch import Tensor

from esrgan.errors import Problem, VideoError
from esrgan.images.samples import row_blocks

Pixels = NDArray[Any]
UNSPECIFIED = 2
# Weights of red and blue in luma, by the number of the matrix coefficients (H.273, table 4).
_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
}
# Names of chroma sampling by the lines and columns of chroma for 64 of luma.
_SAMPLINGS = {(64, 64): 444, (64, 32): 422, (32, 32): 420, (32, 64): 440, (64, 16): 411, (16, 16): 410}
# Floats, Bayer patterns and CIE XYZ, and formats that FFmpeg does not convert, or not without loss.
_UNSUPPORTED = re.compile("f(16|32)|bayer|xyz|msb|^bgra64|^(v30x|x2|xv30|y2).*be$")
_BAND = 256  # lines that are converted at once


@dataclass(frozen=True)
class Coding:
    """How colours are coded.

    Attributes:
        matrix: The matrix coefficients, a number of H.273; 0 is RGB.
        is_full_range: Whether levels use all codes, instead of those from 16 to 235 (of 8 bits).
    """

    matrix: int
    is_full_range: bool


def coding_of(frame: VideoFrame, default: Coding | None = None) -> Coding:
    """Return how the colours of a frame are coded.

    Args:
        frame: The frame.
        default: What applies where the frame does not specify it; None is what players assume.

    Raises:
        VideoError: If the matrix is not one that is converted here.
    """
    form = frame.format
    is_rgb = bool(form.is_rgb or form.has_palette)
    matrix = int(frame.colorspace)
    if is_rgb:
        matrix = 0
    elif matrix in (UNSPECIFIED, 0, 3):
        matrix = assumed_matrix(frame.height, frame.width) if default is None else default.matrix
    elif matrix not in _WEIGHTS:
        remedy = "convert the video to another matrix first"
        raise VideoError(Problem("matrix coefficients", f"one of {[*_WEIGHTS]} of H.273", str(matrix), remedy))
    color_range = int(frame.color_range)
    is_usually_full = is_rgb or is_grey(form.name) or form.name.startswith("yuvj")
    is_full = is_usually_full if default is None else default.is_full_range
    return Coding(matrix, color_range == 2 or (color_range == 0 and is_full))


def assumed_matrix(height: int, width: int) -> int:
    """Return the matrix coefficients that players assume for a video that does not state them."""
    if width >= 1280 or height > 576:
        return 1
    return 5 if height in (576, 288) else 6


def curve(transfer: int) -> int:
    """Return a number that transfer characteristics with the same function have in common."""
    return 1 if transfer in (UNSPECIFIED, 6, 14, 15) else transfer


def is_supported(pixel_format: str) -> bool:
    """Return whether a format is converted here, which floats, Bayer patterns and frames on a GPU are not."""
    try:
        return _canonical(pixel_format) is not None
    except ValueError:
        return False


def depth(pixel_format: str) -> int:
    """Return the bits per sample of a format."""
    form = VideoFormat(pixel_format)
    return 8 if form.has_palette else max(component.bits for component in form.components)


def has_alpha(pixel_format: str) -> bool:
    """Return whether a format has alpha."""
    form = VideoFormat(pixel_format)
    return bool(form.has_palette) or any(component.is_alpha for component in form.components)


def is_grey(pixel_format: str) -> bool:
    """Return whether a format has no colours."""
    form = VideoFormat(pixel_format)
    return len(form.components) < 3 and not form.has_palette


@cache
def _canonical(name: str) -> str | None:
    """Return the format in which samples are read and written; FFmpeg converts between both without loss.

    It has a plane for each component, except for RGB of 8 and 16 bits, and gray with alpha.
    """
    form = VideoFormat(name)
    if form.has_palette:
        return "rgba"
    if name.startswith("yuvj"):  # FFmpeg would change the range
        return name
    if name in ("monow", "monob"):
        return "gray"
    if re.fullmatch("(rgb|bgr)5[56]5le", name):  # FFmpeg converts others of so few bits wrongly
        return "rgb24"
    bits = max((component.bits for component in form.components), default=0)
    if not 8 <= bits <= 16 or _UNSUPPORTED.search(name):
        return None
    order, alpha = "" if bits == 8 else f"{bits}le", any(component.is_alpha for component in form.components)
    if len(form.components) < 3:
        found = f"gray{order}" if not alpha else "ya8" if bits == 8 else f"ya{order}"
    elif not form.is_rgb:
        chroma = _SAMPLINGS.get((form.chroma_height(64), form.chroma_width(64)))
        found = f"yuv{'a' if alpha else ''}{chroma}p{order}"
    elif form.is_planar or bits not in (8, 16):
        found = f"gbr{'a' if alpha else ''}p{order}"
    else:
        found = f"rgb{'a' if alpha else ''}{bits * (3 + alpha)}le" if bits == 16 else "rgba" if alpha else "rgb24"
    VideoFormat(found)  # raises ValueError if there is none
    return found


def _canonical_or_raise(name: str) -> str:
    found = _canonical(name) if is_supported(name) else None
    if found is None:
        remedy = "convert the video to another pixel format first"
        raise VideoError(Problem("pixel format", "one that can be converted to RGB", name, remedy))
    return found


def to_pixels(frame: VideoFrame, coding: Coding) -> Pixels:
    """Convert a frame to RGB or grey.

    Args:
        frame: A decoded frame of a supported format.
        coding: How its colours are coded.

    Returns:
        (H, W, C) with 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 channels, uint8 for formats of 8 bits, otherwise
        uint16 in [0, 65535].

    Raises:
        VideoError: If the format is not supported.
    """
    name = _canonical_or_raise(frame.format.name)
    if frame.format.name != name:
        frame = _reformat(frame, name)
    planes = _planes(frame)
    bits = depth(name)
    peak, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    if frame.format.is_rgb or is_grey(name):
        tables = [_decoding_table(bits, peak, is_full) for is_full in (coding.is_full_range, True)]
        return _look_up(_interleave(frame, planes), has_alpha(name), *tables)
    height, width = planes[0].shape
    result = np.empty((height, width, len(planes)), dtype)
    tensors = [torch.from_numpy(plane.astype(np.float32)) for plane in planes]
    chroma = [_upsample_chroma(each, _factors(name), (height, width)) for each in tensors[1:3]]
    matrix, offset = _matrix_to_rgb(coding, bits)
    for begin in range(0, height, _BAND):
        band = slice(begin, begin + _BAND)
        ycc = torch.stack([tensors[0][band], *(each[band] for each in chroma)], dim=2)
        rgb = (ycc - offset) @ matrix.T
        result[band, :, :3] = rgb.clamp_(0, 1).mul_(peak).round_().to(torch.int32).numpy()
    if len(planes) == 4:
        result[..., 3] = _decoding_table(bits, peak, True).take(planes[3], mode="clip")
    return result


def to_frame(pixels: Pixels, pixel_format: str, coding: Coding) -> VideoFrame:
    """Convert RGB or grey pixels to a frame.

    Args:
        pixels: (H, W, C), uint8 or uint16, with the channels of the format: grey or RGB, and alpha if it has alpha.
        pixel_format: FFmpeg's name of a supported format.
        coding: How its colours are to be coded.

    Returns:
        The frame, which states the matrix and the range.

    Raises:
        VideoError: If the format is not supported, or can only be read.
    """
    name = _canonical_or_raise(pixel_format)
    frame = VideoFrame(pixels.shape[1], pixels.shape[0], name)
    bits, peak = depth(name), np.iinfo(pixels.dtype).max
    if frame.format.is_rgb or is_grey(name):
        tables = [_encoding_table(peak, bits, is_full) for is_full in (coding.is_full_range, True)]
        _fill(frame, _separate(frame, _look_up(pixels, has_alpha(name), *tables)))
    else:
        alpha = [_encoding_table(peak, bits, True)[pixels[..., 3]]] if has_alpha(name) else []
        _fill(frame, [*_ycc_planes(pixels, name, coding), *alpha])
    if pixel_format != name:
        frame = _repack(frame, pixel_format)
    frame.colorspace, frame.color_range = coding.matrix, 2 if coding.is_full_range else 1
    return frame


def to_luma(pixels: Pixels, matrix: int) -> Pixels:
    """Return the luma (H, W, 1) of RGB pixels by the matrix coefficients of a number of H.273."""
    red, blue = _WEIGHTS[matrix]
    luma = pixels.astype(np.float32) @ np.array([[red], [1 - red - blue], [blue]], np.float32)
    result: Pixels = np.rint(luma).astype(pixels.dtype)
    return result


def _reformat(frame: VideoFrame, pixel_format: str) -> VideoFrame:
    """Convert a frame by FFmpeg's swscale, in one thread: with more, lines of about one frame in 10,000 are wrong.

    That was seen with y210le to yuv422p10le, on a busy machine (libswscale 9.5, PyAV 18.1).
    """
    return frame.reformat(format=pixel_format, threads=1)


def _repack(frame: VideoFrame, pixel_format: str) -> VideoFrame:
    """Return a frame of a canonical format with the same samples in another format.

    Raises:
        VideoError: If FFmpeg cannot write the format.
    """
    try:
        result = _reformat(frame, pixel_format)
    except OSError as error:
        raise VideoError(Problem.failure(pixel_format, "cannot be written", "choose another pixel format")) from error
    if pixel_format in ("p010le", "p016le"):  # FFmpeg leaves out the last line and column of chroma of odd sizes
        (_, chroma), (_, *both) = _planes(result, 2), _planes(frame)
        for i, plane in enumerate(both):
            chroma[:, i::2] = plane << (16 - depth(pixel_format))
    return result


def _ycc_planes(pixels: Pixels, name: str, coding: Coding) -> Iterator[Pixels]:
    """Yield luma and both chroma planes as integers."""
    bits, peak = depth(name), np.iinfo(pixels.dtype).max
    matrix, offset = _matrix_to_rgb(coding, bits)
    inverse = torch.linalg.inv(matrix.double()).float()
    height, width = pixels.shape[:2]
    ycc = torch.empty(3, height, width)
    for begin in range(0, height, _BAND):
        band = slice(begin, begin + _BAND)
        rgb = torch.from_numpy(pixels[band, :, :3].astype(np.float32)) / peak
        ycc[:, band] = (rgb @ inverse.T + offset).permute(2, 0, 1)
    dtype = np.uint8 if bits == 8 else np.uint16
    yield ycc[0].round_().numpy().astype(dtype)
    for each in ycc[1:]:
        yield _downsample_chroma(each, _factors(name)).round_().clamp_(0, (1 << bits) - 1).numpy().astype(dtype)


@cache
def _matrix_to_rgb(coding: Coding, bits: int) -> tuple[Tensor, Tensor]:
    """Return the matrix (3, 3) from codes of luma, Cb and Cr to RGB in [0, 1], and what is subtracted before it."""
    red, blue = _WEIGHTS[coding.matrix]
    green = 1 - red - blue
    scale = 1 << (bits - 8)
    top = (1 << bits) - 1
    luma, chroma = (top, top) if coding.is_full_range else (219 * scale, 224 * scale)
    to_rgb = torch.tensor(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green],
            [1, 2 * (1 - blue), 0],
        ],
        dtype=torch.float64,
    )
    matrix = to_rgb / torch.tensor([luma, chroma, chroma], dtype=torch.float64)
    offset = torch.tensor([0 if coding.is_full_range else 16 * scale, 128 * scale, 128 * scale], dtype=torch.float32)
    return matrix.float(), offset


def _factors(name: str) -> tuple[int, int]:
    """Return how many times chroma planes of a format are smaller along and across the columns."""
    form = VideoFormat(name)
    return 64 // form.chroma_height(64), 64 // form.chroma_width(64)


def _upsample_chroma(chroma: Tensor, factors: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Interpolate chroma linearly: columns coincide with the left ones of luma, lines lie between its lines."""
    down, across = factors
    plane = chroma[None, None]
    if across > 1:
        wide = torch.cat([plane, plane[..., -1:]], 3)
        steps = [torch.lerp(wide[..., :-1], wide[..., 1:], i / across) for i in range(across)]
        plane = torch.stack(steps, dim=4).flatten(3)
    if down > 1:
        plane = F.interpolate(plane, scale_factor=(down, 1), mode="bilinear", align_corners=False)
    return plane[0, 0, : size[0], : size[1]]


def _downsample_chroma(chroma: Tensor, factors: tuple[int, int]) -> Tensor:
    """Reduce chroma by the filters that belong to those above: means of lines, and a triangle across columns."""
    down, across = factors
    plane = chroma[None, None]
    plane = F.pad(plane, (0, -plane.shape[3] % across, 0, -plane.shape[2] % down), mode="replicate")
    if down > 1:
        plane = F.avg_pool2d(plane, (down, 1))
    if across > 1:
        ramp = torch.arange(1, across + 1, dtype=torch.float32)
        kernel = torch.cat([ramp, ramp[:-1].flip(0)]) / across**2
        plane = F.pad(plane, (across - 1, 0, 0, 0), mode="replicate")
        plane = F.pad(plane, (0, across - 1, 0, 0), mode="replicate")
        plane = F.conv2d(plane, kernel[None, None, None], stride=(1, across))[..., : -(-chroma.shape[1] // across)]
    return plane[0, 0]


def _nominal_range(bits: int, is_full_range: bool) -> tuple[int, int]:
    """Return the codes of black and white."""
    return (0, (1 << bits) - 1) if is_full_range else (16 << (bits - 8), 235 << (bits - 8))


@cache
def _decoding_table(bits: int, peak: int, is_full_range: bool) -> Pixels:
    """Return the level in [0, peak] of each code of grey, RGB or alpha."""
    black, white = _nominal_range(bits, is_full_range)
    levels = (np.arange(1 << bits) - black) * peak / (white - black)
    return np.rint(levels).clip(0, peak).astype(np.uint8 if peak == 255 else np.uint16)


@cache
def _encoding_table(peak: int, bits: int, is_full_range: bool) -> Pixels:
    """Return the code of each level in [0, peak] of grey, RGB or alpha."""
    black, white = _nominal_range(bits, is_full_range)
    codes = np.arange(peak + 1) * (white - black) / peak + black
    return np.rint(codes).astype(np.uint8 if bits == 8 else np.uint16)


def _look_up(samples: Pixels, has_alpha: bool, of_colours: Pixels, of_alpha: Pixels) -> Pixels:
    """Replace samples (H, W, C) by the values in a table, that of alpha for the last channel if it is alpha."""
    result = np.empty(samples.shape, of_colours.dtype)
    colours = samples.shape[2] - has_alpha
    for target, block in zip(row_blocks(result), row_blocks(samples), strict=True):
        target[..., :colours] = of_colours.take(block[..., :colours], mode="clip")
        target[..., colours:] = of_alpha.take(block[..., colours:], mode="clip")
    return result


def _planes(frame: VideoFrame, chroma_components: int = 1) -> list[Pixels]:
    """Return the planes (H, W) or, if components are interleaved, (H, W·C), without copying.

    Args:
        frame: A frame whose components are either in planes of their own or all in one plane.
        chroma_components: 2 for formats in which both components of chroma share the second plane.
    """
    dtype = np.dtype(np.uint8 if depth(frame.format.name) == 8 else np.uint16)
    components = 1 if frame.format.is_planar else len(frame.format.components)
    planes = []
    for index, plane in enumerate(frame.planes):
        lines: Pixels = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
        planes.append(lines[:, : plane.width * (chroma_components if index else components)])
    return planes


_ORDER = {3: [2, 0, 1], 4: [2, 0, 1, 3]}  # planes of GBR as RGB


def _interleave(frame: VideoFrame, planes: list[Pixels]) -> Pixels:
    """Return the samples of a grey or RGB frame as (H, W, C)."""
    if len(planes) == 1:
        samples: Pixels = planes[0].reshape(frame.height, frame.width, -1)
        return samples
    return np.stack([planes[i] for i in _ORDER[len(planes)]], axis=2)


def _separate(frame: VideoFrame, samples: Pixels) -> list[Pixels]:
    """Return (H, W, C) as the planes of a grey or RGB frame."""
    if len(frame.planes) == 1:
        return [samples.reshape(frame.height, -1)]
    order = _ORDER[len(frame.planes)]
    return [samples[..., order.index(i)] for i in range(len(order))]


def _fill(frame: VideoFrame, planes: list[Pixels]) -> None:
    """Write planes into a new frame."""
    for target, plane in zip(_planes(frame), planes, strict=True):
        target[:] = plane
