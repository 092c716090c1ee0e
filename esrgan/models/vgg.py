"""VGG features for the perceptual loss, and the download of their ImageNet weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from esrgan.download import Download, download
from esrgan.errors import DownloadError, EsrganError, Problem, WeightsError
from esrgan.files import check_temporary_folder
from esrgan.models import winograd
from esrgan.text import one_line

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1], as torchvision defines it
IMAGENET_STD = (0.229, 0.224, 0.225)
CHANNELS = 64  # of the first block, in all VGG networks


def layer_indices(vgg_type: str) -> dict[str, int]:
    """Return the index in torchvision's ``features`` of each layer ``convB_I`` and ``reluB_I``.

    Layers are counted as in the VGG paper (arXiv 1409.1556): B is the block, which ends with a pooling layer, and I is
    the convolution in the block. ESRGAN (§3.3) uses ``conv5_4`` of VGG19 before its activation, ``features[34]``.
    """
    indices: dict[str, int] = {}
    block, position = 1, 0
    for index, layer in enumerate(_untrained_features(vgg_type)):
        if isinstance(layer, nn.Conv2d):
            position += 1
            indices[f"conv{block}_{position}"] = index
        elif isinstance(layer, nn.ReLU):
            indices[f"relu{block}_{position}"] = index
        else:
            block, position = block + 1, 0
    return indices


def _import_torchvision() -> Any:
    """Return torchvision. The import takes seconds, and upscaling does not need it.

    Raises:
        EsrganError: If it was built for another PyTorch, as for CUDA when PyTorch is for CPUs, or it finds no folder
            for temporary files.
    """
    check_temporary_folder()
    try:
        import torchvision
    except RuntimeError as error:
        expected, got = f"a build for PyTorch {torch.__version__}", f"another one ({one_line(str(error), 100)})"
        remedy = "reinstall both from one index, such as https://download.pytorch.org/whl/cpu"
        raise EsrganError(Problem("torchvision", expected, got, remedy)) from error
    return torchvision


def _untrained_features(vgg_type: str) -> nn.Sequential:
    torchvision = _import_torchvision()
    with torch.device("meta"):  # creates the layers without allocating memory or drawing random numbers
        features: nn.Sequential = getattr(torchvision.models, vgg_type)(weights=None).features
    return features


def random_weights(vgg_type: str) -> dict[str, Tensor]:
    """Return random weights, by torchvision's names, for measuring the time and memory that a network needs."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in _untrained_features(vgg_type).state_dict().items():
        deviation = (2 / value[0].numel()) ** 0.5 if name.endswith("weight") else 0.0  # keeps the size of activations
        state[f"features.{name}"] = torch.randn(value.shape, generator=generator) * deviation
    return state


class VGGFeatures(nn.Module):
    """A frozen VGG network that returns the activations of chosen layers.

    Args:
        vgg_type: "vgg11", "vgg13", "vgg16" or "vgg19".
        layers: Names ``convB_I`` (before the activation) or ``reluB_I`` (after it).
        state: Weights under torchvision's names, ``features.0.weight`` and so on.
        normalize_input: Normalise images by ImageNet's mean and standard deviation; disable it if the weights
            already include this.

    Raises:
        WeightsError: ``state`` lacks a tensor or has one of another shape.
        ValueError: The network lacks one of the layers.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, vgg_type: str, layers: Iterable[str], state: dict[str, Tensor], normalize_input: bool = True
    ) -> None:
        super().__init__()
        indices, layers = layer_indices(vgg_type), list(layers)
        if unknown := [name for name in layers if name not in indices]:
            raise ValueError(f"{vgg_type} has no layer {', '.join(unknown)}")
        self.names = {indices[name]: name for name in layers}
        self.features = _untrained_features(vgg_type)[: max(self.names) + 1]
        for index, layer in enumerate(self.features):
            if isinstance(layer, nn.ReLU):
                layer.inplace = index - 1 not in self.names  # an in-place ReLU would overwrite a returned convB_I
        wanted = {name: state.get(f"features.{name}") for name in self.features.state_dict()}
        if missing := [name for name, value in wanted.items() if value is None]:
            raise WeightsError(
                f"{vgg_type} weights: {len(missing)} of {len(wanted)} tensors are missing, starting with "
                f"features.{missing[0]}; use a state dict of {vgg_type} in torchvision's layout"
            )
        try:
            self.features.load_state_dict(wanted, assign=True)
        except RuntimeError as error:
            detail = str(error).splitlines()[-1].strip()
            remedy = f"use a state dict of {vgg_type} in torchvision's layout"
            raise WeightsError(f"{vgg_type} weights: these belong to another network: {detail}; {remedy}") from error
        if odd := [name for name, value in self.features.state_dict().items() if not value.isfinite().all()]:
            text = f"NaN or infinity in {len(odd)} of {len(wanted)} tensors (first: features.{odd[0]})"
            raise WeightsError(f"{vgg_type} weights: {text}; use an undamaged file")
        self.normalize_input = normalize_input
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.float().eval().requires_grad_(False)

    def train(self, mode: bool = True) -> VGGFeatures:
        """Stay in evaluation mode, even if the surrounding network is switched to training mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the activations of the chosen layers.

        Args:
            image: Images (B, C, H, W) in [0, 1]. Grey is repeated to RGB; the alpha of RGBA is ignored.

        Returns:
            Activations (B, C', H', W') by layer name.
        """
        x = (image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image[:, :3]).float()
        if self.normalize_input:
            x = (x - self.mean) / self.std
        if winograd.is_suitable(x, CHANNELS):
            x = winograd.to_tiles(x)
        activations = {}
        for index, layer in enumerate(self.features):
            x = winograd.apply(layer, x)
            if index in self.names:
                activations[self.names[index]] = winograd.from_tiles(x)
        return activations


def torchvision_weights_path(network: str) -> Path:
    """Return the path of torchvision's ImageNet weights in torch.hub's cache for a network such as "vgg19".

    Raises:
        EsrganError: If $TORCH_HOME is not set and there is no home folder.
    """
    folder = Path(torch.hub.get_dir())
    if folder.parts[0] == "~":  # the system does not know this user
        raise EsrganError("no home folder found; set TORCH_HOME to a folder for weights of PyTorch")
    return folder / "checkpoints" / Path(torchvision_weights_url(network)).name


def torchvision_weights_url(network: str) -> str:
    """Return the URL of torchvision's ImageNet weights of a network."""
    url: str = _import_torchvision().models.get_model_weights(network).IMAGENET1K_V1.url
    return url


def download_torchvision_weights(network: str) -> Path:
    """Download torchvision's ImageNet weights of a network into torch.hub's cache, or the missing rest of them.

    The weights of a VGG network are about 550 MB. The name of the file contains the beginning of its checksum.

    Returns:
        Path of the downloaded file.

    Raises:
        WeightsError: If the download fails.
    """
    url, path = torchvision_weights_url(network), torchvision_weights_path(network)
    digest = path.stem.rpartition("-")[2]
    try:
        download(Download(url, path, f"sha256:{digest}", setting="TORCH_HOME"))
    except DownloadError as error:
        raise WeightsError(f"ImageNet weights of {network}: cannot download {error}") from error
    return path
