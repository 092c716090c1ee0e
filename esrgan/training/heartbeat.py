"""Detect within seconds that another process of a run has ended, where a collective would wait for minutes."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore, Store

from esrgan.errors import EsrganError, LostProcessError
from esrgan.text import one_line

INTERVAL_S = 2.0  # between two heartbeats
# torchrun kills the remaining processes of a machine after 30 s; this timeout is shorter, so they can report first.
TIMEOUT_S = 20.0
GRACE_PERIOD_S = 5.0  # for the main thread to notice the failure and exit with its own message


class Heartbeat(threading.Thread):
    """Thread that sends heartbeats, checks those of the next process, and exits when the run has lost a process.

    A process that fails reports the reason, which all others print. If a process is killed or its machine fails, the
    process before it misses its heartbeats. A process that is alive but busy keeps sending them. In the store, which
    all processes share, ``key`` is the prefix that separates this run from others.
    """

    def __init__(self, store: Store, key: str, rank: int, world_size: int) -> None:
        super().__init__(daemon=True)
        self.rank = rank
        self.next_rank = (rank + 1) % world_size
        self.world_size = world_size
        # The clone has its own connection, because a shared one would block while the main thread waits.
        self.store = PrefixStore(key, store.clone())
        self.stopped = threading.Event()
        self.start()

    def run(self) -> None:
        """Send and check heartbeats until ``stop`` is called."""
        count, changed_at = 0, time.monotonic()
        while not self.stopped.wait(INTERVAL_S):
            # Without a network, the store neither answers nor fails, whatever its timeout.
            watchdog = threading.Timer(TIMEOUT_S, self._exit, [_unreachable()])
            watchdog.daemon = True
            watchdog.start()
            with suppress(RuntimeError):  # the store is unreachable, which failure() reports
                self.store.add(f"heartbeat {self.rank}", 1)
                if (newest := self.store.add(f"heartbeat {self.next_rank}", 0)) != count:
                    count, changed_at = newest, time.monotonic()
                elif time.monotonic() - changed_at > TIMEOUT_S:
                    self._report(f"process {self.next_rank} has sent no heartbeat for {TIMEOUT_S:.0f} s")
            failure = self.failure()
            watchdog.cancel()
            if failure:
                self._exit(failure, GRACE_PERIOD_S)

    def _exit(self, failure: str, grace_period_s: float = 0) -> None:
        if not self.stopped.wait(grace_period_s):
            print(f"error: {LostProcessError(failure)}", file=sys.stderr, flush=True)
            os._exit(1)  # sys.exit would end only this thread, and the main thread may be blocked inside a library

    def report_failure(self, error: BaseException) -> None:
        """Send the other processes the reason why this one ends."""
        kind = "" if isinstance(error, EsrganError) else type(error).__name__
        text = one_line(": ".join(filter(None, [kind, str(error)])), 300)
        with suppress(RuntimeError):
            self._report(f"process {self.rank} on {socket.gethostname()} ended: {text}")

    def _report(self, failure: str) -> None:
        self.store.compare_set("failure", "", failure)  # only the first report is kept

    def failure(self) -> str:
        """Return the reported failure; "" if there is none."""
        try:
            return self.store.get("failure").decode() if self.store.check(["failure"]) else ""
        except RuntimeError:
            return _unreachable()

    def all_gather_text(self, name: str, text: str) -> list[str]:
        """Return the texts of all processes by rank, waiting without a time limit for the last one.

        Use each name once, because it is the key of the exchange.

        Raises:
            LostProcessError: If another process has failed.
        """
        self.store.set(f"{name} {self.rank}", text)
        keys = [f"{name} {rank}" for rank in range(self.world_size)]
        while not self.store.check(keys):
            if failure := self.failure():
                raise LostProcessError(failure)
            time.sleep(0.1)
        texts = [self.store.get(key).decode() for key in keys]
        # The store may end with process 0, which therefore waits until all others have read the texts.
        self.store.set(f"{name} read by {self.rank}", "")
        if self.rank == 0:
            with suppress(RuntimeError):  # a process that has ended does not read them, and the wait times out
                read = [f"{name} read by {rank}" for rank in range(self.world_size)]
                self.store.wait(read, timedelta(seconds=TIMEOUT_S))
        return texts

    def stop(self) -> None:
        """Stop the thread."""
        self.stopped.set()
        self.join(INTERVAL_S)  # with a timeout, because the store may never answer


def _unreachable() -> str:
    return f"the machine of process 0, {os.environ['MASTER_ADDR']}, cannot be reached"
