"""Upscale arrays, tensors, PIL images and image files with a generator, or with several after one another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from esrgan import devices, pretrained
from esrgan.devices import select_device
from esrgan.errors import DeviceError
from esrgan.hub import WEIGHTS_NAME, HubFile
from esrgan.inference import pil
from esrgan.inference.arrays import upscale_array, upscale_tensor
from esrgan.inference.chain import Chain
from esrgan.inference.network import check_unchanged
from esrgan.inference.options import UpscaleOptions
from esrgan.inference.tiling import ProgressCallback
from esrgan.models import Generator
from esrgan.weights import GeneratorFile, load_generator

PRECISIONS = ("auto", "exact", "fp32", "bf16", "fp16")
ImageT = TypeVar("ImageT", Image.Image, np.ndarray, Tensor)
_Model = str | os.PathLike[str] | GeneratorFile


class Upscaler:
    """A generator on a device that upscales images of any size. Threads may share one upscaler.

    Several generators are applied one after the other, without rounding in between, and their factors multiplied.

    Args:
        network: The generator, or several; they are copied, and converted to float32.
        device: The device to compute on, or its name.
        dtype: Precision of the networks' trunks, which are most of the work; bfloat16 is also that of the convolutions
            that upsample. Everything else is computed in float32, because rounding errors are most visible there.
        winograd: Compute float32 on the CPU by Winograd's algorithm, which takes about half the time. Without it, the
            result is bit for bit that of the network in ``channels_last`` for the whole image; with it, or in another
            layout, it differs by rounding.
        factors: By how much the output of each network is larger than its input, if it is reduced as a last layer of
            some ncnn files does it: by bicubic interpolation without antialiasing. None reduces none.
        **options: Those of ``UpscaleOptions``. A size replaces the reduction by the last network. If it is not that of
            the network's output, this is resized by bicubic interpolation with antialiasing; a size beyond it is
            reached by applying the networks again. Resizing,
            ``self_ensemble`` and ``color_fix`` keep float32 copies of the output in memory.

    Attributes:
        chain: The networks, ready to compute.
        device: The device that computes.
        dtype: Precision of the networks' trunks.
        winograd: Whether Winograd's algorithm is used.
        options: The options.
        description: The networks and the files they were loaded from, for people to read.

    Raises:
        ValueError: If there is no network, an option is out of range, several sizes are set, or ``winograd`` is set for
            another precision or device.
        TypeError: If an option is unknown, or a network is no ``RRDBNet`` or ``SRVGGNetCompact`` whose output its
            weights determine: if it has hooks, its own ``forward``, or layers of another kind.

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
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        *,
        winograd: bool = False,
        factors: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        self.options = UpscaleOptions(**options)
        device = torch.device(device)
        if winograd and (device.type != "cpu" or dtype != torch.float32):
            raise ValueError("winograd: only for float32 on the CPU")
        networks = list(network) if isinstance(network, Sequence) else [network]
        if not networks:
            raise ValueError("expected a network or several, got none")
        for each in networks:
            if not isinstance(each, Generator):
                remedy = "take the generator out of its wrapper, or load a file with Upscaler.from_file"
                raise TypeError(f"expected an esrgan.models.Generator, got {type(each).__name__}; {remedy}")
            check_unchanged(each)
        own = [each.scale_factor for each in networks]
        factors = own if factors is None else list(factors)
        if len(factors) != len(own) or not all(0 < each <= most for each, most in zip(factors, own, strict=True)):
            raise ValueError(f"factors: expected one for each network, above 0 and up to its own {own}, got {factors}")
        self.chain = Chain(networks, device, dtype, winograd=winograd, factors=factors)
        self.device, self.dtype, self.winograd = device, dtype, winograd
        self.description = f"a network, ×{self.scale:g}"
        if self.options.outscale is not None:
            self.chain.count_passes(self.options.outscale)

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
            path: A weight file, the name of a model (``esrgan models`` lists them) or a reference such as
                ``hf:owner/name``, as in ``esrgan.weights.load_generator``; a generator that is already loaded; or a
                list of these. The default is the bundled GAN model.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            precision: "exact" is float32, on the CPU bit for bit as for the whole image in ``channels_last``; "fp32" is
                float32, by Winograd's algorithm on CPUs where that is faster; "bf16" and "fp16" compute trunks in half
                precision. "auto" is the fastest that is exact to the eye: fp16 on a CUDA GPU, and fp32 on other
                devices.
            **options: Those of ``UpscaleOptions``. The last layer of some ncnn files reduces the output; a size
                replaces the factor of the last model.

        Returns:
            The upscaler; its ``repr`` names the model, the device and the precision.

        Raises:
            WeightsError: If the file is not an ESRGAN generator, or the model has not been downloaded.
            DeviceError: If the device is not available or does not support the precision.
            ValueError: If the precision is unknown, or an option is out of range.
            TypeError: If an option is unknown, or ``path`` is none of the above.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected {', '.join(PRECISIONS)}, got {precision}")
        place = select_device(device)
        dtype, winograd = choose_arithmetic(place, precision)
        paths = list(path) if isinstance(path, Sequence) and not isinstance(path, (str, bytes)) else [path]
        for each in paths:
            if not isinstance(each, (str, os.PathLike, GeneratorFile)):
                remedy = "a network that is already built goes to Upscaler(network, device)"
                raise TypeError(f"expected a path, name or GeneratorFile, got {type(each).__name__}; {remedy}")
        loaded = [each if isinstance(each, GeneratorFile) else load_generator(each) for each in paths]
        factors = [file.scale for file in loaded]
        networks = [file.build() for file in loaded]
        upscaler = cls(networks, place, dtype, winograd=winograd, factors=factors, **options)
        names = [each.path if isinstance(each, GeneratorFile) else os.fspath(each) for each in paths]
        described = [f"{name}: {file.describe()}" for name, file in zip(names, loaded, strict=True)]
        upscaler.description = "; then ".join(described)
        return upscaler

    @classmethod
    def from_hub(
        cls,
        repo: str,
        filename: str = WEIGHTS_NAME,
        revision: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        **options: Any,
    ) -> Upscaler:
        """Load a generator from the Hugging Face Hub; needs the extra ``[hub]``.

        Nothing in the repository is executed. The file is kept in the cache of ``huggingface_hub``, which is used
        without a network.

        Args:
            repo: The repository, as "owner/name".
            filename: The weight file in it: .safetensors, .pth or .pt.
            revision: A branch, tag or commit. With a commit, the result can never change.
            device: As for ``from_file``.
            precision: As for ``from_file``.
            **options: Those of ``UpscaleOptions``.

        Returns:
            The upscaler.

        Raises:
            EsrganError: If the extra is not installed, there is no such repository, revision or file, it can be neither
                downloaded nor found in the cache, or ``from_file`` raises the error.
            ValueError: As ``from_file``.
            TypeError: As ``from_file``.
        """
        return cls.from_file(HubFile(repo, filename, revision).download(), device, precision, **options)

    def __repr__(self) -> str:
        return f"Upscaler({self.description}; on {self.device} in {self.arithmetic})"

    @property
    def arithmetic(self) -> str:
        """How the networks are computed, for people to read."""
        if self.dtype != torch.float32:
            return str(self.dtype).removeprefix("torch.")
        return "float32 (Winograd)" if self.winograd else "float32"

    @property
    def networks(self) -> tuple[Generator, ...]:
        """The generators in float32, in the order in which they are applied."""
        return self.chain.generators

    @property
    def network(self) -> Generator:
        """The first of the networks, which is the only one in most cases."""
        return self.networks[0]

    @property
    def scale(self) -> float:
        """The upscaling factor if no size is set; a whole number, unless a model reduces its output to another."""
        return self.chain.scale

    @property
    def antialias(self) -> bool:
        """Whether outputs are resized with antialiasing: not by the reduction that belongs to a model."""
        return self.options.has_size

    @property
    def is_colouriser(self) -> bool:
        """Whether one of the networks makes colour images of grey ones."""
        return self.chain.is_colouriser

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the output for an image of the given height and width in pixels."""
        if not self.options.has_size:
            return self.chain.sizes((height, width), len(self.networks))[-1]
        return self.options.output_size(height, width, self.scale)

    def computed_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of what the networks make of an image, before it is resized to the output's.

        Raises:
            EsrganError: If the networks cannot reach the size of the output.
        """
        return self.chain.computed_size((height, width), [(0, 0)] * self.count_steps(height, width))

    def count_steps(self, height: int, width: int) -> int:
        """Return how many times a network is applied to an image: a multiple of the number of networks.

        Raises:
            EsrganError: If the networks cannot reach the size of the output.
        """
        if not self.options.has_size:
            return len(self.networks)
        high = self.output_size(height, width)
        factor = max(high[0] / height, high[1] / width)
        return len(self.networks) * self.chain.count_passes(factor)

    def keeps_float_copies(self, height: int, width: int) -> bool:
        """Return whether the work on an image needs float32 copies of the output of the networks."""
        return self.is_resized(height, width) or self.options.self_ensemble or self.options.color_fix is not None

    def is_resized(self, height: int, width: int) -> bool:
        """Return whether the output of the networks for an image is resized to the size of the output."""
        return self.output_size(height, width) != self.computed_size(height, width)

    def __call__(
        self,
        image: ImageT | str | os.PathLike[str],
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
                  result is on the same device, and is not clamped.
                - a path; the result is a PIL image. For files that PIL cannot represent (16-bit colour, float, several
                  frames) use ``esrgan.images`` or ``esrgan.inference.upscale_files``.

            progress: Called after each part with the fraction of the work that is done, up to 1. If memory runs
                out, the work starts again with smaller parts.
            out: For arrays only: an array of the output's shape and type to write to, apart from the image's memory.
                If it has the channels of a grey input, networks that colour grey images leave it grey.

        Returns:
            The upscaled image.

        Raises:
            ImageError: If a file cannot be read.
            DeviceError: If the device has too little memory.
            WeightsError: If the network's output is not finite, even in float32.
            ValueError: If the image is none of the above, or ``out`` does not fit it.
        """
        if out is not None and not isinstance(image, np.ndarray):
            raise ValueError(f"out: only for arrays, got {type(image).__name__} to upscale")
        if isinstance(image, (str, os.PathLike)):
            return pil.upscale_file(self, Path(image), progress)
        if isinstance(image, Image.Image):
            return pil.upscale_pil(self, image, progress)
        if isinstance(image, Tensor):
            return upscale_tensor(self, image, progress)
        if isinstance(image, np.ndarray):
            return upscale_array(self, image, progress, out)
        raise ValueError(f"expected a path, PIL image, array or tensor, got {type(image).__name__}")

    def processes_alpha_with(self, colours: int) -> bool:
        """Return whether the networks process alpha together with that number of colour channels."""
        channels = {network.out_channels for network in self.networks}
        return self.options.transparency != "data" and channels == {colours + 1}


def choose_arithmetic(device: torch.device, precision: str) -> tuple[torch.dtype, bool]:
    """Return the precision of trunks on a device, as for ``Upscaler.from_file``, and whether to use Winograd's method.

    Raises:
        DeviceError: If the device does not support it.
    """
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise DeviceError("fp16: float16 is not supported on a CPU; use bf16 or fp32")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    return dtype, precision == "fp32" and device.type == "cpu" and devices.has_fast_winograd()
