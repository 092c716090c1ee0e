"""How long OpenMP's threads, which compute on CPUs, wait actively for each other: *spin*.

Next to other programs, spinning threads take the CPU from the threads that they wait for, and two threads become
several times slower than one. Threads that sleep instead need longer to wake than a small layer takes. So commands spin
for a fraction of a millisecond, and for less while other programs use the CPUs; see "OpenMP's threads spin for a
fraction of a millisecond" in docs/decisions.md.
"""

from __future__ import annotations

import atexit
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esrgan.machine import FreeCpus

# GNU's OpenMP, as in PyTorch's packages for Linux, counts rounds of a loop, here about 0.2 ms. LLVM's and Intel's, as
# on macOS and Windows, count milliseconds.
SETTINGS = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
_WATCH_S = 1.0
_SPARE_THREADS = 32  # for libraries that decode and encode
_computing = threading.Lock()  # while one of the threads that will sleep computes


def limit_spinning() -> None:
    """Make threads spin for a fraction of a millisecond, unless the user has set how they wait.

    Call this before PyTorch is imported.
    """
    if not {"OMP_WAIT_POLICY", *SETTINGS} & os.environ.keys():
        os.environ.update(SETTINGS)


def watch_load() -> FreeCpus | None:
    """Begin to count the CPUs that other programs leave; None where the system does not show that.

    Call this before PyTorch is imported, so that its import is watched and short commands follow the load too.
    """
    import psutil

    from esrgan.machine import FreeCpus

    try:
        return FreeCpus()
    except (OSError, RuntimeError, psutil.Error):
        return None


def follow_load(free: FreeCpus) -> None:
    """From now on, make threads spin for 100 rounds whenever other programs use CPUs that they need.

    This changes no result. It needs GNU's OpenMP, which spins for so little while a program has more threads than CPUs,
    and the limit above. Where the system allows no more threads, nothing changes. Call this after PyTorch is imported.
    """
    import torch

    from esrgan.machine import cpu_count

    threads = min(torch.get_num_threads(), cpu_count())
    if sys.platform == "linux" and threads > 1 and os.environ.get("GOMP_SPINCOUNT") == SETTINGS["GOMP_SPINCOUNT"]:
        atexit.register(_computing.acquire, timeout=10)  # PyTorch aborts if Python ends while it computes
        thread = threading.Thread(target=_follow, args=(lambda: free.count() < threads, threads), daemon=True)
        with suppress(RuntimeError):
            thread.start()


def _follow(is_busy: Callable[[], bool], threads: int) -> None:
    """Have more threads than CPUs while the CPUs are busy."""
    sets = math.ceil(len(os.sched_getaffinity(0)) / (threads - 1))
    ended: threading.Event | None = None
    while True:
        if not is_busy():
            if ended is not None:
                ended.set()
            ended = None
        elif ended is None:
            if not _can_start(2 * sets * threads):  # twice as many, as other threads of Python get sets of their own
                return
            ended = threading.Event()
            for _ in range(sets):
                threading.Thread(target=_keep_threads, args=(ended,), daemon=True).start()
        time.sleep(_WATCH_S)


def _can_start(count: int) -> bool:
    """Return whether so many threads can be started, and some more that the program may need later.

    OpenMP ends the program if it cannot start one of its threads.
    """
    count += _SPARE_THREADS
    ended, started = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(count):
            thread = threading.Thread(target=ended.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        return False
    finally:
        ended.set()
        for thread in started:
            thread.join()
        time.sleep(_WATCH_S / 10)  # the system counts a thread for a moment after its end
    return True


def _keep_threads(ended: threading.Event) -> None:
    """Keep a set of OpenMP's threads, which sleep, until the event is set."""
    import torch

    with _computing:
        torch.zeros(2**20).add_(1)  # each thread of Python gets a set of its own for its first parallel operation
    ended.wait()
