"""Hold the results of a dataset, and format them as tables, text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from esrgan.evaluation.statistics import PairedDifference, paired_difference
from esrgan.metrics import Metric

INTERVALS_CAPTION = "Mean differences with 95 % confidence intervals (bootstrap over images)"


@dataclass(frozen=True)
class ImageResult:
    """The result of one method on one image.

    Attributes:
        scores: Scores by metric; None where the image is too small for the metric.
        seconds: Upscaling time.
        pixels: Number of pixels of the output.
    """

    scores: dict[str, float | None]
    seconds: float
    pixels: int


@dataclass
class Evaluation:
    """The results of several methods on one dataset.

    Attributes:
        dataset: Name of the dataset.
        methods: Names of the methods; the others are compared with the first, which is bicubic.
        metrics: Metrics that were computed; the first one ranks the images.
        results: Results by image, then by method.
    """

    dataset: str
    methods: Sequence[str]
    metrics: Sequence[Metric]
    results: dict[str, dict[str, ImageResult]] = field(default_factory=dict)

    def scores(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Return all scores by image, method and metric."""
        return {
            image: {method: result.scores for method, result in by_method.items()}
            for image, by_method in self.results.items()
        }

    def scores_of(self, method: str, metric: str) -> list[float | None]:
        """Return a method's scores in the order of the images."""
        return [by_method[method].scores[metric] for by_method in self.results.values()]

    def means(self) -> dict[str, dict[str, float | None]]:
        """Return the mean scores by method and metric, over the images that have a score."""
        return {
            method: {metric.name: _mean_of_present(self.scores_of(method, metric.name)) for metric in self.metrics}
            for method in self.methods
        }

    def speeds(self) -> dict[str, tuple[float, float]]:
        """Return seconds per image and output megapixels per second, by method."""
        speeds = {}
        for method in self.methods:
            seconds = sum(by_method[method].seconds for by_method in self.results.values())
            pixels = sum(by_method[method].pixels for by_method in self.results.values())
            speeds[method] = seconds / len(self.results), pixels / 1e6 / seconds
        return speeds

    def paired_differences(self) -> dict[tuple[str, str], dict[str, PairedDifference]]:
        """Compare each model with bicubic and with the first model, by (model, baseline) and then by metric."""
        first, *models = self.methods
        pairs = [(model, first) for model in models] + [(model, models[0]) for model in models[1:]]
        differences = {}
        for model, baseline in pairs:
            by_metric = {
                metric.name: paired_difference(
                    self.scores_of(model, metric.name), self.scores_of(baseline, metric.name)
                )
                for metric in self.metrics
            }
            differences[model, baseline] = {name: value for name, value in by_metric.items() if value is not None}
        return differences

    def images_by_gain(self) -> list[str]:
        """Rank the images by the gain of the last method over the first in the first metric, largest gain first.

        Images on which a score is missing, or both are infinite, are left out.
        """
        metric = self.metrics[0]
        gains = {}
        for image, by_method in self.results.items():
            before, *_, after = (result.scores[metric.name] for result in by_method.values())
            if before is not None and after is not None and not math.isnan(after - before):
                gains[image] = after - before if metric.higher_is_better else before - after
        return sorted(gains, key=gains.__getitem__, reverse=True)

    def to_dict(self) -> dict[str, Any]:
        """Return all results as a dictionary that JSON can represent."""
        differences = [
            {"of": model, "from": baseline, "metric": name, **vars(value)}
            for (model, baseline), values in self.paired_differences().items()
            for name, value in values.items()
        ]
        speed = {
            method: {"seconds_per_image": seconds, "megapixels_per_second": rate}
            for method, (seconds, rate) in self.speeds().items()
        }
        content = {"images": self.scores(), "mean": self.means(), "differences": differences, "speed": speed}
        return {key: _replace_non_finite(value) for key, value in content.items()}


