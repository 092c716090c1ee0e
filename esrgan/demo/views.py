"""Render images for the page: whole images, and parts at 1:1."""

from __future__ import annotations

import base64
import functools
import html
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from esrgan import images
from esrgan.images import ImageData
from esrgan.images.image import COLOUR_SPACE
from esrgan.images.samples import to_uint8
from esrgan.inference.frames import scale_to_unit

OVERVIEW_PX = 1280  # longest side of the views of a whole output, at most
PREVIEW_PX = 960  # longest side of the view of an upload
MAX_CACHED_VIEWS = 2  # inputs in memory, each with its output
MARK_WIDTH = 3  # of the white lines around the part and the black ones around these

Box = tuple[float, float, float, float]  # left, top, right, bottom


@functools.lru_cache(MAX_CACHED_VIEWS)
def load_views(source: Path, target: Path) -> tuple[Image.Image, Image.Image]:
    """Read the first frames of an input and its output as browsers show them, float samples in the same range."""
    low, high = images.read_image(source), images.read_image(target)
    return render(scale_to_unit(low)), render(scale_to_unit(high, low))


def forget() -> None:
    """Forget all images in memory."""
    load_views.cache_clear()


def render(data: ImageData) -> Image.Image:
    """Return the first frame of an image as browsers show it: in 8 bits, on white where it is transparent.

    Float samples are those that ``scale_to_unit`` returns. The gamma of a PNG file is applied, because Pillow stores
    none.
    """
    frame = _apply_gamma(to_uint8(data.frames[0][..., : data.base_channels]), data)
    image = Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame)
    if image.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if data.icc_profile:
        image.info["icc_profile"] = data.icc_profile
    return image


def _apply_gamma(frame: NDArray[np.uint8], data: ImageData) -> NDArray[np.uint8]:
    """Convert the colours of a PNG file with another gamma than sRGB's to sRGB."""
    chunks = {block.key: block.content for block in data.native_blocks if block.label == COLOUR_SPACE}
    gamma = int.from_bytes(chunks.get(b"gAMA", b"")[:4]) / 100_000
    if not gamma or b"cICP" in chunks:  # which comes first
        return frame
    light = np.linspace(0, 1, 256) ** (1 / gamma)
    table = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    colours = data.base_channels - data.has_alpha
    return np.concatenate([np.rint(table * 255).astype(np.uint8)[frame[..., :colours]], frame[..., colours:]], axis=2)


def render_overview(source: Path, target: Path) -> tuple[Image.Image, Image.Image]:
    """Return the input, upscaled by bicubic interpolation, and the output, both resized to at most ``OVERVIEW_PX``."""
    low, high = load_views(source, target)
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
