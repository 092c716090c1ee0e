"""Decode the frames of a video with their exact time stamps, and note what could not be decoded."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
from av.video.frame import VideoFrame

from esrgan.text import describe_error, format_count, one_line

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # those that FFmpeg prefers ignore alpha
_MAX_DAMAGED_START = 1000  # packets without a frame before a video is given up
_PROBED = 48  # packets that show whether presentation times are stated


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

        Marked packets alone are no sign of damage: packets are also marked where intact parts are joined.
        """
        return bool(self.counts["packets"] or self.counts["frames"] or self.gaps)

    def notes(self) -> Iterator[str]:
        """Yield sentences for people to read."""
        if self.counts["packets"]:
            yield f"{format_count(self.counts['packets'], 'damaged packet')} skipped"
        if self.is_damaged and self.counts["marked packets"]:
            yield f"{format_count(self.counts['marked packets'], 'damaged packet')} decoded as far as possible"
        if self.counts["frames"]:
            is_one = self.counts["frames"] == 1
            damaged = "1 frame is" if is_one else f"{self.counts['frames']:,} frames are"
            yield f"{damaged} damaged; what could be decoded of {'it' if is_one else 'them'} was upscaled"
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


class FrameReader:
    """Decodes a stream of an open file once.

    Args:
        container: The open file.
        stream: Its stream.
        deinterlace: Make full frames of interlaced ones.
        by_decoding: Use the time at which a frame leaves the decoder, as ``lacks_presentation_times`` finds it.

    Attributes:
        errors: What could not be decoded so far.
        lost_start: Time before the first frame of which there are packets, in units of the stream's time base.
        decodes_alpha: Whether another decoder than the stream's own is used, because it decodes alpha.
    """

    def __init__(self, container: Any, stream: Any, *, deinterlace: bool, by_decoding: bool = False) -> None:
        self.errors = ReadErrors()
        self.lost_start = 0
        self._container, self._stream, self._deinterlace = container, stream, deinterlace
        self._by_decoding = by_decoding
        self._decoder = _make_decoder(stream)
        self.decodes_alpha = self._decoder is not stream.codec_context

    def frames(self) -> Iterator[TimedFrame]:
        """Yield all frames, once."""
        field_filter = None
        for frame in self._decode():
            pixel_aspect = self._decoder.sample_aspect_ratio
            if not self._deinterlace:
                yield TimedFrame(frame.pts, frame, pixel_aspect)
                continue
            if field_filter is None or not field_filter.fits(frame, pixel_aspect):
                if field_filter is not None:
                    yield from field_filter.push(None)
                field_filter = _Deinterlacer(frame, pixel_aspect, self._stream.time_base)
            yield from field_filter.push(frame)
        if field_filter is not None:
            yield from field_filter.push(None)

    def _decode(self) -> Iterator[Any]:
        """Yield the decoded frames; each has a time stamp."""
        base = self._stream.time_base
        step = max(round(1 / (self._stream.average_rate or self._stream.guessed_rate or 25) / base), 1)
        packets, time, has_begun = self._container.demux(self._stream), None, False
        earliest: int | None = None
        repeated: deque[int] = deque()  # times of packets without content, at which the frame before is shown again
        last: Any = None
        while True:
            try:
                packet = next(packets)
                if not has_begun and packet.pts is not None and not packet.is_discard:
                    earliest = packet.pts if earliest is None else min(earliest, packet.pts)
                is_end = packet.pts is None and packet.dts is None
                if not packet.size and not is_end:
                    repeated.append(packet.dts if packet.pts is None or self._by_decoding else packet.pts)
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
                if not has_begun and None not in (frame.pts, earliest):
                    self.lost_start = max(frame.pts - earliest, 0)
                has_begun = True
                if self._by_decoding:
                    frame.pts = frame.dts  # the last frames, which come after the last packet, have none
                if frame.pts is None:
                    frame.pts = 0 if time is None else time + step
                next_time = frame.pts
                while repeated and repeated[0] < next_time:
                    yield from _repeat(last, repeated.popleft())
                if self._by_decoding and time is not None:
                    step = max(next_time - time, 1)
                time, last = next_time, frame
                yield frame
        for each in repeated:
            yield from _repeat(last, each)


def lacks_presentation_times(container: Any, stream: Any) -> bool:
    """Return whether only times of decoding are stated for a stream with reordered frames, by its first packets.

    This is so in AVI, and where such a stream was copied into another container. FFmpeg then makes presentation times
    up, which decrease where frames are reordered.
    """
    faults: Counter[str] = Counter()
    last: dict[str, int] = {}
    with suppress(av.error.FFmpegError, OSError):
        packets = list(itertools.islice((packet for packet in container.demux(stream) if packet.size), _PROBED))
        stated = [packet for packet in packets if None not in (packet.pts, packet.dts)]
        # Where recordings are joined, both times decrease.
        if any(after.pts < before.pts and after.dts > before.dts for before, after in itertools.pairwise(stated)):
            return False
        for frame in itertools.chain.from_iterable(map(stream.codec_context.decode, [*packets, None])):
            for kind, time in (("pts", frame.pts), ("dts", frame.dts)):
                if time is not None:
                    faults[kind] += time <= last.get(kind, time - 1)
                    last[kind] = time
    return faults["pts"] > faults["dts"]


def _make_decoder(stream: Any) -> Any:
    """Return a decoder for a stream, which decodes alpha, too."""
    context = stream.codec_context
    name = _ALPHA_DECODERS.get(context.name)
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    if name is None or tags.get("alpha_mode") != "1":
        return context
    decoder: Any = av.CodecContext.create(name, "r")
    decoder.width, decoder.height = context.width, context.height
    decoder.color_primaries, decoder.color_trc = context.color_primaries, context.color_trc
    return decoder


def _repeat(frame: Any, time: int) -> Iterator[Any]:
    """Yield the last frame with another time, if there is one before that time."""
    if frame is not None and frame.pts < time:
        frame.pts = time
        yield frame


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
