"""Estimate how long upscaling takes, from measurements on this machine."""

from __future__ import annotations

import time

import numpy as np

from esrgan.demo.models import resize_outputs
from esrgan.inference import UpscaleOptions, Upscaler

WARM_UP_PX, SAMPLE_PX = 32, 96  # sides of the images that are upscaled to measure the speed of a model
MIN_RUN_S = 1.0  # shorter runs measure the fixed costs rather than the speed


class Speeds:
    """The measured speed of each model: by a sample at first, then by the latest run of some length."""

    def __init__(self) -> None:
        self._seconds_per_pixel: dict[str, float] = {}

    def measure(self, model: str, upscaler: Upscaler) -> None:
        """Measure the speed of a model with a small image, unless it is known already."""
        if model in self._seconds_per_pixel:
            return
        noise = np.random.default_rng(0).integers(0, 256, (SAMPLE_PX, SAMPLE_PX, 3), np.uint8)
        upscaler = resize_outputs(upscaler, UpscaleOptions())
        upscaler(noise[:WARM_UP_PX, :WARM_UP_PX])
        begin = time.perf_counter()
        upscaler(noise)
        self._seconds_per_pixel[model] = (time.perf_counter() - begin) / SAMPLE_PX**2

    def record(self, model: str, work: float, seconds: float) -> None:
        """Keep the speed of a run.

        Args:
            model: Name of the model.
            work: Input pixels of the networks, as ``Upload.work`` counts them.
            seconds: How long it took.
        """
        if seconds >= MIN_RUN_S:
            self._seconds_per_pixel[model] = seconds / work

    def estimate(self, model: str, work: float) -> float | None:
        """Return how many seconds the networks take for some work; None if the model was not measured yet."""
        rate = self._seconds_per_pixel.get(model)
        return None if rate is None else rate * work


def describe_about(seconds: float) -> str:
    """Describe an estimate with one or two digits: "less than a second", "about 12 s", "about 3 min", "about 2 h"."""
    if seconds < 1:
        return "less than a second"
    unit, length = next(
        ((unit, length) for unit, length in (("h", 3600), ("min", 60)) if seconds >= 2 * length), ("s", 1)
    )
    count = seconds / length
    return f"about {float(f'{count:.2g}') if count >= 10 else round(count):g} {unit}"
