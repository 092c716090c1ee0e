"""The files a run writes, and where a run starts from the file it is given."""

from __future__ import annotations

import glob
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from esrgan import pretrained
from esrgan.errors import WeightsError
from esrgan.files import remove_abandoned
from esrgan.weights import Architecture, load_file, parse_generator, save_file

STAGES = ("pretraining", "training")
STAGE_LABELS = {"pretraining": "PSNR", "training": "ESRGAN"}


@dataclass(frozen=True)
class RunFiles:
    """Names of a run's files, ``<run>_RRDB_<PSNR|ESRGAN>_x<scale>…`` in one folder.

    Attributes:
        folder: Of all the files.
        run: The time the run began, or the name of the run that is continued.
        scale: Scale factor.
    """

    folder: Path
    run: str
    scale: int

    @classmethod
    def new(cls, folder: Path, scale: int, name: str | None = None) -> RunFiles:
        """Name a new run, by the time if it is not given a name.

        Raises:
            WeightsError: If the folder has files of a run of this name.
        """

        def is_taken(name: str) -> bool:
            return any(folder.glob(f"{glob.escape(name)}_RRDB_*")) or (folder / "logs" / name).exists()

        if name is not None and is_taken(name):
            raise WeightsError(f"{folder}: has a run named {name}; choose another name, or continue it: --resume auto")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        stamps = [stamp, *(f"{stamp}-{i}" for i in range(2, 1000))]
        return cls(folder, name or next(stamp for stamp in stamps if not is_taken(stamp)), scale)

    def _path(self, stage: str, suffix: str) -> Path:
        return self.folder / f"{self.run}_RRDB_{STAGE_LABELS[stage]}_x{self.scale}{suffix}.pth"

    def model(self, stage: str) -> Path:
        """Give the model file that a finished stage writes."""
        return self._path(stage, "")

    def best(self, stage: str) -> Path:
        """Give the model file of the best validation."""
        return self._path(stage, "_best_model")

    def epoch(self, stage: str, epoch: int) -> Path:
        """Give the model file of an epoch."""
        return self._path(stage, f"_e{epoch}")

    def checkpoint(self, stage: str) -> Path:
        """Give the newest checkpoint of a stage; see ``save_checkpoint`` for those before it."""
        return self._path(stage, "_checkpoint")

    def remove_abandoned(self) -> None:
        """Remove what a process that was killed while writing left; no other may be writing."""
        for path in self.folder.glob(f".{glob.escape(self.run)}_RRDB_*.tmp"):
            path.unlink()
        remove_abandoned(self.logs)

    @property
    def logs(self) -> Path:
        """The folder of the run's logs and pictures."""
        return self.folder / "logs" / self.run


