"""Everything a run needs, prepared in one place before anything is trained: networks, images, losses, files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from esrgan.config import Config
from esrgan.config.schema import Logging
from esrgan.console import log
from esrgan.devices import has_native_bfloat16, low_precision_dtype
from esrgan.errors import EsrganError, WeightsError
from esrgan.files import find_folder_problem, remove_abandoned
from esrgan.losses import ADVERSARIAL_LOSSES, ContentLoss
from esrgan.models import Generator
from esrgan.paths import expand_user
from esrgan.training import distributed
from esrgan.training.agreement import check_images_agree, check_settings_agree
from esrgan.training.inputs import StageData, find_inputs, load_images
from esrgan.training.log import RunLog, check_loggers
from esrgan.training.options import TrainOptions
from esrgan.training.pause import DiscriminatorPause
from esrgan.training.resume import check_same_images, check_same_seed, log_resume
from esrgan.training.run_files import RunFiles, split_run
from esrgan.training.schedule import Timeline
from esrgan.training.stages import AdversarialStage, Autocast, PixelStage, Stage
from esrgan.training.start import StartingPoint, configured_discriminator, configured_generator, find_start
from esrgan.training.updater import Schedule, Updater, cosine_schedule, multi_step_schedule, step_schedule, warm_up
from esrgan.training.validation import Losses


@dataclass(frozen=True)
class Run:
    """What a run needs; ``prepare_run`` makes it."""

    config: Config
    options: TrainOptions
    device: torch.device  # of this process
    start: StartingPoint
    generator: Generator  # with its initial weights
    discriminator: nn.Module
    losses: Losses  # of both stages
    data: dict[str, StageData]  # by stage
    files: RunFiles
    log: RunLog | None  # None in all processes but the first, and in a dry run


@contextmanager
def prepare_run(config: Config, options: TrainOptions, device: torch.device) -> Iterator[Run]:
    """Prepare a run and yield it. All problems are raised here, before anything is trained or written.

    Raises:
        EsrganError: If a dataset, weight file, logger or folder cannot be used.
    """
    # Choose the starting point. Only process 0 needs to have the file.
    start = distributed.broadcast_object(lambda: find_start(config, options))
    log.info(start.description)

    # Make the networks, and load the weights that the run starts from.
    generator, discriminator = make_networks(config, device)
    log.info(f"{describe_networks(config, generator, discriminator)}; on {device}")
    start.load_into(generator, discriminator if config.training.g_adversarial_loss_scaling else None)
    distributed.broadcast_weights([generator, discriminator])

    # Check everything that is known before the images are decoded, which may take an hour.
    autocast = make_autocast(config, device, low_precision=options.autocast)
    check_same_seed(config, start)
    _check_folders(config, options, start)
    loggers = distributed.broadcast_object(lambda: check_loggers(config.logging))
    images, perceptual_loss = find_inputs(config, options, start.stages)
    if perceptual_loss is not None:
        perceptual_loss.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    check_settings_agree(config, options, images, perceptual_loss)

    # Load the images.
    data = load_images(config, options, images, start.resume)
    check_images_agree(data)
    check_same_images(start, data[start.stage])
    log_resume(config, options, start, data[start.stage])
    for name, stage_data in data.items():
        train, validation = len(stage_data.patches.pairs), len(stage_data.validation)
        timeline = stage_data.timeline
        log.info(
            f"{name}: training images {train:,}, validation images {validation:,}, "
            f"steps {timeline.total_steps:,} ({timeline.steps_per_epoch:,} per epoch), batch size {config.batch_size}, "
            f"log lines every {_count_steps(timeline.log_interval(config))}"
            f"{f', validations every {_count_steps(timeline.validation_interval(config))}' if validation else ''}"
        )
    losses = Losses(ContentLoss(**config.content_loss.model_dump()), perceptual_loss, autocast)

    # Open the files.
    files = distributed.broadcast_object(lambda: _choose_files(config, options, start, claim=not options.dry_run))
    run_log = None
    if distributed.rank() == 0 and not options.dry_run:
        run_log = _open_log(config, files, loggers, start, data[start.stage].timeline)
    try:
        yield Run(config, options, device, start, generator, discriminator, losses, data, files, run_log)
    finally:
        if run_log is not None:
            run_log.close()


def _count_steps(interval: int) -> str:
    """Describe an interval after "every"."""
    return "step" if interval == 1 else f"{interval:,} steps"


def _check_folders(config: Config, options: TrainOptions, start: StartingPoint) -> None:
    """Check that the run's files can be written.

    Raises:
        EsrganError: If they cannot.
    """
    files = distributed.broadcast_object(lambda: _choose_files(config, options, start, claim=False))
    if distributed.rank() == 0 and (problem := find_folder_problem(files.folder) or find_folder_problem(files.logs)):
        raise EsrganError(problem)


def _open_log(config: Config, files: RunFiles, loggers: Logging, start: StartingPoint, timeline: Timeline) -> RunLog:
    resume = start.resume
    position = (0, False)
    if resume:
        # A stage that has been shortened to its checkpoint is logged and validated there, perhaps again.
        is_shortened = resume.is_shortened(timeline.total_steps)
        position = resume.step, resume.pending_validation is None and not is_shortened
        if is_shortened and resume.interval["steps"]:  # the checkpoint was written before any log line of its step
            position = resume.step - 1, True
    run_log = RunLog(
        files.logs,
        run=files.run,
        hparams=config.to_dict(),
        settings=loggers,
        stages=start.stages,
        resumed_from=position,
    )
    for folder in (files.folder, files.logs):
        remove_abandoned(folder)  # files of a process that was killed; RunLog's lock keeps others off this run
    log.info(f"run {files.run}: models in {files.folder}, logs in {files.logs}")
    return run_log


def _choose_files(config: Config, options: TrainOptions, start: StartingPoint, *, claim: bool) -> RunFiles:
    """Return the names of the run's files: those of the run that continues, or new ones; ``claim`` reserves new ones.

    It is called twice. The first call, without ``claim``, finds problems before the images are decoded. The second one
    finds a run that has started meanwhile.

    Raises:
        EsrganError: If a new run has the name of another run in its folder, or if the run would replace the files of a
            stage that it begins.
    """
    name, path, out_dir = options.run_name, start.path, expand_user(options.out_dir)
    if path is not None:
        earlier = split_run(path.name)[0] or (start.resume.run if start.resume else None)
        is_in_its_folder = path.resolve().parent == out_dir.resolve()
        if earlier and is_in_its_folder and name in (None, earlier):
            files = RunFiles(out_dir, earlier, config.scale_factor, config.generator.type)
            _check_begun_stages(files, start)
            return files
        name = name or earlier
    # A named run that was killed before its first checkpoint has only logs.
    may_have_logs = options.resume and options.run_name is not None
    return RunFiles.new(
        out_dir, config.scale_factor, name, network=config.generator.type, may_have_logs=may_have_logs, claim=claim
    )


def _check_begun_stages(files: RunFiles, start: StartingPoint) -> None:
    """Check that a continued run has no files yet of the stages that it begins.

    If ``--resume auto`` has found the checkpoint, those stages have only damaged checkpoints or none, so only their
    finished models count.

    Raises:
        WeightsError: If there are such files.
    """
    for stage in start.stages[1:] if start.resume else start.stages:
        existing = files.find(stage)
        if start.is_found:
            existing = [path for path in existing if path == files.model(stage)]
        if existing:
            raise WeightsError(
                f"{existing[0]}: this run would start {stage} over and replace its files; choose another --run-name, "
                "or move them to another folder"
            )


def make_autocast(config: Config, device: torch.device, *, low_precision: bool) -> Autocast:
    """Choose the precision of forward passes, with a warning on devices where a low one is not faster.

    If one process needs float16, because its GPU has no native bfloat16, all of them use it.
    """
    dtype = low_precision_dtype(device, config.autocast_dtype) if low_precision else None
    # All processes ask. Of scaled and unscaled gradients the mean would be that of the scaled ones.
    if distributed.any_rank(dtype == torch.float16):
        dtype = torch.float16
    if dtype == torch.bfloat16 and not has_native_bfloat16(device):
        log.warning(f"-a: this {device.type} emulates bfloat16; expect it to be slower than without -a")
    return Autocast(device, dtype)


def make_networks(config: Config, device: torch.device) -> tuple[Generator, nn.Module]:
    """Create generator and discriminator with weights that depend on the seed only, not on the stages to run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed % 2**63)  # PyTorch's range; the configuration allows any integer
        generator = configured_generator(config).build(config.generator.small_init)
        generator.activation_checkpointing = config.activation_checkpointing
        # With a seed of its own, the discriminator does not depend on the generator's size.
        torch.manual_seed((config.seed + 1) % 2**63)
        discriminator = configured_discriminator(config).build()
    return (
        generator.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
        discriminator.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
    )


