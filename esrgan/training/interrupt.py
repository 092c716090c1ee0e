"""Requests to stop a run, and errors with external causes such as a full disk or a lack of memory."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from esrgan.devices import is_out_of_memory
from esrgan.errors import EsrganError, TrainingError
from esrgan.text import describe_error

# Ctrl-C, kill, the end of a terminal or an SSH session, and the warning that Slurm can send before its time limit.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)

_requested = threading.Event()


class Interrupted(Exception):  # noqa: N818  (it is not an error)
    """Raised in all processes when a signal has asked one of them to stop and a checkpoint is written."""


def is_requested() -> bool:
    """Return whether a signal has asked this process to stop."""
    return _requested.is_set()


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn stop signals into a request, after which the run finishes its step and writes a checkpoint.

    A validation is aborted and repeated on resume. A second signal of the same kind ends the process at once. Signals
    that were ignored when the process started stay ignored, as ``nohup`` asks for SIGHUP.
    """
    _requested.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # When another process has ended, torchrun sends SIGTERM more than once, and SIGKILL after 30 s in any case. A
    # repeated SIGTERM is ignored so that this process can print its message first.
    ignored = {signal.SIGTERM} if torch.distributed.is_torchelastic_launched() else set()

    def handle(number: int, _: object) -> None:
        _requested.set()
        signal.signal(number, signal.SIG_IGN if number in ignored else previous[signal.Signals(number)])

    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handled = [number for number in STOP_SIGNALS if previous[number] != signal.SIG_IGN]
    for number in handled:
        signal.signal(number, handle)
    try:
        yield
    except Interrupted:
        raise
    except BaseException:
        previous |= dict.fromkeys(ignored, signal.SIG_IGN)
        raise
    finally:
        for number in handled:
            signal.signal(number, previous[number])


@contextmanager
def explain_failures(device: torch.device) -> Iterator[None]:
    """Turn errors with external causes, such as a full disk, into errors that explain how to resume.

    Raises:
        TrainingError: For file errors and for a lack of memory.
    """
    try:
        yield
    except TrainingError:
        raise
    except (EsrganError, OSError) as error:
        file = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        raise TrainingError(
            f"{file}{describe_error(error)}; training stopped; fix this and run the same command with --resume auto "
            f"to continue from the last checkpoint"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"{device}: out of memory; in the configuration, set accumulation (splits each batch into parts) or "
            f"activation_checkpointing, or use smaller patches; --dry-run estimates the memory, and --resume auto "
            f"continues from the last checkpoint"
        ) from error
