"""How a run is ended from outside: by a signal, or by a machine that has no more disk or memory."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from esrgan.devices import is_out_of_memory
from esrgan.errors import EsrganError, TrainingError
from esrgan.text import describe_error


@contextmanager
def explain_failures(device: torch.device) -> Iterator[None]:
    """Say what to do when something from outside, such as a full disk, ends a run.

    Args:
        device: On which it computes.

    Raises:
        TrainingError: For errors of files, and for a lack of memory.
    """
    try:
        yield
    except TrainingError:
        raise
    except (EsrganError, OSError) as error:
        file = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        raise TrainingError(
            f"{file}{describe_error(error)}; training stopped: put that right, and the same command with --resume "
            f"auto goes on from the last checkpoint"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"{device}: too little memory: set accumulation (parts of a batch, one after the other) or "
            f"activation_checkpointing in the configuration, or smaller patches; --dry-run says what it takes, and "
            f"--resume auto goes on from the last checkpoint"
        ) from error


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event: the step is finished, a checkpoint written. A second one ends at once.

    A validation is left, and done upon resume.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    # torchrun sends SIGTERM more than once when another process has ended, and SIGKILL after 30 s in any case: what
    # this process has to say of it comes first.
    ignored = {signal.SIGTERM} if torch.distributed.is_torchelastic_launched() else set()

    def handle(number: int, _: object) -> None:
        event.set()
        signal.signal(number, signal.SIG_IGN if number in ignored else previous[signal.Signals(number)])

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, handle)
    try:
        yield event
    except BaseException:
        previous |= dict.fromkeys(ignored, signal.SIG_IGN)
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
