"""Build the demo page and serve it with Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from esrgan.demo.handlers import Handlers
from esrgan.demo.layout import CSS, EXAMPLE_IMAGES, Components, make_layout
from esrgan.demo.models import DemoModels
from esrgan.errors import EsrganError

MAX_QUEUED_REQUESTS = 32  # further requests are rejected
MAX_BYTES_PER_PIXEL = 16  # limits the size of uploads; an uncompressed file has up to four channels of 32 bits
FILE_LIFETIME_S = 3600  # applies to uploads and outputs; the page looks for old ones six times as often
COMPUTING = "computing"  # of all events that compute, one runs at a time


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
        _connect(page, components, Handlers(components, models, folder, round(max_megapixels * 1e6)))
    page.queue(max_size=MAX_QUEUED_REQUESTS)
    return page


def _connect(page: gr.Blocks, c: Components, handlers: Handlers) -> None:
    """Connect the events of the page with their handlers."""
    at_once = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    quick = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    computing = {"concurrency_limit": 1, "concurrency_id": COMPUTING}
    place = c.settings | {c.across, c.down, c.done}
    description = [c.facts, c.upscale]
    result = [c.result, c.done, c.comparison, c.download, c.result_facts, c.detail]

    # Runs and trials. Each begins by removing what the last one has left, and can be stopped.
    begin = c.upscale.click(handlers.begin, None, [*result, c.status, c.stop], **at_once)
    upscaling = begin.then(
        handlers.upscale,
        c.settings,
        [c.done, c.comparison, c.download, c.result_facts],
        api_name="upscale",
        show_progress_on=c.status,
        **computing,
    )
    shown = [c.result, c.download, c.comparison, c.divider, c.status, c.stop, c.detail, *description]
    upscaling.success(handlers.finish, place, shown, scroll_to_output=True, **quick)
    upscaling.failure(handlers.show_failure, None, [c.status, c.stop], **at_once)

    begin_trial = c.try_part.click(handlers.begin_trial, None, [c.figures, c.status, c.stop], **at_once)
    chosen = c.preview.select(handlers.choose_part, place, [c.across, c.down, c.preview, c.figures, c.detail], **quick)
    begin_chosen = chosen.success(handlers.begin_trial, None, [c.figures, c.status, c.stop], **at_once)
    trials = [
        beginning.then(
            handlers.try_part,
            place | {c.compare},
            c.figures,
            api_visibility="private",
            show_progress_on=c.status,
            **computing,
        )
        for beginning in (begin_trial, begin_chosen)
    ]
    for trial in trials:
        trial.success(handlers.end_trial, None, c.stop, **at_once)
        trial.failure(handlers.show_failure, None, [c.status, c.stop], **at_once)
    gr.on(
        [c.across.input, c.down.input],
        handlers.move_part,
        place,
        [c.preview, c.figures, c.detail],
        trigger_mode="always_last",
        **quick,
    )

    # Uploads and choices.
    cleared = [*result, *description, c.figures, c.status, c.stop, c.part, c.preview, c.introduction]
    uploaded = c.files.change(handlers.clear, None, cleared, cancels=[upscaling, *trials], **at_once).then(
        handlers.show_upload, place, [*description, c.part, c.preview, c.introduction], **quick
    )
    model_chosen = c.model.change(handlers.choose_model, c.settings, [c.alpha, *description], **quick)
    for event in (uploaded, model_chosen):
        event.then(
            handlers.measure, c.settings, description, show_progress="hidden", api_visibility="private", **computing
        )
    c.size_kind.change(handlers.choose_size_kind, c.size_kind, c.size, **at_once)
    gr.on(
        [each.change for each in (c.size, c.size_kind, c.quality, c.background)],
        handlers.describe,
        c.settings,
        description,
        trigger_mode="always_last",
        **quick,
    )
    c.examples.click(lambda index: [str(EXAMPLE_IMAGES[index])], c.examples, c.files, **at_once)
    c.divider.input(lambda position: gr.ImageSlider(slider_position=position), c.divider, c.comparison, **at_once)

    # Models.
    models = [c.model, c.more, c.fetch]
    c.more.change(handlers.choose_download, c.more, c.fetch, **at_once)
    c.fetch.click(lambda: "", None, c.fetched, **at_once)
    fetching = c.fetch.click(
        handlers.fetch, c.more, c.fetched, api_visibility="private", concurrency_limit=1, show_progress_on=c.fetched
    )
    fetching.success(handlers.refresh_models, None, models, **at_once).then(
        handlers.choose_model, c.settings, [c.alpha, *description], **quick
    )
    fetching.failure(handlers.show_download_failure, None, c.fetched, **at_once)
    page.load(handlers.refresh_models, None, models, **at_once)

    c.stop.click(handlers.stop, None, [c.status, c.stop], cancels=[upscaling, *trials], **at_once)
    page.unload(handlers.leave)


def serve(page: gr.Blocks, host: str, port: int, max_megapixels: float) -> None:
    """Start to serve a page in threads of this process, and return.

    Args:
        page: The page, as built by ``make_page``.
        host: The address to listen on.
        port: The port to listen on.
        max_megapixels: Largest image that can be upscaled; limits the size of files to 16 bytes per pixel.

    Raises:
        EsrganError: If this machine does not have the address, or the port is in use.
    """
    try:
        page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            max_file_size=round(max_megapixels * 1e6) * MAX_BYTES_PER_PIXEL,
            css=CSS,
            footer_links=[],
            allowed_paths=[str(EXAMPLE_IMAGES[0].parent)],
        )
    except OSError as error:
        raise EsrganError(f"{host}:{port}: cannot listen on this address; choose another --host or --port") from error
