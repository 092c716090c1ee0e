"""Recognise RRDBNet in the graph of operations that an ncnn ``.param`` describes.

Convolutions are numbered in the order of the file. Their number and the other layers determine the only RRDBNet that
the network can be. The graph of that RRDBNet is built from the same operations and compared with the file's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from esrgan.errors import WeightsError
from esrgan.models.generator import NEGATIVE_SLOPE
from esrgan.text import one_line

UNSUPPORTED_LAYERS = {
    "PReLU": "as in SRVGGNetCompact, the small network of Real-ESRGAN",
    "Deconvolution": "as in waifu2x and Real-CUGAN",
    "InnerProduct": "as in networks with attention",
}


@dataclass(frozen=True)
class Convolution:
    """A 3×3 convolution in the file, with its name there and its numbers of channels."""

    name: str
    out_channels: int
    in_channels: int


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
    convolutions: list[Convolution] = field(default_factory=list)
    conv_nodes: list[int] = field(default_factory=list)  # one node per convolution
    sum_factors: list[tuple[float, ...]] = field(default_factory=list)  # the factors of each sum
    upsamplings: int = 0
    unshuffle_factor: int = 1
    max_concat_inputs: int = 1
    last_node: int = -1

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
            WeightsError: If the line is damaged or the layer is not one of RRDBNet's.
        """
        place = f"{self.place}:{line}"
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
            case "Interp" if option(0) == 1 and option(1) == option(2) == 2 and len(inputs) == 1:
                self.upsamplings += 1
                return self.node_id("nearest", inputs[0])
            case "PixelShuffle" if option(0) == 2 and option(1) == 0:
                self.upsamplings += 1
                return self.node_id("shuffle", inputs[0])
            case "Reorg" if option(1) == 0:
                self.unshuffle_factor = int(option(0))
                return self.node_id("unshuffle", self.unshuffle_factor, inputs[0])
        known = kind in ("Concat", "Eltwise", "BinaryOp", "Interp", "PixelShuffle", "Reorg")
        how = "with options or inputs of another network" if known else UNSUPPORTED_LAYERS.get(kind, "")
        raise WeightsError(
            f"{place}: expected the layers of RRDBNet, got {one_line(f'{kind} {name}')}{how and f', {how}'}; "
            "only RRDBNet is supported"
        )

    def _record_sum(self, *terms: tuple[float, int]) -> int:
        self.sum_factors.append(tuple(factor for factor, _ in self._resolve(terms)))
        return self.add_sum(*terms)

    def _add_convolution(
        self, name: str, source: int, option: Callable[..., float], slopes: list[float], place: str
    ) -> int:
        width, height = option(1), option(11, option(1))
        shape = (width, height, option(3, 1), option(2, 1), option(4), option(14, option(4)), option(5), option(8))
        if shape != (3, 3, 1, 1, 1, 1, 1, 0):
            raise WeightsError(
                f"{place}: expected a 3×3 convolution of stride 1 with a bias, got {one_line(name)} "
                f"of {width:g}×{height:g} or with other stride, padding or 8-bit weights; this is not RRDBNet"
            )
        out_channels, size = int(option(0)), int(option(6))
        in_channels, rest = divmod(size, 9 * out_channels)
        if rest or min(in_channels, out_channels) < 1:
            raise WeightsError(f"{place}: {size} weights do not fit {out_channels} 3×3 filters; the file is damaged")
        result = self.node_id("convolution", len(self.convolutions), source)
        self.convolutions.append(Convolution(one_line(name), out_channels, in_channels))
        self.conv_nodes.append(result)
        if option(9) == 0:
            return result
        return self._add_activation(result, slopes[0] if option(9) == 2 else math.nan, place)

    def _add_activation(self, source: int, slope: float, place: str) -> int:
        if not math.isclose(slope, NEGATIVE_SLOPE, rel_tol=1e-3):  # float16 has about three digits
            got = "another activation" if math.isnan(slope) else f"slope {slope:g}"
            raise WeightsError(f"{place}: expected LeakyReLU with slope 0.2, got {got}; this is not RRDBNet")
        return self.node_id("leaky", source)


