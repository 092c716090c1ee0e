import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from esrgan import Upscaler, files, images, load_generator, pictures
from esrgan.cli import inference as inference_command
from esrgan.cli.command import importing
from esrgan.errors import ImageError
from esrgan.inference.batch import Job, Options, Result, _ignores_case, plan, upscale_files
from esrgan.interpolation import blend
from tests.helpers.models import make_model, pixels, run

ROOT = Path(__file__).parent.parent.parent


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


def targets(planned, start):
    jobs, _ = planned
    return [tuple(str(path.resolve().relative_to(start)) for path in (job.source, job.target)) for job in jobs]


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
    assert [str(job.target) for job in plan(["deep"], Path("../out"))[0]] == ["../out/er/c_sr.webp", "../out/ü_sr.jpg"]


def test_results_of_an_earlier_run_are_no_inputs(tmp_path):
    put(*(tmp_path / name for name in ("a.png", "a_sr.png", "b_sr.png", "out/a_sr.png", "out/sub/c.png")))
    expected = [("a.png", "a_sr.png"), ("b_sr.png", "b_sr_sr.png")]
    beside = plan([str(tmp_path)], None)
    assert targets(beside, tmp_path) == [
        *expected,
        ("out/a_sr.png", "out/a_sr_sr.png"),
        ("out/sub/c.png", "out/sub/c_sr.png"),
    ]
    assert [path.name for path in beside[1]] == ["a_sr.png"]
    # Nor what is in the folder for results, if that is below one that is searched.
    mirrored = plan([str(tmp_path)], tmp_path / "out")
    assert targets(mirrored, tmp_path) == [
        ("a.png", "out/a_sr.png"),
        ("a_sr.png", "out/a_sr_sr.png"),
        ("b_sr.png", "out/b_sr_sr.png"),
    ]
    # Whoever named them: a shell puts results into *.png too. What is no result of another file is upscaled.
    named = plan([str(tmp_path / name) for name in ("a_sr.png", "a.png", "b_sr.png")], None)
    assert targets(named, tmp_path) == expected
    assert targets(plan([str(tmp_path / "a_sr.png")], None), tmp_path) == [("a_sr.png", "a_sr_sr.png")]


def test_results_of_an_earlier_run_are_known_in_every_format(tmp_path):
    put(*(tmp_path / name for name in ("a.png", "b.webp", "b.png")))
    before = [path.name for path in tmp_path.iterdir()]
    for suffix in (*sorted(pictures.SUFFIXES), None):
        jobs, left_out = plan([str(tmp_path)], None, suffix)
        assert sorted(job.source.name for job in jobs) == sorted(before)
        assert all(path.name not in before for path in left_out)
        for job in jobs:
            job.target.touch()
    assert len([*tmp_path.iterdir()]) > 2 * len(pictures.SUFFIXES)


def test_what_is_in_the_folder_for_results_is_no_input_however_it_was_found(tmp_path):
    put(tmp_path / "a.png", tmp_path / "out/a_sr.png")
    put(tmp_path / "in/b.png")
    (tmp_path / "in/out").symlink_to(tmp_path / "out")
    for path in (tmp_path, tmp_path / "**/*.png"):
        jobs, left_out = plan([str(path)], tmp_path / "in/out")
        assert {job.source.name for job in jobs} == {"a.png", "b.png"}
        assert "a_sr.png" in {path.name for path in left_out}
    # Unless one asks for it.
    for path in (tmp_path / "out", tmp_path / "out/*.png", tmp_path / "out/a_sr.png"):
        jobs, left_out = plan([str(path)], tmp_path / "out")
        assert {job.source.name for job in jobs} == {"a_sr.png"}


def test_links_to_folders_are_not_followed_and_named(model, tmp_path, capsys):
    put(tmp_path / "in/a.png", tmp_path / "real/b.png")
    (tmp_path / "in/link").symlink_to(tmp_path / "real")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/.hidden").symlink_to(tmp_path / "real")
    (tmp_path / "in/nowhere").symlink_to(tmp_path / "nix")
    assert run(inference_command, "-m", model, tmp_path / "in") == 0
    printed = capsys.readouterr().out
    assert f"left out, links to folders are not followed: {tmp_path}/in/link and 1 more\n" in printed
    assert "1 of 1 images upscaled" in printed
    assert run(inference_command, "-m", model, tmp_path / "in/link") == 0
    assert (tmp_path / "real/b_sr.png").is_file()
    (tmp_path / "links").mkdir()
    (tmp_path / "links/link").symlink_to(tmp_path / "real")
    assert run(inference_command, "-m", model, tmp_path / "links") == 2
    assert "got links to folders alone, which are not followed; check the path" in capsys.readouterr().err


