"""The images and weights that a run reads: datasets of its stages and VGG features, with all problems at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from esrgan.config import Config, FolderPair
from esrgan.config.cross_checks import smallest_gan_image, smallest_vgg_input
from esrgan.config.schema import Pretraining, Training
from esrgan.console import log
from esrgan.data import CachedPair, DatasetSpec, Folders, ImagePair, PatchDataset, cache_pairs, find_pairs_and_problems
from esrgan.data.datasets import Split, default_data_root
from esrgan.degradation import Degradation, PhotoDegradation
from esrgan.errors import ConfigError, DatasetError, EsrganError, Problem, WeightsError
from esrgan.losses import PerceptualLoss
from esrgan.models.vgg import download_torchvision_weights, random_weights, torchvision_weights_path
from esrgan.paths import expand_user
from esrgan.training import distributed
from esrgan.training.checkpoint import Checkpoint
from esrgan.training.options import TrainOptions
from esrgan.training.run_files import STAGES
from esrgan.training.schedule import Timeline
from esrgan.weights import extract_state_dict, load_file

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
    images: dict[str, FoundImages] = {name: {} for name in stages}
    for name, split, pairs, min_size, found in find_images(config, stages):
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


def find_images(
    config: Config, stages: Sequence[str]
) -> Iterator[tuple[str, Split, list[ImagePair], tuple[int, int], Sequence[str | Problem]]]:
    """Yield each stage and split with its pairs, the minimum (height, width) of HR images, and the problems."""
    scale, data_root = config.scale_factor, data_root_of(config)

    @cache  # stages often have the same folders, which are listed and described once
    def find(
        items: tuple[str | FolderPair, ...], split: Split, degraded: bool
    ) -> tuple[list[ImagePair], list[Problem]]:
        return find_pairs_and_problems([*map(_to_spec, items)], split, scale, data_root, degraded=degraded)

    def multiple(size: int) -> int:
        return -(-size // scale) * scale  # images are cropped to a multiple of the scale

    for name in stages:  # a copy of a configuration may have lists
        section, is_gan = config.stages[name], name == "training"
        whole = multiple(smallest_gan_image(config) if is_gan else 1)
        smallest = multiple(max(SSIM_WINDOW + 2 * scale, smallest_vgg_input(config) if is_gan else 1))
        degraded = make_degradation(section, scale, config.seed) is not None
        pairs, problems = find(tuple(section.train_datasets), "train", degraded=degraded)
        yield name, "train", pairs, section.cr_patch_size or (whole, whole), problems
        pairs, problems = find(tuple(section.val_datasets), "val", degraded=False)
        is_default = section.model_fields_set & {"train_datasets", "val_datasets"} == {"train_datasets"}
        if problems and is_default:
            default = f"its default, {', '.join(map(str, section.val_datasets))}, is not in {data_root}"
            remedy = "list folders of validation images there, or write [] to train without validation"
            text = f"{name}: val_datasets is not given, and {default}; {remedy}"
            yield name, "val", [], (smallest, smallest), [text]
        else:
            yield name, "val", pairs, (smallest, smallest), problems


def data_root_of(config: Config) -> Path:
    """Return the folder that holds the named datasets of a configuration."""
    return expand_user(config.data_root) if config.data_root else default_data_root()


def _to_spec(item: str | FolderPair) -> DatasetSpec:
    return item if isinstance(item, str) else Folders(item.hr, item.lr, item.lr_template, item.hr_template)


def make_degradation(section: Pretraining | Training, scale: int, seed: int) -> Degradation | PhotoDegradation | None:
    """Return the degradation that a stage's section of the configuration describes, or None."""
    if section.photo_degradation is not None:
        return PhotoDegradation(seed, **section.photo_degradation.model_dump())
    if section.degradation is not None:
        return Degradation(scale, seed, **section.degradation.model_dump())
    return None


def _find_long_ramps(config: Config, name: str, num_images: int) -> list[Problem]:
    """Return a problem for each warm-up or ramp that is longer than its stage.

    If its length is num_steps, the configuration is checked when it is loaded.
    """
    section = config.stages[name]
    if section.num_steps is not None:
        return []
    timeline = _new_timeline(config.batch_size, num_images).with_length(section.num_epoch, None, None, 0)
    expected = f"fewer than the {timeline.total_steps:,} steps of num_epoch {section.num_epoch}"
    return [
        Problem(f"{name}.{key}", expected, f"{steps:,}", "change one of them")
        for key in ("warmup_steps", "g_adversarial_ramp_steps")
        if (steps := getattr(section, key, 0)) >= max(timeline.total_steps, 1)
    ]


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
        expected = f"a weight above 0 among {', '.join(weights)}, because there is no perceptual loss"
        raise ConfigError(Problem("training", expected, "0 in all", how))


def describe_download(config: Config, stages: Sequence[str]) -> str:
    """Describe the weights that a run of these stages has to download; "" if there are none."""
    section = config.perceptual_loss
    if section.weights or section.optional or "training" not in stages:
        return ""
    path = torchvision_weights_path(section.vgg_type)
    return "" if path.exists() else f"the ImageNet weights of {section.vgg_type} ({VGG_SIZE}) to {path}"


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


def _new_timeline(batch_size: int, num_images: int) -> Timeline:
    return Timeline(batch_size, max(1, num_images // batch_size))
