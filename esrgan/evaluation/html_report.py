"""Render an evaluation as a single HTML file that loads nothing from the network."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from esrgan.evaluation.crops import WINDOW_PX, ImageCrop, to_pil
from esrgan.evaluation.html_tables import escape_text, format_score, render_images_table, render_methods_table
from esrgan.evaluation.markdown import (
    INTERVALS_CAPTION,
    describe_differences,
    describe_failures,
    describe_means,
    describe_speed,
)
from esrgan.evaluation.results import DatasetEvaluation, Evaluation
from esrgan.text import format_count

# From no error to the largest error. Each colour is lighter than the one before, so the scale also works in grey.
_ERROR_COLOURS = ((0, 0, 0), (62, 18, 112), (172, 42, 100), (246, 124, 44), (255, 242, 168))
# The scale of an error map ends at this percentile, because a single outlier would darken all other pixels.
_ERROR_PERCENTILE = 99.5

_LEGEND = {
    "Crops": f"The window of up to {WINDOW_PX}×{WINDOW_PX} px where the models differ most, or where a single model "
    "differs most from the first method. A thumbnail shows its position. Select a crop to flip between the methods: "
    "tap it, or use ← and →. Alpha is ignored, as in the metrics.",
    "Error maps": "Absolute difference from HR, averaged over the channels, in 8-bit levels. "
    "All methods of an image share one scale.",
}


def render_html(evaluation: Evaluation, num_shown: int = 2) -> str:
    """Return the HTML report. All text is escaped, because file names can contain anything.

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
    stops = ", ".join(f"rgb{colour}" for colour in _ERROR_COLOURS)
    title = escape_text(", ".join(evaluation.models))
    links = " · ".join(f'<a href="#d{i}">{escape_text(s.dataset)}</a>' for i, s in enumerate(evaluation.datasets))
    terms = "".join(
        f"<dt>{escape_text(term)}</dt><dd>{escape_text(fact)}</dd>"
        for term, fact in [*evaluation.facts.items(), *_LEGEND.items()]
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
:root {{ --error-scale: linear-gradient(to right, {stops}); }}
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<dl>{terms}</dl>
{f"<nav>{links}</nav>" if len(evaluation.datasets) > 1 else ""}
</header>
<label class="zoom">Zoom <input type="range" min="1" max="4" step="1" value="2"> <output>2×</output></label>
<main>
{"".join(_render_section(each, f"d{i}", num_shown) for i, each in enumerate(evaluation.datasets))}
</main>
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


def _render_section(dataset: DatasetEvaluation, key: str, num_shown: int) -> str:
    parts = [f'<section id="{key}"><h2>{escape_text(dataset.dataset)}</h2>']
    names = list(dataset.results)
    if names:
        best, worst = ([n for n in group if n in dataset.crops] for group in dataset.best_and_worst(num_shown))
        links = {name: f"{key}-{names.index(name)}" for name in [*best, *worst]}
        first, last, metric = dataset.methods[0], dataset.methods[-1], dataset.metrics[0]
        lines = [*describe_means(dataset), INTERVALS_CAPTION, *describe_differences(dataset), describe_speed(dataset)]
        parts += [
            render_methods_table(dataset, f"Means over {format_count(len(names), 'image')}"),
            f'<ul class="differences">{"".join(f"<li>{escape_text(line)}</li>" for line in lines)}</ul>',
            *(render_images_table(dataset, each, links) for each in dataset.metrics),
        ]
        for heading, group in (("Largest", best), ("Smallest", worst)):
            if group:
                gain = f"gain of {escape_text(last)} over {escape_text(first)} in {escape_text(metric.label)}"
                parts += [f"<h3>{heading} {gain}</h3>", *(_render_article(dataset, n, links[n]) for n in group)]
    parts += [f"<p>{escape_text(line)}</p>" for line in (dataset.left_out, dataset.misalignment) if line]
    if dataset.errors:
        errors = "".join(f"<li>{escape_text(str(error))}</li>" for error in dataset.errors)
        parts.append(f"<p>Errors ({describe_failures(dataset)}):</p><ul>{errors}</ul>")
    return "\n".join([*parts, "</section>"])


def _render_article(dataset: DatasetEvaluation, name: str, key: str) -> str:
    """Render an image: the window's position, the scores, the crops and their error maps."""
    crop, metric = dataset.crops[name], dataset.metrics[0]
    versions, window = crop.versions, crop.window
    errors = versions.error_maps()
    limit = max([1, *(math.ceil(np.percentile(error, _ERROR_PERCENTILE)) for error in errors.values())])
    low = _render_tile(to_pil(versions.low), "crop", "LR", "nearest neighbour", name)
    columns = [low + (_render_error_scale(limit) if errors else "")]
    for method in dataset.methods:
        score = dataset.results[name][method].scores.get(metric.name)
        note = "" if score is None else f"{format_score(score, metric)} {metric.unit}"
        column = _render_tile(to_pil(versions.outputs[method]), "crop", method, note, name)
        if errors:
            note = f"mean error {errors[method].mean():.1f}"
            column += _render_tile(_colour_errors(errors[method], limit), "error", method, note, f"{name}, error map")
        columns.append(column)
    if versions.high is not None:
        columns.append(_render_tile(to_pil(versions.high), "crop", "HR", "ground truth", name))
    return (
        f'<article id="{key}" style="--width: {window.width}; --height: {window.height}"><h4>{escape_text(name)}</h4>'
        f'<div class="overview">{_render_thumbnail(crop, name)}'
        f"{render_methods_table(dataset, f'Scores of {name}', name)}</div>\n"
        f'<div class="columns">{"".join(f"<div>{column}</div>" for column in columns)}</div></article>'
    )


def _render_error_scale(limit: int) -> str:
    return (
        '<div class="scale"><p>Error, 8-bit levels</p><div class="bar"></div>'
        f"<p><span>0</span><span>{limit / 2:g}</span><span>≥ {limit}</span></p></div>"
    )


def _colour_errors(error: NDArray[np.float64], limit: float) -> Image.Image:
    """Return an (H, W) error as a colour image; errors above the limit get the colour of the limit."""
    stops = np.linspace(0, 255, len(_ERROR_COLOURS))
    palette = np.stack([np.interp(np.arange(256), stops, channel) for channel in np.transpose(_ERROR_COLOURS)], axis=1)
    image = Image.fromarray(np.rint(np.minimum(error / limit, 1) * 255).astype(np.uint8))
    image.putpalette(np.rint(palette).astype(np.uint8).tobytes())
    return image


def _render_tile(image: Image.Image, kind: str, method: str, note: str, name: str) -> str:
    return (
        f'<figure class="{kind}"><button type="button"><img src="{_encode_data_uri(image, "PNG", optimize=True)}" '
        f'alt="{escape_text(f"{method}: {name}")}"></button>'
        f"<figcaption><b>{escape_text(method)}</b> {escape_text(note)}</figcaption></figure>"
    )


def _render_thumbnail(crop: ImageCrop, name: str) -> str:
    image, window = crop.thumbnail, crop.window
    position = {
        "left": window.left / crop.width,
        "top": window.top / crop.height,
        "width": window.width / crop.width,
        "height": window.height / crop.height,
    }
    frame_style = "; ".join(f"{side}: {share:.2%}" for side, share in position.items())
    text = f"all of {name}, {crop.width}×{crop.height} px; the frame marks the crop"
    return (
        f'<div class="whole"><img src="{_encode_data_uri(image, "JPEG", quality=85)}" width="{image.width}" '
        f'height="{image.height}" alt="{escape_text(text)}"><span style="{frame_style}"></span></div>'
    )


def _encode_data_uri(image: Image.Image, file_format: str, **options: object) -> str:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return f"data:image/{file_format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _hash_base64(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
