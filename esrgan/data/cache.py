"""Decoded images on disk: each file is read, checked and reduced once, and patches are cut from a memory map."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from esrgan.data.datasets import ImagePair, load_pair
from esrgan.errors import DatasetError, EsrganError, Problem

_OPENING = threading.Lock()  # NumPy parses headers with ast.literal_eval, which two threads of Python 3.11 cannot


@dataclass(frozen=True)
class CachedPair:
    """Two ``.npy`` files: ``high`` is (scale·H, scale·W, C) uint8, ``low`` is (H, W, C) uint8.

    Attributes:
        source: The HR image they were made from.
        shape: (scale·H, scale·W) in px.
    """

    source: Path
    high: Path
    low: Path
    shape: tuple[int, int]


def prepare(
    pairs: Sequence[ImagePair],
    *,
    scale: int,
    channels: int,
    min_size: tuple[int, int],
    cache_dir: Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[CachedPair]:
    """Decode every image once, check it, and make the LR images that are missing.

    What is in the cache already is not read again; a file is known by its path, size and time of change.

    Args:
        pairs: What to read.
        scale: Scale factor.
        channels: Channels that every image must have.
        min_size: Least (height, width) of an HR image in px.
        cache_dir: Folder for the ``.npy`` files.
        progress: Called with the number done and the number of pairs.

    Raises:
        DatasetError: With every image that is unreadable, too small, or of other channels or size than its partner.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"cache {cache_dir}: cannot be made: {error.strerror}; set cache_dir") from error
    task = partial(_prepare_one, scale=scale, channels=channels, min_size=min_size, cache_dir=cache_dir)
    prepared: list[CachedPair] = []
    problems: list[str | Problem] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and resizing run outside Python's lock
        for done, result in enumerate(pool.map(task, pairs), 1):
            if isinstance(result, CachedPair):
                prepared.append(result)
            else:
                problems += result
            if progress:
                progress(done, len(pairs))
    if problems:
        raise DatasetError(problems)
    return prepared


def _prepare_one(
    pair: ImagePair, *, scale: int, channels: int, min_size: tuple[int, int], cache_dir: Path
) -> CachedPair | list[str | Problem]:
    try:
        sources = [pair.high] if pair.low is None else [pair.high, pair.low]
        try:
            key = _key(sources, scale, channels)
        except OSError as error:
            return [f"{error.filename}: cannot be read: {error.strerror}"]
        high_path, low_path = cache_dir / f"{key}_high.npy", cache_dir / f"{key}_low.npy"
        try:
            with _OPENING:
                np.load(low_path, mmap_mode="r")
                height, width = np.load(high_path, mmap_mode="r").shape[:2]
        except (OSError, ValueError, EOFError):  # not there, or cut short
            low, high = load_pair(pair, scale, channels)
            height, width = high.shape[:2]
            _save(high_path, high)
            _save(low_path, low)
    except EsrganError as error:
        return list(error.problems)
    except OSError as error:
        return [f"{pair.high}: cannot be cached in {cache_dir}: {error.strerror}; free some space or set cache_dir"]
    if height < min_size[0] or width < min_size[1]:
        remedy = "remove it or use smaller patches"
        return [Problem(str(pair.high), f"at least {min_size[1]}×{min_size[0]} px", f"{width}×{height}", remedy)]
    return CachedPair(pair.high, high_path, low_path, (height, width))


def _key(sources: Sequence[Path], scale: int, channels: int) -> str:
    text = f"x{scale} {channels} channels"
    for path in sources:
        status = path.stat()
        text += f"\n{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _save(path: Path, array: np.ndarray) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, np.ascontiguousarray(array))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
