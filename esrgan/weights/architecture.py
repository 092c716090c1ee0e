"""Infer the architecture of a generator from the names and shapes of its tensors, and check the tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from esrgan.errors import WeightsError
from esrgan.models import Generator, RRDBNet, SRVGGNetCompact
from esrgan.models.rrdbnet import get_unshuffle_factor
from esrgan.text import one_line
from esrgan.weights.unsupported import guess_architecture

StateDict = dict[str, Tensor]
_Network = TypeVar("_Network", bound=nn.Module)

DENSE_CONV = re.compile(r"body\.(\d{1,4})\.rdb(\d{1,4})\.conv(\d{1,4})\.weight")

MAX_INFLATION = 10  # bytes of tensors / bytes of the file that holds them

_COMPACT_LAYER = re.compile(r"body\.(\d{1,4})\.(?:weight|bias)")


@dataclass(frozen=True)
class Architecture:
    """A generator's network, as far as a state dict reveals it.

    Attributes:
        scale_factor: Upscaling factor.
        img_channels: Channels of the output.
    """

    scale_factor: int
    img_channels: int

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.img_channels

    def build(self, small_init: str = "all") -> Generator:
        """Return a newly initialised generator of this architecture; ``small_init`` is that of ``RRDBNet``."""
        raise NotImplementedError


@dataclass(frozen=True)
class RRDBNetArchitecture(Architecture):
    """The arguments of ``RRDBNet``.

    Most weight files do not store ``residual_scaling``; every published ESRGAN uses the paper's 0.2.
    """

    rrdb_channels: int
    growth_channels: int
    num_basic_blocks: int
    num_dense_blocks: int
    num_residual_blocks: int
    use_subpixel_conv: bool
    pixel_unshuffle: bool | int  # True is the usual factor for the scale
    residual_scaling: float = 0.2
    plus: bool = False
    is_colouriser: bool = False

    def __post_init__(self) -> None:
        if self.scale_factor <= 2 and self.pixel_unshuffle == 4 // self.scale_factor:
            object.__setattr__(self, "pixel_unshuffle", True)

    @property
    @override
    def in_channels(self) -> int:
        return 1 if self.is_colouriser else self.img_channels

    @property
    def unshuffle_factor(self) -> int:
        """By how much the input is folded into channels, in each direction."""
        return get_unshuffle_factor(self.scale_factor, self.pixel_unshuffle)

    @override
    def build(self, small_init: str = "all") -> RRDBNet:
        arguments = asdict(self)
        del arguments["is_colouriser"]
        return RRDBNet(**arguments, small_init=small_init, in_channels=self.in_channels)

    def __str__(self) -> str:
        size = f"{self.rrdb_channels}/{self.growth_channels}/{self.num_basic_blocks}"
        usual = {"img_channels": 3, "num_dense_blocks": 3, "num_residual_blocks": 5, "residual_scaling": 0.2}
        usual |= {"use_subpixel_conv": False, "pixel_unshuffle": False}
        extras = [f"{name} {getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        extras += ["colours grey images"] if self.is_colouriser else []
        return ", ".join([f"{'ESRGAN+' if self.plus else 'RRDBNet'} ×{self.scale_factor} {size}", *extras])


@dataclass(frozen=True)
class CompactArchitecture(Architecture):
    """The arguments of ``SRVGGNetCompact``. Weight files do not tell "relu" and "leakyrelu" apart."""

    num_feat: int
    num_conv: int
    act_type: str = "prelu"

    @override
    def build(self, small_init: str = "all") -> SRVGGNetCompact:
        """Build the network; ``small_init`` changes nothing, because this kind has one initialisation."""
        return SRVGGNetCompact(**asdict(self))

    def __str__(self) -> str:
        usual = {"img_channels": 3, "act_type": "prelu"}
        extras = [f"{name} {getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join([f"SRVGGNetCompact ×{self.scale_factor} {self.num_feat}/{self.num_conv}", *extras])


def configured_architecture(scale_factor: int, img_channels: int, section: dict[str, Any]) -> Architecture:
    """Return the generator of a configuration with this section ``generator``."""
    kind = CompactArchitecture if section["type"] == "compact" else RRDBNetArchitecture
    names = {field.name for field in fields(kind)} & section.keys()
    return kind(scale_factor, img_channels, **{name: section[name] for name in names})


def infer_architecture(state: StateDict, place: str = "state dict") -> Architecture:
    """Infer the architecture of a generator from the names and shapes of its tensors.

    Args:
        state: Tensors under BasicSR's names, which this package uses.
        place: Name of the file for error messages.

    Returns:
        The architecture, with the paper's residual scaling, which tensors do not show.

    Raises:
        WeightsError: If the tensors are not a complete generator; the message states what they seem to be or what is
            missing.
    """
    if any(DENSE_CONV.fullmatch(name) for name in state):
        return _infer_rrdbnet(state, place)
    if is_compact(state):
        return _infer_compact(state, place)
    raise WeightsError(f"{place}: expected a generator of the ESRGAN family, got {guess_architecture(state)}")


def is_compact(state: StateDict) -> bool:
    """Return whether the tensors seem to be those of ``SRVGGNetCompact``."""
    first = state.get("body.0.weight")
    return first is not None and first.ndim == 4 and all(_COMPACT_LAYER.fullmatch(name) for name in state)


def _infer_compact(state: StateDict, place: str) -> CompactArchitecture:
    convs = sorted(int(name.split(".")[1]) for name, value in state.items() if value.ndim == 4)
    first, last = state["body.0.weight"], state[f"body.{convs[-1]}.weight"]
    if convs != list(range(0, convs[-1] + 1, 2)) or len(convs) < 2 or 0 in (*first.shape, *last.shape):
        got = ", ".join(f"body.{number}" for number in convs[:8])
        raise WeightsError(
            f"{place}: expected the convolutions of SRVGGNetCompact, body.0, body.2, body.4 and so on, got {got}; "
            "the file is damaged or an unknown variant"
        )
    channels = first.shape[1]
    scale = math.isqrt(last.shape[0] // channels)
    if last.shape[0] != channels * scale**2:
        raise WeightsError(
            f"{place}: no SRVGGNetCompact has {channels} input channels and {last.shape[0]} channels before the last "
            "pixel shuffle"
        )
    act_type = "prelu" if "body.1.weight" in state else "relu"
    return CompactArchitecture(scale, channels, num_feat=first.shape[0], num_conv=len(convs) - 2, act_type=act_type)


def _infer_rrdbnet(state: StateDict, place: str) -> RRDBNetArchitecture:
    ends = ["conv_first", "body.0.rdb1.conv1", "conv_body", "conv_hr", "conv_last"]
    convs = [tuple(map(int, match.groups())) for name in state if (match := DENSE_CONV.fullmatch(name))]
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
    is_colouriser = (in_channels, out_channels) == (1, 3)
    unshuffle = 1 if is_colouriser else math.isqrt(in_channels // out_channels)
    scale, rest = divmod(2 ** len(ups), unshuffle) if unshuffle else (0, 0)
    widening = state[ups[0]].shape[0] / rrdb_channels if ups else 1
    if widening == 9:
        raise WeightsError(f"{place}: expected a scale of 1, 2, 4, 8 or 16, got sub-pixel upsampling by 3")
    fits = is_colouriser or in_channels == out_channels * unshuffle**2
    if not fits or rest or unshuffle not in (1, 2, 4) or scale not in (1, 2, 4, 8, 16):
        raise WeightsError(
            f"{place}: no ESRGAN generator has these numbers: input channels {in_channels}, "
            f"output channels {out_channels}, upsampling layers {len(ups)}"
        )
    return RRDBNetArchitecture(
        scale_factor=scale,
        img_channels=out_channels,
        rrdb_channels=rrdb_channels,
        growth_channels=state["body.0.rdb1.conv1.weight"].shape[0] if num_residual_blocks > 1 else 1,
        num_basic_blocks=num_basic_blocks,
        num_dense_blocks=num_dense_blocks,
        num_residual_blocks=num_residual_blocks,
        use_subpixel_conv=widening == 4,
        pixel_unshuffle=unshuffle if unshuffle > 1 else False,
        plus="body.0.rdb1.conv1x1.weight" in state,
        is_colouriser=is_colouriser,
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
    # A network whose layers share a few is small in a file as well.
    if claimed > MAX_INFLATION * held:
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
    if str(value.dtype).endswith("_x2"):  # two in a byte
        return f"packed {str(value.dtype).removeprefix('torch.')} numbers"
    return None


def make_empty(build: Callable[[], _Network]) -> _Network:
    """Return a network whose tensors have only shapes.

    It takes neither memory for shapes that a file claims, nor random numbers or time for weights that are replaced.
    """
    with torch.device("meta"):
        return build()


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
