"""Requests to stop a run, and errors with external causes such as a full disk or a lack of memory."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from esrgan.devices import check_gpu_after, is_out_of_memory
from esrgan.errors import EsrganError, LostDeviceError, TrainingError
from esrgan.text import describe_error

# Ctrl-C, kill, the end of a terminal or an SSH session, and the warning that Slurm can send before its time limit.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)

_requested = threading.Event()


class Interrupted(Exception):  # noqa: N818  (it is not an error)
    """Raised in all processes when a signal has asked one of them to stop."""


def is_requested() -> bool:
    """Return whether a signal has asked this process to stop."""
    return _requested.is_set()


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn stop signals into a request, after which the run finishes its step and writes a checkpoint.

    A validation is aborted and repeated on resume. A second Ctrl-C ends the process at once. Other signals may be
    repeated: a closed terminal and torchrun send theirs more than once. Signals that were ignored when the process
    started stay ignored, as ``nohup`` asks for SIGHUP. Handlers of libraries in C stay too, because Python cannot put
    them back. That shows only for those that are older than Python, so SIGUSR1, for which ``faulthandler`` and others
    set newer ones, counts only where it interrupts: in commands.
    """
    _requested.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: object) -> None:
        _requested.set()
        if number == signal.SIGINT:
            signal.signal(number, previous[signal.SIGINT])

    previous = {number: handler for number in STOP_SIGNALS if _may_replace(number, handler := signal.getsignal(number))}
    for number in previous:
        signal.signal(number, handle)
    try:
        yield
    except Interrupted:
        raise
    except BaseException:
        if torch.distributed.is_torchelastic_launched():  # it repeats SIGTERM, before the message can be printed
            previous[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _may_replace(number: int, handler: object) -> bool:
    if number == getattr(signal, "SIGUSR1", None):
        return handler is signal.default_int_handler
    return handler not in (signal.SIG_IGN, None)


@contextmanager
def explain_failures(device: torch.device) -> Iterator[None]:
    """Turn errors with external causes, such as a full disk, into errors that explain how to resume.

    Raises:
        TrainingError: For file errors, for a lack of memory, and for a GPU that has failed.
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
            try:
                check_gpu_after(error, device)
            except LostDeviceError as lost:
                remedy = "the same command with --resume auto continues from the last checkpoint"
                raise TrainingError(lost.with_remedy(remedy).problems) from error
            raise
        raise TrainingError(
            f"{device}: out of memory; in the configuration, set accumulation (splits each batch into parts) or "
            f"activation_checkpointing, or use smaller patches; --dry-run estimates the memory, and --resume auto "
            f"continues from the last checkpoint"
        ) from error
