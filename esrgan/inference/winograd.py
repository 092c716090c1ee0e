"""3×3 convolutions by Winograd's algorithm F(4×4, 3×3), for strips of an image in float32 on the CPU.

Fast Algorithms for Convolutional Neural Networks (Lavin and Gray, arXiv 1509.09308): a tile of 4×4 pixels of the output
needs 36 multiplications for each pair of channels, not 144, once the 6×6 pixels of the input around it and the kernel
have been transformed by small constant matrices. The result is that of the convolution except for rounding.

Features are kept in *phases*: a tensor (16, C, R, N) holds R rows of N tiles. Pixel (i, j) of a tile is in phase
4·i + j, where i counts along the strips' direction and j across it; the images of a batch lie side by side in N. In
this layout the transforms are products of small matrices with all phases, without any gathering of pixels. Tiles start
at multiples of 4 pixels whatever the strips are, so results do not depend on the strips.

A convolution needs the tiles before and after those that it computes, so its output lags one row of tiles behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esrgan.inference.layers import Activation, Layer, leaky_relu
from esrgan.models import Generator
from esrgan.models.rrdbnet import ResidualDenseBlock
from esrgan.models.winograd import (
    AFTER,
    BEFORE,
    INPUT_TRANSFORM,
    KERNEL_SCALE,
    KERNEL_TRANSFORM,
    OUTPUT_TRANSFORM,
)

Kernels = dict[nn.Module, Tensor]  # of 3×3 convolutions, as (6, 6, C', C)
TILE = 4  # pixels of the output on each side of a tile
WINDOW = TILE + 2  # pixels of the input that they depend on
ROWS = 2  # the dimension of rows of tiles
# Of every tensor that is made here, because a program may have set other defaults.
_FLOAT32: Any = {"dtype": torch.float32, "device": "cpu"}
INPUT, OUTPUT = (torch.tensor(rows, **_FLOAT32) for rows in (INPUT_TRANSFORM, OUTPUT_TRANSFORM))
# Matrix products have a multiple of COLUMNS columns, and at least MIN_COLUMNS.
COLUMNS, MIN_COLUMNS = 16, 32


class _Transform(NamedTuple):
    """How tiles are transformed along one axis.

    Attributes:
        inside: (f·P, 4): what the pixels of a tile of the input contribute to P positions of each of f tiles of the
            output, where f is the factor by which the input is enlarged.
        positions: Which of the 6 positions these are.
        factor: The factor f.
    """

    inside: Tensor
    positions: list[int]
    factor: int


def _make_enlarging_transform() -> _Transform:
    """Combine the transform with nearest-neighbour enlargement by 2.

    The first half of a tile becomes a tile, whose window has pixels −1 0 0 1 1 2 of the small one; the second half
    another one, with pixels 1 2 2 3 3 4. Position 2 is the difference of equal pixels, so it is always 0.
    """
    positions = [0, 1, 3, 4, 5]
    first, *pairs, last = (INPUT[positions][:, k] for k in ([0], [1, 2], [3, 4], [5]))
    whole = [first, *(pair.sum(1, keepdim=True) for pair in pairs), last]
    zero = torch.zeros_like(first)
    return _Transform(torch.cat((torch.cat((*whole[1:], zero), 1), torch.cat((zero, *whole[:-1]), 1))), positions, 2)


PLAIN = _Transform(INPUT[:, 1:5].contiguous(), list(range(WINDOW)), 1)
ENLARGING = _make_enlarging_transform()


def transform_kernels(network: Generator) -> Kernels:
    """Return the transformed kernels of a network's 3×3 convolutions; they take four times the weights' memory."""
    along = torch.tensor(KERNEL_TRANSFORM, dtype=torch.float64, device="cpu") / KERNEL_SCALE
    outer = torch.kron(along, along)
    kernels: Kernels = {}
    for conv in network.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            weight = conv.weight.detach().contiguous().flatten(2).double()  # (C', C, 9)
            kernels[conv] = (outer @ weight.flatten(0, 1).T).float().view(WINDOW, WINDOW, *weight.shape[:2])
    return kernels


@dataclass(frozen=True)
class Grid:
    """The tiles of a batch of images at one resolution.

    Attributes:
        batch: The number of images.
        length: Their size along the strips' direction in pixels.
        width: Their size across it.
    """

    batch: int
    length: int
    width: int

    @property
    def rows(self) -> int:
        """The number of rows of tiles."""
        return math.ceil(self.length / TILE)

    @property
    def columns(self) -> int:
        """The number of tiles in a row of one image."""
        return math.ceil(self.width / TILE)

    def enlarge(self, factor: int) -> Grid:
        """Return the grid of images that are larger by a factor."""
        return Grid(self.batch, self.length * factor, self.width * factor)

    def clear_outside(self, features: Tensor, end: int) -> None:
        """Set pixels of (4, 4, C, R, N) outside the images to zero, where the rows of tiles end before row ``end``."""
        if self.width % TILE:
            features[:, self.width % TILE :, :, :, self.columns - 1 :: self.columns] = 0
        if self.length % TILE and end == self.rows:
            features[self.length % TILE :, :, :, -1] = 0


def to_tiles(strip: Tensor, dim: int) -> Tensor:
    """Return a strip (B, C, H, W) along ``dim`` as (16, C, R, N), padded by zeros to whole tiles."""
    if dim == 3:
        strip = strip.transpose(2, 3)
    batch, channels, length, width = strip.shape
    strip = F.pad(strip, (0, -width % TILE, 0, -length % TILE))
    phases = strip.view(batch, channels, -1, TILE, math.ceil(width / TILE), TILE).permute(3, 5, 1, 2, 0, 4)
    return phases.reshape(TILE**2, channels, phases.shape[3], -1)


def from_tiles(tiles: Tensor, grid: Grid, dim: int) -> Tensor:
    """Return (16, C, R, N) as a strip (B, C, H, W) along ``dim``, without the padding of its width."""
    phases = tiles.view(TILE, TILE, *tiles.shape[1:3], grid.batch, grid.columns).permute(4, 2, 3, 0, 5, 1)
    strip = phases.flatten(4, 5).flatten(2, 3)[..., : grid.width]
    return strip if dim == 2 else strip.transpose(2, 3)


class _Scratch:
    """Memory for intermediate results that all layers use in turn."""

    def __init__(self) -> None:
        self.buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a tensor of this shape, with whatever its memory held before, and ``MIN_COLUMNS`` values behind it."""
        size = math.prod(shape)
        if name not in self.buffers or self.buffers[name].numel() < size + MIN_COLUMNS:
            self.buffers[name] = torch.empty(size + MIN_COLUMNS, **_FLOAT32)
        return self.buffers[name][:size].view(shape)


