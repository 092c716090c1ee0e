"""Kill one of the two nodes of a local Ray cluster at several moments of a run: python -m tests.bulk_faults.

All processes of a node are killed at once, and the other node continues. Afterwards the outputs must equal those of
``inference.py``, and the log of renamed outputs must match the manifest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.helpers.images import write_images
from tests.helpers.models import make_model

ROOT = Path(__file__).parent.parent

MEMORY = 80 << 20


class BulkRun:
    """A run of ``esrgan bulk`` in its own folder, with checks of its outputs, its manifest and its rename log."""

    def __init__(self, folder: Path, images: int, **environment: str) -> None:
        self.source, self.out, self.log = folder / "in", folder / "out", folder / "log"
        self.images = images
        write_images(self.source, images, (12, 10))
        self.log.touch()
        self.model = make_model(folder / "model.pth")
        hook = os.pathsep.join([str(ROOT / "tests/bulk_hook"), str(ROOT)])
        names = {
            "RAY_raylet_start_wait_time_s": "300",
            "BULK_OUT": str(self.out),
            "BULK_LOG": str(self.log),
            "BULK_MIN_WORKERS": "2",
            "BULK_PAUSE_S": "0.1",
        }
        os.environ.update({"PYTHONPATH": hook, "OMP_NUM_THREADS": "1", **names, **environment})
        for name in {"BULK_POISON"} - environment.keys():
            os.environ.pop(name, None)

    def written(self) -> list[tuple[int, str]]:
        """Return the process and the path of each output that was renamed into place, in order."""
        lines = self.log.read_text().split("\n")[:-1]
        return [(int(line.partition(" ")[0]), line.partition(" ")[2]) for line in lines]

    def start(self, address: str, *arguments: str) -> subprocess.Popen[str]:
        """Start ``esrgan bulk`` on the cluster at an address."""
        command = ["esrgan", "bulk", "-m", str(self.model), "--address", address, *arguments]
        return subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True)

    def check(self, job: subprocess.Popen[str], moment: str, failed: int = 0, by_uri: bool = False) -> None:
        """Wait for the run to end, print a line of counts, and exit unless each output was written exactly once.

        With URIs there is no rename log, and a worker that is killed while copying may leave a hidden file
        (docs/how_to/bulk.md).
        """
        output = job.communicate()[0].splitlines()[-1]
        expected = self.out.parent / "expected"
        command = ["esrgan", "inference", "-m", str(self.model), str(self.source), "-o", str(expected)]
        subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (self.out / "esrgan-bulk.jsonl").read_text().splitlines()]
        got = {path.name: path.read_bytes() for path in self.out.iterdir() if path.name != "esrgan-bulk.jsonl"}
        same = sum(path.read_bytes() == got.get(path.name) for path in expected.iterdir())
        names = Counter(target for _, target in self.written())
        twice = sum(count > 1 for count in names.values()) + len(lines) - len({line["source"] for line in lines})
        statuses = dict(Counter(line["status"] for line in lines))
        print(f"{moment}: exit code {job.returncode}, {output}; {same} identical, {len(got)} files, {statuses}, "
              f"{len(names)} names logged, {twice} twice", flush=True)  # fmt: skip
        if by_uri:
            got = {name: content for name, content in got.items() if not name.startswith(".")}
        logged = 0 if by_uri else self.images
        if (job.returncode, same, len(got), len(names), twice) != (failed > 0, self.images, self.images, logged, 0):
            sys.exit("unexpected exit code, outputs or rename log")
        if len(lines) != self.images + failed or statuses.get("failed", 0) != failed:
            sys.exit("unexpected manifest")


@contextmanager
def two_node_cluster() -> Iterator[tuple[Any, Any]]:
    """Start a cluster of two nodes with one core each; yield the cluster and the node that does not run the driver."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield nodes, nodes.add_node(num_cpus=1, object_store_memory=MEMORY)
    finally:
        nodes.shutdown()


def processes_of(node: Any) -> list[psutil.Process]:
    """Return all processes of a node."""
    started = [psutil.Process(info.process.pid) for infos in node.all_processes.values() for info in infos]
    return [*started, *(child for process in started for child in process.children(recursive=True))]


def lose_a_node(folder: Path, images: int, moment: str, is_time: Callable[[list[bool]], bool]) -> None:
    """Kill the node when ``is_time`` returns true for a list with, for each output, whether the node wrote it."""
    job = BulkRun(folder, images)
    with two_node_cluster() as (nodes, node), job.start(nodes.address, str(job.source), "-o", str(job.out)) as process:
        seen, victims = 0, []
        while process.poll() is None:
            written = [pid for pid, _ in job.written()]
            if len(written) > seen:
                victims, seen = processes_of(node), len(written)
                if is_time([pid in {victim.pid for victim in victims} for pid in written]):
                    break
            time.sleep(0.01)
        for victim in victims:
            victim.kill()
        count = len(job.written())
        job.check(process, f"{moment} ({count} of {images} written)")


def main() -> None:
    """Kill a node early, in the middle of a task, late, and during a run with URIs.

    The last run has an image that kills each worker that reads it.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--poisoned-images", type=int, default=20)
    args = parser.parse_args()
    images_per_task = max(args.images // (2 * 32), 1)
    moments = {
        "at the node's first result": lambda mine: len(mine) > 0,
        "when the node has finished an image but not its task": lambda mine: (
            sum(mine) > 20 and sum(mine) % images_per_task == 1 % images_per_task
        ),
        "late": lambda mine: len(mine) > args.images * 0.9,
    }
    with tempfile.TemporaryDirectory() as folder:
        for i, (moment, is_time) in enumerate(moments.items()):
            lose_a_node(Path(folder, str(i)), args.images, moment, is_time)

        job = BulkRun(Path(folder, "uris"), args.images)
        uris = [f"local://{path}" for path in sorted(job.source.iterdir())]
        (job.source.parent / "list.txt").write_text("\n".join(uris))
        with two_node_cluster() as (nodes, node):
            arguments = ["--list", str(job.source.parent / "list.txt"), "-o", f"local://{job.out}"]
            with job.start(nodes.address, *arguments) as process:
                while process.poll() is None and len([*job.out.glob("*.png")]) < args.images / 4:
                    time.sleep(0.01)
                for victim in processes_of(node):
                    victim.kill()
                job.check(process, "with URIs, a quarter written", by_uri=True)

        job = BulkRun(Path(folder, "poison"), args.poisoned_images, BULK_POISON="poison.png", BULK_MIN_WORKERS="1")
        with two_node_cluster() as (nodes, node):
            shutil.copy(job.source / "0.png", job.source / "poison.png")
            with job.start(nodes.address, str(job.source), "-o", str(job.out)) as process:
                process.wait()
                (job.source / "poison.png").unlink()
                job.check(process, "one image kills each worker that reads it", failed=1)


if __name__ == "__main__":
    main()
