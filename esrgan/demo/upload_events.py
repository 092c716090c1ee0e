"""What the page does with uploads and choices: show and describe them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from esrgan.demo import views
from esrgan.demo.layout import MODEL_SIZE, SIZES, Components
from esrgan.demo.models import DemoModels
from esrgan.demo.parts import Part, find_position, locate_part
from esrgan.demo.settings import Settings, read_settings
from esrgan.demo.summary import describe_hint, describe_uploads, paragraphs
from esrgan.demo.timing import Speeds
from esrgan.demo.uploads import Upload, inspect_upload, read_upload
from esrgan.demo.visitor_errors import VisitorErrors, first_line, show_errors
from esrgan.errors import EsrganError, ImageError

Values = dict[Any, Any]  # the inputs of an event, by their components
Updates = dict[Any, Any]  # its outputs


class UploadEvents:
    """Handles the events of uploads and choices.

    Args:
        components: The components of the page.
        models: The models that it offers.
        max_pixels: Largest image that can be upscaled.

    Attributes:
        speeds: The measured speeds of the models.
        errors: The errors of visitors.
    """

    def __init__(self, components: Components, models: DemoModels, max_pixels: int) -> None:
        self.components, self.models, self.max_pixels = components, models, max_pixels
        self.speeds, self.errors = Speeds(), VisitorErrors()
        self._current: dict[str | None, list[str]] = {}  # the uploads of each visitor, by session

    def begin(self, files: list[str] | None, request: gr.Request) -> None:
        """Remember the uploads of a visitor."""
        self._current[request.session_hash] = files or []

    def end(self, request: gr.Request) -> None:
        """Forget the uploads of a visitor who has left."""
        self._current.pop(request.session_hash, None)

    def unless_replaced(self, values: Values, request: gr.Request, work: Callable[[], Updates]) -> Updates:
        """Do some work, and return its updates of the page; change nothing if the uploads were replaced meanwhile."""
        updates = work()
        files = values[self.components.files] or []
        return updates if self._current.get(request.session_hash, files) == files else gr.skip()

    def show_upload(self, values: Values, request: gr.Request) -> Updates:
        """Show the uploads, their size before and after, and the time, as far as it is known."""
        return self.unless_replaced(values, request, lambda: self._show_upload(values))

    def _show_upload(self, values: Values) -> Updates:
        c = self.components
        updates = self.describe(values)
        settings, uploads, _ = self.read(values)
        if settings is None or not uploads:
            return updates
        preview = show_errors(lambda: self._mark(settings, uploads[0], values))
        return updates | {
            c.part: gr.Column(visible=True),
            c.preview: preview,
            c.introduction: gr.Markdown(visible=False),
        }

    def describe(self, values: Values) -> Updates:
        """Describe the uploads for the chosen model and size."""
        c = self.components
        settings, uploads, problems = self.read(values)
        text = ""
        is_possible = False
        if settings is not None and uploads:
            try:
                upscaler = settings.get_upscaler(self.models)
                text = describe_uploads(uploads, upscaler, settings, self.speeds, self.max_pixels)
                text += describe_hint(uploads[0], settings.model, self.models)
                is_possible = any(upload.pixels <= self.max_pixels for upload in uploads)
            except EsrganError as error:
                problems = [*problems, first_line(error)]
        text += paragraphs(problems, is_error=True)
        return {c.facts: text, c.upscale: gr.Button(interactive=is_possible)}

    def measure(self, values: Values, request: gr.Request) -> Updates:
        """Measure the speed of the chosen model, unless it is known, and describe the uploads."""
        settings, uploads, _ = self.read(values)
        if settings is not None and uploads:

            def measure() -> None:
                self.speeds.measure(settings.model, settings.get_upscaler(self.models))

            show_errors(lambda: self.errors.compute(measure))
        return self.unless_replaced(values, request, lambda: self.describe(values))

    def choose_model(self, values: Values) -> gr.Slider:
        """Adapt the strength to the chosen model."""
        has_partner = self.models.psnr_partner(values[self.components.model]) is not None
        return gr.Slider(value=1, interactive=has_partner)

    def choose_size_kind(self, kind: str) -> gr.Textbox:
        """Show the field for the size, with its unit."""
        label = next(label for label, each in SIZES.items() if each == kind)
        return gr.Textbox(value="", label=label, visible=kind != MODEL_SIZE)

    def mark_part(self, values: Values) -> Updates:
        """Mark the part."""
        settings, uploads, _ = self.read(values)
        if settings is None or not uploads:
            return {}
        return {self.components.preview: show_errors(lambda: self._mark(settings, uploads[0], values))}

    def find_part(self, values: Values, point: tuple[int, int]) -> Updates:
        """Return the position of the part with a pixel of the view of the first upload in its centre."""
        settings, uploads, _ = self.read(values)
        if settings is None or not uploads:
            return {}
        shape = uploads[0].shapes[0]
        view = views.preview_size((shape[1], shape[0]))
        fractions = ((point[i] + 0.5) / view[i] for i in range(2))
        across, down = find_position(shape, settings.get_upscaler(self.models).output_size(*shape), *fractions)
        return {self.components.across: round(100 * across), self.components.down: round(100 * down)}

    def read(self, values: Values) -> tuple[Settings | None, list[Upload], list[str]]:
        """Return the settings, the uploads that can be read, and what is wrong with the others."""
        try:
            settings = read_settings(self.components, values, self.max_pixels)
        except EsrganError as error:
            return None, [], [first_line(error)]
        uploads, problems = [], []
        for path in settings.paths:
            try:
                uploads.append(inspect_upload(path, self.max_pixels))
            except ImageError as error:
                problems.append(first_line(error))
        return settings, uploads, problems

    def locate(self, settings: Settings, upload: Upload, values: Values) -> Part:
        """Return the part of an upload at the chosen position."""
        shape, c = upload.shapes[0], self.components
        output = settings.get_upscaler(self.models).output_size(*shape)
        return locate_part(shape, output, values[c.across] / 100, values[c.down] / 100)

    def _mark(self, settings: Settings, upload: Upload, values: Values) -> gr.Image:
        view = views.render(read_upload(upload.path, self.max_pixels))
        marked = views.mark_part(view, self.locate(settings, upload, values).input_box)
        return gr.Image(marked, label=f"{upload.path.name}: click to try a part")
