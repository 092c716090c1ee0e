"""Start a generator from the weights of one with another scale, other channels or another kind of upsampling."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import Any

import torch

from esrgan.errors import WeightsError
from esrgan.weights import Architecture, CompactArchitecture, GeneratorFile, RRDBNetArchitecture
from esrgan.weights.architecture import StateDict, make_empty

# Generators that differ in these have the same trunk; only layers at its ends have other shapes.
TRANSFERABLE = ("scale_factor", "img_channels", "use_subpixel_conv", "pixel_unshuffle")


def check_architecture(file: GeneratorFile, expected: Architecture, may_differ: Collection[str]) -> None:
    """Check that a file has the configured generator, or one that differs only in some properties.

    Raises:
        WeightsError: If it differs in others; the message has both architectures.
    """
    ours, theirs = _arguments(expected), _arguments(file.architecture)
    different = {key: value for key, value in theirs.items() if ours.get(key) != value}
    wrong = {key: value for key, value in different.items() if key not in may_differ}
    if not wrong:
        return
    is_colouriser = wrong.pop("is_colouriser", False)  # False if the other kind of network is configured
    places = {key: key if key in ("scale_factor", "img_channels") else f"generator.{key}" for key in wrong}
    remedy = f"set {', '.join(f'{places[key]} to {json.dumps(value)}' for key, value in wrong.items())}"
    if is_colouriser or type(wrong.get("pixel_unshuffle", False)) is not bool:
        remedy = "this network cannot be trained here"
    elif different.keys() <= set(TRANSFERABLE):
        remedy += ", or start from a model file (-l), which may have another scale, instead of a checkpoint"
    raise WeightsError(
        f"{file.path}: expected the generator of the configuration, {expected}, got {file.architecture}; {remedy}"
    )


def _arguments(architecture: Architecture) -> dict[str, Any]:
    """Return the keys and values of a configuration that define a generator."""
    kind = "compact" if isinstance(architecture, CompactArchitecture) else "rrdb"
    return {"type": kind, **asdict(architecture)}


def take_layers(file: GeneratorFile, expected: Architecture) -> tuple[StateDict, str]:
    """Return the weights that the configured generator starts from, and a text about them if it is another one.

    A generator of another scale has the same trunk. The layers after the trunk are taken too. They see finer or coarser
    features there, but training from them is much faster; see "Weights of another scale" in docs/decisions.md.

    Raises:
        WeightsError: If the trunk differs.
    """
    check_architecture(file, expected, TRANSFERABLE)
    if file.architecture == expected:
        return file.state, ""
    if not (isinstance(expected, RRDBNetArchitecture) and isinstance(file.architecture, RRDBNetArchitecture)):
        return _take_compact_layers(file.state, expected)
    shapes = {name: value.shape for name, value in make_empty(expected.build).state_dict().items()}
    ours, theirs = _layers(shapes), _layers(file.state)
    our_ups, their_ups = ([layer for layer in layers if layer.startswith("conv_up")] for layers in (ours, theirs))
    # conv_hr expects the output of the last upsampling layer, so surplus layers are dropped from the front.
    kept = their_ups[max(0, len(their_ups) - len(our_ups)) :]
    sources = {layer: layer for layer in ours if layer not in our_ups} | dict(zip(our_ups, kept, strict=False))

    adapted = _adapt_ends(file.state, file.architecture, expected)
    fitting = {}
    for name, shape in shapes.items():
        layer, _, rest = name.partition(".")
        value = adapted.get(name, file.state.get(f"{sources.get(layer)}.{rest}"))
        if value is not None and value.shape == shape:
            fitting[name] = value
    found = _layers(fitting)
    new = [layer for layer in ours if layer not in found]
    lists = {
        "taken": [
            layer if sources[layer] == layer else f"{sources[layer]} as {layer}"
            for layer in found
            if layer not in _layers(adapted)
        ],
        "adapted": [layer for layer in found if layer in _layers(adapted)],
        "new": new,
        "unused": [layer for layer in theirs if layer not in [sources[layer] for layer in found]],
    }
    for layer in new:
        if layer in our_ups:
            fitting |= _pass_on(layer, shapes[f"{layer}.weight"])
    text = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in lists.items() if names)
    return fitting, f", for {expected}; layers {text}"


def _take_compact_layers(state: StateDict, expected: Architecture) -> tuple[StateDict, str]:
    """Return the layers of SRVGGNetCompact whose shape is the same.

    A new last layer starts with zeros, so that the network enlarges by nearest neighbour at first.
    """
    shapes = {name: value.shape for name, value in make_empty(expected.build).state_dict().items()}
    fitting = {name: state[name] for name, shape in shapes.items() if state[name].shape == shape}
    last = list(shapes)[-1].rpartition(".")[0]
    zeros = {name: torch.zeros(shape) for name, shape in shapes.items() if name.startswith(f"{last}.")}
    new = list(dict.fromkeys(name.rpartition(".")[0] for name in shapes if name not in fitting))
    return zeros | fitting, f", for {expected}; new layers: {', '.join(new)}"


def _layers(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in names))


def _adapt_ends(state: StateDict, theirs: RRDBNetArchitecture, ours: RRDBNetArchitecture) -> StateDict:
    """Return the first and last layers for another folding of pixels, and for grey images instead of RGB or back.

    Folding shares the weight of a pixel equally among the pixels that take its place, and unfolding sums their weights.
    Grey images count as three equal channels, and their output is the mean of three. An alpha channel has no
    counterpart, so empty tensors are returned for it, which fit no layer.
    """
    before, after = theirs.img_channels, ours.img_channels
    first, last = "conv_first.weight", ("conv_last.weight", "conv_last.bias")
    if before != after and 4 in (before, after):
        return dict.fromkeys((first, "conv_first.bias", *last), torch.empty(0))
    adapted = {}
    folded = state[first]
    plain = folded.reshape(folded.shape[0], before, -1, *folded.shape[2:]).sum(2)
    if before != after:
        plain = plain.sum(1, keepdim=True).expand(-1, after, -1, -1) / after
        adapted = {name: state[name].mean(0, keepdim=True).expand(after, *state[name].shape[1:]) for name in last}
    pixels = ours.unshuffle_factor**2
    if folded.shape[1] != after * pixels or before != after:
        adapted[first] = plain.repeat_interleave(pixels, 1) / pixels
    return adapted


def _pass_on(layer: str, shape: torch.Size) -> StateDict:
    """Return the weights of an upsampling layer that only repeats pixels, also one with sub-pixel convolution."""
    outputs = torch.arange(shape[0])
    weight = torch.zeros(shape)
    weight[outputs, outputs // (shape[0] // shape[1]), 1, 1] = 1
    return {f"{layer}.weight": weight, f"{layer}.bias": torch.zeros(shape[0])}
