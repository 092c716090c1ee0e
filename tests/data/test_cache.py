import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from esrgan import images, machine
from esrgan.data import ImagePair, load_pair, read_cached_pair
from esrgan.data import cache as cache_module
from esrgan.data.cache import open_pair
from esrgan.errors import DatasetError
from esrgan.files import atomic_write
from esrgan.locks import lock
from esrgan.text import format_size
from tests.helpers.image_pairs import (
    HEADER_BYTES,
    list_names,
    problem_texts,
    random_image,
    swap_names,
    write_image,
    write_numbered_pairs,
)


def test_cached_pairs_equal_load_pair(tmp_path, cache):
    pairs = [ImagePair(write_image(tmp_path / f"{i}.png", random_image(12 + i, 17, seed=i)), None) for i in range(3)]
    given = ImagePair(
        write_image(tmp_path / "hr.png", random_image(20, 20)), write_image(tmp_path / "lr.png", random_image(5, 5))
    )
    prepared = cache([*pairs, given])
    for pair, cached in zip([*pairs, given], prepared, strict=True):
        low, high = load_pair(pair, 4, 3)
        assert cached.source == pair
        assert cached.shape == high.shape
        assert cached.path.stat().st_size == cached.num_bytes
        for found in (open_pair(cached), read_cached_pair(cached)):
            assert np.array_equal(found[0], low)
            assert np.array_equal(found[1], high)
        assert not any(image.flags.writeable for image in open_pair(cached))
        assert all(image.flags.writeable for image in read_cached_pair(cached))


def test_second_call_decodes_nothing(tmp_path, cache, monkeypatch):
    pairs = [ImagePair(write_image(tmp_path / f"{i}.png", random_image(12, 16, seed=i)), None) for i in range(3)]
    pairs.append(
        ImagePair(
            write_image(tmp_path / "hr.png", random_image(20, 20)), write_image(tmp_path / "lr.png", random_image(5, 5))
        )
    )
    first = cache(pairs)
    (tmp_path / "cache" / ".lock").unlink()  # the second call must not recreate it
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}

    def fail(*_):
        raise AssertionError("an image was read")

    monkeypatch.setattr(images, "read_pixels", fail)
    monkeypatch.setattr(images, "read_shape", fail)
    assert cache(pairs) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == files


@pytest.mark.parametrize("changed", ["high", "low"])
@pytest.mark.parametrize("how", ["time", "size"])
def test_changed_files_are_decoded_again(tmp_path, cache, changed, how):
    pair = ImagePair(
        write_image(tmp_path / "hr.png", random_image(16, 16)), write_image(tmp_path / "lr.png", random_image(4, 4))
    )
    cache([pair])
    path = getattr(pair, changed)
    before = path.stat()
    if how == "time":
        write_image(path, random_image(*((16, 16) if changed == "high" else (4, 4)), seed=9))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    else:
        write_image(path, np.zeros((16, 16, 3) if changed == "high" else (4, 4, 3), np.uint8))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size != before.st_size
    low, high = read_cached_pair(*cache([pair]))
    assert np.array_equal(high, images.read_pixels(pair.high, 3))
    assert np.array_equal(low, images.read_pixels(pair.low, 3))


@pytest.mark.parametrize("side", ["high", "low"])
def test_images_that_swap_their_names_are_decoded_again(tmp_path, cache, side):
    pairs = []
    for i in range(2):  # BMP files of one shape have one size
        high = write_image(tmp_path / f"high{i}.bmp", random_image(16, 16, seed=i))
        pairs.append(ImagePair(high, write_image(tmp_path / f"low{i}.bmp", random_image(4, 4, seed=i))))
        for path in (pairs[-1].high, pairs[-1].low):
            os.utime(path, (10**9, 10**9))
    cache(pairs)
    swap_names(*(getattr(pair, side) for pair in pairs))
    for pair, cached in zip(pairs, cache(pairs), strict=True):
        low, high = read_cached_pair(cached)
        assert np.array_equal(high, images.read_pixels(pair.high, 3))
        assert np.array_equal(low, images.read_pixels(pair.low, 3))


def test_other_permissions_neither_decode_again_nor_read_twice(tmp_path, cache, decoded, monkeypatch):
    pairs = write_numbered_pairs(tmp_path, 2)
    first = cache(pairs)
    decoded.clear()
    time.sleep(0.02)
    pairs[0].high.chmod(0o600)
    assert cache(pairs) == first
    assert decoded == []
    monkeypatch.setattr(cache_module, "_hash_files", lambda pair: pytest.fail(f"{pair.high} is read again"))
    assert cache(pairs) == first
    for pair, cached in zip(pairs, first, strict=True):
        assert np.array_equal(open_pair(cached)[1], load_pair(pair, 4, 3)[1])


