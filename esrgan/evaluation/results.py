"""The results of an evaluation: scores, means, differences, speeds and errors; also as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from esrgan.errors import EsrganError
from esrgan.evaluation.crops import ImageCrop
from esrgan.evaluation.statistics import PairedDifference, paired_difference
from esrgan.metrics import Metric, finite_mean


@dataclass(frozen=True)
class ImageResult:
    """The result of one method on one image.

    Attributes:
        scores: Scores by metric; None where the image is too small or too flat for the metric.
        seconds: Upscaling time.
        pixels: Number of pixels of the output.
        digest: Digest of the output's pixels.
    """

    scores: dict[str, float | None]
    seconds: float
    pixels: int
    digest: str = ""


@dataclass
class DatasetEvaluation:
    """The results of several methods on one dataset.

    Attributes:
        dataset: Name of the dataset.
        methods: Names of the methods; the others are compared with the first, which is bicubic.
        metrics: Metrics that were computed; the first one ranks the images.
        num_images: Number of images of the dataset, of which some may have failed.
        left_out: A line on the files of the dataset that are left out, because they are no images, or empty.
        out_dir: Folder of the upscaled images; None if they were not written.
        results: Results by image, then by method.
        errors: Errors of images that were skipped, or of output files that could not be written.
        crops: Crops by image, of the images where the last method gains most and least over the first.
        misalignment: A line on LR images that do not fit their HR images, or empty.
        inputs: The files of each image, as far as there are any, by "LR" and "HR".
    """

    dataset: str
    methods: Sequence[str]
    metrics: Sequence[Metric]
    num_images: int
    left_out: str = ""
    out_dir: Path | None = None
    results: dict[str, dict[str, ImageResult]] = field(default_factory=dict)
    errors: list[EsrganError] = field(default_factory=list)
    crops: dict[str, ImageCrop] = field(default_factory=dict)
    misalignment: str = ""
    inputs: dict[str, dict[str, Path]] = field(default_factory=dict)

    def scores(self, method: str, metric: Metric) -> list[float | None]:
        """Return a method's scores in the order of the images; None where one is missing."""
        return [by_method[method].scores.get(metric.name) for by_method in self.results.values()]

    def compared_images(self, metric: Metric) -> list[str]:
        """Return the images over which means and differences are taken, the same ones for all methods.

        These are the images on which every method has a finite score, which a perfect image has not. A method without
        any finite score, such as one that is always perfect, does not restrict them.
        """
        columns = [
            [score is not None and math.isfinite(score) for score in self.scores(method, metric)]
            for method in self.methods
        ]
        rows = list(zip(*filter(any, columns), strict=True))
        return [image for image, row in zip(self.results, rows, strict=bool(rows)) if all(row)]

    def mean(self, method: str, metric: Metric) -> tuple[float | None, int]:
        """Return the mean score over ``compared_images``, and the number of images on which the method is perfect.

        The mean is infinite if all of the method's scores are, and None if there is no image to compare.
        """
        present = {name: by[method].scores.get(metric.name) for name, by in self.results.items()}
        scores = {name: score for name, score in present.items() if score is not None}
        num_perfect = sum(map(math.isinf, scores.values()))
        if num_perfect < len(scores):
            scores = {name: scores[name] for name in self.compared_images(metric) if name in scores}
        return (finite_mean(scores.values())[0] if scores else None), num_perfect

    def gain(self, image: str, method: str, metric: Metric) -> float | None:
        """Return a method's score on an image minus that of the first method; None if it is not a number."""
        score, reference = (self.results[image][name].scores.get(metric.name) for name in (method, self.methods[0]))
        difference = math.nan if score is None or reference is None else score - reference
        return None if math.isnan(difference) else difference

    def speed(self, method: str) -> tuple[float, float]:
        """Return a method's seconds per image and output megapixels per second."""
        results = [by_method[method] for by_method in self.results.values()]
        seconds = sum(result.seconds for result in results)
        return seconds / len(results), sum(result.pixels for result in results) / 1e6 / seconds

    @property
    def differences(self) -> dict[tuple[str, str], dict[str, PairedDifference]]:
        """Each model compared with bicubic and with the first model, by (model, baseline) and then by metric.

        Only ``compared_images`` count, so that a difference equals that of the means. Metrics without such images are
        missing.
        """
        first, *models = self.methods
        pairs = [(model, first) for model in models] + [(model, models[0]) for model in models[1:]]
        found: dict[tuple[str, str], dict[str, PairedDifference]] = {pair: {} for pair in pairs}
        for metric in self.metrics:
            rows = [self.results[image] for image in self.compared_images(metric)]
            for pair in pairs:
                a, b = ([row[method].scores.get(metric.name) for row in rows] for method in pair)
                if difference := paired_difference(a, b):
                    found[pair][metric.name] = difference
        return found

    def best_and_worst(self, count: int) -> tuple[list[str], list[str]]:
        """Return the images where the last method gains most and least over the first, by the first metric.

        Images without a score, or on which both are perfect, are left out. No image is in both lists.

        Args:
            count: Maximum length of each list.

        Returns:
            The best images, best first, and the worst images, worst first.
        """
        metric = self.metrics[0]
        gains = {image: self.gain(image, self.methods[-1], metric) for image in self.results}
        ranked = {
            image: gain if metric.higher_is_better else -gain for image, gain in gains.items() if gain is not None
        }
        names = sorted(ranked, key=ranked.__getitem__, reverse=True)
        return names[:count], names[count:][::-1][:count]

    def to_dict(self) -> dict[str, Any]:
        """Return all results as a dictionary that JSON can represent."""
        means = {method: {metric.name: self.mean(method, metric) for metric in self.metrics} for method in self.methods}
        speeds = {method: self.speed(method) for method in self.methods} if self.results else {}
        content = {
            "images": {
                image: {method: result.scores for method, result in by_method.items()}
                for image, by_method in self.results.items()
            },
            "mean": {method: {name: mean for name, (mean, _) in by_name.items()} for method, by_name in means.items()},
            "compared_images": {metric.name: len(self.compared_images(metric)) for metric in self.metrics},
            "perfect": {method: {name: n for name, (_, n) in by_name.items()} for method, by_name in means.items()},
            "differences": [
                {"of": model, "from": baseline, "metric": name, **vars(difference)}
                for (model, baseline), by_name in self.differences.items()
                for name, difference in by_name.items()
            ],
            "speed": {
                method: {"seconds_per_image": seconds, "megapixels_per_second": rate}
                for method, (seconds, rate) in speeds.items()
            },
            "left_out": self.left_out,
            "misalignment": self.misalignment,
            "errors": [str(error) for error in self.errors],
        }
        return {key: _replace_non_finite(value) for key, value in content.items()}


