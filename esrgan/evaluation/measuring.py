"""Enlarge images by bicubic and by models, and measure what comes out, each figure once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from esrgan import images, resize
from esrgan.data import ImagePair, load_pair
from esrgan.errors import EsrganError
from esrgan.evaluation.cache import FigureCache, Measured, pixel_digest, weights_digest
from esrgan.evaluation.crops import Pictures
from esrgan.evaluation.meters import Meter
from esrgan.evaluation.results import Evaluation, Row
from esrgan.inference import Upscaler

BICUBIC = "bicubic"
_RESERVED = {"sheet", "strip", "conventions"}  # of files in the folder of results, and of the report
Pixels = NDArray[np.uint8]


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Name files by their stems, numbered where they repeat or are what something else is called."""
    taken = {BICUBIC, *_RESERVED}
    names = []
    for path in paths:
        candidates = (path.stem, *(f"{path.stem}-{i}" for i in range(2, len(paths) + 3)))
        names.append(next(name for name in candidates if name not in taken))
        taken.add(names[-1])
    return names


class Method(Protocol):
    """A way to enlarge images.

    Attributes:
        identity: What decides its results, for the cache.
    """

    identity: Mapping[str, str]

    def __call__(self, low: Pixels) -> Pixels:
        """Enlarge (H, W, C)."""


class Bicubic:
    """MATLAB's bicubic enlargement, which everything is compared with.

    Args:
        scale: Factor.
    """

    def __init__(self, scale: int) -> None:
        self.scale = scale
        self.identity: Mapping[str, str] = {"method": BICUBIC}

    def __call__(self, low: Pixels) -> Pixels:
        """See ``Method``."""
        return resize.bicubic(low, Fraction(self.scale))


class Model:
    """A generator on its device.

    Args:
        upscaler: Of the scale of the evaluation.
    """

    def __init__(self, upscaler: Upscaler) -> None:
        self.upscaler = upscaler
        self.identity: Mapping[str, str] = {
            "method": "model",
            "weights": weights_digest(upscaler.network),
            "network": repr(upscaler.network),
            # What neither weights nor layers tell.
            "residuals": str([getattr(each, "residual_scaling", "") for each in upscaler.network.modules()]),
            "computed": f"{upscaler.dtype} on {upscaler.device.type}",
        }

    def __call__(self, low: Pixels) -> Pixels:
        """See ``Method``."""
        high: Pixels = self.upscaler(low)
        return high


@dataclass(frozen=True)
class Item:
    """An image to measure on.

    Attributes:
        name: What it is called in results, and files of it begin with.
        low: LR file; None makes it from the HR image by bicubic reduction.
        high: HR file; None if there is none: only metrics without reference can be had.
    """

    name: str
    low: Path | None
    high: Path | None

    def load(self, scale: int, channels: int) -> tuple[Pixels, Pixels | None]:
        """Decode LR (H, W, C) and HR (scale·H, scale·W, C).

        Raises:
            EsrganError: If a file is unreadable or of other channels, or the sizes do not match.
        """
        if self.high is not None:
            return load_pair(ImagePair(self.high, self.low), scale, channels)
        assert self.low is not None  # noqa: S101  for the type checker
        return images.read(self.low, channels), None


