"""How a process of a run learns that another one has ended: in seconds, where an exchange would wait for minutes."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from contextlib import suppress

from torch.distributed.distributed_c10d import PrefixStore, Store

from esrgan.errors import EsrganError, LostProcessError
from esrgan.text import one_line

INTERVAL_S = 2.0  # between two signs of life
TIMEOUT_S = 20.0  # without one; less than the 30 s after which torchrun kills what is left on a machine, unheard
GRACE_PERIOD_S = 5.0  # in which a process may end by itself, saying so
_UNREACHABLE = "the machine of process 0, {}, cannot be reached"


class Heartbeat(threading.Thread):
    """Gives signs of life, looks for those of the next process, and ends this one when the run has lost a process.

    A process that fails says why, and all others say it after it. One that was killed, or whose machine is gone, is
    missed by the process before it. One that lives and is busy is waited for.

    Args:
        store: What all processes of the run can read and write.
        key: What sets this run apart from others in the store.
        rank: Number of this process.
        world_size: Number of processes.
    """

    def __init__(self, store: Store, key: str, rank: int, world_size: int) -> None:
        super().__init__(daemon=True)
        self.rank = rank
        self.next_rank = (rank + 1) % world_size
        self.world_size = world_size
        self.store = PrefixStore(key, store.clone())  # its own connection, or it would wait while the main thread does
        self.stopped = threading.Event()
        self.last_answer_at = time.monotonic()
        self.start()
        threading.Thread(target=self._watch_store, daemon=True).start()

    def run(self) -> None:
        """Keep watch until ``stop``."""
        count, changed_at = 0, time.monotonic()
        while not self.stopped.wait(INTERVAL_S):
            try:
                self.store.add(f"heartbeat {self.rank}", 1)
                if (newest := self.store.add(f"heartbeat {self.next_rank}", 0)) != count:
                    count, changed_at = newest, time.monotonic()
                elif time.monotonic() - changed_at > TIMEOUT_S:
                    self._report(f"process {self.next_rank} has given no sign of life for {TIMEOUT_S:.0f} s")
            except RuntimeError:  # which failure() tells
                pass
            failure = self.failure()
            self.last_answer_at = time.monotonic()
            if failure and not self.stopped.wait(GRACE_PERIOD_S):
                _exit(failure)

    def _watch_store(self) -> None:
        """Watch the watch: where the network is gone the store neither answers nor fails, whatever its timeout is."""
        while not self.stopped.wait(INTERVAL_S):
            if time.monotonic() - self.last_answer_at > TIMEOUT_S:
                _exit(_UNREACHABLE.format(os.environ["MASTER_ADDR"]))

    def report_failure(self, error: BaseException) -> None:
        """Let all know why this process ends."""
        kind = "" if isinstance(error, EsrganError) else f"{type(error).__name__}: "
        text = one_line(f"{kind}{error}", 300)
        with suppress(RuntimeError):
            self._report(f"process {self.rank} on {socket.gethostname()} ended: {text}")

    def _report(self, failure: str) -> None:
        self.store.compare_set("failure", "", failure)  # if nobody has been before

    def failure(self) -> str:
        """Give what was told; "" if all is well."""
        try:
            return self.store.get("failure").decode() if self.store.check(["failure"]) else ""
        except RuntimeError:
            return _UNREACHABLE.format(os.environ["MASTER_ADDR"])

    def all_gather_text(self, name: str, text: str) -> list[str]:
        """Give the texts of all processes in their order, however long the last one takes to come here.

        Args:
            name: Of the meeting, which takes place once.
            text: Of this process.

        Raises:
            LostProcessError: If one of them will not come.
        """
        self.store.set(f"{name} {self.rank}", text)
        keys = [f"{name} {rank}" for rank in range(self.world_size)]
        while not self.store.check(keys):
            if failure := self.failure():
                raise LostProcessError(failure)
            time.sleep(0.1)
        return [self.store.get(key).decode() for key in keys]

    def stop(self) -> None:
        """End the watch."""
        self.stopped.set()
        self.join(INTERVAL_S)  # it may be waiting for an answer that does not come


def _exit(failure: str) -> None:
    print(f"error: {LostProcessError(failure)}", file=sys.stderr, flush=True)
    os._exit(1)  # the main thread may be waiting inside a library, for ever
