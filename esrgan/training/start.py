"""What a run starts from: nothing, weights, or a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from esrgan import hub, pretrained
from esrgan.config import Config, describe_changes
from esrgan.console import log
from esrgan.errors import WeightsError
from esrgan.paths import expand_user
from esrgan.text import one_line
from esrgan.training.checkpoint import Checkpoint, complete_hparams, find_newest_checkpoint, is_same_run
from esrgan.training.options import TrainOptions
from esrgan.training.run_files import STAGES
from esrgan.training.transfer import check_architecture, take_layers
from esrgan.weights import (
    Architecture,
    DiscriminatorArchitecture,
    GeneratorFile,
    configured_architecture,
    load_discriminator,
    load_file,
    parse_generator,
)
from esrgan.weights.dialects import EARLIER_LABEL


@dataclass(frozen=True)
class StartingPoint:
    """The stages a run goes through, and the weights or checkpoint it starts from."""

    stage: str  # the first one
    description: str  # how the files were understood, for the user
    generator_weights: dict[str, Tensor] | None = None  # of all or some layers; None keeps the random ones
    discriminator_weights: dict[str, Tensor] | None = None
    resume: Checkpoint | None = None  # None starts the stage at its first step
    path: Path | None = field(default=None, kw_only=True)  # of the checkpoint whose run continues
    is_found: bool = field(default=False, kw_only=True)  # whether ``--resume auto`` has found it
    last_stage: str = field(default="training", kw_only=True)

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages to run, in order."""
        return STAGES[STAGES.index(self.stage) : STAGES.index(self.last_stage) + 1]

    def load_into(self, generator: nn.Module, discriminator: nn.Module | None) -> None:
        """Replace the initial weights of the networks by those that the run starts from.

        The discriminator is None if it is not used.

        Raises:
            WeightsError: If the discriminator of the checkpoint is not that of the configuration.
        """
        if self.generator_weights is not None:
            generator.load_state_dict(self.generator_weights, strict=False)  # a file of another scale lacks some layers
        if discriminator is None:
            return
        if self.discriminator_weights is not None:
            discriminator.load_state_dict(self.discriminator_weights)
        if self.resume is not None and (state := self.resume.state.get("discriminator")):
            with explain_mismatch(self.path):  # now, because the state of the stage is restored after files are opened
                discriminator.load_state_dict(state)


