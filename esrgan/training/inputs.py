"""The images and weights that a run reads: datasets of its stages and VGG features, with all problems at once."""

from __future__ import annotations

import hashlib
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

from esrgan.config import Config, FolderPair, describe_changes
from esrgan.config.cross_checks import smallest_gan_image, smallest_vgg_input
from esrgan.config.schema import Pretraining, Training
from esrgan.console import log
from esrgan.data import (
    CachedPair,
    DatasetSpec,
    Folders,
    ImagePair,
    PatchDataset,
    cache_pairs,
    find_pairs_and_problems,
)
from esrgan.data.datasets import Split, default_data_root
from esrgan.degradation import Degradation, PhotoDegradation
from esrgan.errors import ConfigError, DatasetError, EsrganError, Problem, WeightsError
from esrgan.losses import PerceptualLoss
from esrgan.machine import cpu_count
from esrgan.models.vgg import download_torchvision_weights, random_weights, torchvision_weights_path
from esrgan.paths import expand_user
from esrgan.text import format_count
from esrgan.training import distributed
from esrgan.training.checkpoint import STAGES, Checkpoint
from esrgan.training.options import TrainOptions
from esrgan.training.schedule import Timeline
from esrgan.weights import extract_state_dict, load_file

T = TypeVar("T")

VGG_SIZE = "about 550 MB"  # of the ImageNet weights of any VGG network, most of which are of layers that no loss uses
SSIM_WINDOW = 11  # px; validation images without their border must be at least this large


@dataclass(frozen=True)
class StageData:
    """Images and length of a stage."""

    patches: PatchDataset
    degradation: Degradation | PhotoDegradation | None  # of the LR patches; None uses those of ``patches``
    validation: Sequence[CachedPair]  # may be empty
    timeline: Timeline


# Image pairs of each split, and the minimum (height, width) of their HR images.
FoundImages = dict[Split, tuple[list[ImagePair], tuple[int, int]]]


def find_inputs(
    config: Config, options: TrainOptions, stages: Sequence[str]
) -> tuple[dict[str, FoundImages], PerceptualLoss | None]:
    """Find the images of the stages, and load the VGG weights.

    Decoding the images may take an hour, so everything that is known without it is checked here.

    Returns:
        The images by stage, and the perceptual loss or None.

    Raises:
        EsrganError: If datasets or weights cannot be used; the error has all problems.
    """
    problems: list[str | Problem] = []
    processes = distributed.world_size()
    if config.batch_size % (processes * config.accumulation):
        expected = f"a multiple of the number of processes ({processes}) × accumulation ({config.accumulation})"
        problems.append(f"batch_size: expected {expected}, got {config.batch_size}; change one of them")
    images: dict[str, FoundImages] = {}
    find = cache(find_pairs_and_problems)  # stages often have the same folders, which are listed and described once
    for name in stages:
        images[name] = {}
        for split, pairs, min_size, found in find_images(config, name, find):
            problems += found
            images[name][split] = pairs, min_size
            if split == "train" and not found:
                problems += _find_long_ramps(config, name, len(pairs))
    perceptual_loss = None
    try:
        perceptual_loss = _load_perceptual_loss(config, options, stages, may_download=not problems)
    except (ConfigError, WeightsError) as error:
        problems += error.problems
    if problems:
        raise EsrganError(dict.fromkeys(problems))
    return images, perceptual_loss


def load_images(
    config: Config, options: TrainOptions, images: Mapping[str, FoundImages], resume: Checkpoint | None
) -> dict[str, StageData]:
    """Load the images that ``find_inputs`` has found for each stage, the first of which may be resumed.

    Raises:
        EsrganError: If images cannot be used; the error has all problems.
    """
    problems: list[str | Problem] = []
    data: dict[str, StageData] = {}
    for name in images:
        try:
            data[name] = _load_stage_data(config, options, name, images, resume if not data else None)
        except DatasetError as error:
            problems += error.problems
    if problems:
        raise EsrganError(dict.fromkeys(problems))
    return data


