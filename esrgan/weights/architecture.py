"""Infer the architecture of a generator from the names and shapes of its tensors, and check the tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from esrgan.errors import WeightsError
from esrgan.models import RRDBNet
from esrgan.text import one_line
from esrgan.weights.unsupported import guess_architecture

StateDict = dict[str, Tensor]

DENSE_CONV = re.compile(r"body\.(\d{1,4})\.rdb(\d{1,4})\.conv(\d{1,4})\.weight")

# The pairs of pixel-unshuffle factor and upscaling factor that RRDBNet supports.
GEOMETRIES = {(1, 1), (1, 2), (1, 4), (1, 8), (2, 2), (4, 1)}


@dataclass(frozen=True)
class Architecture:
    """The arguments of ``RRDBNet``, as far as a state dict reveals them.

    Most weight files do not store ``residual_scaling``; every published ESRGAN uses the paper's 0.2.
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
        """Return a newly initialised generator of this architecture."""
        return RRDBNet(**asdict(self))

    def __str__(self) -> str:
        size = f"{self.rrdb_channels}/{self.growth_channels}/{self.num_basic_blocks}"
        usual = {"img_channels": 3, "num_dense_blocks": 3, "num_residual_blocks": 5, "residual_scaling": 0.2}
        usual |= {"use_subpixel_conv": False, "pixel_unshuffle": False}
        extras = [f"{name} {getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join([f"RRDBNet ×{self.scale_factor} {size}", *extras])


def infer_architecture(state: StateDict, place: str = "state dict") -> Architecture:
    """Infer the architecture of a generator from the names and shapes of its tensors.

    Args:
        state: Tensors under BasicSR's names, which this package uses.
        place: Name of the file for error messages.

    Returns:
        The architecture, with the paper's residual scaling, which tensors do not show.

    Raises:
        WeightsError: If the tensors are not a complete RRDBNet; the message states what they seem to be or what is
            missing.
    """
    ends = ["conv_first", "body.0.rdb1.conv1", "conv_body", "conv_hr", "conv_last"]
    convs = [tuple(map(int, match.groups())) for name in state if (match := DENSE_CONV.fullmatch(name))]
    if not convs:
        raise WeightsError(f"{place}: expected an ESRGAN generator (RRDBNet), got {guess_architecture(state)}")
    if missing := [f"{name}.weight" for name in ends if f"{name}.weight" not in state]:
        raise WeightsError(f"{place}: the ESRGAN generator lacks {' and '.join(missing)}; the file is damaged")
    num_basic_blocks = 1 + max(i for i, _, _ in convs)
    num_dense_blocks, num_residual_blocks = max(j for _, j, _ in convs), max(k for _, _, k in convs)
    if len(convs) != num_basic_blocks * num_dense_blocks * num_residual_blocks:
        raise WeightsError(
            f"{place}: expected {num_basic_blocks} blocks of {num_dense_blocks} × {num_residual_blocks} convolutions "
            f"in the trunk, got {len(convs)} in all; the file is damaged"
        )
    ups = [name for name in state if re.fullmatch(r"conv_up\d\.weight", name)]
    if odd := [n for n in (*(f"{end}.weight" for end in ends), *ups) if state[n].ndim != 4 or 0 in state[n].shape]:
        shape = tuple(state[odd[0]].shape)
        raise WeightsError(f"{place}: expected {odd[0]} to have the shape of a convolution's weights, got {shape}")
    out_channels = state["conv_last.weight"].shape[0]
    rrdb_channels, in_channels = state["conv_first.weight"].shape[:2]
    unshuffle = math.isqrt(in_channels // out_channels)
    scale = 2 ** len(ups) / unshuffle if unshuffle else 0
    if in_channels != out_channels * unshuffle**2 or (unshuffle, scale) not in GEOMETRIES:
        raise WeightsError(
            f"{place}: no ESRGAN generator has these numbers: input channels {in_channels}, "
            f"output channels {out_channels}, upsampling layers {len(ups)}"
        )
    widening = state[ups[0]].shape[0] / rrdb_channels if ups else 1
    if widening == 9:
        raise WeightsError(f"{place}: expected a scale of 1, 2, 4 or 8, got sub-pixel upsampling by 3")
    return Architecture(
        scale_factor=int(scale),
        img_channels=out_channels,
        rrdb_channels=rrdb_channels,
        growth_channels=state["body.0.rdb1.conv1.weight"].shape[0] if num_residual_blocks > 1 else 1,
        num_basic_blocks=num_basic_blocks,
        num_dense_blocks=num_dense_blocks,
        num_residual_blocks=num_residual_blocks,
        use_subpixel_conv=widening == 4,
        pixel_unshuffle=unshuffle > 1,
    )


def pop_residual_scaling(state: StateDict, place: str) -> float | None:
    """Remove the ``residual_scaling`` entries from a state dict and return their value, or None if there are none.

    Raises:
        WeightsError: If an entry is not a finite number, or if they differ: RRDBNet uses the same β everywhere.
    """
    names = [name for name in state if name.rpartition(".")[2] == "residual_scaling"]
    values = set()
    for name in names:
        value = state.pop(name)
        if value.numel() != 1 or not torch.isfinite(value.float()).all():
            raise WeightsError(
                f"{place}: expected {one_line(name)} to be one finite number, got shape {tuple(value.shape)}"
            )
        values.add(_shortest_decimal(value))
    if len(values) > 1:
        got = ", ".join(f"{value:g}" for value in sorted(values)[:3])
        raise WeightsError(f"{place}: expected one residual_scaling for all blocks, got {got}; RRDBNet uses one value")
    return values.pop() if values else None


def _shortest_decimal(value: Tensor) -> float:
    """Return 0.2 where float32 holds 0.200000003, so that it equals the 0.2 of other files."""
    exact = value.flatten()[0]
    if exact.dtype == torch.float64 and exact.float() == exact:  # the value was converted from float32
        exact = exact.float()
    texts = (f"{exact.item():.{digits}g}" for digits in range(1, 18))
    return next(float(text) for text in texts if torch.tensor(float(text), dtype=exact.dtype) == exact)


def check_tensors(state: StateDict, place: str) -> None:
    """Check that all tensors are plain floating-point numbers and that the file holds all their data.

    Raises:
        WeightsError: If a tensor is sparse, quantised, integer or complex, or if the shapes claim more data than the
            file holds.
    """
    for name, value in state.items():
        if kind := _unsupported_tensor_kind(value):
            raise WeightsError(
                f"{place}: expected floating-point weights, got {kind} in {one_line(name)}; export the model in float32"
            )
    values = [value for value in state.values() if value.numel() > 1]  # several names may share one scalar
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in values}
    claimed, held = sum(value.numel() * value.element_size() for value in values), sum(storages.values())
    # Tensors that repeat or share their data (by a stride of 0, say) are small in a file, but a copy fills any memory.
    if claimed > held:
        raise WeightsError(f"{place}: its shapes claim {claimed:,} bytes, but it holds {held:,}; the file is damaged")


def _unsupported_tensor_kind(value: Tensor) -> str | None:
    if value.is_nested or value.is_meta:
        return "tensors without data"
    if value.is_quantized:
        return "quantised tensors"
    if value.layout is not torch.strided:
        return "sparse tensors"
    if not value.is_floating_point():
        return f"{str(value.dtype).removeprefix('torch.')} numbers"
    return None


def make_shapes(build: Callable[[], nn.Module]) -> StateDict:
    """Return the state dict of a network without data, so no memory is allocated for shapes that a file claims."""
    with torch.device("meta"):
        return build().state_dict()


def check_complete(state: StateDict, expected: StateDict, place: str) -> None:
    """Compare the names and shapes of a state dict with those of its network.

    Raises:
        WeightsError: If tensors are missing, unknown or of the wrong shape; the message names the first of each.
    """
    wrong = [
        f"{kind}: {len(names)} (first: {one_line(names[0])})"
        for kind, names in {
            "missing tensors": [name for name in expected if name not in state],
            "unknown tensors": [name for name in state if name not in expected],
            "tensors of the wrong shape": [
                name for name in expected if name in state and state[name].shape != expected[name].shape
            ],
        }.items()
        if names
    ]
    if wrong:
        raise WeightsError(f"{place}: {', '.join(wrong)}; the file is damaged or an unknown variant of ESRGAN")
