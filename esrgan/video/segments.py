"""The work on a video on disk: encoded segments, each with the times of its frames, and what they were made with.

A segment is complete once its description exists, which is written last. So a killed process loses at most the segment
that it was working on.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
from av.video.frame import VideoFrame

from esrgan import files
from esrgan.errors import Problem, VideoError
from esrgan.locks import lock
from esrgan.paths import is_litter
from esrgan.text import describe_error, one_line
from esrgan.video.decoding import TimedFrame
from esrgan.video.encoding import Encoding, fits
from esrgan.video.opening import open_file

FRAMES = 48  # of a segment; a fixed number, so that a resumed video has the same segments
_MS = Fraction(1, 1000)
_FIRST_MS = 60_000  # time of a segment's first frame in its file, so that decoding times are not negative
_JOB = "job.json"
_IS_WINDOWS = os.name == "nt"
_OWN_FILES = re.compile(r"job\.json|lock\d+|\d{6,}\.(mkv|json)|\.esrgan-\w+\.tmp")


@dataclass(frozen=True)
class Segment:
    """The description of a complete segment.

    Attributes:
        number: Its number, from 0.
        times: The times of its frames, in units of the video's time base.
        last_digest: Checksum of the decoded frame at the last of these times.
        last_duration: How long that frame is shown, in the same units; 0 if the video does not say.
        errors: What could not be read there, as in ``ReadErrors.counts``.
    """

    number: int
    times: tuple[int, ...]
    last_digest: str
    last_duration: int
    errors: Mapping[str, int]


def folder_of(target: Path) -> Path:
    """Return the folder with the segments of an output."""
    return target.with_name(f"{target.name}.parts")


class SegmentFolder:
    """The folder with the segments of a video, next to the output.

    Args:
        target: The output.
        job: What decides the content of the segments, as it is stored in JSON.

    Attributes:
        path: The folder.
    """

    def __init__(self, target: Path, job: Mapping[str, Any]) -> None:
        self.path = folder_of(target)
        self.job = json.loads(json.dumps(job))

    @contextmanager
    def lock(self, process: int) -> Iterator[None]:
        """Create the folder if it is missing, and lock it for one of the processes that work on the video.

        Raises:
            VideoError: If the folder is not one of segments, or cannot be written.
            EsrganError: If another process holds the lock.
        """
        got = "a file" if self.path.is_file() else "a folder with other files"
        if self.path.is_file() or any(not _is_removable(path) for path in self._files()):
            remedy = "move it away, or choose another -o"
            raise VideoError(Problem(str(self.path), "a folder for segments", got, remedy))
        with ExitStack() as stack:
            with self.explain_errors():
                self.path.mkdir(parents=True, exist_ok=True)
                files.remove_abandoned(self.path)
                path = self.path / f"lock{process}"
                stack.enter_context(lock(path, f"{self.path}: another process works on this video"))
            yield

    def _files(self) -> list[Path]:
        """Return the files in the folder, except those that NFS keeps because they are open, although deleted."""
        found = self.path.iterdir() if self.path.is_dir() else ()
        return [path for path in found if not path.name.startswith(".nfs")]

    @contextmanager
    def explain_errors(self) -> Iterator[None]:
        """Turn errors of the file system in the block into messages."""
        try:
            yield
        except OSError as error:
            reason = one_line(describe_error(error))
            remedy = "check the folder and its free disk space, and run the same command to resume"
            raise VideoError(Problem.failure(self.path, f"cannot be written: {reason}", remedy)) from error

    def check_job(self) -> None:
        """Check that the segments are of this job, and note the job if there are none.

        Raises:
            VideoError: If they are of another one, or the folder cannot be written.
        """
        path = self.path / _JOB
        if not path.exists():
            with self.explain_errors(), files.atomic_write(path) as file:
                file.write(json.dumps(self.job, indent=1).encode())
            return
        try:
            before = json.loads(path.read_bytes())
        except ValueError:
            before = {}
        differences = [*_find_differences(before, self.job)]
        if differences:
            got = f"segments of another {', another '.join(differences)}"
            remedy = "to begin again, delete this folder or choose another -o; the same command as before resumes"
            raise VideoError(Problem(str(self.path), "segments of this video", got, remedy))

    def find_segments(self) -> dict[int, Segment]:
        """Return the complete segments by their numbers."""
        found = {}
        for path in self.path.glob("[0-9]*.json"):
            with suppress(ValueError, TypeError, KeyError, OSError):  # damaged by a power loss
                content = json.loads(path.read_bytes())
                if self.video_path(content["number"]).stat().st_size == content.pop("size"):
                    content["times"] = tuple(content["times"])
                    found[content["number"]] = Segment(**content)
        return found

    def video_path(self, number: int) -> Path:
        """Return the path of a segment's video."""
        return self.path / f"{number:06}.mkv"

    @contextmanager
    def write(self, number: int, encoding: Encoding) -> Iterator[SegmentWriter]:
        """Write a segment; it is complete when the block ends."""
        with self.explain_errors(), files.atomic_write(self.video_path(number)) as file:
            writer = SegmentWriter(file, encoding)
            yield writer
            writer.finish()
        segment = Segment(number, tuple(writer.times), writer.last_digest, writer.last_duration, dict(writer.errors))
        content = asdict(segment) | {"size": self.video_path(number).stat().st_size}
        with self.explain_errors(), files.atomic_write(self.path / f"{number:06}.json") as file:
            file.write(json.dumps(content).encode())

    @contextmanager
    def finish(self) -> Iterator[None]:
        """Lock the folder as process 0, and remove it at the end of the block, unless the block raises an error.

        Windows does not delete open files, and NFS keeps them under other names. So what is left is removed once the
        lock is free. Another process may have taken it then; what that process has open stays.
        """
        with self.lock(0):
            yield
            for path in sorted(self._files(), key=lambda path: path.suffix != ".json"):  # videos after what counts them
                if _is_removable(path) and not _is_lock(path):
                    with suppress(OSError):
                        path.unlink()
            self._remove_if_empty()
        if _IS_WINDOWS:
            self._remove_if_empty()
        with suppress(OSError):
            self.path.rmdir()

    def _remove_if_empty(self) -> None:
        """Remove the folder if there are only lock files in it."""
        if all(map(_is_lock, paths := self._files())):
            with suppress(OSError):
                for path in paths:
                    path.unlink()
                self.path.rmdir()


