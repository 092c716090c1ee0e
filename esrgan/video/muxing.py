"""Put the segments and all other streams of a film into the output."""

from __future__ import annotations

import heapq
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from esrgan import files
from esrgan.errors import Problem, VideoError
from esrgan.text import describe_error, one_line
from esrgan.video.encoding import CONTAINERS, Encoding
from esrgan.video.segments import Segment, Workplace, read_packets
from esrgan.video.source import Film

_OWN_METADATA = ("encoder", "major_brand", "minor_version", "compatible_brands")
_STATISTICS = (
    "BPS",
    "DURATION",
    "NUMBER_OF_FRAMES",
    "NUMBER_OF_BYTES",
    "_STATISTICS",
)  # of Matroska, for the old video
_COPIES_OF_STATISTICS = tuple(f"{name}-" for name in _STATISTICS)
_ROUNDS_TIMES = ("matroska", "webm")


def describe_losses(film: Film, target: Path) -> Iterator[str]:
    """Yield sentences about what the container of the output cannot hold."""
    container = CONTAINERS[target.suffix.lower()]
    kept = {stream.index for stream in _copied_streams(film.container, film.stream_index, container)}
    for stream in film.other_streams():
        if stream.index not in kept:
            context = stream.codec_context
            codec = f", {context.name}" if context is not None else ""
            language = f", {stream.language}" if stream.language else ""
            name = f"stream {stream.index} ({stream.type}{codec}{language})"
            yield f"{name} not kept, because {target.suffix} cannot hold it; -o FILE.mkv holds most streams"
    if container in _ROUNDS_TIMES and (1 / film.facts.time_base) % 1000 and 1000 % (1 / film.facts.time_base):
        yield f"times rounded to milliseconds, as {target.suffix} counts; another container keeps them"
    begin = film.facts.begin
    if container in _ROUNDS_TIMES and begin < 0 and film.container.format.name.split(",")[0] not in _ROUNDS_TIMES:
        yield f"all streams begin {float(-begin):.3f} s later, because {target.suffix} has no times before 0"


def _copied_streams(container: Any, video_index: int, target_format: str) -> list[Any]:
    """Return the streams that are copied."""
    return [stream for stream in container.streams if stream.index != video_index and _can_hold(target_format, stream)]


def _can_hold(target_format: str, stream: Any) -> bool:
    """Return whether a container accepts a stream, by writing the beginning of a file to memory."""
    try:
        with av.open(io.BytesIO(), "w", format=target_format) as probe:
            _add_copy(probe, stream)
            probe.start_encoding()
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def _add_copy(container: Any, stream: Any) -> Any:
    """Add a stream that gets the packets of another one."""
    copy = container.add_stream_from_template(stream, opaque=True)
    copy.metadata.update(stream.metadata)
    copy.disposition = stream.disposition
    return copy


def assemble(
    film: Film,
    target: Path,
    workplace: Workplace,
    segments: Sequence[Segment],
    encoding: Encoding,
    *,
    shift: int,
    end: int | None,
    overwrite: bool,
) -> None:
    """Write the output.

    Args:
        film: The film.
        target: The output.
        workplace: Where the segments are.
        segments: All segments in their order.
        encoding: How they are encoded.
        shift: The time of the film at which the output begins, 0 unless a part of it was chosen.
        end: The time of the film before which the output ends; None is the end of the film.
        overwrite: Replace an existing file.

    Raises:
        VideoError: If it cannot be written.
    """
    try:
        with files.atomic_write(target, overwrite=overwrite) as file:
            _write(film, file, CONTAINERS[target.suffix.lower()], workplace, segments, encoding, shift, end)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = one_line(describe_error(error), 200)
        remedy = f"check the folder and its free disk space; the upscaled frames are in {workplace.folder}"
        raise VideoError(Problem.failure(target, f"cannot be written: {reason}", remedy)) from error


