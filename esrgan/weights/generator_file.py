"""Generators on disk: read in any dialect and container, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from esrgan import pretrained
from esrgan.errors import WeightsError
from esrgan.models import RRDBNet
from esrgan.text import one_line
from esrgan.weights.architecture import (
    Architecture,
    StateDict,
    check_complete,
    check_tensors,
    infer_architecture,
    pop_residual_scaling,
)
from esrgan.weights.containers import extract_state_dict, load_file
from esrgan.weights.dialects import BASICSR, to_basicsr_names


@dataclass(frozen=True)
class GeneratorFile:
    """A generator as read from a file.

    Attributes:
        path: The file.
        state: float32 tensors under our names.
        architecture: What they belong to.
        stage: "pretraining" or "training" where the file says so, as ours do; None otherwise.
        alpha: α of a network interpolation, None otherwise.
        hparams: The configuration it was trained with, as JSON has it; empty if unknown.
        dialect: What the tensors were called in the file, in words for users; BasicSR's names are ours.
        licence: Of the weights, where the file says it; None otherwise.
    """

    path: Path
    state: StateDict
    architecture: Architecture
    stage: str | None
    alpha: float | None
    hparams: dict[str, Any]
    dialect: str = BASICSR.label
    licence: str | None = None

    def build(self) -> RRDBNet:
        """Make the generator with these weights, on the CPU, in evaluation mode."""
        network = self.architecture.build()
        network.load_state_dict(self.state)
        return network.eval()

    def to_dict(self) -> dict[str, Any]:
        """Give what a model file holds, for ``save_file``; its hparams say β where it would be read otherwise."""
        hparams, beta = self.hparams, self.architecture.residual_scaling
        said = _configured_residual_scaling(hparams)
        if (Architecture.residual_scaling if said is None else said) != beta:
            generator = hparams.get("generator")
            rest = generator if isinstance(generator, dict) else {}
            hparams = hparams | {"generator": rest | {"residual_scaling": beta}}
        licence = {"licence": self.licence} if self.licence else {}
        return {"params": self.state, "stage": self.stage, "alpha": self.alpha, "hparams": hparams, **licence}

    @property
    def origin(self) -> str:
        """Which training, or interpolation, it comes from, in a few words."""
        if self.alpha is not None:
            return f"interpolated, α = {self.alpha:g}"
        return {"pretraining": "PSNR stage", "training": "GAN stage", None: "of unknown training"}[self.stage]

    def describe(self) -> str:
        """Say in a few words what the file is."""
        ours = self.stage and self.dialect == BASICSR.label
        return ", ".join([str(self.architecture), *([] if ours else [self.dialect]), self.origin])


def load_generator(path: str | Path) -> GeneratorFile:
    """Read a generator of the ESRGAN family, by its content and whatever the file is called.

    That is a model file or checkpoint of ours, or a file of BasicSR, Real-ESRGAN, ESRGAN (old and new names), or the
    earlier framework; a PyTorch or safetensors file, or the ``.param`` or ``.bin`` of an ncnn pair.

    Args:
        path: The file, where for an ncnn pair the name without suffix will do, or a name of
            ``esrgan.pretrained.MODELS``.

    Raises:
        WeightsError: If it is missing, damaged, or no ESRGAN generator; one line that says which.
    """
    path = pretrained.resolve(path)
    return parse_generator(load_file(path), path)


def parse_generator(content: dict[str, Any], path: Path) -> GeneratorFile:
    """Find the generator in what ``load_file`` read from a file.

    Raises:
        WeightsError: If there is none.
    """
    place = str(path)
    state, dialect = to_basicsr_names(extract_state_dict(content, place), place)
    check_tensors(state, place)
    beta = pop_residual_scaling(state, place)
    architecture = infer_architecture(state, place)
    hparams = content.get("hparams")
    hparams = hparams if isinstance(hparams, dict) else {}
    if beta is None:
        beta = _configured_residual_scaling(hparams)
    if beta is not None:
        architecture = replace(architecture, residual_scaling=_to_finite_float(beta, "residual_scaling", place))
    with torch.device("meta"):  # names and shapes alone: a file must not make us allocate what it claims to hold
        network = architecture.build()
    check_complete(state, network, place)
    stage, alpha, licence = (content.get(key) for key in ("stage", "alpha", "licence"))
    return GeneratorFile(
        path=path,
        state=_to_float32(state, place),
        architecture=architecture,
        stage=stage if stage in ("pretraining", "training") else None,
        alpha=_to_finite_float(alpha, "alpha", place) if isinstance(alpha, (int, float)) else None,
        hparams=hparams if _is_json_serialisable(hparams) else {},
        dialect=dialect,
        licence=licence if isinstance(licence, str) else None,
    )


def _configured_residual_scaling(hparams: dict[str, Any]) -> float | None:
    """Read β from a configuration, None where it says nothing."""
    generator = hparams.get("generator")
    beta = generator.get("residual_scaling") if isinstance(generator, dict) else None
    return beta if isinstance(beta, (int, float)) else None


def _is_json_serialisable(value: dict[str, Any]) -> bool:
    """Tell whether JSON gives a dictionary back as it is: no tensors in it, no keys but text."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def _to_finite_float(value: float, name: str, place: str) -> float:
    with contextlib.suppress(OverflowError):  # of an integer that no float can hold
        if math.isfinite(value):
            return float(value)
    raise WeightsError(f"{place}: expected {name} to be a finite number; the file is damaged")


def _to_float32(state: StateDict, place: str) -> StateDict:
    state = {name: value.detach().float() for name, value in state.items()}
    if odd := [name for name, value in state.items() if not value.isfinite().all()]:
        raise WeightsError(
            f"{place}: NaN or infinity in {len(odd)} of {len(state)} tensors, the first is {odd[0]}; "
            "its training had diverged: use an earlier file"
        )
    return state


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
        with temporary.open(
            "wb"
        ) as file:  # not by name: PyTorch would put it into the file, safetensors close it to others
            if path.suffix.lower() == ".safetensors":
                metadata = {key: json.dumps(value) for key, value in content.items() if key != "params"}
                tensors = {name: value.contiguous() for name, value in content["params"].items()}
                file.write(safetensors.torch.save(tensors, metadata))
            else:
                torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # torch reports a full disk as RuntimeError
        raise WeightsError(
            f"{path}: cannot be written: {_system_error_text(error)}; nothing was changed there"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _system_error_text(error: BaseException) -> str:
    """Say what the system said, which PyTorch hides behind messages of its own."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, OSError):
        behind = behind.__context__
    return one_line((behind and behind.strerror) or str(error), 120)
