"""Find the window of an image where models differ most, and crop all versions of the image to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WINDOW_PX = 128  # side of the window in HR pixels
_THUMBNAIL_PX = 192


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, in HR pixels."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, image: NDArray[np.uint8], scale: int = 1) -> NDArray[np.uint8]:
        """Return the window's part of an (H, W, C) image that is ``scale`` times smaller than HR."""
        top, left, height, width = (px // scale for px in (self.top, self.left, self.height, self.width))
        return image[top : top + height, left : left + width]


@dataclass(frozen=True)
class ImageVersions:
    """All versions of one test image: uint8 (H, W, C) in [0, 255], C is 1, 3 or 4.

    Alpha is ignored, as in the metrics, so that reports show exactly what was measured.

    Attributes:
        low: The LR image.
        outputs: Output of each method, bicubic first; all have the same multiple of the LR size.
        high: The HR image, as large as the outputs; None without ground truth.
    """

    low: NDArray[np.uint8]
    outputs: Mapping[str, NDArray[np.uint8]]
    high: NDArray[np.uint8] | None = None

    @property
    def scale(self) -> int:
        """Upscaling factor from LR to the outputs."""
        return int(next(iter(self.outputs.values())).shape[0]) // len(self.low)

    def find_window(self) -> Window:
        """Return the window where the models differ most, or where a single model differs most from bicubic."""
        outputs = [image[..., :3] for image in self.outputs.values()]
        return find_most_different_window(outputs if len(outputs) < 3 else outputs[1:], self.scale)

    def crop(self, window: Window) -> ImageVersions:
        """Crop all images to a window whose position and size are multiples of the scale."""
        outputs = {method: window.crop(image).copy() for method, image in self.outputs.items()}  # frees the whole image
        high = None if self.high is None else window.crop(self.high).copy()
        return ImageVersions(window.crop(self.low, self.scale).copy(), outputs, high)

    def error_maps(self) -> dict[str, NDArray[np.float64]]:
        """Return the error map of each method, or nothing without HR.

        An error map is the absolute difference from HR, averaged over the channels: (H, W) in [0, 255].
        """
        if self.high is None:
            return {}
        high = self.high[..., :3].astype(np.float64)
        return {method: np.abs(image[..., :3] - high).mean(axis=2) for method, image in self.outputs.items()}


@dataclass(frozen=True)
class ImageCrop:
    """What a report shows of an image: a window of all versions, and where it is. It takes 50 kB per version.

    Attributes:
        window: Position of the window.
        height: Height of the whole image in HR pixels.
        width: Width of the whole image in HR pixels.
        thumbnail: The whole image without alpha, at most 192 px high and wide.
        versions: The window's part of all versions.
    """

    window: Window
    height: int
    width: int
    thumbnail: Image.Image
    versions: ImageVersions

    @classmethod
    def of(cls, versions: ImageVersions) -> ImageCrop:
        """Crop an image to the window where its versions differ most; without HR, the last output is the thumbnail."""
        window = versions.find_window()
        whole = versions.high if versions.high is not None else list(versions.outputs.values())[-1]
        thumbnail = to_pil(whole)
        thumbnail.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
        return cls(window, whole.shape[0], whole.shape[1], thumbnail, versions.crop(window))


def to_pil(pixels: NDArray[np.uint8]) -> Image.Image:
    """Convert an (H, W, 1 | 3 | 4) array to a Pillow image without alpha."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels[..., :3]))


def find_most_different_window(images: Sequence[NDArray[np.uint8]], step: int, max_size: int = WINDOW_PX) -> Window:
    """Return the window with the largest mean difference between images.

    The difference at a sample is its maximum over the images minus its minimum. For two images this is the absolute
    difference.

    Args:
        images: (H, W, C) uint8 images of one shape; H and W are multiples of ``step``.
        step: The window's position and size are multiples of this; pass the scale to cover whole LR pixels.
        max_size: Maximum height and width of the window, in pixels.

    Returns:
        The first such window from the top; the whole height or width where the image is smaller than ``max_size``.
    """
    spread = (reduce(np.maximum, images) - reduce(np.minimum, images)).sum(axis=2, dtype=np.int64)
    height, width = (min(max_size, side) // step * step for side in spread.shape)
    # integral[y, x] is the sum of all samples above and to the left of (y, x).
    integral = np.pad(spread.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = (
        integral[height:, width:]
        - integral[:-height, width:]
        - integral[height:, :-width]
        + integral[:-height, :-width]
    )
    row, column = np.unravel_index(sums[::step, ::step].argmax(), sums[::step, ::step].shape)
    return Window(int(row) * step, int(column) * step, height, width)
