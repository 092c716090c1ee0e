"""Render an image of the HTML report: its scores, its crops with links to the whole images, and its error maps."""

from __future__ import annotations

import base64
import io
import math
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from esrgan.evaluation.crops import ImageCrop, to_pil
from esrgan.evaluation.html_tables import escape_text, format_score, render_methods_table
from esrgan.evaluation.measuring import output_path
from esrgan.evaluation.results import DatasetEvaluation

# From no error to the largest error. Each colour is lighter than the one before, so the scale also works in grey.
ERROR_COLOURS = ((0, 0, 0), (62, 18, 112), (172, 42, 100), (246, 124, 44), (255, 242, 168))
# The scale of an error map ends at this percentile, because a single outlier would darken all other pixels.
_ERROR_PERCENTILE = 99.5


def render_article(dataset: DatasetEvaluation, name: str, key: str) -> str:
    """Render an image: the window's position, the scores, a row of crops that ends with HR, and one of error maps."""
    crop, metric = dataset.crops[name], dataset.metrics[0]
    versions, window = crop.versions, crop.window
    tiles = [_render_crop(dataset, name, "LR", "nearest neighbour", to_pil(versions.low))]
    for method in dataset.methods:
        score = dataset.results[name][method].scores.get(metric.name)
        note = "" if score is None else f"{format_score(score, metric)} {metric.unit}"
        tiles.append(_render_crop(dataset, name, method, note, to_pil(versions.outputs[method])))
    if versions.high is not None:
        tiles.append(_render_crop(dataset, name, "HR", "ground truth", to_pil(versions.high)))
    rows = [tiles]
    if errors := versions.error_maps():
        limit = max([1, *(math.ceil(np.percentile(error, _ERROR_PERCENTILE)) for error in errors.values())])
        maps = [
            _render_tile(_colour_errors(error, limit), "error", method, f"mean of this crop {error.mean():.1f}", name)
            for method, error in errors.items()
        ]
        rows.append([_render_error_scale(limit), *maps])
    columns = "".join(f'<div class="columns">{"".join(row)}</div>' for row in rows)
    sheet = _render_link(path_to_sheet(dataset, name), "contact sheet", f"contact sheet of {name}")
    return (
        f'<article id="{key}" style="--width: {window.width}; --height: {window.height}"><h4>{escape_text(name)}</h4>'
        f'<div class="overview"><div>{_render_thumbnail(crop, name)}{sheet}'
        f"{render_methods_table(dataset, f'Scores of {name}', name)}</div></div>\n"
        f"{columns}</article>"
    )


def path_to_sheet(dataset: DatasetEvaluation, name: str) -> str:
    """Return the relative URL of an image's contact sheet; empty if no files were written."""
    return _relative_url(dataset, output_path(dataset.out_dir, name, "sheet")) if dataset.out_dir else ""


def _relative_url(dataset: DatasetEvaluation, path: Path) -> str:
    """Return the URL of a file relative to the report, which is in the parent folder of ``out_dir``."""
    assert dataset.out_dir is not None  # noqa: S101  for the type checker
    try:
        relative = os.path.relpath(path, dataset.out_dir.parent)
    except ValueError:  # it is on another drive of Windows
        return path.absolute().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def _render_link(url: str, text: str, label: str) -> str:
    return f'<a href="{url}" aria-label="{escape_text(label)}">{text}</a>' if url else ""


def _render_crop(dataset: DatasetEvaluation, name: str, kind: str, note: str, image: Image.Image) -> str:
    """Render a crop of an input ("LR" or "HR") or of a method's output, with a link to the whole image."""
    url = ""
    if dataset.out_dir:
        is_output = kind in dataset.methods
        path = output_path(dataset.out_dir, name, kind) if is_output else dataset.inputs.get(name, {}).get(kind)
        url = _relative_url(dataset, path) if path else ""
    link = _render_link(url, "full image", f"full image, {kind}: {name}")
    return _render_tile(image, "crop", kind, note, name, link)


def _render_error_scale(limit: int) -> str:
    return (
        '<div class="scale"><p>Error, 8-bit levels</p><div class="bar"></div>'
        f"<p><span>0</span><span>{limit / 2:g}</span><span>≥ {limit}</span></p></div>"
    )


def _colour_errors(error: NDArray[np.float64], limit: float) -> Image.Image:
    """Return an (H, W) error as a colour image; errors above the limit get the colour of the limit."""
    stops = np.linspace(0, 255, len(ERROR_COLOURS))
    palette = np.stack([np.interp(np.arange(256), stops, channel) for channel in np.transpose(ERROR_COLOURS)], axis=1)
    image = Image.fromarray(np.rint(np.minimum(error / limit, 1) * 255).astype(np.uint8))
    image.putpalette(np.rint(palette).astype(np.uint8).tobytes())
    return image


def _render_tile(image: Image.Image, kind: str, method: str, note: str, name: str, link: str = "") -> str:
    text = f"{method}: {name}" + (", error map" if kind == "error" else "")
    return (
        f'<figure class="{kind}"><button type="button"><img src="{_encode_data_uri(image, "PNG", optimize=True)}" '
        f'alt="{escape_text(text)}"></button>'
        f"<figcaption><b>{escape_text(method)}</b> <span>{escape_text(note)}</span> {link}</figcaption></figure>"
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
