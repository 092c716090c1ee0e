"""Figures that were measured before, so that another model does not cost the ones before it again."""

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
    """What is known of one method's result on one image.

    Attributes:
        scores: By what identifies a metric; None where the image is too small for it.
        seconds: That it took to enlarge.
        pixels: Of the result.
        output_digest: Digest of them.
    """

    scores: dict[str, float | None]
    seconds: float
    pixels: int
    output_digest: str


def hash_arrays(*arrays: NDArray[Any]) -> str:
    """Give a checksum of arrays: of their values, shapes and types."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def hash_weights(network: nn.Module) -> str:
    """Give a checksum of a network's weights, by their names."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class ResultCache:
    """Figures by what they are of: the pixels of the images, the weights, the precision, the versions.

    A file that cannot be read counts as none. When one cannot be written, that is said once, and no more are kept.

    Args:
        folder: Where to keep them; None keeps nothing.
        warn: Called with what is wrong with the folder.
    """

    def __init__(self, folder: Path | None, warn: Callable[[str], object] = print) -> None:
        self.folder = folder
        self.warn = warn

    def load(self, key: Mapping[str, str]) -> CachedResult | None:
        """Give what is known, if anything is."""
        if (folder := self.folder) is None:
            return None
        try:
            content = json.loads(self._path(folder, key).read_text(encoding="utf-8"))
            scores = {str(name): None if value is None else float(value) for name, value in content["figures"].items()}
            return CachedResult(scores, float(content["seconds"]), int(content["pixels"]), str(content["output"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def store(self, key: Mapping[str, str], result: CachedResult) -> None:
        """Keep what was measured."""
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
            if self.folder is not None:  # another thread may have said it
                self.folder = None
                self.warn(f"figures are not kept: {error}; ESRGAN_CACHE names another folder, --no-cache keeps none")

    @staticmethod
    def _path(folder: Path, key: Mapping[str, str]) -> Path:
        versions = {"esrgan": esrgan.__version__, "torch": str(torch.__version__), "numpy": np.__version__}
        versions["scipy"] = version("scipy")
        name = hashlib.sha256(json.dumps(dict(key) | versions, sort_keys=True).encode()).hexdigest()
        return folder / f"{name}.json"
