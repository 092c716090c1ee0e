"""Videos: what is copied, what is exact, and what survives."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame

from esrgan import Upscaler, upscale_video
from esrgan.cli import inference as inference_command
from esrgan.cli import video as video_command
from esrgan.errors import EsrganError, VideoError
from esrgan.video import VideoJob, VideoOptions, colour, encoding, muxing, opening, pipeline, segments, upscale
from esrgan.video.decoding import _Deinterlacer
from esrgan.video.source import Video
from tests.helpers.models import make_model, run
from tests.helpers.video import pictures, read_frames, read_video, to_frame, write_video

MS = Fraction(1, 1000)


@pytest.fixture(params=[False, True], ids=["one_after_the_other", "overlapping"])
def overlap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a test as on a CPU and, with threads for decoding and encoding, as on a GPU."""
    monkeypatch.setattr(pipeline, "overlaps", lambda _: request.param)
    return request.param


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model.pth")  # ×2


@pytest.fixture
def upscaler(model: Path) -> Upscaler:
    return Upscaler.from_file(model, "cpu")


def make(upscaler: Upscaler, source: Path, target: Path, **options) -> list[upscale.VideoProgress]:
    return list(upscale_video(upscaler, source, target, VideoOptions(**options)))


def video_packets(path: Path) -> list[tuple]:
    with av.open(str(path)) as video:
        return [(p.pts, p.dts, p.duration, bytes(p)) for p in video.demux(video.streams.video[0]) if p.size]


def colours(path: Path) -> np.ndarray:
    """Return the frames (N, H, W, C) of an RGB video."""
    return np.stack([colour.to_pixels(frame, colour.coding_of(frame)) for frame in read_frames(path)])


# What is kept


def test_everything_else_in_a_video_is_copied(upscaler, tmp_path):
    times = [0, 40, 90, 100, 180, *range(200, 2660, 41)]
    source = write_video(
        tmp_path / "a.mkv",
        pictures(len(times)),
        times=times,
        time_base=MS,
        sound=True,
        subtitles=True,
        chapters=True,
        rotation=90,
        aspect=Fraction(16, 11),
        metadata={"title": "Ä"},
        properties={"colorspace": 1, "color_range": 1, "color_primaries": 9, "color_trc": 16},
    )
    with av.open(str(source), "r") as video:
        before = video.chapters()
    *_, last = make(upscaler, source, tmp_path / "b.mkv")
    assert last == upscale.VideoProgress(len(times), len(times), 0, last.total)
    for kind in ("audio", "subtitle"):
        assert read_video(tmp_path / "b.mkv", kind) == read_video(source, kind) != []
    assert [time for time, _ in read_video(tmp_path / "b.mkv")] == [time * MS for time in times]
    with av.open(str(tmp_path / "b.mkv")) as video:
        assert video.metadata["title"] == "Ä"
        assert video.chapters() == before != []
        stream, audio, text = video.streams
        assert (audio.language, text.language) == ("fra", "deu")
        assert stream.sample_aspect_ratio == Fraction(16, 11)
        frame = next(video.decode(stream))
    assert (frame.width, frame.height, frame.rotation, frame.format.name) == (48, 32, 90, "yuv420p")
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 9, 16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "b.mkv", "model.pth"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_times_and_sound_stay_exact_in_other_containers(upscaler, tmp_path, suffix):
    times = [512 * i + (i % 3) * 40 for i in range(60)]
    clock = Fraction(1, 12_800)
    source = write_video(tmp_path / f"a{suffix}", pictures(60), times=times, time_base=clock, sound=True)
    make(upscaler, source, tmp_path / f"b{suffix}")
    for kind in ("video", "audio"):
        old, new = (read_video(tmp_path / f"{name}{suffix}", kind) for name in "ab")
        assert [when for when, _ in new] == [when for when, _ in old]
        assert kind == "video" or new == old


def test_attachments_and_pictures_are_copied(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(3))
    with av.open(str(source)) as video, av.open(str(tmp_path / "b.mkv"), "w") as copy:
        stream = copy.add_stream_from_template(video.streams.video[0], opaque=True)
        copy.add_attachment("font.ttf", "font/ttf", b"a font")
        for packet in video.demux():
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    make(upscaler, tmp_path / "b.mkv", tmp_path / "c.mkv")
    with av.open(str(tmp_path / "c.mkv")) as video:
        assert [(each.type, getattr(each, "data", None)) for each in video.streams][1] == ("attachment", b"a font")


def test_a_cover_picture_is_copied(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mp4", pictures(3), sound=True)
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 8, 8, "rgb24", Fraction(1)
    (picture,) = encoder.encode(to_frame(np.zeros((8, 8, 3), np.uint8), "rgb24")) + encoder.encode(None)
    data = bytes(picture)
    with av.open(str(source)) as video, av.open(str(tmp_path / "b.mp4"), "w") as copy:
        streams = {each.index: copy.add_stream_from_template(each, opaque=True) for each in video.streams}
        cover = copy.add_mux_stream("png", width=8, height=8)
        cover.time_base, cover.disposition = Fraction(1), av.stream.Disposition.attached_pic
        picture.pts = picture.dts = 0
        picture.stream = cover
        packets = [packet for packet in video.demux() if packet.size]
        for packet in packets:
            packet.stream = streams[packet.stream.index]
        for packet in (packets[0], picture, *packets[1:]):
            copy.mux(packet)
    make(upscaler, tmp_path / "b.mp4", tmp_path / "c.mp4")
    with av.open(str(tmp_path / "c.mp4")) as video:
        assert [each.disposition & av.stream.Disposition.attached_pic for each in video.streams] == [0, 0, 1024]
        assert [bytes(packet) for packet in video.demux(video.streams[2]) if packet.size] == [data]
    assert read_video(tmp_path / "c.mp4", "audio") == read_video(source, "audio")


def test_a_video_that_begins_late_is_complete(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(20), times=[5000 + 40 * i for i in range(20)], time_base=MS)
    job = VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions())
    assert job.num_frames == 20
    list(job.upscale())
    assert job.assemble() == []
    assert [when for when, _ in read_video(tmp_path / "b.mkv")] == [5 + 40 * i * MS for i in range(20)]


def test_what_a_container_cannot_hold_is_named_before_the_work(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(3), subtitles=True)
    job = VideoJob(upscaler, source, tmp_path / "b.webm", VideoOptions())
    (note,) = job.notes()
    assert note.startswith("stream 1 (subtitle, srt, deu) not kept, because .webm cannot hold it; -o FILE.mkv")
    assert job.encoding.codec == "libvpx-vp9"


def test_a_part_of_a_video_has_its_part_of_the_sound(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(25), time_base=MS, times=[40 * i for i in range(25)], sound=True)
    make(upscaler, source, tmp_path / "b.mkv", start=Fraction("0.3"), end=Fraction("0.61"))
    assert [when for when, _ in read_video(tmp_path / "b.mkv")] == [40 * i * MS for i in range(8)]  # 320 to 600 ms
    sound, whole = (dict(read_video(tmp_path / f"{name}.mkv", "audio")) for name in "ba")
    assert sound == {
        when - 320 * MS: data for when, data in whole.items() if when + 21 * MS > 320 * MS and when < 610 * MS
    }


# Colours


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "gray", "yuv444p"])
@pytest.mark.parametrize("full_range", [False, True])
def test_a_lossless_codec_holds_what_upscaling_makes_of_each_frame(upscaler, tmp_path, pixel_format, full_range):
    properties = {"colorspace": 1, "color_range": 2 if full_range else 1}
    source = write_video(
        tmp_path / "a.mkv", pictures(3), codec="ffv1", pixel_format=pixel_format, properties=properties
    )
    make(upscaler, source, tmp_path / "b.mkv")
    for low, high in zip(read_frames(source), read_frames(tmp_path / "b.mkv"), strict=True):
        expected = upscaler(colour.to_pixels(low, colour.coding_of(low)))
        np.testing.assert_array_equal(colour.to_pixels(high, colour.coding_of(high)), expected)


