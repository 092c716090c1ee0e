"""Read generators in any dialect and container format, and write weight files atomically."""

from __future__ import annotations

import contextlib
import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from esrgan import pretrained
from esrgan.devices import move_to_cpu
from esrgan.errors import WeightsError
from esrgan.files import atomic_write, describe_write_error, write_remedy
from esrgan.models import Generator
from esrgan.text import one_line
from esrgan.weights.architecture import (
    Architecture,
    CompactArchitecture,
    RRDBNetArchitecture,
    StateDict,
    check_complete,
    check_tensors,
    infer_architecture,
    make_empty,
    pop_residual_scaling,
)
from esrgan.weights.containers import extract_state_dict, load_file
from esrgan.weights.dialects import BASICSR, EARLIER_LABEL, to_basicsr_names

_UNKNOWN_ORIGIN = "of unknown training"


@dataclass(frozen=True, eq=False)  # tensors have no equality that is one truth value
class GeneratorFile:
    """A generator read from a file.

    Attributes:
        path: The file.
        state: The weights, float32 tensors under our names.
        architecture: The network that the weights belong to.
        stage: The training stage, "pretraining" or "training"; None if the file does not record it.
        alpha: α if the weights are a network interpolation, else None.
        hparams: The training configuration as parsed JSON; empty if unknown.
        dialect: Label of the naming scheme in the file; our names are BasicSR's.
        licence: Licence of the weights; None if the file does not record it.
        known: What is recorded about the file if it is a public model.
        outscale: The upscaling factor that the file intends, if it is below the network's: some ncnn files reduce the
            network's output in a last layer.
        is_blend: Whether the weights are a network interpolation of any kind, also one without a known α.
    """

    path: Path
    state: StateDict
    architecture: Architecture
    stage: str | None
    alpha: float | None
    hparams: dict[str, Any]
    dialect: str = BASICSR.label
    licence: str | None = None
    outscale: float | None = None
    is_blend: bool = False
    known: pretrained.KnownModel | None = None

    def __post_init__(self) -> None:
        if self.alpha is not None:
            object.__setattr__(self, "is_blend", True)

    def build(self) -> Generator:
        """Return the generator with these weights, on the CPU, in evaluation mode."""
        network = make_empty(self.architecture.build)
        network.load_state_dict({name: value.clone() for name, value in self.state.items()}, assign=True)
        return network.eval()

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a model file, for ``save_file``.

        The hparams record what the tensors do not show (β, or the activation) if it would be read back differently.
        """
        hparams = self.hparams
        for key, value in _hidden_arguments(self.architecture).items():
            if _configured(hparams, key, DEFAULTS[key]) != value:
                generator = hparams.get("generator")
                rest = generator if isinstance(generator, dict) else {}
                hparams = hparams | {"generator": rest | {key: value}}
        optional = {"licence": self.licence, "outscale": self.outscale, "blend": self.is_blend}
        content = {"params": self.state, "stage": self.stage, "alpha": self.alpha, "hparams": hparams}
        return content | {key: value for key, value in optional.items() if value}

    @property
    def scale(self) -> float:
        """The upscaling factor of the output, a whole number unless ``outscale`` is another."""
        return self.architecture.scale_factor if self.outscale is None else self.outscale

    @property
    def size(self) -> str:
        """The network and the factor to which its output is reduced, as a short text."""
        return f"{self.architecture}, reduced to ×{self.outscale:g}" if self.outscale else str(self.architecture)

    @property
    def origin(self) -> str:
        """The training stage or interpolation that produced the weights, as a short text."""
        if self.alpha is not None:
            return f"interpolated, α = {self.alpha:g}"
        if self.is_blend:
            return "interpolated"
        # The JSON output of commands contains these texts, so they keep their wording.
        return {"pretraining": "PSNR stage", "training": "GAN stage", None: _UNKNOWN_ORIGIN}[self.stage]

    def describe(self) -> str:
        """Return architecture, naming scheme if it is not ours, origin, and what is known of the file, as one text."""
        ours = self.stage and self.dialect == BASICSR.label
        origin = [] if self.known and self.origin == _UNKNOWN_ORIGIN else [self.origin]
        parts = [self.size, *([] if ours else [self.dialect]), *origin]
        return f"{', '.join(parts)}{f'; {self.known}' if self.known else ''}"


def load_generator(path: str | os.PathLike[str]) -> GeneratorFile:
    """Read a generator of the ESRGAN family; the format is detected from the content, not from the file name.

    The file may be a model file or checkpoint of this package, or come from BasicSR, Real-ESRGAN, ESRGAN (old and new
    names) or the earlier framework. It may be a PyTorch or safetensors file, or the ``.param`` or ``.bin`` of an ncnn
    pair.

    Args:
        path: The file (for an ncnn pair also the common name without suffix), a name in ``esrgan.pretrained.MODELS``,
            or ``hf:owner/name``, ``hf:owner/name@revision`` or ``hf:owner/name/file`` for a file on the Hugging Face
            Hub, which is downloaded if it is new.

    Returns:
        The generator, its weights converted to float32 under BasicSR's names.

    Raises:
        WeightsError: If the file is missing, damaged or not an ESRGAN generator; the message is one line.

    Example:
        >>> from esrgan import load_generator
        >>> file = load_generator("esrgan-lite")
        >>> file.describe()
        'RRDBNet ×4 64/32/6, GAN stage'
        >>> network = file.build()  # a torch.nn.Module
        >>> sum(parameter.numel() for parameter in network.parameters())
        4467779
    """
    path = pretrained.resolve(path)
    return parse_generator(load_file(path), path)


def parse_generator(content: dict[str, Any], path: Path) -> GeneratorFile:
    """Return the generator in the content of a weight file.

    Args:
        content: The result of ``load_file``.
        path: The file, for the result and error messages.

    Raises:
        WeightsError: If the content is not a complete ESRGAN generator.
    """
    place = str(path)
    state, dialect = to_basicsr_names(extract_state_dict(content, place), place)
    check_tensors(state, place)
    beta = pop_residual_scaling(state, place)
    architecture = infer_architecture(state, place)
    hparams = content.get("hparams")
    hparams = hparams if isinstance(hparams, dict) else {}
    if isinstance(architecture, RRDBNetArchitecture):
        beta = _configured(hparams, "residual_scaling", architecture.residual_scaling) if beta is None else beta
        architecture = replace(architecture, residual_scaling=_to_finite_float(beta, "residual_scaling", place))
    elif isinstance(architecture, CompactArchitecture) and architecture.act_type != "prelu":
        act_type = _configured(hparams, "act_type", architecture.act_type)
        architecture = replace(architecture, act_type="leakyrelu" if act_type == "leakyrelu" else "relu")
    check_complete(state, make_empty(architecture.build).state_dict(), place)
    stage, licence = content.get("stage"), content.get("licence")
    outscale = _number_up_to(architecture.scale_factor, content.get("outscale"))
    known = pretrained.identify(path)
    licence = licence or (known and known.licence)
    if dialect == EARLIER_LABEL:
        stage = _earlier_stage(content)
    return GeneratorFile(
        path=path,
        state=to_float32(state, place),
        architecture=architecture,
        stage=stage if stage in ("pretraining", "training") else None,
        alpha=_number_up_to(1, content.get("alpha")),
        hparams=hparams if _is_json_serialisable(hparams) else {},
        dialect=dialect,
        licence=licence if isinstance(licence, str) else None,
        known=known,
        outscale=outscale if outscale not in (0, architecture.scale_factor) else None,
        is_blend=content.get("blend") is True,
    )


def _number_up_to(largest: float, value: object) -> float | None:
    """Return a recorded value if it is a number from 0 to the largest one, else None; other programs store others."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= largest:
        return float(value)
    return None


