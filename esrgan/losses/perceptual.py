"""The perceptual loss, which is the distance between VGG features before activation (ESRGAN §3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from esrgan.losses.content import ContentLoss
from esrgan.models import VGGFeatures


class PerceptualLoss(nn.Module):
    """Weighted sum over VGG layers of the mean distance between features.

    Args:
        state: Weights of the VGG network under torchvision's names.
        layer_weights: Weight of each VGG layer by name. The paper uses ``{"conv5_4": 1.0}``.
        vgg_type: "vgg11", "vgg13", "vgg16" or "vgg19".
        criterion: "l1" (the authors' released settings) for the absolute difference, or "l2" for the squared one.
        normalize_input: Normalise images by ImageNet's mean and standard deviation of RGB in [0, 1].
        normalize_loss: Divide the loss by the sum of the layer weights.

    Raises:
        WeightsError: The weights do not fit this network.
        ValueError: The network lacks one of the layers.
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
        """Return the loss of images (B, C, H, W) in [0, 1] as a float32 scalar; no gradient flows into ``real``."""
        with torch.no_grad():
            real_features = self.vgg(real)
        fake_features = self.vgg(fake)
        terms = [
            weight * self.distance(fake_features[name], real_features[name])
            for name, weight in self.layer_weights.items()
        ]
        return torch.stack(terms).sum()
