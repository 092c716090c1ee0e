"""Upscale many files, whatever happens to one of them; read and write some while others are computed."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from esrgan import files, images, pictures
from esrgan.errors import EsrganError, ImageError, Problem
from esrgan.inference.enlarge import Progress, part_of
from esrgan.inference.upscaler import Upscaler
from esrgan.pictures import Picture

SUFFIX = "_sr"  # of a result's name
# A result of more bytes is written before the next image is computed, so that there are never two.
LARGE_RESULT = 1 << 28


@dataclass(frozen=True)
class Job:
    """A file and where its result goes.

    Attributes:
        source: The file.
        target: Of the result.
        rival: Another file whose result would have that name too, so that neither gets one.
    """

    source: Path
    target: Path
    rival: Path | None = None


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
        max_pixels: Of a file, all frames together; None is ``pictures.MAX_PIXELS``.
    """

    overwrite: bool = False
    skip_existing: bool = False
    quality: int | None = None
    reduce_depth: bool = False
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"quality: expected 1 to 100, got {self.quality}")


def plan(paths: Sequence[str], out_dir: Path | None, suffix: str | None = None) -> tuple[list[Job], dict[Path, str]]:
    """Find the images and name their results: ``<stem>_sr<suffix>`` beside them or in a folder.

    The folder mirrors those that are searched. Where two results would have one name they get their file's whole one
    (``a.png_sr.webp``).

    Args:
        paths: Files, folders and patterns.
        out_dir: Where to; None is beside each file.
        suffix: Of the results; None keeps each file's own.

    Returns:
        The jobs, and what is left out, with the reason: results of others, in whatever format, or in ``out_dir``, from
        an earlier run, and links to folders.

    Raises:
        ImageError: If some of the paths give no file.
    """
    jobs, left_out = name_results(images.find(paths, pictures.SUFFIXES), out_dir, suffix)
    links = {link: "links to folders are not followed" for path in paths for link in images.linked_folders(path)}
    return jobs, links | left_out


def name_results(
    places: Mapping[Path, Path], out_dir: Path | None, suffix: str | None = None
) -> tuple[list[Job], dict[Path, str]]:
    """Name the results of images that are found already, as ``plan`` does.

    Args:
        places: The images, and where each is below the folder that was searched, as from ``images.find``.
        out_dir: As in ``plan``.
        suffix: Likewise.

    Returns:
        As ``plan``, but for the links.
    """
    ignores_case = functools.cache(_ignores_case)

    def target(source: Path, stem: str) -> Path:
        folder = source.parent if out_dir is None else out_dir / places[source].parent
        return folder / f"{stem}{SUFFIX}{suffix or source.suffix}"

    def identity(path: Path) -> Path:
        folder = _real(path.parent)
        return folder / (path.name.lower() if ignores_case(folder) else path.name)

    out = None if out_dir is None else _real(out_dir)
    left_out: dict[Path, str] = {}
    results: set[Path] = set()  # without suffix
    for source in sorted(places, key=lambda source: len(source.stem)):  # a result's name is longer than its file's
        folder, asked_for = _real(source.parent), _real(source.parents[len(places[source].parts) - 1])
        is_in_out = out in (folder, *folder.parents) and out not in (asked_for, *asked_for.parents)
        if is_in_out or identity(source.with_name(source.stem)) in results:
            left_out[source] = "made by an earlier run"
        else:
            results |= {identity(target(source, stem).with_suffix("")) for stem in (source.stem, source.name)}
    sources = [source for source in places if source not in left_out]
    with_whole_name: set[Path] = set()
    while True:
        targets = {
            source: target(source, source.name if source in with_whole_name else source.stem) for source in sources
        }
        users: dict[Path, list[Path]] = {}
        for source in sources:
            users.setdefault(identity(targets[source]), []).append(source)
        clashes = [same for same in users.values() if len(same) > 1]
        rivals = {source: next(other for other in same if other != source) for same in clashes for source in same}
        if rivals.keys() <= with_whole_name:
            return [Job(source, targets[source], rivals.get(source)) for source in sources], left_out
        with_whole_name |= rivals.keys()


def _real(folder: Path) -> Path:
    """A folder's path without links; not by ``Path.resolve``, which raises where links go round in circles."""
    return Path(os.path.realpath(folder))


def _ignores_case(folder: Path) -> bool:
    """Whether names that differ in case alone are one on the disk of a folder, which need not be there yet."""
    for path in (folder, *folder.parents):
        other = path.with_name(path.name.swapcase()) if path.name else path
        if path.exists() and other != path:
            return other.exists() and other.samefile(path)
    return False


def upscale_files(
    upscaler: Upscaler,
    jobs: Sequence[Job],
    options: Options,
    report: Callable[[Result], None],
    progress: Progress = lambda _: None,
) -> list[Result]:
    """Upscale files; their format, depth, transparency, frames and metadata stay.

    Each result appears whole or not at all. After an interruption, even a crash, the same call with ``skip_existing``
    does the rest.

    Args:
        upscaler: With what.
        jobs: From ``plan``.
        options: How.
        report: Called with what became of each.
        progress: Called with the share of the image at hand that is computed, up to 1, after each part.

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
                    high = _enlarge(job, picture, upscaler, progress)
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
    if job.rival is not None:
        expected, got = f"a result of its own, not {job.target}", f"that of {job.rival} too"
        raise ImageError(Problem(str(job.source), expected, got, "upscale them into different folders"))
    if job.target.is_file() and options.skip_existing:
        return None
    if os.path.lexists(job.target) and (job.target.is_dir() or not options.overwrite):
        kind = "a folder of this name" if job.target.is_dir() else "it"
        raise ImageError(
            f"{job.target}: {kind} is there already; --overwrite replaces files, --skip-existing leaves them"
        )
    picture = pictures.read(job.source, options.max_pixels)
    height, width, channels = picture.frames[0].shape
    size = (*upscaler.size_of(height, width), channels)
    dtype, frames = picture.frames[0].dtype, len(picture.frames)
    pictures.check_writable(job.target, *size, dtype, frames, bits=picture.bits, reduce_depth=options.reduce_depth)
    return picture


def _enlarge(job: Job, picture: Picture, upscaler: Upscaler, progress: Progress) -> Picture:
    count = len(picture.frames)
    try:
        frames = tuple(upscaler(frame, part_of(progress, i, count)) for i, frame in enumerate(picture.frames))
        return dataclasses.replace(picture, frames=frames)
    except EsrganError as error:  # which knows nothing of files
        raise type(error)(f"{job.source}: {error}") from error


def _result_bytes(upscaler: Upscaler, picture: Picture) -> int:
    first = picture.frames[0]
    height, width = upscaler.size_of(*first.shape[:2])
    return int(height * width * first.shape[2] * first.itemsize * len(picture.frames))


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
