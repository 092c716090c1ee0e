import os
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from esrgan.data import ImagePair, load_batches, load_pair
from esrgan.data.cache import open_pair
from esrgan.errors import DatasetError
from tests.helpers.image_pairs import (
    CACHE_REGIONS,
    assert_equal_batches,
    damage,
    patch_stream,
    problem_texts,
    random_image,
    write_image,
    write_numbered_pairs,
)


@pytest.mark.parametrize("place", CACHE_REGIONS)
def test_damaged_cache_file_is_detected_and_rebuilt(tmp_path, cache, forget_verified, capsys, place):
    pairs = write_numbered_pairs(tmp_path, 2)
    prepared = cache(pairs)
    whole = prepared[1].path.read_bytes()
    damage(prepared[1].path, place)
    forget_verified()
    for pair, cached in zip(pairs, prepared, strict=True):
        low, high = load_pair(pair, 4, 3)
        assert all(np.array_equal(*both) for both in zip(open_pair(cached), (low, high), strict=True))
    assert capsys.readouterr().err == f"{prepared[1].path}: damaged; rebuilding it from {pairs[1].high}\n"
    assert prepared[1].path.read_bytes() == whole


def truncate_by_one_byte(path):
    os.truncate(path, path.stat().st_size - 1)


def empty(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [truncate_by_one_byte, empty, Path.unlink])
def test_truncated_or_missing_cache_file_is_rebuilt(tmp_path, cache, forget_verified, decoded, harm):
    (pair,) = write_numbered_pairs(tmp_path, 1)
    (cached,) = cache([pair])
    for again in (lambda: cache([pair]), lambda: open_pair(cached)):  # when a run starts, and later
        harm(cached.path)
        forget_verified()
        decoded.clear()
        again()
        assert decoded == [pair.high]
        assert np.array_equal(open_pair(cached)[1], random_image(16, 16))


def test_checksum_is_verified_once_per_process(tmp_path, cache, forget_verified, monkeypatch):
    (cached,) = cache(write_numbered_pairs(tmp_path, 1))
    forget_verified()
    calls = []
    crc32 = zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda *arguments: calls.append(0) or crc32(*arguments))
    for _ in range(3):
        open_pair(cached)
    assert len(calls) == 1


@pytest.mark.slow
def test_cache_damage_does_not_change_the_stream(cached_pairs, forget_verified, capfd):
    dataset = patch_stream(cached_pairs)
    load = partial(load_batches, dataset, batch_size=3, first_step=0, last_step=6)
    expected = list(load())
    for cached in cached_pairs[:3]:
        damage(cached.path, "HR")
    forget_verified()
    assert_equal_batches(load(num_workers=2), expected)
    assert "damaged; rebuilding it from" in capfd.readouterr().err


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.slow
def test_unrepairable_cache_damage_raises_one_problem(cached_pairs, forget_verified, num_workers):
    damage(cached_pairs[0].path, "HR")
    forget_verified()
    image = cached_pairs[0].source.high
    image.unlink()
    with pytest.raises(DatasetError) as error:
        list(load_batches(patch_stream(cached_pairs), batch_size=1, first_step=0, last_step=5, num_workers=num_workers))
    (text,) = problem_texts(error)
    assert text.startswith(f"{image}: cannot be read")


def test_source_image_changed_during_a_run_raises(cached_pairs, forget_verified):
    damage(cached_pairs[0].path, "LR")
    forget_verified()
    write_image(cached_pairs[0].source.high, random_image(18, 22, seed=99))
    with pytest.raises(DatasetError, match="expected the image the run started with, got a different one"):
        open_pair(cached_pairs[0])


def test_uncreatable_cache_folder_raises(tmp_path, cache):
    (tmp_path / "file").write_text("in the way")
    pair = ImagePair(write_image(tmp_path / "a.png"), None)
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(DatasetError) as error:
            cache([pair], cache_dir=folder)
        (text,) = problem_texts(error)
        assert str(folder) in text
        assert "cache_dir" in text
