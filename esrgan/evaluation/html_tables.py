"""Render scores as HTML tables that mark the best score and the differences from the first method."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from esrgan.evaluation.crops import ImageVersions
from esrgan.metrics import Metric

MethodScores = Mapping[str, Mapping[str, float | None]]  # method → metric → score; None or absent if not measured


@dataclass(frozen=True)
class ReportSection:
    """The part of a report that covers one dataset.

    Attributes:
        dataset: Name of the dataset.
        methods: Names of the methods; the others are compared with the first, which is bicubic.
        metrics: Columns of the tables; the first metric ranks the images.
        scores: Scores by image.
        mean_scores: Means over the dataset.
        difference_lines: Lines about the differences between models, such as confidence intervals; may be empty.
        load_versions: Returns all versions of an image, with an output of each method. It is called only for images
            that are shown, one after another.
    """

    dataset: str
    methods: Sequence[str]
    metrics: Sequence[Metric]
    scores: Mapping[str, MethodScores]
    mean_scores: MethodScores
    difference_lines: Sequence[str]
    load_versions: Callable[[str], ImageVersions]


def select_best_and_worst(section: ReportSection, count: int) -> tuple[list[str], list[str]]:
    """Select the images where the last method gains most and least over the first, by the first metric.

    Args:
        section: Section of a dataset.
        count: Maximum length of each list.

    Returns:
        The best images, best first, and the worst images, worst first. No image is in both lists, and images without
        a score are in neither.
    """
    metric = section.metrics[0]

    def gain(name: str) -> float:
        delta = _difference_from_first(section, section.scores[name], section.methods[-1], metric)
        return math.nan if delta is None else delta if metric.higher_is_better else -delta

    gains = {name: gain(name) for name in section.scores}
    ranked = sorted((name for name in gains if not math.isnan(gains[name])), key=gains.__getitem__, reverse=True)
    return ranked[:count], ranked[count:][::-1][:count]


def render_methods_table(section: ReportSection, scores: MethodScores, caption: str) -> str:
    """Render a table with a row for each method and a column for each metric."""
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
    """Render a sortable table of one metric: a row per image with each method's score and difference."""
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
    """Render a table that scrolls on its own where it is wider than the screen."""
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape_text(caption)}"><table class="{kind}">'
        f"<caption>{escape_text(caption)}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{''.join(row + chr(10) for row in rows)}</tbody></table></div>"
    )


def escape_text(text: str) -> str:
    """Escape text for any place in the page.

    Whitespace becomes spaces. Unprintable characters, such as those that reverse the text direction, are replaced.
    """
    text = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return html.escape(text)


def _render_label(metric: Metric) -> str:
    arrow, meaning = ("↑", "higher is better") if metric.higher_is_better else ("↓", "lower is better")
    unit = f" in {metric.unit}" if metric.unit else ""
    return f'{escape_text(metric.label + unit)}&nbsp;<span class="direction" title="{meaning}">{arrow}</span>'


def get_score(scores: MethodScores, method: str, metric: Metric) -> float | None:
    """Return a score, or None if it is missing or NaN."""
    value = scores.get(method, {}).get(metric.name)
    return None if value is None or math.isnan(value) else value


def _difference_from_first(section: ReportSection, scores: MethodScores, method: str, metric: Metric) -> float | None:
    """Return a method's score minus that of the first method, or None if that is not a number."""
    value, reference = get_score(scores, method, metric), get_score(scores, section.methods[0], metric)
    if value is None or reference is None or math.isnan(value - reference):
        return None
    return value - reference


def format_score(value: float | None, metric: Metric, sign: str = "") -> str:
    """Format a score for display; pass the sign "+" for a difference."""
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
    """Return the best score as displayed, so that all equal-looking scores are marked; "" for fewer than two scores."""
    values = [v for method in section.methods if (v := get_score(scores, method, metric)) is not None]
    if len(values) < 2:
        return ""
    return format_score(max(values) if metric.higher_is_better else min(values), metric)


def _mark_best(text: str, is_best: bool) -> str:
    return f'<strong title="best">{text}</strong>' if is_best else text


def _sort_attribute(value: float | None) -> str:
    return "" if value is None else f' data-value="{str(value).replace("inf", "Infinity")}"'
