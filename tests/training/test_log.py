"""What a run tells: lines for people, the JSON-lines file, means and rates, Weights & Biases."""

from __future__ import annotations

import builtins
import io
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from esrgan.config import Config
from esrgan.console import Console, duration
from esrgan.errors import EsrganError
from esrgan.training import TrainOptions, train
from esrgan.training.log import Meter, RunLog

CLEAR = "\r\x1b[2K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# The console


def test_a_pipe_gets_the_lines_to_keep_and_no_others() -> None:
    stream = io.StringIO()
    console = Console(stream)
    console.live("reading 1 of 2", keep=False)
    console.live("step 1", keep=True)
    console.line("done")
    console.end()
    assert stream.getvalue() == "step 1\ndone\n"


def test_a_terminal_gets_one_line_rewritten_and_cut_to_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    stream = Terminal()
    console = Console(stream)
    console.live("reading 1 of 2", keep=False)
    console.live("step 1", keep=True)
    assert stream.getvalue() == f"{CLEAR}reading 1 o{CLEAR}step 1"
    console.line("a line that stays, however long")
    assert stream.getvalue().endswith(f"step 1{CLEAR}a line that stays, however long\n")
    console.line("the next")
    console.end()
    assert stream.getvalue().endswith("however long\nthe next\n")


def test_an_unfinished_live_line_is_wiped_at_the_end() -> None:
    stream = Terminal()
    console = Console(stream)
    console.live("step 1", keep=True)
    console.end()
    console.end()
    assert stream.getvalue() == f"{CLEAR}step 1{CLEAR}"


def test_progress_comes_twice_a_second_on_a_terminal_and_each_minute_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    terminal, pipe = Console(Terminal()), Console(io.StringIO())
    assert (terminal.is_stale(), pipe.is_stale()) == (True, False)
    for console in (terminal, pipe):
        console.live("step 1", keep=True)
    assert (terminal.is_stale(), pipe.is_stale()) == (False, False)
    now[0] += 0.6
    assert (terminal.is_stale(), pipe.is_stale()) == (True, False)
    now[0] += 60
    assert (terminal.is_stale(), pipe.is_stale()) == (True, True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (0.6, "0:01"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.7, "1:00:00"),
        (4 * 3600 + 5 * 60 + 6, "4:05:06"),
        (26 * 3600, "26:00:00"),
        (48 * 3600, "2 d 00:00"),
        (3 * 86400 + 4 * 3600 + 5 * 60 + 59, "3 d 04:05"),
    ],
)
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# Means and rates


def figures(meter: Meter) -> dict[str, float]:
    result = meter.figures()
    assert result.pop("skipped_steps") == 0
    return result


def test_a_meter_gives_means_and_rates_of_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    meter = Meter(batch_size=16)
    for value, waited_s in ((1.0, 0.5), (2.0, 0.25), (6.0, 0.25)):
        meter.add({"content_loss": torch.tensor(value), "g_total_loss": torch.tensor(-value)}, waited_s)
    now[0] += 4.0
    assert figures(meter) == {"content_loss": 3.0, "g_total_loss": -3.0}
    assert meter.rates() == {"steps_per_s": 0.75, "images_per_s": 12.0, "data_wait_share": 0.25}
    meter.reset()
    meter.add({"content_loss": torch.tensor(5.0)}, 0.0)
    now[0] += 0.5
    assert figures(meter) == {"content_loss": 5.0}
    assert meter.rates() == {"steps_per_s": 2.0, "images_per_s": 32.0, "data_wait_share": 0.0}


def test_a_meter_sums_low_precision_in_float32() -> None:
    meter = Meter(batch_size=1)
    for _ in range(1000):  # bfloat16 would stop at 256
        meter.add({"loss": torch.tensor(1.0, dtype=torch.bfloat16)}, 0.0)
    assert figures(meter) == {"loss": 1.0}


def test_an_interval_that_goes_on_with_other_losses_begins_anew():
    stopped, resumed = Meter(batch_size=1), Meter(batch_size=1)
    stopped.add({"content_loss": torch.tensor(1.0)}, 0.0)
    resumed.load_state_dict(stopped.state_dict())
    resumed.add({"content_loss": torch.tensor(3.0), "perceptual_loss": torch.tensor(5.0)}, 0.0)
    assert resumed.figures() == {"content_loss": 3.0, "perceptual_loss": 5.0, "skipped_steps": 0}


# The JSON-lines file


def open_log(folder: Path, **options: Any) -> RunLog:
    return RunLog(folder, **{"run": "r", "hparams": {}, "tensorboard": False} | options)


