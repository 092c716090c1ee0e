"""Make the LR images of a folder of HR images, in several threads, in a folder next to it."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from esrgan import images
from esrgan.console import log
from esrgan.data.datasets import OUTPUT_MARKER, common_channels, find_dataset, find_pairs, load_pair
from esrgan.data.pairing import ImagePair
from esrgan.data.record import Key, add_line, file_key, read_lines
from esrgan.errors import DatasetError, EsrganError, ImageError, Problem, shorten
from esrgan.files import create_folder, remove_abandoned
from esrgan.locks import lock
from esrgan.machine import map_in_threads
from esrgan.outputs import PREPARE_SOFTWARE, check_replaceable
from esrgan.paths import is_litter, name_key
from esrgan.progress import Progress, explain_interrupt
from esrgan.text import describe_error, format_count, format_size


@dataclass(frozen=True)
class _Job:
    """An LR image to make: its HR image, the path of that below its folder, its own path, and its shape (H, W, C)."""

    high: Path
    name: str
    low: Path
    shape: tuple[int, int, int]


def lr_folder(folder: Path, scale: int) -> Path:
    """Return the folder for the LR images of a folder: ``photos_LR_x4`` next to ``photos``.

    Raises:
        DatasetError: If nothing can be next to it, because it is the root of the file system.
    """
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    if not folder.name:
        what = "no folder of LR images can be next to the root of the file system"
        raise DatasetError(Problem.failure(folder, what, "name a folder in it"))
    return folder.with_name(f"{folder.name}_LR_x{scale}")


def downscale_folder(folder: Path, scale: int, workers: int) -> list[str | Problem]:
    """Make the LR images of a folder with MATLAB's bicubic, from HR images cropped to a multiple of the scale.

    Existing LR images are kept if neither they nor their HR images have changed since they were made. Images of the
    user are not replaced. The entry for a configuration is logged if training would accept it.

    Args:
        folder: Folder of HR images; the LR images have the same subfolders.
        scale: Scale factor.
        workers: Number of threads.

    Returns:
        The problems with single images. The LR images of the others have been made.

    Raises:
        DatasetError: If the folder has no images, or the LR images cannot be written or do not fit on the disk.
    """
    target = lr_folder(folder, scale)
    problems: list[str | Problem] = []
    jobs = _list_jobs(folder, target, scale, problems)
    create_output_folder(target, OUTPUT_MARKER, "use it in the configuration as it is, or move it away")
    problems += _downscale_jobs(jobs, folder, target, scale, workers)
    match = find_dataset((str(folder), str(target)), "train", scale, Path())
    if not problems:  # otherwise images without an LR image have been reported
        problems += match.problems
    if problems:
        entry = "not ready for training: correct what is reported and run the command again"
    else:
        dataset = json.dumps({"hr": str(folder), "lr": str(target)}, ensure_ascii=False)
        with_alpha = ', with "img_channels": 4' if jobs[0].shape[2] == 4 else ""
        entry = f'use in a configuration: "train_datasets": [{dataset}]{with_alpha}'
    log.info(f"{folder}: {format_count(len(match.pairs), 'pair')} for ×{scale}; {entry}")
    return shorten(problems)


def _downscale_jobs(jobs: Sequence[_Job], folder: Path, target: Path, scale: int, workers: int) -> list[str | Problem]:
    """Make the LR images that are missing or outdated, and return the problems."""
    made = {key[0]: key for key, _ in read_lines(target / OUTPUT_MARKER)}  # the last line of each HR image counts
    todo = [job for job in jobs if not _is_up_to_date(job, made)]
    need = sum(math.prod(job.shape) for job in todo)
    free = shutil.disk_usage(target).free
    if need > free:
        raise DatasetError(Problem(str(target), f"{format_size(need)} free", format_size(free), "free some space"))
    found = f"{format_count(len(jobs), 'image')}, {format_count(len(todo), 'LR image')} to make in {target}"
    log.info(f"{folder}: {found}{f', up to {format_size(need)}' if todo else ''}")
    shown = Progress({job: math.prod(job.shape) for job in todo}, f"{folder}: ")

    def describe_interruption() -> str:
        finished = f"{shown.finished:,} of {format_count(len(todo), 'LR image')} made"
        return f"{folder}: {finished}; the same command makes the others"

    problems: list[str | Problem] = []
    with (
        lock(target / OUTPUT_MARKER, f"{target}: another process is making LR images") as record,
        explain_interrupt(describe_interruption),
    ):
        for job, found_problems in map_in_threads(lambda job: _downscale(job, scale, record), todo, workers):
            problems += found_problems
            shown.finish(job)
    return problems


def _list_jobs(folder: Path, target: Path, scale: int, problems: list[str | Problem]) -> list[_Job]:
    """Return the images to downscale, and add the problems with those that cannot be."""
    pairs = find_pairs([str(folder)], "train", scale, Path())
    if any(pair.low for pair in pairs):
        remedy = "use it in the configuration as it is"
        raise DatasetError(Problem(str(folder), "HR images only", "a folder that has their LR images too", remedy))
    key = name_key(target)
    taken: dict[str, Path] = {}
    sources: dict[Path, Path] = {}
    shapes: dict[Path, tuple[int, int, int]] = {}
    for high in (pair.high for pair in pairs):
        low = target / high.relative_to(folder).with_suffix(".png")
        if (other := taken.setdefault(key(str(low)), high)) != high:
            expected, got = "only one image of this name", f"{other.name} as well"
            problems.append(Problem(str(high), expected, got, "rename one of them"))
            continue
        sources[low] = high
        try:
            shapes[low] = images.read_shape(high)
        except ImageError as error:
            problems += error.problems
    channels = common_channels({channels for _, _, channels in shapes.values()})
    jobs = []
    for low, (height, width, _) in shapes.items():
        name = sources[low].relative_to(folder).as_posix()
        jobs.append(_Job(sources[low], name, low, (height // scale, width // scale, channels)))
    return jobs


def create_output_folder(target: Path, marker: str, remedy: str) -> None:
    """Create a folder for images, and remove what killed processes left in it.

    Args:
        target: The folder.
        marker: Name of the file in it by which a later run knows that it made the folder.
        remedy: What to do if it has other files.

    Raises:
        EsrganError: If it has other files, or cannot be written.
    """
    create_folder(target)
    try:
        if not (target / marker).exists() and not all(is_litter(path.name) for path in target.iterdir()):
            expected, got = "an empty folder or one made by this command", "one with your own files"
            raise DatasetError(Problem(str(target), expected, got, remedy))
        (target / marker).touch()
        for subfolder in (target, *(path for path in target.rglob("*") if path.is_dir())):
            remove_abandoned(subfolder)
    except OSError as error:
        what = "free some space or make the folder writable"
        raise DatasetError(f"{target}: cannot be written: {describe_error(error)}; {what}") from error


def _is_up_to_date(job: _Job, made: Mapping[str, Key]) -> bool:
    """Return whether the LR image was made from this HR image, and still has its shape and modification time."""
    try:
        is_same = made.get(job.name) == file_key(job.high, job.name)
        same_time = job.low.stat().st_mtime_ns == job.high.stat().st_mtime_ns
        return is_same and same_time and images.read_shape(job.low) == job.shape
    except (OSError, ImageError):
        return False


def _downscale(job: _Job, scale: int, record: BinaryIO) -> Sequence[str | Problem]:
    """Make one LR image and return the problems."""
    try:
        job.low.parent.mkdir(parents=True, exist_ok=True)
        key = file_key(job.high, job.name)
        low, _ = load_pair(ImagePair(job.high, None), scale, job.shape[2])
        check_replaceable(job.low, "move it away, or the whole folder if an earlier version of this command made it")
        images.write_pixels(job.low, low, overwrite=True, software=PREPARE_SOFTWARE)
        os.utime(job.low, ns=(key[2], key[2]))
        add_line(record, key)
    except EsrganError as error:
        return error.problems
    except OSError as error:
        return [f"{job.high}: cannot be downscaled: {describe_error(error)}; check the file and the free disk space"]
    return []
