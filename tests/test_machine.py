"""CPU quotas and memory limits of containers, in file systems that look like those of their kinds."""

import os
from collections import namedtuple
from types import SimpleNamespace

import psutil
import pytest
import torch

from esrgan import devices, machine

GB = 10**9
CPU_V1 = "31 23 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
MEMORY_V1 = "32 23 0:30 {root} /sys/fs/cgroup/memory rw - cgroup none rw,memory"
V2 = "30 23 0:28 {root} {place} rw - cgroup2 cgroup rw,nsdelegate"


@pytest.fixture
def fake_root(tmp_path, monkeypatch):
    """Return a function that writes a root folder from groups of this process, mounts, and files."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    sizes = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: sizes._replace(total=64 * GB, available=50 * GB))

    def write(groups, mounts, files):
        contents = {"proc/self/cgroup": "\n".join(groups), "proc/self/mountinfo": "\n".join(mounts)} | files
        for name, text in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return write


def test_version_2_quotas_of_all_ancestors_count(fake_root):
    root = fake_root(
        ["0::/pod/box/inner"],
        [V2.format(root="/", place="/sys/fs/cgroup")],
        {
            "sys/fs/cgroup/pod/cpu.max": "150000 100000",
            "sys/fs/cgroup/pod/box/cpu.max": "400000 100000",
            "sys/fs/cgroup/pod/box/inner/cpu.max": "max 100000",
            "sys/fs/cgroup/pod/memory.max": f"{8 * GB}",
            "sys/fs/cgroup/pod/memory.current": f"{5 * GB}",
            "sys/fs/cgroup/pod/memory.stat": f"anon 1\nactive_file 7\ninactive_file {GB}",
            "sys/fs/cgroup/pod/box/memory.max": "max",
            "sys/fs/cgroup/pod/box/memory.high": f"{6 * GB}",
            "sys/fs/cgroup/pod/box/memory.current": f"{5 * GB}",
        },
    )
    assert machine.cpu_quota(root) == 1.5
    assert machine.cpu_count(root) == 2
    assert machine.memory_limit(root) == 6 * GB
    assert machine.available_memory(root) == GB


def test_the_cpu_has_the_name_that_the_system_knows(fake_root):
    cpus = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel\t: 1\n\nprocessor\t: 1\nmodel name\t: Other"
    assert machine.cpu_name(fake_root([], [], {"proc/cpuinfo": cpus})) == "Some CPU @ 2 GHz"
    assert machine.cpu_name(fake_root([], [], {"proc/cpuinfo": "processor: 0\nCPU part: 0xd0c"})).strip()


@pytest.mark.parametrize(
    ("group", "mount_root", "folder"),
    [
        ("/docker/abc", "/docker/abc", ""),  # Docker: its group is mounted, the path is that of the host
        ("/", "/", ""),  # with a namespace, everything is "/"
        ("/docker/abc", "/", "/docker/abc"),  # the host itself
        ("/docker/abc/child", "/docker/abc", "/child"),
        ("/other/place", "/docker/abc", ""),  # not below what is mounted
        ("/../sibling", "/", ""),  # outside the namespace
        ("/gone/since", "/", ""),  # a group that the container cannot see
    ],
)
def test_version_1_limits_are_found_in_containers(fake_root, group, mount_root, folder):
    cpu, memory = f"sys/fs/cgroup/cpu,cpuacct{folder}", f"sys/fs/cgroup/memory{folder}"
    root = fake_root(
        [f"5:cpu,cpuacct:{group}", f"4:memory:{group}", "1:name=systemd:/elsewhere", "0::/"],
        [CPU_V1.format(root=mount_root), MEMORY_V1.format(root=mount_root)],
        {
            f"{cpu}/cpu.cfs_quota_us": "50000",
            f"{cpu}/cpu.cfs_period_us": "100000",
            f"{memory}/memory.limit_in_bytes": f"{2 * GB}",
            f"{memory}/memory.usage_in_bytes": f"{GB}",
            f"{memory}/memory.stat": f"inactive_file 1\ntotal_inactive_file {GB // 2}",
        },
    )
    assert machine.cpu_count(root) == 1
    assert machine.memory_limit(root) == 2 * GB
    assert machine.available_memory(root) == 3 * GB // 2


def test_without_limits_the_machine_counts(fake_root):
    root = fake_root(
        ["5:cpu,cpuacct:/", "4:memory:/", "0::/"],
        [CPU_V1.format(root="/"), MEMORY_V1.format(root="/"), V2.format(root="/", place="/sys/fs/cgroup/unified")],
        {
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
            "sys/fs/cgroup/unified/cpu.max": "max 100000",
            "sys/fs/cgroup/unified/memory.max": "max",
        },
    )
    assert machine.cpu_quota(root) is None
    assert machine.cpu_count(root) == 16
    assert machine.memory_limit(root) == 64 * GB
    assert machine.available_memory(root) == 50 * GB


def test_a_limit_that_is_used_up_leaves_nothing(fake_root):
    files = {"cg roup/memory.max": f"{GB}", "cg roup/memory.current": f"{2 * GB}"}
    root = fake_root(["0::/"], [V2.format(root="/", place="/cg\\040roup")], files)
    assert machine.available_memory(root) == 0


@pytest.mark.parametrize("text", ["", "nonsense", "0::", "::::", "- cgroup2", "30 - cgroup cgroup"])
def test_unknown_systems_have_no_limits(fake_root, text):
    root = fake_root([text], [text], {})
    assert machine.cpu_count(root) == 16
    assert machine.available_memory(root) == 50 * GB
    assert machine.cpu_count(root / "nothing") == 16


def test_torch_respects_the_quota(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(devices, "cpu_quota", lambda: 2.5)
    monkeypatch.setenv("VIPS_CONCURRENCY", "7")  # so that it is restored after the test
    monkeypatch.delenv("VIPS_CONCURRENCY")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    devices.select_device("cpu")
    assert chosen == []  # the user decides
    assert os.environ["VIPS_CONCURRENCY"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    devices.select_device("cpu")
    assert chosen == [3]
    monkeypatch.setattr(devices, "cpu_quota", lambda: None)
    devices.select_device("cpu")
    assert chosen == [3]


def test_obtainable_memory_counts_swap_space_but_not_beyond_limits(fake_root):
    root = fake_root(["0::/"], [V2.format(root="/", place="/cg")], {"proc/meminfo": f"SwapFree:  {4 * GB // 1024} kB"})
    assert machine.obtainable_memory(root) == 54 * GB
    (root / "cg").mkdir()
    (root / "cg/memory.max").write_text(f"{2 * GB}")
    (root / "cg/memory.current").write_text(f"{GB}")
    assert machine.obtainable_memory(root) == GB
    assert machine.obtainable_memory(root / "nothing") == 64 * GB


@pytest.mark.parametrize(
    ("used", "own", "expected"),
    [(0.0, 0.0, 4), (4.0, 4.0, 4), (1.1, 0.0, 3), (4.0, 2.9, 3), (3.6, 0.3, 1), (4.0, 0.0, 1), (0.4, 0.0, 4)],
)
def test_cpus_that_others_leave_are_counted(monkeypatch, used, own, expected):
    """Seven other CPUs, on which this process may not run, are busy."""
    clock = {"time": 100.0, "used": 50.0, "own": 30.0}
    cpu, process = namedtuple("cpu", "user system idle iowait"), namedtuple("process", "user system")
    monkeypatch.setattr(machine, "_affinity", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(machine, "cpu_count", lambda: 4)
    monkeypatch.setattr(machine.time, "monotonic", lambda: clock["time"])
    times = lambda: [cpu(clock["used"] / 4, 0.0, 7.0, 1.0)] * 4 + [cpu(clock["time"], 0.0, 0.0, 0.0)] * 7  # noqa: E731
    monkeypatch.setattr(machine.psutil, "cpu_times", lambda percpu: times())
    monkeypatch.setattr(machine.psutil.Process, "cpu_times", lambda _: process(clock["own"], 0.0))
    free = machine.FreeCpus()
    clock.update(time=100.2, used=58.0)
    assert free.count() == 4  # too soon
    clock.update(time=110.0, used=50.0 + 10 * used, own=30.0 + 10 * own)
    assert free.count() == expected


def test_threads_stay_as_they_are_if_the_user_binds_them(monkeypatch):
    changed = []
    monkeypatch.setattr(devices.torch, "set_num_threads", changed.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name in ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"):
        with monkeypatch.context() as context:
            context.setenv(name, "true")
            devices.follow_free_cpus(machine.FreeCpus(), 4)
    assert changed == []


def test_threads_follow_free_cpus_unless_the_user_set_them(monkeypatch):
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    free = SimpleNamespace(count=lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    devices.follow_free_cpus(free, 4)
    monkeypatch.delenv("OMP_NUM_THREADS")
    devices.follow_free_cpus(free, 4)
    devices.follow_free_cpus(free, 2)  # PyTorch's default, for example one thread for each pair of CPUs
    assert set_to == [3, 2]
