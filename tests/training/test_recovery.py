"""Recovery from non-finite steps and divergence: rollbacks, diagnosis, and the files that are saved."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import TCPStore

from esrgan.errors import TrainingError
from esrgan.losses import ContentLoss, PerceptualLoss
from esrgan.models import RRDBNet
from esrgan.training import recovery, setup, state
from esrgan.training.ema import ExponentialMovingAverage
from esrgan.training.recovery import Recovery, capture_state
from esrgan.training.stages import AdversarialStage, Autocast, PixelStage
from esrgan.training.updater import Updater, step_schedule
from tests.faults import compare
from tests.helpers.runs import (
    FORKSERVER,
    Killed,
    after_step,
    find_differences,
    kill,
    load_run_files,
    press_ctrl_c,
    rank_environment,
    records_by_step,
    run,
    train_main,
)

pytestmark = pytest.mark.usefixtures("foreground_signals")

CPU = torch.device("cpu")
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def early_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roll back after only three bad steps."""
    monkeypatch.setattr(recovery, "MAX_BAD_STEPS", 3)


@contextmanager
def bad_steps(*bad: int, stage: type = PixelStage, factor: float = math.nan) -> Iterator[None]:
    """Multiply the images of some steps, counted from 0, by a factor."""
    original = stage.step

    def step(self: Any, low: Tensor, high: Tensor, current: int, target: Tensor) -> dict[str, Tensor]:
        own = factor if current in bad else 1
        return original(self, low, high * own, current, target * own)

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


