"""How processes started by torchrun find each other, for training and for commands that share their work."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from esrgan.console import log
from esrgan.errors import EsrganError, Problem
from esrgan.text import describe_error, one_line

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

# Processes start together, but some machines take longer than others to import PyTorch.
TIMEOUT = timedelta(minutes=2)
_ATTEMPT_S = 10.0  # for one attempt to connect
_QUIET_S = 5.0  # before a message says what this process is waiting for


def count_processes() -> tuple[int, int]:
    """Return the number of this process, counted from 0, and how many torchrun has started; without it 0 and 1.

    Raises:
        EsrganError: If the environment variables of torchrun are wrong.
    """
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return 0, 1
    values = _read_environment("RANK", "WORLD_SIZE")
    return int(values["RANK"]), int(values["WORLD_SIZE"])


def _read_environment(*names: str) -> dict[str, str]:
    """Return environment variables of torchrun, RANK and WORLD_SIZE among them.

    Raises:
        EsrganError: If some are wrong.
    """
    values = {name: os.environ.get(name, "") for name in names}
    remedy = "start the processes with torchrun, or unset RANK and WORLD_SIZE to use one process"
    problems = [
        Problem(name, "a number" if name != "MASTER_ADDR" else "an address", repr(value), remedy)
        for name, value in values.items()
        if not (value.strip() if name == "MASTER_ADDR" else value.isdecimal())
    ]
    if not problems and int(values["RANK"]) >= int(values["WORLD_SIZE"]):
        expected = f"a number less than WORLD_SIZE ({values['WORLD_SIZE']})"
        problems.append(Problem("RANK", expected, values["RANK"], remedy))
    if problems:
        raise EsrganError(problems)
    return values


def connect() -> tuple[Store, int, int]:
    """Connect to the store that torchrun or process 0 provides, and return it with the rank and number of processes.

    Raises:
        EsrganError: If the environment variables of torchrun are wrong, or the store cannot be reached or provided.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # which some builds of PyTorch lack

    values = _read_environment("RANK", "WORLD_SIZE", "MASTER_PORT", "MASTER_ADDR")
    rank, world_size = int(values["RANK"]), int(values["WORLD_SIZE"])
    address, port = values["MASTER_ADDR"], int(values["MASTER_PORT"])
    is_server = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        if port >= 2**16:
            raise ValueError("a port is less than 65536")
        # PyTorch's own waiting handles no signals and prints tracebacks. A host name may have no address for a while
        # after a cluster has started its machines.
        if is_server:
            _wait_for(lambda: socket.getaddrinfo(address, port))
        else:
            _wait_for(lambda: socket.create_connection((address, port), _ATTEMPT_S).close())
        store = TCPStore(
            address,
            port,
            is_master=is_server,
            timeout=TIMEOUT,
            wait_for_workers=False,
            multi_tenant=True,
            use_libuv=os.environ.get("USE_LIBUV", "1") == "1",  # as in PyTorch; some builds lack it
        )
    except (RuntimeError, ValueError, OSError) as error:
        what = "this process cannot listen there" if is_server else "nothing can be reached there"
        remedy = "correct them, or choose a free port, on all machines"
        reason = one_line(describe_error(error).partition(". ")[0], 160)
        raise EsrganError(Problem.failure(_place(), f"{what} ({reason})", remedy)) from error
    return store, rank, world_size


def agree_on_key(store: Store, rank: int, world_size: int) -> str:
    """Wait until all processes have connected, and return a key that process 0 generates and all of them share.

    After a restart, torchrun's store still contains the entries of the previous processes, so only entries under a new
    key are valid. Each process requests the key with a random number, and process 0 answers each number.

    Raises:
        EsrganError: If some processes have not connected in time.
        RuntimeError: If the store is lost.
    """
    number = secrets.token_hex(8)
    key = number if rank == 0 else ""
    requests = [f"request {other}" for other in range(1, world_size)]
    if rank > 0:
        store.set(f"request {rank}", number)
    begin, is_quiet = time.monotonic(), True
    # PyTorch's own waiting handles no signals.
    while not key or store.add(f"{key} joined", 0) < world_size - 1:
        if rank == 0:
            for request in requests:
                if store.check([request]):
                    store.set(f"answer {store.get(request).decode()}", number)
        elif not key and store.check([f"answer {number}"]):
            key = store.get(f"answer {number}").decode()
            store.add(f"{key} joined", 1)
            continue
        waited_s = time.monotonic() - begin
        if waited_s > TIMEOUT.total_seconds():
            what = f"not all of the {world_size} processes have connected"
            remedy = "start the other processes, and check that they can reach this address"
            raise EsrganError(Problem.failure(_place(), what, remedy))
        if is_quiet and waited_s > _QUIET_S:
            log.info("waiting for the other processes")
            is_quiet = False
        time.sleep(0.1)
    return key


def _place() -> str:
    return f"MASTER_ADDR {os.environ['MASTER_ADDR']}, MASTER_PORT {os.environ['MASTER_PORT']}"


def _wait_for(reach: Callable[[], object]) -> None:
    """Repeat a call until it succeeds.

    Raises:
        OSError: If it still fails after ``TIMEOUT``.
    """
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while True:
        try:
            reach()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return
