import io
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
import tracemalloc
import zlib
from collections import Counter
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from esrgan import images, resize
from esrgan.console import Console, gigabytes
from esrgan.data import (
    ImagePair,
    PatchDataset,
    batches,
    find_pairs,
    load_pair,
    prepare,
    read_whole,
)
from esrgan.data import cache as cache_module
from esrgan.data.augment import Augmentation
from esrgan.data.cache import open_pair
from esrgan.data.datasets import default_data_root
from esrgan.errors import DatasetError, EsrganError
from esrgan.files import new_image_file, one_at_a_time


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def write(path, image=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, noise(8, 8) if image is None else image, overwrite=True)
    return path


def problems(error):
    texts = [str(problem) for problem in error.value.problems]
    assert not any("\n" in text for text in texts)
    return texts


# Which images a dataset has

NAMED = {  # dataset, split: folder of HR images, folder of LR images, what is added to the names there
    ("div2k", "train"): ("DIV2K_train_HR", "DIV2K_train_LR_bicubic/X{}", "x{}"),
    ("div2k", "val"): ("DIV2K_valid_HR", "DIV2K_valid_LR_bicubic/X{}", "x{}"),
    ("bsds500", "train"): ("BSR/BSDS500/data/images/train", None, ""),
    ("bsds500", "val"): ("BSR/BSDS500/data/images/val", None, ""),
    ("set5", "val"): ("Set5/GTmod12", "Set5/LRbicx{}", ""),
    ("set14", "val"): ("Set14/GTmod12", "Set14/LRbicx{}", ""),
}


@pytest.mark.parametrize(("name", "split"), NAMED)
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_named_datasets_are_found_as_their_archives_unpack(tmp_path, name, split, scale):
    high, low, suffix = NAMED[name, split]
    stems = ["0801", "0002", "butterfly"]
    for stem in stems:
        write(tmp_path / high / f"{stem}.png")
        for factor in (2, 3, 4) if low else ():
            write(tmp_path / low.format(factor) / f"{stem}{suffix.format(factor)}.png")
    expected = {
        ImagePair(
            tmp_path / high / f"{stem}.png",
            tmp_path / low.format(scale) / f"{stem}{suffix.format(scale)}.png" if low and scale in (2, 4) else None,
        )
        for stem in stems
    }
    pairs = find_pairs([name], split, scale, tmp_path)
    assert len(pairs) == 3
    assert set(pairs) == expected


@pytest.mark.parametrize("name", ["div2k", "set5"])
def test_lr_images_that_were_not_downloaded_are_to_be_made(tmp_path, name):
    write(tmp_path / NAMED[name, "val"][0] / "a.png")
    assert [pair.low for pair in find_pairs([name], "val", 4, tmp_path)] == [None]


def test_datasets_are_mixed(tmp_path):
    a, b = write(tmp_path / "DIV2K_train_HR" / "0001.png"), write(tmp_path / "mine" / "b.png")
    c, d = write(tmp_path / "hr" / "c.png"), write(tmp_path / "lr" / "c.png")
    sources = ["div2k", str(tmp_path / "mine"), (str(tmp_path / "hr"), str(tmp_path / "lr"))]
    pairs = find_pairs(sources, "train", 4, tmp_path)
    assert pairs == [ImagePair(a, None), ImagePair(b, None), ImagePair(c, d)]


def test_images_of_a_folder_are_those_with_an_image_suffix(tmp_path):
    wanted = {write(tmp_path / name) for name in ("a.png", "b.jpg", "c.bmp", "d.webp", "e.tif", "f.jpeg")}
    wanted.add(write(tmp_path / "g.png").rename(tmp_path / "g.PNG"))
    write(tmp_path / ".hidden.png")
    write(tmp_path / "folder" / "deeper.png")
    (tmp_path / "notes.txt").write_text("no image")
    for source in (str(tmp_path), (str(tmp_path), None)):
        pairs = find_pairs([source], "val", 4, tmp_path)
        assert {pair.high for pair in pairs} == wanted
        assert {pair.low for pair in pairs} == {None}


def test_images_of_one_name_in_two_formats_are_used_or_refused_not_dropped(tmp_path):
    both = {write(tmp_path / "a.jpg"), write(tmp_path / "a.png")}
    try:
        found = {pair.high for pair in find_pairs([str(tmp_path)], "val", 4, tmp_path)}
    except DatasetError as error:
        found = {path for path in both if path.name in str(error)}
    assert found == both


@pytest.mark.parametrize(
    ("scale", "high", "low"),
    [
        (4, "0001.png", "0001x4.png"),
        (2, "0001.png", "0001x2.png"),
        (4, "0001.png", "0001.png"),
        (4, "a.png", "a.jpg"),
        (4, "photo_x4.png", "photo_x4x4.png"),
        (4, "photox4.png", "photox4.png"),
    ],
)
def test_pairs_are_matched_by_name(tmp_path, scale, high, low):
    high, low = write(tmp_path / "hr" / high), write(tmp_path / "lr" / low)
    pairs = find_pairs([(str(high.parent), str(low.parent))], "train", scale, tmp_path)
    assert pairs == [ImagePair(high, low)]