class WinogradLayers:
    """Makes the layers of a network in the order of its forward pass.

    Args:
        dim: 2 for strips of rows, 3 for strips of columns.
        grid: The tiles of the images.
        kernels: The network's transformed kernels.
    """

    def __init__(self, dim: int, grid: Grid, kernels: Kernels) -> None:
        self.dim, self.grid, self.kernels = dim, grid, kernels
        self.scratch = _Scratch()

    def convolution(self, conv: nn.Module, activate: Activation | None = None) -> Layer:
        """Return a convolution."""
        return _Convolution([self._transform(conv)], activate)

    def nearest_upsampling(self, conv: nn.Module, activate: Activation) -> Layer:
        """Return nearest-neighbour upsampling by 2, followed by a convolution."""
        layer = _Convolution([self._transform(conv, ENLARGING)], activate)
        self.grid = self.grid.enlarge(2)
        return layer

    def pixel_shuffle(self, factor: int) -> Layer:
        """Return a pixel shuffle."""
        self.grid = self.grid.enlarge(factor)
        return _PixelShuffle(factor, self.grid, self.dim)

    def dense_block(self, block: nn.Module) -> Layer:
        """Return a dense block."""
        assert isinstance(block, ResidualDenseBlock)  # noqa: S101  tells the type checker
        return _DenseBlock([self._transform(conv) for conv in block.convs], block)

    def _transform(self, conv: nn.Module, transform: _Transform = PLAIN) -> _TransformedConvolution:
        assert isinstance(conv, nn.Conv2d)  # noqa: S101  tells the type checker
        return _TransformedConvolution(conv, self.kernels[conv], self.grid, self.dim, self.scratch, transform)


