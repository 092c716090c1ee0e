import multiprocessing
import os
import random
import signal
import threading
import time
import tracemalloc
from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from esrgan.data import PatchDataset, cache_pairs, find_pairs, load_batches, patches
from esrgan.errors import EsrganError, TrainingError
from tests.helpers.image_pairs import (
    SCALE,
    assert_equal_batches,
    assert_shares,
    asymmetric,
    patch_stream,
    problem_texts,
    repeat_pixels,
    write_image,
)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_lr_and_hr_crops_are_aligned(tmp_path, scale):
    height, width = 9 * scale + scale // 2, 12 * scale
    rows, columns = np.indices((height, width))
    coordinates = np.stack([rows, columns, np.full_like(rows, 7)], 2).astype(np.uint8)
    write_image(tmp_path / "hr" / "a.png", coordinates)
    write_image(tmp_path / "lr" / "a.png", np.ascontiguousarray(coordinates[: 9 * scale : scale, ::scale]))
    pairs = find_pairs([(str(tmp_path / "hr"), str(tmp_path / "lr"))], "train", scale, tmp_path)
    prepared = cache_pairs(pairs, scale=scale, channels=3, min_size=(4 * scale,) * 2, cache_dir=tmp_path / "cache")
    dataset = PatchDataset(prepared, scale=scale, patch_size=(3 * scale, 4 * scale), seed=0, spatial_transforms="none")
    places = set()
    for position in range(200):
        low, high = dataset[position]
        assert low.shape == (3, 4, 3)
        assert high.shape == (3 * scale, 4 * scale, 3)
        top, left, _ = map(int, high[0, 0])
        assert top % scale == left % scale == 0  # on the LR grid
        assert np.array_equal(high, coordinates[top : top + 3 * scale, left : left + 4 * scale])
        assert np.array_equal(low, high[::scale, ::scale])
        places.add((top // scale, left // scale))
    assert max(places) == (6, 8)
    assert min(places) == (0, 0)


def test_crop_positions_are_uniform(cache_arrays):
    low = asymmetric(4, 5)
    dataset = PatchDataset(
        cache_arrays([(low, repeat_pixels(low))]), scale=SCALE, patch_size=(6, 4), seed=3, spatial_transforms="none"
    )
    place = {tuple(low[top, left]): (top, left) for top in range(2) for left in range(4)}
    counts = Counter(place[tuple(dataset[position][0][0, 0])] for position in range(400))
    assert_shares(counts, {(top, left): 1 / 8 for top in range(2) for left in range(4)})


def uniform_pairs(count, height=4, width=4):
    """Return pairs of single-colour images whose value is their index."""
    lows = [np.full((height, width, 3), i, np.uint8) for i in range(count)]
    return [(low, repeat_pixels(low)) for low in lows]


def shown_order(dataset, positions):
    return [int(dataset[position][0][0, 0, 0]) for position in positions]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_each_epoch_shows_every_image_once(cache_arrays, count):
    pairs = cache_arrays(uniform_pairs(count))
    dataset = PatchDataset(pairs, scale=SCALE, patch_size=(4, 4), seed=5)
    for number in range(6):
        shown = shown_order(dataset, range(number * count, (number + 1) * count))
        assert sorted(shown) == list(range(count))


def test_each_epoch_and_seed_has_its_own_order(cache_arrays):
    pairs = cache_arrays(uniform_pairs(7))
    orders, firsts = set(), Counter()
    for seed in range(4):
        dataset = PatchDataset(pairs, scale=SCALE, patch_size=(4, 4), seed=seed, spatial_transforms="none")
        orders |= {tuple(shown_order(dataset, range(start, start + 7))) for start in range(0, 28, 7)}
        firsts.update(shown_order(dataset, range(0, 700, 7)))
    assert len(orders) == 16
    assert_shares(firsts, dict.fromkeys(range(7), 1 / 7))


@pytest.mark.parametrize("spatial", ["d4", "flip_or_transpose", "none"])
def test_patch_depends_only_on_seed_and_position(cached_pairs, spatial):
    first = patch_stream(cached_pairs, spatial_transforms=spatial)
    patches = [first[position] for position in range(30)]
    second = patch_stream(cached_pairs, spatial_transforms=spatial)
    for position in reversed(range(30)):
        random.seed(position)
        np.random.seed(position)  # noqa: NPY002  as other code may do
        torch.manual_seed(position)
        assert_equal_batches([second[position]], [patches[position]])
        assert_equal_batches([first[position]], [patches[position]])
    other = patch_stream(cached_pairs, seed=1, spatial_transforms=spatial)
    assert sum(np.array_equal(other[position][1], patches[position][1]) for position in range(30)) < 5


def test_positions_differ_in_crop_and_transform(cache_arrays):
    low = asymmetric(9, 11)
    dataset = patch_stream(cache_arrays([(low, repeat_pixels(low))]))
    assert len({dataset[position][1].tobytes() for position in range(50)}) > 40


def test_reading_patches_leaves_global_random_state_unchanged(cached_pairs):
    dataset = patch_stream(cached_pairs)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    for position in range(10):
        dataset[position]
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_batches_do_not_depend_on_the_number_of_workers(cached_pairs):
    load = partial(load_batches, patch_stream(cached_pairs), batch_size=3, first_step=2, last_step=8)
    assert_equal_batches(load(num_workers=0), load(num_workers=2))


def test_batches_follow_the_stream_in_order(cached_pairs):
    dataset = patch_stream(cached_pairs)
    loaded = list(load_batches(dataset, batch_size=4, first_step=3, last_step=5))
    assert [low.shape for low, _ in loaded] == [(4, 3, 6, 6)] * 2
    assert [high.shape for _, high in loaded] == [(4, 3, 12, 12)] * 2
    lows = torch.cat([low for low, _ in loaded])
    highs = torch.cat([high for _, high in loaded])
    assert lows.dtype == highs.dtype == torch.uint8
    for i in range(8):
        low, high = dataset[12 + i]
        assert np.array_equal(lows[i].permute(1, 2, 0), low)
        assert np.array_equal(highs[i].permute(1, 2, 0), high)


def test_resumed_stream_equals_uninterrupted_stream(cached_pairs):
    load = partial(load_batches, patch_stream(cached_pairs), batch_size=3, last_step=9)
    whole = list(load(first_step=0))
    for step in (1, 4, 8):
        fresh = partial(load_batches, patch_stream(cached_pairs), batch_size=3, last_step=9)
        assert_equal_batches(fresh(first_step=step), whole[step:])
    assert list(load(first_step=9)) == []


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_share_each_batch_without_overlap(cached_pairs, world_size):
    load = partial(load_batches, patch_stream(cached_pairs), batch_size=6, first_step=1, last_step=5)
    ranks = [list(load(rank=rank, world_size=world_size)) for rank in range(world_size)]
    merged = [tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*ranks, strict=True)]
    assert_equal_batches(merged, load())


def test_long_run_does_not_materialise_all_positions():
    class Numbers(torch.utils.data.Dataset):
        def __getitem__(self, position):
            return torch.tensor([[[position]]]), torch.tensor([[[position]]])

    tracemalloc.start()
    try:
        first, _ = next(load_batches(Numbers(), batch_size=4, first_step=0, last_step=100_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert first.flatten().tolist() == [0, 1, 2, 3]
    assert peak < 4_000_000


def test_workers_persist_across_epochs(cached_pairs):
    others = multiprocessing.active_children()
    seen = set()
    for _ in load_batches(patch_stream(cached_pairs), batch_size=5, first_step=0, last_step=12, num_workers=2):
        seen.add(frozenset(process.pid for process in multiprocessing.active_children() if process not in others))
    assert len(seen) == 1
    assert len(*seen) == 2


def kill_worker(others):
    while not (started := [process for process in multiprocessing.active_children() if process not in others]):
        time.sleep(0.1)
    process = min(started, key=lambda process: process.pid)
    os.kill(process.pid, signal.SIGKILL)
    return process


def assert_reports_dead_worker(error, pid):
    (text,) = problem_texts(error)
    assert text.startswith(f"loader process {pid}: ")
    assert "was killed by signal 9, which the system sends when memory runs out; lower num_workers" in text
    assert "num_workers" in text
    assert "--resume auto" in text


@pytest.mark.parametrize(
    ("method", "guard"),
    [("fork", ""), ("spawn", '; if a script of yours trains, put what it runs under `if __name__ == "__main__":`')],
)
def test_process_that_may_run_the_script_again_needs_a_guard(monkeypatch, method, guard):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    with pytest.raises(TrainingError) as caught:
        patches._check_workers_alive([SimpleNamespace(pid=7, exitcode=1)])
    remedy = "lower num_workers, then resume with --resume auto"
    assert str(caught.value) == f"loader process 7: exited too early with code 1; {remedy}{guard}"


def test_dead_worker_raises_at_the_next_batch(cached_pairs):
    handler = signal.getsignal(signal.SIGCHLD)
    others = multiprocessing.active_children()
    loader = load_batches(patch_stream(cached_pairs), batch_size=3, first_step=0, last_step=1000, num_workers=2)
    next(loader)
    time.sleep(0.5)  # until the other process has loaded the next batch
    process = kill_worker(others)
    process.join()  # must not raise at an arbitrary place
    with pytest.raises(EsrganError) as error:
        next(loader)
    assert_reports_dead_worker(error, process.pid)
    assert signal.getsignal(signal.SIGCHLD) == handler


class BlockedDataset(torch.utils.data.Dataset):
    def __getitem__(self, position):
        time.sleep(60)


@pytest.mark.slow
def test_dead_worker_interrupts_the_wait_for_its_batch():
    others = multiprocessing.active_children()
    loader = load_batches(BlockedDataset(), batch_size=1, first_step=0, last_step=10, num_workers=1)
    killed = []
    threading.Thread(target=lambda: killed.append(kill_worker(others))).start()
    before = time.monotonic()
    with pytest.raises(EsrganError) as error:
        next(loader)
    assert time.monotonic() - before < 20
    assert_reports_dead_worker(error, killed[0].pid)


def test_a_worker_that_dies_at_once_is_reported(monkeypatch):
    workers, start = [], torch.utils.data.DataLoader.__iter__

    def start_and_kill(loader):
        iterator = start(loader)
        workers.extend(iterator._workers)
        workers[0].kill()
        workers[0].join()
        return iterator

    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", start_and_kill)
    with pytest.raises(EsrganError) as error:
        next(load_batches(BlockedDataset(), batch_size=1, first_step=0, last_step=10, num_workers=1))
    assert_reports_dead_worker(error, workers[0].pid)


@pytest.mark.slow
def test_request_to_stop_ends_the_wait_for_a_batch(monkeypatch):
    monkeypatch.setattr(patches, "_POLL_S", 0.1)
    monkeypatch.setattr(patches, "_LAST_WAIT_S", 0.5)
    others, requested = multiprocessing.active_children(), threading.Event()
    loader = load_batches(
        BlockedDataset(), batch_size=1, first_step=0, last_step=10, num_workers=1, stop=requested.is_set
    )
    threading.Timer(1, requested.set).start()
    with pytest.raises(TrainingError, match="asked to stop while loader processes did not answer"):
        next(loader)
    assert requested.is_set()
    for process in multiprocessing.active_children():
        if process not in others:
            process.kill()


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="needs processes that inherit the patches")
def test_loader_processes_need_no_shared_memory(cached_pairs, monkeypatch):
    def refuse(*_):
        raise RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", refuse)  # inherited by the loader processes
    monkeypatch.setattr(patches, "_LAST_WAIT_S", 0.0)
    load = partial(load_batches, patch_stream(cached_pairs), batch_size=3, first_step=0, last_step=6)
    assert_equal_batches(load(num_workers=2, stop=lambda: True), load())


def test_loader_processes_that_cannot_start_are_explained(cached_pairs, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    with pytest.raises(TrainingError, match="cannot start: No space left on device; set num_workers to 0, or raise"):
        next(load_batches(patch_stream(cached_pairs), batch_size=3, first_step=0, last_step=6, num_workers=1))
