"""How processes started by torchrun find each other, for training and for commands that share their work."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from esrgan.errors import EsrganError, Problem
from esrgan.text import describe_error, one_line

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

# Processes start together, but some machines take longer than others to import PyTorch.
TIMEOUT = timedelta(minutes=2)
_ATTEMPT_S = 10.0  # for one attempt to connect


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
    from torch.distributed.rendezvous import rendezvous  # which some builds of PyTorch lack

    values = _read_environment("RANK", "WORLD_SIZE", "MASTER_PORT", "MASTER_ADDR")
    place = f"MASTER_ADDR {values['MASTER_ADDR']}, MASTER_PORT {values['MASTER_PORT']}"
    address, port = values["MASTER_ADDR"], int(values["MASTER_PORT"])
    is_server = values["RANK"] == "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        # PyTorch's own waiting handles no signals and prints tracebacks. A host name may have no address for a while
        # after a cluster has started its machines.
        if is_server:
            _wait_for(lambda: socket.getaddrinfo(address, port))
        else:
            _wait_for(lambda: socket.create_connection((address, port), _ATTEMPT_S).close())
        store, rank, world_size = next(rendezvous("env://", timeout=TIMEOUT))
    except (RuntimeError, ValueError, OSError, OverflowError) as error:
        what = "this process cannot listen there" if is_server else "nothing can be reached there"
        remedy = "correct them, or choose a free port, on all machines"
        if is_server and "waiting for clients" in str(error):
            what = f"not all of the {values['WORLD_SIZE']} processes have connected"
            remedy = "start the other processes, and check that they can reach this address"
        reason = one_line(describe_error(error).partition(". ")[0], 160)
        raise EsrganError(Problem.failure(place, f"{what} ({reason})", remedy)) from error
    return store, rank, world_size


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
