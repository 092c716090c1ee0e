"""Run the generator over an image strip by strip, with the same result as for the whole image at once.

Images are cut across their longer side into strips of lines: rows of tall images, columns of wide ones. A convolution
keeps the end of its input until the next strip, and its output lags behind (``direct.py``, ``winograd.py``). A skip
connection waits in a queue until its branch has caught up: for the lag of the blocks that it spans. SRVGGNetCompact is
a plain sequence of convolutions with one long skip. Nothing is blended at the seams.

Memory holds a few strips, the kept lines of each convolution and the queues, so it does not depend on the length of the
image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esrgan.inference.direct import DirectLayers
from esrgan.inference.layers import Layer, SkipEnd, SkipQueue, SkipStart, leaky_relu
from esrgan.inference.winograd import ROWS, TILE, Grid, Kernels, WinogradLayers, from_tiles, to_tiles
from esrgan.models import Generator, RRDBNet, SRVGGNetCompact
from esrgan.models.rrdbnet import RRDB

REPORTS_PER_STRIP = 16  # how often the work on a strip is reported, about


def upscale_strips(
    network: Generator,
    strips: Iterable[Tensor],
    dim: int,
    lines: int,
    shape: tuple[int, int, int],
    kernels: Kernels | None = None,
) -> Iterator[tuple[Tensor | None, float]]:
    """Upscale a batch of images that is read in strips.

    Args:
        network: The generator. Convolutions are computed in the precision of their weights, residuals in float32.
        strips: float32 (B, C, h, w): consecutive parts of the images along ``dim``, after pixel unshuffle where the
            network has it (``Generator.unshuffle``). Without ``kernels``, each image needs more than
            ``direct.SMALL_INPUT_ELEMENTS`` elements; with them, all strips but the last need a multiple of ``TILE``
            lines.
        dim: 2 for strips of rows, 3 for strips of columns.
        lines: How many lines to compute at once: without ``kernels`` at every resolution; with them a multiple of
            ``TILE``, and fewer where features are larger.
        shape: The number of images, their height and their width.
        kernels: The network's kernels for Winograd's algorithm, by which all convolutions are computed; None to
            compute them directly.

    Yields:
        float32 (B, C, scale·h, scale·w): consecutive parts of the output along ``dim``, of varying thickness, or None
        while no part is complete; and the work since the last time, in lines of the input. The work of all lines adds
        up to their number, or a little more with ``kernels``. It is reported in small steps, because the first part may
        come late: the output lags behind the input by hundreds of lines with a deep network. With ``kernels``, the last
        part may have up to 3 lines too many.
    """
    if kernels is None:
        layers = _build_layers(network, DirectLayers(dim), dim)
        yield from _run(layers, strips, dim, [lines] * len(layers))
        return
    batch, height, width = shape
    grid = Grid(batch, *((height, width) if dim == 2 else (width, height)))
    layers = _build_layers(network, WinogradLayers(dim, grid, kernels), ROWS)
    high = grid.enlarge(network.scale_factor * network.unshuffle_factor)
    rows = [max(lines // TILE // resolution, 1) for _, resolution in _list_resolutions(layers)]
    for part, work in _run(layers, (to_tiles(strip, dim) for strip in strips), ROWS, rows):
        yield None if part is None else from_tiles(part, high, dim), work * TILE


def _run(
    layers: Sequence[Layer], strips: Iterable[Tensor], dim: int, lines: Sequence[int]
) -> Iterator[tuple[Tensor | None, float]]:
    """Push strips through layers, each of which hands on about so many lines at once.

    Yields:
        What comes out, or None, and the work since the last time.
    """
    works = list(_work_per_line(layers))
    work = 0.0
    for strip, is_last in _mark_last(strips):
        # Depth first: each piece passes through all layers before the next one starts, so few are in memory at once.
        # After the last strip every layer adds the lines it kept, so pieces grow and are split again.
        waiting = [(0, strip, is_last)]
        while waiting:
            depth, piece, is_last_piece = waiting.pop()
            if depth == len(layers):
                yield piece, work
                work = 0.0
            elif (done := layers[depth].push(piece, is_last_piece)) is not None:
                work += works[depth] * done.shape[dim]
                if work * REPORTS_PER_STRIP >= lines[0]:
                    yield None, work
                    work = 0.0
                many = done.shape[dim] * 2 > lines[depth] * 3
                pieces = torch.split(done, lines[depth], dim) if many else (done,)
                marked = [(depth + 1, each, is_last_piece and each is pieces[-1]) for each in pieces]
                waiting.extend(reversed(marked))


def _mark_last(strips: Iterable[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Yield each strip with whether it is the last one."""
    iterator = iter(strips)
    held = next(iterator)
    for strip in iterator:
        yield held, False
        held = strip
    yield held, True


