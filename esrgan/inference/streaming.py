"""Run the generator over an image strip by strip, with the same result as for the whole image at once.

Images are cut across their longer side into strips of lines: rows of tall images, columns of wide ones. A 3×3
convolution needs the line before and the line after those that it computes, so each convolution keeps the last two
lines of its input, and its output lags one line behind. Zero padding is added only at the true ends of the image, as
it would be for the whole image. A skip connection waits in a queue until its branch has caught up: 5 lines per dense
block, 15 per RRDB, and the lag of all blocks for the long skip. SRVGGNetCompact is a plain sequence of convolutions
with one long skip. Nothing is computed twice and nothing is blended.

In float32 on the CPU the result is bit-identical to that for the whole image. Memory holds a few strips, two lines for
each convolution and the queues, so it does not depend on the length of the image.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esrgan.models import Generator, RRDBNet, SRVGGNetCompact
from esrgan.models.rrdbnet import NEGATIVE_SLOPE, RRDB, ResidualDenseBlock

# For convolutions with at most this many input elements PyTorch does not use oneDNN, and rounds differently. Strips of
# larger images must always use oneDNN to match the whole image. Images below the limit are not worth streaming.
SMALL_INPUT_ELEMENTS = 20480
_HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
# oneDNN sums narrow grey images in another order than wide ones. 10 columns are wide enough; this leaves some margin.
MIN_GREY_COLUMNS = 32
REPORTS_PER_STRIP = 16  # how often the work on a strip is reported, about


class _Layer(Protocol):
    def push(self, strip: Tensor, is_last: bool) -> Tensor | None:
        """Accept the next lines of the input and return the output lines that they complete; None if there are none.

        After the last strip, all remaining lines are complete.
        """


def upscale_strips(
    network: Generator, strips: Iterable[Tensor], dim: int, lines: int
) -> Iterator[tuple[Tensor | None, float]]:
    """Upscale a batch of images that is read in strips.

    Args:
        network: The generator. Convolutions are computed in the precision of their weights, residuals in float32.
        strips: float32 (B, C, H, W): consecutive parts of the images along ``dim``, after pixel unshuffle where the
            network has it (``Generator.unshuffle``). Each image needs more than ``SMALL_INPUT_ELEMENTS`` elements.
        dim: 2 for strips of rows, 3 for strips of columns.
        lines: How many lines to compute at once, at every resolution.

    Yields:
        float32 (B, C, scale·H, scale·W): consecutive parts of the output along ``dim``, of varying thickness, or None
        while no part is complete; and the work since the last time, in lines of the input. The work of all lines adds
        up to their number. It is reported in small steps, because the first part may come late: the output lags
        behind the input by hundreds of lines with a deep network.
    """
    layers = _build_layers(network, dim)
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
                if work * REPORTS_PER_STRIP >= lines:
                    yield None, work
                    work = 0.0
                pieces = torch.split(done, lines, dim) if done.shape[dim] * 2 > lines * 3 else (done,)
                marked = [(depth + 1, each, is_last_piece and each is pieces[-1]) for each in pieces]
                waiting.extend(reversed(marked))


def _work_per_line(layers: Sequence[_Layer]) -> Iterator[float]:
    """Yield for each layer the share of its work for one line of its output in all work for one line of the input."""
    resolution = 1
    costs: list[tuple[int, int]] = []  # multiplications for a pixel of the input, and lines for one of the input
    for layer in layers:
        weights = 0
        if isinstance(layer, (_Convolution, _DenseBlock)):
            weights = sum(each.conv.weight.numel() for each in layer.buffers)
            resolution *= 2 if isinstance(layer, _NearestUpsampling) else 1
        cost = weights * resolution**2
        resolution *= 2 if isinstance(layer, _SubPixelUpsampling) else 1
        resolution *= layer.factor if isinstance(layer, _PixelShuffle) else 1
        costs.append((cost, resolution))
    total = sum(cost for cost, _ in costs)
    for cost, lines in costs:
        yield cost / total / lines


def estimate_kept_bytes(network: Generator) -> int:
    """Return how many bytes are kept between strips for each pixel of a line of the first layer's input."""
    total = lag = channels = 0
    resolution = 1
    started: dict[_SkipQueue, int] = {}
    for layer in _build_layers(network, 2):
        if isinstance(layer, _SkipStart):
            started[layer.skip] = lag
        elif isinstance(layer, _SkipEnd):
            total += (lag - started[layer.skip]) * channels * 4 * resolution
        elif isinstance(layer, (_Convolution, _DenseBlock)):
            resolution *= 2 if isinstance(layer, _NearestUpsampling) else 1
            kept = sum(2 * each.conv.in_channels * each.conv.weight.element_size() for each in layer.buffers)
            total += kept * resolution
            lag += len(layer.buffers)
            channels = layer.buffers[-1].conv.out_channels
            if isinstance(layer, _DenseBlock):
                total += len(layer.buffers) * channels * 4
            resolution *= 2 if isinstance(layer, _SubPixelUpsampling) else 1
    return total


