"""The archives of the published datasets: addresses, sizes and checksums, and who recorded them.

The checksums were recorded by third parties, not computed by this project.
"""

from __future__ import annotations

from dataclasses import dataclass

_TFDS = "tensorflow/datasets, tensorflow_datasets/datasets/div2k/checksums.tsv"
# Two public repositories record the same MD5s for Set5 and Set14.
_DRIVE = "MD5 in the Set5 and Set14 classes of M. Bermejo's ESRGAN framework, which unpack to GTmod12 and LRbicx{2,3,4}"
_TORCHSR = "MD5 in Coloquinte/torchSR, torchsr/datasets/flickr2k.py; no size is recorded"
_BSDS = "size in tensorpack/tensorpack, dataflow/dataset/bsds500.py; SHA-256 in the SoftMenon benchmark and others"


@dataclass(frozen=True)
class Archive:
    """A published archive, whose folders have the names that ``esrgan.data.datasets`` expects.

    Attributes:
        name: File name.
        url: Download address.
        size: Size in bytes; None if no source records it.
        digest: "sha256:…" or "md5:…".
        checksum_source: Who recorded the size and the digest.
        folder: Folder that is unpacked; it has the same path inside the archive and under the data root.
        image_counts: Number of images in each folder that is unpacked. Everything else is skipped.
        scale: Scale factor that needs the archive; None for HR images, which every scale needs.
    """

    name: str
    url: str
    size: int | None
    digest: str
    checksum_source: str
    folder: str
    image_counts: dict[str, int]
    scale: int | None = None


_DIV2K = (  # split, scale of the LR images or None for HR images, number of images, bytes, SHA-256
    ("train", None, 800, 3530603713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"),
    ("valid", None, 100, 448993893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"),
    ("train", 2, 800, 925390592, "a53a424317575838dadce4bcd97cf7b744d6855f43740ed5f0245af3cf4bd850"),
    ("valid", 2, 100, 117763600, "60eed9875c697df51204aa579e2a699e1d5215095788a097ff54dd17e2664d57"),
    ("train", 4, 800, 246914039, "f006b837f4eb52b82909aa01478e6d6d199eefce932179491d0c9dbb706dde3a"),
    ("valid", 4, 100, 31505881, "a50a5d1c4b88de4e8d300d8fb2b904c52fe93b2b298a4899697760d7cbb6d553"),
)


def _div2k_archive(split: str, scale: int | None, count: int, size: int, sha256: str) -> Archive:
    name = f"DIV2K_{split}_{f'LR_bicubic_X{scale}' if scale else 'HR'}"
    folder = f"DIV2K_{split}_LR_bicubic/X{scale}" if scale else name
    url = f"https://data.vision.ee.ethz.ch/cvl/DIV2K/{name}.zip"
    return Archive(f"{name}.zip", url, size, f"sha256:{sha256}", _TFDS, folder, {folder: count}, scale)


def _benchmark_archive(name: str, file_id: str, count: int, md5: str) -> Archive:
    """Return Set5 or Set14 as BasicSR uses them: HR images cropped to multiples of 12, LR images made by MATLAB."""
    # drive.usercontent.google.com sends the file itself; drive.google.com asks for confirmation first.
    url = f"https://drive.usercontent.google.com/download?id={file_id}&export=download&confirm=t"
    folders = [f"{name}/GTmod12", *(f"{name}/LRbicx{scale}" for scale in (2, 3, 4))]
    return Archive(f"{name}.zip", url, None, f"md5:{md5}", _DRIVE, name, dict.fromkeys(folders, count))


_BSDS_IMAGES = "BSR/BSDS500/data/images"

ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "div2k": tuple(_div2k_archive(*row) for row in _DIV2K),
    "bsds500": (
        Archive(
            "BSR_bsds500.tgz",
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz",
            70763455,
            "sha256:97e49d31764f3912f0c4122707d53062ac9e783ba0f095e447a4d53c1a41af8e",
            _BSDS,
            _BSDS_IMAGES,
            {f"{_BSDS_IMAGES}/train": 200, f"{_BSDS_IMAGES}/val": 100, f"{_BSDS_IMAGES}/test": 200},
        ),
    ),
    "set5": (_benchmark_archive("Set5", "1DnHLNkcpl0wLznwAGW6CcrMMJOZY8ILz", 5, "4395d7e7e6d7ac5c9cb2a8b2acbdba5d"),),
    "set14": (
        _benchmark_archive("Set14", "1YC6l1o8qBtkU4LUtBQbOZ5sIM-lZf7YO", 14, "efe68a0553772ace8b1c59cf8496b6f6"),
    ),
    "flickr2k": (
        Archive(
            "Flickr2K.tar",
            "https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar",
            None,
            "md5:5d3f39443d5e9489bff8963f8f26cb03",
            _TORCHSR,
            "Flickr2K",
            {f"Flickr2K/{part}": 2650 for part in ("Flickr2K_HR", *(f"Flickr2K_LR_bicubic/X{x}" for x in (2, 3, 4)))},
        ),
    ),
}


def archives_for(name: str, scale: int) -> list[Archive]:
    """Return the archives of a dataset that a scale factor needs.

    Where no LR images are published for the scale, there are only HR archives; training makes the LR images.
    """
    return [archive for archive in ARCHIVES[name] if archive.scale in (None, scale)]
