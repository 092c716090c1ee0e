"""What a run survives: steps of NaN, divergence, a full disk, damaged checkpoints, a second process."""

from __future__ import annotations

import copy
import json
import math
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import TCPStore

from esrgan.cli.train import main as train_main
from esrgan.data import read_whole
from esrgan.errors import EsrganError, TrainingError, WeightsError
from esrgan.files import lock
from esrgan.losses import ContentLoss, PerceptualLoss
from esrgan.models import RRDBNet, VGGDiscriminator
from esrgan.training import loop, recovery, validation
from esrgan.training.checkpoint import newest_checkpoint, save_checkpoint
from esrgan.training.ema import ExponentialMovingAverage
from esrgan.training.recovery import Recovery, take_state
from esrgan.training.stages import AdversarialStage, Autocast, PixelStage
from esrgan.training.updater import Updater, step_schedule
from esrgan.weights import load_file
from tests.faults import FORK, compare
from tests.helpers.runs import (
    Killed,
    after_step,
    contents,
    differing,
    kill,
    logged,
    press_ctrl_c,
    rank_environment,
    run,
)

pytestmark = pytest.mark.usefixtures("own_signals")

CPU = torch.device("cpu")
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roll back after three bad steps already."""
    monkeypatch.setattr(recovery, "BAD_STEPS", 3)


@contextmanager
def bad_steps(*bad: int, stage: type = PixelStage) -> Iterator[None]:
    """Give some steps, counted from 0, images that are no numbers."""
    original = stage.step

    def step(self: Any, low: Tensor, high: Tensor, current: int, target: Tensor) -> dict[str, Tensor]:
        factor = math.nan if current in bad else 1
        return original(self, low, high * factor, current, target * factor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "step", step)
        yield


def all_finite(content: Any) -> bool:
    if isinstance(content, dict):
        return all(all_finite(value) for value in content.values())
    if isinstance(content, Tensor) and content.is_floating_point():
        return bool(content.isfinite().all())
    return True


# Steps that are not finite


def test_a_skipped_step_is_counted_and_in_no_mean(tiny: Make, tmp_path: Path) -> None:
    config = tiny(logging={"interval": 3}, validation_interval=6)
    with bad_steps(1):
        assert run(config, tmp_path / "skipped", stage="pretraining") is True
    run(config, tmp_path / "whole", stage="pretraining")
    one, other = (logged(tmp_path / name, "train", "pretraining") for name in ("skipped", "whole"))
    assert [record["skipped_steps"] for record in one.values()] == [1, 0]
    assert [record["skipped_steps"] for record in other.values()] == [0, 0]
    assert all(isinstance(record["content_loss"], float) for record in one.values())
    assert one[3]["gradient_norm_peak"] >= one[3]["gradient_norm"] > 0
    assert one[3]["content_loss"] != other[3]["content_loss"]
    assert all(all_finite(content) for content in contents(tmp_path / "skipped").values())


def test_a_skipped_step_leaves_the_discriminators_statistics_alone() -> None:
    generator, discriminator = RRDBNet(4, 3, 8, 4, 1), VGGDiscriminator(3, (4, 4), (10,))
    updaters = (Updater(each, step_schedule(1e-3, 1, 1.0), (0.9, 0.99)) for each in (generator, discriminator))
    stage = AdversarialStage(generator, discriminator, ContentLoss(), None, *updaters, 1.0, 1.0, Autocast(CPU))
    low, high = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)
    before = {name: buffer.clone() for name, buffer in discriminator.named_buffers()}
    stage.step(low, high * math.nan, 0)
    assert before
    assert not differing(before, dict(discriminator.named_buffers()))
    stage.step(low, high, 1)
    assert len(differing(before, dict(discriminator.named_buffers()))) == len(before)


# Back to the last good state


@pytest.mark.usefixtures("impatient")
def test_bad_steps_in_a_row_take_the_run_back_to_its_last_good_state_with_a_smaller_rate(
    tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = {}
    original = Recovery.roll_back

    def roll_back(self: Recovery) -> None:
        original(self)
        states["back"] = self.stage.generator.state_dict()["conv_first.weight"].clone()

    config = tiny(pretraining={"num_steps": 8}, validation_interval=100)
    with pytest.MonkeyPatch.context() as patch, bad_steps(3, 4, 5):
        patch.setattr(Recovery, "roll_back", roll_back)
        assert run(config, tmp_path / "bad", stage="pretraining", checkpoint_interval=1) is True
    line = "pretraining: every step from 4 to 6 was bad, the first one with content_loss nan, gradient_norm nan on "
    out = capsys.readouterr().out
    assert line in out
    assert out.count("; back to the weights of step 2, with 0.5 × the rate\n") == 1
    images = out.partition(line)[2].partition(";")[0].split(", ")
    assert len(images) == 2
    assert all(image in ("0.png", "1.png", "2.png", "3.png") for image in images)
    run(config, tmp_path / "short", stage="pretraining", max_steps=2)
    good = contents(tmp_path / "short")["PSNR_x4_checkpoint"]["params"]["conv_first.weight"]
    assert torch.equal(states["back"], good)
    rates = {step: record["learning_rate"] for step, record in logged(tmp_path / "bad", "train", "pretraining").items()}
    assert rates == {1: 1e-3, 2: 1e-3, 3: 1e-3, 4: 1e-3, 5: 5e-4, 6: 5e-4, 7: 2.5e-4, 8: 2.5e-4}
    assert all(all_finite(content) for content in contents(tmp_path / "bad").values())


@pytest.mark.usefixtures("impatient")
def test_fewer_bad_steps_or_some_apart_do_not(tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with bad_steps(0, 1, 3, 4):
        assert run(tiny(), tmp_path, stage="pretraining") is True
    assert "back to" not in capsys.readouterr().out


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("stage", ["pretraining", "training"])
def test_weights_that_broke_are_replaced_by_the_last_good_ones(
    tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    kept: list[RRDBNet] = []
    original = loop.make_stage

    def make_stage(*arguments: Any) -> Any:
        made = original(*arguments)
        kept.append(made.generator)
        return made

    def spoil() -> None:
        with torch.no_grad():
            kept[-1].conv_last.weight[0] = math.inf

    monkeypatch.setattr(loop, "make_stage", make_stage)
    with after_step(stage, 3, spoil):
        config = tiny(validation_interval=100, **{stage: {"num_steps": 8}})
        assert run(config, tmp_path, stage=stage, checkpoint_interval=1) is True
    assert f"{stage}: every step from 4 to 6 was bad, the first one with content_loss nan" in capsys.readouterr().out
    assert all(all_finite(content) for content in contents(tmp_path).values())


ROLLING = {"stage": "pretraining", "checkpoint_interval": 1, "run_name": "mine"}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("how", "stop"), [(press_ctrl_c, 3), (press_ctrl_c, 5), (press_ctrl_c, 7), (kill, 5)])
def test_a_run_that_rolls_back_resumes_exactly(
    tiny: Make, rolled_back: Path, tmp_path: Path, how: Callable[[], None], stop: int
) -> None:
    config = tiny(pretraining={"num_steps": 8})
    with bad_steps(3, 4, 5):
        with after_step("pretraining", stop, how), suppress(Killed):
            assert run(config, tmp_path, **ROLLING) is False
        assert run(config, tmp_path, resume=True, **ROLLING) is True
    assert not compare(tmp_path, rolled_back)


@pytest.fixture(scope="module")
def rolled_back(tiny: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of an undisturbed run that rolls back."""
    folder = tmp_path_factory.mktemp("rolled_back")
    with bad_steps(3, 4, 5), pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "BAD_STEPS", 3)
        run(tiny(pretraining={"num_steps": 8}), folder, **ROLLING)
    return folder


