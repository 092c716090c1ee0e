"""Apply several networks to an image, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from esrgan.inference.network import Network
from esrgan.inference.options import count_passes
from esrgan.inference.seamless import Margins
from esrgan.inference.tiling import Finish, Part, ProgressCallback, subprogress, unfinished
from esrgan.models import Generator

# How many low-resolution pixels of a batch are processed at once, by device type; other types use the GPU's value.
BATCH_PIXELS = {"cpu": 1 << 15}
GPU_BATCH_PIXELS = 1 << 19


class Chain:
    """One or several networks on a device. What one puts out is clamped and handed to the next without rounding.

    Args:
        generators: The generators in float32, in the order in which they are applied; they are copied.
        device: The device to compute on.
        dtype: Precision of the networks' trunks.
        winograd: Whether to compute by Winograd's algorithm, in float32 on the CPU.
        factors: By how much the output of each network is larger than its input, once it is reduced; None stands for
            the networks' own factors. An output is reduced before the next network, as ncnn does it. What the last
            network puts out is left as it is.

    Attributes:
        networks: The networks.
        generators: Their generators in float32.
        factors: By how much each output is larger than the input, once it is reduced.
    """

    def __init__(
        self,
        generators: Sequence[Generator],
        device: torch.device,
        dtype: torch.dtype,
        *,
        winograd: bool,
        factors: Sequence[float] | None = None,
    ) -> None:
        self.factors = [each.scale_factor for each in generators] if factors is None else list(factors)
        self.networks = [Network(each, device, dtype, winograd=winograd) for each in generators]
        self.generators = tuple(network.generator for network in self.networks)
        self.batch_pixels = BATCH_PIXELS.get(device.type, GPU_BATCH_PIXELS)

    @property
    def scale(self) -> float:
        """The product of the factors."""
        return math.prod(self.factors)

    def count_passes(self, factor: float) -> int:
        """Return how often the networks have to be applied to reach a factor.

        Raises:
            EsrganError: If it cannot be reached.
        """
        return count_passes(self.factors, self.generators[-1].scale_factor, factor)

    @property
    def is_colouriser(self) -> bool:
        """Whether one of the networks makes colour images of grey ones."""
        return any(network.is_colouriser for network in self.networks)

    def sizes(self, low: tuple[int, int], steps: int) -> list[tuple[int, int]]:
        """Return the height and width of an image before each of the steps, and after the last one if it is reduced."""
        sizes = [low]
        for i in range(steps):
            factor = self.factors[i % len(self.factors)]
            height, width = sizes[-1]
            sizes.append((max(round(height * factor), 1), max(round(width * factor), 1)))
        return sizes

    def computed_size(self, low: tuple[int, int], margins: Sequence[Margins]) -> tuple[int, int]:
        """Return the height and width of what ``run`` puts out, with the last of the margins."""
        inside = low[0] - 2 * margins[0][0], low[1] - 2 * margins[0][1]
        rows, columns = self.sizes(inside, len(margins))[-2]
        last = self.generators[-1].scale_factor
        return (rows + 2 * margins[-1][0]) * last, (columns + 2 * margins[-1][1]) * last

    def run(
        self,
        low: Tensor,
        peak: float,
        margins: Sequence[Margins],
        progress: ProgressCallback,
        finish: Finish = unfinished,
    ) -> Iterator[Part]:
        """Apply the networks to (B, C, H, W) in [0, peak], and yield the parts of the output.

        The output of each network but the last is kept as a whole, in float32.

        Args:
            low: The images, with the first of the margins.
            peak: The value of white.
            margins: For each network to be applied, how many rows and columns of its input, on each side, lie outside
                the image. If there are more margins than networks, the networks are applied again from the first one.
            progress: Called after each part with the fraction of the work that is done, up to 1.
            finish: Is applied to the pixels of each part of the output, as by ``upscale_tiled``.
        """
        networks = self.networks * (len(margins) // len(self.networks))
        sizes = self.sizes((low.shape[2] - 2 * margins[0][0], low.shape[3] - 2 * margins[0][1]), len(margins))
        shares = self._share_work(low, margins)
        done = 0.0
        for i, (network, share) in enumerate(zip(networks, shares, strict=True)):
            if i == len(networks) - 1:
                for part in network.run(low, peak, finish):
                    yield part
                    progress(min(done + share * part.done, 1.0))
                return
            factor = network.generator.scale_factor
            shape = (*low.shape[:2], low.shape[2] * factor, low.shape[3] * factor)
            canvas = torch.empty(shape, dtype=torch.float32, device=low.device)
            for part in network.run(low, peak):
                part.copy_to(canvas)
                progress(done + share * part.done)
            done += share
            # Margins are whole numbers of pixels after the reduction too.
            reduced = [
                new + 2 * margin * new // old
                for old, new, margin in zip(sizes[i], sizes[i + 1], margins[i], strict=True)
            ]
            if reduced != [*shape[2:]]:
                canvas = F.interpolate(canvas, reduced, mode="bicubic")
            rows, columns = (
                (whole - new) // 2 - margin
                for whole, new, margin in zip(reduced, sizes[i + 1], margins[i + 1], strict=True)
            )
            low = canvas[:, :, rows : reduced[0] - rows, columns : reduced[1] - columns].clamp_(0, 1)
            peak = 1.0

    def _share_work(self, low: Tensor, margins: Sequence[Margins]) -> list[float]:
        """Return the share of each network in the work on (B, C, H, W)."""
        inside = low.shape[2] - 2 * margins[0][0], low.shape[3] - 2 * margins[0][1]
        work = []
        for i, (size, margin) in enumerate(zip(self.sizes(inside, len(margins))[:-1], margins, strict=True)):
            network = self.networks[i % len(self.networks)]
            pixels = math.prod(side + 2 * each for side, each in zip(size, margin, strict=True))
            work.append(network.work_per_pixel * pixels)
        return [each / sum(work) for each in work]

    def run_whole(
        self, low: Tensor, peak: float, margins: Sequence[Margins], progress: ProgressCallback, *, self_ensemble: bool
    ) -> Tensor:
        """Apply the networks to (B, C, H, W) in [0, peak]; return float32 (B, C, H', W'), roughly in [0, 1].

        Args:
            low: The images.
            peak: The value of white.
            margins: As for ``run``.
            progress: As for ``run``.
            self_ensemble: Average the outputs for the dihedral group: quarter turns of the images and of their mirror
                images.
        """
        size = self.computed_size((low.shape[2], low.shape[3]), margins)
        high = torch.zeros((*low.shape[:2], *size), dtype=torch.float32, device=low.device)
        views = [(turns, mirror) for mirror in (False, True) for turns in range(4)] if self_ensemble else [(0, False)]
        for i, (turns, mirror) in enumerate(views):
            view = torch.rot90(low.flip(3) if mirror else low, turns, (2, 3))
            turned = [(columns, rows) if turns % 2 else (rows, columns) for rows, columns in margins]
            canvas = torch.empty_like(torch.rot90(high, turns, (2, 3)))
            count = max(self.batch_pixels // view[0, 0].numel(), 1)
            batches = list(zip(torch.split(view, count), torch.split(canvas, count), strict=True))
            for j, (batch, place) in enumerate(batches):
                share = subprogress(progress, i * len(batches) + j, len(views) * len(batches))
                for part in self.run(batch, peak, turned, share):
                    part.copy_to(place)
            canvas = torch.rot90(canvas, -turns, (2, 3))
            high += (canvas.flip(3) if mirror else canvas) / len(views)
        return high
