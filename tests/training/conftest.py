"""Fixtures shared by the tests of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esrgan.training import loop
from tests.helpers.runs import after_step, press_ctrl_c, run

Make = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def reference_run(tiny_config: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted run of both stages that writes every kind of file."""
    out_dir = tmp_path_factory.mktemp("reference_run")
    config = tiny_config(logging={"tensorboard": True})
    assert run(config, out_dir, checkpoint_interval=1, store_model_interval=1) is True
    return out_dir


@pytest.fixture
def stop_run(tiny_config: Make, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that stops a run after the second step of a stage and returns its folder."""

    def stop(stage: str) -> Path:
        with after_step(stage, 2, press_ctrl_c):
            assert run(tiny_config(), tmp_path / "stopped", stage=stage) is False
        return tmp_path / "stopped"

    return stop


@pytest.fixture
def script_validation(tiny_config: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that replaces the scores of successive validations by the given dictionaries."""

    def script(*scores: dict[str, float]) -> None:
        rest = iter(scores)
        common = {"content_loss": 1.0, "SSIM": 0.5, "PSNR_RGB": 20.0, "SSIM_RGB": 0.5}
        common |= {"colour_drift": 0.0, "perfect_images": 0}

        def scripted(*_: object) -> dict[str, float]:
            values = common | next(rest)
            return values | {"judged_psnr": values["PSNR"]}

        monkeypatch.setattr(loop, "validate", scripted)

    return script
