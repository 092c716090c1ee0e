"""Read ncnn models: a ``.param`` text that describes the network, and a ``.bin`` with its weights."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from esrgan.errors import WeightsError
from esrgan.text import one_line
from esrgan.weights.ncnn_graph import Convolution, Graph, Slopes, name_weights

MAGIC = b"7767517"  # the first line of every .param text
FLOAT16, FLOAT32 = 0x01306B47, 0  # the flag before the weights of a convolution in the .bin
RAW_FLOAT32 = 0x0002C056
WEIGHT_FLAGS = {flag.to_bytes(4, "little") for flag in (FLOAT16, FLOAT32, RAW_FLOAT32)}


def find_pair(path: Path) -> tuple[Path, Path] | None:
    """Find the two files of an ncnn model, the ``.param`` and the ``.bin``.

    Args:
        path: Either file, or their common name without suffix.

    Returns:
        Both files, or None if ``path`` is not part of an ncnn model.

    Raises:
        WeightsError: If ``path`` is the ``.param`` and there is no ``.bin``.
    """
    try:
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(16)
        elif not path.exists():
            param, weights = (path.with_name(f"{path.name}{suffix}") for suffix in (".param", ".bin"))
            return (param, weights) if param.is_file() and weights.is_file() else None
        else:
            return None
    except (OSError, ValueError):
        return None  # the caller reports it
    if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(MAGIC):
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise WeightsError(f"{path}: its {weights.name} is missing; put it in the same folder")
        return path, weights
    param = path.with_suffix(".param")
    is_weights = path.suffix == ".bin" and not head.startswith((b"PK", b"\x80")) and param.is_file()
    return (param, path) if is_weights else None


def read_pair(param: Path, weights: Path) -> dict[str, Any]:
    """Read the tensors of a generator from an ncnn model.

    Args:
        param: The ``.param`` text.
        weights: The ``.bin`` file, in float16 or float32.

    Returns:
        The content of a model file: under "params" tensors under our names with the prefix ``ncnn:``, under "hparams"
        what they do not show, and under "outscale" the factor of the output if a last layer resizes it.

    Raises:
        WeightsError: If the network is not RRDBNet or SRVGGNetCompact, or the two files do not match; the message is
            one line.
    """
    graph = Graph(str(param))
    for number, line in enumerate(_read_layers(param), start=3):
        graph.add_layer(line.split(), number)
    names, hidden = name_weights(graph)
    tensors = _read_weights(weights, graph.weighted)
    state: dict[str, Any] = {}
    for name, layer in zip(names, graph.weighted, strict=True):
        state[f"ncnn:{name}.weight"] = next(tensors)
        if isinstance(layer, Convolution) and layer.side == 3:
            state[f"ncnn:{name}.bias"] = next(tensors)
    next(tensors, None)  # runs the check that the file ends here
    if "residual_scaling" in hidden:
        state["ncnn:residual_scaling"] = torch.tensor(hidden["residual_scaling"], dtype=torch.float64)
    content: dict[str, Any] = {"params": state}
    if hidden.get("act_type", "prelu") != "prelu":
        content["hparams"] = {"generator": {"act_type": hidden["act_type"]}}
    if graph.final_factor != 1:
        content["outscale"] = hidden["scale"] * graph.final_factor
    return content


def _read_layers(param: Path) -> list[str]:
    try:
        magic, counts, *lines = f"{param.read_text('utf-8-sig')}\n".split("\n")
    except (OSError, ValueError) as error:
        raise WeightsError(f"{param}: cannot be read as the text of an ncnn network: {one_line(str(error))}") from error
    lines = [line for line in lines if line.strip()]
    if magic.strip() != MAGIC.decode() or counts.split()[:1] != [str(len(lines))]:
        expected = one_line(counts.partition(" ")[0], 20) or "the stated number of"
        raise WeightsError(f"{param}: expected {expected} layers, got {len(lines)}; the file is damaged or truncated")
    return lines


def _read_weights(path: Path, layers: list[Convolution | Slopes]) -> Iterator[Tensor]:
    """Yield the weight and bias of each convolution and the slopes of each PReLU.

    No more memory is allocated than the file holds.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}; check the file and its permissions") from error
    position = 0

    def take(count: int, dtype: str, name: str) -> npt.NDArray[Any]:
        nonlocal position
        start, position = position, position + count * np.dtype(dtype).itemsize
        if position > len(content):
            raise WeightsError(
                f"{path}: expected at least {position:,} bytes, got {len(content):,} (it ends within {name}); "
                "it is truncated or does not belong to its .param; download both files again"
            )
        return np.frombuffer(content, dtype, count, start)

    for layer in layers:
        if isinstance(layer, Slopes):
            yield torch.from_numpy(take(layer.channels, "<f4", layer.name).copy())
            continue
        shape = (layer.out_channels, layer.in_channels, layer.side, layer.side)
        count = math.prod(shape)
        flag = int(take(1, "<u4", layer.name)[0])
        if flag == FLOAT16:
            values = take(count, "<f2", layer.name)
            position += position % 4  # padding to a multiple of 4 bytes
        elif flag in (FLOAT32, RAW_FLOAT32):
            values = take(count, "<f4", layer.name)
        else:
            raise WeightsError(
                f"{path}: expected float16 or float32 weights in {layer.name}, got flag {flag:#010x}; it has "
                "8-bit weights or does not belong to its .param; use the model before quantisation"
            )
        yield torch.from_numpy(values.reshape(shape).copy())
        if layer.side == 3:
            yield torch.from_numpy(take(layer.out_channels, "<f4", layer.name).copy())
    if position != len(content):
        raise WeightsError(
            f"{path}: expected {position:,} bytes, got {len(content):,}; it does not belong to its .param; "
            "download both files again"
        )
