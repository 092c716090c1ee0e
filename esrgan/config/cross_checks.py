"""Checks for values that are valid on their own but contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from esrgan.config.json_parser import format_value
from esrgan.config.schema import Config, FolderPair

# The number of convolutions before each pooling layer of torchvision's VGGs.
_VGG_BLOCKS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
# The loss of a discriminator that only guesses, by objective.
_GUESSING_LOSSES = {"ragan": 0.69, "vanilla": 0.69, "lsgan": 0.25, "hinge": 1.0}
_LAYER_WEIGHTS = "perceptual_loss.layer_weights"

# The keys involved (the conflict is reported at the first), what was expected, what was found, and the remedy.
_Conflict = tuple[list[str], str, str, str]


def smallest_vgg_input(config: Config) -> int:
    """Return the smallest height and width, in px, of images that the perceptual loss can compare."""
    # VGG halves the size before each block except the first.
    return int(2 ** (max(int(layer[4]) for layer in config.perceptual_loss.layer_weights) - 1))


def smallest_gan_image(config: Config) -> int:
    """Return the smallest height and width, in px, of whole images that the GAN stage can be trained on."""
    at_least, smallest = _discriminator_limits(config)
    is_single = config.batch_size <= config.accumulation and config.discriminator.type != "unet"
    sizes = [smallest_vgg_input(config), 4 if config.training.g_artifact_loss_scaling else 1]
    if config.training.g_adversarial_loss_scaling:  # BatchNorm needs more than one value of a single image
        sizes += [at_least, smallest + 1 if is_single and len(config.discriminator.vgg_blk_ch) > 1 else 1]
    return max(sizes)


def find_conflicts(config: Config) -> Iterator[_Conflict]:
    """Yield every conflict between the values of a configuration."""
    yield from _check_steps(config)
    yield from _check_types(config)
    yield from _check_scale(config)
    yield from _check_layers(config)
    yield from _check_discriminator(config)
    yield from _check_degradation(config)
    yield from _check_gan_options(config)
    yield from _check_ramps(config)
    yield from _check_schedules(config)


def _check_steps(config: Config) -> Iterator[_Conflict]:
    for name, stage in config.stages.items():
        if (stage.num_epoch is None) == (stage.num_steps is None):
            got = "neither" if stage.num_steps is None else "both"
            involved, expected = [f"{name}.num_steps", f"{name}.num_epoch"], "either num_epoch or num_steps"
            yield involved, expected, got, "set exactly one of them"
    if config.batch_size % config.accumulation:
        expected = f"a multiple of accumulation {config.accumulation}"
        yield ["batch_size", "accumulation"], expected, format_value(config.batch_size), "change one of them"
    for name in ("g_sched_steps", "d_sched_steps"):
        steps = getattr(config.training, name)
        if any(step >= later for step, later in pairwise(steps)):
            remedy = f"use {format_value(sorted(set(steps)))}"
            yield [f"training.{name}"], "increasing steps", format_value(steps), remedy
    if config.pretraining.hard_transforms and config.img_channels == 4:
        expected = "false with img_channels 4 (JPEG has no alpha channel)"
        yield ["pretraining.hard_transforms", "img_channels"], expected, "true", "set it to false"


def _check_types(config: Config) -> Iterator[_Conflict]:
    """Find keys that the type of the network does not use; descriptions begin with the types that use a key."""
    for section, network in (("generator", config.generator), ("discriminator", config.discriminator)):
        for name, field in type(network).model_fields.items():
            value, user = getattr(network, name), (field.description or "").split(":")[0].split(",")[0]
            if name != "type" and not network.type.startswith(user) and value != field.default:
                involved, expected = [f"{section}.{name}", f"{section}.type"], f"the type {user} for this key"
                yield involved, expected, network.type, "remove the key, or change the type"


def _check_scale(config: Config) -> Iterator[_Conflict]:
    scale, multiple, unit = config.scale_factor, int(config.scale_factor), f"scale_factor {config.scale_factor}"
    if config.generator.pixel_unshuffle and scale > 2:
        involved = ["generator.pixel_unshuffle", "scale_factor"]
        yield involved, "false for a scale_factor above 2", f"true with {unit}", "set it to false"
    elif config.generator.pixel_unshuffle:
        multiple, unit = 4, f"4 (scale_factor {scale} times pixel_unshuffle factor {4 // scale})"
    for name, stage in config.stages.items():
        patch = stage.cr_patch_size or ()
        if any(side % multiple for side in patch):
            lower = [side // multiple * multiple for side in patch]
            upper = [-(-side // multiple) * multiple for side in patch]
            remedy = f"use {lower} or {upper}" if all(lower) else f"use {upper}"
            yield [f"{name}.cr_patch_size", "scale_factor"], f"a multiple of {unit}", format_value(patch), remedy


def _check_layers(config: Config) -> Iterator[_Conflict]:
    vgg = config.perceptual_loss.vgg_type
    for layer in config.perceptual_loss.layer_weights:
        block, number = int(layer[4]), int(layer[6])
        last = _VGG_BLOCKS[vgg][block - 1]
        if number > last:
            remedy = f"the last layer of block {block} is {layer[:6]}{last}"
            yield [f"{_LAYER_WEIGHTS}.{layer}", "perceptual_loss.vgg_type"], f"a layer of {vgg}", layer, remedy
    patch = config.training.cr_patch_size
    smallest = smallest_vgg_input(config)
    if patch and min(patch) < smallest:
        remedy = f"use at least [{smallest}, {smallest}], or layers of earlier blocks"
        expected = f"at least {smallest} px for block {smallest.bit_length()} of {vgg}"
        yield ["training.cr_patch_size", _LAYER_WEIGHTS], expected, format_value(patch), remedy


def _discriminator_limits(config: Config) -> tuple[int, int]:
    """Return the smallest side of images for the discriminator, and the side that its strides reduce to 1 px."""
    net = config.discriminator
    halvings = len(net.vgg_blk_ch) // 2
    if net.type == "vgg":
        halvings = sum(a == b for a, b in pairwise(net.vgg_blk_ch))
    smallest = int(2**halvings)
    return {"unet": 8, "vgg_basicsr": smallest, "vgg": 1}[net.type], smallest


def _check_discriminator(config: Config) -> Iterator[_Conflict]:
    patch, net = config.training.cr_patch_size, config.discriminator
    at_least, smallest = _discriminator_limits(config)
    if config.training.g_adversarial_loss_scaling == 0:  # it is not computed
        return
    if patch and min(patch) < at_least:
        involved, remedy = ["training.cr_patch_size", "discriminator.type"], f"use at least [{at_least}, {at_least}]"
        yield involved, f"at least {at_least} px for the {net.type} discriminator", format_value(patch), remedy
    is_single_patch = config.batch_size <= config.accumulation  # the discriminator sees a single patch at a time
    if patch and net.type != "unet" and is_single_patch and max(patch) <= smallest and len(net.vgg_blk_ch) > 1:
        expected = f"more than {smallest} px for single patches, because BatchNorm needs more than one value"
        involved = ["training.cr_patch_size", "batch_size", "discriminator.vgg_blk_ch"]
        remedy = f"use [{2 * smallest}, {2 * smallest}], or a batch_size above accumulation"
        yield involved, expected, format_value(patch), remedy


def _check_degradation(config: Config) -> Iterator[_Conflict]:
    for name, stage in config.stages.items():
        keys = [f"{name}.{each}" for each in ("degradation", "photo_degradation") if getattr(stage, each) is not None]
        if len(keys) == 2:
            yield keys, "only one of both", "two objects", "set one of them to null"
        for key in keys:
            if config.img_channels == 4:
                expected = "null with img_channels 4 (JPEG has no alpha channel)"
                yield [key, "img_channels"], expected, "an object", "set it to null"
            if name == "pretraining" and config.pretraining.hard_transforms:
                expected = "false with a degradation, which includes JPEG compression"
                yield ["pretraining.hard_transforms", key], expected, "true", "set it to false"
        if stage.photo_degradation is not None:
            yield from _check_photo(f"{name}.photo_degradation", stage.photo_degradation.model_dump())
        if stage.degradation is None:
            continue
        key = f"{name}.degradation"
        low = [item.lr for item in stage.train_datasets if isinstance(item, FolderPair) and item.lr is not None]
        if low:
            involved, remedy = [f"{name}.train_datasets", key], 'remove "lr" or the degradation'
            yield involved, "no LR folders with a degradation, which replaces them", format_value(low), remedy
        for round_name in ("first", "second"):
            yield from _check_round(f"{key}.{round_name}", getattr(stage.degradation, round_name).model_dump())


def _check_photo(key: str, settings: dict[str, Any]) -> Iterator[_Conflict]:
    yield from _check_ranges(key, settings)
    factors = settings["earlier_factor_range"]
    if min(factors) < 1:
        remedy = f"use {format_value([max(each, 1) for each in factors])}"
        yield [f"{key}.earlier_factor_range"], "1 or more", format_value(factors), remedy


def _check_round(key: str, settings: dict[str, Any]) -> Iterator[_Conflict]:
    for name in ("kernel_prob", "resize_prob"):
        if abs(sum(settings[name]) - 1) > 1e-8:  # the tolerance of NumPy, which draws with these probabilities
            yield [f"{key}.{name}"], "probabilities that sum to 1", format_value(settings[name]), "change some of them"
    yield from _check_ranges(key, settings)
    for name in ("betag_range", "betap_range", "resize_range"):
        value = settings[name]
        if value[0] <= value[1] and not value[0] <= 1 <= value[1]:
            remedy = f"use {format_value([min(value[0], 1), max(value[1], 1)])}"
            yield [f"{key}.{name}"], "a range that contains 1", format_value(value), remedy


def _check_ranges(key: str, settings: dict[str, Any]) -> Iterator[_Conflict]:
    for name, value in settings.items():
        if name.endswith(("_range", "_sigma")) and value[0] > value[1]:
            remedy = f"use {format_value(sorted(value))}"
            yield [f"{key}.{name}"], "the smaller number first", format_value(value), remedy


def _check_gan_options(config: Config) -> Iterator[_Conflict]:
    gan = config.training
    for name in ("gan_objective", "g_adversarial_ramp_steps", "d_pause_below"):
        value, default = getattr(gan, name), type(gan).model_fields[name].default
        if gan.g_adversarial_loss_scaling == 0 and value != default:
            involved = [f"training.{name}", "training.g_adversarial_loss_scaling"]
            expected = f"{format_value(default)} without an adversarial loss (g_adversarial_loss_scaling 0)"
            yield involved, expected, format_value(value), "remove the key, or raise g_adversarial_loss_scaling"
    highest = _GUESSING_LOSSES[gan.gan_objective]
    if gan.d_pause_below is not None and gan.d_pause_below >= highest:
        involved = ["training.d_pause_below", "training.gan_objective"]
        expected = (
            f"less than {highest}, the loss of a discriminator that only guesses ({gan.gan_objective}), which would "
            "not learn"
        )
        yield involved, expected, format_value(gan.d_pause_below), "use about half of it, or null"
    if gan.g_artifact_loss_scaling:
        key, value = "training.g_artifact_loss_scaling", format_value(gan.g_artifact_loss_scaling)
        if config.ema_decay == 0:
            expected = "0 without a moving average of the generator (ema_decay 0)"
            yield [key, "ema_decay"], expected, value, "set ema_decay to 0.999, or this key to 0"
        if gan.cr_patch_size and min(gan.cr_patch_size) < 4:
            expected = "at least 4 px for the artefact loss"
            yield ["training.cr_patch_size", key], expected, format_value(gan.cr_patch_size), "use at least [4, 4]"


def _check_ramps(config: Config) -> Iterator[_Conflict]:
    ramps = {"pretraining": ("warmup_steps",), "training": ("warmup_steps", "g_adversarial_ramp_steps")}
    for section, names in ramps.items():
        stage = getattr(config, section)
        for name in names:
            steps = getattr(stage, name)
            if stage.num_steps is not None and steps >= stage.num_steps:
                expected = f"fewer than the {stage.num_steps} steps of the stage (num_steps)"
                yield [f"{section}.{name}", f"{section}.num_steps"], expected, format_value(steps), "change one of them"


def _check_schedules(config: Config) -> Iterator[_Conflict]:
    for section, stage in config.stages.items():
        if stage.sched == "step":
            continue
        involved = [f"{section}.sched", f"{section}.num_steps"]
        if stage.num_steps is None:
            expected = "num_steps with the cosine schedule, which ends with the stage"
            yield involved, expected, "num_epoch", "set num_steps, or set sched to step"
        for name, field in type(stage).model_fields.items():
            if "sched_" in name and getattr(stage, name) != field.default:
                involved, remedy = [f"{section}.{name}", f"{section}.sched"], "remove the key, or set sched to step"
                yield involved, "the sched step for this key", stage.sched, remedy
