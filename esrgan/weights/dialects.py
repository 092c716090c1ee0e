"""What the layers of an ESRGAN generator are called in files of different origin, as tables, and our names of them.

Our names are BasicSR's: ``conv_first``, ``body.{i}.rdb{j}.conv{k}``, ``conv_body``, ``conv_up{u}``, ``conv_hr``,
``conv_last``, where i counts from 0 and j, k and u from 1.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from esrgan.errors import WeightsError
from esrgan.text import one_line
from esrgan.weights.unsupported import guess_architecture

StateDict = dict[str, Tensor]

DENSE_LAYER = "body.{i}.rdb{j}.conv{k}"
TAIL_LAYER = "tail.{t}"  # a layer behind the trunk whose number says nothing before all of them are known
NUMBER_REGEX = "(0|[1-9][0-9]{0,3})"  # more blocks than 9999 are no network but an attack


@dataclass(frozen=True)
class Dialect:
    """One way to name the layers.

    Attributes:
        key: What users type; nobody types that of ncnn.
        label: What to call it to users.
        layers: Their name of a layer → ours. ``{j-1}`` is a number one below ours.
    """

    key: str
    label: str
    layers: dict[str, str]

    @cached_property
    def dense_block_pattern(self) -> re.Pattern[str]:
        """Matches the dense blocks' tensors, which no other network has, behind any prefix of a wrapper."""
        dense = next(theirs for theirs, ours in self.layers.items() if ours == DENSE_LAYER)
        return re.compile(rf"((?:.+\.)?){_to_regex(dense)}\.(?:weight|bias)")

    def to_basicsr(self, name: str) -> str:
        """Give our name of a tensor; a name that is not of this dialect stays as it is."""
        layer, kind = _split_name(name)
        for pattern, theirs, ours in self._rules:
            if match := pattern.fullmatch(layer):
                numbers = dict(zip(_placeholders(theirs), map(int, match.groups()), strict=True))
                counted = {key[0]: number + key.endswith("-1") for key, number in numbers.items()}
                return ".".join(filter(None, (ours.format(**counted), kind)))
        return name

    def from_basicsr(self, ours: str) -> str:
        """Give this dialect's name of a tensor that has our name, the first if it has several."""
        layer, kind = _split_name(ours)
        for name, template in self.layers.items():
            if match := re.fullmatch(_to_regex(template), layer):
                numbers = dict(zip(_placeholders(template), map(int, match.groups()), strict=True))
                for key in _placeholders(name):
                    name = name.replace(f"{{{key}}}", str(numbers[key[0]] - key.endswith("-1")))
                return ".".join(filter(None, (name, kind)))
        return ours

    @cached_property
    def _rules(self) -> tuple[tuple[re.Pattern[str], str, str], ...]:
        return tuple((re.compile(_to_regex(theirs)), theirs, ours) for theirs, ours in self.layers.items())


def _split_name(name: str) -> tuple[str, str]:
    """Part a tensor's name into its layer's and "weight" or "bias", or nothing where it is neither."""
    layer, _, kind = name.rpartition(".")
    return (layer, kind) if kind in ("weight", "bias") else (name, "")


def _placeholders(template: str) -> list[str]:
    return re.findall(r"\{(.*?)\}", template)


def _to_regex(template: str) -> str:
    return NUMBER_REGEX.join(re.escape(part) for part in re.split(r"\{.*?\}", template))