def test_a_folder_for_results_that_is_a_link_to_itself(model, tmp_path, capsys):
    put(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out in ("loop", "loop/sub"):
        assert run(inference_command, "-m", model, "-o", tmp_path / out, tmp_path / "a.png") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path / out}: the folder cannot be made: ")


def test_names_are_the_same_in_every_run(tmp_path):
    put(*(tmp_path / name for name in ("x.png", "y.png", "y.jpg", "y_s.jpg")))
    first = plan([str(tmp_path)], None, ".png")
    assert targets(first, tmp_path) == [
        ("x.png", "x_sr.png"),
        ("y.jpg", "y.jpg_sr.png"),
        ("y.png", "y.png_sr.png"),
        ("y_s.jpg", "y_s_sr.png"),
    ]
    put(*(job.target for job in first[0]))
    assert plan([str(tmp_path)], None, ".png")[0] == first[0]


def test_two_results_of_one_name_are_errors_of_these_files_alone(model, tmp_path, capsys):
    put(*(tmp_path / name for name in ("x/a.png", "x/b.png", "y/a.png", "y/c.png")))
    assert run(inference_command, "-m", model, "-o", tmp_path / "out", tmp_path / "x", tmp_path / "y") == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        f"error: {tmp_path}/{one}/a.png: expected a result of its own, not {tmp_path}/out/a.png_sr.png, "
        f"got that of {tmp_path}/{other}/a.png too; upscale them into different folders"
        for one, other in ("xy", "yx")
    ]
    assert "2 of 4 images upscaled, 2 failed" in printed.out
    assert sorted(content(tmp_path / "out")) == ["b_sr.png", "c_sr.png"]


def test_names_clash_only_as_far_as_they_must(tmp_path):
    put(*(tmp_path / name for name in ("z/a.png", "z/a.jpg", "z/a.png.gif")))
    assert targets(plan([str(tmp_path / "z")], None, ".webp"), tmp_path / "z") == [
        ("a.jpg", "a.jpg_sr.webp"),
        ("a.png", "a.png_sr.webp"),
        ("a.png.gif", "a.png.gif_sr.webp"),
    ]


@pytest.mark.parametrize("ignores_case", [False, True])
def test_case_counts_where_the_disk_says_so(tmp_path, monkeypatch, ignores_case):
    monkeypatch.setattr("esrgan.inference.batch._ignores_case", lambda folder: ignores_case)
    for name in ("1/a.png", "2/A.png", "1/straße.png", "2/strasse.png"):
        put(tmp_path / name)
    jobs, _ = plan([str(tmp_path / "1"), str(tmp_path / "2")], tmp_path / "out")
    assert [job.rival is not None for job in jobs] == [ignores_case, False, ignores_case, False]


def test_whether_case_counts_is_asked_of_the_disk(tmp_path):
    (tmp_path / "Ab").mkdir()
    counts = not (tmp_path / "aB").exists()
    assert _ignores_case(tmp_path / "Ab/01/02") != counts
    if counts:
        (tmp_path / "aB").mkdir()
        assert not _ignores_case(tmp_path / "Ab")
        (tmp_path / "aB").rmdir()
        (tmp_path / "aB").symlink_to("Ab")  # as it is where names that differ in case alone are one
        assert _ignores_case(tmp_path / "Ab/01/02")
    assert not _ignores_case(Path("/"))


def test_equal_stems_get_results_of_their_own(tmp_path):
    put(*(tmp_path / name for name in ("a.png", "a.jpg", "b.png")))
    jobs, _ = plan([str(tmp_path)], None)
    assert {job.target.name for job in jobs} == {"a_sr.png", "a_sr.jpg", "b_sr.png"}
    jobs, _ = plan([str(tmp_path)], None, ".webp")
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

    def broken_read(path, *limits):
        if path.name == "1.png":
            raise ZeroDivisionError("surprise")
        return read(path, *limits)

    def broken_write(path, *arguments, **options):
        if path.name == "3_sr.png":
            raise ImageError("disk full")
        return write(path, *arguments, **options)

    calls = []

    def broken_enlarge(self, image, progress):
        calls.append(image)
        if len(calls) == 4:  # of file 4, as 1 has none
            raise RuntimeError("broken\ndevice")
        return enlarge(self, image, progress)

    monkeypatch.setattr(pictures, "read", broken_read)
    monkeypatch.setattr(pictures, "write", broken_write)
    monkeypatch.setattr(Upscaler, "__call__", broken_enlarge)
    reported = []
    results = upscale_files(upscaler, plan([str(tmp_path / "?.png")], None)[0], Options(), reported.append)
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


