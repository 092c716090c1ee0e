"""The README's commands, run as they are written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from esrgan.cli.foreign_options import FOREIGN_OPTIONS

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "esrgan/pretrained/README.md")
}
GENERATED = {"docs/reference/command_line.md"}
SOURCES = ("esrgan/cli", "scripts", "benchmarks", "tests")
OTHER_FLAGS = {
    "--cpus",
    "--memory",
    "--shm-size",
    "--help",
    "--max-restarts",
    "--standalone",
    "--nnodes",
    "--node-rank",
    "--nproc-per-node",
}
OTHER_FLAGS |= {"--master-addr", "--master-port"}  # of torchrun
OTHER_FLAGS |= {"--build-arg", "--gpus", "--rm", "--user"}  # of Docker
OTHER_FLAGS |= {"--head", "--logdir"}  # of Ray and TensorBoard
OTHER_FLAGS |= {"--signal", "--signals-to-handle"}  # of Slurm and torchrun
OTHER_FLAGS |= {flag for hints in FOREIGN_OPTIONS.values() for flag in hints}


@pytest.mark.slow
def test_commands_run_as_written(tmp_path):
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks] == ["bash"] * 5 + ["python"]
    for name in ["configs", "docs/pictures", *(path.name for path in ROOT.glob("*.py"))]:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        else:
            shutil.copy(source, tmp_path / name)
    photo = tmp_path / "docs/pictures/chelsea.png"  # a part of it takes seconds instead of minutes
    Image.open(photo).crop((120, 60, 216, 124)).save(photo)
    config = json.loads((tmp_path / "configs/quickstart.json").read_text())
    for stage in ("pretraining", "training"):
        config[stage] |= {"num_steps": 2, "cr_patch_size": [32, 32]}  # two steps of each stage
    (tmp_path / "configs/quickstart.json").write_text(json.dumps(config))

    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TORCH_HOME": str(tmp_path / "no-weights"),
        "OMP_NUM_THREADS": "1",
    }
    output = ""
    for kind, text in blocks:
        command = ["bash", "-ec", text] if kind == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        output += done.stdout

    assert "training without the perceptual loss" in output
    assert "largest gain over bicubic" in output
    assert "(384, 256) (96, 128, 3) 398755" in output
    for name in [
        "first_RRDB_PSNR_x4.pth",
        "first_RRDB_ESRGAN_x4.pth",
        "first_RRDB_ESRGAN_x4_best_model.pth",
        "first_RRDB_ESRGAN_x4_checkpoint.pth",
        "first_blend.pth",
        "logs/first/log.jsonl",
        "logs/first/training.png",
        "logs/first/tensorboard/training",
        "test/report.html",
        "test/report.md",
        "test/skimage/chelsea_sheet.png",
        "sweep/skimage/curve.png",
        "sweep/report.html",
    ]:
        assert (tmp_path / "quickstart" / name).exists(), name


def test_ci_runs_the_command_of_the_readme():
    command = "python3 scripts/check.py"
    assert f"\n{command}\n" in README
    assert f"exec {command}\n" in (ROOT / ".ci/run").read_text()


def test_readme_is_short():
    assert len(README.split()) <= 1400


def test_first_picture_comes_before_any_instruction():
    assert 0 < README.index("![") < README.index("## Install")


@pytest.mark.parametrize("page", PAGES)
def test_files_and_flags_named_in_a_page_exist(page):
    for name in re.findall(r"`((?:configs|docs|scripts|esrgan|tests|benchmarks)/[\w./+-]+)`", PAGES[page]):
        assert (ROOT / name).exists() or name in GENERATED, name
    sources = "".join(path.read_text() for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))
    for flag in re.findall(r"(?<![\w-])(--[a-z][a-z0-9_-]+)", PAGES[page]):
        assert f'"{flag}"' in sources or flag in OTHER_FLAGS, flag


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", PAGES[page]):
        path = (ROOT / page).parent / target
        if "://" not in target:
            assert path.exists() or str(path.resolve().relative_to(ROOT)) in GENERATED, target
