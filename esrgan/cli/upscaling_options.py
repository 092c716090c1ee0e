"""Options and messages shared by the commands that upscale files."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from esrgan.cli import arguments
from esrgan.console import log, progress
from esrgan.errors import EsrganError
from esrgan.pretrained import DEFAULT_MODEL, psnr_partner
from esrgan.text import format_count, format_duration

if TYPE_CHECKING:
    from esrgan.bulk import ManifestRecord
    from esrgan.inference import FileOptions, FileResult

OUTPUT_FORMATS = ("png", "jpg", "webp", "tif", "bmp", "gif", "tga", "dds", "ppm", "avif", "heic")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the model, the precision and the format of outputs."""
    parser.add_argument(
        "-m",
        "--model-path",
        default=DEFAULT_MODEL,
        metavar="FILE",
        help=f"generator, checkpoint, or a name listed by `esrgan models` (default: {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--psnr-model-path", metavar="FILE", help="PSNR model to blend -m with (default: the PSNR partner of -m)"
    )
    parser.add_argument(
        "--alpha",
        type=arguments.fraction,
        metavar="A",
        help="blend -m with a PSNR model; share of -m in the blend, 0 to 1",
    )
    arguments.add_precision(parser, "auto", "precision of the computation (default: auto, the fastest)")
    parser.add_argument("--format", choices=OUTPUT_FORMATS, help="output format (default: same as input)")
    parser.add_argument(
        "--background",
        type=_colour,
        metavar="COLOUR",
        help="place transparent images on this colour, such as white or '#ffffff' (default: keep transparency)",
    )
    parser.add_argument(
        "--transparency",
        choices=("colour", "data", "hard"),
        default="colour",
        help="what alpha means: see-through (colour, the default), a channel of its own, as in textures that pack data "
        "into it (data), or cut out with hard edges (hard)",
    )
    parser.add_argument(
        "--quality",
        type=arguments.integer(1, 100),
        metavar="Q",
        help="quality of lossy formats, 1 to 100 (default: 95); if given, WebP outputs are lossy",
    )
    parser.add_argument(
        "--outscale",
        type=arguments.positive_float(64),
        metavar="X",
        help="final upscaling factor (default: the model's)",
    )
    parser.add_argument(
        "--self-ensemble", action="store_true", help="average 8 flips and rotations; takes 8 times as long"
    )


def _colour(text: str) -> str:
    """Check a colour, for ``type`` of an argument."""
    from esrgan.images.flatten import parse_colour

    try:
        parse_colour(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an opaque colour such as white or #ffffff, got {text}") from None
    return text


def name_models(args: argparse.Namespace) -> str:
    """Return the name of the model, or of the two that are blended, for messages.

    Raises:
        EsrganError: If the options contradict each other, or the model has no PSNR partner.
    """
    if args.alpha is None:
        if args.psnr_model_path is not None:
            raise EsrganError("--psnr-model-path: needs --alpha, the share of -m in the blend")
        return str(args.model_path)
    return f"{args.model_path} and {args.psnr_model_path or psnr_partner(args.model_path)}"


def file_options(args: argparse.Namespace, **settings: bool) -> FileOptions:
    """Return how to read inputs and write outputs. A chosen format may store fewer bits than the input has."""
    from esrgan.inference import FileOptions

    settings = {"reduce_depth": args.format is not None} | settings
    return FileOptions(quality=args.quality, background=args.background, **settings)


def describe_skipped(skipped: Mapping[Path, str] | Mapping[str, str]) -> Iterator[str]:
    """Yield one line for each reason to skip inputs, with the first of its files and the number of the others."""
    for reason in dict.fromkeys(skipped.values()):
        first, *others = (path for path, why in skipped.items() if why == reason)
        yield f"skipped ({reason}): {first}{f' and {len(others)} more' if others else ''}"


def describe_total(upscaled: int, total: int, skipped: int, failed: int) -> str:
    """Summarise a run in one line, such as "3 of 5 images upscaled, 1 skipped (already exists), 1 failed"."""
    parts = [f"{upscaled:,} of {format_count(total, 'image')} upscaled"]
    if skipped:
        parts.append(f"{skipped:,} skipped (already exist{'s' * (skipped == 1)})")
    if failed:
        parts.append(f"{failed:,} failed")
    return ", ".join(parts)


class Progress:
    """Log the outcome of each image, with the speed and the time that is left.

    Args:
        total: Number of images.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.tried, self.failed, self.megapixels = total, 0, 0, 0, 0.0
        self.begin = time.perf_counter()

    def add(
        self, output: object, result: FileResult | ManifestRecord, *, is_skipped: bool = False, keep: bool = False
    ) -> None:
        """Add the result of one image; ``keep`` keeps its line, which otherwise the next one replaces."""
        self.done, self.tried = self.done + 1, self.tried + (not is_skipped)
        self.failed += result.error is not None
        self.megapixels += result.megapixels
        for note in result.notes:
            log.info("%s: %s", output, note)
        if result.error is not None:
            log.error("%s", result.error)
        elif not is_skipped:
            seconds = time.perf_counter() - self.begin
            left_s = seconds / self.tried * (self.total - self.done)
            state = f"{self.megapixels / seconds:.2f} megapixels/s, {format_duration(left_s)} left"
            progress(f"{self.done}/{self.total} {output} {state}", keep=keep)
