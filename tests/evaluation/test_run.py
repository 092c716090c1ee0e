"""Tests of ``esrgan.evaluate`` as a library function: names, single arguments, and what it refuses."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import esrgan
from esrgan import EvaluationOptions, Upscaler, evaluation, images
from esrgan.data import Folders
from esrgan.errors import EsrganError, LostDeviceError
from esrgan.evaluation import run
from esrgan.evaluation.measuring import DatasetImage
from esrgan.weights import load_generator
from tests.helpers.evaluation import write_photos
from tests.helpers.models import make_model

CPU = EvaluationOptions(device="cpu")


def test_models_are_files_or_generators_with_names_of_any_kind(photos, model):
    by_name = esrgan.evaluate({"mine": load_generator(model), "same": str(model)}, [photos], options=CPU)
    (result,) = by_name.datasets
    assert result.methods == ("bicubic", "mine", "same")
    single = esrgan.evaluate(model, photos, "psnr", CPU)  # not taken for lists of letters
    assert single.datasets[0].methods == ("bicubic", "model")
    psnr_y = single.datasets[0].metrics[0]
    assert single.datasets[0].scores("model", psnr_y) == result.scores("mine", psnr_y)
    assert not by_name.errors
    assert list(by_name.facts) == ["mine", "same", "conventions"]


def test_a_model_that_reduces_its_output_is_measured_at_its_factor(photos, tmp_path):
    wide = make_model(tmp_path / "x4.pth", scale=4)
    reduced = replace(load_generator(wide), outscale=2.0)
    other = load_generator(make_model(tmp_path / "x2.pth", scale=2))
    result = esrgan.evaluate({"reduced": reduced, "x2": other}, [photos], "psnr", replace(CPU, num_shown=1))
    assert not result.errors
    (dataset,) = result.datasets
    assert all(dataset.mean(method, dataset.metrics[0])[0] for method in ("bicubic", "reduced", "x2"))
    with pytest.raises(EsrganError, match=r"x4.pth: expected a whole upscaling factor, got ×1.5"):
        esrgan.evaluate({"odd": replace(reduced, outscale=1.5)}, [photos], options=CPU)


def test_a_lost_gpu_ends_the_evaluation_of_all_datasets(photos, model, monkeypatch):
    def lose_gpu(*_):
        raise LostDeviceError("cuda: the GPU failed")

    monkeypatch.setattr(Upscaler, "__call__", lose_gpu)
    with pytest.raises(LostDeviceError, match="the GPU failed"):
        esrgan.evaluate([model], [photos], options=replace(CPU, use_cache=False))


def test_crops_for_the_report_need_no_output_folder(photos, model):
    result = esrgan.evaluate([model], [photos], options=EvaluationOptions(device="cpu", num_shown=1))
    assert len(result.datasets[0].crops) == 2
    assert evaluation.render_html(result, 1).count("<article") == 2
    assert result.datasets[0].out_dir is None


def test_paths_of_the_options_may_be_text(photos, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = EvaluationOptions(device="cpu", data_root="~", out_dir="~/out", strips=["model"])
    result = esrgan.evaluate([model], [photos], options=options)
    assert result.datasets[0].out_dir == tmp_path / "out" / "photos"
    assert len([*(tmp_path / "out" / "photos").iterdir()]) == 3 * 4


def test_wrong_arguments_are_refused(photos, model, tmp_path):
    for models, message in (
        ([], "got none"),
        ({"bicubic": model}, "bicubic: these names are reserved"),
        ([model, make_model(tmp_path / "x4.pth", scale=4)], "models of the same scale"),
    ):
        with pytest.raises(EsrganError, match=message):
            esrgan.evaluate(models, [photos], options=CPU)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photos").write_text("")
    with pytest.raises(EsrganError, match="out/photos"):
        esrgan.evaluate([model], [photos], options=EvaluationOptions("cpu", out_dir=tmp_path / "out"))
    for dataset in ("", "="):
        with pytest.raises(EsrganError, match="got an empty entry"):
            esrgan.evaluate([model], [dataset], options=CPU)
    with pytest.raises(EsrganError, match="strips: expected names of models, got other"):
        esrgan.evaluate([model], [photos], options=EvaluationOptions("cpu", strips=["other"]))
    (tmp_path / "vgg.txt").write_text("no weights")
    with pytest.raises(EsrganError, match=r"vgg\.txt"):
        esrgan.evaluate([model], [photos], ["vgg16"], EvaluationOptions("cpu", vgg_weights=tmp_path / "vgg.txt"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": None}, "models: expected weight files, .*, got NoneType"),
        ({"models": [Upscaler]}, "models: expected weight files, .*, got type"),
        ({"models": b"model.pth"}, "models: expected weight files, .*, got bytes"),
        ({"models": {1: "esrgan-lite"}}, "models: expected names that are texts, got int"),
        ({"models": {"": "esrgan-lite"}}, "no name: these names are reserved"),
        ({"models": {"a/b": "esrgan-lite"}, "options": EvaluationOptions("cpu", out_dir="out")}, "'a/b': output files"),
        ({"datasets": []}, "datasets: expected names, .*, got none"),
        ({"datasets": [None]}, "datasets: expected names, .*, got NoneType"),
        ({"datasets": [("hr", 3)]}, "datasets: expected a tuple of HR and LR folders"),
        ({"datasets": [()]}, "datasets: expected a tuple of HR and LR folders"),
        ({"datasets": ["skimage", Path("skimage")]}, "datasets: two different ones are called skimage"),
        ({"metrics": ()}, "metrics: expected names of metrics, got none"),
        ({"metrics": 3}, "metrics: expected names of metrics, got int"),
        ({"metrics": ["psrn"]}, "metrics: expected all, psnr"),
        ({"options": {"device": "cpu"}}, "options: expected EvaluationOptions, got dict"),
        ({"options": EvaluationOptions("cpu", workers=0)}, "workers: expected an integer of at least 1, got 0"),
        ({"options": EvaluationOptions("cpu", num_shown=-1)}, "num_shown: expected an integer of at least 0"),
        (
            {"options": EvaluationOptions("cpu", strips="model")},
            "strips: expected a list of names of models, got 'model'",
        ),
        ({"options": EvaluationOptions("cpu", precision="int8")}, "precision: expected auto, exact"),
    ],
)
def test_wrong_arguments_are_one_error_before_anything_is_measured(photos, model, monkeypatch, arguments, message):
    monkeypatch.setattr(Upscaler, "__call__", lambda *_: pytest.fail("measured"))
    with pytest.raises(EsrganError, match=message) as caught:
        esrgan.evaluate(**({"models": [model], "datasets": [photos], "options": CPU} | arguments))
    assert len(caught.value.problems) == 1
    assert not Path("out").exists()


def test_arguments_may_be_generators(photos, model):
    result = esrgan.evaluate(*((each for each in [value]) for value in (model, photos, "psnr")), CPU)
    assert [each.dataset for each in result.datasets] == [str(photos)]
    assert result.datasets[0].methods == ("bicubic", "model")
    assert len(result.datasets[0].metrics) == 2


def test_paths_and_tuples_are_not_parsed(photos, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos = photos.rename("set5")  # a name of a dataset
    odd, low = Path("a=b, c"), Path("=low")
    shutil.copytree(photos, odd)
    low.mkdir()
    for path in odd.iterdir():
        images.write_pixels(low / path.name, images.read_pixels(path, 3)[::2, ::2])
    datasets = [photos, odd, (odd, low), Folders(str(odd), str(low), "{stem}"), (str(odd), None), ("", low)]
    options = EvaluationOptions("cpu", out_dir="out", use_cache=False)
    result = esrgan.evaluate(model, datasets, ["psnr", "niqe"], options)
    assert [(each.dataset, each.metrics[0].name, len(each.results)) for each in result.datasets] == [
        ("set5", "psnr_y", 3), ("a=b, c", "psnr_y", 3), ("a=b, c==low", "psnr_y", 3),
        ("a=b, c==low={stem}", "psnr_y", 3), ("==low", "niqe", 3)
    ]  # fmt: skip
    psnr = [each.mean("bicubic", each.metrics[0])[0] for each in result.datasets]
    assert psnr[0] == psnr[1] != psnr[2] == psnr[3]  # these LR images are no bicubic ones
    assert {path.name for path in Path("out").iterdir()} == {"set5", "a=b, c", "a=b, c-2", "a=b, c-3", "=low"}
    assert not result.errors
    assert (
        esrgan.evaluate(model, "a=b, c", "psnr", CPU).datasets[0].mean("bicubic", result.datasets[0].metrics[0])[0]
        == psnr[1]
    )


def test_outputs_never_differ_only_in_case(photos, model, tmp_path):
    """Windows and macOS would overwrite one with the other."""
    assert run.unique_names(["Net.pth", "a/net.pth", "Bicubic.pth"]) == ["Net", "net-2", "Bicubic-2"]
    options = EvaluationOptions("cpu", out_dir=tmp_path / "out", use_cache=False)
    with pytest.raises(EsrganError, match="net: differs only in case from Net; give the models other names"):
        esrgan.evaluate({"Net": str(model), "net": str(model)}, [photos], "psnr", options)
    with pytest.raises(EsrganError, match="Bicubic: these names are reserved"):
        esrgan.evaluate({"Bicubic": str(model)}, [photos], "psnr", options)


def test_templates_of_both_names_may_be_given(photos, model, tmp_path):
    for path in [*photos.iterdir()]:
        images.write_pixels(photos / f"{path.stem}_small.png", images.read_pixels(path, 3)[::2, ::2])
        path.rename(path.with_stem(f"{path.stem}_large"))
    templates = ("{stem}_small", "{stem}_large")
    name = "=".join(map(str, (photos, photos, *templates)))
    for dataset in (name, Folders(str(photos), str(photos), *templates)):
        result = esrgan.evaluate(model, [dataset], ["psnr"], CPU)
        assert [(each.dataset, len(each.results), each.errors) for each in result.datasets] == [(name, 3, [])]


def test_a_defect_in_one_dataset_does_not_lose_the_others(photos, model, tmp_path, monkeypatch, capsys):
    other = write_photos(tmp_path / "other")
    load = DatasetImage.load

    def fail(image, *arguments):
        return load(image, *arguments) if image.high.parent == photos else 1 / 0

    monkeypatch.setattr(DatasetImage, "load", fail)
    result = esrgan.evaluate([model], [other, photos], options=CPU)
    assert [len(each.results) for each in result.datasets] == [0, 3]
    assert str(result.errors[0]).endswith("other: ZeroDivisionError: division by zero")
    assert "Traceback" in capsys.readouterr().err


def test_results_are_handed_over_after_each_dataset(photos, model, tmp_path):
    other, seen = write_photos(tmp_path / "other"), []
    esrgan.evaluate([model], [photos, other], "psnr", CPU, lambda result: seen.append(len(result.datasets)))
    assert seen == [1, 2]


def test_many_errors_are_counted(photos, model, capsys):
    for i in range(9):
        (photos / f"broken_{i}.png").write_bytes(b"broken")
    result = esrgan.evaluate([model], [photos], options=CPU)
    assert len(result.errors) == 9
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[3].endswith("photos: 6 more errors; the reports list all of them")


def test_without_a_home_folder_nothing_is_cached(photos, model, monkeypatch, capsys):
    for name in ("ESRGAN_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError))
    assert len(esrgan.evaluate([model], [photos], options=CPU).datasets[0].results) == 3
    assert "results are not cached: no home folder" in capsys.readouterr().err


def test_versions_of_repositories_are_kept_in_names(photos, model, monkeypatch):
    monkeypatch.setattr(run, "load_generator", lambda _: load_generator(model))
    models = ["hf:ann/x-v1.0", "hf:ann/x-v1.1", "hf:ann/x-v1.1/4x.pth"]
    result = esrgan.evaluate(models, [photos], options=CPU)
    assert list(result.models) == ["x-v1.0", "x-v1.1", "4x"]


def test_an_unusable_gpu_is_one_warning_for_all_models(photos, model, gpu_problems, capsys):
    gpu_problems("it is busy")
    esrgan.evaluate({"a": str(model), "b": str(model)}, [photos], "psnr", replace(CPU, device="auto"))
    assert capsys.readouterr().err.count("device cuda: it is busy; looking for another device\n") == 1


only_with_case = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="its disks ignore case")


@pytest.mark.parametrize(
    ("ignores_case", "names"),
    [pytest.param(False, ["A", "a", "a-2"], marks=only_with_case), (True, ["A", "a-2", "a-3"])],
)
def test_images_are_renamed_as_the_disk_of_the_outputs_requires(
    photos, model, tmp_path, monkeypatch, ignores_case, names
):
    monkeypatch.setattr("esrgan.paths._is_case_insensitive", lambda folder: ignores_case)
    pixels = images.read_pixels(next(photos.iterdir()), 3)
    for name in ("1/A", "2/a", "3/a"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        images.write_pixels(tmp_path / f"in/{name}.png", pixels)
    options = EvaluationOptions("cpu", out_dir=tmp_path / "out", use_cache=False)
    (result,) = esrgan.evaluate(model, [tmp_path / "in"], "psnr", options).datasets
    assert (sorted(result.results), result.errors) == (names, [])
    assert {path.name for path in tmp_path.glob("out/in/*_bicubic.png")} == {f"{name}_bicubic.png" for name in names}
    (result,) = esrgan.evaluate(model, [tmp_path / "in"], "psnr", replace(options, out_dir=None)).datasets
    assert sorted(result.results) == ["A", "a", "a-2"]  # without outputs, no disk decides


def test_names_are_unique():
    paths = [Path(name) for name in ("a/x.png", "b/x.png", "bicubic.png", "x-2.png")]
    assert evaluation.unique_names(paths) == ["x", "x-2", "bicubic-2", "x-2-2"]
