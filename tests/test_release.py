"""The wheel and the sdist are complete and work."""

import importlib.util
import os
import re
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
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
_spec = importlib.util.spec_from_file_location("release", ROOT / "scripts/release.py")
release = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(release)


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
    assert max(wheel.stat().st_size, sdist.stat().st_size) < 100 * 2**20, "PyPI accepts files of up to 100 MiB"
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
    assert "version" not in PROJECT
    assert f"version: {esrgan.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert (
        release.find_problems("v0.0.0")[0]
        == f"tag v0.0.0: expected v{esrgan.__version__}, the version in esrgan/version.py"
    )
    assert not [problem for problem in release.find_problems(f"v{esrgan.__version__}") if "version:" in problem]
    released = re.search(r"^## \[?(\d[^\]\s]*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert released is None or released[1] == esrgan.__version__


def test_all_pages_install_from_the_same_place():
    kinds = [
        [kind for kind, text in texts.items() if text in release.read(name)] for name, texts in release.TEXTS.items()
    ]
    assert kinds in ([["clone"]] * len(kinds), [["pypi"]] * len(kinds))
    for page in (ROOT / "README.md", ROOT / "docs/index.md", *ROOT.glob("docs/**/*.md")):
        text = release.read(page)
        for known in release.TEXTS.get(str(page.relative_to(ROOT)), {}).values():
            text = text.replace(known, "")
        assert "install -e" not in text, page


def test_texts_can_be_switched(monkeypatch, tmp_path):
    for name in release.TEXTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    for kind in ("clone", "pypi", "clone"):
        release.set_texts(kind)
        assert all(texts[kind] in release.read(name) for name, texts in release.TEXTS.items())
        assert len(release.read("README.md").split()) <= 1400


def test_texts_that_are_unknown_are_not_switched(monkeypatch, tmp_path):
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release, "read", lambda name: "pip install esrgan")
    with pytest.raises(SystemExit, match=r"^README.md: expected the text about installing of scripts/release.py"):
        release.set_texts("pypi")
    assert not [*tmp_path.iterdir()]


def test_python_versions_are_the_same_everywhere():
    versions = re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={versions[0]}"
    for workflow in ("check", "release"):
        text = (ROOT / f".github/workflows/{workflow}.yml").read_text("utf-8")
        assert f'python: ["{versions[0]}", "{versions[-1]}"]' in text
    image = (ROOT / "Dockerfile").read_text("utf-8")
    assert re.search(r"^ARG PYTHON=(.*)$", image, re.MULTILINE)[1] in versions


def test_the_image_has_known_extras_and_an_ordinary_user():
    image = (ROOT / "Dockerfile").read_text("utf-8")
    assert set(re.search(r"^ARG EXTRAS=(.*)$", image, re.MULTILINE)[1].split(",")) < set(
        PROJECT["optional-dependencies"]
    )
    assert re.findall(r"^USER (.*)$", image, re.MULTILINE) == ["esrgan"]


def test_publishing_needs_no_secret_and_few_permissions():
    text = (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    assert "secrets" not in text
    assert "password" not in text
    assert "\npermissions: {}\n" in text
    assert re.findall(r"^      ([a-z-]+: (?:read|write))$", text, re.MULTILINE) == ["contents: read", "id-token: write"]
    assert 'release.py --check "$GITHUB_REF_NAME"' in text
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v1)", name) for name in re.findall(r"uses: (\S+)", text))


def test_a_release_without_an_owner_is_refused(monkeypatch):
    texts = {"pyproject.toml": "https://github.com/OWNER/esrgan", "docs/notebooks/esrgan.ipynb": "github.com/OWNER/"}
    monkeypatch.setattr(release, "read", lambda name: texts.get(name, ""))
    problem = "pyproject.toml: expected the repository's owner in place of OWNER"
    assert problem in release.find_problems("v1.0")
    texts["pyproject.toml"] = "https://github.com/someone/esrgan"
    assert problem not in release.find_problems("v1.0")
