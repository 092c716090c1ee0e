"""Figures of methods as tables: marked where they are the best, compared with the first method, sortable."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from esrgan.evaluation.crops import ImageVersions
from esrgan.metrics import Metric

MethodScores = Mapping[str, Mapping[str, float | None]]  # method → metric → value; None or absent: not measured


@dataclass(frozen=True)
class ReportSection:
    """What was found on one dataset.

    Attributes:
        dataset: Its name.
        methods: Bicubic first: figures are compared with those of the first.
        metrics: The columns; the first one decides which images are the best and the worst.
        scores: Figures by image.
        mean_scores: Figures of the whole dataset.
        difference_lines: Lines on what the models' differences are worth, such as confidence intervals; may be empty.
        load_versions: Gives all versions of an image, with an output of each method; called only for those that are
            shown, one after the other.
    """

    dataset: str
    methods: Sequence[str]
    metrics: Sequence[Metric]
    scores: Mapping[str, MethodScores]
    mean_scores: MethodScores
    difference_lines: Sequence[str]
    load_versions: Callable[[str], ImageVersions]


def select_best_and_worst(section: ReportSection, count: int) -> tuple[list[str], list[str]]:
    """Choose the images for which the last method gains most over the first, and least, by the first metric.

    Args:
        section: Of a dataset.
        count: How many of each at most.

    Returns:
        The best images, the best one first, and the worst ones, the worst one first; no image is in both, and those
        without a figure are in neither.
    """
    metric = section.metrics[0]

    def gain(name: str) -> float:
        delta = _difference_from_first(section, section.scores[name], section.methods[-1], metric)
        return math.nan if delta is None else delta if metric.higher_is_better else -delta

    gains = {name: gain(name) for name in section.scores}
    ranked = sorted((name for name in gains if not math.isnan(gains[name])), key=gains.__getitem__, reverse=True)
    return ranked[:count], ranked[count:][::-1][:count]


def render_methods_table(section: ReportSection, scores: MethodScores, caption: str) -> str:
    """A row for each method, a column for each metric."""
    head = "".join(f'<th scope="col">{_render_label(metric)}</th>' for metric in section.metrics)
    best = {metric.name: _best_score(section, scores, metric) for metric in section.metrics}
    rows = []
    for method in section.methods:
        cells = []
        for metric in section.metrics:
            text = format_score(get_score(scores, method, metric), metric)
            change = "" if method == section.methods[0] else _render_difference(section, scores, method, metric)
            cells.append(f"<td>{_mark_best(text, text == best[metric.name])}<small>{change}</small></td>")
        rows.append(f'<tr><th scope="row">{escape_text(method)}</th>{"".join(cells)}</tr>')
    corner = '<th scope="col">method</th>'
    return _render_table(caption, "", f"{corner}{head}", rows)


def render_images_table(section: ReportSection, metric: Metric, links: Mapping[str, str]) -> str:
    """A row for each image, columns for each method and its difference from the first."""
    first, *others = section.methods
    names = ["image", first, *(name for method in others for name in (method, f"Δ {method}"))]
    head = "".join(f'<th scope="col"><button type="button">{escape_text(name)}</button></th>' for name in names)
    rows = []
    for image, scores in section.scores.items():
        best = _best_score(section, scores, metric)
        link = f'<a href="#{links[image]}">{escape_text(image)}</a>' if image in links else escape_text(image)
        cells = [f'<th scope="row">{link}</th>']
        for method in section.methods:
            value = get_score(scores, method, metric)
            text = format_score(value, metric)
            cells.append(f"<td{_sort_attribute(value)}>{_mark_best(text, text == best)}</td>")
            if method != first:
                delta = _sort_attribute(_difference_from_first(section, scores, method, metric))
                cells.append(f"<td{delta}>{_render_difference(section, scores, method, metric) or '–'}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    table = _render_table(f"{metric.label} by image", "sortable", head, rows)
    is_open = " open" if metric is section.metrics[0] else ""
    return f"<details{is_open}><summary>{_render_label(metric)} by image</summary>{table}</details>"


def _render_table(caption: str, kind: str, head: str, rows: Iterable[str]) -> str:
    """A table that scrolls by itself where it is wider than the screen."""
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape_text(caption)}"><table class="{kind}">'
        f"<caption>{escape_text(caption)}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{''.join(row + chr(10) for row in rows)}</tbody></table></div>"
    )


def escape_text(text: str) -> str:
    """Text for any place in the page: escaped, on one line, and without what cannot be written or turns text round."""
    text = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return html.escape(text)


def _render_label(metric: Metric) -> str:
    arrow, meaning = ("↑", "higher is better") if metric.higher_is_better else ("↓", "lower is better")
    unit = f" in {metric.unit}" if metric.unit else ""
    return f'{escape_text(metric.label + unit)}&nbsp;<span class="direction" title="{meaning}">{arrow}</span>'


def get_score(scores: MethodScores, method: str, metric: Metric) -> float | None:
    """A figure; None where there is none or it is no number."""
    value = scores.get(method, {}).get(metric.name)
    return None if value is None or math.isnan(value) else value


def _difference_from_first(section: ReportSection, scores: MethodScores, method: str, metric: Metric) -> float | None:
    """What a method has more than the first one; None where that is no number."""
    value, reference = get_score(scores, method, metric), get_score(scores, section.methods[0], metric)
    if value is None or reference is None or math.isnan(value - reference):
        return None
    return value - reference


def format_score(value: float | None, metric: Metric, sign: str = "") -> str:
    """A figure as it is shown; with the sign "+" a difference."""
    if value is None:
        return "–"
    return f"{value:{sign}z.{metric.digits}f}".replace("inf", "∞").replace("-", "−")


def _render_difference(section: ReportSection, scores: MethodScores, method: str, metric: Metric) -> str:
    delta = _difference_from_first(section, scores, method, metric)
    if delta is None:
        return ""
    num_shown = round(delta, metric.digits)
    kind = "same" if num_shown == 0 else "better" if (num_shown > 0) == metric.higher_is_better else "worse"
    return f'<span class="{kind}">{format_score(delta, metric, "+")}</span>'


def _best_score(section: ReportSection, scores: MethodScores, metric: Metric) -> str:
    """The best figure as it is shown, so that what looks equal is marked alike; nothing where there is no contest."""
    values = [v for method in section.methods if (v := get_score(scores, method, metric)) is not None]
    if len(values) < 2:
        return ""
    return format_score(max(values) if metric.higher_is_better else min(values), metric)


def _mark_best(text: str, is_best: bool) -> str:
    return f'<strong title="best">{text}</strong>' if is_best else text


def _sort_attribute(value: float | None) -> str:
    return "" if value is None else f' data-value="{str(value).replace("inf", "Infinity")}"'