def test_a_stage_that_is_ruined_at_its_end_is_an_error_and_leaves_nothing_ruined(
    tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(tiny(pretraining={"lr": 1e6})))  # too short for a return
    arguments = [str(path), "-o", str(tmp_path / "out"), "--device", "cpu", "-i", "1", "-s", "1"]
    assert train_main(arguments) == 1
    assert "pretraining: at its end the generator makes no pictures; " in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.pth"))


def test_a_run_may_go_on_with_other_losses_than_it_stopped_with() -> None:
    generator = RRDBNet(4, 3, 4, 2, 1)
    updater = Updater(generator, step_schedule(1e-3, 9, 0.1), (0.9, 0.99))
    stage = PixelStage(generator, ContentLoss(), updater, Autocast(CPU))
    before, after = (Recovery(stage, ExponentialMovingAverage(generator, 0.9), 0) for _ in range(2))
    before.add({"content_loss": torch.tensor(0.5)}, 0)
    after.load_state_dict(before.state_dict(1))
    after.add({"content_loss": torch.tensor(math.nan), "perceptual_loss": torch.tensor(2.0)}, 1)
    assert after.diagnosis() == ("content_loss nan", 1)


@pytest.mark.usefixtures("impatient")
def test_an_absurd_rate_ends_with_a_diagnosis_and_exit_code_1(
    tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(tiny(pretraining={"lr": 1e6, "num_steps": 40})))
    arguments = [str(path), "-o", str(tmp_path / "out"), "--device", "cpu", "--run-name", "mine", "-i", "1"]
    assert train_main(arguments) == 1
    out, err = capsys.readouterr()
    assert [line.rpartition("; ")[2] for line in out.splitlines() if "back to" in line] == [
        f"back to the weights of step 0, with {factor} × the rate" for factor in (0.5, 0.25, 0.125)
    ]
    (line,) = err.splitlines()
    assert line.startswith("error: pretraining: every step from ")
    assert "content_loss " in line
    assert ".png" in line
    assert "3 rollbacks to step 0 with smaller rates were in vain: lower pretraining.lr" in line
    assert not list((tmp_path / "out").glob("*.pth"))  # nothing good was there to be kept
    path.write_text(json.dumps(tiny()))
    assert train_main([*arguments, "--resume", "auto"]) == 0


