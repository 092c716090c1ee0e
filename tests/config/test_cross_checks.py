# ruff: noqa: E501  (each message is on one line)
"""Configurations whose values contradict each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from esrgan.config.schema import Discriminator, Generator
from tests.helpers.config_files import assert_only_problem

# For each mistake, the content of a file and its message, or how that starts.
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
        "x.json:1:16: generator.pixel_unshuffle: expected false for a scale_factor above 2, got true with scale_factor 4; set it to false",
    ),
    "unshuffle at 2": (
        '{"scale_factor": 2, "generator": {"pixel_unshuffle": true}, "training": {"cr_patch_size": [128, 130]}}',
        "x.json:1:74: training.cr_patch_size: expected a multiple of 4 (scale_factor 2 times pixel_unshuffle factor 2), "
        "got [128, 130]; use [128, 128] or [128, 132]",
    ),
    "unshuffle at 1": (
        '{"scale_factor": 1, "generator": {"pixel_unshuffle": true}, "pretraining": {"cr_patch_size": [126, 4]}}',
        "x.json:1:77: pretraining.cr_patch_size: expected a multiple of 4 (scale_factor 1 times pixel_unshuffle factor 4), ",
    ),
    "key of another generator": (
        '{"generator": {"type": "compact", "num_basic_blocks": 6, "growth_channels": 32}}',
        "x.json:1:35: generator.num_basic_blocks: expected the type rrdb for this key, got compact; remove the key, or change the type",
    ),
    "key of another discriminator": (
        '{"discriminator": {"num_features": 32}}',
        "x.json:1:20: discriminator.num_features: expected the type unet for this key, got vgg; remove the key, or change the type",
    ),
    "epochs and steps": (
        '{"training": {"num_epoch": 8000, "num_steps": 5}}',
        "x.json:1:34: training.num_steps: expected either num_epoch or num_steps, got both; set exactly one of them",
    ),
    "neither epochs nor steps": (
        '{"pretraining": {"num_epoch": null}}',
        "x.json:1:2: pretraining.num_steps: expected either num_epoch or num_steps, got neither; set exactly one of them",
    ),
    "layer of another VGG": (
        '{"perceptual_loss": {"vgg_type": "vgg16", "layer_weights": {"conv5_4": 1}}}',
        "x.json:1:61: perceptual_loss.layer_weights.conv5_4: expected a layer of vgg16, got conv5_4; the last layer of block 5 is conv5_3",
    ),
    "default layer": (
        '{"perceptual_loss": {"vgg_type": "vgg11"}}',
        "x.json:1:2: perceptual_loss.layer_weights.conv5_4: expected a layer of vgg11, got conv5_4; the last layer of block 5 is conv5_2",
    ),
    "decreasing steps": (
        '{"training": {"g_sched_steps": [3, 2, 2]}}',
        "x.json:1:15: training.g_sched_steps: expected increasing steps, got [3, 2, 2]; use [2, 3]",
    ),
    "batch not a multiple of accumulation": (
        '{"batch_size": 4, "accumulation": 3}',
        "x.json:1:2: batch_size: expected a multiple of accumulation 3, got 4; change one of them",
    ),
    "equal steps": (
        '{"training": {"d_sched_steps": [2, 2]}}',
        "x.json:1:15: training.d_sched_steps: expected increasing steps, got [2, 2]; use [2]",
    ),
    "JPEG with alpha": (
        '{"img_channels": 4, "pretraining": {"hard_transforms": true}}',
        "x.json:1:37: pretraining.hard_transforms: expected false with img_channels 4 (JPEG has no alpha channel), got true; set it to false",
    ),
    "degradation": (
        '{"training": {"degradation": true}}',
        "x.json:1:15: training.degradation: expected an object or null, got true; the default of training.degradation is null",
    ),
    "degradation key": (
        '{"training": {"degradation": {"first": {"jpeg": [30, 95]}}}}',
        'x.json:1:41: training.degradation.first.jpeg: expected a known key, got "jpeg"; the known keys here are blur_prob, sinc_prob, ',
    ),
    "degradation value": (
        '{"training": {"degradation": {"second": {"jpeg_range": [0, 95]}}}}',
        "x.json:1:57: training.degradation.second.jpeg_range[0]: expected an integer of at least 1 and at most 100, got 0; "
        "the default of training.degradation.second.jpeg_range is [30, 95]",
    ),
    "degradation range": (
        '{"training": {"degradation": {"first": {"noise_range": [30, 1]}}}}',
        "x.json:1:41: training.degradation.first.noise_range: expected the smaller number first, got [30.0, 1.0]; use [1.0, 30.0]",
    ),
    "degradation range around 1": (
        '{"pretraining": {"degradation": {"second": {"resize_range": [0.3, 0.9]}}}}',
        "x.json:1:45: pretraining.degradation.second.resize_range: expected a range that contains 1, got [0.3, 0.9]; use [0.3, 1]",
    ),
    "degradation probabilities": (
        '{"training": {"degradation": {"first": {"resize_prob": [0.2, 0.7, 0.2]}}}}',
        "x.json:1:41: training.degradation.first.resize_prob: expected probabilities that sum to 1, got [0.2, 0.7, 0.2]; change some of them",
    ),
    "photo range": (
        '{"training": {"photo_degradation": {"jpeg_range": [95, 60]}}}',
        "x.json:1:37: training.photo_degradation.jpeg_range: expected the smaller number first, got [95, 60]; use [60, 95]",
    ),
    "photo factor": (
        '{"training": {"photo_degradation": {"earlier_factor_range": [0.5, 2]}}}',
        "x.json:1:37: training.photo_degradation.earlier_factor_range: expected 1 or more, got [0.5, 2.0]; use [1, 2.0]",
    ),
    "two degradations": (
        '{"training": {"degradation": {}, "photo_degradation": {}}}',
        "x.json:1:15: training.degradation: expected only one of both, got two objects; set one of them to null",
    ),
    "photo with hard transforms": (
        '{"pretraining": {"hard_transforms": true, "photo_degradation": {}}}',
        "x.json:1:18: pretraining.hard_transforms: expected false with a degradation, which includes JPEG compression, got true; ",
    ),
    "degradation with alpha": (
        '{"img_channels": 4, "training": {"degradation": {}}}',
        "x.json:1:34: training.degradation: expected null with img_channels 4 (JPEG has no alpha channel), got an object; set it to null",
    ),
    "degradation with LR images": (
        '{"training": {"degradation": {}, "train_datasets": [{"hr": "a", "lr": "b"}, {"hr": "c"}]}}',
        "x.json:1:34: training.train_datasets: expected no LR folders with a degradation, which replaces them, "
        'got ["b"]; remove "lr" or the degradation',
    ),
    "degradation with hard transforms": (
        '{"pretraining": {"degradation": {}, "hard_transforms": true}}',
        "x.json:1:37: pretraining.hard_transforms: expected false with a degradation, which includes JPEG compression, got true; set it to false",
    ),
    "patch below BasicSR's discriminator": (
        '{"discriminator": {"type": "vgg_basicsr", "vgg_blk_ch": [4, 4, 4, 4, 4, 4, 4, 4, 4, 4]}, "training": {"cr_patch_size": [16, 32]}}',
        "x.json:1:103: training.cr_patch_size: expected at least 32 px for the vgg_basicsr discriminator, got [16, 32]; use at least [32, 32]",
    ),
    "artefact loss without average": (
        '{"ema_decay": 0, "training": {"g_artifact_loss_scaling": 1}}',
        "x.json:1:31: training.g_artifact_loss_scaling: expected 0 without a moving average of the generator (ema_decay 0), "
        "got 1.0; set ema_decay to 0.999, or this key to 0",
    ),
    "patch below the artefact loss": (
        '{"scale_factor": 2, "perceptual_loss": {"layer_weights": {"conv1_2": 1}}, '
        '"training": {"g_artifact_loss_scaling": 1, "cr_patch_size": [2, 8]}}',
        "x.json:1:118: training.cr_patch_size: expected at least 4 px for the artefact loss, got [2, 8]; use at least [4, 4]",
    ),
    "objective without weight": (
        '{"training": {"gan_objective": "hinge", "g_adversarial_loss_scaling": 0}}',
        'x.json:1:15: training.gan_objective: expected "ragan" without an adversarial loss (g_adversarial_loss_scaling 0), '
        'got "hinge"; remove the key, or raise g_adversarial_loss_scaling',
    ),
    "ramp without weight": (
        '{"training": {"g_adversarial_ramp_steps": 5, "g_adversarial_loss_scaling": 0}}',
        "x.json:1:15: training.g_adversarial_ramp_steps: expected 0 without an adversarial loss "
        "(g_adversarial_loss_scaling 0), got 5; remove the key, or raise g_adversarial_loss_scaling",
    ),
    "warm-up longer than the stage": (
        '{"pretraining": {"warmup_steps": 9, "num_steps": 9}}',
        "x.json:1:18: pretraining.warmup_steps: expected fewer than the 9 steps of the stage (num_steps), got 9; change one of them",
    ),
    "ramp longer than the stage": (
        '{"training": {"num_steps": 9, "g_adversarial_ramp_steps": 10}}',
        "x.json:1:31: training.g_adversarial_ramp_steps: expected fewer than the 9 steps of the stage (num_steps), got 10; "
        "change one of them",
    ),
    "cosine without steps": (
        '{"pretraining": {"sched": "cosine"}}',
        "x.json:1:18: pretraining.sched: expected num_steps with the cosine schedule, which ends with the stage, got num_epoch; "
        "set num_steps, or set sched to step",
    ),
    "key of another schedule": (
        '{"training": {"sched": "cosine", "num_steps": 9, "d_sched_steps": [3]}}',
        "x.json:1:50: training.d_sched_steps: expected the sched step for this key, got cosine; remove the key, or set sched to step",
    ),
    "pause without weight": (
        '{"training": {"d_pause_below": 0.2, "g_adversarial_loss_scaling": 0}}',
        "x.json:1:15: training.d_pause_below: expected null without an adversarial loss (g_adversarial_loss_scaling 0), "
        "got 0.2; remove the key, or raise g_adversarial_loss_scaling",
    ),
    "pause for ever": (
        '{"training": {"gan_objective": "lsgan", "d_pause_below": 0.25}}',
        "x.json:1:41: training.d_pause_below: expected less than 0.25, the loss of a discriminator that only guesses (lsgan), "
        "which would not learn, got 0.25; use about half of it, or null",
    ),
    "patch below VGG": (
        '{"training": {"cr_patch_size": [12, 64]}}',
        "x.json:1:15: training.cr_patch_size: expected at least 16 px for block 5 of vgg19, got [12, 64]; "
        "use at least [16, 16], or layers of earlier blocks",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_conflicting_values_are_reported(content: str | bytes, message: str, tmp_path: Path) -> None:
    assert_only_problem(content, message, tmp_path)


@pytest.mark.parametrize(("section", "users"), [(Generator, {"rrdb", "compact"}), (Discriminator, {"vgg", "unet"})])
def test_descriptions_begin_with_the_types_that_use_a_key(section, users):
    """The check of keys that a type does not use reads them."""
    fields = {name: field for name, field in section.model_fields.items() if name != "type"}
    assert {re.split("[:,]", field.description)[0] for field in fields.values()} == users
