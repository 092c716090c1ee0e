"""Log of a run: JSON lines, TensorBoard, and Weights & Biases."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from esrgan import images
from esrgan.config.schema import Logging
from esrgan.console import log
from esrgan.errors import EsrganError, Problem
from esrgan.files import create_folder, write_text
from esrgan.locks import lock
from esrgan.text import describe_error
from esrgan.training.run_files import STAGES

NETWORK_TIMEOUT_S = 10
WANDB_LABELS = {"pretraining": "PSNR-driven", "training": "GAN-based"}  # of the stages
# Tags in TensorBoard of the values of a log line, except losses. Both stages use the same ones, to share a chart.
TENSORBOARD_TAGS = {
    "learning_rate": "learning_rate/g",
    "g_learning_rate": "learning_rate/g",
    "d_learning_rate": "learning_rate/d",
    "gradient_norm": "gradient/g_norm",
    "gradient_norm_peak": "gradient/g_norm_peak",
    "g_gradient_norm": "gradient/g_norm",
    "g_gradient_norm_peak": "gradient/g_norm_peak",
    "d_gradient_norm": "gradient/d_norm",
    "d_gradient_norm_peak": "gradient/d_norm_peak",
    "skipped_steps": "gradient/skipped_steps",
    "real_logits": "discriminator/real_logits",
    "fake_logits": "discriminator/fake_logits",
    "d_paused": "discriminator/paused",
    "steps_per_s": "speed/steps_per_s",
    "images_per_s": "speed/images_per_s",
    "data_wait_share": "speed/data_wait_share",
}


def check_loggers(settings: Logging) -> Logging:
    """Check that the loggers work, before a run begins.

    Returns:
        The settings, without TensorBoard if it cannot be imported, and with Weights & Biases offline if its server
        cannot be reached. A warning says so.

    Raises:
        EsrganError: If Weights & Biases cannot be imported, refuses the project, or is to be online without a login.
    """
    changes: dict[str, Any] = {}
    if settings.tensorboard:
        try:
            importlib.import_module("torch.utils.tensorboard")
        except Exception as error:  # a broken installation can raise anything
            log.warning(
                "TensorBoard cannot be imported (%s): the run is logged without it; reinstall it with "
                "pip install 'esrgan[train]', or set logging.tensorboard to false",
                describe_error(error),
            )
            changes["tensorboard"] = False
    if settings.wandb != "disabled":
        is_online = settings.wandb == "online"
        try:
            wandb = importlib.import_module("wandb")
            is_logged_in = wandb.login(prompt=False, verify=False) if is_online else True
            url = wandb.setup().settings.base_url if is_online else ""  # starts a process that writes files
        except Exception as error:
            remedy = "pip install wandb, check WANDB_API_KEY and WANDB_BASE_URL, or set logging.wandb to disabled"
            raise EsrganError(f"wandb: cannot be used ({describe_error(error)}); {remedy}") from error
        try:
            wandb.Settings(project=settings.wandb_project)
        except Exception as error:
            place = "logging.wandb_project"
            raise EsrganError(Problem.failure(place, describe_error(error), "choose another name")) from error
        if not is_logged_in:
            raise EsrganError(
                "wandb: not logged in; run `wandb login` once, or set logging.wandb to offline or disabled"
            )
        if is_online and (problem := _find_network_problem(url)):
            log.warning("wandb: %s; the run is logged offline and can be uploaded with `wandb sync`", problem)
            changes["wandb"] = "offline"
    return settings.model_copy(update=changes)


def _find_network_problem(url: str) -> str | None:
    try:
        urllib.request.urlopen(url, timeout=NETWORK_TIMEOUT_S).close()  # noqa: S310  (an address of the user)
    except urllib.error.HTTPError:  # the server has answered
        return None
    except (OSError, ValueError) as error:
        return f"{url} cannot be reached ({describe_error(getattr(error, 'reason', None) or error)})"
    return None


class RunLog:
    """Writer of a run's scalars and images to all enabled logs, holding a lock that keeps other processes off the run.

    Args:
        folder: Folder of ``log.jsonl``, the images and TensorBoard's files.
        run: Its name.
        hparams: The whole configuration, for TensorBoard and Weights & Biases.
        settings: Which logs to write, as returned by ``check_loggers``.
        stages: The stages that the run goes through, in order.
        resumed_from: (step, whether its validation was done) of the checkpoint that the first stage resumes from.
            Records of these stages that were logged after it are removed. A new run has step 0 and False.

    Raises:
        EsrganError: If another process trains the run, or if the folder cannot be written (also by later calls).
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        hparams: dict[str, Any],
        settings: Logging,
        stages: Sequence[str] = STAGES,
        resumed_from: tuple[int, bool] = (0, False),
    ) -> None:
        self.folder = folder
        self.hparams = hparams
        self.first_stage, self.first_step = stages[0], resumed_from[0]
        create_folder(folder)
        with self._explain_write_errors():
            self.lock = lock(folder / ".lock", f"{folder}: another process is training {run}")
            _drop_later_records(folder / "log.jsonl", stages, *resumed_from)
            self.file = (folder / "log.jsonl").open("a", encoding="utf-8")
        self.use_tensorboard = settings.tensorboard
        self.tensorboard_writers: dict[str, Any] = {}
        self.excepthook = threading.excepthook
        if self.use_tensorboard:
            threading.excepthook = self._hide_tensorboard_traceback
            with self._explain_write_errors():
                self._hide_later_events(stages)
        self.wandb_run = None if settings.wandb == "disabled" else _start_wandb(settings, run, folder, hparams)

    def add_scalars(self, split: str, stage: str, step: int, values: dict[str, float]) -> None:
        """Log scalars after a number of completed steps in a stage.

        They are of the split "train", "validation" or "bicubic", which is the validation of bicubic. TensorBoard has
        one run for each stage and for bicubic, with tags such as ``loss/content``. Weights & Biases has a single one,
        with keys such as ``train/PSNR-driven/content_loss``.
        """
        record = {"time": round(time.time(), 3), "split": split, "stage": stage, "step": step}
        finite = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        with self._explain_write_errors():
            self.file.write(json.dumps(record | finite) + "\n")
            self.file.flush()
            if self.use_tensorboard:
                writer = self._tensorboard_writer(stage, is_reference=split == "bicubic")
                for name, value in values.items():
                    writer.add_scalar(_tensorboard_tag(split, name), value, step)
                writer.flush()
        if self.wandb_run is not None:
            label = WANDB_LABELS[stage]
            prefix = f"validation/{label}/bicubic_" if split == "bicubic" else f"{split}/{label}/"
            self.wandb_run.log({prefix + name: value for name, value in values.items()} | {f"{stage}_step": step})

    def add_image(self, stage: str, step: int, panel: np.ndarray) -> None:
        """Log a panel (H, W, 3) uint8, and write it to ``<stage>.png`` in place of the previous one."""
        with self._explain_write_errors():
            try:
                images.write_pixels(self.folder / f"{stage}.png", panel, overwrite=True)
            except EsrganError as error:  # such as a program that shows the previous one, and locks it on Windows
                log.warning("%s; training continues", error)
            if self.use_tensorboard:
                writer = self._tensorboard_writer(stage)
                writer.add_image("validation/LR_bicubic_SR_HR", panel, step, dataformats="HWC")
                writer.flush()
        if self.wandb_run is not None:
            import wandb

            key = f"validation/{WANDB_LABELS[stage]}/LR_bicubic_SR_HR"
            self.wandb_run.log({key: wandb.Image(panel), f"{stage}_step": step})

    @contextmanager
    def _explain_write_errors(self) -> Iterator[None]:
        try:
            self.folder.stat()  # an open log.jsonl can still be written, but nobody can read it any more
            yield
        except OSError as error:
            what, remedy = f"cannot be written: {describe_error(error)}", "check the folder and its free disk space"
            missing = [each for each in (self.folder, *self.folder.parents) if not each.exists()]
            if missing:
                what, remedy = f"the folder {missing[-1]} was moved or removed", "move it back if it still exists"
            raise EsrganError(Problem.failure(self.folder, what, remedy)) from error

    def _hide_tensorboard_traceback(self, failure: threading.ExceptHookArgs) -> None:
        """Hide write errors in TensorBoard's threads, because its writers raise them again when they are flushed."""
        is_tensorboard = type(failure.thread).__module__.startswith("tensorboard.")
        if not (is_tensorboard and isinstance(failure.exc_value, OSError)):
            self.excepthook(failure)

    def _tensorboard_writer(self, stage: str, *, is_reference: bool = False) -> Any:
        name = f"{stage}_bicubic" if is_reference else stage
        if name not in self.tensorboard_writers:
            from torch.utils.tensorboard import SummaryWriter

            step = self.first_step if stage == self.first_stage else 0
            # TensorBoard hides the events from this step on that an interrupted attempt wrote.
            purge_step = step + 1 if step else 0
            writer = SummaryWriter(str(self.folder / "tensorboard" / name), purge_step=purge_step)
            self.tensorboard_writers[name] = writer
            if not is_reference:
                text = json.dumps(self.hparams, indent=2, ensure_ascii=False)
                writer.add_text("configuration", f"```json\n{text}\n```", step)
        return self.tensorboard_writers[name]

    def _hide_later_events(self, stages: Sequence[str]) -> None:
        """Open the existing TensorBoard runs, which hides later events even if the run adds none to them."""
        for stage in stages:
            for name, is_reference in ((stage, False), (f"{stage}_bicubic", True)):
                if (self.folder / "tensorboard" / name).exists():
                    self._tensorboard_writer(stage, is_reference=is_reference).flush()

    def close(self) -> None:
        """Close all logs and release the lock, ignoring write errors, which were raised earlier."""
        for file in (self.file, *self.tensorboard_writers.values(), self.lock):
            with suppress(OSError):
                file.close()
        threading.excepthook = self.excepthook
        if self.wandb_run is not None:
            self.wandb_run.finish()


