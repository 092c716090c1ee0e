"""The README's commands, run as they are written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DISTRIBUTED = (ROOT / "docs/distributed.md").read_text(encoding="utf-8")


def test_commands_run_as_written(tmp_path):
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks] == ["bash"] * 5 + ["python"]
    for name in ["configs", "tests/assets", "docs/pictures", *(path.name for path in ROOT.glob("*.py"))]:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        else:
            shutil.copy(source, tmp_path / name)
    config = json.loads((tmp_path / "configs/quickstart.json").read_text())
    for stage in ("pretraining", "training"):
        config[stage] |= {"num_steps": 2, "cr_patch_size": [32, 32]}  # the only change: two steps of each stage
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
    assert "most gained over bicubic" in output
    assert "(384, 288) (96, 128, 3) 398755" in output
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


def test_every_file_and_flag_the_readme_names_exists():
    for name in re.findall(r"`((?:configs|docs|scripts|esrgan|tests)/[\w./+-]+)`", README):
        assert (ROOT / name).exists(), name
    sources = "".join(path.read_text() for path in (ROOT / "esrgan/cli").glob("*.py"))
    torchrun = [
        "--max-restarts",
        "--standalone",
        "--nnodes",
        "--node-rank",
        "--nproc-per-node",
        "--master-addr",
        "--master-port",
    ]
    others = ["--help", *torchrun]
    for flag in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", README + DISTRIBUTED):
        assert f'"{flag}"' in sources or flag in others, flag
