"""Pixels, colours and their description in the output."""

from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from esrgan import Upscaler
from esrgan.errors import VideoError
from esrgan.video import VideoJob, VideoOptions, colour, encoding, pipeline
from esrgan.video.source import Video
from tests.helpers.video import (
    colours,
    make,
    message,
    notes_of,
    pictures,
    read_frames,
    to_frame,
    write_video,
)


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


def test_frames_are_made_in_any_format():
    assert to_frame(pictures(1)[0], "yuv420p").format.name == "yuv420p"


def test_transparency_that_an_encoder_only_lists_is_dropped_with_a_note(upscaler, tmp_path):
    frames = pictures(1, (48, 96), channels=4)
    source = write_video(tmp_path / "a.mov", frames, codec="prores_ks", pixel_format="yuva444p10le")
    job = VideoJob(upscaler, source, tmp_path / "b.mkv", VideoOptions(codec="h265"))
    assert not colour.has_alpha(job.encoding.pixel_format)
    assert any("transparency not kept" in note for note in job.notes())


def test_av1_stays_av1(upscaler, tmp_path):
    source = write_video(tmp_path / "a.mp4", pictures(2, (64, 64)), codec="libsvtav1")
    assert VideoJob(upscaler, source, tmp_path / "b.mp4", VideoOptions()).encoding.codec == "libsvtav1"


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
    text = message(upscaler, path, tmp_path / "b.mp4", codec="av1")
    assert " 128×128 yuv420p at 500 frames/s (" in text  # the format that fits best
    properties = replace(Video(path).properties, codec="av1")
    for suffix, other in ((".mp4", "libx264"), (".webm", "libvpx-vp9")):
        chosen = encoding.choose_encoding(properties, (128, 128), tmp_path / f"b{suffix}")
        assert chosen.codec == other
        reason = "cannot encode 128×128 yuv420p at 500 frames/s (Invalid argument)"
        assert chosen.notes == (f"libsvtav1 {reason}, so {other} is used",)
    for options in ({"crf": 60}, {"pixel_format": "yuv420p"}):  # which are meant for one encoder
        with pytest.raises(VideoError) as error:
            encoding.choose_encoding(properties, (128, 128), tmp_path / "b.mp4", **options)
        remedy = "leave out --crf and --pixel-format to use another codec, or choose another --codec"
        assert str(error.value) == f"libsvtav1: {reason}; {remedy}"


def test_vp8_is_encoded_by_one_thread():
    """Its threads spin while they wait, which takes small frames 40 times as long."""
    for codec, count in (("libvpx", 1), ("libvpx-vp9", 4)):
        encoder = av.CodecContext.create(codec, "w")
        coding = colour.Coding(5, False)
        encoding.Encoding(codec, "yuv420p", 8, 8, coding, 2, 2, Fraction(1, 25), Fraction(25), None).configure(encoder)
        assert encoder.thread_count == count


def test_a_crf_below_0_is_refused(upscaler, tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(1))
    assert "expected a number from 0 to 51" in message(upscaler, path, tmp_path / "b.mkv", crf=-3)


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
