# ruff: noqa: E501  (whole messages, one to a line)
"""Values that contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.config_files import assert_only_problem

# Each kind of mistake: the text of a file, and the whole message.
MISTAKES = {
    "patch": (
        '{\n  "training": {\n    "cr_patch_size": [130, 130]\n  }\n}',
        "x.json:3:5: training.cr_patch_size: expected a multiple of scale_factor 4, got [130, 130]; use [128, 128] or [132, 132]",
    ),
    "tiny patch": (
        '{"pretraining": {"cr_patch_size": [2, 64]}}',
        "x.json:1:18: pretraining.cr_patch_size: expected a multiple of scale_factor 4, got [2, 64]; use [4, 64]",
    ),
    "unshuffle at 4": (
        '{"generator": {"pixel_unshuffle": true}}',
        "x.json:1:16: generator.pixel_unshuffle: expected false with a scale_factor above 2, got true with scale_factor 4; write false",
    ),
    "unshuffle at 2": (
        '{"scale_factor": 2, "generator": {"pixel_unshuffle": true}, "training": {"cr_patch_size": [128, 130]}}',
        "x.json:1:74: training.cr_patch_size: expected a multiple of 4 (scale_factor 2 times pixel_unshuffle by 2), "
        "got [128, 130]; use [128, 128] or [128, 132]",
    ),
    "unshuffle at 1": (
        '{"scale_factor": 1, "generator": {"pixel_unshuffle": true}, "pretraining": {"cr_patch_size": [126, 4]}}',
        "x.json:1:77: pretraining.cr_patch_size: expected a multiple of 4 (scale_factor 1 times pixel_unshuffle by 4), ",
    ),
    "epochs and steps": (
        '{"training": {"num_epoch": 8000, "num_steps": 5}}',
        "x.json:1:34: training.num_steps: expected either num_epoch or num_steps, got both; write one of them",
    ),
    "no length": (
        '{"pretraining": {"num_epoch": null}}',
        "x.json:1:2: pretraining.num_steps: expected either num_epoch or num_steps, got neither; write one of them",
    ),
    "layer of another VGG": (
        '{"perceptual_loss": {"vgg_type": "vgg16", "layer_weights": {"conv5_4": 1}}}',
        "x.json:1:61: perceptual_loss.layer_weights.conv5_4: expected a layer of vgg16, got conv5_4; the last one of block 5 is conv5_3",
    ),
    "default layer": (
        '{"perceptual_loss": {"vgg_type": "vgg11"}}',
        "x.json:1:2: perceptual_loss.layer_weights.conv5_4: expected a layer of vgg11, got conv5_4; the last one of block 5 is conv5_2",
    ),
    "steps": (
        '{"training": {"g_sched_steps": [3, 2, 2]}}',
        "x.json:1:15: training.g_sched_steps: expected steps that rise, got [3, 2, 2]; use [2, 3]",
    ),
    "uneven parts": (
        '{"batch_size": 4, "accumulation": 3}',
        "x.json:1:2: batch_size: expected a multiple of accumulation 3, got 4; change one of them",
    ),
    "equal steps": (
        '{"training": {"d_sched_steps": [2, 2]}}',
        "x.json:1:15: training.d_sched_steps: expected steps that rise, got [2, 2]; use [2]",
    ),
    "JPEG with alpha": (
        '{"img_channels": 4, "pretraining": {"hard_transforms": true}}',
        "x.json:1:37: pretraining.hard_transforms: expected false with img_channels 4 (JPEG has no alpha), got true; write false",
    ),
    "degradation": (
        '{"training": {"degradation": true}}',
        "x.json:1:15: training.degradation: expected an object or null, got true; the default of training.degradation is null",
    ),
    "degradation key": (
        '{"training": {"degradation": {"first": {"jpeg": [30, 95]}}}}',
        'x.json:1:41: training.degradation.first.jpeg: expected a known key, got "jpeg"; the keys here are blur_prob, sinc_prob, ',
    ),
    "degradation value": (
        '{"training": {"degradation": {"second": {"jpeg_range": [0, 95]}}}}',
        "x.json:1:57: training.degradation.second.jpeg_range[0]: expected an integer of at least 1 and at most 100, got 0; "
        "the default of training.degradation.second.jpeg_range is [30, 95]",
    ),
    "degradation range": (
        '{"training": {"degradation": {"first": {"noise_range": [30, 1]}}}}',
        "x.json:1:41: training.degradation.first.noise_range: expected the lesser number first, got [30.0, 1.0]; use [1.0, 30.0]",
    ),
    "degradation range around 1": (
        '{"pretraining": {"degradation": {"second": {"resize_range": [0.3, 0.9]}}}}',
        "x.json:1:45: pretraining.degradation.second.resize_range: expected a range with 1 in it, got [0.3, 0.9]; use [0.3, 1]",
    ),
    "degradation chances": (
        '{"training": {"degradation": {"first": {"resize_prob": [0.2, 0.7, 0.2]}}}}',
        "x.json:1:41: training.degradation.first.resize_prob: expected numbers that add up to 1, got [0.2, 0.7, 0.2]; change some of them",
    ),
    "degradation with alpha": (
        '{"img_channels": 4, "training": {"degradation": {}}}',
        "x.json:1:34: training.degradation: expected null with img_channels 4 (JPEG has no alpha), got an object; write null",
    ),
    "degradation with LR images": (
        '{"training": {"degradation": {}, "train_datasets": [{"hr": "a", "lr": "b"}, {"hr": "c"}]}}',
        "x.json:1:34: training.train_datasets: expected no LR images with a degradation, which makes them, "
        'got ["b"]; leave "lr" out, or the degradation',
    ),
    "degradation with hard transforms": (
        '{"pretraining": {"degradation": {}, "hard_transforms": true}}',
        "x.json:1:37: pretraining.hard_transforms: expected false with a degradation, which has its own JPEG, got true; write false",
    ),
    "patch below VGG": (
        '{"training": {"cr_patch_size": [12, 64]}}',
        "x.json:1:15: training.cr_patch_size: expected 16 px or more for block 5 of vgg19, got [12, 64]; "
        "use at least [16, 16], or layers of earlier blocks",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_contradiction(content: str | bytes, message: str, tmp_path: Path) -> None:
    assert_only_problem(content, message, tmp_path)
