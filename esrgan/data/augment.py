"""Transforms of a patch pair, drawn from a generator of random numbers."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np

SPATIAL = ("d4", "flip_or_transpose", "none")

# A symmetry of the square: whether height and width change places, then OpenCV's code of a flip. NumPy would copy a
# mirrored colour image pixel by pixel, ten times as slowly.
_Symmetry = tuple[bool, int | None]
_IDENTITY: _Symmetry = (False, None)
_FLIPS: list[_Symmetry] = [(False, 1), (False, 0), (False, -1)]  # left to right, upside down, both
_TRANSPOSITION: _Symmetry = (True, None)
_TURNS: list[_Symmetry] = [(True, 1), (True, 0), (True, -1)]


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
        recipes = {  # each entry has the same chance
            "d4": [_IDENTITY, *_FLIPS, *([_TRANSPOSITION, *_TURNS] if square else [])],
            "flip_or_transpose": [*[_IDENTITY] * 4, *_FLIPS, _TRANSPOSITION if square else _IDENTITY],
            "none": [_IDENTITY],
        }
        self.symmetries = recipes[spatial]
        self.compress: Any = None
        self.punch: Any = None
        if hard:
            self.compress, self.punch = _hard_transforms()

    def __call__(self, low: np.ndarray, high: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Turn a pair of (H, W, C) uint8 patches into a new one; what is drawn from ``random`` decides alone."""
        symmetry = self.symmetries[random.integers(len(self.symmetries))]
        low, high = _transformed(low, symmetry), _transformed(high, symmetry)
        if self.compress is not None:
            self.compress.set_random_seed(int(random.integers(2**31)))
            low = self.compress(image=low)["image"]
        if self.punch is not None and min(low.shape[:2]) > 2:  # px, a hole's side
            self.punch.set_random_seed(int(random.integers(2**31)))
            low = self.punch(image=low)["image"]
        return low, high


def _transformed(image: np.ndarray, symmetry: _Symmetry) -> np.ndarray:
    transpose, flip_code = symmetry
    channels = image.shape[2]
    if transpose:
        image = cv2.transpose(image)
    if flip_code is not None:
        image = cv2.flip(image, flip_code)
    if symmetry == _IDENTITY:
        image = image.copy()
    return image.reshape(*image.shape[:2], channels)  # OpenCV drops a single channel


def _hard_transforms() -> tuple[Any, Any]:
    """Make JPEG compression and coarse dropout."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks its server for a newer version otherwise
    import albumentations as A

    hole = {"num_holes_range": (8, 8), "hole_height_range": (2, 2), "hole_width_range": (2, 2)}
    compress = A.Compose([A.ImageCompression(quality_range=(65, 100), p=0.25)])
    return compress, A.Compose([A.CoarseDropout(**hole, p=0.25)])
