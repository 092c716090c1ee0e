"""End training runs at random moments, resume them, and compare their files with those of an uninterrupted run.

``python -m tests.faults`` prints the tables of docs/explanation/fault_tolerance.md. It needs Linux.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from ctypes import c_int
from functools import wraps
from pathlib import Path
from typing import Any

from esrgan.config import Config
from esrgan.console import log
from esrgan.training import TrainOptions, loop, train
from esrgan.training.stages import AdversarialStage, PixelStage
from esrgan.weights import load_file
from tests.helpers.images import write_images
from tests.helpers.runs import FORKSERVER, comparable_content, find_differences, load_run_files, read_records

SIGNALS = {
    "kill -9": signal.SIGKILL,
    "SIGTERM": signal.SIGTERM,
    "Ctrl-C": signal.SIGINT,
    "SIGHUP": signal.SIGHUP,
    "SIGUSR1": signal.SIGUSR1,
}
HANDLED = set(SIGNALS.values()) - {signal.SIGKILL}
MOMENTS = ("starting", "between", "step", "validation", "writing a checkpoint", "writing a model", "changing the stage")
# The function whose call lasts for a moment, and the class or module that it is called from.
CALLS_BY_MOMENT = {
    "step": ((PixelStage, "step"), (AdversarialStage, "step")),
    "validation": ((loop, "validate"),),
    "writing a checkpoint": ((loop, "save_checkpoint"),),
    "writing a model": ((loop, "save_file"),),
}
SPREAD_S = 0.02  # maximum delay of a signal after its moment has begun

STAGE_SECTION = {"num_steps": 12, "cr_patch_size": [32, 32]}
CONFIG = {
    "batch_size": 2,
    "validation_interval": 4,
    "ema_decay": 0.9,
    "pretraining": STAGE_SECTION,
    "training": STAGE_SECTION,
    "generator": {"rrdb_channels": 8, "growth_channels": 4, "num_basic_blocks": 1, "small_init": "trunk"},
    "discriminator": {"vgg_blk_ch": [4, 4, 8, 8], "fc_features": [10]},
    "perceptual_loss": {"optional": True},
    "logging": {"interval": 3},
}


def make_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a configuration with four training images and two validation images."""
    data = {
        "train_datasets": [str(write_images(folder / "train", 4))],
        "val_datasets": [str(write_images(folder / "val", 2, (36, 32)))],
    }
    stages = {stage: CONFIG[stage] | data for stage in ("pretraining", "training")}
    return CONFIG | stages | {"cache_dir": str(folder / "cache")} | changes


class Attempt:
    """A process that starts or resumes a run and records its current moment."""

    def __init__(self, config: dict[str, Any], out_dir: Path) -> None:
        self.moment = FORKSERVER.RawValue(c_int, 0)
        self.process = FORKSERVER.Process(target=self._train, args=(config, out_dir))
        self.process.start()

    def _train(self, config: dict[str, Any], out_dir: Path) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in HANDLED - {signal.SIGINT}:
            signal.signal(number, signal.SIG_DFL)
        multiprocessing.set_start_method("fork", force=True)  # of the loader processes, as in a run from a shell
        out_dir.mkdir(exist_ok=True)
        with (out_dir / "output.txt").open("a") as output:
            os.dup2(output.fileno(), sys.stdout.fileno())
            os.dup2(output.fileno(), sys.stderr.fileno())
        for moment, places in CALLS_BY_MOMENT.items():
            for owner, name in places:
                setattr(owner, name, self._recording(getattr(owner, name), moment, "between"))

        def watch(record: logging.LogRecord) -> bool:
            if record.getMessage().startswith("pretraining is done"):
                self.moment.value = MOMENTS.index("changing the stage")
            return True

        log.addFilter(watch)
        options = TrainOptions(
            "faults", out_dir, run_name="run", device="cpu", resume=True, checkpoint_interval=1, store_model_interval=2
        )
        sys.exit(0 if train(Config.model_validate(config), options) else 130)

    def _recording(self, call: Callable[..., Any], during: str, after: str) -> Callable[..., Any]:
        @wraps(call)
        def recording(*arguments: Any, **options: Any) -> Any:
            self.moment.value = MOMENTS.index(during)
            result = call(*arguments, **options)
            self.moment.value = MOMENTS.index(after)
            return result

        return recording

    def send_signal(self, kind: str, wanted: str, not_before: float, random: random.Random) -> str | None:
        """End the process by a signal at the wanted moment.

        Returns:
            The moment at which the signal was sent; None if the process had finished before.
        """
        time.sleep(not_before)
        while self.process.is_alive() and MOMENTS[self.moment.value] != wanted:
            time.sleep(0.001)
        time.sleep(random.uniform(0, SPREAD_S))
        if not self.process.is_alive():
            self.process.join()
            return None
        moment = MOMENTS[self.moment.value]
        os.kill(self.process.pid, SIGNALS[kind])
        self.process.join()
        return moment if self.process.exitcode != 0 else None