@pytest.mark.usefixtures("impatient")
def test_a_loss_that_is_no_number_is_named_and_the_checkpoint_is_from_before(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = PerceptualLoss.forward, []

    def forward(self: PerceptualLoss, fake: Tensor, real: Tensor) -> Tensor:
        calls.append(fake.requires_grad)
        return original(self, fake, real) * (math.nan if calls.count(True) > 3 else 1)

    monkeypatch.setattr(PerceptualLoss, "forward", forward)
    config = tiny(training={"num_steps": 40}, validation_interval=100)
    with pytest.raises(TrainingError) as caught:
        run(config, tmp_path, stage="training", checkpoint_interval=1)
    (problem,) = caught.value.problems
    assert "every step from 4 to 12 was bad, the first one with " in str(problem)
    bad = str(problem).partition("with ")[2].partition(" on ")[0]
    assert bad == "g_total_loss nan, perceptual_loss nan, g_gradient_norm nan"
    assert "lower training.g_lr and d_lr" in str(problem)
    (checkpoint,) = contents(tmp_path).values()
    assert checkpoint["checkpoint"]["step"] == 2
    assert all_finite(checkpoint)


def watched() -> tuple[PixelStage, ExponentialMovingAverage, tuple[Tensor, Tensor]]:
    """Give a stage, its average, and a batch."""
    generator = RRDBNet(4, 3, 8, 4, 1)
    updater = Updater(generator, step_schedule(1e-3, 1, 1.0), (0.9, 0.99))
    stage = PixelStage(generator, ContentLoss(), updater, Autocast(CPU))
    return stage, ExponentialMovingAverage(generator, 0.9), (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 32, 32))


def test_the_same_state_can_be_gone_back_to_more_than_once() -> None:
    stage, ema, batch = watched()
    stage.step(*batch, 0)
    ema.update(0)
    watch, before = Recovery(stage, ema, 1), copy.deepcopy(take_state(stage, ema))
    for factor in (0.5, 0.25):
        stage.step(*batch, 1)
        ema.update(1)
        assert differing(before, take_state(stage, ema))
        watch.roll_back()
        assert stage.updaters[0].rate_factor == factor
        assert differing(before, take_state(stage, ema)) == ["/stage/generator_updater/rate_factor"]
    assert watch.rollbacks == 2
    watch.keep(2)
    assert (watch.rollbacks, watch.good["step"]) == (0, 2)


def test_a_finite_divergence_is_bad_too() -> None:
    stage, ema, batch = watched()
    watch = Recovery(stage, ema, 0)
    watch.add({"content_loss": torch.tensor(99.0)}, 0)
    assert (watch.is_sound(*batch), watch.is_stuck()) == (True, False)
    for step in range(1, recovery.BAD_STEPS + 1):
        assert not watch.is_stuck()
        watch.add({"content_loss": torch.tensor(101.0)}, step)
    assert watch.is_stuck()
    assert watch.diagnosis() == ("content_loss 101", 1)
    watch.add({"content_loss": torch.tensor(0.1)}, 99)
    assert watch.is_sound(*batch)
    nn.init.constant_(stage.generator.conv_last.bias, 1e3)  # as by the update of that step
    assert not watch.is_sound(*batch)


