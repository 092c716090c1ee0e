"""Put the segments and all other streams of a video into the output."""

from __future__ import annotations

import heapq
import io
import itertools
import re
import shlex
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from esrgan import files
from esrgan.errors import Problem, VideoError
from esrgan.text import describe_error, one_line
from esrgan.video.colour import has_alpha
from esrgan.video.encoding import CONTAINERS, VPX, Encoding
from esrgan.video.opening import open_file
from esrgan.video.segments import OutputFile, Segment, SegmentFolder, read_packets
from esrgan.video.source import Video

_ROUNDS_TIMES = ("matroska", "webm")
_STATE_ASPECT = ("libx264", "libx265")  # encoders whose streams state the pixel aspect
_VIDEO_PLACE = 0  # of the packets of frames among those of the same time
_JUMP_S, _CONFIRMING = 10, 8
_CUT = ("subtitle", "data")  # streams with long packets that can be shown for a shorter time
_DISC_PCM = ("pcm_dvd", "pcm_bluray")  # uncompressed sound that only these discs can hold
_APPLE = "com.apple.quicktime."  # metadata of phones


@dataclass(frozen=True)
class StreamPlan:
    """Which streams of a video are copied.

    Attributes:
        copied: Their indices.
        notes: Sentences about what the container of the output cannot hold.
    """

    copied: tuple[int, ...]
    notes: tuple[str, ...]


def plan_streams(video: Video, target: Path, encoding: Encoding, *, is_part: bool) -> StreamPlan:
    """Choose the streams that are copied, by writing the beginning of the output to memory.

    Args:
        video: The video.
        target: The output.
        encoding: How the frames are encoded.
        is_part: Whether the output begins later than the video.
    """
    container = CONTAINERS[target.suffix.lower()]
    copied: list[Any] = []
    notes = []
    for stream in video.other_streams():
        if _is_restored(video.container, stream):
            continue
        if _can_hold(container, [*copied, stream]):
            copied.append(stream)
        else:
            notes.append(_describe_lost_stream(video, stream, target, is_part=is_part))
    milliseconds = 1000 % (1 / video.properties.time_base) == 0
    if container in _ROUNDS_TIMES and not milliseconds:
        notes.append(f"times are rounded to milliseconds, as {target.suffix} counts")
    aspect = encoding.pixel_aspect
    if container in _ROUNDS_TIMES and aspect not in (None, 1) and encoding.codec not in _STATE_ASPECT:
        across, down = Fraction(encoding.width * aspect / encoding.height).as_integer_ratio()
        sizes = f"--set display-unit=3 --set display-width={across} --set display-height={down}"
        command = f"mkvpropedit {shlex.quote(str(target))} --edit track:v1 {sizes}"
        reason = f"because PyAV does not write it to {target.suffix}"
        notes.append(f"the pixel aspect is not kept, {reason}; `{command}` adds it")
    if "STEREO3D" in video.properties.side_data and not _keeps_stereo(container, video):
        notes.append("the flag of stereo 3D is not kept")
    if is_part and "timecode" in {key.lower() for key in video.container.metadata | video.metadata}:
        notes.append("the timecode is not kept, because the output begins later than the video")
    if lost := _find_lost_metadata(container, _keep_metadata(video.container.metadata, is_part)):
        names = ", ".join(lost)
        notes.append(f"metadata not kept, because {target.suffix} cannot hold them: {names}; -o FILE.mkv keeps them")
    if damaged := _find_replaced_metadata(video.container):
        notes.append(f"characters that are not UTF-8 replaced in metadata: {', '.join(damaged)}")
    return StreamPlan(tuple(stream.index for stream in copied), tuple(notes))


def _describe_lost_stream(video: Video, stream: Any, target: Path, *, is_part: bool) -> str:
    """Return a sentence about a stream that the output does not get."""
    context, own = stream.codec_context, video.path.suffix.lower()
    facts = [stream.type, "" if context is None else context.name, stream.language or ""]
    what = f"stream {stream.index} ({', '.join(filter(None, facts))}) not kept, because"
    others = [suffix for suffix in CONTAINERS if _can_hold(CONTAINERS[suffix], [stream])]
    if others:
        return f"{what} {target.suffix} cannot hold it; -o FILE{own if own in others else others[0]} may"
    if stream.type != "audio" or is_part:
        return f"{what} {target.suffix} cannot hold it" if stream.type != "audio" else f"{what} PyAV does not write it"
    inputs = f"-i {shlex.quote(str(target))} -i {shlex.quote(str(video.path))}"
    maps = f"-map 0 -map 1:{stream.index} -c copy"
    if context is not None and context.name in _DISC_PCM:
        maps = f"-map 1:{stream.index} -map 0 -c copy -c:a:0 flac"  # the first one of the audio streams is encoded
    return f"{what} PyAV does not write it; try to add it afterwards: `ffmpeg {inputs} {maps} FILE.mkv`"


