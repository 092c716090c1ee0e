"""What the referee can measure, ready to use: metrics of every kind behind one call."""

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
    """A metric that can be computed here.

    Attributes:
        metric: What tables say of it.
        cache_key: What identifies it for the cache: its name, and its weights if these were chosen.
        score: Compares a result with an original that may be missing, both (H, W, C), but for a border in pixels;
            gives None where the images are too small.
    """

    metric: Metric
    cache_key: str
    score: Callable[[Pixels, Pixels | None, int], float | None]


def make_scorers(
    metrics: Sequence[str], *, device: torch.device, may_download: bool = False, vgg16_weights: Path | None = None
) -> tuple[list[Scorer], list[str]]:
    """Make those metrics ready that can be had.

    Args:
        metrics: Groups ("psnr", "ssim", "niqe", "lpips", "dists", "vgg16"), single metrics ("psnr_y"), or "all".
        device: Where networks compute.
        may_download: Download torchvision's weights that are not on this machine.
        vgg16_weights: File for the metric ``vgg16``, in torchvision's layout; None takes torchvision's.

    Returns:
        The metrics, and for each that cannot be had one line that says why, and what to do.

    Raises:
        EsrganError: If a name is unknown, or none of the metrics can be had.
    """
    names: list[str] = []
    for each in map(str.strip, metrics):
        if each not in (*METRIC_GROUPS, *METRICS, "all"):
            raise EsrganError(f"--metrics: expected all, {', '.join(METRIC_GROUPS)}, got {each!r}")
        groups = METRIC_GROUPS.values() if each == "all" else [METRIC_GROUPS.get(each, (each,))]
        names += [name for group in groups for name in group if name not in names]
    # In the order of the catalogue; distances of networks come last.
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
        raise EsrganError([*missing, "--metrics: none of them can be measured here"])
    return scorers, missing


def describe_conventions(scorers: Sequence[Scorer]) -> str:
    """Say how the figures of a table come about."""
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
            return measure(sr, sr if hr is None else hr, border)  # those that need an original are given one
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
                f"{_VGG16.label}: the ImageNet weights of vgg16 are not on this machine; --download gets them, or put "
                f"{torchvision_weights_url('vgg16')} at {path}, or give a file by --vgg-weights"
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
        if hr is None or min(sr.shape[:2]) - 2 * border < 16:  # the poolings leave nothing of less
            return None
        return float(loss(to_rgb(sr, border), to_rgb(hr, border)))

    return Scorer(_VGG16, f"vgg16 {hash_weights(loss)}", score)
