"""Exponential moving average of a generator's weights: what is validated and what model files hold."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from esrgan.models import RRDBNet

WARM_UP_STEPS = 10  # steps over which the average begins: decay (1 + t) / (10 + t) until it reaches its value


class ExponentialMovingAverage:
    """The running average of a network without buffers.

    The first steps weigh more, or a run shorter than 1 / (1 − decay) steps would keep its random start.

    Args:
        network: What to follow.
        decay: Weight of the average against the network at each step; 0 keeps no average.
    """

    def __init__(self, network: RRDBNet, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.average: RRDBNet = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (WARM_UP_STEPS + step))
        averages: list[Tensor] = list(self.average.parameters())
        current: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(averages, current, 1 - decay)
