"""Make the LR images of a folder of HR images, in several processes, in a folder next to it."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from esrgan import images, resize
from esrgan.console import log, progress
from esrgan.data.datasets import OUTPUT_MARKER, find_pairs_and_problems
from esrgan.data.prepare import check_pair_sizes
from esrgan.errors import DatasetError, EsrganError, ImageError, Problem, shorten
from esrgan.files import remove_abandoned
from esrgan.text import describe_error, format_count, format_size

_Problems = list[str | Problem]


@dataclass(frozen=True)
class _Job:
    high: Path
    low: Path
    shape: tuple[int, int, int]  # (height, width, channels) of the HR image as it is read

    def low_shape(self, scale: int) -> tuple[int, int, int]:
        height, width, channels = self.shape
        return height // scale, width // scale, channels


def lr_folder(folder: Path, scale: int) -> Path:
    """Return the folder for the LR images of a folder: ``photos_LR_x4`` next to ``photos``."""
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    return folder.with_name(f"{folder.name}_LR_x{scale}")


def downscale_folder(folder: Path, scale: int, workers: int) -> _Problems:
    """Make the LR images of a folder with MATLAB's bicubic, from HR images cropped to a multiple of the scale.

    Existing LR images are kept if they have the right size and the HR image has not changed since they were made. The
    entry for a configuration is logged if training would accept it.

    Args:
        folder: Folder of HR images; the LR images have the same subfolders.
        scale: Scale factor.
        workers: Number of processes.

    Returns:
        The problems with single images. The LR images of the others have been made.

    Raises:
        DatasetError: If the folder has no images, or the LR images cannot be written or do not fit on the disk.
    """
    target = lr_folder(folder, scale)
    jobs, problems = _list_jobs(folder, target, scale)
    _create_output_folder(target)
    todo = [job for job in jobs if not _is_up_to_date(job, scale)]
    need = sum(math.prod(job.low_shape(scale)) for job in todo)
    free = shutil.disk_usage(target).free
    if need > free:
        raise DatasetError(Problem(str(target), f"{format_size(need)} free", format_size(free), "free some space"))
    found = f"{format_count(len(jobs), 'image')}, {format_count(len(todo), 'LR image')} to make in {target}"
    log.info(f"{folder}: {found}{f', up to {format_size(need)}' if todo else ''}")
    with _worker_map(min(workers, len(todo))) as map_jobs:
        for done, (job, problem) in enumerate(
            zip(todo, map_jobs(partial(_downscale_image, scale=scale), todo), strict=True), 1
        ):
            problems += problem
            progress(f"{done}/{len(todo)} {job.high.name}", keep=done == len(todo))
    pairs, unmatched = find_pairs_and_problems([(str(folder), str(target))], "train", scale, Path())
    if not problems:  # otherwise images without an LR image have been reported
        problems += [*unmatched, *check_pair_sizes(pairs, scale)]
    if problems:
        entry = "training would refuse this folder; correct it and run the command again"
    else:
        dataset = json.dumps({"hr": str(folder), "lr": str(target)}, ensure_ascii=False)
        with_alpha = ', with "img_channels": 4' if jobs[0].shape[2] == 4 else ""
        entry = f'use in a configuration: "train_datasets": [{dataset}]{with_alpha}'
    log.info(f"{folder}: {format_count(len(pairs), 'pair')} for ×{scale}; {entry}")
    return shorten(problems)


def _list_jobs(folder: Path, target: Path, scale: int) -> tuple[list[_Job], _Problems]:
    """Return the images to downscale, and the problems with those that cannot be."""
    pairs, missing = find_pairs_and_problems([str(folder)], "train", scale, Path())
    if missing:
        raise DatasetError(missing)
    if any(pair.low for pair in pairs):
        remedy = "use it in the configuration as it is"
        raise DatasetError(Problem(str(folder), "HR images only", "a folder that has their LR images too", remedy))
    problems: _Problems = []
    jobs: dict[Path, _Job] = {}
    for pair in pairs:
        place = pair.high.relative_to(folder).with_suffix(".png")
        if place in jobs:
            other = jobs[place].high.name
            expected, got = "only one image of this name", f"{other} as well"
            problems.append(Problem(str(pair.high), expected, got, "rename one of them"))
            continue
        try:
            shape = images.read_shape(pair.high)
        except ImageError as error:
            problems += error.problems
            continue
        if min(shape[:2]) < scale:
            got = f"{shape[1]}×{shape[0]} px"
            problems.append(Problem(str(pair.high), f"at least {scale}×{scale} px", got, "remove it"))
            continue
        jobs[place] = _Job(pair.high, target / place, shape)
    # Grey images become RGB beside colour images, and alpha is dropped where it is opaque, as training does it.
    kinds = {job.shape[2] for job in jobs.values()}
    channels = 4 if kinds == {4} else 1 if kinds <= {1, 2} else 3
    return [replace(job, shape=(*job.shape[:2], channels)) for job in jobs.values()], problems


def _create_output_folder(target: Path) -> None:
    try:
        if target.is_dir() and not (target / OUTPUT_MARKER).exists() and any(target.iterdir()):
            remedy = "use it in the configuration as it is, or move it away"
            expected, got = "an empty folder or one made by this command", "one with your own files"
            raise DatasetError(Problem(str(target), expected, got, remedy))
        target.mkdir(exist_ok=True)
        (target / OUTPUT_MARKER).touch()
        for subfolder in (target, *(path for path in target.rglob("*") if path.is_dir())):
            remove_abandoned(subfolder)
    except OSError as error:
        remedy = "free some space or make the folder writable"
        raise DatasetError(f"{target}: cannot be written: {describe_error(error)}; {remedy}") from error


def _is_up_to_date(job: _Job, scale: int) -> bool:
    """Return whether the LR image has the right shape and the modification time of its HR image."""
    try:
        same_time = job.low.stat().st_mtime_ns == job.high.stat().st_mtime_ns
        return same_time and images.read_shape(job.low) == job.low_shape(scale)
    except (OSError, ImageError):
        return False


@contextmanager
def _worker_map(workers: int) -> Iterator[Callable[[Callable[[_Job], _Problems], list[_Job]], Iterator[_Problems]]]:
    """Yield ``map``, or its parallel version, whose pending jobs are cancelled when the block is left early."""
    if workers <= 1:
        yield map
        return
    # Spawned, because threads of NumPy or PyTorch may hold locks that a fork would copy.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))

    def map_jobs(function: Callable[[_Job], _Problems], jobs: list[_Job]) -> Iterator[_Problems]:
        # Ctrl-C reaches all processes. The parent ends the workers, so they ignore it from the moment they start.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return pool.map(function, jobs)  # starts the workers
        finally:
            signal.signal(signal.SIGINT, handler)

    try:
        yield map_jobs
    except BrokenProcessPool as error:
        raise DatasetError("a worker process was killed, perhaps for lack of memory; lower --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _downscale_image(job: _Job, scale: int) -> _Problems:
    """Make one LR image and return the problems."""
    try:
        job.low.parent.mkdir(parents=True, exist_ok=True)
        status = job.high.stat()
        image = images.read_pixels(job.high, job.shape[2])
        height, width = (size // scale * scale for size in image.shape[:2])
        images.write_pixels(job.low, resize.bicubic(image[:height, :width], Fraction(1, scale)), overwrite=True)
        os.utime(job.low, ns=(status.st_atime_ns, status.st_mtime_ns))
    except EsrganError as error:
        return list(error.problems)
    except OSError as error:
        return [f"{job.high}: cannot be downscaled: {describe_error(error)}; check the file and the free disk space"]
    return []
