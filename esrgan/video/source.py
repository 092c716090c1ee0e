"""Read videos: their streams, the properties of their pictures, and the frames with their exact time stamps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame

from esrgan.video import colour
from esrgan.video.colour import Coding
from esrgan.video.decoding import FrameReader, ReadErrors, TimedFrame, lacks_presentation_times
from esrgan.video.opening import (
    A_VIDEO,
    STDIN,
    check_is_video,
    choose_stream,
    find_begin,
    find_end,
    format_time,
    open_video,
    refusal,
    to_ticks,
)

_SIMILAR_PRIMARIES = {1, 5, 6, 7}  # of BT.709, BT.601 and SMPTE 240M
_SIDE_DATA_KINDS = (
    "MASTERING_DISPLAY_METADATA",
    "CONTENT_LIGHT_LEVEL",
    "DYNAMIC_HDR_PLUS",
    "DOVI_METADATA",
    "A53_CC",
    "SPHERICAL",
    "STEREO3D",
)


@dataclass(frozen=True)
class VideoProperties:
    """What the first wanted frame and the container say about the pictures of a video.

    Attributes:
        height: Height of the frames in pixels.
        width: Width in pixels.
        pixel_format: FFmpeg's name of the format, such as ``yuv420p``.
        coding: How colours are coded.
        primaries: Colour primaries, a number of H.273; 2 is unspecified.
        transfer: Transfer characteristics, a number of H.273.
        time_base: Unit of time stamps in seconds.
        rate: Frames per second, as far as the container knows; some videos have no constant rate.
        pixel_aspect: Width of a pixel relative to its height; None if unknown.
        codec: FFmpeg's name of the codec.
        num_frames: Number of frames, or an estimate; None if unknown, as with a variable rate in Matroska.
        begin: The time at which the video begins in seconds, which players show as 0.
        end: When the last frame ends, in seconds, as the container says; None if it does not.
        display_matrix: The rotation and mirroring with which players show the frames, as nine integers; None if none.
        side_data: Data of HDR and 3D videos, and captions, by FFmpeg's names of their kinds.
    """

    height: int
    width: int
    pixel_format: str
    coding: Coding
    primaries: int
    transfer: int
    time_base: Fraction
    rate: Fraction
    pixel_aspect: Fraction | None
    codec: str
    num_frames: int | None
    begin: Fraction
    end: Fraction | None
    display_matrix: tuple[int, ...] | None
    side_data: dict[str, bytes] = field(default_factory=dict)


class Video:
    """A video that can be read once or, if it is a file, several times.

    Args:
        path: The file, or ``-`` for YUV4MPEG2 (.y4m) from standard input.
        deinterlace: Make full frames of interlaced ones, instead of refusing them.
        start: Where the wanted part begins, in seconds from the beginning; None is the beginning.

    Attributes:
        path: The file.
        properties: What is known about the pictures.

    Raises:
        VideoError: If it cannot be read, or is no video.
    """

    def __init__(self, path: Path, *, deinterlace: bool = False, start: Fraction | None = None) -> None:
        self.path, self.deinterlace = path, deinterlace
        self._shots: Iterator[TimedFrame]
        self._skipped_to: int | None  # the time of the last frame, if ``shots`` continues after one
        if path != STDIN:
            check_is_video(path)
        self._by_decoding: bool | None = None
        self._open()
        first = next(self._shots, None)
        if first is None:
            raise refusal(self.path, A_VIDEO, "a stream of which no frame can be decoded", "check the file in a player")
        self._has_palette = bool(first.frame.format.has_palette)
        base = self._stream.time_base
        # A frame has the time of the packet with which it leaves the decoder, and packets are sought by their times.
        self._delay = first.time - (self._stream.start_time or 0) if self._by_decoding else 0
        if start:
            first = self._find_start(first, to_ticks(start, find_begin(self.container), base))
        else:
            self.errors.lost_start = self._reader.lost_start * base
        self._check_fields(first.frame)
        self.properties = self._find_properties(first.frame)
        self._pixel_aspect = first.pixel_aspect
        self._shots = itertools.chain([first], self._shots)

    def _find_start(self, first: TimedFrame, start: int) -> TimedFrame:
        """Return the first frame from a time on, at which ``shots`` then begins; the first of all if there is none."""
        if first.time >= start:
            return first
        if self.can_skip:
            self.skip_to(start)
        found = next((shot for shot in self._shots if shot.time >= start), first)
        self._reader.errors = ReadErrors()  # not of the part that is wanted
        return found

    @property
    def errors(self) -> ReadErrors:
        """What could not be read so far."""
        return self._reader.errors

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    @property
    def can_skip(self) -> bool:
        """Whether ``skip_to`` can be used: not for pipes, and deinterlacing and palettes need the packets before."""
        return self.path != STDIN and not self.deinterlace and not self._has_palette

    @property
    def can_lose_frames(self) -> bool:
        """Whether damaged frames can disappear without a trace: no index states the times of all of them."""
        return self.container.format.name in ("matroska,webm", "mpegts", "mpeg")

    @property
    def clock_start(self) -> int:
        """The time of the video that is 0 in the output, in units of the time base.

        It is the beginning if the clock may start anywhere, as in MPEG-TS and MPEG-PS, and 0 otherwise.
        """
        is_free = self.container.format.flags & av.format.Flags.ts_discont.value
        return math.floor(self.properties.begin / self.properties.time_base) if is_free else 0

    def other_streams(self) -> list[Any]:
        """Return all streams but the one that is upscaled."""
        return [stream for stream in self.container.streams if stream.index != self._stream.index]

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the stream that is upscaled."""
        return dict(self._stream.metadata)

    @property
    def disposition(self) -> int:
        """The disposition of the stream that is upscaled."""
        return int(self._stream.disposition)

    @property
    def stream_index(self) -> int:
        """The index of the stream that is upscaled."""
        return int(self._stream.index)

    def shots(self, start: int | None = None, end: int | None = None) -> Iterator[TimedFrame]:
        """Read the frames, once.

        Args:
            start: The time of the first frame that is wanted; None is the beginning.
            end: The time before which frames are wanted; None is the end.

        Yields:
            The frames with increasing times.

        Raises:
            VideoError: If the size or the format of the frames changes, or interlaced frames have to be refused.
        """
        last = self._skipped_to
        for shot in self._shots:
            if last is None and start is not None and shot.time < start:
                self.errors.counts.clear()  # not of the part that is wanted
                continue
            if end is not None and shot.time >= end:
                return
            self._check(shot)
            if last is not None and shot.time <= last:
                self.errors.counts["times"] += 1
                continue
            last = shot.time
            self.errors.counts["frames"] += shot.frame.is_corrupt
            self.errors.counts["aspects"] += (shot.pixel_aspect or 1) != (self._pixel_aspect or 1)
            yield shot

    def to_pixels(self, frame: VideoFrame) -> colour.Pixels:
        """Convert a frame to RGB or grey, as ``colour.to_pixels`` does, by what the frame or else the video states."""
        return colour.to_pixels(frame, colour.coding_of(frame, self.properties.coding))

    def _check(self, shot: TimedFrame) -> None:
        """Refuse a frame that does not fit the first one."""
        self._check_fields(shot.frame)
        if change := self._find_change(shot.frame):
            at = format_time(shot.time * self.properties.time_base - self.properties.begin)
            remedy = f"upscale the parts by themselves: -o PART1 --end {at}, then -o PART2 --start {at}"
            raise refusal(self.path, f"{change[0]} throughout", f"{change[1]} at {at}", remedy)

    def _check_fields(self, frame: VideoFrame) -> None:
        if frame.interlaced_frame and not self.deinterlace:
            raise refusal(self.path, "progressive video", "interlaced video", "add --deinterlace")

    def _find_change(self, frame: VideoFrame) -> tuple[str, str] | None:
        """Return what the video has and what a frame has instead, if one output cannot have both."""
        video = self.properties
        before, now = (
            f"{video.width}×{video.height} {video.pixel_format}",
            f"{frame.width}×{frame.height} {frame.format.name}",
        )
        if before != now:
            return f"frames of {before}", now
        transfer, primaries = int(frame.color_trc), int(frame.color_primaries)
        if transfer != colour.UNSPECIFIED and colour.curve(transfer) != colour.curve(video.transfer):
            return f"transfer characteristics {video.transfer}", f"{transfer}"
        is_other = primaries != video.primaries and not {primaries, video.primaries} <= _SIMILAR_PRIMARIES
        if colour.UNSPECIFIED not in (primaries, video.primaries) and is_other:
            return f"colour primaries {video.primaries}", f"{primaries}"
        return None

    def skip_to(self, time: int, digest: str | None = None) -> bool:
        """Let ``shots`` begin near a time, without decoding all that precedes it.

        Args:
            time: The time.
            digest: Checksum of the frame with that time, which was read before: ``shots`` continues after it. None
                lets ``shots`` begin at any frame before that time.

        Returns:
            Whether that frame was found. If not, ``shots`` begins at the beginning, because the video cannot be decoded
            from any of its key frames.
        """
        with suppress(av.error.FFmpegError):
            self._reopen()
            self.container.seek((time if digest else time - 1) - self._delay, stream=self._stream)
            for shot in self._shots:
                if shot.time >= time:
                    if shot.time == time and shot.digest() == digest:
                        self._skipped_to = time
                        return True
                    break
                if digest is None:
                    return True
        self._reopen()
        return False

    def _lacks_presentation_times(self) -> bool:
        if self.container.format.name == "avi":
            return True
        if self.path == STDIN or not self._stream.codec_context.has_b_frames:
            return False
        with closing(open_video(self.path)) as container:
            return lacks_presentation_times(container, choose_stream(container, self.path))

    def _open(self) -> None:
        self.container = open_video(self.path)
        self._stream = choose_stream(self.container, self.path)
        if self._by_decoding is None:
            self._by_decoding = self._lacks_presentation_times()
        self._reader = FrameReader(
            self.container, self._stream, deinterlace=self.deinterlace, by_decoding=self._by_decoding
        )
        self._shots = self._reader.frames()
        self._skipped_to = None

    def _reopen(self) -> None:
        self.container.close()
        lost_start = self.errors.lost_start
        self._open()
        self.errors.lost_start = lost_start

    def _side_data(self, frame: Any) -> Any:
        """Return the side data of the first frame, from the stream's own decoder, which knows that of the container."""
        if not self._reader.decodes_alpha:
            return frame.side_data
        with closing(open_video(self.path)) as container:
            return next(container.decode(choose_stream(container, self.path)), frame).side_data

    def _find_properties(self, frame: Any) -> VideoProperties:
        stream = self._stream
        if not colour.is_supported(frame.format.name):
            remedy = "convert it to another pixel format first"
            raise refusal(self.path, "frames of a known format", frame.format.name, remedy)
        coding = colour.coding_of(frame)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        aspect = stream.sample_aspect_ratio or getattr(frame, "sample_aspect_ratio", None)
        side_data = {each.type.name: bytes(each) for each in self._side_data(frame)}
        matrix = side_data.pop("DISPLAYMATRIX", None)
        begin = find_begin(self.container)
        end = find_end(self.container, stream, begin)
        is_even = abs(rate - (stream.base_rate or rate)) < rate / 100
        num_frames = stream.frames or (round((end - begin) * rate) if end is not None and is_even else None)
        return VideoProperties(
            height=frame.height,
            width=frame.width,
            pixel_format=frame.format.name,
            coding=coding,
            primaries=int(frame.color_primaries),
            transfer=int(frame.color_trc),
            time_base=stream.time_base,
            rate=rate,
            pixel_aspect=aspect or None,
            codec=stream.codec_context.codec.canonical_name,
            num_frames=num_frames or None,
            begin=begin,
            end=end,
            display_matrix=None if matrix is None else tuple(memoryview(matrix).cast("i")),
            side_data={kind: data for kind, data in side_data.items() if kind in _SIDE_DATA_KINDS},
        )
