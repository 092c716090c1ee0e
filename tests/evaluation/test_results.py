"""Tests of the comparisons between methods."""

from __future__ import annotations

import json
import math

import pytest

from esrgan import Upscaler
from esrgan.errors import EsrganError
from esrgan.evaluation import DatasetEvaluation, Evaluation, ImageResult, render_dataset, render_html, render_markdown
from esrgan.evaluation.markdown import describe_differences
from esrgan.evaluation.measuring import Method
from esrgan.evaluation.sweep import plot_curve
from esrgan.metrics import METRICS
from tests.helpers.evaluation import run_evaluation
from tests.helpers.models import make_model


def test_models_are_compared_with_bicubic_and_with_the_first_model(photos, model, tmp_path):
    paths = {"one": model, "two": make_model(tmp_path / "2.pth", 1), "three": make_model(tmp_path / "3.pth", 2)}
    models = {name: Method.model(Upscaler.from_file(path, "cpu", "fp32")) for name, path in paths.items()}
    result = run_evaluation(photos, {"bicubic": Method.bicubic(2)} | models)
    assert list(result.differences) == [
        ("one", "bicubic"), ("two", "bicubic"), ("three", "bicubic"), ("two", "one"), ("three", "one")
    ]  # fmt: skip
    expected = result.mean("two", METRICS["ssim_y"])[0] - result.mean("one", METRICS["ssim_y"])[0]
    assert result.differences["two", "one"]["ssim_y"].mean == pytest.approx(expected)
    assert "| two − one |" in render_dataset(result)
    assert len([*describe_differences(result)]) == 5
    gains = {
        name: rows["three"].scores["psnr_y"] - rows["bicubic"].scores["psnr_y"] for name, rows in result.results.items()
    }
    assert result.best_and_worst(3) == (sorted(gains, key=gains.get, reverse=True), [])


def dataset(**psnr_y):
    """Return a dataset with the given PSNR of bicubic, of the model and perhaps of another one, by image."""
    names = ("bicubic", "model", "other")[: len(next(iter(psnr_y.values())))]
    rows = {
        image: {name: ImageResult({"psnr_y": x, "niqe": 4.0}, 1.0, 1) for name, x in zip(names, values)}  # noqa: B905
        for image, values in psnr_y.items()
    }
    metrics = [METRICS["psnr_y"], METRICS["niqe"]]
    return DatasetEvaluation("photos", names, metrics, len(rows), results=rows)


def test_perfect_images_are_counted_and_not_part_of_means():
    result = dataset(a=(30, 31), black=(math.inf, math.inf), b=(20, 24), better=(28, math.inf))
    evaluation = Evaluation({"model": "a model"}, "conventions", [result])
    data = json.loads(evaluation.to_json())["photos"]
    assert data["mean"] == {"bicubic": {"psnr_y": 25, "niqe": 4}, "model": {"psnr_y": 27.5, "niqe": 4}}
    assert data["compared_images"] == {"psnr_y": 2, "niqe": 4}
    assert data["perfect"] == {"bicubic": {"psnr_y": 1, "niqe": 0}, "model": {"psnr_y": 2, "niqe": 0}}
    assert data["images"]["black"]["model"]["psnr_y"] == "inf"
    (difference,) = (each for each in data["differences"] if each["metric"] == "psnr_y")
    assert (difference["mean"], difference["images"]) == (2.5, 2)  # of a and b, where both are finite
    assert result.best_and_worst(2) == (["better", "b"], ["a"])
    text = render_dataset(result)
    assert "| **mean** | bicubic | 25.00 (1 perfect) | 4.00 |" in text
    assert "| **mean** | model | 27.50 (2 perfect) | 4.00 |" in text
    line = "means are over the images on which all methods have a finite score: PSNR Y 2 of 4"
    assert line in text
    assert line in render_html(evaluation)
    assert "| model − bicubic | +2.50 [+1.00, +4.00] | +0.00 [+0.00, +0.00] |" in text
    assert [line.split(",")[3] for line in evaluation.to_csv().splitlines()[3:5]] == ["inf", "inf"]
    means = render_html(evaluation).partition("</table>")[0]
    assert "25.00 (1 perfect)" in means
    assert "27.50 (2 perfect)" in means
    assert "+2.50" in means  # not the difference of means over different images
    assert '<strong title="best">25.00' not in means
    assert '<strong title="best">27.50' not in means
    assert plot_curve(result, {"model": 1.0}).startswith(b"\x89PNG")
    assert "– in" not in text
    result.results["black"]["model"].scores["niqe"] = None
    line = "– in NIQE: the image is too small or too flat for this metric"
    assert line in render_dataset(result)
    assert line in render_html(evaluation)


