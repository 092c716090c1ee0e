"""Helpers of the evaluation tests: photos, evaluations, a method that counts its calls, and a command runner."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from esrgan import images, resize
from esrgan.evaluation import DatasetImage, ResultCache, evaluate, make_scorers
from esrgan.evaluation.crops import ImageVersions

CPU = torch.device("cpu")
PSNR_AND_SSIM = ["psnr", "ssim"]


def write_photos(folder):
    """Write three RGB images of 36×32 px into a new folder and return it."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(3):
        smooth = resize.bicubic(rng.random((8, 9, 3)), 4)
        images.write_pixels(folder / f"{i}.png", (smooth.clip(0, 1) * 255).astype(np.uint8))
    return folder


def dataset_images(folder):
    return [DatasetImage(path.stem, None, path) for path in sorted(folder.iterdir())]


def run_command(command, *arguments):
    try:
        return command.main([*map(str, arguments)])
    except SystemExit as stop:
        return stop.code


class CountingMethod:
    """A method that counts the images it upscales."""

    def __init__(self, method):
        self.method, self.identity, self.calls = method, method.identity, 0

    def __call__(self, low):
        self.calls += 1
        return self.method(low)


def run_evaluation(photos, methods, cache=None, metric_names=PSNR_AND_SSIM, **options):
    scorers, _ = make_scorers(metric_names, device=CPU)
    options = {"on_error": pytest.fail} | options
    return evaluate(
        "photos", options.pop("dataset_images", dataset_images(photos)), methods, scorers, scale=2, channels=3,
        cache=ResultCache(cache), **options,
    )  # fmt: skip


def make_versions(size=(40, 36), channels=3, scale=4, models=("first", "second"), truth=True, seed=0):
    generator = np.random.default_rng(seed)
    low, *large = (
        generator.integers(0, 256, (size[0] * s, size[1] * s, channels), dtype=np.uint8)
        for s in (1, *[scale] * (len(models) + 2))
    )
    return ImageVersions(low, dict(zip(("bicubic", *models), large, strict=False)), large[-1] if truth else None)