def _multiply(matrix: Tensor, values: Tensor, out: Tensor) -> None:
    """Write the products of a matrix with each of several others to ``out``; PyTorch computes them in parallel."""
    torch.bmm(matrix.expand(len(values), -1, -1), values, out=out)


class _TransformedConvolution:
    """A convolution of the transformed features of a block, the newest of which it transforms itself.

    Args:
        conv: The convolution.
        kernel: Its transformed kernel (6, 6, C', C).
        grid: The tiles of the input.
        dim: 2 for strips of rows, 3 for strips of columns.
        scratch: Memory for intermediate results.
        transform: How tiles are transformed.

    Attributes:
        high: The tiles of the output.
        size: How many values there are along each axis for a transformed tile of the input.
    """

    def __init__(
        self, conv: nn.Conv2d, kernel: Tensor, grid: Grid, dim: int, scratch: _Scratch, transform: _Transform
    ) -> None:
        self.conv, self.grid, self.dim, self.scratch, self.transform = conv, grid, dim, scratch, transform
        self.high, self.size = grid.enlarge(transform.factor), len(transform.inside)
        if transform is not PLAIN:
            places = transform.positions * transform.factor
            kernel = kernel[places][:, places]
        self.kernel = kernel.flatten(0, 1)
        self.from_positions = OUTPUT[:, transform.positions]

    def start(self, channels: int, rows: int) -> None:
        """Keep the last rows of the newest feature, which has so many channels, between strips; zeros at first."""
        self.kept = torch.zeros(TILE, TILE, channels, rows, self.grid.batch * self.grid.columns, **_FLOAT32)

    def accept(self, new: Tensor, old: int, is_last: bool, spectrum: Tensor) -> Tensor:
        """Transform the newest feature.

        Args:
            new: (4, 4, C, r, N): the rows after those that are kept.
            old: How many of the kept rows come before them.
            is_last: Whether these are the last rows.
            spectrum: (size, size, C, R, N) for the result. If there are fewer rows, the others are not set.

        Returns:
            (4, 4, C, R, N): the rows that were transformed.
        """
        channels, rows, columns = spectrum.shape[2:]
        inside = self.scratch.take(f"inside {channels} {self.conv.in_channels}", TILE, TILE, channels, rows, columns)
        count = new.shape[3] - (not is_last)  # a row needs the one after it
        if old + count > 0:
            first = self.kept.shape[3] - old
            inside[:, :, :, :old] = self.kept[:, :, :, first:]
            inside[:, :, :, old : old + count] = new[:, :, :, :count]
            half = self.scratch.take("half", self.size, TILE, channels, rows, columns)
            _multiply(self.transform.inside, inside.flatten(2).transpose(0, 1), half.flatten(2).transpose(0, 1))
            half[0, :, :, 0].add_(self.kept[TILE - 1, :, :, first - 1], alpha=BEFORE)
            half[0, :, :, 1 : old + count].add_(inside[TILE - 1, :, :, : old + count - 1], alpha=BEFORE)
            half[-1, :, :, : old + count - 1].add_(inside[0, :, :, 1 : old + count], alpha=AFTER)
            if not is_last:
                half[-1, :, :, old + count - 1].add_(new[0, :, :, count], alpha=AFTER)
            self._transform_across(half, spectrum)
        rows = self.kept.shape[3]
        if new.shape[3] < rows:
            new = torch.cat((self.kept[:, :, :, new.shape[3] :], new), 3)
        self.kept.copy_(new[:, :, :, new.shape[3] - rows :])
        return inside

    def _transform_across(self, half: Tensor, spectrum: Tensor) -> None:
        """Transform (size, 4, C, R, N), which is transformed along the strips already, across them."""
        spectrum = self.turn(spectrum)
        _multiply(self.transform.inside, half.flatten(2), spectrum.flatten(2))
        shape = (self.size, *half.shape[2:4], self.grid.batch, self.grid.columns)
        spectrum[:, 0].view(shape)[..., 1:].add_(half[:, -1].view(shape)[..., :-1], alpha=BEFORE)
        spectrum[:, -1].view(shape)[..., :-1].add_(half[:, 0].view(shape)[..., 1:], alpha=AFTER)

    def turn(self, spectrum: Tensor) -> Tensor:
        """Have the first dimension count along the strips and the second across them, or the other way round."""
        return spectrum if self.dim == 2 else spectrum.transpose(0, 1)

    def compute(self, spectrum: Tensor, first: int, *, is_kept: bool) -> Tensor:
        """Compute rows of tiles of the output.

        Args:
            spectrum: (size, size, C, R, N): the transformed features of rows of the input, in the scratch memory.
            first: The first of these rows.
            is_kept: Whether the result needs memory of its own.

        Returns:
            (4, 4, C', f·R, f·N), without the tiles that are outside the grid.
        """
        factor, positions = self.transform.factor, len(self.transform.positions)
        channels, (rows, tiles) = self.conv.out_channels, spectrum.shape[3:]
        # Libraries sum the last columns of a matrix, or few of them, in another order. So that results do not depend on
        # the number of columns, some that belong to other rows are computed, too, and ignored.
        columns = max(math.ceil(rows * tiles / COLUMNS) * COLUMNS, MIN_COLUMNS)
        features = spectrum.as_strided((*spectrum.shape[:3], columns), (*spectrum.stride()[:3], 1))
        product = self.scratch.take("product", self.size, self.size, channels, columns)
        torch.bmm(self.kernel, features.flatten(0, 1), out=product.flatten(0, 1))
        if self.conv.bias is not None:  # what is added at (1, 1) is added to all pixels
            product[1::positions, 1::positions].add_(self.conv.bias[:, None])
        product = self.turn(product).flatten(2)
        shape = (factor, TILE, factor, TILE, channels, columns)
        out = torch.empty(shape, **_FLOAT32) if is_kept and factor == 1 else self.scratch.take("out", *shape)
        half = self.scratch.take("half", self.size, TILE, channels * columns)
        for q in range(factor):
            _multiply(self.from_positions, product[:, q * positions : (q + 1) * positions], half)
            for p in range(factor):
                along, pixels = half[p * positions : (p + 1) * positions], out[p, :, q].flatten(2)
                _multiply(self.from_positions, along.transpose(0, 1), pixels.transpose(0, 1))
        out = out[..., : rows * tiles].view(*shape[:-1], rows, tiles)
        return out[0, :, 0] if factor == 1 else self._interleave(out, first)

    def _interleave(self, out: Tensor, first: int) -> Tensor:
        """Arrange f×f tiles of the output for each of the input, (f, 4, f, 4, C, R, N), as rows of tiles."""
        factor, batch = self.transform.factor, self.grid.batch
        out = out.view(*out.shape[:6], batch, self.grid.columns).permute(1, 3, 4, 5, 0, 6, 7, 2)
        out = out.flatten(6, 7).flatten(3, 4)[:, :, :, : self.high.rows - factor * first, :, : self.high.columns]
        return out.flatten(4, 5)


