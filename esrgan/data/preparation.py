"""Makes datasets ready for training: downloads and unpacks the published ones, checks them."""

from __future__ import annotations

import shutil
from pathlib import Path

from esrgan import images
from esrgan.console import Console, gigabytes
from esrgan.data.datasets import ImagePair, Split, search_pairs
from esrgan.data.download import Wanted, download
from esrgan.data.sources import Archive, archives_for
from esrgan.data.unpack import unpack
from esrgan.errors import DatasetError, ImageError, Problem

DOWNLOADS = "downloads"  # folder under the data root for archives on their way


def prepare_named(name: str, scale: int, data_root: Path, console: Console) -> None:
    """Download what is missing of a published dataset, unpack it, and check what is there.

    Args:
        name: A key of ``esrgan.data.sources.SOURCES``.
        scale: Scale factor, which picks the LR images.
        data_root: Folder that holds the named datasets.
        console: Told of sizes, progress and result.

    Raises:
        DatasetError: If it cannot be had, or is not as it should be; nothing that is there is lost.
    """
    archives = archives_for(name, scale)
    missing = [archive for archive in archives if not _is_there(archive, data_root)]
    if missing:
        _announce(name, missing, data_root, console)
    for archive in missing:
        path = data_root / DOWNLOADS / archive.name
        digest = _download(archive, path, console)
        kind = "checksum right" if archive.digest else f"no published checksum to compare with; it has {digest}"
        console.line(f"{archive.name}: {gigabytes(path.stat().st_size)}, {kind}")
        _unpack(archive, path, data_root, console)
        path.unlink()
    _remove_if_empty(data_root / DOWNLOADS)
    console.line(_check(name, scale, data_root))


def _is_there(archive: Archive, data_root: Path) -> bool:
    """Whether an archive has been unpacked; it is not touched if somebody put something else in its place."""
    if not (data_root / archive.folder).exists():
        return False
    problems = []
    for folder, expected in archive.counts.items():
        got = _count(data_root / folder)
        if got != expected:
            remedy = f"move {data_root / archive.folder} away and run this again"
            problems.append(Problem(str(data_root / folder), f"{expected} images", str(got), remedy))
    if problems:
        raise DatasetError(problems)
    return True


def _count(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(path.suffix.lower() in images.SUFFIXES and not path.name.startswith(".") for path in folder.iterdir())


def _announce(name: str, missing: list[Archive], data_root: Path, console: Console) -> None:
    """Say what is to come, and refuse at once what will not fit."""
    for archive in missing:
        size = "size unknown" if archive.size is None else gigabytes(archive.size)
        console.line(f"{name}: {archive.name}, {size}, from {archive.url}")
    sizes = [archive.size or 0 for archive in missing]
    there = sum(
        path.stat().st_size
        for archive in missing
        for path in (data_root / DOWNLOADS / archive.name, data_root / DOWNLOADS / f"{archive.name}.part")
        if path.is_file()
    )
    # Photographs hardly shrink, so an archive unpacks to about its size, and goes when that is done.
    need = max(sum(sizes) + max(sizes) - there, 0)
    free = shutil.disk_usage(_existing(data_root)).free
    if need > free:
        remedy = "free some, or choose another --data-root"
        raise DatasetError(Problem(str(data_root), f"{gigabytes(need)} free", gigabytes(free), remedy))
    told = "what the server says" if not need else f"at least {gigabytes(need)}" if 0 in sizes else gigabytes(need)
    console.line(f"{name}: {told} needed in {data_root}, {gigabytes(free)} free")


def _download(archive: Archive, path: Path, console: Console) -> str:
    wanted = Wanted(archive.url, path, archive.size, archive.digest)
    try:
        return download(wanted, console.downloading(archive.name), console.line)
    finally:
        console.end()


def _unpack(archive: Archive, path: Path, data_root: Path, console: Console) -> None:
    def progress(written: int, total: int) -> None:
        if console.is_stale():
            console.live(f"{archive.name}: {written / total:.0%} unpacked", keep=True)

    try:
        unpack(path, data_root, archive.folder, tuple(archive.counts), progress)
    finally:
        console.end()
    _is_there(archive, data_root)


def _check(name: str, scale: int, data_root: Path) -> str:
    """Check what training will find; give a summary."""
    problems: list[Problem | str] = []
    texts = []
    splits: tuple[Split, ...] = ("train",) if name == "flickr2k" else ("train", "val")
    for split in splits:
        pairs, found = search_pairs([name], split, scale, data_root)
        problems += found
        problems += check_sizes(pairs, scale)
        low = "LR images" if any(pair.low for pair in pairs) else "no LR images: they are made when training begins"
        texts.append(f"{len(pairs)} images to {'train' if split == 'train' else 'validate'} on (×{scale}: {low})")
    if problems:
        raise DatasetError(problems)
    return f'{name}: {", ".join(texts)}; in a configuration: "train_datasets": ["{name}"]'


def check_sizes(pairs: list[ImagePair], scale: int) -> list[str | Problem]:
    """Compare the sizes of pairs by their headers, and the number of channels of each two."""
    problems: list[str | Problem] = []
    for pair in pairs:
        try:
            height, width, channels = images.measure(pair.high)
            low = None if pair.low is None else images.measure(pair.low)
        except ImageError as error:
            problems += error.problems
            continue
        expected = (height // scale, width // scale, channels)
        if low is not None and low != expected:
            remedy = "make it again or leave both out"
            problems.append(Problem(str(pair.low), _shape(expected), _shape(low), remedy))
    return problems


def _shape(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]}×{shape[0]} px of {shape[2]} channels"


def _existing(path: Path) -> Path:
    """Give the folder or the nearest one above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