# Full disks


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file become larger, as a full disk would not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_too_little_memory_is_one_clear_error_and_leaves_the_last_checkpoint(tiny: Make, tmp_path: Path) -> None:
    def exhaust() -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    config = tiny()
    with (
        after_step("pretraining", 4, exhaust),
        pytest.raises(TrainingError, match=r"^cpu: too little memory: set accumulation .* activation_checkpointing "),
    ):
        run(config, tmp_path, stage="pretraining", checkpoint_interval=1)
    assert contents(tmp_path)["PSNR_x4_checkpoint"]["checkpoint"]["step"] == 2
    with after_step("pretraining", 1, exhaust), pytest.raises(TrainingError, match="--dry-run says what it takes"):
        run(config, tmp_path, stage="pretraining", dry_run=True)


@pytest.mark.parametrize("full", ["checkpoint", "log", "picture", "tensorboard"])
def test_a_full_disk_is_one_clear_error_and_leaves_the_last_checkpoint(
    tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], full: str
) -> None:
    config = tiny(validation_interval=4, logging={"tensorboard": full == "tensorboard"})
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config))
    out_dir = tmp_path / "out"
    arguments = [str(path), "-o", str(out_dir), "--device", "cpu", "--run-name", "mine", "-i", "1"]
    before: dict[str, Any] = {}

    def fill() -> None:
        before.update(contents(out_dir))
        log_size = (out_dir / "logs/mine/log.jsonl").stat().st_size
        limit = {"checkpoint": 20_000, "log": log_size + 10, "picture": 4_000, "tensorboard": 100}[full]
        if full == "tensorboard":
            (out_dir / "logs/mine/log.jsonl").write_text("")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    with largest_file(resource.RLIM_INFINITY), after_step("pretraining", 3, fill):
        assert train_main([*arguments, "--stage", "pretraining"]) == 1
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "File too large" in line
    assert line.endswith("put that right, and the same command with --resume auto goes on from the last checkpoint")
    assert "Traceback" not in err.partition("error: ")[2]
    assert before["PSNR_x4_checkpoint"]["checkpoint"]["step"] == 2
    assert not differing(contents(out_dir), before)
    assert not list(out_dir.glob(".*.tmp"))
    assert train_main([*arguments, "--stage", "pretraining", "--resume", "auto"]) == 0


# Interrupted in a validation


def test_a_validation_that_is_interrupted_ends_soon_and_is_done_upon_resume(
    tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = []

    def reading(pair: Any) -> Any:
        read.append(pair)
        press_ctrl_c()
        return read_whole(pair)

    options = {"stage": "pretraining", "checkpoint_interval": 1}
    run(tiny(), tmp_path / "whole", **options)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "read_whole", reading)
        assert run(tiny(), tmp_path / "stopped", **options) is False
    assert len(read) == 1  # of two images
    assert "stopped after step 2 of pretraining" in capsys.readouterr().out
    assert contents(tmp_path / "stopped").keys() == {"PSNR_x4_checkpoint"}
    assert not logged(tmp_path / "stopped", "validation", "pretraining")
    assert run(tiny(), tmp_path / "stopped", resume=True, **options) is True
    assert not compare(tmp_path / "stopped", tmp_path / "whole")


# Checkpoints


def test_the_last_checkpoints_are_kept_and_older_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "r_RRDB_PSNR_x4_checkpoint.pth"

    def steps() -> list[int]:
        ages = ["", *(f"_{age}" for age in range(1, 6))]
        files = [path.with_stem(path.stem + age) for age in ages]
        assert {file for file in files if file.exists()} == set(tmp_path.iterdir())
        return [load_file(file)["step"] for file in files if file.exists()]

    for step in range(1, 6):
        save_checkpoint(path, {"params": {}, "step": step}, 3)
        assert steps() == list(range(step, max(0, step - 3), -1))
    save_checkpoint(path, {"params": {}, "step": 6}, 1)
    assert steps() == [6]


