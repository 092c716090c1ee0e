"""The wheel and the sdist are complete and work."""

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


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Build a wheel and an sdist from a copy of the tracked files; return both paths and the names of these files."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("needs git and a git clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = [name for name in listed.split("\0") if (ROOT / name).is_file()]
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    build = "import sys, setuptools.build_meta as b; to = sys.argv[1]; b.build_wheel(to); b.build_sdist(to)"
    command = [sys.executable, "-c", build, str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist, set(tracked)


@pytest.mark.slow
def test_distributions_contain_all_tracked_files(distributions):
    wheel, sdist, tracked = distributions
    assert wheel.name == f"esrgan-{esrgan.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert names >= {name for name in tracked if name.startswith("esrgan/")}
    assert {name.partition("/")[0] for name in names} == {"esrgan", f"esrgan-{esrgan.__version__}.dist-info"}
    assert {name.rpartition("/")[2] for name in names if "/licenses/" in name} == {"LICENSE", "THIRD_PARTY.md"}
    with tarfile.open(sdist) as archive:
        inside = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {name for name in inside if name.startswith("esrgan.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert inside - made == tracked


@pytest.mark.slow
def test_the_wheel_runs_standalone(distributions, tmp_path):
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        site,
        distributions[0],
    ]
    subprocess.run(install, capture_output=True, check=True)
    environment = os.environ | {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    command = site / "Scripts/esrgan.exe" if sys.platform == "win32" else site / "bin/esrgan"
    for arguments, expected in (
        (["--version"], f"esrgan {esrgan.__version__}, torch "),
        (["info", "esrgan-lite"], f"{site / 'esrgan'}"),
        (["inference", "-o", "out", ROOT / "tests/assets/photo.png"], "1 of 1 image upscaled"),
    ):
        words = [command, *arguments]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_version_is_defined_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "version" not in project
    assert f"version: {esrgan.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
