"""Upscale arrays and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from esrgan.devices import explain_lack_of_memory
from esrgan.images.samples import is_grey, peak_value
from esrgan.inference.color_fix import fix_colors
from esrgan.inference.samples import fill, harden, is_visible, repeat_grey
from esrgan.inference.seamless import Margins, plan_margins
from esrgan.inference.tiling import Part, ProgressCallback, subprogress

if TYPE_CHECKING:
    from esrgan.inference.upscaler import Upscaler


_MOST_WHITE = 2  # of float samples; highlights and overshoot may exceed 1


def upscale_tensor(upscaler: Upscaler, low: Tensor, progress: ProgressCallback) -> Tensor:
    """Upscale a float tensor (B, C, H, W) in [0, 1], as ``Upscaler`` does when called."""
    if low.is_meta or low.layout != torch.strided:
        raise ValueError(f"expected a dense tensor with data, got {low.layout} on {low.device}")
    if low.ndim != 4 or not low.is_floating_point() or 0 in low.shape:
        raise ValueError(f"expected a float tensor (B, C, H, W), got {low.dtype} {tuple(low.shape)}")
    _check_white(low.detach().float().max().item())
    if upscaler.options.seamless or upscaler.options.color_fix:
        raise ValueError("expected an array, a PIL image or a path with seamless or color_fix, got a tensor")
    channels = {network.out_channels for network in upscaler.networks}
    if low.shape[1] not in {1, 3} | (channels if len(channels) == 1 else set()):
        raise ValueError(f"expected {' or '.join(map(str, sorted(channels)))} channels, got {low.shape[1]}")
    if upscaler.is_colouriser and low.shape[1] == 1:
        low = low.expand(-1, 3, -1, -1)
    size = upscaler.output_size(low.shape[2], low.shape[3])
    margins = [(0, 0)] * upscaler.count_steps(low.shape[2], low.shape[3])
    with explain_lack_of_memory(low.device, f"the output of {size[1]}×{size[0]} px"):
        return _upscale_whole(upscaler, low, 1.0, margins, size, progress).to(low.dtype)


def upscale_array(
    upscaler: Upscaler, image: NDArray[Any], progress: ProgressCallback, out: NDArray[Any] | None
) -> NDArray[Any]:
    """Upscale an array (H, W) or (H, W, C), as ``Upscaler`` does when called."""
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if isinstance(image, np.ma.MaskedArray):
        raise ValueError("expected an array without a mask; use its filled()")
    if channels not in (1, 2, 3, 4) or 0 in image.shape:
        raise ValueError(f"expected an array (H, W) or (H, W, C) with C from 1 to 4, got {image.shape}")
    if image.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
        remedy = "multiply it by np.uint8(255)" if image.dtype == np.bool_ else "convert it with astype"
        raise ValueError(f"expected an array of uint8, uint16, float32 or float64, got {image.dtype}; {remedy}")
    if image.dtype.kind == "f":
        _check_white(float(image.max()))
    if upscaler.is_colouriser and channels < 3 and (out is None or (out.ndim == 3 and out.shape[2] > channels)):
        image = repeat_grey(image)
        channels += 2
    upscaler.count_steps(*image.shape[:2])  # refuses impossible sizes before their memory is requested
    shape = (*upscaler.output_size(*image.shape[:2]), *image.shape[2:])
    if out is None:
        out = np.empty(shape, image.dtype)
    elif not isinstance(out, np.ndarray):
        raise ValueError(f"out: expected an array {shape} of {image.dtype}, got {type(out).__name__}")
    elif out.shape != shape or out.dtype != image.dtype or not out.flags.writeable:
        kind = "" if out.flags.writeable else ", read-only"
        raise ValueError(
            f"out: expected a writeable array {shape} of {image.dtype}, got {out.shape} of {out.dtype}{kind}"
        )
    elif np.shares_memory(out, image):
        raise ValueError("out: expected memory of its own, got that of the image; pass another array")
    pixels, high = (image[..., None], out[..., None]) if image.ndim == 2 else (image, out)
    work = _Work(upscaler, (pixels.shape[0], pixels.shape[1]), (high.shape[0], high.shape[1]))
    pixels = work.add_margins(pixels)
    colours = channels - (channels in (2, 4))
    alpha, high_alpha = pixels[..., colours:], high[..., colours:]
    is_constant = colours == channels or alpha.min() == alpha.max()
    if colours == channels or upscaler.processes_alpha_with(colours):
        work.upscale_into(high, pixels, progress, colours)
    elif is_constant:
        high_alpha[...] = alpha.min()
        work.upscale_into(high[..., :colours], pixels[..., :colours], progress, colours)
    else:
        work.upscale_into(high_alpha, alpha, subprogress(progress, 0, 2))
        low = pixels[..., :colours]
        if upscaler.options.transparency != "data":
            visible = is_visible(alpha[..., 0])
            low = fill(low, ~visible, visible)
        work.upscale_into(high[..., :colours], low, subprogress(progress, 1, 2), colours)
    if upscaler.options.transparency == "hard" and not is_constant:
        harden(high_alpha)
    return out


def _check_white(white: float) -> None:
    """Refuse samples of 0 to 255 and the like, given their maximum."""
    if _MOST_WHITE < white < np.inf:
        remedy = "divide them by their value of white"
        raise ValueError(f"expected float samples from 0 to 1, got samples up to {white:.4g}; {remedy}")


def _to_tensor(image: NDArray[Any]) -> Tensor:
    # PyTorch warns about read-only arrays, although it only reads here.
    image = np.require(image, requirements=["C", "A", "W"])
    # NumPy ignores the strides of axes of one pixel, but PyTorch refuses negative ones and parts of a sample.
    usable = all(stride >= 0 and stride % image.itemsize == 0 for stride in image.strides)
    return torch.from_numpy(image if usable else image.copy())


class _Work:
    """How an image of a size is upscaled to another size.

    Args:
        upscaler: The upscaler.
        low: Height and width of the image.
        high: Height and width of the output.
    """

    def __init__(self, upscaler: Upscaler, low: tuple[int, int], high: tuple[int, int]) -> None:
        self.upscaler = upscaler
        steps = upscaler.count_steps(*low)
        generators = upscaler.networks * (steps // len(upscaler.networks))
        sizes = upscaler.chain.sizes(low, steps)
        self.margins = plan_margins(generators, sizes, high, upscaler.options.seamless)
        # The rows and columns of the output that the last margins become.
        self.top, self.left = (
            round(margin * new / old) for margin, old, new in zip(self.margins[-1], sizes[-2], high, strict=True)
        )

    def add_margins(self, image: NDArray[Any]) -> NDArray[Any]:
        """Continue an array (H, W, C) beyond its edges by the first of the margins."""
        rows, columns = self.margins[0]
        if (rows, columns) == (0, 0):
            return image
        mode: Any = "symmetric" if self.upscaler.options.seamless == "mirror" else "wrap"
        return np.pad(image, [(rows, rows), (columns, columns), (0, 0)], mode=mode)

    def upscale_into(
        self, high: NDArray[Any], image: NDArray[Any], progress: ProgressCallback, colours: int = 0
    ) -> None:
        """Upscale an array (H, W, C) of any type that a call accepts into ``high``; grey stays grey.

        Args:
            high: (H', W', C), the output.
            image: The input, with the first of the margins.
            progress: Called after each part.
            colours: How many of the channels are colours, whose drift may be removed; 0 for alpha.
        """
        upscaler, options = self.upscaler, self.upscaler.options
        # The network would make it coloured.
        is_tintable = image.shape[2] >= 3 and not upscaler.is_colouriser and is_grey(image)
        if is_tintable and image.shape[2] == 3:
            image, colours = image[..., :1], min(colours, 1)
        low = _to_tensor(image).permute(2, 0, 1)[None]
        peak = peak_value(image.dtype)
        size = high.shape[0] + 2 * self.top, high.shape[1] + 2 * self.left
        is_resized = size != upscaler.chain.computed_size((low.shape[2], low.shape[3]), self.margins)
        color_fix = options.color_fix if colours else None

        def to_samples(pixels: Tensor) -> Tensor:
            """Convert (1, C, h, w) in about [0, 1] to (h, w, C) in [0, peak], on the CPU."""
            values = pixels[0]
            if is_tintable and len(values) > 3:
                values = torch.cat([values[:3].mean(0, keepdim=True).expand(3, -1, -1), values[3:]])
            values = values.clamp(0, 1).permute(1, 2, 0)
            if peak > 1:
                values = (values * peak).round()
                values = values.to(low.dtype) if values.is_cuda else values  # fewer bytes to fetch
            return values.cpu()

        if not (is_resized or options.self_ensemble or color_fix):  # needs no memory besides the output
            parts = upscaler.chain.run(low, peak, self.margins, progress, to_samples)
        else:
            whole = _upscale_whole(upscaler, low, peak, self.margins, size, progress)
            if color_fix:
                inside = whole[0, :colours, self.top : size[0] - self.top, self.left : size[1] - self.left]
                rows, columns = self.margins[0]
                source = low[0, :colours, rows : low.shape[2] - rows, columns : low.shape[3] - columns]
                with torch.autocast(whole.device.type, enabled=False):
                    fix_colors(inside, source.to(whole.device, torch.float32) / peak, color_fix, options.wraps)
            parts = iter([Part(to_samples(whole), 0, 0, 1.0)])
        for part in parts:
            _paste(high, part.pixels.numpy(), part.top - self.top, part.left - self.left)


def _upscale_whole(
    upscaler: Upscaler,
    low: Tensor,
    peak: float,
    margins: Sequence[Margins],
    size: tuple[int, int],
    progress: ProgressCallback,
) -> Tensor:
    """Upscale (B, C, H, W) in [0, peak] to float32 (B, C, *size), roughly in [0, 1], on the input's device."""
    high = upscaler.chain.run_whole(low, peak, margins, progress, self_ensemble=upscaler.options.self_ensemble)
    if size != high.shape[2:]:
        high = high.clamp(0, 1) if upscaler.antialias else high
        high = F.interpolate(high, size, mode="bicubic", antialias=upscaler.antialias)
    return high


def _paste(image: NDArray[Any], part: NDArray[Any], top: int, left: int) -> None:
    """Copy what lies inside of an image (H, W, C) from a part of it whose corner may lie outside; grey is repeated."""
    rows = slice(max(top, 0), max(top + part.shape[0], 0))
    columns = slice(max(left, 0), max(left + part.shape[1], 0))
    place = image[rows, columns]
    inside = part[max(-top, 0) :, max(-left, 0) :][: place.shape[0], : place.shape[1]]
    np.copyto(place, inside, casting="unsafe")
