"""Upscale the images of a dataset by several methods, score the outputs, and write them as files if requested."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, partial
from itertools import chain, pairwise
from pathlib import Path

from esrgan import images, resize
from esrgan.console import log
from esrgan.data import ImagePair, load_pair
from esrgan.data.alignment import describe_misalignment
from esrgan.devices import is_out_of_memory
from esrgan.errors import EsrganError, LostDeviceError
from esrgan.evaluation.cache import ResultCache, hash_arrays, hash_weights, score_key
from esrgan.evaluation.crops import ImageCrop, ImageVersions
from esrgan.evaluation.results import DatasetEvaluation, ImageResult
from esrgan.evaluation.sweep import make_side_by_side
from esrgan.inference import Upscaler
from esrgan.inference.tiling import ProgressCallback, subprogress
from esrgan.metrics.metric import Metric, Pixels
from esrgan.outputs import SOFTWARE, check_replaceable
from esrgan.progress import Progress, explain_interrupt
from esrgan.text import format_count

BICUBIC = "bicubic"
_ERRORS_SHOWN = 3  # of a dataset; more are counted


@dataclass(frozen=True)
class EvaluationOptions:
    """Settings of an evaluation.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps", for the models and for metrics that are networks.
        precision: Precision of the models, as for ``Upscaler.from_file``.
        workers: Number of threads that read images, compute metrics and write files.
        data_root: Folder of the named datasets; None for $ESRGAN_DATA, else ``data``.
        vgg_weights: Weight file for "vgg16" and "vggstats", in torchvision's layout; None for torchvision's weights.
        download: Whether to download weights that metrics need and that are missing.
        use_cache: Whether to reuse scores of earlier evaluations, and to store the new ones.
        out_dir: Folder for the upscaled images and contact sheets, in a folder for each dataset; None to write none.
        num_shown: Number of best and worst images of each dataset whose crops are kept for the HTML report.
        strips: Names of models to show side by side in a file for each image (``<image>_strip.png``) in ``out_dir``.
    """

    device: str = "auto"
    precision: str = "exact"
    workers: int = 2
    data_root: str | Path | None = None
    vgg_weights: str | Path | None = None
    download: bool = False
    use_cache: bool = True
    out_dir: str | Path | None = None
    num_shown: int = 0
    strips: Sequence[str] = ()


@dataclass(frozen=True)
class Method:
    """A way to upscale images.

    Attributes:
        upscale: Function from an LR image (H, W, C) and a callback, which gets the fraction that is done, to the output
            (scale·H, scale·W, C).
        identity: Everything that determines its outputs, as part of the cache key.
    """

    upscale: Callable[[Pixels, ProgressCallback], Pixels]
    identity: Mapping[str, str]

    @classmethod
    def bicubic(cls, scale: int) -> Method:
        """Return MATLAB's bicubic upscaling, the baseline of all comparisons."""
        return cls(lambda low, _: resize.bicubic(low, Fraction(scale)), {"method": BICUBIC})

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
            "computed": f"{upscaler.dtype}{', Winograd' * upscaler.winograd} on {upscaler.device.type}",
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

    @property
    def files(self) -> dict[str, Path]:
        """The files by "LR" and "HR"."""
        return {kind: path for kind, path in (("LR", self.low), ("HR", self.high)) if path}

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
class _Job:
    """An image that is being processed."""

    name: str
    results: dict[str, Future[ImageResult]]
    versions: ImageVersions
    writing: Future[None] | None
    is_upscaled: bool  # by at least one method, whose result was not cached


