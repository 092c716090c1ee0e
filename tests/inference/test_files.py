import errno
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from esrgan import Upscaler, files, images
from esrgan.cli import inference as inference_command
from esrgan.errors import ImageError, LostDeviceError, Problem
from esrgan.inference import FileJob, FileOptions, FileResult, plan_jobs, upscale_files
from esrgan.paths import _is_case_insensitive
from tests.helpers.image_folders import read_files, write_files
from tests.helpers.models import make_model, run


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model.pth")


def targets(planned, start):
    jobs, _ = planned
    return [tuple(str(path.resolve().relative_to(start)) for path in (job.source, job.target)) for job in jobs]


def test_outputs_are_next_to_inputs_or_mirrored(tmp_path, monkeypatch):
    write_files(*(tmp_path / name for name in ("in/a b.png", "in/deep/ü.jpg", "in/deep/er/c.webp", "d.tif")))
    (tmp_path / "in/text.txt").write_text("not an image")
    adjacent = plan_jobs([str(tmp_path / "in"), str(tmp_path / "d.tif")], None)
    assert targets(adjacent, tmp_path) == [
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
    assert targets(plan_jobs([str(tmp_path / "in")], tmp_path / "out"), tmp_path) == mirrored
    assert targets(plan_jobs([str(tmp_path / "in/**/*")], tmp_path / "out"), tmp_path) == mirrored
    assert targets(plan_jobs([str(tmp_path / "in/deep/ü.jpg")], tmp_path / "out"), tmp_path) == [
        ("in/deep/ü.jpg", "out/ü_sr.jpg")
    ]
    assert targets(plan_jobs([str(tmp_path / "*/deep/ü.jpg")], tmp_path / "out"), tmp_path) == [
        ("in/deep/ü.jpg", "out/in/deep/ü_sr.jpg")
    ]
    monkeypatch.chdir(tmp_path / "in")
    for path in (".", "../in", "./"):
        assert targets(plan_jobs([path], tmp_path / "out"), tmp_path) == mirrored
    assert [str(job.target) for job in plan_jobs(["deep"], Path("../out"))[0]] == [
        "../out/er/c_sr.webp",
        "../out/ü_sr.jpg",
    ]


def test_earlier_outputs_are_skipped_as_inputs(tmp_path):
    write_files(*(tmp_path / name for name in ("a.png", "a_sr.png", "b_sr.png", "out/a_sr.png", "out/sub/c.png")))
    expected = [("a.png", "a_sr.png"), ("b_sr.png", "b_sr_sr.png")]
    adjacent = plan_jobs([str(tmp_path)], None)
    assert targets(adjacent, tmp_path) == [
        *expected,
        ("out/a_sr.png", "out/a_sr_sr.png"),
        ("out/sub/c.png", "out/sub/c_sr.png"),
    ]
    assert [path.name for path in adjacent[1]] == ["a_sr.png"]
    # Files in the output folder are skipped too if it is below a folder that is searched.
    with_suffix = plan_jobs([str(tmp_path)], tmp_path / "out", ending="r")  # a_sr is no output of a_s or the like
    assert len(with_suffix[0]) == 2
    mirrored = plan_jobs([str(tmp_path)], tmp_path / "out")
    assert targets(mirrored, tmp_path) == [("a.png", "out/a_sr.png"), ("b_sr.png", "out/b_sr_sr.png")]
    # Also if they are named one by one, because a shell expands *.png to outputs too. A file whose name ends with _sr
    # is upscaled if it is not the output of another file.
    named = plan_jobs([str(tmp_path / name) for name in ("a_sr.png", "a.png", "b_sr.png")], None)
    assert targets(named, tmp_path) == expected
    assert targets(plan_jobs([str(tmp_path / "a_sr.png")], None), tmp_path) == [("a_sr.png", "a_sr_sr.png")]


def test_earlier_outputs_are_recognised_in_every_format(tmp_path):
    write_files(*(tmp_path / name for name in ("a.png", "b.webp", "b.png")))
    before = [path.name for path in tmp_path.iterdir()]
    for suffix in (*sorted(images.SUFFIXES), None):
        jobs, skipped = plan_jobs([str(tmp_path)], None, suffix)
        assert sorted(job.source.name for job in jobs) == sorted(before)
        assert all(path.name not in before for path in skipped)
        for job in jobs:
            job.target.touch()
    assert len([*tmp_path.iterdir()]) > 2 * len(images.SUFFIXES)


def test_colours_in_a_pgm_get_the_suffix_ppm(model, tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P6\n2 2\n255\n" + bytes(range(12)))
    (tmp_path / "b.pgm").write_bytes(b"P5\n2 2\n255\n" + bytes(range(4)))
    jobs, _ = plan_jobs([tmp_path], tmp_path / "out")
    assert [job.target.name for job in jobs] == ["a_sr.ppm", "b_sr.pgm"]
    colours, grey = upscale_files(Upscaler.from_file(model, "cpu"), jobs)
    assert colours.notes == ("named .ppm, because a .pgm cannot hold colours",)
    assert (grey.error, grey.notes) == (None, ())
    jobs, _ = plan_jobs([tmp_path / "a.pgm"], tmp_path / "out2", ".ppm")  # as asked for, without a note
    assert [result.notes for result in upscale_files(Upscaler.from_file(model, "cpu"), jobs)] == [()]
    ((job,), _) = plan_jobs([tmp_path / "a.pgm"], tmp_path / "c.pgm")
    assert job.target.name == "c.pgm"
    jobs, _ = plan_jobs([tmp_path / "b.pgm", tmp_path / f"{'n' * 300}.pgm"], None)
    assert sorted(job.problem is None for job in jobs) == [False, True]


@pytest.mark.parametrize("ending", ["_sr", ""])
def test_names_may_consist_of_dots(tmp_path, ending):
    names = ("..png", "...png", "._a.png")
    write_files(*(tmp_path / name for name in names))
    (tmp_path / "._sr.png").touch()
    paths = [str(tmp_path / name) for name in (*names, "._sr.png")]
    jobs, skipped = plan_jobs(paths, tmp_path / "out", None, ending)
    assert [job.target.name for job in jobs] == [f".{ending}.png", f"..{ending}.png", f"._a{ending}.png"]
    assert skipped == {tmp_path / "._sr.png": "output of an earlier run"}


def test_output_folder_content_is_skipped_however_found(tmp_path):
    write_files(tmp_path / "a.png", tmp_path / "out/a_sr.png")
    write_files(tmp_path / "in/b.png")
    (tmp_path / "in/out").symlink_to(tmp_path / "out")
    for path in (tmp_path, tmp_path / "**/*.png"):
        jobs, skipped = plan_jobs([str(path)], tmp_path / "in/out")
        assert {job.source.name for job in jobs} == {"a.png", "b.png"}
        assert "a_sr.png" in {path.name for path in skipped}
    # Not if the folder itself is named as input.
    for path in (tmp_path / "out", tmp_path / "out/*.png", tmp_path / "out/a_sr.png"):
        jobs, skipped = plan_jobs([str(path)], tmp_path / "out")
        assert {job.source.name for job in jobs} == {"a_sr.png"}


def test_symlinked_folders_are_skipped_and_reported(model, tmp_path, capsys):
    write_files(tmp_path / "in/a.png", tmp_path / "real/b.png")
    (tmp_path / "in/link").symlink_to(tmp_path / "real")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/.hidden").symlink_to(tmp_path / "real")
    (tmp_path / "in/nowhere").symlink_to(tmp_path / "nix")
    assert run(inference_command, "-m", model, tmp_path / "in") == 0
    printed = capsys.readouterr().out
    assert f"skipped (symlinked folders are not followed): {tmp_path}/in/link and 1 more\n" in printed
    assert "1 of 1 image upscaled" in printed
    assert run(inference_command, "-m", model, tmp_path / "in/link") == 0
    assert (tmp_path / "real/b_sr.png").is_file()
    (tmp_path / "links").mkdir()
    (tmp_path / "links/link").symlink_to(tmp_path / "real")
    assert run(inference_command, "-m", model, tmp_path / "links") == 2
    assert "got only links to folders, which are not followed; check the path" in capsys.readouterr().err


def test_output_folder_that_links_to_itself_is_rejected(model, tmp_path, capsys):
    write_files(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out in ("loop", "loop/sub"):
        assert run(inference_command, "-m", model, "-o", tmp_path / out, tmp_path / "a.png") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path / out}: cannot create this folder: ")


def test_output_names_are_the_same_in_every_run(tmp_path):
    write_files(*(tmp_path / name for name in ("x.png", "y.png", "y.jpg", "y_s.jpg")))
    first = plan_jobs([str(tmp_path)], None, ".png")
    assert targets(first, tmp_path) == [
        ("x.png", "x_sr.png"),
        ("y.jpg", "y.jpg_sr.png"),
        ("y.png", "y.png_sr.png"),
        ("y_s.jpg", "y_s_sr.png"),
    ]
    write_files(*(job.target for job in first[0]))
    assert plan_jobs([str(tmp_path)], None, ".png")[0] == first[0]


def test_output_name_conflicts_fail_only_those_files(model, tmp_path, capsys):
    write_files(*(tmp_path / name for name in ("x/a.png", "x/b.png", "y/a.png", "y/c.png")))
    assert run(inference_command, "-m", model, "-o", tmp_path / "out", tmp_path / "x", tmp_path / "y") == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        f"error: {tmp_path}/{one}/a.png: its output {tmp_path}/out/a.png_sr.png would also be the output of "
        f"{tmp_path}/{other}/a.png; upscale them into different folders"
        for one, other in ("xy", "yx")
    ]
    assert "2 of 4 images upscaled, 2 failed" in printed.out
    assert sorted(read_files(tmp_path / "out")) == ["b_sr.png", "c_sr.png"]


def test_full_names_are_used_only_on_conflict(tmp_path):
    write_files(*(tmp_path / name for name in ("z/a.png", "z/a.jpg", "z/a.png.gif")))
    assert targets(plan_jobs([str(tmp_path / "z")], None, ".webp"), tmp_path / "z") == [
        ("a.jpg", "a.jpg_sr.webp"),
        ("a.png", "a.png_sr.webp"),
        ("a.png.gif", "a.png.gif_sr.webp"),
    ]


@pytest.mark.parametrize("ignores_case", [False, True])
def test_names_differing_in_case_conflict_if_disk_ignores_case(tmp_path, monkeypatch, ignores_case):
    monkeypatch.setattr("esrgan.paths._is_case_insensitive", lambda folder: ignores_case)
    for one, other in (("a", "A"), ("οδος", "ΟΔΟΣ"), ("\N{MICRO SIGN}", "Μ"), ("σ", "ς"), ("straße", "strasse")):
        write_files(tmp_path / f"1/{one}.png", tmp_path / f"2/{other}.png")
    jobs, _ = plan_jobs([str(tmp_path / "1"), str(tmp_path / "2")], tmp_path / "out")
    assert [job.conflict is not None for job in jobs] == [ignores_case] * 10


def test_encodings_of_an_accent_conflict_if_disk_ignores_them(tmp_path, monkeypatch):
    """The disks of macOS, which ignore case too, take both names for one."""
    monkeypatch.setattr("esrgan.paths._is_case_insensitive", lambda folder: True)
    write_files(tmp_path / "1/caf\u00e9.png", tmp_path / "2/cafe\u0301.png")
    jobs, _ = plan_jobs([str(tmp_path / "1"), str(tmp_path / "2")], tmp_path / "out")
    assert all(job.conflict is not None for job in jobs)


def test_case_sensitivity_is_detected_on_the_disk(tmp_path):
    (tmp_path / "Ab").mkdir()
    counts = not (tmp_path / "aB").exists()
    assert _is_case_insensitive(tmp_path / "Ab/01/02") != counts
    if counts:
        (tmp_path / "aB").mkdir()
        assert not _is_case_insensitive(tmp_path / "Ab")
        (tmp_path / "aB").rmdir()
        (tmp_path / "aB").symlink_to("Ab")  # imitates a file system that ignores case
        assert _is_case_insensitive(tmp_path / "Ab/01/02")
        (tmp_path / "Ab/x.png").touch()  # a file system of its own that does not
        os.link(tmp_path / "Ab/x.png", tmp_path / "Ab/X.PNG")
        assert not _is_case_insensitive(tmp_path / "Ab")
    assert not _is_case_insensitive(Path("/"))


def test_equal_stems_get_separate_outputs(tmp_path):
    write_files(*(tmp_path / name for name in ("a.png", "a.jpg", "b.png")))
    jobs, _ = plan_jobs([str(tmp_path)], None)
    assert {job.target.name for job in jobs} == {"a_sr.png", "a_sr.jpg", "b_sr.png"}
    jobs, _ = plan_jobs([str(tmp_path)], None, ".webp")
    assert {job.target.name for job in jobs} == {"a.png_sr.webp", "a.jpg_sr.webp", "b_sr.webp"}


def test_paths_without_images_are_reported_together(tmp_path):
    with pytest.raises(ImageError) as error:
        plan_jobs([str(tmp_path / "x"), str(tmp_path / "*.png")], None)
    assert len(error.value.problems) == 2


def test_every_failure_becomes_the_result_of_its_file(model, tmp_path, monkeypatch):
    """Expected and unexpected errors while reading, upscaling or writing are reported in the result of their file."""
    names = [f"{i}.png" for i in range(6)]
    write_files(*(tmp_path / name for name in names))
    upscaler = Upscaler.from_file(model, "cpu", "fp32")
    read, write, upscale = images.read_image, images.write_image, Upscaler.__call__

    def broken_read(path, *limits):
        if path.name == "1.png":
            raise ZeroDivisionError("surprise")
        return read(path, *limits)

    def broken_write(path, *arguments, **options):
        if path.name == "3_sr.png":
            raise ImageError("disk full")
        return write(path, *arguments, **options)

    calls = []

    def broken_upscale(self, image, progress):
        calls.append(image)
        if len(calls) == 4:  # upscales 4.png, because 1.png cannot be read
            raise RuntimeError("broken\ndevice")
        return upscale(self, image, progress)

    monkeypatch.setattr(images, "read_image", broken_read)
    monkeypatch.setattr(images, "write_image", broken_write)
    monkeypatch.setattr(Upscaler, "__call__", broken_upscale)
    results = [*upscale_files(upscaler, plan_jobs([str(tmp_path / "?.png")], None)[0])]
    assert [result.job.source.name for result in results] == names
    assert [result.error and str(result.error) for result in results] == [
        None,
        f"{tmp_path}/1.png: unexpected error: ZeroDivisionError: surprise",
        None,
        f"{tmp_path}/3.png: disk full",
        f"{tmp_path}/4.png: unexpected error: RuntimeError: broken device",
        None,
    ]
    assert sum(path.name.endswith("_sr.png") for path in tmp_path.iterdir()) == 3


def test_a_lost_gpu_ends_the_work_and_says_how_to_continue(model, tmp_path, monkeypatch, capsys):
    """Every other file would fail in the same way."""
    write_files(*(tmp_path / f"{i}.png" for i in range(5)))
    upscale, calls = Upscaler.__call__, []

    def lose_gpu(self, image, progress):
        calls.append(image)
        if len(calls) > 1:
            raise LostDeviceError(Problem.failure("cuda", "the GPU failed (it did)", "start the program again"))
        return upscale(self, image, progress)

    monkeypatch.setattr(Upscaler, "__call__", lose_gpu)
    assert run(inference_command, "-m", model, tmp_path) == 2
    line = "error: cuda: the GPU failed (it did); the same command with --skip-existing resumes"
    assert capsys.readouterr().err.splitlines()[-1] == line
    assert len(calls) <= 3
    assert [path.name for path in tmp_path.glob("*_sr.png")] == ["0_sr.png"]


def test_jobs_may_be_an_iterator(model, tmp_path):
    write_files(*(tmp_path / f"{i}.png" for i in range(3)))
    jobs, _ = plan_jobs([str(tmp_path)], None)
    assert len([*upscale_files(Upscaler.from_file(model, "cpu"), iter(jobs))]) == 3


def test_an_error_of_the_callback_ends_the_work(model, tmp_path):
    write_files(*(tmp_path / f"{i}.png" for i in range(4)))
    jobs, _ = plan_jobs([str(tmp_path)], tmp_path / "out")
    for share in (0.0, 1.0):

        def cancel(job, done, share=share):
            if job is jobs[2] and done == share:
                raise ImageError("cancelled")

        results = upscale_files(Upscaler.from_file(model, "cpu"), jobs, FileOptions(overwrite=True), cancel)
        assert next(results).error is None
        with pytest.raises(ImageError, match=r"^cancelled$"):
            next(results)
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0_sr.png", "1_sr.png"]


@pytest.mark.parametrize(
    "options",
    [
        {"quality": float("inf")},
        {"quality": float("nan")},
        {"quality": 90.5},
        {"quality": "90"},
        {"resolution": "x"},
        {"resolution": -1},
        {"resolution": float("nan")},
        {"resolution": None},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: expected .* from 1 to "):
        FileOptions(**options)


def test_numbers_of_numpy_are_options():
    options = FileOptions(quality=np.uint8(90), resolution=np.float16(72))
    assert (options.quality, options.resolution) == (90, 72.0)
    assert {type(options.quality), type(options.resolution)} == {int, float}


def test_paths_of_jobs_may_be_of_either_type(tmp_path):
    write_files(tmp_path / "a.png")
    expected = plan_jobs([str(tmp_path / "a.png")], tmp_path / "out")
    assert plan_jobs([tmp_path / "a.png"], str(tmp_path / "out")) == expected
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        with pytest.raises(TypeError, match=r"expected a list of paths, got .*a\.png'?\)?; put it in a list"):
            plan_jobs(path, None)
    with pytest.raises(ImageError, match=r"out\.png: expected a single input file for this output file, got no input"):
        plan_jobs([], tmp_path / "out.png")


def test_reading_and_writing_overlap_with_computing(model, tmp_path, monkeypatch):
    """While one image is upscaled, the next one is read and the previous one is written."""
    write_files(*(tmp_path / f"{i}.png" for i in range(4)))
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

    monkeypatch.setattr(images, "read_image", timed("read", images.read_image, 0.05))
    monkeypatch.setattr(images, "write_image", timed("write", images.write_image, 0.05))
    monkeypatch.setattr(Upscaler, "__call__", timed("compute", Upscaler.__call__, 0.1))
    assert len([*upscale_files(upscaler, plan_jobs([str(tmp_path)], None)[0])]) == 4

    def overlap(one, other):
        return min(one[1], other[1]) > max(one[0], other[0])

    for i in range(1, 3):
        assert overlap(spans["compute"][i], spans["read"][i + 1])
        assert overlap(spans["compute"][i], spans["write"][i - 1])


def test_uncreatable_output_folder_fails_only_its_file(model, tmp_path):
    write_files(tmp_path / "a.png")
    (tmp_path / "file").write_bytes(b"")
    job = FileJob(tmp_path / "a.png", tmp_path / "file/a_sr.png")
    (result,) = upscale_files(Upscaler.from_file(model, "cpu"), [job], FileOptions())
    assert isinstance(result, FileResult)
    assert "file: expected a folder, got a file; choose another folder" in str(result.error)


def test_nothing_happens_until_the_results_are_iterated(model, tmp_path):
    write_files(*(tmp_path / f"{i}.png" for i in range(4)))
    jobs, _ = plan_jobs([str(tmp_path)], tmp_path / "out")
    results = upscale_files(Upscaler.from_file(model, "cpu"), jobs)
    assert not (tmp_path / "out").exists()
    threads = threading.active_count()
    assert next(results).error is None
    results.close()
    assert threading.active_count() == threads
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["0_sr.png", "1_sr.png"]  # the second was being written
    assert all(images.read_image(tmp_path / "out" / name) for name in written)


def test_missing_paths_do_not_stop_the_others(model, tmp_path, capsys):
    write_files(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    arguments = (tmp_path / "gone.png", tmp_path / "pipe.png", tmp_path / "a.png")
    assert run(inference_command, "-m", model, *arguments) == 1
    printed = capsys.readouterr()
    assert [line.partition("; ")[0] for line in printed.err.splitlines()] == [
        f"error: {tmp_path}/gone.png: expected an image file or a folder with images, got neither",
        f"error: {tmp_path}/pipe.png: expected an image file or a folder with images, got a named pipe",
    ]
    assert printed.err.endswith("; save its content as a file first\n")
    assert "1 of 3 images upscaled, 2 failed" in printed.out
    assert (tmp_path / "a_sr.png").is_file()


def test_pipes_as_inputs_never_block(model, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    job = FileJob(tmp_path / "pipe.png", tmp_path / "a.png")
    (result,) = upscale_files(Upscaler.from_file(model, "cpu"), [job])
    assert "pipe.png: expected an image file, got a named pipe; save its content" in str(result.error)


def test_other_formats_in_folders_are_counted(model, tmp_path, capsys):
    write_files(tmp_path / "a.png")
    for name in ("b.psd", "c.PSD", "sub/d.psd", "film.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gone.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    assert run(inference_command, "-m", model, tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("skipped")] == [
        f"skipped (not a supported format: .psd): {tmp_path}/b.psd and 2 more",
        f"skipped (not a supported format: .mp4): {tmp_path}/film.mp4",
        f"skipped (broken links): {tmp_path}/gone.png",
        f"skipped (not regular files): {tmp_path}/pipe.png",
    ]


def test_link_to_an_input_is_not_overwritten(model, tmp_path, capsys):
    write_files(tmp_path / "a.png")
    (tmp_path / "a_sr.png").symlink_to("a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert run(inference_command, "-m", model, tmp_path / "a.png", "--overwrite") == 1
    assert "a.png: its output would overwrite it; choose another name" in capsys.readouterr().err
    assert (tmp_path / "a.png").read_bytes() == content


def test_standard_output_is_no_folder(model, tmp_path, capsys):
    write_files(tmp_path / "a.png")
    assert run(inference_command, "-m", model, "-o", "-", tmp_path / "a.png") == 2
    assert "expected a file or folder for the output, got standard output; name a file" in capsys.readouterr().err


def test_output_can_be_one_named_file(model, tmp_path, capsys):
    write_files(tmp_path / "a.png", tmp_path / "b.png")
    out = tmp_path / "new/result.jpg"
    assert run(inference_command, "-m", model, "-o", out, tmp_path / "a.png") == 0
    assert images.read_image(out).file_format == "JPEG"
    assert run(inference_command, "-m", model, "-o", out, tmp_path / "a.png") == 1
    assert "result.jpg: already exists; use --overwrite" in capsys.readouterr().err
    for arguments, message in (
        ([tmp_path / "a.png", tmp_path / "b.png"], "a single input file for this output file, got several inputs"),
        ([tmp_path], "got a folder or pattern"),
        (["--format", "png", tmp_path / "a.png"], "expected a name that ends with .png, got .jpg"),
    ):
        assert run(inference_command, "-m", model, "-o", tmp_path / "r.jpg", *arguments) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "folder.png").mkdir()
    assert run(inference_command, "-m", model, "-o", tmp_path / "folder.png", tmp_path / "a.png") == 0
    assert (tmp_path / "folder.png/a_sr.png").is_file()


def test_impossible_outputs_are_reported_before_the_first_image(model, tmp_path, monkeypatch):
    long = "ü" * 125 + ".png"  # 254 bytes, and three more are needed
    write_files(tmp_path / "a.png", tmp_path / long, tmp_path / "locked/b.png")
    refuse = {tmp_path / "locked": Problem.failure(tmp_path / "locked", "Read-only file system")}
    monkeypatch.setattr(files, "find_folder_problem", refuse.get)
    results = upscale_files(Upscaler.from_file(model, "cpu"), plan_jobs([str(tmp_path)], None)[0])
    monkeypatch.setattr(images, "read_image", lambda *_: pytest.fail("an image was read"))
    errors = [str(next(results).error) for _ in range(2)]
    assert any("locked: Read-only file system" in error for error in errors)
    assert any(
        "no file can have this name of 257 bytes: File name too long; use a shorter name" in error for error in errors
    )
    results.close()


def test_world_files_do_not_fit_a_turned_image(model, tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.jgw").write_text("1 0 0 -1 0 0")
    (result,) = upscale_files(Upscaler.from_file(model, "cpu"), plan_jobs([str(tmp_path / "a.jpg")], None)[0])
    assert result.notes == ("a.jgw is for the image before it was turned upright, not kept",)
    assert not (tmp_path / "a_sr.jgw").exists()


def test_a_link_without_a_target_gets_its_file(model, tmp_path):
    write_files(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("new/deep.png")
    jobs, _ = plan_jobs([str(tmp_path / "a.png")], tmp_path / "b.png")
    (result,) = upscale_files(Upscaler.from_file(model, "cpu"), jobs, FileOptions(overwrite=True))
    assert result.error is None
    assert (tmp_path / "new/deep.png").is_file()
    assert (tmp_path / "b.png").is_symlink()


def test_an_output_that_another_process_has_written_meanwhile_is_skipped(model, tmp_path, monkeypatch):
    write_files(tmp_path / "a.png")
    jobs, _ = plan_jobs([str(tmp_path / "a.png")], tmp_path / "out")
    for options, expected in ((FileOptions(skip_existing=True), None), (FileOptions(), "expected a new file")):

        def write(path, *arguments, original=images.write_image, **settings):
            path.write_bytes(b"of another process")
            return original(path, *arguments, **settings)

        monkeypatch.setattr(images, "write_image", write)
        (result,) = upscale_files(Upscaler.from_file(model, "cpu"), jobs, options)
        monkeypatch.undo()
        assert result.is_skipped is (expected is None)
        assert expected is None or expected in str(result.error)
        assert jobs[0].target.read_bytes() == b"of another process"
        jobs[0].target.unlink()


def test_full_disk_fails_its_file_and_leaves_nothing(model, tmp_path, monkeypatch):
    write_files(tmp_path / "a.png", tmp_path / "b.png")
    write = images.write_image

    def write_or_fail(path, *arguments, **options):
        if path.name == "a_sr.png":
            monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        try:
            return write(path, *arguments, **options)
        finally:
            monkeypatch.setattr(os, "fsync", lambda _: None)

    monkeypatch.setattr(images, "write_image", write_or_fail)
    first, second = upscale_files(Upscaler.from_file(model, "cpu"), plan_jobs([str(tmp_path)], None)[0][:2])
    assert "a_sr.png: cannot be written" in str(first.error)
    assert "No space left" in str(first.error)
    assert second.error is None
    assert sorted(path.name for path in tmp_path.glob("*_sr*")) == ["b_sr.png"]
    assert not [*tmp_path.glob(".esrgan*")]


@pytest.mark.parametrize(
    ("suffix", "free", "fits"),
    [
        ("bmp", 359, False),
        ("bmp", 360, True),
        ("ppm", 359, False),
        ("dds", 359, False),
        ("tif", 359, True),
        ("png", 2, False),
    ],
)
def test_too_little_space_is_reported_before_upscaling(model, tmp_path, monkeypatch, suffix, free, fits):
    """The output has 12 × 10 pixels of three bytes."""
    write_files(tmp_path / "a.png")
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    if not fits:
        monkeypatch.setattr(Upscaler, "__call__", lambda *_: pytest.fail("the image was upscaled"))
    jobs, _ = plan_jobs([str(tmp_path / "a.png")], None, f".{suffix}")
    (result,) = upscale_files(Upscaler.from_file(model, "cpu"), jobs)
    assert (result.error is None) == fits
    assert fits or "too little space: at least 0." in str(result.error)


def test_uncompressed_tiff_needs_space_for_all_samples(model, tmp_path, monkeypatch):
    """Each of two pages becomes one of 12 × 10 pixels of three samples of two bytes."""
    low = images.ImageData((np.ones((5, 6, 3), np.uint16),) * 2, compression="none")
    images.write_image(tmp_path / "a.tif", low)
    for free, fits in ((1439, False), (1440, True)):
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        (result,) = upscale_files(Upscaler.from_file(model, "cpu"), plan_jobs([str(tmp_path / "a.tif")], None)[0])
        assert (result.error is None) == fits


@pytest.mark.parametrize(
    ("suffix", "outscale", "fits"), [("webp", None, False), ("webp", 1, True), ("png", None, True)]
)
def test_size_limit_of_the_format_counts_for_the_final_size(model, tmp_path, monkeypatch, suffix, outscale, fits):
    images.write_image(tmp_path / "a.png", images.ImageData((np.ones((1, 8192, 3), np.uint8),)))
    if not fits:
        monkeypatch.setattr(Upscaler, "__call__", lambda *_: pytest.fail("the image was upscaled"))
    jobs, _ = plan_jobs([str(tmp_path / "a.png")], None, f".{suffix}")
    (result,) = upscale_files(Upscaler.from_file(model, "cpu", outscale=outscale), jobs)
    assert result.error is None if fits else "at most 16383 pixels per side for WEBP, got 16384×2" in str(result.error)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.ppm", "a.bmp", "a.tga"])
def test_inputs_beyond_a_fifth_of_the_memory_are_not_decoded(model, tmp_path, monkeypatch, name):
    """It has 5 × 6 pixels of three bytes."""
    images.write_image(tmp_path / name, images.ImageData((np.arange(90, dtype=np.uint8).reshape(5, 6, 3),)))
    monkeypatch.setattr("esrgan.inference.files.obtainable_memory", lambda: 449)
    (result,) = upscale_files(Upscaler.from_file(model, "cpu"), plan_jobs([str(tmp_path / name)], None)[0])
    assert "expected at most 0.1 kB of pixels, a fifth of the memory that this process can have" in str(result.error)


def test_memory_for_resizing_counts(model, tmp_path, monkeypatch):
    """The input has 90 bytes, the output too, and the network's output of 12 × 10 float pixels is copied once."""
    write_files(tmp_path / "a.png")
    for memory, fits in ((3059, False), (3060, True)):
        monkeypatch.setattr("esrgan.inference.files.obtainable_memory", lambda memory=memory: memory)
        jobs, _ = plan_jobs([str(tmp_path / "a.png")], None)
        (result,) = upscale_files(Upscaler.from_file(model, "cpu", outscale=1), jobs)
        assert (result.error is None) == fits


def test_memory_between_two_models_counts(model, tmp_path, monkeypatch):
    """The input has 90 bytes, the output 1,440, and the first model's output of 12 × 10 float pixels is copied once."""
    write_files(tmp_path / "a.png")
    for memory, fits in ((90 + 1440 + 2880 - 1, False), (90 + 1440 + 2880, True)):
        monkeypatch.setattr("esrgan.inference.files.obtainable_memory", lambda memory=memory: memory)
        jobs, _ = plan_jobs([str(tmp_path / "a.png")], None)
        (result,) = upscale_files(Upscaler.from_file([model, model], "cpu"), jobs)
        assert (result.error is None) == fits


def test_memory_of_the_encoder_counts(model, tmp_path, monkeypatch):
    """The input has 90 bytes, the output 360, and the encoder of WebP needs five times as much."""
    write_files(tmp_path / "a.png")
    for memory, fits in ((90 + 6 * 360 - 1, False), (90 + 6 * 360, True)):
        monkeypatch.setattr("esrgan.inference.files.obtainable_memory", lambda memory=memory: memory)
        jobs, _ = plan_jobs([str(tmp_path / "a.png")], None, ".webp")
        (result,) = upscale_files(Upscaler.from_file(model, "cpu"), jobs)
        assert (result.error is None) == fits


@pytest.mark.parametrize(("limit", "error"), [(359, "its output needs 0.4 kB of memory"), (1000, None)])
def test_memory_limits_refuse_or_serialise_outputs(model, tmp_path, monkeypatch, limit, error):
    """Each output needs 360 bytes. If it is a third of the memory, the next input is read after it was computed."""
    write_files(tmp_path / "a.png", tmp_path / "b.png")
    monkeypatch.setattr("esrgan.inference.files.memory_limit", lambda: limit)
    events = []
    read, upscale, write = images.read_image, Upscaler.__call__, images.write_image

    def note(name, function):
        def call(*arguments, **options):
            result = function(*arguments, **options)
            events.append(name)
            return result

        return call

    monkeypatch.setattr(images, "read_image", note("read", read))
    monkeypatch.setattr(Upscaler, "__call__", note("upscale", upscale))
    monkeypatch.setattr(images, "write_image", note("write", write))
    results = [*upscale_files(Upscaler.from_file(model, "cpu"), plan_jobs([str(tmp_path)], None)[0])]
    assert [result.error and str(result.error).partition(": ")[2].partition(",")[0] for result in results] == [
        error
    ] * 2
    if error is None:
        assert [event for event in events if event != "write"] == ["read", "upscale"] * 2
        assert events.index("write") < len(events) - 1 - events[::-1].index("upscale")
