"""A short version of the fault report: after a few signals, a run ends like an uninterrupted one."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from tests.faults import make_config, run_uninterrupted, run_with_signals


@pytest.mark.skipif(sys.platform != "linux", reason="uses Linux signals")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
def test_a_run_with_random_signals_ends_like_the_reference(tmp_path: Path, workers: int) -> None:
    config = make_config(tmp_path, num_workers=workers)
    seconds = run_uninterrupted(config, tmp_path / "reference")
    counts, runs = run_with_signals(config, tmp_path, tmp_path / "reference", seconds, 2, random.Random(workers))
    assert counts.total() == 2
    assert runs