@pytest.mark.parametrize(("damage", "named"), [("cut", True), ("flip", False)])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str, named: bool
) -> None:
    options = {"stage": "pretraining", "checkpoint_interval": 1} | ({"run_name": "mine"} if named else {})
    config = tiny(keep_checkpoints=2, validation_interval=100)
    run(config, tmp_path / "whole", **options)
    with after_step("pretraining", 5, kill), pytest.raises(Killed):
        run(config, tmp_path / "killed", **options)
    (newest,) = (tmp_path / "killed").glob("*_checkpoint.pth")
    content = bytearray(newest.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    capsys.readouterr()
    assert run(config, tmp_path / "killed", resume=True, **options) is True
    out = capsys.readouterr().out
    assert f"--resume auto passes over {newest}: damaged" in out
    assert "_checkpoint_1.pth: checkpoint of pretraining at step 2; continuing there" in out
    assert not compare(tmp_path / "killed", tmp_path / "whole")


def test_a_named_run_of_damaged_checkpoints_alone_is_not_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "mine_RRDB_PSNR_x4_checkpoint.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(WeightsError, match=r"mine_RRDB_PSNR_x4_checkpoint\.pth: damaged"):
        newest_checkpoint(tmp_path, "tiny", "mine")
    path, (error,) = newest_checkpoint(tmp_path, "tiny", None)
    assert path is None
    assert "mine_RRDB_PSNR" in str(error)


def test_what_a_killed_process_was_writing_is_removed(tiny: Make, tmp_path: Path) -> None:
    (tmp_path / ".mine_RRDB_PSNR_x4_checkpoint.pth.0f3a.tmp").write_bytes(b"half")
    (tmp_path / ".other_RRDB_PSNR_x4.pth.0f3a.tmp").write_bytes(b"another run's")
    pictures = tmp_path / "logs" / "mine"
    pictures.mkdir(parents=True)
    (pictures / ".esrgan-0f3a.tmp").write_bytes(b"half a picture")
    run(tiny(), tmp_path, stage="pretraining", run_name="mine", resume=True, max_steps=1)
    assert [path.name for path in tmp_path.rglob(".*.tmp")] == [".other_RRDB_PSNR_x4.pth.0f3a.tmp"]


# Several processes


def hold(path: Path, pipe: Connection) -> None:
    with lock(path, "held"):
        pipe.send("held")
        pipe.recv()


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of this kind")
def test_two_processes_do_not_train_one_run(tiny: Make, tmp_path: Path) -> None:
    options = {"stage": "pretraining", "run_name": "mine", "max_steps": 1}
    run(tiny(), tmp_path, **options)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ours, theirs = FORK.Pipe()
    other = FORK.Process(target=hold, args=(tmp_path / "logs/mine/.lock", theirs))
    other.start()
    try:
        assert ours.recv() == "held"
        with pytest.raises(EsrganError, match="logs/mine: another process is training mine; wait until it is done"):
            run(tiny(), tmp_path, resume=True, **options)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    finally:
        other.kill()
        other.join()
    assert run(tiny(), tmp_path, resume=True, **options) is True


def train_as_rank(rank: int, config: dict[str, Any], folder: Path, port: int) -> None:
    """Be one of two processes; what rank 1 gets in some steps is no number."""
    with pytest.MonkeyPatch.context() as patch, bad_steps(*((2, 3, 4) if rank == 1 else ())):
        for name, value in rank_environment(rank, port).items():
            patch.setenv(name, value)
        run(config, folder, stage="pretraining", checkpoint_interval=1, store_model_interval=1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="the second process is forked")
def test_all_processes_roll_back_alike(tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(pretraining={"num_steps": 8})
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun's
    other = FORK.Process(target=train_as_rank, args=(1, config, tmp_path / "other", store.port))
    other.start()
    try:
        train_as_rank(0, config, tmp_path / "ours", store.port)
        other.join(60)
        assert other.exitcode == 0
    finally:
        other.kill()
    line = "pretraining: every step from 3 to 5 was bad, the first one with gradient_norm nan, content_loss nan on "
    assert line in capsys.readouterr().out
    assert logged(tmp_path / "ours", "train", "pretraining")[6]["learning_rate"] == 2.5e-4
    with bad_steps(2, 3, 4):
        run(config, tmp_path / "one", stage="pretraining", checkpoint_interval=1)
    one, two = (contents(tmp_path / name)["PSNR_x4"]["params"] for name in ("one", "ours"))
    for name, value in one.items():
        assert (two[name] - value).norm() <= 1e-5 * value.norm(), name