def test_nothing_is_written_where_the_network_gives_no_finite_values(tmp_path, capsys):
    put(tmp_path / "a.png", tmp_path / "b.png")
    model = make_model(tmp_path / "model.pth")
    content = torch.load(model)
    content["params"]["conv_last.weight"].fill_(3e38)
    torch.save(content, model)
    assert run(inference_command, "-m", model, tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": the network gives NaN or infinity: its weights are damaged")[0] for line in lines] == [
        f"error: {tmp_path}/a.png",
        f"error: {tmp_path}/b.png",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "model.pth"]


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
    upscale_files(upscaler, plan([str(tmp_path)], None)[0], Options(), lambda _: None)

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
        f"error: {tmp_path}/a_sr.png: it is there already; --overwrite replaces files, --skip-existing leaves them\n"
    )
    assert "1 of 2 images upscaled, 1 failed" in printed.out
    assert f"left out, made by an earlier run: {tmp_path}/a_sr.png\n" in printed.out
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
    (out / "0/.esrgan-00.tmp").write_bytes(b"half an image")
    with files.new_image_file(out / "0/other.png", overwrite=False):  # another program's, at work
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    (out / "0/other.png").unlink()
    assert content(out) == content(whole)


def test_processes_of_torchrun_share_the_list_and_wait_for_each_other(model, tmp_path):
    put(*(tmp_path / f"in/{i}.png" for i in range(1, 7)), size=(60, 60))
    (tmp_path / "in/0.png").write_bytes(b"")  # the first one's first: it ends at once, with an error
    (tmp_path / "in/2.png").unlink()
    (tmp_path / "in/4.png").unlink()
    (tmp_path / "in/6.png").unlink()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "inference.py"]
    command += ["-m", model, "-o", tmp_path / "out", "--device", "cpu", tmp_path / "in"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert process.returncode == 1
    assert sorted(content(tmp_path / "out")) == ["1_sr.png", "3_sr.png", "5_sr.png"]
    assert "1 of 2 images upscaled, 1 failed" in process.stdout
    assert "2 of 2 images upscaled" in process.stdout


def test_nobody_reads_the_output(model, tmp_path):
    put(*(tmp_path / f"{i}.png" for i in range(3)))
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, ROOT / "inference.py", "-m", model, "--device", "cpu", tmp_path]
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert len([*tmp_path.glob("*_sr.png")]) == 3
    assert "Traceback" not in process.stderr


def test_names_that_the_terminal_cannot_show(model, tmp_path):
    put(tmp_path / "图.png", tmp_path / "b.png")
    command = [sys.executable, ROOT / "inference.py", "-m", model, "--device", "cpu", tmp_path]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    output = subprocess.run(command, capture_output=True, check=True, env=environment).stdout
    assert rb"\u56fe_sr.png" in output
    assert len([*tmp_path.glob("*_sr.png")]) == 2


def test_a_name_of_two_lines_is_one_line_of_progress(model, tmp_path, capsys):
    put(tmp_path / "a\nb.png")
    assert run(inference_command, "-m", model, tmp_path) == 0
    assert f"1/1 {tmp_path}/a?b_sr.png " in capsys.readouterr().out


def test_ctrl_c_while_importing_is_a_line(model, tmp_path):
    """As an exception in the middle of a module it becomes other errors, a RecursionError in numpy."""
    put(tmp_path / "a.png")
    (tmp_path / "torch.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "except BaseException:\n    raise RecursionError('deep')\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, ROOT / "inference.py", "-m", model, tmp_path / "a.png"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_after_importing_is_as_before(own_signals):
    with importing():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    with importing():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_what_is_wrong_from_the_start_is_told_before_the_work(model, tmp_path, capsys, monkeypatch):
    put(tmp_path / "a.png")
    monkeypatch.setattr(Upscaler, "__call__", lambda *_: pytest.fail("it was enlarged"))
    (tmp_path / "file").write_bytes(b"")
    assert run(inference_command, "-m", model, "-o", tmp_path / "file", tmp_path / "a.png") == 2
    assert "file: the folder cannot be made" in capsys.readouterr().err
    (tmp_path / "a_sr.png").mkdir()
    for option in ("--overwrite", "--skip-existing"):
        assert run(inference_command, "-m", model, option, tmp_path / "a.png") == 1
        assert "a folder of this name is there already" in capsys.readouterr().err
    (tmp_path / "a_sr.png").rmdir()
    (tmp_path / "a_sr.png").symlink_to(tmp_path / "nowhere")
    assert run(inference_command, "-m", model, tmp_path / "a.png") == 1
    assert "is there already" in capsys.readouterr().err
    with pytest.raises(ValueError, match="quality"):
        Options(quality=0)


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
        (["--alpha", "0.5"], "comes without a PSNR-oriented generator"),
        (["--psnr-model-path", "x.pth"], "--psnr-model-path: expected --alpha too"),
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
