"""Patches to degrade in tests, and batches of images of different sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from esrgan.config.schema import Degradation as DegradationConfig
from esrgan.degradation.filters import ImageBatch

ROOT = Path(__file__).parent.parent.parent


PUBLISHED = DegradationConfig().model_dump()


def photo(height: int, width: int) -> Tensor:
    """Return the upper left corner of a photograph, (1, 3, H, W), 8-bit levels in [0, 1]."""
    image = np.array(Image.open(ROOT / "tests/assets/photo.png").convert("RGB"))[:height, :width]
    assert image.shape == (height, width, 3)
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def canvas(images: list[Tensor], beyond: float) -> ImageBatch:
    """Put (1, C, H, W) images of different sizes into one tensor filled with the value ``beyond``."""
    sizes = [(image.shape[2], image.shape[3]) for image in images]
    height, width = (max(size) for size in zip(*sizes, strict=True))
    pixels = torch.full((len(images), images[0].shape[1], height, width), beyond)
    for into, image, (h, w) in zip(pixels, images, sizes, strict=True):
        into[:, :h, :w] = image[0]
    return ImageBatch(pixels, sizes)


def cut(images: ImageBatch) -> list[Tensor]:
    return [pixels[None, :, :h, :w] for pixels, (h, w) in zip(images.pixels, images.sizes, strict=True)]


def batch(count: int, height: int = 64, width: int = 48) -> Tensor:
    whole = photo(72, 96)
    return torch.cat([whole[:, :, i : i + height, 3 * i : 3 * i + width] for i in range(count)])
