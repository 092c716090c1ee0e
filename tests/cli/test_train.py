"""The ``esrgan train`` command: arguments, exit codes and messages."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from esrgan.cli import COMMANDS, main
from esrgan.config import Config
from esrgan.training import TrainOptions
from esrgan.training.stages import PixelStage
from esrgan.weights import load_file
from tests.helpers.runs import train_main

pytestmark = pytest.mark.usefixtures("foreground_signals")

ROOT = Path(__file__).parent.parent.parent
Make = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the default output folder out of the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def config_file(tiny_config: Make, tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(tiny_config()), encoding="utf-8")
    return path


@pytest.fixture
def train_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, TrainOptions]]:
    """Replace ``train`` and return a list of the arguments that it is called with."""
    calls: list[tuple[Config, TrainOptions]] = []

    def train(config: Config, options: TrainOptions) -> bool:
        calls.append((config, options))
        return True

    monkeypatch.setattr("esrgan.training.train", train)
    return calls


def expect_error(capsys: pytest.CaptureFixture[str], *arguments: object, expected: int = 2) -> str:
    """Run with bad arguments and return the error message, which must come without a traceback."""
    try:
        code = train_main([str(argument) for argument in arguments])
    except SystemExit as stopped:  # raised by argparse
        code = stopped.code
    out, err = capsys.readouterr()
    assert code == expected
    assert "Traceback" not in out + err
    assert "error: " in err
    return err


# Exit codes


def test_a_finished_run_exits_with_0(config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_dir = tmp_path / "out"
    arguments = [config_file, "-o", out_dir, "--device", "cpu", "--max-steps", "1", "--seed", "5", "-i", "1"]
    assert train_main([str(argument) for argument in arguments]) == 0
    out, err = capsys.readouterr()
    assert "training is done: " in out
    assert err == ""
    (path,) = out_dir.glob("*_RRDB_ESRGAN_x4_checkpoint.pth")
    content = load_file(path)
    assert content["hparams"]["seed"] == 5
    assert content["checkpoint"]["config_name"] == str(config_file.resolve())


def test_a_killed_loader_worker_ends_the_run(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(tiny_config(num_workers=2, pretraining={"num_steps": 100_000})), encoding="utf-8")
    original, others = PixelStage.step, multiprocessing.active_children()

    def step(self: Any, low: Any, high: Any, current: int, *target: Any) -> Any:
        if current == 1:
            process = next(process for process in multiprocessing.active_children() if process not in others)
            os.kill(process.pid, signal.SIGKILL)
        return original(self, low, high, current, *target)

    monkeypatch.setattr(PixelStage, "step", step)
    error = expect_error(capsys, path, "-o", tmp_path / "out", "--device", "cpu", "-i", "1", expected=1)
    assert re.fullmatch(r"error: loader process \d+: was killed by signal 9.*; .*--resume auto\n", error)


def test_an_interrupted_run_exits_with_130_and_resumes(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, presses = PixelStage.step, [0, 2, 1]

    def step(self: Any, low: Any, high: Any, current: int, *target: Any) -> Any:
        for _ in range(presses.pop() if presses else 0):
            signal.raise_signal(signal.SIGINT)
        return original(self, low, high, current, *target)

    monkeypatch.setattr(PixelStage, "step", step)
    arguments = [str(config_file), "-o", str(tmp_path / "out"), "--device", "cpu", "--stage", "pretraining"]
    assert train_main(arguments) == 130
    assert "stopped after step 1 of pretraining" in capsys.readouterr().out
    try:
        code = train_main([*arguments, "--resume", "auto"])  # the second Ctrl-C ends it at once
    except KeyboardInterrupt:
        code = None
    assert code == 130
    out, err = capsys.readouterr()
    assert "at step 1; resuming from there" in out
    assert err == "interrupted\n"
    assert train_main([*arguments, "--resume", "auto"]) == 0
    assert "pretraining is done" in capsys.readouterr().out


def test_all_data_problems_are_printed_one_per_line(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    path.write_text(
        json.dumps(tiny_config(pretraining={"train_datasets": ["a", "b"]}, training={"val_datasets": ["c"]}))
    )
    err = expect_error(capsys, path, "-o", tmp_path / "out", "--device", "cpu")
    assert [line.partition(":")[0] for line in err.splitlines()] == ["error"] * 3
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["dataset a", "dataset b", "dataset c"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "--seed"),
        (["--seed", "two"], "--seed"),
        (["-w", "-1"], "--best-checkpoint-warmup"),
        (["--resume", "never"], "--resume"),
        (["-i", "0"], "expected an integer of at least 1, got 0"),
        (["-s", "1.5"], "expected an integer of at least 1, got 1.5"),
        (["--max-steps", "0"], "expected an integer of at least 1, got 0"),
        (["--stage", "gan"], "--stage"),
        (["--run-name", "a/b"], "--run-name"),
        (["--device", "tpu"], "expected auto, cpu, cuda, cuda:N or mps, got tpu"),
        (["--device", "cpu", "-l", "nothing.pth"], "nothing.pth: no such file"),
        (["--device", "cpu", "--colour"], "--colour: unknown option; "),
    ],
)
def test_bad_arguments_are_reported_in_one_line(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in expect_error(capsys, config_file, "-o", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_a_bad_configuration_is_reported_by_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.json" in expect_error(capsys, tmp_path / "nowhere.json")
    path = tmp_path / "x.json"
    path.write_text('{"batch_size": 0, "scale_factor": 5}', encoding="utf-8")
    err = expect_error(capsys, path)
    assert err.count("error: ") == 2
    assert "batch_size" in err
    assert "scale_factor" in err
    assert "config_file" in expect_error(capsys)


def test_a_missing_gpu_is_reported_in_one_line(
    config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert "finds no CUDA GPU; use cpu" in expect_error(capsys, config_file, "--device", "cuda")


def test_an_output_folder_that_cannot_be_created_is_reported(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    err = expect_error(capsys, config_file, "-o", tmp_path / "file", "--device", "cpu", "--max-steps", "1")
    assert str(tmp_path / "file") in err


# Arguments


def test_every_option_reaches_the_trainer(
    config_file: Path, tiny_config: Make, tmp_path: Path, train_calls: list[tuple[Config, TrainOptions]]
) -> None:
    assert train_main([str(config_file), "--device", "cpu"]) == 0
    config = Config.model_validate(tiny_config())
    assert train_calls.pop() == (config, TrainOptions(config_name=str(config_file.resolve()), device="cpu"))
    line = (
        "-l in.pth --load-discriminator d.pth -a --no-data-parallel -i 3 -w 4 -s 5 --run-name me --stage training "
        "--dry-run --seed 6 --max-steps 7"
    )
    arguments = [*line.split(), "--out-dir", str(tmp_path), "--data-root", "photos", "--device", "cpu"]
    assert train_main([str(config_file), *arguments]) == 0
    assert train_calls.pop() == (
        config.model_copy(update={"seed": 6, "data_root": "photos"}),
        TrainOptions(
            config_name=str(config_file.resolve()),
            out_dir=tmp_path,
            run_name="me",
            device="cpu",
            autocast=True,
            stage="training",
            load_checkpoint=Path("in.pth"),
            load_discriminator=Path("d.pth"),
            checkpoint_interval=3,
            best_checkpoint_warmup=4,
            store_model_interval=5,
            max_steps=7,
            dry_run=True,
        ),
    )
    assert train_main([str(config_file), "--resume", "auto", "--device", "cpu"]) == 0
    assert train_calls.pop() == (
        config,
        TrainOptions(config_name=str(config_file.resolve()), device="cpu", resume=True),
    )


def test_the_example_in_the_readme_of_the_earlier_framework_is_understood(
    config_file: Path, tiny_config: Make, train_calls: list[tuple[Config, TrainOptions]]
) -> None:
    rest = "--autocast --best-checkpoint-warmup 2000 --store-model-interval 20 --checkpoint-interval 50 --device cpu"
    expected = (
        Config.model_validate(tiny_config()),
        TrainOptions(
            config_name=str(config_file.resolve()),
            device="cpu",
            autocast=True,
            load_checkpoint=Path("psnr.pth"),
            checkpoint_interval=50,
            best_checkpoint_warmup=2000,
            store_model_interval=20,
        ),
    )
    for line in (f"--config-json {config_file} --load-model-path psnr.pth", f"--config-json={config_file} -l psnr.pth"):
        assert train_main([*line.split(), *rest.split()]) == 0
        assert train_calls.pop() == expected


def test_help_explains_every_option_and_ends_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train_main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    options = "--load-checkpoint --autocast --no-data-parallel --checkpoint-interval --best-checkpoint-warmup"
    options += " --store-model-interval --out-dir --stage --resume --dry-run --seed --max-steps --device"
    for option in options.split():
        assert option in out, option
    examples = out.partition("examples:\n")[2].splitlines()
    assert len(examples) >= 3
    assert all("esrgan train " in example for example in examples)


# Several GPUs

FAKE_TORCHRUN = """#!/bin/sh
# Stands in for Python running torchrun. It stops slowly, like a trainer that finishes its step.
echo "$@" > {folder}/arguments
trap 'sleep 0.7; touch {folder}/stopped; exit 1' INT TERM
touch {folder}/started
{work}
exit 7
"""


@pytest.fixture
def torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Simulate three GPUs.

    Returns:
        A function that replaces torchrun by a script doing the given work, and returns the folder of its records.
    """
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: True)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)

    def replace_python(work: str) -> Path:
        script = tmp_path / "python"
        script.write_text(FAKE_TORCHRUN.format(folder=tmp_path, work=work), encoding="utf-8")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        return tmp_path

    return replace_python