def _is_lock(path: Path) -> bool:
    return re.fullmatch(r"lock\d+", path.name) is not None


def _is_removable(path: Path) -> bool:
    return _OWN_FILES.fullmatch(path.name) is not None or is_litter(path.name)


def _find_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of what differs between two jobs, for options with the value of each."""
    for name in {**now, **before}:
        old, new = before.get(name), now.get(name)
        if old != new and name == "options" and isinstance(old, dict) and isinstance(new, dict):
            changes = [f"{key} {old.get(key)}, now {new.get(key)}" for key in new if new[key] != old.get(key)]
            yield f"{name} ({'; '.join(changes)})"
        elif old != new:
            yield name


class OutputPipe:
    """Writes what PyAV makes.

    PyAV raises the first error, and would print a traceback for each one that follows, so later writes are ignored. It
    does not raise a KeyboardInterrupt, so ``check`` does, which is also called at the end of a ``with`` block.

    Args:
        file: Where to write.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.check()

    def check(self) -> None:
        """Raise a KeyboardInterrupt that has interrupted a write."""
        if isinstance(self._error, KeyboardInterrupt):
            raise self._error

    def write(self, data: bytes) -> int:
        """Write some bytes, or nothing after an error."""
        return int(self._try(self._file.write, data) or len(data))

    def _try(self, action: Callable[..., int], *values: Any) -> int | None:
        if self._error is not None:
            return None
        try:
            return action(*values)
        except KeyboardInterrupt as error:
            self._error = error
            return None
        except Exception as error:
            self._error = error
            raise


class OutputFile(OutputPipe):
    """As ``OutputPipe``, for a file in which PyAV can also move to another place."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.tell = file.tell

    def seek(self, *place: int) -> int | None:
        """Move, which also writes what is buffered; do nothing after an error."""
        return self._try(self._file.seek, *place)


class SegmentWriter:
    """Encodes the frames of a segment.

    In the file, frame n has the time n ms after the first. Its own time is in the description, because Matroska counts
    in whole milliseconds.

    Attributes:
        times: The times of the frames so far.
        last_digest: Checksum of the video's frame that belongs to the last of them.
        last_duration: How long the last of them is shown; 0 if the video does not say.
        errors: What could not be read of the video there, as in ``ReadErrors.counts``.
    """

    def __init__(self, file: Any, encoding: Encoding) -> None:
        self.times: list[int] = []
        self.last_digest, self.last_duration = "", 0
        self.errors: Counter[str] = Counter()
        self._encoding, self._num_packets = encoding, 0
        container = "matroska" if fits(encoding.codec, "matroska") else "nut"
        self._file = OutputFile(file)
        self._container = av.open(self._file, "w", format=container)
        self._stream: Any = self._container.add_stream(encoding.codec, encoding.rate)
        encoding.configure(self._stream.codec_context)
        self._stream.time_base = _MS

    def add(self, shot: TimedFrame, frame: VideoFrame) -> None:
        """Encode a frame.

        Args:
            shot: The video's frame.
            frame: The upscaled frame.
        """
        frame.pts, frame.time_base = shot.time, self._encoding.time_base
        frame.color_primaries, frame.color_trc = self._encoding.primaries, self._encoding.transfer
        frame.pict_type = 0
        self.times.append(shot.time)
        self.last_digest, self.last_duration = shot.digest(), shot.frame.duration or 0
        self._write(self._stream.encode(frame))

    def finish(self) -> None:
        """Encode what is left, and close the file."""
        self._write(self._stream.encode(None))
        self._container.close()
        self._file.check()

    def _write(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.pts = _FIRST_MS + bisect_left(self.times, packet.pts)
            packet.dts, packet.time_base, packet.duration = self._num_packets, _MS, 1
            self._num_packets += 1
            self._container.mux(packet)
            self._file.check()


def read_packets(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the packets of a segment in the order of decoding, each with the number of its frame."""
    with open_file(path) as container:
        packets: Iterator[Any] = container.demux(container.streams.video[0])
        for packet in packets:
            if packet.size:
                yield round(packet.pts * packet.time_base / _MS) - _FIRST_MS, packet
