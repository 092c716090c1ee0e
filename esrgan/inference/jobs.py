"""Find the images to upscale and choose the paths of their outputs."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from esrgan import images
from esrgan.errors import ImageError, Problem
from esrgan.images.find import FAMILIAR_SUFFIXES
from esrgan.images.formats import format_for_suffix
from esrgan.paths import expand_user, name_key

OUTPUT_ENDING = "_sr"  # appended to the stem of each output's name
_ANY_SUFFIX = ".any"  # stands for all; without a suffix, ``..png`` would have no name
Location = TypeVar("Location", Path, str)


@dataclass(frozen=True)
class Job(Generic[Location]):
    """An input and the place of its output, as paths, or as strings that are paths or URIs.

    Attributes:
        source: The input.
        target: The place of the output.
        conflict: Another input whose output would have the same place; then both inputs fail. None if there is none.
        problem: Why there is no such input; None if there is one.
        keeps_target: Whether the place of the output is another input, which may be an original and is not replaced.
        note: Why the output is not named as usual; empty if it is.
    """

    source: Location
    target: Location
    conflict: Location | None = None
    problem: Problem | None = None
    keeps_target: bool = False
    note: str = ""

    @property
    def obstacle(self) -> Problem | None:
        """Why the job cannot be done, as far as its names show."""
        if self.conflict is None:
            return self.problem
        what = f"its output {self.target} would also be the output of {self.conflict}"
        return Problem.failure(self.source, what, "upscale them into different folders")


@dataclass(frozen=True)
class FileJob(Job[Path]):
    """An input file and the path of its output."""


def plan_jobs(
    paths: Sequence[str | Path], out: str | Path | None, suffix: str | None = None, ending: str = OUTPUT_ENDING
) -> tuple[list[FileJob], dict[Path, str]]:
    """Find the images and choose their outputs: ``<stem><ending><suffix>``, next to each input or in ``out``.

    The folder mirrors those that are searched. If two outputs would have the same name, both are named after the full
    name of their input (``a.png_sr.webp``).

    Args:
        paths: Files, folders and glob patterns.
        out: Folder for the outputs; None writes each one next to its input. For a single input file this can also be
            the name of the output file, if ``is_output_file`` takes it for one.
        suffix: Suffix of the outputs, such as ``.webp``; None keeps the suffix of each input, except that the output of
            a colour PPM named ``.pgm`` becomes a ``.ppm``.
        ending: What is appended to the stem of each name. It may be empty, but an output that would overwrite an
            input then becomes a job with a ``problem``.

    Returns:
        The jobs, and a mapping from each path that is skipped to the reason. A path that matches no image becomes a
        job with a ``problem``. Outputs of earlier runs (in any format), files in ``out``, symlinked folders, and images
        and videos of formats that are not supported are skipped.

    Raises:
        ImageError: If no path matches an image, or ``out`` is a file and does not fit the inputs.
        TypeError: If ``paths`` is itself a path.
    """
    out = None if out is None else Path(out)
    search = images.search_images(paths, images.SUFFIXES)
    if search.problems and not search.files:
        raise ImageError(search.problems)
    if out is not None and str(out) == "-":
        raise ImageError(Problem("-", "a file or folder for the output", "standard output", "name a file"))
    if out is not None and is_output_file(out):
        source = _find_only_file(paths, out, suffix)
        is_input = out.exists() and out.samefile(source)
        return [FileJob(source, out, problem=_refuse_to_overwrite(source, source) if is_input else None)], {}
    jobs, skipped = name_outputs(search.files, out, suffix, ending)
    missing = [_make_job_without_input(problem, out, suffix, ending) for problem in search.problems]
    return missing + jobs, search.skipped | skipped


def is_output_file(out: Path) -> bool:
    """Return whether the path of the outputs is that of a file: it ends like one, and no such folder exists."""
    return out.suffix.lower() in images.SUFFIXES | FAMILIAR_SUFFIXES and not out.is_dir()


def _find_only_file(paths: Sequence[str | Path], out: Path, suffix: str | None) -> Path:
    """Return the only input, whose output is the file ``out``."""
    if len(paths) != 1 or not expand_user(paths[0]).is_file():
        got = "several inputs" if len(paths) > 1 else "a folder or pattern" if paths else "no input"
        remedy = f"choose a folder for the outputs, or create one named {out.name} first"
        raise ImageError(Problem(str(out), "a single input file for this output file", got, remedy))
    if suffix is not None and format_for_suffix(Path(f"x{suffix}")) != format_for_suffix(out):
        raise ImageError(Problem(str(out), f"a name that ends with {suffix}", out.suffix, "leave out the format"))
    format_for_suffix(out)
    return expand_user(paths[0])


def _make_job_without_input(problem: Problem, out: Path | None, suffix: str | None, ending: str) -> FileJob:
    source = Path(problem.place)
    target = (source.parent if out is None else out) / f"{source.stem}{ending}{suffix or source.suffix}"
    return FileJob(source, target, problem=problem)


def name_outputs(
    relative_paths: Mapping[Path, Path],
    out_dir: Path | None,
    suffix: str | None = None,
    ending: str = OUTPUT_ENDING,
) -> tuple[list[FileJob], dict[Path, str]]:
    """Choose the outputs of images that were already found, as ``plan_jobs`` does.

    Args:
        relative_paths: The images, each with its path relative to the folder that was searched, as returned by
            ``images.search_images``.
        out_dir: Folder for the outputs; None writes each one next to its input.
        suffix: Suffix of the outputs; None keeps the suffix of each input.
        ending: What is appended to the stem of each name.

    Returns:
        The jobs, and a mapping from each image that is skipped to the reason.
    """
    naming = _Naming(relative_paths, out_dir, suffix, ending)
    skipped = dict.fromkeys(naming.find_earlier_outputs(), "output of an earlier run")
    possible = dict.fromkeys(naming.find_possible_outputs(skipped), "named like the output of another image")
    skipped |= possible
    sources = [source for source in relative_paths if source not in skipped]
    return naming.make_jobs(sources, possible), skipped


class _Naming:
    """Names the outputs of images; the arguments are those of ``name_outputs``."""

    def __init__(
        self, relative_paths: Mapping[Path, Path], out_dir: Path | None, suffix: str | None, ending: str
    ) -> None:
        self.relative_paths, self.out_dir, self.suffix, self.ending = relative_paths, out_dir, suffix, ending
        self._name_key, self._default_suffix = functools.cache(name_key), functools.cache(_default_suffix)

    def find_earlier_outputs(self) -> Iterator[Path]:
        """Yield the images that look like outputs of earlier runs."""
        out = None if self.out_dir is None else _resolve(self.out_dir)
        outputs: set[Path] = set()
        # An output has a longer name than its input, so shorter names come first.
        for source in sorted(self.relative_paths, key=lambda source: len(source.stem)):
            folder = _resolve(source.parent)
            asked_for = _resolve(source.parents[len(self.relative_paths[source].parts) - 1])
            is_in_out = out in (folder, *folder.parents) and out not in (asked_for, *asked_for.parents)
            if is_in_out or self._identity(source.with_suffix(_ANY_SUFFIX)) in outputs:
                yield source
                continue
            for stem, ending in itertools.product((source.stem, source.name), {self.ending, OUTPUT_ENDING} - {""}):
                outputs.add(self._identity(self._target(source, stem, ending).with_suffix(_ANY_SUFFIX)))
                if ending == OUTPUT_ENDING:  # of a run that wrote next to its inputs
                    outputs.add(self._identity(source.with_name(f"{stem}{ending}{_ANY_SUFFIX}")))

    def find_possible_outputs(self, earlier_outputs: Collection[Path]) -> Iterator[Path]:
        """Yield the images that are where their own output would be, and where that of another image would be too.

        Without an ending, names do not show whether they are outputs of earlier runs or originals.
        """
        own = {self._identity(source): source for source in self.relative_paths}
        for source in self.relative_paths if not self.ending else ():
            other = own.get(self._identity(self._target(source, source.stem, "")), source)
            is_own = self._identity(self._target(other, other.stem, "")) == self._identity(other)
            if is_own and other not in (source, *earlier_outputs):
                yield other

    def make_jobs(self, sources: Sequence[Path], possible_outputs: Collection[Path]) -> list[FileJob]:
        """Return the jobs of images. Outputs that would share a name get the whole names of their images."""
        kept = {self._identity(path) for path in possible_outputs}
        inputs = {self._identity(source): source for source in sources}
        with_full_name: set[Path] = set()
        while True:
            targets = {
                source: self._target(source, source.name if source in with_full_name else source.stem, self.ending)
                for source in sources
            }
            users: dict[Path, list[Path]] = {}
            for source in sources:
                users.setdefault(self._identity(targets[source]), []).append(source)
            clashes = [same for same in users.values() if len(same) > 1]
            conflicts = {
                source: next(other for other in same if other != source) for same in clashes for source in same
            }
            if conflicts.keys() <= with_full_name:
                break
            with_full_name |= conflicts.keys()
        overwritten = {source: inputs.get(self._identity(targets[source])) for source in sources}
        problems = {source: _refuse_to_overwrite(source, other) for source, other in overwritten.items() if other}
        return [
            FileJob(
                source=each,
                target=targets[each],
                conflict=conflicts.get(each),
                problem=problems.get(each),
                keeps_target=self._identity(targets[each]) in kept,
                note=self._describe_name(each),
            )
            for each in sources
        ]

    def _target(self, source: Path, stem: str, ending: str) -> Path:
        folder = source.parent if self.out_dir is None else self.out_dir / self.relative_paths[source].parent
        return folder / f"{stem}{ending}{self.suffix or self._default_suffix(source)}"

    def _describe_name(self, source: Path) -> str:
        is_usual = self.suffix or self._default_suffix(source) == source.suffix
        return "" if is_usual else "named .ppm, because a .pgm cannot hold colours"

    def _identity(self, path: Path) -> Path:
        # An output is written to where a link leads. Path.is_symlink() raises for a name that is too long.
        path = _resolve(path) if os.path.islink(path) else path  # noqa: PTH114
        folder = _resolve(path.parent)
        return folder / self._name_key(folder)(path.name)


def _refuse_to_overwrite(source: Path, other: Path) -> Problem:
    what = "its output would overwrite it" if other == source else f"its output would overwrite the input {other}"
    return Problem.failure(source, what, "choose another name, suffix or folder for the output")


def _default_suffix(source: Path) -> str:
    """Return the suffix of an output in the format of its input; colours in a ``.pgm`` need another one."""
    with suppress(OSError):  # of a name that is too long, or a file that cannot be read
        if source.suffix.lower() == ".pgm" and source.is_file():
            with source.open("rb") as file:
                return ".ppm" if file.read(2) in (b"P3", b"P6") else source.suffix
    return source.suffix


def _resolve(path: Path) -> Path:
    """Resolve symlinks as far as possible; ``Path.resolve`` would raise on a symlink loop."""
    return Path(os.path.realpath(path))
