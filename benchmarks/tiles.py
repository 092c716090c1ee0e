"""Measure what the bounds of ``esrgan prepare --tiles`` drop: python benchmarks/tiles.py photos/train.

The photographs are halved, which removes the traces of JPEG that they have, and cut into tiles of 480 px without
overlap. The tiles with enough detail are compared with JPEG copies and with other versions of themselves.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from esrgan import images, resize
from esrgan.cli.prepare import MAX_BLOCKINESS, MIN_DETAIL
from esrgan.data import quality
from esrgan.data.tile_choice import TILE

Pixels = NDArray[np.uint8]
MARGIN = 8  # px around a tile, by which it can be shifted
SIDE = 2 * (TILE + 2 * MARGIN)  # px; smallest photograph
DETAILS = (0.5, 1, 1.5, 2, 3, 5)


def code(image: Pixels, jpeg_quality: int) -> Pixels:
    """Return an image after it was coded by JPEG with halved colour resolution."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=jpeg_quality, subsampling="4:2:0")
    return np.array(Image.open(file))


def crop(image: Pixels, right: int = 0) -> Pixels:
    """Return a tile without its margin, shifted to the right."""
    return image[MARGIN : MARGIN + TILE, MARGIN + right : MARGIN + right + TILE]


VERSIONS: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG of quality 75": lambda image: code(crop(image), 75),
    "JPEG of quality 30": lambda image: code(crop(image), 30),
    "half the size": lambda image: resize.bicubic(np.ascontiguousarray(crop(image)), Fraction(1, 2)),
    "brighter (gamma 0.7)": lambda image: np.rint(255 * (crop(image) / 255) ** 0.7).astype(np.uint8),
    **{f"shifted by {px} px": lambda image, px=px: crop(image, px) for px in (2, 4, 8)},
}


def find_tiles(folder: Path) -> dict[str, list[Pixels]]:
    """Return the tiles, with their margins, of the halved photographs by their names."""
    found: dict[str, list[Pixels]] = {}
    side = SIDE // 2
    for path in images.find_images([folder]):
        if min(images.read_shape(path)[:2]) >= SIDE:
            half = resize.bicubic(images.read_pixels(path, 3), Fraction(1, 2))
            rows, columns = (range(0, size - side + 1, TILE) for size in half.shape[:2])
            found[path.name] = [half[top : top + side, left : left + side] for top in rows for left in columns]
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help=f"photographs, of which those of at least {SIDE}×{SIDE} px are used")
    folder = parser.parse_args().folder
    tiles = find_tiles(folder)
    if len(tiles) < 2:
        sys.exit(f"error: {folder}: expected at least 2 photographs of {SIDE}×{SIDE} px or more, got {len(tiles)}")
    details = {
        id(tile): quality.measure_detail(quality.measure_luma(crop(tile))) for group in tiles.values() for tile in group
    }
    shares = ", ".join(
        f"{sum(value < bound for value in details.values()) / len(details):.1%} below {bound:g}" for bound in DETAILS
    )
    print(f"{len(details)} tiles of {len(tiles)} photographs; detail: {shares}\n")
    tiles = {name: [tile for tile in group if details[id(tile)] >= MIN_DETAIL] for name, group in tiles.items()}
    if sum(map(bool, tiles.values())) < 2:
        sys.exit(f"error: {folder}: expected at least 2 photographs with tiles of enough detail")
    every = [tile for group in tiles.values() for tile in group]
    print(
        f"{len(every)} tiles with detail\n\n"
        f"| JPEG quality | blockiness, median | above {MAX_BLOCKINESS:g} |\n|---|---|---|"
    )
    for jpeg_quality in (None, 95, 90, 85, 80, 75, 70, 60, 50, 40, 30):
        coded = [crop(tile) if jpeg_quality is None else code(crop(tile), jpeg_quality) for tile in every]
        values = np.array([quality.measure_blockiness(quality.measure_luma(tile)) for tile in coded])
        print(f"| {jpeg_quality or 'not coded'} | {np.median(values):.2f} | {(values > MAX_BLOCKINESS).mean():.1%} |")
    hashes = {name: [hash_tile(crop(tile)) for tile in group] for name, group in tiles.items()}
    print(f"\n| version of a tile | different bits, median | at most {quality.MAX_DISTANCE} |\n|---|---|---|")
    known = [value for group in hashes.values() for value in group]
    for version, change in VERSIONS.items():
        print_distances(
            version, [(hash_tile(change(tile)) ^ value).bit_count() for tile, value in zip(every, known, strict=True)]
        )
    nearest = []
    for name, group in hashes.items():
        others = [value for other, values in hashes.items() if other != name for value in values]
        nearest += [min((value ^ other).bit_count() for other in others) for value in group]
    print_distances("most similar tile of the other photographs", nearest)


def hash_tile(image: Pixels) -> int:
    """Return the hash of a tile."""
    return quality.hash_image(quality.measure_luma(image))


def print_distances(name: str, values: list[int]) -> None:
    """Print a row of the table of distances between hashes."""
    found = np.array(values)
    print(f"| {name} | {np.median(found):.0f} | {(found <= quality.MAX_DISTANCE).mean():.1%} |", flush=True)


if __name__ == "__main__":
    main()
