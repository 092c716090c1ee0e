"""Render an evaluation as a single HTML file that loads nothing from the network."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from esrgan.evaluation.crops import WINDOW_PX, Window
from esrgan.evaluation.html_tables import (
    ReportSection,
    escape_text,
    format_score,
    get_score,
    render_images_table,
    render_methods_table,
    select_best_and_worst,
)
from esrgan.text import format_count

_THUMBNAIL_PX = 192
# From no error to the largest error. Each colour is lighter than the one before, so the scale also works in grey.
_ERROR_COLOURS = ((0, 0, 0), (62, 18, 112), (172, 42, 100), (246, 124, 44), (255, 242, 168))
# The scale of an error map ends at this percentile, because a single outlier would darken all other pixels.
_ERROR_PERCENTILE = 99.5

_LEGEND = (
    (
        "Crops",
        f"The window of up to {WINDOW_PX}×{WINDOW_PX} px where the models differ most, or where a single model differs "
        "most from the first method. A thumbnail shows its position. Select a crop to flip between the methods: "
        "tap it, or use ← and →. Alpha is ignored, as in the metrics.",
    ),
    (
        "Error maps",
        "Absolute difference from HR, averaged over the channels, in 8-bit levels. "
        "All methods of an image share one scale.",
    ),
)


def render_html_report(title: str, facts: Mapping[str, str], sections: Sequence[ReportSection], num_shown: int) -> str:
    """Return the HTML report. All text is escaped, because file names can contain anything.

    Args:
        title: Heading of the page.
        facts: Facts about the evaluation by term, such as the conventions and a description of each model.
        sections: One section for each dataset.
        num_shown: Number of best and number of worst images to show for each dataset, at least 1.

    Returns:
        HTML, to be saved as UTF-8. Each photograph shown takes about 55 kB per method, plus 55 kB.

    Raises:
        Exception: Whatever ``load_versions`` raises.
    """
    files = resources.files(__package__)
    script, style = ((files / f"report.{suffix}").read_text("utf-8") for suffix in ("js", "css"))
    # The browser must load nothing and run only this script, whatever else the page may contain.
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_hash_base64(script)}'"
    stops = ", ".join(f"rgb{colour}" for colour in _ERROR_COLOURS)
    links = " · ".join(f'<a href="#d{i}">{escape_text(s.dataset)}</a>' for i, s in enumerate(sections))
    terms = "".join(
        f"<dt>{escape_text(term)}</dt><dd>{escape_text(fact)}</dd>" for term, fact in [*facts.items(), *_LEGEND]
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape_text(title)}</title>
<style>
:root {{ --error-scale: linear-gradient(to right, {stops}); }}
{style}</style>
</head>
<body>
<header>
<h1>{escape_text(title)}</h1>
<dl>{terms}</dl>
{f"<nav>{links}</nav>" if len(sections) > 1 else ""}
</header>
<label class="zoom">Zoom <input type="range" min="1" max="4" step="1" value="2"> <output>2×</output></label>
<main>
{"".join(_render_section(section, f"d{i}", num_shown) for i, section in enumerate(sections))}
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


def _render_section(section: ReportSection, key: str, num_shown: int) -> str:
    names = list(section.scores)
    chosen = select_best_and_worst(section, num_shown)
    links = {name: f"{key}-{names.index(name)}" for group in chosen for name in group}
    differences = "".join(f"<li>{escape_text(line)}</li>" for line in section.difference_lines)
    first, last, metric = section.methods[0], section.methods[-1], section.metrics[0]
    parts = [
        f'<section id="{key}"><h2>{escape_text(section.dataset)}</h2>',
        render_methods_table(section, section.mean_scores, f"Means over {format_count(len(names), 'image')}"),
        f'<ul class="differences">{differences}</ul>' if differences else "",
        *(render_images_table(section, metric, links) for metric in section.metrics),
    ]
    for heading, group in zip(("Largest", "Smallest"), chosen, strict=True):
        if group:
            parts.append(
                f"<h3>{heading} gain of {escape_text(last)} over {escape_text(first)} "
                f"in {escape_text(metric.label)}</h3>"
            )
            parts.extend(_render_article(section, name, links[name]) for name in group)
    return "\n".join([*parts, "</section>"])


def _render_article(section: ReportSection, name: str, key: str) -> str:
    """Render an image: the window's position, the scores, the crops and their error maps."""
    versions = section.load_versions(name)
    window = versions.find_window()
    full_image = versions.high if versions.high is not None else versions.outputs[section.methods[-1]]
    crop = versions.crop(window)
    scores, metric = section.scores[name], section.metrics[0]

    errors = crop.error_maps()
    limit = max([1, *(math.ceil(np.percentile(error, _ERROR_PERCENTILE)) for error in errors.values())])
    columns = [
        _render_tile(crop.low, "crop", "LR", "nearest neighbour", name) + (_render_error_scale(limit) if errors else "")
    ]
    for method in section.methods:
        value = get_score(scores, method, metric)
        note = f"{format_score(value, metric)} {metric.unit}" if value is not None else ""
        column = _render_tile(crop.outputs[method], "crop", method, note, name)
        if errors:
            note = f"mean error {errors[method].mean():.1f}"
            column += _render_tile(_colour_errors(errors[method], limit), "error", method, note, f"{name}, error map")
        columns.append(column)
    if crop.high is not None:
        columns.append(_render_tile(crop.high, "crop", "HR", "ground truth", name))
    return (
        f'<article id="{key}" style="--width: {window.width}; --height: {window.height}"><h4>{escape_text(name)}</h4>'
        f'<div class="overview">{_render_thumbnail(full_image, window, name)}'
        f"{render_methods_table(section, scores, f'Scores of {name}')}</div>\n"
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


def _render_tile(image: NDArray[np.uint8] | Image.Image, kind: str, method: str, note: str, name: str) -> str:
    image = image if isinstance(image, Image.Image) else _to_pil(image)
    return (
        f'<figure class="{kind}"><button type="button"><img src="{_encode_data_uri(image, "PNG", optimize=True)}" '
        f'alt="{escape_text(f"{method}: {name}")}"></button>'
        f"<figcaption><b>{escape_text(method)}</b> {escape_text(note)}</figcaption></figure>"
    )


def _render_thumbnail(full_image: NDArray[np.uint8], window: Window, name: str) -> str:
    image = _to_pil(full_image)
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    position = {
        "left": window.left / full_image.shape[1],
        "top": window.top / full_image.shape[0],
        "width": window.width / full_image.shape[1],
        "height": window.height / full_image.shape[0],
    }
    frame_style = "; ".join(f"{side}: {share:.2%}" for side, share in position.items())
    text = f"all of {name}, {full_image.shape[1]}×{full_image.shape[0]} px; the frame marks the crop"
    return (
        f'<div class="whole"><img src="{_encode_data_uri(image, "JPEG", quality=85)}" width="{image.width}" '
        f'height="{image.height}" alt="{escape_text(text)}"><span style="{frame_style}"></span></div>'
    )


def _to_pil(pixels: NDArray[np.uint8]) -> Image.Image:
    """Convert an (H, W, 1 | 3 | 4) array to a Pillow image without alpha."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels[..., :3]))


def _encode_data_uri(image: Image.Image, file_format: str, **options: object) -> str:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return f"data:image/{file_format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _hash_base64(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
