"""Upscale films frame by frame, while other threads decode what follows and encode what is done."""

from __future__ import annotations

import hashlib
import itertools
import math
import queue
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from esrgan import files
from esrgan.errors import Problem, VideoError
from esrgan.inference import OUTPUT_ENDING, Upscaler
from esrgan.video import colour, muxing
from esrgan.video.encoding import CONTAINERS, Encoding, choose_encoding
from esrgan.video.segments import FRAMES, Workplace, folder_of
from esrgan.video.source import Film, Shot, format_time

Pixels = NDArray[Any]
_Item = TypeVar("_Item")
_DECODED, _ENCODING = 3, 2  # frames that wait for the networks, and for the encoder
_AROUND_PX = 3  # around a pixel of the film that have to stand still too
_MISSING_S = 1  # between the last frame and the end that the film states, if that is noted
_SAMPLE = 1 << 20  # bytes at each end of a film that identify it


@dataclass(frozen=True)
class VideoOptions:
    """How films are read and written.

    Attributes:
        codec: Video codec of the output: h264, h265, vp9, av1, prores, ffv1, png or FFmpeg's name of an encoder; None
            keeps that of the film if it can be encoded, or chooses H.264.
        crf: Constant rate factor, in the units of the encoder; None chooses one at which losses are hard to see.
        pixel_format: FFmpeg's name of a pixel format; None keeps what the film has.
        start: Where the output begins, in seconds from the beginning of the film; None is its beginning.
        end: Where it ends; None is the end of the film.
        deinterlace: Make full frames of interlaced ones, which are refused otherwise.
        steady: Reduce flicker: where a frame differs from those before by at most so many 8-bit levels, keep the output
            from before. Each segment begins anew. None upscales all parts of all frames.
        overwrite: Replace an existing output.
    """

    codec: str | None = None
    crf: float | None = None
    pixel_format: str | None = None
    start: Fraction | None = None
    end: Fraction | None = None
    deinterlace: bool = False
    steady: float | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class VideoProgress:
    """How far the work on a film is.

    Attributes:
        frames: Frames that are done, those of an earlier attempt included.
        computed: Frames that were upscaled by this process.
        repeated: Frames of this process that are equal to the one before and were not upscaled again.
        total: All frames, as far as the film says; None if it does not.
    """

    frames: int
    computed: int
    repeated: int
    total: int | None


def plan_target(source: Path, out: Path | None) -> Path:
    """Return the path of the output: a file, or a name next to the film or in a folder.

    Raises:
        VideoError: If the suffix is that of no container that is written, or the output is the film itself.
    """
    if out is not None and out.suffix and not out.is_dir():
        target = out
    else:
        suffix = source.suffix if source.suffix.lower() in CONTAINERS else ".mkv"
        target = (source.parent if out is None else out) / f"{source.stem}{OUTPUT_ENDING}{suffix}"
    if target.suffix.lower() not in CONTAINERS:
        expected = f"a file that ends with {', '.join(CONTAINERS)}"
        raise VideoError(Problem(str(target), expected, target.suffix, "choose another suffix"))
    if target.exists() and source.exists() and target.samefile(source):
        raise VideoError(Problem.failure(target, "is the film itself", "choose another name with -o"))
    return target