class _Tiles(Layer):
    """Convolutions that see the outputs of all before them and the input."""

    def __init__(self, convs: Sequence[_TransformedConvolution]) -> None:
        self.convs, self.received = convs, 0
        inputs = [convs[0].conv.in_channels, *(each.conv.out_channels for each in convs[:-1])]
        for k, (each, channels) in enumerate(zip(convs, inputs, strict=True)):
            each.start(channels, len(convs) + 1 - k)
        self.inputs, self.channels, self.lag = inputs, convs[-1].conv.out_channels, TILE * len(convs)
        self.weights = sum(each.conv.weight.numel() for each in convs)
        self.before, size = convs[0].transform.factor, convs[0].size
        self.kept_bytes = 4 * sum(each.kept.shape[2] * each.kept.shape[3] * TILE for each in convs) // self.before
        # For each tile: the inputs as they are and transformed, two steps for the widest, and pieces that wait.
        wide, high = max(self.channels, *inputs), TILE * self.before
        tile_values = (TILE**2 + size**2) * sum(inputs) + (size**2 + size * high + 6 * high**2) * wide
        self.work_bytes = 4 * tile_values // (TILE * high)

    def push(self, strip: Tensor, is_last: bool) -> Tensor | None:
        begin, self.received = self.received, self.received + strip.shape[ROWS]
        # The rows of the input, and those that each convolution computes: one row later than its input.
        ends = [self.received - (0 if is_last else k) for k in range(len(self.convs) + 1)]
        spans = [range(max(begin - k, 0), end) for k, end in enumerate(ends)]
        first = spans[-1].start
        rows, columns = self.received - first - (not is_last), strip.shape[3]
        scratch, size = self.convs[0].scratch, self.convs[0].size
        spectrum = scratch.take("spectrum", size, size, sum(self.inputs), rows, columns)
        insides: list[Tensor] = []
        new, channel = strip.view(TILE, TILE, *strip.shape[1:]), 0
        for k, conv in enumerate(self.convs):
            next_channel = channel + self.inputs[k]
            inside = conv.accept(new, spans[k].start - first, is_last, spectrum[:, :, channel:next_channel])
            insides.append(inside)
            channel, span = next_channel, spans[k + 1]
            if not span:
                return None
            transformed = spectrum[:, :, :channel].narrow(3, span.start - first, len(span))
            out = conv.compute(transformed, span.start, is_kept=k == len(self.convs) - 1)
            new = self.finish(out, [each.narrow(3, span.start - first, len(span)) for each in insides])
            conv.high.clear_outside(new, min(span.stop * self.before, conv.high.rows))
        return new.flatten(0, 1)

    def finish(self, out: Tensor, inputs: list[Tensor]) -> Tensor:
        """Return the result of a convolution, of which ``out`` is what the kernel gives, for rows of its inputs."""
        raise NotImplementedError


