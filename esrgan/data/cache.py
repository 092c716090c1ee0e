"""Cache of decoded images: each image is decoded, checked and downscaled once; patches are cut from a memory map.

A cache file is a header, followed by the HR and LR images as raw bytes. All processes of a machine share its pages. It
is named by path, size and modification time of the image files. Images that are renamed may all have the same size and
time, so the header also has their change times, which renaming sets. If one differs, a digest of the files decides,
because copies and permissions set it too. The new change time then replaces the old one.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import shutil
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from esrgan import images
from esrgan.console import log
from esrgan.data.alignment import describe_misalignment
from esrgan.data.datasets import load_pair
from esrgan.data.pairing import ImagePair
from esrgan.errors import DatasetError, EsrganError, ImageError, Problem, shorten
from esrgan.files import atomic_write, remove_abandoned
from esrgan.locks import lock
from esrgan.machine import map_in_threads
from esrgan.progress import Progress
from esrgan.text import describe_error, format_count, format_size

# Magic bytes; height, width and channels of the HR image; scale; CRC-32 of the pixels.
_HEADER = struct.Struct("<8s5I")
_TIMES = struct.Struct("<2q")  # change times of the HR and LR files in ns, 0 without LR file
_DIGEST_SIZE = 16  # bytes of the digest of the image files, which follows
_START = _HEADER.size + _TIMES.size + _DIGEST_SIZE  # of the pixels
_MAGIC = b"esrgan-2"

_verified: set[Path] = set()  # cache files whose checksum this process has verified

_Problems = list[str | Problem]


@dataclass(frozen=True)
class CachedPair:
    """A pair of decoded images in a cache file.

    Attributes:
        source: Images the file was made from.
        path: Cache file.
        shape: (height, width, channels) of the HR image; height and width are multiples of the scale.
        scale: Scale factor.
        checksum: CRC-32 of the pixels, by which the images are known wherever they are stored.
    """

    source: ImagePair
    path: Path
    shape: tuple[int, int, int]
    scale: int
    checksum: int = field(compare=False)

    @property
    def low_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the LR image."""
        height, width, channels = self.shape
        return height // self.scale, width // self.scale, channels

    @property
    def num_bytes(self) -> int:
        """Size of the cache file in bytes."""
        return _START + math.prod(self.shape) + math.prod(self.low_shape)


def cache_pairs(
    pairs: Sequence[ImagePair],
    *,
    scale: int,
    channels: int,
    min_size: tuple[int, int],
    cache_dir: Path,
    others: Sequence[ImagePair] = (),
) -> list[CachedPair]:
    """Decode and check every image, and make missing LR images, unless they are in the cache.

    Cached images are identified by path, size and times. If several processes call this at once, one of
    them decodes and the others wait. If a process is killed, the images decoded so far stay in the cache. A warning
    is logged if some of the LR images do not show the same as their HR images.

    Args:
        pairs: Image pairs to decode.
        scale: Scale factor.
        channels: Number of channels that every image must have.
        min_size: Minimum (height, width) of an HR image in px.
        cache_dir: Folder for the cache files.
        others: Further image pairs for which the disk must have space, such as those of later calls.

    Returns:
        The cache files in the order of the pairs. Their sizes are correct; ``open_pair`` verifies their checksums.

    Raises:
        DatasetError: If images are unreadable, too small, of another number of channels, or of the wrong size for
            their partner (all kinds of problems are listed), or if the cache cannot be written or does not fit on the
            disk.
    """
    find_cached = partial(_find_cached, scale=scale, channels=channels, cache_dir=cache_dir)
    found = {pair: cached for pair in pairs if (cached := find_cached(pair))}
    problems: dict[ImagePair, _Problems] = {}
    if missing := [pair for pair in dict.fromkeys(pairs) if pair not in found]:
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with lock(cache_dir / ".lock", f"cache {cache_dir}: another process is decoding images", wait=True):
                remove_abandoned(cache_dir)
                # Another process may have decoded some of them meanwhile.
                found |= {pair: cached for pair in missing if (cached := find_cached(pair))}
                missing = [pair for pair in missing if pair not in found]
                further = [pair for pair in others if pair not in found and not find_cached(pair)]
                _check_disk_space(list(dict.fromkeys(missing + further)), scale, cache_dir)
                make = partial(_cache_pair, scale=scale, channels=channels, cache_dir=cache_dir)
                shown = Progress(dict.fromkeys(missing, 1.0), "decoding images: ")
                for pair, made in map_in_threads(make, missing):
                    if isinstance(made, CachedPair):
                        found[pair] = made
                    else:
                        problems[pair] = made
                    shown.finish(pair)
        except OSError as error:
            remedy = "make it writable, or set cache_dir to another folder"
            raise DatasetError(f"cache {cache_dir}: cannot be written: {describe_error(error)}; {remedy}") from error
    for pair, cached in found.items():
        if problem := find_size_problem(pair.high, cached.shape, min_size):
            problems[pair] = [problem]
    if problems:
        raise DatasetError(shorten(problem for pair in dict.fromkeys(pairs) for problem in problems.get(pair, ())))
    given = [cached for cached in found.values() if cached.source.low]
    if text := describe_misalignment(given, open_pair, scale):
        log.warning("%s and other LR images: %s", given[0].source.low, text)
    return [found[pair] for pair in pairs]


