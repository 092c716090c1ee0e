"""Upscale many image files, where one failure does not stop the rest.

While one image is upscaled, the next one is read and the previous one is written.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from esrgan import files, images
from esrgan.errors import EsrganError, ImageError
from esrgan.images import ImageData
from esrgan.inference.tiling import ProgressCallback, subprogress
from esrgan.inference.upscaler import Upscaler
from esrgan.text import describe_error

OUTPUT_SUFFIX = "_sr"  # appended to the stem of each output's name
# An output with more bytes than this is written before the next image is upscaled, so memory never holds two of them.
LARGE_OUTPUT_BYTES = 1 << 28


@dataclass(frozen=True)
class FileJob:
    """An input file and the path of its output.

    Attributes:
        source: The input file.
        target: The path of the output.
        conflict: Another input whose output would have the same path; then both inputs fail. None if there is none.
    """

    source: Path
    target: Path
    conflict: Path | None = None


@dataclass(frozen=True)
class FileResult:
    """The outcome of one file job.

    Attributes:
        job: The input file and its output.
        error: Why the file failed; None if it did not.
        is_skipped: Whether the file was skipped because its output already existed.
        megapixels: Size of the output, all frames together.
        notes: Sentences about what the output does not preserve, such as bit depth.
    """

    job: FileJob
    error: str | None = None
    is_skipped: bool = False
    megapixels: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileOptions:
    """How ``upscale_files`` reads inputs and writes outputs.

    Attributes:
        overwrite: Replace existing outputs.
        skip_existing: Skip files whose output exists.
        quality: Quality of lossy formats, 1 to 100; None uses the default of ``images.write_image``.
        reduce_depth: Allow the output to have fewer bits per sample where its format requires it. Commands set this
            when the user has chosen the format.
        max_pixels: Limit for one input, all frames together; None uses ``images.MAX_PIXELS``.

    Raises:
        ValueError: If ``quality`` is out of range.
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
    """Find the images and choose their outputs: ``<stem>_sr<suffix>``, next to each input or in ``out_dir``.

    ``out_dir`` mirrors the folders that are searched. If two outputs would have the same name, both are named after
    the full name of their input (``a.png_sr.webp``).

    Args:
        paths: Files, folders and glob patterns.
        out_dir: Folder for the outputs; None writes each one next to its input.
        suffix: Suffix of the outputs, such as ``.webp``; None keeps the suffix of each input.

    Returns:
        The jobs, and a mapping from each path that is skipped to the reason. Outputs of earlier runs (in any format),
        files in ``out_dir`` and symlinked folders are skipped.

    Raises:
        ImageError: If a path matches no image.
    """
    jobs, skipped = name_outputs(images.find_images(paths, images.SUFFIXES), out_dir, suffix)
    links = {link: "symlinked folders are not followed" for path in paths for link in images.find_linked_folders(path)}
    return jobs, links | skipped


def name_outputs(
    relative_paths: Mapping[Path, Path], out_dir: Path | None, suffix: str | None = None
) -> tuple[list[FileJob], dict[Path, str]]:
    """Choose the outputs of images that were already found, as ``plan_jobs`` does.

    Args:
        relative_paths: The images, each with its path relative to the folder that was searched, as returned by
            ``images.find_images``.
        out_dir: Folder for the outputs; None writes each one next to its input.
        suffix: Suffix of the outputs; None keeps the suffix of each input.

    Returns:
        The jobs, and a mapping from each image that is skipped to the reason.
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
    outputs: set[Path] = set()  # without suffix
    # An output has a longer name than its input, so shorter names come first.
    for source in sorted(relative_paths, key=lambda source: len(source.stem)):
        folder, asked_for = _resolve(source.parent), _resolve(source.parents[len(relative_paths[source].parts) - 1])
        is_in_out = out in (folder, *folder.parents) and out not in (asked_for, *asked_for.parents)
        if is_in_out or identity(source.with_name(source.stem)) in outputs:
            skipped[source] = "output of an earlier run"
        else:
            outputs |= {identity(target(source, stem).with_suffix("")) for stem in (source.stem, source.name)}
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
    """Resolve symlinks as far as possible; ``Path.resolve`` would raise on a symlink loop."""
    return Path(os.path.realpath(folder))


def _is_case_insensitive(folder: Path) -> bool:
    """Return whether the file system of a folder, which may not exist yet, ignores the case of names."""
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
    """Upscale files; outputs keep the format, bit depth, transparency, frames and metadata of their inputs.

    Each output is written completely or not at all. After an interruption, even a crash, the same call with
    ``skip_existing`` resumes. If a file fails, the rest are still upscaled.

    Args:
        upscaler: The upscaler to use.
        jobs: The jobs, as returned by ``plan_jobs``.
        options: How to read inputs and write outputs.
        report: Called with the result of each file as soon as it is known.
        progress: Called after each part of an image with the fraction of that image that is done, up to 1.

    Returns:
        The results that were passed to ``report``, in the order of the jobs.

    Example:
        >>> from pathlib import Path
        >>> from esrgan import Upscaler, upscale_files
        >>> from esrgan.inference import FileOptions, plan_jobs
        >>> jobs, skipped = plan_jobs(["photo.png"], Path("upscaled"))
        >>> results = upscale_files(Upscaler.from_file(), jobs, FileOptions(), report=lambda result: None)
        >>> [(str(result.job.target), result.error) for result in results]
        [('upscaled/photo_sr.png', None)]
    """
    for folder in {job.target.parent for job in jobs}:
        files.remove_abandoned(folder)
    results: list[FileResult] = []

    def finish(job: FileJob, work: Callable[[], FileResult]) -> None:
        try:
            result = work()
        except EsrganError as error:
            result = FileResult(job, error=str(error))
        except Exception as error:  # a run of many hours should survive even errors that we did not foresee
            result = FileResult(
                job, error=f"{job.source}: unexpected error: {type(error).__name__}: {describe_error(error)}"
            )
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
    """Read an input and check that its output can be written; return None if the file is to be skipped."""
    if job.conflict is not None:
        message = f"its output {job.target} would also be the output of {job.conflict}"
        raise ImageError(f"{job.source}: {message}; upscale them into different folders")
    if job.target.is_file() and options.skip_existing:
        return None
    if os.path.lexists(job.target) and (job.target.is_dir() or not options.overwrite):
        if job.target.is_dir():
            raise ImageError(f"{job.target}: is a folder; remove it or choose another output folder")
        raise ImageError(f"{job.target}: already exists; use --overwrite to replace it or --skip-existing to skip it")
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
    except EsrganError as error:  # the upscaler does not know the name of the file
        raise type(error)(f"{job.source}: {error}") from error


def _output_bytes(upscaler: Upscaler, image: ImageData) -> int:
    first = image.frames[0]
    height, width = upscaler.output_size(*first.shape[:2])
    return int(height * width * first.shape[2] * first.itemsize * len(image.frames))


def _write_output(job: FileJob, image: ImageData, options: FileOptions) -> FileResult:
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"{job.target.parent}: cannot create this folder: {describe_error(error)}; "
            "choose another folder or change the permissions"
        ) from error
    lost = images.write_image(
        job.target,
        image,
        overwrite=options.overwrite,
        quality=options.quality,
        reduce_depth=options.reduce_depth,
    )
    pixels = image.frames[0].shape[0] * image.frames[0].shape[1] * len(image.frames)
    return FileResult(job, megapixels=pixels / 1e6, notes=(*image.notes, *lost))
