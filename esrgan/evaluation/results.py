"""The figures of a dataset, and the tables they are shown in."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from esrgan.evaluation.statistics import Difference, difference
from esrgan.metrics import Metric

INTERVALS = "Mean differences, with 95 % confidence intervals by bootstrap over images"


@dataclass(frozen=True)
class Row:
    """What one method made of one image.

    Attributes:
        figures: By metric; None where the image is too small for one.
        seconds: That it took to enlarge.
        pixels: Of the result.
    """

    figures: dict[str, float | None]
    seconds: float
    pixels: int


@dataclass
class Evaluation:
    """What was found on one dataset.

    Attributes:
        dataset: Its name.
        methods: The first one, bicubic, is what the others are compared with.
        metrics: The first one orders the images.
        rows: By image, then by method.
    """

    dataset: str
    methods: Sequence[str]
    metrics: Sequence[Metric]
    rows: dict[str, dict[str, Row]] = field(default_factory=dict)

    def figures(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Give all figures, by image, method and metric."""
        return {image: {method: row.figures for method, row in rows.items()} for image, rows in self.rows.items()}

    def column(self, method: str, metric: str) -> list[float | None]:
        """Give a method's figures, in the order of the images."""
        return [rows[method].figures[metric] for rows in self.rows.values()]

    def means(self) -> dict[str, dict[str, float | None]]:
        """Average over the images that have a figure, by method and metric."""
        return {
            method: {metric.name: _mean(self.column(method, metric.name)) for metric in self.metrics}
            for method in self.methods
        }

    def speeds(self) -> dict[str, tuple[float, float]]:
        """Give seconds an image, and megapixels a second of what was made, by method."""
        result = {}
        for method in self.methods:
            seconds = sum(row[method].seconds for row in self.rows.values())
            pixels = sum(row[method].pixels for row in self.rows.values())
            result[method] = seconds / len(self.rows), pixels / 1e6 / seconds
        return result

    def differences(self) -> dict[tuple[str, str], dict[str, Difference]]:
        """Compare each model with bicubic, and with the first model: by the two names, then by metric."""
        first, *models = self.methods
        pairs = [(model, first) for model in models] + [(model, models[0]) for model in models[1:]]
        result = {}
        for model, baseline in pairs:
            by_metric = {
                metric.name: difference(self.column(model, metric.name), self.column(baseline, metric.name))
                for metric in self.metrics
            }
            result[model, baseline] = {name: value for name, value in by_metric.items() if value is not None}
        return result

    def by_gain(self) -> list[str]:
        """Order the images by what the last method gains over the first in the first metric, most first.

        Those on which there is no such figure, or both are infinite, are left out.
        """
        metric = self.metrics[0]
        gains = {}
        for image, rows in self.rows.items():
            before, *_, after = (row.figures[metric.name] for row in rows.values())
            if before is not None and after is not None and not math.isnan(after - before):
                gains[image] = after - before if metric.higher_is_better else before - after
        return sorted(gains, key=gains.__getitem__, reverse=True)

    def content(self) -> dict[str, Any]:
        """Give all figures, for a JSON file."""
        differences = [
            {"of": model, "from": baseline, "metric": name, **vars(value)}
            for (model, baseline), values in self.differences().items()
            for name, value in values.items()
        ]
        speed = {
            method: {"seconds_per_image": seconds, "megapixels_per_second": rate}
            for method, (seconds, rate) in self.speeds().items()
        }
        content = {"images": self.figures(), "mean": self.means(), "differences": differences, "speed": speed}
        return {key: _finite(value) for key, value in content.items()}


def table(evaluation: Evaluation) -> str:
    """Write an evaluation as a Markdown table: a row for each image and method, the means last."""
    metrics = evaluation.metrics
    lines = [
        f"| {_cell(evaluation.dataset)} | method | {' | '.join(metric.label for metric in metrics)} |",
        f"|---|---|{'---:|' * len(metrics)}",
    ]
    for name, methods in [*evaluation.figures().items(), ("**mean**", evaluation.means())]:
        for method, values in methods.items():
            figures = " | ".join(_number(values[metric.name], metric.digits) for metric in metrics)
            lines.append(f"| {_cell(name)} | {_cell(method)} | {figures} |")
    return "\n".join(lines)


def comparison(evaluation: Evaluation) -> str:
    """Write what the models gain as a Markdown table: mean differences, each with its 95 % confidence interval."""
    metrics = evaluation.metrics
    labels = [f"{metric.label} {'↑' if metric.higher_is_better else '↓'}" for metric in metrics]
    lines = [f"| difference, 95 % interval | {' | '.join(labels)} |", f"|---|{'---:|' * len(metrics)}"]
    for (model, baseline), found in evaluation.differences().items():
        cells = [_difference(found[metric.name], metric.digits) if metric.name in found else "–" for metric in metrics]
        lines.append(f"| {_cell(model)} − {_cell(baseline)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sentences(evaluation: Evaluation) -> list[str]:
    """Write what the models gain as lines of text, with what the intervals say."""
    lines = []
    for (model, baseline), found in evaluation.differences().items():
        parts = []
        for metric in evaluation.metrics:
            if (each := found.get(metric.name)) is None:
                continue
            text = f"{metric.label} {each.mean:+z.{metric.digits}f}"
            if each.images > 1:
                text += f" ({each.low:+z.{metric.digits}f} to {each.high:+z.{metric.digits}f})"
            parts.append(text if each.is_shown else f"{text}, which these images do not tell from none")
        lines.append(f"{model} − {baseline}: {'; '.join(parts)}")
    return lines


def speed(evaluation: Evaluation) -> str:
    """Write how long the methods took, in a line."""
    parts = [f"{method} {s:.3g} s an image, {rate:.3g} MP/s" for method, (s, rate) in evaluation.speeds().items()]
    return f"time to enlarge, when that was done, while metrics were computed: {'; '.join(parts)}"


def extremes(evaluation: Evaluation, count: int) -> str:
    """Name the images with the best and the worst results against bicubic."""
    names = evaluation.by_gain()
    best, worst = names[:count], names[count:][::-1][:count]
    return f"most gained over {evaluation.methods[0]}: {', '.join(best)}\nleast gained: {', '.join(worst)}"


def as_csv(evaluations: Sequence[Evaluation]) -> str:
    """Write all figures as comma-separated values, a line for each image and method."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(dict.fromkeys(metric.name for each in evaluations for metric in each.metrics))
    writer.writerow(["dataset", "image", "method", *names, "seconds"])
    for evaluation in evaluations:
        for image, rows in evaluation.rows.items():
            for method, row in rows.items():
                figures = ["" if (x := row.figures.get(name)) is None else repr(x) for name in names]
                writer.writerow([evaluation.dataset, image, method, *figures, f"{row.seconds:.4f}"])
    return out.getvalue()


def _mean(figures: Sequence[float | None]) -> float | None:
    present = [figure for figure in figures if figure is not None]
    return float(np.mean(present)) if present else None


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:z.{digits}f}"


def _difference(found: Difference, digits: int) -> str:
    """Write mean [low, high], the mean in bold if the interval leaves zero out."""
    mean = f"{found.mean:+z.{digits}f}"
    if found.images < 2:
        return mean
    interval = f"[{found.low:+z.{digits}f}, {found.high:+z.{digits}f}]"
    return f"**{mean}** {interval}" if found.is_shown else f"{mean} {interval}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for by a text: infinity, the PSNR of equal images, and NaN."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
