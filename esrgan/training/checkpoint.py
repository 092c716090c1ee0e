"""The checkpoints of a run: write, rotate, find."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from esrgan.config import Config
from esrgan.errors import WeightsError
from esrgan.files import describe_write_error, replace_file
from esrgan.training.run_files import STAGE_LABELS, split_run
from esrgan.weights import load_file, save_file

# Keys of a configuration that do not make another run of it: lengths, validation, logs, and what differs by machine.
NOT_IDENTIFYING = {
    *("num_epoch", "num_steps", "val_datasets", "validation_interval", "logging"),
    *("keep_checkpoints", "checkpoint_minutes", "data_root", "cache_dir", "num_workers", "activation_checkpointing"),
}


@dataclass
class Checkpoint:
    """Everything that a stage needs to continue as if it had not been interrupted."""

    stage: str
    hparams: dict[str, Any]
    params: dict[str, Tensor]  # weights of the generator
    params_ema: dict[str, Tensor]  # their average
    run: str
    config_name: str  # see TrainOptions
    step: int  # number of completed steps
    timeline: dict[str, Any] | None  # None if it is unknown
    train_images: list[int]  # checksums; empty if they are unknown
    # None if everything that was due after the last step is done. Otherwise the validation was interrupted and is to be
    # repeated; the value is whether the step was healthy.
    pending_validation: bool | None
    best: dict[str, Any] | None  # the best validation
    interval: dict[str, Any]  # of the meter
    recovery: dict[str, Any]
    state: dict[str, Any]  # optimisers and discriminator

    def is_shortened(self, total_steps: int) -> bool:
        """Return whether a stage of this length ends at this checkpoint, which was not its end when it was written."""
        return total_steps == self.step != (self.timeline or {}).get("total_steps")

    def to_content(self) -> dict[str, Any]:
        """Return the content of the file: that of a model file, ``params`` and ``checkpoint``."""
        rest = {key: value for key, value in vars(self).items() if key not in (*_MODEL_KEYS, "state")}
        model = {key: getattr(self, key) for key in _MODEL_KEYS}
        return model | {"checkpoint": rest | {"stage": self.state}}

    def to_state(self) -> dict[str, Any]:
        """Return what training changes, as ``recovery.restore_state`` takes it."""
        return {"params_ema": self.params_ema, "params": self.params, "stage": self.state}

    @classmethod
    def from_content(cls, content: dict[str, Any], path: Path) -> Checkpoint:
        """Return the checkpoint in the content of a file.

        Raises:
            WeightsError: If something is missing.
        """
        # Files of earlier versions lack these.
        unvalidated = True if content["checkpoint"].get("unvalidated") else None
        values = {"timeline": None, "train_images": [], "pending_validation": unvalidated} | content["checkpoint"]
        try:
            values["state"] = values["stage"]
            values |= {key: content[key] for key in _MODEL_KEYS}
            return cls(**{field.name: values[field.name] for field in fields(cls)})
        except KeyError as error:
            raise WeightsError(
                f"{path}: incomplete checkpoint; save its generator weights to another file and start from that with -l"
            ) from error


_MODEL_KEYS = ("params_ema", "params", "stage", "hparams")


def save_checkpoint(path: Path, content: dict[str, Any], keep: int) -> None:
    """Write a checkpoint and rename the previous ones to ``…_checkpoint_1.pth``, ``…_checkpoint_2.pth``, ….

    ``keep`` is the number of checkpoints to keep, including the newest.

    Raises:
        WeightsError: If it cannot be written; existing checkpoints are kept then.
    """

    def older(age: int) -> Path:
        return path.with_stem(f"{path.stem}_{age}") if age else path

    # The new file gets a name of its own first, so a kill at any moment leaves a complete newest checkpoint.
    written = path.with_stem(f"{path.stem}_new")
    save_file(written, content)
    try:
        for age in range(keep - 1, 0, -1):
            if older(age - 1).exists():
                replace_file(older(age - 1), older(age))
        replace_file(written, path)
        while (surplus := older(keep)).exists():  # keep_checkpoints was larger in an earlier part of the run
            surplus.unlink()
            keep += 1
    except OSError as error:
        raise WeightsError(describe_write_error(path, error)) from error


def find_newest_checkpoint(
    folder: Path, is_wanted: Callable[[dict[str, Any]], bool], run_name: str | None = None, stage: str = "all"
) -> tuple[Path | None, list[WeightsError]]:
    """Find the newest undamaged checkpoint that is wanted.

    Args:
        folder: Folder to search.
        is_wanted: Called with the content of the newest undamaged checkpoint of each run, until it returns True.
        run_name: None accepts any.
        stage: "pretraining" ignores checkpoints of the GAN stage.

    Returns:
        The checkpoint, or None if none was found, and the errors of newer checkpoints that are damaged.

    Raises:
        WeightsError: If ``run_name`` is set and all checkpoints of that run are damaged.
    """

    def is_candidate(path: Path) -> bool:
        run, rest = split_run(path.name)
        is_of_stage = stage != "pretraining" or rest.startswith(STAGE_LABELS[stage])
        return bool(run) and run_name in (None, run) and "_checkpoint" in rest and is_of_stage

    damaged: list[WeightsError] = []
    unwanted: set[str] = set()
    for path in _sort_newest_first(filter(is_candidate, folder.glob("*.pth"))):
        run = split_run(path.name)[0]
        if run in unwanted:
            continue
        try:
            content = load_file(path)
        except WeightsError as error:
            if path.exists():  # otherwise its run has just written a newer one
                damaged.append(error)
            continue
        if isinstance(content.get("checkpoint"), dict):
            if is_wanted(content):
                return path, damaged
            unwanted.add(run)
    if run_name and damaged:
        raise damaged[0]
    return None, damaged


def is_same_run(content: dict[str, Any], config_name: str, hparams: dict[str, Any]) -> bool:
    """Return whether a checkpoint belongs to the run of a configuration, which may have no name.

    A configuration file may have been edited since, and moved or copied if it was not edited. Another seed is another
    run, because one configuration can be run with several seeds.
    """
    earlier = complete_hparams(content.get("hparams") or {})
    is_same_file = Path(config_name).is_absolute() and content["checkpoint"].get("config_name") == config_name
    return earlier.get("seed") == hparams["seed"] and (is_same_file or is_same_training(earlier, hparams))


def is_same_training(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two configurations train in the same way, apart from the length."""
    return _identity(complete_hparams(one)) == _identity(complete_hparams(other))


