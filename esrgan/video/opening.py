"""Open videos, choose the stream to upscale, and find when it begins and ends."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from esrgan.errors import Problem, VideoError
from esrgan.images.formats import SUFFIXES
from esrgan.paths import describe_path, suggest_path
from esrgan.text import describe_error, one_line

STDIN = Path("-")
A_VIDEO = "a video"
_Y4M = "yuv4mpegpipe"
_MICROSECOND = Fraction(1, av.time_base)
_PICTURES = ("image2", "alias_pix", "brender_pix", "fits", "txd")
_TEXTS = ("tty", "bin", "xbin", "adf", "idf")  # FFmpeg draws them
_COUNT_FROM_0 = ("matroska", "asf", "flv", "nut")  # durations, wherever the video begins
_PLAYLISTS = ("concat", "hls", "dash")


def refusal(path: Path, expected: str, got: str, remedy: str) -> VideoError:
    """Return the error that says why a file is refused."""
    return VideoError(Problem(str(path), expected, got, remedy))


def open_file(path: Path) -> Any:
    """Open a file for reading, whatever its name looks like; U+FFFD replaces what is not UTF-8 in metadata."""
    return av.open(f"file:{path}", metadata_errors="replace")


def check_is_video(path: Path) -> None:
    """Refuse paths that are no videos, before FFmpeg takes a picture or a text for one."""
    what, remedy = describe_path(path), "choose one file"
    if path.suffix.lower() in SUFFIXES:
        what, remedy = "an image", "`esrgan inference` upscales images and animations"
    elif what == "nothing":
        remedy = suggest_path(path, "check the path")
    if what != "a file":
        raise refusal(path, A_VIDEO, what, remedy)


def open_video(path: Path) -> Any:
    """Open a video file, or YUV4MPEG2 from standard input."""
    try:
        if path == STDIN:
            return av.open(sys.stdin.buffer, format=_Y4M)
        return open_file(path)
    except (av.error.FFmpegError, OSError) as error:
        got = f"a file that cannot be opened ({one_line(describe_error(error))})"
        raise refusal(path, A_VIDEO, got, "check that it plays in a player and is complete") from error


def choose_stream(container: Any, path: Path) -> Any:
    """Return the stream of an open file that is upscaled, the first that is no cover picture."""
    name = container.format.name
    if name in _PLAYLISTS:
        raise refusal(path, A_VIDEO, "a list of videos", "upscale each of them")
    if name.endswith("_pipe") or name in _PICTURES:
        raise refusal(path, A_VIDEO, "an image", "`esrgan inference` upscales images and animations")
    if name in _TEXTS:
        raise refusal(path, A_VIDEO, "a text", "choose another file")
    streams = [
        stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams:
        kinds = sorted({"a cover picture" if s.type == "video" else s.type for s in container.streams})
        got = f"a file with {' and '.join(kinds)} only" if kinds else "a file without streams"
        raise refusal(path, A_VIDEO, got, "choose another file")
    stream = streams[0]
    if stream.codec_context is None:
        remedy = "it may be protected against copying; convert it to another codec first"
        raise refusal(path, A_VIDEO, "a video of an unknown codec", remedy)
    stream.thread_type = "AUTO"
    return stream


def to_ticks(seconds: Fraction, begin: Fraction, base: Fraction) -> int:
    """Return the first time stamp that is not before a time from the beginning, given with microseconds."""
    return math.ceil((seconds + begin - _MICROSECOND) / base)


def find_begin(container: Any) -> Fraction:
    """Return when a video begins in seconds, which FFmpeg states in whole microseconds."""
    begin = Fraction(container.start_time or 0, av.time_base)
    times = [each.start_time * each.time_base for each in container.streams if each.start_time is not None]
    exact: Fraction = min(times, key=lambda time: abs(time - begin), default=begin)
    return exact if abs(exact - begin) <= _MICROSECOND else begin


def find_end(container: Any, stream: Any, begin: Fraction) -> Fraction | None:
    """Return when the last frame of a stream ends in seconds, as the container states it."""
    if container.format.name == "avi" and stream.frames:  # FFmpeg reduces the durations of a truncated file
        return begin + Fraction(stream.frames * stream.time_base)
    is_matroska = container.format.name.startswith("matroska")

    def to_end(duration: Fraction) -> Fraction:
        """Return the end; some containers count durations from 0, and FLV in either way, depending on its writer."""
        counts_from_0 = container.format.name.startswith(_COUNT_FROM_0) and duration > begin
        return duration if counts_from_0 else duration + begin

    end = to_end(Fraction(container.duration, av.time_base)) if container.duration else None
    tags = [key for key in sorted(stream.metadata) if key.startswith("DURATION")] if is_matroska else []
    for key in tags[:1]:  # that of FFmpeg precedes those with a language, which are of mkvmerge and may be stale
        with suppress(ValueError):  # such as 00:00:02.660000000
            hours, minutes, seconds = map(Fraction, stream.metadata[key].split(":"))
            stated = hours * 3600 + minutes * 60 + seconds
            return stated if end is None else min(stated, end)
    if stream.duration:
        return to_end(Fraction(stream.duration * stream.time_base))
    return end


def format_time(seconds: Fraction) -> str:
    """Format a time as 1:02:03.5."""
    whole, rest = divmod(seconds, 1)
    minutes, second = divmod(int(whole), 60)
    hours, minute = divmod(minutes, 60)
    digits = f"{float(rest):.6f}"[1:].rstrip("0").rstrip(".")
    return f"{hours}:{minute:02}:{second:02}{digits}"