@contextmanager
def explain_mismatch(path: Path | None) -> Iterator[None]:
    """Raise a ``WeightsError`` that names the checkpoint if its state cannot be restored in the block."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise WeightsError(
            f"{path}: its optimiser or discriminator does not match the configuration ({reason}); undo the change, or "
            f"start a new run from a model with -l"
        ) from error


def find_start(config: Config, options: TrainOptions) -> StartingPoint:
    """Decide what a run starts from: a checkpoint to resume, a weight file or, without a file, random weights.

    Files that ``--resume auto`` skips are logged.

    Raises:
        WeightsError: If a file cannot be read or cannot start the requested stage, or all checkpoints of the named run
            are damaged.
    """
    found = _find_checkpoint(config, options)
    file = found or options.load_checkpoint
    if file and options.dry_run and str(file).startswith(hub.PREFIX):
        file = hub.HubFile.parse(str(file)).download(only_cached=True)
    start = start_from_file(file, config, options.stage) if file else start_fresh(options.stage)
    if found:
        start = replace(start, path=found, is_found=True)
        if options.load_checkpoint not in (None, found):
            unused = f"{options.load_checkpoint} is not used, as the run has begun already"
            start = replace(start, description=f"{start.description}; {unused}")
    if options.load_discriminator is None:
        return start
    path = expand_user(options.load_discriminator)
    if start.resume is not None and start.stage == "training" and "discriminator" in start.resume.state:
        return replace(start, description=f"{start.description}; its discriminator replaces {path}")
    if "training" not in start.stages:
        raise WeightsError(f"{path}: --load-discriminator is for the GAN stage, which --stage {options.stage} omits")
    if config.training.g_adversarial_loss_scaling == 0:
        raise WeightsError(
            f"{path}: --load-discriminator needs an adversarial loss; set training.g_adversarial_loss_scaling above 0"
        )
    architecture, state = load_discriminator(path)
    expected = configured_discriminator(config)
    if architecture != expected:
        raise WeightsError(
            f"{path}: expected the discriminator of the configuration, {expected}, got {architecture}; "
            "change the configuration to match the file"
        )
    return replace(start, description=f"{start.description}; {path} for the discriminator", discriminator_weights=state)


def _find_checkpoint(config: Config, options: TrainOptions) -> Path | None:
    """Return the checkpoint that ``--resume auto`` continues, or None; log what was skipped.

    Raises:
        WeightsError: If all checkpoints of the named run are damaged.
    """
    if not options.resume:
        return None
    hparams, name, out_dir = config.to_dict(), Path(options.config_name).name, expand_user(options.out_dir)
    others: dict[str, str] = {}

    def is_wanted(content: dict[str, Any]) -> bool:
        checkpoint = content["checkpoint"]
        if options.run_name or is_same_run(content, options.config_name, hparams):
            return True
        if Path(str(checkpoint.get("config_name"))).name == name:
            changes = describe_changes(complete_hparams(content.get("hparams") or {}), hparams)
            others[str(checkpoint.get("run"))] = "; ".join(changes[:3])
        return False

    path, damaged = find_newest_checkpoint(out_dir, is_wanted, options.run_name, options.stage)
    for error in damaged:
        log.info(f"--resume auto: skipping {error}")
    if path is None:
        for run, changes in others.items():
            log.info(f"--resume auto: {run} is another run of a configuration called {name} ({one_line(changes, 200)})")
        log.info(f"--resume auto: no checkpoint of {options.run_name or name} in {out_dir}; starting a new run")
    return path


def configured_discriminator(config: Config) -> DiscriminatorArchitecture:
    """Return the discriminator of a configuration."""
    return DiscriminatorArchitecture.configured(config.img_channels, config.discriminator.model_dump())


def start_fresh(stage: str) -> StartingPoint:
    """Return the starting point of a run without a weight file."""
    first, last = ("pretraining", "training") if stage == "all" else (stage, stage)
    warning = " from random weights; for good results the GAN stage needs a pretrained generator (-l)"
    description = f"starting {first}{warning if first == 'training' else ''}"
    return StartingPoint(first, description, last_stage=last)


def start_from_file(path: str | Path, config: Config, stage: str) -> StartingPoint:
    """Decide how a run starts from a weight file.

    A checkpoint resumes its stage. A file with only a generator starts the GAN stage unless another stage is requested,
    or unless it has another scale, for which the PSNR stage has to learn the layers that are new. A generator that has
    finished the GAN stage is fine-tuned only if ``--stage training`` is requested explicitly.

    Args:
        path: Checkpoint or model file of this project, ESRGAN generator of another project, or name of a model in
            ``esrgan.pretrained``.
        config: The configuration, whose generator the file must fit.
        stage: "pretraining", "training" or "all".

    Raises:
        WeightsError: If the file cannot be read or cannot start the requested stage.
    """
    given, path = path, pretrained.resolve(path)
    content = load_file(path)
    file = parse_generator(content, path)
    expected = configured_generator(config)
    last = "training" if stage == "all" else stage
    if isinstance(content.get("checkpoint"), dict) and file.stage:
        resume = Checkpoint.from_content(content, path)
        checkpoint = f"{path}: checkpoint of {file.stage} at step {resume.step}"
        if stage in ("all", file.stage):
            check_architecture(file, expected, may_differ=())
            description = f"{checkpoint}; resuming from there"
            return StartingPoint(file.stage, description, resume.params, resume=resume, path=path, last_stage=last)
        if stage == "pretraining":
            raise WeightsError(f"{path}: a checkpoint of training cannot resume pretraining; use --stage training")
        layers, transfer = take_layers(file, expected)
        description = f"{checkpoint}; the GAN stage starts from its averaged generator{transfer}"
        return StartingPoint("training", description, layers, last_stage=last)

    layers, transfer = take_layers(file, expected)
    # A checkpoint of the earlier framework continues its stage, unless it was written after the last epoch.
    has_optimiser = {"optimizer_state_dict", "g_optimizer_state_dict"} & content.keys()
    is_earlier = has_optimiser and file.dialect == EARLIER_LABEL
    unfinished = file.stage if is_earlier and _remaining_epochs(content, file) != 0 else None
    if stage != "all":
        first = stage
    elif transfer:
        first = "pretraining"
    elif file.stage == "training" and not unfinished:
        raise WeightsError(
            f"{path}: {file.describe()}: this model has finished GAN training; add --stage training to fine-tune it"
        )
    else:
        first = unfinished or "training"
    description = f"{given}: {file.describe()}; the {'PSNR' if first == 'pretraining' else 'GAN'} stage "
    if unfinished == first and not transfer:
        return _continue_earlier(description, content, file, config, first, last)
    description += "fine-tunes it" if first == file.stage == "training" else "starts from it"
    return StartingPoint(first, description + transfer, layers, last_stage=last)


def configured_generator(config: Config) -> Architecture:
    """Return the generator of a configuration."""
    return configured_architecture(config.scale_factor, config.img_channels, config.generator.model_dump())


def _remaining_epochs(content: dict[str, Any], file: GeneratorFile) -> int | None:
    """Return how many epochs a checkpoint of the earlier framework lacks, or None if it does not tell."""
    section = file.hparams.get(file.stage or "")
    epochs = section.get("num_epoch") if isinstance(section, dict) else None
    epoch = content.get("epoch_i")
    return max(0, epochs - epoch) if isinstance(epochs, int) and isinstance(epoch, int) else None


def _continue_earlier(
    description: str, content: dict[str, Any], file: GeneratorFile, config: Config, stage: str, last: str
) -> StartingPoint:
    """Continue a stage of the earlier framework with its networks, but not with its epoch and optimisers."""
    networks, discriminator = "its generator", None
    if stage == "training" and config.training.g_adversarial_loss_scaling:
        networks = "its generator and a new discriminator, because its own does not fit the configuration"
        with suppress(WeightsError):  # those of the first versions have other layers
            architecture, state = load_discriminator(file.path, content)
            if architecture == configured_discriminator(config):
                networks, discriminator = "its generator and discriminator", state
    epoch = f" after epoch {content['epoch_i']}" if isinstance(content.get("epoch_i"), int) else ""
    description += f"continues{epoch} with {networks}, counts its steps from 0 and starts new optimisers"
    if remaining := _remaining_epochs(content, file):
        description += f"; to train what remains, set {stage}.num_epoch to {remaining}"
    return StartingPoint(stage, description, file.state, discriminator, last_stage=last)