def _is_restored(container: Any, stream: Any) -> bool:
    """Return whether a stream of MP4 or MOV is made again from metadata: a timecode, or the titles of chapters."""
    if stream.type != "data" or "mp4" not in container.format.name:
        return False
    return "timecode" in stream.metadata or 0 < stream.frames == len(container.chapters())


def _can_hold(target_format: str, streams: Sequence[Any]) -> bool:
    try:
        with av.open(io.BytesIO(), "w", format=target_format) as probe:
            for stream in streams:
                _add_copy(probe, stream)
            probe.start_encoding()
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def _add_copy(container: Any, stream: Any) -> Any:
    """Add a stream that gets the packets of another one."""
    copy = container.add_stream_from_template(stream, opaque=True)
    layout = stream.codec_context.layout if stream.type == "audio" and container.format.name == "mp4" else None
    if layout is not None and all(channel.name == "NONE" for channel in layout.channels):
        # MP4 has to state the speakers of PCM, which AVI and Matroska do not; players assume these.
        copy.codec_context.layout = f"{layout.nb_channels}c"
    copy.metadata.update(stream.metadata)
    copy.disposition = stream.disposition
    return copy


def _is_stale(key: str) -> bool:
    """Return whether metadata are about the old file: its brand, program and alpha, or Matroska's statistics."""
    stale = ("encoder", "major_brand", "minor_version", "compatible_brands", "alpha_mode")
    return key.lower() in stale or re.match("(BPS|DURATION|NUMBER_OF_|_STATISTICS)", key) is not None


def _keep_metadata(metadata: Mapping[str, str], is_part: bool) -> dict[str, str]:
    """Return what still holds of the metadata of a video or its stream, or of a part that begins later."""
    kept = {key: value for key, value in metadata.items() if not _is_stale(key)}
    return {key: value for key, value in kept.items() if not (is_part and key.lower() == "timecode")}


