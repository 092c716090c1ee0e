"""Upscale the segments of a video on a Ray cluster."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from esrgan.console import log
from esrgan.errors import EsrganError, LostDeviceError, Problem, VideoError
from esrgan.inference import Upscaler
from esrgan.video.options import VideoOptions
from esrgan.video.segments import FRAMES
from esrgan.video.upscale import VideoJob
from esrgan.weights import GeneratorFile

_POLL_S = 1.0
_MAX_LOST_GPUS = 3  # until a worker's share of the video is given up
_MAX_CRASHES = 4  # the same for processes that crash or whose machines are lost, if no segment is completed meanwhile


def upscale_on_cluster(
    job: VideoJob,
    models: Sequence[GeneratorFile],
    precision: str,
    upscaling: Mapping[str, Any],
    workers: int,
    gpus_per_worker: float,
) -> Iterator[int]:
    """Upscale the segments of a video on the Ray cluster that this process is connected to.

    All machines need the video and the folder of the output under the same paths. If a worker is lost, another one
    takes over its segments, except those that are complete, but not again and again without completing one. If a GPU
    fails, another process takes over, up to two times.

    Args:
        job: The work, which is assembled afterwards.
        models: The generators to apply one after the other; workers get them from this process.
        precision: Precision, as for ``Upscaler.from_file``.
        upscaling: Options of ``UpscaleOptions``, by name.
        workers: The number of workers.
        gpus_per_worker: GPUs per worker, may be fractional; 0 uses one CPU core per worker.

    Yields:
        The number of frames in complete segments, each second.

    Raises:
        EsrganError: If a worker fails.
    """
    import ray

    source, target = (Path(os.path.abspath(path)) for path in (job.video.path, job.target))  # noqa: PTH100  keeps links
    # After each call, its process ends: no other one can use a GPU that has failed.
    task = ray.remote(num_cpus=1, num_gpus=gpus_per_worker, max_retries=_MAX_CRASHES - 1, max_calls=1)(_upscale_share)
    shared = ray.put(models)

    waiting: dict[Any, tuple[int, int]] = {}  # the number of each share, and its first segment to be made
    lost: Counter[int] = Counter()

    def start(number: int, complete: Container[int]) -> None:
        share = task.remote(shared, precision, upscaling, source, target, job.options, number, workers)
        waiting[share] = number, _find_next(number, workers, complete)

    complete = job.folder.find_segments()
    for number in range(workers):
        start(number, complete)
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=_POLL_S)
        complete = job.folder.find_segments()
        for each in done:
            number, segment = waiting.pop(each)
            try:
                error = ray.get(each)
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as crash:
                if segment == _find_next(number, workers, complete):
                    frames = f"frames {segment * FRAMES + 1:,} to {(segment + 1) * FRAMES:,} of the output"
                    what = f"{_MAX_CRASHES} processes have crashed or were lost before {frames} were complete"
                    remedy = "check the video up to there and the machines, and run the same command to resume"
                    raise VideoError(Problem.failure(job.video.path, what, remedy)) from crash
                start(number, complete)
            except ray.exceptions.RayError as failure:
                *_, last = type(failure).__name__, *str(failure).splitlines()
                raise VideoError(
                    f"the Ray job failed: {last.strip()}; fix this, and run the same command to resume"
                ) from failure
            else:
                if error is None:
                    continue
                lost[number] += 1
                if not isinstance(error, LostDeviceError) or lost[number] == _MAX_LOST_GPUS:
                    raise error
                log.warning("%s", error.with_remedy("another process continues"))
                start(number, complete)
        yield sum(len(segment.times) for segment in complete.values())


def _find_next(number: int, workers: int, complete: Container[int]) -> int:
    """Return the first segment of a share that is not complete."""
    return next(segment for segment in itertools.count(number, workers) if segment not in complete)


def _upscale_share(
    models: Sequence[GeneratorFile],
    precision: str,
    upscaling: Mapping[str, Any],
    source: Path,
    target: Path,
    options: VideoOptions,
    number: int,
    workers: int,
) -> EsrganError | None:
    """Upscale the segments of one worker; return the error, if there is one."""
    import ray

    try:
        upscaler = Upscaler.from_file(models, "cuda" if ray.get_gpu_ids() else "cpu", precision, **upscaling)
        with VideoJob(upscaler, source, target, options) as job:
            for _ in job.upscale(number, workers):
                pass
    except EsrganError as error:
        return error
    return None