def test_a_skipped_step_is_counted_but_not_averaged(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(logging={"interval": 3}, validation_interval=6)
    with bad_steps(1):
        assert run(config, tmp_path / "skipped", stage="pretraining") is True
    run(config, tmp_path / "whole", stage="pretraining")
    one, other = (records_by_step(tmp_path / name, "train", "pretraining") for name in ("skipped", "whole"))
    assert [record["skipped_steps"] for record in one.values()] == [1, 0]
    assert [record["skipped_steps"] for record in other.values()] == [0, 0]
    assert all(isinstance(record["content_loss"], float) for record in one.values())
    assert one[3]["gradient_norm_peak"] >= one[3]["gradient_norm"] > 0
    assert one[3]["content_loss"] != other[3]["content_loss"]
    assert all(all_finite(content) for content in load_run_files(tmp_path / "skipped").values())


@pytest.mark.slow
def test_an_overflow_in_float16_does_not_cost_the_files_of_an_epoch(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scale of the loss grows until a gradient overflows; the weights are those before that step."""
    update = Updater.update

    def overflow(self: Updater, loss: Tensor, step: int, *rest: Any) -> Tensor:
        if step in (5, 7):
            self.parameters[0].grad.fill_(math.inf)  # type: ignore[union-attr]
        return update(self, loss, step, *rest)

    monkeypatch.setattr(Updater, "update", overflow)
    monkeypatch.setattr(setup, "low_precision_dtype", lambda *_: torch.float16)
    config = tiny_config(pretraining={"num_steps": 8})
    options = {"stage": "pretraining", "autocast": True, "store_model_interval": 1, "checkpoint_interval": 1}
    assert run(config, tmp_path, **options)
    assert records_by_step(tmp_path, "train", "pretraining")[6]["skipped_steps"] == 1
    assert {f"PSNR_x4_e{epoch}" for epoch in range(1, 5)} <= load_run_files(tmp_path).keys()
    assert "diverged" not in capsys.readouterr().err


# Back to the last good state


@pytest.mark.usefixtures("early_rollback")
@pytest.mark.slow
def test_bad_steps_roll_back_to_the_last_good_state(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = {}
    original = Recovery.roll_back

    def roll_back(self: Recovery) -> None:
        original(self)
        states["back"] = self.stage.generator.state_dict()["conv_first.weight"].clone()

    config = tiny_config(pretraining={"num_steps": 8}, validation_interval=100)
    with pytest.MonkeyPatch.context() as patch, bad_steps(3, 4, 5):
        patch.setattr(Recovery, "roll_back", roll_back)
        assert run(config, tmp_path / "bad", stage="pretraining", checkpoint_interval=1, store_model_interval=1) is True
    line = "pretraining: every step from 4 to 6 diverged, the first with content_loss nan, gradient_norm nan on "
    out = capsys.readouterr().out
    assert line in out
    assert out.count("the model of epoch 2 is not kept, because training diverged in its last step\n") == 1
    assert out.count("; rolled back to the weights of step 2 with 0.5 × the learning rate\n") == 1
    images = out.partition(line)[2].partition(";")[0].split(", ")
    assert len(images) == 2
    assert all(image in ("0.png", "1.png", "2.png", "3.png") for image in images)
    run(config, tmp_path / "short", stage="pretraining", max_steps=2)
    good = load_run_files(tmp_path / "short")["PSNR_x4_checkpoint"]["params"]["conv_first.weight"]
    assert torch.equal(states["back"], good)
    rates = {
        step: record["learning_rate"]
        for step, record in records_by_step(tmp_path / "bad", "train", "pretraining").items()
    }
    assert rates == {1: 1e-3, 2: 1e-3, 3: 1e-3, 4: 1e-3, 5: 5e-4, 6: 5e-4, 7: 2.5e-4, 8: 2.5e-4}
    assert all(all_finite(content) for content in load_run_files(tmp_path / "bad").values())
    capsys.readouterr()
    assert run(config, tmp_path / "bad", stage="pretraining", resume=True, max_steps=9) is True
    line = "pretraining: continues with 0.5 × the learning rate, because of earlier rollbacks\n"
    assert line in capsys.readouterr().out


@pytest.mark.usefixtures("early_rollback")
def test_few_or_scattered_bad_steps_do_not_roll_back(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with bad_steps(0, 1, 3, 4):
        assert run(tiny_config(), tmp_path, stage="pretraining") is True
    assert "back to" not in capsys.readouterr().out


@pytest.mark.usefixtures("early_rollback")
@pytest.mark.parametrize("stage", ["pretraining", "training"])
@pytest.mark.slow
def test_broken_weights_are_replaced_by_the_last_good_ones(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    kept: list[RRDBNet] = []
    original = state.make_stage

    def make_stage(*arguments: Any) -> Any:
        made = original(*arguments)
        kept.append(made.generator)
        return made

    def spoil() -> None:
        with torch.no_grad():
            kept[-1].conv_last.weight[0] = math.inf

    monkeypatch.setattr(state, "make_stage", make_stage)
    with after_step(stage, 3, spoil):
        config = tiny_config(validation_interval=100, **{stage: {"num_steps": 8}})
        assert run(config, tmp_path, stage=stage, checkpoint_interval=1) is True
    assert f"{stage}: every step from 4 to 6 diverged, the first with content_loss nan" in capsys.readouterr().out
    assert all(all_finite(content) for content in load_run_files(tmp_path).values())


ROLLBACK_OPTIONS = {"stage": "pretraining", "checkpoint_interval": 1, "run_name": "mine"}


@pytest.mark.usefixtures("early_rollback")
@pytest.mark.parametrize(("how", "stop"), [(press_ctrl_c, 3), (press_ctrl_c, 5), (press_ctrl_c, 7), (kill, 5)])
@pytest.mark.slow
def test_a_run_with_rollbacks_resumes_bit_identically(
    tiny_config: Make, rolled_back: Path, tmp_path: Path, how: Callable[[], None], stop: int
) -> None:
    config = tiny_config(pretraining={"num_steps": 8})
    with bad_steps(3, 4, 5):
        with after_step("pretraining", stop, how), suppress(Killed):
            assert run(config, tmp_path, **ROLLBACK_OPTIONS) is False
        assert run(config, tmp_path, resume=True, **ROLLBACK_OPTIONS) is True
    assert not compare(tmp_path, rolled_back)


@pytest.fixture(scope="module")
def rolled_back(tiny_config: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted run that rolls back."""
    folder = tmp_path_factory.mktemp("rolled_back")
    with bad_steps(3, 4, 5), pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "MAX_BAD_STEPS", 3)
        run(tiny_config(pretraining={"num_steps": 8}), folder, **ROLLBACK_OPTIONS)
    return folder


def test_a_stage_that_ends_broken_saves_nothing(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(tiny_config(pretraining={"lr": 1e6})))  # too short for a rollback
    arguments = [str(path), "-o", str(tmp_path / "out"), "--device", "cpu", "-i", "1", "-s", "1"]
    assert train_main(arguments) == 1
    assert "pretraining: the final generator produces no usable image; " in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.pth"))


def test_a_stage_without_a_good_step_fails(tiny_config: Make, tmp_path: Path) -> None:
    with bad_steps(*range(6)), pytest.raises(TrainingError) as caught:
        run(tiny_config(), tmp_path, stage="pretraining")
    text = str(caught.value)
    assert "pretraining: every step from 1 to 6 diverged, the first with content_loss nan" in text
    assert "; nothing was learned; lower pretraining.lr" in text
    assert not list(tmp_path.glob("*_x4.pth"))


@pytest.mark.usefixtures("early_rollback")
def test_a_stage_that_learned_after_a_rollback_has_its_model(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(pretraining={"num_steps": 8}, validation_interval=100, logging={"interval": 3})
    with bad_steps(0, 1, 2, 7):
        assert run(config, tmp_path, stage="pretraining") is True
    out, err = capsys.readouterr()
    assert "every step from 1 to 3 diverged" in out
    assert "every step from 8 to 8 diverged" in err
    assert err.endswith("; the last good weights were those of step 7; check the model before you use it\n")
    assert list(tmp_path.glob("*_x4.pth"))


def test_a_stage_that_ends_with_bad_steps_warns(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = []
    for factor in (math.nan, 1e4):  # the second loss is absurd but finite, so these steps change the weights
        with bad_steps(1, 4, 5, factor=factor):
            assert run(tiny_config(), tmp_path / str(factor), stage="pretraining") is True
        err = capsys.readouterr().err
        assert "warning: pretraining: every step from 5 to 6 diverged" in err
        assert err.endswith("; the last good weights were those of step 4; check the model before you use it\n")
        weights.append(load_run_files(tmp_path / str(factor))["PSNR_x4"]["params"])
    assert find_differences(*weights)


@pytest.mark.usefixtures("early_rollback")
def test_rollbacks_do_not_wait_for_log_lines(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(pretraining={"num_steps": 18}, logging={"interval": 100}, validation_interval=100)
    with bad_steps(*range(4, 18)), pytest.raises(TrainingError, match=r"3 rollbacks to step 0 .* did not help"):
        run(config, tmp_path, stage="pretraining")
    assert "every step from 5 to 9 diverged" in capsys.readouterr().out


@pytest.mark.usefixtures("early_rollback")
@pytest.mark.slow
def test_a_rollback_counts_bad_steps_from_before_a_larger_batch(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"stage": "pretraining", "run_name": "r"}
    with bad_steps(1, 2, 3), after_step("pretraining", 3, press_ctrl_c):
        assert run(tiny_config(), tmp_path, **options) is False
    with bad_steps(1, 2, 3):
        assert run(tiny_config(batch_size=4), tmp_path, resume=True, **options) is True
    line = "every step from 2 to 4 diverged, the first with content_loss nan, gradient_norm nan; rolled back"
    assert line in capsys.readouterr().out


@pytest.mark.usefixtures("early_rollback")
@pytest.mark.slow
def test_a_rollback_reduces_the_rate_of_an_unused_discriminator(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "training", "run_name": "r", "resume": True}
    assert run(tiny_config(), tmp_path, max_steps=1, **options) is True
    with bad_steps(1, 2, 3, stage=AdversarialStage):
        config = tiny_config(training={"g_adversarial_loss_scaling": 0})
        assert run(config, tmp_path, max_steps=5, **options) is True
    assert run(tiny_config(), tmp_path, **options) is True
    record = records_by_step(tmp_path, "train", "training")[6]
    assert record["g_learning_rate"] == 1e-3 / 4 / 2
    assert record["d_learning_rate"] == 2e-3 / 2 / 2


def test_recovery_can_resume_with_different_losses() -> None:
    generator = RRDBNet(4, 3, 4, 2, 1)
    updater = Updater(generator, step_schedule(1e-3, 9, 0.1), (0.9, 0.99))
    stage = PixelStage(generator, ContentLoss(), updater, Autocast(CPU))
    stopped, resumed = (Recovery(stage, ExponentialMovingAverage(generator, 0.9), 0) for _ in range(2))
    stopped.add({"content_loss": torch.tensor(0.5)}, 0)
    resumed.load_state_dict(stopped.state_dict(1))
    resumed.add({"content_loss": torch.tensor(math.nan), "perceptual_loss": torch.tensor(2.0)}, 1)
    assert resumed.diagnose() == ("content_loss nan", 1)


@pytest.mark.usefixtures("early_rollback")
@pytest.mark.slow
def test_an_absurd_learning_rate_ends_with_a_diagnosis(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(tiny_config(pretraining={"lr": 1e6, "num_steps": 40})))
    arguments = [str(path), "-o", str(tmp_path / "out"), "--device", "cpu", "--run-name", "mine", "-i", "1"]
    assert train_main(arguments) == 1
    out, err = capsys.readouterr()
    assert [line.rpartition("; ")[2] for line in out.splitlines() if "back to" in line] == [
        f"rolled back to the weights of step 0 with {factor} × the learning rate" for factor in (0.5, 0.25, 0.125)
    ]
    (line,) = err.splitlines()
    assert line.startswith("error: pretraining: every step from ")
    assert "content_loss " in line
    assert ".png" in line
    assert "3 rollbacks to step 0 with reduced learning rates did not help; lower pretraining.lr" in line
    assert not list((tmp_path / "out").glob("*.pth"))  # there was no good state to save
    path.write_text(json.dumps(tiny_config()))
    assert train_main([*arguments, "--resume", "auto"]) == 0


@pytest.mark.usefixtures("early_rollback")
@pytest.mark.slow
def test_a_nan_loss_is_named_and_never_saved(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = PerceptualLoss.forward, []

    def forward(self: PerceptualLoss, fake: Tensor, real: Tensor) -> Tensor:
        calls.append(fake.requires_grad)
        return original(self, fake, real) * (math.nan if calls.count(True) > 3 else 1)

    monkeypatch.setattr(PerceptualLoss, "forward", forward)
    config = tiny_config(training={"num_steps": 40}, validation_interval=100)
    with pytest.raises(TrainingError) as caught:
        run(config, tmp_path, stage="training", checkpoint_interval=1)
    (problem,) = caught.value.problems
    assert "every step from 4 to 12 diverged, the first with " in str(problem)
    bad = str(problem).partition("with ")[2].partition(" on ")[0]
    assert bad == "g_total_loss nan, perceptual_loss nan, g_gradient_norm nan"
    assert "lower training.g_lr and d_lr" in str(problem)
    (checkpoint,) = load_run_files(tmp_path).values()
    assert checkpoint["checkpoint"]["step"] == 2
    assert all_finite(checkpoint)


def make_stage_and_batch() -> tuple[PixelStage, ExponentialMovingAverage, tuple[Tensor, Tensor]]:
    """Return a stage, its average, and a batch."""
    generator = RRDBNet(4, 3, 8, 4, 1)
    updater = Updater(generator, step_schedule(1e-3, 1, 1.0), (0.9, 0.99))
    stage = PixelStage(generator, ContentLoss(), updater, Autocast(CPU))
    return stage, ExponentialMovingAverage(generator, 0.9), (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 32, 32))


def test_the_same_state_can_be_restored_repeatedly() -> None:
    stage, ema, batch = make_stage_and_batch()
    stage.step(*batch, 0)
    ema.update(0)
    guard, before = Recovery(stage, ema, 1), copy.deepcopy(capture_state(stage, ema))
    for factor in (0.5, 0.25):
        stage.step(*batch, 1)
        ema.update(1)
        assert find_differences(before, capture_state(stage, ema))
        guard.roll_back()
        assert stage.updaters[0].learning_rate_factor == factor
        assert find_differences(before, capture_state(stage, ema)) == ["/stage/generator_updater/rate_factor"]
    assert guard.rollbacks == 2
    guard.snapshot(2)
    assert guard.rollbacks == 2  # no step has succeeded since
    guard.add({"content_loss": torch.tensor(0.1)}, 2)
    guard.snapshot(2)
    assert (guard.rollbacks, guard.good["step"]) == (0, 2)


def test_only_a_gradient_that_overflows_leaves_weights_worth_saving() -> None:
    stage, ema, batch = make_stage_and_batch()
    guard, norm = Recovery(stage, ema, 0), torch.tensor(math.inf)
    guard.add({"content_loss": torch.tensor(0.1), "g_gradient_norm": norm}, 1)
    assert guard.is_healthy(*batch)
    guard.snapshot(2)
    assert guard.good["step"] == 0  # or a gradient that is never finite would not be noticed
    guard.roll_back()
    assert not guard.is_healthy(*batch)
    guard.add({"content_loss": torch.tensor(0.1), "g_gradient_norm": norm}, 2)
    assert not guard.is_healthy(*batch)
    guard.add({"content_loss": torch.tensor(0.1), "g_gradient_norm": torch.tensor(1.0)}, 3)
    assert guard.is_healthy(*batch)
    guard.add({"content_loss": torch.tensor(0.1), "d_adversarial_loss": norm}, 4)
    assert not guard.is_healthy(*batch)


def test_a_finite_divergence_counts_as_bad() -> None:
    stage, ema, batch = make_stage_and_batch()
    guard = Recovery(stage, ema, 0)
    guard.add({"content_loss": torch.tensor(99.0)}, 0)
    assert (guard.is_healthy(*batch), guard.needs_rollback()) == (True, False)
    for step in range(1, recovery.MAX_BAD_STEPS + 1):
        assert not guard.needs_rollback()
        guard.add({"content_loss": torch.tensor(101.0)}, step)
    assert guard.needs_rollback()
    assert guard.diagnose() == ("content_loss 101", 1)
    guard.add({"content_loss": torch.tensor(0.1)}, 99)
    assert guard.is_healthy(*batch)
    nn.init.constant_(stage.generator.conv_last.bias, 1e3)  # as if the update of that step had diverged
    assert not guard.is_healthy(*batch)


# Several processes


def train_as_rank(rank: int, config: dict[str, Any], folder: Path, port: int) -> None:
    """Train as one of two processes; the images of rank 1 are NaN in some steps."""
    with pytest.MonkeyPatch.context() as patch, bad_steps(*((2, 3, 4) if rank == 1 else ())):
        patch.setattr(recovery, "MAX_BAD_STEPS", 3)
        for name, value in rank_environment(rank, port).items():
            patch.setenv(name, value)
        run(config, folder, stage="pretraining", checkpoint_interval=1, store_model_interval=1)


@pytest.mark.usefixtures("early_rollback")
@pytest.mark.skipif(sys.platform != "linux", reason="uses a fork server")
@pytest.mark.slow
def test_all_processes_roll_back_together(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(pretraining={"num_steps": 8})
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # like torchrun's
    other = FORKSERVER.Process(target=train_as_rank, args=(1, config, tmp_path / "other", store.port))
    other.start()
    try:
        train_as_rank(0, config, tmp_path / "ours", store.port)
        other.join(60)
        assert other.exitcode == 0
    finally:
        other.kill()
    line = "pretraining: every step from 3 to 5 diverged, the first with gradient_norm nan, content_loss nan on "
    assert line in capsys.readouterr().out
    assert records_by_step(tmp_path / "ours", "train", "pretraining")[6]["learning_rate"] == 2.5e-4
    with bad_steps(2, 3, 4):
        run(config, tmp_path / "one", stage="pretraining", checkpoint_interval=1)
    one, two = (load_run_files(tmp_path / name)["PSNR_x4"]["params"] for name in ("one", "ours"))
    for name, value in one.items():
        assert (two[name] - value).norm() <= 1e-5 * value.norm(), name
