"""The perceptual loss: distance between VGG features before activation (ESRGAN §3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from esrgan.losses.content import ContentLoss
from esrgan.models import VGGFeatures


class PerceptualLoss(nn.Module):
    """Weighted sum over layers of the mean distance between features.

    Args:
        layer_weights: Weight of each VGG layer, by name: ``{"conv5_4": 1.0}`` is the paper's.
        vgg_type: "vgg11", "vgg13", "vgg16" or "vgg19".
        criterion: "l1" (the authors' released settings) or "l2", the mean squared difference.
        normalize_input: Normalise by ImageNet's mean and deviation of RGB in [0, 1].
        normalize_loss: Divide by the sum of the layer weights.
        state: Weights of the VGG network under torchvision's names.

    Raises:
        WeightsError: If the state is not of this network.
        ValueError: If the network has no such layer.
    """

    def __init__(
        self,
        state: dict[str, Tensor],
        layer_weights: dict[str, float],
        vgg_type: str = "vgg19",
        criterion: str = "l1",
        normalize_input: bool = True,
        normalize_loss: bool = False,
    ) -> None:
        super().__init__()
        self.vgg = VGGFeatures(vgg_type, layer_weights, state, normalize_input)
        total = sum(layer_weights.values()) if normalize_loss else 1.0
        self.layer_weights = {name: weight / total for name, weight in layer_weights.items()}
        self.distance = ContentLoss(criterion)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Compare images (B, C, H, W) in [0, 1]: a float32 scalar. No gradient flows into ``real``."""
        with torch.no_grad():
            real_features = self.vgg(real)
        fake_features = self.vgg(fake)
        terms = [
            weight * self.distance(fake_features[name], real_features[name])
            for name, weight in self.layer_weights.items()
        ]
        return torch.stack(terms).sum()
