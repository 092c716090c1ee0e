"""The run log: JSON-lines file, means and rates, TensorBoard, Weights & Biases, and the lock."""

from __future__ import annotations

import builtins
import json
import math
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from esrgan import images
from esrgan.config import Config
from esrgan.config.schema import Logging
from esrgan.console import show_messages
from esrgan.errors import EsrganError, ImageError
from esrgan.locks import lock
from esrgan.training import TrainOptions, train
from esrgan.training.log import RunLog, check_loggers
from esrgan.training.meter import Meter
from esrgan.training.run_files import STAGE_LABELS, STAGES
from esrgan.weights import load_file
from tests.helpers.runs import FORKSERVER, TIMING_KEYS, records_by_step, run

pytestmark = pytest.mark.usefixtures("foreground_signals")

Make = Callable[..., dict[str, Any]]


# Means and rates


def statistics(meter: Meter) -> dict[str, float]:
    result = meter.statistics()
    assert result.pop("skipped_steps") == 0
    return result


def test_meter_reports_means_and_rates_of_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    meter = Meter(batch_size=16)
    for value, data_wait_s in ((1.0, 0.5), (2.0, 0.25), (6.0, 0.25)):
        meter.data_wait_s += data_wait_s
        meter.add({"content_loss": torch.tensor(value), "g_total_loss": torch.tensor(-value)})
    now[0] += 4.0
    assert statistics(meter) == {"content_loss": 3.0, "g_total_loss": -3.0}
    assert meter.rates() == {"steps_per_s": 0.75, "images_per_s": 12.0, "data_wait_share": 0.25}
    meter.reset()
    meter.add({"content_loss": torch.tensor(5.0)})
    now[0] += 0.5
    assert statistics(meter) == {"content_loss": 5.0}
    assert meter.rates() == {"steps_per_s": 2.0, "images_per_s": 32.0, "data_wait_share": 0.0}


def test_meter_sums_low_precision_in_float32() -> None:
    meter = Meter(batch_size=1)
    for _ in range(1000):  # a sum in bfloat16 would stop at 256
        meter.add({"loss": torch.tensor(1.0, dtype=torch.bfloat16)})
    assert statistics(meter) == {"loss": 1.0}


def test_meter_restarts_when_the_losses_change():
    stopped, resumed = Meter(batch_size=1), Meter(batch_size=1)
    stopped.add({"content_loss": torch.tensor(1.0)})
    resumed.load_state_dict(stopped.state_dict())
    resumed.add({"content_loss": torch.tensor(3.0), "perceptual_loss": torch.tensor(5.0)})
    assert resumed.statistics() == {"content_loss": 3.0, "perceptual_loss": 5.0, "skipped_steps": 0}


# The JSON-lines file


def open_log(folder: Path, **options: Any) -> RunLog:
    names = [name for name in ("tensorboard", "wandb", "wandb_project") if name in options]
    settings = Logging(**{"tensorboard": False} | {name: options.pop(name) for name in names})
    return RunLog(folder, **{"run": "r", "hparams": {}, "settings": settings} | options)


