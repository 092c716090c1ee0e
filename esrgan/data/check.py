"""Check the images of datasets for what would spoil training, with one line for each problem."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from esrgan import images
from esrgan.console import log
from esrgan.data import quality
from esrgan.data.alignment import Comparison, compare, describe_most, describe_one
from esrgan.data.cache import find_size_problem
from esrgan.data.datasets import load_pair
from esrgan.data.pairing import ImagePair
from esrgan.errors import DatasetError, EsrganError, Problem
from esrgan.machine import map_in_threads
from esrgan.progress import Progress, explain_interrupt
from esrgan.text import describe_error, format_count

_LEAST_CONTRAST = 4.0  # standard deviation in levels; less can be an empty image, all of which have similar hashes


@dataclass(frozen=True)
class ImageSet:
    """Images that are checked together.

    Attributes:
        name: What the images are for, such as "training"; sets of other names should not have the same images.
        pairs: Image pairs, each with the minimum (height, width) of its HR image.
        scale: Scale factor.
        channels: Number of channels that every image must have.
    """

    name: str
    pairs: Mapping[ImagePair, tuple[int, int]]
    scale: int
    channels: int


@dataclass(frozen=True)
class _Found:
    """What was found about a pair: problems with their kinds, and what is compared with other pairs."""

    problems: Sequence[tuple[str, Problem | str]] = ()
    digest: bytes = b""
    hash: int | None = None
    comparison: Comparison | None = None


@dataclass
class _Known:
    """The images of a set, by their pixels and by their hashes."""

    names: dict[bytes, str] = field(default_factory=dict)
    similar: quality.NearDuplicates = field(default_factory=quality.NearDuplicates)

    def add(self, pair: ImagePair, found: _Found) -> None:
        """Add an image, if it could be read."""
        if found.digest:
            self.names.setdefault(found.digest, str(pair.high))
        if found.hash is not None:
            self.similar.add(found.hash, str(pair.high))


def check_images(sets: Sequence[ImageSet], workers: int) -> Counter[str]:
    """Decode all images and log each problem: unusable, small, duplicate and misaligned ones.

    Args:
        sets: The images; those of one set are not compared with each other.
        workers: Number of threads.

    Returns:
        The number of problems of each kind.
    """
    counts: Counter[str] = Counter()
    known: dict[str, _Known] = {}
    jobs = [(part, pair) for part in sets for pair in part.pairs]
    paths: dict[Hashable, Path] = {(part.name, pair): pair.high for part, pair in jobs}
    compared: dict[tuple[str, int], dict[ImagePair, Comparison]] = {}
    shown = Progress(images.measure_images(paths), "checking images: ")

    def report(kind: str, problem: Problem | str) -> None:
        counts[kind] += 1
        log.error("%s", problem)

    with explain_interrupt(lambda: f"{shown.finished:,} of {format_count(shown.total, 'image')} checked"):
        for (part, pair), found in map_in_threads(lambda job: _examine(*job), jobs, workers):
            for kind, problem in found.problems:
                report(kind, problem)
            if duplicate := _find_duplicate(part.name, pair, found, known):
                report("duplicate", duplicate)
            known.setdefault(part.name, _Known()).add(pair, found)
            if found.comparison:
                compared.setdefault((part.name, part.scale), {})[pair] = found.comparison
            shown.finish((part.name, pair))
        for group in compared.values():
            for text in _find_misaligned(group):
                report("misalignment", text)
    return counts


def _examine(part: ImageSet, pair: ImagePair) -> _Found:
    try:
        if pair.low:
            low, high = load_pair(pair, part.scale, part.channels)
        else:
            low, high = None, images.read_pixels(pair.high, part.channels)
    except EsrganError as error:
        kind = "unusable pair" if isinstance(error, DatasetError) else "unusable image"
        return _Found([(kind, problem) for problem in error.problems])
    except OSError as error:
        text = f"{error.filename}: cannot be read: {describe_error(error)}; check the file and its permissions"
        return _Found([("unusable image", text)])
    height, width = (size // part.scale * part.scale for size in high.shape[:2])
    high = high[:height, :width]  # as training does it
    problems = [problem] if (problem := find_size_problem(pair.high, high.shape, part.pairs[pair])) else []
    if not high.size:
        return _Found([("small image", problem) for problem in problems])
    luma = quality.measure_luma(high)
    return _Found(
        [("small image", problem) for problem in problems],
        hashlib.sha256(repr(high.shape).encode() + np.ascontiguousarray(high).data).digest(),
        quality.hash_image(luma) if luma.std() >= _LEAST_CONTRAST else None,
        None if low is None else compare(low, high, part.scale),
    )


def _find_duplicate(own: str, pair: ImagePair, found: _Found, known: Mapping[str, _Known]) -> Problem | None:
    """Return the problem that an image is also in a set of another name, or nearly so."""
    for name, others in known.items():
        if name == own:
            continue
        expected = f"an image that is not among the {name} images"
        if other := others.names.get(found.digest):
            if other == str(pair.high):
                return Problem(other, expected, "one of them", "remove it from one of the two sets")
            return Problem(str(pair.high), expected, f"the same image as {other}", "remove one of them")
        if found.hash is not None and (similar := others.similar.find(found.hash)):
            got = f"nearly the same image as {similar[1]} ({similar[0]} of 512 bits of their hashes differ)"
            return Problem(str(pair.high), expected, got, "compare them, and remove one")
    return None


def _find_misaligned(compared: Mapping[ImagePair, Comparison]) -> list[str]:
    """Return one problem if most of the pairs are shifted alike or do not match, else one for each such pair."""
    if len(compared) > 1 and (text := describe_most(list(compared.values()))):
        return [f"{next(iter(compared)).low} and other LR images: {text}"]
    return [f"{pair.low}: {text}" for pair, found in compared.items() if (text := describe_one(found))]
