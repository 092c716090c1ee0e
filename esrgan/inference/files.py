"""Upscale many image files, where one failure does not stop the rest.

While one image is upscaled, the next one is read and the previous one is written.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from esrgan import files, images
from esrgan.errors import EsrganError, ImageError, LostDeviceError, Problem
from esrgan.extras import describe_import_error
from esrgan.images import ImageData, exif
from esrgan.images.flatten import fit_alpha, parse_colour
from esrgan.images.formats import FILE_FORMATS, check_image_writable, format_for_suffix
from esrgan.images.sidecars import copy_sidecars
from esrgan.images.writing import least_file_size
from esrgan.inference.frames import upscale_image
from esrgan.inference.jobs import FileJob
from esrgan.inference.options import to_number
from esrgan.inference.upscaler import Upscaler
from esrgan.machine import memory_limit, obtainable_memory
from esrgan.paths import describe_path, find_name_problem
from esrgan.text import describe_error, format_size

# An output with more bytes than this, or with more than this share of the memory, is written before the next image is
# upscaled, so memory never holds two of them.
LARGE_OUTPUT_BYTES, LARGE_OUTPUT_SHARE = 1 << 28, 1 / 8


FileProgressCallback = Callable[[FileJob, float], None]


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
    error: Problem | None = None
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
        background: A colour to place transparent images on, as a name (white) or a code (#ffffff), before they are
            upscaled; None keeps alpha, except that opaque alpha is dropped where the format of the output has none.
        resolution: The resolution that outputs state, as for ``images.set_resolution``.
        keep_abandoned: Do not look for temporary files of killed processes in the folders of the outputs. A caller that
            upscales the files of a large folder in many calls does that once.

    Raises:
        ValueError: If ``quality`` or ``resolution`` is out of range, or ``background`` is no colour.
    """

    overwrite: bool = False
    skip_existing: bool = False
    quality: int | None = None
    reduce_depth: bool = False
    max_pixels: int | None = None
    background: str | None = None
    resolution: float | Literal["keep", "scale"] = "keep"
    keep_abandoned: bool = False

    def __post_init__(self) -> None:
        quality, resolution = to_number(self.quality), to_number(self.resolution)
        if quality is not None and (not isinstance(quality, int | float) or not 1 <= quality <= 100 or quality % 1):
            raise ValueError(f"quality: expected a whole number from 1 to 100, got {quality!r}")
        is_number = isinstance(resolution, int | float) and 1 <= resolution <= 65535
        if not is_number and resolution not in ("keep", "scale"):
            raise ValueError(f"resolution: expected keep, scale or a number from 1 to 65535, got {resolution!r}")
        object.__setattr__(self, "quality", quality if quality is None else int(quality))
        object.__setattr__(self, "resolution", resolution)
        if self.background is not None:
            parse_colour(self.background)


def upscale_files(
    upscaler: Upscaler,
    jobs: Iterable[FileJob],
    options: FileOptions = FileOptions(),
    progress: FileProgressCallback = lambda *_: None,
) -> Iterator[FileResult]:
    """Upscale files; outputs keep the format, bit depth, transparency, frames and metadata of their inputs.

    This is a generator: nothing happens until it is iterated, and the work goes on only while it is. Closing it early
    finishes the output that is being written.

    Each output is written completely or not at all. After an interruption, even a crash, the same call with
    ``skip_existing`` resumes. If a file fails, the rest are still upscaled.

    Args:
        upscaler: The upscaler to use.
        jobs: The jobs, as returned by ``plan_jobs``.
        options: How to read inputs and write outputs.
        progress: Called with a job when its image is about to be upscaled, and after each part of it, and with the
            fraction of that image that is done, from 0 to 1. What it raises ends the work and is raised here, once the
            output that is being written is complete.

    Yields:
        The result of each file as soon as it is known: first the files that cannot be written or are skipped, as far
        as that shows without reading them, then the others in the order of the jobs.

    Raises:
        LostDeviceError: If the GPU has failed, so that no other file can be upscaled either.

    Example:
        >>> from pathlib import Path
        >>> from esrgan import Upscaler, upscale_files
        >>> from esrgan.inference import plan_jobs
        >>> jobs, skipped = plan_jobs(["photo.png"], Path("upscaled"))
        >>> for result in upscale_files(Upscaler.from_file(), jobs):
        ...     print(result.job.target, result.error)
        upscaled/photo_sr.png None
    """
    jobs = list(jobs)
    for folder in () if options.keep_abandoned else {job.target.parent for job in jobs}:
        files.remove_abandoned(folder)
    memory = obtainable_memory()
    find_folder_problem = functools.cache(files.find_folder_problem)
    ready = []
    for job in jobs:
        result = _check_output(job, options)
        if result is None and (problem := find_folder_problem(_real_folder(job.target))):
            result = FileResult(job, problem)
        if result is None:
            ready.append(job)
        else:
            yield result
    yield from _upscale_ready(upscaler, ready, options, _Report(progress), memory)


