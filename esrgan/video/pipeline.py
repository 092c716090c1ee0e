"""The steps between decoding and encoding.

For networks on a GPU, frames are decoded ahead and encoded in other threads. On a CPU the networks use all cores
already, and the same would take an eighth longer.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch import Tensor

from esrgan.images.samples import is_grey
from esrgan.inference import Upscaler
from esrgan.video import colour
from esrgan.video.decoding import TimedFrame
from esrgan.video.encoding import Encoding

Pixels = NDArray[Any]
_Item = TypeVar("_Item")
_WAITING = 2  # frames that wait for the encoder
_PIXELS_TOGETHER, _MAX_TOGETHER = 1 << 18, 16  # of the video, and frames, that a GPU gets at once
_AROUND_PX = 3  # around a pixel of the video that have to stand still too


def overlaps(upscaler: Upscaler) -> bool:
    """Return whether decoding and encoding run beside the networks."""
    return upscaler.device.type != "cpu"


class FrameUpscaler:
    """Upscales the frames of a video, unless they are equal to the one before.

    Args:
        upscaler: The upscaler.
        steady: As in ``VideoOptions``.

    Attributes:
        computed: Frames that were upscaled.
        repeated: Frames that were equal to the one before.
    """

    def __init__(self, upscaler: Upscaler, steady: float | None = None) -> None:
        self.computed = self.repeated = 0
        self._upscaler, self._steady = upscaler, steady
        self._last: tuple[Pixels, Pixels] | None = None
        self._held: Pixels | None = None  # the video's pixels that each part of the last output was made from

    def begin_segment(self) -> None:
        """Let the next frame not depend on those before, so that segments can be made in any order."""
        if self._steady is not None:
            self._last = None

    def __call__(self, frames: Sequence[Pixels]) -> Iterator[Pixels]:
        """Yield the upscaled frames (H, W, C); it is the same array as before for an equal frame.

        Args:
            frames: Frames that follow each other, ``num_together`` or fewer.
        """
        before = [None if self._last is None else self._last[0], *frames[:-1]]
        is_new = [old is None or not np.array_equal(old, new) for old, new in zip(before, frames, strict=True)]
        highs = self._upscale([frame for frame, new in zip(frames, is_new, strict=True) if new])
        for pixels, new in zip(frames, is_new, strict=True):
            if new or self._last is None:
                self._last = pixels, self._hold(pixels, next(highs))
                self.computed += 1
            else:
                self.repeated += 1
            yield self._last[1]

    def _upscale(self, frames: Sequence[Pixels]) -> Iterator[Pixels]:
        if len(frames) > 1 and all(frame.shape[2] == 3 and not is_grey(frame) for frame in frames):
            yield from upscale_together(self._upscaler, frames)
        else:
            yield from map(self._upscaler, frames)

    def _hold(self, pixels: Pixels, high: Pixels) -> Pixels:
        """Return the output with the parts that stand still, if that is wanted."""
        if self._steady is None:
            return high
        if self._last is None or self._held is None:
            self._held = pixels.copy()
            return high
        return hold_still_parts(pixels, self._held, high, self._last[1], self._steady)


def num_together(upscaler: Upscaler, height: int, width: int) -> int:
    """Return how many frames are upscaled together: on a GPU, as many as make up an image that keeps it busy."""
    options = upscaler.options
    is_plain = not (options.color_fix or options.self_ensemble or options.seamless or upscaler.is_colouriser)
    if upscaler.device.type != "cuda" or not is_plain or upscaler.is_resized(height, width):
        return 1
    return max(min(_PIXELS_TOGETHER // (height * width), _MAX_TOGETHER), 1)


def upscale_together(upscaler: Upscaler, frames: Sequence[Pixels]) -> Pixels:
    """Upscale frames (H, W, 3) of one size in one batch, and return (N, H', W', 3)."""
    low = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    height, width = frames[0].shape[:2]
    peak = np.iinfo(frames[0].dtype).max
    high = np.empty((len(frames), *upscaler.output_size(height, width), 3), frames[0].dtype)
    margins = [(0, 0)] * upscaler.count_steps(height, width)

    def to_samples(pixels: Tensor) -> Tensor:
        values = (pixels.clamp(0, 1) * peak).round().permute(0, 2, 3, 1)
        return (values.to(low.dtype) if values.is_cuda else values).cpu()  # fewer bytes to fetch

    for part in upscaler.chain.run(low, peak, margins, lambda _: None, to_samples):
        values = part.pixels.numpy()
        rows, columns = slice(part.top, part.top + values.shape[1]), slice(part.left, part.left + values.shape[2])
        high[:, rows, columns] = values
    return high


def batches(items: Iterator[_Item], count: int) -> Iterator[list[_Item]]:
    """Yield lists of so many items; the last one may be shorter."""
    while batch := list(itertools.islice(items, count)):
        yield batch


def hold_still_parts(pixels: Pixels, held: Pixels, high: Pixels, last: Pixels, tolerance: float) -> Pixels:
    """Keep the parts of the last output where the video stands still.

    Args:
        pixels: A frame of the video (H, W, C).
        held: The pixels that each part of the last output was made from; those of parts that move are replaced by the
            new ones. So slow changes are not missed.
        high: The upscaled frame (H', W', C').
        last: The last output.
        tolerance: Largest difference of a pixel that stands still, and of those around it, in 8-bit levels.

    Returns:
        The frame, with soft transitions between both.
    """
    unit = np.iinfo(pixels.dtype).max / 255
    difference = np.abs(pixels.astype(np.float32) - held).max(axis=2)
    moves = (torch.from_numpy(difference) > tolerance * unit).float()[None, None]
    moves = F.max_pool2d(moves, 2 * _AROUND_PX + 1, 1, _AROUND_PX)
    is_moving = moves[0, 0].numpy() > 0
    held[is_moving] = pixels[is_moving]
    weight = F.interpolate(moves, high.shape[:2], mode="bilinear", align_corners=False)[0, 0, :, :, None].numpy()
    blend: Pixels = np.rint(last + (high.astype(np.float32) - last) * weight).astype(high.dtype)
    return blend


class FrameEncoder:
    """Encodes frames, in a thread of its own if that helps; an error is then raised by one of the next calls.

    Args:
        upscaler: The upscaler that makes them.
        encoding: How they are encoded.
        add: Takes a frame of the video and the upscaled one.
    """

    def __init__(self, upscaler: Upscaler, encoding: Encoding, add: Callable[[TimedFrame, VideoFrame], None]) -> None:
        self.encoding, self._add = encoding, add
        self._pool = ThreadPoolExecutor(1) if overlaps(upscaler) else None
        self._waiting: deque[Future[None]] = deque()
        self._made: tuple[Pixels, VideoFrame] | None = None

    def __enter__(self) -> FrameEncoder:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=kind is not None)
        for future in () if kind is not None else self._waiting:
            future.result()

    def add(self, shot: TimedFrame, high: Pixels) -> None:
        """Encode a frame, after those before it."""
        if self._pool is None:
            self._encode(shot, high)
            return
        while len(self._waiting) >= _WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._encode, shot, high))

    def _encode(self, shot: TimedFrame, high: Pixels) -> None:
        if self._made is None or self._made[0] is not high:  # a repeated frame is not converted again
            pixels = fit_channels(high[: self.encoding.height, : self.encoding.width], self.encoding)
            self._made = high, colour.to_frame(pixels, self.encoding.pixel_format, self.encoding.coding)
        self._add(shot, self._made[1])


def fit_channels(pixels: Pixels, encoding: Encoding) -> Pixels:
    """Add or remove alpha, and convert between grey and RGB, as the pixel format of an encoding needs it."""
    pixel_format = encoding.pixel_format
    has_alpha, is_grey = pixels.shape[2] in (2, 4), pixels.shape[2] <= 2
    needs_alpha, needs_grey = colour.has_alpha(pixel_format), colour.is_grey(pixel_format)
    colours = pixels[..., : pixels.shape[2] - has_alpha]
    if is_grey and not needs_grey:
        colours = colours.repeat(3, axis=2)
    elif needs_grey and not is_grey:
        colours = colour.to_luma(colours, encoding.coding.matrix)
    if not needs_alpha:
        return colours
    opaque = np.full_like(colours[..., :1], np.iinfo(pixels.dtype).max)
    return np.concatenate([colours, pixels[..., -1:] if has_alpha else opaque], axis=2)


def make_ahead(upscaler: Upscaler, items: Iterator[_Item], count: int) -> Iterator[_Item]:
    """Yield items that a thread makes if that helps, at most so many ahead; errors of the thread are raised here."""
    if not overlaps(upscaler):
        yield from items
        return
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(count)
    is_closed = threading.Event()

    def put(is_item: bool, value: Any) -> bool:
        while not is_closed.is_set():
            try:
                made.put((is_item, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(True, item):
                    return
            put(False, None)
        except BaseException as error:
            put(False, error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = made.get()
            if is_item:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        is_closed.set()
        thread.join()
