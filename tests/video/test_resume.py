"""Interruption, resumption and several processes."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import av
import numpy as np
import pytest

from esrgan import Upscaler, load_generator, upscale_video
from esrgan.cli import video as video_command
from esrgan.errors import EsrganError, LostDeviceError, Problem, VideoError
from esrgan.video import VideoJob, VideoOptions, cluster, colour, pipeline, segments, upscale
from esrgan.video.source import Video
from tests.helpers.models import make_model, run
from tests.helpers.video import (
    colours,
    damage,
    interrupt,
    make,
    message,
    pictures,
    read_video,
    video_packets,
    write_video,
)


@pytest.mark.usefixtures("overlap")
def test_an_interrupted_video_continues_and_ends_the_same(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(150), sound=True)
    make(upscaler, source, tmp_path / "whole.mkv")
    target = tmp_path / "b.mkv"
    interrupt(upscaler, source, target, 60)
    assert not target.exists()
    assert [path.name for path in sorted(tmp_path.glob("b.mkv.parts/*.mkv"))] == ["000000.mkv"]
    interrupt(upscaler, source, target, 1)
    first, *_, last = make(upscaler, source, target)
    assert (first.frames, last.computed) == (48, 102)  # the first one is what there was
    assert video_packets(target) == video_packets(tmp_path / "whole.mkv")
    assert read_video(target, "audio") == read_video(source, "audio")


def test_a_video_with_repeated_times_continues_and_ends_the_same(upscaler, tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(120), codec="ffv1", pixel_format="bgr0")
    with av.open(str(path)) as video, av.open(str(tmp_path / "b.mkv"), "w") as copy:
        stream = copy.add_stream_from_template(video.streams.video[0], opaque=True)
        for number, packet in enumerate(each for each in video.demux(video=0) if each.size):
            packet.pts = packet.dts = 40 * (number // 2)
            packet.stream = stream
            copy.mux(packet)
    make(upscaler, tmp_path / "b.mkv", tmp_path / "whole.mkv")
    interrupt(upscaler, tmp_path / "b.mkv", tmp_path / "c.mkv", 49)
    job = VideoJob(upscaler, tmp_path / "b.mkv", tmp_path / "c.mkv", VideoOptions())
    list(job.upscale())
    assert job.assemble() == ["60 frames with repeated or decreasing times skipped"]
    assert video_packets(tmp_path / "c.mkv") == video_packets(tmp_path / "whole.mkv")


def test_a_finished_or_abandoned_video_is_closed(upscaler, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(Video, "close", lambda video: closed.append(video.container.close()))
    source = write_video(tmp_path / "a.mkv", pictures(3))
    interrupt(upscaler, source, tmp_path / "b.mkv", 1)
    make(upscaler, source, tmp_path / "b.mkv")
    assert len(closed) == 2


def test_another_model_or_other_options_do_not_continue(upscaler, tmp_path):
    source, target = write_video(tmp_path / "a.mkv", pictures(50)), tmp_path / "b.mkv"
    interrupt(upscaler, source, target, 49)
    other = Upscaler.from_file(make_model(tmp_path / "other.pth", seed=1), "cpu")
    for used, options, named in (
        (other, {}, "another model;"),
        (upscaler, {"crf": 30}, r"another options \(crf None, now 30\), another encoding; to begin again, delete"),
    ):
        with pytest.raises(VideoError, match=named):
            make(used, source, target, **options)
    assert len(list(tmp_path.glob("b.mkv.parts/*.mkv"))) == 1
    make(upscaler, source, target)


def test_a_video_that_cannot_be_entered_in_the_middle_is_decoded_from_its_beginning(upscaler, tmp_path, monkeypatch):
    source, target = write_video(tmp_path / "a.mkv", pictures(60)), tmp_path / "b.mkv"
    make(upscaler, source, tmp_path / "whole.mkv")
    interrupt(upscaler, source, target, 50)
    path = tmp_path / "b.mkv.parts" / "000000.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"last_digest": "other"}))
    *_, last = make(upscaler, source, target)
    assert last.computed == 12
    assert video_packets(target) == video_packets(tmp_path / "whole.mkv")


def test_a_video_is_entered_only_where_the_same_frame_is_found_again(tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(60), options={"g": "25", "sc_threshold": "0"})
    shots = list(Video(source).shots())
    video = Video(source)
    assert video.skip_to(shots[40].time, shots[40].digest())
    assert [shot.time for shot in video.shots()] == [shot.time for shot in shots[41:]]
    assert not video.skip_to(shots[40].time, shots[39].digest())
    assert [shot.time for shot in video.shots()] == [shot.time for shot in shots]


def test_a_damaged_segment_is_made_again(upscaler, tmp_path):
    source, target = write_video(tmp_path / "a.mkv", pictures(100)), tmp_path / "b.mkv"
    make(upscaler, source, tmp_path / "whole.mkv")
    interrupt(upscaler, source, target, 97)
    (tmp_path / "b.mkv.parts" / "000000.mkv").write_bytes(b"")
    (tmp_path / "b.mkv.parts" / "000001.json").write_bytes(b"")
    *_, last = make(upscaler, source, target)
    assert last.computed == 100
    assert video_packets(target) == video_packets(tmp_path / "whole.mkv")


@pytest.mark.slow
def test_a_killed_process_loses_at_most_a_segment(model, upscaler, tmp_path):
    source, target = write_video(tmp_path / "a.mkv", pictures(200)), tmp_path / "b.mkv"
    make(upscaler, source, tmp_path / "whole.mkv")
    command = [sys.executable, "-m", "esrgan", "video", str(source), "-m", str(model), "-o", str(target)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for kills in range(6):
        done = len([*tmp_path.glob("b.mkv.parts/0*.json")])
        process = subprocess.Popen([*command, "--device", "cpu"], env=environment, stdout=subprocess.DEVNULL)
        while len([*tmp_path.glob("b.mkv.parts/0*.json")]) == done and process.poll() is None:
            time.sleep(0.02)
        time.sleep(kills / 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert target.exists()
    assert video_packets(target) == video_packets(tmp_path / "whole.mkv")


@pytest.mark.usefixtures("overlap")
def test_processes_share_a_video(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(150))
    make(upscaler, source, tmp_path / "whole.mkv")
    jobs = [VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions()) for _ in range(2)]
    assert [list(job.upscale(i, 2))[-1].computed for i, job in enumerate(jobs)] == [96, 54]
    jobs[0].assemble()
    assert video_packets(tmp_path / "b.mkv") == video_packets(tmp_path / "whole.mkv")


@pytest.mark.slow
def test_a_ray_cluster_makes_the_same_video(model, upscaler, tmp_path, capsys):
    pytest.importorskip("ray")
    source = write_video(tmp_path / "a.mkv", pictures(150), sound=True)
    make(upscaler, source, tmp_path / "whole.mkv")
    assert run(video_command, source, "-m", model, "-o", tmp_path / "b.mkv", "--device", "cpu", "--workers", 2) == 0
    assert "up to 2 workers on CPU" in capsys.readouterr().out
    assert video_packets(tmp_path / "b.mkv") == video_packets(tmp_path / "whole.mkv")
    assert run(video_command, tmp_path / "none.mkv", "-m", model, "--workers", 2) == 2


@pytest.fixture
def upscale_share(model, tmp_path, monkeypatch):
    """Run the task of the only worker of a cluster; return what it returns, and how often videos were closed."""
    closed, close = [], Video.close
    monkeypatch.setattr(Video, "close", lambda video: closed.append(close(video)))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_gpu_ids=list))
    source = write_video(tmp_path / "a.mkv", pictures(3))

    def run_task():
        files = [load_generator(model)]
        answer = cluster._upscale_share(files, "fp32", {}, source, tmp_path / "b.mkv", VideoOptions(), 0, 1)
        return answer, len(closed)

    return run_task


def test_a_worker_closes_its_video(upscale_share, tmp_path):
    assert upscale_share() == (None, 1)
    assert (tmp_path / "b.mkv.parts/000000.json").exists()


LOST = LostDeviceError(Problem.failure("cuda", "the GPU failed", "start the program again"))


def test_a_worker_returns_that_its_gpu_is_lost(upscale_share, monkeypatch):
    monkeypatch.setattr(pipeline.FrameUpscaler, "__call__", mock.Mock(side_effect=LOST))
    assert upscale_share() == (LOST, 1)


class CrashError(KeyError):
    """Stands for Ray's error after the process of a task has crashed several times."""


