"""Render an evaluation as a single HTML file that loads nothing from the network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from importlib import resources

from esrgan.evaluation.comparison import describe_differences
from esrgan.evaluation.crops import WINDOW_PX
from esrgan.evaluation.html_images import ERROR_COLOURS, path_to_sheet, render_article
from esrgan.evaluation.html_tables import (
    escape_text,
    render_differences_table,
    render_images_table,
    render_methods_table,
)
from esrgan.evaluation.markdown import describe_failures, describe_means, describe_speed
from esrgan.evaluation.results import DatasetEvaluation, Evaluation
from esrgan.evaluation.statistics import min_images
from esrgan.outputs import HTML_MARK
from esrgan.text import format_count

_EXPLANATIONS = {
    "Differences": "Intervals are 95 % bootstrap intervals of the mean over images. A model is called better or worse "
    "if its interval excludes zero and a sign-flip test finds p < 0.05, which takes at least "
    f"{format_count(min_images(), 'image')}. Each comparison is tested on its own: of 20 comparisons of equal models, "
    "about one is called different by chance.",
    "Crops": f"The window of up to {WINDOW_PX}×{WINDOW_PX} px where the models differ most, or where a single model "
    "differs most from the first method. A thumbnail shows its position. Select a crop to flip between the methods: "
    "tap it, or use ← and →. Alpha is ignored, as in the metrics.",
    "Error maps": "Absolute difference from HR, averaged over the channels, in 8-bit levels. "
    "All methods of an image share one scale.",
    "Links": "They lead to files in the folder of this report, and to the files that were measured. In the tables, the "
    "name of an image leads to its crops in this report, else to its contact sheet.",
}


def render_html(evaluation: Evaluation, num_shown: int = 2) -> str:
    """Return the HTML report. All text is escaped, because file names can contain anything.

    Links to images are relative to ``EvaluationOptions.out_dir``, where the report should be saved.

    Args:
        evaluation: The results. Images are shown as far as ``EvaluationOptions.num_shown`` had their crops kept.
        num_shown: Number of best and number of worst images to show for each dataset.

    Returns:
        HTML, to be saved as UTF-8. Each photograph shown takes about 55 kB per method, plus 55 kB.
    """
    files = resources.files(__package__)
    script, style = ((files / f"report.{suffix}").read_text("utf-8") for suffix in ("js", "css"))
    # The browser must load nothing and run only this script, whatever else the page may contain.
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_hash_base64(script)}'"
    stops = ", ".join(f"rgb{colour}" for colour in ERROR_COLOURS)
    title = escape_text(", ".join(evaluation.models))
    targets = [(f"d{i}", dataset.dataset) for i, dataset in enumerate(evaluation.datasets)]
    links = (f'<a href="#{key}">{escape_text(name)}</a>' for key, name in [*targets, ("conventions", "conventions")])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{HTML_MARK}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>Evaluation of {title}</title>
<style>
:root {{ --error-scale: linear-gradient(to right, {stops}); }}
{style}</style>
</head>
<body>
<header>
<h1>Evaluation of {title}</h1>
{_render_terms(evaluation.models.items())}
<nav>{" · ".join(links)}</nav>
</header>
<label class="zoom">Zoom <input type="range" min="1" max="4" step="1" value="2"> <output>2×</output></label>
<main>
{"".join(_render_section(each, f"d{i}", num_shown) for i, each in enumerate(evaluation.datasets))}
<section id="conventions"><h2>Conventions</h2>
{_render_list(evaluation.conventions.split("; "))}
{_render_terms(_EXPLANATIONS.items())}
</section>
</main>
<footer>{_render_terms(evaluation.provenance.items())}</footer>
<template>
<div class="comparison" role="group">
<div class="stack"><img alt=""><img alt=""><input type="range" min="0" max="100" value="50"></div>
<div class="choose"><label>Left <select></select></label> <label>Right <select></select></label></div>
</div>
</template>
<dialog aria-labelledby="flip-name">
<form method="dialog"><h2 id="flip-name"></h2><button>Close</button></form>
<button type="button" class="view"><img alt=""></button>
<p aria-live="polite"></p>
<div class="choices"></div>
</dialog>
<script>{script}</script>
</body>
</html>
"""


def _render_terms(facts: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape_text(term)}</dt><dd>{escape_text(fact)}</dd>' for term, fact in facts)}</dl>"


def _render_section(dataset: DatasetEvaluation, key: str, num_shown: int) -> str:
    parts = [f'<section id="{key}"><h2>{escape_text(dataset.dataset)}</h2>']
    names = list(dataset.results)
    if names:
        best, worst = ([n for n in group if n in dataset.crops] for group in dataset.best_and_worst(num_shown))
        articles = {name: f"{key}-{names.index(name)}" for name in [*best, *worst]}
        links = {name: path_to_sheet(dataset, name) for name in names if dataset.out_dir}
        links |= {name: f"#{article}" for name, article in articles.items()}
        first, last, metric = dataset.methods[0], dataset.methods[-1], dataset.metrics[0]
        parts += [
            render_methods_table(dataset, f"Means over {format_count(len(names), 'image')}"),
            *_render_lines(describe_means(dataset)),
            _render_list(describe_differences(dataset)),
            render_differences_table(dataset),
            *(render_images_table(dataset, each, links) for each in dataset.metrics),
            *_render_lines([describe_speed(dataset)]),
        ]
        for heading, group in (("Largest", best), ("Smallest", worst)):
            if group:
                gain = f"gain of {escape_text(last)} over {escape_text(first)} in {escape_text(metric.label)}"
                parts += [f"<h3>{heading} {gain}</h3>", *(render_article(dataset, n, articles[n]) for n in group)]
    parts += _render_lines(line for line in (dataset.left_out, dataset.misalignment) if line)
    if dataset.errors:
        parts += [f"<p>Errors ({describe_failures(dataset)}):</p>", _render_list(map(str, dataset.errors))]
    return "\n".join([*parts, "</section>"])


def _render_lines(lines: Iterable[str]) -> list[str]:
    return [f"<p>{escape_text(line)}</p>" for line in lines]


def _render_list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape_text(line)}</li>' for line in lines)}</ul>"


def _hash_base64(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
