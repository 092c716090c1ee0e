"""Options of the commands that use a Ray cluster, and the connection to it."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from esrgan.cli import arguments
from esrgan.errors import DeviceError, EsrganError, Problem
from esrgan.text import format_count

_CONNECT_TIMEOUT_S = 10  # limit for a connection to the address of the cluster


def add_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that choose the cluster and its workers."""
    parser.add_argument(
        "--address",
        help="address of a Ray cluster, or auto for the one on this machine (default: $RAY_ADDRESS, else no cluster)",
    )
    arguments.add_number(parser, "--workers", help="number of workers (default: as many as there are resources for)")
    parser.add_argument(
        "--num-gpus-per-worker",
        type=arguments.number(
            "0, a fraction below 1 or an integer below 1000", lambda value: 0 <= value < 1 or value in range(1, 1000)
        ),
        metavar="X",
        help="GPUs per worker, can be a fraction such as 0.5; 0 = CPU (default: 1 if the cluster has GPUs)",
    )


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """Discard what the block writes to standard error; Ray's C++ code prints its log level there unconditionally."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def connect(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start one on this machine, and keep Ray quiet."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # otherwise Ray reports each cluster to its developers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    host, _, port = address.rpartition("/")[2].rpartition(":")
    try:
        if port.isdecimal():  # Ray itself would retry for many minutes
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()
        handler = signal.getsignal(signal.SIGTERM)
        with _silence_stderr():
            ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        got = " ".join(str(error).split())
        raise EsrganError(
            Problem(f"--address {address}", "a Ray cluster", got, "start one with `ray start --head`")
        ) from error
    try:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has replaced it by one that prints a stack and aborts
        yield
    finally:
        ray.shutdown()


def allocate_workers(gpus: float | None, workers: int | None) -> tuple[float, int]:
    """Return the GPUs per worker and the number of workers."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = max(node.get("GPU", 0) for node in nodes)
    if gpus is None:
        gpus = min(largest, 1)
    if gpus > largest:
        got = f"the largest machine in the cluster has {largest:g} GPU{'s' * (largest != 1)}"
        raise DeviceError(f"--num-gpus-per-worker {gpus:g}: {got}; use a smaller number, or 0 for CPU")
    kind, share = ("GPU", gpus) if gpus else ("CPU", 1)
    room = sum(int(node.get(kind, 0) / share) for node in nodes)
    return gpus, workers or max(room, 1)


def describe_workers(gpus: float, workers: int) -> str:
    """Describe the workers for people to read."""
    place = f"with {gpus:g} GPU{'s' * (gpus > 1)} each" if gpus else "on CPU"
    return f"up to {format_count(workers, 'worker')} {place}"
