"""Tests of the scores that ``esrgan test`` reports, and of its errors."""

import json
from fractions import Fraction

import numpy as np
import pytest

from esrgan import Upscaler, images, metrics, resize
from esrgan.cli import test as test_command
from tests.helpers.models import make_model, pixels, run

RNG = np.random.default_rng(0)


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model.pth")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        smooth = resize.bicubic(RNG.random((8, 9, 3)), 4)
        images.write_pixels(folder / f"{i}.png", (smooth.clip(0, 1) * 255).astype(np.uint8))
    return folder


def test_results_equal_the_metrics(model, photos, tmp_path, capsys):
    out, results_file = tmp_path / "out", tmp_path / "results.json"
    code = run(test_command, model, "-d", photos, "-o", out, "--json", results_file, "--precision", "fp32", "-s", 1)
    assert code == 0
    data = json.loads(results_file.read_text())[str(photos)]
    upscaler = Upscaler.from_file(model, "cpu", "fp32")
    for i in range(3):
        high = images.read_pixels(photos / f"{i}.png", 3)
        low = resize.bicubic(high, Fraction(1, 2))
        assert data["images"][str(i)]["bicubic"] == metrics.measure(resize.bicubic(low, 2), high, 2)
        assert data["images"][str(i)]["model"] == metrics.measure(upscaler(low), high, 2)
        np.testing.assert_array_equal(images.read_pixels(out / f"photos/{i}_model.png", 3), upscaler(low))
        assert (out / f"photos/{i}_sheet.png").exists()
    mean = np.mean([data["images"][str(i)]["model"]["psnr_y"] for i in range(3)])
    assert data["mean"]["model"]["psnr_y"] == pytest.approx(mean)
    printed = capsys.readouterr().out
    assert f"| **mean** | model | {mean:.2f} |" in printed
    assert "PSNR Y | SSIM Y | PSNR RGB | SSIM RGB" in printed
    assert "border of scale px cropped" in printed
    gains = {n: row["model"]["psnr_y"] - row["bicubic"]["psnr_y"] for n, row in data["images"].items()}
    assert f"largest gain over bicubic: {max(gains, key=gains.get)}\n" in printed
    assert f"smallest gain: {min(gains, key=gains.get)}\n" in printed
    assert printed.split("\n\n", 1)[1].strip() in (out / "report.md").read_text()


def test_bad_image_does_not_stop_other_images_and_datasets(model, photos, tmp_path, capsys):
    other = make_model(tmp_path / "other.pth", seed=1)
    low = tmp_path / "low"
    low.mkdir()
    for path in photos.iterdir():
        images.write_pixels(low / path.name, images.read_pixels(path, 3)[::2, ::2])
    (photos / "broken.png").write_bytes(b"")
    images.write_pixels(low / "broken.png", pixels(4, 4, 3))
    results_file = tmp_path / "results.json"
    code = run(test_command, model, other, "-d", f"skimage,{photos}={low}", "--json", results_file)
    assert code == 1
    printed = capsys.readouterr()
    assert "broken.png: expected" in printed.err
    data = json.loads(results_file.read_text())
    assert list(data["skimage"]["images"]) == ["chelsea", "coffee"]
    assert list(data["skimage"]["mean"]) == ["bicubic", "model", "other"]
    high = images.read_pixels(photos / "0.png", 3)
    expected = metrics.measure(resize.bicubic(high[::2, ::2], 2), high, 2)
    assert data[f"{photos}={low}"]["images"]["0"]["bicubic"] == expected  # the LR folder was used


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["-d", "set55"], "set5, set14"),
        (["-d", "set5", "--data-root", "/nowhere"], "/nowhere/Set5/GTmod12"),
        (["ANOTHER_SCALE"], "models of the same scale"),
    ],
)
def test_bad_evaluations_are_rejected(model, tmp_path, capsys, change, message):
    another = make_model(tmp_path / "x4.pth", scale=4)
    arguments = [another if argument == "ANOTHER_SCALE" else argument for argument in change]
    assert run(test_command, model, *arguments) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert message in errors[0]
