"""Upscale the frames of an image file, whatever their bands and the range of their samples."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from esrgan.images import ImageData
from esrgan.images.samples import peak_value
from esrgan.inference import samples
from esrgan.inference.samples import Mask, Pixels, Range
from esrgan.inference.seamless import find_problem
from esrgan.inference.tiling import ProgressCallback, subprogress

if TYPE_CHECKING:
    from esrgan.inference.upscaler import Upscaler

_MAX_NAMED_BANDS = 4


def upscale_image(upscaler: Upscaler, image: ImageData, progress: ProgressCallback = lambda _: None) -> ImageData:
    """Upscale all frames of an image, and keep its metadata.

    Colour and alpha are upscaled as ``Upscaler`` does with arrays, and each extra band by itself as a grey image.
    Float samples outside 0 to 1 are scaled to 0–1 by their range in the whole file, colours together and each other
    band by itself, and back; the output does not exceed the range. Samples without data are filled from the nearest
    ones with data, and put back into the output; so are NaN and infinity. Pixels of integers have no data if all of
    their colours have the value ``no_data``; floats are compared one by one, and alpha is not compared.

    Args:
        upscaler: The upscaler.
        image: The image, as ``images.read_image`` returns it.
        progress: Called with the fraction of the work that is done, up to 1.

    Returns:
        The image with larger frames, and with notes about what was scaled or left out of the computation.

    Raises:
        DeviceError: If the device has too little memory.
        WeightsError: If the network's output is not finite.

    Example:
        >>> from esrgan import Upscaler, images
        >>> from esrgan.inference import upscale_image
        >>> high = upscale_image(Upscaler.from_file(), images.read_image("photo.png"))
        >>> high.frames[0].shape
        (288, 384, 3)
    """
    if upscaler.is_colouriser and image.base_channels < 3:
        image = replace(image, frames=tuple(samples.repeat_grey(frame) for frame in image.frames))
    colours = image.base_channels - image.has_alpha
    plan = _Plan(image, upscaler.options.transparency, sees_invisible=upscaler.processes_alpha_with(colours))
    plain = copy.copy(upscaler)  # for bands that are not colours
    plain.options = replace(upscaler.options, color_fix=None)
    frames = []
    for i, frame in enumerate(image.frames):
        low = plan.prepare(i)
        part = subprogress(progress, i, len(image.frames))
        if len(plan.passes) == 1:
            high = upscaler(low, part)
        else:
            high = np.empty((*upscaler.output_size(*frame.shape[:2]), frame.shape[2]), frame.dtype)
            for j, together in enumerate(plan.passes):
                each = upscaler if j == 0 else plain
                each(low[..., together], subprogress(part, j, len(plan.passes)), high[..., together])
        plan.restore(i, high)
        frames.append(high)
    notes = [*image.notes, *plan.describe()]
    sizes = list(dict.fromkeys((frame.shape[0], frame.shape[1]) for frame in image.frames))
    if repeated := [size for size in sizes if upscaler.count_steps(*size) > len(upscaler.networks)]:
        computed = max(upscaler.computed_size(*size)[0] / size[0] for size in repeated)
        reduced = " and its output reduced" if any(upscaler.is_resized(*size) for size in repeated) else ""
        notes.append(f"the model was applied repeatedly (×{computed:g}){reduced}")
    problems = (
        find_problem(upscaler.networks, upscaler.chain.factors, size, upscaler.options.seamless) for size in sizes
    )
    notes += filter(None, dict.fromkeys(problems))
    return replace(image, frames=tuple(frames), notes=tuple(notes))


def scale_to_unit(image: ImageData, like: ImageData | None = None) -> ImageData:
    """Return an image to be shown: float samples scaled to 0–1 as ``upscale_image`` does; without data they are NaN.

    Args:
        image: The image; other than with float samples, it is returned unchanged.
        like: The image whose ranges to use instead of its own, such as the input of which ``image`` is the output.
    """
    if image.frames[0].dtype != np.float32:
        return image
    plan = _Plan(image)
    ranges = plan.ranges if like is None or like.frames[0].dtype != np.float32 else _Plan(like).ranges
    frames = []
    for frame, masks in zip(image.frames, plan.missing, strict=True):
        unit = frame.copy()
        for band, limits, missing in zip(plan.bands, ranges, masks, strict=False):  # outputs may lack alpha
            if limits is not None:
                unit[..., band] = samples.to_unit(unit[..., band], *limits)
            if missing is not None:
                unit[..., band][missing] = np.nan
        frames.append(unit)
    return replace(image, frames=tuple(frames), no_data=None)


class _Plan:
    """What has to be done with the samples of an image before and after the network.

    Attributes:
        bands: The channels that share a range: the colours, alpha if there is one, and each extra band.
        passes: The channels that are upscaled together.
        missing: For each frame and band, which samples (H, W, C) have no data; None if all have data.
        ranges: For each band, the range from which it is scaled to 0–1; None if it needs no scaling.
    """

    def __init__(self, image: ImageData, transparency: str = "colour", *, sees_invisible: bool = False) -> None:
        self.image, self.base = image, image.base_channels
        self.colours = self.base - image.has_alpha
        singles = [slice(band, band + 1) for band in range(self.colours, image.frames[0].shape[2])]
        self.bands = [slice(0, self.colours), *singles]
        self.sees_alpha = image.has_alpha and transparency != "data"
        self.passes = [slice(0, self.base), *singles[1:]] if self.sees_alpha else self.bands
        self.is_hard = self.sees_alpha and transparency == "hard"
        # A network with four channels was trained with the colours of invisible pixels.
        self.ignores_invisible = self.sees_alpha and not sees_invisible
        self.missing = [
            [samples.find_missing(frame[..., band], self._no_data(band)) for band in self.bands]
            for frame in image.frames
        ]
        self.ranges: list[Range | None] = [None] * len(self.bands)
        if image.frames[0].dtype == np.float32:
            for j in reversed(range(len(self.bands))):  # the range of alpha decides which colours are visible
                self.ranges[j] = self._find_range(j)

    def _is_alpha(self, band: slice) -> bool:
        return self.sees_alpha and band.start == self.colours

    def _no_data(self, band: slice) -> float | None:
        return None if self._is_alpha(band) else self.image.no_data

    def _find_usable(self, i: int, j: int) -> Mask | None:
        """Return which samples (H, W, 1 or C) of a band count; None if all do."""
        missing = self.missing[i][j]
        usable = None if missing is None else ~missing
        if j == 0 and self.ignores_invisible:
            alpha = self.image.frames[i][..., self.colours : self.base]
            lowest, highest = self.ranges[1] or (0, peak_value(alpha.dtype))
            visible: Mask = alpha > lowest + (highest - lowest) / 255
            both = visible if usable is None else visible & usable
            return both if both.any() else usable
        return usable

    def _find_range(self, j: int) -> Range | None:
        band = self.bands[j]
        frames = self.image.frames
        found = [samples.find_range(frame[..., band], self._find_usable(i, j)) for i, frame in enumerate(frames)]
        lowest = min((limits[0] for limits in found if limits), default=0.0)
        highest = max((limits[1] for limits in found if limits), default=0.0)
        if lowest >= 0 and highest <= 1:
            return None
        return (min(lowest, 0.0), max(highest, 1.0)) if self._is_alpha(band) else (lowest, highest)

    def prepare(self, i: int) -> Pixels:
        """Return a frame with samples that a network can process."""
        frame = low = self.image.frames[i]
        for j, band in enumerate(self.bands):
            missing, limits = self.missing[i][j], self.ranges[j]
            if missing is None and limits is None:
                continue
            if low is frame:
                low = frame.copy()
            if missing is not None:
                samples.fill_missing(low[..., band], missing, self._find_usable(i, j))
            if limits is not None:
                low[..., band] = samples.to_unit(low[..., band], *limits)
        return low

    def restore(self, i: int, high: Pixels) -> None:
        """Put the ranges and the samples without data of a frame into its upscaled version."""
        for j, band in enumerate(self.bands):
            if (limits := self.ranges[j]) is not None:
                samples.from_unit(high[..., band], *limits)
            no_data = self._no_data(band)
            samples.put_back(high[..., band], self.image.frames[i][..., band], self.missing[i][j], no_data)

    def describe(self) -> Iterator[str]:
        """Yield notes about samples that were changed for the network."""
        scaled = [(band, limits) for band, limits in zip(self.bands, self.ranges, strict=True) if limits is not None]
        if len(scaled) > _MAX_NAMED_BANDS:
            lowest, highest = min(limits[0] for _, limits in scaled), max(limits[1] for _, limits in scaled)
            yield (
                f"float samples from {lowest:g} to {highest:g} scaled to 0–1 for the network and back, "
                f"{len(scaled)} bands each by its own range"
            )
        else:
            for band, (lowest, highest) in scaled:
                name = " of alpha" if self._is_alpha(band) else f" of band {band.start + 1}" if band.start else ""
                yield f"float samples{name} from {lowest:g} to {highest:g} scaled to 0–1 for the network and back"
        if any(mask is not None for masks in self.missing for mask in masks):
            yield "samples without data filled in for the network and put back"
        alpha = slice(self.colours, self.base)
        if self.is_hard and any(samples.is_partial(frame[..., alpha]) for frame in self.image.frames):
            yield "partial transparency made hard"
