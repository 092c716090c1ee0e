"""Random spatial and hard transforms of patch pairs."""

from __future__ import annotations

import itertools
import os
from typing import Any

import cv2
import numpy as np

SPATIAL_TRANSFORMS = ("d4", "flip_or_transpose", "none")

# A symmetry of the square: whether to transpose, then OpenCV's flip code (None: do not flip). NumPy copies a mirrored
# colour image pixel by pixel, which takes ten times as long.
_Symmetry = tuple[bool, int | None]
# The identity, flips (left to right, upside down, both), the transposition, and its flips.
_SYMMETRIES: list[_Symmetry] = list(itertools.product((False, True), (None, 1, 0, -1)))
_IDENTITY, _FLIPS, _TRANSPOSE = _SYMMETRIES[0], _SYMMETRIES[1:4], _SYMMETRIES[4]


class Augmentation:
    """Random transforms of a patch pair: spatial ones of LR and HR together, then hard ones of LR only.

    Args:
        spatial: "d4" draws one of the eight flips and 90° rotations with equal probability, as ESRGAN does.
            "flip_or_transpose" applies, with probability 0.5, a flip (0.75) or a transposition (0.25). "none" applies
            none. Transforms that exchange height and width are omitted unless patches are square.
        hard: Apply JPEG of quality 65 to 100 and 8 holes of 2×2 px, each with probability 0.25, to the LR patch.
        square: Whether patches are square.

    Raises:
        ValueError: If ``spatial`` is unknown.
    """

    def __init__(self, spatial: str, hard: bool, square: bool) -> None:
        if spatial not in SPATIAL_TRANSFORMS:
            raise ValueError(f"spatial: expected one of {', '.join(SPATIAL_TRANSFORMS)}, got {spatial}")
        choices = {  # one entry is drawn uniformly
            "d4": _SYMMETRIES if square else [_IDENTITY, *_FLIPS],
            "flip_or_transpose": [*[_IDENTITY] * 4, *_FLIPS, _TRANSPOSE if square else _IDENTITY],
            "none": [_IDENTITY],
        }
        self.symmetries = choices[spatial]
        self.hard_transforms = _make_hard_transforms() if hard else []

    def __call__(self, low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return transformed copies of a pair of (H, W, C) uint8 patches.

        The result depends only on the patches and on what is drawn from ``rng``.
        """
        symmetry = self.symmetries[rng.integers(len(self.symmetries))]
        low, high = _apply_symmetry(low, symmetry), _apply_symmetry(high, symmetry)
        for transform in self.hard_transforms if min(low.shape[:2]) > 2 else self.hard_transforms[:1]:
            transform.set_random_seed(int(rng.integers(2**31)))
            low = transform(image=low)["image"]
        return low, high


def _apply_symmetry(image: np.ndarray, symmetry: _Symmetry) -> np.ndarray:
    transpose, flip_code = symmetry
    channels = image.shape[2]
    if transpose:
        image = cv2.transpose(image)
    if flip_code is not None:
        image = cv2.flip(image, flip_code)
    if symmetry == _IDENTITY:
        image = image.copy()
    return image.reshape(*image.shape[:2], channels)  # OpenCV drops a single channel


def _make_hard_transforms() -> list[Any]:
    """Return JPEG compression, and coarse dropout, whose holes are 2 px wide and need a larger patch."""
    # Without this, Albumentations asks its server for a newer version.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A

    hole = {"num_holes_range": (8, 8), "hole_height_range": (2, 2), "hole_width_range": (2, 2)}
    transforms = (A.ImageCompression(quality_range=(65, 100), p=0.25), A.CoarseDropout(**hole, p=0.25))
    return [A.Compose([transform]) for transform in transforms]
