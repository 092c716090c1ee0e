"""Weight files on disk. Nothing read from one is ever executed; one is written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import secrets
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from esrgan.errors import WeightsError
from esrgan.models import RRDBNet
from esrgan.weights.dialects import Architecture, State, check_complete, infer_architecture, unwrap


@dataclass(frozen=True)
class GeneratorFile:
    """A generator as read from a file.

    Attributes:
        path: The file.
        state: float32 tensors under our names.
        architecture: What they belong to.
        stage: "pretraining" or "training" where the file says so, as ours do; None otherwise.
        alpha: α of a network interpolation, None otherwise.
        hparams: The configuration it was trained with, empty if unknown.
    """

    path: Path
    state: State
    architecture: Architecture
    stage: str | None
    alpha: float | None
    hparams: dict[str, Any]

    def build(self) -> RRDBNet:
        """Make the generator with these weights, on the CPU, in evaluation mode."""
        network = self.architecture.build()
        network.load_state_dict(self.state)
        return network.eval()

    def describe(self) -> str:
        """Say in a few words what the file is."""
        origin = {"pretraining": "PSNR stage", "training": "GAN stage", None: "of unknown training"}[self.stage]
        return f"{self.architecture}, {origin if self.alpha is None else f'interpolated, α = {self.alpha:g}'}"


def load_generator(path: str | Path) -> GeneratorFile:
    """Read a generator from a model file, a checkpoint of ours, or a BasicSR / Real-ESRGAN file.

    Args:
        path: A .pth, .pt or .safetensors file.

    Raises:
        WeightsError: If it is missing, damaged, or no ESRGAN generator; one line that says which.
    """
    path = Path(path)
    return parse_generator(load_file(path), path)


def parse_generator(content: dict[str, Any], path: Path) -> GeneratorFile:
    """Find the generator in what ``load_file`` read from a file.

    Raises:
        WeightsError: If there is none.
    """
    state = {name: value.float() for name, value in unwrap(content, str(path)).items()}
    architecture = infer_architecture(state, str(path))
    hparams = content.get("hparams")
    hparams = hparams if isinstance(hparams, dict) else {}
    beta = hparams.get("generator", {}).get("residual_scaling") if isinstance(hparams.get("generator"), dict) else None
    if isinstance(beta, (int, float)):
        architecture = replace(architecture, residual_scaling=float(beta))
    with torch.device("meta"):  # names and shapes alone: a file must not make us allocate what it claims to hold
        network = architecture.build()
    check_complete(state, network, str(path))
    stage, alpha = content.get("stage"), content.get("alpha")
    return GeneratorFile(
        path=path,
        state=state,
        architecture=architecture,
        stage=stage if stage in ("pretraining", "training") else None,
        alpha=float(alpha) if isinstance(alpha, (int, float)) else None,
        hparams=hparams,
    )


def load_file(path: str | Path) -> dict[str, Any]:
    """Read the dictionary in a weight file onto the CPU, as tensors and plain values only.

    The metadata of a safetensors file is merged in, read as JSON where it is JSON.

    Raises:
        WeightsError: In one line: not there, a folder, empty, truncated, not a weight file, or one with code in it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(64).lstrip()
    except (FileNotFoundError, ValueError) as error:  # ValueError: a name that no file can have
        raise WeightsError(f"{path}: there is no such file") from error
    except IsADirectoryError as error:
        raise WeightsError(f"{path}: expected a weight file, got a folder; name the file in it") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise WeightsError(f"{path}: expected a weight file, got an empty one; download it again")
    if head[:1] == b"<":
        raise WeightsError(f"{path}: expected a weight file, got a web page saved under this name; download it again")
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a dictionary of weights, got a {type(content).__name__}")
    return content


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = {key: _as_json(value) for key, value in (file.metadata() or {}).items()}
            return {"params": {name: file.get_tensor(name) for name in file.keys()}} | metadata  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file: {_first_line(error)}; download it again") from error


def _as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _load_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or "GLOBAL" in str(error):
            reason = "it holds Python objects besides weights, which could run code, and is not opened"
            raise WeightsError(f"{path}: {reason}; save its state_dict alone") from error
        raise WeightsError(f"{path}: not a PyTorch weight file; download it again") from error
    except Exception as error:  # damaged input: torch raises nearly anything from within its unpickler
        raise WeightsError(f"{path}: damaged or truncated: {_first_line(error)}; download it again") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def save_file(path: str | Path, content: dict[str, Any]) -> None:
    """Write a weight file: to a temporary file beside it, flushed to the disk, then renamed over the old one.

    Args:
        path: Where to; the folder is made. A ``.safetensors`` file takes ``content["params"]`` as its tensors and the
            rest as metadata in JSON; any other suffix is PyTorch's format.
        content: Tensors, numbers, texts, lists and dictionaries of these.

    Raises:
        WeightsError: If it cannot be written; what was at ``path`` before is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            metadata = {key: json.dumps(value) for key, value in content.items() if key != "params"}
            tensors = {name: value.contiguous() for name, value in content["params"].items()}
            safetensors.torch.save_file(tensors, temporary, metadata)
        else:
            with temporary.open("wb") as file:
                torch.save(content, file)  # given a name it would put the temporary one into the file
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # torch reports a full disk as RuntimeError
        raise WeightsError(f"{path}: cannot be written: {_first_line(error)}; nothing was changed there") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
