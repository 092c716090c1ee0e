"""Tests of ``esrgan test``: its reports and its errors."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from esrgan import Upscaler, evaluation, images, metrics, resize
from esrgan.cli import test as test_command
from esrgan.errors import EsrganError
from esrgan.evaluation.measuring import DatasetImage
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
    assert f"report: {out / 'report.html'}\n" in printed
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
    assert "2 px, the scale, are cropped at each border" in printed
    gains = {n: row["model"]["psnr_y"] - row["bicubic"]["psnr_y"] for n, row in data["images"].items()}
    assert f"largest gain over bicubic: {max(gains, key=gains.get)}\n" in printed
    assert f"smallest gain: {min(gains, key=gains.get)}\n" in printed
    assert printed.split("\n\n", 1)[1].partition("\nreport: ")[0] in (out / "report.md").read_text()


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


def test_scale_1_needs_lr_images(photos, tmp_path, capsys):
    model = make_model(tmp_path / "x1.pth", scale=1)
    for dataset in (photos, "skimage"):
        assert run(test_command, model, "-d", dataset, "--device", "cpu") == 2
        assert f"dataset {dataset}: expected LR images for scale 1, got none; " in capsys.readouterr().err
    assert run(test_command, model, "-d", f"{photos}={write_photos(tmp_path / 'lr')}", "--device", "cpu") == 0


def test_images_of_selfexsr_are_paired_and_versions_left_out(tmp_path, capsys):
    """The folder has HR, LR and bicubic images, of which only the HR images are originals."""
    folder, rng = tmp_path / "Set5" / "image_SRF_2", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(2):
        high = rng.integers(0, 256, (32, 40, 3), np.uint8)
        low = resize.bicubic(high, Fraction(1, 2))
        for kind, image in (("HR", high), ("LR", low[::-1]), ("bicubic", high)):
            images.write_pixels(folder / f"img_{i}_SRF_2_{kind}.png", image)
    model, out = make_model(tmp_path / "model.pth"), tmp_path / "out"
    assert run(test_command, model, "-d", folder, "--json", tmp_path / "f.json", "-o", out) == 0
    data = json.loads((tmp_path / "f.json").read_text())[str(folder)]
    assert list(data["images"]) == ["img_0_SRF_2_HR", "img_1_SRF_2_HR"]
    high, low = (images.read_pixels(folder / f"img_0_SRF_2_{kind}.png", 3) for kind in ("HR", "LR"))
    assert data["images"]["img_0_SRF_2_HR"]["bicubic"] == metrics.measure(resize.bicubic(low, 2), high, 2)
    for text in (capsys.readouterr().out, (out / "report.md").read_text(), (out / "report.html").read_text()):
        assert "2 images; left out: 2 other versions" in text
    assert "2 other versions" in data["left_out"]


def test_lr_images_among_originals_are_refused(photos, model, capsys):
    for path in list(photos.iterdir()):
        images.write_pixels(path.with_name(f"{path.stem}_lr.png"), images.read_pixels(path, 3)[::2, ::2])
    assert run(test_command, model, "-d", photos) == 2
    assert "images that seem to be LR images, such as 0_lr.png" in capsys.readouterr().err


def test_grey_images_count_in_a_colour_set(photos, model, tmp_path):
    grey = images.read_pixels(photos / "0.png", 3)[..., :1]
    images.write_pixels(photos / "0.png", grey, overwrite=True)
    assert run(test_command, model, "-d", photos, "--json", tmp_path / "f.json") == 0
    data = json.loads((tmp_path / "f.json").read_text())[str(photos)]
    assert list(data["images"]) == ["0", "1", "2"]
    colour = grey.repeat(3, axis=2)
    expected = metrics.measure(resize.bicubic(resize.bicubic(colour, Fraction(1, 2)), 2), colour, 2)
    assert data["images"]["0"]["bicubic"] == expected


def test_files_left_out_without_ground_truth_are_counted(photos, model, capsys):
    (photos / "notes.txt").write_text("")
    assert run(test_command, model, "-d", f"={photos}", "--metrics", "niqe") == 0
    assert "3 images; left out: 1 .txt file (first: " in capsys.readouterr().out


def test_names_that_are_not_utf_8_are_in_every_report(photos, tmp_path, capsys):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff"))
    photos.rename(odd)
    (odd / "0.png").rename(odd / os.fsdecode(b"a\xe9.png"))
    model = make_model(tmp_path / os.fsdecode(b"model\xfe.pth"))
    out, json_path, csv_path = odd.with_name("out"), tmp_path / "f.json", tmp_path / "f.csv"
    assert run(test_command, model, "-d", odd, "-o", out, "--json", json_path, "--csv", csv_path, "-s", 1) == 0
    data = json.loads(json_path.read_text("utf-8"))[str(odd)]
    assert list(data["images"]) == ["1", "2", "a\udce9"]
    assert csv_path.read_text("utf-8").splitlines()[5].split(",")[1:3] == ["a\\udce9", "bicubic"]
    for text in (capsys.readouterr().out, (out / "report.md").read_text("utf-8")):
        assert "| a\ufffd | model\ufffd |" in text
    assert "a\ufffd" in (out / "report.html").read_text("utf-8")
    assert images.read_pixels(out / odd.name / "a\udce9_sheet.png", 3).shape[0] > 32


def test_home_is_known_in_every_path(photos, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    low = tmp_path / "home" / "low"
    low.mkdir(parents=True)
    for path in photos.iterdir():
        images.write_pixels(low / path.name, images.read_pixels(path, 3)[::2, ::2])
    outputs = ["--json", "~/f.json", "--csv", "~/f.csv", "-o", "~/out"]
    assert run(test_command, model, "-d", "photos=~/low", *outputs) == 0
    assert run(test_command, model, "-d", "=~/low", "--metrics", "niqe", "-o", "~/out") == 0
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"low", "f.json", "f.csv", "out"}
    assert {path.name for path in (tmp_path / "home" / "out").iterdir()} == {
        "photos", "low", "report.md", "report.html"
    }  # fmt: skip
    assert run(test_command, model, "-d", "photos", "--metrics", "vgg16", "--vgg-weights", "~/none.pth") == 2
    assert not (tmp_path / "~").exists()


def test_outputs_are_checked_before_anything_is_measured(photos, model, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    monkeypatch.setattr(Upscaler, "__call__", lambda *_: pytest.fail("measured"))
    for options in (
        ["--json", tmp_path / "file" / "f.json"],
        ["--csv", tmp_path / f"{'x' * 300}.csv"],
        ["-o", tmp_path / "file" / "out"],
        ["-o", tmp_path / "out"],
        ["-o", photos / "results"],  # would be part of the dataset the next time
    ):
        assert run(test_command, model, "-d", photos, *options) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (photos / "results").exists()


def test_lists_of_datasets_may_have_blanks_and_names_with_commas(photos, model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("eq=,comma", "a,b", " blank", "c"):
        shutil.copytree(photos, name)
    for text, names in (
        ("c, photos ", ["c", "photos"]),
        (" blank", [" blank"]),
        ("photos, eq=,comma,c", ["photos", "eq=,comma", "c"]),
        ("photos,a,b=c,none", ["photos", "a,b=c", "none"]),
        ("a,b", ["a,b"]),
        ("b,a", ["b", "a"]),
        ("=a,b,,", ["=a,b", "", ""]),
        (",".join("x" * 300), ["x"] * 300),
    ):
        assert test_command.make_parser().parse_args(["model", "-d", text]).datasets == names
    assert test_command.make_parser().parse_args(["model"]).datasets == ["set5"]
    out = tmp_path / "f.json"
    assert run(test_command, model, "-d", "eq=,comma, a,b", "--metrics", "psnr, ssim", "--json", out) == 0
    assert list(json.loads(out.read_text())) == ["eq=,comma", "a,b"]


def test_names_that_become_too_long_are_found_before_measuring(photos, tmp_path, capsys, monkeypatch):
    model = make_model(tmp_path / f"{'m' * 200}.pth")
    (photos / "1.png").rename(photos / f"{'ä' * 30}.png")
    monkeypatch.setattr(Upscaler, "__call__", lambda *_: pytest.fail("measured"))
    assert run(test_command, model, "-d", photos, "-o", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("File name too long; use shorter names")


def test_two_outputs_at_one_path_are_refused(photos, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Upscaler, "__call__", lambda *_: pytest.fail("measured"))
    monkeypatch.chdir(tmp_path)
    for options in (
        "--json x --csv ./x",
        "--json out/report.md -o out",
        "--csv out/../out/report.html -o out",
        "--json out -o out",
        "--json x --csv x/y",
    ):
        assert run(test_command, model, "-d", photos, *options.split()) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("is an output too; choose different names")
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "model.pth"}


def test_outputs_replace_only_earlier_outputs(photos, model, tmp_path, capsys):
    out, name = tmp_path / "out", sorted(photos.iterdir())[0].stem
    arguments = (model, "-d", photos, "-o", out, "--json", out / "a.json", "--csv", out / "a.csv", "--device", "cpu")
    assert run(test_command, *arguments) == 0
    (out / "a.csv").write_bytes(b"")  # such as a file that mktemp has made
    assert run(test_command, *arguments, "--no-cache") == 0
    assert (out / "a.csv").stat().st_size
    images = [out / photos.name / f"{name}_{kind}.png" for kind in ("bicubic", model.stem, "sheet")]
    for path in [out / "report.md", out / "report.html", out / "a.json", out / "a.csv", *images]:
        before = path.read_bytes()
        shutil.copy(photos / f"{name}.png", path)
        capsys.readouterr()
        assert run(test_command, *arguments) == 2
        expected = "exists and is not an output of an earlier run; move it, or choose another output"
        assert capsys.readouterr().err == f"error: {path}: {expected}\n"
        assert path.read_bytes() == (photos / f"{name}.png").read_bytes()
        path.write_bytes(before)
    assert run(test_command, *arguments) == 0


def test_files_that_resemble_outputs_are_refused(photos, model, tmp_path):
    out = tmp_path / "out"
    arguments = (model, "-d", photos, "-o", out, "--json", tmp_path / "a.json", "--device", "cpu")
    assert run(test_command, *arguments) == 0
    contents = {
        out / "report.md": b"---\ntitle: My thesis\nconventions: APA\n---\n",
        out / "report.html": b"<!DOCTYPE html>\n<html>\n<title>Evaluation of teachers</title>\n",
        tmp_path / "a.json": b'{"conventions": "ours"}',
        out / photos.name / "1_bicubic.png": b"archive" + bytes(512) + (out / "report.md").read_bytes(),
    }
    for path, content in contents.items():
        before = path.read_bytes()
        path.write_bytes(content)
        assert run(test_command, *arguments) == 2
        assert path.read_bytes() == content
        path.write_bytes(before)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.usefixtures("default_signals")
def test_an_interruption_keeps_what_was_measured(photos, model, tmp_path, capsys, monkeypatch, name):
    other, load = write_photos(tmp_path / "other"), DatasetImage.load

    def interrupt(image, *arguments):
        if image.high.parent == other:
            os.kill(os.getpid(), getattr(signal, name))
        return load(image, *arguments)

    monkeypatch.setattr(DatasetImage, "load", interrupt)
    out, json_path, csv_path = tmp_path / "out", tmp_path / "f.json", tmp_path / "f.csv"
    datasets = ["-d", f"{photos},{other}"]
    assert run(test_command, model, *datasets, "-o", out, "--json", json_path, "--csv", csv_path) == 130
    printed = capsys.readouterr()
    assert f"| {photos} | method |" in printed.out
    count = len([*other.iterdir()])
    assert re.fullmatch(
        rf"(warning: .*\n)*interrupted: {other}: 0 of {count} images measured; the same command reuses their scores\n",
        printed.err,
    )
    assert list(json.loads(json_path.read_text())) == [str(photos)]
    assert len(csv_path.read_text().splitlines()) == 1 + 3 * 2
    for report in ("report.md", "report.html"):
        assert str(photos) in (out / report).read_text()
    json_path.unlink()
    assert run(test_command, model, "-d", other, "--json", json_path) == 130
    assert not json_path.exists()


def test_outputs_in_the_folder_of_a_named_dataset_are_refused(model, photos, tmp_path, capsys):
    folder = tmp_path / "data" / "Set5" / "GTmod12"
    folder.parent.mkdir(parents=True)
    photos.rename(folder)
    options = ["-d", "set5", "--data-root", tmp_path / "data", "-o"]
    assert run(test_command, model, *options, folder / "results") == 2
    assert "choose another output folder" in capsys.readouterr().err
    assert not (folder / "results").exists()


def test_reports_are_written_although_one_fails(photos, model, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise EsrganError("disk full")

    monkeypatch.setattr(evaluation, "render_markdown", fail)
    (photos / "1.png").write_bytes(b"broken")
    other = tmp_path / "broken"
    other.mkdir()
    (other / "x.png").write_bytes(b"broken")
    out, json_path = tmp_path / "out", tmp_path / "f.json"
    assert run(test_command, model, "-d", f"{other},{photos}", "-o", out, "--json", json_path) == 1
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 3
    assert f"{other}: 1 of 1 images failed" in printed.out
    assert f"{photos}: 1 of 3 images failed" in printed.out
    data = json.loads(json_path.read_text())
    assert data[str(other)]["images"] == {}
    assert "x.png" in data[str(other)]["errors"][0]
    assert list(data[str(photos)]["images"]) == ["0", "2"]
    assert "Errors (1 of 3 images failed)" in (out / "report.html").read_text()
    assert not (out / "report.md").exists()


def test_pairs_that_do_not_fit_are_named_in_every_report(tmp_path, capsys):
    """The LR images are rotated; a broken one does not prevent the comparison."""
    model, out = make_model(tmp_path / "model.pth"), tmp_path / "out"
    high, low = tmp_path / "high", tmp_path / "low"
    for folder in (high, low):
        folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        image = np.rint(resize.bicubic(rng.random((8, 8, 3)), 16).clip(0, 1) * 255).astype(np.uint8)
        images.write_pixels(high / f"{i}.png", image)
        images.write_pixels(low / f"{i}.png", np.rot90(image[::2, ::2]))
    options = ["-d", f"{high}={low}", "--metrics", "psnr", "--json", tmp_path / "f.json", "-o", out]
    (low / "2.png").write_bytes(b"broken")
    assert run(test_command, model, *options) == 1
    printed, text = capsys.readouterr(), f"{low / '0.png'} and other LR images: do not seem to show"
    assert printed.err.startswith(f"warning: {text}")
    data = json.loads((tmp_path / "f.json").read_text())[f"{high}={low}"]
    assert data["misalignment"].startswith(text)
    for report in (printed.out, (out / "report.md").read_text(), (out / "report.html").read_text()):
        assert text in report
    for i in range(3):
        images.write_pixels(low / f"{i}.png", images.read_pixels(high / f"{i}.png", 3)[::2, ::2], overwrite=True)
    capsys.readouterr()
    assert run(test_command, model, *options) == 0
    assert not capsys.readouterr().err


def test_a_mismatch_of_folders_is_one_message(photos, model, tmp_path, capsys):
    low = tmp_path / "low"
    low.mkdir()
    for i in range(9):
        images.write_pixels(low / f"other_{i}.png", pixels(16, 18, 3))
    assert run(test_command, model, "-d", f"{photos}={low}") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
