"""The training run: one loop for both stages, to be read from top to bottom."""

from __future__ import annotations

import math
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from torch import Tensor

from esrgan.config import Config
from esrgan.console import hold_lines, log, progress, show_messages
from esrgan.devices import benchmark_convolutions, explain_lack_of_memory
from esrgan.errors import EsrganError, TrainingError
from esrgan.models.winograd import winograd_convolutions
from esrgan.text import format_count
from esrgan.training import distributed, interrupt
from esrgan.training.checkpoint import save_checkpoint
from esrgan.training.dry_run import try_stages
from esrgan.training.options import TrainOptions, check_options
from esrgan.training.recovery import MAX_ROLLBACKS, MAX_SCALING_STEPS
from esrgan.training.report import describe_progress, report_interval, report_start, report_validation
from esrgan.training.run_files import STAGES
from esrgan.training.schedule import Due, what_is_due
from esrgan.training.setup import Run, prepare_run
from esrgan.training.state import StageState, begin_stage, iterate_batches
from esrgan.training.validation import Best, score, validate
from esrgan.weights import save_file


def train(config: Config, options: TrainOptions) -> bool:
    """Train a generator in the PSNR-oriented stage, then in the GAN stage, or in one of them (ESRGAN §4.1).

    Progress and messages go to the logger "esrgan". They are printed unless the program has configured logging.

    Args:
        config: Networks, losses, datasets and schedules of both stages.
        options: Stage, device, weight file to start from, output folder and other settings of this run.

    Returns:
        True if the run is complete; False if it was interrupted: with ``resume="auto"`` in the options, it continues.

    Raises:
        EsrganError: If the options, datasets, weight files or the device cannot be used. Nothing has been trained then.
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
    if not isinstance(config, Config):
        raise EsrganError(f"config: expected a Config, got {type(config).__name__}; read a file with load_config")
    check_options(options)
    with (
        show_messages(),
        distributed.process_group(options.device) as device,
        explain_lack_of_memory(device, "training"),
        hold_lines() if options.dry_run else nullcontext(),
        prepare_run(config, options, device) as run,
    ):
        try:
            with interrupt.interruptible():
                if options.dry_run:
                    try_stages(run)
                    return True
                for name in run.start.stages:
                    state = begin_stage(run, name)
                    with interrupt.explain_failures(device):
                        _run_stage(run, state)
                    # The next stage starts from the saved model.
                    run.generator.load_state_dict(state.ema.average.state_dict())
        except interrupt.Interrupted as interruption:
            log.info("%s", interruption)
            return False
        return True


def _run_stage(run: Run, state: StageState) -> None:
    """Train a stage to its end.

    Raises:
        Interrupted: If a signal asked for it, once a checkpoint is written.
        TrainingError: If the stage diverged.
    """
    stage, ema, meter, recovery = state.stage, state.ema, state.meter, state.recovery
    _start_stage(run, state)
    stage.generator.train()
    for low, high, target in iterate_batches(run, state, state.done):
        # Update the weights and their average.
        # Both are only for steps, because validation images are large and have many sizes.
        with benchmark_convolutions(run.device), winograd_convolutions(run.device):
            losses = stage.step(low, high, state.done, target)
        ema.update(state.done)
        meter.add(losses)
        recovery.add(losses, state.done)
        state.done += 1

        # Report; return to the last good weights if all recent steps were bad.
        due = _what_is_due(run, state)
        if due.report:
            report_interval(run, state)
        else:
            progress(describe_progress(state))
        if (due.report or recovery.is_check_due(state.done)) and recovery.needs_rollback():
            _roll_back(state)

        # Validate the average, and save models and checkpoints.
        is_healthy = due.needs_health and _is_healthy(state, due, low, high)
        _validate_and_save(run, state, due, is_healthy)
    model_path = run.files.model(stage.name)
    if not model_path.exists():  # it may have been deleted since
        _save_model(run, state, model_path)
    log.info(f"{stage.name} is done: {model_path}")


def _start_stage(run: Run, state: StageState) -> None:
    """Validate bicubic and the starting weights, and do what is still due at the checkpoint that the stage resumes.

    Raises:
        Interrupted: If a signal asked for it.
    """
    has_steps = state.done < state.data.timeline.total_steps
    if state.data.validation and (has_steps or state.is_shortened or state.pending_validation is not None):
        try:
            report_start(run, state)
        except interrupt.Interrupted as interruption:
            raise interrupt.Interrupted(
                f"stopped before step {state.done + 1} of {state.stage.name}; run the same command with --resume auto "
                f"to continue"
            ) from interruption
    if state.is_shortened:
        due = _what_is_due(run, state)
        with closing(iterate_batches(run, state, state.done, state.done + 1)) as batches:
            low, high, _ = next(batches)
        if state.meter.summed_steps:  # since the last log line
            report_interval(run, state)
        _validate_and_save(run, state, due, _is_healthy(state, due, low, high))
    elif state.pending_validation is not None:
        due = replace(_what_is_due(run, state), validation=True)  # even if the interval has changed
        _validate_and_save(run, state, due, state.pending_validation)


def _what_is_due(run: Run, state: StageState) -> Due:
    # The processes have to agree, although their clocks differ and a signal may have reached only one of them.
    seconds = time.monotonic() - state.saved_at
    stop, seconds = distributed.all_reduce_max(float(interrupt.is_requested()), seconds)
    return what_is_due(state.done, state.data.timeline, run.config, run.options, seconds, stop=bool(stop))


def _is_healthy(state: StageState, due: Due, low: Tensor, high: Tensor) -> bool:
    """Return whether the weights are worth saving after a step on a batch.

    Raises:
        TrainingError: If the stage ends with weights that cannot be used at all, or has learned nothing.
    """
    if due.end and not state.recovery.has_sane_output(low, high):
        raise TrainingError(
            f"{state.stage.name}: the final generator produces no usable image; an earlier checkpoint is kept, if "
            f"there is one; restart with a lower learning rate, or set gradient_clip"
        )
    if due.end and state.recovery.was_bad():
        _check_last_steps(state)
    return state.recovery.is_healthy(low, high)


def _validate_and_save(run: Run, state: StageState, due: Due, is_healthy: bool) -> None:
    """Validate, keep a model, and write a checkpoint, if they are due. Broken weights are not saved at intervals.

    Raises:
        Interrupted: If a signal asked for it, once a checkpoint is written.
    """
    files, name = run.files, state.stage.name
    may_save_model = (due.validation and state.data.validation) or due.model_epoch is not None or due.end
    if may_save_model and (is_healthy or due.end) and not _has_checkpoint(run):
        # Comes first, because a run that ends with a model but without a checkpoint could not be resumed.
        state.pending_validation = is_healthy
        _save_checkpoint(run, state)
    is_best = False
    if due.validation and state.data.validation:
        state.pending_validation = is_healthy
        try:
            is_best = _validate(run, state, is_healthy)
        except interrupt.Interrupted:
            _save_checkpoint_and_stop(run, state)
    state.pending_validation = None

    if due.model_epoch is not None and is_healthy:
        _save_model(run, state, files.epoch(name, due.model_epoch))
    elif due.model_epoch is not None:
        log.info(
            f"{name}: the model of epoch {due.model_epoch} is not kept, because training diverged in its last step"
        )
    if due.end:  # before the checkpoint, after which the stage counts as finished
        _save_model(run, state, files.model(name))
    # A model always comes with a checkpoint to resume from.
    is_good_state = is_healthy and (due.checkpoint or due.model_epoch is not None or is_best or due.end)
    if is_good_state:
        state.recovery.snapshot(state.done)
    if due.stop and not due.end:
        _save_checkpoint_and_stop(run, state)
    if is_good_state or due.end:
        _save_checkpoint(run, state)


def _validate(run: Run, state: StageState, is_healthy: bool) -> bool:
    """Measure the averaged generator, save it if it is the best healthy one so far, and return whether it is.

    Raises:
        Interrupted: In all processes, if one of them was asked to stop.
    """
    name, done, pairs = state.stage.name, state.done, state.data.validation
    started_at = time.perf_counter()
    progress(f"{name} {done:,}: validating on {format_count(len(pairs), 'image')}")
    values = validate(state.ema.average, pairs, run.losses)
    new_score = score(values, state.judge, done)
    is_early = state.data.timeline.epochs(done) <= run.options.best_checkpoint_warmup
    best_score = -math.inf if state.best is None else state.best.score
    is_best = is_healthy and not is_early and new_score > best_score  # false for NaN
    report_validation(run, state, values, is_best=is_best)
    if is_best:
        state.best = Best(new_score, state.judge)
        _save_model(run, state, run.files.best(name))
    state.meter.exclude(time.perf_counter() - started_at)
    return is_best


def _check_last_steps(state: StageState) -> None:
    """Warn of the bad steps with which a stage ends, unless float16 explains them; raise if nothing was learned."""
    recovery = state.recovery
    problem, first_bad = _diagnose(state)
    # No step has succeeded since a rollback if the bad steps are still those that caused it.
    is_rolled_back = recovery.rollbacks > 0 and first_bad == recovery.rolled_back_from
    step = recovery.good["step"] if is_rolled_back else first_bad
    is_scaling = state.stage.autocast.needs_loss_scaling and not is_rolled_back
    may_be_scaling = is_scaling and state.done - first_bad <= MAX_SCALING_STEPS
    if step == 0 and not may_be_scaling:
        raise TrainingError(f"{problem}; nothing was learned; {_name_remedies(state)}")
    if step == 0 or not may_be_scaling:
        # Steps with absurd but finite losses have changed the weights.
        log.warning(f"{problem}; the last good weights were those of step {step}; check the model before you use it")


def _roll_back(state: StageState) -> None:
    """Restore a diverged stage to its last good state, in all processes; raise after ``MAX_ROLLBACKS`` in a row."""
    recovery = state.recovery
    problem, recovery.rolled_back_from = _diagnose(state)
    good_step = recovery.good["step"]
    if recovery.rollbacks == MAX_ROLLBACKS:
        raise TrainingError(
            f"{problem}; {MAX_ROLLBACKS} rollbacks to step {good_step} with reduced learning rates did not help; "
            f"{_name_remedies(state)}; --resume auto continues from the last checkpoint"
        )
    recovery.roll_back()
    factor = state.stage.updaters[0].learning_rate_factor
    log.info(f"{problem}; rolled back to the weights of step {good_step} with {factor:g} × the learning rate")


def _diagnose(state: StageState) -> tuple[str, int]:
    """Describe the bad steps up to the last one, and return the first of them, counted from 0."""
    name, timeline = state.stage.name, state.data.timeline
    diagnosis, first_bad = state.recovery.diagnose()
    details = [f"with {diagnosis}"] if diagnosis else []  # empty if the losses have changed since that step
    if first_bad >= timeline.origin_step:  # the batches before are unknown, because they had another size
        first_patch = timeline.first_patch(first_bad)
        pairs = [state.data.patches.pair_at(first_patch + i) for i in range(timeline.batch_size)]
        details.append(f"on {', '.join(dict.fromkeys(pair.source.high.name for pair in pairs))}")
    first = f", the first {' '.join(details)}" if details else ""
    return f"{name}: every step from {first_bad + 1} to {state.done} diverged{first}", first_bad


def _name_remedies(state: StageState) -> str:
    rate = "pretraining.lr" if state.stage.name == "pretraining" else "training.g_lr and d_lr"
    return f"lower {rate}, set gradient_clip or check these images"


def _save_checkpoint_and_stop(run: Run, state: StageState) -> NoReturn:
    _save_checkpoint(run, state)
    raise interrupt.Interrupted(
        f"stopped after step {state.done} of {state.stage.name}; checkpoint "
        f"{run.files.checkpoint(state.stage.name)} written; run the same command with --resume auto to continue"
    )


def _has_checkpoint(run: Run) -> bool:
    return distributed.broadcast_object(lambda: any(run.files.checkpoint(name).exists() for name in STAGES))


def _save_checkpoint(run: Run, state: StageState) -> None:
    content = state.to_checkpoint(run).to_content()
    if distributed.rank() == 0:
        save_checkpoint(run.files.checkpoint(state.stage.name), content, run.config.keep_checkpoints)
    state.saved_at = time.monotonic()


def _save_model(run: Run, state: StageState, path: Path) -> None:
    if distributed.rank() == 0:
        content = {"params": state.ema.average.state_dict(), "stage": state.stage.name}
        save_file(path, content | {"hparams": run.config.to_dict()})
