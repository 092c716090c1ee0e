"""Validation on whole images: losses, PSNR, SSIM, and panels for visual comparison."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from esrgan import images, metrics, resize
from esrgan.data import CachedPair, read_cached_pair
from esrgan.losses import ContentLoss, PerceptualLoss
from esrgan.models import RRDBNet
from esrgan.training import distributed
from esrgan.training.stages import Autocast

PANEL_SIZE = 320  # px; a panel shows at most this width and height of an HR image, from its centre
PANEL_LABELS = ["LR (nearest)", "bicubic", "SR", "HR"]


def to_tensor(image: np.ndarray, device: torch.device) -> Tensor:
    """Convert (H, W, C) uint8 to (1, C, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255


def to_image(tensor: Tensor) -> np.ndarray:
    """Convert (1, C, H, W), clamped to [0, 1], to (H, W, C) uint8, rounded."""
    image: np.ndarray = (tensor[0].float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return image


@torch.no_grad()
def validate(
    generator: RRDBNet,
    pairs: Sequence[CachedPair],
    content_loss: ContentLoss,
    perceptual_loss: PerceptualLoss | None,
    autocast: Autocast,
    device: torch.device,
    interrupted: threading.Event,
) -> dict[str, float] | None:
    """Measure a generator on whole images, which are divided among the processes.

    Returns:
        None if any process was interrupted. Otherwise means over all images: content_loss and, if enabled,
        perceptual_loss of the clamped output; PSNR in dB and SSIM of 8-bit images without a border of ``scale`` px, on
        Y (``PSNR``, ``SSIM``) and on RGB (``PSNR_RGB``, ``SSIM_RGB``).
    """
    rows = []
    for pair in pairs[distributed.rank() :: distributed.world_size()]:
        if interrupted.is_set():
            break
        low, high = read_cached_pair(pair)
        real = to_tensor(high, device)
        with autocast():
            fake = generator(to_tensor(low, device)).float().clamp(0, 1)
        scores = metrics.measure(to_image(fake), high, border=generator.scale_factor)
        row = {
            "content_loss": content_loss(fake, real).item(),
            "PSNR": scores["psnr_y"],
            "SSIM": scores["ssim_y"],
            "PSNR_RGB": scores["psnr_rgb"],
            "SSIM_RGB": scores["ssim_rgb"],
        }
        if perceptual_loss is not None:
            with autocast():
                row["perceptual_loss"] = perceptual_loss(fake, real).item()
        rows.append(row)
    if distributed.any_rank(interrupted.is_set()):
        return None
    names = ["content_loss", "PSNR", "SSIM", "PSNR_RGB", "SSIM_RGB"]
    names += ["perceptual_loss"] if perceptual_loss is not None else []
    sums = distributed.all_reduce_sum(
        torch.tensor([sum(row[name] for row in rows) for name in names], dtype=torch.float64)
    )
    return {name: value / len(pairs) for name, value in zip(names, sums.tolist(), strict=True)}


@torch.no_grad()
def make_panel(generator: RRDBNet, pairs: Sequence[CachedPair], autocast: Autocast, device: torch.device) -> np.ndarray:
    """Return a panel (H, W, 3) uint8 with LR, bicubic, SR and HR side by side, and one row per image (its centre)."""
    scale = generator.scale_factor
    rows = []
    for pair in pairs:
        low, high = read_cached_pair(pair)
        size = [min(PANEL_SIZE // scale, extent) for extent in low.shape[:2]]
        top, left = ((extent - length) // 2 for extent, length in zip(low.shape[:2], size, strict=True))
        low = low[top : top + size[0], left : left + size[1]]
        high = high[top * scale : (top + size[0]) * scale, left * scale : (left + size[1]) * scale]
        with autocast():
            fake = generator(to_tensor(low, device))
        nearest = low.repeat(scale, axis=0).repeat(scale, axis=1)
        rows.append([nearest, resize.bicubic(low, Fraction(scale)), to_image(fake), high])
    return images.make_contact_sheet(rows, PANEL_LABELS)
