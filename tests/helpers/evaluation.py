"""Helpers of the evaluation tests: photos, evaluations, a method that counts its calls, and a command runner."""

from __future__ import annotations

import numpy as np
import torch

from esrgan import images, resize
from esrgan.cli import process
from esrgan.evaluation import DatasetEvaluation, EvaluationOptions
from esrgan.evaluation.cache import ResultCache
from esrgan.evaluation.crops import ImageVersions
from esrgan.evaluation.measuring import DatasetImage, Measurement, Method
from esrgan.metrics.learned import load_metrics

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
        return process.run(command, [*map(str, arguments)])
    except SystemExit as stop:
        return stop.code


class CountingMethod(Method):
    """A method that counts the images it upscales."""

    def __init__(self, method):
        super().__init__(self._upscale, method.identity)
        self.__dict__.update(method=method, calls=0)  # the base class is frozen

    def _upscale(self, low, progress):
        self.__dict__["calls"] += 1
        return self.method.upscale(low, progress)


def run_evaluation(photos, methods, cache=None, metric_names=PSNR_AND_SSIM, **options):
    """Evaluate methods; errors fail the test unless ``may_fail`` is set."""
    metrics, _ = load_metrics(metric_names, CPU)
    chosen = options.pop("dataset_images", None) or dataset_images(photos)
    may_fail, out_dir = options.pop("may_fail", False), options.pop("out_dir", None)
    result = DatasetEvaluation("photos", tuple(methods), metrics, len(chosen), "", out_dir)
    Measurement(result, methods, 2, 3, ResultCache(cache), EvaluationOptions(**options)).run(chosen)
    assert may_fail or not result.errors
    return result


def scores(result):
    """Return all scores by image and method."""
    return {image: {name: each.scores for name, each in rows.items()} for image, rows in result.results.items()}


def make_versions(size=(40, 36), channels=3, scale=4, models=("first", "second"), truth=True, seed=0):
    generator = np.random.default_rng(seed)
    low, *large = (
        generator.integers(0, 256, (size[0] * s, size[1] * s, channels), dtype=np.uint8)
        for s in (1, *[scale] * (len(models) + 2))
    )
    return ImageVersions(low, dict(zip(("bicubic", *models), large, strict=False)), large[-1] if truth else None)
