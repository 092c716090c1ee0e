"""Configuration files for tests, and the problems found in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from esrgan.config import load
from esrgan.errors import ConfigError, Problem

CONFIGS = Path(__file__).parent.parent.parent / "configs"

# The defaults are repeated here on purpose, because they are a public interface.
DEFAULTS = {
    "scale_factor": 4,
    "batch_size": 16,
    "accumulation": 1,
    "gradient_clip": None,
    "keep_checkpoints": 2,
    "checkpoint_minutes": 5.0,
    "activation_checkpointing": False,
    "img_channels": 3,
    "seed": 0,
    "num_workers": None,
    "data_root": None,
    "cache_dir": None,
    "ema_decay": 0.999,
    "autocast_dtype": "auto",
    "spatial_transforms": "d4",
    "validation_interval": None,
    "pretraining": {
        "num_epoch": 10000,
        "num_steps": None,
        "cr_patch_size": [128, 128],
        "betas": [0.9, 0.999],
        "weight_decay": 0.0,
        "sched": "step",
        "warmup_steps": 0,
        "train_datasets": ["div2k"],
        "val_datasets": ["div2k"],
        "degradation": None,
        "photo_degradation": None,
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
        "weight_decay": 0.0,
        "sched": "step",
        "warmup_steps": 0,
        "train_datasets": ["div2k"],
        "val_datasets": ["div2k"],
        "degradation": None,
        "photo_degradation": None,
        "g_lr": 1e-4,
        "d_lr": 1e-4,
        "g_sched_steps": [50000, 100000, 200000, 300000],
        "d_sched_steps": [50000, 100000, 200000, 300000],
        "g_sched_gamma": 0.5,
        "d_sched_gamma": 0.5,
        "gan_objective": "ragan",
        "g_adversarial_loss_scaling": 0.005,
        "g_adversarial_ramp_steps": 0,
        "g_content_loss_scaling": 0.01,
        "d_pause_below": None,
        "g_artifact_loss_scaling": 0.0,
        "g_consistency_loss_scaling": 0.0,
        "g_pattern_loss_scaling": 0.0,
    },
    "generator": {
        "type": "rrdb",
        "rrdb_channels": 64,
        "growth_channels": 32,
        "num_basic_blocks": 23,
        "num_dense_blocks": 3,
        "num_residual_blocks": 5,
        "residual_scaling": 0.2,
        "use_subpixel_conv": False,
        "pixel_unshuffle": False,
        "plus": False,
        "small_init": "all",
        "num_feat": 64,
        "num_conv": 16,
        "act_type": "prelu",
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
        "interval": None,
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
    """Return the problems of a file with the given content, without its folder."""
    path = write(folder, content)
    return [str(problem).replace(f"{path.parent}/", "") for problem in problems(path)]


def assert_only_problem(content: str | bytes, message: str, folder: Path) -> None:
    """Check that a file has exactly one problem and that its text starts with ``message``."""
    found = messages(folder, content)
    assert len(found) == 1  # each mistake is reported once
    assert found[0].startswith(message)
    assert not re.search("pydantic|https?:|type=|literal|union|validation error", found[0])
