"""``esrgan bulk``: upscale images on a Ray cluster."""

from __future__ import annotations

import argparse
import codecs
from pathlib import Path

from esrgan import extras
from esrgan.cli import arguments, cluster, process, upscaling_options
from esrgan.console import log
from esrgan.errors import EsrganError, Problem
from esrgan.progress import explain_interrupt
from esrgan.text import describe_error

EXAMPLES = """\
  esrgan bulk holiday/ scans/ -o upscaled
  esrgan bulk --list photos.txt -o /shared/upscaled --address auto --workers 8
  esrgan bulk s3://bucket/photos -o s3://bucket/upscaled --address auto -m realesrgan-x4plus"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan bulk``."""
    parser = arguments.make_parser(
        "bulk",
        "Upscale images on a Ray cluster, or on all GPUs or cores of this machine.\n"
        "Images whose output exists are skipped, so the same command resumes an interrupted run.",
        EXAMPLES,
    )
    parser.add_argument(
        "images", nargs="*", help="files, folders (searched recursively), glob patterns, or URIs of files or folders"
    )
    arguments.add_path(parser, "--list", help="text file with one image path or URI per line")
    parser.add_argument(
        "-o",
        "--out-dir",
        required=True,
        type=arguments.location,
        metavar="DIR",
        help="output folder that all machines can access, or a URI",
    )
    upscaling_options.add_options(parser)
    cluster.add_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    extras.require_extra("ray")
    with process.importing():
        from esrgan import bulk
        from esrgan.inference.options import count_passes
        from esrgan.text import format_count

    names = upscaling_options.name_models(args)
    listed = _read_list(args.list) if args.list is not None else []
    if not args.images and not listed:
        raise EsrganError("esrgan bulk: no images to upscale; name images, or pass a --list that is not empty")
    jobs, existing, skipped = bulk.find_pending_jobs(
        args.images, listed, args.out_dir, *upscaling_options.output_names(args)
    )
    models = upscaling_options.load_models(args)
    if args.outscale is not None:  # before any worker starts
        count_passes([model.scale for model in models], models[-1].architecture.scale_factor, args.outscale)
    for line in upscaling_options.describe_skipped(skipped):
        log.info("%s", line)

    shown = upscaling_options.Outcomes(dict.fromkeys(jobs, 1.0))
    by_source = {job.source: job for job in jobs}

    def describe_interruption() -> str:
        upscaled = f"{shown.tried - shown.failed:,} of {format_count(existing + len(jobs), 'image')} upscaled"
        return f"{upscaled}{f', {existing:,} skipped' if existing else ''}; the same command resumes"

    if jobs:
        options = bulk.WorkerOptions(
            args.precision,
            upscaling_options.upscale_settings(args),
            upscaling_options.file_options(args),
        )
        with (
            explain_interrupt(describe_interruption),
            cluster.connect(args.address),
            bulk.open_manifest(args.out_dir) as add,
        ):
            gpus, workers = cluster.allocate_workers(args.num_gpus_per_worker, args.workers)
            described = upscaling_options.describe_models(models)
            log.info("%s: %s; %s", names, described, cluster.describe_workers(gpus, workers))
            for record in bulk.upscale_on_cluster(jobs, models, options, workers, gpus):
                add(record)
                shown.add(by_source[record.source], record)
    upscaled = shown.tried - shown.failed
    log.info(upscaling_options.describe_total(upscaled, existing + len(jobs), existing, shown.failed))
    return process.SOME_FAILED if shown.failed else process.OK


def _read_list(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        got = f"cannot be read: {describe_error(error)}"
        raise EsrganError(Problem.failure(path, got, "check the path of --list")) from error
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell writes
    text = content.decode("utf-16", "replace") if is_utf16 else content.decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        expected, remedy = "a text file with one path or URI per line", "save it as UTF-8"
        raise EsrganError(Problem(str(path), expected, "a binary file", remedy))
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]
