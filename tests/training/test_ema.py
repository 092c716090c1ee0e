"""The exponential moving average of the generator's weights."""

from __future__ import annotations

import copy

import pytest
import torch

from esrgan.training.ema import ExponentialMovingAverage
from tests.helpers.runs import find_differences
from tests.helpers.stages import small_generator

pytestmark = pytest.mark.usefixtures("foreground_signals")


def test_ema_follows_its_formula_during_and_after_warm_up() -> None:
    network = small_generator()
    ema = ExponentialMovingAverage(network, 0.5)
    expected = copy.deepcopy(network.state_dict())
    for step in range(14):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn_like(parameter)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        assert (decay == 0.5) == (step >= 8)
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in network.state_dict().items()}
        torch.testing.assert_close(dict(ema.average.state_dict()), expected, rtol=1e-12, atol=1e-12)
    assert not any(parameter.requires_grad for parameter in ema.average.parameters())


def test_without_decay_the_average_equals_the_network() -> None:
    network = small_generator()
    ema = ExponentialMovingAverage(network, 0)
    for step in (0, 1, 100):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter *= 1.1
        ema.update(step)
        assert not find_differences(dict(ema.average.state_dict()), dict(network.state_dict()))