def test_every_unmatched_name_is_listed(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path / "hr" / f"{name}.png")
    for name in ("bx4", "d", "ex4", "cx2"):
        write(tmp_path / "lr" / f"{name}.png")
    with pytest.raises(DatasetError) as error:
        find_pairs([(str(tmp_path / "hr"), str(tmp_path / "lr"))], "train", 4, tmp_path)
    texts = problems(error)
    unmatched = ["hr/a.png", "hr/c.png", "lr/cx2.png", "lr/d.png", "lr/ex4.png"]
    assert [text.split(":")[0] for text in texts] == [str(tmp_path / name) for name in unmatched]
    assert all(str(tmp_path / ("lr" if "/hr/" in text.split(":")[0] else "hr")) in text for text in texts)


def test_every_missing_and_empty_folder_is_listed(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    write(tmp_path / "good" / "a.png")
    sources = ["div2k", "nowhere", ("no hr", "no lr"), "set5", str(tmp_path / "empty"), str(tmp_path / "good")]
    sources += [str(tmp_path / "file"), (str(tmp_path / "good"), "no lr 2")]
    with pytest.raises(DatasetError) as error:
        find_pairs(sources, "train", 4, tmp_path)
    texts = problems(error)
    for text, name in zip(
        texts,
        ["div2k", "nowhere", "no hr", "no lr", "set5", str(tmp_path / "empty"), str(tmp_path / "file"), "no lr 2"],
        strict=True,
    ):
        assert text.startswith(f"dataset {name}: ")
    assert str(tmp_path / "DIV2K_train_HR") in texts[0]
    assert "esrgan prepare div2k" in texts[0]
    assert "ESRGAN_DATA" in texts[0]


def test_data_root_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("ESRGAN_DATA", "/somewhere")
    assert default_data_root() == Path("/somewhere")
    monkeypatch.setenv("ESRGAN_DATA", "")
    assert default_data_root() == Path("data")
    monkeypatch.delenv("ESRGAN_DATA")
    assert default_data_root() == Path("data")


def test_photographs_of_scikit_image_serve_where_there_is_no_data(tmp_path):
    train, val = (find_pairs(["skimage"], split, 4, tmp_path) for split in ("train", "val"))
    assert {pair.high for pair in train}.isdisjoint(pair.high for pair in val)
    for pair in (*train, *val):
        assert pair.low is None
        assert images.read(pair.high, 3).shape[0] >= 300


# Decoding pairs


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(16, 24), (19, 31)])
def test_missing_lr_images_are_made_by_bicubic_from_the_cut_hr_image(tmp_path, scale, channels, size):
    image = noise(*size, channels)
    low, high = load_pair(ImagePair(write(tmp_path / "a.png", image), None), scale, channels)
    height, width = (side - side % scale for side in size)
    assert np.array_equal(high, image[:height, :width])
    assert np.array_equal(low, resize.bicubic(image[:height, :width], Fraction(1, scale)))
    assert low.shape == (height // scale, width // scale, channels)
    assert low.dtype == high.dtype == np.uint8


def test_given_lr_images_are_used_as_they_are(tmp_path):
    image, reduced = noise(18, 27), noise(4, 6, seed=1)
    pair = ImagePair(write(tmp_path / "hr" / "a.png", image), write(tmp_path / "lr" / "a.png", reduced))
    low, high = load_pair(pair, 4, 3)
    assert np.array_equal(low, reduced)
    assert np.array_equal(high, image[:16, :24])


# The cache


@pytest.fixture
def cache(tmp_path):
    """``prepare`` with a cache of its own, for RGB at ×4."""
    return partial(prepare, scale=4, channels=3, min_size=(8, 8), cache_dir=tmp_path / "cache")


def listing(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_prepared_pairs_hold_what_load_pair_gives(tmp_path, cache):
    pairs = [ImagePair(write(tmp_path / f"{i}.png", noise(12 + i, 17, seed=i)), None) for i in range(3)]
    given = ImagePair(write(tmp_path / "hr.png", noise(20, 20)), write(tmp_path / "lr.png", noise(5, 5)))
    prepared = cache([*pairs, given])
    for pair, cached in zip([*pairs, given], prepared, strict=True):
        low, high = load_pair(pair, 4, 3)
        assert cached.source == pair
        assert cached.shape == high.shape
        assert cached.path.stat().st_size == cached.size
        for found in (open_pair(cached), read_whole(cached)):
            assert np.array_equal(found[0], low)
            assert np.array_equal(found[1], high)
        assert not any(image.flags.writeable for image in open_pair(cached))
        assert all(image.flags.writeable for image in read_whole(cached))


def test_second_call_reads_nothing(tmp_path, cache, monkeypatch):
    pairs = [ImagePair(write(tmp_path / f"{i}.png", noise(12, 16, seed=i)), None) for i in range(3)]
    pairs.append(ImagePair(write(tmp_path / "hr.png", noise(20, 20)), write(tmp_path / "lr.png", noise(5, 5))))
    first = cache(pairs)
    (tmp_path / "cache" / ".lock").unlink()  # nor does it need leave to write
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}

    def fail(*_):
        raise AssertionError("an image was read")

    monkeypatch.setattr(images, "read", fail)
    monkeypatch.setattr(images, "measure", fail)
    assert cache(pairs) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == files


@pytest.mark.parametrize("changed", ["high", "low"])
@pytest.mark.parametrize("how", ["time", "size"])
def test_changed_files_are_read_again(tmp_path, cache, changed, how):
    pair = ImagePair(write(tmp_path / "hr.png", noise(16, 16)), write(tmp_path / "lr.png", noise(4, 4)))
    cache([pair])
    path = getattr(pair, changed)
    before = path.stat()
    if how == "time":
        write(path, noise(*((16, 16) if changed == "high" else (4, 4)), seed=9))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    else:
        write(path, np.zeros((16, 16, 3) if changed == "high" else (4, 4, 3), np.uint8))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size != before.st_size
    low, high = read_whole(*cache([pair]))
    assert np.array_equal(high, images.read(pair.high, 3))
    assert np.array_equal(low, images.read(pair.low, 3))


def test_one_cache_serves_several_scales_kinds_and_sources(tmp_path, cache):
    image = noise(16, 16)
    path = write(tmp_path / "hr.png", image)
    given = ImagePair(path, write(tmp_path / "lr.png", noise(4, 4)))
    others = [
        (ImagePair(path, None), 4),
        (given, 4),
        (ImagePair(path, None), 2),
        (ImagePair(path, write(tmp_path / "lr2.png", noise(4, 4, seed=3))), 4),
    ]
    prepared = [cache([pair], scale=scale)[0] for pair, scale in others]
    assert len({cached.path for cached in prepared}) == 4
    for (pair, scale), cached in zip(others, prepared, strict=True):
        assert np.array_equal(read_whole(cached)[0], load_pair(pair, scale, 3)[0])
    with pytest.raises(DatasetError, match="RGB"):
        cache([ImagePair(path, None)], channels=1)


def test_every_bad_image_is_listed_at_once(tmp_path, cache):
    good = ImagePair(write(tmp_path / "good.png", noise(16, 16)), None)
    small = ImagePair(write(tmp_path / "small.png", noise(16, 11)), None)  # 8 px remain, 12 are needed
    grey = ImagePair(write(tmp_path / "grey.png", noise(16, 16, 1)), None)
    tiny = ImagePair(write(tmp_path / "tiny.png", noise(3, 16)), None)
    truncated = ImagePair(write(tmp_path / "truncated.png", noise(32, 32)), None)
    truncated.high.write_bytes(truncated.high.read_bytes()[:2000])
    text = ImagePair(tmp_path / "text.png", None)
    text.high.write_text("no image")
    unequal = ImagePair(write(tmp_path / "hr.png", noise(16, 20)), write(tmp_path / "lr.png", noise(5, 4)))
    pairs = [good, small, grey, tiny, good, truncated, text, unequal]
    with pytest.raises(DatasetError) as error:
        cache(pairs, min_size=(8, 12))
    texts = problems(error)
    bad = ["small.png", "grey.png", "tiny.png", "truncated.png", "text.png", "lr.png"]
    assert [text.split(":")[0] for text in texts] == [str(tmp_path / name) for name in bad]
    for text, words in zip(
        texts,
        [("12×8 px", "8×16"), ("RGB", "grey"), ("4×4 px", "16×3"), ("",), ("",), ("5×4 px", "4×5 px", "hr.png")],
        strict=True,
    ):
        assert all(word in text for word in words), text
    with pytest.raises(DatasetError) as again:  # a size that is known from the cache is checked as well
        cache(pairs, min_size=(8, 12))
    assert problems(again) == texts


def test_images_of_just_the_least_size_are_taken(cache, tmp_path):
    pair = ImagePair(write(tmp_path / "a.png", noise(11, 15)), None)
    assert cache([pair], min_size=(8, 12))[0].shape == (8, 12, 3)
    for too_much in ((12, 12), (8, 16)):
        with pytest.raises(DatasetError):
            cache([pair], min_size=too_much)


@pytest.mark.parametrize("gone", ["high", "low"])
def test_images_that_vanish_after_the_search_are_named(tmp_path, cache, gone):
    pair = ImagePair(write(tmp_path / "hr.png", noise(16, 16)), write(tmp_path / "lr.png", noise(4, 4)))
    getattr(pair, gone).unlink()
    with pytest.raises(DatasetError) as error:
        cache([pair])
    (text,) = problems(error)
    assert text.startswith(f"{getattr(pair, gone)}: ")
    assert "free some space" not in text


class FailingFile:
    """A file that writes half of what it is given, and acts, at one of the calls."""

    def __init__(self, file, call, act):
        self.file, self.calls_left, self.act = file, call, act

    def write(self, content):
        if self.calls_left == 0:
            self.file.write(bytes(content)[: len(bytes(content)) // 2])
            self.file.flush()
            self.act()
        self.calls_left -= 1
        self.file.write(content)


def write_fails(patch, act, *, file=0, call=1):
    """Have ``act`` called while this cache file and all after it are written, in the call for header, HR or LR."""
    numbers = itertools.count()

    @contextmanager
    def failing(path, **options):
        with new_image_file(path, **options) as opened:
            yield FailingFile(opened, call, act) if next(numbers) >= file else opened

    patch.setattr(cache_module, "new_image_file", failing)


def raiser(error):
    def act():
        raise error

    return act


@pytest.fixture
def decoded(monkeypatch):
    """List the HR images that are decoded from now on."""
    paths = []

    def load(pair, *arguments):
        paths.append(pair.high)
        return load_pair(pair, *arguments)

    monkeypatch.setattr(cache_module, "load_pair", load)
    return paths


@pytest.fixture
def in_order(monkeypatch):
    """Decode one image after the other."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


def numbered(tmp_path, count):
    return [ImagePair(write(tmp_path / f"{i}.png", noise(16, 16, seed=i)), None) for i in range(count)]


@pytest.mark.parametrize("call", [0, 1, 2])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_interrupted_write_leaves_no_half_file(tmp_path, cache, monkeypatch, failure, call):
    pair = ImagePair(write(tmp_path / "a.png", noise(16, 16)), None)
    with monkeypatch.context() as patch:
        write_fails(patch, raiser(failure), call=call)
        with pytest.raises(DatasetError if isinstance(failure, OSError) else KeyboardInterrupt) as error:
            cache([pair])
    if isinstance(failure, OSError):
        (text,) = problems(error)
        assert "No space left" in text
        assert "cache_dir" in text
    assert listing(tmp_path / "cache") == [".lock"]
    assert np.array_equal(read_whole(*cache([pair]))[1], noise(16, 16))


@pytest.mark.usefixtures("in_order")
def test_disk_that_fills_up_is_one_error_and_what_is_decoded_is_kept(tmp_path, cache, monkeypatch, decoded):
    pairs = numbered(tmp_path, 6)
    with monkeypatch.context() as patch:
        write_fails(patch, raiser(OSError(28, "No space left on device")), file=3)
        with pytest.raises(DatasetError) as error:
            cache(pairs)
    assert len(problems(error)) == 1
    assert len(listing(tmp_path / "cache")) == 1 + 3
    decoded.clear()
    cache(pairs)
    assert decoded == [pair.high for pair in pairs[3:]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("call", [0, 1, 2])
def test_killed_building_goes_on_where_it_was(tmp_path, cache, monkeypatch, decoded, call):
    pairs = numbered(tmp_path, 5)
    with monkeypatch.context() as patch:
        write_fails(patch, lambda: os.kill(os.getpid(), signal.SIGKILL), file=2, call=call)
        process = multiprocessing.get_context("fork").Process(target=cache, args=(pairs,))
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    (half,) = (tmp_path / "cache").glob(".esrgan-*.tmp")
    prepared = cache(pairs)
    assert decoded == [pair.high for pair in pairs[2:]]
    assert not half.exists()
    assert listing(tmp_path / "cache") == sorted([".lock", *(cached.path.name for cached in prepared)])
    for i, cached in enumerate(prepared):
        assert np.array_equal(open_pair(cached)[1], noise(16, 16, seed=i))


def prepare_at_once(cache, pairs, barrier, decodings, answer):
    def load(pair, *arguments):
        with decodings.get_lock():
            decodings.value += 1
        time.sleep(0.02)
        return load_pair(pair, *arguments)

    cache_module.load_pair = load
    barrier.wait()
    answer.put(cache(pairs))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_processes_that_start_at_once_decode_each_image_once(tmp_path, cache):
    pairs = numbered(tmp_path, 12)
    context = multiprocessing.get_context("fork")
    barrier, decodings, answer = context.Barrier(3), context.Value("i", 0), context.Queue()
    arguments = (cache, pairs, barrier, decodings, answer)
    processes = [context.Process(target=prepare_at_once, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    results = [answer.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert decodings.value == len(pairs)
    assert results[0] == results[1] == results[2] == cache(pairs)
    assert len(listing(tmp_path / "cache")) == 1 + len(pairs)


def test_waiting_for_another_process_is_told(tmp_path, cache):
    (tmp_path / "cache").mkdir()
    said = io.StringIO()
    with one_at_a_time(tmp_path / "cache" / ".lock", lambda: None):
        thread = threading.Thread(target=cache, args=(numbered(tmp_path, 1),), kwargs={"console": Console(said)})
        thread.start()
        for _ in range(1000):
            if "waiting for another process" in said.getvalue():
                break
            time.sleep(0.01)
        assert listing(tmp_path / "cache") == [".lock"]
    thread.join()
    assert said.getvalue().startswith(f"cache {tmp_path / 'cache'}: waiting for another process")
    assert len(listing(tmp_path / "cache")) == 2


def test_space_is_told_before_it_is_taken(tmp_path, cache, monkeypatch):
    pairs = [*numbered(tmp_path, 3), ImagePair(write(tmp_path / "odd.png", noise(19, 31)), None)]
    broken = ImagePair(tmp_path / "broken.png", None)
    broken.high.write_text("no image")
    said = io.StringIO()
    console = Console(said)
    lines_then = []
    new_file = cache_module.new_image_file

    def watched(path, **options):
        lines_then.append(said.getvalue())
        return new_file(path, **options)

    monkeypatch.setattr(cache_module, "new_image_file", watched)
    prepared = cache(pairs, console=console)
    taken = sum(cached.path.stat().st_size for cached in prepared)
    assert lines_then[0].startswith(f"cache {tmp_path / 'cache'}: 4 images to decode, {gigabytes(taken)}; ")
    before = said.getvalue()
    cache(pairs, console=console)
    assert said.getvalue() == before  # nothing to tell
    with pytest.raises(DatasetError, match=r"broken\.png"):
        cache([*pairs, broken], console=console)


def test_disk_that_is_too_small_is_refused_at_once(tmp_path, cache, monkeypatch, decoded):
    pairs = numbered(tmp_path, 3)
    need = sum(16 * 16 * 3 + 4 * 4 * 3 + HEADER_BYTES for _ in pairs)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=need - 1))
    with pytest.raises(DatasetError) as error:
        cache(pairs)
    (text,) = problems(error)
    assert text.startswith(f"cache {tmp_path / 'cache'}: expected {gigabytes(need)} free")
    assert "cache_dir" in text
    assert decoded == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=need))
    assert len(cache(pairs)) == 3


# Damaged cache files

HEADER_BYTES = 28
PLACES = {"header": 9, "checksum": 25, "HR": HEADER_BYTES + 100, "LR": -5}


def damage(path, place):
    """Change a bit and leave size and time as they are, as a bad disk does."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[PLACES[place]] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def new_process(monkeypatch):
    """Forget what this process has verified."""
    return lambda: monkeypatch.setattr(cache_module, "_verified", set())


@pytest.mark.parametrize("place", PLACES)
def test_damaged_file_is_noticed_and_made_again(tmp_path, cache, new_process, capsys, place):
    pairs = numbered(tmp_path, 2)
    prepared = cache(pairs)
    whole = prepared[1].path.read_bytes()
    damage(prepared[1].path, place)
    new_process()
    for pair, cached in zip(pairs, prepared, strict=True):
        low, high = load_pair(pair, 4, 3)
        assert all(np.array_equal(*both) for both in zip(open_pair(cached), (low, high), strict=True))
    assert capsys.readouterr().err == f"{prepared[1].path}: damaged; making it again from {pairs[1].high}\n"
    assert prepared[1].path.read_bytes() == whole


def cut_short(path):
    os.truncate(path, path.stat().st_size - 1)


def empty(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [cut_short, empty, Path.unlink])
def test_file_that_is_cut_short_or_gone_is_made_again(tmp_path, cache, new_process, decoded, harm):
    (pair,) = numbered(tmp_path, 1)
    (cached,) = cache([pair])
    for again in (lambda: cache([pair]), lambda: open_pair(cached)):  # when a run begins, and in its course
        harm(cached.path)
        new_process()
        decoded.clear()
        again()
        assert decoded == [pair.high]
        assert np.array_equal(open_pair(cached)[1], noise(16, 16))


def test_checksum_is_compared_once(tmp_path, cache, new_process, monkeypatch):
    (cached,) = cache(numbered(tmp_path, 1))
    new_process()
    calls = []
    crc32 = zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda *arguments: calls.append(0) or crc32(*arguments))
    for _ in range(3):
        open_pair(cached)
    assert len(calls) == 1


def test_damage_changes_nothing_in_the_stream(pictures, new_process, capfd):
    dataset = patch_stream(pictures)
    load = partial(batches, dataset, batch_size=3, first_step=0, last_step=6)
    expected = list(load())
    for cached in pictures[:3]:
        damage(cached.path, "HR")
    new_process()
    assert_equal_batches(load(num_workers=2), expected)
    assert "damaged; making it again from" in capfd.readouterr().err


@pytest.mark.parametrize("num_workers", [0, 1])
def test_damage_that_cannot_be_mended_is_one_line(pictures, new_process, num_workers):
    damage(pictures[0].path, "HR")
    new_process()
    image = pictures[0].source.high
    image.unlink()
    with pytest.raises(DatasetError) as error:
        list(batches(patch_stream(pictures), batch_size=1, first_step=0, last_step=5, num_workers=num_workers))
    (text,) = problems(error)
    assert text.startswith(f"{image}: cannot be read")


def test_image_that_changed_since_the_run_began_is_refused(pictures, new_process):
    damage(pictures[0].path, "LR")
    new_process()
    write(pictures[0].source.high, noise(18, 22, seed=99))
    with pytest.raises(DatasetError, match="expected the image the run began with, got another"):
        open_pair(pictures[0])


def test_cache_that_cannot_be_made_is_refused(tmp_path, cache):
    (tmp_path / "file").write_text("in the way")
    pair = ImagePair(write(tmp_path / "a.png"), None)
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(DatasetError) as error:
            cache([pair], cache_dir=folder)
        (text,) = problems(error)
        assert str(folder) in text
        assert "cache_dir" in text


# Patches

SCALE = 2


@pytest.fixture
def cached(tmp_path):
    """Put arrays into a cache: (low, high) pairs."""

    def put(pairs):
        written = [
            ImagePair(write(tmp_path / "hr" / f"{i}.png", high), write(tmp_path / "lr" / f"{i}.png", low))
            for i, (low, high) in enumerate(pairs)
        ]
        channels = pairs[0][0].shape[2]
        return prepare(written, scale=SCALE, channels=channels, min_size=(1, 1), cache_dir=tmp_path / "cache")

    return put


def enlarged(low, scale=SCALE):
    """An HR image whose pixels say which LR pixel they belong to, whatever is flipped or rotated."""
    return low.repeat(scale, 0).repeat(scale, 1)


def asymmetric(height, width, channels=3):
    """An image all of whose pixels differ, so that its place and its transform can be told; none is black."""
    values = 1 + np.arange(height * width) * 7 % 251
    assert height * width <= 251
    return np.stack([values.reshape(height, width).astype(np.uint8)] * channels, 2)


def to_hwc(patch):
    return patch.permute(1, 2, 0).numpy()


SYMMETRIES = {
    "identity": lambda x: x,
    "rotated by 90°": lambda x: np.rot90(x, 1),
    "rotated by 180°": lambda x: np.rot90(x, 2),
    "rotated by 270°": lambda x: np.rot90(x, 3),
    "flipped left to right": lambda x: x[:, ::-1],
    "flipped upside down": lambda x: x[::-1],
    "transposed": lambda x: x.swapaxes(0, 1),
    "transposed the other way": lambda x: np.rot90(x, 2).swapaxes(0, 1),
}
FLIPS = ["identity", "rotated by 180°", "flipped left to right", "flipped upside down"]


def symmetry(original, patch):
    """Which of the eight symmetries took the one to the other."""
    (found,) = (
        name
        for name, transform in SYMMETRIES.items()
        if transform(original).shape == patch.shape and np.array_equal(transform(original), patch)
    )
    return found


def assert_shares(counts, shares):
    """Compare counts with probabilities; five standard deviations, which a right program exceeds once in a million."""
    total = sum(counts.values())
    assert set(counts) == set(shares)
    for name, share in shares.items():
        assert abs(counts[name] - total * share) < 5 * (total * share * (1 - share)) ** 0.5, (name, counts)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_lr_and_hr_crops_are_of_one_place(tmp_path, scale):
    height, width = 9 * scale + scale // 2, 12 * scale
    rows, columns = np.indices((height, width))
    coordinates = np.stack([rows, columns, np.full_like(rows, 7)], 2).astype(np.uint8)
    write(tmp_path / "hr" / "a.png", coordinates)
    write(tmp_path / "lr" / "a.png", np.ascontiguousarray(coordinates[: 9 * scale : scale, ::scale]))
    pairs = find_pairs([(str(tmp_path / "hr"), str(tmp_path / "lr"))], "train", scale, tmp_path)
    prepared = prepare(pairs, scale=scale, channels=3, min_size=(4 * scale,) * 2, cache_dir=tmp_path / "cache")
    dataset = PatchDataset(prepared, scale=scale, patch_size=(3 * scale, 4 * scale), seed=0, spatial_transforms="none")
    places = set()
    for position in range(200):
        low, high = map(to_hwc, dataset[position])
        assert low.shape == (3, 4, 3)
        assert high.shape == (3 * scale, 4 * scale, 3)
        top, left, _ = map(int, high[0, 0])
        assert top % scale == left % scale == 0  # on the LR grid
        assert np.array_equal(high, coordinates[top : top + 3 * scale, left : left + 4 * scale])
        assert np.array_equal(low, high[::scale, ::scale])
        places.add((top // scale, left // scale))
    assert max(places) == (6, 8)
    assert min(places) == (0, 0)


def test_every_place_is_cut_equally_often(cached):
    low = asymmetric(4, 5)
    dataset = PatchDataset(
        cached([(low, enlarged(low))]), scale=SCALE, patch_size=(6, 4), seed=3, spatial_transforms="none"
    )
    place = {tuple(low[top, left]): (top, left) for top in range(2) for left in range(4)}
    counts = Counter(place[tuple(to_hwc(dataset[position][0])[0, 0])] for position in range(400))
    assert_shares(counts, {(top, left): 1 / 8 for top in range(2) for left in range(4)})


def identified(count, height=4, width=4):
    """Images of one colour each, which is their number."""
    lows = [np.full((height, width, 3), i, np.uint8) for i in range(count)]
    return [(low, enlarged(low)) for low in lows]


def order(dataset, positions):
    return [int(dataset[position][0][0, 0, 0]) for position in positions]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_each_pass_shows_every_image_once(cached, count):
    pairs = cached(identified(count))
    dataset = PatchDataset(pairs, scale=SCALE, patch_size=(4, 4), seed=5)
    for number in range(6):
        shown = order(dataset, range(number * count, (number + 1) * count))
        assert sorted(shown) == list(range(count))


def test_each_pass_and_each_seed_has_its_own_order(cached):
    pairs = cached(identified(7))
    orders, firsts = set(), Counter()
    for seed in range(4):
        dataset = PatchDataset(pairs, scale=SCALE, patch_size=(4, 4), seed=seed, spatial_transforms="none")
        orders |= {tuple(order(dataset, range(start, start + 7))) for start in range(0, 28, 7)}
        firsts.update(order(dataset, range(0, 700, 7)))
    assert len(orders) == 16
    assert_shares(firsts, dict.fromkeys(range(7), 1 / 7))


@pytest.fixture
def pictures(cached):
    lows = [noise(9, 11, seed=seed) for seed in range(5)]
    return cached([(low, enlarged(low)) for low in lows])


def patch_stream(pairs, seed=0, **arguments):
    return PatchDataset(pairs, scale=SCALE, patch_size=(12, 12), seed=seed, hard_transforms=True, **arguments)


def assert_equal_batches(a, b):
    a, b = list(a), list(b)
    assert len(a) == len(b) > 0
    for (low_a, high_a), (low_b, high_b) in zip(a, b, strict=True):
        assert torch.equal(low_a, low_b)
        assert torch.equal(high_a, high_b)


@pytest.mark.parametrize("spatial", ["d4", "flip_or_transpose", "none"])
def test_patch_is_a_function_of_seed_and_position_alone(pictures, spatial):
    first = patch_stream(pictures, spatial_transforms=spatial)
    patches = [first[position] for position in range(30)]
    second = patch_stream(pictures, spatial_transforms=spatial)
    for position in reversed(range(30)):
        random.seed(position)
        np.random.seed(position)  # noqa: NPY002  what others may do
        torch.manual_seed(position)
        assert_equal_batches([second[position]], [patches[position]])
        assert_equal_batches([first[position]], [patches[position]])
    other = patch_stream(pictures, seed=1, spatial_transforms=spatial)
    assert sum(torch.equal(other[position][1], patches[position][1]) for position in range(30)) < 5


def test_positions_differ_in_place_and_transform(cached):
    low = asymmetric(9, 11)
    dataset = patch_stream(cached([(low, enlarged(low))]))
    assert len({dataset[position][1].numpy().tobytes() for position in range(50)}) > 40


def test_drawing_patches_leaves_the_random_state_of_others_alone(pictures):
    dataset = patch_stream(pictures)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    for position in range(10):
        dataset[position]
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_batches_do_not_depend_on_the_number_of_loader_processes(pictures):
    load = partial(batches, patch_stream(pictures), batch_size=3, first_step=2, last_step=8)
    assert_equal_batches(load(num_workers=0), load(num_workers=2))


def test_batches_are_of_the_stream_in_order(pictures):
    dataset = patch_stream(pictures)
    loaded = list(batches(dataset, batch_size=4, first_step=3, last_step=5))
    assert [low.shape for low, _ in loaded] == [(4, 3, 6, 6)] * 2
    assert [high.shape for _, high in loaded] == [(4, 3, 12, 12)] * 2
    lows = torch.cat([low for low, _ in loaded])
    highs = torch.cat([high for _, high in loaded])
    assert lows.dtype == highs.dtype == torch.uint8
    for i in range(8):
        assert torch.equal(lows[i], dataset[12 + i][0])
        assert torch.equal(highs[i], dataset[12 + i][1])


def test_resumed_stream_goes_on_as_if_uninterrupted(pictures):
    load = partial(batches, patch_stream(pictures), batch_size=3, last_step=9)
    whole = list(load(first_step=0))
    for step in (1, 4, 8):
        fresh = partial(batches, patch_stream(pictures), batch_size=3, last_step=9)
        assert_equal_batches(fresh(first_step=step), whole[step:])
    assert list(load(first_step=9)) == []


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_share_each_batch_without_overlap(pictures, world_size):
    load = partial(batches, patch_stream(pictures), batch_size=6, first_step=1, last_step=5)
    ranks = [list(load(rank=rank, world_size=world_size)) for rank in range(world_size)]
    together = [tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*ranks, strict=True)]
    assert_equal_batches(together, load())


def test_long_run_is_not_laid_out_in_memory():
    class Numbers(torch.utils.data.Dataset):
        def __getitem__(self, position):
            return torch.tensor([[[position]]]), torch.tensor([[[position]]])

    tracemalloc.start()
    try:
        first, _ = next(batches(Numbers(), batch_size=4, first_step=0, last_step=100_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert first.flatten().tolist() == [0, 1, 2, 3]
    assert peak < 4_000_000


# Loader processes


def test_loader_processes_stay_from_pass_to_pass(pictures):
    others = multiprocessing.active_children()
    seen = set()
    for _ in batches(patch_stream(pictures), batch_size=5, first_step=0, last_step=12, num_workers=2):
        seen.add(frozenset(process.pid for process in multiprocessing.active_children() if process not in others))
    assert len(seen) == 1
    assert len(*seen) == 2


def kill_a_loader_process(others):
    while not (started := [process for process in multiprocessing.active_children() if process not in others]):
        time.sleep(0.1)
    process = min(started, key=lambda process: process.pid)
    os.kill(process.pid, signal.SIGKILL)
    return process


def assert_death_told(error, pid):
    (text,) = problems(error)
    assert text.startswith(f"loader process {pid}: ")
    assert "signal 9" in text
    assert "num_workers" in text
    assert "--resume auto" in text


def test_dead_loader_process_ends_the_run_at_the_next_batch(pictures):
    handler = signal.getsignal(signal.SIGCHLD)
    others = multiprocessing.active_children()
    loader = batches(patch_stream(pictures), batch_size=3, first_step=0, last_step=1000, num_workers=2)
    next(loader)
    time.sleep(0.5)  # until the next batch is there, of the other process
    process = kill_a_loader_process(others)
    process.join()  # nothing is raised here, wherever the run may be
    with pytest.raises(EsrganError) as error:
        next(loader)
    assert_death_told(error, process.pid)
    assert signal.getsignal(signal.SIGCHLD) == handler


class Stuck(torch.utils.data.Dataset):
    def __getitem__(self, position):
        time.sleep(60)


def test_dead_loader_process_ends_the_wait_for_it():
    others = multiprocessing.active_children()
    loader = batches(Stuck(), batch_size=1, first_step=0, last_step=10, num_workers=1)
    killed = []
    threading.Thread(target=lambda: killed.append(kill_a_loader_process(others))).start()
    before = time.monotonic()
    with pytest.raises(EsrganError) as error:
        next(loader)
    assert time.monotonic() - before < 20
    assert_death_told(error, killed[0].pid)


# Transforms


def seen_symmetries(pairs, patch_size, count, **arguments):
    """How often each symmetry occurs in a stream of one image that is as large as the patch or kept whole."""
    original_low, original_high = read_whole(pairs[0])
    dataset = PatchDataset(pairs, scale=SCALE, patch_size=patch_size, seed=0, **arguments)
    counts = Counter()
    for position in range(count):
        low, high = map(to_hwc, dataset[position])
        name = symmetry(original_high, high)
        assert np.array_equal(low, SYMMETRIES[name](original_low))
        counts[name] += 1
    return counts


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_d4_gives_all_eight_symmetries_equally_often(cached, channels):
    low = asymmetric(5, 5, channels)
    counts = seen_symmetries(cached([(low, enlarged(low))]), (10, 10), 400)
    assert_shares(counts, dict.fromkeys(SYMMETRIES, 1 / 8))


def test_earlier_frameworks_recipe_flips_or_transposes_half_of_the_patches(cached):
    low = asymmetric(5, 5)
    counts = seen_symmetries(cached([(low, enlarged(low))]), (10, 10), 800, spatial_transforms="flip_or_transpose")
    flip = 0.5 * 0.75 / 3
    shares = {"identity": 0.5, "transposed": 0.5 * 0.25} | dict.fromkeys(FLIPS[1:], flip)
    assert_shares(counts, shares)


def test_patches_stay_as_they_are_without_spatial_transforms(cached):
    low = asymmetric(5, 5)
    counts = seen_symmetries(cached([(low, enlarged(low))]), (10, 10), 20, spatial_transforms="none")
    assert counts == {"identity": 20}


@pytest.mark.parametrize("size", [(4, 7), (7, 4)])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("spatial", "shares"),
    [
        ("d4", dict.fromkeys(FLIPS, 1 / 4)),
        ("flip_or_transpose", {"identity": 1 - 0.375} | dict.fromkeys(FLIPS[1:], 0.125)),
    ],
)
def test_patches_that_are_not_square_keep_their_shape(cached, size, whole, spatial, shares):
    low = asymmetric(*size)
    patch_size = None if whole else (size[0] * SCALE, size[1] * SCALE)
    counts = seen_symmetries(cached([(low, enlarged(low))]), patch_size, 400, spatial_transforms=spatial)
    assert_shares(counts, shares)


def test_whole_images_come_without_a_patch_size(cached):
    lows = [asymmetric(height, width) for height, width in ((3, 5), (6, 6), (1, 9))]
    dataset = PatchDataset(
        cached([(low, enlarged(low)) for low in lows]), scale=SCALE, patch_size=None, seed=0, hard_transforms=False
    )
    shapes = {tuple(low.shape): tuple(high.shape) for low, high in (dataset[position] for position in range(3))}
    assert shapes == {(3, 3, 5): (3, 6, 10), (3, 6, 6): (3, 12, 12), (3, 1, 9): (3, 2, 18)}


def test_unknown_spatial_transforms_are_refused():
    with pytest.raises(ValueError, match="d4, flip_or_transpose, none"):
        Augmentation("d8", hard=False, square=True)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("spatial", ["d4", "flip_or_transpose", "none"])
def test_hard_transforms_change_the_lr_patch_alone(cached, channels, spatial):
    low = noise(16, 16, channels)
    pairs = cached([(low, enlarged(low))])
    arguments = {"scale": SCALE, "patch_size": (24, 24), "seed": 0, "spatial_transforms": spatial}
    plain, hard = (PatchDataset(pairs, **arguments, hard_transforms=on) for on in (False, True))
    changed = 0
    for position in range(200):
        (plain_low, plain_high), (hard_low, hard_high) = plain[position], hard[position]
        assert torch.equal(hard_high, plain_high)
        assert hard_low.shape == plain_low.shape
        assert hard_low.dtype == torch.uint8
        changed += not torch.equal(hard_low, plain_low)
    assert_shares(Counter({True: changed, False: 200 - changed}), {True: 1 - 0.75**2, False: 0.75**2})


def test_hard_transforms_are_off_unless_said(pictures):
    arguments = {"scale": SCALE, "patch_size": (12, 12), "seed": 0}
    default, off = PatchDataset(pictures, **arguments), PatchDataset(pictures, **arguments, hard_transforms=False)
    assert_equal_batches([default[i] for i in range(30)], [off[i] for i in range(30)])


def degradations(count, spatial="none"):
    """For each seed: the HR patch, and whether holes and JPEG were applied to the LR patch."""
    patch = noise(16, 16)
    patch[:, :8] = np.maximum(patch[:, :8], 1)
    patch[:, 8:] = 255  # so even that JPEG leaves no other black pixel than those of holes in this half
    augmentation = Augmentation(spatial, hard=True, square=True)
    plain = Augmentation(spatial, hard=False, square=True)
    found = []
    for seed in np.random.default_rng(0).integers(2**31, size=count):
        low, high = augmentation(patch, patch, np.random.default_rng(seed))
        expected = plain(patch, patch, np.random.default_rng(seed))[0]
        holes = (low == 0).all(2)
        changed = (low != expected).any(2) & ~holes
        if holes.any() and not changed.any():
            assert 4 <= holes.sum() <= 8 * 4  # eight of 2×2, which may overlap
        found.append((high, bool(holes.any()), bool(changed.any())))
    return found


def test_jpeg_and_holes_come_independently_a_quarter_of_the_time_each():
    counts = Counter((holes, jpeg) for _, holes, jpeg in degradations(600))
    assert_shares(counts, {(h, j): (0.25 if h else 0.75) * (0.25 if j else 0.75) for h in (0, 1) for j in (0, 1)})


def test_hard_transforms_do_not_depend_on_the_spatial_one():
    counts = Counter()
    originals = {}
    for high, holes, jpeg in degradations(1200, "d4"):
        key = high.tobytes()
        originals.setdefault(key, len(originals))
        counts[originals[key], holes or jpeg] += 1
    assert len(originals) == 8
    share = 1 - 0.75**2
    assert_shares(counts, {(i, on): (share if on else 1 - share) / 8 for i in range(8) for on in (False, True)})


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("patch_size", [(2, 2), (6, 4), None])
def test_patches_of_any_size_and_kind_can_be_transformed(cached, channels, patch_size):
    low = noise(5, 6, channels)
    dataset = PatchDataset(
        cached([(low, enlarged(low))]), scale=SCALE, patch_size=patch_size, seed=0, hard_transforms=True
    )
    height, width = (5, 6) if patch_size is None else (patch_size[0] // SCALE, patch_size[1] // SCALE)
    for position in range(40):
        low_patch, high_patch = dataset[position]
        assert low_patch.shape == (channels, height, width)
        assert high_patch.shape == (channels, height * SCALE, width * SCALE)
        assert all(image.permute(1, 2, 0).is_contiguous() for image in (low_patch, high_patch))
