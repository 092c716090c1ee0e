"""Which frames are upscaled, and which together."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from esrgan import Upscaler, upscale_video
from esrgan.video import colour, pipeline
from esrgan.video.options import DECODED
from tests.helpers.video import colours, make, pictures, write_video


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
    assert len(decoded) <= 5 + 2 + DECODED
    work.close()


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