def _build_layers(network: Generator, dim: int) -> list[_Layer]:
    """Return the forward pass of a network as a list of layers."""
    if isinstance(network, RRDBNet):
        return _build_rrdbnet(network, dim)
    if isinstance(network, SRVGGNetCompact):
        return _build_compact(network, dim)
    raise TypeError(f"expected RRDBNet or SRVGGNetCompact, got {type(network).__name__}")


def _build_compact(network: SRVGGNetCompact, dim: int) -> list[_Layer]:
    skip, factor = _SkipQueue(dim), network.scale_factor
    *inner, last = network.body
    layers: list[_Layer] = [_SkipStart(skip, copies=factor**2)]
    layers += [
        _Convolution(conv, dim, partial(_activate, activation))
        for conv, activation in zip(inner[::2], inner[1::2], strict=True)
    ]
    return [*layers, _Convolution(last, dim), _SkipEnd(skip, 1.0), _PixelShuffle(factor)]


def _activate(activation: nn.Module, lines: Tensor) -> Tensor:
    if isinstance(activation, nn.PReLU):  # its weights may have another precision than the convolution before it
        return F.prelu(lines, activation.weight.to(lines.dtype))
    activated: Tensor = activation(lines)
    return activated


def _leaky_relu(lines: Tensor) -> Tensor:
    return F.leaky_relu(lines, NEGATIVE_SLOPE, inplace=True)


def _build_rrdbnet(network: RRDBNet, dim: int) -> list[_Layer]:
    trunk = _SkipQueue(dim)
    layers: list[_Layer] = [_Convolution(network.conv_first, dim), _SkipStart(trunk)]
    for block in network.body:
        assert isinstance(block, RRDB)  # noqa: S101  tells the type checker
        skip = _SkipQueue(dim)
        dense = [_DenseBlock(each, dim) for each in block.children()]
        layers += [_SkipStart(skip), *dense, _SkipEnd(skip, block.residual_scaling)]
    layers += [_Convolution(network.conv_body, dim), _SkipEnd(trunk, 1.0)]
    for i in range(network.num_upsamplings):
        conv = network.get_submodule(f"conv_up{i + 1}")
        upsampling = _SubPixelUpsampling if network.use_subpixel_conv else _NearestUpsampling
        layers.append(upsampling(conv, dim, _leaky_relu))
    return [*layers, _Convolution(network.conv_hr, dim, _leaky_relu), _Convolution(network.conv_last, dim)]