def name_convolutions(graph: Graph) -> tuple[list[str], float]:
    """Return our name of each convolution, in order, and the residual scaling.

    Raises:
        WeightsError: If the graph is not that of an RRDBNet.
    """
    # N blocks of J dense blocks of K convolutions have N·J·K convolutions in the trunk, N·J + N scaled sums, and one
    # sum for the long skip connection. The widest concatenation has K inputs.
    ups, max_concat_inputs = graph.upsamplings, graph.max_concat_inputs
    num_dense, rest = divmod(len(graph.convolutions) - 4 - ups, max_concat_inputs)
    num_blocks = len(graph.sum_factors) - 1 - num_dense
    if rest or num_dense < 1 or num_blocks < 1 or num_dense % num_blocks:
        raise WeightsError(
            f"{graph.place}: no RRDBNet has these numbers of layers: convolutions {len(graph.convolutions)}, "
            f"sums {len(graph.sum_factors)}, upsampling layers {ups}"
        )
    trunk = [
        f"body.{i}.rdb{j}.conv{k}"
        for i in range(num_blocks)
        for j in range(1, num_dense // num_blocks + 1)
        for k in range(1, max_concat_inputs + 1)
    ]
    names = ["conv_first", *trunk, "conv_body", *(f"conv_up{u + 1}" for u in range(ups)), "conv_hr", "conv_last"]
    channels = graph.convolutions[0].in_channels, graph.convolutions[-1].out_channels
    if graph.unshuffle_factor > 1 and channels[0] != channels[1] * graph.unshuffle_factor**2:
        raise WeightsError(
            f"{graph.place}: input channels ({channels[0]}) and output channels ({channels[1]}) do not fit pixel "
            f"unshuffle by {graph.unshuffle_factor}; this is not RRDBNet"
        )
    beta = next((factor for factor in graph.sum_factors[0] if factor != 1), 1.0)
    conv_nodes = _build_rrdbnet(graph, num_blocks, num_dense // num_blocks, max_concat_inputs, beta)
    for convolution, name, got, expected in zip(graph.convolutions, names, graph.conv_nodes, conv_nodes, strict=True):
        if got != expected:
            raise WeightsError(
                f"{graph.place}: {convolution.name}, where RRDBNet has {name}, is connected, activated or scaled "
                "differently; this is another network"
            )
    if graph.last_node != graph.conv_nodes[-1]:
        raise WeightsError(f"{graph.place}: does not end with RRDBNet's last convolution; this is another network")
    return names, beta


def _build_rrdbnet(graph: Graph, num_blocks: int, num_dense: int, num_convs: int, beta: float) -> list[int]:
    """Build RRDBNet from the same operations, and return the numbers that the convolutions of the file must have."""
    conv_nodes: list[int] = []

    def conv(source: int) -> int:
        conv_nodes.append(graph.node_id("convolution", len(conv_nodes), source))
        return conv_nodes[-1]

    x = graph.node_id("input")
    fold = graph.unshuffle_factor
    shallow = x = conv(graph.node_id("unshuffle", fold, x) if fold > 1 else x)
    for _ in range(num_blocks):
        block = x
        for _ in range(num_dense):
            features = [x]
            for _ in range(num_convs):
                residual = conv(graph.node_id("concat", *features) if len(features) > 1 else x)
                features.append(graph.node_id("leaky", residual))
            x = graph.add_sum((1.0, x), (beta, residual))
        x = graph.add_sum((1.0, block), (beta, x))
    x = graph.add_sum((1.0, shallow), (1.0, conv(x)))
    subpixel = any(key[0] == "shuffle" for key in graph.node_ids)
    for _ in range(graph.upsamplings):
        x = graph.node_id("shuffle", conv(x)) if subpixel else conv(graph.node_id("nearest", x))
        x = graph.node_id("leaky", x)
    conv(graph.node_id("leaky", conv(x)))
    return conv_nodes