def _write(
    film: Film,
    file: Any,
    container: str,
    workplace: Workplace,
    segments: Sequence[Segment],
    encoding: Encoding,
    shift: int,
    end: int | None,
) -> None:
    begin = shift * film.facts.time_base
    stop = None if end is None else end * film.facts.time_base
    with (
        av.open(str(film.path)) as source,
        av.open(str(workplace.video_path(segments[0].number))) as first,
        av.open(file, "w", format=container) as output,
    ):
        copied = _copied_streams(source, film.stream_index, container)
        copies: dict[int, Any] = {}
        for stream in source.streams:
            if stream.index == film.stream_index:
                video = _add_video(output, first.streams.video[0], film, encoding)
            elif stream in copied:
                copies[stream.index] = _add_copy(output, stream)
        output.metadata.update({key: value for key, value in source.metadata.items() if key not in _OWN_METADATA})
        output.set_chapters([*_cut_chapters(source.chapters(), begin, stop)])
        with_packets = [stream for stream in copied if stream.type != "attachment"]
        packets = [_video_packets(workplace, segments, encoding, video, shift)]
        if with_packets:
            packets.append(_copied_packets(source, with_packets, copies, begin, stop))
        for _, _, packet in heapq.merge(*packets, key=lambda each: each[:2]):
            output.mux(packet)


def _add_video(output: Any, template: Any, film: Film, encoding: Encoding) -> Any:
    """Add the stream of upscaled frames."""
    video = output.add_stream_from_template(template, opaque=True)
    video.time_base = encoding.time_base
    video.codec_context.framerate = encoding.rate
    if encoding.pixel_aspect is not None:
        video.codec_context.sample_aspect_ratio = encoding.pixel_aspect
    if film.facts.display_matrix is not None:
        video.set_display_matrix(film.facts.display_matrix)
    skipped = (*_STATISTICS, *_OWN_METADATA)
    for key, value in film.metadata.items():
        if key not in skipped and not key.startswith(_COPIES_OF_STATISTICS):
            video.metadata[key] = value
    video.disposition = film.disposition
    return video


def _video_packets(
    workplace: Workplace, segments: Sequence[Segment], encoding: Encoding, stream: Any, shift: int
) -> Iterator[tuple[Fraction, int, Any]]:
    """Yield the packets of all segments with the times of their frames."""
    times = [time - shift for segment in segments for time in segment.times]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    gaps.append(gaps[-1] if gaps else round(1 / encoding.rate / encoding.time_base))
    # A packet is decoded when the frame that is this number of frames before it in the order of decoding is shown.
    delay = 0
    for segment in segments:
        order = [number for number, _ in read_packets(workplace.video_path(segment.number))]
        delay = max([delay, *(place - number for place, number in enumerate(order))])
    offset = place = 0
    for segment in segments:
        for number, packet in read_packets(workplace.video_path(segment.number)):
            packet.pts = times[offset + number]
            packet.dts = times[place - delay] if place >= delay else times[0] - (delay - place) * gaps[0]
            packet.duration, packet.time_base, packet.stream = gaps[offset + number], encoding.time_base, stream
            yield packet.dts * encoding.time_base, 0, packet
            place += 1
        offset += len(segment.times)


def _copied_packets(
    source: Any, streams: Sequence[Any], copies: Mapping[int, Any], begin: Fraction, stop: Fraction | None
) -> Iterator[tuple[Fraction, int, Any]]:
    """Yield the packets of other streams between two times in seconds."""
    for packet in source.demux(*streams):
        stream, time = packet.stream, packet.pts if packet.pts is not None else packet.dts
        is_picture = stream.type == "video" and stream.disposition & av.stream.Disposition.attached_pic
        if is_picture and packet.size:
            packet.stream, packet.time_base = copies[stream.index], stream.time_base
            packet.pts = packet.dts = 0
            yield Fraction(0), 1 + stream.index, packet
        if is_picture or time is None:  # the end of a stream
            continue
        base = packet.time_base
        last = time + max(packet.duration or 0, 1)
        if (begin and last * base <= begin) or (stop is not None and time * base >= stop):
            continue
        shift = round(begin / base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = copies[stream.index]
        yield (packet.dts if packet.dts is not None else time - shift) * base, 1 + stream.index, packet


def _cut_chapters(chapters: Sequence[Any], begin: Fraction, stop: Fraction | None) -> Iterator[Any]:
    """Yield the chapters between two times in seconds."""
    for chapter in chapters:
        base = chapter["time_base"]
        start, end = chapter["start"] * base, chapter["end"] * base
        if end <= begin or (stop is not None and start >= stop):
            continue
        start, end = max(start, begin) - begin, (end if stop is None else min(end, stop)) - begin
        yield dict(chapter, start=round(start / base), end=round(end / base))
