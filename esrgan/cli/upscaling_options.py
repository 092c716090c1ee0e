"""What the commands that upscale share: with which model, and how."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from esrgan.cli import arguments
from esrgan.errors import EsrganError
from esrgan.pretrained import DEFAULT_MODEL, psnr_partner

if TYPE_CHECKING:
    from esrgan.weights import GeneratorFile

OUTPUT_FORMATS = ("png", "jpg", "webp", "tif", "bmp", "gif", "avif", "heic")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "-m",
        "--model-path",
        default=DEFAULT_MODEL,
        metavar="FILE",
        help=f"generator, checkpoint, or a name that `esrgan models` lists (default: {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--psnr-model-path", metavar="FILE", help="to blend -m with (default: its own partner, if it has one)"
    )
    parser.add_argument("--alpha", type=arguments.fraction, metavar="A", help="share of -m in the blend, 0 to 1")
    parser.add_argument(
        "--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto", help="default: auto, the fastest"
    )
    parser.add_argument("--format", choices=OUTPUT_FORMATS, help="of the results (default: each image's own)")
    parser.add_argument(
        "--quality", type=_percent, metavar="Q", help="of lossy formats, 1 to 100 (default: 95); makes WebP lossy"
    )
    parser.add_argument(
        "--outscale",
        type=partial(arguments.positive_float, at_most=64),
        metavar="X",
        help="final factor (default: the model's)",
    )
    parser.add_argument("--self-ensemble", action="store_true", help="average 8 flips and turns: 8 times the work")


def check_options(args: argparse.Namespace) -> None:
    """Check what the parser cannot, and fill in the partner of the model that is to be blended.

    Raises:
        EsrganError: If options contradict each other, or there is no partner.
    """
    if args.alpha is None and args.psnr_model_path is not None:
        raise EsrganError("--psnr-model-path: expected --alpha too, the share of the model in the blend")
    if args.alpha is not None and args.psnr_model_path is None:
        args.psnr_model_path = psnr_partner(args.model_path)


def load_model(args: argparse.Namespace) -> tuple[GeneratorFile, str]:
    """Load the model, a blend if that is asked for; give it and its name in words.

    Raises:
        WeightsError: If a file is no generator.
    """
    from esrgan.interpolation import blend
    from esrgan.weights import load_generator

    if args.alpha is None:
        return load_generator(args.model_path), args.model_path
    psnr, gan = load_generator(args.psnr_model_path), load_generator(args.model_path)
    return blend(psnr, gan, args.alpha), f"{args.model_path} and {args.psnr_model_path}"


def describe_skipped(skipped: Mapping[Path, str]) -> Iterator[str]:
    """Say what is left out: a line for each reason, with the first of the files."""
    for reason in dict.fromkeys(skipped.values()):
        first, *others = (path for path, why in skipped.items() if why == reason)
        yield f"left out, {reason}: {first}{f' and {len(others)} more' if others else ''}"


def _percent(text: str) -> int:
    value = arguments.positive_int(text)
    if value > 100:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 100, got {text}")
    return value