@dataclass(frozen=True)
class Measurement:
    """Scores methods on the images of a dataset.

    Attributes:
        result: The results, to which ``run`` adds; its metrics are computed.
        methods: Methods by name; the others are compared with the first.
        scale: Upscaling factor of all methods, and the border in pixels that the metrics ignore.
        channels: Number of channels that the methods expect.
        cache: Cache of earlier scores.
        options: Settings.
    """

    result: DatasetEvaluation
    methods: Mapping[str, Method]
    scale: int
    channels: int
    cache: ResultCache
    options: EvaluationOptions

    def run(self, dataset_images: Sequence[DatasetImage]) -> None:
        """Score the methods on images and add the results.

        This thread upscales one image after another. Worker threads compute the metrics and write files in the
        meantime. Images that fail are skipped, and their errors are logged and added to the results.
        """
        pairs = [ImagePair(each.high, each.low) for each in dataset_images if each.low and each.high]
        if text := describe_misalignment(pairs, lambda pair: load_pair(pair, self.scale, self.channels), self.scale):
            self.result.misalignment = f"{pairs[0].low} and other LR images: {text}"
            log.warning("%s", self.result.misalignment)
        pending: deque[_Job] = deque()
        sizes = images.measure_images({each.name: path for each in dataset_images if (path := each.high or each.low)})
        shown = Progress(dict(sizes.items()), f"{self.result.dataset}: ")

        def describe_interruption() -> str:
            done = f"{len(self.result.results):,} of {format_count(len(dataset_images), 'image')} measured"
            again = "reuses their scores" if self.options.use_cache else "begins again, because of --no-cache"
            return f"{self.result.dataset}: {done}; the same command {again}"

        with explain_interrupt(describe_interruption), ThreadPoolExecutor(self.options.workers) as pool:
            loading = (pool.submit(image.load, self.scale, self.channels) for image in dataset_images)
            twos = pairwise(chain(loading, [Future()]))  # the next image is read while this one is processed
            for image, (loaded, _) in zip(dataset_images, twos, strict=True):
                shown.update(image.name, 0.0, image.name)
                job = None
                with self._collect_errors(image.name):
                    job = self._start(pool, image.name, *loaded.result(), shown)
                    pending.append(job)
                shown.finish(image.name, without_work=job is None or not job.is_upscaled)
                if len(pending) > self.options.workers:  # bounds the number of images in memory
                    self._finish(pending.popleft())
            while pending:
                self._finish(pending.popleft())
        if (num_more := len(self.result.errors) - _ERRORS_SHOWN) > 0:
            log.error("%s: %s; the reports list all of them", self.result.dataset, format_count(num_more, "more error"))

    @contextmanager
    def _collect_errors(self, image: str) -> Iterator[None]:
        """Log the error that the block raises and add it to the results, if others can still be measured."""
        try:
            yield
        except LostDeviceError:
            raise
        except (EsrganError, RuntimeError, MemoryError) as error:
            if not isinstance(error, EsrganError):
                if not is_out_of_memory(error):
                    raise
                place = f"{self.result.dataset}: {image}"
                error = EsrganError(f"{place}: not enough memory; use the CPU or fewer workers")
            self.result.errors.append(error)
            if len(self.result.errors) <= _ERRORS_SHOWN:
                log.error("%s", error)

    def _start(self, pool: ThreadPoolExecutor, image: str, low: Pixels, high: Pixels | None, shown: Progress) -> _Job:
        """Upscale an image with each method whose result is not cached, and have the outputs scored and written."""
        digests = {"low": hash_arrays(low), "high": "" if high is None else hash_arrays(high)}
        folder = self.result.out_dir
        results: dict[str, Future[ImageResult]] = {}
        outputs: dict[str, Pixels] = {}
        is_upscaled = False
        files: dict[Path, Pixels] = {}
        for i, (name, method) in enumerate(self.methods.items()):
            key = {**method.identity, **digests, "scale": str(self.scale)}
            path = output_path(folder, image, name) if folder else None
            cached = self.cache.load(key)
            if cached and {*self._score_keys.values()} <= cached.scores.keys():
                earlier = self._read_earlier_output(path, cached) if path else None
                if earlier is not None:
                    outputs[name] = earlier
                if earlier is not None or not (folder or self.options.num_shown):
                    results[name] = pool.submit(self._with_metric_names, cached)
                    continue
            started_at = time.perf_counter()
            # The first method is bicubic, which takes next to no time.
            share = subprogress(partial(shown.update, image, name=image), i - 1, len(self.methods) - 1)
            outputs[name], is_upscaled = method.upscale(low, share), True
            seconds = time.perf_counter() - started_at
            results[name] = pool.submit(self._score, key, cached, outputs[name], high, seconds)
            if path:
                files[path] = outputs[name]
        versions = ImageVersions(low, outputs, high)
        writing = pool.submit(self._write_files, folder, image, versions, files) if folder else None
        return _Job(image, results, versions, writing, is_upscaled)

    def _finish(self, job: _Job) -> None:
        """Wait for the scores and files of an image, and add its results."""
        with self._collect_errors(job.name):
            self.result.results[job.name] = {method: future.result() for method, future in job.results.items()}
            if self.options.num_shown:
                self._keep_crops(job.name, job.versions)
        with self._collect_errors(job.name):
            if job.writing:
                job.writing.result()

    @cached_property
    def _score_keys(self) -> dict[str, str]:
        return {metric.name: score_key(metric) for metric in self.result.metrics}

    def _score(
        self, key: Mapping[str, str], cached: ImageResult | None, output: Pixels, high: Pixels | None, seconds: float
    ) -> ImageResult:
        """Compute the scores of an output that are not cached, and cache them."""
        digest = hash_arrays(output)
        scores = dict(cached.scores) if cached and cached.digest == digest else {}
        for metric in self.result.metrics:
            if (score := self._score_keys[metric.name]) not in scores:
                scores[score] = _measure(metric, output, high, self.scale)
        result = ImageResult(scores, seconds, output.shape[0] * output.shape[1], digest)
        self.cache.store(key, result)
        return self._with_metric_names(result)

    def _with_metric_names(self, cached: ImageResult) -> ImageResult:
        return replace(cached, scores={name: cached.scores[key] for name, key in self._score_keys.items()})

    def _read_earlier_output(self, path: Path, cached: ImageResult) -> Pixels | None:
        """Return the output that an earlier run wrote, or None if there is none with the pixels that were scored."""
        try:
            pixels = images.read_pixels(path, self.channels)
        except EsrganError:
            return None
        return pixels if hash_arrays(pixels) == cached.digest else None

    def _keep_crops(self, name: str, versions: ImageVersions) -> None:
        """Keep the crops of an image as long as it is among the best and worst.

        An image that is among the best or worst at the end is so at any time before, so no other crop is ever needed.
        """
        best, worst = self.result.best_and_worst(self.options.num_shown)
        if name in best or name in worst:
            crops = {**self.result.crops, name: ImageCrop.of(versions)}
            self.result.crops = {shown: crops[shown] for shown in (*best, *worst)}

    def _write_files(self, folder: Path, image: str, versions: ImageVersions, outputs: Mapping[Path, Pixels]) -> None:
        """Write new outputs, the contact sheet and, if requested, the strip of an image."""
        columns = {"LR (nearest)": versions.low, **versions.outputs}
        if versions.high is not None:
            columns["HR"] = versions.high
        sheet = images.make_contact_sheet([list(columns.values())], list(columns))
        files = {**outputs, output_path(folder, image, "sheet"): sheet}
        if self.options.strips:
            files[output_path(folder, image, "strip")] = make_side_by_side(versions, self.options.strips)
        for path, pixels in files.items():
            check_replaceable(path)  # a file of the user's may have come since the start
            images.write_pixels(path, pixels, overwrite=True, software=SOFTWARE)


def curve_path(folder: Path) -> Path:
    """Return the path of a dataset's curve of the scores against α."""
    return folder / "curve.png"


def output_path(folder: Path, image: str, method: str) -> Path:
    """Return the path of an image's output by a method, or of its "sheet" or "strip"."""
    return folder / f"{image}_{method}.png"


def _measure(metric: Metric, output: Pixels, high: Pixels | None, border: int) -> float | None:
    try:
        return metric.measure(output, high, border)
    except ValueError:  # the images are too small
        return None
