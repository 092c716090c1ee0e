"""Exceptions for users: each states where, what was expected, what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from os.path import dirname
from typing import Any

from typing_extensions import override

from esrgan.text import printable

_SHOWN = 3  # of problems with the same remedy in one folder


@dataclass(frozen=True)
class Problem:
    """One mistake in the input, described so that a user can fix it.

    Attributes:
        place: The file and, if it applies, line, column and key: ``configs/x.json:3:5: training.g_lr``.
        expected: What is accepted there; empty if ``got`` is what failed: ``cannot be written: Permission denied``.
        got: What was found instead.
        remedy: How to fix it; may be empty if ``expected`` is enough.
    """

    place: str
    expected: str
    got: str
    remedy: str = ""

    def __str__(self) -> str:
        text = (
            f"{self.place}: expected {self.expected}, got {self.got}" if self.expected else f"{self.place}: {self.got}"
        )
        return printable(f"{text}; {self.remedy}" if self.remedy else text)

    @classmethod
    def failure(cls, place: object, what: str, remedy: str = "") -> Problem:
        """Return the problem that something failed, for reasons other than the content of the input."""
        return cls(str(place), "", what, remedy)


def shorten(problems: Iterable[str | Problem]) -> list[str | Problem]:
    """Shorten a list of problems: of those with the same remedy in one folder, keep a few, and count the others."""
    groups: dict[tuple[str, str], list[str | Problem]] = {}
    for problem in problems:
        if isinstance(problem, Problem):
            place, remedy = problem.place, problem.remedy
        else:
            place, remedy = problem.partition(": cannot ")[0], problem.rpartition("; ")[2]
        folder = dirname(place) or place  # noqa: PTH120  a place may be a URI
        groups.setdefault((folder, remedy), []).append(problem)
    result: list[str | Problem] = []
    for (folder, _), group in groups.items():
        hidden = group[_SHOWN:] if len(group) > _SHOWN + 2 else []
        result += group[: len(group) - len(hidden)]
        result += [f"{folder}: {len(hidden):,} more with the same remedy"] if hidden else []
    return result


class EsrganError(Exception):
    """The base of all errors caused by input, files or machine; commands print it without a traceback and exit with 2.

    Args:
        problems: One message or problem, or several.

    Attributes:
        problems: The same as a tuple.

    Example:
        >>> from esrgan import EsrganError, Upscaler
        >>> try:
        ...     Upscaler.from_file("missing.pth")
        ... except EsrganError as error:
        ...     print(len(error.problems), "problem:", error)
        1 problem: missing.pth: ...
    """

    def __init__(self, problems: str | Problem | Iterable[str | Problem]) -> None:
        if isinstance(problems, (str, Problem)):
            problems = [problems]
        # Each stays on one line, whatever the names of files in it.
        lines = (each if isinstance(each, Problem) else printable(each) for each in problems)
        self.problems: tuple[str | Problem, ...] = tuple(lines)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled as other exceptions are, an error from another process would have all problems in one.
        return _restore, (type(self), self.problems), self.__dict__  # with its notes


def _restore(kind: type[EsrganError], problems: Iterable[str | Problem]) -> EsrganError:
    error = kind.__new__(kind)
    EsrganError.__init__(error, problems)
    return error


class ConfigError(EsrganError):
    """Raised for a configuration file that cannot be read, is invalid or contradicts itself."""


class DatasetError(EsrganError):
    """Raised for a dataset that is missing, incomplete or contains images that cannot be used for training."""


class DownloadError(EsrganError):
    """Raised for a file that cannot be downloaded, or whose checksum is wrong."""


class WeightsError(EsrganError):
    """Raised for a weight file that is missing, damaged or of the wrong kind."""


class TrainingError(EsrganError):
    """Raised when a training run has to stop, because it diverged or the disk is full; commands exit with 1."""


class ImageError(EsrganError):
    """Raised for an image file that cannot be read or written."""


class VideoError(EsrganError):
    """Raised for a video that cannot be read, written or resumed."""


class DeviceError(EsrganError):
    """Raised for a requested device that is not available."""


class LostDeviceError(DeviceError):
    """Raised when a GPU has failed, so that this process cannot use it any more."""

    def with_remedy(self, remedy: str) -> LostDeviceError:
        """Return this error with another remedy."""
        (problem,) = self.problems
        return LostDeviceError(
            replace(problem, remedy=remedy) if isinstance(problem, Problem) else f"{problem}; {remedy}"
        )


class LostProcessError(TrainingError):
    """Raised when another process of a training run has ended or is unreachable, so this one cannot continue.

    Args:
        description: Which process, and what is known about its end.
    """

    def __init__(self, description: str) -> None:
        super().__init__(f"{description}; fix this and run the same command with --resume auto to continue")
