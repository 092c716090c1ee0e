"""The command: messages, exit codes, outputs and pipes."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from esrgan import Upscaler
from esrgan.cli import inference as inference_command
from esrgan.cli import video as video_command
from esrgan.video import VideoJob, VideoOptions, colour, pipe_video, piping, upscale
from esrgan.video.options import encode_for
from esrgan.video.source import Video
from tests.helpers.models import run
from tests.helpers.video import (
    MS,
    damage,
    make,
    message,
    pictures,
    read_frames,
    run_pipe,
    write_video,
)


def test_a_video_is_never_overwritten_unasked(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(2))
    (tmp_path / "b.mkv").write_bytes(b"precious")
    assert "got a file" in message(upscaler, source, tmp_path / "b.mkv")
    assert (tmp_path / "b.mkv").read_bytes() == b"precious"
    (tmp_path / "link.mkv").symlink_to("gone.mkv")
    assert "got a file" in message(upscaler, source, tmp_path / "link.mkv")
    assert not (tmp_path / "link.mkv.parts").exists()  # known before the work
    make(upscaler, source, tmp_path / "b.mkv", overwrite=True)
    assert len(read_frames(tmp_path / "b.mkv")) == 2


def test_the_command_names_the_model_and_the_output(tmp_path, capsys):
    source = write_video(tmp_path / "a.mp4", pictures(3), sound=True)
    assert run(video_command, source, "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert "realesr-animevideov3" in out
    assert "made for drawings; -m esrgan-photo suits filmed material" in out
    assert f"{tmp_path / 'a_sr.mp4'} written: 3 frames" in out
    assert read_frames(tmp_path / "a_sr.mp4")[0].width == 96


def test_frames_of_all_processes_are_counted(model, upscaler, tmp_path, capsys, monkeypatch):
    source = write_video(tmp_path / "a.mkv", pictures(50))
    target = tmp_path / "b.mkv"
    with VideoJob(upscaler, source, target, VideoOptions()) as job:
        assert [state.frames for state in job.upscale(1, 2)][-1] == 50
    monkeypatch.setattr("esrgan.rendezvous.count_processes", lambda: (0, 2))
    monkeypatch.setattr(video_command, "wait_for_all_processes", lambda *_: nullcontext())
    assert run(video_command, source, "-m", model, "-o", target, "--device", "cpu") == 0
    assert f"{target} written: 50 frames" in capsys.readouterr().out


def test_connecting_does_not_count_as_time_of_upscaling(model, tmp_path, monkeypatch):
    connected, begins = [], []

    @contextmanager
    def connect(*_):
        connected.append(time.perf_counter())
        yield

    monkeypatch.setattr(video_command, "wait_for_all_processes", connect)
    monkeypatch.setattr(video_command._Shown, "show", lambda shown, _: begins.append(shown.begin))
    source = write_video(tmp_path / "a.mkv", pictures(1))
    assert run(video_command, source, "-m", model, "--device", "cpu") == 0
    assert begins > connected


def test_inference_says_which_command_upscales_videos(tmp_path, capsys):
    source = write_video(tmp_path / "a.mp4", pictures(3))
    assert run(inference_command, source) != 0
    assert "`esrgan video` upscales videos" in capsys.readouterr().err


def test_pipes(model, upscaler, tmp_path):
    source = write_video(tmp_path / "a.y4m", pictures(4), codec="wrapped_avframe", container_format="yuv4mpegpipe")
    cut = VideoOptions(start=0.04, end=0.12)
    assert [each.total for each in pipe_video(upscaler, Video(source), io.BytesIO(), cut)] == [2, 2]
    command = [sys.executable, "-m", "esrgan", "video", "-", "-o", "-", "-m", str(model), "--device", "cpu"]
    done = subprocess.run(command, input=source.read_bytes(), capture_output=True, check=True)
    assert b"frames" in done.stderr or b"RRDBNet" in done.stderr
    with av.open(io.BytesIO(done.stdout)) as video:
        found = list(video.decode(video=0))
        assert video.streams.video[0].average_rate == 25
    assert (len(found), found[0].width, found[0].format.name) == (4, 48, "yuv420p")
    low = read_frames(source)[2]
    coding = colour.coding_of(low)
    expected = colour.to_frame(upscaler(colour.to_pixels(low, coding)), "yuv420p", coding)
    np.testing.assert_array_equal(colour.to_pixels(found[2], coding), colour.to_pixels(expected, coding))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_pipe_into_a_full_disk_ends_with_a_message(model, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(3))
    with open("/dev/full", "wb") as full:  # noqa: PTH123  a device
        command = [sys.executable, "-m", "esrgan", "video", str(source), "-o", "-", "-m", str(model)]
        done = subprocess.run([*command, "--device", "cpu"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("\nerror: standard output: cannot be written: No space left on device\n")
    assert "Traceback" not in done.stderr


def test_errors_of_other_files_are_not_taken_for_those_of_the_pipe(model, tmp_path, monkeypatch, capfd):
    def fail(*_):
        raise av.error.PermissionError(13, "Permission denied", "a.mkv")

    source = write_video(tmp_path / "a.mkv", pictures(3))
    monkeypatch.setattr(piping, "note_missing_parts", fail)
    with pytest.raises(PermissionError):
        run(video_command, source, "-o", "-", "-m", model, "--device", "cpu")


def test_a_failing_disk_with_the_video_is_named(upscaler, tmp_path, monkeypatch):
    class FailingHash:
        def update(self, data):
            raise OSError(errno.EIO, os.strerror(errno.EIO))  # as reading does, without the name of the file

    source = write_video(tmp_path / "a.mkv", pictures(2))
    monkeypatch.setattr(upscale.hashlib, "sha256", FailingHash)
    expected = f"{source}: cannot be read: Input/output error; check the disk that it is on"
    assert message(upscaler, source, tmp_path / "b.mkv") == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steady", -1),
        ("steady", 256),
        ("steady", float("nan")),
        ("steady", "2"),
        ("start", float("nan")),
        ("end", float("inf")),
    ],
)
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a number from 0.*, got {value!r}"):
        VideoOptions(**{name: value})


def test_the_command_names_its_options_if_the_end_is_not_after_the_start(tmp_path, capsys):
    assert run(video_command, tmp_path / "a.mkv", "--start", "5", "--end", "5") == 2
    assert capsys.readouterr().err == "error: --end: expected a time after --start; check both\n"


@pytest.mark.parametrize("end", [3, 5])
def test_an_end_that_is_not_after_the_start_is_refused(end):
    with pytest.raises(ValueError, match=f"end: expected a time after start 5.0, got {end}.0"):
        VideoOptions(start=Fraction(5), end=Fraction(end))


def test_names_that_leave_no_room_for_the_segments_are_refused(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(2))
    for length in (250, 256):
        target = tmp_path / f"{'b' * (length - 4)}.mkv"
        assert "no file can have this name" in message(upscaler, source, target)


def test_a_pipe_states_the_rate_and_what_is_missing(model, tmp_path):
    times = [0, 40, 80, 1000]
    source = write_video(tmp_path / "a.mkv", pictures(4), times=times, time_base=MS)
    done = run_pipe(source, model)
    with av.open(io.BytesIO(done.stdout)) as video:
        assert video.streams.video[0].average_rate == video.streams.video[0].base_rate
        assert len(list(video.decode(video=0))) == 4
    assert b"at varying intervals" in done.stderr
    even = write_video(tmp_path / "b.mkv", pictures(4), times=[0, 40, 80, 120], time_base=MS)
    done = run_pipe(even, model)
    assert (done.returncode, done.stdout[:28]) == (0, b"YUV4MPEG2 W48 H32 F25:1 Ip A")
    assert b"leave out --codec" in run_pipe(even, model, "--codec", "h264").stderr


def test_a_closed_pipe_ends_the_work_quietly(model, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(60))
    command = f"{sys.executable} -m esrgan video {source} -o - -m {model} --device cpu | head -c 1000 > /dev/null"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_concealed_damage_is_a_warning_and_code_1(model, tmp_path, capsys):
    source = write_video(tmp_path / "a.mkv", pictures(3), options={"g": "1"})
    damage(source)
    assert run(video_command, source, "-m", model, "--device", "cpu") == 1
    assert "1 frame is damaged; what could be decoded of it was upscaled" in capsys.readouterr().err


def test_a_truncated_video_ends_with_a_warning_and_code_1(model, tmp_path, capsys):
    source = write_video(tmp_path / "a.mkv", pictures(60), options={"g": "5"})
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert run(video_command, source, "-m", model, "--device", "cpu") == 1
    assert "the video ends early: at 0:00:0" in capsys.readouterr().err


@pytest.mark.parametrize(("width", "matrix"), [(128, 6), (1280, 1)])
def test_a_pipe_has_the_matrix_that_players_assume_for_its_size(model, tmp_path, width, matrix):
    path = write_video(tmp_path / "a.mkv", pictures(1, (32, 64)), properties={"colorspace": 6})
    upscaler = Upscaler.from_file(model, "cpu", width=width)
    assert encode_for(upscaler, Video(path), None, VideoOptions()).coding.matrix == matrix


@pytest.mark.parametrize("name", ["b.avi", "b", "a.mkv"])
def test_outputs_that_cannot_be_written_are_refused(upscaler, tmp_path, name):
    path = write_video(tmp_path / "a.mkv", pictures(1))
    content = path.read_bytes()
    text = message(upscaler, path, tmp_path / name, overwrite=True)
    assert "is the video itself" in text or "expected a file that ends with .mkv, .mp4" in text
    assert path.read_bytes() == content


def test_what_is_lost_is_logged(upscaler, tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", pictures(3), options={"g": "1"}, subtitles=True)
    damage(path)
    lines = {"info": [], "warning": []}
    for level, found in lines.items():
        monkeypatch.setattr(upscale.log, level, lambda text, *values, found=found: found.append(text % values))
    make(upscaler, path, tmp_path / "b.webm")
    assert [line.partition("b.webm: stream 1 ")[2][:29] for line in lines["info"]] == ["(subtitle, srt, deu) not kept"]
    assert lines["warning"] == [f"{path}: 1 frame is damaged; what could be decoded of it was upscaled"]


def test_a_pipe_states_the_pixel_aspect_and_names_what_is_lost(model, tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(2), aspect=Fraction(16, 11), rotation=90)
    done = run_pipe(path, model)
    assert done.stdout.startswith(b"YUV4MPEG2 W48 H32 F25:1 Ip A16:11 ")
    assert b"the rotation is not kept" in done.stderr
    with av.open(io.BytesIO(done.stdout)) as video:
        assert len(list(video.decode(video=0))) == 2
    path = write_video(tmp_path / "a.mov", pictures(2, channels=4), codec="png", pixel_format="rgba")
    assert b"transparency not kept" in run_pipe(path, model).stderr
