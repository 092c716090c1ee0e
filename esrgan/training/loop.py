"""The training run: one loop for both stages, to be read from top to bottom."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from esrgan.config import Config, describe_changes
from esrgan.console import Console
from esrgan.data import load_batches
from esrgan.data.patches import Batch
from esrgan.devices import allow_tf32
from esrgan.errors import TrainingError, WeightsError
from esrgan.losses import ContentLoss, PerceptualLoss
from esrgan.text import format_count, format_duration, format_size
from esrgan.training import distributed
from esrgan.training.checkpoint import RunFiles, find_newest_checkpoint, save_checkpoint
from esrgan.training.ema import ExponentialMovingAverage
from esrgan.training.interrupt import explain_failures, interruptible
from esrgan.training.log import RunLog
from esrgan.training.meter import Meter
from esrgan.training.options import TrainOptions
from esrgan.training.recovery import MAX_ROLLBACKS, Recovery, capture_state, restore_state
from esrgan.training.setup import (
    StageData,
    check_processes_agree,
    choose_num_workers,
    describe_networks,
    load_inputs,
    make_autocast,
    make_networks,
    make_stage,
)
from esrgan.training.stages import Autocast, Stage
from esrgan.training.start import StartingPoint, find_start
from esrgan.training.validation import make_panel, validate
from esrgan.weights import save_file

MIN_CHECKPOINT_INTERVAL_S = 60  # an epoch of few images can be shorter than writing a checkpoint


@dataclass
class Run:
    """The objects that a run passes around, and the best validation score of each stage so far."""

    config: Config
    options: TrainOptions
    device: torch.device
    autocast: Autocast
    content_loss: ContentLoss
    perceptual_loss: PerceptualLoss | None
    files: RunFiles
    log: RunLog | None  # only in process 0
    console: Console
    best: dict[str, float] = field(default_factory=dict)


def train(config: Config, options: TrainOptions) -> bool:
    """Train a generator in the PSNR-oriented stage, then in the GAN stage, or in one of them (ESRGAN §4.1).

    Args:
        config: Networks, losses, datasets and schedules of both stages.
        options: Stage, device, weight file to start from, output folder and other settings of this run.

    Returns:
        True if the run is complete; False if it was interrupted after writing a checkpoint.

    Raises:
        EsrganError: If the datasets, weight files or the device cannot be used. Nothing has been trained then.
        TrainingError: If the run cannot continue, because it diverged or the disk is full, for example. The last
            checkpoint is intact.
        LostProcessError: If another process of the run has ended.

    Example:
        >>> from esrgan import Config, TrainOptions, train
        >>> stage = {"num_steps": 2, "cr_patch_size": [32, 32]}
        >>> stage |= {"train_datasets": ["."], "val_datasets": ["."]}  # the images in this folder
        >>> generator = {"rrdb_channels": 8, "growth_channels": 4, "num_basic_blocks": 1}
        >>> config = Config(batch_size=1, generator=generator, pretraining=stage, logging={"tensorboard": False})
        >>> train(config, TrainOptions(stage="pretraining", run_name="tiny", device="cpu"))
        starting pretraining
        ...
        pretraining is done: saved_models/tiny_RRDB_PSNR_x4.pth
        True
    """
    with distributed.process_group(options.device) as device:
        console = Console(None if distributed.rank() == 0 else distributed.null_stream())
        try:
            return _train(config, options, device, console)
        finally:
            console.clear()


def _train(config: Config, options: TrainOptions, device: torch.device, console: Console) -> bool:
    # Choose the starting point. Only process 0 needs to have the file.
    start = distributed.broadcast_object(lambda: _find_starting_point(config, options, console))
    console.print(start.description)

    # Prepare networks, data and losses. All problems are raised here, before anything is trained or written.
    generator, discriminator = make_networks(config, device)
    console.print(f"{describe_networks(config, generator, discriminator)}; on {device}")
    if start.resume is not None and (changes := describe_changes(start.resume["hparams"], config.to_dict())):
        console.print(f"the configuration has changed since the checkpoint: {'; '.join(changes)}")
    autocast = make_autocast(config, options, device, console)
    content_loss = ContentLoss(**config.content_loss.model_dump())
    data, perceptual_loss = load_inputs(config, options, start.stages, device, console)
    check_processes_agree(config, options, data)
    for name in start.stages:
        stage_data = data[name]
        console.print(
            f"{name}: training images {len(stage_data.patches.pairs):,}, validation images "
            f"{len(stage_data.validation):,}, steps {stage_data.total_steps:,} ({stage_data.steps_per_epoch:,} per "
            f"epoch), batch size {config.batch_size}"
        )
    start.load_into(generator, discriminator)
    distributed.broadcast_weights([generator, discriminator])

    files, log = _open_files(config, options, start, console)
    run = Run(config, options, device, autocast, content_loss, perceptual_loss, files, log, console)
    try:
        with interruptible() as interrupted, allow_tf32(device):
            for name in start.stages:
                ema = ExponentialMovingAverage(generator, config.ema_decay)
                stage = make_stage(name, config, generator, discriminator, content_loss, perceptual_loss, autocast)
                resume = start.resume if name == start.stage else None
                if resume is not None:
                    _restore(resume, stage, ema, run)
                with explain_failures(device):
                    if options.dry_run:
                        _dry_run(run, stage, data[name], ema, interrupted)
                    elif not _run_stage(run, stage, data[name], ema, resume or {"step": 0}, interrupted):
                        return False
                if options.dry_run:
                    if interrupted.is_set():
                        return False
                    continue
                generator.load_state_dict(ema.average.state_dict())  # the next stage starts from the saved model
    finally:
        if log is not None:
            log.close()
    if options.dry_run:
        console.print("dry run: everything is in place; nothing was written except the cache of decoded images")
    return True


def _find_starting_point(config: Config, options: TrainOptions, console: Console) -> StartingPoint:
    path = options.load_checkpoint
    if options.resume:
        newest, damaged = find_newest_checkpoint(options.out_dir, options.config_name, options.run_name, options.stage)
        for error in damaged:
            console.print(f"--resume auto: skipping {error}")
        if newest is None:
            wanted = options.run_name or options.config_name
            console.print(f"--resume auto: no checkpoint of {wanted} in {options.out_dir}; starting a new run")
        path = newest or path
    return find_start(config, options, path)


def _open_files(
    config: Config, options: TrainOptions, start: StartingPoint, console: Console
) -> tuple[RunFiles, RunLog | None]:
    if start.resume is not None:
        files = RunFiles(options.out_dir, start.resume["run"], config.scale_factor)
    elif options.resume and options.run_name:  # the run may exist if it was killed before its first checkpoint
        files = RunFiles(options.out_dir, options.run_name, config.scale_factor)
    else:
        files = distributed.broadcast_object(
            lambda: RunFiles.new(options.out_dir, config.scale_factor, options.run_name)
        )
    if distributed.rank() > 0 or options.dry_run:
        return files, None
    logging, resume = config.logging, start.resume or {"step": 0}
    log = RunLog(
        files.logs,
        run=files.run,
        hparams=config.to_dict(),
        tensorboard=logging.tensorboard,
        wandb=logging.wandb,
        wandb_project=logging.wandb_project,
        wandb_entity=logging.wandb_entity,
        resumed_from=(start.stage, resume["step"], not resume.get("unvalidated", False)),
    )
    files.remove_abandoned()
    console.print(f"run {files.run}: models in {options.out_dir}, logs in {files.logs}")
    return files, log


def _run_stage(
    run: Run,
    stage: Stage,
    data: StageData,
    ema: ExponentialMovingAverage,
    resume: dict[str, Any],
    interrupted: threading.Event,
) -> bool:
    """Run a stage to its end; return False if it was interrupted."""
    config, options = run.config, run.options
    # If the checkpoint was written before its validation was done, only the validation of that step is repeated.
    first_step = resume["step"] - resume.get("unvalidated", False)
    loader = load_batches(
        data.patches,
        batch_size=config.batch_size,
        first_step=first_step,
        last_step=data.total_steps,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        num_workers=choose_num_workers(config, run.device),
        pin_memory=run.device.type == "cuda",
    )
    meter, recovery = Meter(config.batch_size), Recovery(stage, ema, resume["step"])
    if "interval" in resume:
        meter.load_state_dict(resume["interval"])
        recovery.load_state_dict(resume["recovery"])
    statistics: dict[str, float] = {}  # means of the last interval, shown until the next one ends
    stage.generator.train()
    last_checkpoint_at = time.monotonic()
    for step in range(first_step, data.total_steps):
        done = step + 1
        is_end = done == data.total_steps

        # Fetch.
        before = time.perf_counter()
        batch = next(loader)
        data_wait_s = time.perf_counter() - before
        low, high, target = _to_device(batch, run, data, step)

        if done > resume["step"]:
            # Train.
            losses = stage.step(low, high, step, target)
            ema.update(step)
            meter.add(losses, data_wait_s)
            recovery.add(losses, step)

            # Report.
            if done % config.logging.interval == 0 or is_end:
                statistics = _report(run, stage, meter, done)
                run.console.update(_progress_line(stage, data, statistics, meter.rates(), done), keep=True)
                meter.reset()
                if recovery.needs_rollback():
                    _roll_back(run, stage, data, recovery, done)
            elif run.console.is_update_due():
                run.console.update(_progress_line(stage, data, statistics, meter.rates(), done), keep=False)

        # Decide what is due, and whether the weights are worth saving.
        epoch, surplus_steps = divmod(done, data.steps_per_epoch)
        is_epoch = surplus_steps == 0
        if options.checkpoint_interval is None:
            checkpoint_is_due = is_epoch and distributed.any_rank(
                time.monotonic() - last_checkpoint_at > MIN_CHECKPOINT_INTERVAL_S
            )
        else:
            checkpoint_is_due = is_epoch and epoch % options.checkpoint_interval == 0
        model_is_due = bool(options.store_model_interval and is_epoch and epoch % options.store_model_interval == 0)
        validation_is_due = is_end or done % config.validation_interval == 0
        is_healthy = (checkpoint_is_due or model_is_due or validation_is_due) and recovery.is_healthy(low, high)
        model_is_due = model_is_due and is_healthy
        if is_end and not is_healthy and not recovery.has_sane_output(low, high):
            raise TrainingError(
                f"{stage.name}: the final generator produces no usable image; the last good checkpoint is kept; "
                f"restart with a lower learning rate, or set gradient_clip"
            )

        # Validate.
        is_best: bool | None = False
        if validation_is_due:
            before = time.perf_counter()
            is_best = _validate(run, stage, data, ema, done, is_healthy, interrupted)
            meter.exclude(time.perf_counter() - before)
        is_validated = is_best is not None

        # Save. A model always comes with a checkpoint to resume from. Broken weights are not saved at intervals.
        stopping = distributed.any_rank(interrupted.is_set())
        checkpoint_is_due = checkpoint_is_due and is_healthy
        if is_validated and model_is_due:
            _save_model(run, stage, ema, run.files.epoch(stage.name, epoch))
        if is_validated and is_healthy and (checkpoint_is_due or model_is_due or is_best or is_end):
            recovery.snapshot(done)
        if checkpoint_is_due or model_is_due or is_best or is_end or stopping:
            _save_checkpoint(run, stage, ema, meter, recovery, done, is_validated)
            last_checkpoint_at = time.monotonic()
        if stopping and not (is_end and is_validated):
            run.console.print(
                f"stopped after step {done} of {stage.name}; checkpoint {run.files.checkpoint(stage.name)} written; "
                f"run the same command with --resume auto to continue"
            )
            return False
    _save_model(run, stage, ema, run.files.model(stage.name))
    run.console.print(f"{stage.name} is done: {run.files.model(stage.name)}")
    return True


def _to_device(batch: Batch, run: Run, data: StageData, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Move LR and HR patches (B, C, H, W) uint8 to the device and convert them to float32 in [0, 1].

    The bytes are transferred and then converted. With a degradation, the LR patches are replaced on the device.

    Returns:
        LR, HR, and the target of the content and perceptual losses.
    """
    on_device = (images.to(run.device, non_blocking=True) for images in batch)
    low, high = (images.to(torch.float32, memory_format=torch.channels_last) / 255 for images in on_device)
    if data.degradation is None:
        return low, high, high
    low, target = data.degradation(high, step * run.config.batch_size + distributed.rank() * len(high))
    return low, high, target


