"""Setup of a run from its configuration (data, networks, losses, stages), which reports all problems at once."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import nn

from esrgan.config import Config, FolderPair, describe_changes
from esrgan.console import Console
from esrgan.data import CachedPair, DatasetSpec, Folders, PatchDataset, cache_pairs, find_pairs_and_problems
from esrgan.data.datasets import default_data_root
from esrgan.degradation import Degradation
from esrgan.devices import has_native_bfloat16, low_precision_dtype
from esrgan.errors import DatasetError, EsrganError, Problem, WeightsError
from esrgan.files import expand_user
from esrgan.losses import ContentLoss, PerceptualLoss
from esrgan.machine import cpu_count
from esrgan.models import RRDBNet
from esrgan.models.vgg import download_torchvision_weights, torchvision_weights_path
from esrgan.training import distributed
from esrgan.training.checkpoint import STAGES
from esrgan.training.options import TrainOptions
from esrgan.training.stages import AdversarialStage, Autocast, PixelStage, Stage
from esrgan.training.updater import Schedule, Updater, multi_step_schedule, step_schedule
from esrgan.weights import DiscriminatorArchitecture, extract_state_dict, load_file

SSIM_WINDOW = 11  # px; validation images without their border must be at least this large


@dataclass(frozen=True)
class StageData:
    """Images and length of a stage.

    Attributes:
        patches: Training patches.
        degradation: Degradation that generates the LR patches; None uses those of ``patches``.
        validation: Whole images.
        steps_per_epoch: Number of training images // batch size, but at least 1.
        total_steps: Number of steps in the stage.
    """

    patches: PatchDataset
    degradation: Degradation | None
    validation: Sequence[CachedPair]
    steps_per_epoch: int
    total_steps: int


def make_autocast(config: Config, options: TrainOptions, device: torch.device, console: Console) -> Autocast:
    """Choose the precision of forward passes, with a warning on devices where a low one is not faster."""
    if not options.autocast:
        return Autocast(device)
    dtype = low_precision_dtype(device, config.autocast_dtype)
    if dtype == torch.bfloat16 and not has_native_bfloat16(device):
        console.print(f"-a: this {device.type} emulates bfloat16; expect it to be slower than without -a")
    return Autocast(device, dtype)


def make_networks(config: Config, device: torch.device) -> tuple[RRDBNet, nn.Module]:
    """Create generator and discriminator with weights that depend on the seed only, not on the stages to run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed % 2**63)  # PyTorch's range; the configuration allows any integer
        generator = RRDBNet(config.scale_factor, config.img_channels, **config.generator.model_dump())
        generator.activation_checkpointing = config.activation_checkpointing
        # With a seed of its own, the discriminator does not depend on the generator's size.
        torch.manual_seed((config.seed + 1) % 2**63)
        section = config.discriminator.model_dump()
        discriminator = DiscriminatorArchitecture.configured(config.img_channels, section).build()
    return (
        generator.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
        discriminator.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
    )


def make_stage(
    name: str,
    config: Config,
    generator: RRDBNet,
    discriminator: nn.Module,
    content_loss: ContentLoss,
    perceptual_loss: PerceptualLoss | None,
    autocast: Autocast,
) -> Stage:
    """Create the stage "pretraining" or "training", with optimisers and schedules of the configuration."""

    def updater(network: nn.Module, schedule: Schedule, betas: tuple[float, float]) -> Updater:
        return Updater(network, schedule, betas, autocast.needs_loss_scaling, config.gradient_clip)

    if name == "pretraining":
        pre = config.pretraining
        schedule = step_schedule(pre.lr, pre.sched_step, pre.sched_gamma)
        return PixelStage(
            generator, content_loss, updater(generator, schedule, pre.betas), autocast, config.accumulation
        )
    gan = config.training
    g_schedule = multi_step_schedule(gan.g_lr, gan.g_sched_steps, gan.g_sched_gamma)
    d_schedule = multi_step_schedule(gan.d_lr, gan.d_sched_steps, gan.d_sched_gamma)
    return AdversarialStage(
        generator,
        discriminator,
        content_loss,
        perceptual_loss,
        updater(generator, g_schedule, gan.betas),
        updater(discriminator, d_schedule, gan.betas),
        gan.g_adversarial_loss_scaling,
        gan.g_content_loss_scaling,
        autocast,
        config.accumulation,
    )