def _options(container: str, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the options of a muxer.

    FFmpeg writes metadata of phones to MOV only if it writes all metadata in that way, which other players do not read.
    """
    is_phone = container == "mov" and any(key.lower().startswith(_APPLE) for key in metadata)
    return {"movflags": "use_metadata_tags"} if is_phone else {}


def _find_lost_metadata(container: str, metadata: Mapping[str, str]) -> list[str]:
    """Return the names of metadata that are missing after they were written to a container."""
    if container not in ("mp4", "mov") or not metadata:  # the other containers hold any
        return []
    file = io.BytesIO()
    with av.open(file, "w", format=container, container_options=_options(container, metadata)) as probe:
        probe.add_mux_stream("mpeg4", rate=25, width=16, height=16)
        probe.metadata.update(metadata)
        probe.start_encoding()
    file.seek(0)
    with av.open(file) as probe:
        found = {key.lower() for key in probe.metadata}
    return [key for key in metadata if key.lower() not in found]


def _find_replaced_metadata(container: Any) -> list[str]:
    """Return the names of metadata of which characters were replaced when they were read."""
    places = [container, *container.streams]
    found = [each.metadata for each in places] + [each["metadata"] for each in container.chapters()]
    return sorted(
        {key for metadata in found for key, value in metadata.items() if "\N{REPLACEMENT CHARACTER}" in value}
    )


def _keeps_stereo(container: str, video: Video) -> bool:
    """Return whether the output states that a video is stereo 3D, as only Matroska's tag does with square pixels.

    With others, Matroska would state another display size than that of the video.
    """
    tags = {key.lower() for key in video.metadata}
    return container in _ROUNDS_TIMES and "stereo_mode" in tags and video.properties.pixel_aspect in (None, 1)


def assemble(
    video: Video,
    target: Path,
    folder: SegmentFolder,
    segments: Sequence[Segment],
    encoding: Encoding,
    plan: StreamPlan,
    *,
    shift: int,
    end: int | None,
    is_part: bool,
    overwrite: bool,
) -> int:
    """Write the output.

    Args:
        video: The video.
        target: The output.
        folder: Where the segments are.
        segments: All segments in their order.
        encoding: How they are encoded.
        plan: The streams that are copied.
        shift: The time of the video at which the output begins.
        end: The time of the video before which the output ends; None is the end of the video.
        is_part: Whether the output begins later than the video.
        overwrite: Replace an existing file.

    Returns:
        How many damaged packets of the copied streams were skipped.

    Raises:
        VideoError: If it cannot be written.
    """
    num_damaged = 0

    def skip() -> None:
        nonlocal num_damaged
        num_damaged += 1

    base = video.properties.time_base
    begin, stop = shift * base, None if end is None else end * base
    container = CONTAINERS[target.suffix.lower()]
    try:
        with (
            files.atomic_write(target, overwrite=overwrite) as file,
            open_file(video.path) as source,
            open_file(folder.video_path(segments[0].number)) as first,
            OutputFile(file) as written,
            av.open(written, "w", format=container, container_options=_options(container, source.metadata)) as output,
        ):
            copies: dict[int, Any] = {}
            for stream in source.streams:
                if stream.index == video.stream_index:
                    track = _add_video(output, first.streams.video[0], video, encoding, is_part)
                elif stream.index in plan.copied:
                    copies[stream.index] = _add_copy(output, stream)
            output.metadata.update(_keep_metadata(source.metadata, is_part))
            output.set_chapters([*_cut_chapters(source.chapters(), begin, stop)])
            packets = [_video_packets(folder, segments, encoding, track, shift)]
            if with_packets := [
                source.streams[index] for index in copies if source.streams[index].type != "attachment"
            ]:
                wanted = _select_packets(source.demux(*with_packets), begin if is_part else None, stop)
                packets.append(_copied_packets(drop_misplaced(wanted, skip), copies, begin))
            for _, place, packet in heapq.merge(*packets, key=lambda each: each[:2]):
                try:
                    output.mux(packet)
                except (av.error.InvalidDataError, av.error.ArgumentError):
                    if place == _VIDEO_PLACE:
                        raise
                    skip()
                written.check()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = one_line(describe_error(error), 200)
        check = "try another container" if isinstance(error, ValueError) else "check the folder and its free disk space"
        remedy = f"{check}; the upscaled frames are in {folder.path}"
        raise VideoError(Problem.failure(target, f"cannot be written: {reason}", remedy)) from error
    return num_damaged


def _add_video(output: Any, template: Any, video: Video, encoding: Encoding, is_part: bool) -> Any:
    """Add the stream of upscaled frames."""
    stream = output.add_stream_from_template(template, opaque=True)
    stream.time_base = encoding.time_base
    stream.codec_context.framerate = encoding.rate
    if encoding.pixel_aspect is not None:
        stream.codec_context.sample_aspect_ratio = encoding.pixel_aspect
    if video.properties.display_matrix is not None:
        stream.set_display_matrix(video.properties.display_matrix)
    metadata = _keep_metadata(video.metadata, is_part)
    if not _keeps_stereo(output.format.name, video):
        metadata = {key: value for key, value in metadata.items() if key.lower() != "stereo_mode"}
    stream.metadata.update(metadata)
    if encoding.codec == "libx265" and output.format.name in ("mp4", "mov"):
        stream.codec_context.codec_tag = "hvc1"  # players of Apple show nothing else
    if encoding.codec in VPX and has_alpha(encoding.pixel_format):
        stream.metadata["alpha_mode"] = "1"  # without it, players and FFmpeg show opaque frames
    stream.disposition = video.disposition
    return stream


def _video_packets(
    folder: SegmentFolder, segments: Sequence[Segment], encoding: Encoding, stream: Any, shift: int
) -> Iterator[tuple[Fraction, int, Any]]:
    """Yield the packets of all segments with the times of their frames."""
    times = [time - shift for segment in segments for time in segment.times]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    gaps.append(segments[-1].last_duration or round(1 / encoding.rate / encoding.time_base))
    # A packet is decoded when the frame that is this number of frames before it in the order of decoding is shown.
    delay = 0
    for segment in segments:
        order = [number for number, _ in read_packets(folder.video_path(segment.number))]
        delay = max([delay, *(place - number for place, number in enumerate(order))])
    offset = place = 0
    for segment in segments:
        for number, packet in read_packets(folder.video_path(segment.number)):
            packet.pts = times[offset + number]
            packet.dts = times[place - delay] if place >= delay else times[0] - (delay - place) * gaps[0]
            packet.duration, packet.time_base, packet.stream = gaps[offset + number], encoding.time_base, stream
            yield packet.dts * encoding.time_base, _VIDEO_PLACE, packet
            place += 1
        offset += len(segment.times)


def _copied_packets(
    packets: Iterable[Any], copies: Mapping[int, Any], begin: Fraction
) -> Iterator[tuple[Fraction, int, Any]]:
    """Yield the packets of other streams with times from the beginning of the output, which is given in seconds."""
    for packet in packets:
        stream, base = packet.stream, packet.time_base
        if _is_picture(stream):
            packet.time_base, packet.pts, packet.dts = stream.time_base, 0, 0
        else:
            shift = round(begin / base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = copies[stream.index]
        yield _decoding_time(packet) * packet.time_base, 1 + stream.index, packet


def _select_packets(packets: Iterable[Any], begin: Fraction | None, stop: Fraction | None) -> Iterator[Any]:
    """Yield attached pictures, and packets between two times in seconds; None is the beginning or the end.

    Subtitles that are shown at one of these times are cut there.
    """
    for packet in packets:
        time = packet.dts if packet.pts is None else packet.pts
        if _is_picture(packet.stream):
            if packet.size:
                yield packet
        elif time is not None:  # otherwise it is the end of a stream
            last = time + max(packet.duration or 0, 1)
            is_before = begin is not None and last * packet.time_base <= begin
            if not is_before and (stop is None or time * packet.time_base < stop):
                if packet.stream.type in _CUT and packet.duration:
                    _cut_packet(packet, begin, stop)
                yield packet


def _cut_packet(packet: Any, begin: Fraction | None, stop: Fraction | None) -> None:
    """Limit when a packet is shown to what is between two times in seconds; None is the beginning or the end."""
    if begin is None and stop is None:
        return
    time = packet.dts if packet.pts is None else packet.pts
    last = time + packet.duration
    if begin is not None:
        time = max(time, round(begin / packet.time_base))
    if stop is not None:
        last = min(last, round(stop / packet.time_base))
    packet.pts = packet.dts = time
    packet.duration = max(last - time, 1)


def _is_picture(stream: Any) -> bool:
    return bool(stream.type == "video" and stream.disposition & av.stream.Disposition.attached_pic)


def drop_misplaced(packets: Iterable[Any], skip: Callable[[], None]) -> Iterator[Any]:
    """Yield packets in their order, without those of audio whose times are corrupt, which containers reject.

    A packet before the last one of its stream is dropped. After a jump of more than ``_JUMP_S``, packets are held until
    ``_CONFIRMING`` more have arrived; if one of those precedes the jump, what has jumped is dropped. The first packet
    counts as a jump.

    Args:
        packets: Packets with times, of several streams. What is not audio passes; its packets may be reordered.
        skip: Called for each packet that is dropped.
    """
    last: dict[int, Fraction] = {}  # the time of the last packet of each stream in seconds; the packet may be changed
    held: defaultdict[int, list[tuple[Any, Fraction]]] = defaultdict(list)
    queue: deque[Any] = deque()
    for packet in packets:
        if packet.stream.type == "audio":
            key, time = packet.stream.index, _decoding_time(packet) * packet.time_base
            place = _find_false_jump([each for _, each in held[key]], last.get(key), time)
            for dropped, _ in held[key][place:]:
                queue.remove(dropped)
                skip()
            del held[key][place:]
            previous = held[key][-1][1] if held[key] else last.get(key)
            if previous is not None and time < previous:
                skip()
                continue
            if held[key] or _jumps(previous, time):
                held[key].append((packet, time))
            if len(held[key]) > _CONFIRMING:
                held[key].clear()
            if not held[key]:
                last[key] = time
        queue.append(packet)
        while queue and all(queue[0] is not packet for each in held.values() for packet, _ in each):
            yield queue.popleft()
    yield from queue


def _find_false_jump(held: Sequence[Fraction], before: Fraction | None, time: Fraction) -> int:
    """Return the index of the first held packet that is misplaced, given the time of the next one, or ``len(held)``.

    Args:
        held: The times of the held packets.
        before: The time of the packet before them.
        time: The time of the next one.
    """
    for place in reversed(range(len(held))):
        previous = held[place - 1] if place else before
        is_after = previous is None or time >= previous
        if time < held[place] and is_after and _jumps(previous, held[place]):
            return place
    return len(held)


def _jumps(previous: Fraction | None, time: Fraction) -> bool:
    """Return whether a packet is far from the previous one of its stream, or the first one."""
    return previous is None or time - previous > _JUMP_S


def _decoding_time(packet: Any) -> Any:
    """Return when a packet is decoded, in its units."""
    return packet.pts if packet.dts is None else packet.dts


def _cut_chapters(chapters: Sequence[Any], begin: Fraction, stop: Fraction | None) -> Iterator[Any]:
    """Yield the chapters between two times in seconds."""
    for chapter in chapters:
        base = chapter["time_base"]
        start, end = chapter["start"] * base, chapter["end"] * base
        if end <= begin or (stop is not None and start >= stop):
            continue
        start, end = max(start, begin) - begin, (end if stop is None else min(end, stop)) - begin
        yield dict(chapter, start=round(start / base), end=round(end / base))