def _work_per_line(layers: Sequence[Layer]) -> Iterator[float]:
    """Yield for each layer the share of its work for one line of its output in all work for one line of the input."""
    resolutions = _list_resolutions(layers)
    costs = [layer.weights * work**2 for layer, (work, _) in zip(layers, resolutions, strict=True)]
    for cost, (_, lines) in zip(costs, resolutions, strict=True):
        yield cost / sum(costs) / lines


def _list_resolutions(layers: Sequence[Layer]) -> list[tuple[int, int]]:
    """Return for each layer how many lines it computes for one of the input, and how many it hands on."""
    resolution, resolutions = 1, []
    for layer in layers:
        work = resolution * layer.before
        resolution = work * layer.after
        resolutions.append((work, resolution))
    return resolutions


def estimate_bytes(network: Generator, kernels: Kernels | None) -> tuple[int, int]:
    """Return the bytes that are kept between strips for each pixel of a line, and those for each pixel of a strip.

    Both count pixels of the first layer's input.
    """
    kept = work = lag = channels = 0
    started: dict[SkipQueue, int] = {}
    kit = DirectLayers(2) if kernels is None else WinogradLayers(2, Grid(1, TILE, TILE), kernels)
    layers = _build_layers(network, kit, 2)
    for layer, (resolution, _) in zip(layers, _list_resolutions(layers), strict=True):
        if isinstance(layer, SkipStart):
            started[layer.skip] = lag
        elif isinstance(layer, SkipEnd):
            kept += (lag - started[layer.skip]) * channels * 4 * resolution
        kept += layer.kept_bytes * resolution
        lag += layer.lag
        channels = layer.channels or channels
        # At least what is kept of the features while they are handed on and enlarged.
        work = max(work, layer.work_bytes * (resolution if kernels is None else 1), 9 * channels * 4 * resolution)
    return kept, work


def _build_layers(network: Generator, kit: DirectLayers | WinogradLayers, dim: int) -> list[Layer]:
    """Return the forward pass of a network as a list of layers that pass on strips along ``dim``."""
    if isinstance(network, RRDBNet):
        return _build_rrdbnet(network, kit, dim)
    if isinstance(network, SRVGGNetCompact):
        return _build_compact(network, kit, dim)
    raise TypeError(f"expected RRDBNet or SRVGGNetCompact, got {type(network).__name__}")


def _build_compact(network: SRVGGNetCompact, kit: DirectLayers | WinogradLayers, dim: int) -> list[Layer]:
    skip, factor = SkipQueue(dim), network.scale_factor
    *inner, last = network.body
    layers: list[Layer] = [SkipStart(skip, copies=factor**2)]
    layers += [
        kit.convolution(conv, partial(_activate, activation))
        for conv, activation in zip(inner[::2], inner[1::2], strict=True)
    ]
    return [*layers, kit.convolution(last), SkipEnd(skip, 1.0), kit.pixel_shuffle(factor)]


def _activate(activation: nn.Module, lines: Tensor) -> Tensor:
    if isinstance(activation, nn.PReLU):  # its weights may have another precision than the convolution before it
        return F.prelu(lines, activation.weight.to(lines.dtype))
    activated: Tensor = activation(lines)
    return activated


def _build_rrdbnet(network: RRDBNet, kit: DirectLayers | WinogradLayers, dim: int) -> list[Layer]:
    trunk = SkipQueue(dim)
    layers: list[Layer] = [kit.convolution(network.conv_first), SkipStart(trunk)]
    for rrdb in network.body:
        assert isinstance(rrdb, RRDB)  # noqa: S101  tells the type checker
        skip = SkipQueue(dim)
        dense = [kit.dense_block(block) for block in rrdb.children()]
        layers += [SkipStart(skip), *dense, SkipEnd(skip, rrdb.residual_scaling)]
    layers += [kit.convolution(network.conv_body), SkipEnd(trunk, 1.0)]
    for i in range(network.num_upsamplings):
        conv = network.get_submodule(f"conv_up{i + 1}")
        if network.use_subpixel_conv:  # the order of activation and shuffle makes no difference
            layers += [kit.convolution(conv, leaky_relu), kit.pixel_shuffle(2)]
        else:
            layers.append(kit.nearest_upsampling(conv, leaky_relu))
    return [*layers, kit.convolution(network.conv_hr, leaky_relu), kit.convolution(network.conv_last)]
