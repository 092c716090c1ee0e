"""What a run reports: a live line, a JSON-lines file, TensorBoard and Weights & Biases."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from esrgan import images
from esrgan.errors import EsrganError
from esrgan.files import lock
from esrgan.text import describe_error
from esrgan.training import distributed

WandbMode = Literal["disabled", "offline", "online"]


class RunLog:
    """Writes a run's figures and pictures to every place that was asked for, and keeps other processes off the run.

    Args:
        folder: Of ``log.jsonl``, the pictures and TensorBoard's files.
        run: Name of the run.
        hparams: The whole configuration, for Weights & Biases.
        tensorboard: Write TensorBoard files to ``folder/tensorboard/<stage>``.
        wandb: "disabled", "offline" or "online".
        wandb_project: Project on Weights & Biases.
        wandb_entity: User or team there; None is the default of the login.
        resumed_from: (stage, step, whether the validation behind it was done) that the run goes on from: what an
            earlier try logged after it is taken back.

    Raises:
        EsrganError: If another process trains the run, if the folder cannot be written, here or later, or if Weights &
            Biases is to be online without a login.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        hparams: dict[str, Any],
        tensorboard: bool = True,
        wandb: WandbMode = "disabled",
        wandb_project: str = "esrgan",
        wandb_entity: str | None = None,
        resumed_from: tuple[str, int, bool] = ("pretraining", 0, True),
    ) -> None:
        if wandb == "online":
            _check_wandb_login()
        self.folder = folder
        self.resumed_from = resumed_from
        with self._explain_write_errors("choose another --out-dir"):
            folder.mkdir(parents=True, exist_ok=True)
            self.lock = lock(folder / ".lock", f"another process is training {run}")
            _drop_later_records(folder / "log.jsonl", *resumed_from)
            self.file = (folder / "log.jsonl").open("a", encoding="utf-8")
        self.use_tensorboard = tensorboard
        self.tensorboard_writers: dict[str, Any] = {}
        self.wandb_run = _start_wandb(wandb, wandb_project, wandb_entity, run, folder, hparams)

    def add_scalars(self, split: str, stage: str, label: str, step: int, values: dict[str, float]) -> None:
        """Record figures.

        Args:
            split: "train" or "validation".
            stage: "pretraining" or "training".
            label: The stage's name in tags.
            step: Steps done in this stage.
            values: Figures by name; their tag is ``split/label/name``.
        """
        record = {"time": round(time.time(), 3), "split": split, "stage": stage, "step": step}
        finite = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        tagged = {f"{split}/{label}/{name}": value for name, value in values.items()}
        with self._explain_write_errors():
            self.file.write(json.dumps(record | finite) + "\n")
            self.file.flush()
            if self.use_tensorboard:
                for tag, value in tagged.items():
                    self._tensorboard_writer(stage).add_scalar(tag, value, step)
                self._tensorboard_writer(stage).flush()
        if self.wandb_run is not None:
            self.wandb_run.log(tagged | {f"{stage}_step": step})

    def add_image(self, stage: str, label: str, step: int, panel: np.ndarray) -> None:
        """Record a panel (H, W, 3) uint8: as the stage's newest picture, in TensorBoard and Weights & Biases."""
        tag = f"validation/{label}/LR_bicubic_SR_HR"
        with self._explain_write_errors():
            images.write_pixels(self.folder / f"{stage}.png", panel, overwrite=True)
            if self.use_tensorboard:
                self._tensorboard_writer(stage).add_image(tag, panel, step, dataformats="HWC")
        if self.wandb_run is not None:
            import wandb

            self.wandb_run.log({tag: wandb.Image(panel), f"{stage}_step": step})

    @contextmanager
    def _explain_write_errors(self, remedy: str = "free some space") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EsrganError(f"{self.folder}: cannot be written: {describe_error(error)}; {remedy}") from error

    def _tensorboard_writer(self, stage: str) -> Any:
        if stage not in self.tensorboard_writers:
            from torch.utils.tensorboard import SummaryWriter

            # Drops what an earlier try wrote.
            purge_step = self.resumed_from[1] + 1 if self.resumed_from[0] == stage else 1
            folder = str(self.folder / "tensorboard" / stage)
            self.tensorboard_writers[stage] = SummaryWriter(folder, purge_step=purge_step)
        return self.tensorboard_writers[stage]

    def close(self) -> None:
        """End it. Whatever could not be written has been told."""
        for file in (self.file, *self.tensorboard_writers.values(), self.lock):
            with suppress(OSError):
                file.close()
        if self.wandb_run is not None:
            self.wandb_run.finish()


