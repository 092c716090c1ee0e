"""What a run starts from: nothing, weights, or a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from esrgan import pretrained
from esrgan.errors import WeightsError
from esrgan.training.checkpoint import STAGES
from esrgan.weights import Architecture, load_file, parse_generator


@dataclass(frozen=True)
class StartingPoint:
    """The stages a run goes through, and the weights or checkpoint it starts from.

    Attributes:
        stage: The first stage to run.
        description: How the file was understood, for the user.
        generator: Initial weights; None keeps the random ones.
        architecture: Architecture of ``generator``.
        resume: The contents of the checkpoint to resume; None starts the stage at its first step.
        last_stage: The last stage to run.
    """

    stage: str
    description: str
    generator: dict[str, Tensor] | None = None
    architecture: Architecture | None = None
    resume: dict[str, Any] | None = None
    last_stage: str = field(default="training", kw_only=True)

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages to run, in order."""
        return STAGES[STAGES.index(self.stage) : STAGES.index(self.last_stage) + 1]


def start_fresh(stage: str) -> StartingPoint:
    """Return the starting point of a run without a weight file.

    Args:
        stage: "pretraining", "training" or "all".
    """
    first, last = ("pretraining", "training") if stage == "all" else (stage, stage)
    warning = " from random weights; for good results the GAN stage needs a pretrained generator (-l)"
    description = f"starting {first}{warning if first == 'training' else ''}"
    return StartingPoint(first, description, last_stage=last)


def start_from_file(path: Path, stage: str) -> StartingPoint:
    """Decide how a run starts from a weight file.

    A checkpoint resumes its stage. A file with only a generator starts the GAN stage unless another stage is requested.
    A generator that has finished the GAN stage is fine-tuned only if ``--stage training`` is requested explicitly.

    Args:
        path: Checkpoint or model file of this project, ESRGAN generator of another project, or name of a model in
            ``esrgan.pretrained``.
        stage: The requested stage: "pretraining", "training" or "all".

    Raises:
        WeightsError: If the file cannot be read or cannot start the requested stage.
    """
    path = pretrained.resolve(path)
    content = load_file(path)
    file = parse_generator(content, path)
    last = "training" if stage == "all" else stage
    if isinstance(content.get("checkpoint"), dict) and file.stage:
        missing = {"run", "step", "best", "stage"} - content["checkpoint"].keys()
        if missing or "params" not in content or "params_ema" not in content:
            raise WeightsError(
                f"{path}: incomplete checkpoint; save its generator weights to another file and start from that with -l"
            )
        resume = (
            content["checkpoint"] | {"hparams": file.hparams} | {key: content[key] for key in ("params", "params_ema")}
        )
        step = resume["step"]
        if stage in ("all", file.stage):
            description = f"{path}: checkpoint of {file.stage} at step {step}; resuming from there"
            return StartingPoint(file.stage, description, content["params"], file.architecture, resume, last_stage=last)
        if stage == "pretraining":
            raise WeightsError(f"{path}: a checkpoint of training cannot resume pretraining; use --stage training")
        description = (
            f"{path}: checkpoint of pretraining at step {step}; the GAN stage starts from its averaged generator"
        )
        return StartingPoint("training", description, file.state, file.architecture, last_stage=last)
    if stage == "all" and file.stage == "training":
        raise WeightsError(
            f"{path}: {file.describe()}: this model has finished GAN training; add --stage training to fine-tune it"
        )
    first = "training" if stage == "all" else stage
    use = {"pretraining": "the PSNR stage starts from it", "training": "the GAN stage starts from it"}[first]
    if file.stage == "training" and first == "training":
        use = "the GAN stage fine-tunes it"
    return StartingPoint(first, f"{path}: {file.describe()}; {use}", file.state, file.architecture, last_stage=last)


def check_architecture(start: StartingPoint, path: Path, expected: Architecture) -> None:
    """Check that the weights a run starts from fit the configured generator.

    Raises:
        WeightsError: If the architectures differ; the message has both.
    """
    if start.architecture not in (None, expected):
        raise WeightsError(
            f"{path}: expected the generator of the configuration, {expected}, "
            f"got {start.architecture}; change generator and scale_factor in the configuration to match the file"
        )