def _report(run: Run, stage: Stage, meter: Meter, done: int) -> dict[str, float]:
    """Log the statistics of an interval and return them."""
    statistics = meter.statistics()
    if run.log is not None:
        values = statistics | meter.rates() | stage.learning_rates(done - 1)
        run.log.add_scalars("train", stage.name, stage.label, done, values)
    return statistics


def _roll_back(run: Run, stage: Stage, data: StageData, recovery: Recovery, done: int) -> None:
    """Restore a diverged stage to its last good state, in all processes; raise after ``MAX_ROLLBACKS`` in a row."""
    diagnosis, first_bad = recovery.diagnose()
    batch_size, good_step = run.config.batch_size, recovery.good["step"]
    images = {data.patches.pair_at(first_bad * batch_size + i).source.high.name: None for i in range(batch_size)}
    problem = (
        f"{stage.name}: every step from {first_bad + 1} to {done} diverged, "
        f"the first with {diagnosis} on {', '.join(images)}"
    )
    if recovery.rollbacks == MAX_ROLLBACKS:
        rate = "pretraining.lr" if stage.name == "pretraining" else "training.g_lr and d_lr"
        raise TrainingError(
            f"{problem}; {MAX_ROLLBACKS} rollbacks to step {good_step} with reduced learning rates did not help; "
            f"lower {rate}, set gradient_clip or check these images; --resume auto continues from the last checkpoint"
        )
    recovery.roll_back()
    factor = stage.updaters[0].learning_rate_factor
    run.console.print(f"{problem}; rolled back to the weights of step {good_step} with {factor:g} × the learning rate")


