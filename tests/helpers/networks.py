"""Random weights and images for tests of networks."""

import math

import torch


def message(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def randomised(network, seed=0):
    """Set random weights that keep the signal's size, and biases other than 0, so that every parameter matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = max(parameter[0].numel(), 1)
            std = math.sqrt(2 / fan_in) if parameter.dim() > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return network


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