ESRGAN_OLD_LABEL = "ESRGAN old names"
BASICSR = Dialect(
    "basicsr",
    "BasicSR names",
    {name: name for name in ("conv_first", DENSE_LAYER, "conv_body", "conv_up{u}", "conv_hr", "conv_last")},
)
DIALECTS = (
    BASICSR,
    Dialect(
        "esrgan-new",
        "ESRGAN new names",
        {
            "conv_first": "conv_first",
            "RRDB_trunk.{i}.RDB{j}.conv{k}": DENSE_LAYER,
            "trunk_conv": "conv_body",
            "upconv{u}": "conv_up{u}",
            "HRconv": "conv_hr",
            "conv_last": "conv_last",
        },
    ),
    Dialect(
        "esrgan-old",
        ESRGAN_OLD_LABEL,
        {
            "model.0": "conv_first",
            "model.1.sub.{i}.RDB{j}.conv{k}.0": DENSE_LAYER,
            "model.1.sub.{n}": "conv_body{n}",
            "model.{t}": TAIL_LAYER,
        },
    ),
    Dialect(
        "earlier",
        "names of the earlier framework",
        {
            "in_conv": "conv_first",
            "rrdb_blocks.rrdb_{i}.dense_blocks.rdb_{j-1}.blocks.{k-1}.conv": DENSE_LAYER,
            "rrdb_blocks.out_conv": "conv_body",
            "upsampling_blocks.upsampling_{u-1}.block.conv": "conv_up{u}",
            "upsampling_blocks.upsampling_{u-1}.conv": "conv_up{u}",  # as the first versions wrote it
            "upsampling_blocks.out_conv.0": "conv_hr",
            "upsampling_blocks.out_conv.2": "conv_last",
            "rrdb_blocks.rrdb_{i}.residual_scaling": "body.{i}.residual_scaling",
            "rrdb_blocks.rrdb_{i}.dense_blocks.rdb_{j-1}.residual_scaling": "body.{i}.rdb{j}.residual_scaling",
        },
    ),
    Dialect(  # which has no names; esrgan.weights.ncnn puts ours there by position, marked by this prefix
        "ncnn",
        "ncnn",
        {f"ncnn:{name}": name for name in (*BASICSR.layers, "residual_scaling")},
    ),
)


def to_basicsr_names(state: StateDict, place: str) -> tuple[StateDict, str]:
    """Rename the tensors of a generator in any dialect.

    Args:
        state: Tensors as a file names them, perhaps all behind a prefix (``netG.``), perhaps beside other networks.
        place: The file, for messages.

    Returns:
        The generator's tensors under our names, and what to call the dialect. Tensors that are unknown keep their
        names, and there may be 0-dimensional ``residual_scaling`` entries.

    Raises:
        WeightsError: If there is no generator or more than one; if it is not whole.
    """
    found = {
        (match[1], dialect.label): dialect
        for name in state
        for dialect in DIALECTS
        if (match := dialect.dense_block_pattern.fullmatch(name))
    }
    averaged = {key: dialect for key, dialect in found.items() if "ema" in key[0]}
    chosen = averaged or found
    is_esrgan_plus = any(".conv1x1." in name for name in state)
    if is_esrgan_plus or not chosen:
        raise WeightsError(f"{place}: expected an ESRGAN generator (RRDBNet), got {guess_architecture(state)}")
    if len(chosen) > 1:
        prefixes = ", ".join(one_line(f"{prefix or 'no prefix'} ({label})") for prefix, label in list(chosen)[:3])
        raise WeightsError(f"{place}: expected one generator, got {len(chosen)}: {prefixes}; save one of them alone")
    ((prefix, label), dialect) = next(iter(chosen.items()))
    theirs = [name for name in state if name.startswith(prefix)]
    names = [dialect.to_basicsr(name.removeprefix(prefix)) for name in theirs]
    names = _resolve_conv_body(_resolve_tail(names, place), place)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise WeightsError(f"{place}: has {one_line(twice[0])} twice under different names; the file is damaged")
    ours = {name: state[key] for key, name in zip(theirs, names, strict=True)}
    _check_upsampling(ours, f"{prefix}model.2.weight" in state and "conv_up1.weight" in ours, label, place)
    return ours, label