class VideoJob:
    """The work on one film, which several processes can share.

    Args:
        upscaler: The upscaler.
        source: The film.
        target: The output.
        options: How to read and write.

    Attributes:
        film: The film.
        encoding: How the output is encoded.

    Raises:
        VideoError: If the film cannot be read, the output cannot hold it, or exists already.
    """

    def __init__(self, upscaler: Upscaler, source: Path, target: Path, options: VideoOptions) -> None:
        if target.exists() and not options.overwrite:
            left = folder_of(target)  # of a process that was killed just before it deleted the folder
            remedy = f"{left} can be deleted if this film is complete, or " if left.exists() else ""
            remedy += "choose another -o, or add --overwrite"
            raise VideoError(Problem(str(target), "a new file", "a file", remedy))
        files.check_output_path(target)
        self.upscaler, self.target, self.options = upscaler, target, options
        self.film = Film(source, deinterlace=options.deinterlace)
        self._start, self._end = _to_ticks(options, self.film)
        self.encoding = _choose_encoding(upscaler, self.film, target, options)
        self.encoding.check()
        self.workplace = Workplace(target, self._identify())

    def describe(self) -> str:
        """Describe the film and the output in one line."""
        facts, encoding = self.film.facts, self.encoding
        size = f"{facts.width}×{facts.height} {facts.pixel_format}"
        return f"{size} to {encoding.width}×{encoding.height} {encoding.pixel_format}, {encoding.codec}"

    def notes(self) -> list[str]:
        """Return sentences about what the output does not keep of the film."""
        return [*self.encoding.notes, *muxing.describe_losses(self.film, self.target)]

    @property
    def num_frames(self) -> int | None:
        """The number of frames of the output, as far as the film says."""
        total, facts = self.film.facts.num_frames, self.film.facts
        if total is None or (self._start is None and self._end is None):
            return total
        last = total / facts.rate if self.options.end is None else min(self.options.end, total / facts.rate)
        return max(round((last - (self.options.start or 0)) * facts.rate), 0)

    def upscale(self, process: int = 0, processes: int = 1) -> Iterator[VideoProgress]:
        """Upscale the segments of this process that are not complete yet.

        Args:
            process: The number of this process.
            processes: How many processes share the work; each takes every so manieth segment.

        Yields:
            The progress after each frame.

        Raises:
            VideoError: If the film has damaged parts that cannot be skipped, or a segment cannot be written.
            EsrganError: If the device has too little memory, or another process works on the film.
        """
        with self.workplace.open(process):
            done = self.workplace.find_segments()
            first = next(number for number in itertools.count() if number not in done)
            if first and self.film.can_skip:
                segment = done[first - 1]
                first = first if self.film.skip_to(segment.times[-1], segment.last_digest) else 0
            elif self._start and self.film.can_skip:
                self.film.skip_to(self._start)

            def prepare() -> Iterator[tuple[int, Shot, Any]]:
                """Yield each frame with its segment, and its pixels if that has to be made, or None."""
                for place, shot in enumerate(self.film.shots(self._start, self._end)):
                    number = first + place // FRAMES
                    is_wanted = number % processes == process and number not in done
                    yield number, shot, colour.to_pixels(shot.frame, self.film.facts.coding) if is_wanted else None

            frames, upscale_frame = first * FRAMES, FrameUpscaler(self.upscaler, self.options.steady)
            for number, group in itertools.groupby(_ahead(prepare(), _DECODED), key=lambda each: each[0]):
                if number % processes != process or number in done:
                    frames += sum(1 for _ in group)
                    continue
                with (
                    self.workplace.write(number, self.encoding) as writer,
                    _Encoder(self.encoding, writer.add) as encoder,
                ):
                    upscale_frame.begin_segment()
                    for _, shot, pixels in group:
                        encoder.add(shot, upscale_frame(pixels))
                        frames += 1
                        yield VideoProgress(frames, upscale_frame.computed, upscale_frame.repeated, self.num_frames)

    def assemble(self) -> list[str]:
        """Write the output from the segments, and delete them.

        Returns:
            Sentences about what could not be read from the film.

        Raises:
            VideoError: If segments are missing, there is no frame, or the output cannot be written.
        """
        segments = [segment for _, segment in sorted(self.workplace.find_segments().items())]
        if not segments:
            self.workplace.delete()
            remedy = "check --start and --end" if self._start is not None or self._end is not None else "check the film"
            raise VideoError(Problem(str(self.film.path), "at least one frame", "none", remedy))
        if missing := [i for i, segment in enumerate(segments) if segment.number != i]:
            got = f"segment {missing[0]} is missing"
            raise VideoError(Problem.failure(self.workplace.folder, got, "the same command continues"))
        shift = 0 if self._start is None else segments[0].times[0]
        muxing.assemble(
            self.film,
            self.target,
            self.workplace,
            segments,
            self.encoding,
            shift=shift,
            end=self._end,
            overwrite=self.options.overwrite,
        )
        self.workplace.delete()
        facts, damage = self.film.facts, self.film.damage
        last = segments[-1].times[-1] * facts.time_base
        if self._end is None and facts.end is not None and facts.end - last > _MISSING_S:
            found, stated = (format_time(time - facts.begin) for time in (last, facts.end))
            damage.ended_early = f"{damage.ended_early} at {found} of {stated}".strip()
        return [*damage.notes()]

    def _identify(self) -> dict[str, Any]:
        """Return what decides the content of the segments, for comparison with an earlier attempt."""
        path = self.film.path
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(_SAMPLE))
            file.seek(-min(_SAMPLE, path.stat().st_size), 2)
            digest.update(file.read())
        models = hashlib.sha256()
        for network in self.upscaler.networks:
            for name, value in network.state_dict().items():
                models.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        encoding = {name: str(value) for name, value in asdict(self.encoding).items() if name != "notes"}
        options = {name: str(value) for name, value in asdict(self.options).items() if name != "overwrite"}
        return {
            "film": [path.stat().st_size, digest.hexdigest()],
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
    """Upscale a film; sound, subtitles, chapters, attachments and metadata are copied, and all times stay exact.

    This is a generator: nothing happens until it is iterated. The work is done in segments, which are kept in the
    folder ``<target>.parts``. After an interruption, even a crash, the same call continues.

    Args:
        upscaler: The upscaler; it cannot be seamless.
        source: The film.
        target: The output: .mkv, .mp4, .m4v, .mov, .webm or .ts.
        options: How to read and write.

    Yields:
        The progress after each frame.

    Raises:
        VideoError: If the film cannot be read, the output cannot be written or exists, or the folder with the segments
            is of another model or other options.
        EsrganError: If PyAV is not installed, the device has too little memory, or another process works on the film.

    Example:
        >>> from esrgan import Upscaler, upscale_video
        >>> upscaler = Upscaler.from_file("realesr-animevideov3")
        >>> for progress in upscale_video(upscaler, "film.mp4", "film_sr.mp4"):
        ...     print(progress.frames, "of", progress.total)
    """
    job = VideoJob(upscaler, Path(source), Path(target), options)
    yield from job.upscale()
    job.assemble()


def pipe_video(
    upscaler: Upscaler, source: Path, out: BinaryIO, options: VideoOptions = VideoOptions()
) -> Iterator[VideoProgress]:
    """Upscale a film to YUV4MPEG2 (.y4m), frame by frame, for other programs to read.

    Args:
        upscaler: The upscaler.
        source: The film, or ``-`` for YUV4MPEG2 from standard input.
        out: Where the output is written.
        options: How to read; those of encoders are not used.

    Yields:
        The progress after each frame.

    Raises:
        VideoError: If the film cannot be read.
        BrokenPipeError: If the reader has gone.
    """
    film = Film(source, deinterlace=options.deinterlace)
    start, end = _to_ticks(options, film)
    if start and film.can_skip:
        film.skip_to(start)
    encoding = _choose_encoding(upscaler, film, None, options)
    coding, total = film.facts.coding, film.facts.num_frames
    container = av.open(out, "w", format="yuv4mpegpipe", options={"strict": "-1"})  # allows more than 8 bits
    stream: Any = container.add_stream(encoding.codec, encoding.rate)
    encoding.configure(stream.codec_context)

    def write(time: int, frame: VideoFrame, _: str) -> None:
        frame.pts, frame.time_base = time, encoding.time_base
        container.mux(stream.encode(frame))

    upscale_frame = FrameUpscaler(upscaler, options.steady)
    shots = ((shot, colour.to_pixels(shot.frame, coding)) for shot in film.shots(start, end))
    with container:
        with _Encoder(encoding, write) as encoder:
            for number, (shot, pixels) in enumerate(_ahead(shots, _DECODED), 1):
                encoder.add(shot, upscale_frame(pixels))
                yield VideoProgress(number, upscale_frame.computed, upscale_frame.repeated, total)
        container.mux(stream.encode(None))


def _to_ticks(options: VideoOptions, film: Film) -> tuple[int | None, int | None]:
    """Return where the output begins and ends, in units of the film's time base."""
    base, begin = film.facts.time_base, film.facts.begin
    start, end = (None if time is None else math.ceil((time + begin) / base) for time in (options.start, options.end))
    return start, end


def _choose_encoding(upscaler: Upscaler, film: Film, target: Path | None, options: VideoOptions) -> Encoding:
    """Choose how the output of an upscaler is encoded."""
    return choose_encoding(
        film.facts,
        upscaler.output_size(film.facts.height, film.facts.width),
        target,
        has_colour=True if upscaler.is_colouriser else None,
        codec=options.codec,
        crf=options.crf,
        pixel_format=options.pixel_format,
    )


class FrameUpscaler:
    """Upscales the frames of a film, unless they are equal to the one before.

    Args:
        upscaler: The upscaler.
        steady: As in ``VideoOptions``.

    Attributes:
        computed: Frames that were upscaled.
        repeated: Frames that were equal to the one before.
    """

    def __init__(self, upscaler: Upscaler, steady: float | None = None) -> None:
        self.computed = self.repeated = 0
        self._upscaler, self._steady = upscaler, steady
        self._last: tuple[Pixels, Pixels] | None = None
        self._held: Pixels | None = None  # the film's pixels that each part of the last output was made from

    def begin_segment(self) -> None:
        """Let the next frame not depend on those before, so that segments can be made in any order."""
        if self._steady is not None:
            self._last = None

    def __call__(self, pixels: Pixels) -> Pixels:
        """Return an upscaled frame (H, W, C); it is the same array as before for an equal frame."""
        if self._last is not None and np.array_equal(pixels, self._last[0]):
            self.repeated += 1
            return self._last[1]
        high: Pixels = self._upscaler(pixels)
        self.computed += 1
        if self._steady is not None and self._last is not None and self._held is not None:
            high = hold_still_parts(pixels, self._held, high, self._last[1], self._steady)
        else:
            self._held = pixels.copy()
        self._last = pixels, high
        return high


def hold_still_parts(pixels: Pixels, held: Pixels, high: Pixels, last: Pixels, tolerance: float) -> Pixels:
    """Keep the parts of the last output where the film stands still.

    Args:
        pixels: A frame of the film (H, W, C).
        held: The pixels that each part of the last output was made from; those of parts that move are replaced by the
            new ones. So slow changes are not missed.
        high: The upscaled frame (H', W', C').
        last: The last output.
        tolerance: Largest difference of a pixel that stands still, and of those around it, in 8-bit levels.

    Returns:
        The frame, with soft transitions between both.
    """
    unit = np.iinfo(pixels.dtype).max / 255
    difference = np.abs(pixels.astype(np.float32) - held).max(axis=2)
    moves = (torch.from_numpy(difference) > tolerance * unit).float()[None, None]
    moves = F.max_pool2d(moves, 2 * _AROUND_PX + 1, 1, _AROUND_PX)
    is_moving = moves[0, 0].numpy() > 0
    held[is_moving] = pixels[is_moving]
    weight = F.interpolate(moves, high.shape[:2], mode="bilinear", align_corners=False)[0, 0, :, :, None].numpy()
    blend: Pixels = np.rint(last + (high.astype(np.float32) - last) * weight).astype(high.dtype)
    return blend


class _Encoder:
    """Encodes frames in a thread of its own; an error is raised by one of the next calls.

    Args:
        encoding: How they are encoded.
        add: Takes the time of a frame, the frame, and the checksum of the film's frame.
    """

    def __init__(self, encoding: Encoding, add: Any) -> None:
        self.encoding, self._add = encoding, add
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()
        self._made: tuple[Pixels, Any] | None = None

    def __enter__(self) -> _Encoder:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        for future in () if kind is not None else self._waiting:
            future.result()

    def add(self, shot: Shot, high: Pixels) -> None:
        """Encode a frame, after those before it."""
        while len(self._waiting) >= _ENCODING:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._encode, shot, high))

    def _encode(self, shot: Shot, high: Pixels) -> None:
        if self._made is None or self._made[0] is not high:  # a repeated frame is not converted again
            pixels = fit_channels(high[: self.encoding.height, : self.encoding.width], self.encoding.pixel_format)
            self._made = high, colour.to_frame(pixels, self.encoding.pixel_format, self.encoding.coding)
        self._add(shot.time, self._made[1], shot.digest())


def fit_channels(pixels: Pixels, pixel_format: str) -> Pixels:
    """Add or remove alpha, and make grey pixels RGB, as a pixel format needs it."""
    has_alpha, is_grey = pixels.shape[2] in (2, 4), pixels.shape[2] <= 2
    needs_alpha, needs_grey = colour.has_alpha(pixel_format), colour.is_grey(pixel_format)
    colours = pixels[..., : pixels.shape[2] - has_alpha]
    if is_grey and not needs_grey:
        colours = colours.repeat(3, axis=2)
    if not needs_alpha:
        return colours
    opaque = np.full_like(colours[..., :1], np.iinfo(pixels.dtype).max)
    return np.concatenate([colours, pixels[..., -1:] if has_alpha else opaque], axis=2)


def _ahead(items: Iterator[_Item], count: int) -> Iterator[_Item]:
    """Yield items that a thread makes, at most so many in advance; errors of the thread are raised here."""
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(count)
    is_closed = threading.Event()

    def put(is_item: bool, value: Any) -> bool:
        while not is_closed.is_set():
            try:
                made.put((is_item, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(True, item):
                    return
            put(False, None)
        except BaseException as error:
            put(False, error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = made.get()
            if is_item:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        is_closed.set()
        thread.join()
