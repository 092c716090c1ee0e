"""Build the demo page and serve it with Gradio."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from PIL import Image

from esrgan.demo.backend import DETAIL_PX, DemoModels, UpscaledImage, render_detail, render_overview, upscale_file
from esrgan.errors import EsrganError

EXAMPLE_IMAGES = sorted((Path(__file__).parent / "examples").glob("*.png"))
MAX_QUEUED_REQUESTS = 32  # further requests are rejected
MAX_BYTES_PER_PIXEL = 16  # limits the size of uploads; an uncompressed file has up to four channels of 32 bits
FILE_LIFETIME_S = 3600  # applies to uploads and outputs; the page looks for old ones six times as often
_CSS = f"#detail {{ flex: none; width: {DETAIL_PX + 2}px }}"  # 2 px for the border
ResultT = TypeVar("ResultT")


def make_page(models: DemoModels, folder: Path, max_megapixels: float) -> gr.Blocks:
    """Build the page.

    Args:
        models: The models to offer.
        folder: Folder for outputs; the same as ``GRADIO_TEMP_DIR``, which must be set before Gradio is imported.
        max_megapixels: Largest image that may be uploaded.

    Returns:
        The page, for ``serve``.
    """
    max_pixels = round(max_megapixels * 1e6)

    def upscale(
        file: str | None,
        model: str,
        alpha: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio finds the argument by this default
    ) -> tuple[Any, ...]:
        if file is None:
            raise _make_error("there is no image yet; upload one or choose an example")

        def work() -> tuple[Any, ...]:
            progress(0, "loading the model")
            upscaler = models.get_upscaler(model, alpha)
            progress(0, "upscaling")
            done = upscale_file(upscaler, Path(file), folder, max_pixels, lambda share: progress(share, "upscaling"))
            return done, render_overview(done), done.target, _describe_result(done, model, alpha)

        return _show_errors(work)

    def show_detail(done: UpscaledImage | None, across: float, down: float) -> tuple[Image.Image, Image.Image] | None:
        return None if done is None else _show_errors(lambda: render_detail(done, across / 100, down / 100))

    def label_download(done: UpscaledImage) -> gr.DownloadButton:
        return gr.DownloadButton(f"Download {done.target.name}", interactive=True)

    def update_strength(model: str) -> gr.Slider:
        return gr.Slider(value=1, interactive=models.psnr_partner(model) is not None)

    first = next(iter(models.labels))
    with gr.Blocks(
        title="esrgan", analytics_enabled=False, delete_cache=(FILE_LIFETIME_S // 6, FILE_LIFETIME_S)
    ) as page:
        gr.Markdown("# Upscale an image")
        done = gr.State()
        with gr.Row():
            with gr.Column(scale=1):
                file = gr.File(label=f"Image, at most {max_megapixels:g} megapixels", height=180)
                examples = gr.Dataset(
                    components=[gr.Image(render=False)],
                    samples=[[str(path)] for path in EXAMPLE_IMAGES],
                    label="Examples",
                    type="index",
                )
                model = gr.Dropdown(
                    [(label, name) for name, label in models.labels.items()], value=first, label="Model"
                )
                alpha = gr.Slider(
                    0,
                    1,
                    value=1,
                    step=0.05,
                    label="Strength α, from 0 (smooth and faithful) to 1 (full texture)",
                    interactive=models.psnr_partner(first) is not None,
                )
                upscale_button = gr.Button("Upscale", variant="primary")
            with gr.Column(scale=2):
                comparison = gr.ImageSlider(label="Left: bicubic, right: model", format="png", buttons=["fullscreen"])
                download = gr.DownloadButton("Download", interactive=False)
                facts = gr.Markdown()
                with gr.Row():
                    detail = gr.ImageSlider(label="Detail at 1:1", format="png", buttons=[], elem_id="detail")
                    with gr.Column(min_width=240):
                        across = gr.Slider(0, 100, value=50, step=1, label="Position of the detail, % from the left")
                        down = gr.Slider(0, 100, value=50, step=1, label="Position of the detail, % from the top")

        examples.click(lambda index: str(EXAMPLE_IMAGES[index]), examples, file, api_visibility="private")
        model.change(update_strength, model, alpha, api_visibility="private")
        upscaling = upscale_button.click(
            upscale,
            [file, model, alpha],
            [done, comparison, download, facts],
            api_name="upscale",
            concurrency_limit=1,
            show_progress_on=comparison,
        )
        upscaling.success(label_download, done, download, api_visibility="private", show_progress="hidden")
        upscaling.success(show_detail, [done, across, down], detail, api_name="detail", show_progress="hidden")
        gr.on(
            [across.change, down.change],
            show_detail,
            [done, across, down],
            detail,
            trigger_mode="always_last",
            api_visibility="private",
            show_progress="hidden",
        )
    page.queue(max_size=MAX_QUEUED_REQUESTS)
    return page


def serve(page: gr.Blocks, host: str, port: int, max_megapixels: float) -> None:
    """Start to serve a page in threads of this process, and return.

    Args:
        page: The page, as built by ``make_page``.
        host: The address to listen on.
        port: The port to listen on.
        max_megapixels: Largest image that may be uploaded; limits the size of files to 16 bytes per pixel.

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
            css=_CSS,
            footer_links=[],
            allowed_paths=[str(EXAMPLE_IMAGES[0].parent)],
        )
    except OSError as error:
        raise EsrganError(f"{host}:{port}: cannot listen on this address; choose another --host or --port") from error


def _describe_result(done: UpscaledImage, model: str, alpha: float) -> str:
    """Describe an output in Markdown: its size, the time, the model and what was not preserved."""
    width, height = done.size
    name = Path(model).name  # visitors of the page should not see folders of the server
    by = name if alpha == 1 else f"{name} at α {alpha:g}"
    lines = [f"{width} × {height} px in {done.seconds:.1f} s by {by}", *done.notes]
    return "\n\n".join(html.escape(line) for line in lines)


def _show_errors(work: Callable[[], ResultT]) -> ResultT:
    """Do some work and show its ``EsrganError``, if any, on the page."""
    try:
        return work()
    except EsrganError as error:
        raise _make_error(str(error)) from error


def _make_error(text: str) -> gr.Error:
    return gr.Error(html.escape(text.partition("\n")[0]), duration=20, print_exception=False)