@dataclass(frozen=True)
class StartingPoint:
    """Where a run begins.

    Attributes:
        stage: The first stage to run.
        description: What was made of the file, for the user.
        generator: Weights to begin with; None for a fresh network.
        architecture: What they belong to.
        resume: The part of a checkpoint to continue from; None begins the stage at its first step.
    """

    stage: str
    description: str
    generator: dict[str, Tensor] | None = None
    architecture: Architecture | None = None
    resume: dict[str, Any] | None = None
    last_stage: str = field(default="training", kw_only=True)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages to run, in order."""
        return STAGES[STAGES.index(self.stage) : STAGES.index(self.last_stage) + 1]


def start_fresh(stage: str) -> StartingPoint:
    """Begin without a file.

    Args:
        stage: "pretraining", "training" or "all".
    """
    first, last = ("pretraining", "training") if stage == "all" else (stage, stage)
    from_nothing = " from random weights: the GAN stage needs a pretrained generator (-l) to give good results"
    description = f"starting {first}{from_nothing if first == 'training' else ''}"
    return StartingPoint(first, description, last_stage=last)


def start_from_file(path: Path, stage: str) -> StartingPoint:
    """Decide what to do with a weight file.

    A checkpoint continues its stage. A generator alone starts the GAN stage, unless another stage is asked for; that
    of a finished GAN run must be asked for by ``--stage training``, since it has been through that stage.

    Args:
        path: A checkpoint or model file of ours, anyone's ESRGAN generator, or a name of ``esrgan.pretrained``.
        stage: "pretraining", "training" or "all", as asked for.

    Raises:
        WeightsError: If the file cannot be used so.
    """
    path = pretrained.resolve(path)
    content = load_file(path)
    file = parse_generator(content, path)
    last = "training" if stage == "all" else stage
    if isinstance(content.get("checkpoint"), dict) and file.stage:
        missing = {"run", "step", "best", "stage"} - content["checkpoint"].keys()
        if missing or "params" not in content or "params_ema" not in content:
            raise WeightsError(f"{path}: an incomplete checkpoint; start from its generator: save that alone, use -l")
        resume = (
            content["checkpoint"] | {"hparams": file.hparams} | {key: content[key] for key in ("params", "params_ema")}
        )
        step = resume["step"]
        if stage in ("all", file.stage):
            description = f"{path}: checkpoint of {file.stage} at step {step}; continuing there"
            return StartingPoint(file.stage, description, content["params"], file.architecture, resume, last_stage=last)
        if stage == "pretraining":
            raise WeightsError(f"{path}: a checkpoint of training does not resume pretraining; use --stage training")
        description = f"{path}: checkpoint of pretraining at step {step}; its averaged generator starts the GAN stage"
        return StartingPoint("training", description, file.state, file.architecture, last_stage=last)
    if stage == "all" and file.stage == "training":
        raise WeightsError(f"{path}: {file.describe()}: its training is over; to fine-tune it add --stage training")
    first = "training" if stage == "all" else stage
    verb = {"pretraining": "starts the PSNR stage", "training": "starts the GAN stage"}[first]
    if file.stage == "training" and first == "training":
        verb = "is fine-tuned in the GAN stage"
    return StartingPoint(first, f"{path}: {file.describe()}; it {verb}", file.state, file.architecture, last_stage=last)


def check_architecture(start: StartingPoint, path: Path, expected: Architecture) -> None:
    """Compare what a run starts from with the configured generator.

    Raises:
        WeightsError: If they differ, with both architectures.
    """
    if start.architecture not in (None, expected):
        raise WeightsError(
            f"{path}: expected the generator of the configuration, {expected}, "
            f"got {start.architecture}; make the configuration's generator and scale_factor match the file"
        )


def save_checkpoint(path: Path, content: dict[str, Any], keep: int) -> None:
    """Write a checkpoint; the one before becomes ``…_checkpoint_1.pth``, that before it ``…_checkpoint_2.pth``.

    Args:
        path: Of the newest.
        content: See ``save_file``.
        keep: How many there are at most, the newest included.

    Raises:
        WeightsError: If it cannot be written; those that are there are untouched.
    """

    def older(age: int) -> Path:
        return path.with_stem(f"{path.stem}_{age}") if age else path

    written = path.with_stem(f"{path.stem}_new")  # so that none is missing, whenever the process is killed
    save_file(written, content)
    for age in range(keep - 1, 0, -1):
        if older(age - 1).exists():
            older(age - 1).replace(older(age))
    written.replace(path)
    while (surplus := older(keep)).exists():  # of a time when more were kept
        surplus.unlink()
        keep += 1


def find_newest_checkpoint(
    folder: Path, config_name: str, run_name: str | None, stage: str = "all"
) -> tuple[Path | None, list[WeightsError]]:
    """Find the checkpoint that was written last by a run of this name, else by a configuration of this name.

    Args:
        folder: Where to look.
        config_name: Name of the configuration.
        run_name: Name of the run, if it was given one.
        stage: "pretraining" passes over checkpoints of the GAN stage.

    Returns:
        The checkpoint, if there is one, and what is wrong with newer ones.

    Raises:
        WeightsError: If all those of the run that was named are damaged.
    """
    kind = STAGE_LABELS["pretraining"] if stage == "pretraining" else "*"
    pattern = f"{glob.escape(run_name) if run_name else '*'}_RRDB_{kind}_x*_checkpoint*.pth"
    damaged: list[WeightsError] = []
    for path in _sort_newest_first(folder.glob(pattern)):
        try:
            checkpoint = _load_verified(path).get("checkpoint")
        except WeightsError as error:
            damaged.append(error)
            continue
        if isinstance(checkpoint, dict) and (run_name or checkpoint.get("config_name") == config_name):
            return path, damaged
    if run_name and damaged:
        raise damaged[0]
    return None, damaged


def _sort_newest_first(paths: Iterable[Path]) -> list[Path]:
    """Sort checkpoints: runs by when they were last written, those of a run by their names, which copying leaves."""
    times: dict[str, int] = {}
    order: dict[Path, tuple[str, bool, int]] = {}
    for path in paths:
        run, _, rest = path.stem.rpartition("_RRDB_")
        age = rest.partition("_checkpoint")[2].removeprefix("_")
        order[path] = (run, rest.startswith(STAGE_LABELS["pretraining"]), int(age) if age.isdecimal() else 0)
        times[run] = max(times.get(run, 0), path.stat().st_mtime_ns)
    return sorted(order, key=lambda path: (-times[order[path][0]], order[path]))


def _load_verified(path: Path) -> dict[str, Any]:
    """Read a checkpoint and compare its checksums, which PyTorch leaves to others."""
    content = load_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            corrupt_member = archive.testzip()
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{path}: damaged: {error}") from error
    if corrupt_member:
        raise WeightsError(f"{path}: damaged: {corrupt_member} in it is not as it was written")
    return content
