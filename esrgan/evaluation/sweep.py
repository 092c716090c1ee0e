"""Show the perception-distortion trade-off of blends of a PSNR and a GAN model (ESRGAN §4.4, Blau 2018)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from esrgan import images
from esrgan.errors import EsrganError
from esrgan.evaluation.crops import ImageVersions, find_most_different_window
from esrgan.evaluation.results import DatasetEvaluation
from esrgan.outputs import SOFTWARE
from esrgan.text import format_count, printable

_CROP_ZOOM = 2  # zoom factor of the crops shown side by side


def plot_curve(dataset: DatasetEvaluation, alphas: Mapping[str, float]) -> bytes:
    """Plot mean PSNR or SSIM against the mean of each perceptual metric, with a point for each α.

    Args:
        dataset: Evaluation of the blends; other methods in it are drawn as separate points.
        alphas: α of each blend by its name in the evaluation, in the order of the curve.

    Returns:
        Content of a PNG file.

    Raises:
        EsrganError: If no perceptual metric has a score, or no mean of a blend is finite.
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    distortion = next(metric for metric in dataset.metrics if metric.higher_is_better)
    points = {
        metric: {
            method: (x, y)
            for method in dataset.methods
            if (x := dataset.mean(method, distortion)[0]) is not None and math.isfinite(x)
            if (y := dataset.mean(method, metric)[0]) is not None
        }
        for metric in dataset.metrics
        if not metric.higher_is_better
    }
    points = {metric: by_method for metric, by_method in points.items() if by_method.keys() & alphas.keys()}
    if not points:
        raise EsrganError(
            f"{dataset.dataset}: no curve, because the images are too small for the perceptual metrics or all perfect"
        )
    figure = Figure(figsize=(5.5 * len(points), 4.5), layout="constrained")
    for axes, (metric, by_method) in zip(np.atleast_1d(figure.subplots(1, len(points))), points.items(), strict=True):
        axes.plot(*zip(*(by_method[m] for m in alphas if m in by_method), strict=True), marker="o", color="tab:blue")
        for method, point in by_method.items():
            if method not in alphas:
                axes.plot(*point, marker="s", color="tab:gray", linestyle="")
            label = f"α {alphas[method]:g}" if method in alphas else method
            axes.annotate(label, point, xytext=(5, 5), textcoords="offset points", fontsize=8)
        axes.set_xlabel(f"{distortion.label} {f'({distortion.unit}) ' if distortion.unit else ''}→ less distortion")
        axes.set_ylabel(f"{metric.label} → worse")
        axes.grid(alpha=0.3)
    num_images = format_count(len(dataset.results), "image")
    title = f"{printable(dataset.dataset)}, mean of {num_images}"
    figure.suptitle(title, parse_math=False)  # a dollar sign in a name is not a formula
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120, metadata={"Software": SOFTWARE})
    return out.getvalue()


def make_side_by_side(versions: ImageVersions, methods: Sequence[str]) -> NDArray[np.uint8]:
    """Lay out LR, the outputs of some methods and HR (if there is one) side by side, where the methods differ most.

    Returns:
        (H, W, 3) uint8.
    """
    window = find_most_different_window([versions.outputs[method] for method in methods], versions.scale)
    crop = versions.crop(window)
    columns = {method: crop.outputs[method] for method in methods} | ({} if crop.high is None else {"HR": crop.high})
    zoomed = {"LR": crop.low} | {  # the sheet upscales LR to the height of the others
        name: image.repeat(_CROP_ZOOM, axis=0).repeat(_CROP_ZOOM, axis=1) for name, image in columns.items()
    }
    return images.make_contact_sheet([list(zoomed.values())], list(zoomed))
