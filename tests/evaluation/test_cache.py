"""Tests of the cache of results: its keys, and how damaged or unwritable files are handled."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from esrgan.console import log
from esrgan.evaluation import ImageResult
from esrgan.evaluation.cache import ResultCache, hash_arrays, hash_weights
from esrgan.evaluation.measuring import Method
from tests.helpers.evaluation import (
    CountingMethod,
    run_evaluation,
    scores,
)


def test_damaged_cache_entries_are_recomputed(photos, tmp_path):
    cache = tmp_path / "cache"
    result = run_evaluation(photos, {"bicubic": Method.bicubic(2)}, cache)
    for content in (b"", b"{", b"[]", b'{"scores": 3}', b'{"scores": {"psnr_y": "x"}, "seconds": 1}', b"\xff"):
        for path in cache.iterdir():
            path.write_bytes(content)
        method = CountingMethod(Method.bicubic(2))
        again = run_evaluation(photos, {"bicubic": method}, cache)
        assert method.calls == 3
        assert scores(again) == scores(result)


def test_unwritable_cache_warns_once_and_evaluation_completes(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        warnings = []
        patch.setattr(log, "warning", lambda text, *values: warnings.append(text % values))
        result = run_evaluation(photos, {"bicubic": Method.bicubic(2)}, tmp_path / "file", workers=3)
    assert len(result.results) == 3
    assert len(warnings) == 1
    assert "file: expected a folder, got a file" in warnings[0]
    assert "--no-cache" in warnings[0]


def test_hashes_depend_on_values_shapes_and_types():
    zeros = [np.zeros(shape, dtype) for shape, dtype in (((2, 3), "u1"), ((3, 2), "u1"), ((6,), "u1"), ((2, 3), "i1"))]
    assert len({hash_arrays(each) for each in [*zeros, zeros[0] + 1]}) == 5
    assert hash_arrays(np.arange(12).reshape(3, 4)[:, ::2]) == hash_arrays(np.arange(12).reshape(3, 4)[:, ::2].copy())
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert hash_weights(one) != hash_weights(other)
    other.load_state_dict(one.state_dict())
    assert hash_weights(one) == hash_weights(other)


def test_cached_results_round_trip(tmp_path):
    cache = ResultCache(tmp_path)
    result = ImageResult({"a": 0.1 + 0.2, "b": None, "c": math.inf}, 1.5, 12, "digest")
    cache.store({"of": "this"}, result)
    assert cache.load({"of": "this"}) == result
    assert cache.load({"of": "that"}) is None
    assert ResultCache(None).load({"of": "this"}) is None
