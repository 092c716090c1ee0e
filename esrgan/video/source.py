"""Read videos: their streams, the properties of their pictures, and the frames with their exact time stamps."""

from __future__ import annotations

import hashlib
import itertools
import math
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame

from esrgan import files
from esrgan.errors import Problem, VideoError
from esrgan.images.formats import SUFFIXES
from esrgan.text import describe_error, format_count, one_line
from esrgan.video import colour
from esrgan.video.colour import Coding

STDIN = Path("-")
_Y4M = "yuv4mpegpipe"
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # those that FFmpeg prefers ignore alpha
_A_VIDEO = "a video"
_MICROSECOND = Fraction(1, av.time_base)
_SIMILAR_PRIMARIES = {1, 5, 6, 7}  # of BT.709, BT.601 and SMPTE 240M
_MAX_DAMAGED_START = 1000  # packets without a frame before a video is given up


@dataclass(frozen=True)
class TimedFrame:
    """A frame and the place where it belongs.

    Attributes:
        time: Its time stamp, in units of the video's time base.
        frame: The decoded frame.
        pixel_aspect: Width of a pixel relative to its height, as the decoder says; None if it does not.
    """

    time: int
    frame: VideoFrame
    pixel_aspect: Fraction | None = None

    def digest(self) -> str:
        """Return a checksum of the samples."""
        digest = hashlib.sha256()
        for plane in self.frame.planes:
            digest.update(bytes(plane))
        return digest.hexdigest()


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


@dataclass
class ReadErrors:
    """What could not be read from a video.

    Attributes:
        counts: How many "packets" could not be decoded, how many the container marks as damaged ("marked packets"),
            how many "frames" are damaged, how many were skipped because their time stamp is not after that of the frame
            before ("times"), how many have another sample aspect ratio than the first ("aspects"), and how many packets
            of "other streams" are damaged.
        gaps: Where frames may be missing.
        lost_start: Time at the beginning that cannot be decoded, in seconds, because a key frame is missing.
        ended_early: Why or where reading ended before the end of the video; empty if it did not.
        is_uneven: Whether times of frames are not those of a constant rate, if the output can only have one.
    """

    counts: Counter[str] = field(default_factory=Counter)
    gaps: list[str] = field(default_factory=list)
    lost_start: Fraction = Fraction(0)
    ended_early: str = ""
    is_uneven: bool = False

    @property
    def is_damaged(self) -> bool:
        """Whether frames are missing or wrong.

        Packets alone that the container marks do not say so: they are marked where intact parts are joined, too.
        """
        return bool(self.counts["packets"] or self.counts["frames"] or self.gaps)

    def notes(self) -> Iterator[str]:
        """Yield sentences for people to read."""
        if self.counts["packets"]:
            yield f"{format_count(self.counts['packets'], 'damaged packet')} skipped"
        if self.is_damaged and self.counts["marked packets"]:
            yield f"{format_count(self.counts['marked packets'], 'damaged packet')} decoded as far as possible"
        if self.counts["frames"]:
            yield f"{format_count(self.counts['frames'], 'damaged frame')} upscaled as far as decoded"
        if self.counts["times"]:
            yield f"{format_count(self.counts['times'], 'frame')} with repeated or decreasing times skipped"
        if self.counts["aspects"]:
            yield (
                "the sample aspect ratio changes within the video, but the output has only that of the first frame; "
                "upscale the parts by themselves with --start and --end"
            )
        if self.counts["other streams"]:
            yield f"{format_count(self.counts['other streams'], 'damaged packet')} of other streams skipped"
        if self.gaps:
            yield f"frames may be missing {describe_gaps(self.gaps)}"
        if self.lost_start:
            yield f"the first {float(self.lost_start):.3f} s cannot be decoded, because their key frame is missing"
        if self.ended_early:
            yield f"the video ends early: {self.ended_early}"
        if self.is_uneven:
            yield "frames follow each other at varying intervals, which YUV4MPEG2 cannot state"


def describe_gaps(gaps: Sequence[str]) -> str:
    """Describe the first of some gaps and count the others."""
    return gaps[0] + (f", and {format_count(len(gaps) - 1, 'more gap')}" if len(gaps) > 1 else "")