def test_one_cache_holds_several_scales_and_lr_variants(tmp_path, cache):
    image = random_image(16, 16)
    path = write_image(tmp_path / "hr.png", image)
    given = ImagePair(path, write_image(tmp_path / "lr.png", random_image(4, 4)))
    others = [
        (ImagePair(path, None), 4),
        (given, 4),
        (ImagePair(path, None), 2),
        (ImagePair(path, write_image(tmp_path / "lr2.png", random_image(4, 4, seed=3))), 4),
    ]
    prepared = [cache([pair], scale=scale)[0] for pair, scale in others]
    assert len({cached.path for cached in prepared}) == 4
    for (pair, scale), cached in zip(others, prepared, strict=True):
        assert np.array_equal(read_cached_pair(cached)[0], load_pair(pair, scale, 3)[0])
    with pytest.raises(DatasetError, match="RGB"):
        cache([ImagePair(path, None)], channels=1)


def test_every_bad_image_is_reported_at_once(tmp_path, cache):
    good = ImagePair(write_image(tmp_path / "good.png", random_image(16, 16)), None)
    # Its width is cropped to 8 px, which is less than the minimum of 12 px.
    small = ImagePair(write_image(tmp_path / "small.png", random_image(16, 11)), None)
    alpha = ImagePair(write_image(tmp_path / "alpha.png", random_image(16, 16, 4)), None)
    tiny = ImagePair(write_image(tmp_path / "tiny.png", random_image(3, 16)), None)
    truncated = ImagePair(write_image(tmp_path / "truncated.png", random_image(32, 32)), None)
    truncated.high.write_bytes(truncated.high.read_bytes()[:2000])
    text = ImagePair(tmp_path / "text.png", None)
    text.high.write_text("no image")
    unequal = ImagePair(
        write_image(tmp_path / "hr.png", random_image(16, 20)), write_image(tmp_path / "lr.png", random_image(5, 4))
    )
    pairs = [good, small, alpha, tiny, good, truncated, text, unequal]
    with pytest.raises(DatasetError) as error:
        cache(pairs, min_size=(8, 12))
    texts = problem_texts(error)
    bad = ["small.png", "alpha.png", "tiny.png", "truncated.png", "text.png", "lr.png"]
    assert [text.split(":")[0] for text in texts] == [str(tmp_path / name) for name in bad]
    for text, words in zip(
        texts,
        [("12×8 px", "8×16"), ("RGB", "alpha"), ("4×4 px", "16×3"), ("",), ("",), ("5×4 px", "4×5 px", "hr.png")],
        strict=True,
    ):
        assert all(word in text for word in words), text
    with pytest.raises(DatasetError) as again:  # sizes known from the cache are checked as well
        cache(pairs, min_size=(8, 12))
    assert problem_texts(again) == texts


def test_images_of_exactly_the_minimum_size_are_accepted(cache, tmp_path):
    pair = ImagePair(write_image(tmp_path / "a.png", random_image(11, 15)), None)
    assert cache([pair], min_size=(8, 12))[0].shape == (8, 12, 3)
    for too_much in ((12, 12), (8, 16)):
        with pytest.raises(DatasetError):
            cache([pair], min_size=too_much)


@pytest.mark.parametrize("gone", ["high", "low"])
def test_image_deleted_after_the_search_is_reported(tmp_path, cache, gone):
    pair = ImagePair(
        write_image(tmp_path / "hr.png", random_image(16, 16)), write_image(tmp_path / "lr.png", random_image(4, 4))
    )
    getattr(pair, gone).unlink()
    with pytest.raises(DatasetError) as error:
        cache([pair])
    (text,) = problem_texts(error)
    assert text.startswith(f"{getattr(pair, gone)}: ")
    assert "free some space" not in text