@pytest.fixture
def run_share(upscaler, tmp_path, monkeypatch):
    """Run the only share of a cluster with the given answers of its tasks, all of which must be needed.

    Each answer comes with the number of segments that are complete by then.
    """
    source = write_video(tmp_path / "a.mkv", pictures(3))

    def run_answers(*answers):
        tasks, complete = iter(answers), {}

        def remote(*, max_calls, max_retries, **_):
            assert max_calls == 1  # no other call can use the GPU of the same process
            assert 0 < max_retries < 10  # a segment that makes processes crash ends the work
            return lambda _: start

        def wait(waiting, timeout):
            complete.update(dict.fromkeys(range(waiting[0][0]), SimpleNamespace(times=[0])))
            return waiting, []

        def get(task):
            if isinstance(task[1], CrashError):
                raise task[1]
            return task[1]

        start = mock.Mock(**{"remote.side_effect": lambda *_: next(tasks)})
        exceptions = SimpleNamespace(RayError=KeyError, WorkerCrashedError=CrashError, NodeDiedError=CrashError)
        ray = SimpleNamespace(remote=remote, put=lambda value: value, wait=wait, get=get, exceptions=exceptions)
        monkeypatch.setitem(sys.modules, "ray", ray)
        with VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions()) as job:
            monkeypatch.setattr(job.folder, "find_segments", complete.copy)
            try:
                list(cluster.upscale_on_cluster(job, [], "fp32", {}, 1, 1))
            finally:
                assert next(tasks, None) is None

    return run_answers


