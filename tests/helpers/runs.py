"""Training runs for tests: start them, act at a chosen step, and compare the files they write."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from esrgan.cli import main
from esrgan.config import Config
from esrgan.training import TrainOptions, train
from esrgan.training.run_files import split_run
from esrgan.training.stages import AdversarialStage, PixelStage
from esrgan.weights import load_file

# Every option beyond the paper, for the six steps of a stage of the tiny configuration.
_BOTH_STAGES = {"warmup_steps": 3, "weight_decay": 0.1, "sched": "cosine", "num_steps": 6}
OPTIONS_BEYOND_THE_PAPER: dict[str, Any] = {
    "pretraining": _BOTH_STAGES,
    "training": _BOTH_STAGES
    | {
        "gan_objective": "vanilla",
        "g_artifact_loss_scaling": 1.0,
        "g_consistency_loss_scaling": 1.0,
        "g_pattern_loss_scaling": 1.0,
        "g_adversarial_ramp_steps": 4,
        "d_pause_below": 0.688,
    },
}
# Its processes are forked from one that has only imported these modules, because PyTorch refuses autograd in a fork of
# a process whose autograd has threads. They see nothing of what a test has patched, nor later environment variables.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload([__name__, "torch._dynamo", "torch.distributed.launcher.api", "torchvision"])
TIMING_KEYS = ("time", "steps_per_s", "images_per_s", "data_wait_share")  # these differ between identical runs
STAGES = {"pretraining": PixelStage, "training": AdversarialStage}


class Killed(BaseException):
    """Simulated kill -9, which nothing catches, so nothing is written after it."""


def kill() -> None:
    raise Killed


def run(config: dict[str, Any], out_dir: Path, **options: Any) -> bool:
    """Train on the CPU."""
    return train(
        Config.model_validate(config),
        TrainOptions(**{"config_name": "/configs/tiny.json", "device": "cpu"} | options, out_dir=out_dir),
    )


def train_main(arguments: list[str]) -> int:
    """Run ``esrgan train`` in this process and return its exit code."""
    return main(["train", *arguments])


def load_run_files(out_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the contents of the files of the only run in a folder, by name without the run's prefix."""
    return {split_run(path.name)[1]: load_file(path) for path in out_dir.glob("*.pth")}


def comparable_content(content: dict[str, Any]) -> dict[str, Any]:
    """Return a file's content without the names of run and configuration, which may differ between identical runs."""
    checkpoint = {
        key: value for key, value in content.get("checkpoint", {}).items() if key not in ("run", "config_name")
    }
    return {key: value for key, value in content.items() if key != "hparams"} | {"checkpoint": checkpoint}


def find_differences(one: Any, other: Any, place: str = "") -> list[str]:
    """List the places where two nested structures of dictionaries, lists, tensors and values are not bit-identical."""
    if isinstance(one, dict) and isinstance(other, dict):
        missing = [f"{place}/{key} in one only" for key in one.keys() ^ other.keys()]
        return missing + [
            at for key in one.keys() & other.keys() for at in find_differences(one[key], other[key], f"{place}/{key}")
        ]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return [
            at for i, pair in enumerate(zip(one, other, strict=True)) for at in find_differences(*pair, f"{place}/{i}")
        ]
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [place]
    return [] if one == other and type(one) is type(other) else [place]


def read_records(out_dir: Path) -> list[dict[str, Any]]:
    """Read the log of the only run in a folder, without times and rates."""
    (path,) = out_dir.glob("logs/*/log.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMING_KEYS} for line in lines]


def records_by_step(out_dir: Path, split: str, stage: str) -> dict[int, dict[str, Any]]:
    """Return the records of a stage by step."""
    return {
        record["step"]: record
        for record in read_records(out_dir)
        if (record["split"], record["stage"]) == (split, stage)
    }


@contextmanager
def after_step(stage: str, done: int, act: Callable[[], object]) -> Iterator[None]:
    """Call ``act`` when a stage has completed ``done`` steps, before anything is saved."""
    original = STAGES[stage].step

    def step(self: Any, low: Tensor, high: Tensor, current: int, *target: Tensor) -> dict[str, Tensor]:
        losses = original(self, low, high, current, *target)
        if current + 1 == done:
            act()
        return losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STAGES[stage], "step", step)
        yield


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def rank_environment(rank: int, port: int) -> dict[str, str]:
    """Return the environment that torchrun, with its store on a port, sets for one of two processes."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    return address | {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True"}


def psnr_scores(*values: float) -> list[dict[str, float]]:
    return [{"PSNR": value, "perceptual_loss": 1.0 - i / 10} for i, value in enumerate(values)]
