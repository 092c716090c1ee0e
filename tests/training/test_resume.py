"""Runs that are interrupted or killed and then resumed."""

from __future__ import annotations

import copy
import math
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from esrgan.config import Config
from esrgan.errors import TrainingError, WeightsError
from esrgan.training import checkpoint, loop
from esrgan.training.checkpoint import save_checkpoint
from esrgan.weights import load_file, save_file
from tests.faults import compare
from tests.helpers.runs import (
    Killed,
    after_step,
    comparable_content,
    find_differences,
    kill,
    load_run_files,
    press_ctrl_c,
    read_records,
    records_by_step,
    run,
)

pytestmark = pytest.mark.usefixtures("foreground_signals")

Make = Callable[..., dict[str, Any]]
NEWER_KEYS = [  # than the first checkpoints
    *((stage, key) for stage in ("pretraining", "training") for key in ("weight_decay", "sched", "warmup_steps")),
    *(("training", key) for key in ("gan_objective", "g_artifact_loss_scaling", "g_adversarial_ramp_steps")),
    *(("training", key) for key in ("d_pause_below", "g_consistency_loss_scaling", "g_pattern_loss_scaling")),
]


@contextmanager
def killed_after_checkpoint(stage: str, step: int) -> Iterator[None]:
    """Kill the run right after it has written the checkpoint of a step."""

    def save(path: Path, content: dict[str, Any], keep: int) -> None:
        save_checkpoint(path, content, keep)
        if (content["stage"], content["checkpoint"]["step"]) == (stage, step):
            kill()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save)
        yield


@contextmanager
def killed_in_step(stage: str, done: int) -> Iterator[None]:
    with after_step(stage, done, kill):
        yield


