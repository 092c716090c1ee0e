"""Describe in plain sentences what the scores show about each pair of methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from esrgan.evaluation.results import DatasetEvaluation
from esrgan.evaluation.statistics import CONFIDENCE, PairedDifference, min_images
from esrgan.metrics import Metric
from esrgan.text import format_count, printable


def describe_differences(dataset: DatasetEvaluation) -> Iterator[str]:
    """Yield a sentence about each model and its baseline: which is better by which metric, or that none is shown to be.

    The first metric comes first, with the mean difference and its confidence interval.
    """
    for (model, baseline), by_name in dataset.differences.items():
        differences = [(metric, by_name[metric.name]) for metric in dataset.metrics if metric.name in by_name]
        yield _compare(printable(model), printable(baseline), differences)


def _compare(model: str, baseline: str, differences: Sequence[tuple[Metric, PairedDifference]]) -> str:
    if not differences:
        return f"{model} and {baseline}: no image on which all methods have a finite score."
    groups: dict[tuple[str, int], list[str]] = {}
    for metric, difference in differences:
        groups.setdefault(_judge(metric, difference), []).append(metric.label)
    (lead, num_images), *others = groups
    labels = groups.pop((lead, num_images))
    if lead in ("better", "worse"):
        sentence = f"{model} is {lead} than {baseline} in {_measure(*differences[0])}"
        if labels[1:]:
            sentence += f"; also in {_enumerate(labels[1:])}"
    else:
        where = labels if groups or lead == "equal" else []  # nothing to name if no metric can tell
        sentence = f"{model} and {baseline}: {_explain(lead, num_images, where)}"
    rest = [_explain(verdict, n, groups[verdict, n]) for verdict, n in others]
    if lead not in ("better", "worse"):  # the sentence has not said yet which one is better
        rest = [f"{model} is {text}" if text.startswith(("better", "worse")) else text for text in rest]
    return "; ".join([sentence, *rest]) + "."


def _judge(metric: Metric, difference: PairedDifference) -> tuple[str, int]:
    """Return "better", "worse", "equal" or "few"; and the number of images if that is part of the sentence."""
    if difference.images < min_images():
        return "few", difference.images
    if not difference.is_significant:
        return "equal", difference.images
    return ("better" if (difference.mean > 0) == metric.higher_is_better else "worse"), 0


def _measure(metric: Metric, difference: PairedDifference) -> str:
    """Return "PSNR Y by 0.31 dB on average, 95 % interval 0.12 to 0.50"; the sign is that of the sentence."""
    if metric.format(abs(difference.mean)) == metric.format(0.0):  # significant, but too small to be shown
        return f"{metric.label} by less than {metric.format(10**-metric.digits)} {metric.unit}".strip() + " on average"
    low, high = sorted((abs(difference.low), abs(difference.high)))
    mean = f"{metric.format(abs(difference.mean))} {metric.unit}".strip()
    interval = f"{CONFIDENCE:.0%}".replace("%", " %") + f" interval {metric.format(low)} to {metric.format(high)}"
    return f"{metric.label} by {mean} on average, {interval}"


def _explain(verdict: str, num_images: int, labels: Sequence[str]) -> str:
    where = f" in {_enumerate(labels, 'or' if verdict == 'equal' else 'and')}" if labels else ""
    images = format_count(num_images, "image")
    if verdict == "few":
        is_or_are = "is" if num_images == 1 else "are"
        return f"{images} {is_or_are} too few to tell{where}; at least {min_images()} are needed"
    return f"no difference{where} that {images} can show" if verdict == "equal" else f"{verdict}{where}"


def _enumerate(labels: Sequence[str], conjunction: str = "and") -> str:
    return f" {conjunction} ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))
