"""A trial of a stage without results: two steps and one validation, with an estimate of time and memory."""

from __future__ import annotations

import math
import time
from itertools import islice

import psutil
import torch

from esrgan.console import log
from esrgan.devices import benchmark_convolutions
from esrgan.models.winograd import winograd_convolutions
from esrgan.text import format_duration, format_size
from esrgan.training import distributed, interrupt
from esrgan.training.setup import Run
from esrgan.training.state import StageState, iterate_batches
from esrgan.training.validation import validate


def try_stage(run: Run, state: StageState) -> None:
    """Run two steps (the first to warm up) and validate one image, and estimate the rest of the stage from these.

    Raises:
        Interrupted: If a signal asked for it.
    """
    stage, validation = state.stage, state.data.validation
    step_s, losses = 0.0, ""
    for i, (low, high, target) in enumerate(islice(iterate_batches(run, state), 2)):
        before = time.perf_counter()
        with benchmark_convolutions(run.device), winograd_convolutions(run.device):
            values = stage.step(low, high, state.done + i, target)
        losses = ", ".join(f"{name} {value.item():.4g}" for name, value in values.items() if name.endswith("loss"))
        step_s = time.perf_counter() - before
    validation_s = 0.0
    if validation:
        if run.device.type == "cuda":
            validate(state.ema.average, validation[:1], run.losses)  # loads the kernels, once for all images
        before = time.perf_counter()
        validate(state.ema.average, validation[:1], run.losses)
        pixels = [math.prod(pair.shape[:2]) for pair in validation]
        validation_s = (time.perf_counter() - before) * sum(pixels) / pixels[0] / distributed.world_size()
    if distributed.any_rank(interrupt.is_requested()):
        raise interrupt.Interrupted("dry run: interrupted")
    steps = state.data.timeline.total_steps - state.done
    total_s = steps * step_s + math.ceil(steps / run.config.validation_interval) * validation_s
    if run.device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(run.device)
    else:
        memory = psutil.Process().memory_info().rss
    log.info(
        f"{stage.name}: {step_s:.2f} s per step, {format_duration(validation_s)} per validation, about "
        f"{format_duration(total_s)} for {'the whole stage' if state.done == 0 else 'its rest'}; "
        f"{format_size(memory)} of memory; {losses}"
    )
