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


WIDTHS = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512]


@pytest.fixture(scope="module")
def vgg16_state():
    generator = torch.Generator().manual_seed(0)
    state, index, inputs = {}, 0, 3
    for width in WIDTHS:
        if width == "M":
            index += 1
            continue
        state[f"features.{index}.weight"] = (
            torch.randn((width, inputs, 3, 3), generator=generator) * (2 / 9 / inputs) ** 0.5
        )
        state[f"features.{index}.bias"] = torch.randn(width, generator=generator) * 0.1
        index, inputs = index + 2, width
    return state


def convolution_outputs(image, state):
    """Return the image in [0, 1], and the output of each convolution before its activation."""
    x = torch.from_numpy(image).movedim(-1, 0)[None] / 255
    outputs, index = [x], 0
    mean, deviation = (torch.tensor(each).view(1, 3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (x - mean) / deviation
    for width in WIDTHS:
        if width == "M":
            x, index = F.max_pool2d(x, 2), index + 1
            continue
        outputs.append(F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1))
        x, index = outputs[-1].relu(), index + 2
    return outputs


def noise_images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (36, 40, 3), np.uint8) for _ in range(2)]


def test_vgg16_is_the_mean_difference_of_features(vgg16_state):
    sr, hr = noise_images()
    (metric,), missing = load_metrics(["vgg16"], CPU, vgg16_state=vgg16_state)
    assert not missing
    one, other = (convolution_outputs(image[2:-2, 2:-2], vgg16_state)[-1] for image in (sr, hr))
    assert metric.measure(sr, hr, 2) == pytest.approx((one - other).abs().mean().item(), rel=1e-5)
    with pytest.raises(ValueError, match="at least 16x16"):
        metric.measure(sr[:19], hr[:19], 2)
    key = score_key(metric)
    changed = vgg16_state | {"features.28.bias": vgg16_state["features.28.bias"] + 1}
    (other,), _ = load_metrics(["vgg16"], CPU, vgg16_state=changed)
    assert score_key(other) != key


def test_vggstats_compares_mean_variance_and_covariance_of_each_channel(vgg16_state):
    sr, hr = noise_images()
    (metric,), missing = load_metrics(["vggstats"], CPU, vgg16_state=vgg16_state)
    assert not missing
    similarities = []
    one, other = (convolution_outputs(image[2:-2, 2:-2], vgg16_state) for image in (sr, hr))
    for index in (0, 2, 4, 7, 10, 13):  # the image, and the last convolution of each block
        for x, y in zip(*(each[index][0].double().numpy() for each in (one, other)), strict=True):
            x, y = (x.clip(min=0), y.clip(min=0)) if index else (x, y)
            similarities.append((2 * x.mean() * y.mean() + 1e-6) / (x.mean() ** 2 + y.mean() ** 2 + 1e-6))
            (xx, xy), (_, yy) = np.cov(x.ravel(), y.ravel(), bias=True)
            similarities.append((2 * xy + 1e-6) / (xx + yy + 1e-6))
    assert metric.measure(sr, hr, 2) == pytest.approx(1 - np.mean(similarities), abs=1e-5)
    assert metric.measure(sr, sr, 2) == pytest.approx(0, abs=1e-6)


def test_unavailable_metrics_are_explained_and_the_others_returned(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    metrics, missing = load_metrics(["all"], CPU)
    assert [metric.name for metric in metrics] == ["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "niqe"]
    assert [line.partition(":")[0] for line in missing] == [
        "LPIPS (AlexNet)",
        "LPIPS (VGG)",
        "DISTS",
        "VGG16 conv5_3",
        "VGG16 statistics",
    ]
    assert all("\n" not in line and "--download" in line for line in missing)
    with pytest.raises(EsrganError, match="metrics: none of the requested metrics is available"):
        load_metrics(["lpips"], CPU)
    with pytest.raises(EsrganError, match="expected all, psnr, ssim, niqe, lpips, dists, vgg16, vggstats, got 'pnsr'"):
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