def _drop_later_records(path: Path, stage: str, step: int, is_validated: bool) -> None:
    """Remove the records that were written after a checkpoint; the continued run writes them again."""
    if not path.exists():
        return
    order = ("pretraining", "training")
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # the line that a killed run was writing
            continue
        is_validation = record["split"] == "validation"
        if (order.index(record["stage"]), record["step"], is_validation) <= (order.index(stage), step, is_validated):
            kept.append(line + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)


def _check_wandb_login() -> None:
    import wandb

    if not wandb.login(prompt=False, verify=False):
        raise EsrganError("wandb: not logged in; run `wandb login` once, or set logging.wandb to offline or disabled")


def _start_wandb(
    mode: WandbMode, project: str, entity: str | None, run: str, folder: Path, hparams: dict[str, Any]
) -> Any:
    if mode == "disabled":
        return None
    import wandb

    identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]  # runs of one name in two folders
    started = wandb.init(
        project=project,
        entity=entity,
        name=run,
        id=f"{run}-{identity}",
        resume="allow",
        dir=folder,
        mode=mode,
        config=hparams,
    )
    for stage, label in (("pretraining", "PSNR-driven"), ("training", "GAN-based")):
        for split in ("train", "validation"):
            started.define_metric(f"{split}/{label}/*", step_metric=f"{stage}_step")
    return started


class Meter:
    """Collects a run's losses and times between two reports, without waiting for the device.

    Args:
        batch_size: Patches of a step, over all processes.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.reset()

    def reset(self) -> None:
        """Begin a new interval."""
        self.names: list[str] = []
        self.sums = self.peaks = self.finite_steps = torch.zeros(())
        self.summed_steps = 0  # more than the steps of this process if it went on with another's
        self.steps = 0
        self.data_wait_s = 0.0
        self.started_at = time.perf_counter()

    def add(self, losses: dict[str, Tensor], data_wait_s: float) -> None:
        """Take in a step: its losses and gradient norms, on the device, and the seconds it waited for data.

        One with a value that is not finite was skipped; it is counted, but is in no mean.
        """
        if list(losses) != self.names:  # the first step; or a run that goes on with other losses than it stopped with
            self.names, self.summed_steps = list(losses), 0
            self.sums = self.peaks = self.finite_steps = torch.zeros(())
        values = torch.stack([value.float() for value in losses.values()])
        is_finite = values.isfinite().all()
        values = torch.where(is_finite, values, 0)
        self.sums = self.sums.to(values.device) + values
        self.peaks = torch.maximum(self.peaks.to(values.device), values)
        self.finite_steps = self.finite_steps.to(values.device) + is_finite
        self.summed_steps += 1
        self.steps += 1
        self.data_wait_s += data_wait_s

    def exclude(self, seconds: float) -> None:
        """Do not count seconds that passed with something else."""
        self.started_at += seconds

    def state_dict(self) -> dict[str, Any]:
        """Give the sums of an unfinished interval, of every process, for a run that goes on in its middle."""
        tensors = {"sums": distributed.all_gather(self.sums), "peaks": self.peaks, "finite_steps": self.finite_steps}
        return tensors | {"names": self.names, "steps": self.summed_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the sums of ``state_dict``; the rates begin anew."""
        sums = state["sums"]  # (processes, names)
        self.sums = sums[distributed.rank()] if len(sums) == distributed.world_size() else sums.mean(0)
        self.peaks, self.finite_steps = state["peaks"], state["finite_steps"]
        self.names, self.summed_steps = list(state["names"]), state["steps"]

    def statistics(self) -> dict[str, float]:
        """Give what came together since the last reset: mean losses and gradient norms, peaks of these, skipped steps.

        Means are over all processes; this waits for the device.
        """
        means = dict(zip(self.names, distributed.all_reduce_mean(self.sums / self.finite_steps).tolist(), strict=True))
        peaks = zip(self.names, self.peaks.tolist(), strict=True)
        skipped = {"skipped_steps": self.summed_steps - int(self.finite_steps)}
        return means | {f"{name}_peak": peak for name, peak in peaks if name.endswith("norm")} | skipped

    def rates(self) -> dict[str, float]:
        """Give the speed since the last reset, and which part of the time passed waiting for data."""
        seconds = time.perf_counter() - self.started_at
        return {
            "steps_per_s": self.steps / seconds,
            "images_per_s": self.steps * self.batch_size / seconds,
            "data_wait_share": self.data_wait_s / seconds,
        }
