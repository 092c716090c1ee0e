"""Names of a run's files; writing, rotating and finding checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esrgan.config import Config
from esrgan.errors import WeightsError
from esrgan.files import atomic_write
from esrgan.training import checkpoint, loop, schedule
from esrgan.training.checkpoint import find_newest_checkpoint, is_same_run, save_checkpoint
from esrgan.training.run_files import RunFiles
from esrgan.weights import load_file, save_file
from tests.helpers.runs import load_run_files, psnr_scores, read_records, run

pytestmark = pytest.mark.usefixtures("foreground_signals")

Make = Callable[..., dict[str, Any]]


def checkpoint_steps(config: dict[str, Any], out_dir: Path, **options: Any) -> list[int]:
    """Run the pretraining and return the steps whose checkpoints were written."""
    steps = []

    def save(path: Path, content: dict[str, Any], keep: int) -> None:
        save_checkpoint(path, content, keep)
        steps.append(content["checkpoint"]["step"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save)
        run(config, out_dir, stage="pretraining", **options)
    return list(dict.fromkeys(steps))  # the first model comes between two checkpoints of its step


@pytest.mark.slow
def test_checkpoints_and_models_are_written_at_their_intervals(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(validation_interval=100)
    assert checkpoint_steps(config, tmp_path / "two", checkpoint_interval=2, store_model_interval=2) == [4, 6]
    names = ("", "_best_model", "_checkpoint", "_e2")
    assert load_run_files(tmp_path / "two").keys() == {f"PSNR_x4{suffix}" for suffix in names}
    # By default there is one per epoch, but they are at least a minute apart.
    assert checkpoint_steps(config, tmp_path / "minute") == [6]
    monkeypatch.setattr(schedule, "MIN_EPOCH_CHECKPOINT_S", -1)
    assert checkpoint_steps(config, tmp_path / "each") == [2, 4, 6]
    assert load_run_files(tmp_path / "each").keys() == {"PSNR_x4", "PSNR_x4_best_model", "PSNR_x4_checkpoint"}


def test_saving_a_model_also_saves_a_checkpoint(
    tiny_config: Make, script_validation: Callable[..., None], tmp_path: Path
) -> None:
    kept = checkpoint_steps(tiny_config(validation_interval=100), tmp_path / "kept", store_model_interval=2)
    assert kept == [4, 6]
    script_validation(*psnr_scores(10, 20, 15))
    assert checkpoint_steps(tiny_config(), tmp_path / "best") == [2, 4, 6]


def test_two_runs_started_in_one_second_have_different_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20261121-120000")
    first = RunFiles.new(tmp_path, 4)
    assert first.model("training") == tmp_path / "20261121-120000_RRDB_ESRGAN_x4.pth"
    save_file(first.checkpoint("pretraining"), {"params": {}})
    second = RunFiles.new(tmp_path, 4)
    assert second.run != first.run
    assert len({first.run, second.run, RunFiles.new(tmp_path, 4).run}) == 3
    assert len({RunFiles.new(tmp_path / "other", 4).run for _ in range(3)}) == 3  # none of them has written a file


def test_a_run_name_cannot_be_reused(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(generator={"num_basic_blocks": 1})
    run(config, tmp_path, stage="pretraining", max_steps=1, run_name="mine")
    assert {path.name.partition("_RRDB_")[0] for path in tmp_path.glob("*.pth")} == {"mine"}
    before = read_records(tmp_path)
    with pytest.raises(WeightsError, match="already has a run named mine; choose another name, or resume it with "):
        run(config, tmp_path, stage="pretraining", max_steps=1, run_name="mine")
    assert read_records(tmp_path) == before


@pytest.mark.parametrize("existing", ["test_RRDB_PSNR_x4.pth", "logs/test/log.jsonl"])
@pytest.mark.parametrize("may_have_logs", [False, True])
def test_a_run_name_in_another_case_is_refused(tmp_path: Path, existing: str, may_have_logs: bool) -> None:
    """Windows and macOS would write both runs into the same files."""
    (tmp_path / existing).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / existing).write_text("{}\n")
    with pytest.raises(WeightsError, match=r"already has a run named test; .* with --run-name test --resume auto"):
        RunFiles.new(tmp_path, 4, "Test", may_have_logs=may_have_logs)


def test_a_run_that_logged_nothing_does_not_keep_its_name(tmp_path: Path) -> None:
    log = tmp_path / "logs/mine/log.jsonl"
    log.parent.mkdir(parents=True)
    log.touch()
    assert RunFiles.new(tmp_path, 4, "mine").run == "mine"
    log.write_text("{}\n")
    with pytest.raises(WeightsError, match="already has a run named mine"):
        RunFiles.new(tmp_path, 4, "mine")


def test_a_run_whose_name_begins_like_another_is_another_run(tiny_config: Make, tmp_path: Path) -> None:
    others = ("mine_RRDB_small", "mine_RRDB_PSNR_x4", "mine_Compact_x")
    for name in others:
        for suffix in ("", "_checkpoint"):
            content = {"params": {}, "checkpoint": {"run": name}}
            save_file(tmp_path / f"{name}_RRDB_ESRGAN_x4{suffix}.pth", content)
    assert RunFiles.new(tmp_path, 4, "mine").run == "mine"
    assert find_newest_checkpoint(tmp_path, lambda _: True, "mine") == (None, [])
    before = {path: path.read_bytes() for path in tmp_path.glob("*.pth")}
    assert run(tiny_config(), tmp_path, stage="pretraining", run_name="mine", resume=True, max_steps=1)
    assert {path: path.read_bytes() for path in before} == before
    assert (tmp_path / "mine_RRDB_PSNR_x4.pth").exists()
    for name in others:
        with pytest.raises(WeightsError, match=f"already has a run named {name};"):
            RunFiles.new(tmp_path, 4, name)
        assert find_newest_checkpoint(tmp_path, lambda _: True, name)[0]


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
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


def test_a_checkpoint_that_stays_open_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(source: Path, target: Path) -> None:
        error = PermissionError(13, "It is being used by another process", str(source), None, str(target))
        error.winerror = 32
        raise error

    monkeypatch.setattr(checkpoint, "replace_file", deny)
    path = tmp_path / "a_checkpoint.pth"
    message = r"a_checkpoint\.pth: cannot be written: It is being used .*; close the program that has it open"
    with pytest.raises(WeightsError, match=message):
        save_checkpoint(path, {"params": {}}, 2)


def test_the_newest_checkpoint_of_a_configuration_or_run_is_found(tmp_path: Path) -> None:
    def checkpoint(name: str, config_name: str, seconds: int) -> Path:
        path = tmp_path / f"{name}_x4_checkpoint.pth"
        save_file(path, {"params": {}, "checkpoint": {"config_name": config_name}})
        os.utime(path, (1_700_000_000 + seconds,) * 2)
        return path

    oldest = checkpoint("z_RRDB_PSNR", "mine", 0)
    newest = checkpoint("a_RRDB_ESRGAN", "mine", 20)
    checkpoint("m_RRDB_PSNR", "mine", 10)
    others = checkpoint("zz_RRDB_PSNR", "other", 30)
    save_file(tmp_path / "zzz_RRDB_PSNR_x4.pth", {"params": {}})
    (tmp_path / "zzz_RRDB_PSNR_x4_checkpoint.pth").write_bytes(b"of another program")

    def newest_of(name: str | None, *arguments: Any) -> Path | None:
        def is_wanted(content: dict[str, Any]) -> bool:
            return name is None or content["checkpoint"]["config_name"] == name

        return find_newest_checkpoint(tmp_path, is_wanted, *arguments)[0]

    assert newest_of("mine", None, "all") == newest
    assert newest_of("mine", None, "pretraining") == tmp_path / "m_RRDB_PSNR_x4_checkpoint.pth"
    assert newest_of("other", None, "training") == others
    assert newest_of(None, "z", "all") == oldest
    assert newest_of("nobody's", None, "all") is None
    assert newest_of(None, "nobody's", "all") is None
    assert find_newest_checkpoint(tmp_path / "nowhere", lambda _: True) == (None, [])


def test_a_run_of_an_earlier_version_is_recognised(tiny_config: Make) -> None:
    hparams = Config.model_validate(tiny_config()).to_dict()
    new = ("type", "plus", "num_feat", "num_conv", "act_type")  # keys that earlier versions did not know
    earlier = {**hparams, "generator": {key: value for key, value in hparams["generator"].items() if key not in new}}
    content = {"hparams": earlier, "checkpoint": {"config_name": "elsewhere.json"}}
    assert is_same_run(content, "config.json", hparams)
    other = {**hparams, "generator": {**hparams["generator"], "type": "compact"}}
    assert not is_same_run(content, "config.json", other)


def test_copied_checkpoints_are_ordered_by_name(tmp_path: Path) -> None:
    names = ["ESRGAN_x4_checkpoint", "ESRGAN_x4_checkpoint_1", "PSNR_x4_checkpoint", "PSNR_x4_checkpoint_1"]
    paths = [tmp_path / f"mine_RRDB_{name}.pth" for name in names]
    for i, path in enumerate(paths):
        save_file(path, {"params": {}, "checkpoint": {"config_name": "mine"}})
        os.utime(path, (1_700_000_000 + i,) * 2)  # the oldest checkpoint was copied last
    for path in paths:
        assert find_newest_checkpoint(tmp_path, lambda _: True)[0] == path
        path.unlink()


def test_a_named_run_with_only_damaged_checkpoints_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine_RRDB_PSNR_x4_checkpoint.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(WeightsError, match=r"mine_RRDB_PSNR_x4_checkpoint\.pth: damaged"):
        find_newest_checkpoint(tmp_path, lambda _: True, "mine")
    path, (error,) = find_newest_checkpoint(tmp_path, lambda _: True)
    assert path is None
    assert "mine_RRDB_PSNR" in str(error)


def test_partial_files_of_a_killed_process_are_removed(tiny_config: Make, tmp_path: Path) -> None:
    (tmp_path / ".esrgan-0f3a.tmp").write_bytes(b"half a checkpoint")
    logs = tmp_path / "logs" / "mine"
    logs.mkdir(parents=True)
    (logs / ".esrgan-0f3a.tmp").write_bytes(b"half an image")
    with atomic_write(tmp_path / "other_RRDB_PSNR_x4.pth") as others:  # another run writes into the same folder
        run(tiny_config(), tmp_path, stage="pretraining", run_name="mine", resume=True, max_steps=1)
        assert [str(path) for path in tmp_path.rglob(".*.tmp")] == [others.name]


@pytest.mark.slow
def test_a_long_epoch_has_checkpoints_by_time(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(validation_interval=100, batch_size=1, checkpoint_minutes=1e-9)  # four steps per epoch
    assert checkpoint_steps(config, tmp_path, checkpoint_interval=100) == [1, 2, 3, 4, 5, 6]


def test_a_file_written_before_positions_were_kept_is_resumed(tiny_config: Make, tmp_path: Path) -> None:
    options = {"stage": "pretraining", "run_name": "mine"}
    run(tiny_config(), tmp_path, max_steps=2, **options)
    path = tmp_path / "mine_RRDB_PSNR_x4_checkpoint.pth"
    content = load_file(path)
    for key in ("timeline", "train_images", "pending_validation"):
        del content["checkpoint"][key]
    content["checkpoint"]["best"] = {"pretraining by PSNR": 99.0}
    save_file(path, content)
    assert run(tiny_config(), tmp_path, resume=True, **options) is True
    assert load_run_files(tmp_path)["PSNR_x4_checkpoint"]["checkpoint"]["best"]["score"] < 99


def test_a_run_is_known_by_its_newest_checkpoint(tmp_path: Path) -> None:
    for stage, name in (("PSNR", "mine"), ("ESRGAN", "other")):  # the configuration was changed in between
        save_file(tmp_path / f"r_RRDB_{stage}_x4_checkpoint.pth", {"checkpoint": {"config_name": name}})
    assert find_newest_checkpoint(tmp_path, lambda content: content["checkpoint"]["config_name"] == "mine")[0] is None


def test_a_checkpoint_that_is_renamed_during_the_search_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        save_file(tmp_path / f"{name}_RRDB_PSNR_x4_checkpoint.pth", {"checkpoint": {}})
    original = Path.glob

    def glob(self: Path, pattern: str) -> list[Path]:
        found = list(original(self, pattern))
        (tmp_path / "a_RRDB_PSNR_x4_checkpoint.pth").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "glob", glob)
    path, damaged = find_newest_checkpoint(tmp_path, lambda _: True)
    assert (path, damaged) == (tmp_path / "b_RRDB_PSNR_x4_checkpoint.pth", [])


def test_a_checkpoint_that_is_renamed_before_it_is_read_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        save_file(tmp_path / f"{name}_RRDB_PSNR_x4_checkpoint.pth", {"checkpoint": {}})
    os.utime(tmp_path / "b_RRDB_PSNR_x4_checkpoint.pth", (0, 0))

    def load(path: Path) -> dict[str, Any]:
        (tmp_path / "a_RRDB_PSNR_x4_checkpoint.pth").unlink(missing_ok=True)
        return load_file(path)

    monkeypatch.setattr(checkpoint, "load_file", load)
    path, damaged = find_newest_checkpoint(tmp_path, lambda _: True)
    assert (path, damaged) == (tmp_path / "b_RRDB_PSNR_x4_checkpoint.pth", [])
