"""Names of a run's files."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from esrgan.errors import WeightsError
from esrgan.files import create_folder
from esrgan.paths import fold_name

STAGES = ("pretraining", "training")
MAX_RUN_NAME = 200  # bytes; names of files may have 255 and end in "_Compact_ESRGAN_x4_checkpoint_1.pth"
STAGE_LABELS = {"pretraining": "PSNR", "training": "ESRGAN"}
NETWORK_LABELS = {"rrdb": "RRDB", "compact": "Compact"}
# The run, which may itself contain "_RRDB_PSNR_x4", and stage, scale and so on.
_FILE_STEM = re.compile(rf"(.+)_(?:{'|'.join(NETWORK_LABELS.values())})_((?:{'|'.join(STAGE_LABELS.values())})_x\d.*)")


@dataclass(frozen=True)
class RunFiles:
    """Names of a run's files, ``<run>_<RRDB|Compact>_<PSNR|ESRGAN>_x<scale>…`` in one folder."""

    folder: Path
    run: str
    scale: int
    network: str = "rrdb"

    @classmethod
    def new(
        cls,
        folder: Path,
        scale: int,
        name: str | None = None,
        *,
        network: str = "rrdb",
        may_have_logs: bool = False,
        claim: bool = True,
    ) -> RunFiles:
        """Return the file names of a new run, which is named by the current time unless ``name`` is set.

        Args:
            folder: Folder for the files.
            scale: Scale factor.
            name: Name of the run, or None.
            network: Type of the generator.
            may_have_logs: Accept the name of a run that was killed before its first checkpoint.
            claim: Create the log folder of a run that is named by the time, so that no other run takes that name.

        Raises:
            EsrganError: If the folder already has files of a run with this name, or the log folder cannot be created.
        """

        def find_run(name: str) -> str | None:
            """Return the run that has this name, perhaps in another case, which some disks ignore."""
            logs = (log for log in folder.glob("logs/*/log.jsonl") if not (may_have_logs and log.parent.name == name))
            logged = (log.parent.name for log in logs if log.stat().st_size > 0)  # empty before its first record
            runs = (*(split_run(path.name)[0] for path in folder.glob("*")), *logged)
            return next((run for run in runs if fold_name(run) == fold_name(name)), None)

        def is_free(stamp: str) -> bool:
            if find_run(stamp):
                return False
            if claim:
                create_folder(folder / "logs")
                try:
                    (folder / "logs" / stamp).mkdir()
                except FileExistsError:  # another process was faster
                    return False
                except OSError:  # reported when the log is opened
                    pass
            return True

        is_wrong = name is not None and (Path(name).name != name or name in ("", ".."))
        if is_wrong or len(os.fsencode(name or "")) > MAX_RUN_NAME:
            raise WeightsError(f"run name {name!r}: expected a part of a file name of at most {MAX_RUN_NAME} bytes")
        if name is not None and (run := find_run(name)):
            remedy = f"choose another name, or resume it with --run-name {run} --resume auto"
            if may_have_logs and run == name:
                remedy = "it has no checkpoint to resume; choose another name, or move its files"
            raise WeightsError(f"{folder}: already has a run named {run}; {remedy}")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        stamps = [stamp, *(f"{stamp}-{i}" for i in range(2, 1000))]
        return cls(folder, name or next(filter(is_free, stamps)), scale, network)

    def _path(self, stage: str, suffix: str) -> Path:
        return (
            self.folder / f"{self.run}_{NETWORK_LABELS[self.network]}_{STAGE_LABELS[stage]}_x{self.scale}{suffix}.pth"
        )

    def find(self, stage: str) -> list[Path]:
        """Return the existing files of a stage, of any network and scale, by name."""
        label = STAGE_LABELS[stage]
        names = ((path, *split_run(path.name)) for path in self.folder.glob("*.pth"))
        return sorted(path for path, run, rest in names if run == self.run and rest.startswith(label))

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

    @property
    def logs(self) -> Path:
        """Folder of the run's logs and validation images."""
        return self.folder / "logs" / self.run


def split_run(name: str) -> tuple[str, str]:
    """Split the name of a run's file into the run, which is empty for other files, and what follows the network."""
    match = _FILE_STEM.fullmatch(name.removesuffix(".pth"))
    return (match[1], match[2]) if match else ("", name)