def test_bits_and_chroma_resolution_are_kept(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(2), codec="ffv1", pixel_format="yuv422p10le")
    make(upscaler, source, tmp_path / "b.mkv", codec="h264")
    assert read_frames(tmp_path / "b.mkv")[0].format.name == "yuv422p10le"


@pytest.mark.parametrize(
    ("codec", "pixel_format", "suffix", "other"),
    [
        ("libvpx-vp9", "yuva420p", ".webm", ".webm"),
        ("libvpx-vp9", "yuva420p", ".mkv", ".mkv"),
        ("libvpx-vp9", "yuva420p", ".webm", ".mov"),  # becomes ProRes
        ("prores_ks", "yuva444p10le", ".mov", ".mov"),
        ("png", "rgba", ".mov", ".mov"),
        ("qtrle", "argb", ".mov", ".mov"),  # becomes ProRes
        ("qtrle", "argb", ".mov", ".mkv"),  # becomes VP9
    ],
)
def test_transparency_is_kept(upscaler, tmp_path, codec, pixel_format, suffix, other):
    frames = pictures(3, channels=4)
    frames[:, :, :12, 3] = 255
    frames[:, :, 12:, 3] = 0
    source = write_video(tmp_path / f"a{suffix}", frames, codec=codec, pixel_format=pixel_format)
    make(upscaler, source, target := tmp_path / f"b{other}")
    low, high = (
        [colour.to_pixels(shot.frame, colour.coding_of(shot.frame)) for shot in Video(path).shots()]
        for path in (source, target)
    )
    assert len(high) == len(low) == 3
    expected = upscaler(low[1])
    shares = [each[..., 3] / np.iinfo(each.dtype).max for each in (high[1], expected)]
    difference = np.abs(shares[0] - shares[1]).mean()
    assert difference == 0 if codec == "png" else difference < 0.03


def test_transparency_that_a_codec_cannot_hold_is_named(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mov", pictures(1, channels=4), codec="png", pixel_format="rgba")
    job = VideoJob(upscaler, source, tmp_path / "b.mp4", VideoOptions(codec="h264"))
    assert [note.partition(";")[0] for note in job.notes()] == ["transparency not kept"]


def test_transparency_of_vp9_is_not_promised_in_mp4(upscaler, tmp_path):
    source = write_video(tmp_path / "a.webm", pictures(1, channels=4), codec="libvpx-vp9", pixel_format="yuva420p")
    job = VideoJob(upscaler, source, tmp_path / "b.mp4", VideoOptions())
    assert job.encoding.pixel_format == "yuv420p"
    assert [note.partition(";")[0] for note in job.notes()] == ["transparency not kept"]


def test_an_opaque_output_does_not_state_transparency(upscaler, tmp_path):
    source = write_video(tmp_path / "a.webm", pictures(1, channels=4), codec="libvpx-vp9", pixel_format="yuva420p")
    make(upscaler, source, tmp_path / "b.mkv", codec="h264")
    with av.open(str(tmp_path / "b.mkv")) as video:
        assert "alpha_mode" not in {key.lower() for key in video.streams.video[0].metadata}


def test_the_matrix_that_players_assume_for_a_small_video_is_stated(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(1))
    make(upscaler, source, tmp_path / "b.mkv", codec="h264")
    assert read_frames(source)[0].colorspace == 2
    assert read_frames(tmp_path / "b.mkv")[0].colorspace == 6


def test_hdr_data_are_given_to_the_encoder():
    display = struct.pack(
        "=22i",
        *(
            34_000,
            50_000,
            16_000,
            50_000,
            13_250,
            50_000,
            34_500,
            50_000,
            7_500,
            50_000,
            3_000,
            50_000,
            15_635,
            50_000,
            16_450,
            50_000,
            50,
            10_000,
            10_000_000,
            10_000,
            1,
            1,
        ),
    )
    data = {"MASTERING_DISPLAY_METADATA": display, "CONTENT_LIGHT_LEVEL": struct.pack("=II", 1000, 400)}
    options, lost = encoding._hdr_parameters("libx265", data | {"DOVI_METADATA": b""})
    display_text = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    assert options == f"master-display={display_text}:max-cll=1000,400"
    assert lost == ["Dolby Vision data not kept"]


def test_hdr_data_arrive(upscaler, tmp_path):
    parameters = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"
    source = write_video(
        tmp_path / "a.mkv",
        pictures(2, (48, 96)),
        codec="libx265",
        pixel_format="yuv420p10le",
        options={"x265-params": f"log-level=error:{parameters}"},
        properties={"colorspace": 9, "color_primaries": 9, "color_trc": 16, "color_range": 1},
    )
    make(upscaler, source, tmp_path / "b.mkv")
    old, new = (read_frames(tmp_path / f"{name}.mkv")[0] for name in "ab")
    assert (new.format.name, new.colorspace, new.color_primaries, new.color_trc) == ("yuv420p10le", 9, 9, 16)
    for kind in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"):
        assert bytes(new.side_data[kind]) == bytes(old.side_data[kind])


# Work


@pytest.mark.usefixtures("overlap")
def test_frames_equal_to_the_one_before_are_not_upscaled_again(upscaler, tmp_path):
    frames = pictures(3)[[0, 0, 0, 1, 2, 2]]
    source = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="bgr0")
    *_, last = make(upscaler, source, tmp_path / "b.mkv")
    assert (last.frames, last.computed, last.repeated) == (6, 3, 3)
    np.testing.assert_array_equal(colours(tmp_path / "b.mkv"), np.stack([upscaler(each) for each in frames]))


def test_frames_that_are_upscaled_together_are_the_same(upscaler, tmp_path, monkeypatch):
    """As on a GPU, up to rounding; among them are equal ones and grey ones."""
    frames = pictures(6)[[0, 0, 1, 2, 2, 3, 4, 5]].copy()
    frames[6] = frames[6, :, :, :1]
    source = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="bgr0")
    make(upscaler, source, tmp_path / "b.mkv")
    monkeypatch.setattr(pipeline, "num_together", lambda *_: 3)
    *_, last = make(upscaler, source, tmp_path / "c.mkv")
    assert (last.frames, last.computed, last.repeated) == (8, 6, 2)
    difference = colours(tmp_path / "b.mkv").astype(int) - colours(tmp_path / "c.mkv")
    assert np.abs(difference).max() <= 1


def test_small_frames_are_upscaled_together_on_a_gpu(model):
    def count(height, width, device="cuda", **options):
        upscaler = Upscaler.from_file(model, "cpu", **options)
        upscaler.device = torch.device(device)
        return pipeline.num_together(upscaler, height, width)

    assert [count(144, 176), count(256, 256), count(480, 640), count(16, 16)] == [10, 4, 1, 16]
    assert count(144, 176, "cpu") == count(144, 176, outscale=1.5) == count(144, 176, color_fix="mean") == 1


def interrupt(upscaler, source, target, after):
    work = upscale_video(upscaler, source, target)
    for _ in range(after):
        next(work)
    work.close()


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


def test_a_second_process_is_refused(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(3))
    first, second = (VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions()) for _ in range(2))
    work = first.upscale()
    next(work)
    with pytest.raises(EsrganError, match="another process works on this video"):
        next(second.upscale())
    work.close()


def test_memory_holds_few_frames(upscaler, tmp_path, monkeypatch):
    """Decoding waits for the networks, and the networks for the encoder."""
    monkeypatch.setattr(pipeline, "overlaps", lambda _: True)
    source = write_video(tmp_path / "a.mkv", pictures(40))
    decoded = []
    to_pixels = colour.to_pixels
    monkeypatch.setattr(colour, "to_pixels", lambda *args: decoded.append(0) or to_pixels(*args))
    work = upscale_video(upscaler, source, tmp_path / "b.mkv")
    for _ in range(5):
        next(work)
    time.sleep(0.5)
    assert len(decoded) <= 5 + 2 + upscale._DECODED
    work.close()


