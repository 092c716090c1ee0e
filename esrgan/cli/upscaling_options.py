"""Options and messages shared by the commands that upscale files."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esrgan.cli import arguments
from esrgan.console import log, progress
from esrgan.errors import EsrganError
from esrgan.pretrained import DEFAULT_MODEL, psnr_partner
from esrgan.progress import Progress
from esrgan.text import format_count, format_duration

if TYPE_CHECKING:
    from esrgan.bulk import BulkJob, ManifestRecord
    from esrgan.inference import FileJob, FileOptions, FileResult
    from esrgan.weights import GeneratorFile

OUTPUT_FORMATS = ("png", "jpg", "webp", "tif", "bmp", "gif", "tga", "dds", "ppm", "avif", "heic")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the model, the precision, and the size and format of outputs."""
    add_model_options(parser)
    parser.add_argument(
        "--suffix",
        type=_suffix,
        metavar="TEXT",
        help="what is appended to the names of outputs (default: _sr); '' only for another folder or format",
    )
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
    add_size_options(parser)
    parser.add_argument(
        "--dpi",
        type=_resolution,
        default="keep",
        metavar="N",
        help="resolution that outputs state: keep that of the input (the default, so they are larger in print), scale "
        "it with the size (as large in print as before), or a number of pixels per inch",
    )
    parser.add_argument(
        "--seamless",
        choices=("wrap", "wrap-x", "wrap-y", "mirror"),
        help="make outputs that can be repeated without seams, as for textures: continue the image by its opposite "
        "edge (wrap; only sideways: wrap-x; only downwards: wrap-y) or by its mirror image",
    )
    add_correction_options(parser)


def add_model_options(parser: argparse.ArgumentParser, default: str = DEFAULT_MODEL) -> None:
    """Add the options that choose the model and the precision."""
    parser.add_argument(
        "-m",
        "--model-path",
        action="append",
        type=arguments.location,
        metavar="FILE",
        help="generator, checkpoint, or a name listed by `esrgan models`; repeat it to apply several models one after "
        f"the other (default: {default})",
    )
    parser.add_argument(
        "--psnr-model-path", metavar="FILE", help="model to blend the last -m with (default: its partner)"
    )
    parser.add_argument(
        "--alpha",
        type=arguments.fraction,
        metavar="A",
        help="blend the last -m with its partner, mostly a PSNR model; share of -m in the blend, 0 to 1. With "
        "realesr-general-x4v3 this is the denoising strength",
    )
    arguments.add_precision(parser, "auto", arguments.AUTO_PRECISION)


def add_size_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the size of outputs."""
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--outscale",
        type=arguments.positive_float(64),
        metavar="X",
        help="upscaling factor of the output (default: the model's). An output that the model makes too large is "
        "reduced; a factor beyond the model's applies the model again",
    )
    for flag, text in (("--width", "width"), ("--height", "height"), ("--long-side", "longer side")):
        help_text = f"{text} of the output in pixels; the other side follows"
        arguments.add_number(size, flag, at_most=1_000_000_000, help=help_text)
    size.add_argument(
        "--megapixels", type=arguments.positive_float(100_000), metavar="X", help="millions of pixels of the output"
    )


def add_correction_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that correct the output of the model."""
    parser.add_argument(
        "--color-fix",
        choices=("mean", "low"),
        help="remove the drift of the model's colours: give the output the mean colour of the input, or its coarse "
        "colours (low)",
    )
    parser.add_argument(
        "--self-ensemble", action="store_true", help="average 8 flips and rotations; takes 8 times as long"
    )


def _resolution(text: str) -> str | float:
    """Parse a resolution, for ``type`` of an argument."""
    if text in ("keep", "scale"):
        return text
    return arguments.number("keep, scale, or a number from 1 to 65535", lambda value: 1 <= value <= 65535)(text)


