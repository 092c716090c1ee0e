"""Upscale many files: one after the other, whatever happens to one of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from esrgan import pictures
from esrgan.errors import EsrganError, ImageError
from esrgan.inference.upscaler import Upscaler

SUFFIX = "_sr"  # of a result's name


@dataclass(frozen=True)
class Result:
    """What became of a file.

    Attributes:
        source: The file.
        target: The enlarged image.
        error: Why there is none; None if there is.
        megapixels: Size of the result.
        seconds: Time it took.
    """

    source: Path
    target: Path
    error: str | None
    megapixels: float
    seconds: float


def target_of(source: Path, out_dir: Path | None) -> Path:
    """Name the result for a file: ``<stem>_sr<suffix>`` beside it or in a folder."""
    return (out_dir or source.parent) / f"{source.stem}{SUFFIX}{source.suffix}"


def without_results(paths: Sequence[Path], named: Collection[Path] = ()) -> list[Path]:
    """Leave out files that are the results of others in the list, from an earlier run, unless they were named."""
    results = {target_of(path, None) for path in paths}.difference(named)
    return [path for path in paths if path not in results]


def upscale_files(
    upscaler: Upscaler,
    paths: Sequence[Path],
    out_dir: Path | None,
    overwrite: bool,
    report: Callable[[Result], None],
) -> list[Result]:
    """Upscale files; their format, colour profile and EXIF stay.

    Args:
        upscaler: With what.
        paths: Image files.
        out_dir: Folder for the results, made if need be; None is beside each file.
        overwrite: Replace results that are there.
        report: Called after each file.

    Returns:
        What became of each; an error with one does not stop the others.

    Raises:
        ImageError: If ``out_dir`` cannot be made.
    """
    if out_dir is not None:
        try:
            out_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"{out_dir}: the folder cannot be made: {error.strerror}") from error
    results = []
    for source in paths:
        target = target_of(source, out_dir)
        before = time.perf_counter()
        megapixels, message = 0.0, None
        try:
            if target.exists() and not overwrite:
                raise ImageError(f"{target}: is there already; --overwrite replaces it")
            picture = pictures.read(source)
            low = picture.frames[0]
            height, width, channels = low.shape
            size = (upscaler.scale * height, upscaler.scale * width, channels)
            pictures.check_writable(target, *size, low.dtype, len(picture.frames), bits=picture.bits)
            high = dataclasses.replace(picture, frames=tuple(upscaler(frame) for frame in picture.frames))
            pictures.write(target, high, overwrite=overwrite)
            megapixels = size[0] * size[1] * len(picture.frames) / 1e6
        except EsrganError as error:
            message = str(error)
        result = Result(source, target, message, megapixels, time.perf_counter() - before)
        results.append(result)
        report(result)
    return results