# Bad input


def message(upscaler, source, target, **options) -> str:
    with pytest.raises(VideoError) as error:
        make(upscaler, source, target, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_what_is_no_video_is_refused(upscaler, tmp_path):
    (tmp_path / "text.mp4").write_bytes(b"no video")
    (tmp_path / "empty.mkv").write_bytes(b"")
    (tmp_path / "picture.png").write_bytes(b"")
    write_video(tmp_path / "a.mkv", pictures(2))
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile a.mkv\n")
    with av.open(str(tmp_path / "sound.mp4"), "w") as video:
        sound = video.add_stream("aac", 48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48_000
        video.mux(sound.encode(frame) + sound.encode(None))
    expected = {
        "text.mp4": "cannot be opened",
        "empty.mkv": "cannot be opened",
        "picture.png": "got an image; `esrgan inference` upscales",
        "sound.mp4": "got a file with audio only",
        "list.txt": "got a list of videos",
        "missing.mp4": "got nothing",
        "frames/%04d.png": "got an image",
        ".": "got a folder",
    }
    for name, text in expected.items():
        assert text in message(upscaler, tmp_path / name, tmp_path / "b.mkv"), name
    assert not list(tmp_path.glob("b.mkv*"))


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


@pytest.mark.parametrize("begin", [0, 8, 13, 25, 37])
def test_a_part_may_begin_anywhere(upscaler, tmp_path, monkeypatch, begin):
    """At a key frame, after one, or before the first of a second."""
    source = write_video(tmp_path / "a.mkv", pictures(50), options={"g": "25", "sc_threshold": "0"})
    make(upscaler, source, tmp_path / "b.mkv", start=Fraction(begin, 25), end=Fraction(begin + 3, 25), codec="ffv1")
    expected = read_frames(source)[begin : begin + 3]
    for low, high in zip(expected, colours(tmp_path / "b.mkv"), strict=True):
        np.testing.assert_array_equal(high, upscaler(colour.to_pixels(low, colour.coding_of(low))))


def test_a_video_begins_where_players_show_0(upscaler, tmp_path):
    source = write_video(tmp_path / "a.ts", pictures(25))
    with av.open(str(source)) as video:
        assert video.start_time > 0
    make(upscaler, source, tmp_path / "b.mkv", start=Fraction("0.4"), end=Fraction("0.6"))
    assert [when for when, _ in read_video(tmp_path / "b.mkv")] == [40 * i * MS for i in range(5)]


def test_a_truncated_video_is_upscaled_as_far_as_it_goes(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(60), options={"g": "5"})
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 2])
    job = VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions())
    list(job.upscale())
    assert any("ends early" in note for note in job.assemble())
    assert 10 < len(read_frames(tmp_path / "b.mkv")) < 60


def test_a_video_without_its_first_key_frame_begins_at_the_next(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(60), options={"g": "25", "sc_threshold": "0"}, sound=True)
    with av.open(str(source)) as video, av.open(str(tmp_path / "b.mkv"), "w") as copy:
        streams = {each.index: copy.add_stream_from_template(each, opaque=True) for each in video.streams}
        packets = [packet for packet in video.demux() if packet.size]
        stream = [packet for packet in packets if packet.stream.type == "video"]
        for packet in packets:
            if packet not in stream[:5]:
                packet.stream = streams[packet.stream.index]
                copy.mux(packet)
    job = VideoJob(upscaler, tmp_path / "b.mkv", tmp_path / "c.mkv", VideoOptions())
    list(job.upscale())
    (note,) = job.assemble()
    assert note.startswith("the first 0.8")
    assert [when for when, _ in read_video(tmp_path / "c.mkv")] == [(1000 + 40 * i) * MS for i in range(35)]
    assert read_video(tmp_path / "c.mkv", "audio") == read_video(source, "audio")


def test_damaged_packets_are_left_out_and_counted(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(30), codec="ffv1", pixel_format="yuv420p")
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    source.write_bytes(content)
    job = VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions())
    list(job.upscale())
    notes = job.assemble()
    assert len(read_frames(tmp_path / "b.mkv")) + len(notes) >= 29


@pytest.mark.usefixtures("overlap")
def test_frames_of_another_size_end_the_work_with_the_place(upscaler, tmp_path):
    first, second = (
        write_video(tmp_path / f"{i}.ts", pictures(10, size)) for i, size in enumerate([(16, 24), (32, 24)])
    )
    video = tmp_path / "both.ts"
    video.write_bytes(first.read_bytes() + second.read_bytes())
    text = message(upscaler, video, tmp_path / "b.mkv")
    assert "expected frames of 24×16 yuv420p throughout, got 24×32 yuv420p at 0:00:0" in text
    assert not (tmp_path / "b.mkv").exists()


@pytest.mark.parametrize("deinterlace", [False, True])
def test_interlaced_videos_are_refused_or_made_progressive(upscaler, tmp_path, deinterlace):
    options = {"flags": "+ilme+ildct", "x264-params": "tff=1"}
    source = write_video(tmp_path / "a.mkv", pictures(12, (32, 32)), options=options)
    assert read_frames(source)[0].interlaced_frame
    if not deinterlace:
        assert "--deinterlace" in message(upscaler, source, tmp_path / "b.mkv")
        return
    make(upscaler, source, tmp_path / "b.mkv", deinterlace=True)
    frames = read_frames(tmp_path / "b.mkv")
    assert len(frames) == 12
    assert not any(frame.interlaced_frame for frame in frames)
    assert [when for when, _ in read_video(tmp_path / "b.mkv")] == [when for when, _ in read_video(source)]


def test_deinterlacing_converts_packed_frames_in_one_thread():
    """With several, swscale returns wrong lines now and then, which a test would see too rarely."""
    assert _Deinterlacer(VideoFrame(32, 32, "y210le"), None, Fraction(1, 25)).graph.threads == 1


def test_odd_sizes(model, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(2, (15, 17)), codec="ffv1", pixel_format="yuv420p")
    make(Upscaler.from_file(model, "cpu"), source, tmp_path / "b.mkv", codec="h264")
    assert (read_frames(tmp_path / "b.mkv")[0].width, read_frames(tmp_path / "b.mkv")[0].height) == (34, 30)
    job = VideoJob(
        Upscaler.from_file(model, "cpu", outscale=1.0), source, tmp_path / "c.mkv", VideoOptions(codec="h264")
    )
    assert "16×14" in " ".join(job.notes())
    list(job.upscale())
    job.assemble()
    assert (read_frames(tmp_path / "c.mkv")[0].width, read_frames(tmp_path / "c.mkv")[0].height) == (16, 14)


class Packet(SimpleNamespace):
    __eq__, __hash__ = object.__eq__, object.__hash__  # as those of PyAV


def packet(time, stream="audio", **properties):
    index = {"video": 0, "audio": 1, "subtitle": 2}[stream]
    stream = SimpleNamespace(index=index, type=stream)
    return Packet(dts=time, pts=time, stream=stream, time_base=Fraction(1, 10), **properties)