def _load_stage_data(
    config: Config, options: TrainOptions, name: str, images: Mapping[str, FoundImages], resume: Checkpoint | None
) -> StageData:
    section = config.stages[name]
    train, validation = _decode_images(config, name, images)
    patches = PatchDataset(
        train,
        scale=config.scale_factor,
        patch_size=section.cr_patch_size,
        seed=config.seed + STAGES.index(name),
        spatial_transforms=config.spatial_transforms,
        hard_transforms=name == "pretraining" and config.pretraining.hard_transforms,
    )
    degradation = make_degradation(section, config.scale_factor, patches.seed)
    timeline = _new_timeline(config.batch_size, len(train))
    done = 0 if resume is None else resume.step
    if resume is not None:
        old = _new_timeline(resume.hparams["batch_size"], len(train))  # of an earlier version, which stored none
        timeline = timeline.resumed_at(done, resume.timeline or old.to_dict())
    timeline = timeline.with_length(section.num_epoch, section.num_steps, options.max_steps, done)
    return StageData(patches, degradation, validation, timeline)


def _new_timeline(batch_size: int, num_images: int) -> Timeline:
    return Timeline(batch_size, max(1, num_images // batch_size))


def _find_long_ramps(config: Config, name: str, num_images: int) -> list[Problem]:
    """Return a problem for each warm-up or ramp that is longer than its stage.

    If its length is num_steps, the configuration is checked when it is loaded.
    """
    section = config.stages[name]
    if section.num_steps is not None:
        return []
    timeline = _new_timeline(config.batch_size, num_images).with_length(section.num_epoch, None, None, 0)
    return [
        Problem(
            f"{name}.{key}",
            f"fewer than the {timeline.total_steps:,} steps of num_epoch {section.num_epoch}",
            f"{steps:,}",
            "change one of them",
        )
        for key in ("warmup_steps", "g_adversarial_ramp_steps")
        if (steps := getattr(section, key, 0)) >= max(timeline.total_steps, 1)
    ]


def make_degradation(section: Pretraining | Training, scale: int, seed: int) -> Degradation | PhotoDegradation | None:
    """Return the degradation that a stage's section of the configuration describes, or None."""
    if section.photo_degradation is not None:
        return PhotoDegradation(seed, **section.photo_degradation.model_dump())
    if section.degradation is not None:
        return Degradation(scale, seed, **section.degradation.model_dump())
    return None


def find_images(
    config: Config, name: str, find: Callable[..., Any]
) -> Iterator[tuple[Split, list[ImagePair], tuple[int, int], list[str | Problem]]]:
    """Yield each split of a stage with its pairs, the minimum (height, width) of HR images, and the problems.

    Args:
        config: The configuration.
        name: The stage.
        find: ``find_pairs_and_problems``.
    """
    section = config.stages[name]
    scale, data_root = config.scale_factor, data_root_of(config)

    def multiple(size: int) -> int:
        return -(-size // scale) * scale  # images are cropped to a multiple of the scale

    is_gan = name == "training"
    whole = multiple(smallest_gan_image(config) if is_gan else 1)
    smallest = multiple(max(SSIM_WINDOW + 2 * scale, smallest_vgg_input(config) if is_gan else 1))
    degraded = make_degradation(section, scale, config.seed) is not None
    pairs, problems = find(tuple(map(_source, section.train_datasets)), "train", scale, data_root, degraded=degraded)
    yield "train", pairs, section.cr_patch_size or (whole, whole), problems
    items = section.val_datasets
    pairs, problems = find(tuple(map(_source, items)), "val", scale, data_root, degraded=False)
    is_default = section.model_fields_set & {"train_datasets", "val_datasets"} == {"train_datasets"}
    if problems and is_default:
        default = f"its default, {', '.join(map(str, items))}, is not in {data_root}"
        remedy = "list folders of validation images there, or write [] to train without validation"
        pairs, problems = [], [f"{name}: val_datasets is not given, and {default}; {remedy}"]
    yield "val", pairs, (smallest, smallest), problems


def data_root_of(config: Config) -> Path:
    """Return the folder that holds the named datasets of a configuration."""
    return expand_user(config.data_root) if config.data_root else default_data_root()


def _decode_images(
    config: Config, name: str, images: Mapping[str, FoundImages]
) -> tuple[list[CachedPair], list[CachedPair]]:
    """Return the training and validation images of a stage from the cache, if the disk has space for all stages."""
    section = config.stages[name]
    cache_dir = expand_user(config.cache_dir) if config.cache_dir else data_root_of(config) / "cache"
    cached: dict[Split, list[CachedPair]] = {}
    problems: list[str | Problem] = []
    of_all_stages = [pair for found in images.values() for pairs, _ in found.values() for pair in pairs]
    for split, (pairs, min_size) in images[name].items():
        try:
            cached[split] = cache_pairs(
                pairs,
                scale=config.scale_factor,
                channels=config.img_channels,
                min_size=min_size,
                cache_dir=cache_dir,
                others=of_all_stages,
            )
        except DatasetError as error:
            problems += error.problems
    sizes = {pair.shape for pair in cached.get("train", ())}
    if not problems and section.cr_patch_size is None and config.batch_size > 1 and len(sizes) > 1:
        expected = "images of one size, because null trains on whole images"
        remedy = "set a patch size, or batch_size to 1"
        problems.append(Problem(f"{name}.cr_patch_size", expected, f"{len(sizes)} sizes", remedy))
    if problems:
        raise DatasetError(problems)
    return cached["train"], cached["val"]


def check_settings_agree(
    config: Config, options: TrainOptions, images: Mapping[str, FoundImages], perceptual_loss: PerceptualLoss | None
) -> None:
    """Check that all processes have the same configuration, options and VGG weights, and images of the same names.

    Their folders may differ.

    Raises:
        EsrganError: If they differ; raised in every process, with the differences from process 0.
    """
    if distributed.world_size() == 1:
        return
    by_machine: dict[str, Any] = {stage: {"train_datasets", "val_datasets"} for stage in STAGES}
    by_machine |= {"perceptual_loss": {"weights"}, "data_root": True, "cache_dir": True, "num_workers": True}
    settings = config.model_dump(mode="json", exclude=by_machine)
    # These are decided by process 0 or may differ between processes.
    not_compared = {"out_dir", "device", "load_checkpoint", "load_discriminator", "resume", "run_name", "config_name"}
    settings |= {key: value for key, value in vars(options).items() if key not in not_compared}
    settings["VGG weights"] = "none" if perceptual_loss is None else "used"
    if perceptual_loss is not None and not options.dry_run:  # which replaces missing ones by random ones
        settings["VGG weights"] = _hash_weights(perceptual_loss)
    _check_agreement("settings", settings, _describe_changes("settings", "configuration, options and VGG weights"))
    names = {
        f"{stage} {split}": [pair.high.name for pair in pairs]
        for stage, found in images.items()
        for split, (pairs, _) in found.items()
    }
    _check_agreement("names", names, _describe_names)


def check_images_agree(data: Mapping[str, StageData]) -> None:
    """Check that the images of all processes have the same sizes; ``check_settings_agree`` has compared their names.

    A warning says so if their pixels differ, because decoders may round differently. This waits for the slowest machine
    to read its images.

    Raises:
        EsrganError: If they differ; raised in every process, with the differences from process 0.
    """
    if distributed.world_size() == 1:
        return
    settings: dict[str, Any] = {}
    for name, stage in data.items():
        for split, pairs in (("train", stage.patches.pairs), ("val", stage.validation)):
            sizes: dict[str, list[str]] = {}
            for pair in pairs:  # images of different datasets may have the same name
                sizes.setdefault(pair.source.high.name, []).append(f"{pair.shape[1]}×{pair.shape[0]} px")
            settings[f"{name} {split} images"] = {image: ", ".join(size) for image, size in sizes.items()}
    _check_agreement("images", settings, _describe_changes("images", "images"))
    _compare_pixels(data)


def _check_agreement(kind: str, values: T, describe: Callable[[str, T, T], str]) -> None:
    """Check that the values of all processes are the same.

    Args:
        kind: A name for the exchange.
        values: Those of this process.
        describe: Describes the differences, given the machine of process 0, its values and those of this process. The
            text is empty if there are none.

    Raises:
        EsrganError: If they differ; raised in every process, with the differences from process 0.
    """
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    if len(set(distributed.all_gather_text(f"{kind}: digests", digest))) == 1:
        return
    host = socket.gethostname()
    first_host, first = distributed.broadcast_object(lambda: (host, values))
    problems = distributed.all_gather_text(f"{kind}: differences", describe(first_host, first, values))
    raise EsrganError(list(dict.fromkeys(filter(None, problems))))


def _describe_changes(kind: str, what: str) -> Callable[[str, dict[str, Any], dict[str, Any]], str]:
    """Return a function for ``_check_agreement`` of settings; ``what`` is to be made the same on all machines."""

    def describe(first_host: str, first: dict[str, Any], settings: dict[str, Any]) -> str:
        changes = describe_changes(first, settings)
        got = f"{'; '.join(changes[:3])}{f' and {len(changes) - 3} more' if len(changes) > 3 else ''}"
        expected, remedy = f"the same {kind} as process 0 on {first_host}", f"use the same {what} on all machines"
        return str(Problem(socket.gethostname(), expected, got, remedy)) if changes else ""

    return describe


def _describe_names(first_host: str, first: dict[str, list[str]], names: dict[str, list[str]]) -> str:
    """Describe for ``_check_agreement`` which images differ, given the names in each split of each stage."""
    differences: dict[str, dict[str, str]] = {}
    for key, own in names.items():
        stage, split = key.split()
        differences.setdefault(split, {})[stage] = _describe_difference(f"process 0 on {first_host}", first[key], own)
    texts = []
    for split, by_stage in differences.items():
        kind = "training images" if split == "train" else "validation images"
        if len(set(by_stage.values())) == 1:  # stages often have the same images
            texts += [f"{kind}: {text}" for text in set(by_stage.values()) if text]
        else:
            texts += [f"{kind} of the stage {stage}: {text}" for stage, text in by_stage.items() if text]
    remedy = "use the same images, in the same order, on all machines"
    return str(Problem.failure(socket.gethostname(), "; ".join(texts), remedy)) if texts else ""


def _describe_difference(process_0: str, first: list[str], own: list[str]) -> str:
    """Describe how this machine's names of images differ from those of process 0; "" if they are the same."""
    texts = []
    if missing := Counter(first) - Counter(own):
        count = format_count(missing.total(), "image")
        texts.append(f"lacks {count} of {process_0}, such as {min(missing)}")
    if surplus := Counter(own) - Counter(first):
        count = format_count(surplus.total(), "image")
        texts.append(f"has {count} that {process_0} lacks, such as {min(surplus)}")
    if not texts and first != own:
        texts.append(f"has them in another order than {process_0}")
    return f"this machine {', and '.join(texts)}" if texts else ""


def _hash_weights(network: torch.nn.Module) -> str:
    """Return the beginning of a digest of a network's weights."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:8]


def _compare_pixels(data: Mapping[str, StageData]) -> None:
    """Warn in process 0 if images of other processes, whose names and sizes are the same, have other pixels."""
    host = socket.gethostname()
    pairs = [pair for stage in data.values() for pair in (*stage.patches.pairs, *stage.validation)]
    first_host, first = distributed.broadcast_object(lambda: (host, [pair.checksum for pair in pairs]))
    others = dict.fromkeys(
        pair.source for pair, checksum in zip(pairs, first, strict=True) if pair.checksum != checksum
    )
    text = ""
    if others:
        images = f"{format_count(len(others), 'image')} (first: {next(iter(others)).high})"
        text = (
            f"{host}: {images} or their LR images have other pixels than those of process 0 on {first_host}; check "
            f"that they are the same files (decoders of lossy formats may differ, but only by rounding)"
        )
    for warning in dict.fromkeys(filter(None, distributed.all_gather_text("pixels", text))):
        log.warning(warning)


def _source(item: str | FolderPair) -> DatasetSpec:
    return item if isinstance(item, str) else Folders(item.hr, item.lr, item.lr_template, item.hr_template)


def describe_download(config: Config, stages: Sequence[str]) -> str:
    """Describe the weights that a run of these stages has to download; "" if there are none."""
    section = config.perceptual_loss
    if section.weights or section.optional or "training" not in stages:
        return ""
    path = torchvision_weights_path(section.vgg_type)
    return "" if path.exists() else f"the ImageNet weights of {section.vgg_type} ({VGG_SIZE}) to {path}"


def _load_perceptual_loss(
    config: Config, options: TrainOptions, stages: Sequence[str], may_download: bool
) -> PerceptualLoss | None:
    """Load the perceptual loss; return None if its weights are missing but optional or only for validation.

    In a dry run, random weights take the place of those that a run downloads.
    """
    section = config.perceptual_loss
    path = expand_user(section.weights) if section.weights else torchvision_weights_path(section.vgg_type)
    own_file = f"set perceptual_loss.weights to a file in torchvision's {section.vgg_type} layout"
    arguments = section.model_dump(exclude={"weights", "optional"})
    if not section.weights and not path.exists():
        how = f"{own_file}, or put torchvision's at {path}"
        if section.optional or "training" not in stages:
            if "training" in stages:
                how += f", or remove perceptual_loss.optional to download them ({VGG_SIZE})"
                _check_losses(config.training, how)
            effect = f"{'training' if 'training' in stages else 'validating'} without the perceptual loss"
            log.info(f"no ImageNet weights of {section.vgg_type} on this machine: {effect}; to use it, {how}")
            return None
        if options.dry_run:
            return PerceptualLoss(random_weights(section.vgg_type), **arguments)
        if not may_download:
            raise WeightsError(
                f"perceptual_loss: the ImageNet weights of {section.vgg_type} ({VGG_SIZE}) are not on this machine; "
                f"they are downloaded once the datasets are complete; or {how}"
            )
        log.info(f"downloading {describe_download(config, stages)}")
        try:
            path = download_torchvision_weights(section.vgg_type)
        except WeightsError as error:
            raise WeightsError(f"{error}, or {own_file}") from error
    return PerceptualLoss(extract_state_dict(load_file(path), str(path)), **arguments)


def _check_losses(section: Training, how: str) -> None:
    """Check that the GAN stage has a loss without the perceptual one.

    Raises:
        ConfigError: If all weights are 0.
    """
    weights = [name for name in type(section).model_fields if name.endswith("_loss_scaling")]
    if not any(getattr(section, name) for name in weights):
        raise ConfigError(
            Problem(
                "training",
                f"a weight above 0 among {', '.join(weights)}, because there is no perceptual loss",
                "0 in all",
                how,
            )
        )


def choose_num_workers(config: Config, device: torch.device) -> int:
    """Choose the number of loader processes; on a CPU it is 0, because training itself uses all cores."""
    if config.num_workers is not None:
        return config.num_workers
    return 0 if device.type == "cpu" else min(8, max(1, cpu_count() // distributed.local_world_size() - 1))
