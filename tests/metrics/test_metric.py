"""Tests of the table of metrics and their availability, and of the metric vgg16."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from esrgan.errors import EsrganError, WeightsError
from esrgan.evaluation.cache import score_key
from esrgan.metrics import METRICS, select_metrics
from esrgan.metrics.learned import load_metrics

CPU = torch.device("cpu")


def test_vgg16_is_the_mean_difference_of_features():
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

    (metric,), missing = load_metrics(["vgg16"], CPU, vgg16_state=state)
    assert not missing
    expected = (features(sr) - features(hr)).abs().mean().item()
    assert metric.measure(sr, hr, 2) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="at least 16x16"):
        metric.measure(sr[:19], hr[:19], 2)
    key = score_key(metric)
    (other,), _ = load_metrics(["vgg16"], CPU, vgg16_state=state | {"features.28.bias": state["features.28.bias"] + 1})
    assert score_key(other) != key


def test_unavailable_metrics_are_explained_and_the_others_returned(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    metrics, missing = load_metrics(["all"], CPU)
    assert [metric.name for metric in metrics] == ["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "niqe"]
    assert [line.partition(":")[0] for line in missing] == ["LPIPS (AlexNet)", "LPIPS (VGG)", "DISTS", "VGG16 conv5_3"]
    assert all("\n" not in line and "--download" in line for line in missing)
    with pytest.raises(EsrganError, match="metrics: none of the requested metrics is available"):
        load_metrics(["lpips"], CPU)
    with pytest.raises(EsrganError, match="expected all, psnr, ssim, niqe, lpips, dists, vgg16, got 'pnsr'"):
        load_metrics(["pnsr"], CPU)
    with pytest.raises(WeightsError, match="vgg16 weights: 26 of 26 tensors are missing"):
        load_metrics(["vgg16"], CPU, vgg16_state={})


def test_groups_and_names_select_metrics_in_a_fixed_order():
    assert select_metrics(["vgg16", "ssim_y", " psnr"]) == ["psnr_y", "ssim_y", "psnr_rgb", "vgg16"]
    assert select_metrics(["all"]) == list(METRICS)
    assert select_metrics(["lpips", "lpips_vgg"]) == ["lpips_alex", "lpips_vgg"]


def test_every_metric_measures_or_says_what_it_needs():
    image = np.random.default_rng(0).integers(0, 256, (104, 200, 3), np.uint8)
    assert METRICS["psnr_y"].measure(image, image, 4) == math.inf
    assert METRICS["niqe"].measure(image, None, 4) > 0
    with pytest.raises(ValueError, match="an image to compare with"):
        METRICS["ssim_y"].measure(image, None, 4)
    with pytest.raises(EsrganError, match="load_metrics"):
        METRICS["dists"].measure(image, image, 4)
