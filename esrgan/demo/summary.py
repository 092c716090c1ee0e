"""What the page says about uploads and results, as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from esrgan.demo.models import CLEAN, DRAWING, LOSSY, NOISY, DemoModels
from esrgan.demo.runs import UpscaledFiles
from esrgan.demo.settings import Settings
from esrgan.demo.timing import Speeds, describe_about
from esrgan.demo.uploads import Upload, describe_limit
from esrgan.inference import Upscaler
from esrgan.text import format_count

_KINDS = {
    LOSSY: "is compressed with losses, as JPEG is",
    NOISY: "looks noisy",
    DRAWING: "looks like a drawing or a screenshot",
    CLEAN: "looks clean",
}


def paragraphs(lines: Iterable[str], *, is_error: bool = False) -> str:
    """Return lines of text as paragraphs of HTML."""
    attributes = ' class="error"' if is_error else ""
    return "".join(f"<p{attributes}>{html.escape(line)}</p>" for line in lines)


def describe_uploads(
    uploads: Sequence[Upload], upscaler: Upscaler, settings: Settings, speeds: Speeds, max_pixels: int
) -> str:
    """Describe the size of uploads before and after, and about how long it takes.

    Args:
        uploads: The uploads that can be read.
        upscaler: The upscaler for the settings.
        settings: The settings of the page.
        speeds: The measured speeds of models.
        max_pixels: The limit of the page.

    Raises:
        EsrganError: If the networks cannot reach the size of the output.
    """
    small = [upload for upload in uploads if upload.pixels <= max_pixels]
    before = sum(upload.pixels for upload in small)
    after = sum(height * width for upload in small for height, width in upload.output_shapes(upscaler))
    pixels = f"{_megapixels(before)} → {_megapixels(after)} megapixels"
    line = ""
    if len(uploads) == 1:
        (upload,) = uploads
        high = upload.output_shapes(upscaler)
        shapes = " → ".join(f"{width:,} × {height:,}" for height, width in (upload.shapes[0], high[0]))
        frames = f", {format_count(len(high), 'frame')}" if len(high) > 1 else ""
        line = f"{upload.path.name}: {shapes} px{frames}" + (f" ({pixels})" if small else "")
    elif small:
        line = f"{format_count(len(small), 'image')}: {pixels} in all"
    if small:
        seconds = speeds.estimate(settings.model, sum(upload.work(upscaler) for upload in small))
        line += ", measuring the time …" if seconds is None else f", {describe_about(seconds)}"
    limits = [text for upload in uploads if (text := describe_limit(upload, max_pixels))]
    return paragraphs([line] if line else []) + paragraphs(limits, is_error=True)


def describe_hint(upload: Upload, model: str, models: DemoModels) -> str:
    """Return which model suits an image better than the chosen one, or nothing."""
    better = models.suggest(upload.kind, model)
    if better is None:
        return ""
    return paragraphs([f"{upload.path.name} {_KINDS[upload.kind]}, so {better} suits it better than {model}."])


def describe_result(done: UpscaledFiles, settings: Settings, size: tuple[int, int]) -> str:
    """Describe outputs: their size, the time, the model, what was not preserved and what failed.

    Args:
        done: The outputs.
        settings: The settings of the run.
        size: Width and height of the first output.
    """
    by = settings.model if settings.alpha == 1 else f"{settings.model} at α {settings.alpha:g}"
    if done.total == 1:
        what = f"{done.source.name}: {size[0]:,} × {size[1]:,} px"
    else:
        what = f"{done.count} of {format_count(done.total, 'image')} upscaled, {done.megapixels:.3g} megapixels"
    lines = [f"{what} in {done.seconds:.1f} s by {by}", *done.notes]
    return paragraphs(lines) + paragraphs(done.problems, is_error=True)


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:.2g}" if pixels < 10**7 else f"{pixels / 1e6:,.0f}"
