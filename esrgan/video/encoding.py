"""Choose how a video is encoded, and open encoders."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec import Codec

from esrgan.errors import Problem, VideoError
from esrgan.text import describe_error, did_you_mean, one_line
from esrgan.video import colour
from esrgan.video.colour import Coding
from esrgan.video.source import VideoProperties

# The containers that are written, by FFmpeg's names.
CONTAINERS = {
    ".mkv": "matroska",
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".webm": "webm",
}
# Formats of YUV4MPEG2 (.y4m).
Y4M_FORMATS = ["gray", "yuv411p"]
Y4M_FORMATS += [f"yuv{sampling}p{depth}" for sampling in (420, 422, 444) for depth in ("", "10le", "12le", "16le")]
# FFmpeg's encoders for the codecs that are written.
CODECS = {
    "h264": "libx264",
    "h265": "libx265",
    "hevc": "libx265",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "prores": "prores_ks",
    "ffv1": "ffv1",
    "png": "png",
}
LOSSLESS = ("ffv1", "png")
PIPED = "wrapped_avframe"  # what YUV4MPEG2 (.y4m) consists of
_DEFAULT, _DEFAULT_FOR_WEBM = "libx264", "libvpx-vp9"
_WITH_ALPHA = ("libvpx", "libvpx-vp9", "prores_ks", "ffv1", "png")
VPX = ("libvpx", "libvpx-vp9")  # alpha is a second stream within each packet, which MP4 and MOV cannot hold
_DEFAULT_FOR_ALPHA = {"mov": "prores_ks", "matroska": "libvpx-vp9", "webm": "libvpx-vp9"}
# Encoders use a fixed number of threads, because the output of some depends on it. VP8 gets one: with 4, small frames
# took 40 times as long, because libvpx's threads wait for each other by spinning.
_THREADS = 4
os.environ.setdefault("SVT_LOG", "1")  # errors only; SVT-AV1 prints much else
_LARGEST_CRF = {"libx264": 51.0, "libx265": 51.0}  # 63 for the others
_CRF = {"libx264": 17.0, "libx265": 18.0, "libvpx": 10.0, "libvpx-vp9": 20.0, "libsvtav1": 22.0}
# Equal frames have to give equal packets, so that a video that was continued ends the same: x264's mbtree=1 does not.
_OPTIONS: dict[str, dict[str, str]] = {
    "libx264": {"x264-params": "mbtree=0"},
    "libx265": {"x265-params": "log-level=error:frame-threads=2"},
    "libvpx": {"deadline": "good", "cpu-used": "2", "b": "0", "auto-alt-ref": "0"},
    "libvpx-vp9": {"deadline": "good", "cpu-used": "2", "row-mt": "1", "b": "0"},
    "ffv1": {"level": "3", "slicecrc": "1", "slices": "4"},
}
_NOT_CHOSEN = ("yuvj", "pal8")  # an outdated way to state full range, and palettes, which are only read
_SMALLEST_H265 = 64  # px; libx265 damages memory if neither side is longer
_PARAMETERS = {"libx264": "x264-params", "libx265": "x265-params", "libsvtav1": "svtav1-params"}


@dataclass(frozen=True)
class Encoding:
    """Everything that decides what an encoder writes, apart from the frames.

    Attributes:
        codec: FFmpeg's name of the encoder.
        pixel_format: The pixel format.
        height: Height of the frames in pixels.
        width: Width in pixels.
        coding: How colours are coded.
        primaries: Colour primaries, a number of H.273.
        transfer: Transfer characteristics, a number of H.273.
        time_base: Unit of time stamps in seconds.
        rate: Frames per second, which some encoders use to choose their bit rate.
        pixel_aspect: Width of a pixel relative to its height; None if unknown.
        options: Options of the encoder.
        notes: Sentences about what is not kept.
    """

    codec: str
    pixel_format: str
    height: int
    width: int
    coding: Coding
    primaries: int
    transfer: int
    time_base: Fraction
    rate: Fraction
    pixel_aspect: Fraction | None
    options: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def configure(self, encoder: Any) -> None:
        """Apply these settings to the context of an encoder that is not open yet."""
        encoder.width, encoder.height, encoder.pix_fmt = self.width, self.height, self.pixel_format
        encoder.time_base, encoder.framerate = self.time_base, self.rate
        encoder.color_primaries, encoder.color_trc = self.primaries, self.transfer
        encoder.colorspace = self.coding.matrix
        encoder.color_range = 2 if self.coding.is_full_range else 1
        if self.pixel_aspect is not None:
            encoder.sample_aspect_ratio = self.pixel_aspect
        encoder.thread_count = 1 if self.codec == "libvpx" else _THREADS
        encoder.options = dict(self.options)

    def find_refusal(self) -> Problem | None:
        """Return why the encoder does not accept these settings; None if it does."""
        encoder: Any = av.CodecContext.create(self.codec, "w")
        self.configure(encoder)
        try:
            encoder.open()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = one_line(describe_error(error))
            size = f"{self.width}×{self.height} {self.pixel_format} at {float(self.rate):g} frames/s"
            got = f"cannot encode {size} ({reason})"
            return Problem.failure(self.codec, got, "choose another --codec or --pixel-format")
        return None


def choose_encoding(
    properties: VideoProperties,
    size: tuple[int, int],
    target: Path | None,
    *,
    has_colour: bool | None = None,
    codec: str | None = None,
    crf: float | None = None,
    pixel_format: str | None = None,
) -> Encoding:
    """Choose an encoding that keeps what the video has: its codec, bit depth, alpha, chroma resolution and colours.

    Args:
        properties: The properties of the video.
        size: Height and width of the upscaled frames.
        target: The output, whose suffix selects the container; None is a pipe with YUV4MPEG2.
        has_colour: Whether upscaled frames have colour; None if they have it where the video has it.
        codec: A codec; None chooses that of the video, or H.264.
        crf: Quality as the encoder understands it; None chooses one at which losses are hard to see.
        pixel_format: FFmpeg's name of a pixel format; None chooses one.

    Raises:
        VideoError: If the codec or the pixel format is unknown, does not fit the container, or is refused by the
            encoder.
    """
    if target is None:
        name, formats = PIPED, Y4M_FORMATS
    else:
        container = CONTAINERS[target.suffix.lower()]
        name = _choose_codec(properties, container, codec, size)
        formats = [each.name for each in Codec(name, "w").video_formats or ()]
        formats = [each for each in formats if not colour.has_alpha(each) or _keeps_alpha(name, container)]
    usable = [each for each in formats if colour.is_supported(each) and not each.startswith(_NOT_CHOSEN)]
    if pixel_format is not None and pixel_format not in usable:
        remedy = did_you_mean(pixel_format, usable, f"choose one of {', '.join(usable)}")
        raise VideoError(Problem("--pixel-format", f"a format that {name} encodes", pixel_format, remedy))
    if crf is not None and name not in _CRF:
        choices = ", ".join(each for each, encoder in CODECS.items() if encoder in _CRF and each != "hevc")
        raise VideoError(Problem.failure("--crf", f"{name} has no such option", f"leave it out, or choose {choices}"))
    most = _LARGEST_CRF.get(name, 63.0)
    if crf is not None and not 0 <= crf <= most:
        raise VideoError(
            Problem("--crf", f"a number from 0 to {most:g} for {name}", f"{crf:g}", "lower is better quality")
        )
    wanted = _Traits.of(properties.pixel_format)
    if has_colour is not None:
        wanted = replace(wanted, is_grey=not has_colour, sampling=wanted.sampling if not wanted.is_grey else (0, 0))
    if name in LOSSLESS:  # every frame then equals that of the network
        wanted = replace(wanted, depth=8 if wanted.depth <= 8 else 16, is_rgb=not wanted.is_grey, sampling=(0, 0))
    usable.sort(key=lambda each: wanted.loss(_Traits.of(each)))
    problem: Problem | None = None
    for chosen in usable if pixel_format is None else [pixel_format]:
        encoding = _make_encoding(properties, size, name, chosen, crf)
        refusal = encoding.find_refusal()  # encoders may list formats that they refuse, as libx265 does with alpha
        if refusal is None:
            return replace(encoding, notes=(*wanted.describe_loss(_Traits.of(chosen)), *encoding.notes))
        problem = problem or refusal  # of the format that fits best
    what = "encodes no pixel format that is known here"
    problem = problem or Problem.failure(name, what, "choose another --codec")
    # Values of --crf and --pixel-format are meant for one codec.
    other = _default_for(CONTAINERS[target.suffix.lower()]) if target is not None else name
    if codec is not None or other == name:
        raise VideoError(problem)
    if (crf, pixel_format) != (None, None):
        remedy = "leave out --crf and --pixel-format to use another codec, or choose another --codec"
        raise VideoError(replace(problem, remedy=remedy))
    encoding = choose_encoding(properties, size, target, has_colour=has_colour, codec=other)
    return replace(encoding, notes=(f"{name} {problem.got}, so {other} is used", *encoding.notes))


def _default_for(container: str) -> str:
    return _DEFAULT_FOR_WEBM if container == "webm" else _DEFAULT


def _make_encoding(
    properties: VideoProperties, size: tuple[int, int], codec: str, pixel_format: str, crf: float | None
) -> Encoding:
    traits, (height, width), notes = _Traits.of(pixel_format), size, []
    across, along = traits.sampling
    if (width % (1 << across), height % (1 << along)) != (0, 0):
        width, height = width >> across << across, height >> along << along
        size_text = f"{width}×{height}"
        notes.append(f"the last line or column is cut off, because {pixel_format} needs even sizes: {size_text}")
    options = dict(_OPTIONS.get(codec, {}))
    if codec in _CRF:
        options["crf"] = f"{_CRF[codec] if crf is None else crf:g}"
    parameters, lost = _hdr_parameters(codec, properties.side_data)
    if parameters:
        option = _PARAMETERS[codec]
        options[option] = ":".join(filter(None, [options.get(option, ""), parameters]))
    coding = properties.coding
    if traits.is_rgb:
        coding = Coding(0, True)
    elif coding.matrix == 0:  # the video is RGB; HD videos are BT.709
        coding = Coding(1, False)
    if codec in LOSSLESS and traits.is_grey:
        coding = replace(coding, is_full_range=True)
    elif codec == "libvpx":  # VP8 has no other coding
        coding = Coding(5, False)
    elif codec == "prores_ks":  # cannot state the range
        coding = replace(coding, is_full_range=False)
    elif codec == PIPED:  # cannot state the matrix
        coding = replace(coding, matrix=colour.assumed_matrix(height, width))
    return Encoding(
        codec=codec,
        pixel_format=pixel_format,
        height=height,
        width=width,
        coding=coding,
        primaries=properties.primaries,
        transfer=properties.transfer,
        time_base=properties.time_base,
        rate=properties.rate,
        pixel_aspect=properties.pixel_aspect,
        options=options,
        notes=(*notes, *lost),
    )


def _choose_codec(properties: VideoProperties, container: str, codec: str | None, size: tuple[int, int]) -> str:
    is_tiny = max(size) <= _SMALLEST_H265
    if codec is None:
        own = CODECS.get(properties.codec, "")
        if colour.has_alpha(properties.pixel_format) and not (_keeps_alpha(own, container) and fits(own, container)):
            own = _DEFAULT_FOR_ALPHA.get(container, own)
        candidates = [
            "" if is_tiny and own == "libx265" else own,
            _default_for(container),
        ]
        return next(each for each in candidates if each and fits(each, container))
    name = CODECS.get(codec, codec)
    if name not in CODECS.values():
        choices = ", ".join(each for each in CODECS if each != "hevc")
        remedy = did_you_mean(codec, CODECS, f"choose one of {choices}")
        raise VideoError(Problem("--codec", "a codec that is written", codec, remedy))
    if name == "libx265" and is_tiny:
        got = f"libx265 cannot encode frames of at most {_SMALLEST_H265}×{_SMALLEST_H265} px"
        raise VideoError(Problem.failure("--codec", got, "choose h264"))
    if not fits(name, container):
        long_name = av.format.ContainerFormat(container, "w").long_name
        got = f"{long_name} cannot hold {codec}"
        suffix = next(each for each, other in CONTAINERS.items() if fits(name, other))
        raise VideoError(Problem.failure("--codec", got, f"choose another codec, or -o FILE{suffix}"))
    return name


def _keeps_alpha(codec: str, container: str) -> bool:
    """Return whether frames keep their alpha if they are encoded by a codec in a container that can hold it."""
    return codec in _WITH_ALPHA and (codec not in VPX or container in ("matroska", "webm"))


def fits(codec: str, container: str) -> bool:
    """Return whether a container can hold what an encoder writes."""
    with av.open(io.BytesIO(), "w", format=container) as probe:
        try:
            probe.add_mux_stream(codec, rate=25, width=64, height=64)
            if container == "mov":  # refuses VP8, VP9 and AV1 only here, where others would need the encoder's headers
                probe.start_encoding()
        except (ValueError, av.error.FFmpegError):
            return False
        return True


@dataclass(frozen=True)
class _Traits:
    """What a pixel format can hold.

    Attributes:
        depth: Bits per sample.
        has_alpha: Whether it has alpha.
        is_grey: Whether it has no colour.
        is_rgb: Whether colours are RGB.
        sampling: Binary logarithms of the factors by which chroma is smaller across and along the columns.
    """

    depth: int
    has_alpha: bool
    is_grey: bool
    is_rgb: bool
    sampling: tuple[int, int]

    @classmethod
    def of(cls, name: str) -> _Traits:
        """Return the traits of a format."""
        form = av.VideoFormat(name)
        is_grey = colour.is_grey(name)
        is_rgb = bool(form.is_rgb or form.has_palette)
        across, along = (0, 0) if is_grey or is_rgb else (64 // form.chroma_width(64), 64 // form.chroma_height(64))
        sampling = max(across.bit_length() - 1, 0), max(along.bit_length() - 1, 0)
        return cls(colour.depth(name), colour.has_alpha(name), is_grey, is_rgb, sampling)

    def loss(self, other: _Traits) -> tuple[float, ...]:
        """Return a key by which formats are sorted: what is lost first, then what is added."""
        return (
            self.has_alpha and not other.has_alpha,
            other.is_grey and not self.is_grey,
            max(self.depth - other.depth, 0),
            sum(max(theirs - own, 0) for own, theirs in zip(self.sampling, other.sampling, strict=True)),
            self.is_rgb != other.is_rgb,
            max(other.depth - self.depth, 0),
            other.is_grey != self.is_grey,
            sum(max(own - theirs, 0) for own, theirs in zip(self.sampling, other.sampling, strict=True)),
            other.has_alpha and not self.has_alpha,
        )

    def describe_loss(self, other: _Traits) -> Iterator[str]:
        """Yield sentences about what another format cannot hold."""
        if self.has_alpha and not other.has_alpha:
            yield "transparency not kept; --codec vp9 (in .mkv and .webm), prores (in .mkv and .mov) or ffv1 keeps it"
        if self.depth > other.depth:
            yield f"{self.depth} bits per sample reduced to {other.depth}; --codec ffv1 keeps them"
        if any(theirs > own for own, theirs in zip(self.sampling, other.sampling, strict=True)) and not other.is_grey:
            yield "resolution of colours reduced"
        if other.is_grey and not self.is_grey:
            yield "colours not kept"


def _hdr_parameters(codec: str, side_data: Mapping[str, bytes]) -> tuple[str, list[str]]:
    """Return parameters with the HDR data of a video for an encoder, and sentences about what is not kept."""
    parts, lost = [], []
    names = {
        "libx264": ("mastering-display", "cll"),
        "libx265": ("master-display", "max-cll"),
        "libsvtav1": ("mastering-display", "content-light"),
    }.get(codec)
    for kind, data in side_data.items():
        if names is not None and kind == "MASTERING_DISPLAY_METADATA":
            parts.append(f"{names[0]}={_mastering_display(data, codec)}")
        elif names is not None and kind == "CONTENT_LIGHT_LEVEL":
            brightest, mean = struct.unpack_from("=II", data)
            parts.append(f"{names[1]}={brightest},{mean}")
        elif kind in _LOST_NAMES:
            lost.append(f"{_LOST_NAMES[kind]} not kept")
    return ":".join(parts), lost


_LOST_NAMES = {
    "MASTERING_DISPLAY_METADATA": "the description of the mastering display",
    "CONTENT_LIGHT_LEVEL": "the content light level",
    "DYNAMIC_HDR_PLUS": "HDR10+ data",
    "DOVI_METADATA": "Dolby Vision data",
    "A53_CC": "closed captions within the pictures (CEA-608 and CEA-708)",
    "SPHERICAL": "the projection of 360° pictures",
}


def _mastering_display(data: bytes, codec: str) -> str:
    """Return the mastering display (SMPTE ST 2086), given as FFmpeg's structure of fractions, as encoders read it."""
    numbers = struct.unpack_from("=20i", data)
    values = [Fraction(*numbers[i : i + 2]) if numbers[i + 1] else Fraction(0) for i in range(0, 20, 2)]
    red, green, blue, white, light = (values[i : i + 2] for i in range(0, 10, 2))
    darkest, brightest = light
    pairs = {"G": green, "B": blue, "R": red, "WP": white, "L": [brightest, darkest]}
    if codec == "libsvtav1":
        return "".join(f"{name}({float(a):g},{float(b):g})" for name, (a, b) in pairs.items())
    units = {name: 10_000 if name == "L" else 50_000 for name in pairs}  # of H.265, D.3.28
    return "".join(f"{name}({round(a * units[name])},{round(b * units[name])})" for name, (a, b) in pairs.items())
