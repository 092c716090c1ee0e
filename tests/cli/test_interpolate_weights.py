"""Tests of ``esrgan interpolate``: blends of two models."""

import pytest
import torch

from esrgan.cli import interpolate as interpolate_command
from esrgan.errors import WeightsError
from esrgan.weights import load_generator
from tests.helpers.models import make_model, run


def test_blend_averages_weights_and_records_alpha(tmp_path, capsys):
    psnr = make_model(tmp_path / "p.pth", 0, stage="pretraining", hparams={"seed": 1})
    gan = make_model(tmp_path / "g.pth", 1, stage="training", hparams={"seed": 2})
    out = tmp_path / "blend.safetensors"
    arguments = ["--psnr-model-path", psnr, "--esrgan-model-path", gan, "--alpha", "0.25", out]
    assert run(interpolate_command, *arguments) == 0
    blend, a, b = (load_generator(path) for path in (out, psnr, gan))
    for name, value in blend.state.items():
        torch.testing.assert_close(value, 0.75 * a.state[name] + 0.25 * b.state[name])
    assert (blend.alpha, blend.stage, blend.hparams) == (0.25, "training", {"seed": 2})
    assert "α = 0.25" in blend.describe()
    assert run(interpolate_command, *arguments) == 2
    assert "already exists; use --overwrite" in capsys.readouterr().err


def test_impossible_blends_are_rejected(tmp_path, capsys):
    psnr, gan = make_model(tmp_path / "p.pth"), make_model(tmp_path / "g.pth", scale=4)
    arguments = ["--psnr-model-path", psnr, "--esrgan-model-path", gan, "--alpha"]
    assert run(interpolate_command, *arguments, "0.5", tmp_path / "o.pth") == 2
    assert "RRDBNet ×2 8/4/1 and RRDBNet ×4 8/4/1" in capsys.readouterr().err
    for alpha in ("1.5", "-1", "much", "nan"):
        with pytest.raises(SystemExit) as stop:
            run(interpolate_command, *arguments, alpha, tmp_path / "o.pth")
        assert stop.value.code == 2
    assert not (tmp_path / "o.pth").exists()
    with pytest.raises(WeightsError):
        load_generator(tmp_path / "o.pth")
