"""Compute LPIPS and DISTS, distances between two images in the feature space of a network trained on ImageNet.

torchmetrics computes them and includes their own weights. The weights of AlexNet and VGG16 come from torchvision.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esrgan.errors import EsrganError, WeightsError
from esrgan.extras import require_extra
from esrgan.metrics.metric import METRICS
from esrgan.metrics.psnr_ssim import check_pair, crop_borders
from esrgan.models.vgg import download_torchvision_weights, torchvision_weights_path, torchvision_weights_url
from esrgan.text import one_line

# The network of each metric, and the smallest height and width in pixels that its layers accept.
_NETWORKS = {"lpips_alex": ("alexnet", 31), "lpips_vgg": ("vgg16", 16), "dists": ("vgg16", 1)}
_WEIGHTS_ONLY_VARIABLE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # PyTorch's own switch


class LearnedMetric:
    """LPIPS (Zhang et al., 2018, v0.1) with AlexNet or VGG16, or DISTS (Ding et al., 2020).

    Images are compared at their full size, whereas the reference code of DISTS shrinks them to 256 pixels first. The
    networks convert RGB to their own range ([-1, 1] for LPIPS). The features of both images are in memory at once,
    which takes about 3 kB per pixel with VGG16. An instance can be used by several threads.

    Args:
        name: "lpips_alex", "lpips_vgg" or "dists".
        device: Device to compute on, in float32.

    Raises:
        EsrganError: If the packages of the extra ``metrics`` are not installed.
        WeightsError: If the network's weights are missing or damaged.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        network, self.min_side = _NETWORKS[name]
        require_extra("metrics")
        from torchmetrics.functional.image.dists import DISTSNetwork
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

        path = torchvision_weights_path(network)
        if not path.exists():
            raise WeightsError(
                f"the ImageNet weights of {network} are not on this machine; pass --download to fetch them,"
                f" or save {torchvision_weights_url(network)} as {path}"
            )
        module: torch.nn.Module
        try:
            with _force_weights_only():
                if name == "dists":
                    module = DISTSNetwork()
                else:
                    module = LearnedPerceptualImagePatchSimilarity(name.removeprefix("lpips_")).net
        except Exception as error:  # PyTorch raises nearly any exception for a damaged file
            raise WeightsError(f"{path}: cannot be used: {one_line(str(error))}; download it again") from error
        self.module = module.to(device)
        # Both expect images in [0, 1]; LPIPS converts them to [-1, 1] if normalize is set.
        self.distance: Callable[[Tensor, Tensor], Tensor] = (
            module if name == "dists" else partial(module, normalize=True)
        )
        self.device = device

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
        with torch.inference_mode():
            return float(self.distance(*map(self._to_rgb, crop_borders(sr, hr, border, self.min_side))))

    def _to_rgb(self, image: NDArray[np.float64]) -> Tensor:
        """Convert (H, W, 1 | 3 | 4) in [0, 255] to (1, 3, H, W) in [0, 1] on the device."""
        tensor = torch.from_numpy(image[..., :3]).to(self.device, torch.float32) / 255
        return tensor.permute(2, 0, 1)[None].expand(-1, 3, -1, -1).contiguous()


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
