"""Upscale the images of a dataset by several methods, score the outputs, and write them as files if requested."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from esrgan import images, resize
from esrgan.console import log, progress
from esrgan.data import ImagePair, load_pair
from esrgan.devices import is_out_of_memory
from esrgan.errors import EsrganError
from esrgan.evaluation.cache import ResultCache, hash_arrays, hash_weights, score_key
from esrgan.evaluation.crops import ImageCrop, ImageVersions
from esrgan.evaluation.results import DatasetEvaluation, ImageResult
from esrgan.evaluation.sweep import make_side_by_side
from esrgan.inference import Upscaler
from esrgan.metrics.metric import Metric, Pixels
from esrgan.text import format_count

BICUBIC = "bicubic"
_ERRORS_SHOWN = 3  # of a dataset; more are counted


@dataclass(frozen=True)
class Method:
    """A way to upscale images.

    Attributes:
        upscale: Function from an LR image (H, W, C) to the output (scale·H, scale·W, C).
        identity: Everything that determines its outputs, as part of the cache key.
    """

    upscale: Callable[[Pixels], Pixels]
    identity: Mapping[str, str]

    @classmethod
    def bicubic(cls, scale: int) -> Method:
        """Return MATLAB's bicubic upscaling, the baseline of all comparisons."""
        return cls(lambda low: resize.bicubic(low, Fraction(scale)), {"method": BICUBIC})

    @classmethod
    def model(cls, upscaler: Upscaler) -> Method:
        """Return upscaling with a generator."""
        network = upscaler.network
        identity = {
            "method": "model",
            "weights": hash_weights(network),
            "network": repr(network),
            # The residual scaling appears neither in the weights nor in the printed layers.
            "residuals": str([getattr(each, "residual_scaling", "") for each in network.modules()]),
            "computed": f"{upscaler.dtype} on {upscaler.device.type}",
        }
        return cls(upscaler, identity)


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


@dataclass(frozen=True)
class Setup:
    """What all datasets of an evaluation share.

    Attributes:
        methods: Methods by name; the others are compared with the first.
        scale: Upscaling factor of all methods, and the border in pixels that the metrics ignore.
        channels: Number of channels that the methods expect.
        cache: Cache of earlier scores.
        workers: Number of threads that read images, compute metrics and write files.
        num_shown: Number of best and worst images of each dataset whose crops are kept.
        strips: Methods to show side by side in a file for each image; empty for no such files.
    """

    methods: Mapping[str, Method]
    scale: int
    channels: int
    cache: ResultCache
    workers: int = 1
    num_shown: int = 0
    strips: Sequence[str] = ()


@dataclass
class _Job:
    """An image that is being processed; the versions are kept only if files or crops are made of them."""

    name: str
    results: dict[str, Future[ImageResult]]
    versions: ImageVersions | None = None
    writing: Future[None] | None = None


def measure_dataset(result: DatasetEvaluation, dataset_images: Sequence[DatasetImage], setup: Setup) -> None:
    """Score the methods on the images of a dataset and add the results.

    This thread upscales one image after another. Worker threads compute the metrics and write files in the meantime.
    Images that fail are skipped, and their errors are logged and added to the results.

    Args:
        result: Where to add the results; its metrics are computed.
        dataset_images: Images of the dataset.
        setup: What all datasets share.
    """
    pending: deque[_Job] = deque()
    with ThreadPoolExecutor(setup.workers) as pool:
        evaluator = _ImageEvaluator(setup, result, pool, {metric.name: score_key(metric) for metric in result.metrics})
        for index, (dataset_image, loading) in enumerate(_prefetch(pool, dataset_images, setup), 1):
            progress(f"{result.dataset}: {index} of {len(dataset_images)}")
            with _collect_errors(result, dataset_image.name):
                pending.append(evaluator.start(dataset_image, *loading.result()))
            if len(pending) > setup.workers:  # bounds the number of images in memory
                evaluator.finish(pending.popleft())
        while pending:
            evaluator.finish(pending.popleft())
    if (num_more := len(result.errors) - _ERRORS_SHOWN) > 0:
        log.error("%s: %s; the reports list all of them", result.dataset, format_count(num_more, "more error"))


@contextmanager
def _collect_errors(result: DatasetEvaluation, image: str) -> Iterator[None]:
    """Log the error that the block raises and add it to the results, if others can still be measured."""
    try:
        yield
    except (EsrganError, RuntimeError, MemoryError) as error:
        if not isinstance(error, EsrganError):
            if not is_out_of_memory(error):
                raise
            error = EsrganError(f"{result.dataset}: {image}: not enough memory; use --device cpu or fewer --workers")
        result.errors.append(error)
        if len(result.errors) <= _ERRORS_SHOWN:
            log.error("%s", error)