@pytest.mark.parametrize(
    ("scores", "means", "compared"),
    [
        ({"black": (math.inf, 50), "x": (36, 37)}, [(36, 1), (37, 0)], ["x"]),
        ({"a": (20, 22, math.inf), "b": (30, 31, 32), "c": (math.inf,) * 3}, [(30, 1), (31, 1), (32, 2)], ["b"]),
        ({"a": (20, 22, math.inf), "b": (30, 31, math.inf)}, [(25, 0), (26.5, 0), (math.inf, 2)], ["a", "b"]),
        ({"a": (math.inf, 22), "b": (30, math.inf)}, [(None, 1), (None, 1)], []),
        ({"a": (20, 22, math.nan), "b": (30, 31, 32)}, [(30, 0), (31, 0), (32, 0)], ["b"]),
        ({"a": (20, None), "b": (30, 31)}, [(30, 0), (31, 0)], ["b"]),
    ],
)
def test_means_of_all_methods_are_over_the_same_images(scores, means, compared):
    result = dataset(**scores)
    psnr_y = result.metrics[0]
    assert [result.mean(method, psnr_y) for method in result.methods] == means
    assert result.compared_images(psnr_y) == compared
    for (model, baseline), differences in result.differences.items():
        if "psnr_y" in differences:
            means_of_both = [result.mean(method, psnr_y)[0] for method in (model, baseline)]
            assert differences["psnr_y"].mean == pytest.approx(means_of_both[0] - means_of_both[1])
    evaluation = Evaluation({"model": "a model"}, "conventions", [result])
    assert render_html(evaluation)
    assert json.loads(evaluation.to_json())["photos"]["compared_images"]["psnr_y"] == len(compared)


def test_a_dataset_of_perfect_images_has_reports_but_no_curve():
    result = dataset(a=(math.inf, math.inf))
    evaluation = Evaluation({"model": "a model"}, "conventions", [result])
    assert json.loads(evaluation.to_json())["photos"]["mean"]["model"]["psnr_y"] == "inf"
    assert "| **mean** | model | inf (1 perfect) | 4.00 |" in render_dataset(result, 1)
    assert "gain" not in render_dataset(result, 1)
    assert "∞</strong> (1 perfect)" in render_html(evaluation)
    with pytest.raises(EsrganError, match="photos: no curve, because"):
        plot_curve(result, {"model": 1.0})


def test_a_dataset_without_results_is_reported():
    result = DatasetEvaluation("photos", ("bicubic", "model"), [METRICS["psnr_y"]], 2, errors=[EsrganError("a: bad")])
    evaluation = Evaluation({"model": "a model"}, "conventions", [result])
    assert evaluation.errors == result.errors
    assert json.loads(evaluation.to_json())["photos"]["errors"] == ["a: bad"]
    assert evaluation.to_csv() == "dataset,image,method,psnr_y,seconds\n"
    assert "photos: 2 of 2 images failed\n\nerror: a: bad" in render_markdown(evaluation)
    assert "<li>a: bad</li>" in render_html(evaluation)
