"""3×3 convolutions that are computed line by line, with the same result as for the whole image at once.

Each convolution keeps the last two lines of its input, and its output lags one line behind. Zero padding is added only
at the true ends of the image, as it would be for the whole image. The input of a dense block waits in a queue until the
residual has caught up, 5 lines later. In float32 on the CPU the result is bit-identical to that for the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esrgan.inference.layers import Activation, Layer, SkipQueue, leaky_relu
from esrgan.models.rrdbnet import ResidualDenseBlock

# For convolutions with at most this many input elements PyTorch does not use oneDNN, and rounds differently. Strips of
# larger images must always use oneDNN to match the whole image. Images below the limit are not worth streaming.
SMALL_INPUT_ELEMENTS = 20480
_HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
# oneDNN sums narrow grey images in another order than wide ones. 10 columns are wide enough; this leaves some margin.
MIN_GREY_COLUMNS = 32


class DirectLayers:
    """Makes the layers of a network.

    Args:
        dim: 2 for strips of rows, 3 for strips of columns.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def convolution(self, conv: nn.Module, activate: Activation | None = None) -> Layer:
        """Return a convolution."""
        return _Convolution(conv, self.dim, activate)

    def nearest_upsampling(self, conv: nn.Module, activate: Activation) -> Layer:
        """Return nearest-neighbour upsampling by 2, followed by a convolution."""
        return _NearestUpsampling(conv, self.dim, activate)

    def pixel_shuffle(self, factor: int) -> Layer:
        """Return a pixel shuffle."""
        return _PixelShuffle(factor)

    def dense_block(self, block: nn.Module) -> Layer:
        """Return a dense block."""
        return _DenseBlock(block, self.dim)


class _LineBuffer:
    """The input of a 3×3 convolution: the last lines of the strips before, followed by a new strip."""

    def __init__(self, conv: nn.Conv2d, dim: int) -> None:
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


class _Lines(Layer):
    """A layer of convolutions, one after the other."""

    def __init__(self, modules: Sequence[nn.Module], dim: int) -> None:
        self.dim = dim
        convs = [each for each in modules if isinstance(each, nn.Conv2d)]
        self.buffers = [_LineBuffer(conv, dim) for conv in convs]
        self.weights = sum(conv.weight.numel() for conv in convs)
        self.kept_bytes = sum(2 * conv.in_channels * conv.weight.element_size() for conv in convs)
        # A window, its output and the next window, which has twice the lines where an upsampling comes between them.
        self.work_bytes = 4 * max(max(conv.weight.shape[:2]) * conv.weight.element_size() for conv in convs)
        self.lag, self.channels = len(convs), convs[-1].out_channels


class _Convolution(_Lines):
    def __init__(self, conv: nn.Module, dim: int, activate: Activation | None) -> None:
        super().__init__([conv], dim)
        self.activate = activate

    def push(self, strip: Tensor, is_last: bool) -> Tensor | None:
        if (window := self.buffers[0].push([strip], is_last)) is None:
            return None
        lines = self.buffers[0].convolve(window)
        return self.activate(lines) if self.activate else lines


class _NearestUpsampling(_Convolution):
    before = 2

    def push(self, strip: Tensor, is_last: bool) -> Tensor | None:
        return super().push(F.interpolate(strip, scale_factor=2, mode="nearest"), is_last)


class _PixelShuffle(Layer):
    def __init__(self, factor: int) -> None:
        self.after = factor

    def push(self, strip: Tensor, is_last: bool) -> Tensor:
        return F.pixel_shuffle(strip, self.after)


class _DenseBlock(_Lines):
    def __init__(self, block: nn.Module, dim: int) -> None:
        assert isinstance(block, ResidualDenseBlock)  # noqa: S101  tells the type checker
        super().__init__(block.convs, dim)
        self.scaling = block.residual_scaling
        self.kernel1x1 = None if block.conv1x1 is None else block.pad_kernel1x1()
        self.skip = SkipQueue(dim)
        self.kept_bytes += len(self.buffers) * self.channels * 4  # the queue

    def push(self, strip: Tensor, is_last: bool) -> Tensor | None:
        self.skip.strips.append(strip)
        *buffers, last = self.buffers
        parts = [strip]
        for k, each in enumerate(buffers, start=1):
            if (window := each.push(parts, is_last)) is None:
                return None
            # The input of this convolution, delayed by one line to line up with its output.
            inside = window.narrow(self.dim, 1, window.shape[self.dim] - 2)
            feature = leaky_relu(each.convolve(window))
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
