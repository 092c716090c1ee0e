"""What a run reports: statistics, progress, scores of validations, and warnings."""

from __future__ import annotations

import math
import time

from esrgan.console import log, progress
from esrgan.text import format_count, format_duration
from esrgan.training.setup import Run
from esrgan.training.state import StageState
from esrgan.training.validation import BicubicUpscaler, make_panel, validate

# A discriminator that only guesses has a loss of log 2 = 0.69 (lsgan: 0.25, hinge: 1). Below this it hardly ever errs.
MIN_DISCRIMINATOR_LOSS = 0.02
SETTLING_STEPS = 100  # the first steps of a GAN stage shift the colours to and fro, which is no reason for a warning
MAX_COLOUR_DRIFT = 2.0  # 8-bit levels, averaged over the validation images


def report_start(run: Run, state: StageState) -> None:
    """Validate bicubic and, before the first step, the starting weights, which the charts begin with.

    Raises:
        Interrupted: In all processes, if one of them was asked to stop.
    """
    name, config, pairs = state.stage.name, run.config, state.data.validation
    started_at = time.perf_counter()
    progress(f"{name}: validating bicubic on {format_count(len(pairs), 'image')}")
    state.bicubic = validate(BicubicUpscaler(config.scale_factor, config.img_channels), pairs, run.losses)
    log.info(f"{name}: validation of bicubic: {_describe_scores(state.bicubic)}")
    if state.done == 0:
        progress(f"{name}: validating the starting weights on {format_count(len(pairs), 'image')}")
        report_validation(run, state, validate(state.ema.average, pairs, run.losses), is_best=False)
    state.meter.exclude(time.perf_counter() - started_at)


def report_interval(run: Run, state: StageState) -> None:
    """Log the statistics since the last report, and start a new interval."""
    stage, done = state.stage, state.done
    state.statistics = state.meter.statistics()
    if run.log is not None:
        values = state.statistics | state.meter.rates() | stage.learning_rates(done - 1)
        run.log.add_scalars("train", stage.name, done, values)
    progress(describe_progress(state), keep=True)
    state.meter.reset()
    if (loss := state.statistics.get("d_adversarial_loss", math.inf)) < MIN_DISCRIMINATOR_LOSS:
        _warn_once(
            state,
            "discriminator",
            f"the discriminator tells real from generated images nearly always (loss {loss:.2g}), so the generator "
            f"learns little from it; lower training.d_lr, or set training.d_pause_below",
        )


def describe_progress(state: StageState) -> str:
    """Describe the progress of a stage on one line."""
    total, rates = state.data.timeline.total_steps, state.meter.rates()
    losses = {name: value for name, value in state.statistics.items() if name.endswith("loss")}
    shown = "".join(f" {name.removesuffix('_loss')} {value:.4g}" for name, value in losses.items())
    share = state.statistics.get("d_paused", 0.0)
    shown = (shown or " …") + (f", discriminator paused in {share:.0%} of the steps" if share else "")
    learning_rate = next(iter(state.stage.learning_rates(state.done - 1).values()))
    speed = ""
    if rates:  # there are none at the end of a stage that has been shortened to its checkpoint
        speed = (
            f"{format_duration((total - state.done) / rates['steps_per_s'])} left, {rates['images_per_s']:.1f} "
            f"images/s ({rates['data_wait_share']:.0%} waiting for data), "
        )
    return f"{state.stage.name} {state.done:,}/{total:,}, {speed}learning rate {learning_rate:.3g}, loss:{shown}"


def report_validation(run: Run, state: StageState, values: dict[str, float], *, is_best: bool) -> None:
    """Log the scores of a validation and a panel of its first images."""
    stage, done = state.stage, state.done
    if run.log is None:
        return
    for split, scores in (("validation", values), ("bicubic", state.bicubic)):
        scalars = {name: value for name, value in scores.items() if name != "judged_psnr"}
        run.log.add_scalars(split, stage.name, done, scalars)
    if shown := state.data.validation[: run.config.logging.num_images]:
        run.log.add_image(stage.name, done, make_panel(state.ema.average, shown, run.losses))
    is_judged = state.judge["the criterion"] != "newest"
    best = ", best so far" if is_best and is_judged else ""
    reference = f"bicubic: PSNR {state.bicubic['PSNR']:.3f} dB (Y)"
    log.info(f"{stage.name} {done:,}: validation {_describe_scores(values)}{best}; {reference}")
    if done < SETTLING_STEPS:
        return
    drift, before, state.drift = values["colour_drift"], state.drift, values["colour_drift"]
    if stage.name == "training" and abs(drift) > max(MAX_COLOUR_DRIFT, abs(before)):
        _warn_once(
            state,
            "drift",
            f"the mean colour of the generated images differs from the ground truth by {drift:+.1f} of 255 levels; "
            f"raise training.g_content_loss_scaling, or start the GAN stage from a PSNR-oriented model",
        )


def _describe_scores(values: dict[str, float]) -> str:
    perfect = f" ({format_count(int(count), 'perfect image')} left out)" if (count := values["perfect_images"]) else ""
    perceptual = f", perceptual loss {values['perceptual_loss']:.4g}" if "perceptual_loss" in values else ""
    return (
        f"PSNR {values['PSNR']:.3f} dB (Y), {values['PSNR_RGB']:.3f} dB (RGB){perfect}, "
        f"SSIM {values['SSIM']:.4f} (Y){perceptual}"
    )


def _warn_once(state: StageState, subject: str, text: str) -> None:
    if subject not in state.warned:
        state.warned.add(subject)
        log.warning(f"{state.stage.name} {state.done:,}: {text}")
