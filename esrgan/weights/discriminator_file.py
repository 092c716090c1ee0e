"""Read discriminators: those of this project, BasicSR, Real-ESRGAN and the earlier framework."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from esrgan.errors import WeightsError
from esrgan.models import UNetDiscriminator, VGGDiscriminator
from esrgan.weights.architecture import check_complete, check_tensors, make_empty
from esrgan.weights.containers import extract_state_dict, load_file
from esrgan.weights.dialects import DIALECTS
from esrgan.weights.generator_file import to_float32
from esrgan.weights.unsupported import guess_architecture

# Names of other programs, as patterns, and ours. PyTorch's older spectral norm has weight_orig, weight_u and weight_v.
_RENAMINGS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"(.+)\.weight_orig"), lambda match: f"{match[1]}.parametrizations.weight.original"),
    (re.compile(r"(.+)\.weight_([uv])"), lambda match: f"{match[1]}.parametrizations.weight.0._{match[2]}"),
    (
        re.compile(r"(conv|bn)(\d)_([01])\.(\w+)"),  # BasicSR's VGG style has blocks of two convolutions
        lambda match: f"features.block_{2 * int(match[2]) + int(match[3])}.{match[1]}.{match[4]}",
    ),
    (re.compile(r"linear1\.(\w+)"), lambda match: f"head.block_0.linear.{match[1]}"),
    (re.compile(r"linear2\.(\w+)"), lambda match: f"head.linear_out.{match[1]}"),
)
# Keys under which trainers store a discriminator with a generator, such as netD and d_model_state_dict.
_KEY = re.compile(r"(?i)(?:net_?d|d|discriminator)(?:_model)?(?:_state_dict)?")
_BATCH_COUNT = "num_batches_tracked"  # an integer of BatchNorm, which older files do not have


@dataclass(frozen=True)
class DiscriminatorArchitecture:
    """The network of a discriminator, by the keys of a configuration."""

    img_channels: int
    settings: dict[str, Any]  # the section ``discriminator`` with the keys that matter for its type

    @classmethod
    def configured(cls, img_channels: int, section: dict[str, Any]) -> DiscriminatorArchitecture:
        """Return the network of a configuration with this section ``discriminator``."""
        keys = ("num_features",) if section["type"] == "unet" else ("vgg_blk_ch", "fc_features")
        values = {key: list(section[key]) if isinstance(section[key], tuple) else section[key] for key in keys}
        return cls(img_channels, {"type": section["type"], **values})

    def build(self) -> nn.Module:
        """Return a newly initialised discriminator."""
        arguments = {key: value for key, value in self.settings.items() if key != "type"}
        if self.settings["type"] == "unet":
            return UNetDiscriminator(self.img_channels, **arguments)
        return VGGDiscriminator(self.img_channels, **arguments, basicsr=self.settings["type"] == "vgg_basicsr")

    def __str__(self) -> str:
        channels = "" if self.img_channels == 3 else f'"img_channels": {self.img_channels}, '
        return f'{channels}"discriminator": {json.dumps(self.settings)}'


def _has_tensors(value: Any, depth: int = 2) -> bool:
    """Return whether a value is a dictionary with tensors, in it or in its dictionaries."""
    return isinstance(value, dict) and any(
        isinstance(each, Tensor) or (depth > 1 and _has_tensors(each, depth - 1)) for each in value.values()
    )


def load_discriminator(path: Path, content: dict[str, Any] | None = None) -> tuple[DiscriminatorArchitecture, Any]:
    """Read a discriminator from a file of its own or from a checkpoint of the GAN stage.

    Args:
        path: The file.
        content: The result of ``load_file``, if the file has been read already.

    Returns:
        The network and its state dict, under our names and in float32.

    Raises:
        WeightsError: If the file cannot be read or is not a complete discriminator of a known kind.
    """
    place = str(path)
    content = load_file(path) if content is None else content
    checkpoint = content.get("checkpoint")
    stage = checkpoint.get("stage") if isinstance(checkpoint, dict) else None
    sources = (stage if isinstance(stage, dict) else {}, content)
    entries = ((str(key), value) for source in sources for key, value in source.items())
    inner = (value for key, value in entries if _KEY.fullmatch(key) and _has_tensors(value))
    found = extract_state_dict(next(inner, content), place)
    renamed = {_rename(name): value for name, value in found.items()}
    state = {name: value for name, value in renamed.items() if not name.endswith(_BATCH_COUNT)}
    architecture = _infer_architecture(state, found, place)
    check_tensors(state, place)
    expected = make_empty(architecture.build).state_dict()
    batches = {name: renamed.get(name, torch.tensor(0)) for name in expected if name.endswith(_BATCH_COUNT)}
    check_complete(state | batches, expected, place)
    return architecture, to_float32(state, place) | batches


def _rename(name: str) -> str:
    matches = ((pattern.fullmatch(name), ours) for pattern, ours in _RENAMINGS)
    return next((ours(match) for match, ours in matches if match), name)


def _infer_architecture(state: dict[str, Tensor], found: dict[str, Tensor], place: str) -> DiscriminatorArchitecture:
    first = state.get("conv0.weight", state.get("features.block_0.conv.weight"))
    if first is None or first.ndim != 4:
        is_generator = any(dialect.dense_block_pattern.fullmatch(name) for dialect in DIALECTS for name in found)
        got = "an ESRGAN generator; pass it with -l" if is_generator else guess_architecture(found).partition(";")[0]
        raise WeightsError(f"{place}: expected a discriminator (U-Net or VGG style), got {got}")
    channels, width = first.shape[1], first.shape[0]
    if "conv0.weight" in state:
        return DiscriminatorArchitecture(channels, {"type": "unet", "num_features": width})
    widths = {
        part: [state[name].shape[0] for i in range(99) if (name := f"{part}.block_{i}.{layer}.weight") in state]
        for part, layer in (("features", "conv"), ("head", "linear"))
    }
    settings = {
        "type": "vgg_basicsr" if "conv0_0.weight" in found else "vgg",
        "vgg_blk_ch": widths["features"],
        "fc_features": widths["head"],
    }
    return DiscriminatorArchitecture(channels, settings)
