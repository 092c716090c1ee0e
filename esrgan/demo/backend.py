"""Load models, upscale files and render comparisons for the demo page, independently of Gradio."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from esrgan.interpolation import load_blend
from esrgan.pretrained import MODELS, is_on_disk
from esrgan.weights import load_generator

OVERVIEW_PX = 1280  # longest side of the views of a whole image
DETAIL_PX = 320  # longest side of the detail views, which must fit a phone's screen at 1:1
MAX_CACHED_MODELS = 4  # applies to weight files and to upscalers, separately
MAX_CACHED_VIEWS = 4  # whole images in memory: two inputs and their outputs


class DemoModels:
    """The models that the page offers. They are loaded when first used, and the most recent ones stay in memory.

    Args:
        files: Weight files or model names, offered in addition to the downloaded ``esrgan.pretrained.MODELS``.
        device: A device as accepted by ``esrgan.devices.select_device``.

    Attributes:
        labels: The label of each model on the page, by its name or path.
        device: The device that computes.

    Raises:
        WeightsError: If a file is not a generator, or there is no model at all.
        DeviceError: If the device is not available.
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
            raise WeightsError(
                "there is no model on this machine; download one with `esrgan models NAME`, or use -m FILE"
            )

    def psnr_partner(self, model: str) -> str | None:
        """Return the name of the PSNR partner that a model can be blended with; None if it is not on this machine."""
        psnr = MODELS[model].psnr_model if model in MODELS else None
        return psnr if psnr is not None and is_on_disk(psnr) else None

    def get_upscaler(self, model: str, alpha: float = 1.0) -> Upscaler:
        """Return an upscaler for a model, or for its blend with its PSNR partner: (1 − α)·PSNR + α·model.

        Args:
            model: One of the keys of ``labels``.
            alpha: The share α of the model in the blend, from 0 to 1.

        Raises:
            WeightsError: If there is no such model, there is no partner for an α below 1, α is out of range, or the
                files cannot be blended.
        """
        if model not in self.labels:
            raise WeightsError(f"model: expected one of {', '.join(self.labels)}, got {model}")
        if not 0 <= alpha <= 1:
            raise WeightsError(f"strength: expected a number from 0 to 1, got {alpha:g}")
        if alpha < 1 and self.psnr_partner(model) is None:
            raise WeightsError(
                f"{model}: has no PSNR-oriented model to blend it with; set the strength to 1 to use it unblended"
            )
        return self._get_cached_upscaler(model, alpha)

    def _make_upscaler(self, model: str, alpha: float) -> Upscaler:
        file = load_blend(model, alpha=alpha if alpha < 1 else None, load=self._load_cached)
        return Upscaler.from_file(file, str(self.device))


@dataclass(frozen=True)
class UpscaledImage:
    """An input file and its output.

    Attributes:
        source: The input file.
        target: The output file.
        seconds: How long upscaling took, with reading and writing.
        notes: Sentences about what the output does not preserve, such as bit depth.
    """

    source: Path
    target: Path
    seconds: float
    notes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """The width and height of the output."""
        return _load_view(self.target).size


def upscale_file(
    upscaler: Upscaler, source: Path, folder: Path, max_pixels: int, progress: ProgressCallback
) -> UpscaledImage:
    """Upscale a file as ``esrgan inference`` does.

    Args:
        upscaler: The upscaler to use.
        source: The input file.
        folder: The output is written into a new folder below this one.
        max_pixels: Limit for the input, all frames together.
        progress: Called with the fraction of the work that is done, up to 1.

    Returns:
        The input file and its output.

    Raises:
        EsrganError: If the file cannot be read, upscaled or written. The message has the name of the file without its
            folders, because visitors of the page see it.
    """
    begin = time.perf_counter()
    jobs, _ = plan_jobs([str(source)], folder / secrets.token_hex(8))
    (result,) = upscale_files(upscaler, jobs, FileOptions(max_pixels=max_pixels), lambda _, share: progress(share))
    if result.error is not None:
        raise EsrganError(replace(result.error, place=Path(result.error.place).name))
    return UpscaledImage(source, result.job.target, time.perf_counter() - begin, result.notes)


def render_overview(upscaled: UpscaledImage) -> tuple[Image.Image, Image.Image]:
    """Return the input, upscaled by bicubic interpolation, and the output, both resized to at most ``OVERVIEW_PX``."""
    low, high = _load_view(upscaled.source), _load_view(upscaled.target)
    factor = min(1, OVERVIEW_PX / max(high.size))
    size = (max(round(high.width * factor), 1), max(round(high.height * factor), 1))
    return low.resize(size, Image.Resampling.BICUBIC), high.resize(size, Image.Resampling.BICUBIC)


def render_detail(upscaled: UpscaledImage, x_fraction: float, y_fraction: float) -> tuple[Image.Image, Image.Image]:
    """Return a crop of the input, upscaled by bicubic interpolation, and the same crop of the output at 1:1.

    Args:
        upscaled: The input file and its output.
        x_fraction: Horizontal position of the crop, from 0 (left) to 1 (right).
        y_fraction: Vertical position of the crop, from 0 (top) to 1 (bottom).
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
    """Read the first frame of an image as browsers show it: in 8 bits, on white where it is transparent."""
    data = images.read_image(path)
    frame = _to_uint8(data.frames[0])
    image = Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame)
    if image.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if data.icc_profile:
        image.info["icc_profile"] = data.icc_profile
    return image


def _to_uint8(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert uint8, uint16 or float samples to uint8."""
    if frame.dtype == np.uint16:
        frame = frame >> 8
    if frame.dtype == np.float32:
        frame = (frame.clip(0, 1) * 255).round()
    return frame.astype(np.uint8, copy=False)
