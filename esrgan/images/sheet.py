"""Arrange images side by side on contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from esrgan.text import printable

_LABEL_PX, _CHECKER_PX = 14, 8  # font size, and side of the checkerboard squares behind transparent parts


def make_contact_sheet(
    rows: Sequence[Sequence[NDArray[np.uint8]]], labels: Sequence[str], gap: int = 8
) -> NDArray[np.uint8]:
    """Arrange images side by side on a white sheet, with a row per subject and a labelled column per method.

    Args:
        rows: Rows of images (H, W, 1 | 3 | 4), uint8 in [0, 255], with one image per label. Images that are less high
            than the highest in their row, such as the LR image, are upscaled to its height by nearest neighbour. Grey
            becomes RGB; transparent parts show a checkerboard.
        labels: Headings of the columns.
        gap: Pixels between images and around the sheet.

    Returns:
        The sheet (H', W', 3), uint8.

    Raises:
        ValueError: There are no rows or labels, or a row has not one image per label.
    """
    if not rows or not labels or any(len(row) != len(labels) for row in rows):
        raise ValueError(f"expected rows of {len(labels)} images, one for each label, got {[len(row) for row in rows]}")
    labels = [printable(label) for label in labels]
    font = ImageFont.load_default(_LABEL_PX)
    cells = [[_make_cell(image, max(len(other) for other in row)) for image in row] for row in rows]
    widths = [
        max(math.ceil(font.getlength(label)), *(cell.width for cell in column))
        for label, column in zip(labels, zip(*cells, strict=True), strict=True)
    ]
    lefts = [gap + sum(widths[:column]) + gap * column for column in range(len(widths))]
    heights = [2 * _LABEL_PX, *(row[0].height for row in cells)]  # Twice the font size, as letters have descenders.
    tops = [gap + sum(heights[:row]) + gap * row for row in range(len(heights))]
    sheet = Image.new("RGB", (lefts[-1] + widths[-1] + gap, tops[-1] + heights[-1] + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for column, left in enumerate(lefts):
        draw.text((left, gap), labels[column], fill="black", font=font)
        for top, row in zip(tops[1:], cells, strict=True):
            sheet.paste(row[column], (left, top))
    return np.array(sheet)


def _make_cell(image: NDArray[np.uint8], height: int) -> Image.Image:
    """Convert an image (H, W, 1 | 3 | 4) to RGB and upscale it to a height in pixels."""
    if image.shape[2] == 4:
        rows, columns = np.indices(image.shape[:2]) // _CHECKER_PX
        checks = np.where((rows + columns) % 2, 102.0, 153.0)[..., None]
        opacity = image[..., 3:] / 255
        image = np.rint(image[..., :3] * opacity + checks * (1 - opacity)).astype(np.uint8)
    cell = Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)))
    return cell.resize((round(cell.width * height / cell.height), height), Image.Resampling.NEAREST)
