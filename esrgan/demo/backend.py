"""What the page does, without Gradio: models, results, and the views that compare a result with its original."""

from __future__ import annotations

import functools
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from esrgan import images
from esrgan.devices import select_device
from esrgan.errors import EsrganError, WeightsError
from esrgan.inference import FileOptions, Upscaler, plan_jobs, upscale_files
from esrgan.inference.tiling import ProgressCallback
from esrgan.interpolation import blend
from esrgan.pretrained import MODELS, is_on_disk
from esrgan.weights import load_generator

OVERVIEW_PX = 1280  # longest side of the views of a whole picture
DETAIL_PX = 320  # longest side of those of a part, which are shown pixel by pixel on phones too
MAX_CACHED_MODELS = 4  # in memory, files and upscalers each
MAX_CACHED_VIEWS = 4  # whole pictures in memory: two originals and their results


class DemoModels:
    """The models that a page offers; loaded when first used, the last few are kept.

    Args:
        files: Weight files, or names, beside the models of ``esrgan.pretrained.MODELS`` that are here.
        device: As ``esrgan.devices.select_device`` takes it.

    Attributes:
        labels: What the page calls each model, by its name or path.

    Raises:
        WeightsError: If a file is no generator, or there is no model at all.
        DeviceError: If the device is not there.
    """

    def __init__(self, files: Sequence[str], device: str) -> None:
        self.device = select_device(device)
        self._load_cached = functools.lru_cache(MAX_CACHED_MODELS)(load_generator)
        self._get_cached_upscaler = functools.lru_cache(MAX_CACHED_MODELS)(self._make_upscaler)
        self.labels = {
            file: f"{Path(file).name} ×{self._load_cached(file).architecture.scale_factor}" for file in files
        }
        named = {name: f"{name} ×{model.scale}: {model.summary}" for name, model in MODELS.items() if is_on_disk(name)}
        self.labels |= named
        if not self.labels:
            raise WeightsError("no model is on this machine yet; `esrgan models NAME` downloads one, -m FILE names one")

    def psnr_partner(self, model: str) -> str | None:
        """Give the PSNR-oriented generator that a model can be blended with; None if there is none here."""
        psnr = MODELS[model].psnr_model if model in MODELS else None
        return psnr if psnr is not None and is_on_disk(psnr) else None

    def get_upscaler(self, model: str, alpha: float = 1.0) -> Upscaler:
        """Give a model, or its blend with its partner: (1 − α)·PSNR + α·model.

        Raises:
            WeightsError: If there is no such model, no partner for α below 1, or the files cannot be blended.
        """
        if model not in self.labels:
            raise WeightsError(f"model: expected one of {', '.join(self.labels)}, got {model}")
        if not 0 <= alpha <= 1:
            raise WeightsError(f"strength: expected a number from 0 to 1, got {alpha:g}")
        if alpha < 1 and self.psnr_partner(model) is None:
            raise WeightsError(
                f"{model}: comes without a PSNR-oriented model to blend it with; strength 1 uses it alone"
            )
        return self._get_cached_upscaler(model, alpha)

    def _make_upscaler(self, model: str, alpha: float) -> Upscaler:
        file = self._load_cached(model)
        if (psnr := self.psnr_partner(model)) is not None and alpha < 1:
            file = blend(self._load_cached(psnr), file, alpha)
        return Upscaler.from_file(file, str(self.device))


@dataclass(frozen=True)
class UpscaledImage:
    """A picture and its result.

    Attributes:
        source: The file that was given.
        target: The file that was made.
        seconds: How long that took, with reading and writing.
        notes: What the result does not keep of the file, in words.
    """

    source: Path
    target: Path
    seconds: float
    notes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result."""
        return _load_view(self.target).size


def upscale_file(
    upscaler: Upscaler, source: Path, folder: Path, max_pixels: int, progress: ProgressCallback
) -> UpscaledImage:
    """Enlarge a picture as ``esrgan inference`` does.

    Args:
        upscaler: With what.
        source: The file.
        folder: Where to make a folder for the result.
        max_pixels: Of the file, all frames together.
        progress: Told the share of the work that is done, up to 1.

    Raises:
        EsrganError: If it cannot be read, enlarged or written; the message has the file's name, but no folders.
    """
    begin = time.perf_counter()
    jobs, _ = plan_jobs([str(source)], folder / secrets.token_hex(8))
    (result,) = upscale_files(upscaler, jobs, FileOptions(max_pixels=max_pixels), lambda _: None, progress)
    target = result.job.target
    if result.error is not None:
        raise EsrganError(result.error.replace(f"{source.parent}{os.sep}", "").replace(f"{target.parent}{os.sep}", ""))
    return UpscaledImage(source, target, time.perf_counter() - begin, result.notes)


def render_overview(upscaled: UpscaledImage) -> tuple[Image.Image, Image.Image]:
    """Give the original, enlarged by bicubic, and the result in one size, of at most ``OVERVIEW_PX``."""
    low, high = _load_view(upscaled.source), _load_view(upscaled.target)
    factor = min(1, OVERVIEW_PX / max(high.size))
    size = (max(round(high.width * factor), 1), max(round(high.height * factor), 1))
    return low.resize(size, Image.Resampling.BICUBIC), high.resize(size, Image.Resampling.BICUBIC)


def render_detail(upscaled: UpscaledImage, x_fraction: float, y_fraction: float) -> tuple[Image.Image, Image.Image]:
    """Give a part of the original, enlarged by bicubic, and the same of the result, pixel by pixel.

    Args:
        upscaled: Both.
        x_fraction: Where the part is, from 0, at the left, to 1, at the right.
        y_fraction: From 0, at the top, to 1, at the bottom.
    """
    low, high = _load_view(upscaled.source), _load_view(upscaled.target)
    width, height = min(DETAIL_PX, high.width), min(DETAIL_PX, high.height)
    left, top = round(x_fraction * (high.width - width)), round(y_fraction * (high.height - height))
    right, bottom = left + width, top + height
    x, y = low.width / high.width, low.height / high.height
    before = low.resize((width, height), Image.Resampling.BICUBIC, (left * x, top * y, right * x, bottom * y))
    return before, high.crop((left, top, right, bottom))


@functools.lru_cache(MAX_CACHED_VIEWS)
def _load_view(path: Path) -> Image.Image:
    """The first frame of a picture as browsers show it: 8 bits, on white where it is transparent."""
    picture = images.read_image(path)
    frame = _to_uint8(picture.frames[0])
    image = Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame)
    if image.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if picture.icc_profile:
        image.info["icc_profile"] = picture.icc_profile
    return image


def _to_uint8(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Samples of any kind as a screen shows them."""
    if frame.dtype == np.uint16:
        frame = frame >> 8
    if frame.dtype == np.float32:
        frame = (frame.clip(0, 1) * 255).round()
    return frame.astype(np.uint8, copy=False)
