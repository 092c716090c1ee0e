"""Translate between the tensor names of ESRGAN generators from different programs, by tables.

This package uses BasicSR's names: ``conv_first``, ``body.{i}.rdb{j}.conv{k}``, ``conv_body``, ``conv_up{u}``,
``conv_hr``, ``conv_last``, where i counts from 0 and j, k and u from 1. SRVGGNetCompact has the same names,
``body.{i}``, in all programs.
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
from esrgan.weights.architecture import StateDict, is_compact
from esrgan.weights.networks import check_independent, is_averaged, log_ignored, prefer_averaged, shapes_of
from esrgan.weights.unsupported import NORMALISED, guess_architecture

DENSE_LAYER = "body.{i}.rdb{j}.conv{k}"
PLUS_LAYER = "body.{i}.rdb{j}.conv1x1"  # of ESRGAN+
TAIL_LAYER = "tail.{t}"  # a layer after the trunk, which can be named only once all of them are known
# Entries that programs which count operations leave in a state dict.
COUNTERS = ("total_ops", "total_params")
NUMBER_REGEX = "(0|[1-9][0-9]{0,3})"  # a file that claims more than 9999 blocks is an attack, not a network


@dataclass(frozen=True)
class Dialect:
    """One way to name the layers.

    Attributes:
        key: Its name as an argument; that of ncnn is never typed.
        label: Its name in messages.
        layers: Maps each layer's name in the dialect to ours. ``{j-1}`` is a number one below ours.
    """

    key: str
    label: str
    layers: dict[str, str]

    @cached_property
    def dense_block_pattern(self) -> re.Pattern[str]:
        """The pattern of the dense blocks' tensors, which no other network has, after any wrapper's prefix."""
        dense = next(theirs for theirs, ours in self.layers.items() if ours == DENSE_LAYER)
        return re.compile(rf"((?:.+\.)?){_to_regex(dense)}\.(?:weight|bias)")

    def to_basicsr(self, name: str) -> str:
        """Return our name of a tensor, or the name unchanged if it is not part of this dialect."""
        layer, kind = _split_name(name)
        for pattern, theirs, ours in self._rules:
            if match := pattern.fullmatch(layer):
                numbers = dict(zip(_placeholders(theirs), map(int, match.groups()), strict=True))
                counted = {key[0]: number + key.endswith("-1") for key, number in numbers.items()}
                return ".".join(filter(None, (ours.format(**counted), kind)))
        return name

    def from_basicsr(self, ours: str) -> str:
        """Return this dialect's name of a tensor under our name, the first if there are several."""
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
    """Split a tensor's name into its layer and "weight" or "bias"; the second part is empty if it is neither."""
    layer, _, kind = name.rpartition(".")
    return (layer, kind) if kind in ("weight", "bias") else (name, "")


def _placeholders(template: str) -> list[str]:
    return re.findall(r"\{(.*?)\}", template)


def _to_regex(template: str) -> str:
    return NUMBER_REGEX.join(re.escape(part) for part in re.split(r"\{.*?\}", template))


ESRGAN_OLD_LABEL = "ESRGAN old names"
EARLIER_LABEL = "names of the earlier framework"
BASICSR = Dialect(
    "basicsr",
    "BasicSR names",
    {name: name for name in ("conv_first", DENSE_LAYER, PLUS_LAYER, "conv_body", "conv_up{u}", "conv_hr", "conv_last")},
)
DIALECTS = (
    BASICSR,
    Dialect(
        "esrgan-new",
        "ESRGAN new names",
        {
            "conv_first": "conv_first",
            "RRDB_trunk.{i}.RDB{j}.conv{k}": DENSE_LAYER,
            "RRDB_trunk.{i}.RDB{j}.conv1x1": PLUS_LAYER,
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
            "model.1.sub.{i}.RDB{j}.conv1x1": PLUS_LAYER,
            "model.1.sub.{n}": "conv_body{n}",
            "model.{t}": TAIL_LAYER,
        },
    ),
    Dialect(
        "earlier",
        EARLIER_LABEL,
        {
            "in_conv": "conv_first",
            "rrdb_blocks.rrdb_{i}.dense_blocks.rdb_{j-1}.blocks.{k-1}.conv": DENSE_LAYER,
            "rrdb_blocks.out_conv": "conv_body",
            "upsampling_blocks.upsampling_{u-1}.block.conv": "conv_up{u}",
            "upsampling_blocks.upsampling_{u-1}.conv": "conv_up{u}",  # in the first versions
            "upsampling_blocks.out_conv.0": "conv_hr",
            "upsampling_blocks.out_conv.2": "conv_last",
            "rrdb_blocks.rrdb_{i}.residual_scaling": "body.{i}.residual_scaling",
            "rrdb_blocks.rrdb_{i}.dense_blocks.rdb_{j-1}.residual_scaling": "body.{i}.rdb{j}.residual_scaling",
        },
    ),
    Dialect(  # ncnn files have no names; esrgan.weights.ncnn assigns ours by position, with this prefix
        "ncnn",
        "ncnn",
        {f"ncnn:{name}": name for name in (*BASICSR.layers, "residual_scaling")},
    ),
)


