"""Tests of ``esrgan test``: its reports and its errors."""

from __future__ import annotations

import csv
import io
import json
from fractions import Fraction

import numpy as np
import pytest

from esrgan import Upscaler, images, metrics, resize
from esrgan.cli import test as test_command
from tests.helpers.evaluation import run_command, write_photos
from tests.helpers.models import make_model, pixels, run


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model.pth")


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos")


def test_all_reports_hold_the_same_scores(photos, model, tmp_path, capsys):
    (photos / "0.png").rename(photos / "a, b.png")
    out, scores_path, csv_path = tmp_path / "out", tmp_path / "f.json", tmp_path / "f.csv"
    code = run_command(
        test_command, model, "-d", photos, "-o", out, "--json", scores_path, "--csv", csv_path, "--device", "cpu"
    )
    assert code == 0
    printed = capsys.readouterr().out
    data = json.loads(scores_path.read_text())[str(photos)]
    rows = list(csv.DictReader(io.StringIO(csv_path.read_text())))
    assert [(row["image"], row["method"]) for row in rows] == [
        (name, method) for name in ("1", "2", "a, b") for method in ("bicubic", "model")
    ]
    for row in rows:
        assert {name: float(row[name]) for name in ("psnr_y", "ssim_y")}.items() <= data["images"][row["image"]][
            row["method"]
        ].items()
    assert {entry["of"] for entry in data["differences"]} == {"model"}
    assert data["speed"]["model"]["megapixels_per_second"] > 0
    markdown, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    for text in (f"{data['mean']['model']['psnr_y']:.2f}", f"{data['mean']['bicubic']['ssim_rgb']:.4f}"):
        assert text in printed
        assert text in markdown
        assert text in page
    assert page.count("data:image/png") >= 3 * 5
    assert {path.name for path in (out / "photos").iterdir()} == {
        f"{name}_{kind}.png" for name in ("1", "2", "a, b") for kind in ("bicubic", "model", "sheet")
    }


def test_outputs_overwrite_neither_inputs_nor_each_other(photos, model, tmp_path, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in photos.iterdir()}
    assert run_command(test_command, model, "-d", photos, "-o", photos.parent) == 2
    monkeypatch.chdir(photos)
    assert run_command(test_command, model, "-d", "../photos", "-o", "..") == 2
    assert "choose another output folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in photos.iterdir()} == before
    assert run_command(test_command, model, "-d", ".", "-o", tmp_path / "out") == 0
    assert (tmp_path / "out/photos/0_model.png").exists()

    images.write_pixels(photos / "0_x.png", images.read_pixels(photos / "0.png", 3))
    clash = make_model(tmp_path / "x_bicubic.pth")
    assert run_command(test_command, clash, "-d", photos, "-o", tmp_path / "clash") == 2
    assert "would be the output of both" in capsys.readouterr().err
    sheet = make_model(tmp_path / "sheet.pth")
    other = tmp_path / "other" / "photos"
    other.mkdir(parents=True)
    images.write_pixels(other / "0.png", images.read_pixels(photos / "0.png", 3)[:24, :28])
    assert run_command(test_command, sheet, "-d", f"{photos},{other}", "-o", tmp_path / "two") == 0
    assert images.read_pixels(tmp_path / "two/photos/0_sheet-2.png", 3).shape == (32, 36, 3)
    assert images.read_pixels(tmp_path / "two/photos-2/0_sheet-2.png", 3).shape == (24, 28, 3)
    assert images.read_pixels(tmp_path / "two/photos/0_sheet.png", 3).shape[1] > 4 * 36


def test_contact_sheets_show_the_latest_run(photos, model, tmp_path):
    other = make_model(tmp_path / "other.pth", 1)
    widths = []
    for models in ([model], [other], [model, other], [other]):
        assert run_command(test_command, *models, "-d", photos, "-o", tmp_path / "out") == 0
        widths.append(images.read_pixels(tmp_path / "out/photos/0_sheet.png", 3).shape[1])
    assert widths[1] == widths[3] < widths[2]


def test_unwritable_report_files_fail_before_the_evaluation(photos, model, tmp_path, capsys):
    for option in ("--json", "--csv"):
        assert run_command(test_command, model, "-d", photos, option, photos) == 2
        assert "got a folder" in capsys.readouterr().err


def test_lr_folder_without_ground_truth(photos, model, tmp_path, capsys):
    assert run_command(test_command, model, "-d", f"={photos}", "--metrics", "niqe", "-o", tmp_path / "out") == 0
    assert "| NIQE |" in capsys.readouterr().out
    assert images.read_pixels(tmp_path / "out/photos/1_model.png", 3).shape == (64, 72, 3)
    assert run_command(test_command, model, "-d", f"={photos}", "--metrics", "psnr") == 2
    assert "no ground-truth images" in capsys.readouterr().err
    assert run_command(test_command, model, "-d", "=") == 2


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
    assert "scale px of border cut off" in printed
    gains = {n: row["model"]["psnr_y"] - row["bicubic"]["psnr_y"] for n, row in data["images"].items()}
    assert f"largest gain over bicubic: {max(gains, key=gains.get)}\n" in printed
    assert f"smallest gain: {min(gains, key=gains.get)}\n" in printed
    assert printed.split("\n\n", 1)[1].strip() in (out / "report.md").read_text()


@pytest.mark.slow
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
