"""What the tensors of a state dict are called, and which generator they belong to."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from esrgan.errors import WeightsError
from esrgan.models import RRDBNet

State = dict[str, Tensor]

# Containers that trainers put a generator's weights in, the best first: averaged weights before raw ones.
CONTAINERS = ("params_ema", "params", "g_model_state_dict", "model_state_dict", "state_dict")

DENSE_CONV = re.compile(r"body\.(\d{1,4})\.rdb(\d{1,4})\.conv(\d{1,4})\.weight")

# Folding of the input, and scale: what RRDBNet can be.
GEOMETRIES = {(1, 1), (1, 2), (1, 4), (1, 8), (2, 2), (4, 1)}


@dataclass(frozen=True)
class Architecture:
    """The arguments of ``RRDBNet``, as far as they can be read off a state dict.

    ``residual_scaling`` leaves no trace in the weights; every published ESRGAN has the paper's 0.2.
    """

    scale_factor: int
    img_channels: int
    rrdb_channels: int
    growth_channels: int
    num_basic_blocks: int
    num_dense_blocks: int
    num_residual_blocks: int
    use_subpixel_conv: bool
    pixel_unshuffle: bool
    residual_scaling: float = 0.2

    def build(self) -> RRDBNet:
        """Make the generator, with fresh weights."""
        return RRDBNet(**asdict(self))

    def __str__(self) -> str:
        size = f"{self.rrdb_channels}/{self.growth_channels}/{self.num_basic_blocks}"
        usual = {"img_channels": 3, "num_dense_blocks": 3, "num_residual_blocks": 5, "residual_scaling": 0.2}
        usual |= {"use_subpixel_conv": False, "pixel_unshuffle": False}
        extras = [f"{name} {getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join([f"RRDBNet ×{self.scale_factor} {size}", *extras])


def unwrap(content: dict[str, Any], place: str) -> State:
    """Take the generator's state dict out of what a file holds.

    Args:
        content: A bare state dict, or one in any of ``CONTAINERS``.
        place: The file, for messages.

    Returns:
        Tensors by name, without the ``module.`` that parallel wrappers put before names.

    Raises:
        WeightsError: If there is no state dict.
    """
    for container in CONTAINERS:
        if isinstance(content.get(container), dict):
            content = content[container]
            break
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise WeightsError(f"{place}: expected the weights of an ESRGAN generator, got {keys} and no tensors")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def infer_architecture(state: State, place: str = "state dict") -> Architecture:
    """Find the generator that a state dict belongs to, from its names and shapes.

    Args:
        state: Tensors under BasicSR's names, which are ours.
        place: The file, for messages.

    Raises:
        WeightsError: If it is no complete RRDBNet, saying what it seems to be.
    """
    ends = {"conv_first.weight", "body.0.rdb1.conv1.weight", "conv_body.weight", "conv_hr.weight", "conv_last.weight"}
    convs = [tuple(map(int, match.groups())) for name in state if (match := DENSE_CONV.fullmatch(name))]
    if not convs or not ends <= state.keys():
        raise WeightsError(
            f"{place}: expected an ESRGAN generator with BasicSR's names (conv_first, body.0.rdb1.conv1, …), "
            f"got {_likely_kind(state)}"
        )
    num_basic_blocks = 1 + max(i for i, _, _ in convs)
    num_dense_blocks, num_residual_blocks = max(j for _, j, _ in convs), max(k for _, _, k in convs)
    if len(convs) != num_basic_blocks * num_dense_blocks * num_residual_blocks:
        raise WeightsError(
            f"{place}: {len(convs)} convolutions in the trunk, not {num_basic_blocks} blocks of "
            f"{num_dense_blocks} × {num_residual_blocks}: some are missing; the file is damaged"
        )
    upsamplings = [name for name in state if re.fullmatch(r"conv_up\d\.weight", name)]
    if odd := [name for name in (*ends, *upsamplings) if state[name].ndim != 4 or 0 in state[name].shape]:
        raise WeightsError(f"{place}: {odd[0]} has shape {tuple(state[odd[0]].shape)}, which is no convolution's")
    out_channels = state["conv_last.weight"].shape[0]
    rrdb_channels, in_channels = state["conv_first.weight"].shape[:2]
    unshuffle = math.isqrt(in_channels // out_channels) if out_channels else 0
    scale = 2 ** len(upsamplings) / unshuffle if unshuffle else 0
    if in_channels != out_channels * unshuffle**2 or (unshuffle, scale) not in GEOMETRIES:
        raise WeightsError(
            f"{place}: {in_channels} channels in, {out_channels} out, {len(upsamplings)} upsamplings: "
            f"no ESRGAN generator has these"
        )
    return Architecture(
        scale_factor=int(scale),
        img_channels=out_channels,
        rrdb_channels=rrdb_channels,
        growth_channels=state["body.0.rdb1.conv1.weight"].shape[0] if num_residual_blocks > 1 else 1,
        num_basic_blocks=num_basic_blocks,
        num_dense_blocks=num_dense_blocks,
        num_residual_blocks=num_residual_blocks,
        use_subpixel_conv=bool(upsamplings) and state[upsamplings[0]].shape[0] == 4 * rrdb_channels,
        pixel_unshuffle=unshuffle > 1,
    )


def check_complete(state: State, network: RRDBNet, place: str) -> None:
    """Compare a state dict with the network it is for, tensor by tensor.

    Raises:
        WeightsError: If a tensor is missing, too many or of another shape; the first of each is named.
    """
    expected = network.state_dict()
    wrong = [
        f"{len(names)} {kind}, the first is {names[0]}"
        for kind, names in {
            "tensors are missing": [name for name in expected if name not in state],
            "tensors are unknown": [name for name in state if name not in expected],
            "tensors have another shape": [
                name for name in expected if name in state and state[name].shape != expected[name].shape
            ],
        }.items()
        if names
    ]
    if wrong:
        raise WeightsError(f"{place}: {'; '.join(wrong)}: the file is damaged or of an unknown variant of ESRGAN")


def _likely_kind(state: State) -> str:
    signs = {
        "a discriminator": ("features.block_0.conv.weight", "head.linear_out.weight", "conv9.weight"),
        "a VGG network": ("features.0.weight",),
        "an ESRGAN generator with other names, which cannot be read yet": (
            "model.0.weight",
            "RRDB_trunk.0.RDB1.conv1.weight",
            "in_conv.weight",
        ),
    }
    for kind, names in signs.items():
        if any(name in state for name in names):
            return kind
    return f"{len(state)} tensors of another network ({', '.join(list(state)[:3])}, …)"
