"""Upscale an image with a generator."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from esrgan import pictures, resize
from esrgan.devices import has_native_bfloat16, low_precision_dtype, select_device
from esrgan.errors import DeviceError
from esrgan.models import RRDBNet
from esrgan.weights import GeneratorFile, load_generator

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Picture = TypeVar("Picture", Image.Image, np.ndarray, Tensor)


@dataclass(frozen=True)
class Upscaler:
    """A generator on a device, ready to enlarge images.

    Attributes:
        network: The generator.
        device: Where it computes.
        dtype: In which precision.
    """

    network: RRDBNet
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def from_file(cls, path: str | Path | GeneratorFile, device: str = "auto", precision: str = "auto") -> Upscaler:
        """Load a generator.

        Args:
            path: A weight file: see ``esrgan.weights.load_generator``.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            precision: "fp32", "bf16", "fp16", or "auto": half precision on a GPU, and bfloat16 on a CPU that has it.

        Raises:
            WeightsError: If the file is no ESRGAN generator.
            DeviceError: If the device is not there, or is asked for a precision it cannot do.
            ValueError: If the precision is unknown.
        """
        if precision not in ("auto", *PRECISIONS):
            raise ValueError(f"precision: expected auto, {', '.join(PRECISIONS)}, got {precision}")
        place = select_device(device)
        if precision == "auto":
            is_fast = place.type == "cuda" or has_native_bfloat16(place)
            dtype = low_precision_dtype(place) if is_fast else torch.float32
        else:
            dtype = PRECISIONS[precision]
            if dtype == torch.float16 and place.type == "cpu":
                raise DeviceError("fp16: float16 is for GPUs; on a CPU use bf16 or fp32")
        file = path if isinstance(path, GeneratorFile) else load_generator(path)
        network = file.build().requires_grad_(False)
        return cls(network.to(place, memory_format=torch.channels_last), place, dtype)  # type: ignore[call-overload]

    @property
    def scale(self) -> int:
        """The factor by which width and height grow."""
        return self.network.scale_factor

    def __call__(self, image: Picture | str | Path) -> Any:
        """Enlarge an image; what comes back is of the same kind.

        Args:
            image: One of

                - a path or PIL image (grey, RGB or with alpha); a PIL image comes back,
                - an array (H, W) or (H, W, C), uint8 in [0, 255], uint16 in [0, 65535] or float in [0, 1],
                - a float tensor (B, C, H, W) in [0, 1]; it comes back on its own device.

            Grey stays grey. Of an array or PIL image with alpha the colours go through the network and alpha is
            enlarged by bicubic, unless the network has four channels itself.

        Raises:
            ImageError: If a file cannot be read.
            DeviceError: If the device has too little memory.
            ValueError: If an array or tensor is none of the above.
        """
        if isinstance(image, (str, Path)):
            pixels = pictures.read(image).frames[0]
            return Image.fromarray(np.squeeze(self._array(pixels), 2) if pixels.shape[2] == 1 else self._array(pixels))
        if isinstance(image, Image.Image):
            return Image.fromarray(self._array(np.asarray(image)))
        if isinstance(image, Tensor):
            return self._tensor(image)
        return self._array(image)

    def _array(self, image: np.ndarray) -> np.ndarray:
        channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
        if channels not in (1, 3, 4) or 0 in image.shape:
            raise ValueError(f"expected an array (H, W) or (H, W, 1, 3 or 4), got {image.shape}")
        if image.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
            raise ValueError(f"expected an array of uint8, uint16 or float, got {image.dtype}")
        peak = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
        unit = np.atleast_3d(image).astype(np.float32) / peak
        has_alpha = channels == 4 and self.network.conv_last.out_channels != 4
        low = torch.from_numpy(unit[..., :3] if has_alpha else unit).permute(2, 0, 1)[None]
        high = self._tensor(low)[0].permute(1, 2, 0).clamp(0, 1).numpy()
        if has_alpha:
            high = np.concatenate([high, resize.bicubic(unit[..., 3:], Fraction(self.scale))], axis=2).clip(0, 1)
        result = (high * peak).round().astype(image.dtype) if peak > 1 else high.astype(image.dtype)
        return result[..., 0] if image.ndim == 2 else result

    def _tensor(self, low: Tensor) -> Tensor:
        """Enlarge (B, C, H, W), adapting the channels to those of the network and back."""
        if low.ndim != 4 or not low.is_floating_point():
            raise ValueError(f"expected a float tensor (B, C, H, W), got {low.dtype} {tuple(low.shape)}")
        batch, given = low.shape[:2]
        wanted = self.network.conv_last.out_channels
        x = low
        if given != wanted:
            if wanted == 1:  # each channel is an image
                x = low.reshape(-1, 1, *low.shape[2:])
            elif given == 1:
                x = low.expand(-1, 3, -1, -1)
            if x.shape[1] == 3 and wanted == 4:
                x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
            if x.shape[1] != wanted:
                raise ValueError(f"expected {wanted} channels, got {given}")
        high = self._forward(x)
        if given != wanted:
            if wanted == 1:
                high = high.reshape(batch, given, *high.shape[2:])
            elif given == 1:
                high = high[:, :3].mean(1, keepdim=True)
            else:
                high = high[:, :given]
        return high.to(low.device)

    @torch.inference_mode()
    def _forward(self, low: Tensor) -> Tensor:
        low = low.to(self.device, torch.float32).contiguous(memory_format=torch.channels_last)
        try:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                high: Tensor = self.network(low).float()
            if self.dtype != torch.float32 and not torch.isfinite(high).all():
                high = self.network(low)  # half precision overflows on some GPUs
        except torch.OutOfMemoryError as error:
            size = f"{low.shape[3]}×{low.shape[2]} px"
            raise DeviceError(
                f"{self.device}: too little memory to enlarge {size} at once; use --device cpu"
            ) from error
        return high
