"""Run a generator on a device, on images with any number of channels."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from esrgan.console import log
from esrgan.errors import WeightsError
from esrgan.images.samples import LUMA_WEIGHTS
from esrgan.inference.tiling import Part, upscale_tiled
from esrgan.inference.winograd import transform_kernels
from esrgan.models import Generator


class Network:
    """A generator that is ready to compute.

    Args:
        generator: The generator; it is copied, and converted to float32.
        device: The device to compute on.
        dtype: Precision of its trunk, which is most of the work; bfloat16 is also that of ``upsampling_layers``.
            Everything else is computed in float32, because rounding errors are most visible there.
        winograd: Whether to compute by Winograd's algorithm, in float32 on the CPU.
    """

    def __init__(self, generator: Generator, device: torch.device, dtype: torch.dtype, *, winograd: bool) -> None:
        generator = copy.deepcopy(generator).float().eval().requires_grad_(False)
        self.generator: Generator = generator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fast = self.generator if dtype == torch.float32 else copy.deepcopy(self.generator)
        for layer in self.fast.trunk + self.fast.upsampling_layers * (dtype == torch.bfloat16):
            layer.to(dtype)
        self.kernels = transform_kernels(generator) if winograd else None
        self.has_overflowed = False

    @property
    def is_colouriser(self) -> bool:
        """Whether the network makes colour images of grey ones."""
        return self.generator.in_channels == 1 and self.generator.out_channels == 3

    @property
    def work_per_pixel(self) -> int:
        """The number of weights, by which the work of two networks is compared."""
        return sum(weight.numel() for weight in self.generator.parameters()) // self.generator.unshuffle_factor**2

    def run(self, low: Tensor, peak: float) -> Iterator[Part]:
        """Upscale (B, C, H, W) in [0, peak], in parts of C channels; grey images become RGB by a colouriser.

        Raises:
            DeviceError: If the device has too little memory.
            WeightsError: If the output is not finite, even in float32.
        """
        adapted = self._to_network_channels(low, peak)
        if self.fast is not self.generator:
            # Half precision overflows with some weights and on some GPUs; then the image is upscaled again in float32.
            try:
                yield from self._run(self.fast, adapted, low, peak)
                return
            except WeightsError:
                pass
        yield from self._run(self.generator, adapted, low, peak)
        if self.fast is not self.generator and not self.has_overflowed:
            self.has_overflowed = True
            log.warning(
                "half precision overflows with this model, so images are upscaled again in float32; "
                "--precision fp32 avoids the first attempt"
            )

    def _run(self, network: Generator, adapted: Tensor, low: Tensor, peak: float) -> Iterator[Part]:
        for part in upscale_tiled(network, adapted, peak, self.kernels):
            if not torch.isfinite(part.pixels).all():
                raise WeightsError(
                    "the network's output contains NaN or infinity; "
                    "its weights are damaged, or the image contains such values"
                )
            yield part._replace(pixels=self._to_image_channels(part.pixels, *low.shape[:2]))

    def _to_network_channels(self, low: Tensor, peak: float) -> Tensor:
        batch, image_channels, height, width = low.shape
        network_channels = self.generator.in_channels
        if image_channels == network_channels:
            return low
        if self.is_colouriser:
            weights = torch.tensor(LUMA_WEIGHTS, dtype=torch.float32, device=low.device)
            return (low.float() * weights[:, None, None]).sum(1, keepdim=True)
        if network_channels == 1:  # upscale channels separately
            return low.reshape(batch * image_channels, 1, height, width)
        low = low.expand(-1, 3, -1, -1)
        return torch.cat([low, torch.full_like(low[:, :1], peak)], 1) if network_channels == 4 else low

    def _to_image_channels(self, high: Tensor, batch: int, image_channels: int) -> Tensor:
        network_channels = self.generator.out_channels
        if image_channels != network_channels and network_channels == 1:
            return high.reshape(batch, image_channels, *high.shape[2:])
        if image_channels == 1 and network_channels > 1:
            return high[:, :3].mean(1, keepdim=True)
        return high[:, :image_channels]


def receptive_field(generator: Generator) -> int:
    """Return how many pixels of the input, in each direction, a pixel of the output depends on at most."""
    convolutions = 0.0
    for name, module in generator.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            up = name.removeprefix("conv_up")
            resolution = 2 ** (int(up) - 1) if up != name else 1
            if name in ("conv_hr", "conv_last"):
                resolution = generator.upsampling
            convolutions += 1 / resolution
    return (int(convolutions) + 1) * generator.unshuffle_factor
