"""Warnings about a GAN stage that does not go well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esrgan.training import report
from tests.helpers.runs import run

pytestmark = pytest.mark.usefixtures("foreground_signals")

Make = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_a_discriminator_that_always_wins_is_reported_once(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "MIN_DISCRIMINATOR_LOSS", 10.0)
    run(tiny_config(), tmp_path, stage="training", max_steps=3)
    err = capsys.readouterr().err
    assert err.count("warning: training 1: the discriminator tells real from generated images nearly always") == 1
    assert err.count("discriminator tells") == 1


@pytest.mark.parametrize(
    ("drifts", "warned"), [((0.5, -3.0, -4.0), 4), ((9.0, 5.0, 3.0), None), ((1, -1.5, 1.9), None)]
)
@pytest.mark.slow
def test_a_growing_colour_drift_is_reported_once(
    tiny_config: Make,
    script_validation: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    drifts: tuple[float, ...],
    warned: int | None,
) -> None:
    monkeypatch.setattr(report, "SETTLING_STEPS", 1)
    script_validation(*({"PSNR": 20.0, "perceptual_loss": 1.0, "colour_drift": drift} for drift in drifts))
    run(tiny_config(), tmp_path, stage="training")
    lines = [line for line in capsys.readouterr().err.splitlines() if "mean colour" in line]
    assert [line.split(": ")[1] for line in lines] == ([] if warned is None else [f"training {warned}"])


@pytest.mark.slow
def test_a_colour_drift_in_the_first_steps_causes_no_warning(
    tiny_config: Make,
    script_validation: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script_validation(*({"PSNR": 20.0, "perceptual_loss": 1.0, "colour_drift": drift} for drift in (0.5, 3.0, 9.0)))
    run(tiny_config(), tmp_path, stage="training")
    assert "mean colour" not in capsys.readouterr().err
