"""Read what a visitor has chosen on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esrgan.demo.layout import ALPHAS, MODEL_SIZE, MODELS, SAME_FORMAT, Components
from esrgan.demo.models import DemoModels
from esrgan.errors import EsrganError, Problem
from esrgan.images.flatten import parse_colour
from esrgan.inference import FileOptions, UpscaleOptions, Upscaler
from esrgan.text import one_line

COMPARED_ALPHAS = (0.0, 0.5, 0.8, 1.0)


@dataclass(frozen=True)
class Settings:
    """What a visitor has chosen.

    Attributes:
        paths: The uploads.
        model: Name of the model.
        alpha: Its share in the blend with its partner.
        suffix: Suffix of the outputs, such as ".webp"; None keeps that of each input.
        size: The size of the outputs.
        file_options: How to read inputs and write outputs.
    """

    paths: tuple[Path, ...]
    model: str
    alpha: float
    suffix: str | None
    size: UpscaleOptions
    file_options: FileOptions

    def get_upscaler(self, models: DemoModels, model: str | None = None, alpha: float | None = None) -> Upscaler:
        """Return the upscaler for these settings, or for another model or α."""
        return models.get_upscaler(model or self.model, self.alpha if alpha is None else alpha, self.size)


def read_settings(components: Components, values: dict[Any, Any], max_pixels: int) -> Settings:
    """Return the settings from the inputs of an event.

    Raises:
        EsrganError: If a value is missing or out of range.
    """
    c = components
    kind, background = values[c.size_kind], (values[c.background] or "").strip()
    if background:
        _check_colour(background)
    quality = _read_number("quality", values[c.quality])
    size = {} if kind == MODEL_SIZE else {kind: _read_number("size", values[c.size])}
    if None in size.values():
        raise EsrganError("size: expected a number, got none; enter it, or choose the size that the model makes")
    suffix = None if values[c.format] == SAME_FORMAT else f".{values[c.format]}"
    try:
        options = FileOptions(
            quality=quality, background=background or None, reduce_depth=suffix is not None, max_pixels=max_pixels
        )
        sizes = UpscaleOptions(**size)
    except ValueError as error:
        raise EsrganError(str(error)) from error
    paths = tuple(dict.fromkeys(map(Path, values[c.files] or ())))  # Gradio keeps equal uploads in the same file
    return Settings(paths, values[c.model], values[c.alpha], suffix, sizes, options)


def _read_number(name: str, text: str | None) -> Any:
    """Return the number in a field, whole if possible; None if the field is empty."""
    if not (text or "").strip():
        return None
    try:
        number = float(str(text).replace(",", "."))
    except ValueError:
        raise EsrganError(Problem(name, "a number", one_line(str(text)))) from None
    return int(number) if number.is_integer() else number


def _check_colour(text: str) -> None:
    try:
        parse_colour(text)
    except ValueError:
        expected = "an opaque colour such as white or #ffffff"
        raise EsrganError(Problem("background", expected, one_line(text))) from None


def list_comparisons(choice: str, settings: Settings, models: DemoModels) -> Sequence[tuple[str, float]]:
    """Return the models and their α to compare on a part.

    Args:
        choice: One of ``layout.COMPARISONS``.
        settings: The settings of the page.
        models: The models that it offers.

    Raises:
        EsrganError: If several α are chosen and the model has no partner.
    """
    if choice == MODELS:
        return [(name, 1.0) for name in models.list_main_models()]
    if choice == ALPHAS:
        if models.psnr_partner(settings.model) is None:
            raise EsrganError(f"{settings.model}: has no PSNR-oriented model to blend it with, so α is always 1")
        return [(settings.model, alpha) for alpha in COMPARED_ALPHAS]
    return [(settings.model, settings.alpha)]
