"""The JPEG simulation against libjpeg."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from esrgan.degradation.jpeg import compress
from tests.helpers.degradation import canvas, cut, photo


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sizes", [[(72, 96)] * 6, [(72, 96), (61, 47), (32, 33), (16, 16), (9, 90), (1, 1)]])
def test_jpeg_matches_libjpeg(sizes: list[tuple[int, int]], channels: int) -> None:
    """Check a mean error below ½ level, since libjpeg rounds some halves differently, each of which affects a block."""
    qualities = [5, 30, 50, 75, 95, 100]
    images = [photo(*size)[:, :channels] for size in sizes]
    full = [False, True, False, True, True, False] if channels == 3 else []
    compressed = cut(compress(canvas(images, 7.0), qualities, full))
    for made, image, quality, is_full in zip(compressed, images, qualities, full or [False] * 6, strict=True):
        pixels = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(
            file, "JPEG", quality=quality, subsampling="4:4:4" if is_full else "4:2:0"
        )
        expected = np.array(Image.open(file)).reshape(pixels.shape)
        difference = np.abs((made[0] * 255).permute(1, 2, 0).numpy() - expected)
        # The result does not depend on the rest of the batch.
        assert torch.equal(made, cut(compress(canvas([image], 7.0), [quality], [is_full]))[0])
        assert difference.mean() < 0.5, quality
        assert (difference > 2).mean() < 0.04, quality
    assert torch.equal(compressed[0] * 255, (compressed[0] * 255).round())
