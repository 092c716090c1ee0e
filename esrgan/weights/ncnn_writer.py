"""Write generators as ncnn models: a text that describes the network, and the weights in the same order."""

from __future__ import annotations

import struct
from collections import Counter

import torch
from torch import Tensor

from esrgan.models import compact
from esrgan.models.rrdbnet import NEGATIVE_SLOPE
from esrgan.weights.architecture import Architecture, CompactArchitecture, RRDBNetArchitecture
from esrgan.weights.ncnn import FLOAT16, FLOAT32, MAGIC


def to_ncnn(state: dict[str, Tensor], architecture: Architecture, outscale: float | None = None) -> tuple[str, bytes]:
    """Return the contents of the ``.param`` and the ``.bin`` of a generator.

    The input blob is ``data`` in [0, 1], the output blob ``output``.

    Args:
        state: Tensors under our names; biases in float32, weights in float32 or float16.
        architecture: The network that they belong to.
        outscale: The upscaling factor of the output, if a last layer reduces it.
    """
    writer = _Writer(state)
    if isinstance(architecture, RRDBNetArchitecture):
        writer.add_rrdbnet(architecture)
    elif isinstance(architecture, CompactArchitecture):
        writer.add_compact(architecture)
    if outscale is not None:
        writer.add_reduction(outscale / architecture.scale_factor)
    return writer.to_text(), bytes(writer.weights)


class _Writer:
    """Writer of one network; each layer that is added also appends its weights to the content of the ``.bin``."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state
        # (kind, inputs, options); the output blob of a layer is named by the layer's number
        self.layers: list[tuple[str, list[str], str]] = []
        self.weights = bytearray()

    def add_compact(self, architecture: CompactArchitecture) -> None:
        """Add the layers of SRVGGNetCompact."""
        x, factor = "data", architecture.scale_factor
        for i in range(architecture.num_conv + 1):
            x = self._convolution(f"body.{2 * i}", x)
            if architecture.act_type == "prelu":
                slopes = self.state[f"body.{2 * i + 1}.weight"]
                self.weights += slopes.numpy().astype("<f4").tobytes()
                x = self._layer("PReLU", [x], f"0={len(slopes)}")
            else:
                slope = compact.NEGATIVE_SLOPE if architecture.act_type == "leakyrelu" else 0.0
                x = self._layer("ReLU", [x], f"0={slope:e}")
        x = self._convolution(f"body.{2 * (architecture.num_conv + 1)}", x)
        x = self._layer("PixelShuffle", [x], f"0={factor}")
        enlarged = self._layer("Interp", ["data"], f"0=1 1={factor:e} 2={factor:e}")
        self._layer("BinaryOp", [x, enlarged], "0=0")

    def add_rrdbnet(self, architecture: RRDBNetArchitecture) -> None:
        """Add the layers of RRDBNet."""
        x, beta = "data", architecture.residual_scaling
        if (factor := architecture.unshuffle_factor) > 1:
            x = self._layer("Reorg", [x], f"0={factor}")
        shallow = x = self._convolution("conv_first", x)
        for i in range(architecture.num_basic_blocks):
            block = x
            for j in range(1, architecture.num_dense_blocks + 1):
                features, name = [x], f"body.{i}.rdb{j}"
                for k in range(1, architecture.num_residual_blocks + 1):
                    seen = self._layer("Concat", features, "0=0") if k > 1 else x
                    is_last = k == architecture.num_residual_blocks
                    feature = self._convolution(f"{name}.conv{k}", seen, is_active=not is_last)
                    if architecture.plus and k in (2, 4) and not is_last:
                        more = self._convolution(f"{name}.conv1x1", x) if k == 2 else features[2]
                        feature = self._layer("BinaryOp", [feature, more], "0=0")
                    features.append(feature)
                x = self._scaled_sum(features[-1], x, beta)
            x = self._scaled_sum(x, block, beta)
        x = self._layer("BinaryOp", [shallow, self._convolution("conv_body", x)], "0=0")
        for u in range(1, sum(name.startswith("conv_up") for name in self.state) // 2 + 1):
            if architecture.use_subpixel_conv:
                x = self._layer("PixelShuffle", [self._convolution(f"conv_up{u}", x)], "0=2")
                x = self._layer("ReLU", [x], f"0={NEGATIVE_SLOPE:e}")
            else:
                x = self._layer("Interp", [x], "0=1 1=2.000000e+00 2=2.000000e+00")
                x = self._convolution(f"conv_up{u}", x, is_active=True)
        self._convolution("conv_last", self._convolution("conv_hr", x, is_active=True))

    def add_reduction(self, factor: float) -> None:
        """Add a last layer that resizes the output by bicubic interpolation."""
        self._layer("Interp", [str(len(self.layers))], f"0=3 1={factor:e} 2={factor:e}")

    def _layer(self, kind: str, inputs: list[str], options: str) -> str:
        self.layers.append((kind, list(inputs), options))
        return str(len(self.layers))

    def _convolution(self, name: str, source: str, *, is_active: bool = False) -> str:
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        side = weight.shape[2]
        is_half = weight.dtype == torch.float16
        values = weight.numpy().astype("<f2" if is_half else "<f4").tobytes()
        self.weights += struct.pack("<I", FLOAT16 if is_half else FLOAT32) + values + bytes(-len(values) % 4)
        self.weights += b"" if bias is None else bias.numpy().astype("<f4").tobytes()
        options = f"0={len(weight)} 1={side} 4={side // 2} 5={int(bias is not None)} 6={weight.numel()}"
        return self._layer(
            "Convolution", [source], options + (f" 9=2 -23310=1,{NEGATIVE_SLOPE:e}" if is_active else "")
        )

    def _scaled_sum(self, residual: str, x: str, beta: float) -> str:
        return self._layer("Eltwise", [residual, x], f"0=1 -23301=2,{beta:e},1.0e+00")

    def to_text(self) -> str:
        """Return the text of all layers, with a Split after each blob that several layers use, as ncnn requires."""
        uses = Counter(source for _, inputs, _ in self.layers for source in inputs)
        taken: Counter[str] = Counter()
        lines, blobs = ["Input data 0 1 data"], 1
        if (count := uses["data"]) > 1:
            lines.append(f"Split Split_0 1 {count} data {' '.join(f'data_{n}' for n in range(1, count + 1))}")
            blobs += count
        for number, (kind, inputs, options) in enumerate(self.layers, start=1):
            for source in inputs:
                taken[source] += 1
            names = [f"{source}_{taken[source]}" if uses[source] > 1 else source for source in inputs]
            result = "output" if number == len(self.layers) else str(number)
            lines.append(f"{kind} {kind}_{number} {len(inputs)} 1 {' '.join(names)} {result} {options}")
            blobs += 1
            if (count := uses[result]) > 1:
                copies = [f"{result}_{n}" for n in range(1, count + 1)]
                lines.append(f"Split Split_{number} 1 {count} {result} {' '.join(copies)}")
                blobs += count
        return "\n".join([MAGIC.decode(), f"{len(lines)} {blobs}", *lines, ""])
