"""What the page does when its visitor does something."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from esrgan.demo import views
from esrgan.demo.layout import MODEL_SIZE, SIZES, Components, choices_of
from esrgan.demo.models import DemoModels, describe_download
from esrgan.demo.parts import Part, crop_bicubic, find_position, locate_part, upscale_part
from esrgan.demo.runs import Runs, Stopped, UpscaledFiles, upscale_uploads
from esrgan.demo.settings import Settings, list_comparisons, read_settings
from esrgan.demo.summary import describe_hint, describe_result, describe_uploads, paragraphs
from esrgan.demo.timing import Speeds
from esrgan.demo.uploads import Upload, hide_folder, inspect_upload, read_upload
from esrgan.errors import EsrganError, ImageError

Values = dict[Any, Any]  # the inputs of an event, by their components
Updates = dict[Any, Any]  # its outputs
ResultT = TypeVar("ResultT")
UNEXPECTED = "something unexpected happened; the log of the demo has the cause"


class Handlers:
    """The handlers of the events of a page.

    Args:
        components: The components of the page.
        models: The models that it offers.
        folder: Folder for outputs.
        max_pixels: Largest image that can be upscaled.
    """

    def __init__(self, components: Components, models: DemoModels, folder: Path, max_pixels: int) -> None:
        self.components, self.models, self.folder, self.max_pixels = components, models, folder, max_pixels
        self.speeds = Speeds()
        self.runs, self.trials = Runs(), Runs()
        self.errors: dict[str | None, str] = {}  # by session, until they are shown

    # Uploads

    def clear(self, request: gr.Request) -> Updates:
        """Stop the work for the visitor, and remove all that belongs to the image that was shown."""
        c = self.components
        self._stop_work(request.session_hash)
        return self._hide_result() | {
            c.facts: "",
            c.figures: "",
            c.status: "",
            c.upscale: gr.Button(interactive=False),
            c.stop: gr.Button(interactive=False),
            c.part: gr.Column(visible=False),
            c.preview: None,
            c.introduction: gr.Markdown(visible=True),
        }

    def show_upload(self, values: Values) -> Updates:
        """Show the uploads, their size before and after, and the time, as far as it is known."""
        c = self.components
        updates = self.describe(values)
        settings, uploads, _ = self._read(values)
        if settings is None or not uploads:
            return updates
        preview = self._mark(settings, uploads[0], values)
        return updates | {
            c.part: gr.Column(visible=True),
            c.preview: preview,
            c.introduction: gr.Markdown(visible=False),
        }

    def describe(self, values: Values) -> Updates:
        """Describe the uploads for the chosen model and size."""
        c = self.components
        settings, uploads, problems = self._read(values)
        text = ""
        is_possible = False
        if settings is not None and uploads:
            try:
                upscaler = settings.get_upscaler(self.models)
                text = describe_uploads(uploads, upscaler, settings, self.speeds, self.max_pixels)
                text += describe_hint(uploads[0], settings.model, self.models)
                is_possible = any(upload.pixels <= self.max_pixels for upload in uploads)
            except EsrganError as error:
                problems = [*problems, _first_line(error)]
        text += paragraphs(problems, is_error=True)
        return {c.facts: text, c.upscale: gr.Button(interactive=is_possible)}

    def measure(self, values: Values) -> Updates:
        """Measure the speed of the chosen model, unless it is known, and describe the uploads."""
        settings, uploads, _ = self._read(values)
        if settings is not None and uploads:
            _show_errors(lambda: self.speeds.measure(settings.model, settings.get_upscaler(self.models)))
        return self.describe(values)

    def _read(self, values: Values) -> tuple[Settings | None, list[Upload], list[str]]:
        """Return the settings, the uploads that can be read, and what is wrong with the others."""
        try:
            settings = read_settings(self.components, values, self.max_pixels)
        except EsrganError as error:
            return None, [], [_first_line(error)]
        uploads, problems = [], []
        for path in settings.paths:
            try:
                uploads.append(inspect_upload(path, self.max_pixels))
            except ImageError as error:
                problems.append(_first_line(error))
        return settings, uploads, problems

    # Choices

    def choose_model(self, values: Values) -> Updates:
        """Adapt the strength and the description to the chosen model."""
        has_partner = self.models.psnr_partner(values[self.components.model]) is not None
        return self.describe(values) | {self.components.alpha: gr.Slider(value=1, interactive=has_partner)}

    def choose_size_kind(self, kind: str) -> gr.Number:
        """Show the field for the size, with its unit."""
        label = next(label for label, each in SIZES.items() if each == kind)
        return gr.Number(value=None, label=label, visible=kind != MODEL_SIZE)

    def refresh_models(self) -> Updates:
        """Offer the models that are on this machine now, and the others for download."""
        c, more = self.components, self.models.downloadable
        return {
            c.model: gr.Dropdown(choices_of(self.models.labels)),
            c.more: gr.Dropdown(choices_of(more), value=next(iter(more), None)),
            c.fetch: self.choose_download(next(iter(more), None)),
        }

    def choose_download(self, name: str | None) -> gr.Button:
        """Say on the button what will be downloaded."""
        if name is None:
            return gr.Button("All models are on this machine", interactive=False)
        return gr.Button(f"Download {name} ({describe_download(name)})", interactive=True)

    def fetch(self, name: str, request: gr.Request) -> str:
        """Download a public model."""
        return self._keep_errors(request, lambda: paragraphs([self.models.download(name)]))

    # Parts

    def move_part(self, values: Values) -> Updates:
        """Mark the part, and remove views of another part."""
        c = self.components
        settings, uploads, _ = self._read(values)
        if settings is None or not uploads:
            return {c.figures: ""}
        return {
            c.preview: _show_errors(lambda: self._mark(settings, uploads[0], values)),
            c.figures: "",
            c.detail: self.show_detail(values),
        }

    def choose_part(self, values: Values, event: gr.SelectData) -> Updates:
        """Move the part to a click on the image."""
        c = self.components
        settings, uploads, _ = self._read(values)
        if settings is None or not uploads:
            return {c.figures: ""}
        view = views.preview_size(_size(uploads[0].shapes[0]))
        point = ((event.index[i] + 0.5) / view[i] for i in range(2))
        shape = uploads[0].shapes[0]
        across, down = find_position(shape, settings.get_upscaler(self.models).output_size(*shape), *point)
        position = {c.across: round(100 * across), c.down: round(100 * down)}
        return self.move_part(values | position) | position

    def begin_trial(self, request: gr.Request) -> Updates:
        """Remove the views of the last trial."""
        c = self.components
        self.trials.begin(request.session_hash)
        return {c.figures: "", c.status: "", c.stop: gr.Button(interactive=True)}

    def try_part(
        self,
        values: Values,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio finds the argument by this default
    ) -> Iterator[str]:
        """Upscale the part with the models to compare, and show them as they are finished."""
        c, session = self.components, request.session_hash
        run = self.trials.get(session)

        def work() -> Iterator[str]:
            settings, uploads, problems = self._read(values)
            if settings is None or not uploads:
                raise EsrganError(problems or "there is no image yet; upload one or choose an example")
            upload = uploads[0]
            image = read_upload(upload.path, self.max_pixels)
            part = self._locate(settings, upload, values)
            where = (
                f"part of {upload.path.name} at {values[c.across]:g} % from the left, {values[c.down]:g} % from the top"
            )
            figures = [("Bicubic", f"Bicubic: {where}", crop_bicubic(views.render(image), part))]
            variants = list_comparisons(values[c.compare], settings, self.models)
            for i, (model, alpha) in enumerate(variants):
                name = f"{model}, α {alpha:g}" if self.models.psnr_partner(model) else model

                def report(share: float, i: int = i, name: str = name) -> None:
                    run.check()
                    progress((i + share) / len(variants), f"upscaling a part by {name}")

                report(0)
                upscaler = settings.get_upscaler(self.models, model, alpha)
                begin = time.perf_counter()
                view = upscale_part(upscaler, image, part, report)
                run.check()
                figures.append((f"{name}, {time.perf_counter() - begin:.1f} s", f"{name}: {where}", view))
                yield views.make_figures(figures)

        try:
            parts = work()
            while (figures := self._keep_errors(request, lambda: next(parts, None))) is not None:
                yield figures
        except Stopped:
            return
        finally:
            self.trials.end(session, run)

    def _locate(self, settings: Settings, upload: Upload, values: Values) -> Part:
        shape, c = upload.shapes[0], self.components
        output = settings.get_upscaler(self.models).output_size(*shape)
        return locate_part(shape, output, values[c.across] / 100, values[c.down] / 100)

    def _mark(self, settings: Settings, upload: Upload, values: Values) -> Any:
        view = views.render(read_upload(upload.path, self.max_pixels))
        return views.mark_part(view, self._locate(settings, upload, values).input_box)

    # Runs

    def begin(self, request: gr.Request) -> Updates:
        """Begin a new run: remove the last result."""
        self._stop_work(request.session_hash)
        self.runs.begin(request.session_hash)
        c = self.components
        return self._hide_result() | {c.status: "", c.stop: gr.Button(interactive=True)}

    def upscale(
        self,
        values: Values,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        """Upscale the uploads; return the result, its comparison with bicubic, its file and its description."""
        session = request.session_hash
        run = self.runs.get(session)

        def work() -> tuple[Any, ...]:
            settings = read_settings(self.components, values, self.max_pixels)
            if not settings.paths:
                raise EsrganError("there is no image yet; upload one or choose an example")
            run.check()
            progress(0, "loading the model")
            upscaler = settings.get_upscaler(self.models)
            done = upscale_uploads(
                upscaler, settings.paths, self.folder, settings.file_options, settings.suffix, run, progress
            )
            self._record_speed(settings, done)
            comparison, size = None, (0, 0)
            if done.total == 1:
                comparison = views.render_overview(done.source, done.download)
                size = views.load_view(done.download).size
            run.check()
            return done, comparison, done.download, describe_result(done, settings, size)

        try:
            return self._keep_errors(request, work)
        except Stopped as stopped:
            raise gr.Error("stopped", visible=False, print_exception=False) from stopped
        finally:
            self.runs.end(session, run)

    def finish(self, values: Values, request: gr.Request) -> Updates:
        """Show the result."""
        c, done = self.components, values[self.components.done]
        is_single = done.total == 1
        return {
            c.result: gr.Column(visible=True),
            c.download: gr.DownloadButton(f"Download {done.download.name}", interactive=True),
            c.comparison: gr.ImageSlider(visible=is_single),
            c.divider: gr.Slider(value=50, visible=is_single),
            c.status: paragraphs([f"Finished: {done.download.name} is ready."]),
            c.stop: self._update_stop(request),
            c.detail: self.show_detail(values),
        } | self.describe(values)

    def show_detail(self, values: Values) -> str:
        """Return the part of the result at 1:1, next to bicubic; nothing without a result of a single image."""
        c, done = self.components, values[self.components.done]
        if done is None or done.total > 1:
            return ""

        def work() -> str:
            low, high = views.load_view(done.source), views.load_view(done.download)
            place = (low.height, low.width), (high.height, high.width)
            part = locate_part(*place, values[c.across] / 100, values[c.down] / 100)
            where = f"at {values[c.across]:g} % from the left, {values[c.down]:g} % from the top"
            return views.make_figures(
                [
                    ("Bicubic, at 1:1", f"Bicubic: part of {done.source.name} {where}", crop_bicubic(low, part)),
                    ("Result, at 1:1", f"Result: part of {done.source.name} {where}", high.crop(part.output_box)),
                ]
            )

        return _show_errors(work)

    def stop(self, request: gr.Request) -> Updates:
        """Stop the work for the visitor."""
        c = self.components
        self._stop_work(request.session_hash)
        return {c.status: paragraphs(["Stopped."]), c.stop: gr.Button(interactive=False)}

    def show_failure(self, request: gr.Request) -> Updates:
        """Show why a run or trial failed."""
        c = self.components
        text = self.errors.pop(request.session_hash, UNEXPECTED)
        return {c.status: paragraphs([text], is_error=True), c.stop: self._update_stop(request)}

    def show_download_failure(self, request: gr.Request) -> str:
        """Return why a download failed."""
        text = self.errors.pop(request.session_hash, UNEXPECTED)
        return paragraphs([text], is_error=True)

    def end_trial(self, request: gr.Request) -> gr.Button:
        """Disable the button that stops, if nothing else is running."""
        return self._update_stop(request)

    def leave(self, request: gr.Request) -> None:
        """End the work for a visitor who has closed the page, and forget images in memory."""
        self._stop_work(request.session_hash)
        self.errors.pop(request.session_hash, None)
        views.forget()
        read_upload.cache_clear()

    def _update_stop(self, request: gr.Request) -> gr.Button:
        session = request.session_hash
        return gr.Button(interactive=session in self.runs or session in self.trials)

    def _stop_work(self, session: str | None) -> None:
        self.runs.stop(session)
        self.trials.stop(session)

    def _hide_result(self) -> Updates:
        c = self.components
        return {
            c.result: gr.Column(visible=False),
            c.done: None,
            c.comparison: None,
            c.download: gr.DownloadButton("Download", value=None, interactive=False),
            c.result_facts: "",
            c.detail: "",
        }

    def _keep_errors(self, request: gr.Request, work: Callable[[], ResultT]) -> ResultT:
        """Do some work; keep its ``EsrganError``, if any, for ``show_failure``, and raise it for Gradio."""
        try:
            return work()
        except EsrganError as error:
            self.errors[request.session_hash] = text = _first_line(error)
            raise gr.Error(html.escape(text), visible=False, print_exception=False) from error

    # Shared

    def _record_speed(self, settings: Settings, done: UpscaledFiles) -> None:
        if done.problems:
            return
        uploads = [inspect_upload(path, self.max_pixels) for path in settings.paths]
        upscaler = settings.get_upscaler(self.models)
        self.speeds.record(settings.model, sum(upload.work(upscaler) for upload in uploads), done.seconds)


def _first_line(error: EsrganError) -> str:
    """Return the first problem of an error on one line, without the folders of its file."""
    return str(hide_folder(error)).partition("\n")[0]


def _size(shape: tuple[int, int]) -> tuple[int, int]:
    return shape[1], shape[0]


def _show_errors(work: Callable[[], ResultT]) -> ResultT:
    """Do some work, and show its ``EsrganError``, if any, in a message on the page."""
    try:
        return work()
    except EsrganError as error:
        raise gr.Error(html.escape(_first_line(error)), duration=20, print_exception=False) from error