def load_inputs(
    config: Config, options: TrainOptions, stages: Sequence[str], device: torch.device, console: Console
) -> tuple[dict[str, StageData], PerceptualLoss | None]:
    """Load the images of the stages and the VGG weights.

    Returns:
        The data by stage, and the perceptual loss or None.

    Raises:
        EsrganError: If datasets or weights cannot be used; the error has all problems.
    """
    problems: list[str | Problem] = []
    data: dict[str, StageData] = {}
    for name in stages:
        try:
            data[name] = _load_stage_data(config, options, name, console)
        except DatasetError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    perceptual_loss = None
    try:
        perceptual_loss = _load_perceptual_loss(config, stages, may_download=not problems, console=console)
    except WeightsError as error:
        problems += error.problems
    processes = distributed.world_size()
    if config.batch_size % (processes * config.accumulation):
        expected = f"a multiple of the number of processes ({processes}) × accumulation ({config.accumulation})"
        problems.append(f"batch_size: expected {expected}, got {config.batch_size}; change one of them")
    if problems:
        raise EsrganError(problems)
    return data, perceptual_loss.to(device) if perceptual_loss is not None else None


def _load_stage_data(config: Config, options: TrainOptions, name: str, console: Console) -> StageData:
    section = config.pretraining if name == "pretraining" else config.training
    scale, channels = config.scale_factor, config.img_channels
    data_root = expand_user(config.data_root) if config.data_root else default_data_root()
    cache_dir = expand_user(config.cache_dir) if config.cache_dir else data_root / "cache"
    smallest = -(-(SSIM_WINDOW + 2 * scale) // scale) * scale  # images are cropped to a multiple of the scale
    splits: dict[str, list[CachedPair]] = {}
    problems: list[str | Problem] = []
    for split, items in (("train", section.train_datasets), ("val", section.val_datasets)):
        sources, degraded = [_source(item) for item in items], section.degradation is not None and split == "train"
        pairs, found = find_pairs_and_problems(sources, split, scale, data_root, degraded=degraded)  # type: ignore[arg-type]
        is_default = section.model_fields_set & {"train_datasets", "val_datasets"} == {"train_datasets"}
        if found and split == "val" and is_default:
            default = f"its default, {', '.join(map(str, items))}, is not in {data_root}"
            remedy = "list folders of validation images there, or write [] to train without validation"
            problems.append(f"{name}: val_datasets is not given, and {default}; {remedy}")
            continue
        problems += [problem for problem in found if problem not in problems]
        try:
            splits[split] = cache_pairs(
                pairs,
                scale=scale,
                channels=channels,
                min_size=(section.cr_patch_size or (scale, scale)) if split == "train" else (smallest, smallest),
                cache_dir=cache_dir,
            )
        except DatasetError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if not problems and section.cr_patch_size is None and config.batch_size > 1:
        problems += _check_equal_sizes(name, splits["train"])
    if problems:
        raise DatasetError(problems)
    patches = PatchDataset(
        splits["train"],
        scale=scale,
        patch_size=section.cr_patch_size,
        seed=config.seed + STAGES.index(name),
        spatial_transforms=config.spatial_transforms,
        hard_transforms=name == "pretraining" and config.pretraining.hard_transforms,
    )
    degradation = None
    if section.degradation is not None:
        degradation = Degradation(scale, patches.seed, **section.degradation.model_dump())
    steps_per_epoch = max(1, len(splits["train"]) // config.batch_size)
    total_steps = section.num_steps or (section.num_epoch or 0) * steps_per_epoch
    if options.max_steps is not None:
        total_steps = min(total_steps, options.max_steps)
    return StageData(patches, degradation, splits["val"], steps_per_epoch, total_steps)


def check_processes_agree(config: Config, options: TrainOptions, data: Mapping[str, StageData]) -> None:
    """Check that all processes have the same configuration, options and images; their folders may differ.

    This waits for the slowest machine to read its images.

    Raises:
        EsrganError: If they differ; raised in every process, with the differences from process 0.
    """
    host = socket.gethostname()
    settings = config.to_dict()
    for key in ("data_root", "cache_dir", "num_workers"):
        del settings[key]
    for section, key in (("perceptual_loss", "weights"), *product(STAGES, ("train_datasets", "val_datasets"))):
        del settings[section][key]
    # These are decided by process 0 or may differ between processes.
    not_compared = {"out_dir", "device", "load_checkpoint", "load_discriminator", "resume", "run_name", "config_name"}
    settings |= {key: value for key, value in vars(options).items() if key not in not_compared}
    for name, stage in data.items():
        for split, pairs in (("train", stage.patches.pairs), ("val", stage.validation)):
            sizes: dict[str, list[str]] = {}
            for pair in pairs:  # images of different datasets may have the same name
                sizes.setdefault(pair.source.high.name, []).append(f"{pair.shape[1]}×{pair.shape[0]} px")
            order = " ".join(pair.source.high.name for pair in pairs)
            settings[f"{name} {split} images"] = {image: ", ".join(size) for image, size in sizes.items()}
            settings[f"{name} {split} order"] = hashlib.sha256(order.encode()).hexdigest()[:8]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    if len(set(distributed.all_gather_text("digests", digest))) == 1:
        return
    first_host, first = distributed.broadcast_object(lambda: (host, settings))
    changes = describe_changes(first, settings)
    got = f"{'; '.join(changes[:3])}{f' and {len(changes) - 3} more' if len(changes) > 3 else ''}"
    remedy = "use the same configuration, options and images on all machines"
    problem = (
        str(Problem(host, f"the same settings and images as process 0 on {first_host}", got, remedy)) if changes else ""
    )
    raise EsrganError(list(dict.fromkeys(filter(None, distributed.all_gather_text("differences", problem)))))


def _source(item: str | FolderPair) -> DatasetSpec:
    return item if isinstance(item, str) else Folders(item.hr, item.lr, item.lr_template, item.hr_template)


def _check_equal_sizes(name: str, pairs: Sequence[CachedPair]) -> list[str | Problem]:
    sizes = {pair.shape for pair in pairs}
    if len(sizes) == 1:
        return []
    remedy = "set a patch size, or batch_size to 1"
    return [
        Problem(
            f"{name}.cr_patch_size",
            "images of one size, because null trains on whole images",
            f"{len(sizes)} sizes",
            remedy,
        )
    ]


def _load_perceptual_loss(
    config: Config, stages: Sequence[str], may_download: bool, console: Console
) -> PerceptualLoss | None:
    """Load the perceptual loss; return None if its weights are missing but optional or only for validation."""
    section = config.perceptual_loss
    path = Path(section.weights) if section.weights else torchvision_weights_path(section.vgg_type)
    own_file = f"set perceptual_loss.weights to a file in torchvision's {section.vgg_type} layout"
    if not section.weights and not path.exists():
        how = f"{own_file}, or put torchvision's at {path}"
        if section.optional or "training" not in stages:
            effect = f"{'training' if 'training' in stages else 'validating'} without the perceptual loss"
            console.print(f"no ImageNet weights of {section.vgg_type} on this machine: {effect}; to use it, {how}")
            return None
        if not may_download:
            raise WeightsError(
                f"perceptual_loss: the ImageNet weights of {section.vgg_type} (about 550 MB) are not on this machine; "
                f"they are downloaded once the datasets are complete; or {how}"
            )
        console.print(f"downloading the ImageNet weights of {section.vgg_type} (about 550 MB) to {path}")
        try:
            path = download_torchvision_weights(section.vgg_type)
        except WeightsError as error:
            raise WeightsError(f"{error}, or {own_file}") from error
    arguments = section.model_dump(exclude={"weights", "optional"})
    return PerceptualLoss(extract_state_dict(load_file(path), str(path)), **arguments)


def describe_networks(config: Config, generator: nn.Module, discriminator: nn.Module) -> str:
    """Describe the networks and their sizes on one line."""
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in (("g", generator), ("d", discriminator))}
    g = config.generator
    return (
        f"RRDBNet ×{config.scale_factor} {g.rrdb_channels}/{g.growth_channels}/{g.num_basic_blocks}: "
        f"{count['g']:,} parameters; {config.discriminator.type} discriminator: {count['d']:,} parameters"
    )


def choose_num_workers(config: Config, device: torch.device) -> int:
    """Choose the number of loader processes; on a CPU it is 0, because training itself uses all cores."""
    if config.num_workers is not None:
        return config.num_workers
    return 0 if device.type == "cpu" else min(8, max(1, cpu_count() // distributed.local_world_size() - 1))
