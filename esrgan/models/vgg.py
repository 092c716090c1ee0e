"""VGG features for the perceptual loss, and where their ImageNet weights come from."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from esrgan.errors import WeightsError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # torchvision's, of RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)
CONNECT_TIMEOUT_S = 10


def layer_indices(vgg_type: str) -> dict[str, int]:
    """Give the index in torchvision's ``features`` of each ``convB_I`` and ``reluB_I``.

    The counting is that of the VGG paper (arXiv 1409.1556): block B ends with a pooling, I counts convolutions in it.
    ``conv5_4`` of VGG19, the paper's choice (ESRGAN §3.3), is ``features[34]``, before its activation.
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


def _untrained_features(vgg_type: str) -> nn.Sequential:
    import torchvision  # takes seconds, and upscaling does without

    with torch.device("meta"):  # no memory, no random numbers drawn: the layers only
        features: nn.Sequential = getattr(torchvision.models, vgg_type)(weights=None).features
    return features


class VGGFeatures(nn.Module):
    """Chosen activations of a frozen VGG network.

    Args:
        vgg_type: "vgg11", "vgg13", "vgg16" or "vgg19".
        layers: Names ``convB_I`` (before the activation) or ``reluB_I`` (after it).
        state: Weights under torchvision's names, ``features.0.weight`` and so on.
        normalize_input: Normalise by ImageNet's mean and deviation; off if the weights do it themselves.

    Raises:
        WeightsError: If ``state`` lacks a layer or has it in another shape.
        ValueError: If the network has no layer of a given name.
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
                layer.inplace = index - 1 not in self.names  # it would overwrite a convB_I that is an output
        wanted = {name: state.get(f"features.{name}") for name in self.features.state_dict()}
        if missing := [name for name, value in wanted.items() if value is None]:
            raise WeightsError(
                f"{vgg_type} weights: {len(missing)} of {len(wanted)} tensors are missing, "
                f"the first is features.{missing[0]}; give a state dict in torchvision's layout of {vgg_type}"
            )
        try:
            self.features.load_state_dict(wanted, assign=True)
        except RuntimeError as error:
            detail = str(error).splitlines()[-1].strip()
            raise WeightsError(f"{vgg_type} weights: they are of another network: {detail}") from error
        self.normalize_input = normalize_input
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.float().eval().requires_grad_(False)

    def train(self, mode: bool = True) -> VGGFeatures:
        """Stay in evaluation mode whatever the network around it does."""
        return super().train(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Extract features.

        Args:
            image: (B, C, H, W) in [0, 1]. Grey is repeated to RGB; of RGBA only RGB is seen.

        Returns:
            The activations (B, C', H', W') by layer name.
        """
        x = (image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image[:, :3]).float()
        if self.normalize_input:
            x = (x - self.mean) / self.std
        activations = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.names:
                activations[self.names[index]] = x
        return activations


def torchvision_weights_path(network: str) -> Path:
    """Give the place where torch.hub keeps torchvision's ImageNet weights of a network, say "vgg19" or "alexnet"."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(torchvision_weights_url(network)).name


def torchvision_weights_url(network: str) -> str:
    """Give the address of torchvision's ImageNet weights of a network."""
    import torchvision

    url: str = torchvision.models.get_model_weights(network).IMAGENET1K_V1.url
    return url


def download_torchvision_weights(network: str) -> Path:
    """Download torchvision's ImageNet weights into torch.hub's cache, checked by their hash; a VGG's are about 550 MB.

    Raises:
        WeightsError: If the download fails, in one line with the remedy.
    """
    url, path = torchvision_weights_url(network), torchvision_weights_path(network)
    expected_hash = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_S):  # noqa: S310  torchvision's own https address
            pass  # torch.hub waits forever for a network that swallows packets; this does not
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), expected_hash[1] if expected_hash else None)
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        raise WeightsError(
            f"ImageNet weights of {network}: {url} cannot be downloaded ({error}); download it elsewhere to {path}"
        ) from error
    return path
