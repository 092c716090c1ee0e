"""The models that the demo page offers, in plain words."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from esrgan.devices import select_device
from esrgan.errors import WeightsError
from esrgan.inference import UpscaleOptions, Upscaler
from esrgan.interpolation import load_blend
from esrgan.pretrained import MODELS, download_model, is_on_disk
from esrgan.text import format_size
from esrgan.weights import load_generator

MAX_CACHED_MODELS = 4  # applies to weight files and to upscalers, separately

# The kinds of images; ``esrgan.demo.uploads`` recognises them.
LOSSY, NOISY, DRAWING, CLEAN = "lossy", "noisy", "drawing", "clean"


@dataclass(frozen=True)
class PlainWords:
    """What a visitor needs to know of a model.

    Attributes:
        text: What the model is for.
        suits: The kinds of images that it was trained for.
    """

    text: str
    suits: frozenset[str]


_ROUGH, _CLEAN, _DRAWING = frozenset({LOSSY, NOISY}), frozenset({CLEAN}), frozenset({DRAWING})
PLAIN_WORDS = {
    "esrgan-photo": PlainWords("JPEG and noisy photos", _ROUGH),
    "esrgan-photo-psnr": PlainWords("JPEG and noisy photos, smooth", _ROUGH),
    "esrgan-lite": PlainWords("Clean photos, fast", _CLEAN),
    "esrgan-lite-psnr": PlainWords("Clean photos, smooth, fast", _CLEAN),
    "esrgan-full": PlainWords("Clean photos, finest, slow", _CLEAN),
    "esrgan-full-psnr": PlainWords("Clean photos, smooth, slow", _CLEAN),
    "esrgan-compact": PlainWords("Clean photos, fastest", _CLEAN),
    "esrgan-compact-psnr": PlainWords("Clean photos, smooth, fastest", _CLEAN),
    "esrgan-official": PlainWords("Clean photos, as in the paper, slow", _CLEAN),
    "esrgan-official-psnr": PlainWords("Clean photos, smooth, slow", _CLEAN),
    "realesrgan-x4plus": PlainWords("Poor photos, slow", _ROUGH),
    "realesrnet-x4plus": PlainWords("Poor photos, smooth, slow", _ROUGH),
    "realesrgan-x2plus": PlainWords("Poor photos", _ROUGH),
    "realesrgan-x4plus-anime": PlainWords("Drawings and anime", _DRAWING),
    "realesr-general-x4v3": PlainWords("Poor photos, α denoises, fast", _ROUGH),
    "realesr-general-wdn-x4v3": PlainWords("Poor photos, keeps noise, fast", _ROUGH),
    "realesr-animevideov3": PlainWords("Drawings and anime, fast", _DRAWING),
    "bsrgan": PlainWords("Poor photos, slow", _ROUGH),
}


class DemoModels:
    """The models that the page offers. They are loaded when first used, and the most recent ones stay in memory.

    Args:
        files: Weight files or model names, offered in addition to the downloaded ``esrgan.pretrained.MODELS``.
        device: A device as accepted by ``esrgan.devices.select_device``.

    Attributes:
        device: The device that computes.

    Raises:
        WeightsError: If a file is not a generator, or there is no model at all.
        DeviceError: If the device is not available.
    """

    def __init__(self, files: Sequence[str], device: str) -> None:
        self.device = select_device(device)
        self._load_cached = functools.lru_cache(MAX_CACHED_MODELS)(load_generator)
        self._get_cached_upscaler = functools.lru_cache(MAX_CACHED_MODELS)(self._make_upscaler)
        self._files: dict[str, str] = {}  # by names without folders, which visitors of the page should not see
        self._file_labels: dict[str, str] = {}
        for file in dict.fromkeys(files):
            name, count = Path(file).name, 1
            while name in self._files:
                count += 1
                name = f"{Path(file).name} ({count})"
            self._files[name] = file
            self._file_labels[name] = f"{name} ×{self._load_cached(file).scale:g}"
        if not self.labels:
            raise WeightsError(
                "there is no model on this machine; download one with `esrgan models NAME`, or use -m FILE"
            )

    @property
    def labels(self) -> dict[str, str]:
        """The label of each model that is on this machine, by its name."""
        named = {name: _describe(name) for name in MODELS if is_on_disk(name)}
        return self._file_labels | {name: label for name, label in named.items() if name not in self._files}

    @property
    def downloadable(self) -> dict[str, str]:
        """The label of each public model that is not on this machine, by its name."""
        names = (name for name, model in MODELS.items() if model.source is not None and not is_on_disk(name))
        return {name: _describe(name) for name in names}

    def download(self, name: str) -> str:
        """Download a public model, and return a sentence about it.

        Raises:
            WeightsError: If the name is unknown, the network fails, the disk is full or the checksum is wrong.
        """
        path = download_model(name)
        return f"{name}: downloaded, {format_size(path.stat().st_size)}, {MODELS[name].licence}, checksum verified"

    def psnr_partner(self, model: str) -> str | None:
        """Return the name of the PSNR partner that a model can be blended with; None if it is not on this machine."""
        psnr = MODELS[model].psnr_model if model in MODELS and model not in self._files else None
        return psnr if psnr is not None and is_on_disk(psnr) else None

    def list_main_models(self) -> list[str]:
        """Return the models that are not the partner of another one, for comparisons."""
        partners = {self.psnr_partner(name) for name in self.labels}
        return [name for name in self.labels if name not in partners]

    def suggest(self, kind: str, model: str) -> str | None:
        """Return the name of a model that suits a kind of image; None if the chosen one does, or none is known to."""
        words = None if model in self._files else PLAIN_WORDS.get(model)
        if words is None or kind in words.suits:
            return None
        names = (name for name in self.list_main_models() if name not in self._files)
        return next((name for name in names if name in PLAIN_WORDS and kind in PLAIN_WORDS[name].suits), None)

    def get_upscaler(self, model: str, alpha: float = 1.0, options: UpscaleOptions | None = None) -> Upscaler:
        """Return an upscaler for a model, or for its blend with its PSNR partner: (1 − α)·PSNR + α·model.

        Args:
            model: One of the keys of ``labels``.
            alpha: The share α of the model in the blend, from 0 to 1.
            options: The size of the output; None is that of the networks.

        Raises:
            WeightsError: If there is no such model, there is no partner for an α below 1, α is out of range, or the
                files cannot be blended.
        """
        if model not in (labels := self.labels):
            raise WeightsError(f"model: expected one of {', '.join(labels)}, got {model}")
        if not 0 <= alpha <= 1:
            raise WeightsError(f"strength: expected a number from 0 to 1, got {alpha:g}")
        if alpha < 1 and self.psnr_partner(model) is None:
            raise WeightsError(
                f"{model}: has no PSNR-oriented model to blend it with; set the strength to 1 to use it unblended"
            )
        upscaler = self._get_cached_upscaler(model, alpha)
        return resize_outputs(upscaler, options) if options is not None and options.has_size else upscaler

    def _make_upscaler(self, model: str, alpha: float) -> Upscaler:
        path = self._files.get(model, model)
        file = load_blend(path, alpha=alpha if alpha < 1 else None, load=self._load_cached)
        return Upscaler.from_file(file, str(self.device))


def resize_outputs(upscaler: Upscaler, options: UpscaleOptions) -> Upscaler:
    """Return an upscaler with the same networks and another size of its outputs."""
    sized = copy.copy(upscaler)
    sized.options = options
    return sized


def describe_download(name: str) -> str:
    """Return the size, as far as it is published, and the licence of a public model."""
    source = MODELS[name].source
    size = format_size(source.size) if source is not None and source.size else "size not published"
    return f"{size}, {MODELS[name].licence}"


def _describe(name: str) -> str:
    text = PLAIN_WORDS[name].text if name in PLAIN_WORDS else MODELS[name].summary
    return f"{text} – {name} ×{MODELS[name].scale}"
