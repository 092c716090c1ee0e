"""Upscale the segments of a video on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from esrgan.devices import end_worker
from esrgan.errors import EsrganError, LostDeviceError, VideoError
from esrgan.inference import Upscaler
from esrgan.video.upscale import VideoJob, VideoOptions
from esrgan.weights import GeneratorFile

_POLL_S = 1.0
_MAX_RESTARTS = 100  # of a worker; a segment that makes every GPU fail would be repeated for ever


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
    takes over its segments, except those that are complete.

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
        VideoError: If a worker fails.
    """
    import ray

    source, target = (Path(os.path.abspath(path)) for path in (job.video.path, job.target))  # noqa: PTH100  keeps links
    task = ray.remote(num_cpus=1, num_gpus=gpus_per_worker, max_retries=_MAX_RESTARTS)(_upscale_share)
    shared = ray.put(models)
    waiting = [
        task.remote(shared, precision, upscaling, source, target, job.options, number, workers)
        for number in range(workers)
    ]
    while waiting:
        done, waiting = ray.wait(waiting, timeout=_POLL_S)
        try:
            for problem in filter(None, ray.get(done)):
                raise VideoError(problem)
        except ray.exceptions.RayError as error:
            *_, last = type(error).__name__, *str(error).splitlines()
            raise VideoError(
                f"the Ray job failed: {last.strip()}; fix this, and run the same command to resume"
            ) from error
        yield sum(len(segment.times) for segment in job.folder.find_segments().values())


def _upscale_share(
    models: Sequence[GeneratorFile],
    precision: str,
    upscaling: Mapping[str, Any],
    source: Path,
    target: Path,
    options: VideoOptions,
    number: int,
    workers: int,
) -> str | None:
    """Upscale the segments of one worker; return the message of an error, if there is one."""
    import ray

    try:
        upscaler = Upscaler.from_file(models, "cuda" if ray.get_gpu_ids() else "cpu", precision, **upscaling)
        with VideoJob(upscaler, source, target, options) as job:
            for _ in job.upscale(number, workers):
                pass
    except LostDeviceError as error:
        end_worker(error)
    except EsrganError as error:
        return str(error)
    return None
