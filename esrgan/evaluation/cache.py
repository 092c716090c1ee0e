"""Cache scores, so that evaluating another model does not repeat earlier measurements."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from esrgan.console import log
from esrgan.errors import EsrganError
from esrgan.evaluation.results import ImageResult
from esrgan.files import write_text
from esrgan.metrics import Metric
from esrgan.version import __version__


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


def score_key(metric: Metric) -> str:
    """Return the name of a metric's scores in the cache, which includes a digest of the weights if it has any."""
    if metric.network is None:
        return metric.name
    return f"{metric.name} of torchmetrics {version('torchmetrics')} {hash_weights(metric.network)}"


class ResultCache:
    """A folder of scores, keyed by the images' pixels, the weights, the precision and the package versions.

    A file that cannot be read counts as missing. If a file cannot be written, the cache warns once and stops storing.

    Args:
        folder: Folder of the cache; None disables it.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load(self, key: Mapping[str, str]) -> ImageResult | None:
        """Return the result stored under a key, with scores by ``score_key``, or None if there is none."""
        if (folder := self.folder) is None:
            return None
        try:
            content = json.loads((folder / _file_name(key)).read_text(encoding="utf-8"))
            scores = {str(name): None if value is None else float(value) for name, value in content["scores"].items()}
            return ImageResult(scores, float(content["seconds"]), int(content["pixels"]), str(content["output"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def store(self, key: Mapping[str, str], result: ImageResult) -> None:
        """Store a result under a key."""
        if (folder := self.folder) is None:
            return
        content = {"of": dict(key), "scores": result.scores, "seconds": result.seconds}
        content |= {"pixels": result.pixels, "output": result.digest}
        try:
            write_text(folder / _file_name(key), json.dumps(content))
        except EsrganError as error:
            if self.folder is not None:  # another thread may have warned already
                self.folder = None
                log.warning("results are not cached: %s, set ESRGAN_CACHE to another folder, or pass --no-cache", error)


def _file_name(key: Mapping[str, str]) -> str:
    versions = {"esrgan": __version__, "torch": str(torch.__version__), "numpy": np.__version__}
    versions["scipy"] = version("scipy")
    return hashlib.sha256(json.dumps(dict(key) | versions, sort_keys=True).encode()).hexdigest() + ".json"
