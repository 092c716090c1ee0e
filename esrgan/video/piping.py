"""Upscale videos into pipes, for other programs to read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any, BinaryIO

import av
from av.video.frame import VideoFrame

from esrgan.console import log
from esrgan.inference import Upscaler
from esrgan.video.decoding import TimedFrame
from esrgan.video.missing import note_missing_parts
from esrgan.video.options import DECODED, VideoOptions, VideoProgress, count_frames, encode_for, find_limits
from esrgan.video.pipeline import FrameEncoder, FrameUpscaler, make_ahead
from esrgan.video.segments import OutputPipe
from esrgan.video.source import Video


def pipe_video(
    upscaler: Upscaler, video: Video, out: BinaryIO, options: VideoOptions = VideoOptions()
) -> Iterator[VideoProgress]:
    """Upscale a video to YUV4MPEG2 (.y4m), frame by frame, for other programs to read.

    Args:
        upscaler: The upscaler.
        video: The video; its ``errors`` say afterwards what could not be read.
        out: Where the output is written.
        options: How to read; those of encoders are not used. What the output does not keep is logged to the logger
            "esrgan".

    Yields:
        The progress after each frame.

    Raises:
        VideoError: If the video cannot be read.
        BrokenPipeError: If the reader has gone.
        OSError: If the output cannot be written for another reason.
    """
    start, end = find_limits(options, video)
    if start and video.can_skip:
        video.skip_to(start)
    rate, base = video.properties.rate, video.properties.time_base
    encoding = replace(encode_for(upscaler, video, None, options), time_base=1 / rate)
    notes = [*encoding.notes]
    if video.properties.display_matrix is not None:
        notes.append("the rotation is not kept, because YUV4MPEG2 cannot state it")
    for note in notes:
        log.info("%s: %s", video.path, note)
    file = OutputPipe(_Y4mFile(out, encoding.pixel_aspect))
    container = av.open(file, "w", format="yuv4mpegpipe", options={"strict": "-1"})  # allows more than 8 bits
    stream: Any = container.add_stream(encoding.codec, encoding.rate)
    encoding.configure(stream.codec_context)
    total, numbers = count_frames(video, options), itertools.count()
    times: list[int] = []
    last_duration = 0

    def write(shot: TimedFrame, frame: VideoFrame) -> None:
        nonlocal last_duration
        last_duration = shot.frame.duration or 0
        frame.pts, frame.time_base = next(numbers), encoding.time_base
        times.append(shot.time)
        video.errors.is_uneven |= abs((shot.time - times[0]) * base * rate - frame.pts) > 1
        container.mux(stream.encode(frame))
        file.check()

    upscale_frames = FrameUpscaler(upscaler, options.steady)
    shots = ((shot, video.to_pixels(shot.frame)) for shot in video.shots(start, end))
    with FrameEncoder(upscaler, encoding, write) as encoder:
        for number, (shot, pixels) in enumerate(make_ahead(upscaler, shots, DECODED), 1):
            encoder.add(shot, *upscale_frames([pixels]))
            counts = upscale_frames.computed, upscale_frames.repeated
            yield VideoProgress(number, *counts, total)
    container.mux(stream.encode(None))
    container.close()
    file.check()
    if times:
        note_missing_parts(video, times, last_duration, end)


class _Y4mFile:
    """Writes the pixel aspect into the header of YUV4MPEG2, which PyAV leaves unknown.

    Args:
        out: Where the video is written.
        pixel_aspect: The aspect; None if unknown.
    """

    def __init__(self, out: BinaryIO, pixel_aspect: Fraction | None) -> None:
        self._out, self._aspect = out, pixel_aspect

    def write(self, data: bytes) -> int:
        """Write some bytes, which begin with the whole header."""
        if self._aspect is None:
            self._out.write(data)
        else:
            aspect = f" A{self._aspect.numerator}:{self._aspect.denominator}"
            self._out.write(data.replace(b" A0:0", aspect.encode(), 1))
            self._aspect = None
        return len(data)
