"""Upscale arrays, tensors, PIL images and image files with a generator, or with several after one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from esrgan.errors import DeviceError
from esrgan.images.samples import is_grey, peak_value
from esrgan.inference import pil
from esrgan.inference.color_fix import fix_colors
from esrgan.inference.network import Network, receptive_field
from esrgan.inference.options import UpscaleOptions, count_passes
from esrgan.inference.samples import fill, harden, is_visible, repeat_grey
from esrgan.inference.streaming import SMALL_INPUT_ELEMENTS
from esrgan.inference.tiling import Part, ProgressCallback, subprogress
from esrgan.models import Generator
from esrgan.weights import GeneratorFile, load_generator

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ImageT = TypeVar("ImageT", Image.Image, np.ndarray, Tensor)
# How many low-resolution pixels of a batch are processed at once, by device type; other types use the GPU's value.
BATCH_PIXELS = {"cpu": 1 << 15}
GPU_BATCH_PIXELS = 1 << 19
_Model = str | Path | GeneratorFile


class Upscaler:
    """A generator on a device that upscales images of any size. Threads may share one upscaler.

    Several generators are applied one after the other, without rounding in between, and their factors multiplied.

    Args:
        network: The generator in float32, or several; they are copied.
        device: The device to compute on.
        dtype: Precision of the networks' trunks, which are most of the work. Everything else is computed in float32,
            because rounding errors are most visible there.
        **options: Those of ``UpscaleOptions``. If the size of the output is not the networks', it is resized by bicubic
            interpolation with antialiasing; a size beyond theirs is reached by applying them again. Resizing,
            ``self_ensemble`` and ``color_fix`` keep float32 copies of the output in memory.

    Attributes:
        networks: The generators in float32, in the order in which they are applied.
        device: The device that computes.
        dtype: Precision of the networks' trunks.
        options: The options.
        description: The networks and the files they were loaded from, for people to read.

    Raises:
        ValueError: If an option is out of range, or several sizes are set.
        TypeError: If an option is unknown.

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
        network: Generator | Sequence[Generator],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> None:
        self.options = UpscaleOptions(**options)
        networks = [network] if isinstance(network, Generator) else network
        self._runners = [Network(each, device, dtype) for each in networks]
        self.networks = tuple(runner.generator for runner in self._runners)
        self.device, self.dtype = device, dtype
        self.antialias = True  # when resizing; False as ncnn does in the last layer of a file
        self.description = f"a network, ×{self.scale}"
        if self.options.outscale is not None:
            count_passes(self.scale, self.options.outscale)

    @classmethod
    def from_file(
        cls,
        path: _Model | Sequence[_Model] = pretrained.DEFAULT_MODEL,
        device: str = "auto",
        precision: str = "auto",
        **options: Any,
    ) -> Upscaler:
        """Load a generator, or several that are applied one after the other.

        Args:
            path: A weight file or the name of a model, as in ``esrgan.weights.load_generator`` and listed by
                ``esrgan models``, a generator that is already loaded, or a list of these. The default is the bundled
                GAN model.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            precision: "fp32", "bf16", "fp16" or "auto". On a CUDA GPU, auto is fp16, which rounds less than bf16. On
                other devices it is bf16 where the hardware supports it, otherwise fp32.
            **options: Those of ``UpscaleOptions``. Without a size, an ncnn file whose last layer resizes the output
                sets it, and this resizing is done as there, without antialiasing.

        Returns:
            The upscaler; its ``repr`` names the model, the device and the precision.

        Raises:
            WeightsError: If the file is not an ESRGAN generator, or the model has not been downloaded.
            DeviceError: If the device is not available or does not support the precision.
            ValueError: If the precision is unknown, or an option is out of range.
            TypeError: If an option is unknown.
        """
        if precision not in ("auto", *PRECISIONS):
            raise ValueError(f"precision: expected auto, {', '.join(PRECISIONS)}, got {precision}")
        place = select_device(device)
        dtype = choose_dtype(place, precision)
        paths = [path] if isinstance(path, (str, Path, GeneratorFile)) else path
        loaded = [each if isinstance(each, GeneratorFile) else load_generator(each) for each in paths]
        upscaler = cls([file.build() for file in loaded], place, dtype, **options)
        if not upscaler.options.has_size and any(file.outscale for file in loaded):
            outscale = math.prod(file.outscale or file.architecture.scale_factor for file in loaded)
            upscaler.options = replace(upscaler.options, outscale=outscale)
            upscaler.antialias = False
        names = [each.path if isinstance(each, GeneratorFile) else each for each in paths]
        described = [f"{name}: {file.describe()}" for name, file in zip(names, loaded, strict=True)]
        upscaler.description = "; then ".join(described)
        return upscaler

    def __repr__(self) -> str:
        return f"Upscaler({self.description}; on {self.device} in {str(self.dtype).removeprefix('torch.')})"

    @property
    def network(self) -> Generator:
        """The first of the networks, which is the only one in most cases."""
        return self.networks[0]

    @property
    def scale(self) -> int:
        """The upscaling factor of the networks, before any resizing."""
        return math.prod(network.scale_factor for network in self.networks)

    @property
    def is_colouriser(self) -> bool:
        """Whether one of the networks makes colour images of grey ones."""
        return any(runner.is_colouriser for runner in self._runners)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the output for an image of the given height and width in pixels."""
        return self.options.output_size(height, width, self.scale)

    def computed_scale(self, height: int, width: int) -> int:
        """Return the factor by which the networks enlarge an image, before it is resized to the size of the output.

        Raises:
            EsrganError: If the networks cannot reach the size of the output.
        """
        high = self.output_size(height, width)
        return int(self.scale ** count_passes(self.scale, max(high[0] / height, high[1] / width)))

    def keeps_float_copies(self, height: int, width: int) -> bool:
        """Return whether the work on an image needs float32 copies of the output of the networks."""
        scale = self.computed_scale(height, width)
        is_resized = self.output_size(height, width) != (height * scale, width * scale)
        return is_resized or self.options.self_ensemble or self.options.color_fix is not None

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
        if self.options.seamless or self.options.color_fix:
            raise ValueError("expected an array, a PIL image or a path with seamless or color_fix, got a tensor")
        channels = {network.out_channels for network in self.networks}
        if low.shape[1] not in {1, 3} | (channels if len(channels) == 1 else set()):
            raise ValueError(f"expected {' or '.join(map(str, sorted(channels)))} channels, got {low.shape[1]}")
        if self.is_colouriser and low.shape[1] == 1:
            low = low.expand(-1, 3, -1, -1)
        return self._upscale_to_float(low, progress).to(low.dtype)

    def processes_alpha_with(self, colours: int) -> bool:
        """Return whether the networks process alpha together with that number of colour channels."""
        channels = {network.out_channels for network in self.networks}
        return self.options.transparency != "data" and channels == {colours + 1}

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
        margins = self._find_margins(pixels.shape[:2], high.shape[:2])
        if margins != (0, 0):
            mode: Any = "symmetric" if self.options.seamless == "mirror" else "wrap"
            pixels = np.pad(pixels, [(margin, margin) for margin in margins] + [(0, 0)], mode=mode)
        colours = channels - (channels in (2, 4))
        alpha, high_alpha = pixels[..., colours:], high[..., colours:]
        is_constant = colours == channels or alpha.min() == alpha.max()
        if colours == channels or self.processes_alpha_with(colours):
            self._upscale_into(high, pixels, margins, progress, colours)
        elif is_constant:
            high_alpha[...] = alpha.min()
            self._upscale_into(high[..., :colours], pixels[..., :colours], margins, progress, colours)
        else:
            self._upscale_into(high_alpha, alpha, margins, subprogress(progress, 0, 2))
            low = pixels[..., :colours]
            if self.options.transparency != "data":
                visible = is_visible(alpha[..., 0])
                low = fill(low, ~visible, visible)
            self._upscale_into(high[..., :colours], low, margins, subprogress(progress, 1, 2), colours)
        if self.options.transparency == "hard" and not is_constant:
            harden(high_alpha)
        return out

    def _find_margins(self, low: tuple[int, int], high: tuple[int, int]) -> tuple[int, int]:
        """Return by how many rows and columns an image is continued on each side, so that the output is seamless.

        They are as many as a pixel of the output depends on, so that no edge of the continued image affects it, and
        whole numbers of pixels in the output. Small images are continued further, because PyTorch rounds them in
        another way (see ``SMALL_INPUT_ELEMENTS``), which depends on the place of a pixel.
        """
        seamless = self.options.seamless
        if seamless is None:
            return 0, 0
        reach, scale, passes = 0.0, 1, count_passes(self.scale, max(high[0] / low[0], high[1] / low[1]))
        for network in self.networks * passes:
            reach += receptive_field(network) / scale
            scale *= network.scale_factor
        reach += 4 * max(1, low[0] / high[0])  # for resizing
        step = math.lcm(*(network.unshuffle_factor for network in self.networks))

        def margin(old: int, new: int) -> int:
            unit = math.lcm(step, old // math.gcd(old, new))
            return math.ceil(reach / unit) * unit

        while True:
            rows = 0 if seamless == "wrap-x" else margin(low[0], high[0])
            columns = 0 if seamless == "wrap-y" else margin(low[1], high[1])
            is_large = (low[0] + 2 * rows) * (low[1] + 2 * columns) > SMALL_INPUT_ELEMENTS * step**2
            if is_large or passes > 1:  # repeated models would enlarge what was added too much
                return rows, columns
            reach *= 2

    def _upscale_into(
        self,
        high: NDArray[Any],
        image: NDArray[Any],
        margins: tuple[int, int],
        progress: ProgressCallback,
        colours: int = 0,
    ) -> None:
        """Upscale an array (H, W, C) of any type that a call accepts into ``high``; grey stays grey.

        Args:
            high: (H', W', C), the output.
            image: The input, which may have been continued beyond its edges.
            margins: How many rows and columns of the input on each side are not part of the output.
            progress: Called after each part.
            colours: How many of the channels are colours, whose drift may be removed; 0 for alpha.
        """
        # The network would make it coloured.
        is_tintable = image.shape[2] >= 3 and not self.is_colouriser and is_grey(image)
        if is_tintable and image.shape[2] == 3:
            image, colours = image[..., :1], min(colours, 1)
        # PyTorch warns about read-only arrays, although it only reads here.
        writable = np.require(image, requirements=["C", "W"])
        low = torch.from_numpy(writable).permute(2, 0, 1)[None]
        peak = peak_value(image.dtype)
        inside = [side - 2 * margin for side, margin in zip(image.shape[:2], margins, strict=True)]
        factors = high.shape[0] / inside[0], high.shape[1] / inside[1]
        size = round(low.shape[2] * factors[0]), round(low.shape[3] * factors[1])
        offset = round(margins[0] * factors[0]), round(margins[1] * factors[1])
        passes = count_passes(self.scale, max(factors))
        scale = self.scale**passes
        is_resized = size != (low.shape[2] * scale, low.shape[3] * scale)
        color_fix = self.options.color_fix if colours else None
        if not (is_resized or self.options.self_ensemble or color_fix):  # needs no memory besides the output
            parts = self._run_chain(low, peak, passes, progress)
        else:
            whole = self._upscale_to_float(low, progress, peak, size)
            if color_fix:
                rows, columns = slice(offset[0], offset[0] + high.shape[0]), slice(offset[1], offset[1] + high.shape[1])
                low_rows, low_columns = (
                    slice(margin, margin + side) for margin, side in zip(margins, inside, strict=True)
                )
                source = low[0, :colours, low_rows, low_columns].to(whole.device, torch.float32) / peak
                fix_colors(whole[0, :colours, rows, columns], source, color_fix, self.options.pad_mode)
            parts = iter([Part(whole, 0, 0, 1.0)])
        for part in parts:
            values = part.pixels[0]
            if is_tintable and len(values) > 3:
                values = torch.cat([values[:3].mean(0, keepdim=True).expand(3, -1, -1), values[3:]])
            values = values.clamp(0, 1).permute(1, 2, 0)
            values = (values * peak).round() if peak > 1 else values
            _paste(high, values.cpu().numpy(), part.top - offset[0], part.left - offset[1])

    def _upscale_to_float(
        self, low: Tensor, progress: ProgressCallback, peak: float = 1.0, size: tuple[int, int] | None = None
    ) -> Tensor:
        """Upscale (B, C, H, W) in [0, peak] to float32 (B, C, H', W'), roughly in [0, 1], on the input's device."""
        size = size or self.output_size(*low.shape[2:])
        # The dihedral group: quarter turns of the image and of its mirror image.
        turns_and_mirrors = [(turns, mirror) for mirror in (False, True) for turns in range(4)]
        views = turns_and_mirrors if self.options.self_ensemble else [(0, False)]
        passes = count_passes(self.scale, max(size[0] / low.shape[2], size[1] / low.shape[3]))
        shape = (*low.shape[:2], *(side * self.scale**passes for side in low.shape[2:]))
        high = torch.zeros(shape, dtype=torch.float32, device=low.device)
        for i, (turns, mirror) in enumerate(views):
            view = torch.rot90(low.flip(3) if mirror else low, turns, (2, 3))
            canvas = torch.empty_like(torch.rot90(high, turns, (2, 3)))
            batch_size = max(BATCH_PIXELS.get(self.device.type, GPU_BATCH_PIXELS) // view[0, 0].numel(), 1)
            batches = list(zip(torch.split(view, batch_size), torch.split(canvas, batch_size), strict=True))
            for j, (batch, place) in enumerate(batches):
                share = subprogress(progress, i * len(batches) + j, len(views) * len(batches))
                for part in self._run_chain(batch, peak, passes, share):
                    part.copy_to(place)
            canvas = torch.rot90(canvas, -turns, (2, 3))
            high += (canvas.flip(3) if mirror else canvas) / len(views)
        if size != high.shape[2:]:
            high = high.clamp(0, 1) if self.antialias else high
            high = F.interpolate(high, size, mode="bicubic", antialias=self.antialias)
        return high

    def _run_chain(self, low: Tensor, peak: float, passes: int, progress: ProgressCallback) -> Iterator[Part]:
        """Apply all networks, the given number of times, to (B, C, H, W) in [0, peak]; yield the parts of the output.

        The output of each network but the last is kept as a whole, in float32.
        """
        runners = self._runners * passes
        work, scale = [], 1
        for runner in runners:
            work.append(runner.work_per_pixel * scale**2)
            scale *= runner.generator.scale_factor
        done = 0.0
        for i, (runner, share) in enumerate(zip(runners, (each / sum(work) for each in work), strict=True)):
            factor, canvas = runner.generator.scale_factor, None
            if i < len(runners) - 1:
                shape = (*low.shape[:2], low.shape[2] * factor, low.shape[3] * factor)
                canvas = torch.empty(shape, dtype=torch.float32, device=low.device)
            for part in runner.run(low, peak):
                if canvas is None:
                    yield part
                else:
                    part.copy_to(canvas)
                progress(min(done + share * part.done, 1.0))
            done += share
            if canvas is not None:
                low, peak = canvas.clamp_(0, 1), 1.0


def choose_dtype(device: torch.device, precision: str) -> torch.dtype:
    """Return the precision of trunks on a device, as for ``Upscaler.from_file``.

    Raises:
        DeviceError: If the device does not support it.
    """
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "bf16" if has_native_bfloat16(device) else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise DeviceError("fp16: float16 is not supported on a CPU; use bf16 or fp32")
    return PRECISIONS[precision]


def _paste(image: NDArray[Any], part: NDArray[Any], top: int, left: int) -> None:
    """Copy what lies inside of an image (H, W, C) from a part of it whose corner may lie outside; grey is repeated."""
    rows = slice(max(top, 0), max(top + part.shape[0], 0))
    columns = slice(max(left, 0), max(left + part.shape[1], 0))
    place = image[rows, columns]
    inside = part[max(-top, 0) :, max(-left, 0) :][: place.shape[0], : place.shape[1]]
    np.copyto(place, inside, casting="unsafe")
