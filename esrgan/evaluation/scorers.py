"""Prepare the metrics of an evaluation, so that all kinds are called in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esrgan.errors import EsrganError, WeightsError
from esrgan.evaluation.cache import hash_weights
from esrgan.extras import require_extra
from esrgan.metrics import METRICS, Metric, psnr, ssim, to_y
from esrgan.weights import extract_state_dict, load_file

if TYPE_CHECKING:
    from esrgan.metrics.learned import LearnedMetric

Pixels = NDArray[np.uint8]
METRIC_GROUPS = {
    "psnr": ("psnr_y", "psnr_rgb"),
    "ssim": ("ssim_y", "ssim_rgb"),
    "niqe": ("niqe",),
    "lpips": ("lpips_alex", "lpips_vgg"),
    "dists": ("dists",),
    "vgg16": ("vgg16",),
}
_VGG16 = Metric(
    name="vgg16",
    label="VGG16 conv5_3",
    unit="",
    higher_is_better=False,
    digits=2,
    needs_reference=True,
    channels="RGB",
    convention="mean absolute difference of the features before activation",
)
_VGG16_LAYER = "conv5_3"


@dataclass(frozen=True)
class Scorer:
    """A metric that is ready to be computed.

    Attributes:
        metric: Description of the metric.
        cache_key: Name of its scores in the cache; includes a digest of the weights if the metric has any.
        score: Function of the output, the ground truth or None, both (H, W, C), and the border in pixels to ignore.
            It returns None where the images are too small.
    """

    metric: Metric
    cache_key: str
    score: Callable[[Pixels, Pixels | None, int], float | None]


def make_scorers(
    metrics: Sequence[str], *, device: torch.device, may_download: bool = False, vgg16_weights: Path | None = None
) -> tuple[list[Scorer], list[str]]:
    """Prepare the requested metrics that are available.

    Args:
        metrics: Groups ("psnr", "ssim", "niqe", "lpips", "dists", "vgg16"), single metrics ("psnr_y"), or "all".
        device: Device that networks run on.
        may_download: Whether to download torchvision's weights if they are missing.
        vgg16_weights: Weight file for the metric ``vgg16``, in torchvision's layout; None for torchvision's weights.

    Returns:
        The metrics, and for each unavailable metric one line with the reason and the remedy.

    Raises:
        EsrganError: If a name is unknown, ``vgg16_weights`` cannot be used, or no requested metric is available.
    """
    names: list[str] = []
    for each in map(str.strip, metrics):
        if each not in (*METRIC_GROUPS, *METRICS, "all"):
            raise EsrganError(f"--metrics: expected all, {', '.join(METRIC_GROUPS)}, got {each!r}")
        groups = METRIC_GROUPS.values() if each == "all" else [METRIC_GROUPS.get(each, (each,))]
        names += [name for group in groups for name in group if name not in names]
    # Keep the order of METRICS, where distances between features come last; vgg16 follows them.
    names.sort(key=[*METRICS, "vgg16"].index)

    learned: Mapping[str, LearnedMetric] = {}
    missing: list[str] = []
    if {"lpips_alex", "lpips_vgg", "dists"} & {*names}:
        from esrgan.metrics.learned import load_learned  # imports torchvision, which takes seconds

        learned, missing = load_learned(names, device, may_download)
    scorers = []
    for name in names:
        if name == "vgg16":
            try:
                scorers.append(_make_vgg16_scorer(device, vgg16_weights, may_download))
            except WeightsError as error:
                if vgg16_weights is not None:
                    raise
                missing.append(str(error))
        elif name in learned:
            key = f"{name} of torchmetrics {version('torchmetrics')} {hash_weights(learned[name].module)}"
            scorers.append(Scorer(METRICS[name], key, _none_if_too_small(learned[name].measure)))
        elif name in _METRIC_FUNCTIONS:
            scorers.append(Scorer(METRICS[name], name, _none_if_too_small(_METRIC_FUNCTIONS[name])))
    if not scorers:
        raise EsrganError([*missing, "--metrics: none of the requested metrics is available"])
    return scorers, missing


def describe_conventions(scorers: Sequence[Scorer]) -> str:
    """Describe in one line how the scores are computed."""
    labels: dict[str, list[str]] = {}
    for scorer in scorers:
        labels.setdefault(scorer.metric.convention, []).append(scorer.metric.label)
    return "; ".join(
        [
            "8-bit images, scale px of border cut off, Y is BT.601 studio range",
            "LR images by MATLAB bicubic where the dataset has none",
            *(f"{' and '.join(of)}: {how}" for how, of in labels.items()),
        ]
    )


def _niqe(sr: Pixels, hr: Pixels | None, border: int) -> float:
    from esrgan.metrics.niqe import niqe  # imports SciPy

    return niqe(sr, border)


_METRIC_FUNCTIONS: dict[str, Callable[[Pixels, Pixels, int], float]] = {
    "psnr_y": lambda sr, hr, border: psnr(to_y(sr), to_y(hr), border),
    "ssim_y": lambda sr, hr, border: ssim(to_y(sr), to_y(hr), border),
    "psnr_rgb": lambda sr, hr, border: psnr(sr[..., :3], hr[..., :3], border),
    "ssim_rgb": lambda sr, hr, border: ssim(sr[..., :3], hr[..., :3], border),
    "niqe": _niqe,
}


def _none_if_too_small(
    measure: Callable[[Pixels, Pixels, int], float],
) -> Callable[[Pixels, Pixels | None, int], float | None]:
    def score(sr: Pixels, hr: Pixels | None, border: int) -> float | None:
        try:
            # Without ground truth only no-reference metrics are called, and these ignore the second image.
            return measure(sr, sr if hr is None else hr, border)
        except ValueError:
            return None

    return score


def _make_vgg16_scorer(device: torch.device, weights: Path | None, may_download: bool) -> Scorer:
    require_extra("metrics")
    from esrgan.losses import PerceptualLoss  # imports torchvision too
    from esrgan.models.vgg import download_torchvision_weights, torchvision_weights_path, torchvision_weights_url

    path = weights or torchvision_weights_path("vgg16")
    if weights is None and not path.exists():
        if not may_download:
            raise WeightsError(
                f"{_VGG16.label}: the ImageNet weights of vgg16 are not on this machine; pass --download to fetch "
                f"them, save {torchvision_weights_url('vgg16')} as {path}, or pass a file with --vgg-weights"
            )
        path = download_torchvision_weights("vgg16")
    loss = PerceptualLoss(
        extract_state_dict(load_file(path), str(path)), {_VGG16_LAYER: 1.0}, "vgg16", criterion="l1"
    ).to(device)

    def to_rgb(image: Pixels, border: int) -> Tensor:
        rows, columns = (slice(border, size - border) for size in image.shape[:2])
        tensor = torch.from_numpy(np.ascontiguousarray(image[rows, columns, :3])).to(device, torch.float32) / 255
        return tensor.permute(2, 0, 1)[None].expand(-1, 3, -1, -1)

    @torch.inference_mode()
    def score(sr: Pixels, hr: Pixels | None, border: int) -> float | None:
        if hr is None or min(sr.shape[:2]) - 2 * border < 16:  # four poolings leave nothing of a smaller image
            return None
        return float(loss(to_rgb(sr, border), to_rgb(hr, border)))

    return Scorer(_VGG16, f"vgg16 {hash_weights(loss)}", score)
