"""Upscale many files, whatever happens to one of them; read and write some while others are computed."""

from __future__ import annotations

import dataclasses
import glob
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from esrgan import files, images, pictures
from esrgan.errors import EsrganError, ImageError
from esrgan.inference.upscaler import Upscaler
from esrgan.pictures import Picture

SUFFIX = "_sr"  # of a result's name
# A result of more bytes is written before the next image is computed, so that there are never two.
LARGE_RESULT = 1 << 28


@dataclass(frozen=True)
class Job:
    """A file and where its result goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Result:
    """What became of a file.

    Attributes:
        job: The file.
        error: Why there is no result; None if there is.
        is_skipped: Whether there was one already.
        megapixels: Size of the result.
        notes: What it does not keep of the file, in words.
    """

    job: Job
    error: str | None = None
    is_skipped: bool = False
    megapixels: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """How to treat files.

    Attributes:
        overwrite: Replace results that are there.
        skip_existing: Take results that are there as done.
        quality: Of lossy formats, 1 to 100; None is ``pictures``' default.
        reduce_depth: Whether samples may lose bits that the format cannot hold, as when the user chose the format.
    """

    overwrite: bool = False
    skip_existing: bool = False
    quality: int | None = None
    reduce_depth: bool = False


def plan(paths: Sequence[str], out_dir: Path | None, suffix: str | None = None) -> list[Job]:
    """Find the images and name their results: ``<stem>_sr<suffix>`` beside them or in a folder.

    The folder mirrors those that are searched. Where two results would have one name they get their file's whole one
    (``a.png_sr.webp``). Results of other files in the list, from an earlier run, are left out unless they are named.

    Args:
        paths: Files, folders and patterns.
        out_dir: Where to; None is beside each file.
        suffix: Of the results; None keeps each file's own.

    Raises:
        ImageError: If some of the paths give no file.
    """
    roots: dict[Path, Path] = {}  # of each file, the folder that is mirrored
    images.find(paths, pictures.SUFFIXES)  # names all that is wrong at once
    for path in paths:
        for source in images.find([path], pictures.SUFFIXES):
            roots.setdefault(source.parent.resolve() / source.name, source.parent / _below(Path(path), source))

    def target(source: Path, stem: str) -> Path:
        folder = source.parent if out_dir is None else out_dir / source.parent.relative_to(roots[source].resolve())
        return folder / f"{stem}{SUFFIX}{suffix or source.suffix}"

    short = {source: target(source, source.stem) for source in roots}
    uses = Counter(short.values())
    jobs = [Job(source, place if uses[place] == 1 else target(source, source.name)) for source, place in short.items()]
    results = {job.target.parent.resolve() / job.target.name for job in jobs}
    named = {Path(path).parent.resolve() / Path(path).name for path in paths}
    return [job for job in jobs if job.source in named or job.source not in results]


def _below(path: Path, source: Path) -> Path:
    """The way from a file's folder up to the folder that was asked for."""
    if not path.is_dir():
        parts = list(path.parent.parts)
        fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
        path = path.parent if path.exists() else Path(*parts[:fixed])
    depth = len(source.parent.parts) - len(path.parts)
    return Path(*[".."] * depth)


def upscale_files(
    upscaler: Upscaler, jobs: Sequence[Job], options: Options, report: Callable[[Result], None]
) -> list[Result]:
    """Upscale files; their format, depth, transparency, frames and metadata stay.

    Each result appears whole or not at all. After an interruption, even a crash, the same call with ``skip_existing``
    does the rest.

    Args:
        upscaler: With what.
        jobs: From ``plan``.
        options: How.
        report: Called with what became of each.

    Returns:
        The same; an error with one file does not stop the others.
    """
    for folder in {job.target.parent for job in jobs}:
        files.remove_abandoned(folder)
    results: list[Result] = []

    def finish(job: Job, work: Callable[[], Result]) -> None:
        try:
            result = work()
        except EsrganError as error:
            result = Result(job, error=str(error))
        except Exception as error:  # a night's work shall not end for what we did not think of
            result = Result(job, error=f"{job.source}: unexpected: {type(error).__name__}: {files.reason(error)}")
        results.append(result)
        report(result)

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead: Future[Picture | None] | None = None
        behind: tuple[Job, Future[Result]] | None = None
        for i, job in enumerate(jobs):
            reading = ahead or reader.submit(_read, job, upscaler, options)
            ahead = reader.submit(_read, jobs[i + 1], upscaler, options) if i + 1 < len(jobs) else None
            try:
                picture = reading.result()
                writing: Future[Result]
                if picture is None:
                    writing = writer.submit(Result, job, is_skipped=True)
                else:
                    if behind is not None and _result_bytes(upscaler, picture) > LARGE_RESULT:
                        finish(behind[0], behind[1].result)
                        behind = None
                    high = dataclasses.replace(picture, frames=tuple(upscaler(frame) for frame in picture.frames))
                    del picture
                    writing = writer.submit(_write, job, high, options)
                    del high
            except Exception as error:
                writing = Future()
                writing.set_exception(error)
            if behind is not None:
                finish(behind[0], behind[1].result)
            behind = job, writing
        if behind is not None:
            finish(behind[0], behind[1].result)
    return results


def _read(job: Job, upscaler: Upscaler, options: Options) -> Picture | None:
    """Read a file and check that its result can be written; None if it is there already."""
    if job.target.exists() and not options.overwrite:
        if options.skip_existing:
            return None
        raise ImageError(f"{job.target}: is there already; --overwrite replaces it, --skip-existing leaves it")
    picture = pictures.read(job.source)
    height, width, channels = picture.frames[0].shape
    size = (*upscaler.size_of(height, width), channels)
    dtype, frames = picture.frames[0].dtype, len(picture.frames)
    pictures.check_writable(job.target, *size, dtype, frames, bits=picture.bits, reduce_depth=options.reduce_depth)
    return picture


def _result_bytes(upscaler: Upscaler, picture: Picture) -> int:
    height, width, channels = picture.frames[0].shape
    return int(np.prod(upscaler.size_of(height, width))) * channels * picture.frames[0].itemsize * len(picture.frames)


def _write(job: Job, picture: Picture, options: Options) -> Result:
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{job.target.parent}: the folder cannot be made: {files.reason(error)}") from error
    lost = pictures.write(
        job.target,
        picture,
        overwrite=options.overwrite,
        quality=options.quality,
        reduce_depth=options.reduce_depth,
    )
    pixels = picture.frames[0].shape[0] * picture.frames[0].shape[1] * len(picture.frames)
    return Result(job, megapixels=pixels / 1e6, notes=(*picture.notes, *lost))