def to_basicsr_names(state: StateDict, place: str) -> tuple[StateDict, str]:
    """Rename the tensors of a generator in any dialect.

    Args:
        state: Tensors as named in a file. They may have a common prefix (``netG.``), and there may be other networks.
        place: Name of the file for error messages.

    Returns:
        The generator's tensors under our names, and the label of the dialect. Unknown tensors keep their names, and
        there may be 0-dimensional ``residual_scaling`` entries.

    Raises:
        WeightsError: If there is no generator or more than one, or if it is incomplete or a part of a larger network.
    """
    state = {name: value for name, value in state.items() if name.rpartition(".")[2] not in COUNTERS}
    found = _find_generators(state)
    if not found:
        raise WeightsError(f"{place}: expected a generator of the ESRGAN family, got {guess_architecture(state)}")
    ignored, dotless = check_independent(state, tuple(prefix for prefix, _ in found), place)
    keys = list(found)
    networks = [(prefix, _select_layers(state, prefix)) for prefix, _ in keys]
    chosen = {keys[position]: found[keys[position]] for position in prefer_averaged(networks)}
    if any(re.search(NORMALISED, name) for name in state if name.startswith(tuple(prefix for prefix, _ in chosen))):
        raise WeightsError(f"{place}: expected a generator of the ESRGAN family, got {guess_architecture(state)}")
    if len(chosen) > 1:
        prefixes = ", ".join(one_line(f"{prefix or 'no prefix'} ({label})") for prefix, label in list(chosen)[:3])
        raise WeightsError(f"{place}: expected one generator, got {len(chosen)}: {prefixes}; save only one of them")
    ((prefix, label), dialect) = next(iter(chosen.items()))
    theirs = _select_layers(state, prefix)
    ignored += [
        each.removesuffix(".")
        for each, layers in networks
        if each != prefix and (is_averaged(each) or not shapes_of(layers) <= shapes_of(theirs))
    ]
    log_ignored(place, prefix, ignored, dotless)
    if dialect is None:
        return theirs, label
    names = [dialect.to_basicsr(name) for name in theirs]
    names = _resolve_conv_body(_resolve_tail(names, place), place)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise WeightsError(f"{place}: {one_line(twice[0])} is stored twice under different names; the file is damaged")
    ours = dict(zip(names, theirs.values(), strict=True))
    _check_upsampling(ours, "model.2.weight" in theirs and "conv_up1.weight" in ours, label, place)
    return ours, label


def select_generators(state: StateDict) -> dict[str, StateDict]:
    """Return the tensors of each generator in a state dict by its prefix; their names are without it."""
    return {prefix: _select_layers(state, prefix) for prefix, _ in _find_generators(state)}


_Found = dict[tuple[str, str], Dialect | None]  # by prefix and label


def _find_generators(state: StateDict) -> _Found:
    """Return the prefix and label of each generator in a state dict, with its dialect; None is SRVGGNetCompact."""
    found: _Found = {
        (match[1], dialect.label): dialect
        for name in state
        for dialect in DIALECTS
        if (match := dialect.dense_block_pattern.fullmatch(name))
    }
    return found or {(prefix, "ncnn" if prefix == "ncnn:" else BASICSR.label): None for prefix in _find_compact(state)}


