"""Fixtures of the evaluation tests: a tiny model and three photos."""

from __future__ import annotations

import pytest

from tests.helpers.evaluation import write_photos
from tests.helpers.models import make_model


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model.pth")


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos")
