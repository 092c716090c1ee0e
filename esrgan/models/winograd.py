"""3×3 convolutions by Winograd's algorithm F(4×4, 3×3), for training in float32 on a CPU.

Fast Algorithms for Convolutional Neural Networks (Lavin and Gray, arXiv 1509.09308): 4×4 pixels of the output need 36
multiplications for each pair of channels instead of 144, once the kernel and the 6×6 pixels of the input around them
have been transformed by small matrices. The gradients of input and kernel use the transposed matrices, so they need no
more multiplications. The results are those of the convolution except for rounding.

Features are kept in *tiles*: tensors (16, C, H/4, W/4, B) in which pixel (i, j) of every tile of 4×4 pixels is at
4·i + j. So the transforms are products of small matrices with whole tensors, the pixels around a tile are found by a
shift, and activations work as on images (B, C, H, W). Functions below accept images too where they say "features".
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from esrgan import devices

SIDE = 4  # px
# With fewer tiles in a batch or fewer channels, the transforms take longer than is gained.
MIN_TILES, MIN_CHANNELS = 64, 32
# Bᵀ, G and Aᵀ of the paper's equation 12, for the points 0, ±1, ±2 and infinity.
INPUT_TRANSFORM = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
KERNEL_TRANSFORM = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]  # times KERNEL_SCALE
KERNEL_SCALE = 24
OUTPUT_TRANSFORM = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
BEFORE, AFTER = 4, 1  # all that the pixels before and after a tile add, to its first and its last value
_BIAS = 7  # the value of a tile's 36 that the output transform adds to all pixels equally


class _Switch(threading.local):
    is_on = False


_switch = _Switch()


@contextmanager
def winograd_convolutions(device: torch.device) -> Iterator[None]:
    """On a CPU where it is faster, have networks in the block convolve by Winograd's algorithm where they can.

    Results differ from those of other convolutions by rounding, and large images need much memory, so this is for
    training steps. The setting applies to the current thread only.
    """
    before, _switch.is_on = _switch.is_on, device.type == "cpu" and devices.has_fast_winograd()
    try:
        yield
    finally:
        _switch.is_on = before


def is_suitable(images: Tensor, channels: int) -> bool:
    """Return whether a network whose features have so many channels should compute images (B, C, H, W) in tiles."""
    return (
        _switch.is_on
        and images.device.type == "cpu"
        and images.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and images.shape[2] % SIDE == images.shape[3] % SIDE == 0
        and images[:, 0].numel() >= MIN_TILES * SIDE**2
        and channels >= MIN_CHANNELS
    )


def to_tiles(images: Tensor) -> Tensor:
    """Return images (B, C, H, W), whose sides are multiples of 4, as tiles."""
    batch, channels, height, width = images.shape
    pixels = images.reshape(batch, channels, height // SIDE, SIDE, width // SIDE, SIDE)
    return pixels.permute(3, 5, 1, 2, 4, 0).flatten(0, 1).contiguous()


def from_tiles(features: Tensor) -> Tensor:
    """Return features as images (B, C, H, W), in the memory format ``channels_last`` if they were tiles."""
    if features.ndim == 4:
        return features
    pixels = features.reshape(SIDE, SIDE, *features.shape[1:]).permute(5, 3, 0, 4, 1, 2)
    return pixels.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def apply(layer: nn.Module, features: Tensor) -> Tensor:
    """Return a layer's output in tiles if its input is tiles.

    The layer is a 3×3 convolution, a 2×2 maximum, or a layer that accepts tiles, such as an activation. If too few
    tiles for this algorithm are left after the maximum, it returns images.
    """
    if features.ndim == 5 and isinstance(layer, nn.Conv2d):
        return convolve(features, [layer], 0)
    if features.ndim == 5 and isinstance(layer, nn.MaxPool2d):
        _, _, rows, columns, batch = features.shape
        if rows % 2 == columns % 2 == 0 and rows * columns * batch >= 4 * MIN_TILES:
            return _max_pool(features)
        features = from_tiles(features)
    output: Tensor = layer(features)
    return output


def convolve(tiles: Tensor, convs: Sequence[nn.Conv2d], negative_slope: float) -> Tensor:
    """Return the output of the last of some convolutions, each of which sees the tiles and the outputs before its own.

    All outputs but the last are activated by LeakyReLU.
    """
    parameters = [parameter for conv in convs for parameter in (conv.weight, conv.bias)]
    output: Tensor = _DenseConvolutions.apply(tiles, negative_slope, *parameters)
    return output


def upsample(features: Tensor) -> Tensor:
    """Enlarge features to twice their size by nearest neighbour."""
    if features.ndim == 4:
        return F.interpolate(features, scale_factor=2, mode="nearest")
    output: Tensor = _Upsampling.apply(features)
    return output


def _max_pool(tiles: Tensor) -> Tensor:
    """Return the maximum of each 2×2 pixels of tiles, whose rows and columns are even."""
    pixels = tiles.reshape(2, 2, 2, 2, *tiles.shape[1:])
    rows = torch.maximum(pixels[:, 0], pixels[:, 1])
    return _join(torch.maximum(rows[:, :, 0], rows[:, :, 1]))


def _join(quarters: Tensor) -> Tensor:
    """Return tiles of which each consists of four neighbouring ones of 2×2 pixels, given as (2, 2, C, H/2, W/2, B)."""
    *_, channels, rows, columns, batch = quarters.shape
    neighbours = quarters.reshape(2, 2, channels, rows // 2, 2, columns // 2, 2, batch)
    return neighbours.permute(4, 0, 6, 1, 2, 3, 5, 7).flatten(0, 3).contiguous()


class _Upsampling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tiles: Tensor) -> Tensor:
        _, channels, rows, columns, batch = tiles.shape
        # Half a tile, given by the first and third dimension, becomes a tile.
        halves = tiles.reshape(2, 2, 2, 2, *tiles.shape[1:]).permute(1, 3, 4, 5, 0, 6, 2, 7)
        output = tiles.new_empty(2, 2, 2, 2, channels, rows, 2, columns, 2, batch)
        output.copy_(halves[:, None, :, None])
        return output.view(16, channels, 2 * rows, 2 * columns, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        pixels = gradient.reshape(2, 2, 2, 2, *gradient.shape[1:])
        rows = pixels[:, 0] + pixels[:, 1]
        return _join(rows[:, :, 0] + rows[:, :, 1])


class _Matrices(NamedTuple):
    """The constant matrices in one precision."""

    input: Tensor  # (6, 4), without the pixels around a tile
    kernel: Tensor  # (36, 9), for both directions
    output: Tensor  # (4, 6)
    input_t: Tensor
    kernel_t: Tensor
    output_t: Tensor


@cache
def _matrices(dtype: torch.dtype) -> _Matrices:
    b, g, a = (
        torch.tensor(rows, dtype=torch.float64, device="cpu")
        for rows in (INPUT_TRANSFORM, KERNEL_TRANSFORM, OUTPUT_TRANSFORM)
    )
    matrices = [b[:, 1:5], torch.kron(g, g) / KERNEL_SCALE**2, a]
    return _Matrices(*(each.to(dtype).contiguous() for each in [*matrices, *(each.T for each in matrices)]))


class _DenseConvolutions(torch.autograd.Function):
    """See ``convolve``. A *spectrum* is features or gradients after their transform: (36, C, tiles)."""

    @staticmethod
    def forward(ctx: Any, tiles: Tensor, negative_slope: float, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[::2], parameters[1::2]
        features, channels = [tiles], 0
        spectrum = tiles.new_empty(36, weights[-1].shape[1], tiles[0, 0].numel())
        for weight, bias in zip(weights, biases, strict=True):
            _transform_input(features[-1], spectrum[:, channels : weight.shape[1]])
            channels = weight.shape[1]
            product = torch.bmm(_transform_kernel(weight), spectrum[:, :channels])
            product[_BIAS] += bias[:, None]
            output = _transform_output(product, tiles)
            if len(features) < len(weights):
                features.append(F.leaky_relu_(output, negative_slope))
        ctx.save_for_backward(*features, *weights)
        ctx.negative_slope = negative_slope
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # may be read only once under activation checkpointing
        count = len(saved) // 2
        features, weights = saved[:count], saved[count:]
        needs_input, _, needs_weights, *_ = ctx.needs_input_grad
        # The first of the channels that each convolution is the first to see.
        starts = [0, *(weight.shape[1] for weight in weights)]
        size, num_outputs = features[0][0, 0].numel(), sum(weight.shape[0] for weight in weights)
        # The transformed features are computed again, because they would need 2.25 times the features' memory.
        inputs = gradient.new_empty(36, starts[-1] if needs_weights else 0, size)
        for k in range(count if needs_weights else 0):
            _transform_input(features[k], inputs[:, starts[k] : starts[k + 1]])

        # The last convolution comes first, so that those which see an output precede the one that computes it.
        outputs, kernels = gradient.new_empty(36, num_outputs, size), gradient.new_zeros(36, num_outputs, starts[-1])
        gradients: list[Tensor | None] = []
        end = 0
        for k in reversed(range(count)):
            start, end = end, end + weights[k].shape[0]
            _transform_gradient(gradient, outputs[:, start:end])
            if needs_weights:
                product = torch.bmm(outputs[:, start:end], inputs[:, : starts[k + 1]].transpose(1, 2))
                gradients += [gradient.sum((0, 2, 3, 4)), _restore_kernel(product)]
            else:
                gradients += [None, None]
            if k == 0:
                del inputs  # what follows takes the most memory
            if k or needs_input:
                kernels[:, start:end, : starts[k + 1]] = _transform_kernel(weights[k])
                seen = kernels[:, :end, starts[k] : starts[k + 1]].transpose(1, 2)
                gradient = _restore_input(torch.bmm(seen, outputs[:, :end]), features[0])
            if k:
                gradient = torch.ops.aten.leaky_relu_backward(gradient, features[k], ctx.negative_slope, True)
        return gradient if needs_input else None, None, *reversed(gradients)


def _transform_kernel(weight: Tensor) -> Tensor:
    """Return the spectrum (36, C', C) of kernels (C', C, 3, 3)."""
    flat = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return (_matrices(weight.dtype).kernel @ flat).view(36, *weight.shape[:2])


def _restore_kernel(spectrum: Tensor) -> Tensor:
    """Return the gradient of kernels (C', C, 3, 3), given that of their spectrum."""
    flat = _matrices(spectrum.dtype).kernel_t @ spectrum.flatten(1)
    return flat.view(3, 3, *spectrum.shape[1:]).permute(2, 3, 0, 1)


def _transform_input(tiles: Tensor, spectrum: Tensor) -> None:
    """Write the spectrum of the input of a convolution."""
    matrix = _matrices(tiles.dtype).input
    tiles = tiles.contiguous()
    lines = tiles.view(SIDE, SIDE, *tiles.shape[1:])
    half = (matrix @ tiles.view(SIDE, -1)).view(6, SIDE, *tiles.shape[1:])
    half[0, :, :, 1:].add_(lines[3, :, :, :-1], alpha=BEFORE)
    half[5, :, :, :-1].add_(lines[0, :, :, 1:], alpha=AFTER)
    out = spectrum.view(6, 6, *tiles.shape[1:])
    torch.bmm(matrix.expand(6, -1, -1), half.view(6, SIDE, -1), out=out.view(6, 6, -1))
    out[:, 0, :, :, 1:].add_(half[:, 3, :, :, :-1], alpha=BEFORE)
    out[:, 5, :, :, :-1].add_(half[:, 0, :, :, 1:], alpha=AFTER)


def _restore_input(spectrum: Tensor, like: Tensor) -> Tensor:
    """Return the gradient of the input of a convolution in tiles, given that of its spectrum."""
    matrix = _matrices(spectrum.dtype).input_t
    lines = spectrum.view(6, 6, spectrum.shape[1], *like.shape[2:])
    half = (matrix @ spectrum.view(6, -1)).view(SIDE, *lines.shape[1:])
    half[3, :, :, :-1].add_(lines[0, :, :, 1:], alpha=BEFORE)
    half[0, :, :, 1:].add_(lines[5, :, :, :-1], alpha=AFTER)
    tiles = half.new_empty(SIDE, SIDE, *half.shape[2:])
    torch.bmm(matrix.expand(SIDE, -1, -1), half.view(SIDE, 6, -1), out=tiles.view(SIDE, SIDE, -1))
    tiles[:, 3, :, :, :-1].add_(half[:, 0, :, :, 1:], alpha=BEFORE)
    tiles[:, 0, :, :, 1:].add_(half[:, 5, :, :, :-1], alpha=AFTER)
    return tiles.flatten(0, 1)


def _transform_output(spectrum: Tensor, like: Tensor) -> Tensor:
    """Return the output of a convolution in tiles, given its spectrum."""
    matrix = _matrices(spectrum.dtype).output
    half = (matrix @ spectrum.view(6, -1)).view(SIDE, 6, -1)
    tiles = spectrum.new_empty(SIDE**2, spectrum.shape[1], *like.shape[2:])  # not a view, so it may change in place
    torch.bmm(matrix.expand(SIDE, -1, -1), half, out=tiles.view(SIDE, SIDE, -1))
    return tiles


def _transform_gradient(tiles: Tensor, spectrum: Tensor) -> None:
    """Write the gradient of the spectrum of a convolution's output, given that of the output."""
    matrix = _matrices(tiles.dtype).output_t
    half = (matrix @ tiles.reshape(SIDE, -1)).view(6, SIDE, -1)
    torch.bmm(matrix.expand(6, -1, -1), half, out=spectrum.view(6, 6, *tiles.shape[1:]).view(6, 6, -1))