def _mark_last(strips: Iterable[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Yield each strip with whether it is the last one."""
    iterator = iter(strips)
    held = next(iterator)
    for strip in iterator:
        yield held, False
        held = strip
    yield held, True


class _LineBuffer:
    """The input of a 3×3 convolution: the last lines of the strips before, followed by a new strip."""

    def __init__(self, conv: nn.Module, dim: int) -> None:
        assert isinstance(conv, nn.Conv2d)  # noqa: S101  tells the type checker
        self.conv, self.dim = conv, dim
        self.kept: Tensor | None = None

    def push(self, parts: list[Tensor], is_last: bool) -> Tensor | None:
        """Concatenate the parts of a strip along their channels, and append the strip to the kept lines.

        Returns:
            (B, C, H, W) with one line more at either end than its convolution has; None if no line can be computed yet.
        """
        new = parts[0].shape[self.dim]
        old = 1 if self.kept is None else self.kept.shape[self.dim]
        shape = list(parts[0].shape)
        shape[1], shape[self.dim] = self.conv.in_channels, old + new + is_last
        dtype, device = self.conv.weight.dtype, parts[0].device
        window = torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)
        if self.kept is None:
            window.narrow(self.dim, 0, 1).zero_()
        else:
            window.narrow(self.dim, 0, old).copy_(self.kept)
        inside, channel = window.narrow(self.dim, old, new), 0
        for part in parts:
            inside.narrow(1, channel, part.shape[1]).copy_(part)
            channel += part.shape[1]
        if is_last:
            window.narrow(self.dim, old + new, 1).zero_()
        last_lines = window.narrow(self.dim, shape[self.dim] - 2, 2)
        # A copy, because a view would keep the whole window in memory. It is always written to the same tensor to avoid
        # fragmenting memory.
        self.kept = last_lines.clone() if self.kept is None else self.kept.copy_(last_lines)
        return window if shape[self.dim] > 2 else None

    def convolve(self, window: Tensor) -> Tensor:
        """Compute the lines inside a window."""
        return _convolve(window, self.conv.weight, self.conv.bias, self.dim)


def _convolve(window: Tensor, weight: Tensor, bias: Tensor | None, dim: int) -> Tensor:
    """Compute the lines inside a window; the other dimension gets zero padding."""
    padding = (0, 1) if dim == 2 else (1, 0)
    if window.device.type == "cpu" and window.dtype == torch.float32 and _HAS_ONEDNN:
        one, width = (1, 1), window.shape[3]  # stride and dilation
        if weight.shape[1] == 1 and dim == 3:
            window = F.pad(window, (0, max(MIN_GREY_COLUMNS - width, 0)))
        lines = torch.mkldnn_convolution(window, weight, bias, padding, one, one, 1)
        return lines if window.shape[3] == width else lines[..., : width - 2]
    return F.conv2d(window, weight, bias, padding=padding)


class _SkipQueue:
    """A first-in, first-out queue of the lines of a skip connection."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.strips: deque[Tensor] = deque()

    def add_to(self, branch: Tensor, scaling: float) -> Tensor:
        """Take as many lines from the queue as the branch has, and add the scaled branch to them in float32."""
        result, first = torch.empty_like(branch, dtype=torch.float32), 0
        branch = branch.float()
        while first < branch.shape[self.dim]:
            strip = self.strips.popleft()
            lines = min(strip.shape[self.dim], branch.shape[self.dim] - first)
            if (left := strip.shape[self.dim] - lines) > 0:
                # A copy, because a view would keep the whole strip in memory.
                self.strips.appendleft(strip.narrow(self.dim, lines, left).clone())
            place = result.narrow(self.dim, first, lines)
            torch.add(strip.narrow(self.dim, 0, lines), branch.narrow(self.dim, first, lines), alpha=scaling, out=place)
            first += lines
        return result


class _SkipStart:
    """Puts the lines that pass through into the queue of a skip connection, each channel the given number of times."""

    def __init__(self, skip: _SkipQueue, copies: int = 1) -> None:
        self.skip, self.copies = skip, copies

    def push(self, strip: Tensor, is_last: bool) -> Tensor:
        self.skip.strips.append(strip.repeat_interleave(self.copies, 1) if self.copies > 1 else strip)
        return strip


class _SkipEnd:
    """Adds the queued lines of a skip connection to those that pass through."""

    def __init__(self, skip: _SkipQueue, scaling: float) -> None:
        self.skip, self.scaling = skip, scaling

    def push(self, strip: Tensor, is_last: bool) -> Tensor:
        return self.skip.add_to(strip, self.scaling)


class _Convolution:
    def __init__(self, conv: nn.Module, dim: int, activate: Callable[[Tensor], Tensor] | None = None) -> None:
        self.buffers, self.activate = [_LineBuffer(conv, dim)], activate

    def push(self, strip: Tensor, is_last: bool) -> Tensor | None:
        if (window := self.buffers[0].push([strip], is_last)) is None:
            return None
        lines = self.buffers[0].convolve(window)
        return self.activate(lines) if self.activate else lines


class _NearestUpsampling(_Convolution):
    """Nearest-neighbour upsampling by 2, followed by a convolution."""

    def push(self, strip: Tensor, is_last: bool) -> Tensor | None:
        return super().push(F.interpolate(strip, scale_factor=2, mode="nearest"), is_last)


class _SubPixelUpsampling(_Convolution):
    """A convolution followed by a pixel shuffle by 2.

    The activation comes before the shuffle; the order makes no difference.
    """

    def push(self, strip: Tensor, is_last: bool) -> Tensor | None:
        lines = super().push(strip, is_last)
        return lines if lines is None else F.pixel_shuffle(lines, 2).contiguous(memory_format=torch.channels_last)


class _PixelShuffle:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def push(self, strip: Tensor, is_last: bool) -> Tensor:
        return F.pixel_shuffle(strip, self.factor)


class _DenseBlock:
    def __init__(self, block: nn.Module, dim: int) -> None:
        assert isinstance(block, ResidualDenseBlock)  # noqa: S101  tells the type checker
        self.dim, self.scaling = dim, block.residual_scaling
        self.kernel1x1 = None if block.conv1x1 is None else block.kernel1x1
        self.buffers = [_LineBuffer(conv, dim) for conv in block.convs]
        self.skip = _SkipQueue(dim)

    def push(self, strip: Tensor, is_last: bool) -> Tensor | None:
        self.skip.strips.append(strip)
        *buffers, last = self.buffers
        parts = [strip]
        for k, each in enumerate(buffers, start=1):
            if (window := each.push(parts, is_last)) is None:
                return None
            # The input of this convolution, delayed by one line to line up with its output.
            inside = window.narrow(self.dim, 1, window.shape[self.dim] - 2)
            feature = _leaky_relu(each.convolve(window))
            if self.kernel1x1 is not None and k in (2, 4):  # ESRGAN+
                growth, channels = self.kernel1x1.shape[:2]
                if k == 2:
                    x = window.narrow(1, 0, channels).contiguous(memory_format=torch.channels_last)
                    feature = feature + _convolve(x, self.kernel1x1, None, self.dim)
                else:  # the output of the second
                    feature = feature + inside.narrow(1, channels + growth, growth)
            parts = [inside, feature]
        if (window := last.push(parts, is_last)) is None:
            return None
        return self.skip.add_to(last.convolve(window), self.scaling)