def test_gpus_without_a_working_driver_are_not_used(
    tiny_config: Make,
    torchrun: Callable[[str], Path],
    train_calls: list[tuple[Config, TrainOptions]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = torchrun("")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (folder / "mine.json").write_text(json.dumps(tiny_config(batch_size=6)), encoding="utf-8")
    assert train_main([str(folder / "mine.json")]) == 0
    assert len(train_calls) == 1


@pytest.mark.parametrize("device", [[], ["--device", "cuda"], ["--dry-run"]])
@pytest.mark.parametrize(("batch_size", "count"), [(6, 3), (2, 2)])
def test_as_many_gpus_are_used_as_divide_the_batch(
    tiny_config: Make,
    torchrun: Callable[[str], Path],
    train_calls: list[tuple[Config, TrainOptions]],
    device: list[str],
    batch_size: int,
    count: int,
) -> None:
    folder = torchrun("")
    config_file = folder / "mine.json"
    config_file.write_text(json.dumps(tiny_config(batch_size=batch_size)), encoding="utf-8")
    assert train_main([str(config_file), *device]) == 7
    arguments_given = (folder / "arguments").read_text().split()
    assert arguments_given[:2] == ["-m", "torch.distributed.run"]
    assert f"--nproc-per-node={count}" in arguments_given
    assert arguments_given[-len(device) - 4 :] == ["-m", "esrgan", "train", str(config_file), *device]
    assert not train_calls


@pytest.mark.parametrize(
    ("arguments", "launched"),
    [
        (["--no-data-parallel"], False),
        (["--device", "cuda:1"], False),
        (["--device", "cpu"], False),
        ([], True),  # this process was itself started by torchrun
    ],
)
def test_one_process_trains_when_requested(
    config_file: Path,
    torchrun: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    train_calls: list[tuple[Config, TrainOptions]],
    arguments: list[str],
    launched: bool,
) -> None:
    folder = torchrun("")
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    assert train_main([str(config_file), *arguments]) == 0
    assert len(train_calls) == 1
    assert not (folder / "arguments").exists()


def test_one_gpu_is_used_without_nccl(
    config_file: Path,
    torchrun: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    train_calls: list[tuple[Config, TrainOptions]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As on Windows."""
    folder = torchrun("")
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: False)
    assert train_main([str(config_file)]) == 0
    assert (
        capsys.readouterr().out
        == "training on one GPU: this PyTorch has no NCCL, which training on several GPUs needs\n"
    )
    assert len(train_calls) == 1
    assert not (folder / "arguments").exists()


def test_torchrun_respects_nohup(tiny_config: Make, torchrun: Callable[[str], Path]) -> None:
    config_file = torchrun("") / "mine.json"
    config_file.write_text(json.dumps(tiny_config(batch_size=6)), encoding="utf-8")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        train_main([str(config_file)])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert "--signals-to-handle=SIGTERM,SIGINT,SIGQUIT" in (config_file.parent / "arguments").read_text().split()


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, False), (signal.SIGUSR1, False)],
)
@pytest.mark.slow
@pytest.mark.usefixtures("foreground_signals")
def test_an_interrupt_waits_for_the_checkpoint(
    config_file: Path, torchrun: Callable[[str], Path], number: int, group: bool
) -> None:
    folder = torchrun(f"echo $$ > {config_file.parent}/pid; while :; do sleep 0.05; done")

    def interrupt() -> None:
        while not (folder / "started").exists() or not (folder / "pid").exists():
            time.sleep(0.02)
        time.sleep(0.1)
        # A terminal sends Ctrl-C to the whole process group, a scheduler sends SIGTERM to one process.
        if group:
            os.kill(int((folder / "pid").read_text()), number)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        assert train_main([str(config_file)]) == 130
        assert (folder / "stopped").exists()
    finally:
        thread.join()
        with suppress(ProcessLookupError):
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)


# Other entry points


def test_the_dispatcher_runs_the_given_command(
    config_file: Path, capsys: pytest.CaptureFixture[str], train_calls: list[tuple[Config, TrainOptions]]
) -> None:
    assert main(["train", str(config_file), "--device", "cpu", "--max-steps", "4"]) == 0
    assert train_calls[0][1].max_steps == 4
    assert main(["train", str(config_file) + "x"]) == 2
    assert "error: " in capsys.readouterr().err


def test_the_dispatcher_knows_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert main([]) == 0
    assert capsys.readouterr().out == out
    assert main(["trian"]) == 2
    assert {"prepare", "train", "test", "inference", "interpolate", "models"} <= set(COMMANDS)
    assert all(command in out for command in COMMANDS)
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        out = capsys.readouterr().out
        assert out.startswith(f"usage: esrgan {command}")
        assert "examples:" in out


@pytest.mark.slow
def test_the_root_script_runs_the_same_command(config_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), str(config_file), "--dry-run", "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "dry run: everything is in place" in done.stdout
    assert "\x1b" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [config_file.name]
