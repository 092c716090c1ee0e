"""Runs of the demo: outputs as those of the command, and the end of work that is stopped."""

import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from esrgan import Upscaler, images
from esrgan.demo.runs import Run, Runs, Stopped, upscale_uploads
from esrgan.errors import EsrganError, LostDeviceError, Problem
from esrgan.inference import FileOptions
from tests.helpers.models import make_model

RNG = np.random.default_rng(0)


@pytest.fixture
def upscaler(tmp_path):
    return Upscaler.from_file(make_model(tmp_path / "model.pth"), "cpu")


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def save(path, size=(20, 16), **options):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path, **options)
    return path


def upscale(upscaler, sources, out, suffix=None, run=None, progress=lambda *_: None, **options):
    return upscale_uploads(upscaler, sources, out, FileOptions(**options), suffix, run or Run(), progress)


def test_single_output_is_a_file(upscaler, tmp_path, out):
    done = upscale(upscaler, [save(tmp_path / "a.png")], out)
    assert (done.download.name, done.total, done.count, done.problems) == ("a_sr.png", 1, 1, ())
    expected = upscaler(images.read_image(tmp_path / "a.png").frames[0])
    np.testing.assert_array_equal(images.read_image(done.download).frames[0], expected)


def test_several_outputs_are_an_archive_and_bad_files_are_named(upscaler, tmp_path, out):
    (tmp_path / "bad.png").write_bytes(b"%PDF-1.7")
    sources = [save(tmp_path / "a.png"), tmp_path / "bad.png", save(tmp_path / "b.jpg")]
    reports = []
    done = upscale(upscaler, sources, out, ".webp", progress=lambda *report: reports.append(report), reduce_depth=True)
    with zipfile.ZipFile(done.download) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a_sr.webp", "b_sr.webp"]
    assert (done.download.name, done.total, done.count) == ("upscaled.zip", 3, 2)
    (problem,) = done.problems
    assert problem.startswith("bad.png: expected a PNG")
    assert [path.name for path in done.download.parent.iterdir()] == ["upscaled.zip"]
    shares = [share for share, _ in reports]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert reports[-1][1] == "upscaling 3 of 3: b.jpg"


def test_names_that_collide_are_handled_as_by_the_command(upscaler, tmp_path, out):
    sources = [
        save(tmp_path / "a.png"),
        save(tmp_path / "a.jpg"),
        save(tmp_path / "1/b.png"),
        save(tmp_path / "2/b.png"),
    ]
    done = upscale(upscaler, sources, out, ".webp", reduce_depth=True)
    with zipfile.ZipFile(done.download) as archive:
        assert sorted(archive.namelist()) == ["a.jpg_sr.webp", "a.png_sr.webp"]
    assert len(done.problems) == 2
    for problem in done.problems:
        assert problem.startswith("b.png: its output b.png_sr.webp would also be the output of another image; rename")


def test_failure_of_all_files_is_an_error_and_leaves_nothing(upscaler, tmp_path, out):
    (tmp_path / "bad.png").write_bytes(b"")
    (tmp_path / "worse.png").write_bytes(b"%PDF-1.7")
    for sources in ([tmp_path / "bad.png"], [tmp_path / "bad.png", tmp_path / "worse.png"]):
        with pytest.raises(EsrganError, match=r"^bad.png: expected .* got an empty file"):
            upscale(upscaler, sources, out)
        assert not list(out.iterdir())


@pytest.mark.parametrize("count", [1, 3])
def test_stopped_work_ends_between_parts_and_leaves_nothing(tmp_path, out, count):
    upscaler = Upscaler.from_file(make_model(tmp_path / "slow.pth", blocks=40), "cpu")
    sources = [save(tmp_path / f"{i}.png", (600, 600)) for i in range(count)]
    run, started, ended = Run(), threading.Event(), []

    def work():
        try:
            upscale(upscaler, sources, out, run=run, progress=lambda share, _: share and started.set())
        except Stopped:
            ended.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(60)
    begin = time.monotonic()
    run.stop()
    thread.join(60)
    (end,) = ended
    assert end - begin < 5  # the whole image would take much longer
    assert not list(out.iterdir())


def test_a_lost_gpu_is_one_clear_error_for_all_later_work(monkeypatch):
    visitor_errors = pytest.importorskip("esrgan.demo.visitor_errors", exc_type=ImportError)
    errors, calls, logged = visitor_errors.VisitorErrors(), [], []
    monkeypatch.setattr(visitor_errors.log, "error", lambda _, error: logged.append(str(error)))

    def lose_gpu():
        calls.append("try")
        raise LostDeviceError(Problem.failure("cuda:0", "the GPU failed", "start the program again"))

    expected = "cuda:0: the GPU failed; stop the demo, and start it again"
    for session in ("one", "other"):
        with pytest.raises(visitor_errors.gr.Error):
            errors.keep(session, lose_gpu)
        assert errors.pop(session) == expected
    raised = []
    for _ in range(2):
        with pytest.raises(LostDeviceError, match="start it again") as caught:
            errors.compute(lose_gpu)
        raised.append(caught.value)
    assert raised[0] is not raised[1]  # its traceback would keep what every visitor has uploaded
    assert (calls, logged) == (["try"], [expected])


def test_new_run_stops_the_last_one_of_the_same_visitor():
    runs = Runs()
    first, other = runs.begin("a"), runs.begin("b")
    second = runs.begin("a")
    with pytest.raises(Stopped):
        first.check()
    for run in (second, other):
        run.check()
    assert runs.get("a") is second
    runs.end("a", first)
    assert "a" in runs
    runs.end("a", second)
    assert "a" not in runs
    runs.stop("b")
    with pytest.raises(Stopped):
        other.check()
    assert "b" not in runs