@pytest.mark.parametrize("last", [LOST, EsrganError("a"), None])
def test_a_share_is_repeated_if_a_gpu_is_lost_but_not_for_ever(run_share, last):
    with nullcontext() if last is None else pytest.raises(EsrganError, match=f"^{last}$"):
        run_share((0, LOST), (0, LOST), (0, last))


def test_a_share_is_repeated_after_crashes_only_if_it_has_made_progress(run_share):
    run_share((1, CrashError()), (3, CrashError()), (3, None))
    with pytest.raises(
        VideoError, match=r"a\.mkv: 4 processes .* before frames 145 to 192 of the output were complete"
    ):
        run_share((1, CrashError()), (3, CrashError()), (3, CrashError()))


def test_ctrl_c_while_a_file_is_written_is_not_lost():
    """PyAV does not pass the KeyboardInterrupt on; it would continue, and the bytes of that write would be missing."""
    file = mock.Mock(**{"write.side_effect": [2, KeyboardInterrupt, 2]})
    with pytest.raises(KeyboardInterrupt), segments.OutputFile(file) as output:
        assert [output.write(b"12") for _ in range(3)] == [2, 2, 2]
    assert file.write.call_count == 2


def test_the_folder_of_segments_is_removed_from_nfs(tmp_path, monkeypatch):
    """It keeps open files under other names."""
    folder = segments.SegmentFolder(tmp_path / "a.mkv", {"a": 1})
    unlink, lock = Path.unlink, folder.lock

    @contextmanager
    def lock_on_nfs(number):
        with lock(number):
            yield
        for path in folder.path.glob(".nfs*"):
            unlink(path)

    def unlink_on_nfs(path, **options):
        if path.name == "lock0":
            path.rename(path.with_name(".nfs01"))
            assert folder._files() == []  # another process does not take it for a folder with other files
        else:
            unlink(path, **options)

    monkeypatch.setattr(folder, "lock", lock_on_nfs)
    monkeypatch.setattr(Path, "unlink", unlink_on_nfs)
    with folder.finish():
        folder.check_job()
    assert not folder.path.exists()


