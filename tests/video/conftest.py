"""Fixtures of the tests of videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from esrgan import Upscaler
from esrgan.video import pipeline
from tests.helpers.models import make_model


@pytest.fixture(params=[False, True], ids=["one_after_the_other", "overlapping"])
def overlap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a test as on a CPU and, with threads for decoding and encoding, as on a GPU."""
    monkeypatch.setattr(pipeline, "overlaps", lambda _: request.param)
    return request.param


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model.pth")  # ×2


@pytest.fixture
def upscaler(model: Path) -> Upscaler:
    return Upscaler.from_file(model, "cpu")
