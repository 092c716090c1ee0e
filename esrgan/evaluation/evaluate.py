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

from esrgan import images, resize
from esrgan.data import ImagePair, load_pair
from esrgan.errors import EsrganError
from esrgan.evaluation.cache import CachedResult, ResultCache, hash_arrays, hash_weights
from esrgan.evaluation.crops import ImageVersions
from esrgan.evaluation.results import Evaluation, ImageResult
from esrgan.evaluation.scorers import Pixels, Scorer
from esrgan.inference import Upscaler

BICUBIC = "bicubic"
_RESERVED_NAMES = {"sheet", "strip", "conventions"}  # of files in the folder of results, and of the report


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Name files by their stems, numbered where they repeat or are what something else is called."""
    taken = {BICUBIC, *_RESERVED_NAMES}
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


class BicubicMethod:
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


class ModelMethod:
    """A generator on its device.

    Args:
        upscaler: Of the scale of the evaluation.
    """

    def __init__(self, upscaler: Upscaler) -> None:
        self.upscaler = upscaler
        self.identity: Mapping[str, str] = {
            "method": "model",
            "weights": hash_weights(upscaler.network),
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
class DatasetImage:
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
        return images.read_pixels(self.low, channels), None


def evaluate(
    dataset: str,
    dataset_images: Sequence[DatasetImage],
    methods: Mapping[str, Method],
    scorers: Sequence[Scorer],
    *,
    scale: int,
    channels: int,
    cache: ResultCache,
    out_dir: Path | None = None,
    workers: int = 1,
    on_error: Callable[[EsrganError], None],
    on_progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Measure methods on a dataset.

    Images are enlarged one after the other, in this thread; metrics are computed beside that.

    Args:
        dataset: Its name.
        dataset_images: Its images.
        methods: By name; the first one is what the others are compared with.
        scorers: What to measure.
        scale: Factor of all methods; as many pixels are cut off at the borders.
        channels: Of the images that the methods take.
        cache: Where figures are looked up first.
        out_dir: Folder for the enlarged images, ``<image>_<method>.png``; None writes none.
        workers: Threads that read images and compute metrics.
        on_error: Called with what is wrong with an image, which is then left out, or has a figure less.
        on_progress: Called with the number of images that are begun.
    """
    evaluation = Evaluation(dataset, tuple(methods), [scorer.metric for scorer in scorers])
    evaluator = _ImageEvaluator(methods, scorers, scale, cache, out_dir)
    pending: deque[tuple[DatasetImage, dict[str, Future[ImageResult]]]] = deque()
    sheets: list[Future[None]] = []

    def collect() -> None:
        dataset_image, futures = pending.popleft()
        try:
            evaluation.results[dataset_image.name] = {method: future.result() for method, future in futures.items()}
        except EsrganError as error:
            on_error(error)
            return
        if out_dir is not None:
            sheets.append(pool.submit(_write_sheet, out_dir, dataset_image, tuple(methods), scale, channels))

    with ThreadPoolExecutor(workers) as pool:
        for index, (dataset_image, loading) in enumerate(_prefetch(pool, dataset_images, scale, channels), 1):
            on_progress(index)
            try:
                low, high = loading.result()
            except EsrganError as error:
                on_error(error)
                continue
            pending.append((dataset_image, evaluator.submit(pool, dataset_image, low, high)))
            if len(pending) > workers:  # as many images are in memory at a time
                collect()
        while pending:
            collect()
        for sheet in sheets:
            try:
                sheet.result()
            except EsrganError as error:
                on_error(error)
    return evaluation


def check_out_dir(out_dir: Path, dataset_images: Sequence[DatasetImage], methods: Iterable[str]) -> None:
    """Make sure that results overwrite nothing: neither images that are measured, nor each other.

    Raises:
        EsrganError: If they would.
    """
    for dataset_image in dataset_images:
        for path in (dataset_image.low, dataset_image.high):
            if path is not None and path.resolve().parent == out_dir.resolve():
                raise EsrganError(f"{out_dir}: has images that are measured; choose another folder for results")
    names: dict[Path, str] = {}
    for dataset_image in dataset_images:
        for method in (*methods, "sheet", "strip"):
            path = _output_path(out_dir, dataset_image, method)
            if path in names:
                raise EsrganError(
                    f"{path}: results of {names[path]} and {dataset_image.name} would both be this; "
                    "rename a model or image"
                )
            names[path] = dataset_image.name