def lines(folder: Path) -> list[dict[str, Any]]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (folder / "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_a_record_says_when_and_where_it_is_from_and_is_on_disk_at_once(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    before = time.time()
    log.scalars("train", "pretraining", "PSNR-driven", 100, {"content_loss": 0.25, "PSNR": math.inf, "SSIM": math.nan})
    (record,) = lines(tmp_path)
    assert before - 0.01 <= record.pop("time") <= time.time() + 0.01
    assert record == {
        "split": "train",
        "stage": "pretraining",
        "step": 100,
        "content_loss": 0.25,
        "PSNR": "inf",  # JSON has no word for it
        "SSIM": "nan",
    }
    log.close()


def test_a_picture_is_the_newest_of_its_stage(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for shade in (10, 20):
        log.picture("training", "GAN-based", shade, np.full((4, 6, 3), shade, np.uint8))
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
def test_a_continued_log_forgets_what_came_after_its_checkpoint(
    tmp_path: Path, stage: str, step: int, kept: list[tuple[str, int]]
) -> None:
    log = open_log(tmp_path)
    for split, *where in (("train", "pretraining", 1), ("train", "pretraining", 2), ("validation", "pretraining", 2)):
        log.scalars(split, where[0], "PSNR-driven", where[1], {"content_loss": 1.0})
    log.scalars("train", "pretraining", "PSNR-driven", 4, {"content_loss": 1.0})
    for done in (1, 2):
        log.scalars("train", "training", "GAN-based", done, {"content_loss": 1.0})
    log.close()
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"time": 1.0, "split": "tra')  # torn by a kill
    log = open_log(tmp_path, continued=(stage, step, True))
    log.scalars("train", stage, "any", 1000, {})
    log.close()
    assert [(record["stage"], record["step"]) for record in lines(tmp_path)] == [*kept, (stage, 1000)]
    assert [path.name for path in sorted(tmp_path.iterdir())] == [".lock", "log.jsonl"]


def test_a_continued_log_forgets_a_validation_that_is_to_be_done_again(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for split in ("train", "validation"):
        for step in (2, 4):
            log.scalars(split, "pretraining", "PSNR-driven", step, {})
    log.close()
    open_log(tmp_path, continued=("pretraining", 4, False)).close()
    kept = [(record["split"], record["step"]) for record in lines(tmp_path)]
    assert kept == [("train", 2), ("train", 4), ("validation", 2)]


def test_a_continued_log_may_have_been_removed(tmp_path: Path) -> None:
    log = open_log(tmp_path / "new", continued=("training", 7, True))
    log.close()
    assert lines(tmp_path / "new") == []


def test_a_log_that_cannot_be_opened_is_an_error_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EsrganError, match="cannot be written: Not a directory; choose another --out-dir"):
        open_log(tmp_path / "file" / "logs")


# Weights & Biases


@pytest.fixture
def private_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep wandb's own folders in a temporary one, and let nothing ask the user."""
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)

    def ask(*_: object) -> str:
        raise AssertionError("asked the user")

    monkeypatch.setattr(builtins, "input", ask)


@pytest.mark.usefixtures("private_wandb")
def test_wandb_offline_writes_its_files_without_asking(tmp_path: Path) -> None:
    import wandb

    folder = tmp_path / "logs"
    log = open_log(folder, run="20261121-120000", wandb="offline", wandb_project="mine", hparams={"batch_size": 17})
    log.scalars("train", "training", "GAN-based", 3, {"g_total_loss": 0.5})
    log.scalars("validation", "training", "GAN-based", 3, {"PSNR": 20.0})
    log.picture("training", "GAN-based", 3, np.zeros((4, 4, 3), np.uint8))
    log.close()
    wandb.teardown()  # ends its service, which flushes the file
    (path,) = folder.glob("wandb/offline-run-*-20261121-120000*/*.wandb")
    written = path.read_bytes()
    tags = ("train/GAN-based/g_total_loss", "validation/GAN-based/PSNR", "validation/GAN-based/LR_bicubic_SR_HR")
    for text in (*tags, "training_step", "batch_size", "mine"):
        assert text.encode() in written, text


@pytest.mark.usefixtures("private_wandb")
def test_wandb_online_without_a_login_is_an_error_before_anything_is_written(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    asked = []

    def login(**options: Any) -> bool:
        asked.append(options)
        return False

    monkeypatch.setattr(wandb, "login", login)
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("it was started all the same"))
    config = Config.model_validate(tiny(logging={"wandb": "online"}))
    with pytest.raises(EsrganError) as caught:
        train(config, TrainOptions(out_dir=tmp_path / "out", device="cpu"))
    assert str(caught.value) == (
        "wandb: not logged in; run `wandb login` once, or set logging.wandb to offline or disabled"
    )
    assert asked[0]["prompt"] is False
    assert not (tmp_path / "out").exists()
