"""Recognise a generator in the graph of operations that an ncnn ``.param`` describes.

Convolutions are numbered in the order of the file. Their number and the other layers determine the only RRDBNet or
SRVGGNetCompact that the network can be. The graph of that network is built from the same operations and compared with
the file's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from esrgan.errors import WeightsError
from esrgan.models import compact
from esrgan.models.rrdbnet import NEGATIVE_SLOPE
from esrgan.text import one_line
from esrgan.weights.unsupported import ONLY_ESRGAN

UNSUPPORTED_LAYERS = {
    "Deconvolution": "as in waifu2x and Real-CUGAN",
    "InnerProduct": "as in networks with attention",
    "pnnx.Expression": "as pnnx writes for two shapes of the input; convert with one inputshape",
}


@dataclass(frozen=True)
class Convolution:
    """A convolution in the file, with its name there, its numbers of channels, and the side of its kernel."""

    name: str
    out_channels: int
    in_channels: int
    side: int = 3


@dataclass(frozen=True)
class Slopes:
    """The slopes of a PReLU in the file."""

    name: str
    channels: int


@dataclass
class Graph:
    """A network by value numbering: equal computations have equal numbers, whatever their blobs are called.

    Args:
        place: Name of the file for error messages.
    """

    place: str
    node_ids: dict[tuple[object, ...], int] = field(default_factory=dict)
    scaled: dict[int, tuple[float, int]] = field(default_factory=dict)
    blobs: dict[str, int] = field(default_factory=dict)
    weighted: list[Convolution | Slopes] = field(default_factory=list)  # the layers with weights, in file order
    weighted_nodes: list[int] = field(default_factory=list)  # one node for each of these
    sum_factors: list[tuple[float, ...]] = field(default_factory=list)  # the factors of each sum
    slopes: dict[float, str] = field(default_factory=dict)  # the slopes of activations, and where they come first
    upsamplings: dict[int, list[str]] = field(default_factory=dict)  # by factor, where they are
    unshuffle_factor: int = 1
    final_factor: float = 1.0  # by which a last layer resizes the output
    max_concat_inputs: int = 1
    last_node: int = -1

    @property
    def convolutions(self) -> list[Convolution]:
        """The convolutions, in file order."""
        return [layer for layer in self.weighted if isinstance(layer, Convolution)]

    def node_id(self, *key: object) -> int:
        """Return the number of an operation on numbered inputs."""
        return self.node_ids.setdefault(key, len(self.node_ids))

    def add_sum(self, *terms: tuple[float, int]) -> int:
        """Return the number of a sum of (factor, input) terms, whatever their order and grouping."""
        return self.node_id("sum", *self._resolve(terms))

    def _resolve(self, terms: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
        resolved = []
        for factor, term in terms:
            inner, source = self.scaled.get(term, (1.0, term))
            resolved.append((float(f"{factor * inner:.6g}"), source))  # the file's float32 numbers have no more digits
        return sorted(resolved)

    def add_layer(self, words: list[str], line: int) -> None:
        """Add a layer of the file to the graph.

        Args:
            words: The line of the layer, split at white space.
            line: Its number in the file, for error messages.

        Raises:
            WeightsError: If the line is damaged or the layer is not one of a generator's.
        """
        place = f"{self.place}:{line}"
        if self.final_factor != 1:
            raise WeightsError(f"{place}: expected no layer after the one that resizes the output; {_OTHER}")
        try:
            kind, name, num_inputs, num_outputs = words[0], words[1], int(words[2]), int(words[3])
            blobs, values = words[4 : 4 + num_inputs + num_outputs], words[4 + num_inputs + num_outputs :]
            options = {key: value for key, _, value in (text.partition("=") for text in values)}
            inputs = [self.blobs[blob] for blob in blobs[:num_inputs]]
            result = self._add_operation(kind, name, inputs, options, place)
        except (IndexError, KeyError, ValueError, OverflowError, ZeroDivisionError) as error:
            got = one_line(" ".join(words))
            raise WeightsError(
                f"{place}: expected a layer of an ncnn network, got {got}; the file is damaged"
            ) from error
        for blob in blobs[num_inputs:]:
            self.blobs[blob] = result
        self.last_node = result

    def _add_operation(self, kind: str, name: str, inputs: list[int], options: dict[str, str], place: str) -> int:
        def option(key: int, default: float = 0) -> float:
            return float(options.get(str(key), default))

        def numbers(key: int) -> list[float]:  # an array's key is -23300 - key; its count comes first
            return [float(text) for text in options.get(str(-23300 - key), "0").split(",")][1:]

        match kind:
            case "Input":
                return self.node_id("input")
            case "Split" | "Noop" | "Dropout":
                return inputs[0]
            case "Convolution":
                return self._add_convolution(name, inputs[0], option, numbers(10), place)
            case "PReLU":
                result = self.node_id("prelu", len(self.weighted), inputs[0])
                self.weighted.append(Slopes(one_line(name), int(option(0))))
                self.weighted_nodes.append(result)
                return result
            case "ReLU" if inputs:
                return self._add_activation(inputs[0], option(0), place)
            case "Concat":
                self.max_concat_inputs = max(self.max_concat_inputs, len(inputs))
                return self.node_id("concat", *inputs)
            case "Eltwise" if option(0) == 1 and len(inputs) == 2:
                return self._record_sum(*zip(numbers(1) or [1.0, 1.0], inputs, strict=True))
            case "BinaryOp" if option(0) == 0 and len(inputs) == 2:
                return self._record_sum(*((1.0, number) for number in inputs))
            case "BinaryOp" if option(0) == 2 and option(1) == 1 and len(inputs) == 1:
                result = self.node_id("scale", option(2), inputs[0])
                self.scaled[result] = (option(2), inputs[0])
                return result
            case "Interp" if (
                option(1) == option(2) and option(0) == 1 and len(inputs) == 1 and 1 <= option(1) == int(option(1))
            ):
                return self._add_upsampling("nearest", option(1), inputs[0], place)
            case "Interp" if option(1) == option(2) and option(0) in (2, 3) and len(inputs) == 1 and 0 < option(1) < 1:
                self.final_factor = option(1)
                return inputs[0]
            case "PixelShuffle" if option(1) == 0:
                return self._add_upsampling("shuffle", option(0), inputs[0], place)
            case "Reorg" if option(1) == 0:
                self.unshuffle_factor = int(option(0))
                return self.node_id("unshuffle", self.unshuffle_factor, inputs[0])
        known = kind in ("Concat", "Eltwise", "BinaryOp", "Interp", "PixelShuffle", "Reorg")
        how = "with options or inputs of another network" if known else UNSUPPORTED_LAYERS.get(kind, "")
        raise WeightsError(
            f"{place}: expected the layers of RRDBNet or SRVGGNetCompact, got {one_line(f'{kind} {name}')}"
            f"{how and f', {how}'}{ONLY_ESRGAN}"
        )

    def _add_upsampling(self, kind: str, factor: float, source: int, place: str) -> int:
        if factor == 1:  # a layer that does nothing; converters leave some of these out
            return source
        self.upsamplings.setdefault(int(factor), []).append(place)
        return self.node_id(kind, int(factor), source)

    def _record_sum(self, *terms: tuple[float, int]) -> int:
        self.sum_factors.append(tuple(factor for factor, _ in self._resolve(terms)))
        return self.add_sum(*terms)

    def _add_convolution(
        self, name: str, source: int, option: Callable[..., float], slopes: list[float], place: str
    ) -> int:
        width, height = option(1), option(11, option(1))
        shape = (width, height, option(3, 1), option(2, 1), option(4), option(14, option(4)), option(5), option(8))
        side = int(width)
        if shape not in ((3, 3, 1, 1, 1, 1, 1, 0), (1, 1, 1, 1, 0, 0, 0, 0)):
            raise WeightsError(
                f"{place}: expected a 3×3 convolution of stride 1 with a bias, got {one_line(name)} "
                f"of {width:g}×{height:g} or with other stride, padding or 8-bit weights; {_OTHER}"
            )
        out_channels, size = int(option(0)), int(option(6))
        in_channels, rest = divmod(size, side**2 * out_channels)
        if rest or min(in_channels, out_channels) < 1:
            raise WeightsError(
                f"{place}: {size} weights do not fit {out_channels} {side}×{side} filters; the file is damaged"
            )
        result = self.node_id("convolution", len(self.weighted), source)
        self.weighted.append(Convolution(one_line(name), out_channels, in_channels, side))
        self.weighted_nodes.append(result)
        if option(9) == 0:
            return result
        slope = slopes[0] if option(9) == 2 else 0.0 if option(9) == 1 else math.nan
        return self._add_activation(result, slope, place)

    def _add_activation(self, source: int, slope: float, place: str) -> int:
        slope = float(f"{slope:.2g}")  # float16 has about three digits
        self.slopes.setdefault(slope, place)
        return self.node_id("leaky", slope, source)


_OTHER = "this is another network"


def name_weights(graph: Graph) -> tuple[list[str], dict[str, Any]]:
    """Return our name of each layer with weights, in file order, and the scale and what the tensors do not show.

    Raises:
        WeightsError: If the graph is not that of an RRDBNet or SRVGGNetCompact.
    """
    is_compact = len(graph.sum_factors) == 1
    names, nodes, last, hidden = _match_compact(graph) if is_compact else _match_rrdbnet(graph)
    for layer, name, got, expected in zip(graph.weighted, names, graph.weighted_nodes, nodes, strict=False):
        if got != expected:
            raise WeightsError(
                f"{graph.place}: {layer.name}, where {'SRVGGNetCompact' if is_compact else 'RRDBNet'} has {name}, is "
                f"connected, activated or scaled differently; {_OTHER}"
            )
    if len(graph.weighted) != len(nodes):
        raise WeightsError(f"{graph.place}: has {len(graph.weighted)} layers with weights, not {len(nodes)}; {_OTHER}")
    if graph.last_node != last:
        raise WeightsError(f"{graph.place}: does not end with the last layer of its kind; {_OTHER}")
    return names, hidden


_Match = tuple[list[str], list[int], int, dict[str, Any]]  # names, nodes, last node, scale and hidden arguments


def _match_compact(graph: Graph) -> _Match:
    """Build SRVGGNetCompact from the same operations."""
    names: list[str] = []
    nodes: list[int] = []
    low = x = graph.node_id("input")
    slope = next(iter(graph.slopes), None)
    if len(graph.slopes) > 1 or slope not in (None, 0, compact.NEGATIVE_SLOPE):
        place = list(graph.slopes.values())[-1]
        raise WeightsError(f"{place}: expected PReLU, ReLU or LeakyReLU with slope 0.1; {_OTHER}")
    act_type = "prelu" if slope is None else "leakyrelu" if slope else "relu"
    count = len(graph.convolutions)
    for i in range(count):
        names.append(f"body.{2 * i}")
        x = graph.node_id("convolution", len(nodes), x)
        nodes.append(x)
        if i == count - 1:
            break
        if slope is not None:
            x = graph.node_id("leaky", slope, x)
        elif len(nodes) < len(graph.weighted):
            names.append(f"body.{2 * i + 1}")
            x = graph.node_id("prelu", len(nodes), x)
            nodes.append(x)
    factor = max(graph.upsamplings, default=1)
    if len(names) != len(graph.weighted) or count < 2:
        got = f"convolutions {count}, PReLU {len(graph.weighted) - count}"
        raise WeightsError(f"{graph.place}: no SRVGGNetCompact has these numbers of layers: {got}")
    shuffled = graph.node_id("shuffle", factor, x) if factor > 1 else x
    enlarged = graph.node_id("nearest", factor, low) if factor > 1 else low
    return names, nodes, graph.add_sum((1.0, shuffled), (1.0, enlarged)), {"act_type": act_type, "scale": factor}


def _match_rrdbnet(graph: Graph) -> _Match:
    """Build RRDBNet from the same operations."""
    for slope, place in graph.slopes.items():
        if not math.isclose(slope, NEGATIVE_SLOPE):
            got = "another activation" if math.isnan(slope) else f"slope {slope:g}"
            raise WeightsError(f"{place}: expected LeakyReLU with slope 0.2, got {got}; this is not RRDBNet")
    for factor, places in graph.upsamplings.items():
        if factor != 2:
            raise WeightsError(f"{places[0]}: expected upsampling by 2, got {factor}; this is not RRDBNet")
    # N blocks of J dense blocks of K convolutions have N·J·K convolutions in the trunk, N·J + N scaled sums, and one
    # sum for the long skip connection. The widest concatenation has K inputs. ESRGAN+ has another convolution in each
    # dense block, and another sum after the second and the fourth convolution, unless that is the last one.
    ups, max_concat_inputs = len(graph.upsamplings.get(2, [])), graph.max_concat_inputs
    extra = sum(conv.side == 1 for conv in graph.convolutions)
    num_dense, rest = divmod(len(graph.convolutions) - extra - 4 - ups, max_concat_inputs)
    num_blocks = len(graph.sum_factors) - 1 - num_dense - extra * ((max_concat_inputs > 2) + (max_concat_inputs > 4))
    if rest or num_dense < 1 or num_blocks < 1 or num_dense % num_blocks or extra not in (0, num_dense):
        raise WeightsError(
            f"{graph.place}: no RRDBNet has these numbers of layers: convolutions {len(graph.convolutions)}, "
            f"sums {len(graph.sum_factors)}, upsampling layers {ups}"
        )
    channels = graph.convolutions[0].in_channels, graph.convolutions[-1].out_channels
    if graph.unshuffle_factor > 1 and channels[0] != channels[1] * graph.unshuffle_factor**2:
        raise WeightsError(
            f"{graph.place}: input channels ({channels[0]}) and output channels ({channels[1]}) do not fit pixel "
            f"unshuffle by {graph.unshuffle_factor}; this is not RRDBNet"
        )
    beta = next((factor for factors in graph.sum_factors for factor in factors if factor != 1), 1.0)
    builder = _RRDBNetBuilder(graph)
    builder.build(num_blocks, num_dense // num_blocks, max_concat_inputs, ups, beta, plus=bool(extra))
    hidden = {"residual_scaling": beta, "scale": 2**ups / graph.unshuffle_factor}
    return builder.names, builder.nodes, builder.nodes[-1], hidden


class _RRDBNetBuilder:
    """Builds RRDBNet from the operations of a graph, with the numbers that the file's convolutions must have."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.names: list[str] = []
        self.nodes: list[int] = []

    def build(self, num_blocks: int, num_dense: int, num_convs: int, ups: int, beta: float, *, plus: bool) -> None:
        graph = self.graph
        x = graph.node_id("input")
        fold = graph.unshuffle_factor
        shallow = x = self._conv("conv_first", graph.node_id("unshuffle", fold, x) if fold > 1 else x)
        for i in range(num_blocks):
            block = x
            for j in range(1, num_dense + 1):
                features, name = [x], f"body.{i}.rdb{j}"
                for k in range(1, num_convs + 1):
                    residual = self._conv(
                        f"{name}.conv{k}", graph.node_id("concat", *features) if len(features) > 1 else x
                    )
                    feature = self._leaky(residual)
                    if plus and k in (2, 4) and k < num_convs:
                        more = self._conv(f"{name}.conv1x1", x) if k == 2 else features[2]
                        feature = graph.add_sum((1.0, feature), (1.0, more))
                    features.append(feature)
                x = graph.add_sum((1.0, x), (beta, residual))
            x = graph.add_sum((1.0, block), (beta, x))
        x = graph.add_sum((1.0, shallow), (1.0, self._conv("conv_body", x)))
        subpixel = any(key[0] == "shuffle" for key in graph.node_ids)
        for u in range(1, ups + 1):
            if subpixel:
                x = graph.node_id("shuffle", 2, self._conv(f"conv_up{u}", x))
            else:
                x = self._conv(f"conv_up{u}", graph.node_id("nearest", 2, x))
            x = self._leaky(x)
        self._conv("conv_last", self._leaky(self._conv("conv_hr", x)))

    def _conv(self, name: str, source: int) -> int:
        self.names.append(name)
        self.nodes.append(self.graph.node_id("convolution", len(self.nodes), source))
        return self.nodes[-1]

    def _leaky(self, source: int) -> int:
        return self.graph.node_id("leaky", NEGATIVE_SLOPE, source)