@pytest.mark.parametrize(
    ("times", "misplaced"),
    [
        ([*range(60)], []),
        ([0, 0, 1, 1, 2], []),
        ([*range(10), 3, *range(10, 60)], [10]),
        ([*range(10), 5000, *range(10, 60)], [10]),
        ([5000, *range(60)], [0]),
        ([*range(10), 5000, 5001, 5002, *range(10, 60)], [10, 11, 12]),
        ([*range(10), *range(500, 560)], []),  # a true gap
        ([*range(10), *range(500, 505)], []),  # at the end
        ([7], []),
        ([], []),
    ],
)
def test_packets_of_sound_with_corrupt_times_are_skipped(times, misplaced):
    packets = [*map(packet, times)]
    texts = [packet(time, "subtitle") for time in (0, 900, 20, 2000)]  # in any order
    mixed = [*packets[:5], *texts[:2], *packets[5:11], *texts[2:], *packets[11:]]
    count = itertools.count()
    kept = [*muxing.drop_misplaced(mixed, lambda: next(count))]
    dropped = [packets[i] for i in misplaced]
    assert kept == [each for each in mixed if each not in dropped]  # in the same order
    assert next(count) == len(misplaced)


def test_sound_is_held_for_few_packets(monkeypatch):
    """Players stream a video: sparse sound must not get far from what is shown at the same time."""
    packets = [packet(120 * time) for time in range(40)]
    read = []
    kept = muxing.drop_misplaced((read.append(each) or each for each in packets), pytest.fail)
    for number, each in enumerate(kept):
        assert each is packets[number]
        assert len(read) - number <= 10


@pytest.mark.parametrize("codec", ["aac", "mp3"])
@pytest.mark.parametrize(("before", "after"), [(".mkv", ".mp4"), (".mp4", ".mkv"), (".avi", ".mkv"), (".mkv", ".mov")])
def test_sound_survives_a_change_of_the_container(upscaler, tmp_path, codec, before, after):
    """Muxers change the units of packets that they get."""
    source = write_video(tmp_path / f"a{before}", pictures(50), codec="mpeg4", sound=True, sound_codec=codec)
    job = VideoJob(upscaler, source, tmp_path / f"b{after}", VideoOptions())
    list(job.upscale())
    assert job.assemble() == []
    counts = []
    for path in (source, tmp_path / f"b{after}"):
        with av.open(str(path)) as video:
            counts.append(sum(each.size > 0 for each in video.demux(audio=0)))
    assert counts[0] == counts[1] > 40


@pytest.mark.parametrize(
    ("options", "notes"), [({}, ["2 damaged packets of other streams skipped"]), ({"end": 0.3}, [])]
)
def test_a_video_with_damaged_sound_is_finished(upscaler, tmp_path, monkeypatch, options, notes):
    """What is misplaced or refused by the muxer is skipped and counted, in the wanted part only."""
    source = write_video(tmp_path / "a.mkv", pictures(30), sound=True)
    select = muxing._select_packets

    def damaged(packets, begin, stop):
        packets = [*packets]
        packets[20].dts = packets[20].pts = 10**6
        packets[24].pts = packets[24].dts - 5  # no container takes that
        return select(packets, begin, stop)

    monkeypatch.setattr(muxing, "_select_packets", damaged)
    job = VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions(**options))
    list(job.upscale())
    assert job.assemble() == notes
    assert len(read_frames(tmp_path / "b.mkv")) == (8 if options else 30)
    if not options:
        assert len(read_video(source, "audio")) - len(read_video(tmp_path / "b.mkv", "audio")) == 2


def test_a_second_video_track_is_copied(upscaler, tmp_path):
    """Its first packets have no time of decoding in Matroska, and are not in the order in which they are shown."""
    source = write_video(tmp_path / "a.mkv", pictures(30))
    write_video(tmp_path / "b.mkv", pictures(30), options={"bf": "3", "b_strategy": "0"})
    with (
        av.open(str(source)) as first,
        av.open(str(tmp_path / "b.mkv")) as second,
        av.open(str(tmp_path / "c.mkv"), "w") as both,
    ):
        streams = [both.add_stream_from_template(each.streams.video[0], opaque=True) for each in (first, second)]
        for video, stream in zip((first, second), streams, strict=True):
            for each in video.demux():
                if each.size:
                    each.stream = stream
                    both.mux(each)
    job = VideoJob(upscaler, tmp_path / "c.mkv", tmp_path / "d.mkv", VideoOptions())
    list(job.upscale())
    assert job.assemble() == []
    with av.open(str(tmp_path / "c.mkv")) as before, av.open(str(tmp_path / "d.mkv")) as after:
        packets = [[each.pts for each in video.demux(video.streams.video[1]) if each.size] for video in (before, after)]
    assert packets[0] == packets[1]
    assert packets[0] != sorted(packets[0])


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


def test_unknown_codecs_and_formats_are_explained(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(1))
    for options, text in (
        ({"codec": "h246"}, "did you mean h26"),
        ({"codec": "jpeg2000"}, "expected a codec that is written"),
        ({"pixel_format": "yuv420p9"}, "expected a format that libx264 encodes, got yuv420p9"),
        ({"codec": "prores", "crf": 10.0}, "prores_ks has no such option"),
        ({"codec": "h264", "crf": 60.0}, "--crf: expected a number from 0 to 51 for libx264, got 60"),
    ):
        assert text in message(upscaler, source, tmp_path / "b.mkv", **options)
    assert "cannot hold prores" in message(upscaler, source, tmp_path / "b.webm", codec="prores")
    assert "cannot hold vp9" in message(upscaler, source, tmp_path / "b.mov", codec="vp9")  # known before the work


# The command


