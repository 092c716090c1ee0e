"""Compute LPIPS, DISTS and two distances of VGG16, between the features that networks trained on ImageNet see.

torchmetrics computes LPIPS and DISTS and includes their own weights. The weights of AlexNet and VGG16 come from
torchvision.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from esrgan.devices import exact_float32, explain_lack_of_memory
from esrgan.errors import EsrganError, WeightsError
from esrgan.extras import require_extra
from esrgan.metrics.metric import METRICS, Metric, select_metrics
from esrgan.metrics.psnr_ssim import check_pair, crop_borders
from esrgan.models import VGGFeatures
from esrgan.models.vgg import download_torchvision_weights, torchvision_weights_path, torchvision_weights_url
from esrgan.text import one_line

# The network of each metric, and the smallest height and width in pixels that its layers accept.
_NETWORKS = {
    "lpips_alex": ("alexnet", 31),
    "lpips_vgg": ("vgg16", 16),
    "dists": ("vgg16", 1),
    "vgg16": ("vgg16", 16),
    "vggstats": ("vgg16", 16),
}
# The layers of the metrics that are computed from plain features of VGG16, with any weights of it.
_VGG16_LAYERS = {"vgg16": ["conv5_3"], "vggstats": ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]}
_MIN_MOMENT = 1e-6  # keeps channels without features from dividing by 0
_WEIGHTS_ONLY_VARIABLE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # PyTorch's own switch


class LearnedMetric:
    """LPIPS (Zhang et al., 2018, v0.1) with AlexNet or VGG16, DISTS (Ding et al., 2020), or two distances of VGG16.

    "vgg16" is the mean absolute difference of the features of conv5_3. "vggstats" compares the statistics that DISTS
    compares, of the image and five layers, but it weights all channels equally and pools by maximum. So it needs no
    weights besides those of VGG16, and the perceptual loss does not train for it directly.

    Images are compared at their full size, whereas the reference code of DISTS shrinks them to 256 pixels first. The
    networks convert RGB to their own range ([-1, 1] for LPIPS). The features of both images are in memory at once,
    which takes about 3 kB per pixel with VGG16. An instance can be used by several threads.

    Args:
        name: "lpips_alex", "lpips_vgg", "dists", "vgg16" or "vggstats".
        device: Device to compute on, in float32.
        vgg16_state: Weights for the last two in torchvision's layout; None for torchvision's weights.

    Raises:
        EsrganError: If the packages of the extra ``metrics`` are not installed.
        WeightsError: If the network's weights are missing or damaged.
        DeviceError: If the device has too little memory.
    """

    def __init__(self, name: str, device: torch.device, vgg16_state: dict[str, Tensor] | None = None) -> None:
        require_extra("metrics")
        self.name, self.device = name, device
        network = _load_network(name, vgg16_state)
        with explain_lack_of_memory(device, f"the network of {name}"):
            self.module = network.to(device)

    def measure(self, sr: NDArray[np.uint8], hr: NDArray[np.uint8], border: int) -> float:
        """Return the distance of an upscaled image from the ground truth; lower is better.

        Args:
            sr: (H, W, C) upscaled image, uint8 in [0, 255]; C is 1, 3 or 4. Grey is repeated to RGB, alpha is ignored.
            hr: Ground truth of the same shape and type.
            border: Pixels to ignore on each side; by convention the upscaling factor.

        Returns:
            The distance: 0 for identical images, about 1 for very different ones.

        Raises:
            ValueError: If the images differ in shape, are not uint8 (H, W, C), or are too small for the network
                without the border.
        """
        check_pair(sr, hr)
        a, b = map(self._to_rgb, crop_borders(sr, hr, border, _NETWORKS[self.name][1]))
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False), exact_float32(self.device):
            if self.name in _VGG16_LAYERS:
                one, other = ([image, *self.module(image).values()] for image in (a, b))
                return (
                    _distance_of_statistics(one, other)
                    if self.name == "vggstats"
                    else float(F.l1_loss(one[-1], other[-1]))
                )
            if self.name == "dists":
                return float(self.module(a, b))
            return float(self.module(a, b, normalize=True))  # LPIPS converts [0, 1] to [-1, 1] if normalize is set

    def _to_rgb(self, image: NDArray[np.float64]) -> Tensor:
        """Convert (H, W, 1 | 3 | 4) in [0, 255] to (1, 3, H, W) in [0, 1] on the device."""
        tensor = torch.from_numpy(image[..., :3]).to(self.device, torch.float32) / 255
        return tensor.permute(2, 0, 1)[None].expand(-1, 3, -1, -1).contiguous()


def _distance_of_statistics(one: Iterable[Tensor], other: Iterable[Tensor]) -> float:
    """Return 1 minus the mean similarity of texture and structure (equations 2, 3 and 6 of DISTS, arXiv 2004.07728).

    The similarities compare mean, variance and covariance of each channel of (1, C, H, W).
    """
    similarities = []
    for x, y in zip(one, other, strict=True):
        x, y = x[0].flatten(1), y[0].flatten(1)
        x_mean, y_mean = x.mean(1), y.mean(1)
        covariance = ((x - x_mean[:, None]) * (y - y_mean[:, None])).mean(1)
        variances = x.var(1, correction=0) + y.var(1, correction=0)
        similarities.append((2 * x_mean * y_mean + _MIN_MOMENT) / (x_mean**2 + y_mean**2 + _MIN_MOMENT))
        similarities.append((2 * covariance + _MIN_MOMENT) / (variances + _MIN_MOMENT))
    return 1 - float(torch.cat(similarities).mean())


def _load_network(name: str, vgg16_state: dict[str, Tensor] | None) -> torch.nn.Module:
    """Load the network of a metric with torchvision's weights, or with the given ones."""
    network, _ = _NETWORKS[name]
    if vgg16_state is not None:
        return VGGFeatures(network, _VGG16_LAYERS[name], vgg16_state)

    from torchmetrics.functional.image.dists import DISTSNetwork
    from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

    path = torchvision_weights_path(network)
    if not path.exists():
        remedy = "download them with --download, or download=True in Python, "
        remedy += f"or save {torchvision_weights_url(network)} as {path}"
        if name in _VGG16_LAYERS:
            remedy += ", or pass a file with --vgg-weights"
        raise WeightsError(f"the ImageNet weights of {network} are not on this machine; {remedy}")
    module: torch.nn.Module
    try:
        with _force_weights_only():
            if name == "dists":
                module = DISTSNetwork()
            elif name in _VGG16_LAYERS:
                module = VGGFeatures(network, _VGG16_LAYERS[name], torch.load(path, "cpu"))
            else:
                module = LearnedPerceptualImagePatchSimilarity(name.removeprefix("lpips_")).net
    except Exception as error:  # PyTorch raises nearly any exception for a damaged file
        raise WeightsError(f"{path}: cannot be used: {one_line(str(error))}; download it again") from error
    return module


