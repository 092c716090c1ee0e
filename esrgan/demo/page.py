"""Build the demo page and serve it with Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from esrgan.demo.layout import CSS, EXAMPLE_IMAGES, SHOW_RESULT, Components, make_layout
from esrgan.demo.model_events import ModelEvents
from esrgan.demo.models import DemoModels
from esrgan.demo.upload_events import UploadEvents
from esrgan.demo.work_events import WorkEvents
from esrgan.errors import EsrganError

MAX_QUEUED_REQUESTS = 32  # further requests are rejected
MAX_BYTES_PER_PIXEL = 16  # limits the size of uploads; an uncompressed file has up to four channels of 32 bits
FILE_LIFETIME_S = 3600  # applies to uploads and outputs; the page looks for old ones six times as often


def make_page(models: DemoModels, folder: Path, max_megapixels: float, formats: Sequence[str]) -> gr.Blocks:
    """Build the page.

    Args:
        models: The models to offer.
        folder: Folder for outputs; the same as ``GRADIO_TEMP_DIR``, which must be set before Gradio is imported.
        max_megapixels: Largest image that can be upscaled.
        formats: The output formats to offer, as suffixes without a dot.

    Returns:
        The page, for ``serve``.
    """
    with gr.Blocks(
        title="esrgan", analytics_enabled=False, delete_cache=(FILE_LIFETIME_S // 6, FILE_LIFETIME_S)
    ) as page:
        components = make_layout(models, max_megapixels, formats)
        uploads = UploadEvents(components, models, round(max_megapixels * 1e6))
        _connect_work(page, components, WorkEvents(uploads, folder))
        _connect_models(page, components, ModelEvents(components, models), uploads)
    page.queue(max_size=MAX_QUEUED_REQUESTS)
    return page


# How events are handled: at once, in a thread of their own, or one at a time because they compute.
_AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_QUICK: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
_COMPUTING: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "computing"}
# Without this, Gradio ignores a button that is pressed again before its last run has ended.
_RESTARTING: dict[str, Any] = _COMPUTING | {"trigger_mode": "multiple"}


def _connect_work(page: gr.Blocks, c: Components, work: WorkEvents) -> None:
    """Connect the events of uploads, runs and trials."""
    uploads = work.uploads
    place = c.settings | {c.across, c.down, c.done}
    description = [c.facts, c.upscale]
    result = [c.result, c.done, c.comparison, c.download, c.result_facts, c.detail]

    # Each run begins by removing what the last one has left. Once finished, it is shown; its failure is, too.
    begin = c.upscale.click(work.begin, None, [*result, c.status, c.stop], **_AT_ONCE)
    run = begin.then(
        work.upscale,
        c.settings,
        [c.done, c.comparison, c.download, c.result_facts],
        api_name="upscale",
        show_progress_on=c.status,
        **_RESTARTING,
    )
    shown = [c.result, c.download, c.comparison, c.divider, c.status, c.stop, c.detail, *description]
    run.success(work.finish, place, shown, **_QUICK).then(None, js=SHOW_RESULT)
    run.failure(work.show_failure, None, [c.status, c.stop], **_AT_ONCE)

    # So do trials, which begin with the button or with a click on the image.
    begun = [c.figures, c.status, c.stop]
    moved = [c.preview, c.figures, c.detail]
    chosen = c.preview.select(work.choose_part, place, [c.across, c.down, *moved], **_QUICK)
    begin_trials = [
        c.try_part.click(work.begin_trial, None, begun, **_AT_ONCE),
        chosen.success(work.begin_trial, None, begun, **_AT_ONCE),
    ]
    trials = [
        begin.then(
            work.try_part,
            place | {c.compare},
            c.figures,
            api_visibility="private",
            show_progress_on=c.status,
            **_RESTARTING,
        )
        for begin in begin_trials
    ]
    for trial in trials:
        trial.success(work.end_trial, None, c.stop, **_AT_ONCE)
        trial.failure(work.show_failure, None, [c.status, c.stop], **_AT_ONCE)
    gr.on([c.across.input, c.down.input], work.move_part, place, moved, trigger_mode="always_last", **_QUICK)

    # Work ends when it is stopped, when something else is to be done, and when the page is closed.
    c.stop.click(work.stop, None, [c.status, c.stop], cancels=[run, *trials], **_AT_ONCE)
    c.upscale.click(None, cancels=[run, *trials])
    page.unload(work.leave)

    # Uploads are described at once, and the time when the speed of the model is known.
    cleared = [*result, *description, c.figures, c.status, c.stop, c.part, c.preview, c.introduction]
    show: dict[str, Any] = {
        "fn": uploads.show_upload,
        "inputs": place,
        "outputs": [*description, c.part, c.preview, c.introduction],
        "trigger_mode": "always_last",
    }
    uploaded = c.files.change(work.clear, c.files, cleared, cancels=[run, *trials], **_AT_ONCE).then(**show, **_QUICK)
    model_chosen = c.model.change(uploads.choose_model, c.settings, c.alpha, **_QUICK).then(**show, **_QUICK)
    for event in (uploaded, model_chosen):
        event.then(
            uploads.measure,
            c.settings,
            description,
            trigger_mode="always_last",
            show_progress="hidden",
            api_visibility="private",
            **_COMPUTING,
        )
    c.size_kind.change(uploads.choose_size_kind, c.size_kind, c.size, **_AT_ONCE)
    choices = [each.change for each in (c.size_kind, c.size, c.quality, c.background)]
    gr.on(choices, **show, **_QUICK)
    for button, path in zip(c.examples, EXAMPLE_IMAGES, strict=True):
        button.click(partial(list, [str(path)]), None, c.files, **_AT_ONCE)
    c.divider.input(lambda position: gr.ImageSlider(slider_position=position), c.divider, c.comparison, **_AT_ONCE)


def _connect_models(page: gr.Blocks, c: Components, models: ModelEvents, uploads: UploadEvents) -> None:
    """Connect the events of the list of models."""
    offered = [c.model, c.more, c.fetch]
    page.load(models.refresh, None, offered, **_AT_ONCE)
    c.more.change(models.choose_download, c.more, c.fetch, **_AT_ONCE)
    fetching = c.fetch.click(
        models.fetch, c.more, c.fetched, api_visibility="private", concurrency_limit=1, show_progress_on=c.fetched
    )
    fetching.success(models.refresh, None, offered, **_AT_ONCE).then(
        uploads.choose_model, c.settings, c.alpha, **_QUICK
    )
    fetching.failure(models.show_failure, None, c.fetched, **_AT_ONCE)


def bracket(host: str) -> str:
    """Return an address as it stands in URLs: one of IPv6 in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def serve(page: gr.Blocks, folder: Path, host: str, port: int, max_megapixels: float) -> None:
    """Start to serve a page in threads of this process, and return.

    Args:
        page: The page, as built by ``make_page``.
        folder: The folder of ``make_page``.
        host: The address to listen on.
        port: The port to listen on.
        max_megapixels: Largest image that can be upscaled; limits the size of files to 16 bytes per pixel.

    Raises:
        EsrganError: If this machine does not have the address, or the port is in use.
    """
    try:
        page.launch(
            server_name=bracket(host),
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            max_file_size=round(max_megapixels * 1e6) * MAX_BYTES_PER_PIXEL,
            css=CSS,
            footer_links=[],
            # Below the working directory, Gradio refuses names that begin with a dot, unless their folder is listed
            # here.
            allowed_paths=[str(EXAMPLE_IMAGES[0].parent), str(folder)],
        )
    except OSError as error:
        place = f"{bracket(host)}:{port}"
        raise EsrganError(f"{place}: cannot listen on this address; choose another --host or --port") from error
