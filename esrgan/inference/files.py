"""Upscale many files, whatever happens to one of them; read and write some while others are computed."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from esrgan import files, images
from esrgan.errors import EsrganError, ImageError, Problem
from esrgan.images import ImageData
from esrgan.inference.tiling import ProgressCallback, subprogress
from esrgan.inference.upscaler import Upscaler
from esrgan.text import describe_error

OUTPUT_SUFFIX = "_sr"  # of a result's name
# A result of more bytes is written before the next image is computed, so that there are never two.
LARGE_OUTPUT_BYTES = 1 << 28


@dataclass(frozen=True)
class FileJob:
    """A file and where its result goes.

    Attributes:
        source: The file.
        target: Of the result.
        conflict: Another file whose result would have that name too, so that neither gets one.
    """

    source: Path
    target: Path
    conflict: Path | None = None


@dataclass(frozen=True)
class FileResult:
    """What became of a file.

    Attributes:
        job: The file.
        error: Why there is no result; None if there is.
        is_skipped: Whether there was one already.
        megapixels: Size of the result.
        notes: What it does not keep of the file, in words.
    """

    job: FileJob
    error: str | None = None
    is_skipped: bool = False
    megapixels: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileOptions:
    """How to treat files.

    Attributes:
        overwrite: Replace results that are there.
        skip_existing: Take results that are there as done.
        quality: Of lossy formats, 1 to 100; None is ``pictures``' default.
        reduce_depth: Whether samples may lose bits that the format cannot hold, as when the user chose the format.
        max_pixels: Of a file, all frames together; None is ``images.MAX_PIXELS``.
    """

    overwrite: bool = False
    skip_existing: bool = False
    quality: int | None = None
    reduce_depth: bool = False
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"quality: expected 1 to 100, got {self.quality}")


def plan_jobs(
    paths: Sequence[str], out_dir: Path | None, suffix: str | None = None
) -> tuple[list[FileJob], dict[Path, str]]:
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
    jobs, skipped = name_outputs(images.find_images(paths, images.SUFFIXES), out_dir, suffix)
    links = {link: "links to folders are not followed" for path in paths for link in images.find_linked_folders(path)}
    return jobs, links | skipped


def name_outputs(
    relative_paths: Mapping[Path, Path], out_dir: Path | None, suffix: str | None = None
) -> tuple[list[FileJob], dict[Path, str]]:
    """Name the results of images that are found already, as ``plan_jobs`` does.

    Args:
        relative_paths: The images, and where each is below the folder that was searched, as from
            ``images.find_images``.
        out_dir: As in ``plan_jobs``.
        suffix: Likewise.

    Returns:
        As ``plan_jobs``, but for the links.
    """
    is_case_insensitive = functools.cache(_is_case_insensitive)

    def target(source: Path, stem: str) -> Path:
        folder = source.parent if out_dir is None else out_dir / relative_paths[source].parent
        return folder / f"{stem}{OUTPUT_SUFFIX}{suffix or source.suffix}"

    def identity(path: Path) -> Path:
        folder = _resolve(path.parent)
        return folder / (path.name.lower() if is_case_insensitive(folder) else path.name)

    out = None if out_dir is None else _resolve(out_dir)
    skipped: dict[Path, str] = {}
    results: set[Path] = set()  # without suffix
    # A result's name is longer than its file's.
    for source in sorted(relative_paths, key=lambda source: len(source.stem)):
        folder, asked_for = _resolve(source.parent), _resolve(source.parents[len(relative_paths[source].parts) - 1])
        is_in_out = out in (folder, *folder.parents) and out not in (asked_for, *asked_for.parents)
        if is_in_out or identity(source.with_name(source.stem)) in results:
            skipped[source] = "made by an earlier run"
        else:
            results |= {identity(target(source, stem).with_suffix("")) for stem in (source.stem, source.name)}
    sources = [source for source in relative_paths if source not in skipped]
    with_full_name: set[Path] = set()
    while True:
        targets = {
            source: target(source, source.name if source in with_full_name else source.stem) for source in sources
        }
        users: dict[Path, list[Path]] = {}
        for source in sources:
            users.setdefault(identity(targets[source]), []).append(source)
        clashes = [same for same in users.values() if len(same) > 1]
        conflicts = {source: next(other for other in same if other != source) for same in clashes for source in same}
        if conflicts.keys() <= with_full_name:
            return [FileJob(source, targets[source], conflicts.get(source)) for source in sources], skipped
        with_full_name |= conflicts.keys()


def _resolve(folder: Path) -> Path:
    """A folder's path without links; not by ``Path.resolve``, which raises where links go round in circles."""
    return Path(os.path.realpath(folder))