class _Convolution(_Tiles):
    def __init__(self, convs: Sequence[_TransformedConvolution], activate: Activation | None) -> None:
        super().__init__(convs)
        self.activate = activate

    def finish(self, out: Tensor, inputs: list[Tensor]) -> Tensor:
        if self.activate is None:
            return out
        return self.activate(out.flatten(0, 1)).view(out.shape)


class _PixelShuffle(Layer):
    def __init__(self, factor: int, grid: Grid, dim: int) -> None:
        self.after, self.grid, self.dim = factor, grid, dim
        self.shuffled = 0

    def push(self, strip: Tensor, is_last: bool) -> Tensor:
        shuffled = _shuffle(strip, self.after, self.shuffled, self.grid, self.dim)
        self.shuffled += shuffled.shape[ROWS]
        return shuffled


def _shuffle(tiles: Tensor, factor: int, first: int, grid: Grid, dim: int) -> Tensor:
    """Arrange (16, C·f², R, N) as pixels (16, C, f·R, f·N), without tiles that are outside the grid.

    Args:
        tiles: The features.
        factor: The factor f.
        first: The first row of tiles of the result.
        grid: The tiles of the result.
        dim: 2 for strips of rows, 3 for strips of columns.
    """
    batch, rows = grid.batch, tiles.shape[ROWS]
    phases = tiles.view(TILE, TILE, -1, factor, factor, rows, batch, tiles.shape[3] // batch)
    if dim == 3:
        phases = phases.transpose(3, 4)
    pixels = phases.permute(2, 5, 0, 3, 6, 7, 1, 4).reshape(
        -1, rows * factor, TILE, batch, phases.shape[7] * factor, TILE
    )
    pixels = pixels[:, : grid.rows - first, :, :, : grid.columns]
    return pixels.permute(2, 5, 0, 1, 3, 4).flatten(4, 5).flatten(0, 1)


class _DenseBlock(_Tiles):
    def __init__(self, convs: Sequence[_TransformedConvolution], block: ResidualDenseBlock) -> None:
        super().__init__(convs)
        self.scaling = block.residual_scaling
        self.kernel1x1 = None if block.conv1x1 is None else block.conv1x1.weight.detach().flatten(1)

    def finish(self, out: Tensor, inputs: list[Tensor]) -> Tensor:
        if len(inputs) == len(self.convs):
            return torch.add(inputs[0], out, alpha=self.scaling)
        out = leaky_relu(out)
        if self.kernel1x1 is not None:  # ESRGAN+
            if len(inputs) == 2:
                out += torch.matmul(self.kernel1x1, inputs[0].flatten(3)).view(out.shape)
            elif len(inputs) == 4:
                out += inputs[2]
        return out
