"""The keys of the configuration, their defaults, the shipped files and the JSON schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from esrgan.config import Config, json_schema, load
from tests.helpers.config_files import CONFIGS, DEFAULTS, write

SHIPPED = sorted(path for path in CONFIGS.glob("*.json") if path.name != "schema.json")


def test_defaults_match_the_public_table(tmp_path: Path) -> None:
    assert Config().to_dict() == DEFAULTS
    assert load(write(tmp_path, "{}")) == Config()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_load(path: Path, tmp_path: Path) -> None:
    assert next(iter(json.loads(path.read_text()).items())) == ("$schema", "schema.json")
    config = load(path)
    assert load(write(tmp_path, json.dumps(config.to_dict()))) == config


def test_default_file_equals_the_default_configuration() -> None:
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
def test_experiment_files_match_their_names(
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
    assert json.loads((CONFIGS / "schema.json").read_text()) == json_schema()


@pytest.mark.slow
def test_module_prints_the_schema_without_torch() -> None:
    command = [sys.executable, "-m", "esrgan.config"]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    assert output.stdout == (CONFIGS / "schema.json").read_text()
    code = "import sys, esrgan.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_key_is_described_in_the_schema() -> None:
    document = json_schema()
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
def test_configuration_survives_a_round_trip(data: dict[str, Any], tmp_path: Path) -> None:
    config = load(write(tmp_path, json.dumps({"$schema": "elsewhere.json", **data})))
    stored = json.dumps(config.to_dict())
    assert json.loads(stored) == config.to_dict()  # lists, not tuples
    assert load(write(tmp_path, stored)) == config != Config()


def test_num_steps_replaces_the_default_epochs(tmp_path: Path) -> None:
    config = load(write(tmp_path, '{"training": {"num_steps": 5}}'))
    assert (config.training.num_steps, config.training.num_epoch) == (5, None)
    assert (config.pretraining.num_steps, config.pretraining.num_epoch) == (None, 10000)


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Config().training.g_lr = 1.0  # type: ignore[misc]


def test_only_validation_datasets_may_be_empty() -> None:
    assert Config.model_validate({"training": {"val_datasets": []}}).training.val_datasets == ()
    with pytest.raises(ValidationError):
        Config.model_validate({"training": {"train_datasets": []}})
