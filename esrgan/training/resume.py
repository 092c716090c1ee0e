"""What is checked and said before a run resumes from a checkpoint."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from esrgan.config import Config, describe_changes
from esrgan.console import log
from esrgan.errors import WeightsError
from esrgan.text import format_count
from esrgan.training import distributed
from esrgan.training.checkpoint import Checkpoint, complete_hparams
from esrgan.training.inputs import StageData
from esrgan.training.options import TrainOptions
from esrgan.training.run_files import RunFiles, split_run
from esrgan.training.schedule import Timeline
from esrgan.training.start import StartingPoint
from esrgan.weights import load_file


def log_resume(config: Config, options: TrainOptions, start: StartingPoint, data: StageData) -> None:
    """Log what has changed since the checkpoint that a run resumes from, if there is one, and where it continues."""
    resume = start.resume
    if resume is None:
        return
    if changes := describe_changes(complete_hparams(resume.hparams), config.to_dict()):
        log.info(f"the configuration has changed since the checkpoint: {'; '.join(changes)}")
    is_over = data.timeline.total_steps == resume.step and resume.pending_validation is None
    if data.timeline.to_dict() != resume.timeline:
        log.info(f"{resume.stage}: {data.timeline.describe_rest(resume.step)}{', so it is over' if is_over else ''}")
    elif is_over:
        log.info(f"{resume.stage}: all steps are done ({resume.step:,})")
    gan = config.training
    is_left = data.timeline.total_steps > resume.step
    if (
        is_left
        and resume.stage == "training"
        and gan.g_adversarial_loss_scaling
        and "discriminator" not in resume.state
    ):
        why = "the checkpoint has no discriminator"
        if 0 < (ramp := gan.g_adversarial_ramp_steps) <= resume.step:
            why += f", and its ramp over the first {format_count(ramp, 'step')} of the stage is over"
        log.info(f"training: the adversarial loss begins at step {resume.step + 1:,}; {why}")
    images, earlier = {pair.checksum for pair in data.patches.pairs}, set(resume.train_images)
    if earlier and images != earlier:
        numbers = f"{len(images - earlier):,} new, {len(earlier - images):,} removed"
        log.info(f"{resume.stage}: the training images have changed since the checkpoint: {numbers}")
    if is_left and start.path and resume.stage == "training" and options.stage == "all" and distributed.rank() == 0:
        _log_unfinished_pretraining(config, options, start.path)


def _log_unfinished_pretraining(config: Config, options: TrainOptions, path: Path) -> None:
    """Log that a GAN stage continues although its PSNR stage ended earlier than the configuration has it by now.

    It did so if it was shortened by --max-steps, or if the configuration has been changed since.

    Args:
        config: The configuration.
        options: Has the maximum number of steps.
        path: Checkpoint of the GAN stage; that of the PSNR stage, if it still exists, is in the same folder.
    """
    run = split_run(path.name)[0]
    path = RunFiles(path.parent, run, config.scale_factor, config.generator.type).checkpoint("pretraining")
    with suppress(WeightsError):  # it is not needed
        earlier = Checkpoint.from_content(load_file(path), path) if run and path.exists() else None
        if earlier is None or earlier.timeline is None:
            return
        pre, done = config.pretraining, earlier.step
        timeline = Timeline(earlier.timeline["batch_size"], earlier.timeline["steps_per_epoch"])
        timeline = timeline.resumed_at(done, earlier.timeline)
        timeline = timeline.with_length(pre.num_epoch, pre.num_steps, options.max_steps, done)
        if timeline.total_steps > done:
            log.info(
                f"pretraining: ended after {done:,} of {format_count(timeline.total_steps, 'step')}, and the GAN stage "
                "started from that; for the others use --stage pretraining, then start a new GAN stage from its model"
            )


def check_same_seed(config: Config, start: StartingPoint) -> None:
    """Check that a checkpoint that was found by the name of its run or configuration has the same seed.

    Raises:
        WeightsError: If it has another one.
    """
    resume = start.resume
    if start.is_found and resume and resume.hparams["seed"] != config.seed:
        raise _other_experiment(resume, start, f"the seed {resume.hparams['seed']} instead of {config.seed}")


def check_same_images(start: StartingPoint, data: StageData) -> None:
    """Check that a checkpoint that was found by the name of its run or configuration belongs to the same images.

    Raises:
        WeightsError: If none of the training images is the same.
    """
    resume = start.resume
    images = {pair.checksum for pair in data.patches.pairs}
    if start.is_found and resume and resume.train_images and images.isdisjoint(resume.train_images):
        difference = "other training images, none of which is among those of this configuration"
        raise _other_experiment(resume, start, difference)


def _other_experiment(resume: Checkpoint, start: StartingPoint, difference: str) -> WeightsError:
    return WeightsError(
        f"--resume auto: the run {resume.run} has {difference}; choose another --run-name or --out-dir for a new run, "
        f"or continue that run with this configuration by -l {start.path}"
    )
