"""Render an evaluation as Markdown tables and lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from esrgan.evaluation.comparison import describe_differences
from esrgan.evaluation.results import DatasetEvaluation, Evaluation
from esrgan.evaluation.statistics import PairedDifference
from esrgan.metrics import Metric
from esrgan.text import printable


def render_markdown(evaluation: Evaluation, num_listed: int = 0) -> str:
    """Return the report: the models, the results of each dataset, the conventions, and what was run where.

    Args:
        evaluation: The results.
        num_listed: Number of best and number of worst images to list for each dataset.
    """
    parts = [f"{printable(name)}: {fact}" for name, fact in evaluation.models.items()]
    for dataset in evaluation.datasets:
        parts += [render_dataset(dataset, num_listed)]
        parts += [f"error: {printable(str(error))}" for error in dataset.errors]
    parts += [*evaluation.unavailable, f"conventions: {evaluation.conventions}"]
    parts += [f"{name}: {printable(fact)}" for name, fact in evaluation.provenance.items()]
    return "\n\n".join(parts) + "\n"


def render_dataset(dataset: DatasetEvaluation, num_listed: int = 0) -> str:
    """Return the results of a dataset: scores, differences, speed, the best and worst images, how many failed."""
    parts = []
    if dataset.results:
        parts = [_render_scores(dataset), *describe_means(dataset), _render_differences(dataset)]
        parts.append("\n".join(f"- {sentence}" for sentence in describe_differences(dataset)))
        parts.append(describe_speed(dataset))
        kinds = (f"largest gain over {dataset.methods[0]}", "smallest gain")
        groups = zip(kinds, dataset.best_and_worst(num_listed), strict=True)
        if gains := [f"{kind}: {', '.join(map(printable, names))}" for kind, names in groups if names]:
            parts.append("\n".join(gains))
    parts += [printable(line) for line in (dataset.left_out, dataset.misalignment) if line]
    if dataset.num_images > len(dataset.results):
        parts.append(f"{printable(dataset.dataset)}: {describe_failures(dataset)}")
    return "\n\n".join(parts)


def describe_failures(dataset: DatasetEvaluation) -> str:
    """Return how many images failed."""
    return f"{dataset.num_images - len(dataset.results):,} of {dataset.num_images:,} images failed"


def describe_means(dataset: DatasetEvaluation) -> Iterator[str]:
    """Yield a line with the numbers of images if means are not over all images, and one if scores are missing."""
    counts = {metric.label: len(dataset.compared_images(metric)) for metric in dataset.metrics}
    if parts := [
        f"{label} {n:,} of {len(dataset.results):,}" for label, n in counts.items() if n < len(dataset.results)
    ]:
        yield f"means are over the images on which all methods have a finite score: {', '.join(parts)}"
    missing = [
        metric.label
        for metric in dataset.metrics
        if any(None in dataset.scores(method, metric) for method in dataset.methods)
    ]
    if missing:
        yield f"– in {', '.join(missing)}: the image is too small or too flat for this metric"


def _render_scores(dataset: DatasetEvaluation) -> str:
    """Return a table with a row for each image and method, and the means last."""
    metrics = dataset.metrics
    lines = [
        f"| {_escape(dataset.dataset)} | method | {' | '.join(metric.label for metric in metrics)} |",
        f"|---|---|{'---:|' * len(metrics)}",
    ]
    for image, by_method in dataset.results.items():
        for method, result in by_method.items():
            cells = " | ".join(metric.format(result.scores.get(metric.name)) for metric in metrics)
            lines.append(f"| {_escape(image)} | {_escape(method)} | {cells} |")
    for method in dataset.methods:
        cells = " | ".join(" ".join(format_mean(dataset, method, metric)).strip() for metric in metrics)
        lines.append(f"| **mean** | {_escape(method)} | {cells} |")
    return "\n".join(lines)


def format_mean(dataset: DatasetEvaluation, method: str, metric: Metric) -> tuple[str, str]:
    """Return a mean, and "(2 perfect)" if the method is perfect on two images, else an empty text."""
    mean, num_perfect = dataset.mean(method, metric)
    return metric.format(mean), f"({num_perfect:,} perfect)" if num_perfect else ""


def _render_differences(dataset: DatasetEvaluation) -> str:
    """Return a table of the mean differences and their 95 % confidence intervals; significant ones are bold."""
    labels = [f"{metric.label} {'↑' if metric.higher_is_better else '↓'}" for metric in dataset.metrics]
    lines = [f"| mean difference [95 % interval] | {' | '.join(labels)} |", f"|---|{'---:|' * len(labels)}"]
    for (model, baseline), by_name in dataset.differences.items():
        cells = []
        for metric in dataset.metrics:
            difference = by_name.get(metric.name)
            mean, interval = format_difference(difference, metric) if difference else ("–", "")
            mean = f"**{mean}**" if difference and difference.is_significant else mean
            cells.append(f"{mean} {interval}".strip())
        lines.append(f"| {_escape(model)} − {_escape(baseline)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def describe_speed(dataset: DatasetEvaluation) -> str:
    """Return a line with the speed of each method."""
    speeds = {method: dataset.speed(method) for method in dataset.methods}
    parts = [f"{printable(method)} {s:.3g} s per image, {rate:.3g} MP/s" for method, (s, rate) in speeds.items()]
    return f"upscaling time (measured while metrics were computed): {'; '.join(parts)}"


def format_difference(difference: PairedDifference, metric: Metric) -> tuple[str, str]:
    """Return the mean and the interval, which is empty for a single image."""
    mean, low, high = (metric.format(value, "+") for value in (difference.mean, difference.low, difference.high))
    return mean, f"[{low}, {high}]" if difference.images > 1 else ""


def _escape(text: str) -> str:
    return printable(text).replace("|", "\\|")
