"""Read uploads, and say what they are: size, work, and which kind of model suits them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esrgan import images
from esrgan.demo.models import CLEAN, DRAWING, LOSSY, NOISY
from esrgan.errors import EsrganError, ImageError, Problem
from esrgan.images import ImageData
from esrgan.images.samples import peak_value
from esrgan.inference import Upscaler
from esrgan.inference.frames import scale_to_unit
from esrgan.machine import obtainable_memory

# Images beyond the limit of the page can be viewed and tried in parts if they are at most this many times larger. That
# is what a ×4 model makes of an image within the limit, so the machine handles images of that size anyway.
VIEW_FACTOR = 16
MAX_CACHED_IMAGES = 2
MAX_CACHED_UPLOADS = 256
NOISE_LEVELS = 5.0  # standard deviation, in levels of 255, from which an image counts as noisy
FLAT_SHARE = 0.5  # share of equal neighbours from which an image counts as a drawing


@dataclass(frozen=True)
class Upload:
    """What is known about an uploaded image.

    Attributes:
        path: The file.
        shapes: Height and width of each frame.
        passes: How many times networks are applied to a frame: once for the colours, and for alpha and each extra band.
        kind: ``LOSSY``, ``NOISY``, ``DRAWING`` or ``CLEAN``.
    """

    path: Path
    shapes: tuple[tuple[int, int], ...]
    passes: int
    kind: str

    @property
    def pixels(self) -> int:
        """The number of pixels, all frames together."""
        return sum(height * width for height, width in self.shapes)

    def output_shapes(self, upscaler: Upscaler) -> list[tuple[int, int]]:
        """Return height and width of each frame of the output."""
        return [upscaler.output_size(*shape) for shape in self.shapes]

    def work(self, upscaler: Upscaler) -> float:
        """Return how many input pixels the networks process, as ``esrgan.demo.timing`` counts them.

        Raises:
            EsrganError: If the networks cannot reach the size of the output.
        """
        return self.passes * sum(
            float(height * width)
            for shape in self.shapes
            for height, width in upscaler.chain.sizes(shape, upscaler.count_steps(*shape))[:-1]
        )


@functools.lru_cache(MAX_CACHED_UPLOADS)
def inspect_upload(path: Path, max_pixels: int) -> Upload:
    """Read an upload and describe it.

    Args:
        path: The file.
        max_pixels: The limit of the page, all frames together. Images up to ``VIEW_FACTOR`` times larger are read, too.

    Raises:
        ImageError: If the file cannot be read or is too large even to be viewed. The message has the name of the file
            without its folders, because visitors of the page see it.
    """
    image = read_upload(path, max_pixels)
    shapes = tuple((frame.shape[0], frame.shape[1]) for frame in image.frames)
    return Upload(path, shapes, 1 + image.has_alpha + image.extra_bands, recognise_kind(image))


@functools.lru_cache(MAX_CACHED_IMAGES)
def read_upload(path: Path, max_pixels: int) -> ImageData:
    """Read an upload to be shown, so float samples are scaled to 0–1; see ``inspect_upload``."""
    try:
        return scale_to_unit(images.read_image(path, max_pixels * VIEW_FACTOR, obtainable_memory() // 5))
    except EsrganError as error:
        raise ImageError(hide_folder(error)) from error


def hide_folder(error: EsrganError) -> str | Problem:
    """Return the first problem of an error, with the name of a file without its folders."""
    problem = error.problems[0]
    if not isinstance(problem, Problem) or "://" in problem.place:
        return problem
    return replace(problem, place=Path(problem.place).name)


def describe_limit(upload: Upload, max_pixels: int) -> str | None:
    """Return what to do about an image that is too large to be upscaled; None if it is not."""
    if upload.pixels <= max_pixels:
        return None
    needed = -(-upload.pixels // 10**5) / 10
    return (
        f"{upload.path.name}: {upload.pixels / 1e6:.3g} megapixels are more than the {max_pixels / 1e6:.3g} that this "
        f"page upscales. Try a part of it here, upload a part, or ask the owner of the page to start it with "
        f"--max-megapixels {needed:g}."
    )


def recognise_kind(image: ImageData) -> str:
    """Return the kind of an image, by its file format and simple statistics of its first frame."""
    frame = image.frames[0][..., : image.base_channels - image.has_alpha]
    levels = np.nan_to_num(frame.astype(np.float32) * (255 / peak_value(frame.dtype))).mean(axis=2)
    is_lossy = image.file_format == "JPEG" or not image.lossless
    if not is_lossy and _share_of_equal_neighbours(frame) > FLAT_SHARE:
        return DRAWING
    if is_lossy:
        return LOSSY
    return NOISY if estimate_noise(levels) > NOISE_LEVELS else CLEAN


def _share_of_equal_neighbours(frame: NDArray[np.generic]) -> float:
    if frame.shape[1] < 2:
        return 0.0
    return float((frame[:, 1:] == frame[:, :-1]).all(axis=2).mean())


def estimate_noise(levels: NDArray[np.float32]) -> float:
    """Estimate the standard deviation of noise from the diagonal details (Donoho and Johnstone 1994, median / 0.6745).

    Args:
        levels: A grey image (H, W).

    Returns:
        The standard deviation in the unit of the samples; 0 for an image of one row or column.
    """
    height, width = (side // 2 * 2 for side in levels.shape)
    if not height or not width:
        return 0.0
    even = levels[:height, :width]
    details = (even[::2, ::2] - even[::2, 1::2] - even[1::2, ::2] + even[1::2, 1::2]) / 2
    return float(np.median(np.abs(details)) / 0.6745)
