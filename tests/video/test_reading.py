"""Reading: refused inputs, damage, gaps, parts, interlaced videos and changes within a video."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from esrgan.errors import VideoError
from esrgan.video import VideoJob, VideoOptions, colour, decoding, missing, opening
from esrgan.video.decoding import _Deinterlacer
from esrgan.video.missing import note_missing_parts
from esrgan.video.options import find_limits
from esrgan.video.source import Video
from tests.helpers.video import (
    INTERLACED,
    MS,
    colours,
    join,
    make,
    message,
    pictures,
    read_frames,
    read_video,
    video_packets,
    write_part,
    write_video,
)


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


@pytest.mark.parametrize("begin", [0, 8, 13, 25, 37])
def test_a_part_may_begin_anywhere(upscaler, tmp_path, monkeypatch, begin):
    """At a key frame, after one, or before the first of a second."""
    source = write_video(tmp_path / "a.mkv", pictures(50), options={"g": "25", "sc_threshold": "0"})
    make(upscaler, source, tmp_path / "b.mkv", start=Fraction(begin, 25), end=Fraction(begin + 3, 25), codec="ffv1")
    expected = read_frames(source)[begin : begin + 3]
    for low, high in zip(expected, colours(tmp_path / "b.mkv"), strict=True):
        np.testing.assert_array_equal(high, upscaler(colour.to_pixels(low, colour.coding_of(low))))


def test_a_part_of_a_video_with_a_palette_has_its_colours(upscaler, tmp_path):
    """MOV and AVI state the palette with the first packet only."""
    source = write_video(tmp_path / "a.mov", pictures(30, channels=1), codec="qtrle", pixel_format="gray")
    expected = read_frames(source)[20:]
    assert {frame.format.name for frame in expected} == {"pal8"}
    make(upscaler, source, tmp_path / "b.mov", start=Fraction(20, 25), codec="png")
    for low, high in zip(expected, colours(tmp_path / "b.mov"), strict=True):
        np.testing.assert_array_equal(high, upscaler(colour.to_pixels(low, colour.coding_of(low))))


def test_a_video_begins_where_players_show_0(upscaler, tmp_path):
    source = write_video(tmp_path / "a.ts", pictures(25))
    with av.open(str(source)) as video:
        assert video.start_time > 0
    make(upscaler, source, tmp_path / "b.mkv", start=Fraction("0.4"), end=Fraction("0.6"))
    assert [when for when, _ in read_video(tmp_path / "b.mkv")] == [40 * i * MS for i in range(5)]


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "libx264"), (".avi", "ffv1")])
def test_a_truncated_video_is_upscaled_as_far_as_it_goes(upscaler, tmp_path, suffix, codec):
    source = write_video(tmp_path / f"a{suffix}", pictures(60), codec=codec, options={"g": "5"})
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


def test_frames_without_times_get_the_next(upscaler, tmp_path):
    source = write_video(tmp_path / "a.h264", pictures(10), container_format="h264")
    make(upscaler, source, tmp_path / "b.mkv")
    assert len(read_frames(tmp_path / "b.mkv")) == 10


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


def test_names_may_contain_colons(upscaler, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mkv", pictures(2)).rename("a:b.mkv")
    make(upscaler, Path("a:b.mkv"), Path("c:d.mkv"))
    assert len(video_packets(tmp_path / "c:d.mkv")) == 2


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
    note_missing_parts(video, times, 40, times[-1] + 1)
    assert list(video.errors.notes()) == notes


@pytest.mark.parametrize("kind", ["frames", "packets", "marked packets"])
def test_short_gaps_count_where_something_is_damaged(tmp_path, kind):
    video = Video(write_video(tmp_path / "a.mkv", pictures(1)))
    video.errors.counts[kind] = 1
    times = [40 * i for i in range(500) if i != 150]
    note_missing_parts(video, times, 40, times[-1] + 1)
    assert "frames may be missing between 0:00:05.96 and 0:00:06.04" in list(video.errors.notes())


def test_a_frame_that_an_mp4_shows_for_two_steps_is_no_gap(tmp_path):
    clock = Fraction(1, 12_800)
    video = Video(write_video(tmp_path / "a.mp4", pictures(1), times=[0], time_base=clock))
    note_missing_parts(video, [512 * i for i in range(500) if i != 150], 512, 10**9)
    assert list(video.errors.notes()) == []


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


@pytest.mark.parametrize(("suffix", "count"), [(".avi", 60), (".mkv", 60), (".mkv", 5)])
def test_frames_of_which_only_times_of_decoding_are_stated_are_all_kept(upscaler, tmp_path, suffix, count):
    """As in AVI, and where such a stream was copied."""
    options = {"bf": "2", "b_strategy": "0", "g": "12", "sc_threshold": "0"}
    path = write_video(tmp_path / "a.avi", pictures(count), options=options)
    if suffix != ".avi":
        with av.open(str(path)) as video, av.open(str(tmp_path / "a.mkv"), "w") as copy:
            stream = copy.add_stream_from_template(video.streams.video[0], opaque=True)
            for each in video.demux(video.streams.video[0]):
                if each.size:
                    each.stream = stream
                    copy.mux(each)
        path = tmp_path / "a.mkv"
    job = VideoJob(upscaler, path, tmp_path / "b.mkv", VideoOptions())
    list(job.upscale())
    assert job.assemble() == []
    shots = list(Video(path).shots())
    assert len(shots) == count
    assert {after.time - before.time for before, after in itertools.pairwise(shots)} == {1 if suffix == ".avi" else 40}
    for first in range(8, count - 10, 5):
        video = Video(path)
        assert video.skip_to(shots[first].time, shots[first].digest())
        assert [(each.time, each.digest()) for each in video.shots()] == [
            (each.time, each.digest()) for each in shots[first + 1 :]
        ]


def test_a_repeated_time_does_not_hide_that_times_are_stated(tmp_path):
    options = {"bf": "2", "x264-params": "bframes=3:b-adapt=0"}
    source = write_video(tmp_path / "a.mp4", pictures(20), options=options, times=[n * n for n in range(20)])
    with av.open(str(source)) as video, av.open(str(tmp_path / "b.mp4"), "w") as copy:
        stream = copy.add_stream_from_template(video.streams.video[0])
        packets = [packet for packet in video.demux(video.streams.video[0]) if packet.size]
        shown = sorted(packets, key=lambda packet: packet.pts)
        shown[6].pts = shown[5].pts
        for packet in packets:
            packet.stream = stream
            copy.mux(packet)
    expected = [shot.time for shot in Video(source).shots()]
    found = [shot.time for shot in Video(tmp_path / "b.mp4").shots()]
    assert found == expected[:6] + expected[7:]


def test_nothing_is_decoded_to_see_that_times_are_stated():
    packets = [SimpleNamespace(pts=pts, dts=dts, size=1) for dts, pts in enumerate((0, 120, 40, 80))]
    container = SimpleNamespace(demux=lambda _: packets)
    stream = SimpleNamespace(codec_context=SimpleNamespace(decode=lambda _: pytest.fail("decoded")))
    assert not decoding.lacks_presentation_times(container, stream)


def test_times_that_decrease_where_recordings_are_joined_do_not_show_that_they_are_stated():
    packets = [SimpleNamespace(pts=time + 1, dts=time, size=1) for time in (0, 1, 2, 0, 1, 2)]
    frames = [SimpleNamespace(pts=pts, dts=dts) for pts, dts in zip((1, 3, 2) * 2, (0, 1, 2) * 2, strict=True)]
    context = SimpleNamespace(decode=lambda packet: [frames.pop(0)] if packet else [])
    container = SimpleNamespace(demux=lambda _: packets)
    assert decoding.lacks_presentation_times(container, SimpleNamespace(codec_context=context))


def test_a_job_that_cannot_begin_closes_its_video(upscaler, tmp_path, monkeypatch):
    closed, close = [], Video.close
    monkeypatch.setattr(Video, "close", lambda video: closed.append(close(video)))
    source = write_video(tmp_path / "a.mkv", pictures(2))
    with pytest.raises(VideoError):
        VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions(codec="nonsense"))
    assert len(closed) == 1


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
    limits = find_limits(VideoOptions(**{name: Fraction(text) for name, text in options.items()}), video)
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
    note_missing_parts(video, times, duration, None)
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
    monkeypatch.setattr(missing.log, "info", lambda text, *values: texts.append(text % values))
    assert job.assemble() == []
    assert texts == [f"{path}: 1 packet marked as damaged, as where parts are joined"]


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


@pytest.mark.parametrize(
    ("form", "begin", "duration", "end"),
    [
        ("nut", 1000, 1004, 1004),
        ("asf", 1000, 1004, 1004),
        ("flv", 1000, 1004, 1004),
        ("flv", 1000, 4, 1004),
        ("flv", 0, 4, 4),
        ("mpegts", 1000, 4, 1004),
    ],
)
def test_the_end_of_a_video_that_begins_late(form, begin, duration, end):
    """FLV states either its duration or the time of its end."""
    container = SimpleNamespace(format=SimpleNamespace(name=form), duration=duration * 10**6)
    for ticks in (None, duration):
        stream = SimpleNamespace(metadata={}, duration=ticks, time_base=Fraction(1))
        assert opening.find_end(container, stream, Fraction(begin)) == end