def make_stage(
    name: str,
    config: Config,
    generator: Generator,
    discriminator: nn.Module,
    losses: Losses,
    average: Generator | None = None,
) -> Stage:
    """Create the stage "pretraining" or "training", with optimisers and schedules of the configuration.

    ``average`` is the moving average of the generator, which only the artefact loss needs.
    """
    section, autocast, accumulation = config.stages[name], losses.autocast, config.accumulation

    def updater(network: nn.Module, learning_rate: float, schedule: Schedule) -> Updater:
        if section.sched == "cosine":
            if section.num_steps is None:  # a configuration file is checked when it is loaded
                raise EsrganError(f"{name}.sched: cosine needs the length of the stage in steps; set num_steps")
            schedule = cosine_schedule(learning_rate, section.num_steps)
        schedule = warm_up(schedule, section.warmup_steps)
        scale_loss = autocast.needs_loss_scaling
        return Updater(network, schedule, section.betas, scale_loss, config.gradient_clip, section.weight_decay)

    if name == "pretraining":
        pre = config.pretraining
        schedule = step_schedule(pre.lr, pre.sched_step, pre.sched_gamma)
        return PixelStage(generator, losses.content, updater(generator, pre.lr, schedule), autocast, accumulation)
    gan = config.training
    g_schedule = multi_step_schedule(gan.g_lr, gan.g_sched_steps, gan.g_sched_gamma)
    d_schedule = multi_step_schedule(gan.d_lr, gan.d_sched_steps, gan.d_sched_gamma)
    below = gan.d_pause_below
    pause = None if below is None else DiscriminatorPause(below, gan.gan_objective, generator.device)
    return AdversarialStage(
        generator,
        discriminator,
        losses.content,
        losses.perceptual,
        g_updater=updater(generator, gan.g_lr, g_schedule),
        d_updater=updater(discriminator, gan.d_lr, d_schedule),
        adversarial_scaling=gan.g_adversarial_loss_scaling,
        content_scaling=gan.g_content_loss_scaling,
        autocast=autocast,
        accumulation=accumulation,
        adversarial_loss=ADVERSARIAL_LOSSES[gan.gan_objective],
        artifact_scaling=gan.g_artifact_loss_scaling,
        average=average,
        adversarial_ramp_steps=gan.g_adversarial_ramp_steps,
        pause=pause,
        consistency_scaling=gan.g_consistency_loss_scaling,
        pattern_scaling=gan.g_pattern_loss_scaling,
    )


def describe_networks(config: Config, generator: nn.Module, discriminator: nn.Module) -> str:
    """Describe the networks and their sizes on one line."""
    g_size, d_size = (sum(p.numel() for p in net.parameters()) for net in (generator, discriminator))
    return (
        f"{configured_generator(config)}: {g_size:,} parameters; "
        f"{config.discriminator.type} discriminator: {d_size:,} parameters"
    )
