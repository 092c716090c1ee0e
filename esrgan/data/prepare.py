"""Makes datasets ready for training: downloads and unpacks the published ones, checks them."""

from __future__ import annotations

import shutil
from pathlib import Path

from esrgan import images
from esrgan.console import Console
from esrgan.data.archives import Archive, archives_for
from esrgan.data.datasets import ImagePair, Split, find_pairs_and_problems
from esrgan.data.download import Download, download
from esrgan.data.unpack import unpack
from esrgan.errors import DatasetError, ImageError, Problem
from esrgan.text import format_size

DOWNLOAD_FOLDER = "downloads"  # folder under the data root for archives on their way


def prepare_dataset(name: str, scale: int, data_root: Path, console: Console) -> None:
    """Download what is missing of a published dataset, unpack it, and check what is there.

    Args:
        name: A key of ``esrgan.data.archives.ARCHIVES``.
        scale: Scale factor, which picks the LR images.
        data_root: Folder that holds the named datasets.
        console: Told of sizes, progress and result.

    Raises:
        DatasetError: If it cannot be had, or is not as it should be; nothing that is there is lost.
    """
    archives = archives_for(name, scale)
    missing = [archive for archive in archives if not _is_unpacked(archive, data_root)]
    if missing:
        _announce_downloads(name, missing, data_root, console)
    for archive in missing:
        path = data_root / DOWNLOAD_FOLDER / archive.name
        digest = _download(archive, path, console)
        kind = "checksum right" if archive.digest else f"no published checksum to compare with; it has {digest}"
        console.print(f"{archive.name}: {format_size(path.stat().st_size)}, {kind}")
        _unpack(archive, path, data_root, console)
        path.unlink()
    _remove_if_empty(data_root / DOWNLOAD_FOLDER)
    console.print(_check_dataset(name, scale, data_root))


def _is_unpacked(archive: Archive, data_root: Path) -> bool:
    """Whether an archive has been unpacked; it is not touched if somebody put something else in its place."""
    if not (data_root / archive.folder).exists():
        return False
    problems = []
    for folder, expected in archive.image_counts.items():
        got = _count_images(data_root / folder)
        if got != expected:
            remedy = f"move {data_root / archive.folder} away and run this again"
            problems.append(Problem(str(data_root / folder), f"{expected} images", str(got), remedy))
    if problems:
        raise DatasetError(problems)
    return True


def _count_images(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(
        path.suffix.lower() in images.DATASET_SUFFIXES and not path.name.startswith(".") for path in folder.iterdir()
    )


def _announce_downloads(name: str, missing: list[Archive], data_root: Path, console: Console) -> None:
    """Say what is to come, and refuse at once what will not fit."""
    for archive in missing:
        size = "size unknown" if archive.size is None else format_size(archive.size)
        console.print(f"{name}: {archive.name}, {size}, from {archive.url}")
    sizes = [archive.size or 0 for archive in missing]
    there = sum(
        path.stat().st_size
        for archive in missing
        for path in (data_root / DOWNLOAD_FOLDER / archive.name, data_root / DOWNLOAD_FOLDER / f"{archive.name}.part")
        if path.is_file()
    )
    # Photographs hardly shrink, so an archive unpacks to about its size, and goes when that is done.
    need = max(sum(sizes) + max(sizes) - there, 0)
    free = shutil.disk_usage(_nearest_existing_folder(data_root)).free
    if need > free:
        remedy = "free some, or choose another --data-root"
        raise DatasetError(Problem(str(data_root), f"{format_size(need)} free", format_size(free), remedy))
    told = "what the server says" if not need else f"at least {format_size(need)}" if 0 in sizes else format_size(need)
    console.print(f"{name}: {told} needed in {data_root}, {format_size(free)} free")


def _download(archive: Archive, path: Path, console: Console) -> str:
    target = Download(archive.url, path, archive.size, archive.digest)
    try:
        return download(target, console.download_progress(archive.name), console.print)
    finally:
        console.clear()


def _unpack(archive: Archive, path: Path, data_root: Path, console: Console) -> None:
    def progress(written: int, total: int) -> None:
        if console.is_update_due():
            console.update(f"{archive.name}: {written / total:.0%} unpacked", keep=True)

    try:
        unpack(path, data_root, archive.folder, tuple(archive.image_counts), progress)
    finally:
        console.clear()
    _is_unpacked(archive, data_root)


def _check_dataset(name: str, scale: int, data_root: Path) -> str:
    """Check what training will find; give a summary."""
    problems: list[Problem | str] = []
    texts = []
    splits: tuple[Split, ...] = ("train",) if name == "flickr2k" else ("train", "val")
    for split in splits:
        pairs, found = find_pairs_and_problems([name], split, scale, data_root)
        problems += found
        problems += check_pair_sizes(pairs, scale)
        low = "LR images" if any(pair.low for pair in pairs) else "no LR images: they are made when training begins"
        texts.append(f"{len(pairs)} images to {'train' if split == 'train' else 'validate'} on (×{scale}: {low})")
    if problems:
        raise DatasetError(problems)
    return f'{name}: {", ".join(texts)}; in a configuration: "train_datasets": ["{name}"]'


def check_pair_sizes(pairs: list[ImagePair], scale: int) -> list[str | Problem]:
    """Compare the sizes of pairs by their headers, and the number of channels of each two."""
    problems: list[str | Problem] = []
    for pair in pairs:
        try:
            height, width, channels = images.read_shape(pair.high)
            low = None if pair.low is None else images.read_shape(pair.low)
        except ImageError as error:
            problems += error.problems
            continue
        expected = (height // scale, width // scale, channels)
        if low is not None and low != expected:
            remedy = "make it again or leave both out"
            problems.append(Problem(str(pair.low), _format_shape(expected), _format_shape(low), remedy))
    return problems


def _format_shape(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]}×{shape[0]} px of {shape[2]} channels"


def _nearest_existing_folder(path: Path) -> Path:
    """Give the folder or the nearest one above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
