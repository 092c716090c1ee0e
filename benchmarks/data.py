"""Compare cutting patches from the cache with decoding an image for each: taskset -c 0 python benchmarks/data.py.

The rows take turns in every round, so other load on the machine affects them equally. The files are in the page cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
import torch

from esrgan import images
from esrgan.data import ImagePair, PatchDataset, cache, cache_pairs, load_batches

SCALE, PATCH_PX, BATCH_SIZE = 4, 128, 16
HEIGHT_PX, WIDTH_PX = 1356, 2040  # the most common size in DIV2K
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
STEPS_PER_TURN = 100
DECODES_PER_TURN = 4
CUT, DECODED = "patch pairs cut", "PNGs decoded"


def write_photographs(folder: Path, count: int) -> list[ImagePair]:
    """Write upscaled photographs, with noise that makes the files as large as those of DIV2K (several MB)."""
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(count):
        small = getattr(skimage.data, PHOTOGRAPHS[number % len(PHOTOGRAPHS)])()
        small = np.roll(small, 37 * number, axis=1)
        large = cv2.resize(small, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC)
        noisy = (large + rng.normal(0, 1, large.shape)).round().clip(0, 255).astype(np.uint8)
        path = folder / f"{number:04}.png"
        images.write_pixels(path, noisy, overwrite=False)
        pairs.append(ImagePair(path, None))
    return pairs


def run_interleaved(rows: dict[str, Callable[[], int]], rounds: int) -> Iterator[tuple[str, list[float], list[float]]]:
    """Run the rows in turns and return their rates.

    Args:
        rows: For each name a function that returns how many units it has processed.
        rounds: How often each is called.

    Returns:
        For each row its name and its rates per wall-clock second and per CPU second of this process.
    """
    wall: dict[str, list[float]] = {name: [] for name in rows}
    cpu: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, work in rows.items():
            wall_before, cpu_before = time.perf_counter(), time.process_time()
            count = work()
            wall[name].append(count / (time.perf_counter() - wall_before))
            cpu[name].append(count / (time.process_time() - cpu_before))
    return ((name, wall[name], cpu[name]) for name in rows)


def main() -> None:
    """Measure all rows and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, metavar="N", help="images of 2040×1356 px (default: 16)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="rounds (default: 10)")
    parser.add_argument(
        "--workers", type=int, nargs="*", default=[], metavar="N", help="also measure with N loader processes"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # as in loader processes
    with tempfile.TemporaryDirectory() as folder:
        pairs = write_photographs(Path(folder), args.images)
        build_cache = partial(
            cache_pairs, pairs, scale=SCALE, channels=3, min_size=(PATCH_PX,) * 2, cache_dir=Path(folder) / "cache"
        )
        before = time.perf_counter()
        cached = build_cache()
        built_s = time.perf_counter() - before
        dataset = PatchDataset(cached, scale=SCALE, patch_size=(PATCH_PX, PATCH_PX), seed=0, spatial_transforms="d4")

        def stream(num_workers: int) -> Iterator[Any]:
            return load_batches(dataset, batch_size=BATCH_SIZE, first_step=0, last_step=10**9, num_workers=num_workers)

        def take(stream: Iterator[Any], steps: int) -> int:
            for _ in range(steps):
                next(stream)
            return steps * BATCH_SIZE

        def decode() -> int:
            for pair in pairs[:DECODES_PER_TURN]:
                images.read_pixels(pair.high, 3)
            return DECODES_PER_TURN

        def check() -> int:
            cache._verified.clear()
            for pair in cached:
                cache.open_pair(pair)
            return len(cached)

        local_stream = stream(0)
        take(local_stream, args.images)  # the first use of each image compares its checksum
        rows: dict[str, Callable[[], int]] = {
            CUT: partial(take, local_stream, STEPS_PER_TURN),
            DECODED: decode,
            "cache files checked": check,
            "cache files found when a run starts": lambda: len(build_cache()),
        }
        for number in args.workers:  # turns are so long that less than 1 % is prefetched before they start
            rows[f"patch pairs, {number} loader processes"] = partial(take, stream(number), 500 * number)
        megabytes = statistics.mean(pair.high.stat().st_size for pair in pairs) / 1e6
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        print(f"{args.images} PNGs of {WIDTH_PX}×{HEIGHT_PX} px, {megabytes:.1f} MB each; {cores} cores")
        print(f"cache of {sum(pair.num_bytes for pair in cached) / 1e6:.0f} MB built in {built_s:.1f} s\n")
        print("| per second | best | median | median per CPU second |\n|---|--:|--:|--:|")
        medians = {}
        for name, wall, cpu in run_interleaved(rows, args.rounds):
            own = "" if "loader" in name else f"{statistics.median(cpu):,.0f}"
            print(f"| {name} | {max(wall):,.0f} | {statistics.median(wall):,.0f} | {own} |")
            medians[name] = statistics.median(wall)
        print(f"\ncutting a patch pair is {medians[CUT] / medians[DECODED]:.0f} × as fast as decoding a PNG")


main()
