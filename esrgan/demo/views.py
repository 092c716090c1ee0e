"""Render images for the page: whole images, and parts at 1:1."""

from __future__ import annotations

import base64
import functools
import html
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from esrgan import images
from esrgan.images import ImageData

OVERVIEW_PX = 1280  # longest side of the views of a whole output, at most
PREVIEW_PX = 960  # longest side of the view of an upload
MAX_CACHED_VIEWS = 4  # whole images in memory: two inputs and their outputs
MARK_WIDTH = 3  # of the white lines around the part and the black ones around these

Box = tuple[float, float, float, float]  # left, top, right, bottom


@functools.lru_cache(MAX_CACHED_VIEWS)
def load_view(path: Path) -> Image.Image:
    """Read the first frame of an image as browsers show it."""
    return render(images.read_image(path))


def forget() -> None:
    """Forget all images in memory."""
    load_view.cache_clear()


def render(data: ImageData) -> Image.Image:
    """Return the first frame of an image as browsers show it: in 8 bits, on white where it is transparent."""
    frame = _to_uint8(data.frames[0][..., : data.base_channels])
    image = Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame)
    if image.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if data.icc_profile:
        image.info["icc_profile"] = data.icc_profile
    return image


def render_overview(source: Path, target: Path) -> tuple[Image.Image, Image.Image]:
    """Return the input, upscaled by bicubic interpolation, and the output, both resized to at most ``OVERVIEW_PX``."""
    low, high = load_view(source), load_view(target)
    factor = min(1, OVERVIEW_PX / max(high.size))
    size = (max(round(high.width * factor), 1), max(round(high.height * factor), 1))
    return low.resize(size, Image.Resampling.BICUBIC), high.resize(size, Image.Resampling.BICUBIC)


def preview_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the width and height of the view of an upload, from those of the upload."""
    factor = PREVIEW_PX / max(size)
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def mark_part(view: Image.Image, box: Box) -> Image.Image:
    """Return an image, resized to ``PREVIEW_PX``, with a frame around a part.

    Args:
        view: The image.
        box: The part, in pixels of the image.
    """
    marked = view.convert("RGB").resize(preview_size(view.size), Image.Resampling.BICUBIC)
    scale = (marked.width / view.width, marked.height / view.height) * 2
    left, top, right, bottom = (side * factor for side, factor in zip(box, scale, strict=True))
    right, bottom = max(right - 1, left), max(bottom - 1, top)
    draw = ImageDraw.Draw(marked)
    draw.rectangle(
        (left - MARK_WIDTH, top - MARK_WIDTH, right + MARK_WIDTH, bottom + MARK_WIDTH), None, "black", MARK_WIDTH
    )
    draw.rectangle((left, top, right, bottom), None, "white", MARK_WIDTH)
    marked.info |= {name: value for name, value in view.info.items() if name == "icc_profile"}
    return marked


def make_figures(figures: Iterable[tuple[str, str, Image.Image]]) -> str:
    """Return HTML that shows images at 1:1 with captions.

    Args:
        figures: For each image its caption, a text for those who do not see it, and the image.
    """
    items = "".join(
        f'<figure><img src="{_to_data_uri(image)}" width="{image.width}" height="{image.height}" '
        f'alt="{html.escape(alt)}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        for caption, alt, image in figures
    )
    return f'<div class="figures">{items}</div>'


def _to_data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _to_uint8(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert uint8, uint16 or float samples to uint8."""
    if frame.dtype == np.uint16:
        frame = frame >> 8
    if frame.dtype == np.float32:
        frame = (np.nan_to_num(frame).clip(0, 1) * 255).round()
    return frame.astype(np.uint8, copy=False)