def _suffix(text: str) -> str:
    """Check the suffix of names, for ``type`` of an argument."""
    if not text.isprintable() or {"/", os.sep} & {*text}:
        raise argparse.ArgumentTypeError(f"expected a part of a file name, got {text!r}")
    return text


def _colour(text: str) -> str:
    """Check a colour, for ``type`` of an argument."""
    from esrgan.images.flatten import parse_colour

    try:
        parse_colour(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an opaque colour such as white or #ffffff, got {text}") from None
    return text


def output_names(args: argparse.Namespace) -> tuple[str | None, str]:
    """Return the format suffix of all outputs, such as ".webp", or None, and what is appended to their stems."""
    from esrgan.inference import OUTPUT_ENDING

    return f".{args.format}" if args.format else None, OUTPUT_ENDING if args.suffix is None else args.suffix


def name_models(args: argparse.Namespace) -> str:
    """Return the names of the models for messages.

    Raises:
        EsrganError: If the options contradict each other, or the model has no PSNR partner.
    """
    *first, last = args.model_path or [DEFAULT_MODEL]
    if args.alpha is not None:
        last = f"{last} and {args.psnr_model_path or psnr_partner(last)}"
    elif args.psnr_model_path is not None:
        raise EsrganError("--psnr-model-path: needs --alpha, the share of -m in the blend")
    return ", then ".join([*first, last])


def load_models(args: argparse.Namespace) -> list[GeneratorFile]:
    """Load the models to apply one after the other; the last one may be a blend.

    Raises:
        WeightsError: If a file is not a generator, or two cannot be blended.
    """
    from esrgan.interpolation import load_blend

    *first, last = args.model_path or [DEFAULT_MODEL]
    return [*map(load_blend, first), load_blend(last, args.psnr_model_path, args.alpha)]


def describe_models(files: Sequence[GeneratorFile]) -> str:
    """Describe the networks of models in one line."""
    return "; then ".join(file.describe() for file in files)


def upscale_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of ``Upscaler``."""
    names = ["outscale", "width", "height", "long_side", "megapixels"]
    names += ["self_ensemble", "transparency", "seamless", "color_fix"]
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def file_options(args: argparse.Namespace, **settings: Any) -> FileOptions:
    """Return how to read inputs and write outputs. A chosen format may store fewer bits than the input has."""
    from esrgan.inference import FileOptions

    settings = {"reduce_depth": args.format is not None} | settings
    return FileOptions(quality=args.quality, background=args.background, resolution=args.dpi, **settings)


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


class Outcomes:
    """Logs the outcome of each image, and shows the progress.

    Args:
        sizes: The jobs, each with the size of its image in any unit.
    """

    def __init__(self, sizes: Mapping[FileJob, float] | Mapping[BulkJob, float]) -> None:
        self.progress = Progress(dict(sizes.items()))
        self.tried, self.failed, self.megapixels = 0, 0, 0.0
        self.begin = time.perf_counter()

    def add(
        self,
        job: FileJob | BulkJob,
        result: FileResult | ManifestRecord,
        *,
        is_skipped: bool = False,
        keep: bool = False,
    ) -> None:
        """Add the result of one image; ``keep`` logs a line that is kept where standard output is no terminal."""
        self.tried += not is_skipped
        self.failed += result.error is not None
        self.megapixels += result.megapixels
        self.progress.finish(job, without_work=is_skipped or result.error is not None)
        for note in result.notes:
            log.info("%s: %s", job.target, note)
        if result.error is not None:
            log.error("%s", result.error)
        elif not is_skipped and keep:
            shown, left_s = self.progress, self.progress.left_s
            left = "" if left_s is None or shown.finished == shown.total else f", {format_duration(left_s)} left"
            speed = self.megapixels / (time.perf_counter() - self.begin)
            digits = ".2g" if speed < 0.1 else ".2f"
            progress(f"{shown.finished}/{shown.total} {job.target} {speed:{digits}} megapixels/s{left}", keep=True)
