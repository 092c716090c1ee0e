"""Contact sheet of the tiles that are left out, by which a person can judge the bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from esrgan import images
from esrgan.machine import map_in_threads

if TYPE_CHECKING:
    from esrgan.data.tile_choice import Dropped, Source, Tile

ROWS, COLUMNS = 8, 4  # of each reason
_SIDE, _CAPTION, _FONT = 120, 16, 12  # px


def make_sheet(
    dropped: Sequence[Dropped], read: Callable[[Source], NDArray[np.uint8]], workers: int
) -> NDArray[np.uint8]:
    """Make a contact sheet with four columns for each reason, the tiles nearest to the bound first.

    To the right of each near-duplicate is the tile that is kept.

    Args:
        dropped: Tiles that are left out.
        read: Function from the source of a tile to its pixels (H, W, C).
        workers: Number of threads.

    Returns:
        The sheet (H, W, 3), uint8.

    Raises:
        ImageError: If an image cannot be read any more.
    """
    groups: dict[str, list[Dropped]] = {}
    for each in dropped:
        groups.setdefault(each.reason, []).append(each)
    cells: dict[str, list[tuple[Tile, str]]] = {}
    for reason, group in groups.items():
        for each in sorted(group, key=lambda each: abs(each.value - each.bound))[: ROWS * COLUMNS]:
            cells.setdefault(reason, []).append((each.tile, f"{each.value:g}"))
            if each.like:
                cells[reason].append((each.like, "kept"))
    shown: dict[Source, list[Tile]] = {}
    for tile, _ in (cell for group in cells.values() for cell in group[: ROWS * COLUMNS]):
        shown.setdefault(tile.source, []).append(tile)
    made: dict[str, Image.Image] = {}
    for _, small in map_in_threads(lambda source: _shrink(shown[source], read(source)), list(shown), workers):
        made |= small
    labels: list[str] = []
    columns: list[list[NDArray[np.uint8]]] = []
    height = max(-(-min(len(group), ROWS * COLUMNS) // COLUMNS) for group in cells.values())
    for reason, shown_group in cells.items():
        labels += [f"{reason}: {len(groups[reason]):,}", *[""] * (COLUMNS - 1)]
        finished = [_add_caption(made[tile.name], text) for tile, text in shown_group[: height * COLUMNS]]
        finished += [_add_caption(None, "")] * (height * COLUMNS - len(finished))
        columns += [finished[column::COLUMNS] for column in range(COLUMNS)]
    return images.make_contact_sheet(list(zip(*columns, strict=True)), labels)


def _shrink(tiles: Sequence[Tile], image: NDArray[np.uint8]) -> dict[str, Image.Image]:
    """Return the tiles of an image, reduced to at most 120×120 px, by their names."""
    made = {}
    for tile in tiles:
        pixels = tile.cut(image)[..., :3]
        made[tile.name] = Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        made[tile.name].thumbnail((_SIDE, _SIDE))
    return made


def _add_caption(image: Image.Image | None, text: str) -> NDArray[np.uint8]:
    cell = Image.new("RGB", (_SIDE, _SIDE + _CAPTION), "white")
    if image:
        cell.paste(image)
    ImageDraw.Draw(cell).text((0, _SIDE), text, fill="black", font=ImageFont.load_default(_FONT))
    return np.array(cell)
