"""A trial of a run without results: two steps and one validation of each stage, with estimates of time and memory."""

from __future__ import annotations

import math
import sys
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import psutil
import torch

from esrgan.console import FIRST, log
from esrgan.data import CachedPair
from esrgan.devices import benchmark_convolutions
from esrgan.models.winograd import winograd_convolutions
from esrgan.text import format_duration, format_size
from esrgan.training import distributed, interrupt
from esrgan.training.inputs import describe_download
from esrgan.training.setup import Run
from esrgan.training.state import StageState, begin_stage, iterate_batches
from esrgan.training.validation import validate


def try_stages(run: Run) -> None:
    """Try each stage, and report the estimates before everything else; see ``hold_lines``.

    Raises:
        Interrupted: If a signal asked for it.
    """
    seconds, lines = 0.0, []
    for name in run.start.stages:
        state = begin_stage(run, name)
        with interrupt.explain_failures(run.device):
            stage_s, line = _try_stage(run, state)
        seconds += stage_s
        lines.append(line)
    download = describe_download(run.config, run.start.stages)
    random = "; this dry run used random ones in their place, so its perceptual loss means nothing"
    log.info(
        f"dry run: the run takes about {format_duration(seconds)} and {format_size(_memory(run.device))} of memory",
        extra=FIRST,
    )
    for line in lines:
        log.info(line, extra=FIRST)
    log.info(f"dry run: the run downloads {download + random if download else 'nothing'}", extra=FIRST)
    log.info(
        f"dry run: everything {'else ' if download else ''}is in place; nothing was downloaded, and nothing was "
        f"written except the cache of decoded images"
    )


def _try_stage(run: Run, state: StageState) -> tuple[float, str]:
    """Run two steps (the first to warm up) and validate one image; return the estimated seconds and a line about them.

    The largest images are tried, because they need the most memory.

    Raises:
        Interrupted: If a signal asked for it.
    """
    stage, validation, timeline = state.stage, state.data.validation, state.data.timeline
    step_s, losses = 0.0, ""
    for i, (low, high, target) in enumerate(islice(iterate_batches(run, state, _choose_step(state)), 2)):
        before = time.perf_counter()
        with benchmark_convolutions(run.device), winograd_convolutions(run.device):
            values = stage.step(low, high, state.done + i, target)
        losses = ", ".join(f"{name} {value.item():.4g}" for name, value in values.items() if name.endswith("loss"))
        step_s = time.perf_counter() - before
    validation_s = 0.0
    if validation:
        largest = max(validation, key=_count_pixels)
        if run.device.type == "cuda":
            validate(state.ema.average, [largest], run.losses)  # loads the kernels, once for all images
        before = time.perf_counter()
        validate(state.ema.average, [largest], run.losses)
        share = _count_pixels(largest) / sum(map(_count_pixels, validation))
        validation_s = (time.perf_counter() - before) / share / distributed.world_size()
    if distributed.any_rank(interrupt.is_requested()):
        raise interrupt.Interrupted("dry run: interrupted")
    steps = timeline.total_steps - state.done
    # Bicubic is validated too, and so are the weights that the stage starts with.
    validations = math.ceil(steps / timeline.validation_interval(run.config)) + (2 if state.done == 0 else 1)
    seconds = steps * step_s + validations * validation_s
    return seconds, (
        f"{stage.name}: about {format_duration(seconds)} for {'the whole stage' if state.done == 0 else 'its rest'} "
        f"({step_s:.2f} s per step, {format_duration(validation_s)} per validation), "
        f"{format_size(_memory(run.device))} of memory; {losses}"
    )


def _choose_step(state: StageState) -> int:
    """Return the step to try first: the next one, or that of the largest image if training is on whole images."""
    patches, timeline = state.data.patches, state.data.timeline
    last = max(min(state.done + timeline.steps_per_epoch, timeline.total_steps - 1), state.done + 1)  # two are tried
    epoch = range(state.done, last)
    if patches.patch_size is not None:
        return state.done
    return max(epoch, key=lambda step: _count_pixels(patches.pair_at(timeline.first_patch(step))), default=state.done)


def _count_pixels(pair: CachedPair) -> int:
    return math.prod(pair.shape[:2])


def _memory(device: torch.device) -> int:
    """Return the most bytes of memory that the trial has used at once so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    with suppress(OSError, StopIteration):  # ru_maxrss also counts what the program before exec has had
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
