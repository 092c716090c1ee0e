"""The Ray Data job: what is to do, who does it, what became of it."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from esrgan import files, images, pictures
from esrgan.bulk import storage
from esrgan.errors import EsrganError, ImageError
from esrgan.inference import Job, Options, Result, Upscaler, upscale_files
from esrgan.inference.batch import name_results
from esrgan.weights import GeneratorFile

MANIFEST = "esrgan-bulk.jsonl"
# Several images, so that a million of them are not a million tasks, but few enough for each worker to get many tasks.
MOST_IMAGES_A_TASK, TASKS_A_WORKER = 16, 32
MOST_ATTEMPTS = 4  # at a task whose worker is lost


@dataclass(frozen=True)
class Task:
    """An image and where its result goes, each an absolute path or a URI.

    Attributes:
        source: The image.
        target: Of the result.
        rival: Another image whose result would have that name too, so that neither gets one.
    """

    source: str
    target: str
    rival: str | None = None


@dataclass(frozen=True)
class Record:
    """What became of an image: a line of the manifest.

    Attributes:
        source: The image.
        output: Its result.
        status: "upscaled"; "recovered" if a worker had finished it and was lost before it could report; or "failed".
        seconds: What it took the worker.
        worker: Its machine and process.
        error: Why there is no result.
        megapixels: Size of the result.
        notes: What it does not keep of the file, in words.
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
class Settings:
    """How each worker upscales; the attributes are those of ``Upscaler.from_file`` and ``Options``."""

    precision: str = "auto"
    self_ensemble: bool = False
    outscale: float | None = None
    quality: int | None = None
    reduce_depth: bool = False


def plan(
    inputs: Sequence[str], listed: Sequence[str], out_dir: str, suffix: str | None = None
) -> tuple[list[Task], int, dict[Path, str]]:
    """Find the images whose results are not there yet; results are named as by ``esrgan.inference.plan``.

    Args:
        inputs: Files, folders and patterns, or URIs of files and folders.
        listed: Files and URIs of files, which are not looked for. Their results mirror the folders below the deepest
            one that has them all.
        out_dir: A folder, or the URI of one.
        suffix: Of the results; None keeps each file's own.

    Returns:
        What is to do, how many results are there, and what is left out, with the reason.

    Raises:
        ImageError: If some of the inputs give no file, or a place cannot be reached.
    """
    inputs, listed, out_dir = [*map(storage.plain, inputs)], [*map(storage.plain, listed)], storage.plain(out_dir)
    local = [path for path in inputs if not storage.is_uri(path)]
    places = {path.absolute(): place for path, place in images.find(local, pictures.SUFFIXES).items()}
    left_out = {link: "links to folders are not followed" for path in local for link in images.linked_folders(path)}
    sources = {path: str(path) for path in places}
    for uri in filter(storage.is_uri, inputs):
        found = {storage.stand_in(file): (file, place) for file, place in storage.find_images(uri).items()}
        places |= {path: Path(place) for path, (_, place) in found.items()}
        sources |= {path: file for path, (file, _) in found.items()}
    if listed:
        named = {storage.stand_in(file): file for file in listed}
        root = os.path.commonpath([path.parent for path in named])
        places |= {path: path.relative_to(root) for path in named}
        sources |= {path: file if storage.is_uri(file) else str(path) for path, file in named.items()}

    out = storage.stand_in(out_dir)
    jobs, results = name_results(places, out, suffix)
    root = out_dir.rstrip("/") if storage.is_uri(out_dir) else str(out)
    with storage.system_of(root) as (system, folder):
        there = set(system.find(folder))
    tasks = []
    for job in jobs:
        place = job.target.relative_to(out).as_posix()
        if f"{folder}/{place}" not in there:
            rival = None if job.rival is None else sources[job.rival]
            tasks.append(Task(sources[job.source], f"{root}/{place}", rival))
    return tasks, len(jobs) - len(tasks), left_out | results


@contextmanager
def open_manifest(out_dir: str) -> Iterator[Callable[[Record], None]]:
    """Give the function that adds a line to the manifest of a folder or URI.

    In a folder a line is there at once. Object stores cannot append: there the lines are put when the block ends.

    Raises:
        EsrganError: If it cannot be written, or another job writes it.
    """
    place = f"{storage.plain(out_dir).rstrip('/')}/{MANIFEST}"
    lines: list[bytes] = []

    def add(record: Record) -> None:
        line = json.dumps(asdict(record)).encode() + b"\n"
        if local is None:
            lines.append(line)
            return
        with _writing(place):
            local.write(line)
            local.flush()

    with ExitStack() as stack:
        local = None
        if not storage.is_uri(place):
            with _writing(place):
                Path(place).parent.mkdir(parents=True, exist_ok=True)
                local = stack.enter_context(files.lock(Path(place), "another job upscales into this folder"))
        try:
            yield add
        finally:
            if lines:
                with storage.system_of(place) as (system, path):
                    before = system.cat_file(path) if system.isfile(path) else b""
                    system.pipe_file(path, before + b"".join(lines))