def find_size_problem(path: Path, shape: tuple[int, ...], min_size: tuple[int, int]) -> Problem | None:
    """Return the problem that an image (height, width, …) is smaller than the minimum, or None."""
    height, width = shape[:2]
    if height >= min_size[0] and width >= min_size[1]:
        return None
    expected, got = f"at least {min_size[1]}×{min_size[0]} px", f"{width}×{height} px"
    return Problem(str(path), expected, got, "remove it or use smaller patches")


def open_pair(pair: CachedPair) -> tuple[np.ndarray, np.ndarray]:
    """Map the images of a cache file into memory, so that only the pages in use are read.

    Each process verifies the checksum once. A damaged or missing file is rebuilt from its source images.

    Returns:
        LR (H, W, C) and HR (scale·H, scale·W, C), uint8, read-only.

    Raises:
        DatasetError: If the file cannot be rebuilt.
    """
    try:
        return _memory_map(pair)
    except (OSError, ValueError) as error:
        log.warning("%s: %s; rebuilding it from %s", pair.path, describe_error(error), pair.source.high)
    try:
        pair.path.parent.mkdir(parents=True, exist_ok=True)
        made = _cache_pair(pair.source, scale=pair.scale, channels=pair.shape[2], cache_dir=pair.path.parent)
        if isinstance(made, list):
            raise DatasetError(made)
        if made != pair:
            remedy = "resume with --resume auto, or start a new run"
            expected = "the image the run started with"
            raise DatasetError(Problem(str(pair.source.high), expected, "a different one", remedy))
        return _memory_map(pair)
    except (OSError, ValueError) as error:
        remedy = "check the disk, or set cache_dir to a folder on another disk"
        raise DatasetError(Problem(str(pair.path), "the data just written", describe_error(error), remedy)) from error


def _memory_map(pair: CachedPair) -> tuple[np.ndarray, np.ndarray]:
    with pair.path.open("rb", buffering=0) as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if pair.path not in _verified:
        if content[: _HEADER.size] != _header(pair, zlib.crc32(memoryview(content)[_START:])):
            raise ValueError("damaged")
        _verified.add(pair.path)
    high_size, low_size = math.prod(pair.shape), math.prod(pair.low_shape)
    high = np.frombuffer(content, np.uint8, high_size, _START)
    low = np.frombuffer(content, np.uint8, low_size, _START + high_size)
    return low.reshape(pair.low_shape), high.reshape(pair.shape)


def _header(pair: CachedPair, checksum: int) -> bytes:
    return _HEADER.pack(_MAGIC, *pair.shape, pair.scale, checksum)