def test_a_second_process_is_refused(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(3))
    first, second = (VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions()) for _ in range(2))
    work = first.upscale()
    next(work)
    with pytest.raises(EsrganError, match="another process works on this video"):
        next(second.upscale())
    work.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows does not delete open files")
def test_no_other_process_can_begin_while_the_folder_is_removed(tmp_path, monkeypatch):
    folder, other = (segments.SegmentFolder(tmp_path / "a.mkv", {"a": 1}) for _ in range(2))
    remove, refused = folder._remove_if_empty, []

    def begin_other():
        with pytest.raises(EsrganError, match="another process works on this video"), other.lock(0):
            pass
        refused.append(True)
        remove()

    monkeypatch.setattr(folder, "_remove_if_empty", begin_other)
    with folder.finish():
        folder.check_job()
    assert refused
    assert not folder.path.exists()


@pytest.mark.usefixtures("overlap")
def test_a_full_disk_loses_nothing(upscaler, tmp_path, monkeypatch):
    source, target = write_video(tmp_path / "a.mkv", pictures(60)), tmp_path / "b.mkv"
    make(upscaler, source, tmp_path / "whole.mkv")
    original = segments.files.atomic_write

    def full(path, **options):
        if path.name.startswith("000001"):
            raise OSError(28, "No space left on device")
        return original(path, **options)

    monkeypatch.setattr(segments.files, "atomic_write", full)
    text = message(upscaler, source, target)
    assert (
        "No space left on device; check the folder and its free disk space, and run the same command to resume" in text
    )
    monkeypatch.undo()
    *_, last = make(upscaler, source, target)
    assert last.computed == 12
    assert video_packets(target) == video_packets(tmp_path / "whole.mkv")


@pytest.mark.parametrize("first", ["write", "seek"])
def test_only_the_first_error_of_a_full_disk_is_raised(first):
    """PyAV prints others, with a traceback."""

    class Full(io.BytesIO):
        def write(self, *_):
            raise OSError(28, "No space left on device")

        seek = write

    output = segments.OutputFile(Full())
    with pytest.raises(OSError, match="No space left"):
        getattr(output, first)(b"12" if first == "write" else 0)
    assert output.write(b"12") == 2
    assert output.seek(0) is None


def test_a_segment_that_cannot_be_written_is_one_error(upscaler, tmp_path, capfd):
    class Full(io.BytesIO):  # fails as buffered files do, which write before they move
        refused = 0

        def write(self, data):
            if self.refused or self.tell() + len(data) > 1000:
                self.refused += 1
                raise OSError(28, "No space left on device")
            return super().write(data)

        def seek(self, *place):
            return super().seek(*place) if not self.refused else self.write(b"")

    source, file = write_video(tmp_path / "a.mkv", pictures(3)), Full()
    with VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions(codec="ffv1")) as job:
        encoding = job.encoding
        writer = segments.SegmentWriter(file, encoding)
        for low in job.video.shots():
            noise = np.random.default_rng(low.time).integers(0, 256, (encoding.height, encoding.width, 3), np.uint8)
            writer.add(low, colour.to_frame(noise, encoding.pixel_format, encoding.coding))
        with pytest.raises(OSError, match="No space left"):
            writer.finish()
    assert file.refused == 1
    assert capfd.readouterr().err == ""


def test_steady_videos_can_be_interrupted_too(upscaler, tmp_path):
    frames = pictures(2)[[0] * 60].copy()
    frames[::2] += 1
    source = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="bgr0")
    make(upscaler, source, tmp_path / "whole.mkv", steady=2.0)
    work = upscale_video(upscaler, source, tmp_path / "b.mkv", VideoOptions(steady=2.0))
    for _ in range(50):
        next(work)
    work.close()
    make(upscaler, source, tmp_path / "b.mkv", steady=2.0)
    np.testing.assert_array_equal(colours(tmp_path / "b.mkv"), colours(tmp_path / "whole.mkv"))
    assert (np.diff(colours(tmp_path / "b.mkv").astype(int), axis=0) != 0).any(axis=(1, 2, 3)).nonzero()[
        0
    ].tolist() == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_not_a_folder_of_segments_is_left_alone(upscaler, tmp_path, kind):
    source, place = write_video(tmp_path / "a.mkv", pictures(2)), tmp_path / "b.mkv.parts"
    if kind == "folder":
        place.mkdir()
    mine = place / "mine.txt" if kind == "folder" else place
    mine.write_text("precious")
    assert "move it away, or choose another -o" in message(upscaler, source, tmp_path / "b.mkv")
    assert mine.read_text() == "precious"


