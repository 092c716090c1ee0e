"""Small networks and reference calculations for tests of the training stages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esrgan.models import RRDBNet


def small_generator() -> RRDBNet:
    torch.manual_seed(1)
    return RRDBNet(4, 3, 8, 4, 1, small_init="trunk").double()


def random_batch(step: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(step)
    shapes = ((2, 3, 8, 8), (2, 3, 32, 32))
    low, high = (torch.rand(shape, generator=random, dtype=torch.float64) for shape in shapes)
    return low, high


def adam(network: nn.Module, learning_rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), learning_rate, betas, foreach=False, fused=False)


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(dict(one.named_parameters()), dict(other.named_parameters()), rtol=0, atol=1e-6)


def perceptual_distance(state: dict[str, Tensor], fake: Tensor, real: Tensor) -> Tensor:
    """Compute the paper's perceptual distance from conv2_1 of VGG11, before its activation, in float32."""

    def features(image: Tensor) -> Tensor:
        mean, deviation = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        x = (image.float() - mean) / deviation
        x = F.conv2d(x, state["features.0.weight"], state["features.0.bias"], padding=1)
        x = F.max_pool2d(x.relu(), 2)
        return F.conv2d(x, state["features.3.weight"], state["features.3.bias"], padding=1)

    return (features(fake) - features(real)).abs().mean()