def test_the_command_names_the_model_and_the_output(tmp_path, capsys):
    source = write_video(tmp_path / "a.mp4", pictures(3), sound=True)
    assert run(video_command, source, "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert "realesr-animevideov3" in out
    assert "made for drawings; -m esrgan-photo suits filmed material" in out
    assert f"{tmp_path / 'a_sr.mp4'} written: 3 frames" in out
    assert read_frames(tmp_path / "a_sr.mp4")[0].width == 96


def test_inference_says_which_command_upscales_videos(tmp_path, capsys):
    source = write_video(tmp_path / "a.mp4", pictures(3))
    assert run(inference_command, source) != 0
    assert "`esrgan video` upscales videos" in capsys.readouterr().err


def test_pipes(model, upscaler, tmp_path):
    source = write_video(tmp_path / "a.y4m", pictures(4), codec="wrapped_avframe", container_format="yuv4mpegpipe")
    cut = VideoOptions(start=0.04, end=0.12)
    assert [each.total for each in upscale.pipe_video(upscaler, Video(source), io.BytesIO(), cut)] == [2, 2]
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


def test_a_flash_and_a_beep_stay_together(upscaler, tmp_path):
    frames = np.zeros((50, 16, 24, 3), np.uint8)
    frames[20] = 255
    source = write_video(
        tmp_path / "a.mp4", frames, sound=True, time_base=Fraction(1, 12_800), times=[*range(0, 25_600, 512)]
    )
    make(upscaler, source, tmp_path / "b.mp4")

    def flash(path):
        with av.open(str(path)) as video:
            means = {f.pts * f.time_base: f.to_ndarray(format="gray").mean() for f in video.decode(video=0)}
            return max(means, key=lambda when: abs(means[when] - means[Fraction(0)]))

    assert flash(tmp_path / "b.mp4") == flash(source) == Fraction(20, 25)
    assert read_video(tmp_path / "b.mp4", "audio") == read_video(source, "audio")


def test_frames_without_times_get_the_next(upscaler, tmp_path):
    source = write_video(tmp_path / "a.h264", pictures(10), container_format="h264")
    make(upscaler, source, tmp_path / "b.mkv")
    assert len(read_frames(tmp_path / "b.mkv")) == 10


def test_frames_are_made_in_any_format():
    assert to_frame(pictures(1)[0], "yuv420p").format.name == "yuv420p"


# Flicker


def test_still_parts_keep_their_output(upscaler, tmp_path):
    """A still picture with noise of one level, in which one half moves."""
    rng = np.random.default_rng(0)
    still = pictures(1, (24, 40))[0]
    frames = np.stack([still + rng.integers(0, 2, still.shape, np.uint8) for _ in range(4)])
    frames[:, :, 28:] = pictures(4, (24, 12))
    make_frame = pipeline.FrameUpscaler(upscaler, steady=1.0)
    highs = np.stack([*make_frame(frames)])
    plain = np.stack([upscaler(frame) for frame in frames])
    np.testing.assert_array_equal(highs[:, :, :40], highs[:1, :, :40].repeat(4, 0))
    np.testing.assert_array_equal(highs[:, :, 60:], plain[:, :, 60:])
    assert (plain[1] != plain[0])[:, :40].any()
    make_frame.begin_segment()
    np.testing.assert_array_equal(*make_frame(frames[3:]), plain[3])


def test_slow_changes_are_not_missed(upscaler):
    frames = np.stack([np.full((8, 8, 3), 100 + i, np.uint8) for i in range(9)])
    make_frame = pipeline.FrameUpscaler(upscaler, steady=2.0)
    highs = [high for frame in frames for high in make_frame([frame])]
    changes = [i for i in range(1, 9) if (highs[i] != highs[i - 1]).any()]
    assert changes == [3, 6]
    np.testing.assert_array_equal(highs[6], upscaler(frames[6]))


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


# Found by a review


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_not_a_folder_of_segments_is_left_alone(upscaler, tmp_path, kind):
    source, place = write_video(tmp_path / "a.mkv", pictures(2)), tmp_path / "b.mkv.parts"
    if kind == "folder":
        place.mkdir()
    mine = place / "mine.txt" if kind == "folder" else place
    mine.write_text("precious")
    assert "move it away, or choose another -o" in message(upscaler, source, tmp_path / "b.mkv")
    assert mine.read_text() == "precious"


def test_a_timecode_and_chapters_of_quicktime_are_made_again(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mov", pictures(4), chapters=True)
    with av.open(str(source)) as video, av.open(str(tmp_path / "b.mov"), "w") as copy:
        stream = copy.add_stream_from_template(video.streams.video[0], opaque=True)
        stream.metadata["timecode"] = "01:02:03:04"
        copy.set_chapters(video.chapters())
        for packet in video.demux(video.streams.video[0]):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    for suffix in (".mov", ".mp4", ".mkv"):
        target = tmp_path / f"c{suffix}"
        make(upscaler, tmp_path / "b.mov", target)
        with av.open(str(target)) as video:
            assert [each["metadata"]["title"] for each in video.chapters()] == ["first", "second"]
            tags = {key.lower(): value for each in video.streams for key, value in each.metadata.items()}
            assert tags["timecode"] == "01:02:03:04"


def test_the_last_frame_is_shown_as_long_as_before(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mp4", pictures(4), times=[0, 512, 1024, 102_400], time_base=Fraction(1, 12_800))
    job = VideoJob(upscaler, source, tmp_path / "b.mp4", VideoOptions())
    list(job.upscale())
    path = tmp_path / "b.mp4.parts" / "000000.json"
    segment = json.loads(path.read_text())
    assert segment["last_duration"] == read_frames(source)[-1].duration > 0
    path.write_text(json.dumps(segment | {"last_duration": 5120}))  # PyAV cannot write such a video
    job.assemble()
    with av.open(str(tmp_path / "b.mp4")) as video:
        assert video.streams.video[0].duration == 102_400 + 5120


def test_transparency_that_an_encoder_only_lists_is_dropped_with_a_note(upscaler, tmp_path):
    frames = pictures(1, (48, 96), channels=4)
    source = write_video(tmp_path / "a.mov", frames, codec="prores_ks", pixel_format="yuva444p10le")
    job = VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions(codec="h265"))
    assert not colour.has_alpha(job.encoding.pixel_format)
    assert any("transparency not kept" in note for note in job.notes())


def test_av1_stays_av1(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mp4", pictures(2, (64, 64)), codec="libsvtav1")
    assert VideoJob(upscaler, source, tmp_path / "b.mp4", VideoOptions()).encoding.codec == "libsvtav1"


def test_names_may_contain_colons(upscaler, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mkv", pictures(2)).rename("a:b.mkv")
    make(upscaler, Path("a:b.mkv"), Path("c:d.mkv"))
    assert len(video_packets(tmp_path / "c:d.mkv")) == 2


def run_pipe(source: Path, model: Path, *options: str, **settings) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "esrgan", "video", str(source), "-o", "-", "-m", str(model), "--device", "cpu"]
    return subprocess.run([*command, *options], capture_output=True, **settings)


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


def damage(video: Path, place: int = 1) -> None:
    """Overwrite bytes of one of several intra-coded pictures, which the decoder conceals."""
    content = bytearray(video.read_bytes())
    with av.open(str(video)) as container:
        packet = next(each for number, each in enumerate(container.demux(video=0)) if number == place)
        begin = content.index(bytes(packet)) + packet.size // 3
    content[begin : begin + 8] = b"\xff" * 8
    video.write_bytes(content)


def test_concealed_damage_is_a_warning_and_code_1(model, tmp_path, capsys):
    source = write_video(tmp_path / "a.mkv", pictures(3), options={"g": "1"})
    damage(source)
    assert run(video_command, source, "-m", model, "--device", "cpu") == 1
    assert "1 damaged frame upscaled as far as decoded" in capsys.readouterr().err


def test_damage_before_an_interruption_is_reported_at_the_end(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mkv", pictures(segments.FRAMES + 2), options={"g": "1"})
    damage(source)
    first = VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions())
    list(itertools.islice(first.upscale(), segments.FRAMES + 1))
    first.video.close()
    job = VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions())
    list(job.upscale())
    assert job.assemble() == ["1 damaged frame upscaled as far as decoded"]


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


@pytest.mark.parametrize(("start", "num_packets"), [(None, 1), (80, 0)])
def test_damage_before_the_wanted_part_is_not_reported(tmp_path, start, num_packets):
    video = Video(write_video(tmp_path / "a.mkv", pictures(4)))
    video.errors.counts["packets"] = 1  # as if found at the beginning
    assert len([*video.shots(start)]) == (4 if start is None else 2)
    assert video.errors.counts["packets"] == num_packets


@pytest.mark.usefixtures("overlap")
def test_damage_after_the_last_frame_is_reported(upscaler, tmp_path, monkeypatch):
    def shots(video, *limits):
        yield from read_shots(video, *limits)
        video.errors.counts["packets"] += 1

    read_shots = Video.shots
    monkeypatch.setattr(Video, "shots", shots)
    job = VideoJob(upscaler, write_video(tmp_path / "a.mkv", pictures(3)), tmp_path / "b.mkv", VideoOptions())
    list(job.upscale())
    assert job.assemble() == ["1 damaged packet skipped"]


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


@pytest.mark.parametrize(
    ("missing", "notes"),
    [
        (range(150, 200), ["frames may be missing between 0:00:05.96 and 0:00:08"]),
        ([150], []),  # as in a recording that has left out a frame
        ([*range(150, 200), *range(300, 340, 2)], []),  # steps vary, so that the picture may stand still
    ],
)
def test_gaps_of_videos_with_a_constant_rate_are_named(tmp_path, missing, notes):
    video = Video(write_video(tmp_path / "a.mkv", pictures(1)))
    times = [40 * i for i in range(500) if i not in missing]
    upscale._note_missing_parts(video, times, 40, times[-1] + 1)
    assert list(video.errors.notes()) == notes


@pytest.mark.parametrize("kind", ["frames", "packets", "marked packets"])
def test_short_gaps_count_where_something_is_damaged(tmp_path, kind):
    video = Video(write_video(tmp_path / "a.mkv", pictures(1)))
    video.errors.counts[kind] = 1
    times = [40 * i for i in range(500) if i != 150]
    upscale._note_missing_parts(video, times, 40, times[-1] + 1)
    assert "frames may be missing between 0:00:05.96 and 0:00:06.04" in list(video.errors.notes())


def test_a_frame_that_an_mp4_shows_for_two_steps_is_no_gap(tmp_path):
    clock = Fraction(1, 12_800)
    video = Video(write_video(tmp_path / "a.mp4", pictures(1), times=[0], time_base=clock))
    upscale._note_missing_parts(video, [512 * i for i in range(500) if i != 150], 512, 10**9)
    assert list(video.errors.notes()) == []


def test_a_truncated_video_ends_with_a_warning_and_code_1(model, tmp_path, capsys):
    source = write_video(tmp_path / "a.mkv", pictures(60), options={"g": "5"})
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert run(video_command, source, "-m", model, "--device", "cpu") == 1
    assert "the video ends early: at 0:00:0" in capsys.readouterr().err


# Changes within a video


def join(path: Path, *parts: Path) -> Path:
    """Write TS files after one another, without a gap."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def write_part(path: Path, number: int, size=(16, 24), options=(), **settings) -> Path:
    """Write part ``number`` of a TS video: 10 frames of 40 ms."""
    times, clock = [3600 * (10 * number + i) for i in range(10)], Fraction(1, 90_000)
    options = {"bf": "0", **dict(options)}
    return write_video(path, pictures(10, size), times=times, time_base=clock, options=options, **settings)


INTERLACED = {"flags": "+ilme+ildct", "x264-params": "tff=1"}


@pytest.mark.parametrize("deinterlace", [False, True])
def test_each_part_of_a_video_whose_size_changes_can_be_upscaled(upscaler, tmp_path, deinterlace):
    options = INTERLACED if deinterlace else {}
    sizes = [(32, 32), (32, 64)]
    parts = [write_part(tmp_path / f"{i}.ts", i, size, options=options) for i, size in enumerate(sizes)]
    video = join(tmp_path / "film.ts", *parts)
    text = message(upscaler, video, tmp_path / "b.mkv", deinterlace=deinterlace)
    assert "expected frames of 32×32 yuv420p throughout, got 64×32 yuv420p at 0:00:00.4;" in text
    assert "-o PART1 --end 0:00:00.4, then -o PART2 --start 0:00:00.4" in text
    make(upscaler, video, tmp_path / "first.mkv", deinterlace=deinterlace, end=Fraction("0.4"))
    make(upscaler, video, tmp_path / "second.mkv", deinterlace=deinterlace, start=Fraction("0.4"))
    for name, (height, width) in zip(("first", "second"), sizes, strict=True):
        frames = read_frames(tmp_path / f"{name}.mkv")
        assert {(frame.height, frame.width) for frame in frames} == {(2 * height, 2 * width)}
        assert len(frames) == 10


def test_a_progressive_part_after_an_interlaced_one_is_upscaled(upscaler, tmp_path):
    video = join(
        tmp_path / "film.ts",
        write_part(tmp_path / "0.ts", 0, (32, 32), options=INTERLACED),
        write_part(tmp_path / "1.ts", 1, (32, 32)),
    )
    make(upscaler, video, tmp_path / "b.mkv", start=Fraction("0.4"))
    assert len(read_frames(tmp_path / "b.mkv")) == 10


def test_a_matrix_that_changes_within_a_video_is_converted(upscaler, tmp_path):
    parts = [write_part(tmp_path / f"{i}.ts", i, properties={"colorspace": matrix}) for i, matrix in enumerate((1, 6))]
    video = join(tmp_path / "film.ts", *parts)
    make(upscaler, video, tmp_path / "b.mkv", codec="ffv1")
    lows = [
        colour.to_pixels(frame, colour.Coding(matrix, False))
        for matrix, frame in zip([1] * 10 + [6] * 10, read_frames(video), strict=True)
    ]
    np.testing.assert_array_equal(colours(tmp_path / "b.mkv"), np.stack([upscaler(low) for low in lows]))


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({"color_trc": 1}, {"color_trc": 16}, "expected transfer characteristics 1 throughout, got 16 at 0:00:00.4"),
        ({"color_primaries": 1}, {"color_primaries": 9}, "expected colour primaries 1 throughout, got 9 at 0:00:00.4"),
        ({"color_trc": 1}, {"color_trc": 6}, None),  # the same function
        ({}, {"color_primaries": 1, "color_trc": 1}, None),
    ],
)
def test_colours_that_change_within_a_video_are_refused(upscaler, tmp_path, before, after, text):
    parts = [write_part(tmp_path / f"{i}.ts", i, properties=each) for i, each in enumerate((before, after))]
    video = join(tmp_path / "film.ts", *parts)
    if text is None:
        make(upscaler, video, tmp_path / "b.mkv")
    else:
        assert text in message(upscaler, video, tmp_path / "b.mkv")


@pytest.mark.parametrize("deinterlace", [False, True])
def test_a_pixel_aspect_that_changes_within_a_video_is_named(upscaler, tmp_path, deinterlace):
    aspects = [Fraction(16, 11), Fraction(12, 11)]
    parts = [write_part(tmp_path / f"{i}.ts", i, aspect=aspect) for i, aspect in enumerate(aspects)]
    for video, count in ((join(tmp_path / "film.ts", *parts), 1), (parts[0], 0)):
        options = VideoOptions(deinterlace=deinterlace, overwrite=True)
        job = VideoJob(upscaler, video, tmp_path / "b.mkv", options)
        list(job.upscale())
        assert len([note for note in job.assemble() if "the sample aspect ratio changes" in note]) == count


def test_packets_without_content_repeat_the_frame_before(upscaler, tmp_path, monkeypatch):
    """As in Theora."""

    class Container:
        def __init__(self, path):
            self.container = open_file(path)

        def __getattr__(self, name):
            return getattr(self.container, name)

        def demux(self, *streams):
            for number, each in enumerate(self.container.demux(*streams)):
                if number not in (2, 3, 9):
                    yield each
                    continue
                empty = av.Packet()
                empty.pts, empty.dts, empty.stream = each.pts, each.dts, each.stream
                yield empty

    path = write_video(tmp_path / "a.mkv", pictures(10), codec="ffv1", pixel_format="bgr0")
    times = [time for time, _ in read_video(path)]
    open_file = opening.open_file
    monkeypatch.setattr(opening, "open_file", Container)
    *_, last = make(upscaler, path, tmp_path / "b.mkv", codec="ffv1")
    assert (last.frames, last.repeated) == (10, 3)
    assert [time for time, _ in read_video(tmp_path / "b.mkv")] == times
    same = [np.array_equal(*pair) for pair in itertools.pairwise(colours(tmp_path / "b.mkv"))]
    assert [number for number, is_same in enumerate(same, 1) if is_same] == [2, 3, 9]


# Times


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"start": "0", "end": "1"}, 30),
        ({"end": "1"}, 30),
        ({"start": "0.033367"}, 39),
        ({"end": "0.033367"}, 1),  # as times are printed
        ({"start": "0.033366"}, 39),
        ({"end": "0.033366"}, 1),
    ],
)
def test_parts_have_all_their_frames_up_to_a_microsecond(tmp_path, options, count):
    times = [3003 * i + 5 for i in range(40)]  # begins between microseconds
    video = Video(
        write_video(tmp_path / "a.ts", pictures(40), times=times, time_base=Fraction(1, 90_000), options={"bf": "0"})
    )
    limits = upscale._to_ticks(VideoOptions(**{name: Fraction(text) for name, text in options.items()}), video)
    assert len([*video.shots(*limits)]) == count


def test_deinterlaced_frames_keep_their_durations(tmp_path):
    video = write_video(tmp_path / "a.mkv", pictures(5, (32, 32)), options=INTERLACED)
    assert {shot.frame.duration for shot in Video(video, deinterlace=True).shots()} == {40}


@pytest.mark.parametrize(
    ("times", "duration", "notes"),
    [([0, 5000, 10_000], 5000, 0), ([0, 40, 80], 14_920, 0), ([0, 40, 80], 0, 1), ([0, 5000], 0, 1)],
)
def test_a_last_frame_that_stands_still_is_no_early_end(tmp_path, times, duration, notes):
    video = Video(write_video(tmp_path / "a.mkv", pictures(1), times=[0], time_base=MS))
    object.__setattr__(video.properties, "end", Fraction(15))
    upscale._note_missing_parts(video, times, duration, None)
    assert len([*video.errors.notes()]) == notes


@pytest.mark.parametrize(
    ("tags", "end"),
    [
        ({"DURATION-eng": "00:01:00.0", "DURATION": "00:00:02.5"}, "2.5"),
        ({"DURATION-eng": "00:00:02.5"}, "2.5"),
        ({"DURATION-eng": "00:01:00.0"}, "3"),
        ({}, "3"),
    ],
)
def test_the_end_of_a_video_is_not_that_of_a_stale_tag(tags, end):
    container = SimpleNamespace(format=SimpleNamespace(name="matroska,webm"), duration=3_000_000)
    assert opening.find_end(container, SimpleNamespace(metadata=tags, duration=None), Fraction(0)) == Fraction(end)


def test_packets_that_the_container_marks_as_damaged_are_named(upscaler, tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.ts", pictures(10), codec="mpeg2video")
    content = path.read_bytes()
    cells = [content[i : i + 188] for i in range(0, len(content), 188)]
    video = [i for i, cell in enumerate(cells) if (cell[1] & 31, cell[2]) == (1, 0)]
    del cells[video[len(video) // 2]]  # the next one has a gap in its count
    path.write_bytes(b"".join(cells))
    job = VideoJob(upscaler, path, tmp_path / "b.mkv", VideoOptions())
    list(job.upscale())
    texts = []
    monkeypatch.setattr(upscale.log, "info", lambda text, *values: texts.append(text % values))
    assert job.assemble() == []
    assert texts == [f"{path}: 1 packet marked as damaged, as where parts are joined"]


@pytest.mark.parametrize(("codec", "colours"), [("libvpx", (9, 16)), ("libvpx-vp9", (9, 16))])
def test_videos_with_transparency_keep_their_primaries(upscaler, tmp_path, codec, colours):
    properties = dict(zip(("color_primaries", "color_trc"), colours, strict=True))
    frames = pictures(2, channels=4)
    settings = {"pixel_format": "yuva420p", "options": {"auto-alt-ref": "0"}, "properties": properties}
    path = write_video(tmp_path / "a.webm", frames, codec=codec, **settings)
    make(upscaler, path, tmp_path / "b.webm")
    for each in (path, tmp_path / "b.webm"):
        video = Video(each).properties
        assert (video.pixel_format, video.primaries, video.transfer) == ("yuva420p", *colours)


# What an encoder can state


@pytest.mark.parametrize("codec", ["h264", "h265", "vp8", "vp9", "av1", "prores", "ffv1", "png"])
@pytest.mark.parametrize("form", ["yuv420p", "gray"])
def test_every_codec_keeps_the_colours_of_full_range(upscaler, tmp_path, monkeypatch, codec, form):
    def double(_, frames):
        yield from (frame.repeat(2, 0).repeat(2, 1) for frame in frames)

    monkeypatch.setattr(pipeline.FrameUpscaler, "_upscale", double)
    properties = {"colorspace": 7, "color_range": 2}
    frames = np.full((1, 32, 64, 3), (192, 32, 32), np.uint8)
    path = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format=form, properties=properties)
    target = tmp_path / ("b.mov" if codec in ("prores", "png") else "b.mkv")
    make(upscaler, path, target, codec=codec)
    (low,), (high,) = colours(path), colours(target)
    assert np.abs(high.mean(axis=(0, 1)) * (255 / np.iinfo(high.dtype).max) - low[0, 0]).max() < 2


def test_colours_become_grey_if_that_is_wanted(upscaler, tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(2), codec="ffv1", pixel_format="bgr0")
    make(upscaler, path, tmp_path / "b.mkv", codec="ffv1", pixel_format="gray")
    expected = [upscaler(picture) @ [0.2126, 0.7152, 0.0722] for picture in pictures(2)]
    assert np.abs(colours(tmp_path / "b.mkv")[..., 0] - np.stack(expected)).max() < 0.51


def test_a_codec_without_the_resolution_of_colours_is_named(upscaler, tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(1, (64, 64)), pixel_format="yuv444p")
    job = VideoJob(upscaler, path, tmp_path / "b.mkv", VideoOptions(codec="av1"))
    assert "resolution of colours reduced" in job.notes()
    assert VideoJob(upscaler, path, tmp_path / "c.mkv", VideoOptions()).notes() == []


def test_a_rate_that_an_encoder_refuses_is_named(upscaler, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.helpers.video.RATE", Fraction(500))
    path = write_video(tmp_path / "a.mp4", pictures(2, (64, 64)), time_base=Fraction(1, 500))
    assert " at 500 frames/s (" in message(upscaler, path, tmp_path / "b.mp4", codec="av1")


@pytest.mark.parametrize(("width", "matrix"), [(128, 6), (1280, 1)])
def test_a_pipe_has_the_matrix_that_players_assume_for_its_size(model, tmp_path, width, matrix):
    path = write_video(tmp_path / "a.mkv", pictures(1, (32, 64)), properties={"colorspace": 6})
    upscaler = Upscaler.from_file(model, "cpu", width=width)
    assert upscale._choose_encoding(upscaler, Video(path), None, VideoOptions()).coding.matrix == matrix


# From Python


@pytest.mark.parametrize("name", ["b.avi", "b", "a.mkv"])
def test_outputs_that_cannot_be_written_are_refused(upscaler, tmp_path, name):
    path = write_video(tmp_path / "a.mkv", pictures(1))
    content = path.read_bytes()
    text = message(upscaler, path, tmp_path / name, overwrite=True)
    assert "is the video itself" in text or "expected a file that ends with .mkv, .mp4" in text
    assert path.read_bytes() == content


def test_a_crf_below_0_is_refused(upscaler, tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(1))
    assert "expected a number from 0 to 51" in message(upscaler, path, tmp_path / "b.mkv", crf=-3)


def test_what_is_lost_is_logged(upscaler, tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", pictures(3), options={"g": "1"}, subtitles=True)
    damage(path)
    lines = {"info": [], "warning": []}
    for level, found in lines.items():
        monkeypatch.setattr(upscale.log, level, lambda text, *values, found=found: found.append(text % values))
    make(upscaler, path, tmp_path / "b.webm")
    assert [line.partition("b.webm: stream 1 ")[2][:29] for line in lines["info"]] == ["(subtitle, srt, deu) not kept"]
    assert lines["warning"] == [f"{path}: 1 damaged frame upscaled as far as decoded"]


def test_a_video_that_was_replaced_by_one_of_the_same_size_does_not_continue(upscaler, tmp_path, monkeypatch):
    monkeypatch.setattr(upscale, "_SAMPLE", 100)
    path, target = write_video(tmp_path / "a.mkv", pictures(50), codec="ffv1"), tmp_path / "b.mkv"
    interrupt(upscaler, path, target, 49)
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 1000] = bytes(1000)
    path.write_bytes(content)
    assert "segments of another video" in message(upscaler, path, target)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.nfo", b"a text \xdb\xdb\n", "got a text"),
        ("a.pam", b"P7\nWIDTH 4\nHEIGHT 4\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(48), "got an image"),
        ("a.xbm", b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = { 0x01 };\n", "got an image"),
        ("a.dat", b"P6\n4 4\n255\n" + bytes(48), "got an image"),
    ],
)
def test_pictures_and_texts_are_no_videos(upscaler, tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    assert text in message(upscaler, tmp_path / name, tmp_path / "b.mkv")


# Containers


def notes_of(upscaler, path, target, **options) -> list[str]:
    """Upscale a video, and return the notes before the work."""
    job = VideoJob(upscaler, path, target, VideoOptions(**options))
    list(job.upscale())
    job.assemble()
    return job.notes()


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_recordings_begin_at_0(upscaler, tmp_path, suffix):
    """Their clock starts anywhere, here at 80,000 s."""
    path = write_video(tmp_path / "a.ts", pictures(40), options={"bf": "0"}, sound=True)
    with av.open(str(path)) as video, av.open(str(tmp_path / "b.ts"), "w") as copy:
        streams = {each.index: copy.add_stream_from_template(each, opaque=True) for each in video.streams}
        for each in video.demux():
            if each.size:
                each.pts, each.dts = (time + 80_000 * 90_000 for time in (each.pts, each.dts))
                each.stream = streams[each.stream.index]
                copy.mux(each)
    assert make(upscaler, tmp_path / "b.ts", tmp_path / f"c{suffix}")[-1].total == 40
    names = "b.ts", f"c{suffix}"
    before, after = ([read_video(tmp_path / name, kind)[0][0] for kind in ("video", "audio")] for name in names)
    assert min(before) >= 80_000
    assert min(after) == 0
    assert abs((before[0] - before[1]) - (after[0] - after[1])) <= MS


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_hevc_has_the_tag_that_players_of_apple_need(upscaler, tmp_path, suffix):
    path = write_video(tmp_path / "a.mkv", pictures(2, (48, 96)))
    make(upscaler, path, tmp_path / f"b{suffix}", codec="h265")
    with av.open(str(tmp_path / f"b{suffix}")) as video:
        assert video.streams.video[0].codec_context.codec_tag.strip() == "hvc1"
    assert len(read_frames(tmp_path / f"b{suffix}")) == 2


def test_metadata_of_any_name_are_kept_or_named(upscaler, tmp_path):
    tags = {"title": "T", "com.apple.quicktime.make": "Apple", "DIRECTOR": "D"}
    path = write_video(tmp_path / "a.mkv", pictures(2), metadata=tags)
    for suffix, lost in ((".mkv", []), (".mov", []), (".mp4", ["com.apple.quicktime.make", "DIRECTOR"])):
        target = tmp_path / f"b{suffix}"
        notes = [note for note in notes_of(upscaler, path, target) if note.startswith("metadata not kept")]
        with av.open(str(target)) as video:
            kept = {key.lower() for key in video.metadata}
        assert [key for key in tags if key.lower() not in kept] == lost
        assert len(notes) == bool(lost)
        assert all(key.lower() in notes[0].lower() for key in lost)


def test_titles_in_mov_are_where_all_players_look(upscaler, tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(2), metadata={"title": "T", "DIRECTOR": "D"})
    notes = notes_of(upscaler, path, tmp_path / "b.mov")
    assert b"\xa9nam" in (tmp_path / "b.mov").read_bytes()
    assert any("DIRECTOR" in note for note in notes)


def test_a_part_has_no_timecode_of_the_whole(upscaler, tmp_path):
    path = write_video(tmp_path / "a.mov", pictures(4), metadata={"timecode": "01:02:03:04"})
    for start, has_timecode in ((None, True), (Fraction("0.04"), False)):
        target = tmp_path / f"{start is None}.mov"
        notes = notes_of(upscaler, path, target, start=start)
        with av.open(str(target)) as video:
            tags = [key for each in (video, *video.streams) for key in each.metadata]
        assert ("timecode" in tags) == has_timecode
        assert any("the timecode is not kept" in note for note in notes) != has_timecode


@pytest.mark.parametrize(
    ("codec", "suffix", "is_kept"),
    [
        ("h264", ".mkv", True),
        ("vp9", ".mp4", True),
        ("prores", ".mov", True),
        ("vp9", ".webm", False),
        ("ffv1", ".mkv", False),
    ],
)
def test_a_pixel_aspect_is_kept_or_named(upscaler, tmp_path, codec, suffix, is_kept):
    path = write_video(tmp_path / "a.mkv", pictures(2, (48, 64)), aspect=Fraction(16, 11))
    notes = notes_of(upscaler, path, tmp_path / f"b{suffix}", codec=codec)
    with av.open(str(tmp_path / f"b{suffix}")) as video:
        assert (video.streams.video[0].sample_aspect_ratio == Fraction(16, 11)) == is_kept
    sizes = "--set display-unit=3 --set display-width=64 --set display-height=33"  # 128 × 96 pixels of 16:11
    command = f"`mkvpropedit {tmp_path}/b{suffix} --edit track:v1 {sizes}` adds it"
    assert any(command in note for note in notes) != is_kept


def test_a_pipe_states_the_pixel_aspect_and_names_what_is_lost(model, tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(2), aspect=Fraction(16, 11), rotation=90)
    done = run_pipe(path, model)
    assert done.stdout.startswith(b"YUV4MPEG2 W48 H32 F25:1 Ip A16:11 ")
    assert b"the rotation is not kept" in done.stderr
    with av.open(io.BytesIO(done.stdout)) as video:
        assert len(list(video.decode(video=0))) == 2
    path = write_video(tmp_path / "a.mov", pictures(2, channels=4), codec="png", pixel_format="rgba")
    assert b"transparency not kept" in run_pipe(path, model).stderr


def test_captions_and_projections_are_named():
    data = {"A53_CC": b"", "SPHERICAL": b"", "STEREO3D": b""}
    assert encoding._hdr_parameters("libx264", data)[1] == [
        "closed captions within the pictures (CEA-608 and CEA-708) not kept",
        "the projection of 360° pictures not kept",
    ]


@pytest.mark.parametrize(("aspect", "suffix", "is_kept"), [(1, ".mkv", True), (2, ".mkv", False), (1, ".mp4", False)])
def test_stereo_is_kept_or_named(tmp_path, aspect, suffix, is_kept):
    properties = SimpleNamespace(pixel_aspect=Fraction(aspect))
    video = SimpleNamespace(metadata={"STEREO_MODE": "left_right"}, properties=properties)
    assert muxing._keeps_stereo(encoding.CONTAINERS[suffix], video) == is_kept


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        ("pcm_mulaw", "stream 1 (audio, pcm_mulaw, fra) not kept, because .mkv cannot hold it; -o FILE.mov may"),
        (
            "adpcm_ms",
            "PyAV does not write it; try to add it afterwards: `ffmpeg -i b.mkv -i 'a b.avi' -map 0 -map 1:1 -c copy",
        ),
    ],
)
def test_sound_that_is_not_written_is_named_with_a_way(monkeypatch, codec, text):
    monkeypatch.setattr(muxing, "_can_hold", lambda container, _: (codec, container) == ("pcm_mulaw", "mov"))
    stream = SimpleNamespace(type="audio", index=1, language="fra", codec_context=SimpleNamespace(name=codec))
    video = SimpleNamespace(path=Path("a b.avi"))
    assert text in muxing._describe_lost_stream(video, stream, Path("b.mkv"), is_part=False)
    if codec == "adpcm_ms":
        assert "ffmpeg" not in muxing._describe_lost_stream(video, stream, Path("b.mkv"), is_part=True)


@pytest.mark.parametrize(("primaries", "is_change"), [(6, False), (1, False), (9, True)])
def test_similar_primaries_are_no_change(tmp_path, primaries, is_change):
    properties = {"colorspace": 6, "color_primaries": 5, "color_trc": 6}
    video = Video(write_video(tmp_path / "a.mkv", pictures(1), properties=properties))
    frame = next(iter(video.shots())).frame
    other = SimpleNamespace(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        color_trc=frame.color_trc,
        color_primaries=primaries,
    )
    assert (video._find_change(other) is not None) == is_change
