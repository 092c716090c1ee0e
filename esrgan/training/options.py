"""Options of a run that are not part of its configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

from esrgan.errors import EsrganError
from esrgan.training.run_files import STAGES


@dataclass(frozen=True)
class TrainOptions:
    """Options of a run that are not part of its configuration; the arguments of ``esrgan train``.

    Attributes:
        config_name: Identifies the configuration for ``resume``: the absolute path of its file, which may have been
            edited since. With any other name, only its content counts.
        out_dir: Folder for models, checkpoints and logs.
        run_name: Name of the run and prefix of its files; None uses the current time.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        autocast: Compute the forward passes in low precision.
        stage: "pretraining", "training" or "all".
        load_checkpoint: Weight file to start from, unless ``resume`` finds a checkpoint.
        load_discriminator: Discriminator that the GAN stage starts from, unless it is resumed.
        resume: Resume from the newest checkpoint of this run in ``out_dir``, if there is one. With ``run_name`` that is
            the run of that name. Otherwise it is one of the same configuration, by its file or by its content.
        checkpoint_interval: Epochs between checkpoints; None writes one every epoch, but at least a minute apart. They
            are written by time too: see ``checkpoint_minutes`` of the configuration.
        best_checkpoint_warmup: Number of epochs at the start of each stage in which no best model is picked.
        store_model_interval: Epochs between model files to keep; None keeps none.
        max_steps: Number of steps after which each stage ends early; None runs all of them.
        dry_run: Check everything and run two steps of each stage, without writing a model.

    Example:
        >>> from esrgan import TrainOptions
        >>> options = TrainOptions(stage="training", load_checkpoint="esrgan-lite-psnr", run_name="second")
        >>> options.device, options.resume
        ('auto', False)
    """

    config_name: str = "esrgan"
    out_dir: str | Path = Path("saved_models")
    run_name: str | None = None
    device: str = "auto"
    autocast: bool = False
    stage: str = "all"
    load_checkpoint: str | Path | None = None
    load_discriminator: str | Path | None = None
    resume: bool = False
    checkpoint_interval: int | None = None
    best_checkpoint_warmup: int = 0
    store_model_interval: int | None = None
    max_steps: int | None = None
    dry_run: bool = False


def check_options(options: TrainOptions) -> None:
    """Check the types and ranges of options, so that nothing is loaded for options that cannot be used.

    Raises:
        EsrganError: If one of them cannot be used.
    """
    if not isinstance(options, TrainOptions):
        raise EsrganError(f"options: expected TrainOptions, got {type(options).__name__}")
    if options.stage not in (*STAGES, "all"):
        raise EsrganError(f"stage: expected {', '.join(STAGES)} or all, got {options.stage!r}")
    least = {"max_steps": 1, "checkpoint_interval": 1, "store_model_interval": 1, "best_checkpoint_warmup": 0}
    for name, minimum in least.items():
        value, default = getattr(options, name), getattr(TrainOptions, name)
        if value != default and (
            isinstance(value, bool) or not (isinstance(value, Integral) and int(value) >= minimum)
        ):
            raise EsrganError(f"{name}: expected an integer of at least {minimum}, got {value!r}")
    for name in ("out_dir", "load_checkpoint", "load_discriminator"):
        value, default = getattr(options, name), getattr(TrainOptions, name)
        if value != default and not (isinstance(value, (str, os.PathLike)) and str(value)):
            raise EsrganError(f"{name}: expected a path, got {value!r}")
    if not isinstance(options.run_name, (str, type(None))):
        raise EsrganError(f"run_name: expected a text, got {options.run_name!r}")