def evaluate(
    dataset: str,
    items: Sequence[Item],
    methods: Mapping[str, Method],
    meters: Sequence[Meter],
    *,
    scale: int,
    channels: int,
    cache: FigureCache,
    out_dir: Path | None = None,
    workers: int = 1,
    note: Callable[[EsrganError], None],
    progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Measure methods on a dataset.

    Images are enlarged one after the other, in this thread; metrics are computed beside that.

    Args:
        dataset: Its name.
        items: Its images.
        methods: By name; the first one is what the others are compared with.
        meters: What to measure.
        scale: Factor of all methods; as many pixels are cut off at the borders.
        channels: Of the images that the methods take.
        cache: Where figures are looked up first.
        out_dir: Folder for the enlarged images, ``<item>_<method>.png``; None writes none.
        workers: Threads that read images and compute metrics.
        note: Called with what is wrong with an image, which is then left out, or has a figure less.
        progress: Called with the number of images that are begun.
    """
    evaluation = Evaluation(dataset, tuple(methods), [meter.metric for meter in meters])
    measuring = _Measuring(methods, meters, scale, cache, out_dir)
    waiting: deque[tuple[Item, dict[str, Future[Row]]]] = deque()
    sheets: list[Future[None]] = []

    def collect() -> None:
        item, futures = waiting.popleft()
        try:
            evaluation.rows[item.name] = {method: future.result() for method, future in futures.items()}
        except EsrganError as error:
            note(error)
            return
        if out_dir is not None:
            sheets.append(pool.submit(_write_sheet, out_dir, item, tuple(methods), scale, channels))

    with ThreadPoolExecutor(workers) as pool:
        for number, (item, loading) in enumerate(_ahead(pool, items, scale, channels), 1):
            progress(number)
            try:
                low, high = loading.result()
            except EsrganError as error:
                note(error)
                continue
            waiting.append((item, measuring.begin(pool, item, low, high)))
            if len(waiting) > workers:  # as many images are in memory at a time
                collect()
        while waiting:
            collect()
        for sheet in sheets:
            try:
                sheet.result()
            except EsrganError as error:
                note(error)
    return evaluation


def check_folder(out_dir: Path, items: Sequence[Item], methods: Iterable[str]) -> None:
    """Make sure that results overwrite nothing: neither images that are measured, nor each other.

    Raises:
        EsrganError: If they would.
    """
    for item in items:
        for path in (item.low, item.high):
            if path is not None and path.resolve().parent == out_dir.resolve():
                raise EsrganError(f"{out_dir}: has images that are measured; choose another folder for results")
    names: dict[Path, str] = {}
    for item in items:
        for method in (*methods, "sheet", "strip"):
            path = _output_path(out_dir, item, method)
            if path in names:
                raise EsrganError(
                    f"{path}: results of {names[path]} and {item.name} would both be this; rename a model or image"
                )
            names[path] = item.name


def load_pictures(out_dir: Path, item: Item, methods: Sequence[str], scale: int, channels: int) -> Pictures:
    """Read what ``evaluate`` wrote of an image.

    Raises:
        EsrganError: If a file cannot be read.
    """
    low, high = item.load(scale, channels)
    outputs = {method: images.read(_output_path(out_dir, item, method), channels) for method in methods}
    return Pictures(low, outputs, high)


@dataclass(frozen=True)
class _Measuring:
    """What is the same for all images."""

    methods: Mapping[str, Method]
    meters: Sequence[Meter]
    scale: int
    cache: FigureCache
    out_dir: Path | None

    def begin(self, pool: ThreadPoolExecutor, item: Item, low: Pixels, high: Pixels | None) -> dict[str, Future[Row]]:
        """Enlarge an image by all methods, where that was not done before, and have the results measured."""
        digests = {"low": pixel_digest(low), "high": "" if high is None else pixel_digest(high)}
        futures = {}
        for name, method in self.methods.items():
            of = {**method.identity, **digests, "scale": str(self.scale)}
            path = None if self.out_dir is None else _output_path(self.out_dir, item, name)
            known = self.cache.load(of)
            if known is not None and self._is_complete(known, path, low.shape[2]):
                futures[name] = pool.submit(self._row, known)
                continue
            before = time.perf_counter()
            output = method(low)
            seconds = time.perf_counter() - before
            futures[name] = pool.submit(self._finish, of, known, output, high, seconds, path)
        return futures

    def _is_complete(self, known: Measured, path: Path | None, channels: int) -> bool:
        """Tell whether figures and picture are there, and belong together."""
        if any(meter.key not in known.figures for meter in self.meters):
            return False
        try:
            return path is None or pixel_digest(images.read(path, channels)) == known.output
        except EsrganError:
            return False

    def _finish(
        self,
        of: Mapping[str, str],
        known: Measured | None,
        output: Pixels,
        high: Pixels | None,
        seconds: float,
        path: Path | None,
    ) -> Row:
        """Write a result and measure what is not known of it."""
        if path is not None:
            images.write(path, output, overwrite=True)
        digest = pixel_digest(output)
        figures = dict(known.figures) if known is not None and known.output == digest else {}
        for meter in self.meters:
            if meter.key not in figures:
                figures[meter.key] = meter.measure(output, high, self.scale)
        measured = Measured(figures, seconds, output.shape[0] * output.shape[1], digest)
        self.cache.store(of, measured)
        return self._row(measured)

    def _row(self, measured: Measured) -> Row:
        figures = {meter.metric.name: measured.figures[meter.key] for meter in self.meters}
        return Row(figures, measured.seconds, measured.pixels)


def _ahead(
    pool: ThreadPoolExecutor, items: Sequence[Item], scale: int, channels: int
) -> Iterator[tuple[Item, Future[tuple[Pixels, Pixels | None]]]]:
    """Give each item and its images, which are read while the one before is worked on."""
    ahead: deque[tuple[Item, Future[tuple[Pixels, Pixels | None]]]] = deque()
    for item in items:
        ahead.append((item, pool.submit(item.load, scale, channels)))
        if len(ahead) > 1:
            yield ahead.popleft()
    yield from ahead


def _output_path(out_dir: Path, item: Item, method: str) -> Path:
    return out_dir / f"{item.name}_{method}.png"


def _write_sheet(out_dir: Path, item: Item, methods: Sequence[str], scale: int, channels: int) -> None:
    pictures = load_pictures(out_dir, item, methods, scale, channels)
    nearest = pictures.low.repeat(scale, axis=0).repeat(scale, axis=1)
    originals = {} if pictures.high is None else {"HR": pictures.high}
    columns = {"LR (nearest)": nearest, **pictures.outputs, **originals}
    sheet = images.panel([list(columns.values())], list(columns))
    images.write(_output_path(out_dir, item, "sheet"), sheet, overwrite=True)
