"""Measure a command beside a busy process: ``python benchmarks/busy.py --help``. Linux only.

It runs in turns on one thread, with the waiting of OpenMP's threads as it is by default, and as commands set it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = "inference -m realesr-animevideov3 --device cpu --precision fp32 docs/pictures/chelsea.png -o {out}"
BUSY = [sys.executable, "-c", "while True: pass"]
NEIGHBOURS = {"none": [], "pinned": [["taskset", "-c", "0", *BUSY]], "unpinned": [BUSY], "two": [BUSY, BUSY]}
SETTINGS = {"one thread": {"OMP_NUM_THREADS": "1"}, "GNU's default": {"GOMP_SPINCOUNT": "300000"}, "esrgan": {}}
WAITING = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@contextmanager
def beside(commands: list[list[str]]) -> Iterator[None]:
    """Keep processes running in the block."""
    processes = [subprocess.Popen(command) for command in commands]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(command: str, setting: dict[str, str], group: Path | None) -> tuple[float, float]:
    """Run a command of esrgan, in a control group if there is one, and return its seconds and CPU seconds."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | setting
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "esrgan", *shlex.split(command.format(out=folder))]
        if group is not None:
            words = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"), *words]
        begin = time.perf_counter()
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        duration = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: the command ended with code {process.returncode}")
    return duration, usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print a table with a row for each neighbour and setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    text = "arguments of esrgan; {out} is a new folder (default: %(default)s)"
    parser.add_argument("--command", default=COMMAND, help=text)
    parser.add_argument("--runs", type=int, default=5, help="of each setting (default: %(default)s)")
    parser.add_argument("--neighbours", nargs="+", choices=NEIGHBOURS, default=list(NEIGHBOURS))
    text = "folder of a control group with a CPU quota, in which the command runs"
    parser.add_argument("--group", type=Path, metavar="DIR", help=text)
    args = parser.parse_args()
    print("| neighbour | setting | median s | relative to one thread | median CPU s |")
    print("|---|---|--:|--:|--:|")
    for neighbour in args.neighbours:
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in SETTINGS}
        with beside(NEIGHBOURS[neighbour]):
            for _ in range(args.runs):
                for name, setting in SETTINGS.items():
                    runs[name].append(run(args.command, setting, args.group))
        one = statistics.median(seconds for seconds, _ in runs["one thread"])
        for name, results in runs.items():
            median, cpu = map(statistics.median, zip(*results, strict=True))
            print(f"| {neighbour} | {name} | {median:.1f} | {median / one:.2f} | {cpu:.2f} |", flush=True)


if __name__ == "__main__":
    main()
