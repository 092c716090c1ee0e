"""The process of a command: exit codes, errors, signals, memory and versions."""

from __future__ import annotations

import argparse
import ctypes
import io
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from esrgan.errors import EsrganError, TrainingError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
OK, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def versions() -> list[str]:
    """Name this package, PyTorch, what PyTorch was built for, and Python, each with its version."""
    with exit_on_interrupt():
        import torch

    import esrgan

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CUDA none"
    return [f"esrgan {esrgan.__version__}", f"torch {torch.__version__}", cuda, f"Python {platform.python_version()}"]


def keep_freed_memory() -> None:
    """Have this process keep the memory of freed tensors for the next ones, in large pages, on Linux with glibc.

    Otherwise each large tensor is new memory of the system's, whose every 4 KiB have to be fetched and cleared again;
    docs/benchmarks.md has what that costs on a CPU. It must come before PyTorch allocates anything.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch's: transparent huge pages
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # else another C library
        mallopt(_M_MMAP_MAX, 0)  # nothing comes and goes by itself
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Have Ctrl-C end the process at once: nothing has begun yet.

    As an exception it would come in the middle of a module, and libraries make other errors of it there.
    """

    def leave(*_: object) -> None:
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # Ctrl-C is ignored, or another's concern
        yield
        return
    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run(parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], int], argv: Sequence[str] | None) -> int:
    """Parse the arguments and do the work; our own errors are printed without a traceback and give 2, or 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files can be anything
            stream.reconfigure(errors="backslashreplace")
    args = parser.parse_args(argv)
    keep_freed_memory()
    try:
        code = work(args)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads what is printed any more, as behind ``| head``; nor must Python try again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    except EsrganError as error:
        print("\n".join(f"error: {problem}" for problem in error.problems), file=sys.stderr)
        return SOME_FAILED if isinstance(error, TrainingError) else BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return code