def load_learned(
    names: Iterable[str], device: torch.device, download: bool = False
) -> tuple[dict[str, LearnedMetric], list[str]]:
    """Load the requested metrics that are available.

    Args:
        names: Names of ``METRICS``; metrics that need no network are skipped.
        device: Device to compute on.
        download: Whether to download torchvision's weights if they are missing (AlexNet 233 MB, VGG16 528 MB).

    Returns:
        The metrics by name, and for each unavailable metric one line with the reason and the remedy.

    Example:
        >>> import torch
        >>> from esrgan import images
        >>> from esrgan.metrics.learned import load_learned
        >>> metrics, unavailable = load_learned(["lpips_alex", "dists"], torch.device("cpu"))
        >>> len(metrics) + len(unavailable)  # without weights, a line explains how to get them
        2
        >>> photo = images.read_pixels("photo.png", 3)
        >>> for name, metric in metrics.items():
        ...     assert abs(metric.measure(photo, photo, border=4)) < 1e-5, name
    """
    metrics, messages = {}, []
    for name in names:
        if name not in _NETWORKS:
            continue
        network, _ = _NETWORKS[name]
        try:
            if download and not torchvision_weights_path(network).exists():
                download_torchvision_weights(network)
            metrics[name] = LearnedMetric(name, device)
        except EsrganError as error:
            messages.append(f"{METRICS[name].label}: {error}")
    return metrics, messages


def load_metrics(
    names: Iterable[str], device: torch.device, *, download: bool = False, vgg16_state: dict[str, Tensor] | None = None
) -> tuple[list[Metric], list[str]]:
    """Return the requested metrics that are available, each with the network it needs.

    Args:
        names: Names of ``METRICS``, groups of them such as "psnr" or "lpips", or "all".
        device: Device to compute on.
        download: Whether to download torchvision's weights if they are missing.
        vgg16_state: Weights for "vgg16" and "vggstats" in torchvision's layout; None for torchvision's weights.

    Returns:
        The metrics in the order of ``METRICS``, and for each unavailable one a line with the reason and the remedy.

    Raises:
        EsrganError: If a name is unknown, ``vgg16_state`` does not fit, or no requested metric is available.
    """
    names = select_metrics(names)
    given = _VGG16_LAYERS.keys() & {*names} if vgg16_state is not None else set()
    learned, messages = load_learned([name for name in names if name not in given], device, download)
    learned |= {name: LearnedMetric(name, device, vgg16_state) for name in given}
    metrics = [
        replace(METRICS[name], function=learned[name].measure, network=learned[name].module)
        if name in learned
        else METRICS[name]
        for name in names
        if name in learned or METRICS[name].function
    ]
    if not metrics:
        raise EsrganError([*messages, "metrics: none of the requested metrics is available"])
    return metrics, messages


@contextmanager
def _force_weights_only() -> Iterator[None]:
    """Make every ``torch.load`` accept only tensors, including torchvision's calls, which do not request that."""
    before = os.environ.get(_WEIGHTS_ONLY_VARIABLE)
    os.environ[_WEIGHTS_ONLY_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_WEIGHTS_ONLY_VARIABLE, None)
        else:
            os.environ[_WEIGHTS_ONLY_VARIABLE] = before