def _is_case_insensitive(folder: Path) -> bool:
    """Whether names that differ in case alone are one on the disk of a folder, which need not be there yet."""
    for path in (folder, *folder.parents):
        other = path.with_name(path.name.swapcase()) if path.name else path
        if path.exists() and other != path:
            return other.exists() and other.samefile(path)
    return False


def upscale_files(
    upscaler: Upscaler,
    jobs: Sequence[FileJob],
    options: FileOptions,
    report: Callable[[FileResult], None],
    progress: ProgressCallback = lambda _: None,
) -> list[FileResult]:
    """Upscale files; their format, depth, transparency, frames and metadata stay.

    Each result appears whole or not at all. After an interruption, even a crash, the same call with ``skip_existing``
    does the rest.

    Args:
        upscaler: With what.
        jobs: From ``plan_jobs``.
        options: How.
        report: Called with what became of each.
        progress: Called with the share of the image at hand that is computed, up to 1, after each part.

    Returns:
        The same; an error with one file does not stop the others.
    """
    for folder in {job.target.parent for job in jobs}:
        files.remove_abandoned(folder)
    results: list[FileResult] = []

    def finish(job: FileJob, work: Callable[[], FileResult]) -> None:
        try:
            result = work()
        except EsrganError as error:
            result = FileResult(job, error=str(error))
        except Exception as error:  # a night's work shall not end for what we did not think of
            result = FileResult(job, error=f"{job.source}: unexpected: {type(error).__name__}: {describe_error(error)}")
        results.append(result)
        report(result)

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead: Future[ImageData | None] | None = None
        behind: tuple[FileJob, Future[FileResult]] | None = None
        for i, job in enumerate(jobs):
            reading = ahead or reader.submit(_read_input, job, upscaler, options)
            ahead = reader.submit(_read_input, jobs[i + 1], upscaler, options) if i + 1 < len(jobs) else None
            try:
                image = reading.result()
                writing: Future[FileResult]
                if image is None:
                    writing = writer.submit(FileResult, job, is_skipped=True)
                else:
                    if behind is not None and _output_bytes(upscaler, image) > LARGE_OUTPUT_BYTES:
                        finish(behind[0], behind[1].result)
                        behind = None
                    high = _upscale_frames(job, image, upscaler, progress)
                    del image
                    writing = writer.submit(_write_output, job, high, options)
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


def _read_input(job: FileJob, upscaler: Upscaler, options: FileOptions) -> ImageData | None:
    """Read a file and check that its result can be written; None if it is there already."""
    if job.conflict is not None:
        expected, got = f"a result of its own, not {job.target}", f"that of {job.conflict} too"
        raise ImageError(Problem(str(job.source), expected, got, "upscale them into different folders"))
    if job.target.is_file() and options.skip_existing:
        return None
    if os.path.lexists(job.target) and (job.target.is_dir() or not options.overwrite):
        kind = "a folder of this name" if job.target.is_dir() else "it"
        raise ImageError(
            f"{job.target}: {kind} is there already; --overwrite replaces files, --skip-existing leaves them"
        )
    image = images.read_image(job.source, options.max_pixels)
    height, width, channels = image.frames[0].shape
    size = (*upscaler.output_size(height, width), channels)
    dtype, frames = image.frames[0].dtype, len(image.frames)
    images.check_writable(job.target, *size, dtype, frames, bits=image.bits, reduce_depth=options.reduce_depth)
    return image


def _upscale_frames(job: FileJob, image: ImageData, upscaler: Upscaler, progress: ProgressCallback) -> ImageData:
    count = len(image.frames)
    try:
        frames = tuple(upscaler(frame, subprogress(progress, i, count)) for i, frame in enumerate(image.frames))
        return dataclasses.replace(image, frames=frames)
    except EsrganError as error:  # which knows nothing of files
        raise type(error)(f"{job.source}: {error}") from error


def _output_bytes(upscaler: Upscaler, image: ImageData) -> int:
    first = image.frames[0]
    height, width = upscaler.output_size(*first.shape[:2])
    return int(height * width * first.shape[2] * first.itemsize * len(image.frames))


def _write_output(job: FileJob, image: ImageData, options: FileOptions) -> FileResult:
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{job.target.parent}: the folder cannot be made: {describe_error(error)}") from error
    lost = images.write_image(
        job.target,
        image,
        overwrite=options.overwrite,
        quality=options.quality,
        reduce_depth=options.reduce_depth,
    )
    pixels = image.frames[0].shape[0] * image.frames[0].shape[1] * len(image.frames)
    return FileResult(job, megapixels=pixels / 1e6, notes=(*image.notes, *lost))
