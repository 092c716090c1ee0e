"""Whole training runs: the files and log records they write, and dry runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from esrgan.config import Config
from esrgan.data import PatchDataset, cache_pairs, find_pairs, load_batches
from esrgan.devices import benchmark_convolutions
from esrgan.errors import EsrganError
from esrgan.models import winograd
from esrgan.training import dry_run as dry_run_module
from esrgan.training import loop, report
from esrgan.training.setup import make_networks
from esrgan.training.stages import PixelStage
from esrgan.weights import load_generator
from tests.helpers.runs import (
    STAGES,
    TIMING_KEYS,
    comparable_content,
    find_differences,
    load_run_files,
    read_records,
    records_by_step,
    run,
)
from tests.helpers.stages import adam

pytestmark = pytest.mark.usefixtures("foreground_signals")

CPU = torch.device("cpu")
Make = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_a_run_writes_the_expected_files(reference_run: Path) -> None:
    names = {path.name for path in reference_run.glob("*.pth")}
    runs = {name.partition("_RRDB_")[0] for name in names}
    (name,) = runs
    assert re.fullmatch(r"\d{8}-\d{6}", name)
    suffixes = ("", "_best_model", "_checkpoint", "_e1", "_e2", "_e3")
    assert names == {f"{name}_RRDB_{kind}_x4{suffix}.pth" for kind in ("PSNR", "ESRGAN") for suffix in suffixes}
    assert {path.name for path in reference_run.iterdir()} == names | {"logs"}
    logs = {path.name for path in (reference_run / "logs" / name).iterdir()}
    assert logs == {".lock", "log.jsonl", "pretraining.png", "training.png", "tensorboard"}


@pytest.mark.parametrize(("kind", "stage"), [("PSNR", "pretraining"), ("ESRGAN", "training")])
@pytest.mark.slow
def test_model_files_contain_the_average_and_the_configuration(
    reference_run: Path, tiny_config: Make, kind: str, stage: str
) -> None:
    files = load_run_files(reference_run)
    model, checkpoint = files[f"{kind}_x4"], files[f"{kind}_x4_checkpoint"]
    assert model.keys() == {"params", "stage", "hparams"}
    assert model["stage"] == checkpoint["stage"] == stage
    expected = Config.model_validate(tiny_config(logging={"tensorboard": True})).to_dict()
    assert model["hparams"] == checkpoint["hparams"] == expected
    assert not find_differences(model["params"], checkpoint["params_ema"])
    assert find_differences(checkpoint["params"], checkpoint["params_ema"])  # training continues with the raw weights
    assert not find_differences(model, files[f"{kind}_x4_e3"])
    assert find_differences(files[f"{kind}_x4_e1"]["params"], files[f"{kind}_x4_e2"]["params"])
    assert checkpoint["checkpoint"]["step"] == 6
    for path in reference_run.glob(f"*_{kind}_*.pth"):
        file = load_generator(path)
        assert (file.stage, file.hparams) == (stage, expected)
        network = file.build()
        assert (network.scale_factor, network.conv_first.out_channels) == (4, 8)
        assert all(value.dtype == torch.float32 for value in file.state.values())


def test_pretraining_matches_a_hand_written_loop(reference_run: Path, tiny_config: Make, photos: Path) -> None:
    config = Config.model_validate(tiny_config())
    generator, _ = make_networks(config, CPU)
    pairs = cache_pairs(
        find_pairs([str(photos / "train")], "train", 4, photos),
        scale=4,
        channels=3,
        min_size=(32, 32),
        cache_dir=photos / "cache",
    )
    patches = PatchDataset(pairs, scale=4, patch_size=(32, 32), seed=config.seed, spatial_transforms="d4")
    optimizer = adam(generator, 1e-3, (0.9, 0.999))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
    average = {name: value.clone() for name, value in generator.state_dict().items()}
    for step, (low, high) in enumerate(load_batches(patches, batch_size=2, first_step=0, last_step=6)):
        loss = F.l1_loss(generator(low.float() / 255), high.float() / 255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        decay = (1 + step) / (10 + step)
        average = {name: decay * average[name] + (1 - decay) * value for name, value in generator.state_dict().items()}
        record = records_by_step(reference_run, "train", "pretraining")[step + 1]
        assert record["content_loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert record["learning_rate"] == (1e-3 if step < 4 else 5e-4)
    torch.testing.assert_close(load_run_files(reference_run)["PSNR_x4"]["params"], average, rtol=0, atol=1e-5)


def test_every_step_and_validation_is_logged(reference_run: Path) -> None:
    gan = {"g_adversarial_loss", "g_total_loss", "d_adversarial_loss", "g_learning_rate", "d_learning_rate"}
    gan |= {"perceptual_loss", "real_logits", "fake_logits", "g_gradient_norm", "d_gradient_norm"}
    gan |= {"g_gradient_norm_peak", "d_gradient_norm_peak"}
    for stage, names in (("pretraining", {"learning_rate", "gradient_norm", "gradient_norm_peak"}), ("training", gan)):
        train_records, validation = (
            records_by_step(reference_run, "train", stage),
            records_by_step(reference_run, "validation", stage),
        )
        bicubic = records_by_step(reference_run, "bicubic", stage)
        assert (list(train_records), list(validation)) == ([1, 2, 3, 4, 5, 6], [0, 2, 4, 6])
        assert list(bicubic) == [0, 2, 4, 6]
        where = {"split", "stage", "step"}
        common = where | {"content_loss", "skipped_steps"}
        assert all(record.keys() == common | names for record in train_records.values())
        scores = {"content_loss", "perceptual_loss", "PSNR", "SSIM", "PSNR_RGB", "SSIM_RGB"}
        scores |= {"colour_drift", "perfect_images"}
        for records in (validation, bicubic):
            assert all(record.keys() == where | scores for record in records.values())
    (log,) = reference_run.glob("logs/*/log.jsonl")
    for line in log.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        assert set(TIMING_KEYS) <= record.keys() or (record["split"] != "train" and "time" in record)
    g_rates = [record["g_learning_rate"] for record in records_by_step(reference_run, "train", "training").values()]
    d_rates = [record["d_learning_rate"] for record in records_by_step(reference_run, "train", "training").values()]
    assert g_rates == pytest.approx([1e-3] * 3 + [5e-4] * 2 + [2.5e-4])
    assert d_rates == pytest.approx([2e-3] * 4 + [1e-3] * 2)


def test_a_logged_loss_is_the_mean_since_the_last_record(tiny_config: Make, tmp_path: Path) -> None:
    losses: list[float] = []
    original = PixelStage.step

    def step(self: Any, low: Tensor, high: Tensor, current: int, *target: Tensor) -> dict[str, Tensor]:
        result = original(self, low, high, current, *target)
        losses.append(result["content_loss"].item())
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PixelStage, "step", step)
        # A validation between two records must not affect the second one.
        run(tiny_config(validation_interval=3, logging={"interval": 4}), tmp_path, stage="pretraining")
    lines = records_by_step(tmp_path, "train", "pretraining")
    assert {step: record["content_loss"] for step, record in lines.items()} == {
        4: pytest.approx(np.mean(losses[:4]), rel=1e-6),
        6: pytest.approx(np.mean(losses[4:]), rel=1e-6),
    }


@pytest.mark.slow
def test_stages_in_separate_runs_match_a_single_run(
    reference_run: Path, tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(99)  # only the configuration's seed matters
    np.random.seed(99)  # noqa: NPY002
    assert run(tiny_config(), tmp_path / "first", stage="pretraining") is True
    first = load_run_files(tmp_path / "first")
    assert first.keys() == {"PSNR_x4", "PSNR_x4_best_model", "PSNR_x4_checkpoint"}
    (model,) = (tmp_path / "first").glob("*_RRDB_PSNR_x4.pth")
    assert run(tiny_config(), tmp_path / "second", load_checkpoint=model) is True
    assert f"{model}: RRDBNet ×4 8/4/1, PSNR stage; the GAN stage starts from it\n" in capsys.readouterr().out
    second, reference = load_run_files(tmp_path / "second"), load_run_files(reference_run)
    assert second.keys() == {"ESRGAN_x4", "ESRGAN_x4_best_model", "ESRGAN_x4_checkpoint"}
    for files in (second, reference):  # in a single run, this checkpoint also has the best score of the first stage
        files["ESRGAN_x4_checkpoint"]["checkpoint"].pop("best")
    for name, content in (first | second).items():
        assert not find_differences(comparable_content(content), comparable_content(reference[name])), name
    assert read_records(tmp_path / "first") + read_records(tmp_path / "second") == read_records(reference_run)


@pytest.mark.slow
def test_both_stages_end_after_max_steps(tiny_config: Make, tmp_path: Path) -> None:
    assert run(tiny_config(), tmp_path, max_steps=3) is True
    assert {
        name: content["checkpoint"]["step"]
        for name, content in load_run_files(tmp_path).items()
        if "checkpoint" in name
    } == {
        "PSNR_x4_checkpoint": 3,
        "ESRGAN_x4_checkpoint": 3,
    }
    for stage in STAGES:  # the last step is always logged and validated
        assert list(records_by_step(tmp_path, "train", stage)) == [1, 2, 3]
        assert list(records_by_step(tmp_path, "validation", stage)) == [0, 2, 3]


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(4, 2, 2), (5, 2, 2), (3, 4, 1)])
@pytest.mark.slow
def test_steps_per_epoch_follow_the_number_of_images(
    tiny_config: Make, write_images: Callable[..., Path], tmp_path: Path, count: int, batch_size: int, steps: int
) -> None:
    folder = write_images(tmp_path / "images", count)
    stage = {"num_steps": None, "num_epoch": 3, "train_datasets": [str(folder)]}
    run(
        tiny_config(batch_size=batch_size, pretraining=stage, cache_dir=str(tmp_path / "cache")),
        tmp_path,
        stage="pretraining",
    )
    assert max(records_by_step(tmp_path, "train", "pretraining")) == 3 * steps


def test_a_dry_run_tries_both_stages_and_writes_nothing(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny_config(cache_dir=str(tmp_path / "cache"), logging={"tensorboard": True, "wandb": "offline"})
    assert run(config, tmp_path / "out", dry_run=True) is True
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert all(path.parent == tmp_path / "cache" for path in written)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    out = capsys.readouterr().out
    first, pretraining, training, downloads, *rest = out.splitlines()
    assert re.fullmatch(r"dry run: the run takes about \d+:\d\d and [\d.]+ [MG]B of memory", first)
    time = (
        r"about \d+:\d\d for the whole stage \(\d+\.\d\d s per step, \d+:\d\d per validation\), [\d.]+ [MG]B of memory"
    )
    assert re.fullmatch(rf"pretraining: {time}; content_loss \d+\.\d+", pretraining)
    assert re.fullmatch(rf"training: {time}; .* g_total_loss .*d_adversarial_loss .*perceptual_loss .*", training)
    assert downloads == "dry run: the run downloads nothing"
    assert rest[0] == "starting pretraining"
    plan = "steps 6 (2 per epoch), batch size 2, log lines every step, validations every 2 steps\n"
    assert f"training images 4, validation images 2, {plan}" in out
    assert "14,083 parameters" in out
    assert "dry run: everything is in place" in out


def test_a_dry_run_tries_the_largest_images(
    tiny_config: Make, write_images: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped: list[tuple[int, ...]] = []
    validated: list[tuple[int, ...]] = []

    def step(self: Any, low: Tensor, high: Tensor, current: int, target: Tensor) -> dict[str, Tensor]:
        stepped.append(tuple(high.shape[2:]))
        return original(self, low, high, current, target)

    original = PixelStage.step
    monkeypatch.setattr(PixelStage, "step", step)
    monkeypatch.setattr(
        dry_run_module, "validate", lambda _, pairs, __: validated.extend(pair.shape[:2] for pair in pairs)
    )
    folder = write_images(tmp_path / "images", 4, (32, 36))
    shutil.move(write_images(folder / "large", 1, (44, 40)) / "0.png", folder / "2.png")
    stage = {"cr_patch_size": None, "train_datasets": [str(folder)], "val_datasets": [str(folder)]}
    config = tiny_config(batch_size=1, cache_dir=str(tmp_path / "cache"), pretraining=stage)
    assert run(config, tmp_path / "out", dry_run=True, stage="pretraining") is True
    assert stepped[0] == (40, 44)
    assert validated == [(40, 44)]


def test_a_dry_run_counts_memory_that_is_free_again() -> None:
    before = dry_run_module._memory(CPU)
    used = np.ones(before + 100_000_000, np.uint8)
    del used
    assert dry_run_module._memory(CPU) > before + 50_000_000


def test_a_dry_run_is_refused_where_the_run_could_not_write(tiny_config: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "logs").write_text("in the way")
    for out_dir, place in (
        (tmp_path / "file", "file"),
        (tmp_path / "file/out", "file"),
        (tmp_path / "out", "out/logs"),
    ):
        with pytest.raises(EsrganError, match=f"{tmp_path / place}: expected a folder, got a file"):
            run(tiny_config(), out_dir, dry_run=True, stage="pretraining")
    assert {path.name for path in tmp_path.rglob("*")} == {"file", "out", "logs"}


def test_a_dry_run_does_not_change_an_existing_run(reference_run: Path, tiny_config: Make, tmp_path: Path) -> None:
    shutil.copytree(reference_run, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert run(tiny_config(logging={"tensorboard": True}), tmp_path / "out", resume=True, dry_run=True) is True
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("winograd_on_every_cpu")
@pytest.mark.parametrize("dry_run", [False, True])
def test_fast_convolutions_are_used_in_steps_but_not_in_validation(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    """Images are large and have many sizes, for each of which a GPU would try all algorithms."""
    seen: dict[str, set[tuple[bool, bool]]] = {"step": set(), "validate": set()}

    def note(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def noted(*arguments: Any) -> Any:
            seen[name].add((torch.backends.cudnn.benchmark, winograd.is_suitable(torch.zeros(1, 3, 32, 32), 64)))
            return original(*arguments)

        monkeypatch.setattr(owner, name, noted)

    monkeypatch.setattr(loop, "benchmark_convolutions", lambda _: benchmark_convolutions(torch.device("cuda")))
    monkeypatch.setattr(dry_run_module, "benchmark_convolutions", loop.benchmark_convolutions)
    note(PixelStage, "step")
    note(loop, "validate")
    note(dry_run_module, "validate")
    note(report, "validate")
    run(tiny_config(), tmp_path, stage="pretraining", dry_run=dry_run)
    assert seen == {"step": {(True, True)}, "validate": {(False, False)}}