def _progress_line(
    stage: Stage, data: StageData, statistics: dict[str, float], rates: dict[str, float], done: int
) -> str:
    """Describe the progress of a stage on one line."""
    shown = {name.removesuffix("_loss"): value for name, value in statistics.items() if name.endswith("loss")}
    losses = "".join(f" {name} {value:.4g}" for name, value in shown.items())
    learning_rate = next(iter(stage.learning_rates(done - 1).values()))
    left_s = (data.total_steps - done) / rates["steps_per_s"]
    return (
        f"{stage.name} {done:,}/{data.total_steps:,}, {format_duration(left_s)} left, "
        f"{rates['images_per_s']:.1f} images/s "
        f"({rates['data_wait_share']:.0%} waiting for data), learning rate {learning_rate:.3g}, loss:{losses or ' …'}"
    )


def _validate(
    run: Run,
    stage: Stage,
    data: StageData,
    ema: ExponentialMovingAverage,
    done: int,
    is_healthy: bool,
    interrupted: threading.Event,
) -> bool | None:
    """Measure the averaged generator and save it if it is the best healthy one so far.

    Returns:
        Whether it is the best; None if the validation was interrupted.
    """
    images = format_count(len(data.validation), "image")
    run.console.update(f"{stage.name} {done:,}: validating on {images}", keep=False)
    values = validate(
        ema.average, data.validation, run.content_loss, run.perceptual_loss, run.autocast, run.device, interrupted
    )
    if values is None:
        return None
    is_best = is_healthy and _is_best(run, stage, data, done, values)
    if run.log is None:
        return is_best
    run.log.add_scalars("validation", stage.name, stage.label, done, values)
    if shown := data.validation[: run.config.logging.num_images]:
        panel = make_panel(ema.average, shown, run.autocast, run.device)
        run.log.add_image(stage.name, stage.label, done, panel)
    perceptual = f", perceptual loss {values['perceptual_loss']:.4g}" if "perceptual_loss" in values else ""
    run.console.print(
        f"{stage.name} {done:,}: validation PSNR {values['PSNR']:.3f} dB (Y), {values['PSNR_RGB']:.3f} dB (RGB), "
        f"SSIM {values['SSIM']:.4f} (Y){perceptual}{', best so far' if is_best else ''}"
    )
    if is_best:
        _save_model(run, stage, ema, run.files.best(stage.name))
    return is_best


