"""Parts of videos that are missing."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from esrgan.console import log
from esrgan.text import format_count
from esrgan.video.decoding import describe_gaps
from esrgan.video.opening import format_time
from esrgan.video.source import Video

_MISSING_S = 1  # between two frames, or the last one and the end that the video states, if that is noted
_LARGEST_STEP = 1.75  # steps between two frames, if a frame that is lost leaves nothing else behind
_EVEN_STEPS = 100  # steps between frames for each uneven one, if a video has a constant frame rate


def note_missing_parts(video: Video, times: Sequence[int], last_duration: int, end: int | None) -> None:
    """Note it if a video ends earlier than it states, or a video of a constant frame rate has gaps."""
    properties, errors, base = video.properties, video.errors, video.properties.time_base
    steps = [after - before for before, after in itertools.pairwise(times)]
    step = statistics.median(steps) if steps else 0
    longest = step * _LARGEST_STEP if video.can_lose_frames else step + _MISSING_S / base
    num_uneven = sum(abs(each - step) > step / 2 for each in steps)
    if num_uneven * _EVEN_STEPS <= len(steps):  # otherwise a long step can be a picture that stands still
        pairs = itertools.compress(itertools.pairwise(times), (each > longest for each in steps))
        gaps = list(pairs)
        ends = ([format_time(time * base - properties.begin) for time in pair] for pair in gaps)
        named = [f"between {before} and {after}" for before, after in ends]
        is_long = any((after - before - step) * base > _MISSING_S for before, after in gaps)
        if is_long or errors.is_damaged or errors.counts["marked packets"]:
            errors.gaps = named
        elif named:  # as where a recording has left out a frame
            log.info("%s: frames may be missing %s", video.path, describe_gaps(named))
    if errors.counts["marked packets"] and not errors.is_damaged:
        marked = format_count(errors.counts["marked packets"], "packet")
        log.info("%s: %s marked as damaged, as where parts are joined", video.path, marked)
    last = (times[-1] + round(max(last_duration, step))) * base
    if end is None and properties.end is not None and properties.end - last > _MISSING_S:
        found, stated = (format_time(time - properties.begin) for time in (last, properties.end))
        errors.ended_early = f"{errors.ended_early} at {found} of {stated}".strip()
