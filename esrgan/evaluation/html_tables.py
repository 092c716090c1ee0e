"""Render scores as HTML tables that mark the best score and the differences from the first method."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from esrgan.evaluation.markdown import format_difference, format_mean
from esrgan.evaluation.results import DatasetEvaluation
from esrgan.metrics import Metric
from esrgan.text import printable


@dataclass(frozen=True)
class _Cell:
    """A score of a method, its difference from the first method, and a note; None stands for a missing number."""

    score: float | None
    difference: float | None
    note: str = ""


def render_methods_table(dataset: DatasetEvaluation, caption: str, image: str | None = None) -> str:
    """Render a table of the means, or of the scores of an image: a row for each method, a column for each metric."""
    head = "".join(f'<th scope="col">{_render_label(metric)}</th>' for metric in dataset.metrics)
    rows = {method: f'<th scope="row">{escape_text(method)}</th>' for method in dataset.methods}
    for metric in dataset.metrics:
        cells = _mean_cells(dataset, metric) if image is None else _image_cells(dataset, image, metric)
        best = _best_score(cells, metric)
        for method, cell in cells.items():
            text = _mark_best(format_score(cell.score, metric), best) + (f" {cell.note}" if cell.note else "")
            change = _render_difference(cell.difference, metric) if method != dataset.methods[0] else ""
            rows[method] += f"<td>{text}<small>{change}</small></td>"
    return _render_table(caption, "", f'<th scope="col">method</th>{head}', rows.values())


def render_differences_table(dataset: DatasetEvaluation) -> str:
    """Render the mean differences with their intervals: a row for each pair of methods; significant ones are bold."""
    rows = []
    for (model, baseline), by_name in dataset.differences.items():
        cells = [f'<th scope="row">{escape_text(f"{model} − {baseline}")}</th>']
        for metric in dataset.metrics:
            difference = by_name.get(metric.name)
            mean, interval = format_difference(difference, metric) if difference else ("–", "")
            mean = f"<b>{mean}</b>" if difference and difference.is_significant else mean
            cells.append(f"<td>{mean} {interval}</td>".replace("-", "−"))
        rows.append("".join(cells))
    head = "".join(f'<th scope="col">{_render_label(metric)}</th>' for metric in dataset.metrics)
    caption = "Mean differences with 95 % confidence intervals; bold: better or worse"
    table = _render_table(caption, "", f'<th scope="col">difference</th>{head}', rows)
    return f"<details><summary>{caption}</summary>{table}</details>"


def render_images_table(dataset: DatasetEvaluation, metric: Metric, links: Mapping[str, str]) -> str:
    """Render a sortable table of one metric: a row per image with each method's score and difference.

    Args:
        dataset: The results.
        metric: The metric.
        links: The URL that the name of an image links to, if any.
    """
    first, *others = dataset.methods
    names = ["image", first, *(name for method in others for name in (method, f"Δ {method}"))]
    head = "".join(f'<th scope="col"><button type="button">{escape_text(name)}</button></th>' for name in names)
    rows = []
    for image in dataset.results:
        by_method = _image_cells(dataset, image, metric)
        best = _best_score(by_method, metric)
        link = f'<a href="{links[image]}">{escape_text(image)}</a>' if links.get(image) else escape_text(image)
        cells = [f'<th scope="row">{link}</th>']
        for method, cell in by_method.items():
            cells.append(f"<td{_sort_attribute(cell.score)}>{_mark_best(format_score(cell.score, metric), best)}</td>")
            if method != first:
                delta = _sort_attribute(cell.difference)
                cells.append(f"<td{delta}>{_render_difference(cell.difference, metric) or '–'}</td>")
        rows.append("".join(cells))
    table = _render_table(f"{metric.label} by image", "sortable", head, rows)
    is_open = " open" if metric is dataset.metrics[0] else ""
    return f"<details{is_open}><summary>{_render_label(metric)} by image</summary>{table}</details>"


def escape_text(text: str) -> str:
    """Escape text for any place in the page."""
    return html.escape(printable(text))


def format_score(score: float | None, metric: Metric, sign: str = "") -> str:
    """Format a score as ``Metric.format`` does, with typographic signs."""
    return metric.format(score, sign).replace("inf", "∞").replace("-", "−")


def _mean_cells(dataset: DatasetEvaluation, metric: Metric) -> dict[str, _Cell]:
    """Return the means; a difference is the mean over the same images."""
    differences, first = dataset.differences, dataset.methods[0]
    cells = {}
    for method in dataset.methods:
        difference = differences.get((method, first), {}).get(metric.name)
        note = format_mean(dataset, method, metric)[1]
        cells[method] = _Cell(dataset.mean(method, metric)[0], difference.mean if difference else None, note)
    return cells


def _image_cells(dataset: DatasetEvaluation, image: str, metric: Metric) -> dict[str, _Cell]:
    scores = {method: dataset.results[image][method].scores.get(metric.name) for method in dataset.methods}
    return {method: _Cell(score, dataset.gain(image, method, metric)) for method, score in scores.items()}


def _render_table(caption: str, kind: str, head: str, rows: Iterable[str]) -> str:
    """Render a table that scrolls on its own where it is wider than the screen."""
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape_text(caption)}"><table class="{kind}">'
        f"<caption>{escape_text(caption)}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{''.join(f'<tr>{row}</tr>{chr(10)}' for row in rows)}</tbody></table></div>"
    )


def _render_label(metric: Metric) -> str:
    arrow, meaning = ("↑", "higher is better") if metric.higher_is_better else ("↓", "lower is better")
    unit = f" in {metric.unit}" if metric.unit else ""
    return f'{escape_text(metric.label + unit)}&nbsp;<span class="direction" title="{meaning}">{arrow}</span>'


def _render_difference(difference: float | None, metric: Metric) -> str:
    if difference is None:
        return ""
    shown = round(difference, metric.digits)
    kind = "same" if shown == 0 else "better" if (shown > 0) == metric.higher_is_better else "worse"
    return f'<span class="{kind}">{format_score(difference, metric, "+")}</span>'


def _best_score(cells: Mapping[str, _Cell], metric: Metric) -> str:
    """Return the best score as displayed, so that all equal-looking scores are marked.

    Nothing is best among fewer than two scores, or among means beside which different numbers of images are perfect.
    """
    scores = [cell.score for cell in cells.values() if cell.score is not None]
    if len(scores) < 2 or len({cell.note for cell in cells.values()}) > 1:
        return ""
    return format_score(max(scores) if metric.higher_is_better else min(scores), metric)


def _mark_best(text: str, best: str) -> str:
    return f'<strong title="best">{text}</strong>' if text == best else text


def _sort_attribute(value: float | None) -> str:
    return "" if value is None else f' data-value="{str(value).replace("inf", "Infinity")}"'
