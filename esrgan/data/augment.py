"""Transforms of a patch pair with Albumentations, each a function of a seed."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks its server for a newer version otherwise
import albumentations as A

SPATIAL = ("d4", "flip_or_transpose", "none")


class Augmentation:
    """Spatial transforms of LR and HR together, then hard transforms of LR alone.

    Args:
        spatial: "d4", each of the eight flips and rotations by 90° with equal chance, as ESRGAN trains;
            "flip_or_transpose", with probability 0.5 one of a flip (0.75) and a transposition (0.25); or "none".
            Those that exchange height and width are left out where patches are not square.
        hard: JPEG of quality 65 to 100 and 8 holes of 2×2 px, each with probability 0.25, on the LR patch.
        square: Whether patches are square.
    """

    def __init__(self, spatial: str, hard: bool, square: bool) -> None:
        if spatial not in SPATIAL:
            raise ValueError(f"spatial: expected one of {', '.join(SPATIAL)}, got {spatial}")
        flips = [A.HorizontalFlip(p=1), A.VerticalFlip(p=1), A.Sequential([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)])]
        recipes: dict[str, list[Any]] = {
            "d4": [A.D4(p=1)] if square else [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)],
            "flip_or_transpose": [
                A.OneOf([A.OneOf(flips, p=0.75), A.Transpose(p=0.25)], p=0.5) if square else A.OneOf(flips, p=0.375)
            ],
            "none": [],
        }
        self.spatial = A.Compose(recipes[spatial], additional_targets={"high": "image"}, is_check_shapes=False)
        hard_transforms = [
            A.ImageCompression(quality_range=(65, 100), p=0.25),
            A.CoarseDropout(num_holes_range=(8, 8), hole_height_range=(2, 2), hole_width_range=(2, 2), p=0.25),
        ]
        self.hard = A.Compose(hard_transforms if hard else [])

    def __call__(self, low: np.ndarray, high: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Transform a pair of (H, W, C) uint8 patches; the same seed gives the same result."""
        if self.spatial.transforms:
            self.spatial.set_random_seed(seed)
            both = self.spatial(image=low, high=high)
            low, high = both["image"], both["high"]
        if self.hard.transforms:
            self.hard.set_random_seed(seed)
            low = self.hard(image=low)["image"]
        return low, high