def _is_best(run: Run, stage: Stage, data: StageData, done: int, values: dict[str, float]) -> bool:
    """Return whether a validation is the best of its stage so far, and record its score if it is.

    The PSNR stage is judged by PSNR on Y, which it optimises. The GAN stage trades PSNR for texture, so PSNR would
    select its first steps. It is judged by the perceptual loss; without one, the newest model counts as best.
    """
    if done <= run.options.best_checkpoint_warmup * data.steps_per_epoch:
        return False
    if stage.name == "pretraining":
        criterion, score = "PSNR", values["PSNR"]
    elif "perceptual_loss" in values:
        criterion, score = "perceptual_loss", -values["perceptual_loss"]
    else:
        criterion, score = "step", float(done)
    key = f"{stage.name} by {criterion}"  # the criterion may change when a run is resumed
    if not score > run.best.get(key, float("-inf")):  # also rejects NaN
        return False
    run.best[key] = score
    return True


def _save_checkpoint(
    run: Run,
    stage: Stage,
    ema: ExponentialMovingAverage,
    meter: Meter,
    recovery: Recovery,
    done: int,
    is_validated: bool,
) -> None:
    unfinished_interval = meter.state_dict()  # a collective operation, so all processes call it
    if distributed.rank() > 0:
        return
    state = capture_state(stage, ema)
    content = _model_content(run, stage, ema) | {
        "params_ema": state["params_ema"],
        "params": state["params"],
        "checkpoint": {
            "run": run.files.run,
            "config_name": run.options.config_name,
            "step": done,
            "unvalidated": not is_validated,
            "best": run.best,
            "interval": unfinished_interval,
            "recovery": recovery.state_dict(done),
            "stage": state["stage"],
        },
    }
    save_checkpoint(run.files.checkpoint(stage.name), content, run.config.keep_checkpoints)


