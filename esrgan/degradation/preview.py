"""Contact sheet of HR crops and their degraded LR patches, for visual inspection."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from esrgan import images, resize
from esrgan.degradation.photo import PhotoDegradation
from esrgan.degradation.process import Degradation
from esrgan.errors import DatasetError, Problem

ROWS, COLUMNS = 6, 5  # maximum number of images, and degraded patches of each


def preview(
    paths: Sequence[Path],
    degradation: Degradation | PhotoDegradation,
    scale: int,
    patch_size: tuple[int, int],
    channels: int,
) -> NDArray[np.uint8]:
    """Make a contact sheet of central crops: HR, sharpened HR, bicubic LR and several degraded LR patches.

    Args:
        paths: HR images; at most ``ROWS`` of them, evenly spaced, are shown.
        degradation: Degradation to show.
        scale: Scale factor.
        patch_size: Maximum (height, width) of the crops in px.
        channels: Number of channels of the images, 1 or 3.

    Returns:
        The sheet, (H, W, 3) uint8.

    Raises:
        EsrganError: If an image cannot be read or is smaller than the scale.
    """
    shown = min(ROWS, len(paths))
    rows = [
        _row(_crop(paths[row * len(paths) // shown], scale, patch_size, channels), degradation, scale, row)
        for row in range(shown)
    ]
    return images.make_contact_sheet(
        rows, ["HR", "HR for the losses", "bicubic LR", *(f"LR {i}" for i in range(1, COLUMNS + 1))]
    )


def _crop(path: Path, scale: int, patch_size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    image = images.read_pixels(path, channels)
    height, width = (min(part, whole) // scale * scale for part, whole in zip(patch_size, image.shape, strict=False))
    if min(height, width) == 0:
        got = f"{image.shape[1]}×{image.shape[0]} px"
        raise DatasetError(Problem(str(path), f"at least {scale}×{scale} px", got, "remove it"))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _row(
    crop: NDArray[np.uint8], degradation: Degradation | PhotoDegradation, scale: int, row: int
) -> list[NDArray[np.uint8]]:
    bicubic = resize.bicubic(crop, Fraction(1, scale))
    high, low = (torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in (crop, bicubic))
    lows, highs = degradation(high.expand(COLUMNS, -1, -1, -1), row * COLUMNS, low.expand(COLUMNS, -1, -1, -1))
    made = [(each * 255).round().byte().permute(1, 2, 0).numpy() for each in (highs[0], *lows)]
    return [crop, made[0], bicubic, *made[1:]]
