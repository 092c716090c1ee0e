"""How a process of a run learns that another one has ended: in seconds, where an exchange would wait for minutes."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from contextlib import suppress

from torch.distributed.distributed_c10d import PrefixStore, Store

from esrgan.errors import EsrganError, LostProcessError, one_line

PULSE_S = 2.0  # between two signs of life
SILENCE_S = 20.0  # without one; less than the 30 s after which torchrun kills what is left on a machine, unheard
GRACE_S = 5.0  # in which a process may end by itself, saying so
_UNREACHABLE = "the machine of process 0, {}, cannot be reached"


class Watch(threading.Thread):
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
        self.is_over = threading.Event()
        self.answered_at = time.monotonic()
        self.start()
        threading.Thread(target=self._expect_answers, daemon=True).start()

    def run(self) -> None:
        """Keep watch until ``stop``."""
        pulse, heard_at = 0, time.monotonic()
        while not self.is_over.wait(PULSE_S):
            try:
                self.store.add(f"pulse {self.rank}", 1)
                if (newest := self.store.add(f"pulse {self.next_rank}", 0)) != pulse:
                    pulse, heard_at = newest, time.monotonic()
                elif time.monotonic() - heard_at > SILENCE_S:
                    self._tell(f"process {self.next_rank} has given no sign of life for {SILENCE_S:.0f} s")
            except RuntimeError:  # which news() tells
                pass
            news = self.news()
            self.answered_at = time.monotonic()
            if news and not self.is_over.wait(GRACE_S):
                _end(news)

    def _expect_answers(self) -> None:
        """Watch the watch: where the network is gone the store neither answers nor fails, whatever its timeout is."""
        while not self.is_over.wait(PULSE_S):
            if time.monotonic() - self.answered_at > SILENCE_S:
                _end(_UNREACHABLE.format(os.environ["MASTER_ADDR"]))

    def tell(self, error: BaseException) -> None:
        """Let all know why this process ends."""
        kind = "" if isinstance(error, EsrganError) else f"{type(error).__name__}: "
        text = one_line(f"{kind}{error}", 300)
        with suppress(RuntimeError):
            self._tell(f"process {self.rank} on {socket.gethostname()} ended: {text}")

    def _tell(self, news: str) -> None:
        self.store.compare_set("news", "", news)  # if nobody has been before

    def news(self) -> str:
        """Give what was told; "" if all is well."""
        try:
            return self.store.get("news").decode() if self.store.check(["news"]) else ""
        except RuntimeError:
            return _UNREACHABLE.format(os.environ["MASTER_ADDR"])

    def gather(self, name: str, text: str) -> list[str]:
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
            if news := self.news():
                raise LostProcessError(news)
            time.sleep(0.1)
        return [self.store.get(key).decode() for key in keys]

    def stop(self) -> None:
        """End the watch."""
        self.is_over.set()
        self.join(PULSE_S)  # it may be waiting for an answer that does not come


def _end(news: str) -> None:
    print(f"error: {LostProcessError(news)}", file=sys.stderr, flush=True)
    os._exit(1)  # the main thread may be waiting inside a library, for ever
