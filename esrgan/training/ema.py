"""Exponential moving average of a generator's weights, which validation measures and model files contain."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from esrgan.models import Generator

# The decay is (1 + t) / (10 + t) until it reaches its configured value.
WARM_UP_STEPS = 10


class ExponentialMovingAverage:
    """Running average of the weights of a network without buffers.

    The first steps weigh more. Otherwise, a run shorter than 1 / (1 − decay) steps would keep its random start.

    Args:
        network: Network to follow.
        decay: Weight of the previous average at each step; 0 copies the network.
    """

    def __init__(self, network: Generator, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.average: Generator = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after ``step``, which counts from 0."""
        decay = min(self.decay, (1 + step) / (WARM_UP_STEPS + step))
        averages: list[Tensor] = list(self.average.parameters())
        current: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(averages, current, 1 - decay)
