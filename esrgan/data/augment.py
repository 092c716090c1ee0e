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
        left_right, upside_down = A.HorizontalFlip(p=1), A.VerticalFlip(p=1)
        flips = [[left_right], [upside_down], [left_right, upside_down]]
        # Each recipe is a choice among lists of transforms that are certain. The choice is drawn here: Albumentations
        # seeds all transforms of a pipeline alike, so two flips of probability 0.5 would come together or not at all.
        recipes: dict[str, list[tuple[float, list[Any]]]] = {
            "d4": [(1.0, [A.D4(p=1)])] if square else [(0.25, transforms) for transforms in ([], *flips)],
            "flip_or_transpose": [
                *[(0.125, flip) for flip in flips],
                (0.125, [A.Transpose(p=1)] if square else []),
                (0.5, []),
            ],
            "none": [(1.0, [])],
        }
        self.shares = [share for share, _ in recipes[spatial]]
        self.spatial = [
            A.Compose(transforms, additional_targets={"high": "image"}, is_check_shapes=False) if transforms else None
            for _, transforms in recipes[spatial]
        ]
        hole = {"num_holes_range": (8, 8), "hole_height_range": (2, 2), "hole_width_range": (2, 2)}
        self.compress = A.Compose([A.ImageCompression(quality_range=(65, 100), p=0.25)]) if hard else None
        self.punch = A.Compose([A.CoarseDropout(**hole, p=0.25)]) if hard else None

    def __call__(self, low: np.ndarray, high: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Transform a pair of (H, W, C) uint8 patches; the same seed gives the same result."""
        random = np.random.default_rng(seed)
        spatial = self.spatial[random.choice(len(self.spatial), p=self.shares)]
        spatial_seed, compress_seed, punch_seed = (int(value) for value in random.integers(2**31, size=3))
        if spatial is not None:
            spatial.set_random_seed(spatial_seed)
            both = spatial(image=low, high=high)
            low, high = both["image"], both["high"]
        if self.compress is not None:
            self.compress.set_random_seed(compress_seed)
            low = self.compress(image=low)["image"]
        if self.punch is not None and min(low.shape[:2]) > 2:  # px, a hole's side
            self.punch.set_random_seed(punch_seed)
            low = self.punch(image=low)["image"]
        return low, high
