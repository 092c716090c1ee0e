"""The referee: what is measured, what is kept, what the intervals say, what the reports hold."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn import functional as F

from esrgan import Upscaler, evaluation, images, metrics, resize
from esrgan.cli import interpolate as interpolate_command
from esrgan.cli import test as test_command
from esrgan.data import ImagePair, load_pair
from esrgan.errors import EsrganError, WeightsError
from esrgan.evaluation import Bicubic, FigureCache, Item, Model, evaluate, make_meters, results
from esrgan.evaluation.cache import Measured, pixel_digest, weights_digest
from esrgan.evaluation.statistics import difference
from esrgan.interpolation import interpolate_pictures, mix
from esrgan.pictures import Picture
from esrgan.weights import load_generator
from tests.helpers.models import make_model

CPU = torch.device("cpu")
FIDELITY = ["psnr", "ssim"]


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model.pth")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        smooth = resize.bicubic(rng.random((8, 9, 3)), 4)
        images.write(folder / f"{i}.png", (smooth.clip(0, 1) * 255).astype(np.uint8))
    return folder


def items(folder):
    return [Item(path.stem, None, path) for path in sorted(folder.iterdir())]


def run(command, *arguments):
    try:
        return command.main([*map(str, arguments)])
    except SystemExit as stop:
        return stop.code


class Counting:
    """Counts what a method enlarges."""

    def __init__(self, method):
        self.method, self.identity, self.calls = method, method.identity, 0

    def __call__(self, low):
        self.calls += 1
        return self.method(low)


def referee(photos, methods, cache=None, wanted=FIDELITY, **options):
    meters, _ = make_meters(wanted, device=CPU)
    options = {"note": pytest.fail} | options
    return evaluate(
        "photos", options.pop("items", items(photos)), methods, meters, scale=2, channels=3,
        cache=FigureCache(cache), **options,
    )  # fmt: skip


# What is measured


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_are_those_of_the_metrics_in_the_order_of_the_images(photos, model, workers):
    upscaler = Upscaler.from_file(model, "cpu", "fp32")
    seen = []
    found = referee(photos, {"bicubic": Bicubic(2), "mine": Model(upscaler)}, workers=workers, progress=seen.append)
    assert list(found.rows) == ["0", "1", "2"]
    assert seen == [1, 2, 3]
    for item in items(photos):
        low, high = load_pair(ImagePair(item.high, None), 2, 3)
        assert found.rows[item.name]["bicubic"].figures == metrics.measure(resize.bicubic(low, 2), high, 2)
        row = found.rows[item.name]["mine"]
        assert row.figures == metrics.measure(upscaler(low), high, 2)
        assert row.pixels == high.shape[0] * high.shape[1]
        assert row.seconds > 0
    assert found.means()["mine"]["psnr_y"] == np.mean([rows["mine"].figures["psnr_y"] for rows in found.rows.values()])


def test_bad_images_are_noted_and_left_out(photos):
    (photos / "1.png").write_bytes(b"broken")
    errors = []
    found = referee(photos, {"bicubic": Bicubic(2)}, note=errors.append)
    assert list(found.rows) == ["0", "2"]
    assert len(errors) == 1
    assert "1.png" in str(errors[0])


def test_images_too_small_for_a_metric_have_no_figure(photos):
    found = referee(photos, {"bicubic": Bicubic(2)}, wanted=["psnr", "niqe"])
    assert [row["bicubic"].figures["niqe"] for row in found.rows.values()] == [None] * 3
    assert found.means()["bicubic"]["niqe"] is None
    assert found.means()["bicubic"]["psnr_y"] > 0
    assert "| – |" in results.table(found)
    assert results.as_csv([found]).splitlines()[1].split(",")[5] == ""


def test_images_without_originals(photos):
    rng = np.random.default_rng(1)
    large = photos.parent / "large"
    images.write(large / "a.png", rng.integers(0, 256, (110, 220, 3), np.uint8)) if large.mkdir() is None else None
    found = referee(large, {"bicubic": Bicubic(2)}, wanted=["niqe"], items=[Item("a", large / "a.png", None)])
    from esrgan.metrics.niqe import niqe

    assert found.rows["a"]["bicubic"].figures == {"niqe": niqe(resize.bicubic(images.read(large / "a.png", 3), 2), 2)}


def test_vgg16_is_the_mean_difference_of_features(tmp_path):
    generator = torch.Generator().manual_seed(0)
    widths = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512]
    state, index, inputs = {}, 0, 3
    for width in widths:
        if width == "M":
            index += 1
            continue
        state[f"features.{index}.weight"] = (
            torch.randn((width, inputs, 3, 3), generator=generator) * (2 / 9 / inputs) ** 0.5
        )
        state[f"features.{index}.bias"] = torch.randn(width, generator=generator) * 0.1
        index, inputs = index + 2, width
    torch.save(state, tmp_path / "vgg16.pth")
    rng = np.random.default_rng(0)
    sr, hr = (rng.integers(0, 256, (36, 40, 3), np.uint8) for _ in range(2))

    def features(image):
        x = torch.from_numpy(image[2:-2, 2:-2]).movedim(-1, 0)[None] / 255
        mean, deviation = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        x, index = (x - mean) / deviation, 0
        for i, width in enumerate(widths):
            if width == "M":
                x, index = F.max_pool2d(x, 2), index + 1
                continue
            x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
            x, index = x if i == len(widths) - 1 else x.relu(), index + 2
        return x

    (meter,), missing = make_meters(["vgg16"], device=CPU, vgg16_weights=tmp_path / "vgg16.pth")
    assert not missing
    expected = (features(sr) - features(hr)).abs().mean().item()
    assert meter.measure(sr, hr, 2) == pytest.approx(expected, rel=1e-5)
    assert meter.measure(sr[:19], hr[:19], 2) is None
    state["features.28.bias"] += 1
    torch.save(state, tmp_path / "other.pth")
    assert make_meters(["vgg16"], device=CPU, vgg16_weights=tmp_path / "other.pth")[0][0].key != meter.key


def test_what_cannot_be_measured_is_a_line_and_the_rest_comes(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    meters, missing = make_meters(["all"], device=CPU)
    assert [meter.metric.name for meter in meters] == ["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "niqe"]
    assert [line.partition(":")[0] for line in missing] == ["LPIPS (AlexNet)", "LPIPS (VGG)", "DISTS", "VGG16 conv5_3"]
    assert all("\n" not in line and "--download" in line for line in missing)
    with pytest.raises(EsrganError, match="none of them"):
        make_meters(["lpips"], device=CPU)
    with pytest.raises(EsrganError, match="expected all, psnr, ssim, niqe, lpips, dists, vgg16, got 'pnsr'"):
        make_meters(["pnsr"], device=CPU)
    with pytest.raises(WeightsError, match="nowhere"):
        make_meters(["vgg16"], device=CPU, vgg16_weights=Path("nowhere.pth"))


# What is kept


def test_nothing_is_measured_twice_and_only_what_is_new_is(photos, model, tmp_path):
    def methods(*names):
        paths = {"mine": model, "other": tmp_path / "other.pth"}
        models = {name: Counting(Model(Upscaler.from_file(paths[name], "cpu", "fp32"))) for name in names}
        return {"bicubic": Counting(Bicubic(2))} | models

    make_model(tmp_path / "other.pth", 1)
    cache, out = tmp_path / "cache", tmp_path / "out"
    out.mkdir()

    def calls(wanted=FIDELITY, out_dir=None, names=("mine",)):
        using = methods(*names)
        found = referee(photos, using, cache, wanted, out_dir=out_dir)
        return [method.calls for method in using.values()], found

    first, found = calls()
    assert first == [3, 3]
    again, same = calls()
    assert again == [0, 0]
    assert same.rows == found.rows
    assert calls(names=("mine", "other"))[0] == [0, 0, 3]
    assert calls(["psnr"])[0] == [0, 0]
    assert calls(["psnr", "niqe"])[0] == [3, 3]  # a metric that was not measured needs the image
    assert calls()[0] == [0, 0]  # and does not push the others out
    assert calls(out_dir=out)[0] == [3, 3]  # pictures are wanted
    assert calls(out_dir=out)[0] == [0, 0]
    (out / "1_mine.png").unlink()
    images.write(out / "2_mine.png", images.read(out / "0_mine.png", 3), overwrite=True)  # another run's
    assert calls(out_dir=out)[0] == [0, 2]
    images.write(photos / "0.png", 255 - images.read(photos / "0.png", 3), overwrite=True)
    assert calls()[0] == [1, 1]
    make_model(model, 2)
    assert calls()[0] == [0, 3]


def test_damaged_figures_are_measured_again(photos, tmp_path):
    cache = tmp_path / "cache"
    found = referee(photos, {"bicubic": Bicubic(2)}, cache)
    for content in (b"", b"{", b"[]", b'{"figures": 3}', b'{"figures": {"psnr_y": "x"}, "seconds": 1}', b"\xff"):
        for path in cache.iterdir():
            path.write_bytes(content)
        method = Counting(Bicubic(2))
        again = referee(photos, {"bicubic": method}, cache)
        assert method.calls == 3
        assert again.figures() == found.figures()


def test_a_cache_that_cannot_be_written_is_said_once_and_the_figures_come(photos, tmp_path):
    (tmp_path / "file").write_text("")
    warnings = []
    meters, _ = make_meters(FIDELITY, device=CPU)
    cache = FigureCache(tmp_path / "file", warn=warnings.append)
    found = evaluate(
        "photos", items(photos), {"bicubic": Bicubic(2)}, meters, scale=2, channels=3, cache=cache, note=pytest.fail,
        workers=3,
    )  # fmt: skip
    assert len(found.rows) == 3
    assert len(warnings) == 1
    assert "cannot be written" in warnings[0]
    assert "--no-cache" in warnings[0]


def test_what_weights_do_not_tell_is_told_apart(model):
    network = load_generator(model).build()
    one = Model(Upscaler(network, CPU)).identity
    assert one == Model(Upscaler(network, CPU)).identity
    assert one != Model(Upscaler(network, CPU, torch.bfloat16)).identity
    network.body[0].rdb2.residual_scaling = 0.1
    assert one != Model(Upscaler(network, CPU)).identity


def test_digests_tell_values_shapes_and_types_apart():
    zeros = [np.zeros(shape, dtype) for shape, dtype in (((2, 3), "u1"), ((3, 2), "u1"), ((6,), "u1"), ((2, 3), "i1"))]
    assert len({pixel_digest(each) for each in [*zeros, zeros[0] + 1]}) == 5
    assert pixel_digest(np.arange(12).reshape(3, 4)[:, ::2]) == pixel_digest(np.arange(12).reshape(3, 4)[:, ::2].copy())
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert weights_digest(one) != weights_digest(other)
    other.load_state_dict(one.state_dict())
    assert weights_digest(one) == weights_digest(other)


def test_figures_come_back_as_they_were(tmp_path):
    cache = FigureCache(tmp_path)
    measured = Measured({"a": 0.1 + 0.2, "b": None, "c": math.inf}, 1.5, 12, "digest")
    cache.store({"of": "this"}, measured)
    assert cache.load({"of": "this"}) == measured
    assert cache.load({"of": "that"}) is None
    assert FigureCache(None).load({"of": "this"}) is None


# What the differences are worth


def test_the_interval_is_about_that_of_student_for_many_normal_differences():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 400), rng.normal(0, 1, 400)
    found = difference(list(a), list(b))
    low, high = stats.t.interval(0.95, 399, (a - b).mean(), stats.sem(a - b))
    assert found.mean == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    assert found.images == 400
    assert found.is_shown


def test_of_many_tries_the_interval_leaves_the_truth_out_in_few():
    rng = np.random.default_rng(1)
    misses = 0
    for _ in range(60):
        found = difference(list(rng.normal(0, 1, 30)), [0.0] * 30)
        misses += found.is_shown
    assert misses <= 8  # 3 are expected, more than 8 come in one of 200 such tests


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=12), st.floats(-10, 10))
def test_a_difference_turns_round_and_shifts(values, shift):
    zeros = [0.0] * len(values)
    one, other = difference(values, zeros), difference(zeros, values)
    assert one.mean == pytest.approx(-other.mean, abs=1e-9)
    assert one.low - 1e-9 <= one.mean <= one.high + 1e-9
    moved = difference([value + shift for value in values], zeros)
    assert moved.mean == pytest.approx(one.mean + shift, abs=1e-6)


def test_few_images_do_not_show_what_is_not_there():
    rng = np.random.default_rng(2)
    shown = [difference(list(rng.exponential(1, 6) - 1), [0.0] * 6).is_shown for _ in range(80)]
    assert sum(shown) <= 9  # the interval alone says so in 12 of 80; 4 are expected by the signs


def test_a_difference_of_few_images():
    assert difference([1.0], [0.5]).mean == 0.5
    assert math.isnan(difference([1.0], [0.5]).low)
    assert not difference([1.0, 2, 3, 4, 5], [0.0] * 5).is_shown
    assert difference([1.0, 2, 3, 4, 5, 6], [0.0] * 6).is_shown
    alike = difference([1.0] * 6, [0.5] * 6)
    assert (alike.low, alike.mean, alike.high) == (0.5, 0.5, 0.5)
    nothing = difference([0.5] * 6, [0.5] * 6)
    assert not nothing.is_shown
    assert difference([None, math.inf], [1.0, 2.0]) is None
    assert difference([None, math.inf, 3.0], [1.0, 2.0, 2.5]).images == 1


def test_models_are_compared_with_bicubic_and_with_the_first_model(photos, model, tmp_path):
    paths = {"one": model, "two": make_model(tmp_path / "2.pth", 1), "three": make_model(tmp_path / "3.pth", 2)}
    models = {name: Model(Upscaler.from_file(path, "cpu", "fp32")) for name, path in paths.items()}
    found = referee(photos, {"bicubic": Bicubic(2)} | models)
    assert list(found.differences()) == [
        ("one", "bicubic"), ("two", "bicubic"), ("three", "bicubic"), ("two", "one"), ("three", "one")
    ]  # fmt: skip
    expected = found.means()["two"]["ssim_y"] - found.means()["one"]["ssim_y"]
    assert found.differences()["two", "one"]["ssim_y"].mean == pytest.approx(expected)
    assert "| two − one |" in results.comparison(found)
    assert len(results.sentences(found)) == 5
    gains = {
        name: rows["three"].figures["psnr_y"] - rows["bicubic"].figures["psnr_y"] for name, rows in found.rows.items()
    }
    assert found.by_gain() == sorted(gains, key=gains.get, reverse=True)


# The commands


def test_all_reports_hold_the_same_figures(photos, model, tmp_path, capsys):
    (photos / "0.png").rename(photos / "a, b.png")
    out, figures, table = tmp_path / "out", tmp_path / "f.json", tmp_path / "f.csv"
    code = run(test_command, model, "-d", photos, "-o", out, "--json", figures, "--csv", table, "--device", "cpu")
    assert code == 0
    printed = capsys.readouterr().out
    data = json.loads(figures.read_text())[str(photos)]
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
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


def test_results_overwrite_neither_originals_nor_each_other(photos, model, tmp_path, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in photos.iterdir()}
    assert run(test_command, model, "-d", photos, "-o", photos.parent) == 2
    monkeypatch.chdir(photos)
    assert run(test_command, model, "-d", "../photos", "-o", "..") == 2
    assert "choose another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in photos.iterdir()} == before
    assert run(test_command, model, "-d", ".", "-o", tmp_path / "out") == 0
    assert (tmp_path / "out/photos/0_model.png").exists()

    images.write(photos / "0_x.png", images.read(photos / "0.png", 3))
    clash = make_model(tmp_path / "x_bicubic.pth")
    assert run(test_command, clash, "-d", photos, "-o", tmp_path / "clash") == 2
    assert "would both be this" in capsys.readouterr().err
    sheet = make_model(tmp_path / "sheet.pth")
    other = tmp_path / "other" / "photos"
    other.mkdir(parents=True)
    images.write(other / "0.png", images.read(photos / "0.png", 3)[:24, :28])
    assert run(test_command, sheet, "-d", f"{photos},{other}", "-o", tmp_path / "two") == 0
    assert images.read(tmp_path / "two/photos/0_sheet-2.png", 3).shape == (32, 36, 3)
    assert images.read(tmp_path / "two/photos-2/0_sheet-2.png", 3).shape == (24, 28, 3)
    assert images.read(tmp_path / "two/photos/0_sheet.png", 3).shape[1] > 4 * 36


def test_sheets_are_of_the_last_run(photos, model, tmp_path):
    other = make_model(tmp_path / "other.pth", 1)
    widths = []
    for models in ([model], [other], [model, other], [other]):
        assert run(test_command, *models, "-d", photos, "-o", tmp_path / "out") == 0
        widths.append(images.read(tmp_path / "out/photos/0_sheet.png", 3).shape[1])
    assert widths[1] == widths[3] < widths[2]


def test_files_that_cannot_be_written_are_said_before_anything_is_measured(photos, model, tmp_path, capsys):
    for option in ("--json", "--csv"):
        assert run(test_command, model, "-d", photos, option, photos) == 2
        assert "got a folder" in capsys.readouterr().err


def test_a_folder_of_lr_images_alone(photos, model, tmp_path, capsys):
    assert run(test_command, model, "-d", f"={photos}", "--metrics", "niqe", "-o", tmp_path / "out") == 0
    assert "| NIQE |" in capsys.readouterr().out
    assert images.read(tmp_path / "out/photos/1_model.png", 3).shape == (64, 72, 3)
    assert run(test_command, model, "-d", f"={photos}", "--metrics", "psnr") == 2
    assert "has no originals" in capsys.readouterr().err
    assert run(test_command, model, "-d", "=") == 2


def test_a_sweep_measures_the_blends_and_draws_their_curve(photos, model, tmp_path, capsys):
    other, out = make_model(tmp_path / "other.pth", 1), tmp_path / "out"
    rng = np.random.default_rng(0)
    images.write(photos / "large.png", rng.integers(0, 256, (112, 204, 3), np.uint8))
    pair = ["--psnr-model-path", model, "--esrgan-model-path", other]
    assert run(interpolate_command, *pair, "--sweep", 3, "-d", photos, "--metrics", "psnr,niqe", "-o", out) == 0
    printed = capsys.readouterr().out
    means = [line for line in printed.splitlines() if line.startswith("| **mean** |")]
    assert [line.split("|")[2].strip() for line in means] == ["bicubic", "alpha_0", "alpha_0.5", "alpha_1"]
    blend = Upscaler((load_generator(model).build()), CPU)
    low, high = load_pair(ImagePair(photos / "1.png", None), 2, 3)
    assert f"{metrics.measure(blend(low), high, 2)['psnr_y']:.2f}" in printed
    assert images.read(out / "photos/curve.png", 4).shape[0] > 200
    strip = images.read(out / "photos/1_strip.png", 3)
    assert strip.shape[1] > 5 * 2 * 30
    assert (out / "report.html").exists()
    (photos / "large.png").unlink()
    assert run(interpolate_command, *pair, "--sweep", 3, "-d", photos, "-o", tmp_path / "small") == 1
    assert "too small for the metrics of perception" in capsys.readouterr().err
    assert (tmp_path / "small/report.html").exists()
    assert run(interpolate_command, *pair, "--sweep", 3, "-d", f"={photos}", "-o", tmp_path / "two") == 2
    assert run(interpolate_command, *pair, "--sweep", 3, "-d", photos, "--metrics", "niqe", "-o", tmp_path / "two") == 2
    assert run(interpolate_command, *pair, "--sweep", 3, "-d", photos, "--metrics", "psnr", "-o", tmp_path / "two") == 2
    assert "a metric of perception" in capsys.readouterr().err


def test_any_number_of_models_are_mixed(tmp_path, capsys):
    paths = [make_model(tmp_path / f"{i}.pth", i) for i in range(3)]
    states = [load_generator(path).state for path in paths]
    shares = ["--mix", f"{paths[0]}=0.5", "--mix", f"{paths[1]}=0.2", "--mix", f"{paths[2]}=0.3"]
    assert run(interpolate_command, *shares, tmp_path / "mix.pth") == 0
    for name, value in load_generator(tmp_path / "mix.pth").state.items():
        expected = 0.5 * states[0][name] + 0.2 * states[1][name] + 0.3 * states[2][name]
        torch.testing.assert_close(value, expected)
    assert run(interpolate_command, *shares, tmp_path / "mix.pth") == 2
    assert "--overwrite" in capsys.readouterr().err
    for bad in (["--mix", f"{paths[0]}=0.5"], [*shares, "--mix", f"{paths[0]}=0.5"], ["--mix", "x", "--mix", "y=1"]):
        assert run(interpolate_command, *bad, tmp_path / "bad.pth") == 2
        assert not (tmp_path / "bad.pth").exists()
        assert "expected" in capsys.readouterr().err
    larger = load_generator(make_model(tmp_path / "larger.pth", blocks=2))
    with pytest.raises(WeightsError, match=r"body\.1\.rdb1\.conv1\.weight \(none and \(4, 8, 3, 3\)\).* and \d+ more"):
        mix([load_generator(paths[0]), larger], [0.5, 0.5])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([np.uint8, np.uint16, np.float32]), st.floats(0, 1), st.integers(0, 99))
def test_images_are_blended_to_the_nearest_level(dtype, alpha, seed):
    rng = np.random.default_rng(seed)
    one, other = (rng.integers(0, 256, (3, 4, 3)).astype(dtype) for _ in range(2))
    (result,) = interpolate_pictures(Picture((one,)), Picture((other,)), alpha).frames
    assert result.dtype == dtype
    exact = (1 - alpha) * one.astype(float) + alpha * other.astype(float)
    assert np.abs(result - exact).max() <= (0.5 + 1e-9 if dtype != np.float32 else 1e-4)
    if alpha in (0, 1):
        assert np.array_equal(result, other if alpha else one)


def test_two_images_are_blended_by_the_command(tmp_path, capsys):
    one, other = np.full((2, 3, 3), 10, np.uint8), np.full((2, 3, 3), 20, np.uint8)
    images.write(tmp_path / "one.png", one)
    images.write(tmp_path / "other.png", other)
    pair = ["--images", tmp_path / "one.png", tmp_path / "other.png"]
    assert run(interpolate_command, *pair, "--alpha", 0.25, tmp_path / "out.png") == 0
    assert set(images.read(tmp_path / "out.png", 3).flat) == {13}  # 12.5, half up
    assert run(interpolate_command, *pair, "--alpha", 0.25, tmp_path / "out.png") == 2
    images.write(tmp_path / "other.png", other[:1], overwrite=True)
    assert run(interpolate_command, *pair, "--alpha", 0.25, tmp_path / "new.png") == 2
    assert "expected two images of the same" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--psnr-model-path", "a"],
        ["--mix", "a=1", "--images", "a", "b", "out.pth"],
        ["--mix", "a=1", "--alpha", "0.5", "out.pth"],
        ["--psnr-model-path", "a", "--esrgan-model-path", "b", "out.pth"],
        ["--psnr-model-path", "a", "--esrgan-model-path", "b", "--sweep", "3"],
        ["--psnr-model-path", "a", "--esrgan-model-path", "b", "--sweep", "1", "-o", "out"],
        ["--images", "a", "b", "--sweep", "3", "-o", "out"],
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, capsys):
    assert run(interpolate_command, *arguments) == 2
    assert "error: " in capsys.readouterr().err


def test_names_are_unique():
    paths = [Path(name) for name in ("a/x.png", "b/x.png", "bicubic.png", "x-2.png")]
    assert evaluation.unique_names(paths) == ["x", "x-2", "bicubic-2", "x-2-2"]
