"""What is built for others: everything is in it, and it runs from there."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import esrgan

ROOT = Path(__file__).parent.parent
NEEDED = {
    "esrgan/py.typed",
    "esrgan/evaluation/report.css",
    "esrgan/evaluation/report.js",
    "esrgan/metrics/niqe_pristine.npz",
    "esrgan/metrics/niqe_pristine.txt",
    "esrgan/pretrained/README.md",
    "esrgan/pretrained/esrgan-lite.safetensors",
    "esrgan/pretrained/esrgan-lite-psnr.safetensors",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist, built from a copy without what lies about here."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("esrgan", "LICENSE", "THIRD_PARTY.md", "README.md", "pyproject.toml", "setup.py"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    build = "import sys, setuptools.build_meta as b; to = sys.argv[1]; b.build_wheel(to); b.build_sdist(to)"
    command = [sys.executable, "-c", build, str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


def test_everything_is_in_them(built):
    wheel, sdist = built
    assert wheel.name == f"esrgan-{esrgan.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert names >= NEEDED
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "scripts"))]
    assert {name.rpartition("/")[2] for name in names if "/licenses/" in name} == {"LICENSE", "THIRD_PARTY.md"}
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert inside >= NEEDED | {"pyproject.toml", "LICENSE", "THIRD_PARTY.md"}


def test_the_wheel_runs_by_itself(built, tmp_path):
    with zipfile.ZipFile(built[0]) as archive:
        archive.extractall(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    for arguments, expected in (
        (["-m", "esrgan", "info", "esrgan-lite"], f"{tmp_path / 'site' / 'esrgan'}"),
        (["-m", "esrgan", "inference", "-o", "out", str(ROOT / "tests/data/photo.png")], "1 of 1 images upscaled"),
    ):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert expected in done.stdout, done.stderr


def test_the_version_is_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "version" not in project
    assert f"version: {esrgan.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
