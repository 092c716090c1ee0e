"""Tests of the comparisons between methods."""

from __future__ import annotations

import pytest

from esrgan import Upscaler
from esrgan.evaluation import BicubicMethod, ModelMethod, results
from tests.helpers.evaluation import run_evaluation
from tests.helpers.models import make_model


def test_models_are_compared_with_bicubic_and_with_the_first_model(photos, model, tmp_path):
    paths = {"one": model, "two": make_model(tmp_path / "2.pth", 1), "three": make_model(tmp_path / "3.pth", 2)}
    models = {name: ModelMethod(Upscaler.from_file(path, "cpu", "fp32")) for name, path in paths.items()}
    result = run_evaluation(photos, {"bicubic": BicubicMethod(2)} | models)
    assert list(result.paired_differences()) == [
        ("one", "bicubic"), ("two", "bicubic"), ("three", "bicubic"), ("two", "one"), ("three", "one")
    ]  # fmt: skip
    expected = result.means()["two"]["ssim_y"] - result.means()["one"]["ssim_y"]
    assert result.paired_differences()["two", "one"]["ssim_y"].mean == pytest.approx(expected)
    assert "| two − one |" in results.format_differences(result)
    assert len(results.describe_differences(result)) == 5
    gains = {
        name: rows["three"].scores["psnr_y"] - rows["bicubic"].scores["psnr_y"] for name, rows in result.results.items()
    }
    assert result.images_by_gain() == sorted(gains, key=gains.get, reverse=True)
