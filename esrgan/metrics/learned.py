"""LPIPS and DISTS: distances between the features that a network trained on ImageNet has of two images.

torchmetrics computes them and has their own weights; those of AlexNet and VGG16 are torchvision's.
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

# The network of each metric, and the least side in pixels that its layers leave anything of.
_NETWORKS = {"lpips_alex": ("alexnet", 31), "lpips_vgg": ("vgg16", 16), "dists": ("vgg16", 1)}
_WEIGHTS_ONLY_VARIABLE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # PyTorch's own switch


class LearnedMetric:
    """LPIPS (Zhang et al., 2018, v0.1) with AlexNet or VGG16, or DISTS (Ding et al., 2020).

    Images are compared at their size; the code that came with DISTS shrinks them to 256 pixels first. The networks see
    RGB, scaled to their range by themselves ([-1, 1] for LPIPS). Features of both images are held at once, with a VGG
    in about 3 kB for each pixel. Any number of threads may measure with one.

    Args:
        name: "lpips_alex", "lpips_vgg" or "dists".
        device: Where to compute, in float32.

    Raises:
        EsrganError: In one line with the remedy: the packages of the extra are not installed.
        WeightsError: In one line with the remedy: the network's weights are not on this machine, or damaged.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        network, self.min_side = _NETWORKS[name]
        require_extra("metrics")
        from torchmetrics.functional.image.dists import DISTSNetwork
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

        path = torchvision_weights_path(network)
        if not path.exists():
            raise WeightsError(
                f"the ImageNet weights of {network} are not on this machine; --download gets them, or put"
                f" {torchvision_weights_url(network)} at {path}"
            )
        module: torch.nn.Module
        try:
            with _force_weights_only():
                if name == "dists":
                    module = DISTSNetwork()
                else:
                    module = LearnedPerceptualImagePatchSimilarity(name.removeprefix("lpips_")).net
        except Exception as error:  # damaged input: PyTorch raises nearly anything
            raise WeightsError(f"{path} cannot be used: {one_line(str(error))}; download it again") from error
        self.module = module.to(device)
        # Of images in [0, 1], which LPIPS takes to its range itself.
        self.distance: Callable[[Tensor, Tensor], Tensor] = (
            module if name == "dists" else partial(module, normalize=True)
        )
        self.device = device

    def measure(self, sr: NDArray[np.uint8], hr: NDArray[np.uint8], border: int) -> float:
        """Give the distance of an upscaled image from its original; lower is better.

        Args:
            sr: (H, W, C) upscaled image, uint8 in [0, 255]; C is 1, 3 or 4. Grey is repeated to RGB, alpha is ignored.
            hr: The original, of the same shape and type.
            border: Pixels left out on each side; by the field's convention the scale factor.

        Returns:
            0 for identical images, about 1 for unlike ones.

        Raises:
            ValueError: The images differ in shape, are not uint8 (H, W, C), or are too small for the network once the
                border is off.
        """
        check_pair(sr, hr)
        with torch.inference_mode():
            return float(self.distance(*map(self._to_rgb, crop_borders(sr, hr, border, self.min_side))))

    def _to_rgb(self, image: NDArray[np.float64]) -> Tensor:
        """Take (H, W, 1 | 3 | 4) in [0, 255] to (1, 3, H, W) in [0, 1] on the device."""
        tensor = torch.from_numpy(image[..., :3]).to(self.device, torch.float32) / 255
        return tensor.permute(2, 0, 1)[None].expand(-1, 3, -1, -1).contiguous()


def load_learned(
    names: Iterable[str], device: torch.device, download: bool = False
) -> tuple[dict[str, LearnedMetric], list[str]]:
    """Make ready those of the wanted metrics that can be had here.

    Args:
        names: Of ``METRICS``; those that need no network are passed over.
        device: Where to compute.
        download: Download torchvision's weights that are not on this machine (AlexNet 233 MB, VGG16 528 MB).

    Returns:
        The metrics by name, and for each that cannot be had one line that says why, and what to do.
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
    """Have ``torch.load`` refuse all but tensors, also where torchvision calls it, which does not ask for that."""
    before = os.environ.get(_WEIGHTS_ONLY_VARIABLE)
    os.environ[_WEIGHTS_ONLY_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_WEIGHTS_ONLY_VARIABLE, None)
        else:
            os.environ[_WEIGHTS_ONLY_VARIABLE] = before