def complete_hparams(hparams: dict[str, Any]) -> dict[str, Any]:
    """Add the defaults of keys that the version which wrote a configuration did not know."""
    with suppress(ValidationError):
        return Config.model_validate(hparams).to_dict()
    return hparams


def _identity(hparams: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration by which a run is recognised."""
    return {
        key: {name: each for name, each in value.items() if name not in NOT_IDENTIFYING}
        if isinstance(value, dict)
        else value
        for key, value in hparams.items()
        if key not in NOT_IDENTIFYING
    }


def _sort_newest_first(paths: Iterable[Path]) -> list[Path]:
    """Sort runs by their last write, and the checkpoints of a run by name, because copying can change their times."""
    times: dict[str, int] = {}
    order: dict[Path, tuple[str, bool, int]] = {}
    for path in paths:
        run, rest = split_run(path.name)
        try:
            written = path.stat().st_mtime_ns
        except FileNotFoundError:  # its run has just renamed or removed it
            continue
        age = rest.partition("_checkpoint")[2].removeprefix("_")
        order[path] = (
            run,
            rest.startswith(STAGE_LABELS["pretraining"]),
            int(age) if age.isdecimal() else -1 if age else 0,
        )
        times[run] = max(times.get(run, 0), written)
    return sorted(order, key=lambda path: (-times[order[path][0]], order[path]))
