"""``esrgan inference``: upscale images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from esrgan import images
from esrgan.cli import command

EXAMPLES = """\
  python inference.py -m saved_models/20261121-120000_RRDB_ESRGAN_x4.pth photo.jpg
  python inference.py -m RealESRGAN_x4plus.pth holiday/ scans/*.png -o enlarged"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    parser = command.make_parser("inference", "Upscale images; each becomes <name>_sr beside it or in -o.", EXAMPLES)
    parser.add_argument("-m", "--model-path", type=Path, required=True, metavar="FILE", help="generator or checkpoint")
    parser.add_argument("-o", "--out-dir", type=Path, metavar="DIR", help="where to (default: beside each image)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there already")
    parser.add_argument(
        "--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto", help="default: auto, the fastest"
    )
    parser.add_argument("images", nargs="+", help="files, folders (with all below) or patterns")
    command.add_device(parser)
    return command.run(parser, _inference, argv)


def _inference(args: argparse.Namespace) -> int:
    from esrgan import pictures
    from esrgan.console import Console, duration
    from esrgan.inference.batch import Result, upscale_files, without_results
    from esrgan.inference.upscaler import Upscaler
    from esrgan.weights import load_generator

    found = images.find(args.images, pictures.SUFFIXES)
    paths = without_results(found, named=[Path(name) for name in args.images])
    file = load_generator(args.model_path)
    upscaler = Upscaler.from_file(file, args.device, args.precision)
    console = Console()
    if len(paths) < len(found):
        console.line(f"{len(found) - len(paths)} images are results of an earlier run and left out")
    precision = str(upscaler.dtype).removeprefix("torch.")
    console.line(f"{args.model_path}: {file.describe()}; on {upscaler.device} in {precision}")

    done: list[Result] = []

    def report(result: Result) -> None:
        done.append(result)
        if result.error is not None:
            console.end()
            print(f"error: {result.error}", file=sys.stderr)
            return
        seconds = sum(item.seconds for item in done)
        left_s = seconds / len(done) * (len(paths) - len(done))
        speed = sum(item.megapixels for item in done) / seconds
        console.live(
            f"{len(done)}/{len(paths)} {result.target} {speed:.2f} megapixels/s, {duration(left_s)} left", keep=True
        )

    results = upscale_files(upscaler, paths, args.out_dir, args.overwrite, report)
    failed = sum(result.error is not None for result in results)
    console.line(f"{len(results) - failed} of {len(results)} images upscaled{f', {failed} failed' if failed else ''}")
    return command.SOME_FAILED if failed else command.OK
