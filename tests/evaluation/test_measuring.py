"""Tests of the evaluation: scores, reuse of cached results, and error handling."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from esrgan import Upscaler, images, metrics, resize
from esrgan.data import ImagePair, load_pair
from esrgan.errors import LostDeviceError
from esrgan.evaluation import Evaluation, render_dataset
from esrgan.evaluation.crops import ImageCrop
from esrgan.evaluation.measuring import DatasetImage, Method
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
    result = run_evaluation(photos, {"bicubic": Method.bicubic(2), "mine": Method.model(upscaler)}, workers=workers)
    assert list(result.results) == ["0", "1", "2"]
    for dataset_image in dataset_images(photos):
        low, high = load_pair(ImagePair(dataset_image.high, None), 2, 3)
        assert result.results[dataset_image.name]["bicubic"].scores == metrics.measure(resize.bicubic(low, 2), high, 2)
        row = result.results[dataset_image.name]["mine"]
        assert row.scores == metrics.measure(upscaler(low), high, 2)
        assert row.pixels == high.shape[0] * high.shape[1]
        assert row.seconds > 0
    psnr_y = [rows["mine"].scores["psnr_y"] for rows in result.results.values()]
    assert result.mean("mine", result.metrics[0]) == (np.mean(psnr_y), 0)


def test_unreadable_images_are_reported_and_skipped(photos):
    (photos / "1.png").write_bytes(b"broken")
    result = run_evaluation(photos, {"bicubic": Method.bicubic(2)}, may_fail=True)
    assert list(result.results) == ["0", "2"]
    assert len(result.errors) == 1
    assert "1.png" in str(result.errors[0])
    assert render_dataset(result).endswith("photos: 1 of 3 images failed")


def test_images_too_small_for_a_metric_have_no_score(photos):
    result = run_evaluation(photos, {"bicubic": Method.bicubic(2)}, metric_names=["psnr", "niqe"])
    assert [row["bicubic"].scores["niqe"] for row in result.results.values()] == [None] * 3
    psnr_y, _, niqe = result.metrics
    assert result.mean("bicubic", niqe) == (None, 0)
    assert result.mean("bicubic", psnr_y)[0] > 0
    assert "| – |" in render_dataset(result)
    assert Evaluation({}, "", [result]).to_csv().splitlines()[1].split(",")[5] == ""


def test_no_reference_metrics_work_without_ground_truth(photos):
    rng = np.random.default_rng(1)
    large = photos.parent / "large"
    images.write_pixels(
        large / "a.png", rng.integers(0, 256, (110, 220, 3), np.uint8)
    ) if large.mkdir() is None else None
    result = run_evaluation(
        large,
        {"bicubic": Method.bicubic(2)},
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
        models = {name: CountingMethod(Method.model(Upscaler.from_file(paths[name], "cpu", "fp32"))) for name in names}
        return {"bicubic": CountingMethod(Method.bicubic(2))} | models

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
    shutil.copy(out / "0_mine.png", out / "2_mine.png")  # as from another run
    assert calls(out_dir=out)[0] == [0, 2]
    images.write_pixels(photos / "0.png", 255 - images.read_pixels(photos / "0.png", 3), overwrite=True)
    assert calls()[0] == [1, 1]
    make_model(model, 2)
    assert calls()[0] == [0, 3]


def test_model_identity_includes_precision_and_residual_scaling(model):
    network = load_generator(model).build()
    one = Method.model(Upscaler(network, CPU)).identity
    assert one == Method.model(Upscaler(network, CPU)).identity
    assert one != Method.model(Upscaler(network, CPU, torch.bfloat16)).identity
    assert one != Method.model(Upscaler(network, CPU, winograd=True)).identity
    network.body[0].rdb2.residual_scaling = 0.1
    assert one != Method.model(Upscaler(network, CPU)).identity


def test_only_crops_of_the_best_and_worst_images_are_kept(photos, monkeypatch):
    for i in range(3, 12):
        (photos / f"{i}.png").write_bytes((photos / f"{i % 3}.png").read_bytes())
    errors = dict(zip([*map(str, range(12))], [5, 1, 7, 3, 9, 0, 2, 8, 4, 6, 11, 10], strict=True))
    pixels = {name: images.read_pixels(photos / f"{name}.png", 3) for name in errors}
    loaded = iter([*errors])

    def upscale(low, _):
        name = next(loaded)
        return np.clip(pixels[name].astype(int) + errors[name], 0, 255).astype(np.uint8)

    made, make = [], ImageCrop.of
    monkeypatch.setattr(ImageCrop, "of", lambda versions: made.append(0) or make(versions))
    methods = {"bicubic": Method.bicubic(2), "mine": Method(upscale, {})}
    chosen = [DatasetImage(name, None, photos / f"{name}.png") for name in errors]
    result = run_evaluation(photos, methods, dataset_images=chosen, num_shown=2)
    best, worst = result.best_and_worst(2)
    assert list(result.crops) == [*best, *worst]
    for name, crop in result.crops.items():
        np.testing.assert_array_equal(crop.versions.high, pixels[name])
        assert crop.versions.outputs["mine"].base is None  # a view would keep the whole image in memory
    assert 4 <= len(made) < 12


def test_lack_of_memory_fails_one_image(photos):
    def upscale(low, _):
        if next(calls) == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        return low.repeat(2, axis=0).repeat(2, axis=1)

    calls = iter(range(3))
    result = run_evaluation(photos, {"bicubic": Method.bicubic(2), "mine": Method(upscale, {})}, may_fail=True)
    assert list(result.results) == ["0", "2"]
    assert "photos: 1: not enough memory" in str(result.errors[0])


def test_a_lost_gpu_ends_the_evaluation(photos):
    def upscale(low, _):
        raise LostDeviceError("cuda: the GPU failed")

    with pytest.raises(LostDeviceError, match="the GPU failed"):
        run_evaluation(photos, {"mine": Method(upscale, {})}, may_fail=True)


def test_files_that_cannot_be_written_do_not_lose_scores(photos, tmp_path):
    (tmp_path / "out" / "1_sheet.png").mkdir(parents=True)
    result = run_evaluation(photos, {"bicubic": Method.bicubic(2)}, out_dir=tmp_path / "out", may_fail=True)
    assert list(result.results) == ["0", "1", "2"]
    assert len(result.errors) == 1
    assert "1_sheet.png" in str(result.errors[0])


def test_a_file_of_the_users_that_comes_during_the_work_is_kept(photos, tmp_path):
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / "1_bicubic.png"

    def upscale(low, _):
        if not mine.exists():  # when the image before is upscaled
            mine.write_text("mine")
        return resize.bicubic(low, 2)

    result = run_evaluation(photos, {"bicubic": Method(upscale, {})}, out_dir=tmp_path / "out", may_fail=True)
    assert mine.read_text() == "mine"
    assert "not an output of an earlier run" in str(result.errors[0])


def test_outputs_are_not_read_back(photos, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    read, read_pixels = [], images.read_pixels
    monkeypatch.setattr(images, "read_pixels", lambda *arguments: read.append(arguments[0]) or read_pixels(*arguments))
    run_evaluation(photos, {"bicubic": Method.bicubic(2)}, out_dir=tmp_path / "out", num_shown=2, strips=["bicubic"])
    assert {path.parent for path in read} == {photos}
    assert len([*(tmp_path / "out").iterdir()]) == 3 * 3
