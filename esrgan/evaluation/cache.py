"""Cache scores, so that evaluating another model does not repeat earlier measurements."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import esrgan
from esrgan.errors import EsrganError
from esrgan.files import write_text


@dataclass(frozen=True)
class CachedResult:
    """The cached scores of one method on one image.

    Attributes:
        scores: Scores by the metric's cache key; None where the image is too small for the metric.
        seconds: Upscaling time.
        pixels: Number of pixels of the output.
        output_digest: Digest of the output's pixels.
    """

    scores: dict[str, float | None]
    seconds: float
    pixels: int
    output_digest: str


def hash_arrays(*arrays: NDArray[Any]) -> str:
    """Return a digest of the arrays' values, shapes and types."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def hash_weights(network: nn.Module) -> str:
    """Return a digest of a network's weights and their names."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class ResultCache:
    """A folder of scores, keyed by the images' pixels, the weights, the precision and the package versions.

    A file that cannot be read counts as missing. If a file cannot be written, the cache warns once and stops storing.

    Args:
        folder: Folder of the cache; None disables it.
        warn: Called with a message if the folder cannot be written to.
    """

    def __init__(self, folder: Path | None, warn: Callable[[str], object] = print) -> None:
        self.folder = folder
        self.warn = warn

    def load(self, key: Mapping[str, str]) -> CachedResult | None:
        """Return the result stored under a key, or None if there is none."""
        if (folder := self.folder) is None:
            return None
        try:
            content = json.loads(self._path(folder, key).read_text(encoding="utf-8"))
            scores = {str(name): None if value is None else float(value) for name, value in content["figures"].items()}
            return CachedResult(scores, float(content["seconds"]), int(content["pixels"]), str(content["output"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def store(self, key: Mapping[str, str], result: CachedResult) -> None:
        """Store a result under a key."""
        folder = self.folder
        if folder is None:
            return
        content = {
            "of": dict(key),
            "figures": result.scores,
            "seconds": result.seconds,
            "pixels": result.pixels,
            "output": result.output_digest,
        }
        try:
            write_text(self._path(folder, key), json.dumps(content))
        except EsrganError as error:
            if self.folder is not None:  # another thread may have warned already
                self.folder = None
                self.warn(f"results are not cached: {error}, set ESRGAN_CACHE to another folder, or pass --no-cache")

    @staticmethod
    def _path(folder: Path, key: Mapping[str, str]) -> Path:
        versions = {"esrgan": esrgan.__version__, "torch": str(torch.__version__), "numpy": np.__version__}
        versions["scipy"] = version("scipy")
        name = hashlib.sha256(json.dumps(dict(key) | versions, sort_keys=True).encode()).hexdigest()
        return folder / f"{name}.json"