@contextmanager
def _writing(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EsrganError(f"{place}: cannot be written: {files.reason(error)}") from error


def upscale(
    tasks: Sequence[Task],
    file: GeneratorFile,
    settings: Settings,
    workers: int,
    gpus_per_worker: float,
    report: Callable[[Record], None],
) -> list[Record]:
    """Upscale images on the Ray cluster that this process is connected to.

    The images of a lost worker go to others. What it had finished stays: a result appears whole and once, and who
    finds it goes on to the next image. An image that is there whenever a worker is lost is tried alone before it is
    given up.

    Args:
        tasks: From ``plan``.
        file: The generator; workers get it from this process.
        settings: How.
        workers: How many at most; those that find no room in the cluster wait for it.
        gpus_per_worker: Share of a GPU for each; 0 computes on CPUs, one core each.
        report: Called with what became of each.

    Returns:
        The same; an error with one image does not stop the others.

    Raises:
        EsrganError: If no worker can start.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # their images are missed below
    model = ray.put(file)
    undone = {task.source: task for task in tasks}
    records: list[Record] = []

    def finish(record: Record) -> None:
        if undone.pop(record.source, None) is not None:  # else Ray had lost the answer and asked again
            records.append(record)
            report(record)

    for most in (MOST_IMAGES_A_TASK, 1):
        if not undone:
            break
        rows = [{"task": json.dumps(asdict(task))} for task in undone.values()]
        attempts = _make_counter()
        images_a_task = min(max(len(rows) // (workers * TASKS_A_WORKER), 1), most)
        answers = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // images_a_task)).map_batches(
            Worker,
            fn_constructor_args=(model, settings, attempts),
            batch_size=images_a_task,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
            num_cpus=1,
            num_gpus=gpus_per_worker,
        )
        try:
            for row in answers.iter_rows():
                finish(Record(**json.loads(row["record"])))
        except ray.exceptions.RayError as error:  # such as workers that cannot start
            *_, last = type(error).__name__, *str(error).splitlines()
            raise EsrganError(f"the Ray job ended: {last.strip()}") from error
    reason = f"its worker was lost or failed, up to {MOST_ATTEMPTS} times; look at memory and the temporary folder"
    for task in [*undone.values()]:
        finish(Record(task.source, task.target, "failed", error=f"{task.source}: {reason}"))
    for folder in {Path(task.target).parent for task in tasks if not storage.is_uri(task.target)}:
        files.remove_abandoned(folder)
    return records


def _make_counter() -> Any:
    """Make an actor that counts how often each task was begun: workers may be lost, and Ray would try for ever.

    It lives where this process does, and its class is made here so that it does not import PyTorch.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Attempts:
        def __init__(self) -> None:
            self.counts: dict[str, int] = {}

        def count(self, task: str) -> int:
            self.counts[task] = self.counts.get(task, 0) + 1
            return self.counts[task]

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(Attempts).remote()


class Worker:
    """Upscales the images of one task after the other: an actor, which keeps the model.

    Images pass through a temporary folder, so that ``upscale_files`` reads and writes local files.
    """

    def __init__(self, model: Any, settings: Settings, attempts: Any) -> None:
        import ray

        self.attempts = attempts
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.options = Options(quality=settings.quality, reduce_depth=settings.reduce_depth)
        self.upscaler = Upscaler.from_file(
            ray.get(model),
            "cuda" if ray.get_gpu_ids() else "cpu",
            settings.precision,
            self_ensemble=settings.self_ensemble,
            outscale=settings.outscale,
        )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Give the records of a batch of tasks, both as JSON, whose ASCII holds the name of any file."""
        import ray

        if ray.get(self.attempts.count.remote(batch["task"][0])) > MOST_ATTEMPTS:
            return {"record": []}
        tasks = [Task(**json.loads(text)) for text in batch["task"]]
        with tempfile.TemporaryDirectory(prefix="esrgan-") as folder, ThreadPoolExecutor(len(tasks)) as pool:
            staged = {_stage(task, Path(folder, str(i))): task for i, task in enumerate(tasks)}
            records = [*pool.map(_fetch, staged.values(), staged)]
            published: list[Future[Record]] = []
            begin = time.perf_counter()

            def report(result: Result) -> None:
                nonlocal begin
                begin, seconds = time.perf_counter(), time.perf_counter() - begin
                published.append(pool.submit(self._publish, staged[result.job], result, round(seconds, 3)))

            jobs = [job for job, record in zip(staged, records, strict=True) if record is None]
            upscale_files(self.upscaler, jobs, self.options, report)
            done = [record for record in records if record is not None] + [future.result() for future in published]
        return {"record": [json.dumps(asdict(record)) for record in done]}

    def _publish(self, task: Task, result: Result, seconds: float) -> Record:
        """Bring a result to its place."""
        try:
            if result.error is not None:
                raise ImageError(result.error)
            storage.put(result.job.target, task.target)
            result.job.target.unlink()
        except EsrganError as error:
            with suppress(EsrganError):  # the place may be out of reach, which then is the error at hand
                if storage.exists(task.target):  # another worker, which was thought to be lost, was quicker
                    return Record(task.source, task.target, "recovered")
            text = str(error).replace(str(result.job.source), task.source)
            text = text.replace(str(result.job.target), task.target)
            if task.rival:
                text = text.replace(str(result.job.rival), task.rival)
            return Record(task.source, task.target, "failed", seconds, self.name, text)
        size, notes = round(result.megapixels, 6), list(result.notes)
        return Record(task.source, task.target, "upscaled", seconds, self.name, None, size, notes)


def _stage(task: Task, folder: Path) -> Job:
    """Name what a task reads and writes on this machine."""
    folder.mkdir()
    source = folder / f"source{Path(task.source).suffix}" if storage.is_uri(task.source) else Path(task.source)
    return Job(source, folder / f"result{Path(task.target).suffix}", Path(task.rival) if task.rival else None)


def _fetch(task: Task, job: Job) -> Record | None:
    """Get an image to this machine; a record if nothing more is to do for it."""
    try:
        if storage.exists(task.target):
            return Record(task.source, task.target, "recovered")
        if storage.is_uri(task.source):
            storage.fetch(task.source, job.source)
    except EsrganError as error:
        return Record(task.source, task.target, "failed", error=str(error))
    return None
