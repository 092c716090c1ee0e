"""``esrgan inference``: upscale images."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from esrgan.cli import arguments, process, spinning, upscaling_options
from esrgan.console import log
from esrgan.errors import EsrganError, LostDeviceError
from esrgan.progress import explain_interrupt
from esrgan.text import describe_error, format_count, one_line

EXAMPLES = """\
  esrgan inference photo.jpg
  esrgan inference photo.jpg -o result.png
  esrgan inference -m saved_models/20261121-120000_RRDB_ESRGAN_x4.pth photo.jpg
  esrgan inference -m RealESRGAN_x4plus.pth holiday/ scans/*.png -o upscaled --skip-existing
  esrgan inference --alpha 0.5 photo.jpg
  esrgan inference -m 1x-dejpeg.pth -m 4x.pth --long-side 3840 holiday/ -o upscaled
  esrgan inference -m 4x.pth --seamless wrap --transparency data textures/ -o upscaled
  esrgan inference -m gan.pth --psnr-model-path psnr.pth --alpha 0.8 photo.jpg
  torchrun --nproc-per-node 4 -m esrgan inference -m model.pth holiday/ -o upscaled"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan inference``."""
    parser = arguments.make_parser(
        "inference",
        "Upscale images. Outputs are named <name>_sr and written next to their inputs, or to the folder given with -o.",
        EXAMPLES,
    )
    text = (
        "output folder, in which the structure of input folders is kept, or the output file of a single image, such "
        "as result.png (default: next to each input)"
    )
    arguments.add_path(parser, "-o", "--out-dir", metavar="DIR", help=text)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="overwrite existing outputs")
    existing.add_argument("--skip-existing", action="store_true", help="skip images whose output exists (resume)")
    upscaling_options.add_options(parser)
    parser.add_argument("images", nargs="+", help="files, folders (searched recursively) or glob patterns")
    arguments.add_device(parser)
    return parser


@contextmanager
def wait_for_all_processes(processes: int, resuming: str, outputs: Sequence[str] = ()) -> Iterator[None]:
    """Keep each process alive until all are done, because torchrun stops the rest when one exits with an error.

    Args:
        processes: How many there are.
        resuming: The command that resumes, in words.
        outputs: The names of all outputs; each process makes its share of them, so all must have the same ones.

    Raises:
        EsrganError: If the processes cannot connect, have different outputs, or another one has ended too early.
    """
    if processes == 1:
        yield
        return
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore

    from esrgan import rendezvous

    store, rank, world_size = rendezvous.connect()
    try:
        # torchrun keeps its store across restarts, with the entries of the previous processes.
        store = PrefixStore(rendezvous.agree_on_key(store, rank, world_size), store)
        dist.init_process_group("gloo", timeout=rendezvous.TIMEOUT, store=store, rank=rank, world_size=world_size)
        group: Any = dist.new_group(timeout=timedelta(days=30))  # some processes finish long before others
        digests = [""] * world_size
        dist.all_gather_object(digests, hashlib.sha256(json.dumps(list(outputs)).encode()).hexdigest())
    except RuntimeError as error:
        reason = one_line(describe_error(error), 160)
        remedy = "start all of them again, on machines that can reach each other"
        raise EsrganError(f"another process has ended or cannot be reached ({reason}); {remedy}") from error
    if len(set(digests)) > 1:
        dist.destroy_process_group()
        remedy = "give all of them folders with the same images, as each upscales its share of one list"
        raise EsrganError(f"the {world_size} processes have found different images; {remedy}")
    yield
    try:
        waiting: Any = dist.barrier(group, async_op=True)
        while not waiting.is_completed():
            time.sleep(0.05)  # PyTorch's own wait handles no signals
        waiting.wait()
    except RuntimeError as error:
        remedy = f"correct its error, then {resuming} resumes"
        raise EsrganError(f"another process has ended before it was done; {remedy}") from error
    dist.destroy_process_group()


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    free_cpus = spinning.watch_load()
    with process.importing():
        import torch

        from esrgan import files
        from esrgan.devices import follow_free_cpus, select_local_device
        from esrgan.images import measure_images
        from esrgan.inference import Upscaler, is_output_file, plan_jobs, upscale_files
        from esrgan.rendezvous import count_processes

    names = upscaling_options.name_models(args)
    is_file = args.out_dir is not None and is_output_file(args.out_dir)
    if args.suffix is not None and is_file:
        raise EsrganError("--suffix: cannot be combined with -o FILE, which is the whole name; leave out one of them")
    if args.suffix == "" and args.out_dir is None and args.format is None:
        raise EsrganError("--suffix: outputs without a suffix would overwrite their inputs; add -o DIR or --format")
    jobs, skipped_inputs = plan_jobs(args.images, args.out_dir, *upscaling_options.output_names(args))
    # Under torchrun each process upscales its share of the files.
    rank, processes = count_processes()
    outputs = [job.target.name for job in jobs]
    jobs = jobs[rank::processes]
    models = upscaling_options.load_models(args)
    device = str(select_local_device(args.device))
    upscaler = Upscaler.from_file(models, device, args.precision, **upscaling_options.upscale_settings(args))
    if args.out_dir is not None and not is_file:
        files.create_folder(args.out_dir)
    described = upscaling_options.describe_models(models)
    log.info("%s: %s; on %s in %s", names, described, upscaler.device, upscaler.arithmetic)
    for line in upscaling_options.describe_skipped(skipped_inputs):
        log.info("%s", line)

    options = upscaling_options.file_options(
        args,
        overwrite=args.overwrite,
        skip_existing=args.skip_existing,
        reduce_depth=args.format is not None or is_file,
    )
    sizes = measure_images({job: job.source for job in jobs})
    remedy = "the same command" if args.skip_existing else "the same command with --skip-existing"
    if args.overwrite:
        remedy += " in place of --overwrite"

    def describe_interruption() -> str:
        written = sum(job.target.is_file() for job in jobs if job in shown.progress.worked_on)
        upscaled = shown.tried - shown.failed + written
        return f"{upscaled:,} of {format_count(len(jobs), 'image')} upscaled; {remedy} resumes"

    threads = torch.get_num_threads()
    with wait_for_all_processes(processes, remedy, outputs):
        shown = upscaling_options.Outcomes(sizes)  # whose clock starts when all processes have connected
        with explain_interrupt(describe_interruption):
            if upscaler.winograd and free_cpus is not None:
                follow_free_cpus(free_cpus, threads)
            try:
                for result in upscale_files(
                    upscaler, jobs, options, lambda job, share: shown.progress.update(job, share, str(job.target))
                ):
                    shown.add(result.job, result, is_skipped=result.is_skipped, keep=True)
                    if upscaler.winograd and free_cpus is not None:
                        follow_free_cpus(free_cpus, threads)
            except LostDeviceError as error:
                raise error.with_remedy(f"{remedy} resumes") from error
    upscaled, skipped = shown.tried - shown.failed, shown.progress.finished - shown.tried
    log.info(upscaling_options.describe_total(upscaled, len(jobs), skipped, shown.failed))
    return process.SOME_FAILED if shown.failed else process.OK
