"""Show the perception-distortion trade-off of blends of a PSNR and a GAN model (ESRGAN §4.4, Blau 2018)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from esrgan import images
from esrgan.errors import EsrganError
from esrgan.evaluation.crops import ImageVersions, find_most_different_window
from esrgan.evaluation.results import Evaluation
from esrgan.text import format_count

_CROP_ZOOM = 2  # zoom factor of the crops shown side by side


def plot_curve(evaluation: Evaluation, alphas: Mapping[str, float]) -> bytes:
    """Plot mean PSNR or SSIM against the mean of each perceptual metric, with a point for each α.

    Args:
        evaluation: Evaluation of the blends; other methods in it are drawn as separate points.
        alphas: α of each blend by its name in the evaluation, in the order of the curve.

    Returns:
        Content of a PNG file.

    Raises:
        EsrganError: If no perceptual metric has a score.
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    means = evaluation.means()
    distortion = next(metric for metric in evaluation.metrics if metric.higher_is_better)
    others = [
        metric
        for metric in evaluation.metrics
        if not metric.higher_is_better and all(means[name][metric.name] is not None for name in alphas)
    ]
    if not others:
        raise EsrganError(
            f"{evaluation.dataset}: no curve, because the images are too small for the perceptual metrics"
        )
    figure = Figure(figsize=(5.5 * len(others), 4.5), layout="constrained")
    for axes, metric in zip(np.atleast_1d(figure.subplots(1, len(others))), others, strict=True):
        points = {
            method: (values[distortion.name], values[metric.name])
            for method, values in means.items()
            if values[metric.name] is not None
        }
        axes.plot(*zip(*(points[method] for method in alphas), strict=True), marker="o", color="tab:blue")
        for method, alpha in alphas.items():
            axes.annotate(f"α {alpha:g}", points[method], xytext=(5, 5), textcoords="offset points", fontsize=8)
        for method in points.keys() - alphas.keys():
            axes.plot(*points[method], marker="s", color="tab:gray", linestyle="")
            axes.annotate(method, points[method], xytext=(5, 5), textcoords="offset points", fontsize=8)
        axes.set_xlabel(f"{distortion.label} {f'({distortion.unit}) ' if distortion.unit else ''}→ less distortion")
        axes.set_ylabel(f"{metric.label} → worse")
        axes.grid(alpha=0.3)
    figure.suptitle(f"{evaluation.dataset}, mean of {format_count(len(evaluation.results), 'image')}")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


def make_side_by_side(versions: ImageVersions, methods: Sequence[str]) -> NDArray[np.uint8]:
    """Lay out LR, the outputs of some methods and HR (if there is one) side by side, where the methods differ most.

    Returns:
        (H, W, 3) uint8.
    """
    window = find_most_different_window([versions.outputs[method] for method in methods], versions.scale)
    crop = versions.crop(window)
    columns = {"LR": _repeat_pixels(crop.low, versions.scale * _CROP_ZOOM)}
    columns |= {method: _repeat_pixels(crop.outputs[method], _CROP_ZOOM) for method in methods}
    if crop.high is not None:
        columns["HR"] = _repeat_pixels(crop.high, _CROP_ZOOM)
    return images.make_contact_sheet([list(columns.values())], list(columns))


def _repeat_pixels(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
