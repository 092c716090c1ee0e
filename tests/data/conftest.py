import logging
from functools import partial

import pytest

from esrgan.console import log
from esrgan.data import ImagePair, cache_pairs, load_pair
from esrgan.data import cache as cache_module
from tests.helpers.image_pairs import SCALE, random_image, repeat_pixels, write_image


@pytest.fixture
def cache(tmp_path):
    """Return ``cache_pairs`` for RGB at ×4 with its own cache folder."""
    return partial(cache_pairs, scale=4, channels=3, min_size=(8, 8), cache_dir=tmp_path / "cache")


@pytest.fixture
def messages():
    """Return a list that receives the messages that the library logs from now on."""
    found = []
    handler, level = logging.Handler(), log.level
    handler.emit = lambda record: found.append(record.getMessage())
    log.addHandler(handler)
    log.setLevel("INFO")
    yield found
    log.removeHandler(handler)
    log.setLevel(level)


@pytest.fixture
def decoded(monkeypatch):
    """Return a list that records the HR images decoded from now on."""
    paths = []

    def load(pair, *arguments):
        paths.append(pair.high)
        return load_pair(pair, *arguments)

    monkeypatch.setattr(cache_module, "load_pair", load)
    return paths


@pytest.fixture
def forget_verified(monkeypatch):
    """Return a function that makes this process forget which cache files it has verified."""
    return lambda: monkeypatch.setattr(cache_module, "_verified", set())


@pytest.fixture
def cache_arrays(tmp_path):
    """Return a function that caches (low, high) pairs of arrays."""

    def put(pairs):
        written = [
            ImagePair(write_image(tmp_path / "hr" / f"{i}.png", high), write_image(tmp_path / "lr" / f"{i}.png", low))
            for i, (low, high) in enumerate(pairs)
        ]
        channels = pairs[0][0].shape[2]
        return cache_pairs(written, scale=SCALE, channels=channels, min_size=(1, 1), cache_dir=tmp_path / "cache")

    return put


@pytest.fixture
def cached_pairs(cache_arrays):
    lows = [random_image(9, 11, seed=seed) for seed in range(5)]
    return cache_arrays([(low, repeat_pixels(low)) for low in lows])
