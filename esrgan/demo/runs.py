"""Upscale uploads in runs that can be stopped, one at a time for each visitor."""

from __future__ import annotations

import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from esrgan.errors import EsrganError, Problem
from esrgan.files import atomic_write
from esrgan.inference import FileJob, FileOptions, FileResult, Upscaler, plan_jobs, upscale_files

ZIP_NAME = "upscaled.zip"
RunProgress = Callable[[float, str], None]  # the fraction that is done, up to 1, and the name of the image


class Stopped(BaseException):  # not an error that the visitor should see
    """Raised within a run when its visitor has stopped it or closed the page."""


class Run:
    """The work for one visitor, which another thread may stop."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ask for the end of the work; it ends at its next ``check``."""
        self._stop.set()

    def check(self) -> None:
        """Raise ``Stopped`` if the run was stopped."""
        if self._stop.is_set():
            raise Stopped


class Runs:
    """The latest run of each visitor, by the key of the visitor's session, until it ends."""

    def __init__(self) -> None:
        self._runs: dict[str | None, Run] = {}

    def __contains__(self, session: str | None) -> bool:
        """Return whether a visitor has a run that has not ended."""
        return session in self._runs

    def begin(self, session: str | None) -> Run:
        """Stop the run of a visitor, if any, and replace it by a new one."""
        self.stop(session)
        run = self._runs[session] = Run()
        return run

    def get(self, session: str | None) -> Run:
        """Return the run of a visitor; it is a new one if there is none."""
        return self._runs.get(session) or self.begin(session)

    def stop(self, session: str | None) -> None:
        """Stop the run of a visitor, if any, and forget it."""
        if (run := self._runs.pop(session, None)) is not None:
            run.stop()

    def end(self, session: str | None, run: Run) -> None:
        """Forget a run that has ended, unless a new one has replaced it."""
        if self._runs.get(session) is run:
            del self._runs[session]


@dataclass(frozen=True)
class UpscaledFiles:
    """What a run has written.

    Attributes:
        source: The first input that was upscaled.
        download: The output, or a ZIP archive with several.
        total: The number of inputs.
        count: The number of outputs.
        megapixels: Size of the outputs, all together.
        problems: Why the others failed, one sentence for each.
        notes: What the outputs do not preserve, such as bit depth.
        seconds: How long it took, with reading and writing.
    """

    source: Path
    download: Path
    total: int
    count: int
    megapixels: float
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float


def upscale_uploads(
    upscaler: Upscaler,
    sources: Sequence[Path],
    folder: Path,
    options: FileOptions,
    suffix: str | None,
    run: Run,
    progress: RunProgress,
) -> UpscaledFiles:
    """Upscale files as ``esrgan inference`` does. Failures do not stop the rest.

    Args:
        upscaler: The upscaler to use.
        sources: The input files.
        folder: The output is written into a new folder below this one, which is removed if there is no output.
        options: How to read inputs and write outputs.
        suffix: Suffix of the outputs, such as ".webp"; None keeps that of each input.
        run: The run; it is checked after each part of the work.
        progress: Called after each part of the work.

    Returns:
        What was written: the output of a single file, or a ZIP archive of all outputs.

    Raises:
        EsrganError: If no file could be upscaled. The message has the names of files without their folders, because
            visitors of the page see it.
        Stopped: If the run was stopped.
    """
    begin = time.perf_counter()
    out = Path(mkdtemp(dir=folder))
    try:
        if len(sources) == 1:
            results = _upscale(upscaler, sources, out, options, suffix, run, progress)
            downloads = [result.job.target for result in results if result.error is None]
        else:
            # Only the archive is kept: Gradio removes it after an hour, but would not know of the files in it.
            with TemporaryDirectory(dir=out) as parts:
                results = _upscale(upscaler, sources, Path(parts), options, suffix, run, progress)
                downloads = [_write_zip(out / ZIP_NAME, Path(parts), run)] if any(Path(parts).iterdir()) else []
        problems = tuple(str(_describe_failure(result)) for result in results if result.error is not None)
        if not downloads:
            raise EsrganError(problems)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    done = [result for result in results if result.error is None]
    notes = tuple(f"{r.job.source.name}: {note}" if len(sources) > 1 else note for r in done for note in r.notes)
    megapixels = sum(result.megapixels for result in done)
    seconds = time.perf_counter() - begin
    first = done[0].job.source
    return UpscaledFiles(first, downloads[0], len(sources), len(done), megapixels, problems, notes, seconds)


def _upscale(
    upscaler: Upscaler,
    sources: Sequence[Path],
    out: Path,
    options: FileOptions,
    suffix: str | None,
    run: Run,
    progress: RunProgress,
) -> list[FileResult]:
    jobs, _ = plan_jobs([str(source) for source in sources], out, suffix)
    order = {job: i for i, job in enumerate(jobs)}

    def report(job: FileJob, share: float) -> None:
        run.check()
        number = f"{order[job] + 1} of {len(jobs)}: " if len(jobs) > 1 else ""
        progress((order[job] + share) / len(jobs), f"upscaling {number}{job.source.name}")

    results = []
    for result in upscale_files(upscaler, jobs, options, report):
        run.check()
        results.append(result)
    return results


def _describe_failure(result: FileResult) -> Problem:
    """Return why a file failed, without folders."""
    name = result.job.source.name
    if result.job.conflict is not None:
        what = f"its output {result.job.target.name} would also be the output of another image"
        return Problem.failure(name, what, "rename one of the two, or upscale them one by one")
    assert result.error is not None  # noqa: S101  tells the type checker
    return replace(result.error, place=Path(result.error.place).name)


def _write_zip(path: Path, folder: Path, run: Run) -> Path:
    """Write the files of a folder into an archive, uncompressed because images are compressed already."""
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for each in sorted(folder.iterdir()):
            run.check()
            archive.write(each, each.name)
    return path