def _tensorboard_tag(split: str, name: str) -> str:
    if split != "train":
        return f"validation/{name}"
    return TENSORBOARD_TAGS.get(name) or f"loss/{name.removesuffix('_loss')}"


def _drop_later_records(path: Path, stages: Sequence[str], step: int, is_validated: bool) -> None:
    """Remove the records of some stages, the first from a checkpoint on, because the run writes them again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            stage, position = record["stage"], (record["step"], record["split"] != "train")
            is_earlier = stage == stages[0] and position <= (step, is_validated)
            if stage in STAGES and (is_earlier or stage not in stages):
                kept.append(line + "\n")
        except (ValueError, LookupError, TypeError):  # a line that was cut off or damaged when the run was killed
            continue
    write_text(path, "".join(kept))


def _start_wandb(settings: Logging, run: str, folder: Path, hparams: dict[str, Any]) -> Any:
    import wandb

    # Runs in different folders may have the same name, so the id also depends on the folder.
    identity = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]
    run_id = re.sub(r"[/\\#?%:;,']", "-", f"{run}-{identity}").strip()  # it may not have these characters
    arguments: dict[str, Any] = {"id": run_id, "name": run, "dir": folder, "config": hparams}
    arguments |= {"project": settings.wandb_project, "entity": settings.wandb_entity, "resume": "allow"}
    try:
        started = wandb.init(mode=settings.wandb, **arguments)
    except Exception as error:
        if settings.wandb != "online":
            remedy = "correct this, or set logging.wandb to disabled"
            raise EsrganError(f"wandb: {describe_error(error)}; {remedy}") from error
        log.warning("wandb: %s; the run is logged offline and can be uploaded with `wandb sync`", describe_error(error))
        started = wandb.init(mode="offline", **arguments)
    for stage, label in WANDB_LABELS.items():
        for split in ("train", "validation"):
            started.define_metric(f"{split}/{label}/*", step_metric=f"{stage}_step")
    return started
