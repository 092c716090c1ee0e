"""Figures of methods as tables: marked where they are the best, compared with the first method, sortable."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from esrgan.evaluation.crops import Pictures
from esrgan.metrics import Metric

Figures = Mapping[str, Mapping[str, float | None]]  # method → metric → value; None or absent: not measured


@dataclass(frozen=True)
class Section:
    """What was found on one dataset.

    Attributes:
        dataset: Its name.
        methods: Bicubic first: figures are compared with those of the first.
        metrics: The columns; the first one decides which images are the best and the worst.
        rows: Figures by image.
        means: Figures of the whole dataset.
        differences: Lines on what the models' differences are worth, such as confidence intervals; may be empty.
        load: Gives all versions of an image, with an output of each method; called only for those that are shown, one
            after the other.
    """

    dataset: str
    methods: Sequence[str]
    metrics: Sequence[Metric]
    rows: Mapping[str, Figures]
    means: Figures
    differences: Sequence[str]
    load: Callable[[str], Pictures]


def best_and_worst(section: Section, count: int) -> tuple[list[str], list[str]]:
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
        delta = _delta(section, section.rows[name], section.methods[-1], metric)
        return math.nan if delta is None else delta if metric.higher_is_better else -delta

    gains = {name: gain(name) for name in section.rows}
    ranked = sorted((name for name in gains if not math.isnan(gains[name])), key=gains.__getitem__, reverse=True)
    return ranked[:count], ranked[count:][::-1][:count]


def methods_table(section: Section, figures: Figures, caption: str) -> str:
    """A row for each method, a column for each metric."""
    head = "".join(f'<th scope="col">{_label(metric)}</th>' for metric in section.metrics)
    best = {metric.name: _best(section, figures, metric) for metric in section.metrics}
    rows = []
    for method in section.methods:
        cells = []
        for metric in section.metrics:
            text = number(measured(figures, method, metric), metric)
            change = "" if method == section.methods[0] else _change(section, figures, method, metric)
            cells.append(f"<td>{_marked(text, text == best[metric.name])}<small>{change}</small></td>")
        rows.append(f'<tr><th scope="row">{escaped(method)}</th>{"".join(cells)}</tr>')
    corner = '<th scope="col">method</th>'
    return _table(caption, "", f"{corner}{head}", rows)


def images_table(section: Section, metric: Metric, links: Mapping[str, str]) -> str:
    """A row for each image, columns for each method and its difference from the first."""
    first, *others = section.methods
    names = ["image", first, *(name for method in others for name in (method, f"Δ {method}"))]
    head = "".join(f'<th scope="col"><button type="button">{escaped(name)}</button></th>' for name in names)
    rows = []
    for image, figures in section.rows.items():
        best = _best(section, figures, metric)
        link = f'<a href="#{links[image]}">{escaped(image)}</a>' if image in links else escaped(image)
        cells = [f'<th scope="row">{link}</th>']
        for method in section.methods:
            value = measured(figures, method, metric)
            text = number(value, metric)
            cells.append(f"<td{_sort_key(value)}>{_marked(text, text == best)}</td>")
            if method != first:
                delta = _sort_key(_delta(section, figures, method, metric))
                cells.append(f"<td{delta}>{_change(section, figures, method, metric) or '–'}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    table = _table(f"{metric.label} by image", "sortable", head, rows)
    is_open = " open" if metric is section.metrics[0] else ""
    return f"<details{is_open}><summary>{_label(metric)} by image</summary>{table}</details>"


def _table(caption: str, kind: str, head: str, rows: Iterable[str]) -> str:
    """A table that scrolls by itself where it is wider than the screen."""
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escaped(caption)}"><table class="{kind}">'
        f"<caption>{escaped(caption)}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{''.join(row + chr(10) for row in rows)}</tbody></table></div>"
    )


def escaped(text: str) -> str:
    """Text for any place in the page: escaped, on one line, and without what cannot be written or turns text round."""
    text = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return html.escape(text)


def _label(metric: Metric) -> str:
    arrow, meaning = ("↑", "higher is better") if metric.higher_is_better else ("↓", "lower is better")
    unit = f" in {metric.unit}" if metric.unit else ""
    return f'{escaped(metric.label + unit)}&nbsp;<span class="direction" title="{meaning}">{arrow}</span>'


def measured(figures: Figures, method: str, metric: Metric) -> float | None:
    """A figure; None where there is none or it is no number."""
    value = figures.get(method, {}).get(metric.name)
    return None if value is None or math.isnan(value) else value


def _delta(section: Section, figures: Figures, method: str, metric: Metric) -> float | None:
    """What a method has more than the first one; None where that is no number."""
    value, reference = measured(figures, method, metric), measured(figures, section.methods[0], metric)
    if value is None or reference is None or math.isnan(value - reference):
        return None
    return value - reference


def number(value: float | None, metric: Metric, sign: str = "") -> str:
    """A figure as it is shown; with the sign "+" a difference."""
    if value is None:
        return "–"
    return f"{value:{sign}z.{metric.digits}f}".replace("inf", "∞").replace("-", "−")


def _change(section: Section, figures: Figures, method: str, metric: Metric) -> str:
    delta = _delta(section, figures, method, metric)
    if delta is None:
        return ""
    shown = round(delta, metric.digits)
    kind = "same" if shown == 0 else "better" if (shown > 0) == metric.higher_is_better else "worse"
    return f'<span class="{kind}">{number(delta, metric, "+")}</span>'


def _best(section: Section, figures: Figures, metric: Metric) -> str:
    """The best figure as it is shown, so that what looks equal is marked alike; nothing where there is no contest."""
    values = [v for method in section.methods if (v := measured(figures, method, metric)) is not None]
    if len(values) < 2:
        return ""
    return number(max(values) if metric.higher_is_better else min(values), metric)


def _marked(text: str, is_best: bool) -> str:
    return f'<strong title="best">{text}</strong>' if is_best else text


def _sort_key(value: float | None) -> str:
    return "" if value is None else f' data-value="{str(value).replace("inf", "Infinity")}"'