@dataclass
class Evaluation:
    """The results of models on datasets.

    Attributes:
        models: A description of each model by its name.
        conventions: How the scores were computed, as a line of text.
        datasets: The results of each dataset.
        unavailable: For each requested metric that is not available, a line with the reason and the remedy.
        provenance: Date, versions, machine and command of the evaluation, by their names.
    """

    models: Mapping[str, str]
    conventions: str
    datasets: list[DatasetEvaluation] = field(default_factory=list)
    unavailable: Sequence[str] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> list[EsrganError]:
        """The errors of all datasets; empty if everything could be evaluated."""
        return [error for each in self.datasets for error in each.errors]

    @property
    def facts(self) -> dict[str, str]:
        """The models and the conventions, for headings of reports."""
        return {**self.models, "conventions": self.conventions}

    def to_json(self) -> str:
        """Return all results as JSON, by dataset."""
        content = {each.dataset: {"of": self.facts, **each.to_dict()} for each in self.datasets}
        return _to_utf8(json.dumps(content, indent=1, ensure_ascii=False))

    def to_csv(self) -> str:
        """Return all scores as CSV, with a line for each dataset, image and method."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        names = list(dict.fromkeys(metric.name for each in self.datasets for metric in each.metrics))
        writer.writerow(["dataset", "image", "method", *names, "seconds"])
        for each in self.datasets:
            for image, by_method in each.results.items():
                for method, result in by_method.items():
                    scores = ["" if (score := result.scores.get(name)) is None else repr(score) for name in names]
                    writer.writerow([each.dataset, image, method, *scores, f"{result.seconds:.4f}"])
        return _to_utf8(out.getvalue())


def _to_utf8(text: str) -> str:
    r"""Write bytes of file names that are not UTF-8 as ``\udcff``, which JSON reads as the same character again."""
    return text.encode(errors="backslashreplace").decode()


def _replace_non_finite(value: Any) -> Any:
    """Replace numbers that JSON cannot represent by text: infinity (the PSNR of identical images) and NaN."""
    if isinstance(value, dict):
        return {key: _replace_non_finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_replace_non_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
