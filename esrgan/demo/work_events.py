"""What the page does to upscale images and parts of them, and to stop that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from esrgan.demo import views
from esrgan.demo.parts import crop_bicubic, locate_part, upscale_part
from esrgan.demo.runs import Runs, Stopped, UpscaledFiles, upscale_uploads
from esrgan.demo.settings import Settings, list_comparisons, read_settings
from esrgan.demo.summary import describe_result, paragraphs
from esrgan.demo.upload_events import Updates, UploadEvents, Values
from esrgan.demo.uploads import inspect_upload, read_upload
from esrgan.demo.visitor_errors import show_errors, silent_error
from esrgan.errors import EsrganError


class WorkEvents:
    """Handles the events of runs, which upscale images, and of trials, which upscale a part.

    Args:
        uploads: The handlers of uploads and choices.
        folder: Folder for outputs.
    """

    def __init__(self, uploads: UploadEvents, folder: Path) -> None:
        self.uploads, self.folder = uploads, folder
        self.components, self.models = uploads.components, uploads.models
        self.errors = uploads.errors
        self.runs, self.trials = Runs(), Runs()

    def clear(self, files: list[str] | None, request: gr.Request) -> Updates:
        """Stop the work for the visitor, and remove all that belongs to the image that was shown."""
        c = self.components
        self.uploads.begin(files, request)
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

    # Trials

    def move_part(self, values: Values, request: gr.Request) -> Updates:
        """Mark the part, and replace or remove the views of another one."""
        return self.uploads.unless_replaced(values, request, lambda: self._move_part(values))

    def choose_part(self, values: Values, event: gr.SelectData, request: gr.Request) -> Updates:
        """Move the part to a click on the image."""
        position = self.uploads.find_part(values, event.index)
        return self.uploads.unless_replaced(values, request, lambda: self._move_part(values | position) | position)

    def _move_part(self, values: Values) -> Updates:
        c = self.components
        return self.uploads.mark_part(values) | {c.figures: "", c.detail: self.show_detail(values)}

    def begin_trial(self, request: gr.Request) -> Updates:
        """Remove the views of the last trial."""
        c = self.components
        self.errors.pop(request.session_hash)
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
            settings, uploads, problems = self.uploads.read(values)
            if settings is None or not uploads:
                raise EsrganError(problems or "there is no image yet; upload one or choose an example")
            upload = uploads[0]
            image = read_upload(upload.path, self.uploads.max_pixels)
            part = self.uploads.locate(settings, upload, values)
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
            while (figures := self.errors.keep(session, lambda: next(parts, None))) is not None:
                yield figures
        except Stopped:
            return
        finally:
            self.trials.end(session, run)

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
            settings = read_settings(self.components, values, self.uploads.max_pixels)
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
                size = views.load_views(done.source, done.download)[1].size
            run.check()
            return done, comparison, done.download, describe_result(done, settings, size)

        try:
            return self.errors.keep(session, work)
        except Stopped as stopped:
            raise silent_error("stopped") from stopped
        finally:
            self.runs.end(session, run)

    def finish(self, values: Values, request: gr.Request) -> Updates:
        """Show the result."""
        return self.uploads.unless_replaced(values, request, lambda: self._show_result(values, request))

    def _show_result(self, values: Values, request: gr.Request) -> Updates:
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
        } | self.uploads.describe(values)

    def show_detail(self, values: Values) -> str:
        """Return the part of the result at 1:1, next to bicubic; nothing without a result of a single image."""
        c, done = self.components, values[self.components.done]
        if done is None or done.total > 1:
            return ""

        def work() -> str:
            low, high = views.load_views(done.source, done.download)
            place = (low.height, low.width), (high.height, high.width)
            part = locate_part(*place, values[c.across] / 100, values[c.down] / 100)
            where = f"at {values[c.across]:g} % from the left, {values[c.down]:g} % from the top"
            return views.make_figures(
                [
                    ("Bicubic, at 1:1", f"Bicubic: part of {done.source.name} {where}", crop_bicubic(low, part)),
                    ("Result, at 1:1", f"Result: part of {done.source.name} {where}", high.crop(part.output_box)),
                ]
            )

        return show_errors(work)

    def stop(self, request: gr.Request) -> Updates:
        """Stop the work for the visitor."""
        c = self.components
        self._stop_work(request.session_hash)
        return {c.status: paragraphs(["Stopped."]), c.stop: gr.Button(interactive=False)}

    def show_failure(self, request: gr.Request) -> Updates:
        """Show why a run or trial failed."""
        c = self.components
        text = self.errors.pop(request.session_hash)
        status = gr.skip() if text is None else paragraphs([text], is_error=True)
        return {c.status: status, c.stop: self._update_stop(request)}

    def end_trial(self, request: gr.Request) -> gr.Button:
        """Disable the button that stops, if nothing else is running."""
        return self._update_stop(request)

    def leave(self, request: gr.Request) -> None:
        """End the work for a visitor who has closed the page, and forget images in memory."""
        self._stop_work(request.session_hash)
        self.uploads.end(request)
        views.forget()
        read_upload.cache_clear()

    def _update_stop(self, request: gr.Request) -> gr.Button:
        session = request.session_hash
        return gr.Button(interactive=session in self.runs or session in self.trials)

    def _stop_work(self, session: str | None) -> None:
        self.errors.pop(session)
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

    def _record_speed(self, settings: Settings, done: UpscaledFiles) -> None:
        if done.problems:
            return
        uploads = [inspect_upload(path, self.uploads.max_pixels) for path in settings.paths]
        upscaler = settings.get_upscaler(self.models)
        self.uploads.speeds.record(settings.model, sum(upload.work(upscaler) for upload in uploads), done.seconds)
