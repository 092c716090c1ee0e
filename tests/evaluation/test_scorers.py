"""Tests of the availability of metrics, and of the metric vgg16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from esrgan.errors import EsrganError, WeightsError
from esrgan.evaluation import make_scorers
from tests.helpers.evaluation import CPU


def test_vgg16_is_the_mean_difference_of_features(tmp_path):
    generator = torch.Generator().manual_seed(0)
    widths = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512]
    state, index, inputs = {}, 0, 3
    for width in widths:
        if width == "M":
            index += 1
            continue
        state[f"features.{index}.weight"] = (
            torch.randn((width, inputs, 3, 3), generator=generator) * (2 / 9 / inputs) ** 0.5
        )
        state[f"features.{index}.bias"] = torch.randn(width, generator=generator) * 0.1
        index, inputs = index + 2, width
    torch.save(state, tmp_path / "vgg16.pth")
    rng = np.random.default_rng(0)
    sr, hr = (rng.integers(0, 256, (36, 40, 3), np.uint8) for _ in range(2))

    def features(image):
        x = torch.from_numpy(image[2:-2, 2:-2]).movedim(-1, 0)[None] / 255
        mean, deviation = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        x, index = (x - mean) / deviation, 0
        for i, width in enumerate(widths):
            if width == "M":
                x, index = F.max_pool2d(x, 2), index + 1
                continue
            x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
            x, index = x if i == len(widths) - 1 else x.relu(), index + 2
        return x

    (scorer,), missing = make_scorers(["vgg16"], device=CPU, vgg16_weights=tmp_path / "vgg16.pth")
    assert not missing
    expected = (features(sr) - features(hr)).abs().mean().item()
    assert scorer.score(sr, hr, 2) == pytest.approx(expected, rel=1e-5)
    assert scorer.score(sr[:19], hr[:19], 2) is None
    state["features.28.bias"] += 1
    torch.save(state, tmp_path / "other.pth")
    assert make_scorers(["vgg16"], device=CPU, vgg16_weights=tmp_path / "other.pth")[0][0].cache_key != scorer.cache_key


def test_unavailable_metrics_are_explained_and_the_others_returned(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    scorers, missing = make_scorers(["all"], device=CPU)
    assert [scorer.metric.name for scorer in scorers] == ["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "niqe"]
    assert [line.partition(":")[0] for line in missing] == ["LPIPS (AlexNet)", "LPIPS (VGG)", "DISTS", "VGG16 conv5_3"]
    assert all("\n" not in line and "--download" in line for line in missing)
    with pytest.raises(EsrganError, match="--metrics: none of the requested metrics is available"):
        make_scorers(["lpips"], device=CPU)
    with pytest.raises(EsrganError, match="expected all, psnr, ssim, niqe, lpips, dists, vgg16, got 'pnsr'"):
        make_scorers(["pnsr"], device=CPU)
    with pytest.raises(WeightsError, match="nowhere"):
        make_scorers(["vgg16"], device=CPU, vgg16_weights=Path("nowhere.pth"))
