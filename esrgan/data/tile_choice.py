"""Measure images tile by tile, and choose the tiles that are worth training on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from esrgan import images
from esrgan.data import quality
from esrgan.data.datasets import common_channels
from esrgan.data.record import Key, add_line, file_key
from esrgan.errors import EsrganError, Problem
from esrgan.machine import map_in_threads
from esrgan.progress import Progress, explain_interrupt
from esrgan.text import describe_error, format_count

TILE, STEP, MIN_SIDE = 480, 240, 128  # px
Measures = list[tuple[float, float, str]]  # blockiness, detail and hash, in hexadecimal digits, of each tile
Known = tuple[tuple[int, int, int], Measures]  # shape of an image, and the measures of its tiles


class Bounds(NamedTuple):
    """Which tiles are kept.

    Attributes:
        max_blockiness: Largest ``quality.measure_blockiness``.
        min_detail: Smallest ``quality.measure_detail``, in levels of 255.
    """

    max_blockiness: float
    min_detail: float


@dataclass(frozen=True)
class Source:
    """An image to cut: its path, and that of its tiles below the folder of tiles, without number and suffix."""

    path: Path
    name: str

    @cached_property
    def key(self) -> Key:
        """The identity of the file: path, size and times."""
        return file_key(self.path)

    def tile_name(self, number: int) -> str:
        """Return the path of a tile below the folder of tiles, with the ending that BasicSR gives to its sub-images."""
        return f"{self.name}_s{number:03}.png"


@dataclass(frozen=True)
class Tile:
    """A part of an image, and its measures: blockiness, detail and hash."""

    source: Source
    number: int
    top: int
    left: int
    shape: tuple[int, int, int]
    blockiness: float
    detail: float
    hash: int

    @property
    def name(self) -> str:
        """The path below the folder of tiles."""
        return self.source.tile_name(self.number)

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the pixels of this tile."""
        return image[self.top : self.top + self.shape[0], self.left : self.left + self.shape[1]]


class Dropped(NamedTuple):
    """A tile that is left out: why, the measured value and its bound, and the tile that it is a near-duplicate of."""

    tile: Tile
    reason: str
    value: float
    bound: float
    like: Tile | None = None


def measure_sources(
    sources: Sequence[Source],
    known: Mapping[Key, Known],
    record: BinaryIO,
    workers: int,
    problems: list[str | Problem],
) -> list[Tile]:
    """Return the tiles of all images with their measures, and add the problems with images that cannot be read."""
    found: dict[Source, list[Tile]] = {}
    todo: list[Source] = []
    for source in sources:
        try:
            shape, measures = known[source.key]
            found[source] = _make_tiles(source, shape, measures)
        except (LookupError, TypeError, ValueError, OSError):  # what cannot be read is reported below
            todo.append(source)
    shown = Progress(images.measure_images({source: source.path for source in todo}), "measuring images: ")

    def describe_interruption() -> str:
        return (
            f"{shown.finished:,} of {format_count(len(todo), 'image')} measured; the same command measures the others"
        )

    with explain_interrupt(describe_interruption):
        for source, made in map_in_threads(_measure, todo, workers):
            if isinstance(made, list):
                problems += made
            else:
                add_line(record, source.key, *made)
                found[source] = _make_tiles(source, *made)
            shown.finish(source)
    return [tile for source in sources for tile in found.get(source, ())]


def omit_transparent(tiles: list[Tile], problems: list[str | Problem]) -> list[Tile]:
    """Return the tiles without those of transparent images among others, because training would refuse them all."""
    if common_channels({tile.shape[2] for tile in tiles}) == 4:
        return tiles
    refused = set()
    for source in dict.fromkeys(tile.source for tile in tiles if tile.shape[2] == 4):
        try:
            images.read_pixels(source.path, 3)  # drops alpha that is opaque
        except EsrganError as error:
            problems += error.problems
            refused.add(source)
    return [tile for tile in tiles if tile.source not in refused]


def choose_tiles(tiles: Sequence[Tile], bounds: Bounds) -> tuple[list[Tile], list[Dropped]]:
    """Return the tiles to keep, and those to drop, each for the first reason that applies."""
    kept: dict[str, Tile] = {}
    dropped: list[Dropped] = []
    known = quality.NearDuplicates()
    for tile in tiles:
        if min(tile.shape[:2]) < MIN_SIDE:
            dropped.append(Dropped(tile, "small", min(tile.shape[:2]), MIN_SIDE))
        elif tile.detail < bounds.min_detail:
            dropped.append(Dropped(tile, "without detail", tile.detail, bounds.min_detail))
        elif tile.blockiness > bounds.max_blockiness:
            dropped.append(Dropped(tile, "blocky", tile.blockiness, bounds.max_blockiness))
        elif found := known.find(tile.hash):
            dropped.append(Dropped(tile, "near-duplicate", found[0], quality.MAX_DISTANCE, kept[found[1]]))
        else:
            known.add(tile.hash, tile.name)
            kept[tile.name] = tile
    return list(kept.values()), dropped


def _measure(source: Source) -> tuple[tuple[int, int, int], Measures] | list[str | Problem]:
    """Return the shape of an image and the measures of its tiles, or the problems with it."""
    try:
        _ = source.key
        image = read_source(source)
    except EsrganError as error:
        return list(error.problems)
    except OSError as error:
        return [f"{source.path}: cannot be read: {describe_error(error)}; check the file and its permissions"]
    luma = quality.measure_luma(image)
    measures: Measures = []
    for top, left in _grid(image.shape):
        tile = luma[top : top + TILE, left : left + TILE]
        # They are rounded as the list of dropped tiles shows them.
        numbers = [round(measure(tile), 3) for measure in (quality.measure_blockiness, quality.measure_detail)]
        measures.append((numbers[0], numbers[1], f"{quality.hash_image(tile):x}"))
    height, width, channels = image.shape
    return (height, width, channels), measures


def read_source(source: Source) -> NDArray[np.uint8]:
    """Return the pixels (H, W, C) of an image, C being 1, 3 or 4."""
    channels = images.read_shape(source.path)[2]
    return images.read_pixels(source.path, {2: 1}.get(channels, channels))  # alpha of grey images must be opaque


def _make_tiles(source: Source, shape: tuple[int, int, int], measures: Measures) -> list[Tile]:
    return [
        Tile(
            source,
            number,
            top,
            left,
            (min(TILE, shape[0]), min(TILE, shape[1]), shape[2]),
            block,
            detail,
            int(bits, 16),
        )
        for number, ((top, left), (block, detail, bits)) in enumerate(zip(_grid(shape), measures, strict=True), 1)
    ]


def _grid(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return top and left of each tile; the last ones end at the border, and a smaller image is one tile."""
    rows, columns = (sorted({*range(0, size - TILE + 1, STEP), max(size - TILE, 0)}) for size in shape[:2])
    return [(top, left) for top in rows for left in columns]
