"""Prepare the published datasets for training: download, unpack and check them."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from esrgan import images
from esrgan.console import log
from esrgan.data.archives import Archive, archives_for
from esrgan.data.datasets import Split, find_pairs_and_problems, load_pair
from esrgan.data.pairing import ImagePair
from esrgan.data.unpack import unpack
from esrgan.download import Download, download
from esrgan.errors import DatasetError, EsrganError, Problem
from esrgan.text import format_count, format_size

DOWNLOAD_FOLDER = "downloads"  # below the data root; holds archives until they are unpacked


def prepare_dataset(name: str, scale: int, data_root: Path) -> None:
    """Download and unpack the missing archives of a published dataset, and check all of it.

    Args:
        name: A key of ``esrgan.data.archives.ARCHIVES``.
        scale: Scale factor, which selects the LR images.
        data_root: Folder that holds the named datasets.

    Raises:
        DatasetError: If the dataset differs from the published one or does not fit on the disk. Existing files stay.
        DownloadError: If it cannot be downloaded.
    """
    missing = [archive for archive in archives_for(name, scale) if not _is_unpacked(archive, data_root)]
    downloads = [
        Download(archive.url, data_root / DOWNLOAD_FOLDER / archive.name, archive.digest, archive.size, "--data-root")
        for archive in missing
    ]
    if missing:
        _announce_downloads(name, downloads, data_root)
    for archive, target in zip(missing, downloads, strict=True):
        download(target)
        log.info("%s: %s, checksum verified", archive.name, format_size(target.path.stat().st_size))
        unpack(target.path, data_root, archive.folder, tuple(archive.image_counts))
        _is_unpacked(archive, data_root)
        target.path.unlink()
    with suppress(OSError):  # it may not exist, or hold other files
        (data_root / DOWNLOAD_FOLDER).rmdir()
    log.info("%s", _check_dataset(name, scale, data_root))


def _is_unpacked(archive: Archive, data_root: Path) -> bool:
    """Return whether an archive has been unpacked.

    Raises:
        DatasetError: If the folder exists but has another number of images; it may be the user's own.
    """
    if not (data_root / archive.folder).exists():
        return False
    problems = []
    for folder, expected in archive.image_counts.items():
        got = _count_images(data_root / folder)
        if got != expected:
            remedy = f"move {data_root / archive.folder} away and run this again"
            problems.append(Problem(str(data_root / folder), format_count(expected, "image"), str(got), remedy))
    if problems:
        raise DatasetError(problems)
    return True


def _count_images(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(path.suffix.lower() in images.SUFFIXES for path in images.list_files(folder)[0])


def _announce_downloads(name: str, downloads: list[Download], data_root: Path) -> None:
    """Log the archives and the disk space they need, and raise if it is not available."""
    for target in downloads:
        size = "size unknown" if target.size is None else format_size(target.size)
        log.info(f"{name}: {target.path.name}, {size}, from {target.url}")
    sizes = [target.size or 0 for target in downloads]
    files = (path for target in downloads for path in (target.path, target.part_path) if path.is_file())
    downloaded = sum(path.stat().st_size for path in files)
    # Compression hardly shrinks photographs, so an archive unpacks to about its size. It is deleted after that.
    need = max(sum(sizes) + max(sizes) - downloaded, 0)
    free = shutil.disk_usage(_nearest_existing_folder(data_root)).free
    if need > free:
        remedy = "free some space, or choose another --data-root"
        raise DatasetError(Problem(str(data_root), f"{format_size(need)} free", format_size(free), remedy))
    if 0 in sizes and not need:
        log.info(f"{name}: size unknown until the server answers; {format_size(free)} free in {data_root}")
    else:
        least = "at least " if 0 in sizes else ""
        log.info(f"{name}: {least}{format_size(need)} needed in {data_root}, {format_size(free)} free")


def _check_dataset(name: str, scale: int, data_root: Path) -> str:
    """Check the images that training will use, and return a summary."""
    problems: list[Problem | str] = []
    texts = []
    splits: tuple[Split, ...] = ("train",) if name == "flickr2k" else ("train", "val")
    for split in splits:
        pairs, found = find_pairs_and_problems([name], split, scale, data_root)
        problems += found
        problems += check_pairs(pairs, scale)
        low = "with" if any(pair.low for pair in pairs) else "training makes the"
        kind = "training image" if split == "train" else "validation image"
        texts.append(f"{format_count(len(pairs), kind)} ({low} ×{scale} LR images)")
    if problems:
        raise DatasetError(problems)
    return f'{name}: {", ".join(texts)}; use in a configuration: "train_datasets": ["{name}"]'


def check_pairs(pairs: list[ImagePair], scale: int) -> list[str | Problem]:
    """Return the problems that training would have with pairs; only those with unexpected headers are decoded."""
    problems: list[str | Problem] = []
    for pair in pairs:
        try:
            height, width, channels = images.read_shape(pair.high)
            if pair.low and images.read_shape(pair.low) != (height // scale, width // scale, channels):
                load_pair(pair, scale, channels=3)
        except EsrganError as error:
            problems += error.problems
    return problems


def _nearest_existing_folder(path: Path) -> Path:
    """Return the path if it exists, else its nearest existing parent."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