def format_table(evaluation: Evaluation) -> str:
    """Format the scores as a Markdown table with a row for each image and method, and the means last."""
    metrics = evaluation.metrics
    lines = [
        f"| {_escape_cell(evaluation.dataset)} | method | {' | '.join(metric.label for metric in metrics)} |",
        f"|---|---|{'---:|' * len(metrics)}",
    ]
    for name, methods in [*evaluation.scores().items(), ("**mean**", evaluation.means())]:
        for method, values in methods.items():
            scores = " | ".join(_format_score(values[metric.name], metric.digits) for metric in metrics)
            lines.append(f"| {_escape_cell(name)} | {_escape_cell(method)} | {scores} |")
    return "\n".join(lines)


def format_differences(evaluation: Evaluation) -> str:
    """Format the mean differences and their 95 % confidence intervals as a Markdown table."""
    metrics = evaluation.metrics
    labels = [f"{metric.label} {'↑' if metric.higher_is_better else '↓'}" for metric in metrics]
    lines = [f"| mean difference [95 % interval] | {' | '.join(labels)} |", f"|---|{'---:|' * len(metrics)}"]
    for (model, baseline), differences in evaluation.paired_differences().items():
        cells = [
            _format_difference(differences[metric.name], metric.digits) if metric.name in differences else "–"
            for metric in metrics
        ]
        lines.append(f"| {_escape_cell(model)} − {_escape_cell(baseline)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def describe_differences(evaluation: Evaluation) -> list[str]:
    """Describe the mean differences in lines of text, with their intervals and significance."""
    lines = []
    for (model, baseline), differences in evaluation.paired_differences().items():
        parts = []
        for metric in evaluation.metrics:
            if (difference := differences.get(metric.name)) is None:
                continue
            text = f"{metric.label} {difference.mean:+z.{metric.digits}f}"
            if difference.images > 1:
                text += f" [{difference.low:+z.{metric.digits}f}, {difference.high:+z.{metric.digits}f}]"
            parts.append(text if difference.is_significant else f"{text} (not significant)")
        lines.append(f"{model} − {baseline}: {'; '.join(parts)}")
    return lines


def describe_speed(evaluation: Evaluation) -> str:
    """Describe the speed of the methods in one line."""
    parts = [f"{method} {s:.3g} s per image, {rate:.3g} MP/s" for method, (s, rate) in evaluation.speeds().items()]
    return f"upscaling time (measured while metrics were computed): {'; '.join(parts)}"


def describe_extremes(evaluation: Evaluation, count: int) -> str:
    """List the images with the largest and the smallest gain over bicubic."""
    names = evaluation.images_by_gain()
    best, worst = names[:count], names[count:][::-1][:count]
    return f"largest gain over {evaluation.methods[0]}: {', '.join(best)}\nsmallest gain: {', '.join(worst)}"


def to_csv(evaluations: Sequence[Evaluation]) -> str:
    """Format all scores as CSV, with a line for each image and method."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(dict.fromkeys(metric.name for each in evaluations for metric in each.metrics))
    writer.writerow(["dataset", "image", "method", *names, "seconds"])
    for evaluation in evaluations:
        for image, by_method in evaluation.results.items():
            for method, result in by_method.items():
                scores = ["" if (x := result.scores.get(name)) is None else repr(x) for name in names]
                writer.writerow([evaluation.dataset, image, method, *scores, f"{result.seconds:.4f}"])
    return out.getvalue()


def _mean_of_present(scores: Sequence[float | None]) -> float | None:
    present = [score for score in scores if score is not None]
    return float(np.mean(present)) if present else None


def _format_score(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:z.{digits}f}"


def _format_difference(difference: PairedDifference, digits: int) -> str:
    """Format a difference as ``mean [low, high]``, with the mean in bold if it is significant."""
    mean = f"{difference.mean:+z.{digits}f}"
    if difference.images < 2:
        return mean
    interval = f"[{difference.low:+z.{digits}f}, {difference.high:+z.{digits}f}]"
    return f"**{mean}** {interval}" if difference.is_significant else f"{mean} {interval}"


def _escape_cell(text: str) -> str:
    return text.replace("|", "\\|")


def _replace_non_finite(value: Any) -> Any:
    """Replace numbers that JSON cannot represent by text: infinity (the PSNR of identical images) and NaN."""
    if isinstance(value, dict):
        return {key: _replace_non_finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_replace_non_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
