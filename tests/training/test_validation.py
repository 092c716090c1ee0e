"""Validation: scores, panels, and the choice of the best model."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from esrgan import metrics, resize
from esrgan.data import cache_pairs, find_pairs, read_cached_pair
from esrgan.errors import TrainingError
from esrgan.training import validation
from esrgan.weights import load_file, load_generator
from tests.faults import compare
from tests.helpers.runs import (
    STAGES,
    after_step,
    find_differences,
    load_run_files,
    press_ctrl_c,
    psnr_scores,
    records_by_step,
    run,
)
from tests.helpers.stages import perceptual_distance

pytestmark = pytest.mark.usefixtures("foreground_signals")

Make = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(("kind", "stage"), [("PSNR", "pretraining"), ("ESRGAN", "training")])
def test_validation_scores_the_average_on_whole_images(
    reference_run: Path, photos: Path, vgg11_weights: Path, kind: str, stage: str
) -> None:
    (path,) = reference_run.glob(f"*_{kind}_x4.pth")
    network, rows = load_generator(path).build(), []
    high_paths = sorted((photos / "val").iterdir())
    pairs = cache_pairs(
        find_pairs([str(photos / "val")], "val", 4, photos),
        scale=4,
        channels=3,
        min_size=(1, 1),
        cache_dir=photos / "cache",
    )
    lows = {pair.source.high: read_cached_pair(pair)[0] for pair in pairs}
    for high_path in high_paths:
        high = np.array(Image.open(high_path))
        low = torch.from_numpy(lows[high_path]).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            fake = network(low).clamp(0, 1)
        shown = (fake[0] * 255).round().byte().permute(1, 2, 0).numpy()
        real = torch.from_numpy(high).permute(2, 0, 1)[None].double() / 255
        scores = metrics.measure(shown, high, border=4)
        rows.append(
            {
                "PSNR": scores["psnr_y"],
                "SSIM": scores["ssim_y"],
                "PSNR_RGB": scores["psnr_rgb"],
                "SSIM_RGB": scores["ssim_rgb"],
                "content_loss": (fake - real).abs().mean().item(),
                "perceptual_loss": perceptual_distance(load_file(vgg11_weights), fake.double(), real).item(),
            }
        )
    record = records_by_step(reference_run, "validation", stage)[6]
    for name in rows[0]:
        tolerance = 1e-5 if name.endswith("loss") else 1e-3  # a pixel may be rounded differently
        assert record[name] == pytest.approx(np.mean([row[name] for row in rows]), rel=tolerance), name


def test_the_panels_show_the_validation_images(reference_run: Path, photos: Path) -> None:
    high = np.array(Image.open(photos / "val" / "1.png"))
    for stage in STAGES:
        (path,) = reference_run.glob(f"logs/*/{stage}.png")
        panel = np.array(Image.open(path))
        assert panel.shape[0] >= 2 * 32
        assert panel.shape[1] >= 4 * 36
        windows = np.lib.stride_tricks.sliding_window_view(panel, high.shape)
        assert (windows == high).all(axis=(-1, -2, -3)).sum() == 1  # the image appears once, in the HR column


def test_charts_begin_with_the_starting_weights_and_bicubic(
    tiny_config: Make, reference_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model,) = reference_run.glob("*_PSNR_x4.pth")
    run(tiny_config(), tmp_path, stage="training", load_checkpoint=model, max_steps=1)
    end = records_by_step(reference_run, "validation", "pretraining")[6]
    start = records_by_step(tmp_path, "validation", "training")[0]
    assert start | {"stage": "", "step": 0} == end | {"stage": "", "step": 0}
    rows = []
    for path in (photos / "val").iterdir():
        high = np.array(Image.open(path))
        low = resize.bicubic(high, Fraction(1, 4))
        rows.append(metrics.measure(resize.bicubic(low, Fraction(4)), high, border=4)["psnr_y"])
    for record in records_by_step(tmp_path, "bicubic", "training").values():
        assert record["PSNR"] == pytest.approx(np.mean(rows))
    out = capsys.readouterr().out
    assert f"training: validation of bicubic: PSNR {np.mean(rows):.3f} dB (Y), " in out
    assert f"training 0: validation PSNR {start['PSNR']:.3f} dB (Y), " in out
    assert out.count(f"; bicubic: PSNR {np.mean(rows):.3f} dB (Y)\n") == 2


def test_ctrl_c_before_the_first_step_leaves_nothing_to_resume(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"stage": "pretraining", "run_name": "mine", "max_steps": 1}

    def reading(pair: Any) -> Any:
        press_ctrl_c()
        return read_cached_pair(pair)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "read_cached_pair", reading)
        assert run(tiny_config(), tmp_path, **options) is False
    line = "stopped before step 1 of pretraining; run the same command with --resume auto to continue\n"
    assert capsys.readouterr().out.endswith(line)
    assert not list(tmp_path.glob("*.pth"))
    assert run(tiny_config(), tmp_path, resume=True, **options) is True


def test_panels_can_be_disabled(tiny_config: Make, tmp_path: Path) -> None:
    assert run(tiny_config(logging={"num_images": 0}), tmp_path, stage="pretraining", max_steps=1) is True
    assert list(records_by_step(tmp_path, "validation", "pretraining")) == [0, 1]


def test_threads_measure_the_same_with_one_image_at_a_time_on_the_device(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert validation._metric_threads(torch.device("cpu")) == 1
    options: dict[str, Any] = {"stage": "pretraining", "max_steps": 1}
    run(tiny_config(), tmp_path / "serial", **options)
    active, most, make = [], [], validation.to_tensor

    def counting(image: Any, device: torch.device) -> torch.Tensor:
        active.append(threading.get_ident())
        most.append(len(set(active)))
        return make(image, device)

    def finishing(tensor: torch.Tensor) -> Any:
        active.clear()
        return to_image(tensor)

    to_image = validation.to_image
    monkeypatch.setattr(validation, "_metric_threads", lambda device: 4)
    monkeypatch.setattr(validation, "to_tensor", counting)
    monkeypatch.setattr(validation, "to_image", finishing)
    run(tiny_config(logging={"num_images": 0}), tmp_path / "threads", **options)
    # LR and HR of two images: for bicubic, whose output is a third one, before the first step and after it.
    assert most == [1] * (6 + 4 + 4)
    one, other = (records_by_step(tmp_path / name, "validation", "pretraining") for name in ("serial", "threads"))
    assert one[1].keys() == other[1].keys()
    assert all(other[1][name] == value for name, value in one[1].items() if name != "time")


@pytest.mark.slow
def test_an_interrupted_validation_is_repeated_on_resume(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = []

    def reading(pair: Any) -> Any:
        read.append(pair)
        if len(read) == 7:  # the first image after two steps; bicubic, the start and their panel have read six
            press_ctrl_c()
        return read_cached_pair(pair)

    options = {"stage": "pretraining", "checkpoint_interval": 1}
    run(tiny_config(), tmp_path / "whole", **options)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "read_cached_pair", reading)
        assert run(tiny_config(), tmp_path / "stopped", **options) is False
    assert len(read) == 7
    assert "stopped after step 2 of pretraining" in capsys.readouterr().out
    assert load_run_files(tmp_path / "stopped").keys() == {"PSNR_x4_checkpoint"}
    assert list(records_by_step(tmp_path / "stopped", "validation", "pretraining")) == [0]
    assert run(tiny_config(), tmp_path / "stopped", resume=True, **options) is True
    assert not compare(tmp_path / "stopped", tmp_path / "whole")


def best_epoch(out_dir: Path) -> int | None:
    """Return the epoch whose model is the best model, or None."""
    files = load_run_files(out_dir)
    best = next((content for name, content in files.items() if name.endswith("_best_model")), None)
    if best is None:
        return None
    (epoch,) = [
        int(name[-1])
        for name, content in files.items()
        if re.search(r"_e\d$", name) and not find_differences(content["params"], best["params"])
    ]
    return epoch


WITHOUT_WEIGHTS = {"weights": None, "optional": True}
GAN_SCORES = [
    {"PSNR": 30.0, "perceptual_loss": 3.0},
    {"PSNR": 10.0, "perceptual_loss": 1.0},
    {"PSNR": 40.0, "perceptual_loss": 2.0},
]


@pytest.mark.parametrize(
    ("stage", "scores", "warm_up", "best"),
    [
        ("pretraining", psnr_scores(10, 30, 20), 0, 2),
        ("pretraining", psnr_scores(30, 10, 20), 0, 1),
        ("pretraining", psnr_scores(30, 20, 10), 1, 2),
        ("pretraining", psnr_scores(30, 20, 10), 2, 3),
        ("pretraining", psnr_scores(30, 20, 10), 3, None),
        ("training", GAN_SCORES, 0, 2),  # the lowest perceptual loss, whatever its PSNR
        ("training", GAN_SCORES, 2, 3),
        ("training", [{"PSNR": value} for value in (30.0, 20.0, 10.0)], 0, 3),  # no perceptual loss: the newest
    ],
)
@pytest.mark.usefixtures("no_vgg_weights")
@pytest.mark.slow
def test_each_stage_chooses_the_best_model_by_its_criterion(
    tiny_config: Make,
    script_validation: Callable[..., None],
    tmp_path: Path,
    stage: str,
    scores: list[dict[str, float]],
    warm_up: int,
    best: int | None,
) -> None:
    script_validation(*scores)
    config = tiny_config() if "perceptual_loss" in scores[0] else tiny_config(perceptual_loss=WITHOUT_WEIGHTS)
    run(config, tmp_path, stage=stage, store_model_interval=1, best_checkpoint_warmup=warm_up)
    assert best_epoch(tmp_path) == best


@pytest.mark.parametrize(("stage", "scores"), [("pretraining", psnr_scores(10, 30, 20)), ("training", GAN_SCORES)])
@pytest.mark.slow
def test_a_resumed_run_remembers_the_best_score(
    tiny_config: Make,
    script_validation: Callable[..., None],
    tmp_path: Path,
    stage: str,
    scores: list[dict[str, float]],
) -> None:
    script_validation(*scores)
    with after_step(stage, 5, press_ctrl_c):
        assert run(tiny_config(), tmp_path, stage=stage, store_model_interval=1) is False
    script_validation(scores[-1])
    assert run(tiny_config(), tmp_path, stage=stage, resume=True, store_model_interval=1) is True
    assert best_epoch(tmp_path) == 2


def test_each_stage_has_its_own_best_model(
    tiny_config: Make, script_validation: Callable[..., None], tmp_path: Path
) -> None:
    script_validation(*psnr_scores(50.0), {"PSNR": 10.0, "perceptual_loss": 9.0})
    run(tiny_config(validation_interval=100), tmp_path, max_steps=1)
    assert {"PSNR_x4_best_model", "ESRGAN_x4_best_model"} <= load_run_files(tmp_path).keys()


@pytest.mark.slow
def test_a_model_with_nan_scores_is_never_the_best(
    tiny_config: Make, script_validation: Callable[..., None], tmp_path: Path
) -> None:
    script_validation(*({"PSNR": 10.0, "perceptual_loss": value} for value in (1.0, math.nan, 2.0)))
    run(tiny_config(), tmp_path, stage="training", store_model_interval=1)
    assert best_epoch(tmp_path) == 1


@pytest.mark.parametrize("change", ["validation images", "perceptual loss", "criterion", "nothing"])
@pytest.mark.slow
def test_the_best_model_is_judged_anew_by_another_judge(
    tiny_config: Make,
    script_validation: Callable[..., None],
    write_images: Callable[..., Path],
    tmp_path: Path,
    no_vgg_weights: Path,
    capsys: pytest.CaptureFixture[str],
    change: str,
) -> None:
    script_validation({"PSNR": 50.0, "perceptual_loss": 0.1}, {"PSNR": 50.0, "perceptual_loss": 0.1})
    with after_step("training", 3, press_ctrl_c):
        assert run(tiny_config(), tmp_path / "out", stage="training") is False
    assert "best so far" in capsys.readouterr().out
    config = tiny_config()
    if change == "validation images":
        config["training"]["val_datasets"] = [str(write_images(tmp_path / "others", 1, (90, 80)))]
    elif change == "perceptual loss":
        config["perceptual_loss"]["layer_weights"] = {"conv2_1": 30.0}
    elif change == "criterion":
        config["perceptual_loss"] = {"optional": True}
    script_validation(*({"PSNR": 20.0, "perceptual_loss": 3.0} for _ in range(2)))
    assert run(config, tmp_path / "out", stage="training", resume=True, max_steps=4) is True
    out = capsys.readouterr().out
    is_anew = change != "nothing"
    assert (f"training: the {change} changed, so the next validation starts a new search" in out) == is_anew
    assert ("training 4: validation PSNR 20.000 dB" in out) is True
    assert ("best so far" in out) == (is_anew and change != "criterion")  # the newest is always the best then


def test_the_same_images_elsewhere_are_the_same_judge(write_images: Callable[..., Path], tmp_path: Path) -> None:
    def judge(name: str, *numbers: int) -> dict[str, str]:
        folder = tmp_path / name
        write_images(folder, 3, (40, 36))
        for number in {0, 1, 2} - {*numbers}:
            (folder / f"{number}.png").unlink()
        pairs = find_pairs([str(folder)], "val", 4, tmp_path)
        cached = cache_pairs(pairs, scale=4, channels=3, min_size=(4, 4), cache_dir=tmp_path / "cache")
        return validation.make_judge("pretraining", cached, None)

    assert judge("one", 0, 1) == judge("other", 0, 1)
    assert judge("one", 0, 1) != judge("third", 0, 2)


@pytest.mark.slow
def test_a_perfect_image_does_not_decide_which_model_is_best(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = [(10.0, 10.0), (1.0, 1.0)]  # bicubic and the starting weights
    scores = iter([*start, (math.inf, 20.0), (90.0, 30.0), (math.inf, 25.0)])
    current: list[float] = []

    def measure(*_: object, **__: object) -> dict[str, float]:
        current.extend([] if current else next(scores))
        psnr = current.pop(0)
        return {"psnr_y": psnr, "psnr_rgb": psnr, "ssim_y": 0.5, "ssim_rgb": 0.5}

    monkeypatch.setattr("esrgan.metrics.measure", measure)
    run(tiny_config(), tmp_path, stage="pretraining", store_model_interval=1)
    assert best_epoch(tmp_path) == 2
    records = records_by_step(tmp_path, "validation", "pretraining")
    assert [record["PSNR"] for record in records.values()] == [1.0, 20.0, 60.0, 25.0]
    assert [record["perfect_images"] for record in records.values()] == [0, 1, 0, 1]
    assert "validation PSNR 20.000 dB (Y), 20.000 dB (RGB) (1 perfect image left out)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_without_validation_images_keeps_its_models(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(pretraining={"val_datasets": []}, training={"val_datasets": []})
    assert run(config, tmp_path, max_steps=2, dry_run=True) is True
    assert run(config, tmp_path, max_steps=2) is True
    assert load_run_files(tmp_path).keys() == {
        f"{kind}_x4{suffix}" for kind in ("PSNR", "ESRGAN") for suffix in ("", "_checkpoint")
    }


@pytest.mark.slow
def test_the_best_score_survives_a_part_without_validation(
    tiny_config: Make, script_validation: Callable[..., None], tmp_path: Path
) -> None:
    options = {"stage": "pretraining", "run_name": "mine"}
    script_validation(*psnr_scores(50.0))
    run(tiny_config(), tmp_path, max_steps=2, **options)
    run(tiny_config(pretraining={"val_datasets": []}), tmp_path, max_steps=4, resume=True, **options)
    script_validation(*psnr_scores(20.0))
    run(tiny_config(), tmp_path, resume=True, **options)
    assert load_run_files(tmp_path)["PSNR_x4_checkpoint"]["checkpoint"]["best"]["score"] == 50.0


def test_running_out_of_memory_in_validation_names_the_image(
    tiny_config: Make, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(metrics, "measure", exhaust)
    text = (
        f"{photos}/val/0.png: cpu has too little memory to validate an image of 36×32 px; crop the validation images "
    )
    with pytest.raises(TrainingError, match=re.escape(text) + ".*--resume auto continues from the last checkpoint$"):
        run(tiny_config(), tmp_path, stage="pretraining")
    with pytest.raises(TrainingError, match=re.escape(text)):
        run(tiny_config(), tmp_path, stage="pretraining", dry_run=True)
