"""CPUs and memory that this process may use, which in a container are fewer than the machine has.

Limits of control groups (cgroups, versions 1 and 2) are read from every group that contains this process.
"""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

import psutil

_ROOT = Path("/")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where PyTorch's loader processes put batches
MIN_WATCH_S = 0.5  # the system counts CPU time in hundredths of a second
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def cpu_count(root: Path = _ROOT) -> int:
    """Return the number of CPUs that this process may use: its affinity, or a lower CPU quota, rounded up."""
    affinity = len(_affinity())
    return min(affinity, math.ceil(cpu_quota(root) or affinity))


def cpu_name(root: Path = _ROOT) -> str:
    """Return the name of the CPU as far as the system knows it, else that of its architecture."""
    found = re.search(r"^model name\s*:\s*(\S.*)$", _read(root / "proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _affinity() -> list[int]:
    """Return the numbers of the CPUs on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class FreeCpus:
    """Counts the CPUs that other programs leave to this process."""

    def __init__(self) -> None:
        self._count, self._before = cpu_count(), self._measure()

    def count(self) -> int:
        """Return the number of CPUs that were free for this process since the last call; at least 1.

        If that was less than half a second ago, the number stays as it was.
        """
        now = self._measure()
        seconds, busy, own = (new - old for new, old in zip(now, self._before, strict=True))
        if seconds >= MIN_WATCH_S:
            self._before = now
            self._count = min(max(round(len(_affinity()) - (busy - own) / seconds), 1), cpu_count())
        return self._count

    def _measure(self) -> tuple[float, float, float]:
        """Return the time, the CPU time that all programs used on these CPUs, and that of this process, in seconds."""
        used, cpus, process = 0.0, psutil.cpu_times(percpu=True), psutil.Process().cpu_times()
        for times in (cpus[number] for number in _affinity() if number < len(cpus)):
            # On Linux, "user" contains "guest" already.
            unused = ("idle", "iowait", "guest", "guest_nice")
            used += sum(times) - sum(getattr(times, name, 0.0) for name in unused)
        return time.monotonic(), used, process.user + process.system


def map_in_threads(
    function: Callable[[_Item], _Result], items: Sequence[_Item], workers: int | None = None
) -> Iterator[tuple[_Item, _Result]]:
    """Yield each item and what the function returns for it, in order; what has not begun is dropped if this is closed.

    Threads suffice for images, because decoding, encoding and resizing release the GIL. The default is one per CPU.
    """
    pool = ThreadPoolExecutor(workers or cpu_count())
    try:
        yield from zip(items, pool.map(function, items), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Return the limit of CPU time, such as 1.5 seconds per second, or None if there is none.

    Args:
        root: The root of the file system; tests use another.
    """
    quotas = []
    for group in _groups("cpu", root):
        quota, _, period = _read(group / "cpu.max").partition(" ")  # version 2; "max 100000" is no limit
        if not quota:
            quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")  # -1 is no limit
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit(root: Path = _ROOT) -> int:
    """Return the bytes of memory that this process can have: those of the machine, or a lower limit."""
    return min([limit for limit, _ in _memory_limits(root)], default=psutil.virtual_memory().total)


def available_memory(root: Path = _ROOT) -> int:
    """Return the bytes of memory that are free for this process, on the machine and below every limit."""
    free = [max(limit - used, 0) for limit, used in _memory_limits(root)]
    return min([psutil.virtual_memory().available, *free])


def obtainable_memory(root: Path = _ROOT) -> int:
    """Return the bytes of memory that this process can still get below every limit, on Linux with free swap space.

    Other systems make room for a process as it grows, so there that is the memory of the machine.
    """
    swap = re.search(r"^SwapFree:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    machine = psutil.virtual_memory()
    most = machine.available + int(swap[1]) * 1024 if swap else machine.total
    return min([most, *(max(limit - used, 0) for limit, used in _memory_limits(root))])


def free_shared_memory() -> int | None:
    """Return the free bytes of shared memory in /dev/shm, or None if the system has no such folder."""
    try:
        return shutil.disk_usage(_SHARED_MEMORY).free
    except OSError:
        return None


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield the limits below the machine's memory, each with the bytes that count against it."""
    total = psutil.virtual_memory().total
    for group in _groups("memory", root):
        limits = [_read(group / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
        limit = min((int(text) for text in limits if text.isdecimal()), default=total)
        if limit >= total:
            continue
        used = _read(group / "memory.current") or _read(group / "memory.usage_in_bytes")
        # Cached files that were not used lately are the first to make room. Version 1 has a total with sub-groups.
        statistics = _read(group / "memory.stat")
        cached = re.search(r"^total_inactive_file (\d+)$", statistics, re.MULTILINE)
        cached = cached or re.search(r"^inactive_file (\d+)$", statistics, re.MULTILINE)
        yield limit, max(int(used or "0") - (int(cached[1]) if cached else 0), 0)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of the groups that contain this process, from the innermost to the outermost visible one."""
    own: dict[str, str] = {}  # this process's group by controller; "" is version 2
    for controllers, path in re.findall(r"^\d+:([^:\n]*):(.*)$", _read(root / "proc/self/cgroup"), re.MULTILINE):
        own |= dict.fromkeys(controllers.split(","), path)
    for line in _read(root / "proc/self/mountinfo").splitlines():
        place, _, filesystem = line.partition(" - ")  # "… root mount_point …", then "type source options"
        match filesystem.split(" "):
            case ["cgroup2", *_]:
                path = own.get("")
            case ["cgroup", _, options] if controller in options.split(","):
                path = own.get(controller)
            case _:
                continue
        if path is None:
            continue
        mount_root, mount_point = (_unescape(text) for text in place.split(" ")[3:5])
        mount = root / mount_point.lstrip("/")
        # A container sees its own group at the mount point, under a path that is that of the host or just "/".
        try:
            relative = PurePosixPath(path).relative_to(mount_root)
        except ValueError:
            relative = PurePosixPath()
        group = mount if ".." in relative.parts else mount / relative
        yield from (group, *(parent for parent in group.parents if parent.is_relative_to(mount)))


def _unescape(text: str) -> str:
    """Decode a path of mountinfo, which writes spaces and line breaks as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _read(path: Path) -> str:
    """Return the text of a system file, or "" if it does not exist or cannot be read."""
    try:
        return path.read_text(errors="surrogateescape").strip()
    except OSError:
        return ""
