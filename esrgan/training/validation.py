"""Validation on whole images: losses, PSNR, SSIM, panels for visual comparison, and which model is the best."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from esrgan import images, metrics, resize
from esrgan.data import CachedPair, read_cached_pair
from esrgan.devices import is_out_of_memory
from esrgan.errors import TrainingError
from esrgan.losses import ContentLoss, PerceptualLoss
from esrgan.machine import cpu_count, map_in_threads
from esrgan.models import Generator
from esrgan.training import distributed, interrupt
from esrgan.training.stages import Autocast

PANEL_SIZE = 320  # px; a panel shows at most this width and height of an HR image, from its centre
PANEL_LABELS = ["LR (nearest)", "bicubic", "SR", "HR"]
# Above this, errors are below a quarter of an 8-bit level. Without a cap, a single image that is perfect or nearly so,
# such as a black one, would decide which model is the best.
MAX_JUDGED_PSNR = 60.0
MAX_METRIC_THREADS = 4  # each needs about 0.5 GB for an image of 2040×1356 px
_SCORES = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")


@dataclass(frozen=True)
class Losses:
    """The losses that validation measures, and how they and the generator are computed."""

    content: ContentLoss
    perceptual: PerceptualLoss | None
    autocast: Autocast


@dataclass(frozen=True)
class Best:
    """The best validation of a stage so far."""

    score: float  # larger is better
    judge: dict[str, str]  # what scores depend on besides the generator; those of other judges cannot be compared


def to_tensor(image: np.ndarray, device: torch.device) -> Tensor:
    """Convert (H, W, C) uint8 to (1, C, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255


def to_image(tensor: Tensor) -> np.ndarray:
    """Convert (1, C, H, W), clamped to [0, 1], to (H, W, C) uint8, rounded."""
    image: np.ndarray = (tensor[0].float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return image


class BicubicUpscaler(Generator):
    """Bicubic upscaling, as a reference for generators.

    Args:
        scale_factor: Upscaling factor.
        channels: Channels of the images.
    """

    def __init__(self, scale_factor: int, channels: int) -> None:
        super().__init__(scale_factor, channels, channels)

    @override
    def forward(self, low: Tensor) -> Tensor:
        return to_tensor(resize.bicubic(to_image(low), Fraction(self.scale_factor)), low.device)


def validate(generator: Generator, pairs: Sequence[CachedPair], losses: Losses) -> dict[str, float]:
    """Measure a generator on whole images, which are divided among the processes.

    Returns:
        Means over all images: content_loss and, if enabled, perceptual_loss of the clamped output; PSNR in dB and SSIM
        of 8-bit images without a border of ``scale`` px, on Y (``PSNR``, ``SSIM``) and on RGB (``PSNR_RGB``,
        ``SSIM_RGB``). The means of PSNR are over the images that are not perfect; ``perfect_images`` counts the
        others. ``judged_psnr`` is the mean of PSNR on Y with ``MAX_JUDGED_PSNR`` as its maximum. ``colour_drift`` is
        the mean difference of the output from HR in the channel where it is largest, in 8-bit levels.

    Raises:
        Interrupted: In all processes, if one of them was asked to stop.
    """
    rows = torch.zeros((len(pairs), 6 + pairs[0].shape[2]), dtype=torch.float64)
    device_lock = threading.Lock()

    def measure(i: int) -> Tensor:
        if interrupt.is_requested():
            return rows[i]
        with _explain_lack_of_memory(pairs[i], losses.autocast.device):
            return _measure(generator, pairs[i], losses, device_lock)

    own = range(distributed.rank(), len(pairs), distributed.world_size())
    threads = _metric_threads(losses.autocast.device)
    for i, row in map_in_threads(measure, own, threads) if threads > 1 else ((i, measure(i)) for i in own):
        rows[i] = row
    if distributed.any_rank(interrupt.is_requested()):
        raise interrupt.Interrupted
    content, perceptual, psnr, ssim, psnr_rgb, ssim_rgb, *drifts = distributed.all_reduce_sum(rows).T.tolist()
    mean_psnr, num_perfect = metrics.finite_mean(psnr)
    values = {
        "content_loss": fmean(content),
        "PSNR": mean_psnr,
        "SSIM": fmean(ssim),
        "PSNR_RGB": metrics.finite_mean(psnr_rgb)[0],
        "SSIM_RGB": fmean(ssim_rgb),
        "judged_psnr": fmean(min(each, MAX_JUDGED_PSNR) for each in psnr),
        "colour_drift": max(map(fmean, drifts), key=abs),
        "perfect_images": num_perfect,
    }
    return values | ({"perceptual_loss": fmean(perceptual)} if losses.perceptual is not None else {})


def _metric_threads(device: torch.device) -> int:
    """Return of how many images to compute PSNR and SSIM at once, which takes far longer than a GPU needs to upscale.

    On a CPU the network itself uses all cores.
    """
    return 1 if device.type == "cpu" else min(cpu_count(), MAX_METRIC_THREADS)


@torch.no_grad()
def _measure(generator: Generator, pair: CachedPair, losses: Losses, device_lock: threading.Lock) -> Tensor:
    """Return content and perceptual loss, PSNR and SSIM on Y, both on RGB, and the drift of each channel in levels."""
    low, high = read_cached_pair(pair)
    # One image at a time is on the device, whose memory may not suffice for more.
    with device_lock:
        real = to_tensor(high, losses.autocast.device)
        with losses.autocast():
            fake = generator(to_tensor(low, real.device)).float().clamp(0, 1)
            perceptual = losses.perceptual(fake, real).item() if losses.perceptual is not None else 0.0
        content, drift = losses.content(fake, real).item(), ((fake - real).mean(dim=(0, 2, 3)) * 255).tolist()
        image = to_image(fake)
        del real, fake
    scores = metrics.measure(image, high, border=generator.scale_factor)
    return torch.tensor([content, perceptual, *(scores[name] for name in _SCORES), *drift])


@contextmanager
def _explain_lack_of_memory(pair: CachedPair, device: torch.device) -> Iterator[None]:
    """Name the image if the block runs out of memory: images are validated as a whole, unlike training patches.

    Raises:
        TrainingError: For a lack of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        height, width = pair.shape[:2]
        raise TrainingError(
            f"{pair.source.high}: {device} has too little memory to validate an image of {width}×{height} px; crop the "
            f"validation images or choose others; --resume auto continues from the last checkpoint"
        ) from error


def make_judge(stage: str, pairs: Sequence[CachedPair], perceptual_loss: PerceptualLoss | None) -> dict[str, str]:
    """Return what the best model of a stage is judged by; see ``Best``.

    The PSNR stage is judged by PSNR on Y, which it optimises. The GAN stage trades PSNR for texture, so PSNR would
    select its first steps. It is judged by the perceptual loss; without one, the newest model counts as best.
    """
    content = "".join(sorted(f"{pair.shape}{pair.scale}{pair.checksum:08x}" for pair in pairs))
    validation_images = {"the validation images": hashlib.sha256(content.encode()).hexdigest()}
    if stage == "pretraining":
        return {"the criterion": "PSNR"} | validation_images
    if perceptual_loss is None:
        return {"the criterion": "newest"}
    distance = f"{perceptual_loss} {perceptual_loss.layer_weights} {perceptual_loss.distance.distance.__name__}"
    weights = hashlib.sha256(distance.encode())
    for value in perceptual_loss.state_dict().values():
        weights.update(value.detach().cpu().numpy().tobytes())
    return {"the criterion": "perceptual loss", "the perceptual loss": weights.hexdigest()} | validation_images


def score(values: dict[str, float], judge: dict[str, str], done: int) -> float:
    """Return the score of a validation after ``done`` steps; larger is better."""
    criterion = judge["the criterion"]
    if criterion == "newest":
        return done
    return values["judged_psnr"] if criterion == "PSNR" else -values["perceptual_loss"]


@torch.no_grad()
def make_panel(generator: Generator, pairs: Sequence[CachedPair], losses: Losses) -> np.ndarray:
    """Return a panel (H, W, 3) uint8 with LR, bicubic, SR and HR side by side, and one row per image (its centre)."""
    scale = generator.scale_factor
    rows = []
    for pair in pairs:
        low, high = read_cached_pair(pair)
        size = [min(PANEL_SIZE // scale, extent) for extent in low.shape[:2]]
        top, left = ((extent - length) // 2 for extent, length in zip(low.shape[:2], size, strict=True))
        low = low[top : top + size[0], left : left + size[1]]
        high = high[top * scale : (top + size[0]) * scale, left * scale : (left + size[1]) * scale]
        with losses.autocast():
            fake = generator(to_tensor(low, losses.autocast.device))
        nearest = low.repeat(scale, axis=0).repeat(scale, axis=1)
        rows.append([nearest, resize.bicubic(low, Fraction(scale)), to_image(fake), high])
    return images.make_contact_sheet(rows, PANEL_LABELS)
