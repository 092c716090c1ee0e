"""Smooth test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def write_images(folder: Path, count: int, size: tuple[int, int] = (44, 40), channels: int = 3) -> Path:
    """Write smooth images 0.png, 1.png, … of size (width, height), all different and the same in each call."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        blots = np.random.default_rng((i, channels)).integers(0, 256, (5, 6, channels), dtype=np.uint8)
        image = Image.fromarray(blots.squeeze(), MODES[channels])
        image.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder
