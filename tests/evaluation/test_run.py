"""Tests of ``esrgan.evaluate`` as a library function: names, single arguments, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

import esrgan
from esrgan import EvaluationOptions, evaluation
from esrgan.errors import EsrganError
from esrgan.weights import load_generator
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


def test_crops_for_the_report_need_no_output_folder(photos, model):
    result = esrgan.evaluate([model], [photos], options=EvaluationOptions(device="cpu", num_shown=1))
    assert len(result.datasets[0].crops) == 2
    assert evaluation.render_html(result, 1).count("<article") == 2
    assert result.datasets[0].out_dir is None


def test_wrong_arguments_are_refused(photos, model, tmp_path):
    for models, message in (
        ([], "got none"),
        ({"bicubic": model}, "bicubic: these names are reserved"),
        ([model, make_model(tmp_path / "x4.pth", scale=4)], "models of the same scale"),
    ):
        with pytest.raises(EsrganError, match=message):
            esrgan.evaluate(models, [photos], options=CPU)
    for dataset in ("", "="):
        with pytest.raises(EsrganError, match="got an empty entry"):
            esrgan.evaluate([model], [dataset], options=CPU)
    (tmp_path / "vgg.txt").write_text("no weights")
    with pytest.raises(EsrganError, match=r"vgg\.txt"):
        esrgan.evaluate([model], [photos], ["vgg16"], EvaluationOptions("cpu", vgg_weights=tmp_path / "vgg.txt"))


def test_without_a_home_folder_nothing_is_cached(photos, model, monkeypatch, capsys):
    for name in ("ESRGAN_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError))
    assert len(esrgan.evaluate([model], [photos], options=CPU).datasets[0].results) == 3
    assert "results are not cached: no home folder" in capsys.readouterr().err


def test_names_are_unique():
    paths = [Path(name) for name in ("a/x.png", "b/x.png", "bicubic.png", "x-2.png")]
    assert evaluation.unique_names(paths) == ["x", "x-2", "bicubic-2", "x-2-2"]
