"""ESRGAN image super-resolution: train, evaluate, upscale and blend generators.

Example:
    >>> from esrgan import Upscaler
    >>> Upscaler.from_file()("photo.png").save("photo_sr.png")  # the bundled model
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from esrgan.version import __version__ as __version__

if TYPE_CHECKING:
    from esrgan.config import Config as Config
    from esrgan.config import load as load_config  # noqa: F401  in __all__ under its public name
    from esrgan.errors import EsrganError as EsrganError
    from esrgan.evaluation import EvaluationOptions as EvaluationOptions
    from esrgan.evaluation import evaluate as evaluate
    from esrgan.inference import Upscaler as Upscaler
    from esrgan.inference import upscale_files as upscale_files
    from esrgan.interpolation import blend as blend
    from esrgan.interpolation import interpolate as interpolate
    from esrgan.models import RRDBNet as RRDBNet
    from esrgan.training import TrainOptions as TrainOptions
    from esrgan.training import train as train
    from esrgan.video import VideoOptions as VideoOptions
    from esrgan.video import upscale_video as upscale_video
    from esrgan.weights import load_generator as load_generator

# Each name is imported on first use, because importing PyTorch takes seconds.
_LAZY_IMPORTS = {
    "Config": ("esrgan.config", "Config"),
    "EsrganError": ("esrgan.errors", "EsrganError"),
    "EvaluationOptions": ("esrgan.evaluation", "EvaluationOptions"),
    "RRDBNet": ("esrgan.models", "RRDBNet"),
    "TrainOptions": ("esrgan.training", "TrainOptions"),
    "Upscaler": ("esrgan.inference", "Upscaler"),
    "blend": ("esrgan.interpolation", "blend"),
    "evaluate": ("esrgan.evaluation", "evaluate"),
    "interpolate": ("esrgan.interpolation", "interpolate"),
    "load_config": ("esrgan.config", "load"),
    "load_generator": ("esrgan.weights", "load_generator"),
    "train": ("esrgan.training", "train"),
    "VideoOptions": ("esrgan.video", "VideoOptions"),
    "upscale_video": ("esrgan.video", "upscale_video"),
    "upscale_files": ("esrgan.inference", "upscale_files"),
}
__all__ = sorted(_LAZY_IMPORTS)


def __getattr__(name: str) -> Any:
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module 'esrgan' has no attribute {name!r}")
    module, attribute = _LAZY_IMPORTS[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return [*globals(), *_LAZY_IMPORTS]
