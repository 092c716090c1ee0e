"""Upscale a part of an image as it will be in the whole output."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from PIL import Image

from esrgan.demo.models import resize_outputs
from esrgan.demo.views import Box, render
from esrgan.images import ImageData
from esrgan.inference import UpscaleOptions, Upscaler, upscale_image
from esrgan.inference.compare import CONTEXT_PX
from esrgan.inference.tiling import ProgressCallback

PART_PX = 256  # sides of a part in pixels of the output; two of them fit side by side, one fits a phone, at 1:1
# Parts are cut at multiples of this many pixels, so that networks that fold their input (pixel unshuffle) and tiles of
# Winograd's algorithm begin where they do in the whole image.
ALIGNMENT = 8


@dataclass(frozen=True)
class Part:
    """A part of an image.

    Attributes:
        left: First column in the output.
        top: First row in the output.
        width: Width in the output.
        height: Height in the output.
        input_size: Width and height of the whole input.
        output_size: Width and height of the whole output.
    """

    left: int
    top: int
    width: int
    height: int
    input_size: tuple[int, int]
    output_size: tuple[int, int]

    @property
    def output_box(self) -> tuple[int, int, int, int]:
        """The part in pixels of the output."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    @property
    def input_box(self) -> Box:
        """The part in pixels of the input."""
        left, top, right, bottom = self.output_box
        (width, height), (x, y) = self.input_size, self.output_size
        return left * width / x, top * height / y, right * width / x, bottom * height / y


def locate_part(shape: tuple[int, int], output_shape: tuple[int, int], across: float, down: float) -> Part:
    """Return a part of at most ``PART_PX`` pixels of the output.

    Args:
        shape: Height and width of the input.
        output_shape: Height and width of the output.
        across: Horizontal position of the part, from 0 (left) to 1 (right).
        down: Vertical position of the part, from 0 (top) to 1 (bottom).
    """
    height, width = (min(PART_PX, side) for side in output_shape)
    left, top = round(across * (output_shape[1] - width)), round(down * (output_shape[0] - height))
    return Part(left, top, width, height, (shape[1], shape[0]), (output_shape[1], output_shape[0]))


def find_position(
    shape: tuple[int, int], output_shape: tuple[int, int], x_fraction: float, y_fraction: float
) -> tuple[float, float]:
    """Return ``across`` and ``down``, as for ``locate_part``, of the part with a point in its centre if possible.

    Args:
        shape: Height and width of the input.
        output_shape: Height and width of the output.
        x_fraction: Horizontal position of the point, from 0 to 1.
        y_fraction: Vertical position of the point, from 0 to 1.
    """
    part = locate_part(shape, output_shape, 0, 0)
    rooms = output_shape[1] - part.width, output_shape[0] - part.height
    points = x_fraction * output_shape[1] - part.width / 2, y_fraction * output_shape[0] - part.height / 2
    across, down = (
        min(max(point / room, 0.0), 1.0) if room else 0.5 for point, room in zip(points, rooms, strict=True)
    )
    return across, down


def crop_bicubic(low: Image.Image, part: Part) -> Image.Image:
    """Return a part of the input, upscaled by bicubic interpolation."""
    return low.resize((part.width, part.height), Image.Resampling.BICUBIC, part.input_box)


def upscale_part(upscaler: Upscaler, image: ImageData, part: Part, progress: ProgressCallback) -> Image.Image:
    """Upscale a part of the first frame of an image.

    The part is computed with ``CONTEXT_PX`` pixels of its surroundings, so it differs from the whole output by rounding
    or little more. If the output is resized, it is resized by Pillow here, which differs by rounding, too.

    Args:
        upscaler: The upscaler of the whole image.
        image: The whole image.
        part: The part.
        progress: Called with the fraction of the work that is done, up to 1.

    Returns:
        The part, as browsers show it.
    """
    frame = image.frames[0]
    left, top, right, bottom = part.input_box
    first_column, first_row = (_align(side - CONTEXT_PX) for side in (left, top))
    columns = slice(first_column, math.ceil(right) + CONTEXT_PX)
    rows = slice(first_row, math.ceil(bottom) + CONTEXT_PX)
    scale = upscaler.computed_size(*frame.shape[:2])[0] / frame.shape[0]
    plain = resize_outputs(upscaler, UpscaleOptions(outscale=scale))
    # Metadata such as the duration of frames does not fit one frame.
    low = ImageData((frame[rows, columns],), extra_bands=image.extra_bands, no_data=image.no_data)
    upscaled = upscale_image(plain, low, progress)
    high = render(replace(upscaled, icc_profile=image.icc_profile, native_blocks=image.native_blocks))
    shift = (first_column, first_row) * 2
    box = [(side - start) * scale for side, start in zip(part.input_box, shift, strict=True)]
    return high.resize((part.width, part.height), Image.Resampling.BICUBIC, (box[0], box[1], box[2], box[3]))


def _align(position: float) -> int:
    return max(int(position // ALIGNMENT) * ALIGNMENT, 0)
