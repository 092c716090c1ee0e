"""Checks that the processes of a run, which may be on several machines, have the same settings and images."""

from __future__ import annotations

import hashlib
import json
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from esrgan.config import Config, describe_changes
from esrgan.console import log
from esrgan.errors import EsrganError, Problem
from esrgan.losses import PerceptualLoss
from esrgan.text import format_count
from esrgan.training import distributed
from esrgan.training.inputs import FoundImages, StageData
from esrgan.training.options import TrainOptions
from esrgan.training.run_files import STAGES

T = TypeVar("T")


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
