"""Names of a run's files, and its checkpoints: write, rotate, find."""

from __future__ import annotations

import glob
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esrgan.errors import WeightsError
from esrgan.files import remove_abandoned
from esrgan.weights import load_file, save_file

STAGES = ("pretraining", "training")
STAGE_LABELS = {"pretraining": "PSNR", "training": "ESRGAN"}


@dataclass(frozen=True)
class RunFiles:
    """Names of a run's files, ``<run>_RRDB_<PSNR|ESRGAN>_x<scale>…`` in one folder.

    Attributes:
        folder: Folder of all the files.
        run: Name of the run; by default the time at which it started.
        scale: Upscaling factor.
    """

    folder: Path
    run: str
    scale: int

    @classmethod
    def new(cls, folder: Path, scale: int, name: str | None = None) -> RunFiles:
        """Return the file names of a new run, which is named by the current time unless ``name`` is set.

        Raises:
            WeightsError: If the folder already has files of a run with this name.
        """

        def is_taken(name: str) -> bool:
            return any(folder.glob(f"{glob.escape(name)}_RRDB_*")) or (folder / "logs" / name).exists()

        if name is not None and is_taken(name):
            raise WeightsError(
                f"{folder}: already has a run named {name}; choose another name, or resume it with --resume auto"
            )
        stamp = time.strftime("%Y%m%d-%H%M%S")
        stamps = [stamp, *(f"{stamp}-{i}" for i in range(2, 1000))]
        return cls(folder, name or next(stamp for stamp in stamps if not is_taken(stamp)), scale)

    def _path(self, stage: str, suffix: str) -> Path:
        return self.folder / f"{self.run}_RRDB_{STAGE_LABELS[stage]}_x{self.scale}{suffix}.pth"

    def model(self, stage: str) -> Path:
        """Return the path of the model file that a finished stage writes."""
        return self._path(stage, "")

    def best(self, stage: str) -> Path:
        """Return the path of the model file with the best validation."""
        return self._path(stage, "_best_model")

    def epoch(self, stage: str, epoch: int) -> Path:
        """Return the path of the model file that is kept after an epoch."""
        return self._path(stage, f"_e{epoch}")

    def checkpoint(self, stage: str) -> Path:
        """Return the path of a stage's newest checkpoint; ``save_checkpoint`` derives those of older ones."""
        return self._path(stage, "_checkpoint")

    def remove_abandoned(self) -> None:
        """Remove temporary files of a process that was killed while writing.

        Call this only while no other process writes files of this run.
        """
        remove_abandoned(self.folder)
        remove_abandoned(self.logs)

    @property
    def logs(self) -> Path:
        """Folder of the run's logs and validation images."""
        return self.folder / "logs" / self.run


def save_checkpoint(path: Path, content: dict[str, Any], keep: int) -> None:
    """Write a checkpoint and rename the previous ones to ``…_checkpoint_1.pth``, ``…_checkpoint_2.pth``, ….

    Args:
        path: Path of the newest checkpoint.
        content: See ``save_file``.
        keep: Number of checkpoints to keep, including the newest.

    Raises:
        WeightsError: If it cannot be written; existing checkpoints are unchanged then.
    """

    def older(age: int) -> Path:
        return path.with_stem(f"{path.stem}_{age}") if age else path

    # The new file gets a name of its own first, so a kill at any moment leaves a complete newest checkpoint.
    written = path.with_stem(f"{path.stem}_new")
    save_file(written, content)
    for age in range(keep - 1, 0, -1):
        if older(age - 1).exists():
            older(age - 1).replace(older(age))
    written.replace(path)
    while (surplus := older(keep)).exists():  # keep_checkpoints was larger in an earlier part of the run
        surplus.unlink()
        keep += 1


def find_newest_checkpoint(
    folder: Path, config_name: str, run_name: str | None, stage: str = "all"
) -> tuple[Path | None, list[WeightsError]]:
    """Find the newest undamaged checkpoint of a run or, without a run name, of a configuration.

    Args:
        folder: Folder to search.
        config_name: Name of the configuration.
        run_name: Name of the run; None accepts any run of the configuration.
        stage: "pretraining" ignores checkpoints of the GAN stage.

    Returns:
        The checkpoint, or None if none was found, and the errors of newer checkpoints that are damaged.

    Raises:
        WeightsError: If ``run_name`` is set and all checkpoints of that run are damaged.
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
    """Sort runs by their last write, and the checkpoints of a run by name, because copying can change their times."""
    times: dict[str, int] = {}
    order: dict[Path, tuple[str, bool, int]] = {}
    for path in paths:
        run, _, rest = path.stem.rpartition("_RRDB_")
        age = rest.partition("_checkpoint")[2].removeprefix("_")
        order[path] = (run, rest.startswith(STAGE_LABELS["pretraining"]), int(age) if age.isdecimal() else 0)
        times[run] = max(times.get(run, 0), path.stat().st_mtime_ns)
    return sorted(order, key=lambda path: (-times[order[path][0]], order[path]))


def _load_verified(path: Path) -> dict[str, Any]:
    """Read a checkpoint and verify its checksums, which PyTorch does not."""
    content = load_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            corrupt_member = archive.testzip()
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{path}: damaged: {error}") from error
    if corrupt_member:
        raise WeightsError(f"{path}: damaged: the checksum of {corrupt_member} is wrong")
    return content
