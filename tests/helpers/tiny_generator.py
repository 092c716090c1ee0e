"""Weights of a tiny generator, and helpers to load its files or catch the error."""

import pytest
import torch
from hypothesis import HealthCheck, settings

from esrgan.errors import WeightsError
from esrgan.models import RRDBNet
from esrgan.text import printable
from esrgan.weights import RRDBNetArchitecture, load_generator

TINY = {
    "rrdb_channels": 4,
    "growth_channels": 2,
    "num_basic_blocks": 2,
    "num_dense_blocks": 2,
    "num_residual_blocks": 3,
}
TINY_ARCHITECTURE = RRDBNetArchitecture(
    scale_factor=4, img_channels=3, **TINY, use_subpixel_conv=False, pixel_unshuffle=False, residual_scaling=0.2
)
SUFFIXES = [".pth", ".pt", ".safetensors"]
IN_TMP = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def one_line_message(error, path):
    """Return the text of an error, which must be one line that begins with the file."""
    text = str(error)
    assert "\n" not in text
    assert len(error.problems) == 1
    assert text.startswith(f"{printable(str(path))}: ")
    return text


def load_error(path):
    with pytest.raises(WeightsError) as error:
        load_generator(path)
    return one_line_message(error.value, path)


def load_or_error(path):
    try:
        return load_generator(path)
    except WeightsError as error:
        one_line_message(error, path)
        return None


def random_state(seed=0, **arguments):
    """Return weights large enough for different networks to differ in output."""
    network = RRDBNet(**{**TINY, **arguments})
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(v.shape, generator=generator) * 0.3 for name, v in network.state_dict().items()}


STATE = random_state()


def same_tensors(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


OTHER = random_state(seed=1)
