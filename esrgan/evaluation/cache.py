"""Figures that were measured before, so that another model does not cost the ones before it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
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
class Measured:
    """What is known of one method's result on one image.

    Attributes:
        figures: By what identifies a metric; None where the image is too small for it.
        seconds: That it took to enlarge.
        pixels: Of the result.
        output: Digest of them.
    """

    figures: dict[str, float | None]
    seconds: float
    pixels: int
    output: str


def pixel_digest(*arrays: NDArray[Any]) -> str:
    """Give a checksum of arrays: of their values, shapes and types."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def weights_digest(network: nn.Module) -> str:
    """Give a checksum of a network's weights, by their names."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class FigureCache:
    """Figures by what they are of: the pixels of the images, the weights, the precision, the versions.

    A file that cannot be read counts as none. When one cannot be written, that is said once, and no more are kept.

    Args:
        folder: Where to keep them; None keeps nothing.
        warn: Called with what is wrong with the folder.
    """

    def __init__(self, folder: Path | None, warn: Callable[[str], object] = print) -> None:
        self.folder = folder
        self.warn = warn

    def load(self, of: Mapping[str, str]) -> Measured | None:
        """Give what is known, if anything is."""
        if (folder := self.folder) is None:
            return None
        try:
            content = json.loads(self._path(folder, of).read_text(encoding="utf-8"))
            figures = {str(name): None if value is None else float(value) for name, value in content["figures"].items()}
            return Measured(figures, float(content["seconds"]), int(content["pixels"]), str(content["output"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def store(self, of: Mapping[str, str], measured: Measured) -> None:
        """Keep what was measured."""
        folder = self.folder
        if folder is None:
            return
        try:
            write_text(self._path(folder, of), json.dumps({"of": dict(of), **asdict(measured)}))
        except EsrganError as error:
            if self.folder is not None:  # another thread may have said it
                self.folder = None
                self.warn(f"figures are not kept: {error}; ESRGAN_CACHE names another folder, --no-cache keeps none")

    @staticmethod
    def _path(folder: Path, of: Mapping[str, str]) -> Path:
        versions = {"esrgan": esrgan.__version__, "torch": str(torch.__version__), "numpy": np.__version__}
        versions["scipy"] = version("scipy")
        key = hashlib.sha256(json.dumps(dict(of) | versions, sort_keys=True).encode()).hexdigest()
        return folder / f"{key}.json"