class Video:
    """A video that can be read once or, if it is a file, several times.

    Args:
        path: The file, or ``-`` for YUV4MPEG2 (.y4m) from standard input.
        deinterlace: Make full frames of interlaced ones, instead of refusing them.
        start: Where the wanted part begins, in seconds from the beginning; None is the beginning.

    Attributes:
        path: The file.
        properties: What is known about the pictures.
        errors: What could not be read so far.

    Raises:
        VideoError: If it cannot be read, or is no video.
    """

    def __init__(self, path: Path, *, deinterlace: bool = False, start: Fraction | None = None) -> None:
        self.path, self.deinterlace = path, deinterlace
        self.errors = ReadErrors()
        if path != STDIN:
            check_is_video(path)
        self.container = self._open()
        self._stream = self._choose_stream()
        self._decoder = self._make_decoder()
        self._shots = self._decode()
        first = next(self._shots, None)
        if first is None:
            raise self._refuse(_A_VIDEO, "a stream of which no frame can be decoded", "check the file in a player")
        base = self._stream.time_base
        if start:
            first = self._find_start(first, to_ticks(start, _find_begin(self.container), base))
        elif self._earliest is not None:
            self.errors.lost_start = max(first.time - self._earliest, 0) * base
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
        self.errors = ReadErrors()  # not of the part that is wanted
        return found

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    @property
    def can_skip(self) -> bool:
        """Whether ``skip_to`` can be used: not for pipes, and deinterlacing needs the frames before."""
        return self.path != STDIN and not self.deinterlace

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
        last = None
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
            raise self._refuse(f"{change[0]} throughout", f"{change[1]} at {at}", remedy)

    def _check_fields(self, frame: VideoFrame) -> None:
        if frame.interlaced_frame and not self.deinterlace:
            raise self._refuse("progressive video", "interlaced video", "add --deinterlace")

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
            self.container.seek(time if digest else time - 1, stream=self._stream)
            for shot in self._shots:
                if shot.time >= time:
                    if shot.time == time and shot.digest() == digest:
                        return True
                    break
                if digest is None:
                    return True
        self._reopen()
        return False

    def _reopen(self) -> None:
        self.container.close()
        self.errors = ReadErrors(lost_start=self.errors.lost_start)
        self.container = self._open()
        self._stream = self._choose_stream()
        self._decoder = self._make_decoder()
        self._shots = self._decode()

    def _open(self) -> Any:
        try:
            if self.path == STDIN:
                return av.open(sys.stdin.buffer, format=_Y4M)
            return open_file(self.path)
        except (av.error.FFmpegError, OSError) as error:
            got = f"a file that cannot be opened ({one_line(describe_error(error))})"
            raise self._refuse(_A_VIDEO, got, "check that it plays in a player and is complete") from error

    def _choose_stream(self) -> Any:
        name = self.container.format.name
        if name in _PLAYLISTS:
            raise self._refuse(_A_VIDEO, "a list of videos", "upscale each of them")
        if name.endswith("_pipe") or name in _PICTURES:
            raise self._refuse(_A_VIDEO, "an image", "`esrgan inference` upscales images and animations")
        if name in _TEXTS:
            raise self._refuse(_A_VIDEO, "a text", "choose another file")
        streams = [
            stream
            for stream in self.container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            kinds = sorted({"a cover picture" if s.type == "video" else s.type for s in self.container.streams})
            got = f"a file with {' and '.join(kinds)} only" if kinds else "a file without streams"
            raise self._refuse(_A_VIDEO, got, "choose another file")
        stream = streams[0]
        if stream.codec_context is None:
            remedy = "it may be protected against copying; convert it to another codec first"
            raise self._refuse(_A_VIDEO, "a video of an unknown codec", remedy)
        stream.thread_type = "AUTO"
        return stream

    def _make_decoder(self) -> Any:
        context = self._stream.codec_context
        name = _ALPHA_DECODERS.get(context.name)
        tags = {key.lower(): value for key, value in self._stream.metadata.items()}
        if name is None or tags.get("alpha_mode") != "1":
            return context
        decoder: Any = av.CodecContext.create(name, "r")
        decoder.width, decoder.height = context.width, context.height
        decoder.color_primaries, decoder.color_trc = context.color_primaries, context.color_trc
        return decoder

    def _decode(self) -> Iterator[TimedFrame]:
        """Yield all frames."""
        field_filter = None
        for frame in self._decode_frames():
            pixel_aspect = self._decoder.sample_aspect_ratio
            if not self.deinterlace:
                yield TimedFrame(frame.pts, frame, pixel_aspect)
                continue
            if field_filter is None or not field_filter.fits(frame, pixel_aspect):
                if field_filter is not None:
                    yield from field_filter.push(None)
                field_filter = _Deinterlacer(frame, pixel_aspect, self._stream.time_base)
            yield from field_filter.push(frame)
        if field_filter is not None:
            yield from field_filter.push(None)

    def _decode_frames(self) -> Iterator[Any]:
        """Yield the decoded frames; each has a time stamp."""
        base = self._stream.time_base
        step = max(round(1 / (self._stream.average_rate or self._stream.guessed_rate or 25) / base), 1)
        packets, time, has_begun = self.container.demux(self._stream), None, False
        repeated: deque[int] = deque()  # times of packets without content, at which the frame before is shown again
        last: Any = None
        self._earliest: int | None = None  # time of a packet, until there is a frame
        while True:
            try:
                packet = next(packets)
                if not has_begun and packet.pts is not None and not packet.is_discard:
                    self._earliest = packet.pts if self._earliest is None else min(self._earliest, packet.pts)
                is_end = packet.pts is None and packet.dts is None
                if not packet.size and not is_end:
                    repeated.append(packet.dts if packet.pts is None else packet.pts)
                    continue
                frames = self._decoder.decode(packet if packet.size else None)
                self.errors.counts["marked packets"] += packet.is_corrupt
            except (StopIteration, av.error.EOFError):
                break
            except (av.error.InvalidDataError, av.error.UndefinedError):
                self.errors.counts["packets"] += 1
                if not has_begun and self.errors.counts["packets"] > _MAX_DAMAGED_START:
                    break
                continue
            except (av.error.FFmpegError, OSError) as error:
                self.errors.ended_early = one_line(describe_error(error))
                break
            for frame in frames:
                has_begun = True
                if frame.pts is None:
                    frame.pts = 0 if time is None else time + step
                next_time = frame.pts
                while repeated and repeated[0] < next_time:
                    yield from _repeat(last, repeated.popleft())
                time, last = next_time, frame
                yield frame
        for each in repeated:
            yield from _repeat(last, each)

    def _find_properties(self, frame: Any) -> VideoProperties:
        stream = self._stream
        if not colour.is_supported(frame.format.name):
            remedy = "convert it to another pixel format first"
            raise self._refuse("frames of a known format", frame.format.name, remedy)
        coding = colour.coding_of(frame)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        aspect = stream.sample_aspect_ratio or getattr(frame, "sample_aspect_ratio", None)
        side_data = {each.type.name: bytes(each) for each in frame.side_data}
        matrix = side_data.pop("DISPLAYMATRIX", None)
        begin = _find_begin(self.container)
        end = _find_end(self.container, stream, begin)
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

    def _refuse(self, expected: str, got: str, remedy: str) -> VideoError:
        return VideoError(Problem(str(self.path), expected, got, remedy))


_PICTURES = ("image2", "alias_pix", "brender_pix", "fits", "txd")
_TEXTS = ("tty", "bin", "xbin", "adf", "idf")  # FFmpeg draws them
_PLAYLISTS = ("concat", "hls", "dash")
_SIDE_DATA_KINDS = (
    "MASTERING_DISPLAY_METADATA",
    "CONTENT_LIGHT_LEVEL",
    "DYNAMIC_HDR_PLUS",
    "DOVI_METADATA",
    "A53_CC",
    "SPHERICAL",
    "STEREO3D",
)


def open_file(path: Path) -> Any:
    """Open a file for reading, whatever its name looks like."""
    return av.open(f"file:{path}")


def check_is_video(path: Path) -> None:
    """Refuse paths that are no videos, before FFmpeg takes a picture or a text for one."""
    what, remedy = files.describe_path(path), "choose one file"
    if path.suffix.lower() in SUFFIXES:
        what, remedy = "an image", "`esrgan inference` upscales images and animations"
    elif what == "nothing":
        remedy = files.suggest_path(path, "check the path")
    if what != "a file":
        raise VideoError(Problem(str(path), _A_VIDEO, what, remedy))


def _repeat(frame: Any, time: int) -> Iterator[Any]:
    """Yield the last frame with another time, if there is one before that time."""
    if frame is not None and frame.pts < time:
        frame.pts = time
        yield frame


def to_ticks(seconds: Fraction, begin: Fraction, base: Fraction) -> int:
    """Return the first time stamp that is not before a time from the beginning, given with microseconds."""
    return math.ceil((seconds + begin - _MICROSECOND) / base)


def _find_begin(container: Any) -> Fraction:
    """Return when a video begins in seconds, which FFmpeg states in whole microseconds."""
    begin = Fraction(container.start_time or 0, av.time_base)
    times = [each.start_time * each.time_base for each in container.streams if each.start_time is not None]
    exact: Fraction = min(times, key=lambda time: abs(time - begin), default=begin)
    return exact if abs(exact - begin) <= _MICROSECOND else begin


def _find_end(container: Any, stream: Any, begin: Fraction) -> Fraction | None:
    """Return when the last frame of a stream ends in seconds, as the container states it."""
    is_matroska = container.format.name.startswith("matroska")  # counts durations from 0, wherever the video begins
    end = Fraction(container.duration, av.time_base) + (0 if is_matroska else begin) if container.duration else None
    tags = [key for key in sorted(stream.metadata) if key.startswith("DURATION")] if is_matroska else []
    for key in tags[:1]:  # that of FFmpeg precedes those with a language, which are of mkvmerge and may be stale
        with suppress(ValueError):  # such as 00:00:02.660000000
            hours, minutes, seconds = map(Fraction, stream.metadata[key].split(":"))
            stated = hours * 3600 + minutes * 60 + seconds
            return stated if end is None else min(stated, end)
    if stream.duration:
        return Fraction(begin + stream.duration * stream.time_base)
    return end


class _Deinterlacer:
    """Makes full frames of those that are interlaced (bwdif), one for each.

    Args:
        frame: The first frame.
        pixel_aspect: Its pixel aspect.
        time_base: The unit of time stamps.
    """

    def __init__(self, frame: VideoFrame, pixel_aspect: Fraction | None, time_base: Fraction) -> None:
        self.time_base, self.pixel_aspect = time_base, pixel_aspect
        self._size = frame.width, frame.height, frame.format.name
        self.graph: Any = av.filter.Graph()
        self.graph.threads = 1  # the graph has swscale convert packed formats, which goes wrong with more
        source = self.graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
        fields, sink = self.graph.add("bwdif", "mode=send_frame:deint=interlaced"), self.graph.add("buffersink")
        source.link_to(fields)
        fields.link_to(sink)
        self.graph.configure()

    def fits(self, frame: VideoFrame, pixel_aspect: Fraction | None) -> bool:
        """Return whether a frame has the size, the format and the pixel aspect of the first one."""
        return (*self._size, self.pixel_aspect) == (frame.width, frame.height, frame.format.name, pixel_aspect)

    def push(self, frame: VideoFrame | None) -> Iterator[TimedFrame]:
        """Yield the frames that are ready after another one; None is the end."""
        self.graph.push(frame)
        with suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                result = self.graph.pull()
                scale = result.time_base / self.time_base
                result.duration = round((result.duration or 0) * scale)
                yield TimedFrame(round(result.pts * scale), result, self.pixel_aspect)


def format_time(seconds: Fraction) -> str:
    """Format a time as 1:02:03.5."""
    whole, rest = divmod(seconds, 1)
    minutes, second = divmod(int(whole), 60)
    hours, minute = divmod(minutes, 60)
    digits = f"{float(rest):.6f}"[1:].rstrip("0").rstrip(".")
    return f"{hours}:{minute:02}:{second:02}{digits}"
