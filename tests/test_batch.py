import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from esrgan import Upscaler, images, load_generator, pictures
from esrgan.cli import inference as inference_command
from esrgan.errors import ImageError
from esrgan.inference.batch import Job, Options, Result, plan, upscale_files
from esrgan.interpolation import blend
from tests.test_inference import make_model, pixels, run

ROOT = Path(__file__).parent.parent


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model.pth")


def put(*paths, size=(6, 5)):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures.write(path, pictures.Picture((pixels(*size, 3),)))


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Names


def targets(jobs, start):
    return [(str(job.source.relative_to(start)), str(job.target.relative_to(start))) for job in jobs]


def test_results_are_named_beside_the_images_or_mirrored(tmp_path, monkeypatch):
    put(*(tmp_path / name for name in ("in/a b.png", "in/deep/ü.jpg", "in/deep/er/c.webp", "d.tif")))
    (tmp_path / "in/text.txt").write_text("no image")
    beside = plan([str(tmp_path / "in"), str(tmp_path / "d.tif")], None)
    assert targets(beside, tmp_path) == [
        ("in/a b.png", "in/a b_sr.png"),
        ("in/deep/er/c.webp", "in/deep/er/c_sr.webp"),
        ("in/deep/ü.jpg", "in/deep/ü_sr.jpg"),
        ("d.tif", "d_sr.tif"),
    ]
    mirrored = [
        ("in/a b.png", "out/a b_sr.png"),
        ("in/deep/er/c.webp", "out/deep/er/c_sr.webp"),
        ("in/deep/ü.jpg", "out/deep/ü_sr.jpg"),
    ]
    assert targets(plan([str(tmp_path / "in")], tmp_path / "out"), tmp_path) == mirrored
    assert targets(plan([str(tmp_path / "in/**/*")], tmp_path / "out"), tmp_path) == mirrored
    assert targets(plan([str(tmp_path / "in/deep/ü.jpg")], tmp_path / "out"), tmp_path) == [
        ("in/deep/ü.jpg", "out/ü_sr.jpg")
    ]
    assert targets(plan([str(tmp_path / "*/deep/ü.jpg")], tmp_path / "out"), tmp_path) == [
        ("in/deep/ü.jpg", "out/in/deep/ü_sr.jpg")
    ]
    monkeypatch.chdir(tmp_path / "in")
    for path in (".", "../in", "./"):
        assert targets(plan([path], tmp_path / "out"), tmp_path) == mirrored
    assert [str(job.target) for job in plan(["deep"], Path("../out"))] == ["../out/er/c_sr.webp", "../out/ü_sr.jpg"]


def test_results_of_an_earlier_run_are_no_inputs_unless_named(tmp_path):
    put(*(tmp_path / name for name in ("a.png", "a_sr.png", "b_sr.png", "out/a_sr.png")))
    assert targets(plan([str(tmp_path)], None), tmp_path) == [
        ("a.png", "a_sr.png"),
        ("b_sr.png", "b_sr_sr.png"),
        ("out/a_sr.png", "out/a_sr_sr.png"),
    ]
    assert "out/a_sr.png" not in dict(targets(plan([str(tmp_path)], tmp_path / "out"), tmp_path))
    named = plan([str(tmp_path / "a.png"), str(tmp_path / "a_sr.png")], None)
    assert [job.source.name for job in named] == ["a.png", "a_sr.png"]


def test_equal_stems_get_results_of_their_own(tmp_path):
    put(*(tmp_path / name for name in ("a.png", "a.jpg", "b.png")))
    jobs = plan([str(tmp_path)], None)
    assert {job.target.name for job in jobs} == {"a_sr.png", "a_sr.jpg", "b_sr.png"}
    jobs = plan([str(tmp_path)], None, ".webp")
    assert {job.target.name for job in jobs} == {"a.png_sr.webp", "a.jpg_sr.webp", "b_sr.webp"}


def test_paths_that_give_nothing_are_named_together(tmp_path):
    with pytest.raises(ImageError) as error:
        plan([str(tmp_path / "x"), str(tmp_path / "*.png")], None)
    assert len(error.value.problems) == 2


# Work