def test_files_of_file_managers_are_no_other_files(upscaler, tmp_path):
    place = tmp_path / "b.mkv.parts"
    place.mkdir()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (place / name).touch()
    make(upscaler, write_video(tmp_path / "a.mkv", pictures(2)), tmp_path / "b.mkv")
    assert not place.exists()


def test_segments_are_removed_where_open_files_cannot_be_deleted(upscaler, tmp_path, monkeypatch):
    """On Windows; the lock is the only open file."""
    opened, unlink, lock = [], Path.unlink, segments.lock

    def unlink_closed(path, **options):
        if any(file.name == str(path) and not file.closed for file in opened):
            raise PermissionError(13, "It is being used by another process", str(path))
        unlink(path, **options)

    def note(path, busy):
        opened.append(lock(path, busy))
        return opened[-1]

    monkeypatch.setattr(Path, "unlink", unlink_closed)
    monkeypatch.setattr(segments, "lock", note)
    monkeypatch.setattr(segments, "_IS_WINDOWS", True)
    make(upscaler, write_video(tmp_path / "a.mkv", pictures(2)), tmp_path / "b.mkv")
    assert opened
    assert not (tmp_path / "b.mkv.parts").exists()


def test_damage_before_an_interruption_is_reported_at_the_end(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(segments.FRAMES + 2), options={"g": "1"})
    damage(source)
    first = VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions())
    list(itertools.islice(first.upscale(), segments.FRAMES + 1))
    first.video.close()
    job = VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions())
    list(job.upscale())
    assert job.assemble() == ["1 frame is damaged; what could be decoded of it was upscaled"]


def test_segments_without_their_video_are_made_again(upscaler, tmp_path):
    job = VideoJob(upscaler, write_video(tmp_path / "a.mkv", pictures(3)), tmp_path / "b.mkv", VideoOptions())
    list(job.upscale())
    job.folder.video_path(0).unlink()
    assert job.folder.find_segments() == {}


@pytest.mark.usefixtures("overlap")
def test_damage_belongs_to_the_segment_of_its_frame(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(segments.FRAMES + 4), options={"g": "1"})
    damage(source, segments.FRAMES + 1)  # decoded ahead, while the segment before is made
    job = VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions())
    list(job.upscale())
    assert [segment.errors for segment in job.folder.find_segments().values()] == [{}, {"frames": 1}]


def test_an_interrupted_deinterlacing_is_resumed(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(segments.FRAMES + 4))
    options = VideoOptions(deinterlace=True)
    make(upscaler, source, tmp_path / "whole.mkv", deinterlace=True)
    first = VideoJob(upscaler, source, tmp_path / "b.mkv", options)
    list(itertools.islice(first.upscale(), segments.FRAMES + 1))
    first.video.close()
    job = VideoJob(upscaler, source, tmp_path / "b.mkv", options)
    list(job.upscale())
    assert job.assemble() == []
    assert read_video(tmp_path / "b.mkv") == read_video(tmp_path / "whole.mkv")


def test_a_complete_folder_of_segments_counts_its_frames(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(3))
    list(VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions()).upscale())
    again = VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions())
    assert [progress.frames for progress in again.upscale()] == [3]


def test_a_video_that_was_replaced_by_one_of_the_same_size_does_not_continue(upscaler, tmp_path, monkeypatch):
    monkeypatch.setattr(upscale, "_SAMPLE", 100)
    path, target = write_video(tmp_path / "a.mkv", pictures(50), codec="ffv1"), tmp_path / "b.mkv"
    interrupt(upscaler, path, target, 49)
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 1000] = bytes(1000)
    path.write_bytes(content)
    assert "segments of another video" in message(upscaler, path, target)
