"""What a report shows of an image: the window where models differ most, cut out of all its versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

WINDOW_PX = 128  # side of the window in HR pixels


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, in HR pixels."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, image: NDArray[np.uint8], scale: int = 1) -> NDArray[np.uint8]:
        """Cut the window out of an (H, W, C) image that is ``scale`` times smaller than HR."""
        top, left, height, width = (px // scale for px in (self.top, self.left, self.height, self.width))
        return image[top : top + height, left : left + width]


@dataclass(frozen=True)
class ImageVersions:
    """All versions of one test image: uint8 (H, W, C) in [0, 255], C is 1, 3 or 4.

    Alpha is ignored, as the metrics do: what is shown is what was measured.

    Attributes:
        low: The LR image.
        outputs: What each method made of it, bicubic first, all of one multiple of its size.
        high: The HR image, of the size of the outputs; None without ground truth.

    Raises:
        ValueError: The images do not fit each other.
    """

    low: NDArray[np.uint8]
    outputs: Mapping[str, NDArray[np.uint8]]
    high: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        large = [*self.outputs.values(), *([] if self.high is None else [self.high])]
        height, width, channels = self.low.shape
        expected = (height * self.scale, width * self.scale, channels)
        if any(image.dtype != np.uint8 for image in (self.low, *large)) or {i.shape for i in large} != {expected}:
            got = ", ".join(f"{image.dtype} {image.shape}" for image in large)
            raise ValueError(f"expected uint8 images of a multiple of {self.low.shape[:2]} px, got {got}")

    @property
    def scale(self) -> int:
        """How many times larger than LR the outputs are."""
        return int(next(iter(self.outputs.values())).shape[0]) // len(self.low)

    def find_window(self) -> Window:
        """Find where the models differ most; with a single model, where it differs most from bicubic."""
        outputs = [image[..., :3] for image in self.outputs.values()]
        return find_most_different_window(outputs if len(outputs) < 3 else outputs[1:], self.scale)

    def crop(self, window: Window) -> ImageVersions:
        """Cut a window, whose place and size are multiples of the scale, out of all images."""
        outputs = {method: window.crop(image) for method, image in self.outputs.items()}
        high = None if self.high is None else window.crop(self.high)
        return ImageVersions(window.crop(self.low, self.scale), outputs, high)

    def error_maps(self) -> dict[str, NDArray[np.float64]]:
        """Compare the outputs with HR, by method: (H, W) mean absolute error over the channels, in [0, 255]."""
        if self.high is None:
            return {}
        high = self.high[..., :3].astype(np.float64)
        return {method: np.abs(image[..., :3] - high).mean(axis=2) for method, image in self.outputs.items()}


def find_most_different_window(images: Sequence[NDArray[np.uint8]], step: int, max_size: int = WINDOW_PX) -> Window:
    """Find the window with the greatest mean difference between images.

    The difference of a sample is its greatest value in any image less its least one, which for two images is the
    absolute difference.

    Args:
        images: (H, W, C) uint8, of one shape, H and W multiples of ``step``.
        step: Place and size of the window are multiples of it; with the scale factor the window has whole LR pixels.
        max_size: Height and width of the window at most, in pixels.

    Returns:
        The first such window from the top; the whole height or width where the image is smaller than the window.
    """
    spread = (reduce(np.maximum, images) - reduce(np.minimum, images)).sum(axis=2, dtype=np.int64)
    height, width = (min(max_size, side) // step * step for side in spread.shape)
    integral = np.pad(spread.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))  # [y, x]: the sum above and left of it
    sums = (
        integral[height:, width:]
        - integral[:-height, width:]
        - integral[height:, :-width]
        + integral[:-height, :-width]
    )
    row, column = np.unravel_index(sums[::step, ::step].argmax(), sums[::step, ::step].shape)
    return Window(int(row) * step, int(column) * step, height, width)
