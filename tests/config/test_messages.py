# ruff: noqa: E501  (each message is on one line)
"""Messages for unknown keys and invalid values."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.config_files import assert_only_problem

# For each mistake, the content of a file and its message, or how that starts.
MISTAKES = {
    # keys
    "misspelt": ('{"batchsize": 1}', 'x.json:1:2: batchsize: expected a known key, got "batchsize"; did you mean `batch_size`?'),
    "other section": ('{"g_lr": 1}', 'x.json:1:2: g_lr: expected a known key, got "g_lr"; did you mean `training.g_lr`?'),
    "two candidates": (
        '{"training": {"lr": 1}}',
        'x.json:1:15: training.lr: expected a known key, got "lr"; did you mean `training.g_lr` or `training.d_lr`?',
    ),
    "from the top level": (
        '{"training": {"num_workers": 1}}',
        'x.json:1:15: training.num_workers: expected a known key, got "num_workers"; did you mean `num_workers`?',
    ),
    "unknown": (
        '{"content_loss": {"zzz": 1}}',
        'x.json:1:19: content_loss.zzz: expected a known key, got "zzz"; the known keys here are loss_f',
    ),
    "$schema inside": (
        '{"logging": {"$schema": "x"}}',
        'x.json:1:14: logging.$schema: expected a known key, got "$schema"; did you mean `$schema`?',
    ),
    "unprintable": (
        '{"a\\u001b[1m": 1}',
        'x.json:1:2: "a\\u001b[1m": expected a known key, got "a\\u001b[1m"; the known keys here are $schema, scale_factor',
    ),
    "surrogate": (
        '{"data_root": "\\ud800"}',
        'x.json:1:2: data_root: expected well-formed Unicode, got "\\ud800"; delete the unpaired \\ud... escape',
    ),
    "surrogate key": ('{"\\ud800": 1}', 'x.json:1:1: expected well-formed Unicode, got "\\ud800"; delete the unpaired \\ud...'),
    # values
    "quoted": ('{"batch_size": "16"}', 'x.json:1:2: batch_size: expected an integer of at least 1, got "16"; write 16'),
    "float": ('{"seed": 1.0}', "x.json:1:2: seed: expected an integer of at least 0, got 1.0; write 1"),
    "bool for int": ('{"seed": true}', "x.json:1:2: seed: expected an integer of at least 0, got true; the default of seed is 0"),
    "bool for choice": (
        '{"scale_factor": true}',
        "x.json:1:2: scale_factor: expected one of 1, 2, 4, 8, got true; the default of scale_factor is 4",
    ),
    "float for choice": ('{"scale_factor": 2.0}', "x.json:1:2: scale_factor: expected one of 1, 2, 4, 8, got 2.0; write 2"),
    "int for bool": ('{"logging": {"tensorboard": 1}}', "x.json:1:14: logging.tensorboard: expected true or false, got 1; write true"),
    "bool for float": (
        '{"ema_decay": false}',
        "x.json:1:2: ema_decay: expected a number of at least 0 and below 1, got false; the default of ema_decay is 0.999",
    ),
    "null": ('{"seed": null}', "x.json:1:2: seed: expected an integer of at least 0, got null; the default of seed is 0"),
    "too small": ('{"batch_size": 0}', "x.json:1:2: batch_size: expected an integer of at least 1, got 0; the default of"),
    "too large": ('{"ema_decay": 1}', "x.json:1:2: ema_decay: expected a number of at least 0 and below 1, got 1; the default"),
    "zero rate": ('{"training": {"d_lr": 0}}', "x.json:1:15: training.d_lr: expected a number above 0, got 0; the default of training.d_lr is 0.0001"),
    "choice": (
        '{"perceptual_loss": {"vgg_type": "VGG16"}}',
        'x.json:1:22: perceptual_loss.vgg_type: expected one of "vgg11", "vgg13", "vgg16", "vgg19", got "VGG16"; write "vgg16"',
    ),
    "NaN": ('{"ema_decay": NaN}', "x.json:1:2: ema_decay: expected a number of at least 0 and below 1, got NaN; the default"),
    "Infinity": ('{"training": {"g_lr": -Infinity}}', "x.json:1:15: training.g_lr: expected a number above 0, got -Infinity; the"),
    "unbounded": ('{"training": {"g_lr": 1e999}}', "x.json:1:15: training.g_lr: expected a number above 0, got Infinity; the default of"),
    "huge": ('{"seed": 1' + "0" * 5000 + "}", "x.json:1:2: seed: expected an integer of at least 0, got Infinity; the default"),
    "number for section": ('{"generator": 5}', "x.json:1:2: generator: expected an object, got 5; remove it"),
    "scalar for pair": (
        '{"training": {"cr_patch_size": 64}}',
        "x.json:1:15: training.cr_patch_size: expected null or a list of 2, each an integer of at least 1, got 64; write [64, 64]",
    ),
    "one of a pair": (
        '{"training": {"cr_patch_size": [64]}}',
        "x.json:1:15: training.cr_patch_size: expected null or a list of 2, each an integer of at least 1, got [64]; the default",
    ),
    "none of a pair": ('{"training": {"betas": []}}', "x.json:1:15: training.betas: expected a list of 2, each a number of at least 0"),
    "item": (
        '{"training": {"betas": [0.9,\n 1]}}',
        "x.json:2:2: training.betas[1]: expected a number of at least 0 and below 1, got 1; the default of training.betas is [0.9, 0.99]",
    ),
    "only item": ('{"discriminator": {"vgg_blk_ch": [0]}}', "x.json:1:35: discriminator.vgg_blk_ch[0]: expected an integer of at least 1, got 0"),
    "one dataset": (
        '{"training": {"train_datasets": "div2k"}}',
        "x.json:1:15: training.train_datasets: expected a list of at least 1, each a non-empty string or an object, "
        'got "div2k"; write ["div2k"]',
    ),
    "dataset": (
        '{"training": {"val_datasets": ["a", 3]}}',
        "x.json:1:37: training.val_datasets[1]: expected a non-empty string or an object, got 3; the default of",
    ),
    "folder": (
        '{"training": {"val_datasets": [{"hr": 3}]}}',
        "x.json:1:33: training.val_datasets[0].hr: expected a non-empty string, got 3; the default of training.val_datasets is",
    ),
    "no hr": (
        '{"training": {"val_datasets": [{"lr": "a"}]}}',
        "x.json:1:32: training.val_datasets[0].hr: expected a non-empty string, got nothing; add this key",
    ),
    "dataset key": (
        '{"training": {"val_datasets": [{"hr": "a", "xy": "b"}]}}',
        'x.json:1:44: training.val_datasets[0].xy: expected a known key, got "xy"; the known keys here are hr, lr',
    ),
    "layer name": (
        '{"perceptual_loss": {"layer_weights": {"conv54": 1}}}',
        'x.json:1:40: perceptual_loss.layer_weights.conv54: expected a layer name such as conv5_4 or relu5_4, got "conv54"; in convB_I, the block B is 1 to 5 and the index I is 1 to 4',
    ),
    "layer weight": (
        '{"perceptual_loss": {"layer_weights": {"conv5_4": 0}}}',
        "x.json:1:40: perceptual_loss.layer_weights.conv5_4: expected a number above 0, got 0; the default of",
    ),
    "no layers": ('{"perceptual_loss": {"layer_weights": {}}}', "x.json:1:22: perceptual_loss.layer_weights: expected an object with at least one key, got {}; the default of"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_in_keys_and_values_are_explained(content: str | bytes, message: str, tmp_path: Path) -> None:
    assert_only_problem(content, message, tmp_path)