class _Report:
    """Calls the callback of ``upscale_files`` and remembers the error that it raises.

    An error of the callback ends the work. Any other error becomes the result of the image that it occurred with.
    """

    def __init__(self, progress: FileProgressCallback) -> None:
        self.progress = progress
        self.error: Exception | None = None

    def __call__(self, job: FileJob, share: float) -> None:
        try:
            self.progress(job, share)
        except Exception as error:
            self.error = error
            raise


def _upscale_ready(
    upscaler: Upscaler, ready: Sequence[FileJob], options: FileOptions, report: _Report, memory: int
) -> Iterator[FileResult]:
    """Upscale files one after the other, while the next one is read and the previous one is written."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:  # at the end they wait for their threads
        ahead: Future[ImageData | FileResult] | None = None
        behind: tuple[FileJob, Future[FileResult]] | None = None
        for i, job in enumerate(ready):
            reading = ahead or reader.submit(_read_input, job, upscaler, options, memory)
            is_large, is_huge = _compare_with_memory(reading, upscaler)
            ahead = None
            if i + 1 < len(ready) and not is_huge:
                ahead = reader.submit(_read_input, ready[i + 1], upscaler, options, memory)
            writing: Future[FileResult] = Future()
            try:
                image = reading.result()
                del reading
                if isinstance(image, FileResult):
                    writing.set_result(image)
                else:
                    if behind is not None and is_large:
                        yield _wait(*behind)
                        behind = None
                    report(job, 0.0)
                    image = upscale_image(upscaler, image, functools.partial(report, job))
                    writing = writer.submit(_write_output, job, image, options)
                del image
            except Exception as error:
                if error is report.error:
                    raise
                writing.set_exception(error)
            if behind is not None:
                yield _wait(*behind)
            behind = job, writing
        if behind is not None:
            yield _wait(*behind)


def _compare_with_memory(reading: Future[ImageData | FileResult], upscaler: Upscaler) -> tuple[bool, bool]:
    """Wait for an input, and return whether its output is large, and whether it leaves no room for the next input."""
    if reading.exception() is not None or isinstance(image := reading.result(), FileResult):
        return False, False
    size = _output_bytes(upscaler, image)
    limit = memory_limit()
    return size > min(LARGE_OUTPUT_BYTES, limit * LARGE_OUTPUT_SHARE), size > limit / 3


def _wait(job: FileJob, work: Future[FileResult]) -> FileResult:
    """Return the result of a file when it is known; an error becomes one too."""
    try:
        return work.result()
    except LostDeviceError:  # all other files would fail, too
        raise
    except EsrganError as error:
        match error.problems:
            case [Problem() as problem]:
                return FileResult(job, problem)
        return FileResult(job, Problem.failure(job.source, str(error)))  # from code that does not know the file
    except ImportError as error:
        return FileResult(job, Problem.failure(job.source, describe_import_error(error)))
    except Exception as error:  # a run of many hours should survive even errors that we did not foresee
        what = f"unexpected error: {type(error).__name__}: {describe_error(error)}"
        return FileResult(job, Problem.failure(job.source, what))


def _check_output(job: FileJob, options: FileOptions) -> FileResult | None:
    """Return the result of a job that needs no work or cannot be done; None if its image is to be upscaled."""
    if problem := job.obstacle or find_name_problem(job.target):
        return FileResult(job, problem)
    if not os.path.lexists(job.target):
        return None
    if job.target.is_dir():
        return FileResult(job, Problem.failure(job.target, "is a folder", "remove it or choose another output folder"))
    if options.skip_existing and job.target.is_file():
        return FileResult(job, is_skipped=True)
    if job.keeps_target:
        remedy = "choose another suffix or folder for the output, or --skip-existing if it is the output"
        return FileResult(job, Problem.failure(job.source, f"its output would overwrite {job.target}", remedy))
    if options.overwrite:
        return None
    if not job.target.exists():
        remedy = "remove the link, or use --overwrite to write that file"
        return FileResult(job, Problem.failure(job.target, "is a link to a file that does not exist", remedy))
    remedy = "use --overwrite to replace it or --skip-existing to skip it"
    return FileResult(job, Problem.failure(job.target, "already exists", remedy))


def _read_input(job: FileJob, upscaler: Upscaler, options: FileOptions, memory: int) -> ImageData | FileResult:
    """Read an input and check that its output can be written; return the result if there is nothing to upscale.

    Decoders need up to five times the memory of the pixels, so these may have a fifth of ``memory``.
    """
    result = _check_output(job, options)  # another process may have written it meanwhile
    if result is not None:
        return result
    if (kind := describe_path(job.source)) in ("a named pipe", "a socket", "a device"):  # could block for ever
        raise ImageError(Problem(str(job.source), "an image file", kind, "save its content as a file first"))
    image = images.read_image(job.source, options.max_pixels, memory // 5)
    background = None if options.background is None else parse_colour(options.background)
    supports_alpha = FILE_FORMATS[format_for_suffix(job.target)].supports_alpha
    image = fit_alpha(image, supports_alpha=supports_alpha, background=background)
    sizes = [upscaler.output_size(*frame.shape[:2]) for frame in image.frames]
    check_image_writable(job.target, image, sizes, reduce_depth=options.reduce_depth)
    memory = min(memory, memory_limit()) - sum(frame.nbytes for frame in image.frames)
    if (least := _output_bytes(upscaler, image) + _work_bytes(upscaler, image, job.target)) > memory:
        got = f"its output needs {format_size(least)} of memory, and this process can have {format_size(memory)}"
        remedy = "cut it into parts" + (", or choose a smaller size" if upscaler.options.has_size else "")
        raise ImageError(Problem.failure(job.source, got, remedy))
    _check_space(job.target, least_file_size(job.target, image, sum(height * width for height, width in sizes)))
    return image


def _real_folder(target: Path) -> Path:
    """Return the folder in which an output is written: a link to a file stays one, and its file is replaced."""
    return Path(os.path.realpath(target)).parent if target.is_symlink() else target.parent


def _check_space(target: Path, least: int) -> None:
    """Check that the disk has room for the least bytes that an output needs.

    Raises:
        ImageError: If there is too little space.
    """
    folder = next((folder for folder in target.parents if folder.is_dir()), target.parent)
    with suppress(OSError):  # some disks do not say
        if (free := shutil.disk_usage(folder).free) < least:
            got = f"too little space: at least {format_size(least)} are needed, {format_size(free)} are free"
            raise ImageError(Problem.failure(target, got, "free some space or choose another folder"))


def _work_bytes(upscaler: Upscaler, image: ImageData, target: Path) -> int:
    """Return the bytes that are needed besides the output: by its encoder, or for copies in float32.

    These are the output of the networks before it is resized, and what one network hands to the next.
    """
    largest = max(image.frames, key=np.size)
    copies = FILE_FORMATS[format_for_suffix(target)].encoder_copies
    encoding = _output_bytes(upscaler, replace(image, frames=(largest,))) * copies
    height, width = largest.shape[:2]
    steps = upscaler.count_steps(height, width)
    sizes = upscaler.chain.sizes((height, width), steps)[:-1]
    generators = upscaler.networks * (steps // len(upscaler.networks))
    kept = [math.prod(size) * each.scale_factor**2 for size, each in zip(sizes, generators, strict=True)]
    if not upscaler.keeps_float_copies(height, width):
        kept.pop()
    return int(max(encoding, 8 * max(kept, default=0) * min(image.base_channels, 3)))


def _output_bytes(upscaler: Upscaler, image: ImageData) -> int:
    sizes = (upscaler.output_size(*frame.shape[:2]) for frame in image.frames)
    first = image.frames[0]
    return int(sum(height * width for height, width in sizes) * first.shape[2] * first.itemsize)


def _write_output(job: FileJob, image: ImageData, options: FileOptions) -> FileResult:
    files.create_folder(_real_folder(job.target))
    try:
        lost = images.write_image(
            job.target,
            images.set_resolution(image, options.resolution),
            overwrite=options.overwrite,
            quality=options.quality,
            reduce_depth=options.reduce_depth,
        )
    except ImageError:
        if options.skip_existing and job.target.is_file():  # another process has written it meanwhile
            return FileResult(job, is_skipped=True)
        raise
    is_turned = image.is_turned or exif.read_orientation(exif.strip_exif_prefix(image.exif or b"") or b"") > 1
    notes = copy_sidecars(job.source, job.target, image.factors, is_turned=is_turned, overwrite=options.overwrite)
    notes += filter(None, [job.note])
    pixels = sum(frame.shape[0] * frame.shape[1] for frame in image.frames)
    return FileResult(job, megapixels=pixels / 1e6, notes=(*image.notes, *lost, *notes))
