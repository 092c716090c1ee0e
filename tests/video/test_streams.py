"""What is copied from a video: sound, subtitles, attachments, chapters and metadata."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from esrgan.video import VideoJob, VideoOptions, VideoProgress, encoding, muxing
from tests.helpers.video import (
    MS,
    make,
    notes_of,
    pictures,
    read_frames,
    read_video,
    to_frame,
    write_video,
)


def test_packets_of_a_whole_video_are_not_cut():
    stream = SimpleNamespace(type="subtitle", disposition=0)
    packet = SimpleNamespace(pts=100, dts=60, duration=50, time_base=Fraction(1, 1000), stream=stream, size=3)
    assert [*muxing._select_packets([packet], None, None)] == [packet]
    assert (packet.pts, packet.dts, packet.duration) == (100, 60, 50)


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
    assert last == VideoProgress(len(times), len(times), 0, last.total)
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


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_subtitle_at_the_ends_of_a_part_is_cut(upscaler, tmp_path, suffix):
    """Subtitles are shown from 10 to 90 and from 100 to 180 ms, with chapters from 0 and 200 ms."""
    times = [40 * i for i in range(10)]
    path = write_video(tmp_path / f"a{suffix}", pictures(10), times=times, time_base=MS, subtitles=True, chapters=True)
    make(upscaler, path, tmp_path / f"b{suffix}", start=Fraction("0.08"), end=Fraction("0.16"))
    with av.open(str(tmp_path / f"b{suffix}")) as video:
        texts = [(each.pts, each.duration) for each in video.demux(subtitles=0) if each.size > 2]
        assert video.duration == 80_000
        assert [(each["start"], each["end"]) for each in video.chapters()] in ([(0, 80)], [(0, 80_000_000)])
    assert read_video(tmp_path / f"b{suffix}")[0][0] == 0
    assert texts == [(0, 10), (20, 60)]


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


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_uncompressed_stereo_is_kept_in_mp4(upscaler, tmp_path, suffix):
    source = write_video(tmp_path / f"a{suffix}", pictures(5), sound=True, sound_codec="pcm_s16le")
    make(upscaler, source, tmp_path / "b.mp4")
    layouts, samples = [], []
    for path in (source, tmp_path / "b.mp4"):
        with av.open(str(path)) as video:
            layouts.append(video.streams.audio[0].layout.name)
            samples.append(b"".join(bytes(packet) for packet in video.demux(audio=0)))
    assert layouts == ["2 channels", "stereo"]
    assert samples[0] == samples[1] != b""


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


def test_metadata_that_are_not_utf_8_are_named(upscaler, tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(2), metadata={"title": "Caf_s"})
    path.write_bytes(path.read_bytes().replace(b"Caf_s", b"Caf\xe9s"))
    assert "characters that are not UTF-8 replaced in metadata: title" in notes_of(upscaler, path, tmp_path / "b.mkv")
    with av.open(str(tmp_path / "b.mkv")) as video:
        assert video.metadata["title"] == "Caf\N{REPLACEMENT CHARACTER}s"


def test_the_rotation_of_a_video_with_alpha_is_kept(upscaler, tmp_path):
    path = write_video(
        tmp_path / "a.mkv", pictures(2, channels=4), codec="libvpx-vp9", pixel_format="yuva420p", rotation=90
    )
    assert read_frames(path)[0].rotation == 90
    make(upscaler, path, tmp_path / "b.mkv")
    assert read_frames(tmp_path / "b.mkv")[0].rotation == 90
    with av.open(str(tmp_path / "b.mkv")) as video:
        assert "alpha_mode" in {key.lower() for key in video.streams.video[0].metadata}


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
        ("pcm_dvd", "`ffmpeg -i b.mkv -i 'a b.avi' -map 1:1 -map 0 -c copy -c:a:0 flac FILE.mkv`"),
    ],
)
def test_sound_that_is_not_written_is_named_with_a_way(monkeypatch, codec, text):
    monkeypatch.setattr(muxing, "_can_hold", lambda container, _: (codec, container) == ("pcm_mulaw", "mov"))
    stream = SimpleNamespace(type="audio", index=1, language="fra", codec_context=SimpleNamespace(name=codec))
    video = SimpleNamespace(path=Path("a b.avi"))
    assert text in muxing._describe_lost_stream(video, stream, Path("b.mkv"), is_part=False)
    if codec == "adpcm_ms":
        assert "ffmpeg" not in muxing._describe_lost_stream(video, stream, Path("b.mkv"), is_part=True)
