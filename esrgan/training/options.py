"""Options of a run that are not part of its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
        >>> from pathlib import Path
        >>> from esrgan import TrainOptions
        >>> options = TrainOptions(stage="training", load_checkpoint=Path("esrgan-lite-psnr"), run_name="second")
        >>> options.device, options.resume
        ('auto', False)
    """

    config_name: str = "esrgan"
    out_dir: Path = Path("saved_models")
    run_name: str | None = None
    device: str = "auto"
    autocast: bool = False
    stage: str = "all"
    load_checkpoint: Path | None = None
    load_discriminator: Path | None = None
    resume: bool = False
    checkpoint_interval: int | None = None
    best_checkpoint_warmup: int = 0
    store_model_interval: int | None = None
    max_steps: int | None = None
    dry_run: bool = False
