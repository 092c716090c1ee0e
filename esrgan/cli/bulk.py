"""``esrgan bulk``: upscale images on a Ray cluster."""

from __future__ import annotations

import argparse
import logging
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esrgan import extras
from esrgan.cli import arguments, process, upscaling_options
from esrgan.console import log
from esrgan.errors import DeviceError, EsrganError, Problem
from esrgan.progress import explain_interrupt
from esrgan.text import describe_error

EXAMPLES = """\
  esrgan bulk holiday/ scans/ -o upscaled
  esrgan bulk --list photos.txt -o /shared/upscaled --address auto --workers 8
  esrgan bulk s3://bucket/photos -o s3://bucket/upscaled --address auto -m realesrgan-x4plus"""
CONNECT_TIMEOUT_S = 10  # limit for a connection to the address of the cluster


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
    parser.add_argument(
        "--address",
        help="address of a Ray cluster, or auto for the one on this machine (default: $RAY_ADDRESS, else no cluster)",
    )
    arguments.add_number(parser, "--workers", help="number of workers (default: as many as there are resources for)")
    parser.add_argument(
        "--num-gpus-per-worker",
        type=arguments.number(
            "0, a fraction below 1 or an integer below 1000", lambda value: 0 <= value < 1 or value in range(1, 1000)
        ),
        metavar="X",
        help="GPUs per worker, can be a fraction such as 0.5; 0 = CPU (default: 1 if the cluster has GPUs)",
    )
    return parser


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """Discard what the block writes to standard error; Ray's C++ code prints its log level there unconditionally."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def _connect_to_cluster(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start one on this machine, and keep Ray quiet."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # otherwise Ray reports each cluster to its developers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    host, _, port = address.rpartition("/")[2].rpartition(":")
    try:
        if port.isdecimal():  # Ray itself would retry for many minutes
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
        with _silence_stderr():
            ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        got = " ".join(str(error).split())
        raise EsrganError(
            Problem(f"--address {address}", "a Ray cluster", got, "start one with `ray start --head`")
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


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
        count_passes(math.prod(model.architecture.scale_factor for model in models), args.outscale)
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
            _connect_to_cluster(args.address),
            bulk.open_manifest(args.out_dir) as add,
        ):
            gpus, workers = _allocate_workers(args.num_gpus_per_worker, args.workers)
            place = f"with {gpus:g} GPU{'s' * (gpus > 1)} each" if gpus else "on CPU"
            described = upscaling_options.describe_models(models)
            log.info("%s: %s; up to %s %s", names, described, format_count(workers, "worker"), place)
            for record in bulk.upscale_on_cluster(jobs, models, options, workers, gpus):
                add(record)
                shown.add(by_source[record.source], record)
    upscaled = shown.tried - shown.failed
    log.info(upscaling_options.describe_total(upscaled, existing + len(jobs), existing, shown.failed))
    return process.SOME_FAILED if shown.failed else process.OK


def _read_list(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError as error:
        got = f"cannot be read: {describe_error(error)}"
        raise EsrganError(Problem.failure(path, got, "check the path of --list")) from error
    if any("\0" in line for line in lines):
        raise EsrganError(Problem(str(path), "a text file with one path or URI per line", "a binary file"))
    return [line.removesuffix("\r") for line in lines if line.strip()]


def _allocate_workers(gpus: float | None, workers: int | None) -> tuple[float, int]:
    """Return the GPUs per worker and the number of workers."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = max(node.get("GPU", 0) for node in nodes)
    if gpus is None:
        gpus = min(largest, 1)
    if gpus > largest:
        got = f"the largest machine in the cluster has {largest:g} GPU{'s' * (largest != 1)}"
        raise DeviceError(f"--num-gpus-per-worker {gpus:g}: {got}; use a smaller number, or 0 for CPU")
    kind, share = ("GPU", gpus) if gpus else ("CPU", 1)
    room = sum(int(node.get(kind, 0) / share) for node in nodes)
    return gpus, workers or max(room, 1)