def load_image_versions(
    out_dir: Path, dataset_image: DatasetImage, methods: Sequence[str], scale: int, channels: int
) -> ImageVersions:
    """Read what ``evaluate`` wrote of an image.

    Raises:
        EsrganError: If a file cannot be read.
    """
    low, high = dataset_image.load(scale, channels)
    outputs = {method: images.read_pixels(_output_path(out_dir, dataset_image, method), channels) for method in methods}
    return ImageVersions(low, outputs, high)


@dataclass(frozen=True)
class _ImageEvaluator:
    """What is the same for all images."""

    methods: Mapping[str, Method]
    scorers: Sequence[Scorer]
    scale: int
    cache: ResultCache
    out_dir: Path | None

    def submit(
        self, pool: ThreadPoolExecutor, dataset_image: DatasetImage, low: Pixels, high: Pixels | None
    ) -> dict[str, Future[ImageResult]]:
        """Enlarge an image by all methods, where that was not done before, and have the results measured."""
        digests = {"low": hash_arrays(low), "high": "" if high is None else hash_arrays(high)}
        futures = {}
        for name, method in self.methods.items():
            key = {**method.identity, **digests, "scale": str(self.scale)}
            path = None if self.out_dir is None else _output_path(self.out_dir, dataset_image, name)
            cached = self.cache.load(key)
            if cached is not None and self._is_complete(cached, path, low.shape[2]):
                futures[name] = pool.submit(self._to_image_result, cached)
                continue
            started_at = time.perf_counter()
            output = method(low)
            seconds = time.perf_counter() - started_at
            futures[name] = pool.submit(self._score_output, key, cached, output, high, seconds, path)
        return futures

    def _is_complete(self, cached: CachedResult, path: Path | None, channels: int) -> bool:
        """Tell whether figures and picture are there, and belong together."""
        if any(scorer.cache_key not in cached.scores for scorer in self.scorers):
            return False
        try:
            return path is None or hash_arrays(images.read_pixels(path, channels)) == cached.output_digest
        except EsrganError:
            return False

    def _score_output(
        self,
        key: Mapping[str, str],
        cached: CachedResult | None,
        output: Pixels,
        high: Pixels | None,
        seconds: float,
        path: Path | None,
    ) -> ImageResult:
        """Write a result and measure what is not known of it."""
        if path is not None:
            images.write_pixels(path, output, overwrite=True)
        digest = hash_arrays(output)
        scores = dict(cached.scores) if cached is not None and cached.output_digest == digest else {}
        for scorer in self.scorers:
            if scorer.cache_key not in scores:
                scores[scorer.cache_key] = scorer.score(output, high, self.scale)
        result = CachedResult(scores, seconds, output.shape[0] * output.shape[1], digest)
        self.cache.store(key, result)
        return self._to_image_result(result)

    def _to_image_result(self, result: CachedResult) -> ImageResult:
        scores = {scorer.metric.name: result.scores[scorer.cache_key] for scorer in self.scorers}
        return ImageResult(scores, result.seconds, result.pixels)


def _prefetch(
    pool: ThreadPoolExecutor, dataset_images: Sequence[DatasetImage], scale: int, channels: int
) -> Iterator[tuple[DatasetImage, Future[tuple[Pixels, Pixels | None]]]]:
    """Give each item and its images, which are read while the one before is worked on."""
    prefetched: deque[tuple[DatasetImage, Future[tuple[Pixels, Pixels | None]]]] = deque()
    for dataset_image in dataset_images:
        prefetched.append((dataset_image, pool.submit(dataset_image.load, scale, channels)))
        if len(prefetched) > 1:
            yield prefetched.popleft()
    yield from prefetched


def _output_path(out_dir: Path, dataset_image: DatasetImage, method: str) -> Path:
    return out_dir / f"{dataset_image.name}_{method}.png"


def _write_sheet(out_dir: Path, dataset_image: DatasetImage, methods: Sequence[str], scale: int, channels: int) -> None:
    versions = load_image_versions(out_dir, dataset_image, methods, scale, channels)
    nearest = versions.low.repeat(scale, axis=0).repeat(scale, axis=1)
    originals = {} if versions.high is None else {"HR": versions.high}
    columns = {"LR (nearest)": nearest, **versions.outputs, **originals}
    sheet = images.make_contact_sheet([list(columns.values())], list(columns))
    images.write_pixels(_output_path(out_dir, dataset_image, "sheet"), sheet, overwrite=True)