class FailingFile:
    """A file that, at one of its calls, writes half of the content and then runs ``act``."""

    def __init__(self, file, call, act):
        self.file, self.calls_left, self.act = file, call, act

    def write(self, content):
        if self.calls_left == 0:
            self.file.write(bytes(content)[: len(bytes(content)) // 2])
            self.file.flush()
            self.act()
        self.calls_left -= 1
        self.file.write(content)


def make_writes_fail(patch, act, *, file=0, call=1):
    """Run ``act`` while cache file ``file`` and all later ones are written, in call 0, 1 or 2: header, HR, LR."""
    numbers = itertools.count()

    @contextmanager
    def failing(path, **options):
        with atomic_write(path, **options) as opened:
            yield FailingFile(opened, call, act) if next(numbers) >= file else opened

    patch.setattr(cache_module, "atomic_write", failing)


def raiser(error):
    def act():
        raise error

    return act


@pytest.fixture
def single_threaded(monkeypatch):
    """Decode images sequentially."""
    monkeypatch.setattr(machine, "cpu_count", lambda: 1)


@pytest.mark.parametrize("call", [0, 1, 2])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_interrupted_write_leaves_no_partial_file(tmp_path, cache, monkeypatch, failure, call):
    pair = ImagePair(write_image(tmp_path / "a.png", random_image(16, 16)), None)
    with monkeypatch.context() as patch:
        make_writes_fail(patch, raiser(failure), call=call)
        with pytest.raises(DatasetError if isinstance(failure, OSError) else KeyboardInterrupt) as error:
            cache([pair])
    if isinstance(failure, OSError):
        (text,) = problem_texts(error)
        assert "No space left" in text
        assert "cache_dir" in text
    assert list_names(tmp_path / "cache") == [".lock"]
    assert np.array_equal(read_cached_pair(*cache([pair]))[1], random_image(16, 16))


@pytest.mark.usefixtures("single_threaded")
def test_full_disk_raises_one_error_and_keeps_decoded_images(tmp_path, cache, monkeypatch, decoded):
    pairs = write_numbered_pairs(tmp_path, 6)
    with monkeypatch.context() as patch:
        make_writes_fail(patch, raiser(OSError(28, "No space left on device")), file=3)
        with pytest.raises(DatasetError) as error:
            cache(pairs)
    assert len(problem_texts(error)) == 1
    assert len(list_names(tmp_path / "cache")) == 1 + 3
    decoded.clear()
    cache(pairs)
    assert decoded == [pair.high for pair in pairs[3:]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("single_threaded")
@pytest.mark.parametrize("call", [0, 1, 2])
def test_killed_cache_build_resumes(tmp_path, cache, monkeypatch, decoded, call):
    pairs = write_numbered_pairs(tmp_path, 5)
    with monkeypatch.context() as patch:
        make_writes_fail(patch, lambda: os.kill(os.getpid(), signal.SIGKILL), file=2, call=call)
        process = multiprocessing.get_context("fork").Process(target=cache, args=(pairs,))
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    (partial_file,) = (tmp_path / "cache").glob(".esrgan-*.tmp")
    prepared = cache(pairs)
    assert decoded == [pair.high for pair in pairs[2:]]
    assert not partial_file.exists()
    assert list_names(tmp_path / "cache") == sorted([".lock", *(cached.path.name for cached in prepared)])
    for i, cached in enumerate(prepared):
        assert np.array_equal(open_pair(cached)[1], random_image(16, 16, seed=i))


def cache_at_once(cache, pairs, barrier, decodings, answer):
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
def test_concurrent_processes_decode_each_image_once(tmp_path, cache):
    pairs = write_numbered_pairs(tmp_path, 12)
    context = multiprocessing.get_context("fork")
    barrier, decodings, answer = context.Barrier(3), context.Value("i", 0), context.Queue()
    arguments = (cache, pairs, barrier, decodings, answer)
    processes = [context.Process(target=cache_at_once, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    results = [answer.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert decodings.value == len(pairs)
    assert results[0] == results[1] == results[2] == cache(pairs)
    assert len(list_names(tmp_path / "cache")) == 1 + len(pairs)


def test_waiting_for_another_process_is_reported(tmp_path, cache, messages):
    (tmp_path / "cache").mkdir()
    with lock(tmp_path / "cache" / ".lock", "busy"):
        thread = threading.Thread(target=cache, args=(write_numbered_pairs(tmp_path, 1),))
        thread.start()
        for _ in range(1000):
            if "waiting" in "".join(messages):
                break
            time.sleep(0.01)
        assert list_names(tmp_path / "cache") == [".lock"]
    thread.join()
    place = tmp_path / "cache"
    assert messages[0] == f"cache {place}: another process is decoding images; waiting for it"
    assert len(list_names(tmp_path / "cache")) == 2


def test_required_disk_space_is_printed_before_decoding(tmp_path, cache, monkeypatch, messages):
    pairs = [
        *write_numbered_pairs(tmp_path, 3),
        ImagePair(write_image(tmp_path / "odd.png", random_image(19, 31)), None),
    ]
    broken = ImagePair(tmp_path / "broken.png", None)
    broken.high.write_text("no image")
    lines_then = []
    new_file = cache_module.atomic_write

    def watched(path, **options):
        lines_then.append(messages[0])
        return new_file(path, **options)

    monkeypatch.setattr(cache_module, "atomic_write", watched)
    prepared = cache(pairs)
    size = sum(cached.path.stat().st_size for cached in prepared)
    assert lines_then[0].startswith(f"cache {tmp_path / 'cache'}: 4 images to decode, {format_size(size)} needed, ")
    messages.clear()
    cache(pairs)
    assert messages == []  # everything is cached
    with pytest.raises(DatasetError, match=r"broken\.png"):
        cache([*pairs, broken])


def test_insufficient_disk_space_raises_before_decoding(tmp_path, cache, monkeypatch, decoded):
    pairs = write_numbered_pairs(tmp_path, 3)
    need = sum(16 * 16 * 3 + 4 * 4 * 3 + HEADER_BYTES for _ in pairs)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=need - 1))
    with pytest.raises(DatasetError) as error:
        cache(pairs[:1], others=pairs)
    (text,) = problem_texts(error)
    assert text.startswith(f"cache {tmp_path / 'cache'}: expected {format_size(need)} free for 3 decoded images, got ")
    assert "cache_dir" in text
    assert decoded == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=need))
    assert len(cache(pairs)) == 3


def test_many_problems_of_one_kind_are_counted(tmp_path, cache):
    pairs = write_numbered_pairs(tmp_path, 40)
    with pytest.raises(DatasetError) as error:
        cache(pairs, min_size=(64, 64))
    texts = problem_texts(error)
    assert [text.split(":")[0] for text in texts] == [*(str(pair.high) for pair in pairs[:3]), str(tmp_path)]
    assert texts[-1] == f"{tmp_path}: 37 more with the same remedy"


def test_names_with_colons_do_not_confuse_the_count(tmp_path, cache):
    folder = tmp_path / "a: b; c"
    with pytest.raises(DatasetError) as error:
        cache(write_numbered_pairs(folder, 40), min_size=(64, 64))
    assert problem_texts(error)[-1] == f"{folder}: 37 more with the same remedy"
    missing = [ImagePair(folder / "none" / f"{i}: x.png", None) for i in range(40)]
    with pytest.raises(DatasetError) as error:
        cache(missing)
    assert problem_texts(error)[-1] == f"{folder / 'none'}: 37 more with the same remedy"


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="file names are always Unicode here")
def test_file_names_need_not_be_unicode(tmp_path, cache):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/ph\xf6to.png"))
    write_image(path, random_image(16, 16))
    assert np.array_equal(read_cached_pair(*cache([ImagePair(path, None)]))[1], random_image(16, 16))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_cache_is_used_as_far_as_it_goes(tmp_path, cache):
    pairs = write_numbered_pairs(tmp_path, 2)
    first = cache(pairs[:1])
    (tmp_path / "cache").chmod(0o500)
    assert cache(pairs[:1]) == first
    with pytest.raises(DatasetError, match=r"cannot be written: Permission denied; make it writable, or set cache_dir"):
        cache(pairs)
    (tmp_path / "cache").chmod(0o700)


def test_equal_exchanged_and_other_sizes_have_their_own_words(tmp_path, cache):
    sizes = {"equal": (16, 16), "exchanged": (64, 64), "larger": (17, 17), "double": (8, 8), "odd": (3, 5)}
    high = write_image(tmp_path / "hr" / "a.png", random_image(16, 16))
    words = {
        "equal": "it is as large as its HR image; use LR images of 1/4, or scale_factor 1",
        "exchanged": "HR and LR are exchanged",
        "larger": "the LR image is the larger one",
        "double": "the LR images are those of ×2",
        "odd": "recreate it",
    }
    for kind, size in sizes.items():
        low = write_image(tmp_path / kind / "a.png", random_image(*size))
        with pytest.raises(DatasetError, match=words[kind]):
            cache([ImagePair(high, low)])


def test_grey_lr_image_of_a_colour_image_is_refused(tmp_path, cache):
    high, grey = random_image(16, 16), random_image(4, 4, 1)
    pair = ImagePair(write_image(tmp_path / "hr.png", high), write_image(tmp_path / "lr.png", grey))
    with pytest.raises(DatasetError, match="got a grey image; recreate it in colour"):
        cache([pair])
    write_image(tmp_path / "hr.png", random_image(16, 16, 1))
    low, high = read_cached_pair(*cache([pair]))
    assert low.shape == (4, 4, 3)
    assert np.array_equal(high, np.repeat(random_image(16, 16, 1), 3, axis=2))
