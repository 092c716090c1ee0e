"""``esrgan compare``: show what several models make of the same images."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from esrgan.cli import arguments, process, upscaling_options
from esrgan.console import log
from esrgan.progress import Progress, explain_interrupt
from esrgan.text import format_count

EXAMPLES = """\
  esrgan compare photo.jpg -m esrgan-photo esrgan-lite esrgan-full
  esrgan compare scans/ -m models/*.pth -o sheets"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan compare``."""
    parser = arguments.make_parser(
        "compare",
        "Show the most detailed parts of images, upscaled by several models, on one sheet for each image.\n"
        "Sheets are named <name>_compare.png and written next to the images, or to the folder given with -o.",
        EXAMPLES,
    )
    parser.add_argument("images", nargs="+", help="files, folders (searched recursively) or glob patterns")
    parser.add_argument(
        "-m",
        "--model-paths",
        nargs="+",
        action="extend",
        type=arguments.location,
        required=True,
        metavar="FILE",
        help="generators, checkpoints, or names listed by `esrgan models`",
    )
    arguments.add_path(parser, "-o", "--out-dir", metavar="DIR", help="folder for the sheets (default: next to images)")
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing sheets")
    arguments.add_precision(parser, "auto", arguments.AUTO_PRECISION)
    arguments.add_device(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    with process.importing():
        from esrgan import images
        from esrgan.devices import select_device
        from esrgan.errors import EsrganError, LostDeviceError, Problem
        from esrgan.files import create_folder
        from esrgan.inference import Upscaler, compare_models, is_output_file, plan_jobs

    if args.out_dir is not None and is_output_file(args.out_dir):
        raise EsrganError(Problem(str(args.out_dir), "a folder for the sheets", "the name of an image"))
    jobs, skipped = plan_jobs(args.images, args.out_dir, ".png", "_compare")
    for line in upscaling_options.describe_skipped(skipped):
        log.info("%s", line)
    short = [Path(name).stem for name in args.model_paths]
    names = short if len(set(short)) == len(short) else args.model_paths
    device = str(select_device(args.device))  # once, because it warns of each GPU that cannot be used
    upscalers = {
        name: Upscaler.from_file(path, device, args.precision)
        for name, path in zip(names, args.model_paths, strict=True)
    }
    failed = 0
    shown = Progress(dict.fromkeys(jobs, 1.0))
    with explain_interrupt(lambda: f"{shown.finished - failed:,} of {format_count(len(jobs), 'sheet')} written"):
        for job in jobs:
            shown.update(job, 0.0, str(job.target))
            try:
                if job.obstacle is not None:
                    raise EsrganError(job.obstacle)
                arguments.check_overwrite([job.target], overwrite=args.overwrite)
                report = functools.partial(shown.update, job, name=str(job.target))
                image = images.read_image(job.source)
                sheet = compare_models(upscalers, image, report)
                create_folder(job.target.parent)
                for note in images.write_image(job.target, sheet, overwrite=args.overwrite):
                    log.warning("%s: %s", job.target, note)
            except LostDeviceError:
                raise
            except EsrganError as error:
                log.error("%s", error)
                failed += 1
            else:
                log.info("%d/%d %s", shown.finished + 1, len(jobs), job.target)
            shown.finish(job)
    return process.SOME_FAILED if failed else process.OK
