"""Write a tiny generator, make random pixels, and run a command in this process."""

import numpy as np
import torch

from esrgan.cli import process
from esrgan.weights import RRDBNetArchitecture, save_file

RNG = np.random.default_rng(0)


def make_model(path, seed=0, channels=3, scale=2, blocks=1, **content):
    torch.manual_seed(seed)
    architecture = RRDBNetArchitecture(scale, channels, 8, 4, blocks, 3, 5, False, False)
    network = architecture.build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.1)  # larger than the initial weights, so that every layer affects the output
        network.conv_last.bias.fill_(0.5)
    save_file(path, {"params": network.state_dict(), **content})
    return path


def pixels(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def run(command, *arguments):
    return process.run(command, [str(argument) for argument in arguments])
