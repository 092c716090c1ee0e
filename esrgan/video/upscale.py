"""Upscale videos frame by frame, in segments that survive interruptions."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import av

from esrgan import files, version
from esrgan.console import log
from esrgan.errors import Problem, VideoError
from esrgan.inference import OUTPUT_ENDING, Upscaler
from esrgan.paths import find_name_problem
from esrgan.text import describe_error
from esrgan.video import muxing, pipeline
from esrgan.video.decoding import TimedFrame
from esrgan.video.encoding import CONTAINERS
from esrgan.video.missing import note_missing_parts
from esrgan.video.options import DECODED, VideoOptions, VideoProgress, count_frames, encode_for, find_limits
from esrgan.video.pipeline import FrameEncoder, FrameUpscaler, batches, make_ahead
from esrgan.video.segments import FRAMES, SegmentFolder, folder_of
from esrgan.video.source import Video

_SAMPLES, _SAMPLE = 16, 1 << 20  # parts of a video, and bytes of each, that identify it


def plan_target(source: Path, out: Path | None) -> Path:
    """Return the path of the output: a file, or a name next to the video or in a folder.

    Raises:
        VideoError: If the suffix is that of no container that is written, or the output is the video itself.
    """
    if out is not None and out.suffix and not out.is_dir():
        target = out
    else:
        suffix = source.suffix if source.suffix.lower() in CONTAINERS else ".mkv"
        target = (source.parent if out is None else out) / f"{source.stem}{OUTPUT_ENDING}{suffix}"
    check_target(source, target)
    return target


def check_target(source: Path, target: Path) -> None:
    """Refuse outputs of an unknown container or with a name that is too long, and the video itself.

    Raises:
        VideoError: If it is one of them.
    """
    if target.suffix.lower() not in CONTAINERS:
        expected = f"a file that ends with {', '.join(CONTAINERS)}"
        raise VideoError(Problem(str(target), expected, target.suffix or "no suffix", "choose another suffix"))
    for path in (target, folder_of(target)):
        if problem := find_name_problem(path):
            raise VideoError(problem)
    if target.exists() and source.exists() and target.samefile(source):
        raise VideoError(Problem.failure(target, "is the video itself", "choose another name with -o"))


class _Prepared(NamedTuple):
    """A frame that waits for the networks.

    Attributes:
        segment: The number of its segment.
        shot: The frame.
        pixels: Its pixels, if the segment has to be made.
        errors: What could not be read of the video up to this frame. It is counted where frames are decoded, which may
            be some frames ahead.
    """

    segment: int
    shot: TimedFrame
    pixels: Any
    errors: Counter[str]


class VideoJob:
    """The work on one video, which several processes can share. A ``with`` block closes the video at its end.

    Args:
        upscaler: The upscaler.
        source: The video.
        target: The output.
        options: How to read and write.

    Attributes:
        video: The video.
        encoding: How the output is encoded.

    Raises:
        VideoError: If the video cannot be read, the output cannot hold it, or exists already.
    """

    def __init__(self, upscaler: Upscaler, source: Path, target: Path, options: VideoOptions) -> None:
        check_target(source, target)
        if os.path.lexists(target) and not options.overwrite:
            left = folder_of(target)  # of a process that was killed just before it deleted the folder
            remedy = f"{left} can be deleted if this video is complete, or " if left.exists() else ""
            remedy += "choose another -o, or add --overwrite"
            raise VideoError(Problem(str(target), "a new file", "a file", remedy))
        files.check_output_path(target)
        files.remove_abandoned(target.parent)
        self.upscaler, self.target, self.options = upscaler, target, options
        self.video = Video(source, deinterlace=options.deinterlace, start=options.start)
        try:
            self._start, self._end = find_limits(options, self.video)
            self.encoding = encode_for(upscaler, self.video, target, options)
            self._streams = muxing.plan_streams(self.video, target, self.encoding, is_part=bool(options.start))
            self.folder = SegmentFolder(target, self._identify())
        except BaseException:
            self.video.close()
            raise

    def __enter__(self) -> VideoJob:
        return self

    def __exit__(self, *_: object) -> None:
        self.video.close()

    def describe(self) -> str:
        """Describe the video and the output in one line."""
        properties, encoding = self.video.properties, self.encoding
        size = f"{properties.width}×{properties.height} {properties.pixel_format}"
        return f"{size} to {encoding.width}×{encoding.height} {encoding.pixel_format}, {encoding.codec}"

    def notes(self) -> list[str]:
        """Return sentences about what the output does not keep of the video."""
        return [*self.encoding.notes, *self._streams.notes]

    @property
    def num_frames(self) -> int | None:
        """The number of frames of the output, as far as the video says."""
        return count_frames(self.video, self.options)

    def upscale(self, process: int = 0, processes: int = 1) -> Iterator[VideoProgress]:
        """Upscale the segments of this process that are not complete yet.

        Args:
            process: The number of this process.
            processes: How many processes share the work; process p takes segments p, p + processes, and so on.

        Yields:
            The progress at the start if there are complete segments, and after each frame.

        Raises:
            VideoError: If the video has damaged parts that cannot be skipped, or a segment cannot be written.
            EsrganError: If the device has too little memory, or another process works on the video.
        """
        with self.folder.lock(process):
            self.folder.check_job()
            done = self.folder.find_segments()
            first = next(number for number in itertools.count() if number not in done)
            if first:
                last = done[first - 1]
                can_resume = self.video.can_skip and self.video.skip_to(last.times[-1], last.last_digest)
                first = first if can_resume else 0
            errors = Counter(self.video.errors.counts) if first else Counter()  # before the next segment

            def prepare() -> Iterator[_Prepared]:
                """Yield the frames; the last one comes with the errors after it."""
                prepared = None
                for place, shot in enumerate(self.video.shots(self._start, self._end)):
                    if prepared:
                        yield prepared
                    number = first + place // FRAMES
                    is_wanted = number % processes == process and number not in done
                    pixels = self.video.to_pixels(shot.frame) if is_wanted else None
                    prepared = _Prepared(number, shot, pixels, Counter(self.video.errors.counts))
                if prepared:
                    yield prepared._replace(errors=Counter(self.video.errors.counts))

            frames = sum(len(done[number].times) for number in range(first))
            upscale_frames = FrameUpscaler(self.upscaler, self.options.steady)
            if frames:
                yield VideoProgress(frames, 0, 0, self.num_frames)
            together = pipeline.num_together(self.upscaler, self.video.properties.height, self.video.properties.width)
            for number, group in itertools.groupby(
                make_ahead(self.upscaler, prepare(), DECODED), key=lambda each: each.segment
            ):
                before = errors
                if number % processes != process or number in done:
                    for each in group:
                        frames, errors = frames + 1, each.errors
                    continue
                with (
                    self.folder.write(number, self.encoding) as writer,
                    FrameEncoder(self.upscaler, self.encoding, writer.add) as encoder,
                ):
                    upscale_frames.begin_segment()
                    for batch in batches(group, together):
                        highs = upscale_frames([each.pixels for each in batch])
                        for each, high in zip(batch, highs, strict=True):
                            encoder.add(each.shot, high)
                            frames, errors = frames + 1, each.errors
                            counts = upscale_frames.computed, upscale_frames.repeated
                            yield VideoProgress(frames, *counts, self.num_frames)
                    writer.errors = errors - before

    def assemble(self) -> list[str]:
        """Write the output from the segments, and delete them.

        Returns:
            Sentences about what could not be read from the video.

        Raises:
            VideoError: If segments are missing, there is no frame, or the output cannot be written.
        """
        with self.folder.finish():
            segments = [segment for _, segment in sorted(self.folder.find_segments().items())]
            if missing := [i for i, segment in enumerate(segments) if segment.number != i]:
                got = f"segment {missing[0]} is missing"
                raise VideoError(Problem.failure(self.folder.path, got, "run the same command to resume"))
            if segments:
                num_damaged = muxing.assemble(
                    self.video,
                    self.target,
                    self.folder,
                    segments,
                    self.encoding,
                    self._streams,
                    shift=segments[0].times[0] if self.options.start else self.video.clock_start,
                    end=self._end,
                    is_part=bool(self.options.start),
                    overwrite=self.options.overwrite,
                )
        if not segments:
            remedy = (
                "check --start and --end" if self._start is not None or self._end is not None else "check the video"
            )
            raise VideoError(Problem(str(self.video.path), "at least one frame", "none", remedy))
        errors = (Counter(segment.errors) for segment in segments)  # also of earlier attempts and other processes
        self.video.errors.counts = sum(errors, Counter({"other streams": num_damaged}))
        times = [time for segment in segments for time in segment.times]
        note_missing_parts(self.video, times, segments[-1].last_duration, self._end)
        return [*self.video.errors.notes()]

    def _identify(self) -> dict[str, Any]:
        """Return what decides the content of the segments, for comparison with an earlier attempt."""
        path = self.video.path
        try:
            size, digest = path.stat().st_size, hashlib.sha256()
            with path.open("rb") as file:
                for place in range(_SAMPLES):
                    file.seek(max(size - _SAMPLE, 0) * place // (_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE))
        except OSError as error:
            what = f"cannot be read: {describe_error(error)}"
            raise VideoError(Problem.failure(path, what, "check the disk that it is on")) from error
        models = hashlib.sha256()
        for network in self.upscaler.networks:
            for name, value in network.state_dict().items():
                models.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        encoding = {name: str(value) for name, value in asdict(self.encoding).items() if name != "notes"}
        options = {name: str(value) for name, value in asdict(self.options).items() if name != "overwrite"}
        return {
            "version": [version.__version__, av.__version__],
            "video": [size, digest.hexdigest()],
            "model": models.hexdigest(),
            "precision": self.upscaler.arithmetic,
            "model options": {name: str(value) for name, value in asdict(self.upscaler.options).items()},
            "options": options,
            "encoding": encoding,
            "segment length": FRAMES,
        }


def upscale_video(
    upscaler: Upscaler, source: str | Path, target: str | Path, options: VideoOptions = VideoOptions()
) -> Iterator[VideoProgress]:
    """Upscale a video; audio, subtitles, chapters, attachments and metadata are copied, and timestamps stay exact.

    This is a generator: nothing happens until it is iterated. The work is done in segments, which are kept in the
    folder ``<target>.parts``. After an interruption, even a crash, the same call resumes. The logger "esrgan" gets what
    the output does not keep and, as warnings, what could not be read from the video.

    Args:
        upscaler: The upscaler.
        source: The video.
        target: The output: .mkv, .mp4, .m4v, .mov or .webm.
        options: How to read and write.

    Yields:
        The progress at the start if there are complete segments, and after each frame.

    Raises:
        VideoError: If the video cannot be read, the output cannot be written or exists, or the folder with the segments
            is of another model or other options.
        EsrganError: If PyAV is not installed, the device has too little memory, or another process works on the video.

    Example:
        >>> from esrgan import Upscaler, upscale_video
        >>> upscaler = Upscaler.from_file("realesr-animevideov3")
        >>> for progress in upscale_video(upscaler, "film.mp4", "film_sr.mp4"):
        ...     print(progress.frames, "of", progress.total)
    """
    with VideoJob(upscaler, Path(source), Path(target), options) as job:
        for note in job.notes():
            log.info("%s: %s", target, note)
        yield from job.upscale()
        for note in job.assemble():
            log.warning("%s: %s", source, note)