def _restore(resume: dict[str, Any], stage: Stage, ema: ExponentialMovingAverage, run: Run) -> None:
    """Restore a stage and the best scores from a checkpoint."""
    try:
        restore_state(resume, stage, ema)
    except (RuntimeError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{run.files.checkpoint(stage.name)}: its optimiser or discriminator does not match the configuration "
            f"({str(error).strip().splitlines()[-1].strip()}); undo the change, or start a new run from a model with -l"
        ) from error
    run.best = dict(resume["best"])


def _save_model(run: Run, stage: Stage, ema: ExponentialMovingAverage, path: Path) -> None:
    if distributed.rank() == 0:
        save_file(path, _model_content(run, stage, ema))


def _model_content(run: Run, stage: Stage, ema: ExponentialMovingAverage) -> dict[str, Any]:
    return {"params": ema.average.state_dict(), "stage": stage.name, "hparams": run.config.to_dict()}


def _dry_run(
    run: Run, stage: Stage, data: StageData, ema: ExponentialMovingAverage, interrupted: threading.Event
) -> None:
    """Run two steps (the first to warm up) and validate one image, and estimate the whole stage from these."""
    loader = load_batches(
        data.patches,
        batch_size=run.config.batch_size,
        first_step=0,
        last_step=2,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )
    for step, batch in enumerate(loader):
        before = time.perf_counter()
        low, high, target = _to_device(batch, run, data, step)
        losses = stage.step(low, high, step, target)
        values = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items() if name.endswith("loss"))
        step_s = time.perf_counter() - before
    before = time.perf_counter()
    first = data.validation[:1]
    validate(ema.average, first, run.content_loss, run.perceptual_loss, run.autocast, run.device, interrupted)
    pixels = [math.prod(pair.shape[:2]) for pair in data.validation]
    validation_s = (time.perf_counter() - before) * sum(pixels) / pixels[0] / distributed.world_size()
    total_s = data.total_steps * step_s + math.ceil(data.total_steps / run.config.validation_interval) * validation_s
    if run.device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(run.device)
    else:
        memory = psutil.Process().memory_info().rss
    run.console.print(
        f"{stage.name}: {step_s:.2f} s per step, {format_duration(validation_s)} per validation, about "
        f"{format_duration(total_s)} for the whole stage; {format_size(memory)} of memory; {values}"
    )
