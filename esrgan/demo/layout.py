"""The components of the demo page, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from esrgan.demo.models import DemoModels
from esrgan.demo.parts import PART_PX

EXAMPLE_IMAGES = sorted((Path(__file__).parent / "examples").glob("*.png"))
SAME_FORMAT, MODEL_SIZE = "same", "scale"  # choices that leave the format and the size as they are
SIZES = {
    "As the model makes it": MODEL_SIZE,
    "Factor": "outscale",
    "Width in pixels": "width",
    "Height in pixels": "height",
    "Longer side in pixels": "long_side",
    "Megapixels": "megapixels",
}
ONE, ALPHAS, MODELS = "one", "alphas", "models"
COMPARISONS = {"The chosen model": ONE, "Several strengths α": ALPHAS, "All models": MODELS}
INTRODUCTION = """\
Upload an image, or choose an example. Then click on the image to try a part of it, or upscale all of it.

With several images the download is a ZIP archive. Images stay on the machine that serves this page."""
# Live regions announce their content to screen readers only if they exist before it.
_LIVE = "element.setAttribute('role', 'status')"

# Gradio's slider has no texts for its images, and cannot be scrolled to before it is shown.
SHOW_RESULT = """() => setTimeout(() => {
    const images = document.querySelectorAll("#comparison img")
    images.forEach((image, i) => { image.alt = ["Bicubic", "Result of the model"][i] })
    document.querySelector("#result")?.scrollIntoView({behavior: "smooth"})
}, 300)"""

CSS = f"""\
.figures {{ display: flex; flex-wrap: wrap; gap: 12px; }}
.figures figure {{ margin: 0; width: {PART_PX}px; max-width: 100%; }}
.figures img {{ display: block; max-width: none; }}
.figures figcaption {{ margin-top: 4px; font-size: var(--text-sm); overflow-wrap: anywhere; }}
#facts, #status, #fetched, #result-facts {{ overflow-wrap: anywhere; }}
#facts p, #status p, #fetched p, #result-facts p {{ margin: 0 0 6px; }}
p.error {{ color: #b91c1c; }}
.dark p.error {{ color: #fca5a5; }}
#preview img {{ max-height: min(60vh, 30rem); object-fit: contain; }}
/* Icons of buttons would be as small as their text. */
.example {{ flex-wrap: nowrap; white-space: nowrap; }}
.example img {{ width: auto; height: 2.5rem; }}
input[role="combobox"] {{ padding-right: 2rem; text-overflow: ellipsis; }}
:is(button, input, textarea, [tabindex]):focus-visible {{ outline: 3px solid var(--body-text-color) !important; }}
/* The outline of a button that fills its box would be cut off. */
button:focus-visible {{ outline-offset: -3px; }}
"""


@dataclass(frozen=True, eq=False)
class Components:
    """The components of the page that events read or change."""

    files: gr.File
    examples: list[gr.Button]
    facts: gr.HTML
    model: gr.Dropdown
    alpha: gr.Slider
    format: gr.Dropdown
    quality: gr.Textbox
    background: gr.Textbox
    size_kind: gr.Dropdown
    size: gr.Textbox
    upscale: gr.Button
    stop: gr.Button
    status: gr.HTML
    more: gr.Dropdown
    fetch: gr.Button
    fetched: gr.HTML
    introduction: gr.Markdown
    part: gr.Column
    preview: gr.Image
    across: gr.Slider
    down: gr.Slider
    compare: gr.Radio
    try_part: gr.Button
    figures: gr.HTML
    result: gr.Column
    comparison: gr.ImageSlider
    divider: gr.Slider
    download: gr.DownloadButton
    result_facts: gr.HTML
    detail: gr.HTML
    done: gr.State

    @property
    def settings(self) -> set[gr.components.Component]:
        """What decides how an image is upscaled."""
        return {
            self.files,
            self.model,
            self.alpha,
            self.format,
            self.quality,
            self.background,
            self.size_kind,
            self.size,
        }


def make_layout(models: DemoModels, max_megapixels: float, formats: Sequence[str]) -> Components:
    """Create the components; must be called within ``gr.Blocks``.

    Args:
        models: The models to offer.
        max_megapixels: Largest image that can be upscaled.
        formats: The output formats to offer, as suffixes without a dot.
    """
    gr.Markdown("# Upscale images")
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            inputs = _make_inputs(models, max_megapixels, formats)
        with gr.Column(scale=3, min_width=300):
            outputs = _make_part() | _make_result()
    return Components(done=gr.State(), **inputs, **outputs)


def _make_inputs(models: DemoModels, max_megapixels: float, formats: Sequence[str]) -> dict[str, Any]:
    first = next(iter(models.labels))
    made: dict[str, Any] = {}
    made["files"] = gr.File(
        label=f"Images, at most {max_megapixels:g} megapixels each", file_count="multiple", height=170
    )
    with gr.Row():
        made["examples"] = [
            gr.Button(f"Example: {path.stem}", icon=path, size="sm", min_width=120, elem_classes="example")
            for path in EXAMPLE_IMAGES
        ]
    made["facts"] = gr.HTML(elem_id="facts", js_on_load=_LIVE)
    made["model"] = gr.Dropdown(choices_of(models.labels), value=first, label="Model")
    made["alpha"] = gr.Slider(
        0,
        1,
        value=1,
        step=0.05,
        label="Strength α, from 0 (smooth and faithful) to 1 (full texture)",
        interactive=models.psnr_partner(first) is not None,
    )
    with gr.Accordion("Format and size of the output", open=False):
        made["format"] = gr.Dropdown(
            [("Same as the image", SAME_FORMAT), *((name, name) for name in formats)], value=SAME_FORMAT, label="Format"
        )
        # Text fields, because Gradio turns empty fields for numbers into 0.
        made["quality"] = gr.Textbox(
            placeholder="95",
            label="Quality of lossy formats, 1 to 100",
            info="If given, WebP is lossy.",
            max_lines=1,
        )
        made["background"] = gr.Textbox(
            placeholder="keep transparency",
            label="Background of transparent images",
            info="A colour such as white or #ffffff.",
            max_lines=1,
        )
        made["size_kind"] = gr.Dropdown(list(SIZES.items()), value=MODEL_SIZE, label="Size")
        made["size"] = gr.Textbox(placeholder="number", label="Factor", max_lines=1, visible=False)
    with gr.Accordion("More models", open=False):
        made["more"] = gr.Dropdown(label="Model to download")
        made["fetch"] = gr.Button("Download the model", interactive=False)
        made["fetched"] = gr.HTML(elem_id="fetched", js_on_load=_LIVE)
    with gr.Row():
        made["upscale"] = gr.Button("Upscale", variant="primary", interactive=False, min_width=120)
        made["stop"] = gr.Button("Stop", variant="stop", interactive=False, min_width=120)
    made["status"] = gr.HTML(elem_id="status", js_on_load=_LIVE, min_height=60)
    return made


def _make_part() -> dict[str, Any]:
    made: dict[str, Any] = {}
    made["introduction"] = gr.Markdown(INTRODUCTION)
    with gr.Column(visible=False) as made["part"]:
        gr.Markdown("## Try a part")
        made["preview"] = gr.Image(
            label="Click to try a part",
            alt_text="The uploaded image, with a frame around the part",
            interactive=False,
            buttons=[],
            format="png",
            elem_id="preview",
        )
        with gr.Row():
            made["across"] = gr.Slider(0, 100, value=50, step=1, label="Part, % from the left", min_width=240)
            made["down"] = gr.Slider(0, 100, value=50, step=1, label="Part, % from the top", min_width=240)
        made["compare"] = gr.Radio(list(COMPARISONS.items()), value=ONE, label="Compare bicubic with")
        made["try_part"] = gr.Button("Try this part")
        made["figures"] = gr.HTML()
    return made


def _make_result() -> dict[str, Any]:
    made: dict[str, Any] = {}
    with gr.Column(visible=False, elem_id="result") as made["result"]:
        gr.Markdown("## Result")
        made["result_facts"] = gr.HTML(elem_id="result-facts")
        made["download"] = gr.DownloadButton("Download", interactive=False, variant="primary")
        made["comparison"] = gr.ImageSlider(
            label="Left: bicubic, right: model",
            format="png",
            buttons=["fullscreen"],
            interactive=False,
            elem_id="comparison",
        )
        made["divider"] = gr.Slider(0, 100, value=50, step=1, label="Border between bicubic and model, % from the left")
        made["detail"] = gr.HTML()
    return made


def choices_of(labels: dict[str, str]) -> list[tuple[str, str]]:
    """Return the choices of a dropdown: labels with their values."""
    return [(label, name) for name, label in labels.items()]