def run_uninterrupted(config: dict[str, Any], out_dir: Path) -> float:
    """Run once to the end and return the seconds that it took."""
    first = FORKSERVER.Process(target=int)  # waits until the server has started
    first.start()
    first.join()
    started = time.monotonic()
    attempt = Attempt(config, out_dir)
    attempt.process.join()
    assert attempt.process.exitcode == 0, (out_dir / "output.txt").read_text()
    return time.monotonic() - started


def check_files_readable(out_dir: Path) -> None:
    """Check that every file with a final name can be read."""
    for path in out_dir.glob("*.pth"):
        load_file(path)


def compare(out_dir: Path, reference: Path) -> list[str]:
    """List all differences in weights, averages, optimisers, best scores, log records and names of files."""
    ours, theirs = (
        # The steps of older checkpoints depend on when the run was interrupted.
        {name: content for name, content in load_run_files(each).items() if "_checkpoint_" not in name}
        for each in (out_dir, reference)
    )
    problems = [f"{name} exists in one run only" for name in ours.keys() ^ theirs.keys()]
    for name in ours.keys() & theirs.keys():
        problems += [
            f"{name}{place}"
            for place in find_differences(comparable_content(ours[name]), comparable_content(theirs[name]))
        ]
    if read_records(out_dir) != read_records(reference):
        problems.append("log.jsonl")
    return problems + [f"{path.name} was left" for path in out_dir.glob(".*.tmp")]


def run_with_signals(
    config: dict[str, Any], folder: Path, reference: Path, seconds: float, kills: int, random: random.Random
) -> tuple[Counter[tuple[str, str]], int]:
    """Repeat runs that are ended by signals and resumed until they are complete.

    Args:
        config: Configuration of the reference.
        folder: Folder for the runs.
        reference: Folder of the uninterrupted run.
        seconds: Duration of the uninterrupted run.
        kills: Minimum number of signals.
        random: Random generator that chooses signals and moments.

    Returns:
        The number of signals by kind and moment, and the number of runs, all of which ended like the reference.

    Raises:
        AssertionError: If a run ended differently from the reference.
    """
    counts: Counter[tuple[str, str]] = Counter()
    runs = 0
    while counts.total() < kills:
        out_dir = folder / f"interrupted-{runs}"
        finished = False
        while not finished:
            attempt = Attempt(config, out_dir)
            if counts.total() < kills and random.random() < 0.9:
                kind, wanted = random.choice(list(SIGNALS)), random.choice(MOMENTS)
                not_before = random.uniform(0, 0.1 if wanted == "starting" else 0.4) * seconds
                moment = attempt.send_signal(kind, wanted, not_before, random)
                counts.update([(kind, moment)] if moment else [])
            attempt.process.join()
            code = attempt.process.exitcode
            finished = code == 0
            assert code in (0, 1, 130, *(-number for number in SIGNALS.values())), (out_dir / "output.txt").read_text()
            check_files_readable(out_dir)
        assert not (found := compare(out_dir, reference)), found[:5]
        runs += 1
    return counts, runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=30, help="signals for each number of loader processes (default: 30)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of signals and moments (default: 0)")
    arguments = parser.parse_args()
    print(f"`python -m tests.faults --kills {arguments.kills} --seed {arguments.seed}`\n")
    for workers in (0, 2):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            config = make_config(folder, num_workers=workers)
            seconds = run_uninterrupted(config, folder / "reference")
            counts, runs = run_with_signals(
                config, folder, folder / "reference", seconds, arguments.kills, random.Random(arguments.seed)
            )
        print(
            f"{workers} loader processes: {counts.total()} signals in {runs} runs, "
            f"all of which ended bit-identical to the uninterrupted run\n"
        )
        print("| moment |", " | ".join(SIGNALS), "|\n|---|" + "--:|" * len(SIGNALS))
        for moment in MOMENTS:
            print(f"| {moment} |", " | ".join(str(counts[kind, moment]) for kind in SIGNALS), "|")
        print(flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
