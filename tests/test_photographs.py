"""scripts/second_set.py collects the second test set; nothing is downloaded here."""

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

_spec = importlib.util.spec_from_file_location("second_set", Path(__file__).parent.parent / "scripts/second_set.py")
second_set = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(second_set)

TRAINING_PACKAGES = {
    *("gcompris-qt-data", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "enlightenment-data", "lxqt-themes"),
    *("mate-backgrounds", "plasma-workspace-wallpapers", "palapeli-data", "libjxl-testdata"),
}
LICENCES = {
    *("BSD-2-Clause", "CC-BY-2.0", "CC0-1.0", "MIT"),
    *("GPL-2.0-or-later", "GPL-3.0-or-later", "LGPL-2.0-or-later", "LGPL-2.1-or-later"),
}
MEMBER = "share/photos/a b.png"


def test_list_is_well_formed():
    photographs = second_set.read_list()
    assert 16 <= len(photographs) <= 30
    for photograph in photographs:
        assert all(photograph), photograph
        assert re.fullmatch(r"[A-Za-z]+( [A-Za-z]+)*", photograph.title)
        assert re.fullmatch("[0-9a-f]{64}", photograph.sha256)
        assert re.fullmatch("[123]", photograph.reduce)
        assert photograph.client in second_set.CLIENTS
        assert set(photograph.licence.split(" AND ")) <= LICENCES
        assert photograph.package not in {*TRAINING_PACKAGES, "scikit-image"}
    for unique in ("title", "sha256"):
        assert len({getattr(photograph, unique) for photograph in photographs}) == len(photographs)
    groups = [row[1:3] for row in photographs]
    assert len({row[1:4] for row in photographs}) == len(set(groups)), "one version of each package"
    assert groups == sorted(groups, key=groups.index), "the photographs of a package stand together"


def photograph(content, **changes):
    values = ("light bulb", "npm", "lamps", "1.0", MEMBER, hashlib.sha256(content).hexdigest(), "1", "MIT", "Ada")
    return second_set.Photograph(*values)._replace(**changes)


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
    assert second_set.read_members(archive, {MEMBER, "absent.png"}) == {MEMBER: content}


def test_photograph_is_reduced_and_its_centre_is_cropped():
    pixels = np.zeros((517, 1300, 3), np.uint8)
    pixels[2:514, 394:906] = 200
    assert second_set.prepare(pixels, 1).shape == (512, 512, 3)
    assert second_set.prepare(pixels, 1).min() == 200
    assert second_set.prepare(pixels, 3).shape == (168, 432, 3)  # of 173×434


@pytest.fixture
def package(monkeypatch, content):
    def download(photograph, folder):
        write_tar(folder / "lamps.tgz", content)
        return folder / "lamps.tgz"

    monkeypatch.setattr(second_set, "download", download)


def test_set_is_written_to_a_new_folder_only(tmp_path, monkeypatch, content, package):
    monkeypatch.setattr(second_set, "read_list", lambda: [photograph(content)])
    second_set.main([str(tmp_path / "set")])
    written = images.read_pixels(tmp_path / "set/light-bulb.png", 3)
    assert (written == images.read_pixels(tmp_path / "source.png", 3)[2:42, 3:67]).all()
    with pytest.raises(SystemExit, match="set: exists and is not an empty folder; choose another"):
        second_set.main([str(tmp_path / "set")])


def test_every_missing_or_changed_file_is_reported_and_nothing_written(tmp_path, monkeypatch, content, package):
    rows = [photograph(content), photograph(content, member="absent.png"), photograph(b"other")]
    monkeypatch.setattr(second_set, "read_list", lambda: rows)
    with pytest.raises(SystemExit) as caught:
        second_set.main([str(tmp_path / "set")])
    assert caught.value.code.splitlines() == [
        f"error: lamps (npm): does not contain absent.png; {second_set.REMEDIES['npm']}",
        f"error: lamps (npm): contains another version of {MEMBER}; {second_set.REMEDIES['npm']}",
    ]
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such-client", "{package}"], "no-such-client is not installed"),
        ([sys.executable, "-c", "exit('W: old\\nE: no {package}\\nN: end')"], " failed: E: no lamps"),
        ([sys.executable, "-c", "open('{package}.tgz', 'w')"], "cannot be downloaded or read: "),
    ],
)
def test_package_that_cannot_be_downloaded_is_reported(monkeypatch, command, message):
    monkeypatch.setitem(second_set.CLIENTS, "apt", command)
    with pytest.raises(DownloadError) as caught:
        second_set.collect([photograph(b"", client="apt")])
    (line,) = str(caught.value).splitlines()
    assert line.startswith("lamps (apt): ")
    assert message in line
    assert line.endswith("after apt-get update (tested: 1.0)")
