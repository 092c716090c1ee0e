"""Tests of the evaluation: scores, reuse of cached results, and error handling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from esrgan import Upscaler, evaluation, images, metrics, resize
from esrgan.data import ImagePair, load_pair
from esrgan.evaluation import BicubicMethod, DatasetImage, ModelMethod, results
from esrgan.weights import load_generator
from tests.helpers.evaluation import (
    CPU,
    PSNR_AND_SSIM,
    CountingMethod,
    dataset_images,
    run_evaluation,
)
from tests.helpers.models import make_model


@pytest.mark.parametrize("workers", [1, 3])
def test_scores_match_the_metrics_and_keep_image_order(photos, model, workers):
    upscaler = Upscaler.from_file(model, "cpu", "fp32")
    seen = []
    result = run_evaluation(
        photos, {"bicubic": BicubicMethod(2), "mine": ModelMethod(upscaler)}, workers=workers, on_progress=seen.append
    )
    assert list(result.results) == ["0", "1", "2"]
    assert seen == [1, 2, 3]
    for dataset_image in dataset_images(photos):
        low, high = load_pair(ImagePair(dataset_image.high, None), 2, 3)
        assert result.results[dataset_image.name]["bicubic"].scores == metrics.measure(resize.bicubic(low, 2), high, 2)
        row = result.results[dataset_image.name]["mine"]
        assert row.scores == metrics.measure(upscaler(low), high, 2)
        assert row.pixels == high.shape[0] * high.shape[1]
        assert row.seconds > 0
    assert result.means()["mine"]["psnr_y"] == np.mean(
        [rows["mine"].scores["psnr_y"] for rows in result.results.values()]
    )


def test_unreadable_images_are_reported_and_skipped(photos):
    (photos / "1.png").write_bytes(b"broken")
    errors = []
    result = run_evaluation(photos, {"bicubic": BicubicMethod(2)}, on_error=errors.append)
    assert list(result.results) == ["0", "2"]
    assert len(errors) == 1
    assert "1.png" in str(errors[0])


def test_images_too_small_for_a_metric_have_no_score(photos):
    result = run_evaluation(photos, {"bicubic": BicubicMethod(2)}, metric_names=["psnr", "niqe"])
    assert [row["bicubic"].scores["niqe"] for row in result.results.values()] == [None] * 3
    assert result.means()["bicubic"]["niqe"] is None
    assert result.means()["bicubic"]["psnr_y"] > 0
    assert "| – |" in results.format_table(result)
    assert results.to_csv([result]).splitlines()[1].split(",")[5] == ""


def test_no_reference_metrics_work_without_ground_truth(photos):
    rng = np.random.default_rng(1)
    large = photos.parent / "large"
    images.write_pixels(
        large / "a.png", rng.integers(0, 256, (110, 220, 3), np.uint8)
    ) if large.mkdir() is None else None
    result = run_evaluation(
        large,
        {"bicubic": BicubicMethod(2)},
        metric_names=["niqe"],
        dataset_images=[DatasetImage("a", large / "a.png", None)],
    )
    from esrgan.metrics.niqe import niqe

    assert result.results["a"]["bicubic"].scores == {
        "niqe": niqe(resize.bicubic(images.read_pixels(large / "a.png", 3), 2), 2)
    }


@pytest.mark.slow
def test_only_missing_results_are_computed(photos, model, tmp_path):
    def methods(*names):
        paths = {"mine": model, "other": tmp_path / "other.pth"}
        models = {name: CountingMethod(ModelMethod(Upscaler.from_file(paths[name], "cpu", "fp32"))) for name in names}
        return {"bicubic": CountingMethod(BicubicMethod(2))} | models

    make_model(tmp_path / "other.pth", 1)
    cache, out = tmp_path / "cache", tmp_path / "out"
    out.mkdir()

    def calls(metric_names=PSNR_AND_SSIM, out_dir=None, names=("mine",)):
        using = methods(*names)
        result = run_evaluation(photos, using, cache, metric_names, out_dir=out_dir)
        return [method.calls for method in using.values()], result

    first, result = calls()
    assert first == [3, 3]
    again, same = calls()
    assert again == [0, 0]
    assert same.results == result.results
    assert calls(names=("mine", "other"))[0] == [0, 0, 3]
    assert calls(["psnr"])[0] == [0, 0]
    assert calls(["psnr", "niqe"])[0] == [3, 3]  # scoring a new metric needs the image
    assert calls()[0] == [0, 0]  # the other scores are still cached
    assert calls(out_dir=out)[0] == [3, 3]  # output files are requested
    assert calls(out_dir=out)[0] == [0, 0]
    (out / "1_mine.png").unlink()
    images.write_pixels(
        out / "2_mine.png", images.read_pixels(out / "0_mine.png", 3), overwrite=True
    )  # as from another run
    assert calls(out_dir=out)[0] == [0, 2]
    images.write_pixels(photos / "0.png", 255 - images.read_pixels(photos / "0.png", 3), overwrite=True)
    assert calls()[0] == [1, 1]
    make_model(model, 2)
    assert calls()[0] == [0, 3]


def test_model_identity_includes_precision_and_residual_scaling(model):
    network = load_generator(model).build()
    one = ModelMethod(Upscaler(network, CPU)).identity
    assert one == ModelMethod(Upscaler(network, CPU)).identity
    assert one != ModelMethod(Upscaler(network, CPU, torch.bfloat16)).identity
    network.body[0].rdb2.residual_scaling = 0.1
    assert one != ModelMethod(Upscaler(network, CPU)).identity


def test_names_are_unique():
    paths = [Path(name) for name in ("a/x.png", "b/x.png", "bicubic.png", "x-2.png")]
    assert evaluation.unique_names(paths) == ["x", "x-2", "bicubic-2", "x-2-2"]
