"""Runs that are ended by Ctrl-C, lack of memory or a full disk."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from esrgan import devices
from esrgan.data import PatchDataset, cache_pairs, find_pairs, load_batches
from esrgan.errors import DeviceError, TrainingError
from esrgan.training import interrupt
from tests.helpers.runs import after_step, find_differences, load_run_files, press_ctrl_c, run, train_main

pytestmark = pytest.mark.usefixtures("foreground_signals")

Make = Callable[..., dict[str, Any]]


def test_a_second_interrupt_ends_the_run_at_once(tiny_config: Make, tmp_path: Path) -> None:
    def press_twice() -> None:
        press_ctrl_c()
        press_ctrl_c()

    with after_step("pretraining", 2, press_twice), pytest.raises(KeyboardInterrupt):
        run(tiny_config(), tmp_path)
    assert not list(tmp_path.glob("*.pth"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_gpu_that_fails_ends_the_run_with_how_to_continue(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure\nFor debugging consider")

    explain = interrupt.explain_failures
    monkeypatch.setattr(interrupt, "explain_failures", lambda _: explain(torch.device("cuda:0")))
    monkeypatch.setattr(devices, "_try", lambda _: fail())
    with after_step("pretraining", 2, fail), pytest.raises(TrainingError) as error:
        run(tiny_config(), tmp_path)
    assert str(error.value) == (
        "cuda:0: the GPU failed (CUDA error: unspecified launch failure), and this process cannot use it any more; "
        "the same command with --resume auto continues from the last checkpoint"
    )


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("at", ["to", "requires_grad_"])
def test_memory_that_is_full_at_the_start_is_reported_in_one_line(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, dry_run: bool
) -> None:
    """The networks do not fit, or the moving average, for which a stage copies the generator."""

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")

    monkeypatch.setattr(torch.nn.Module, at, fail)
    with pytest.raises(DeviceError, match=r"^cpu: not enough memory for training; close other programs"):
        run(tiny_config(), tmp_path, dry_run=dry_run)


def test_ctrl_c_ends_a_dry_run(tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with after_step("pretraining", 1, press_ctrl_c):
        assert run(tiny_config(), tmp_path / "out", dry_run=True) is False
    assert "everything is in place" not in capsys.readouterr().out


def test_ctrl_c_does_not_stop_the_loader_workers(photos: Path) -> None:
    pairs = cache_pairs(
        find_pairs([str(photos / "train")], "train", 4, photos),
        scale=4,
        channels=3,
        min_size=(32, 32),
        cache_dir=photos / "cache",
    )
    patches = PatchDataset(pairs, scale=4, patch_size=(32, 32), seed=0)
    loader = load_batches(patches, batch_size=2, first_step=0, last_step=12, num_workers=1)
    next(loader)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGINT)  # a terminal sends it to every process of the command
    assert len(list(loader)) == 11


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
@pytest.mark.slow
def test_other_stop_signals_write_a_checkpoint(tiny_config: Make, tmp_path: Path, number: signal.Signals) -> None:
    before = signal.signal(number, signal.default_int_handler)  # as commands do
    try:
        with after_step("pretraining", 3, lambda: signal.raise_signal(number)):
            assert run(tiny_config(), tmp_path, stage="pretraining") is False
        assert load_run_files(tmp_path)["PSNR_x4_checkpoint"]["checkpoint"]["step"] == 3
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
@pytest.mark.slow
def test_repeated_signals_still_write_a_checkpoint(tiny_config: Make, tmp_path: Path, number: signal.Signals) -> None:
    def send_twice() -> None:
        signal.raise_signal(number)
        signal.raise_signal(number)

    with after_step("pretraining", 3, send_twice):
        assert run(tiny_config(), tmp_path, stage="pretraining") is False
    assert load_run_files(tmp_path)["PSNR_x4_checkpoint"]["checkpoint"]["step"] == 3


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_signals_that_were_ignored_stay_ignored(tiny_config: Make, tmp_path: Path, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)  # as nohup does
    try:
        with after_step("pretraining", 1, lambda: signal.raise_signal(number)):
            assert run(tiny_config(), tmp_path, stage="pretraining", max_steps=2) is True
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limit the size of files, so that writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_running_out_of_memory_keeps_the_last_checkpoint(tiny_config: Make, tmp_path: Path) -> None:
    def exhaust() -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    config = tiny_config()
    with (
        after_step("pretraining", 4, exhaust),
        pytest.raises(
            TrainingError,
            match=r"^cpu: out of memory; in the configuration, set accumulation .* activation_checkpointing, or ",
        ),
    ):
        run(config, tmp_path, stage="pretraining", checkpoint_interval=1)
    assert load_run_files(tmp_path)["PSNR_x4_checkpoint"]["checkpoint"]["step"] == 2
    with after_step("pretraining", 1, exhaust), pytest.raises(TrainingError, match="--dry-run estimates the memory"):
        run(config, tmp_path, stage="pretraining", dry_run=True)


@pytest.mark.parametrize("full", ["checkpoint", "log", "image", "tensorboard"])
@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], full: str
) -> None:
    config = tiny_config(validation_interval=4, logging={"tensorboard": full == "tensorboard"})
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config))
    out_dir = tmp_path / "out"
    arguments = [str(path), "-o", str(out_dir), "--device", "cpu", "--run-name", "mine", "-i", "1"]
    before: dict[str, Any] = {}

    def fill() -> None:
        before.update(load_run_files(out_dir))
        log_size = (out_dir / "logs/mine/log.jsonl").stat().st_size
        limit = {"checkpoint": 20_000, "log": log_size + 10, "image": 4_000, "tensorboard": 100}[full]
        if full == "tensorboard":
            (out_dir / "logs/mine/log.jsonl").write_text("")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    with file_size_limit(resource.RLIM_INFINITY), after_step("pretraining", 3, fill):
        assert train_main([*arguments, "--stage", "pretraining"]) == 1
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "File too large" in line
    assert line.endswith("fix this and run the same command with --resume auto to continue from the last checkpoint")
    assert "Traceback" not in err.partition("error: ")[2]
    assert before["PSNR_x4_checkpoint"]["checkpoint"]["step"] == 2
    assert not find_differences(load_run_files(out_dir), before)
    assert not list(out_dir.glob(".*.tmp"))
    assert train_main([*arguments, "--stage", "pretraining", "--resume", "auto"]) == 0


def test_handlers_of_libraries_in_c_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    get = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGHUP else get(number))
    before = [get(number) for number in interrupt.STOP_SIGNALS]
    with interrupt.interruptible():
        assert get(signal.SIGHUP) is before[interrupt.STOP_SIGNALS.index(signal.SIGHUP)]
        assert get(signal.SIGTERM) not in before
    assert [get(number) for number in interrupt.STOP_SIGNALS] == before


def test_a_program_keeps_its_own_use_of_sigusr1() -> None:
    code = """
import faulthandler, signal
from esrgan.training.interrupt import interruptible
faulthandler.register(signal.SIGUSR1)
with interruptible():
    signal.raise_signal(signal.SIGUSR1)
signal.raise_signal(signal.SIGUSR1)
"""
    ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 0
    assert ended.stderr.count("most recent call first") == 2
