"""The commands of the tutorials, run as they are written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
TUTORIALS = ROOT / "docs/tutorials"
SIZE = (192, 96)  # px of the photographs, which NIQE needs
BLOCK = re.compile(r"(?:Save this as `([^`]+)`:\n\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def crop_to_middle(path, width, height):
    with Image.open(path) as image:
        left, top = (image.width - width) // 2, (image.height - height) // 2
        crop = image.convert("RGB").crop((left, top, left + width, top + height))
    crop.save(path)


def collect_photographs(folder):
    """Run the code of the second tutorial that gets its photographs, and crop them."""
    (code,) = [text for _, kind, text in BLOCK.findall(read("train_on_your_photographs")) if kind == "python"]
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    crop_photographs(folder)


def crop_photographs(folder):
    for path in folder.glob("photos/*/*"):
        with Image.open(path) as image:
            is_large = image.width > SIZE[0]
        if is_large:
            crop_to_middle(path, *SIZE)


def read(name):
    return (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")


def shorten(text):
    """Return the configuration with two steps in each stage, small patches and small batches."""
    config = json.loads(text)
    for stage in {"pretraining", "training"} & config.keys():
        config[stage] |= {"num_steps": 2, "cr_patch_size": [32, 32]}
    return json.dumps(config | {"batch_size": 2})


def run(name, folder):
    """Save the files that a tutorial shows, run its commands in order, and return what they print.

    Everything is as written, except that photographs are cropped and trainings are shortened.
    """
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TORCH_HOME": str(folder / "no-weights"),
        "ESRGAN_CACHE": str(folder / "esrgan-cache"),
        "OMP_NUM_THREADS": "1",
    }
    output = ""
    for file, kind, text in BLOCK.findall(read(name)):
        if kind == "json":
            assert file, text
            (folder / file).write_text(shorten(text), encoding="utf-8")
        elif kind in ("bash", "python"):
            command = ["bash", "-ec", text] if kind == "bash" else [sys.executable, "-c", text]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            output += done.stdout
            crop_photographs(folder)
        else:
            assert kind == "text", kind
    return output


@pytest.mark.slow
def test_first_photograph_runs_as_written(tmp_path):
    (tmp_path / "docs/pictures").mkdir(parents=True)
    shutil.copy(ROOT / "docs/pictures/chelsea.png", tmp_path / "docs/pictures")
    crop_to_middle(tmp_path / "docs/pictures/chelsea.png", 32, 32)
    Image.open(tmp_path / "docs/pictures/chelsea.png").save(tmp_path / "photo.jpg")
    run("first_photograph", tmp_path)
    textured, softer, own = (
        Image.open(tmp_path / name) for name in ("upscaled/chelsea_sr.png", "softer/chelsea_sr.png", "photo_sr.jpg")
    )
    assert textured.size == softer.size == own.size == (128, 128)
    assert textured.tobytes() != softer.tobytes()


@pytest.mark.slow
def test_train_on_your_photographs_runs_as_written(tmp_path):
    output = run("train_on_your_photographs", tmp_path)
    assert "training without the perceptual loss" in output
    for name in [
        "saved_models/mine_RRDB_PSNR_x4.pth",
        "saved_models/mine_RRDB_ESRGAN_x4.pth",
        "saved_models/logs/mine/pretraining.png",
        "saved_models/logs/mine/log.jsonl",
        "results/report.html",
    ]:
        assert (tmp_path / name).exists(), name
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "saved_models/logs/mine/tensorboard/pretraining"))
    events.Reload()
    curves = re.findall(r"`((?:loss|validation)/\w+)`", read("train_on_your_photographs"))
    assert len(curves) == 2
    assert set(curves) <= set(events.Tags()["scalars"])


@pytest.mark.slow
def test_fine_tune_runs_as_written(tmp_path):
    collect_photographs(tmp_path)
    output = run("fine_tune", tmp_path)
    assert "esrgan-lite-psnr: RRDBNet ×4 64/32/6, 4,467,779 parameters, PSNR stage" in output
    assert "training without the perceptual loss" in output
    assert "dry run: everything is in place" in output
    for name in ["saved_models/jpeg_RRDB_PSNR_x4.pth", "blend.pth", "results_jpeg/report.html"]:
        assert (tmp_path / name).exists(), name


@pytest.mark.parametrize("path", sorted(TUTORIALS.glob("*.md")), ids=lambda path: path.stem)
def test_images_of_a_tutorial_exist_and_are_small(path):
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", path.read_text(encoding="utf-8"))
    assert images
    for image in images:
        assert (path.parent / image).stat().st_size < 150_000, image