def _earlier_stage(content: dict[str, Any]) -> str | None:
    """Return our name of the stage that the earlier framework wrote a file in; its first versions do not record it."""
    stage = content.get("stage")
    if stage == "pre-training" or (stage is None and "optimizer_state_dict" in content):
        return "pretraining"
    return "training" if stage is None and "g_model_state_dict" in content else stage


# The arguments of a network that its tensors do not show, with their usual values.
DEFAULTS = {"residual_scaling": RRDBNetArchitecture.residual_scaling, "act_type": "relu"}


def _hidden_arguments(architecture: Architecture) -> dict[str, Any]:
    """Return the arguments of a network that its tensors do not show."""
    return {
        key: value for key in DEFAULTS if (value := getattr(architecture, key, None)) is not None and value != "prelu"
    }


def _configured(hparams: dict[str, Any], key: str, default: Any) -> Any:
    """Return an argument of the generator from a configuration, or the default if none of its type is set there."""
    generator = hparams.get("generator")
    value = generator.get(key) if isinstance(generator, dict) else None
    return value if isinstance(value, (int, float) if isinstance(default, float) else str) else default


def _is_json_serialisable(value: dict[str, Any]) -> bool:
    """Return whether a dictionary survives a JSON round trip, so without tensors or keys that are not strings."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def _to_finite_float(value: float, name: str, place: str) -> float:
    with contextlib.suppress(OverflowError):  # an integer may be too large for a float
        if math.isfinite(value):
            return float(value)
    raise WeightsError(f"{place}: expected {name} to be a finite number; the file is damaged")


def to_float32(state: StateDict, place: str) -> StateDict:
    """Convert tensors to float32.

    Raises:
        WeightsError: If any value is not finite.
    """
    state = {name: value.detach().float() for name, value in state.items()}
    if odd := [name for name, value in state.items() if not value.isfinite().all()]:
        raise WeightsError(
            f"{place}: NaN or infinity in {len(odd)} of {len(state)} tensors (first: {odd[0]}); "
            "the training diverged; use an earlier file"
        )
    return state


def save_file(path: str | Path, content: dict[str, Any], *, overwrite: bool = True) -> None:
    """Write a weight file atomically: write a temporary file, flush it to disk, and rename it over the old file.

    Args:
        path: The file to write; its folder is created. A ``.safetensors`` file stores ``content["params"]`` as tensors
            and the rest as JSON metadata; any other suffix selects PyTorch's format.
        content: Tensors, numbers, strings, and lists and dictionaries of these; for ``.safetensors`` tensors only in
            ``params``, which it needs.
        overwrite: Replace an existing file. If false, one that another program creates meanwhile is kept too.

    Raises:
        WeightsError: If the file cannot be written, it exists and ``overwrite`` is false, or ``.safetensors`` cannot
            store the content; an existing file at ``path`` is then unchanged.
    """
    path = Path(path)
    content = move_to_cpu(content)  # a file with tensors of a GPU could be loaded only on machines with that GPU
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Given a name, PyTorch would store it in the file and safetensors would deny access to other users.
        with atomic_write(path, overwrite=overwrite) as file:
            if path.suffix.lower() == ".safetensors":
                file.write(_to_safetensors(content, path))
            else:
                torch.save(content, file)
    except FileExistsError as error:
        raise WeightsError(describe_write_error(path, error)) from error
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # torch reports a full disk as RuntimeError
        raise WeightsError(
            f"{path}: cannot be written: {_system_error_text(error)}; nothing was changed; {write_remedy(error)}"
        ) from error


def _to_safetensors(content: dict[str, Any], path: Path) -> bytes:
    """Return a content as a safetensors file.

    Raises:
        WeightsError: If the format cannot store it.
    """
    params = content.get("params")
    try:
        if not isinstance(params, dict):
            raise TypeError("params is missing")
        # The format refuses tensors that share memory, as those of a network with shared weights do.
        tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in params.items()}
        return safetensors.torch.save(tensors, {k: json.dumps(v) for k, v in content.items() if k != "params"})
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        reason = f".safetensors stores tensors under params and JSON besides ({one_line(str(error), 120)})"
        raise WeightsError(f"{path}: cannot be written: {reason}; choose the suffix .pth") from error


def _system_error_text(error: BaseException) -> str:
    """Return the message of the underlying OSError, which PyTorch wraps in exceptions of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return one_line((cause and cause.strerror) or str(error), 120)
