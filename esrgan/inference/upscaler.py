"""Upscale arrays, tensors, PIL images and image files with a generator."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from esrgan import pretrained
from esrgan.devices import has_native_bfloat16, select_device
from esrgan.errors import DeviceError, WeightsError
from esrgan.images.samples import is_grey, peak_value
from esrgan.inference import pil
from esrgan.inference.samples import fill, harden, is_visible, repeat_grey
from esrgan.inference.tiling import Part, ProgressCallback, subprogress, upscale_tiled
from esrgan.models import Generator
from esrgan.weights import GeneratorFile, load_generator

TRANSPARENCIES = ("colour", "data", "hard")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ImageT = TypeVar("ImageT", Image.Image, np.ndarray, Tensor)
# How many low-resolution pixels of a batch are processed at once, by device type; other types use the GPU's value.
BATCH_PIXELS = {"cpu": 1 << 15}
GPU_BATCH_PIXELS = 1 << 19
LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


class Upscaler:
    """A generator on a device that upscales images of any size. Threads may share one upscaler.

    Args:
        network: The generator in float32; it is copied.
        device: The device to compute on.
        dtype: Precision of the network's trunk, which is most of the work. Everything else is
            computed in float32, because rounding errors are most visible there.
        self_ensemble: Average the outputs for the eight flips and quarter turns of the image (EDSR §3.3, arXiv
            1707.02921). This is eight times the work and gains a few tenths of a dB.
        outscale: Final upscaling factor; the network's output is resized to it by bicubic interpolation with
            antialiasing. None uses the scale of the network. ``outscale`` and ``self_ensemble`` keep float32 copies
            of the output in memory, which is not necessary without them.
        transparency: What alpha means. "colour": the pixel is see-through; colours under invisible pixels are
            continued from visible ones. "data": alpha is a fourth channel of its own, as in game textures that pack
            gloss or height into it; neither it nor the colours affect each other. "hard": as "colour", and every
            sample of the upscaled alpha becomes 0 or opaque, whichever is nearer, as for leaves and fences that are
            cut out. An alpha that is the same everywhere is always kept. A network with four channels processes RGB
            and alpha together, except as "data".

    Attributes:
        network: The generator in float32.
        device: The device that computes.
        dtype: Precision of the network's trunk.
        description: The network and the file it was loaded from, for people to read.

    Raises:
        ValueError: If ``outscale`` is out of range, or ``transparency`` unknown.

    Example:
        >>> from esrgan import Upscaler
        >>> upscaler = Upscaler.from_file()  # the bundled model, on a GPU if there is one
        >>> image = upscaler("photo.png")
        >>> image.size
        (384, 288)
        >>> image.save("photo_sr.png")
    """

    def __init__(
        self,
        network: Generator,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        self_ensemble: bool = False,
        outscale: float | None = None,
        transparency: str = "colour",
    ) -> None:
        if outscale is not None and not 0 < outscale <= 64:
            raise ValueError(f"outscale: expected a number above 0 and at most 64, got {outscale}")
        if transparency not in TRANSPARENCIES:
            raise ValueError(f"transparency: expected {', '.join(TRANSPARENCIES)}, got {transparency}")
        network = copy.deepcopy(network).eval().requires_grad_(False)
        self.network: Generator = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.dtype = device, dtype
        self.self_ensemble, self.outscale, self.transparency = self_ensemble, outscale, transparency
        self.antialias = True  # when resizing to outscale; False as ncnn does in the last layer of a file
        self.description = f"a network, ×{network.scale_factor}"
        self._fast_network = self.network if dtype == torch.float32 else copy.deepcopy(self.network)
        for layer in self._fast_network.trunk:
            layer.to(dtype)

    @classmethod
    def from_file(
        cls,
        path: str | Path | GeneratorFile = pretrained.DEFAULT_MODEL,
        device: str = "auto",
        precision: str = "auto",
        *,
        self_ensemble: bool = False,
        outscale: float | None = None,
        transparency: str = "colour",
    ) -> Upscaler:
        """Load a generator.

        Args:
            path: A weight file or the name of a model, as in ``esrgan.weights.load_generator`` and listed by
                ``esrgan models``, or a generator that is already loaded. The default is the bundled GAN model.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            precision: "fp32", "bf16", "fp16" or "auto". On a CUDA GPU, auto is fp16, which rounds less than bf16. On
                other devices it is bf16 where the hardware supports it, otherwise fp32.
            self_ensemble: Average over flips and quarter turns, as described for the class.
            outscale: Final upscaling factor, as described for the class. None uses the network's, or that of the
                ncnn file if its last layer resizes the output, which is then done as there, without antialiasing.
            transparency: What alpha means, as described for the class.

        Returns:
            The upscaler; its ``repr`` names the model, the device and the precision.

        Raises:
            WeightsError: If the file is not an ESRGAN generator, or the model has not been downloaded.
            DeviceError: If the device is not available or does not support the precision.
            ValueError: If the precision is unknown, or ``outscale`` is out of range.
        """
        if precision not in ("auto", *PRECISIONS):
            raise ValueError(f"precision: expected auto, {', '.join(PRECISIONS)}, got {precision}")
        place = select_device(device)
        if precision == "auto":
            auto = "fp16" if place.type == "cuda" else "bf16" if has_native_bfloat16(place) else "fp32"
            dtype = PRECISIONS[auto]
        else:
            dtype = PRECISIONS[precision]
            if dtype == torch.float16 and place.type == "cpu":
                raise DeviceError("fp16: float16 is not supported on a CPU; use bf16 or fp32")
        file = path if isinstance(path, GeneratorFile) else load_generator(path)
        upscaler = cls(
            file.build(),
            place,
            dtype,
            self_ensemble=self_ensemble,
            outscale=file.outscale if outscale is None else outscale,
            transparency=transparency,
        )
        upscaler.antialias = outscale is not None
        upscaler.description = f"{path if isinstance(path, (str, Path)) else file.path}: {file.describe()}"
        return upscaler

    def __repr__(self) -> str:
        return f"Upscaler({self.description}; on {self.device} in {str(self.dtype).removeprefix('torch.')})"

    @property
    def scale(self) -> int:
        """The upscaling factor of the network, before any resizing to ``outscale``."""
        return self.network.scale_factor

    @property
    def is_colouriser(self) -> bool:
        """Whether the network makes colour images of grey ones."""
        return self.network.in_channels == 1 and self.network.out_channels == 3

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the output for an image of the given height and width in pixels."""
        factor = self.scale if self.outscale is None else self.outscale
        return max(round(height * factor), 1), max(round(width * factor), 1)

    def __call__(
        self,
        image: ImageT | str | Path,
        progress: ProgressCallback = lambda _: None,
        out: NDArray[Any] | None = None,
    ) -> Any:
        """Upscale an image and return the result in the type of the input.

        Grey images stay grey, also if they are stored as RGB, unless the network colours grey images: it sees only the
        luma of colour images, and returns RGB. Alpha is upscaled as a separate grey image. Under
        transparent pixels (alpha of at most 1/255) colours are filled in from the nearest visible pixel, so hidden
        colours do not bleed into visible ones. A network with four channels processes RGB and alpha together.

        Args:
            image: One of

                - a PIL image of mode 1, P, L, LA, RGB, RGBA or I;16. Mode 1 becomes L; P becomes L or RGB, depending
                  on its colours. If a colour of a P, L or RGB image is marked as transparent, the result has alpha.
                - an array (H, W) or (H, W, C), uint8 in [0, 255], uint16 in [0, 65535] or float in [0, 1], where C is
                  1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha)
                - a float tensor (B, C, H, W) in [0, 1], where C is 1, 3 or the network's number of channels. The
                  result is on the same device and is clamped only if it is resized to ``outscale``.
                - a path; the result is a PIL image. For files that PIL cannot represent (16-bit colour, float, several
                  frames) use ``esrgan.images`` or ``esrgan.inference.upscale_files``.

            progress: Called after each part with the fraction of the work that is done, up to 1. If memory runs
                out, the work starts again with smaller parts.
            out: For arrays only: an array of the output's shape and type to write to.

        Returns:
            The upscaled image.

        Raises:
            ImageError: If a file cannot be read.
            DeviceError: If the device has too little memory.
            WeightsError: If the network's output is not finite, even in float32.
            ValueError: If the image is none of the above.
        """
        if isinstance(image, (str, Path)):
            return pil.upscale_file(self, Path(image), progress)
        if isinstance(image, Image.Image):
            return pil.upscale_pil(self, image, progress)
        if isinstance(image, Tensor):
            return self._upscale_tensor(image, progress)
        if isinstance(image, np.ndarray):
            return self._upscale_array(image, progress, out)
        raise ValueError(f"expected a path, PIL image, array or tensor, got a {type(image).__name__}")

    def _upscale_tensor(self, low: Tensor, progress: ProgressCallback) -> Tensor:
        if low.is_meta or low.layout != torch.strided:
            raise ValueError(f"expected a dense tensor with data, got {low.layout} on {low.device}")
        if low.ndim != 4 or not low.is_floating_point() or 0 in low.shape:
            raise ValueError(f"expected a float tensor (B, C, H, W), got {low.dtype} {tuple(low.shape)}")
        channels = self.network.out_channels
        if low.shape[1] not in (1, 3, channels):
            raise ValueError(f"expected {channels} channels, got {low.shape[1]}")
        if self.is_colouriser and low.shape[1] == 1:
            low = low.expand(-1, 3, -1, -1)
        return self._upscale_to_float(low, progress).to(low.dtype)

    def processes_alpha_with(self, colours: int) -> bool:
        """Return whether the network processes alpha together with that number of colour channels."""
        return self.transparency != "data" and colours + 1 == self.network.out_channels

    def _upscale_array(self, image: NDArray[Any], progress: ProgressCallback, out: NDArray[Any] | None) -> NDArray[Any]:
        channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
        if channels not in (1, 2, 3, 4) or 0 in image.shape:
            raise ValueError(f"expected an array (H, W) or (H, W, C) with C from 1 to 4, got {image.shape}")
        if image.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
            raise ValueError(f"expected an array of uint8, uint16 or float, got {image.dtype}")
        if self.is_colouriser and channels < 3:
            image = repeat_grey(image)
            channels += 2
        if out is None:
            out = np.empty((*self.output_size(*image.shape[:2]), *image.shape[2:]), image.dtype)
        pixels, high = (image[..., None], out[..., None]) if image.ndim == 2 else (image, out)
        colours = channels - (channels in (2, 4))
        alpha, high_alpha = pixels[..., colours:], high[..., colours:]
        is_constant = colours == channels or alpha.min() == alpha.max()
        if colours == channels or self.processes_alpha_with(colours):
            self._upscale_into(high, pixels, progress)
        elif is_constant:
            high_alpha[...] = alpha.min()
            self._upscale_into(high[..., :colours], pixels[..., :colours], progress)
        else:
            self._upscale_into(high_alpha, alpha, subprogress(progress, 0, 2))
            low = pixels[..., :colours]
            if self.transparency != "data":
                visible = is_visible(alpha[..., 0])
                low = fill(low, ~visible, visible)
            self._upscale_into(high[..., :colours], low, subprogress(progress, 1, 2))
        if self.transparency == "hard" and not is_constant:
            harden(high_alpha)
        return out

    def _upscale_into(self, high: NDArray[Any], image: NDArray[Any], progress: ProgressCallback) -> None:
        """Upscale an array (H, W, C) of any type that a call accepts into ``high``; grey stays grey."""
        # The network would make it coloured.
        is_tintable = image.shape[2] >= 3 and not self.is_colouriser and is_grey(image)
        if is_tintable and image.shape[2] == 3:
            image = image[..., :1]
        # PyTorch warns about read-only arrays, although it only reads here.
        writable = np.require(image, requirements=["C", "W"])
        low = torch.from_numpy(writable).permute(2, 0, 1)[None]
        peak = peak_value(image.dtype)
        if self.outscale is None and not self.self_ensemble:  # needs no memory besides the output
            parts = self._run_network(low, peak)
        else:
            parts = iter([Part(self._upscale_to_float(low, progress, peak), 0, 0, 1.0)])
            progress = lambda _: None  # noqa: E731  # it has reached 1 already
        for part in parts:
            values = part.pixels[0]
            if is_tintable and len(values) > 3:
                values = torch.cat([values[:3].mean(0, keepdim=True).expand(3, -1, -1), values[3:]])
            values = values.clamp(0, 1).permute(1, 2, 0)
            values = (values * peak).round() if peak > 1 else values
            place = high[part.top : part.top + values.shape[0], part.left : part.left + values.shape[1]]
            np.copyto(place, values.cpu().numpy(), casting="unsafe")  # repeats grey
            progress(part.done)

    def _upscale_to_float(self, low: Tensor, progress: ProgressCallback, peak: float = 1.0) -> Tensor:
        """Upscale (B, C, H, W) in [0, peak] to float32 (B, C, H', W'), roughly in [0, 1], on the input's device."""
        # The dihedral group: quarter turns of the image and of its mirror image.
        views = (
            [(turns, mirror) for mirror in (False, True) for turns in range(4)] if self.self_ensemble else [(0, False)]
        )
        shape = (*low.shape[:2], *(side * self.scale for side in low.shape[2:]))
        high = torch.zeros(shape, dtype=torch.float32, device=low.device)
        for i, (turns, mirror) in enumerate(views):
            view = torch.rot90(low.flip(3) if mirror else low, turns, (2, 3))
            canvas = torch.empty_like(torch.rot90(high, turns, (2, 3)))
            batch_size = max(BATCH_PIXELS.get(self.device.type, GPU_BATCH_PIXELS) // view[0, 0].numel(), 1)
            for batch, place in zip(torch.split(view, batch_size), torch.split(canvas, batch_size), strict=True):
                for part in self._run_network(batch, peak):
                    part.copy_to(place)
            canvas = torch.rot90(canvas, -turns, (2, 3))
            high += (canvas.flip(3) if mirror else canvas) / len(views)
            progress((i + 1) / len(views))
        if (size := self.output_size(*low.shape[2:])) != high.shape[2:]:
            high = high.clamp(0, 1) if self.antialias else high
            high = F.interpolate(high, size, mode="bicubic", antialias=self.antialias)
        return high

    def _run_network(self, low: Tensor, peak: float) -> Iterator[Part]:
        """Upscale (B, C, H, W) in [0, peak] once, in parts of C channels."""
        adapted = self._to_network_channels(low, peak)
        if self._fast_network is not self.network:
            # Half precision overflows with some weights and on some GPUs; then the image is upscaled again in float32.
            try:
                yield from self._run(self._fast_network, adapted, low, peak)
                return
            except WeightsError:
                pass
        yield from self._run(self.network, adapted, low, peak)

    def _run(self, network: Generator, adapted: Tensor, low: Tensor, peak: float) -> Iterator[Part]:
        for part in upscale_tiled(network, adapted, peak):
            if not torch.isfinite(part.pixels).all():
                raise WeightsError(
                    "the network's output contains NaN or infinity; "
                    "its weights are damaged, or the image contains such values"
                )
            yield part._replace(pixels=self._to_image_channels(part.pixels, *low.shape[:2]))

    def _to_network_channels(self, low: Tensor, peak: float) -> Tensor:
        batch, image_channels, height, width = low.shape
        network_channels = self.network.in_channels
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
        network_channels = self.network.out_channels
        if image_channels != network_channels and network_channels == 1:
            return high.reshape(batch, image_channels, *high.shape[2:])
        if image_channels == 1 and network_channels > 1:
            return high[:, :3].mean(1, keepdim=True)
        return high[:, :image_channels]
