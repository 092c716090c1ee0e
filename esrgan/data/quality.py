"""Measure what makes an image useful for training: traces of JPEG, detail, and likeness to other images."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from esrgan.images.samples import LUMA_WEIGHTS

MAX_DISTANCE = 32  # of 512 bits, up to which two hashes are those of one image

_JPEG_BLOCK, _DETAIL_BLOCK = 8, 4  # px
_NOISE = 0.1  # levels; keeps the blockiness of an empty image finite
_HASH_SIDE = 16
_PARTS = MAX_DISTANCE + 1
_PART_BITS = -(-2 * _HASH_SIDE**2 // _PARTS)


def measure_luma(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the luma (H, W), float32 in [0, 255], of an image (H, W, 1 | 3 | 4), uint8."""
    if pixels.shape[2] == 1:
        return pixels[..., 0].astype(np.float32)
    weights = np.array(LUMA_WEIGHTS, np.float32)
    return np.asarray(pixels[..., :3] @ weights, np.float32)


def measure_blockiness(luma: NDArray[np.float32]) -> float:
    """Return how far the edges of JPEG blocks stand out; about 0 without them, and at most 0 without a block.

    The second difference of adjacent pixels is averaged at each of the 8 possible positions of the grid. The blockiness
    is the excess of the strongest position, divided by the square root of the usual value: texture hides blocks, but
    less than in proportion. Rows and columns are measured separately and averaged.
    """
    found = []
    for lines in (luma, luma.T):
        slopes = np.diff(lines, axis=1)
        steps = np.abs(slopes[:, 1:-1] - (slopes[:, :-2] + slopes[:, 2:]) / 2).mean(axis=0)
        steps = steps[: len(steps) // _JPEG_BLOCK * _JPEG_BLOCK].reshape(-1, _JPEG_BLOCK)
        if not len(steps):
            return 0.0
        *others, strongest = np.sort(steps.mean(axis=0))
        usual = float(np.median(others))
        found.append((float(strongest) - usual) / (usual + _NOISE) ** 0.5)
    return float(np.mean(found))


def measure_detail(luma: NDArray[np.float32]) -> float:
    """Return the root mean square difference, in levels of 255, between an image and the means of its 4×4 px blocks.

    This is about what ×4 downscaling removes, and so what a network can learn from the image.
    """
    height, width = (size // _DETAIL_BLOCK for size in luma.shape)
    blocks = luma[: height * _DETAIL_BLOCK, : width * _DETAIL_BLOCK]
    blocks = blocks.reshape(height, _DETAIL_BLOCK, width, _DETAIL_BLOCK)
    return float(np.sqrt(blocks.var(axis=(1, 3)).mean())) if blocks.size else 0.0


def hash_image(luma: NDArray[np.float32]) -> int:
    """Return the difference hash (dHash) of an image, 512 bits: where it becomes brighter to the right and downwards.

    The hash hardly depends on size, compression and brightness.
    """
    small = np.array(Image.fromarray(luma).resize((_HASH_SIDE + 1, _HASH_SIDE + 1), Image.Resampling.BOX))
    right, down = small[:-1, 1:] > small[:-1, :-1], small[1:, :-1] > small[:-1, :-1]
    # The bits of each part of NearDuplicates come from the whole image, because neighbours are often equal.
    bits = np.zeros((_PART_BITS, _PARTS), bool)
    bits.flat[: 2 * _HASH_SIDE**2] = np.concatenate([right, down], axis=None)
    return int.from_bytes(np.packbits(bits.T.ravel()[::-1]).tobytes())


class NearDuplicates:
    """Finds the images that are nearly equal to one of many others, by their hashes.

    Hashes that differ in at most ``MAX_DISTANCE`` bits agree in one of ``MAX_DISTANCE + 1`` parts. Images with the same
    bits in a part form a chain, so that a million of them take some hundred MB.

    Example:
        >>> from esrgan.data.quality import NearDuplicates
        >>> known = NearDuplicates()
        >>> known.add(0b1000, "a.png")
        >>> known.find(0b1001)
        (1, 'a.png')
    """

    def __init__(self) -> None:
        self._images: list[tuple[int, str]] = []
        self._last = array("i", [-1]) * (_PARTS << _PART_BITS)  # the last image with these bits in a part
        self._previous = array("i")  # for each image and part, the image before it in the chain

    def add(self, value: int, name: str) -> None:
        """Add an image by its hash and name."""
        for place in _places(value):
            self._previous.append(self._last[place])
            self._last[place] = len(self._images)
        self._images.append((value, name))

    def find(self, value: int) -> tuple[int, str] | None:
        """Return the nearest near-duplicate, as the number of different bits and the name; None if there is none."""
        best = (MAX_DISTANCE + 1, -1)
        for part, place in enumerate(_places(value)):
            image = self._last[place]
            while image >= 0:
                best = min(best, ((value ^ self._images[image][0]).bit_count(), image))
                image = self._previous[image * _PARTS + part]
        distance, image = best
        return (distance, self._images[image][1]) if image >= 0 else None


def _places(value: int) -> Iterator[int]:
    """Yield a number below ``_PARTS << _PART_BITS`` for the bits of each part of a hash."""
    for part in range(_PARTS):
        yield part << _PART_BITS | value >> part * _PART_BITS & (1 << _PART_BITS) - 1
