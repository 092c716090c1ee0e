# ruff: noqa: E501  (whole messages, one to a line)
"""The configuration: defaults, the shipped files, and the words for every kind of mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from esrgan.config import Config, load, schema
from esrgan.errors import ConfigError, Problem

CONFIGS = Path(__file__).parent.parent.parent / "configs"
SHIPPED = sorted(path for path in CONFIGS.glob("*.json") if path.name != "schema.json")

# Written out here a second time on purpose: this is the public interface.
DEFAULTS = {
    "scale_factor": 4,
    "batch_size": 16,
    "accumulation": 1,
    "gradient_clip": None,
    "keep_checkpoints": 2,
    "activation_checkpointing": False,
    "img_channels": 3,
    "seed": 0,
    "num_workers": None,
    "data_root": None,
    "cache_dir": None,
    "ema_decay": 0.999,
    "autocast_dtype": "auto",
    "spatial_transforms": "d4",
    "validation_interval": 5000,
    "pretraining": {
        "num_epoch": 10000,
        "num_steps": None,
        "cr_patch_size": [128, 128],
        "betas": [0.9, 0.999],
        "train_datasets": ["div2k"],
        "val_datasets": ["div2k"],
        "degradation": None,
        "lr": 2e-4,
        "sched_step": 200000,
        "sched_gamma": 0.5,
        "hard_transforms": False,
    },
    "training": {
        "num_epoch": 8000,
        "num_steps": None,
        "cr_patch_size": [128, 128],
        "betas": [0.9, 0.99],
        "train_datasets": ["div2k"],
        "val_datasets": ["div2k"],
        "degradation": None,
        "g_lr": 1e-4,
        "d_lr": 1e-4,
        "g_sched_steps": [50000, 100000, 200000, 300000],
        "d_sched_steps": [50000, 100000, 200000, 300000],
        "g_sched_gamma": 0.5,
        "d_sched_gamma": 0.5,
        "g_adversarial_loss_scaling": 0.005,
        "g_content_loss_scaling": 0.01,
    },
    "generator": {
        "rrdb_channels": 64,
        "growth_channels": 32,
        "num_basic_blocks": 23,
        "num_dense_blocks": 3,
        "num_residual_blocks": 5,
        "residual_scaling": 0.2,
        "use_subpixel_conv": False,
        "pixel_unshuffle": False,
        "small_init": "all",
    },
    "discriminator": {
        "type": "vgg",
        "vgg_blk_ch": [64, 64, 128, 128, 256, 256, 512, 512],
        "fc_features": [100],
        "num_features": 64,
    },
    "content_loss": {"loss_f": "l1"},
    "perceptual_loss": {
        "layer_weights": {"conv5_4": 1.0},
        "vgg_type": "vgg19",
        "criterion": "l1",
        "normalize_input": True,
        "normalize_loss": False,
        "weights": None,
        "optional": False,
    },
    "logging": {
        "interval": 100,
        "tensorboard": True,
        "wandb": "disabled",
        "wandb_project": "esrgan",
        "wandb_entity": None,
        "num_images": 4,
    },
}


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "x.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def problems(path: Path) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert all(isinstance(problem, Problem) for problem in caught.value.problems)
    return [problem for problem in caught.value.problems if isinstance(problem, Problem)]


def messages(folder: Path, content: str | bytes) -> list[str]:
    """The problems of a file, without the folder."""
    path = write(folder, content)
    return [str(problem).replace(f"{path.parent}/", "") for problem in problems(path)]


# --- What is accepted ---


def test_defaults_are_the_public_table(tmp_path: Path) -> None:
    assert Config().as_dict() == DEFAULTS
    assert load(write(tmp_path, "{}")) == Config()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_load(path: Path, tmp_path: Path) -> None:
    assert next(iter(json.loads(path.read_text()).items())) == ("$schema", "schema.json")
    config = load(path)
    assert load(write(tmp_path, json.dumps(config.as_dict()))) == config


def test_default_file_is_the_default_run_written_out() -> None:
    assert load(CONFIGS / "esrgan_default.json") == Config()


@pytest.mark.parametrize(
    ("name", "pretraining_px", "training_px", "blocks", "datasets"),
    [
        ("esrgan_128_cr_23_rrdb_div2k", 128, 128, 23, ("div2k",)),
        ("esrgan_192_cr_23_rrdb_div2k", 192, 192, 23, ("div2k",)),
        ("esrgan_p192_t128_cr_23_rrdb_div2k", 192, 128, 23, ("div2k",)),
        ("esrgan_p192_t128_cr_23_rrdb_div2k+bsds500", 192, 128, 23, ("bsds500", "div2k")),
        ("esrgan_p192_t128_cr_16_rrdb_div2k+bsds500", 192, 128, 16, ("bsds500", "div2k")),
    ],
)
def test_experiments_are_what_their_names_say(
    name: str, pretraining_px: int, training_px: int, blocks: int, datasets: tuple[str, ...]
) -> None:
    config = load(CONFIGS / f"{name}.json")
    assert config.pretraining.cr_patch_size == (pretraining_px, pretraining_px)
    assert config.training.cr_patch_size == (training_px, training_px)
    assert config.generator.num_basic_blocks == blocks
    assert config.pretraining.train_datasets == config.training.train_datasets == datasets
    assert config.pretraining.val_datasets == config.training.val_datasets == ("div2k",)
    assert (config.pretraining.num_epoch, config.training.num_epoch) == (8000, 6000)
    assert config.pretraining.sched_step == 175000
    assert config.training.g_sched_steps == config.training.d_sched_steps == (50000, 100000, 175000, 250000)
    keys = json.loads((CONFIGS / "esrgan_default.json").read_text())
    written = json.loads((CONFIGS / f"{name}.json").read_text())
    assert {k: sorted(v) if isinstance(v, dict) else 0 for k, v in written.items()} == {
        k: sorted(v) if isinstance(v, dict) else 0 for k, v in keys.items()
    }


def test_committed_schema_is_up_to_date() -> None:
    assert json.loads((CONFIGS / "schema.json").read_text()) == schema()


def test_module_prints_the_schema_without_torch() -> None:
    command = [sys.executable, "-m", "esrgan.config"]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    assert output.stdout == (CONFIGS / "schema.json").read_text()
    code = "import sys, esrgan.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_key_is_described_in_the_schema() -> None:
    document = schema()
    for owner in (document, *document["$defs"].values()):
        assert owner["description"]
        for key, node in owner["properties"].items():
            assert "\n" not in node["description"], key


@pytest.mark.parametrize(
    "data",
    [
        {"pretraining": {"num_steps": 10}, "training": {"num_steps": 5, "num_epoch": None}},
        {"training": {"cr_patch_size": None, "train_datasets": ["a", {"hr": "b"}, {"hr": "c", "lr": "d"}]}},
        {"perceptual_loss": {"layer_weights": {"relu1_2": 1, "conv3_4": 0.5}}},
        {"scale_factor": 2, "generator": {"pixel_unshuffle": True}, "training": {"cr_patch_size": [64, 68]}},
        {"batch_size": 1, "discriminator": {"type": "unet"}, "training": {"cr_patch_size": [16, 16]}},
        {"img_channels": 4, "training": {"g_lr": 1, "g_sched_steps": []}},
        {"pretraining": {"degradation": {}}, "training": {"degradation": {"second": {"jpeg_range": [50, 50]}}}},
    ],
)
def test_round_trip(data: dict[str, Any], tmp_path: Path) -> None:
    config = load(write(tmp_path, json.dumps({"$schema": "elsewhere.json", **data})))
    stored = json.dumps(config.as_dict())
    assert json.loads(stored) == config.as_dict()  # lists, not tuples
    assert load(write(tmp_path, stored)) == config != Config()


def test_num_steps_replaces_the_default_epochs(tmp_path: Path) -> None:
    config = load(write(tmp_path, '{"training": {"num_steps": 5}}'))
    assert (config.training.num_steps, config.training.num_epoch) == (5, None)
    assert (config.pretraining.num_steps, config.pretraining.num_epoch) == (None, 10000)


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Config().training.g_lr = 1.0  # type: ignore[misc]


# --- Each kind of mistake: the text and its whole message ---

MISTAKES = {
    # text
    "empty": ("", "x.json:1:1: expected a JSON object, got an empty file; write {} for the default run"),
    "blank": (" \n", "x.json:1:1: expected a JSON object, got an empty file; write {} for the default run"),
    "list": ("[1]", "x.json:1:1: expected a JSON object, got [1]; write {} for the default run"),
    "not JSON": ("seed = 3", "x.json:1:1: expected JSON, got \"seed = 3\"; check the quotes, commas and brackets here"),
    "cut off": ('{"seed": ', "x.json:1:10: expected JSON, got the end of the file; check the quotes, commas and brackets here"),
    "comment": ('{\n  // x\n  "seed": 1}', 'x.json:2:3: expected JSON, got "// x"; delete the comment, JSON has none'),
    "quotes": ("{'seed': 1}", "x.json:1:2: expected JSON, got \"'seed': 1}\"; use double quotes"),
    "Python": ('{"seed": None}', 'x.json:1:10: expected JSON, got "None}"; write null'),
    "no comma": (
        '{"seed": 1\n  "batch_size": 2}',
        'x.json:2:3: expected JSON, got "\\"batch_size\\": 2}"; put a comma before it, or close the bracket',
    ),
    "two values": ("{} {}", 'x.json:1:4: expected JSON, got "{}"; delete what follows the first value'),
    "backslash": (
        '{"data_root": "C:\\data"}',
        'x.json:1:18: expected JSON, got "\\\\data\\"}"; write a backslash as \\\\, or use / in paths',
    ),
    "trailing comma": ('{"seed": 1,\n}', "x.json:1:11: expected no comma before a closing bracket, got one; delete it"),
    "BOM": (b"\xef\xbb\xbf{}", "x.json:1:1: expected plain UTF-8, got a byte order mark; save the file as UTF-8 without BOM"),
    "Latin-1": (b'{\n "data_root": "\xe9"}', "x.json:2:16: expected UTF-8 text, got the byte 0xe9; save the file as UTF-8"),
    "not UTF-8 behind UTF-8": (
        b'{\n "data_root": "\xc3\xa9\xe9"}',
        "x.json:2:17: expected UTF-8 text, got the byte 0xe9; save the file as UTF-8",
    ),
    "UTF-16": ("{}".encode("utf-16"), "x.json:1:1: expected UTF-8 text, got the byte 0xff; save the file as UTF-8"),
    "too deep": (
        "[" * 100000,
        "x.json:1:1: expected a JSON object of sections, got hundreds of brackets inside each other; check the brackets",
    ),
    "duplicate": (
        '{"seed": 1,\n "seed": 2}',
        "x.json:2:2: seed: expected each key once, got a second one; delete it or the one in line 1",
    ),
    "duplicate section": (
        '{"logging": {"interval": 1},\n "logging": {"interval": 2}}',
        "x.json:2:2: logging: expected each key once, got a second one; delete it or the one in line 1",
    ),
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
        'x.json:1:19: content_loss.zzz: expected a known key, got "zzz"; the keys here are loss_f',
    ),
    "$schema inside": (
        '{"logging": {"$schema": "x"}}',
        'x.json:1:14: logging.$schema: expected a known key, got "$schema"; did you mean `$schema`?',
    ),
    "unprintable": (
        '{"a\\u001b[1m": 1}',
        'x.json:1:2: "a\\u001b[1m": expected a known key, got "a\\u001b[1m"; the keys here are $schema, scale_factor',
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
    "no section": ('{"generator": 5}', "x.json:1:2: generator: expected an object, got 5; leave it out"),
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
    "no dataset": ('{"training": {"val_datasets": []}}', "x.json:1:15: training.val_datasets: expected a list of at least 1, each"),
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
        "x.json:1:32: training.val_datasets[0].hr: expected a non-empty string, got nothing; write it too",
    ),
    "dataset key": (
        '{"training": {"val_datasets": [{"hr": "a", "xy": "b"}]}}',
        'x.json:1:44: training.val_datasets[0].xy: expected a known key, got "xy"; the keys here are hr, lr',
    ),
    "layer name": (
        '{"perceptual_loss": {"layer_weights": {"conv54": 1}}}',
        'x.json:1:40: perceptual_loss.layer_weights.conv54: expected a layer name such as conv5_4 or relu5_4, got "conv54"; B of convB_I is 1 to 5',
    ),
    "layer weight": (
        '{"perceptual_loss": {"layer_weights": {"conv5_4": 0}}}',
        "x.json:1:40: perceptual_loss.layer_weights.conv5_4: expected a number above 0, got 0; the default of",
    ),
    "no layers": ('{"perceptual_loss": {"layer_weights": {}}}', "x.json:1:22: perceptual_loss.layer_weights: expected an object with at least one key, got {}; the default of"),
    # contradictions
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
def test_mistake(content: str | bytes, message: str, tmp_path: Path) -> None:
    found = messages(tmp_path, content)
    assert len(found) == 1  # one mistake, one problem
    assert found[0].startswith(message)
    assert not re.search("pydantic|https?:|type=|literal|union|validation error", found[0])


def test_missing_file_and_folder(tmp_path: Path) -> None:
    (missing,) = problems(tmp_path / "x.json")
    assert missing.place == str(tmp_path / "x.json")
    assert str(missing).endswith(
        "expected a JSON file, got nothing of that name; check the path; the shipped ones are in the repository's configs/"
    )
    (folder,) = problems(tmp_path)
    assert folder.got == "an error (Is a directory)"
    (nameless,) = problems(Path("a\0b"))
    assert nameless.expected == "a JSON file"


def test_all_problems_of_a_file_in_one_run_in_order(tmp_path: Path) -> None:
    content = """{
  "$schema": 5,
  "scale_factor": 4,
  "batch_size": "16",
  "g_lr": 1e-4,
  "pretraining": {
    "cr_patch_size": [130, 128],
    "lr": NaN,
    "lr": 0,
    "hard_transforms": "yes",
  },
  "training": {
    "num_epoch": 3,
    "num_steps": 5,
    "train_datasets": ["div2k", 3, {"hr": "a", "sr": "b"}],
    "g_sched_steps": [3, 2],
    "d_sched_steps": [3, "a"]
  },
  "generator": 7,
  "perceptual_loss": {"vgg_type": "vgg13"},
  "logging": {"wandb": "on"}
}"""
    places = [problem.split(": expected")[0] for problem in messages(tmp_path, b"\xef\xbb\xbf" + content.encode())]
    assert places == [
        "x.json:1:1",
        "x.json:2:3: $schema",
        "x.json:4:3: batch_size",
        "x.json:5:3: g_lr",
        "x.json:7:5: pretraining.cr_patch_size",
        "x.json:9:5: pretraining.lr",  # twice: a duplicate key, and its value
        "x.json:9:5: pretraining.lr",
        "x.json:10:5: pretraining.hard_transforms",
        "x.json:10:29",
        "x.json:14:5: training.num_steps",
        "x.json:15:33: training.train_datasets[1]",
        "x.json:15:48: training.train_datasets[2].sr",
        "x.json:16:5: training.g_sched_steps",
        "x.json:17:26: training.d_sched_steps[1]",
        "x.json:19:3: generator",
        "x.json:20:3: perceptual_loss.layer_weights.conv5_4",
        "x.json:21:15: logging.wandb",
    ]


def test_keys_that_pydantic_uses_itself_are_keys_like_others(tmp_path: Path) -> None:
    content = '{"[key]": 1, "name": 1, "training": {"val_datasets": [{"hr": "a", "folders": 1}]}}'
    places = [text.split(": expected")[0] for text in messages(tmp_path, content)]
    assert places == ['x.json:1:2: "[key]"', "x.json:1:14: name", "x.json:1:67: training.val_datasets[0].folders"]


def test_no_contradiction_is_guessed_from_a_wrong_key(tmp_path: Path) -> None:
    """The default scale 4 would contradict the patch; what scale was meant is unknown."""
    (only,) = messages(tmp_path, '{"scale_factor": 3, "training": {"cr_patch_size": [129, 129]}}')
    assert only.startswith("x.json:1:2: scale_factor: ")
    (only,) = messages(tmp_path, '{"perceptual_loss": 1, "training": {"cr_patch_size": [8, 8]}}')
    assert only.startswith("x.json:1:2: perceptual_loss: ")


# --- Fuzz: a configuration or a ConfigError, whatever comes ---

DEFAULT_TEXT = (CONFIGS / "esrgan_default.json").read_text()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def loads_or_explains(path: Path) -> None:
    try:
        config = load(path)
        assert load(write(path.parent, json.dumps(config.as_dict()))) == config
        return
    except ConfigError as error:
        found = error.problems
    assert found
    for problem in found:
        assert isinstance(problem, Problem)
        assert problem.expected
        assert problem.got
        assert re.fullmatch(r".*x\.json:\d+:\d+(: .+)?", problem.place)
        assert str(problem).encode()  # can be printed
        assert "\n" not in str(problem)


@given(content=st.binary() | st.text('{}[],:"\\ 01eE-.NanInfityul\n').map(str.encode))
def test_fuzz_text(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    loads_or_explains(write(tmp_path_factory.getbasetemp(), content))


@given(data=st.data())
def test_fuzz_mutated_text(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = DEFAULT_TEXT
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 8))
        text = text[:start] + data.draw(st.text('{}[],:"0-e.tN \n', max_size=4)) + text[end:]
    loads_or_explains(write(tmp_path_factory.getbasetemp(), text))


@settings(max_examples=200)
@given(data=st.data())
def test_fuzz_mutated_values(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    changed = json.loads(json.dumps(DEFAULTS))
    for _ in range(data.draw(st.integers(1, 3))):
        owner: Any = changed
        key = data.draw(st.sampled_from(sorted(owner)))
        while isinstance(owner[key], (dict, list)) and owner[key] and data.draw(st.booleans()):
            owner = owner[key]
            key = data.draw(st.sampled_from(sorted(owner) if isinstance(owner, dict) else range(len(owner))))
        if isinstance(owner, dict) and data.draw(st.booleans()):
            key = data.draw(st.text(max_size=8))
        owner[key] = data.draw(json_values)
    loads_or_explains(write(tmp_path_factory.getbasetemp(), json.dumps(changed)))