@dataclass(frozen=True)
class _ImageEvaluator:
    """Upscales and scores one image at a time, with settings that all images of a dataset share."""

    setup: Setup
    result: DatasetEvaluation
    pool: ThreadPoolExecutor
    score_keys: Mapping[str, str]

    def start(self, dataset_image: DatasetImage, low: Pixels, high: Pixels | None) -> _Job:
        """Upscale an image with each method whose result is not cached, and have the outputs scored and written."""
        digests = {"low": hash_arrays(low), "high": "" if high is None else hash_arrays(high)}
        job = _Job(dataset_image.name, {})
        outputs: dict[str, Pixels] = {}
        files: dict[Path, Pixels] = {}
        for name, method in self.setup.methods.items():
            key = {**method.identity, **digests, "scale": str(self.setup.scale)}
            path = output_path(self.result.out_dir, dataset_image.name, name) if self.result.out_dir else None
            cached = self.setup.cache.load(key)
            if cached and {*self.score_keys.values()} <= cached.scores.keys():
                earlier = self._read_earlier_output(path, cached) if path else None
                if earlier is not None:
                    outputs[name] = earlier
                if earlier is not None or not self._needs_outputs:
                    job.results[name] = self.pool.submit(self._with_metric_names, cached)
                    continue
            started_at = time.perf_counter()
            output = method.upscale(low)
            seconds = time.perf_counter() - started_at
            job.results[name] = self.pool.submit(self._score, key, cached, output, high, seconds)
            outputs[name] = output
            if path:
                files[path] = output
        if self._needs_outputs:
            job.versions = ImageVersions(low, outputs, high)
        if self.result.out_dir:
            job.writing = self.pool.submit(self._write_files, job, files)
        return job

    def finish(self, job: _Job) -> None:
        """Wait for the scores and files of an image, and add its results."""
        with _collect_errors(self.result, job.name):
            self.result.results[job.name] = {method: future.result() for method, future in job.results.items()}
            if self.setup.num_shown and job.versions:
                self._keep_crops(job.name, job.versions)
        with _collect_errors(self.result, job.name):
            if job.writing:
                job.writing.result()

    @property
    def _needs_outputs(self) -> bool:
        return bool(self.result.out_dir or self.setup.num_shown)

    def _score(
        self, key: Mapping[str, str], cached: ImageResult | None, output: Pixels, high: Pixels | None, seconds: float
    ) -> ImageResult:
        """Compute the scores of an output that are not cached, and cache them."""
        digest = hash_arrays(output)
        scores = dict(cached.scores) if cached and cached.digest == digest else {}
        for metric in self.result.metrics:
            if (score := self.score_keys[metric.name]) not in scores:
                scores[score] = _measure(metric, output, high, self.setup.scale)
        result = ImageResult(scores, seconds, output.shape[0] * output.shape[1], digest)
        self.setup.cache.store(key, result)
        return self._with_metric_names(result)

    def _with_metric_names(self, cached: ImageResult) -> ImageResult:
        return replace(cached, scores={name: cached.scores[key] for name, key in self.score_keys.items()})

    def _read_earlier_output(self, path: Path, cached: ImageResult) -> Pixels | None:
        """Return the output that an earlier run wrote, or None if there is none with the pixels that were scored."""
        try:
            pixels = images.read_pixels(path, self.setup.channels)
        except EsrganError:
            return None
        return pixels if hash_arrays(pixels) == cached.digest else None

    def _keep_crops(self, name: str, versions: ImageVersions) -> None:
        """Keep the crops of an image as long as it is among the best and worst.

        An image that is among the best or worst at the end is so at any time before, so no other crop is ever needed.
        """
        best, worst = self.result.best_and_worst(self.setup.num_shown)
        if name in best or name in worst:
            crops = {**self.result.crops, name: ImageCrop.of(versions)}
            self.result.crops = {shown: crops[shown] for shown in (*best, *worst)}

    def _write_files(self, job: _Job, outputs: Mapping[Path, Pixels]) -> None:
        """Write new outputs, the contact sheet and, if requested, the strip of an image."""
        folder, versions = self.result.out_dir, job.versions
        assert folder is not None  # noqa: S101  for the type checker
        assert versions is not None  # noqa: S101
        nearest = versions.low.repeat(self.setup.scale, axis=0).repeat(self.setup.scale, axis=1)
        originals = {} if versions.high is None else {"HR": versions.high}
        columns = {"LR (nearest)": nearest, **versions.outputs, **originals}
        files = {
            **outputs,
            output_path(folder, job.name, "sheet"): images.make_contact_sheet([list(columns.values())], list(columns)),
        }
        if self.setup.strips:
            files[output_path(folder, job.name, "strip")] = make_side_by_side(versions, self.setup.strips)
        for path, pixels in files.items():
            images.write_pixels(path, pixels, overwrite=True)


def output_path(folder: Path, image: str, method: str) -> Path:
    """Return the path of an image's output by a method, or of its "sheet" or "strip"."""
    return folder / f"{image}_{method}.png"


def _prefetch(
    pool: ThreadPoolExecutor, dataset_images: Sequence[DatasetImage], setup: Setup
) -> Iterator[tuple[DatasetImage, Future[tuple[Pixels, Pixels | None]]]]:
    """Yield each image with its pixels, which are read while the previous image is processed."""
    prefetched: deque[tuple[DatasetImage, Future[tuple[Pixels, Pixels | None]]]] = deque()
    for dataset_image in dataset_images:
        prefetched.append((dataset_image, pool.submit(dataset_image.load, setup.scale, setup.channels)))
        if len(prefetched) > 1:
            yield prefetched.popleft()
    yield from prefetched


def _measure(metric: Metric, output: Pixels, high: Pixels | None, border: int) -> float | None:
    try:
        return metric.measure(output, high, border)
    except ValueError:  # the images are too small
        return None
