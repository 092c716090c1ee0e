"""Make a set of photographs: python scripts/photographs.py training photos.

"training" makes the photographs that the bundled models were trained on, in photos/train, and those for validation, in
photos/val. They come from packages of Debian 12, of about 700 MB. 168 of the 171 decode to the same pixels as the files
that were used. Three of the validation photographs differ slightly (PSNR 50 dB or more), because those files had been
coded as JPEG twice.

"second" makes the second test set, for a final evaluation of the bundled models. It consists of photographs that none
of them was trained on and that no choice was based on. They come from packages of Debian, PyPI and npm; none of these
packages contributed to the training data, and none of the photographs is one of the training, validation or
scikit-image test images. The script writes the central part of each, of at most 512×512 px, as PNG. Photographs with
visible JPEG artefacts or camera noise are first reduced.

training_set.csv and second_set.csv, beside this file, list the photographs with their packages, checksums, licences and
authors. The script downloads each package with its ordinary client (nothing is installed or executed) and verifies the
checksum of every photograph. Either the whole set is written or nothing.
"""

import argparse
import csv
import hashlib
import io
import re
import shutil
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
from PIL import Image

from esrgan import images
from esrgan.errors import DownloadError, EsrganError, Problem
from esrgan.resize import bicubic

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
    """A row of training_set.csv or second_set.csv, each of which leaves out some of the last four.

    Attributes:
        file: Path of the output in the set.
        client: A key of ``CLIENTS``.
        package: Name of the package.
        version: Version with which the list was tested. Debian's client downloads that of the installed release, so
            only the checksum decides.
        member: Path of a file in the package.
        sha256: Checksum of the photograph.
        licence: SPDX expression of the licence that the package states for the photograph (a copyright file may list it
            with the suffix .jpg), or else for itself. A description next to the photograph may state another one.
        author: Author of the photograph, or of the package if it names none.
        part: Range of bytes START:STOP of the member that is the photograph; empty if it is the whole member.
        size: Size in pixels, WIDTHxHEIGHT, to which the photograph is reduced first, with Lanczos; empty to keep it.
        reduce: Factor by which the photograph is reduced first, as a decimal integer, with MATLAB's bicubic.
        crop: Largest size, WIDTHxHEIGHT, of the central part that is cut out; empty for the whole photograph.
    """

    file: str
    client: str
    package: str
    version: str
    member: str
    sha256: str
    licence: str
    author: str
    part: str = ""
    size: str = ""
    reduce: str = "1"
    crop: str = ""


def read_list(name: str) -> list[Photograph]:
    """Read the list of the photographs of a set."""
    with Path(__file__).with_name(f"{name}_set.csv").open(newline="", encoding="utf-8") as file:
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
    archives = list(folder.iterdir())
    if len(archives) != 1:
        raise OSError(f"{command[0]} wrote {len(archives)} files; expected one package")
    return archives[0]


def read_members(archive: Path, names: set[str]) -> dict[str, bytes]:
    """Return the contents of those of the named files that a .deb, .whl or .tgz contains."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in names & set(wheel.namelist())}
    if archive.suffix == ".deb":
        packed = run_client(["dpkg-deb", "--fsys-tarfile", archive.name], archive.parent)
    else:
        packed = archive.read_bytes()
    contents = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for entry in tar:
            name = entry.name.removeprefix("./")
            if name in names and (file := tar.extractfile(entry)):
                contents[name] = file.read()
    return contents


def collect(photographs: Sequence[Photograph]) -> dict[str, bytes]:
    """Download all packages and return the verified content of each photograph by its file.

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
                continue
            start, stop = map(int, row.part.split(":")) if row.part else (0, None)
            content = contents[row.member][start:stop]
            if hashlib.sha256(content).hexdigest() == row.sha256:
                found[row.file] = content
            else:
                problems.append(Problem.failure(place, f"contains another version of {row.member}", remedy))
    if problems:
        raise DownloadError(problems)
    return found


def prepare(pixels: NDArray[np.uint8], photograph: Photograph) -> NDArray[np.uint8]:
    """Reduce and crop an image (H, W, 3); sides of a crop are multiples of 8, so that no scale has to crop it again."""
    if photograph.size:
        width, height = map(int, photograph.size.split("x"))
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    if photograph.reduce != "1":
        pixels = bicubic(pixels, Fraction(1, int(photograph.reduce)))
    if photograph.crop:
        largest = map(int, photograph.crop.split("x"))
        width, height = (min(limit, side // 8 * 8) for limit, side in zip(largest, pixels.shape[1::-1], strict=True))
        top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        pixels = pixels[top : top + height, left : left + width]
    return pixels


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect the photographs and write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=("training", "second"), help="set to make")
    parser.add_argument("out", type=Path, metavar="OUT", help="new or empty folder for the images")
    options = parser.parse_args(arguments)
    out: Path = options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        sys.exit(f"error: {out}: exists and is not an empty folder; choose another")
    photographs = read_list(options.set)
    try:
        contents = collect(photographs)
        with tempfile.TemporaryDirectory() as folder:
            source, prepared = Path(folder) / "source", Path(folder) / "set"
            for row in photographs:
                source.write_bytes(contents[row.file])
                path = prepared / row.file
                path.parent.mkdir(parents=True, exist_ok=True)
                images.write_pixels(path, prepare(images.read_pixels(source, 3), row))
            shutil.copytree(prepared, out, dirs_exist_ok=True)
    except EsrganError as error:
        sys.exit("\n".join(f"error: {problem}" for problem in error.problems))
    print(f"{len(photographs)} photographs written to {out}")


if __name__ == "__main__":
    main()
