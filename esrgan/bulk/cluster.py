"""Find the images to upscale, upscale them in a Ray Data job, and record the outcomes in a manifest."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from esrgan import files, images
from esrgan.bulk import storage
from esrgan.devices import end_worker
from esrgan.errors import EsrganError, ImageError, LostDeviceError, Problem
from esrgan.images.sidecars import world_file_suffixes
from esrgan.inference import (
    OUTPUT_ENDING,
    FileJob,
    FileOptions,
    FileResult,
    Job,
    Upscaler,
    is_output_file,
    name_outputs,
    upscale_files,
)
from esrgan.locks import lock
from esrgan.weights import GeneratorFile

MANIFEST_NAME = "esrgan-bulk.jsonl"
# A task has several images, so a million images do not become a million tasks. It has few enough that each worker gets
# many tasks, which balances the load.
MAX_IMAGES_PER_TASK, TASKS_PER_WORKER = 16, 32
MAX_ATTEMPTS = 4  # limit for a task whose workers are lost again and again


@dataclass(frozen=True)
class BulkJob(Job[str]):
    """An image and the place of its output, each an absolute path or a URI."""


@dataclass(frozen=True)
class ManifestRecord:
    """The outcome of one image: a line of the manifest.

    Attributes:
        source: The image.
        output: The place of its output.
        status: "upscaled", "failed", or "recovered" if a worker finished the image but was lost before it reported it.
        seconds: How long the worker took.
        worker: Machine and process of the worker.
        error: Why the image failed; None if it did not.
        megapixels: Size of the output, all frames together.
        notes: Sentences about what the output does not preserve, such as bit depth.
    """

    source: str
    output: str
    status: str
    seconds: float | None = None
    worker: str | None = None
    error: str | None = None
    megapixels: float = 0.0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class WorkerOptions:
    """How each worker upscales.

    Attributes:
        precision: Precision, as for ``Upscaler.from_file``.
        upscaling: Those of ``UpscaleOptions``, by name.
        files: How to read images and write outputs.
    """

    precision: str = "auto"
    upscaling: Mapping[str, Any] = field(default_factory=dict)
    files: FileOptions = field(default_factory=FileOptions)


def find_pending_jobs(
    inputs: Sequence[str],
    listed: Sequence[str],
    out_dir: str,
    suffix: str | None = None,
    ending: str = OUTPUT_ENDING,
) -> tuple[list[BulkJob], int, dict[str, str]]:
    """Find the images whose output does not exist yet; outputs are named as by ``esrgan.inference.plan_jobs``.

    Args:
        inputs: Files, folders and glob patterns, or URIs of files and folders.
        listed: Files and URIs of files; whether they exist is not checked. Their outputs mirror the folders below the
            deepest folder that contains all of them.
        out_dir: Folder for the outputs, or its URI.
        suffix: Suffix of the outputs, such as ``.webp``; None keeps the suffix of each image.
        ending: What is appended to the stem of each name, as for ``plan_jobs``.

    Returns:
        The jobs, the number of outputs that already exist, and a mapping from each path or URI that is skipped to the
        reason. An input that matches no image becomes a job with a ``problem``.

    Raises:
        ImageError: If no input matches an image, ``out_dir`` has the name of an image, or a file system cannot be
            reached.
    """
    inputs, listed = [[*map(storage.strip_file_scheme, paths)] for paths in (inputs, listed)]
    out_dir = storage.strip_file_scheme(out_dir)
    if is_output_file(Path(out_dir)):
        remedy = "choose another name, or create a folder with this name first"
        raise ImageError(Problem(out_dir, "an output folder", "the name of an image file", remedy))
    local = [path for path in inputs if not storage.is_uri(path)]
    search = images.search_images(local, images.SUFFIXES)
    relative_paths = {path.absolute(): place for path, place in search.files.items()}
    sources = {path: str(path) for path in relative_paths}
    skipped = {str(path): reason for path, reason in search.skipped.items()}
    for uri in filter(storage.is_uri, inputs):
        listed_images, others = storage.list_images(uri)
        skipped |= others
        found = {storage.local_stand_in(file): (file, place) for file, place in listed_images.items()}
        if not found:
            search.problems.append(Problem(uri, "an image or a folder with images", "none", "check the address"))
        relative_paths |= {path: Path(place) for path, (_, place) in found.items()}
        sources |= {path: file for path, (file, _) in found.items()}
    if listed:
        named = {storage.local_stand_in(file): file for file in listed}
        try:
            root = os.path.commonpath([path.parent for path in named])
        except ValueError as error:  # on Windows
            expected, remedy = "files on one drive", "list the files of each drive in a file of their own"
            raise ImageError(Problem("--list", expected, "files on several drives", remedy)) from error
        relative_paths |= {path: path.relative_to(root) for path in named}
        sources |= {path: file if storage.is_uri(file) else str(path) for path, file in named.items()}
    if search.problems and not sources:
        raise ImageError(search.problems)

    out = storage.local_stand_in(out_dir)
    local_jobs, previous_outputs = name_outputs(relative_paths, out, suffix, ending)
    root = out_dir.rstrip("/") if storage.is_uri(out_dir) else str(out)
    with storage.open_filesystem(root) as (system, folder):
        existing = set(system.find(folder))
    jobs = [BulkJob(problem.place, root, problem=problem) for problem in search.problems]
    missing = len(jobs)
    for job in local_jobs:
        place = job.target.relative_to(out).as_posix()
        if job.problem is not None or f"{folder}/{place}" not in existing:
            conflict = None if job.conflict is None else sources[job.conflict]
            problem = None if job.problem is None else replace(job.problem, place=sources[job.source])
            jobs.append(BulkJob(sources[job.source], f"{root}/{place}", conflict, problem, note=job.note))
    skipped |= {sources[path]: reason for path, reason in previous_outputs.items()}
    return jobs, missing + len(local_jobs) - len(jobs), skipped


@contextmanager
def open_manifest(out_dir: str) -> Iterator[Callable[[ManifestRecord], None]]:
    """Open the manifest of a folder or URI for appending.

    In a folder each line is written at once. Object stores cannot append, so there all lines are written when the block
    ends.

    Args:
        out_dir: Folder for the outputs, or its URI.

    Yields:
        A function that appends a record.

    Raises:
        EsrganError: If the manifest cannot be written, or another job has it open.
    """
    manifest = f"{storage.strip_file_scheme(out_dir).rstrip('/')}/{MANIFEST_NAME}"
    lines: list[bytes] = []

    def add(record: ManifestRecord) -> None:
        line = json.dumps(asdict(record)).encode() + b"\n"
        if local is None:
            lines.append(line)
            return
        with _explain_write_errors(Path(manifest)):
            local.write(line)
            local.flush()

    with ExitStack() as stack:
        local = None
        if not storage.is_uri(manifest):
            with _explain_write_errors(Path(manifest)):
                Path(manifest).parent.mkdir(parents=True, exist_ok=True)
                local = stack.enter_context(
                    lock(Path(manifest), f"{manifest}: another job is writing into this folder")
                )
        try:
            yield add
        finally:
            if lines:
                with storage.open_filesystem(manifest) as (system, path):
                    before = system.cat_file(path) if system.isfile(path) else b""
                    system.pipe_file(path, before + b"".join(lines))


@contextmanager
def _explain_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise files.write_error(path, error) from error


def upscale_on_cluster(
    jobs: Sequence[BulkJob],
    models: Sequence[GeneratorFile],
    options: WorkerOptions,
    workers: int,
    gpus_per_worker: float,
) -> Iterator[ManifestRecord]:
    """Upscale images on the Ray cluster that this process is connected to.

    This is a generator: nothing happens until it is iterated.

    If a worker is lost, other workers take over its images, except those that it had finished: outputs are written
    completely or not at all, and a worker skips an image whose output exists. An image whose task is lost
    ``MAX_ATTEMPTS`` times is retried in a task of its own before it is marked as failed. If an image fails, the rest
    are still upscaled.

    Args:
        jobs: The jobs, as returned by ``find_pending_jobs``.
        models: The generators to apply one after the other; workers get them from this process.
        options: How each worker upscales.
        workers: Maximum number of workers; they wait until the cluster has room for them.
        gpus_per_worker: GPUs per worker, may be fractional; 0 uses one CPU core per worker.

    Yields:
        The record of each image as soon as it is known.

    Raises:
        EsrganError: If no worker can start.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # unlimited, because images without a record are retried or marked as failed below
    model = ray.put(models)
    pending = {job.source: job for job in jobs if job.obstacle is None}
    for job in jobs:
        if job.obstacle is not None:
            yield ManifestRecord(job.source, job.target, "failed", error=str(job.obstacle))
    for max_images in (MAX_IMAGES_PER_TASK, 1):
        if not pending:
            break
        rows = [{"job": json.dumps(asdict(job))} for job in pending.values()]
        attempts = _start_attempt_counter()
        images_per_task = min(max(len(rows) // (workers * TASKS_PER_WORKER), 1), max_images)
        results = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // images_per_task)).map_batches(
            Worker,
            fn_constructor_args=(model, options, attempts),
            batch_size=images_per_task,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
            num_cpus=1,
            num_gpus=gpus_per_worker,
        )
        try:
            for row in results.iter_rows():
                record = ManifestRecord(**json.loads(row["record"]))
                if pending.pop(record.source, None) is not None:  # Ray repeats a task whose result it has lost
                    yield record
        except ray.exceptions.RayError as error:  # such as workers that cannot start
            *_, last = type(error).__name__, *str(error).splitlines()
            remedy = "fix this and run the same command again to resume"
            raise EsrganError(f"the Ray job failed: {last.strip()}; {remedy}") from error
    reason = f"its worker was lost or failed up to {MAX_ATTEMPTS} times"
    remedy = "check the free memory and the temporary folder"
    for job in pending.values():
        yield ManifestRecord(job.source, job.target, "failed", error=str(Problem.failure(job.source, reason, remedy)))
    for folder in {Path(job.target).parent for job in jobs if not storage.is_uri(job.target)}:
        files.remove_abandoned(folder)


def _start_attempt_counter() -> Any:
    """Start an actor that counts the attempts at each task, because Ray itself would retry forever.

    The actor runs on the machine of this process. Its class is defined here so that the actor does not import PyTorch.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class AttemptCounter:
        def __init__(self) -> None:
            self.counts: dict[str, int] = {}

        def count(self, task: str) -> int:
            self.counts[task] = self.counts.get(task, 0) + 1
            return self.counts[task]

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(AttemptCounter)
    return actor.remote()


class Worker:
    """An actor that keeps the model in memory and upscales the images of one task after the other.

    What is in object stores passes through a temporary folder, because ``upscale_files`` reads and writes local files.
    """

    def __init__(self, model: Any, options: WorkerOptions, attempts: Any) -> None:
        import ray

        self.attempts = attempts
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.options = replace(options.files, keep_abandoned=True)  # the folders may be large
        self.upscaler = Upscaler.from_file(
            ray.get(model),
            "cuda" if ray.get_gpu_ids() else "cpu",
            options.precision,
            **options.upscaling,
        )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Upscale a batch of jobs and return their records, both as JSON because its ASCII can hold any file name."""
        import ray

        if ray.get(self.attempts.count.remote(batch["job"][0])) > MAX_ATTEMPTS:
            return {"record": []}
        jobs = [BulkJob(**json.loads(text)) for text in batch["job"]]
        with tempfile.TemporaryDirectory(prefix="esrgan-") as folder, ThreadPoolExecutor(len(jobs)) as pool:
            staged = {_make_local_job(job, Path(folder, str(i))): job for i, job in enumerate(jobs)}
            records = [*pool.map(_download_source, staged.values(), staged)]
            uploads: list[Future[ManifestRecord]] = []
            local_jobs = [job for job, record in zip(staged, records, strict=True) if record is None]
            begin, lost = time.perf_counter(), None
            try:
                for result in upscale_files(self.upscaler, local_jobs, self.options):
                    seconds = round(time.perf_counter() - begin, 3)
                    begin += seconds
                    uploads.append(pool.submit(self._upload_output, staged[result.job], result, seconds))
            except LostDeviceError as error:
                lost = error
            done = [record for record in records if record is not None] + [future.result() for future in uploads]
        if lost:
            end_worker(lost)
        return {"record": [json.dumps(asdict(record)) for record in done]}

    def _upload_output(self, job: BulkJob, result: FileResult, seconds: float) -> ManifestRecord:
        """Copy an output to its place and return the record."""
        try:
            if result.error is not None:
                # Users know the image and its output by their own places, not by those of the local copies.
                places = {str(result.job.source): job.source, str(result.job.target): job.target}
                raise ImageError(replace(result.error, place=places.get(result.error.place, result.error.place)))
            notes = _upload_files(result.job.target, job.target) if storage.is_uri(job.target) else []
        except EsrganError as error:
            with suppress(EsrganError):  # if the place cannot be reached, the first error is reported
                if storage.exists(job.target):  # by a worker that was taken for lost but had continued
                    return ManifestRecord(job.source, job.target, "recovered")
            return ManifestRecord(job.source, job.target, "failed", seconds, self.name, str(error))
        size, notes = round(result.megapixels, 6), [*result.notes, *notes]
        return ManifestRecord(job.source, job.target, "upscaled", seconds, self.name, None, size, notes)


def _make_local_job(job: BulkJob, folder: Path) -> FileJob:
    """Choose the local files that ``upscale_files`` reads and writes for a job."""
    folder.mkdir()
    source, target = (
        folder / f"{name}{Path(place).suffix}" if storage.is_uri(place) else Path(place)
        for name, place in (("source", job.source), ("result", job.target))
    )
    return FileJob(source, target, note=job.note)


def _upload_files(output: Path, uri: str) -> list[str]:
    """Move an output and its world files, which lie beside it, to a store, and return messages about the latter."""
    storage.upload(output, uri)
    output.unlink()
    notes = []
    for path in output.parent.glob(f"{output.stem}.*"):
        place = uri.removesuffix(output.suffix) + path.suffix
        if storage.exists(place):
            notes.append(f"{place} exists already and is kept")
        else:
            storage.upload(path, place)
    return notes


def _download_source(job: BulkJob, local_job: FileJob) -> ManifestRecord | None:
    """Copy an image to this machine; return a record instead if there is nothing left to do for it."""
    try:
        if storage.exists(job.target):
            return ManifestRecord(job.source, job.target, "recovered")
        if storage.is_uri(job.source):
            storage.download(job.source, local_job.source)
            for suffix in world_file_suffixes(local_job.source.suffix):
                place = job.source.removesuffix(local_job.source.suffix) + suffix
                is_there = False
                with suppress(EsrganError):  # some stores forbid to ask for files that do not exist
                    is_there = storage.exists(place)
                if is_there:
                    storage.download(place, local_job.source.with_suffix(suffix))
    except EsrganError as error:
        return ManifestRecord(job.source, job.target, "failed", error=str(error))
    return None
