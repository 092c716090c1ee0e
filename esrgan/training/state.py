"""A stage while it runs: its state, restored from a checkpoint if there is one, and its batches."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from esrgan.config import Config
from esrgan.console import log
from esrgan.data import load_batches
from esrgan.devices import send
from esrgan.machine import cpu_count
from esrgan.training import distributed, interrupt
from esrgan.training.checkpoint import Checkpoint, is_same_training
from esrgan.training.ema import ExponentialMovingAverage
from esrgan.training.inputs import StageData
from esrgan.training.meter import Meter
from esrgan.training.recovery import Recovery, capture_state, restore_state
from esrgan.training.setup import Run, make_stage
from esrgan.training.stages import Stage
from esrgan.training.start import explain_mismatch
from esrgan.training.validation import Best, make_judge


@dataclass
class StageState:
    """A stage while it runs."""

    stage: Stage
    data: StageData
    ema: ExponentialMovingAverage
    meter: Meter
    recovery: Recovery
    judge: dict[str, str]  # what the best model is judged by; see Best
    best: Best | None = None
    done: int = 0  # number of completed steps
    pending_validation: bool | None = None  # see Checkpoint
    is_shortened: bool = False  # to the step of its checkpoint, so what is due at the end has not been done
    saved_at: float = field(default_factory=time.monotonic)
    statistics: dict[str, float] = field(default_factory=dict)  # of the last interval, shown until the next one ends
    bicubic: dict[str, float] = field(default_factory=dict)  # its validation, as a reference
    drift: float = math.inf  # colour_drift of the last validation
    warned: set[str] = field(default_factory=set)  # subjects of the warnings that have been given

    def to_checkpoint(self, run: Run) -> Checkpoint:
        """Return the checkpoint of the last step; a collective operation, which all processes have to call."""
        captured = capture_state(self.stage, self.ema)
        return Checkpoint(
            stage=self.stage.name,
            hparams=run.config.to_dict(),
            run=run.files.run,
            config_name=run.options.config_name,
            step=self.done,
            timeline=self.data.timeline.to_dict(),
            train_images=[pair.checksum for pair in self.data.patches.pairs],
            pending_validation=self.pending_validation,
            best=None if self.best is None else vars(self.best),
            interval=self.meter.state_dict(),
            recovery=self.recovery.state_dict(self.done),
            state=captured["stage"],
            params=captured["params"],
            params_ema=captured["params_ema"],
        )


def begin_stage(run: Run, name: str) -> StageState:
    """Return the state of a stage at its first step, or at that of the checkpoint to resume."""
    data = run.data[name]
    ema = ExponentialMovingAverage(run.generator, run.config.ema_decay)
    stage = make_stage(name, run.config, run.generator, run.discriminator, run.losses, ema.average)
    checkpoint = run.start.resume if name == run.start.stage else None
    if checkpoint is not None:
        with explain_mismatch(run.start.path):
            restore_state(checkpoint.to_state(), stage, ema)
    # Images may be decoded differently on other machines, and all processes must choose the same best model.
    judge = distributed.broadcast_object(lambda: make_judge(name, data.validation, run.losses.perceptual))
    meter, recovery = Meter(run.config.batch_size), Recovery(stage, ema, checkpoint.step if checkpoint else 0)
    state = StageState(stage, data, ema, meter, recovery, judge)
    if checkpoint is not None:
        if is_same_training(checkpoint.hparams, run.config.to_dict()):  # otherwise means would be of different losses
            meter.load_state_dict(checkpoint.interval)
        recovery.load_state_dict(checkpoint.recovery)
        state.done, state.pending_validation = checkpoint.step, checkpoint.pending_validation
        state.is_shortened = checkpoint.is_shortened(data.timeline.total_steps)
        _restore_best(state, checkpoint.best)
        if (factor := stage.updaters[0].learning_rate_factor) < 1:
            log.info(f"{name}: continues with {factor:g} × the learning rate, because of earlier rollbacks")
    return state


def _restore_best(state: StageState, best: dict[str, Any] | None) -> None:
    """Restore the best score of a checkpoint, unless scores of this run cannot be compared with it."""
    if not best:
        return
    before: dict[str, str] = best.get("judge", {})  # earlier versions did not store it
    has_other_criterion = before and state.judge.keys() != before.keys()  # the other differences follow from it
    names = ["the criterion"] if has_other_criterion else list(state.judge | before)
    changed = [name for name in names if state.judge.get(name) != before.get(name)]
    if before and not (changed and state.data.validation):  # without images, it is kept for a later resume
        state.best = Best(**best)
    elif state.data.validation:
        what = f"{' and '.join(changed)} {'changed' if before else 'may have changed'}"
        log.info(f"{state.stage.name}: {what}, so the next validation starts a new search for the best model")


def iterate_batches(
    run: Run, state: StageState, first_step: int, last_step: int | None = None
) -> Generator[tuple[Tensor, Tensor, Tensor], None, None]:
    """Load the batches of a stage from a step on, as float32 (B, C, H, W) in [0, 1] on the device.

    The bytes are transferred and then converted. With a degradation, the LR patches are replaced on the device.

    Yields:
        LR, HR, and the target of the content, perceptual and artefact losses.
    """
    timeline, batch_size = state.data.timeline, run.config.batch_size
    batches = load_batches(
        state.data.patches,
        batch_size=batch_size,
        first_step=first_step,
        last_step=timeline.total_steps if last_step is None else last_step,
        offset=timeline.first_patch(0),
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        num_workers=_choose_num_workers(run.config, run.device),
        pin_memory=run.device.type == "cuda",
        stop=interrupt.is_requested,
    )
    for step, batch in enumerate(state.meter.time_waits(batches), first_step):
        on_device = (send(images, run.device) for images in batch)
        low, high = (images.to(torch.float32, memory_format=torch.channels_last) / 255 for images in on_device)
        target = high
        if state.data.degradation is not None:
            position = timeline.first_patch(step) + distributed.rank() * len(high)
            low, target = state.data.degradation(high, position, low)
        yield low, high, target


def _choose_num_workers(config: Config, device: torch.device) -> int:
    """Choose the number of loader processes; on a CPU it is 0, because training itself uses all cores."""
    if config.num_workers is not None:
        return config.num_workers
    return 0 if device.type == "cpu" else min(8, max(1, cpu_count() // distributed.local_world_size() - 1))