def from_basicsr_names(state: StateDict, key: str, residual_scaling: float) -> StateDict:
    """Rename the tensors of a generator as others do.

    Args:
        state: Tensors under our names.
        key: Of the dialect: "basicsr", "esrgan-new", "esrgan-old" or "earlier".
        residual_scaling: β, which the earlier framework has in its state dict, once a block.
    """
    dialect = next(dialect for dialect in DIALECTS if dialect.key == key)
    if dialect.label != ESRGAN_OLD_LABEL:
        renamed = {dialect.from_basicsr(name): value for name, value in state.items()}
        if key == "earlier":
            layers = (name.split(".") for name in state if name.startswith("body."))
            for block in sorted({".".join(parts[:depth]) for parts in layers for depth in (2, 3)}):
                renamed[dialect.from_basicsr(f"{block}.residual_scaling")] = torch.tensor(residual_scaling)
        return renamed
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("body."))
    ups = sum(re.fullmatch(r"conv_up\d+\.weight", name) is not None for name in state)
    up = state.get("conv_up1.weight")
    first = 2 if up is not None and up.shape[0] > up.shape[1] else 3  # of a sub-pixel network: the conv stands first
    *numbers, hr, last = (*(first + 3 * u for u in range(ups)), 2 + 3 * ups, 4 + 3 * ups)
    behind = {"conv_body": f"model.1.sub.{blocks}", "conv_hr": f"model.{hr}", "conv_last": f"model.{last}"}
    behind |= {f"conv_up{u}": f"model.{number}" for u, number in enumerate(numbers, start=1)}
    numbered = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        numbered[f"{behind[layer]}.{kind}" if layer in behind else dialect.from_basicsr(name)] = value
    return numbered


def _tail_numberings() -> dict[frozenset[int], tuple[int, ...]]:
    """List the numbers that layers behind the trunk have in a flat ``nn.Sequential``.

    The trunk is 0 and 1. Each doubling takes three numbers: Upsample, conv, LeakyReLU, or in a sub-pixel network conv,
    PixelShuffle, LeakyReLU. Then come conv, LeakyReLU, conv.
    """
    tails = {}
    for doublings in range(5):
        for first in (3, 2):
            ups = [first + 3 * u for u in range(doublings)]
            numbers = (*ups, 2 + 3 * doublings, 4 + 3 * doublings)
            tails[frozenset(numbers)] = numbers
    return tails


TAIL_NUMBERINGS = _tail_numberings()


def _resolve_tail(names: list[str], place: str) -> list[str]:
    layers = {int(match[1]) for name in names if (match := re.fullmatch(r"tail\.(\d{1,4})\.\w+", name))}
    if not layers:
        return names
    numbers = TAIL_NUMBERINGS.get(frozenset(layers))
    if numbers is None:
        got = ", ".join(f"model.{number}" for number in sorted(layers)[:8])
        raise WeightsError(
            f"{place}: expected the layers behind the trunk to be model.3, 6, 8, 10 (×4) or those of another scale, "
            f"got {got}; the file is damaged or of an unknown variant of ESRGAN"
        )
    *ups, hr, last = numbers
    ours = {f"tail.{number}": f"conv_up{u}" for u, number in enumerate(ups, start=1)}
    ours |= {f"tail.{hr}": "conv_hr", f"tail.{last}": "conv_last"}
    return [re.sub(r"^tail\.\d+", lambda match: ours[match[0]], name) for name in names]


def _check_upsampling(ours: StateDict, numbered_as_subpixel: bool, label: str, place: str) -> None:
    up = ours.get("conv_up1.weight")
    if label != ESRGAN_OLD_LABEL or up is None or up.ndim != 4:
        return
    if numbered_as_subpixel != (up.shape[0] > up.shape[1]):
        kind = ("nearest-neighbour", "sub-pixel") if numbered_as_subpixel else ("sub-pixel", "nearest-neighbour")
        raise WeightsError(
            f"{place}: has the convolutions of {kind[0]} upsampling where {kind[1]} upsampling has them; "
            "an unknown variant of ESRGAN"
        )


def _resolve_conv_body(names: list[str], place: str) -> list[str]:
    """Take the number from ``conv_body{n}``: it follows the last block, or blocks are missing."""
    after = {int(match[1]) for name in names if (match := re.fullmatch(r"conv_body(\d{1,4})\.\w+", name))}
    blocks = {int(match[1]) for name in names if (match := re.match(r"body\.(\d{1,4})\.rdb", name))}
    if after and after != {len(blocks)}:
        raise WeightsError(
            f"{place}: expected {max(after)} blocks before model.1.sub.{max(after)}, got {len(blocks)}; "
            "the file is damaged"
        )
    return [re.sub(r"^conv_body\d+", "conv_body", name) for name in names]