def _find_cached(pair: ImagePair, *, scale: int, channels: int, cache_dir: Path) -> CachedPair | None:
    """Return the cache file of a pair; None if it is missing or outdated, or if its size contradicts its header."""
    try:
        path = _cache_path(pair, scale, channels, cache_dir)
        with path.open("rb", buffering=0) as file:
            magic, height, width, _, _, checksum = _HEADER.unpack(file.read(_HEADER.size))
            stored, digest = file.read(_TIMES.size), file.read(_DIGEST_SIZE)
            size = os.fstat(file.fileno()).st_size
        cached = CachedPair(pair, path, (height, width, channels), scale, checksum)
        if (magic, size) != (_MAGIC, cached.num_bytes):
            return None
        if stored != (times := _change_times(pair)):
            if digest != _hash_files(pair):
                return None
            with suppress(OSError), path.open("r+b", buffering=0) as file:  # the cache may be read-only
                file.seek(_HEADER.size)
                file.write(times)
        return cached
    except (OSError, struct.error):
        return None


def _files(pair: ImagePair) -> list[Path]:
    return [path for path in (pair.high, pair.low) if path is not None]


def _change_times(pair: ImagePair) -> bytes:
    times = [path.stat().st_ctime_ns for path in _files(pair)]
    return _TIMES.pack(*[*times, 0][:2])


def _hash_files(pair: ImagePair) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    for path in _files(pair):
        digest.update(path.read_bytes())
    return digest.digest()


def _cache_path(pair: ImagePair, scale: int, channels: int, cache_dir: Path) -> Path:
    """Return the path of the cache file, named by the paths, sizes and modification times of the images."""
    text = f"esrgan-1 x{scale} {channels} channels".encode()
    for path in _files(pair):
        status = path.stat()
        text += b"\n%b %d %d" % (os.fsencode(path.resolve()), status.st_size, status.st_mtime_ns)
    return cache_dir / f"{hashlib.sha256(text).hexdigest()[:32]}.pair"


def _check_disk_space(pairs: list[ImagePair], scale: int, cache_dir: Path) -> None:
    """Log the disk space the pairs need, and raise if it is not available."""
    if not pairs:
        return
    need = 0
    for pair in pairs:
        with suppress(ImageError):  # reported when the image is decoded
            height, width, channels = images.read_shape(pair.high)
            shape = (height // scale * scale, width // scale * scale, channels)
            need += CachedPair(pair, cache_dir, shape, scale, checksum=0).num_bytes
    free = shutil.disk_usage(cache_dir).free
    if need > free:
        remedy = "free some space, or set cache_dir to a folder on another disk"
        expected = f"{format_size(need)} free for {format_count(len(pairs), 'decoded image')}"
        raise DatasetError(Problem(f"cache {cache_dir}", expected, format_size(free), remedy))
    todo = format_count(len(pairs), "image")
    log.info(f"cache {cache_dir}: {todo} to decode, {format_size(need)} needed, {format_size(free)} free")


def _cache_pair(pair: ImagePair, *, scale: int, channels: int, cache_dir: Path) -> CachedPair | _Problems:
    """Write the cache file of a pair; return the problems with its images if there are any.

    Raises:
        DatasetError: If the file cannot be written, since then none of the others can be.
    """
    try:
        path = _cache_path(pair, scale, channels, cache_dir)
        sources = _change_times(pair) + _hash_files(pair)
        low, high = load_pair(pair, scale, channels)
    except EsrganError as error:
        return list(error.problems)
    except OSError as error:
        return [f"{error.filename}: cannot be read: {describe_error(error)}; check the file and its permissions"]
    high_bytes, low_bytes = np.ascontiguousarray(high).data, np.ascontiguousarray(low).data
    checksum = zlib.crc32(low_bytes, zlib.crc32(high_bytes))
    cached = CachedPair(pair, path, (high.shape[0], high.shape[1], channels), scale, checksum)
    try:
        with atomic_write(path, overwrite=True, sync=False) as file:
            file.write(_header(cached, checksum) + sources)
            file.write(high_bytes)
            file.write(low_bytes)
    except OSError as error:
        remedy = "free some space, or set cache_dir to another folder; images decoded so far are kept"
        raise DatasetError(f"cache {cache_dir}: cannot be written: {describe_error(error)}; {remedy}") from error
    return cached
