"""The process that runs a command: exit codes, error output, signals, memory and versions."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from types import ModuleType
from typing import Any, TextIO, cast

from esrgan.cli import spinning
from esrgan.console import OutputError, StandardOutput, accept_any_text, show_messages
from esrgan.errors import EsrganError, TrainingError
from esrgan.extras import describe_import_error
from esrgan.text import describe_error

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # constants of glibc's malloc.h
OK, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
_ENDING_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
]


def versions() -> list[str]:
    """Return the versions of this package, PyTorch, its CUDA and Python, each as "name version"."""
    with importing():
        import torch

    import esrgan

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CUDA none"
    return [f"esrgan {esrgan.__version__}", f"torch {torch.__version__}", cuda, f"Python {platform.python_version()}"]


def keep_freed_memory() -> None:
    """Reuse the memory of freed tensors in this process, in large pages, on Linux with glibc.

    By default every large tensor gets new memory from the system, which has to map and clear each page of 4 KiB
    again; see "Commands keep freed memory" in docs/decisions.md. Call this before PyTorch allocates anything.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # makes PyTorch use transparent huge pages
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries do not have it
        mallopt(_M_MMAP_MAX, 0)  # no separate mapping, which would be returned when a tensor is freed
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def importing() -> Iterator[None]:
    """Import modules in the block, quickly; signals that end commands do so immediately.

    A KeyboardInterrupt in the middle of an import may be turned into another error by the imported library. Garbage
    collection takes a fifth of the time of importing PyTorch and finds nothing, because modules stay.
    """
    is_first = "torch" not in sys.modules and gc.isenabled()
    if is_first:
        free_cpus = spinning.watch_load()
        gc.disable()
    try:
        with _exit_on_interrupt():
            yield
    finally:
        if is_first:
            gc.freeze()  # no later collection looks through the modules either
            gc.enable()
    if is_first and free_cpus is not None and "torch" in sys.modules:
        spinning.follow_load(free_cpus)


@contextmanager
def _exit_on_interrupt() -> Iterator[None]:
    def leave(*_: object) -> None:
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)

    with _replace_handler(signal.default_int_handler, leave):  # others are ignored or handled elsewhere
        yield


@contextmanager
def _replace_handler(old: Any, new: Any) -> Iterator[None]:
    """Replace a handler of the signals that end commands. Outside the main thread, which alone may, do nothing."""
    is_main = threading.current_thread() is threading.main_thread()
    replaced = [number for number in _ENDING_SIGNALS if is_main and signal.getsignal(number) is old]
    for number in replaced:
        signal.signal(number, new)
    try:
        yield
    finally:
        for number in replaced:
            if signal.getsignal(number) is new:  # training, for one, may have set its own
                signal.signal(number, old)


def _open_closed_streams() -> None:
    """Discard what is written to standard output or error if the caller has closed them (``>&-``).

    Otherwise the next file that is opened would get their number, and with it what libraries write there.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def run(command: ModuleType, argv: Sequence[str]) -> int:
    """Run a command with ``catch_errors``.

    Args:
        command: A module of this package with ``make_parser()`` and ``run(args)``, which returns the exit code. If it
            has ``parse_args(argv)``, that is used instead of the method of the parser.
        argv: The arguments.

    Returns:
        The exit code.
    """

    def work() -> int:
        parse_args = getattr(command, "parse_args", None) or command.make_parser().parse_args
        args = parse_args(argv)
        keep_freed_memory()
        spinning.limit_spinning()
        # About damaged metadata, and weights that are refused; our own messages name both.
        warnings.filterwarnings("ignore", module=r"PIL\.|torch\.(serialization|_utils|_weights_only_unpickler)$")
        with _replace_handler(signal.SIG_DFL, signal.default_int_handler), show_messages():
            return int(command.run(args))

    return catch_errors(work)


def catch_errors(work: Callable[[], int]) -> int:
    """Do some work, and print errors meant for users without a traceback.

    Returns:
        The exit code: that of the work, 1 after a TrainingError or if standard output cannot be written, as after
        ``| head`` or on a full disk, 2 after any other EsrganError or if a package cannot be imported, 130 after
        Ctrl-C, SIGTERM, SIGHUP, which a closed terminal sends, or SIGUSR1, which Slurm can send before its time limit.
    """
    _open_closed_streams()
    accept_any_text()
    try:
        with redirect_stdout(cast("TextIO", StandardOutput(sys.stdout))):
            try:
                code = _catch_other_errors(work)
            except SystemExit:  # after --help or --version
                sys.stdout.flush()
                raise
            sys.stdout.flush()
    except OutputError as error:
        if not isinstance(error.error, BrokenPipeError):  # otherwise the reader has gone, as after ``| head``
            print(f"error: standard output: cannot be written: {describe_error(error.error)}", file=sys.stderr)
        with suppress(OSError, AttributeError):  # of a stream without a descriptor
            # Python must not flush again when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    return code


def _catch_other_errors(work: Callable[[], int]) -> int:
    try:
        return work()
    except EsrganError as error:
        print("\n".join(f"error: {problem}" for problem in error.problems), file=sys.stderr)
        return SOME_FAILED if isinstance(error, TrainingError) else BAD_INPUT
    except ImportError as error:
        print(f"error: {describe_import_error(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        print(": ".join(filter(None, ["interrupted", str(interrupt)])), file=sys.stderr)
        return INTERRUPTED