def _find_compact(state: StateDict) -> list[str]:
    """Return what comes before the names of each SRVGGNetCompact in a state dict."""
    first = "body.0.weight"
    prefixes = [name.removesuffix(first) for name in state if name.endswith(first)]
    return [prefix for prefix in prefixes if is_compact(_select_layers(state, prefix))]


def _select_layers(state: StateDict, prefix: str) -> StateDict:
    """Return the tensors of a network under their names after its prefix.

    Entries of no layer that cannot change its output, such as a number of steps or a mean of 0, are left out.
    """
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {name: value for name, value in own.items() if "." in name or not _is_inert(value)}


def _is_inert(value: Tensor) -> bool:
    if value.is_meta or value.is_nested or value.is_quantized or value.layout is not torch.strided:
        return False
    return not value.is_floating_point() or (value.ndim > 0 and not value.float().any())


def from_basicsr_names(state: StateDict, key: str, residual_scaling: float) -> StateDict:
    """Rename the tensors of a generator to another dialect.

    Args:
        state: Tensors under our names.
        key: Key of the dialect: "basicsr", "esrgan-new", "esrgan-old" or "earlier".
        residual_scaling: β, which the earlier framework stores in its state dict, once per block.

    Returns:
        The tensors under the dialect's names.
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
    *numbers, hr, last = _tail_numbers(ups, is_subpixel=up is not None and up.shape[0] > up.shape[1])
    after_trunk = {"conv_body": f"model.1.sub.{blocks}", "conv_hr": f"model.{hr}", "conv_last": f"model.{last}"}
    after_trunk |= {f"conv_up{u}": f"model.{number}" for u, number in enumerate(numbers, start=1)}
    numbered = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        numbered[f"{after_trunk[layer]}.{kind}" if layer in after_trunk else dialect.from_basicsr(name)] = value
    return numbered


def _tail_numbers(doublings: int, *, is_subpixel: bool) -> tuple[int, ...]:
    """Return the numbers of the convolutions after the trunk in a flat ``nn.Sequential``, in order.

    The first convolution and the trunk are 0 and 1. Each doubling uses three numbers: Upsample, conv, LeakyReLU, or in
    a sub-pixel network conv, PixelShuffle, LeakyReLU. The last layers are conv, LeakyReLU, conv.
    """
    ups = ((2 if is_subpixel else 3) + 3 * u for u in range(doublings))
    return (*ups, 2 + 3 * doublings, 4 + 3 * doublings)


_POSSIBLE_TAILS = [_tail_numbers(doublings, is_subpixel=kind) for doublings in range(7) for kind in (False, True)]
TAIL_NUMBERINGS = {frozenset(numbers): numbers for numbers in _POSSIBLE_TAILS}


def _resolve_tail(names: list[str], place: str) -> list[str]:
    layers = {int(match[1]) for name in names if (match := re.fullmatch(r"tail\.(\d{1,4})\.\w+", name))}
    if not layers:
        return names
    numbers = TAIL_NUMBERINGS.get(frozenset(layers))
    if numbers is None:
        got = ", ".join(f"model.{number}" for number in sorted(layers)[:8])
        raise WeightsError(
            f"{place}: expected the layers after the trunk to be model.3, 6, 8, 10 (×4) or those of another scale, "
            f"got {got}; the file is damaged or an unknown variant of ESRGAN"
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
            f"{place}: convolutions for {kind[0]} upsampling are numbered as for {kind[1]} upsampling; "
            "the file is an unknown variant of ESRGAN"
        )


def _resolve_conv_body(names: list[str], place: str) -> list[str]:
    """Remove the number n from ``conv_body{n}``.

    Raises:
        WeightsError: If n is not the number of blocks, so that blocks are missing.
    """
    after = {int(match[1]) for name in names if (match := re.fullmatch(r"conv_body(\d{1,4})\.\w+", name))}
    blocks = {int(match[1]) for name in names if (match := re.match(r"body\.(\d{1,4})\.rdb", name))}
    if after and after != {len(blocks)}:
        raise WeightsError(
            f"{place}: expected {max(after)} blocks before model.1.sub.{max(after)}, got {len(blocks)}; "
            "the file is damaged"
        )
    return [re.sub(r"^conv_body\d+", "conv_body", name) for name in names]
