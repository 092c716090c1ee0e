"""The errors a user can meet, each saying where, what was expected, what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in the words a user needs to put it right.

    Attributes:
        place: File and, where there is one, the dotted key: ``configs/x.json:3:5: training.g_lr``.
        expected: What would have been accepted.
        got: What was there.
        remedy: What to do about it; may be empty where "expected" says it all.
    """

    place: str
    expected: str
    got: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.place}: expected {self.expected}, got {self.got}"
        return f"{text}; {self.remedy}" if self.remedy else text


class EsrganError(Exception):
    """Anything wrong with what the user gave us. Commands print it without a traceback and exit with 2.

    Args:
        problems: One message or problem, or all that were found.
    """

    def __init__(self, problems: str | Problem | Iterable[str | Problem]) -> None:
        if isinstance(problems, (str, Problem)):
            problems = [problems]
        self.problems: tuple[str | Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigError(EsrganError):
    """A configuration file that cannot be read or contradicts itself."""


class DatasetError(EsrganError):
    """A dataset that is missing, incomplete or holds images that cannot be trained on."""


class WeightsError(EsrganError):
    """A weight file that is missing, damaged, or not what it is used as."""


class TrainingError(EsrganError):
    """A run that had to stop on its way: it diverged, or the disk is full. Commands exit with 1."""


class ImageError(EsrganError):
    """An image file that cannot be read or written as asked."""


class DeviceError(EsrganError):
    """A device that was asked for and is not there."""


class LostProcessError(TrainingError):
    """Another process of a training run has ended, or cannot be reached, and this one cannot go on without it.

    Args:
        description: What is known of it.
    """

    def __init__(self, description: str) -> None:
        super().__init__(f"{description}; once that is put right, the same command with --resume auto continues")