@pytest.mark.parametrize(
    ("stage", "done", "expected"),
    [
        ("pretraining", 1, ("pretraining", 1)),
        ("pretraining", 4, ("pretraining", 4)),
        ("pretraining", 6, ("pretraining", 6)),  # before the last validation
        ("training", 3, ("training", 3)),
        ("training", 5, ("training", 5)),
    ],
)
@pytest.mark.slow
def test_an_interrupted_run_resumes_bit_identically(
    reference_run: Path,
    tiny_config: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    done: int,
    expected: tuple[str, int],
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    number = signal.SIGTERM if done % 2 == 0 else signal.SIGINT
    with after_step(stage, done, lambda: signal.raise_signal(number)):
        assert run(tiny_config(), tmp_path) is False
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    kind = {"pretraining": "PSNR", "training": "ESRGAN"}[expected[0]]
    (checkpoint,) = tmp_path.glob(f"*_{kind}_x4_checkpoint.pth")
    out = capsys.readouterr().out
    assert f"stopped after step {expected[1]} of {expected[0]}; checkpoint {checkpoint} written" in out
    assert not list(tmp_path.glob(f"*_{kind}_x4.pth"))

    assert run(tiny_config(), tmp_path, resume=True) is True
    out = capsys.readouterr().out
    assert f"{checkpoint}: checkpoint of {expected[0]} at step {expected[1]}; resuming from there" in out
    assert "configuration has changed" not in out
    files, reference = load_run_files(tmp_path), load_run_files(reference_run)
    assert files.keys() == {name for name in reference if not re.search(r"_e\d$", name)}
    for name, content in files.items():
        assert not find_differences(comparable_content(content), comparable_content(reference[name])), name
    assert read_records(tmp_path) == read_records(reference_run)


def test_a_finished_run_is_not_run_again(reference_run: Path, tiny_config: Make, tmp_path: Path) -> None:
    shutil.copytree(reference_run, tmp_path / "out")
    assert run(tiny_config(), tmp_path / "out", resume=True) is True
    files, reference = load_run_files(tmp_path / "out"), load_run_files(reference_run)
    assert files.keys() == reference.keys()
    assert all(
        not find_differences(comparable_content(content), comparable_content(reference[name]))
        for name, content in files.items()
    )
    assert read_records(tmp_path / "out") == read_records(reference_run)


@pytest.mark.parametrize(
    "killing",
    [
        (killed_after_checkpoint, "pretraining", 2),
        (killed_in_step, "pretraining", 4),
        (killed_after_checkpoint, "pretraining", 6),
        (killed_in_step, "training", 2),  # before the first checkpoint of its stage
        (killed_after_checkpoint, "training", 4),
        (killed_in_step, "training", 6),
    ],
)
@pytest.mark.slow
def test_a_killed_run_resumes_from_its_last_checkpoint(
    reference_run: Path, tiny_config: Make, tmp_path: Path, killing: Any
) -> None:
    how, stage, step = killing
    with how(stage, step), pytest.raises(Killed):
        run(tiny_config(), tmp_path, checkpoint_interval=1)
    (log,) = tmp_path.glob("logs/*/log.jsonl")
    with log.open("a", encoding="utf-8") as file:
        file.write('{"time": 1795260532.836, "split": "train", "sta')  # cut off by a power failure
    assert run(tiny_config(), tmp_path, resume=True, checkpoint_interval=1) is True
    files, reference = load_run_files(tmp_path), load_run_files(reference_run)
    for name, content in files.items():
        assert not find_differences(comparable_content(content), comparable_content(reference[name])), name
    assert files.keys() == {name for name in reference if not re.search(r"_e\d$", name)}
    assert read_records(tmp_path) == read_records(reference_run)


@pytest.mark.slow
def test_no_epoch_model_is_lost_when_killed(reference_run: Path, tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "pretraining", "checkpoint_interval": 1, "store_model_interval": 1}
    with killed_after_checkpoint("pretraining", 2), pytest.raises(Killed):
        run(tiny_config(), tmp_path, **options)
    run(tiny_config(), tmp_path, resume=True, **options)
    files, reference = load_run_files(tmp_path), load_run_files(reference_run)
    assert files.keys() == {name for name in reference if name.startswith("PSNR")}
    assert all(not find_differences(files[name]["params"], reference[name]["params"]) for name in files)


def wait_for_next_second() -> None:
    """Wait because TensorBoard orders event files by the second in which they were created."""
    time.sleep(1.01 - time.time() % 1)


@pytest.mark.slow
def test_tensorboard_shows_each_step_once_after_a_kill(tiny_config: Make, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_config(logging={"tensorboard": True, "num_images": 1})
    with killed_in_step("training", 2), pytest.raises(Killed):
        run(config, tmp_path, checkpoint_interval=2, max_steps=4)
    for path in tmp_path.glob("*_PSNR_x4_checkpoint.pth"):
        content = load_file(path)
        assert content["checkpoint"]["step"] == 4
    wait_for_next_second()
    assert run(config, tmp_path, resume=True, checkpoint_interval=2, max_steps=4) is True
    for stage in ("pretraining", "training"):
        for name, tags in ((stage, {"loss/content": [1, 2, 3, 4]}), (f"{stage}_bicubic", {})):
            (folder,) = tmp_path.glob(f"logs/*/tensorboard/{name}")
            events = EventAccumulator(str(folder)).Reload()
            for tag, steps in (tags | {"validation/PSNR": [0, 2, 4]}).items():
                assert [event.step for event in events.Scalars(tag)] == steps, (name, tag)


@pytest.mark.slow
def test_tensorboard_drops_the_steps_that_are_repeated(tiny_config: Make, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_config(logging={"tensorboard": True, "num_images": 1})
    with killed_in_step("pretraining", 4), pytest.raises(Killed):
        run(config, tmp_path, checkpoint_interval=1, stage="pretraining")
    wait_for_next_second()
    assert run(config, tmp_path, resume=True, stage="pretraining") is True
    (folder,) = tmp_path.glob("logs/*/tensorboard/pretraining")
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("loss/content")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_tensorboard_drops_later_steps_of_what_is_no_longer_logged(tiny_config: Make, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging = {"tensorboard": True, "num_images": 1}
    options = {"checkpoint_interval": 1, "run_name": "r"}
    run(tiny_config(logging=logging, keep_checkpoints=2), tmp_path, max_steps=4, **options)
    older = tmp_path / "r_RRDB_PSNR_x4_checkpoint_1.pth"  # of step 2
    config = tiny_config(logging=logging, pretraining={"val_datasets": []}, training={"val_datasets": []})
    for path in tmp_path.glob("r_RRDB_ESRGAN_x4*.pth"):
        path.unlink()  # otherwise the run would not begin this stage again
    (tmp_path / "logs/r/log.jsonl").write_text("")  # as if an attempt without TensorBoard had shortened it
    wait_for_next_second()
    with after_step("training", 1, kill), pytest.raises(Killed):
        run(config, tmp_path, load_checkpoint=older, max_steps=2, **options)
    shown = {}
    for folder in tmp_path.glob("logs/*/tensorboard/*"):
        events = EventAccumulator(str(folder)).Reload()
        tags = events.Tags()["scalars"]
        shown[folder.name] = {event.step for tag in tags for event in events.Scalars(tag)}
    bicubic = {"pretraining_bicubic": {0, 2}, "training_bicubic": set()}
    assert shown == {"pretraining": {0, 1, 2}, "training": set()} | bicubic


@pytest.mark.slow
def test_stopping_between_log_records_does_not_change_them(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(validation_interval=None, logging={"interval": None}, pretraining={"num_steps": 45})
    run(config, tmp_path / "whole", stage="pretraining")  # logged every second step, and after the last
    with after_step("pretraining", 3, press_ctrl_c):
        assert run(config, tmp_path / "stopped", stage="pretraining") is False
    run(config, tmp_path / "stopped", stage="pretraining", resume=True)
    assert not compare(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.slow
def test_a_named_run_killed_before_its_first_checkpoint_restarts(
    reference_run: Path, tiny_config: Make, tmp_path: Path
) -> None:
    options = {"stage": "pretraining", "run_name": "mine"}
    with after_step("pretraining", 1, kill), pytest.raises(Killed):
        run(tiny_config(), tmp_path, **options)
    with after_step("pretraining", 2, kill), pytest.raises(Killed):
        run(tiny_config(), tmp_path, resume=True, **options)
    steps = [(record["split"], record["step"]) for record in read_records(tmp_path)]
    assert steps == [("validation", 0), ("bicubic", 0), ("train", 1)]
    with pytest.raises(WeightsError, match="already has a run named mine"):
        run(tiny_config(), tmp_path, **options)
    assert run(tiny_config(), tmp_path, resume=True, **options) is True
    assert read_records(tmp_path) == [
        record for record in read_records(reference_run) if record["stage"] == "pretraining"
    ]
    assert {path.name.partition("_RRDB_")[0] for path in tmp_path.glob("*.pth")} == {"mine"}


@pytest.mark.slow
def test_a_run_that_ends_at_any_of_its_first_files_is_resumed(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config()
    options = {"stage": "pretraining", "run_name": "mine", "max_steps": 2}
    store = {"store_model_interval": 1}  # an epoch has two steps
    assert run(config, tmp_path / "whole", **options, **store) is True
    reference = load_run_files(tmp_path / "whole")
    for failing in ("checkpoint", "best_model", "e1", "x4"):
        out_dir = tmp_path / failing

        def fail(path: Path, content: dict[str, Any], failing: str = failing) -> None:
            if path.stem.removesuffix("_new").endswith(failing):
                kill()
            save_file(path, content)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "save_file", fail)
            patch.setattr(checkpoint, "save_file", fail)
            with pytest.raises(Killed):
                run(config, out_dir, resume=True, **options, **store)
        assert run(config, out_dir, resume=True, **options, **store) is True
        files = load_run_files(out_dir)
        for name, content in reference.items():
            assert not find_differences(comparable_content(content), comparable_content(files[name])), name
        assert read_records(out_dir) == read_records(tmp_path / "whole")


@pytest.mark.slow
def test_a_named_run_is_resumed_by_its_name(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("first", "second"):
        with after_step("pretraining", 2, press_ctrl_c):
            assert run(tiny_config(), tmp_path, stage="pretraining", run_name=name) is False
    capsys.readouterr()
    run(tiny_config(), tmp_path, stage="pretraining", run_name="first", resume=True, max_steps=3)
    assert f"{tmp_path}/first_RRDB_PSNR_x4_checkpoint.pth: checkpoint of pretraining" in capsys.readouterr().out
    assert (tmp_path / "first_RRDB_PSNR_x4.pth").exists()
    assert not (tmp_path / "second_RRDB_PSNR_x4.pth").exists()


def test_with_nothing_to_resume_a_new_run_starts(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_config(), tmp_path, stage="pretraining", resume=True, max_steps=1) is True
    out = capsys.readouterr().out
    assert f"no checkpoint of tiny.json in {tmp_path}; starting a new run" in out
    assert "starting pretraining" in out


@pytest.mark.slow
def test_a_run_started_from_a_file_resumes_from_its_checkpoint(
    reference_run: Path, tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model,) = reference_run.glob("*_RRDB_PSNR_x4.pth")
    options = {"load_checkpoint": model, "resume": True}
    with after_step("training", 2, press_ctrl_c):
        assert run(tiny_config(), tmp_path, **options) is False
    assert f"{model}: " in capsys.readouterr().out
    assert run(tiny_config(), tmp_path, **options) is True
    out = capsys.readouterr().out
    assert f"checkpoint of training at step 2; resuming from there; {model} is not used, as the run has begun" in out


@pytest.mark.parametrize(("damage", "named"), [("cut", True), ("flip", False)])
@pytest.mark.slow
def test_a_damaged_checkpoint_is_skipped_for_the_previous_one(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str, named: bool
) -> None:
    options = {"stage": "pretraining", "checkpoint_interval": 1} | ({"run_name": "mine"} if named else {})
    config = tiny_config(keep_checkpoints=2, validation_interval=100)
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
    assert f"--resume auto: skipping {newest}: damaged" in out
    assert "_checkpoint_1.pth: checkpoint of pretraining at step 2; resuming from there" in out
    assert not compare(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_a_changed_configuration_is_reported_and_used(
    tiny_config: Make, stop_run: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out_dir = stop_run("pretraining")
    changed = tiny_config(pretraining={"lr": 5e-4, "num_steps": 3}, batch_size=1)
    assert run(changed, out_dir, stage="pretraining", resume=True) is True
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "the configuration has changed" in line]
    for change in ("batch_size: 2 → 1", "pretraining.lr: 0.001 → 0.0005", "pretraining.num_steps: 6 → 3"):
        assert change in line
    assert line.count("→") == 3
    assert records_by_step(out_dir, "train", "pretraining")[3]["learning_rate"] == 5e-4
    assert load_run_files(out_dir)["PSNR_x4"]["hparams"] == Config.model_validate(changed).to_dict()


@pytest.mark.slow
def test_a_checkpoint_without_newer_keys_resumes_as_unchanged(
    reference_run: Path, tiny_config: Make, stop_run: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out_dir = stop_run("pretraining")
    (path,) = out_dir.glob("*_checkpoint.pth")
    content = load_file(path)
    for section, key in NEWER_KEYS:
        del content["hparams"][section][key]
    save_file(path, content)
    assert run(tiny_config(), out_dir, stage="pretraining", resume=True) is True
    assert "configuration has changed" not in capsys.readouterr().out
    ours, reference = load_run_files(out_dir)["PSNR_x4"], load_run_files(reference_run)["PSNR_x4"]
    assert not find_differences(ours["params"], reference["params"])


@pytest.mark.slow
def test_changed_betas_are_used_on_resume(tiny_config: Make, stop_run: Callable[[str], Path]) -> None:
    out_dir = stop_run("pretraining")
    run(tiny_config(pretraining={"betas": [0.5, 0.75]}), out_dir, stage="pretraining", resume=True, max_steps=3)
    optimizer = load_run_files(out_dir)["PSNR_x4_checkpoint"]["checkpoint"]["stage"]["generator_updater"]["optimizer"]
    assert tuple(optimizer["param_groups"][0]["betas"]) == (0.5, 0.75)


@pytest.mark.slow
def test_changed_weight_decay_is_used_on_resume(tiny_config: Make, stop_run: Callable[[str], Path]) -> None:
    out_dir = stop_run("pretraining")
    run(tiny_config(pretraining={"weight_decay": 0.1}), out_dir, stage="pretraining", resume=True, max_steps=3)
    optimizer = load_run_files(out_dir)["PSNR_x4_checkpoint"]["checkpoint"]["stage"]["generator_updater"]["optimizer"]
    group = optimizer["param_groups"][0]
    assert (group["weight_decay"], group["decoupled_weight_decay"]) == (0.1, True)


@pytest.mark.parametrize("changes", [{"vgg_blk_ch": [4, 4, 8]}, {"type": "unet", "num_features": 4}])
@pytest.mark.slow
def test_resuming_with_another_discriminator_is_an_error(
    tiny_config: Make, stop_run: Callable[[str], Path], changes: dict[str, Any]
) -> None:
    out_dir = stop_run("training")
    before = {path: path.read_bytes() for path in out_dir.rglob("*") if path.is_file()}
    (checkpoint,) = out_dir.glob("*_checkpoint.pth")
    given = checkpoint.rename(out_dir / "given.pth")
    before[given] = before.pop(checkpoint)
    for options in ({"load_checkpoint": given}, {"load_checkpoint": given, "run_name": "other"}):
        with pytest.raises(WeightsError, match=f"^{re.escape(str(given))}: .*discriminator"):
            run(tiny_config(discriminator=changes), out_dir, stage="training", **options)
    given.rename(checkpoint)
    before[checkpoint] = before.pop(given)
    with pytest.raises(WeightsError, match="discriminator"):
        run(tiny_config(discriminator=changes), out_dir, stage="training", resume=True)
    assert {path: path.read_bytes() for path in out_dir.rglob("*") if path.is_file()} == before
    assert not (out_dir / "logs/other").exists()


@pytest.mark.slow
def test_the_adversarial_loss_may_begin_in_a_resumed_run(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with after_step("training", 3, press_ctrl_c):
        config = tiny_config(training={"g_adversarial_loss_scaling": 0})
        assert run(config, tmp_path / "out", stage="training", run_name="r") is False
    state = load_run_files(tmp_path / "out")["ESRGAN_x4_checkpoint"]["checkpoint"]["stage"]
    assert state.keys() == {"generator_updater"}
    options = {"stage": "training", "run_name": "r", "resume": True}
    config = tiny_config(discriminator={"type": "unet", "num_features": 4}, training={"g_adversarial_ramp_steps": 2})
    assert run(config, tmp_path / "out", max_steps=5, **options) is True
    text = "the adversarial loss begins at step 4; the checkpoint has no discriminator"
    assert f"training: {text}, and its ramp over the first 2 steps of the stage is over\n" in capsys.readouterr().out
    assert "d_adversarial_loss" in records_by_step(tmp_path / "out", "train", "training")[5]
    assert run(config, tmp_path / "out", max_steps=6, **options) is True
    assert text not in capsys.readouterr().out


@pytest.mark.slow
def test_the_adversarial_loss_does_not_begin_in_a_stage_that_is_over(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"stage": "training", "run_name": "r", "max_steps": 2}
    assert run(tiny_config(training={"g_adversarial_loss_scaling": 0}), tmp_path, **options) is True
    assert run(tiny_config(), tmp_path, resume=True, **options) is True
    assert "the adversarial loss begins" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_trained_discriminator_is_kept_while_it_is_not_used(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "training", "run_name": "r", "resume": True}
    assert run(tiny_config(), tmp_path, max_steps=2, **options) is True
    before = load_run_files(tmp_path)["ESRGAN_x4_checkpoint"]["checkpoint"]["stage"]["discriminator"]
    assert run(tiny_config(training={"g_adversarial_loss_scaling": 0}), tmp_path, max_steps=4, **options) is True
    state = load_run_files(tmp_path)["ESRGAN_x4_checkpoint"]["checkpoint"]["stage"]
    assert not find_differences(before, state["discriminator"])


@pytest.mark.slow
def test_an_unused_discriminator_may_be_of_another_type(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "training", "run_name": "r", "resume": True}
    assert run(tiny_config(), tmp_path, max_steps=1, **options) is True
    before = load_run_files(tmp_path)["ESRGAN_x4_checkpoint"]["checkpoint"]["stage"]
    unet = {"type": "unet", "num_features": 4}
    config = tiny_config(training={"g_adversarial_loss_scaling": 0}, discriminator=unet)
    for steps in (2, 3):
        assert run(config, tmp_path, max_steps=steps, **options) is True
    state = load_run_files(tmp_path)["ESRGAN_x4_checkpoint"]["checkpoint"]["stage"]
    for name in ("discriminator", "discriminator_updater"):
        assert not find_differences(before[name], state[name])
    with pytest.raises(WeightsError, match="discriminator"):
        run(tiny_config(discriminator=unet), tmp_path, **options)
    assert run(tiny_config(), tmp_path, **options) is True


@pytest.mark.slow
def test_a_learning_rate_schedule_may_change_between_the_parts_of_a_run(tiny_config: Make, tmp_path: Path) -> None:
    cosine = {"sched": "cosine", "sched_step": 200000}
    parts: list[tuple[int, dict[str, Any]]] = [
        (2, {"warmup_steps": 4}),
        (4, cosine | {"num_steps": 6}),
        (5, cosine | {"num_steps": 8, "warmup_steps": 6, "weight_decay": 0.1}),
        (6, {"num_steps": 8, "sched_step": 2}),
    ]
    options = {"stage": "pretraining", "run_name": "r", "resume": True}
    for steps, changes in parts:
        assert run(tiny_config(pretraining=changes, validation_interval=9), tmp_path, max_steps=steps, **options)
    rates = [record["learning_rate"] for record in records_by_step(tmp_path, "train", "pretraining").values()]
    cosines = [(1 + math.cos(math.pi * share)) / 2 for share in (2 / 6, 3 / 6, 4 / 8)]
    expected = [1 / 4, 2 / 4, cosines[0], cosines[1], cosines[2] * 5 / 6, 1 / 4]
    assert rates == pytest.approx([1e-3 * each for each in expected])


@pytest.mark.slow
def test_a_log_line_does_not_mix_losses_from_before_and_after_a_change(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "training", "run_name": "r"}
    for name, interval in (("one", 3), ("two", 1)):  # at the checkpoint, the first run is within an interval
        config = {"logging": {"interval": interval, "tensorboard": False}}
        with after_step("training", 2, press_ctrl_c):
            assert run(tiny_config(**config), tmp_path / name, **options) is False
        config = tiny_config(**config, training={"gan_objective": "hinge"})
        assert run(config, tmp_path / name, resume=True, max_steps=3, **options) is True
    one, two = (records_by_step(tmp_path / name, "train", "training")[3] for name in ("one", "two"))
    assert one == two


@pytest.mark.slow
def test_training_the_psnr_stage_again_keeps_the_log_of_the_gan_stage(tiny_config: Make, tmp_path: Path) -> None:
    assert run(tiny_config(), tmp_path, run_name="r", max_steps=2) is True
    before = read_records(tmp_path)
    assert run(tiny_config(), tmp_path, run_name="r", max_steps=2, stage="pretraining", resume=True) is True
    assert read_records(tmp_path) == before


def start_and_stop(config: dict[str, Any], out_dir: Path, **options: Any) -> None:
    with after_step("pretraining", 2, press_ctrl_c):
        assert run(config, out_dir, stage="pretraining", **options) is False


@pytest.mark.slow
def test_another_configuration_of_the_same_name_is_another_run(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start_and_stop(tiny_config(), tmp_path, config_name="/one/config.json")
    before = {path: path.read_bytes() for path in tmp_path.glob("*.pth")}
    other = tiny_config(pretraining={"lr": 5e-4})
    options = {"stage": "pretraining", "resume": True, "config_name": "/other/config.json"}
    assert run(other, tmp_path, **options) is True
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "is another run of a configuration called config.json" in line]
    assert "pretraining.lr: 0.001 → 0.0005" in line
    assert f"no checkpoint of config.json in {tmp_path}; starting a new run" in out
    assert {path: path.read_bytes() for path in before} == before
    # Each of them finds its own run, also when the file was moved or copied.
    options["config_name"] = "/moved/config.json"
    assert run(other, tmp_path, **options) is True
    assert "pretraining: all steps are done (6)" in capsys.readouterr().out
    assert run(tiny_config(), tmp_path, **options) is True
    assert "checkpoint of pretraining at step 2; resuming from there" in capsys.readouterr().out


@pytest.mark.slow
def test_another_seed_is_another_run(tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start_and_stop(tiny_config(), tmp_path)
    assert run(tiny_config(seed=5), tmp_path, stage="pretraining", resume=True, max_steps=1) is True
    assert "starting a new run" in capsys.readouterr().out


@pytest.mark.parametrize("difference", ["seed", "images"])
@pytest.mark.slow
def test_a_named_run_of_another_experiment_is_not_resumed(
    tiny_config: Make, write_images: Callable[..., Path], tmp_path: Path, difference: str
) -> None:
    out_dir = tmp_path / "out"
    start_and_stop(tiny_config(), out_dir, run_name="mine")
    before = {path: path.read_bytes() for path in out_dir.rglob("*") if path.is_file()}
    others = {"train_datasets": [str(write_images(tmp_path / "others", 2, (90, 80)))]}
    changed = tiny_config(seed=5) if difference == "seed" else tiny_config(pretraining=others)
    options = {"stage": "pretraining", "run_name": "mine"}
    with pytest.raises(WeightsError, match=r"the run mine has .* choose another --run-name .* by -l ") as e:
        run(changed, out_dir, resume=True, **options)
    assert "seed" in str(e.value) if difference == "seed" else "images" in str(e.value)
    assert {path: path.read_bytes() for path in out_dir.rglob("*") if path.is_file()} == before
    # Explicitly, it can be continued.
    assert run(changed, out_dir, stage="pretraining", load_checkpoint=out_dir / "mine_RRDB_PSNR_x4_checkpoint.pth")


@pytest.mark.slow
def test_model_files_without_a_checkpoint_are_not_overwritten(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "pretraining", "run_name": "mine", "max_steps": 1}
    assert run(tiny_config(), tmp_path, **options) is True
    for path in tmp_path.glob("*_checkpoint*.pth"):
        path.unlink()
    with pytest.raises(WeightsError, match="already has a run named mine; it has no checkpoint to resume"):
        run(tiny_config(), tmp_path, resume=True, **options)


@pytest.mark.slow
def test_a_finished_model_keeps_its_configuration(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "pretraining", "run_name": "mine"}
    assert run(tiny_config(), tmp_path, **options) is True
    model = tmp_path / "mine_RRDB_PSNR_x4.pth"
    before = model.read_bytes()
    assert run(tiny_config(pretraining={"lr": 5e-4}), tmp_path, resume=True, **options) is True
    assert model.read_bytes() == before


@pytest.mark.slow
def test_a_stage_that_ends_at_its_checkpoint_replaces_an_earlier_model(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "pretraining", "run_name": "mine"}
    assert run(tiny_config(), tmp_path, max_steps=1, **options) is True
    with after_step("pretraining", 3, press_ctrl_c):
        assert run(tiny_config(), tmp_path, resume=True, **options) is False
    assert run(tiny_config(), tmp_path, resume=True, max_steps=3, **options) is True
    files = load_run_files(tmp_path)
    assert not find_differences(files["PSNR_x4"]["params"], files["PSNR_x4_checkpoint"]["params_ema"])


@pytest.mark.slow
def test_a_stage_that_is_shortened_to_its_checkpoint_is_validated(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"stage": "pretraining", "run_name": "mine"}
    with after_step("pretraining", 3, press_ctrl_c):
        assert run(tiny_config(), tmp_path, **options) is False
    assert 3 not in records_by_step(tmp_path, "validation", "pretraining")
    assert run(tiny_config(), tmp_path, resume=True, max_steps=3, **options) is True
    assert 3 in records_by_step(tmp_path, "validation", "pretraining")
    places = [(record["split"], record["step"]) for record in read_records(tmp_path)]
    assert len(places) == len(set(places))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.pth")}
    capsys.readouterr()
    assert run(tiny_config(), tmp_path, resume=True, max_steps=3, **options) is True
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.pth")} == before
    assert "pretraining: all steps are done (3)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_stage_that_is_shortened_to_its_checkpoint_ends_with_a_log_line(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"stage": "pretraining", "run_name": "mine"}
    config = tiny_config(logging={"interval": 2})
    with after_step("pretraining", 3, press_ctrl_c):
        assert run(config, tmp_path / "out", **options) is False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_validate", lambda *_, **__: kill())
        with pytest.raises(Killed):
            run(config, tmp_path / "out", resume=True, max_steps=3, **options)
    for _ in range(2):
        assert run(config, tmp_path / "out", resume=True, max_steps=3, **options) is True
    assert capsys.readouterr().out.count("pretraining 3/3, learning rate 0.001, loss: content ") == 2
    assert run(config, tmp_path / "whole", max_steps=3, **options) is True
    assert read_records(tmp_path / "out") == read_records(tmp_path / "whole")


@pytest.mark.slow
def test_a_stage_that_is_shortened_to_a_validated_step_has_one_validation(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "pretraining", "run_name": "mine"}
    with killed_in_step("pretraining", 3), pytest.raises(Killed):
        run(tiny_config(), tmp_path, checkpoint_interval=1, **options)
    assert run(tiny_config(), tmp_path, resume=True, max_steps=2, **options) is True
    places = [(record["split"], record["step"]) for record in read_records(tmp_path)]
    assert ("validation", 2) in places
    assert len(places) == len(set(places))


@pytest.mark.slow
def test_a_stage_may_be_shortened_and_its_batch_enlarged(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "pretraining", "run_name": "mine"}
    with after_step("pretraining", 1, press_ctrl_c):
        assert run(tiny_config(), tmp_path, **options) is False
    assert run(tiny_config(batch_size=4), tmp_path, resume=True, max_steps=1, **options) is True


@pytest.mark.slow
def test_a_broken_generator_is_not_the_model_of_a_shortened_stage(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "pretraining", "run_name": "mine"}
    with after_step("pretraining", 3, press_ctrl_c):
        assert run(tiny_config(pretraining={"lr": 1e20}), tmp_path, **options) is False
    with pytest.raises(TrainingError, match="the final generator produces no usable image"):
        run(tiny_config(), tmp_path, resume=True, max_steps=3, **options)
    assert not (tmp_path / "mine_RRDB_PSNR_x4.pth").exists()


@pytest.mark.slow
def test_a_resumed_gan_stage_says_that_its_psnr_stage_was_shorter(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_config(), tmp_path, max_steps=2) is True
    capsys.readouterr()
    assert run(tiny_config(), tmp_path, resume=True, max_steps=2) is True
    assert "pretraining" not in capsys.readouterr().out
    assert run(tiny_config(), tmp_path, resume=True, max_steps=3) is True
    assert "pretraining: ended after 2 of 3 steps, and the GAN stage started from that" in capsys.readouterr().out
    assert run(tiny_config(), tmp_path, resume=True, max_steps=3) is True
    assert "pretraining: ended" not in capsys.readouterr().out  # the GAN stage is over


@pytest.mark.slow
def test_other_training_images_are_counted_on_resume(
    tiny_config: Make, write_images: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "images", 3)
    config = tiny_config(pretraining={"train_datasets": [str(folder)]}, cache_dir=str(tmp_path / "cache"))
    options = {"stage": "pretraining", "run_name": "mine", "resume": True}
    assert run(config, tmp_path / "out", max_steps=1, **options) is True
    assert run(config, tmp_path / "out", max_steps=1, **options) is True
    assert "training images have changed" not in capsys.readouterr().out
    Image.open(folder / "0.png").transpose(Image.Transpose.ROTATE_180).save(folder / "0.png")
    (folder / "1.png").unlink()
    assert run(config, tmp_path / "out", max_steps=1, **options) is True
    assert "the training images have changed since the checkpoint: 1 new, 2 removed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "line", "steps"),
    [
        ({"batch_size": 4}, "1.5 epochs or 3 steps are done, 2 steps remain (1 per epoch)", 5),
        ({"pretraining": {"num_epoch": None, "num_steps": 8}}, "5 steps remain", 8),
        ({"pretraining": {"num_epoch": None, "num_steps": 4}}, "1 step remains (2 per epoch)", 4),
        ({"pretraining": {"num_epoch": None, "num_steps": 2}}, "0 steps remain (2 per epoch), so it is over", 3),
    ],
)
@pytest.mark.slow
def test_a_stage_in_epochs_resumes_with_what_remains(
    tiny_config: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    line: str,
    steps: int,
) -> None:
    config = tiny_config(pretraining={"num_epoch": 3, "num_steps": None})  # of two steps
    with after_step("pretraining", 3, press_ctrl_c):
        assert run(config, tmp_path, stage="pretraining") is False
    merged = copy.deepcopy(config)
    for key, value in changes.items():
        merged[key] = merged[key] | value if isinstance(value, dict) else value
    assert run(merged, tmp_path, stage="pretraining", resume=True) is True
    assert line in capsys.readouterr().out
    assert load_run_files(tmp_path)["PSNR_x4_checkpoint"]["checkpoint"]["step"] == steps


@pytest.mark.slow
def test_the_model_is_written_before_the_stage_counts_as_finished(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "pretraining", "run_name": "mine"}
    run(tiny_config(), tmp_path, max_steps=3, **options)
    model = tmp_path / "mine_RRDB_PSNR_x4.pth"
    before = model.read_bytes()

    def fail(path: Path, content: dict[str, Any]) -> None:
        if path == model:
            kill()
        save_file(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_file", fail)
        with pytest.raises(Killed):
            run(tiny_config(), tmp_path, resume=True, **options)
    assert model.read_bytes() == before
    assert run(tiny_config(), tmp_path, resume=True, **options) is True
    files = load_run_files(tmp_path)
    assert not find_differences(files["PSNR_x4"]["params"], files["PSNR_x4_checkpoint"]["params_ema"])


@pytest.mark.slow
def test_a_loaded_checkpoint_never_takes_over_another_run(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b"):
        run(tiny_config(), tmp_path / folder, stage="pretraining", run_name="mine", max_steps=2)
    before = {path: path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file()}
    checkpoint = tmp_path / "a" / "mine_RRDB_PSNR_x4_checkpoint.pth"
    options = {"stage": "pretraining", "load_checkpoint": checkpoint}
    with pytest.raises(WeightsError, match="already has a run named mine"):
        run(tiny_config(), tmp_path / "b", **options)
    assert {path: path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file()} == before
    # In its own folder, however that is written, the run continues.
    monkeypatch.setenv("HOME", str(tmp_path))
    home = {"stage": "pretraining", "load_checkpoint": Path("~/a") / checkpoint.name, "max_steps": 2}
    assert run(tiny_config(), tmp_path / "a", **home) is True
    # Another name makes a copy of the run, in any folder.
    original = (tmp_path / "a" / "mine_RRDB_PSNR_x4.pth").read_bytes()
    for folder in ("a", "b"):
        assert run(tiny_config(), tmp_path / folder, run_name="fork", **options) is True
        assert (tmp_path / folder / "fork_RRDB_PSNR_x4.pth").exists()
    assert (tmp_path / "a" / "mine_RRDB_PSNR_x4.pth").read_bytes() == original


def test_a_finished_stage_is_never_begun_again(reference_run: Path, tiny_config: Make, tmp_path: Path) -> None:
    out_dir = tmp_path / "out"
    shutil.copytree(reference_run, out_dir)
    (pretraining,) = out_dir.glob("*_PSNR_x4_checkpoint.pth")
    before = {path: path.read_bytes() for path in out_dir.rglob("*") if path.is_file()}
    changed = tiny_config(training={"g_lr": 1e-2})
    for config in (changed, tiny_config(pretraining={"num_steps": 8})):
        with pytest.raises(WeightsError, match="this run would start training over and replace its files"):
            run(config, out_dir, load_checkpoint=pretraining)
    assert {path: path.read_bytes() for path in out_dir.rglob("*") if path.is_file()} == before
    (gan,) = out_dir.glob("*_ESRGAN_x4_checkpoint.pth")
    gan.unlink()
    for stage in ("all", "training"):
        with pytest.raises(WeightsError, match=r"_RRDB_ESRGAN_x4\.pth: this run would start training over"):
            run(tiny_config(), out_dir, resume=True, stage=stage)
    assert run(changed, out_dir, load_checkpoint=pretraining, run_name="other", max_steps=1) is True
    assert all(path.read_bytes() == content for path, content in before.items() if path != gan)


@pytest.mark.slow
def test_the_gan_stage_continues_a_named_run(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("mine", None):
        out_dir = tmp_path / str(name)
        assert run(tiny_config(), out_dir, stage="pretraining", run_name=name, max_steps=2) is True
        assert run(tiny_config(), out_dir, stage="training", run_name=name, resume=True, max_steps=2) is True
        assert {"PSNR_x4", "ESRGAN_x4"} <= load_run_files(out_dir).keys()
        assert len({path.name.partition("_RRDB_")[0] for path in out_dir.glob("*.pth")}) == 1
        assert {record["stage"] for record in read_records(out_dir)} == {"pretraining", "training"}


@pytest.mark.slow
def test_library_runs_without_a_file_are_told_apart_by_content(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"stage": "pretraining", "resume": True, "config_name": "esrgan", "max_steps": 1}
    for learning_rate in (1e-3, 1e-2):
        assert run(tiny_config(pretraining={"lr": learning_rate}), tmp_path, **options) is True
        assert "starting a new run" in capsys.readouterr().out
    assert run(tiny_config(), tmp_path, **options) is True
    assert "resuming from there" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 201])
def test_run_names_that_cannot_name_files_are_refused(tiny_config: Make, tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="expected a part of a file name of at most 200 bytes"):
        run(tiny_config(), tmp_path, stage="pretraining", run_name=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_old_checkpoint_continues_with_another_batch_size(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(pretraining={"num_epoch": 3, "num_steps": None})
    options = {"stage": "pretraining", "run_name": "mine"}
    run(config, tmp_path, max_steps=2, **options)
    path = tmp_path / "mine_RRDB_PSNR_x4_checkpoint.pth"
    content = load_file(path)
    del content["checkpoint"]["timeline"]  # as earlier versions wrote it
    save_file(path, content)
    assert run(config | {"batch_size": 4}, tmp_path, resume=True, **options) is True
    assert "1 epoch or 2 steps are done, 2 steps remain (1 per epoch)" in capsys.readouterr().out