def test_a_folder_is_upscaled_and_a_bad_file_does_not_stop_it(model, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    put(folder / "a b.png", folder / "deeper/ü.jpg")
    (folder / "bad.png").write_bytes(b"no image")
    assert run(inference_command, "-m", model, "-o", out, "--device", "cpu", folder) == 1
    assert sorted(content(out)) == ["a b_sr.png", "deeper/ü_sr.jpg"]
    assert images.read(out / "a b_sr.png", 3).shape == (12, 10, 3)
    printed = capsys.readouterr()
    assert "2 of 3 images upscaled, 1 failed" in printed.out
    assert "RRDBNet ×2 8/4/1" in printed.out
    assert "megapixels/s" in printed.out
    assert printed.err.startswith(f"error: {folder / 'bad.png'}: expected")
    assert "Traceback" not in printed.err


def test_one_after_another_whatever_fails(model, tmp_path, monkeypatch):
    """Errors of ours and of others, in reading, computing and writing, end in the result of their file."""
    names = [f"{i}.png" for i in range(6)]
    put(*(tmp_path / name for name in names))
    upscaler = Upscaler.from_file(model, "cpu", "fp32")
    read, write, enlarge = pictures.read, pictures.write, Upscaler.__call__

    def broken_read(path):
        if path.name == "1.png":
            raise ZeroDivisionError("surprise")
        return read(path)

    def broken_write(path, *arguments, **options):
        if path.name == "3_sr.png":
            raise ImageError("disk full")
        return write(path, *arguments, **options)

    calls = []

    def broken_enlarge(self, image):
        calls.append(image)
        if len(calls) == 4:  # of file 4, as 1 has none
            raise RuntimeError("broken\ndevice")
        return enlarge(self, image)

    monkeypatch.setattr(pictures, "read", broken_read)
    monkeypatch.setattr(pictures, "write", broken_write)
    monkeypatch.setattr(Upscaler, "__call__", broken_enlarge)
    reported = []
    results = upscale_files(upscaler, plan([str(tmp_path / "?.png")], None), Options(), reported.append)
    assert results == reported
    assert [result.job.source.name for result in results] == names
    assert [result.error for result in results] == [
        None,
        f"{tmp_path}/1.png: unexpected: ZeroDivisionError: surprise",
        None,
        "disk full",
        f"{tmp_path}/4.png: unexpected: RuntimeError: broken device",
        None,
    ]
    assert sum(path.name.endswith("_sr.png") for path in tmp_path.iterdir()) == 3


def test_reading_and_writing_overlap_with_computing(model, tmp_path, monkeypatch):
    """While one image is computed, the next one is read and the one before it written."""
    put(*(tmp_path / f"{i}.png" for i in range(4)))
    upscaler = Upscaler.from_file(model, "cpu", "fp32")
    spans = {}

    def timed(kind, function, pause):
        def work(*arguments, **options):
            begin = time.perf_counter()
            time.sleep(pause)
            result = function(*arguments, **options)
            spans.setdefault(kind, []).append((begin, time.perf_counter()))
            return result

        return work

    monkeypatch.setattr(pictures, "read", timed("read", pictures.read, 0.05))
    monkeypatch.setattr(pictures, "write", timed("write", pictures.write, 0.05))
    monkeypatch.setattr(Upscaler, "__call__", timed("compute", Upscaler.__call__, 0.1))
    upscale_files(upscaler, plan([str(tmp_path)], None), Options(), lambda _: None)

    def overlap(one, other):
        return min(one[1], other[1]) > max(one[0], other[0])

    for i in range(1, 3):
        assert overlap(spans["compute"][i], spans["read"][i + 1])
        assert overlap(spans["compute"][i], spans["write"][i - 1])


def test_existing_results(model, tmp_path, capsys):
    put(tmp_path / "a.png", tmp_path / "b.png")
    assert run(inference_command, "-m", model, tmp_path / "a.png") == 0
    before = (tmp_path / "a_sr.png").stat()
    capsys.readouterr()
    assert run(inference_command, "-m", model, tmp_path) == 1
    printed = capsys.readouterr()
    assert printed.err == (
        f"error: {tmp_path}/a_sr.png: is there already; --overwrite replaces it, --skip-existing leaves it\n"
    )
    assert "1 of 2 images upscaled, 1 failed" in printed.out
    assert run(inference_command, "-m", model, "--skip-existing", tmp_path) == 0
    assert "0 of 2 images upscaled, 2 were there already" in capsys.readouterr().out
    assert (tmp_path / "a_sr.png").stat() == before
    assert run(inference_command, "-m", model, "--overwrite", tmp_path) == 0
    assert (tmp_path / "a_sr.png").stat().st_mtime_ns != before.st_mtime_ns
    with pytest.raises(SystemExit) as stop:
        run(inference_command, "-m", model, "--overwrite", "--skip-existing", tmp_path)
    assert stop.value.code == 2


def test_killed_and_run_again_gives_the_same_folder(model, tmp_path):
    """SIGKILL in the middle, several times, at any moment; the last run ends with what one whole run gives."""
    folder, whole, out = tmp_path / "in", tmp_path / "whole", tmp_path / "out"
    put(*(folder / f"{i % 3}/{i}.png" for i in range(12)), size=(40, 40))
    assert run(inference_command, "-m", model, "-o", whole, folder) == 0
    command = [
        sys.executable,
        ROOT / "inference.py",
        "-m",
        model,
        "-o",
        out,
        "--skip-existing",
        "--device",
        "cpu",
        folder,
    ]
    counts = []
    for moment in (1, 5, 9):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
        while len([*out.rglob("*_sr.png")]) < moment and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        counts.append(len([*out.rglob("*_sr.png")]))
    assert counts[0] < 12
    (out / "0" / f".esrgan-{os.uname().nodename}-{process.pid}-00.tmp").write_bytes(b"half an image")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    assert content(out) == content(whole)


def test_processes_under_torchrun_share_the_list(model, tmp_path, monkeypatch, capsys):
    put(*(tmp_path / f"in/{i}.png" for i in range(5)))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        assert run(inference_command, "-m", model, "-o", tmp_path / "out", tmp_path / "in") == 0
        assert f"{3 - rank} of {3 - rank} images upscaled" in capsys.readouterr().out
    assert sorted(content(tmp_path / "out")) == [f"{i}_sr.png" for i in range(5)]


# Options


def test_format_quality_and_size_of_the_results(model, tmp_path, capsys):
    put(tmp_path / "a.png")
    deep = tmp_path / "deep.png"
    pictures.write(deep, pictures.Picture((pixels(6, 5, 3).astype(np.uint16) * 257,)))
    assert run(inference_command, "-m", model, "--format", "jpg", "--outscale", "3", tmp_path) == 0
    assert pictures.read(tmp_path / "a_sr.jpg").frames[0].shape == (18, 15, 3)
    assert "deep_sr.jpg: " in capsys.readouterr().out  # that its depth is lost is said
    sizes = []
    for quality in (5, 100):
        assert (
            run(inference_command, "-m", model, "--format", "webp", "--quality", quality, "--overwrite", tmp_path) == 0
        )
        sizes.append((tmp_path / "a_sr.webp").stat().st_size)
    assert sizes[0] < sizes[1]


def test_a_blend_made_on_loading_is_that_of_the_command(model, tmp_path):
    psnr, gan = make_model(tmp_path / "psnr.pth", seed=1), make_model(tmp_path / "gan.safetensors", seed=2)
    put(tmp_path / "a.png")
    assert run(inference_command, "-m", gan, "--psnr-model-path", psnr, "--alpha", "0.3", tmp_path / "a.png") == 0
    network = blend(load_generator(psnr), load_generator(gan), 0.3).build()
    expected = Upscaler(network, torch.device("cpu"))(images.read(tmp_path / "a.png", 3))
    np.testing.assert_array_equal(images.read(tmp_path / "a_sr.png", 3), expected)


def test_options_reach_the_upscaler(model, tmp_path):
    put(tmp_path / "a.png")
    assert run(inference_command, "-m", model, "--self-ensemble", "--precision", "fp32", tmp_path / "a.png") == 0
    expected = Upscaler.from_file(model, "cpu", "fp32", self_ensemble=True)(images.read(tmp_path / "a.png", 3))
    np.testing.assert_array_equal(images.read(tmp_path / "a_sr.png", 3), expected)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--alpha", "0.5"], "expected both or none"),
        (["--psnr-model-path", "x.pth"], "expected both or none"),
        (["--alpha", "2", "--psnr-model-path", "x.pth"], "expected a number from 0 to 1, got 2"),
        (["--quality", "101"], "from 1 to 100, got 101"),
        (["--outscale", "0"], "above 0, at most 64, got 0"),
        (["--outscale", "nan"], "above 0, at most 64, got nan"),
        (["--format", "pdf"], "invalid choice: 'pdf'"),
    ],
)
def test_bad_options_are_refused_in_a_line(model, tmp_path, capsys, options, says):
    put(tmp_path / "a.png")
    try:
        code = run(inference_command, "-m", model, *options, tmp_path / "a.png")
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert says in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "model.pth"]


def test_a_target_folder_that_cannot_be_made_is_the_error_of_its_file(model, tmp_path):
    put(tmp_path / "a.png")
    (tmp_path / "file").write_bytes(b"")
    job = Job(tmp_path / "a.png", tmp_path / "file/a_sr.png")
    (result,) = upscale_files(Upscaler.from_file(model, "cpu"), [job], Options(), lambda _: None)
    assert isinstance(result, Result)
    assert "file: the folder cannot be made" in result.error
