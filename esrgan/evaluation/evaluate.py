"""Upscale the images of a dataset by bicubic and by models, and score the outputs."""

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
# These names are taken by files in the output folder and by an entry of the report.
_RESERVED_NAMES = {"sheet", "strip", "conventions"}


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return a unique name for each file: its stem, numbered if that is taken or reserved."""
    taken = {BICUBIC, *_RESERVED_NAMES}
    names = []
    for path in paths:
        candidates = (path.stem, *(f"{path.stem}-{i}" for i in range(2, len(paths) + 3)))
        names.append(next(name for name in candidates if name not in taken))
        taken.add(names[-1])
    return names


class Method(Protocol):
    """A way to upscale images.

    Attributes:
        identity: Everything that determines its outputs, as part of the cache key.
    """

    identity: Mapping[str, str]

    def __call__(self, low: Pixels) -> Pixels:
        """Upscale an (H, W, C) image."""


class BicubicMethod:
    """MATLAB's bicubic upscaling, the baseline of all comparisons.

    Args:
        scale: Upscaling factor.
    """

    def __init__(self, scale: int) -> None:
        self.scale = scale
        self.identity: Mapping[str, str] = {"method": BICUBIC}

    def __call__(self, low: Pixels) -> Pixels:
        """Upscale an (H, W, C) image by bicubic interpolation."""
        return resize.bicubic(low, Fraction(self.scale))


class ModelMethod:
    """A generator as an upscaling method.

    Args:
        upscaler: Upscaler of the generator, on its device.
    """

    def __init__(self, upscaler: Upscaler) -> None:
        self.upscaler = upscaler
        self.identity: Mapping[str, str] = {
            "method": "model",
            "weights": hash_weights(upscaler.network),
            "network": repr(upscaler.network),
            # The residual scaling appears neither in the weights nor in the printed layers.
            "residuals": str([getattr(each, "residual_scaling", "") for each in upscaler.network.modules()]),
            "computed": f"{upscaler.dtype} on {upscaler.device.type}",
        }

    def __call__(self, low: Pixels) -> Pixels:
        """Upscale an (H, W, C) image with the generator."""
        high: Pixels = self.upscaler(low)
        return high


@dataclass(frozen=True)
class DatasetImage:
    """An image to evaluate on.

    Attributes:
        name: Name of the image in results, and prefix of its output files.
        low: LR file; None to downscale the HR image by bicubic interpolation.
        high: HR file; None without ground truth, which allows only no-reference metrics.
    """

    name: str
    low: Path | None
    high: Path | None

    def load(self, scale: int, channels: int) -> tuple[Pixels, Pixels | None]:
        """Read LR (H, W, C) and, with ground truth, HR (scale·H, scale·W, C).

        Raises:
            EsrganError: If a file is unreadable or has other channels, or the sizes do not match.
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
    """Score methods on a dataset.

    This thread upscales one image after another. Worker threads compute the metrics in the meantime.

    Args:
        dataset: Name of the dataset.
        dataset_images: Images of the dataset.
        methods: Methods by name; the others are compared with the first.
        scorers: Metrics to compute.
        scale: Upscaling factor of all methods, and the border in pixels that the metrics ignore.
        channels: Number of channels that the methods expect.
        cache: Cache of earlier scores.
        out_dir: Folder for the upscaled images, ``<image>_<method>.png``; None to write none.
        workers: Number of threads that read images and compute metrics.
        on_error: Called with each error; the image is then skipped, or only its contact sheet is.
        on_progress: Called with the number of images that have been started.

    Returns:
        The results of all images that were not skipped.
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
            if len(pending) > workers:  # bounds the number of images in memory
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
    """Check that the outputs would overwrite neither the evaluated images nor each other.

    Raises:
        EsrganError: If they would.
    """
    for dataset_image in dataset_images:
        for path in (dataset_image.low, dataset_image.high):
            if path is not None and path.resolve().parent == out_dir.resolve():
                raise EsrganError(f"{out_dir}: contains images to be evaluated; choose another output folder")
    names: dict[Path, str] = {}
    for dataset_image in dataset_images:
        for method in (*methods, "sheet", "strip"):
            path = _output_path(out_dir, dataset_image, method)
            if path in names:
                raise EsrganError(
                    f"{path}: would be the output of both {names[path]} and {dataset_image.name}; "
                    "rename a model or an image"
                )
            names[path] = dataset_image.name


def load_image_versions(
    out_dir: Path, dataset_image: DatasetImage, methods: Sequence[str], scale: int, channels: int
) -> ImageVersions:
    """Read an image and the outputs that ``evaluate`` wrote for it.

    Raises:
        EsrganError: If a file cannot be read.
    """
    low, high = dataset_image.load(scale, channels)
    outputs = {method: images.read_pixels(_output_path(out_dir, dataset_image, method), channels) for method in methods}
    return ImageVersions(low, outputs, high)


@dataclass(frozen=True)
class _ImageEvaluator:
    """Upscales and scores one image at a time, with settings that all images share."""

    methods: Mapping[str, Method]
    scorers: Sequence[Scorer]
    scale: int
    cache: ResultCache
    out_dir: Path | None

    def submit(
        self, pool: ThreadPoolExecutor, dataset_image: DatasetImage, low: Pixels, high: Pixels | None
    ) -> dict[str, Future[ImageResult]]:
        """Upscale an image with each method whose result is not cached, and have the outputs scored."""
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
        """Return whether all scores are cached and the output file, if requested, matches them."""
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
        """Write an output and compute the scores that are not cached."""
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
    """Yield each image with its pixels, which are read while the previous image is processed."""
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