def read_lines(folder: Path) -> list[dict[str, Any]]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (folder / "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_a_record_has_its_context_and_is_flushed_immediately(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    before = time.time()
    log.add_scalars("train", "pretraining", 100, {"content_loss": 0.25, "PSNR": math.inf, "SSIM": math.nan})
    (record,) = read_lines(tmp_path)
    assert before - 0.01 <= record.pop("time") <= time.time() + 0.01
    assert record == {
        "split": "train",
        "stage": "pretraining",
        "step": 100,
        "content_loss": 0.25,
        "PSNR": "inf",  # JSON cannot represent infinity
        "SSIM": "nan",
    }
    log.close()


def test_only_the_newest_image_of_a_stage_is_kept(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for shade in (10, 20):
        log.add_image("training", shade, np.full((4, 6, 3), shade, np.uint8))
    log.close()
    assert np.array(Image.open(tmp_path / "training.png")).shape == (4, 6, 3)
    assert np.all(np.array(Image.open(tmp_path / "training.png")) == 20)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [".lock", "log.jsonl", "training.png"]


@pytest.mark.parametrize(
    ("stage", "step", "kept"),
    [
        ("pretraining", 0, []),
        ("pretraining", 2, [("pretraining", 1), ("pretraining", 2), ("pretraining", 2)]),
        ("pretraining", 4, [("pretraining", 1), ("pretraining", 2), ("pretraining", 2), ("pretraining", 4)]),
        (
            "training",
            1,
            [("pretraining", 1), ("pretraining", 2), ("pretraining", 2), ("pretraining", 4), ("training", 1)],
        ),
    ],
)
def test_a_resumed_log_drops_records_after_its_checkpoint(
    tmp_path: Path, stage: str, step: int, kept: list[tuple[str, int]]
) -> None:
    log = open_log(tmp_path)
    for split, *where in (("train", "pretraining", 1), ("train", "pretraining", 2), ("validation", "pretraining", 2)):
        log.add_scalars(split, where[0], where[1], {"content_loss": 1.0})
    log.add_scalars("train", "pretraining", 4, {"content_loss": 1.0})
    for done in (1, 2):
        log.add_scalars("train", "training", done, {"content_loss": 1.0})
    log.close()
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write('null\n{"time": 1.0}\n\udcff\n{"time": 1.0, "split": "tra')  # damaged, and cut off by a kill
    log = open_log(tmp_path, stages=STAGES[STAGES.index(stage) :], resumed_from=(step, True))
    log.add_scalars("train", stage, 1000, {})
    log.close()
    assert [(record["stage"], record["step"]) for record in read_lines(tmp_path)] == [*kept, (stage, 1000)]
    assert [path.name for path in sorted(tmp_path.iterdir())] == [".lock", "log.jsonl"]


def test_a_resumed_log_drops_a_validation_to_be_repeated(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for split in ("train", "validation"):
        for step in (2, 4):
            log.add_scalars(split, "pretraining", step, {})
    log.close()
    open_log(tmp_path, resumed_from=(4, False)).close()
    kept = [(record["split"], record["step"]) for record in read_lines(tmp_path)]
    assert kept == [("train", 2), ("train", 4), ("validation", 2)]


def test_the_log_of_a_stage_that_the_run_omits_is_kept(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for stage in STAGES:
        for step in (1, 2):
            log.add_scalars("train", stage, step, {})
    log.close()
    open_log(tmp_path, stages=["pretraining"], resumed_from=(1, True)).close()
    kept = [(record["stage"], record["step"]) for record in read_lines(tmp_path)]
    assert kept == [("pretraining", 1), ("training", 1), ("training", 2)]


def test_a_resumed_log_may_be_missing(tmp_path: Path) -> None:
    log = open_log(tmp_path / "new", stages=("training",), resumed_from=(7, True))
    log.close()
    assert read_lines(tmp_path / "new") == []


def test_a_panel_that_cannot_be_replaced_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On Windows a program that shows the previous one may keep it open."""

    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise ImageError(f"{path}: cannot be written")

    monkeypatch.setattr(images, "write_pixels", refuse)
    log = open_log(tmp_path)
    with show_messages():
        log.add_image("training", 1, np.zeros((4, 6, 3), np.uint8))
    log.close()
    assert capsys.readouterr().err == f"warning: {tmp_path / 'training.png'}: cannot be written; training continues\n"


def test_an_unwritable_log_is_an_error_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EsrganError, match=f"{tmp_path}/file: expected a folder, got a file; choose another folder"):
        open_log(tmp_path / "file" / "logs")


@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_folder_that_is_moved_during_the_run_is_named(tmp_path: Path, tensorboard: bool) -> None:
    hook = threading.excepthook
    log = open_log(tmp_path / "out" / "logs" / "mine", tensorboard=tensorboard)
    log.add_scalars("train", "pretraining", 1, {"content_loss": 1.0})
    (tmp_path / "out").rename(tmp_path / "moved")
    panel = np.zeros((8, 8, 3), np.uint8)
    for write in (
        lambda: log.add_scalars("train", "pretraining", 2, {"content_loss": 1.0}),
        lambda: log.add_image("pretraining", 2, panel),
    ):
        with pytest.raises(EsrganError) as caught:
            write()
        what = f"the folder {tmp_path}/out was moved or removed; move it back if it still exists"
        assert str(caught.value) == f"{tmp_path}/out/logs/mine: {what}"
    log.close()
    assert threading.excepthook is hook
    assert not (tmp_path / "out").exists()
    assert len((tmp_path / "moved/logs/mine/log.jsonl").read_text().splitlines()) == 1


def test_a_write_error_of_tensorboard_is_one_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = open_log(tmp_path / "mine", tensorboard=True)
    log.add_scalars("train", "pretraining", 1, {"content_loss": 1.0})
    shutil.rmtree(tmp_path / "mine" / "tensorboard")
    with pytest.raises(EsrganError, match="mine: cannot be written: No such file or directory; check the folder and"):
        log.add_image("pretraining", 2, np.zeros((8, 8, 3), np.uint8))
    log.close()
    assert "Traceback" not in capfd.readouterr().err


# Weights & Biases


@pytest.fixture
def private_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep wandb's folders in a temporary one, and fail on any prompt."""
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)

    def ask(*_: object) -> str:
        raise AssertionError("asked the user")

    monkeypatch.setattr(builtins, "input", ask)


@pytest.mark.usefixtures("private_wandb")
@pytest.mark.slow
def test_wandb_offline_writes_its_files_without_asking(tmp_path: Path) -> None:
    import wandb

    folder = tmp_path / "logs"
    log = open_log(folder, run="20261121-120000", wandb="offline", wandb_project="mine", hparams={"batch_size": 17})
    log.add_scalars("train", "training", 3, {"g_total_loss": 0.5})
    log.add_scalars("validation", "training", 3, {"PSNR": 20.0})
    log.add_scalars("bicubic", "training", 3, {"PSNR": 19.0})
    log.add_image("training", 3, np.zeros((4, 4, 3), np.uint8))
    log.close()
    wandb.teardown()  # stops wandb's service, which flushes the file
    (path,) = folder.glob("wandb/offline-run-*-20261121-120000*/*.wandb")
    written = path.read_bytes()
    tags = ("train/GAN-based/g_total_loss", "validation/GAN-based/PSNR", "validation/GAN-based/LR_bicubic_SR_HR")
    for text in (*tags, "validation/GAN-based/bicubic_PSNR", "training_step", "batch_size", "mine"):
        assert text.encode() in written, text


@pytest.mark.usefixtures("private_wandb")
@pytest.mark.slow
def test_checking_wandb_offline_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setattr(wandb, "setup", lambda: pytest.fail("its process writes files, also in a dry run"))
    assert check_loggers(Logging(tensorboard=False, wandb="offline")).wandb == "offline"


@pytest.mark.usefixtures("private_wandb")
@pytest.mark.slow
def test_a_project_that_wandb_refuses_is_an_error_before_anything_is_written(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    config = Config.model_validate(tiny_config(logging={"wandb": "offline", "wandb_project": "my/proj"}))
    with pytest.raises(EsrganError) as caught:
        train(config, TrainOptions(out_dir=tmp_path / "out", run_name="first", device="cpu"))
    assert str(caught.value).startswith("logging.wandb_project: ")
    assert str(caught.value).endswith("; choose another name")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("private_wandb")
@pytest.mark.slow
def test_wandb_accepts_a_run_of_any_name(tmp_path: Path) -> None:
    import wandb

    open_log(tmp_path / "logs", run=" lr=1e-4:seed#1,'?;%", wandb="offline").close()
    wandb.teardown()
    assert list((tmp_path / "logs").glob("wandb/offline-run-*-lr=1e-4-seed-1-----*"))


@pytest.mark.usefixtures("private_wandb")
@pytest.mark.slow
def test_wandb_online_without_a_login_is_an_error(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    login_calls = []

    def login(**options: Any) -> bool:
        login_calls.append(options)
        return False

    monkeypatch.setattr(wandb, "login", login)
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("wandb was started without a login"))
    config = Config.model_validate(tiny_config(logging={"wandb": "online"}))
    with pytest.raises(EsrganError) as caught:
        train(config, TrainOptions(out_dir=tmp_path / "out", device="cpu"))
    assert str(caught.value) == (
        "wandb: not logged in; run `wandb login` once, or set logging.wandb to offline or disabled"
    )
    assert login_calls[0]["prompt"] is False
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("private_wandb")
@pytest.mark.slow
def test_wandb_without_a_network_logs_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("WANDB_BASE_URL", url)  # where nothing listens any more
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    wandb.teardown()  # an earlier test has set wandb up with another server
    with show_messages():
        settings = check_loggers(Logging(tensorboard=False, wandb="online"))
    assert settings.wandb == "offline"
    err = capsys.readouterr().err
    assert f"warning: wandb: {url} cannot be reached (" in err
    assert "the run is logged offline and can be uploaded with `wandb sync`" in err
    log = RunLog(tmp_path / "logs", run="r", hparams={}, settings=settings)
    log.close()
    wandb.teardown()
    assert list((tmp_path / "logs").glob("wandb/offline-run-*"))


# TensorBoard


def test_broken_tensorboard_is_named_before_the_first_step(
    tiny_config: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = tiny_config(logging={"tensorboard": True})
    for dry_run in (True, False):
        assert run(config, tmp_path, stage="pretraining", max_steps=1, dry_run=dry_run) is True
        assert "warning: TensorBoard cannot be imported (" in capsys.readouterr().err
    assert not list(tmp_path.rglob("tensorboard"))


@pytest.mark.slow
def test_tensorboard_receives_the_logged_values(reference_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    speed = {f"speed/{name}": name for name in TIMING_KEYS[1:]} | {"gradient/skipped_steps": "skipped_steps"}
    pretraining = {"loss/content": "content_loss", "learning_rate/g": "learning_rate"}
    pretraining |= {"gradient/g_norm": "gradient_norm", "gradient/g_norm_peak": "gradient_norm_peak"}
    losses = ("content", "perceptual", "g_adversarial", "g_total", "d_adversarial")
    training = {f"loss/{name}": f"{name}_loss" for name in losses}
    training |= {f"discriminator/{name}": name for name in ("real_logits", "fake_logits")}
    for network in ("g", "d"):
        training |= {f"learning_rate/{network}": f"{network}_learning_rate"}
        training |= {f"gradient/{network}_{name}": f"{network}_gradient_{name}" for name in ("norm", "norm_peak")}
    scores = ("content_loss", "perceptual_loss", "PSNR", "SSIM", "PSNR_RGB", "SSIM_RGB")
    scores = {f"validation/{name}": name for name in (*scores, "colour_drift", "perfect_images")}
    for stage, tags in (("pretraining", pretraining | speed), ("training", training | speed)):
        for folder, parts in (
            (stage, {"train": tags, "validation": scores}),
            (f"{stage}_bicubic", {"bicubic": scores}),
        ):
            (path,) = reference_run.glob(f"logs/*/tensorboard/{folder}")
            events = EventAccumulator(str(path)).Reload()
            assert set(events.Tags()["scalars"]) == set().union(*parts.values())
            for split, names in parts.items():
                records = records_by_step(reference_run, split, stage)
                for tag, name in names.items():
                    if name not in TIMING_KEYS:
                        values = {event.step: event.value for event in events.Scalars(tag)}
                        written = {step: record[name] for step, record in records.items()}
                        assert values == pytest.approx(written, rel=1e-6), tag


@pytest.mark.slow
def test_tensorboard_has_the_panels_and_the_configuration(reference_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for stage in ("pretraining", "training"):
        (folder,) = reference_run.glob(f"logs/*/tensorboard/{stage}")
        events = EventAccumulator(str(folder)).Reload()
        assert events.Tags()["images"] == ["validation/LR_bicubic_SR_HR"]
        assert [event.step for event in events.Images("validation/LR_bicubic_SR_HR")] == [0, 2, 4, 6]
        (text,) = events.Tensors("configuration/text_summary")
        (checkpoint,) = reference_run.glob(f"*_{STAGE_LABELS[stage]}_x4_checkpoint.pth")
        shown = text.tensor_proto.string_val[0].decode()
        assert json.loads(shown.removeprefix("```json\n").removesuffix("\n```")) == load_file(checkpoint)["hparams"]


# Several processes


def hold_lock(path: Path, pipe: Connection) -> None:
    with lock(path, "held"):
        pipe.send("held")
        pipe.recv()


@pytest.mark.skipif(sys.platform == "win32", reason="uses file locks of Unix")
@pytest.mark.slow
def test_two_processes_cannot_train_the_same_run(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "pretraining", "run_name": "mine", "max_steps": 1}
    run(tiny_config(), tmp_path, **options)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ours, theirs = FORKSERVER.Pipe()
    other = FORKSERVER.Process(target=hold_lock, args=(tmp_path / "logs/mine/.lock", theirs))
    other.start()
    try:
        assert ours.recv() == "held"
        with pytest.raises(EsrganError, match="logs/mine: another process is training mine; wait for it to finish"):
            run(tiny_config(), tmp_path, resume=True, **options)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    finally:
        other.kill()
        other.join()
    assert run(tiny_config(), tmp_path, resume=True, **options) is True
