"""The options and the progress of the work on a video, and what follows from them."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from esrgan.inference import Upscaler
from esrgan.video.encoding import Encoding, choose_encoding
from esrgan.video.opening import to_ticks
from esrgan.video.source import Video

DECODED = 3  # frames that wait for the networks


@dataclass(frozen=True)
class VideoOptions:
    """How videos are read and written.

    Attributes:
        codec: Video codec of the output: h264, h265, vp8, vp9, av1, prores, ffv1 or png; None keeps that of the video
            if it is one of these, or chooses H.264.
        crf: Constant rate factor, in the units of the encoder; None chooses one at which losses are hard to see.
        pixel_format: FFmpeg's name of a pixel format; None keeps what the video has.
        start: Where the output begins, in seconds from the beginning of the video; None is its beginning.
        end: Where it ends; None is the end of the video.
        deinterlace: Make full frames of interlaced ones, which are refused otherwise.
        steady: Reduce flicker: where a frame differs from those before by at most this many 8-bit levels, keep the
            output from before. It restarts at each segment. None upscales all parts of all frames.
        overwrite: Replace an existing output.

    Raises:
        ValueError: If a value is not a number, not finite, or out of range, or the output would end before it starts.
    """

    codec: str | None = None
    crf: float | None = None
    pixel_format: str | None = None
    start: Fraction | None = None
    end: Fraction | None = None
    deinterlace: bool = False
    steady: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, largest in (("start", math.inf), ("end", math.inf), ("steady", 255)):
            value = getattr(self, name)
            is_number = isinstance(value, numbers.Real) and math.isfinite(value)
            if value is not None and not (is_number and 0 <= value <= largest):
                expected = "a number from 0" + (f" to {largest}" if largest < math.inf else "")
                raise ValueError(f"{name}: expected {expected}, got {value!r}")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"end: expected a time after start {float(self.start)}, got {float(self.end)}")


@dataclass(frozen=True)
class VideoProgress:
    """How far the work on a video is.

    Attributes:
        frames: Frames that are done, those of an earlier attempt included.
        computed: Frames that were upscaled by this process.
        repeated: Frames of this process that are equal to the one before and were not upscaled again.
        total: All frames, as far as the video says; None if it does not.
    """

    frames: int
    computed: int
    repeated: int
    total: int | None


def count_frames(video: Video, options: VideoOptions) -> int | None:
    """Return the number of frames of the output, as far as the video says."""
    total, rate = video.properties.num_frames, video.properties.rate
    if total is None or (options.start is None and options.end is None):
        return total
    last = total / rate if options.end is None else min(options.end, total / rate)
    return max(round((last - (options.start or 0)) * rate), 0)


def find_limits(options: VideoOptions, video: Video) -> tuple[int | None, int | None]:
    """Return where the output begins and ends, in units of the video's time base."""
    begin, base = video.properties.begin, video.properties.time_base
    start, end = (None if time is None else to_ticks(time, begin, base) for time in (options.start, options.end))
    return start, end


def encode_for(upscaler: Upscaler, video: Video, target: Path | None, options: VideoOptions) -> Encoding:
    """Choose how the output of an upscaler is encoded."""
    return choose_encoding(
        video.properties,
        upscaler.output_size(video.properties.height, video.properties.width),
        target,
        has_colour=True if upscaler.is_colouriser else None,
        codec=options.codec,
        crf=options.crf,
        pixel_format=options.pixel_format,
    )
