"""Colours of films: what H.273 defines, and what comes back."""

from __future__ import annotations

import av
import numpy as np
import pytest

from esrgan.errors import VideoError
from esrgan.video.colour import Coding, coding_of, depth, has_alpha, is_grey, is_supported, to_frame, to_pixels

RNG = np.random.default_rng(0)
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
BT709 = Coding(1, False)


def planes(frame):
    kind = np.uint8 if depth(frame.format.name) == 8 else np.uint16
    return [np.frombuffer(memoryview(p), kind).reshape(p.height, -1)[:, : p.width] for p in frame.planes]


def reference(rgb, matrix, is_full_range, bits):
    """Return Y, Cb and Cr of (…, 3) in [0, 1] before rounding, by the equations of H.273, §8.3."""
    kr, kb = WEIGHTS[matrix]
    y = kr * rgb[..., 0] + (1 - kr - kb) * rgb[..., 1] + kb * rgb[..., 2]
    pb, pr = (rgb[..., 2] - y) / (2 * (1 - kb)), (rgb[..., 0] - y) / (2 * (1 - kr))
    unit = 1 << (bits - 8)
    if is_full_range:
        top = (1 << bits) - 1
        return [top * y, top * pb + 128 * unit, top * pr + 128 * unit]
    return [unit * (219 * y + 16), unit * (224 * pb + 128), unit * (224 * pr + 128)]


@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("is_full_range", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_codes_are_those_of_the_standard(matrix, is_full_range, bits):
    top = 255 if bits == 8 else 65535
    pixels = RNG.integers(0, top + 1, (9, 11, 3)).astype(np.uint8 if bits == 8 else np.uint16)
    coding = Coding(matrix, is_full_range)
    frame = to_frame(pixels, "yuv444p" if bits == 8 else f"yuv444p{bits}le", coding)
    expected = reference(pixels / top, matrix, is_full_range, bits)
    for found, exact in zip(planes(frame), expected, strict=True):
        assert np.abs(found - exact.clip(0, (1 << bits) - 1)).max() < 0.501
    assert (frame.colorspace, frame.color_range) == (matrix, 2 if is_full_range else 1)
    assert coding_of(frame) == coding
    back = to_pixels(frame, coding)
    assert np.abs(back.astype(int) - pixels).max() / top < 2.1 / ((1 << bits) - 1)


def test_colour_bars_have_their_published_codes():
    """75 % bars of BT.709, and what they become again, within one level."""
    bars = {(191, 191, 0): (168, 44, 136), (0, 191, 191): (145, 147, 44), (191, 0, 191): (63, 193, 204)}
    bars |= {(191, 0, 0): (51, 109, 212), (0, 0, 191): (28, 212, 120), (191, 191, 191): (180, 128, 128)}
    for sampling in ("yuv420p", "yuv422p", "yuv444p"):
        pixels = np.repeat(np.array([*bars], np.uint8)[None], 16, 0).repeat(16, 1)
        frame = to_frame(pixels, sampling, BT709)
        luma, *chroma = planes(frame)
        step = chroma[0].shape[1] // len(bars)
        for i, codes in enumerate(bars.values()):
            assert (luma[0, 16 * i + 8], *(plane[0, step * i + step // 2] for plane in chroma)) == codes
        inside = np.arange(pixels.shape[1]) % 16 // 4 % 3 > 0
        back = to_pixels(frame, BT709).astype(int)
        assert np.abs(back - pixels)[:, inside].max() <= 1


YUV = "yuv420p yuv422p yuv444p yuv440p yuv411p yuv410p yuva420p yuva444p10le yuv420p10le yuv422p12le yuv444p16le nv12"
YUV += " yuyv422 uyvy422 nv16 yuv420p10be gray ya8"
RGB = "rgb24 bgr24 rgba bgra bgr0 argb gbrp gbrap gbrp16le rgb48le rgba64le rgb48be gbrap16le"


@pytest.mark.parametrize("name", YUV.split())
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (6, 8)])
def test_one_colour_comes_back_in_any_format(name, size):
    kind = np.uint8 if depth(name) == 8 else np.uint16
    channels = (1 if is_grey(name) else 3) + has_alpha(name)
    colour = (np.array([0.2, 0.6, 0.4, 0.9])[:channels] * np.iinfo(kind).max).astype(kind)
    pixels = np.broadcast_to(colour, (*size, channels))
    frame = to_frame(pixels, name, BT709)
    assert (frame.format.name, frame.height, frame.width) == (name, *size)
    back = to_pixels(frame, BT709)
    assert back.dtype == kind
    assert np.abs(back.astype(int) - pixels).max() <= np.iinfo(kind).max / 255
    assert (back == back[0, 0]).all()


@pytest.mark.parametrize("name", RGB.split())
def test_rgb_is_exact(name):
    kind = np.uint8 if depth(name) == 8 else np.uint16
    pixels = RNG.integers(0, np.iinfo(kind).max + 1, (5, 7, 3 + has_alpha(name))).astype(kind)
    frame = to_frame(pixels, name, Coding(0, True))
    assert coding_of(frame) == Coding(0, True)
    np.testing.assert_array_equal(to_pixels(frame, Coding(0, True)), pixels)


@pytest.mark.parametrize("name", ["gray10le", "gbrp10le", "gbrap12le"])
def test_samples_of_other_depths_use_the_whole_range(name):
    top = (1 << depth(name)) - 1
    channels = (1 if is_grey(name) else 3) + has_alpha(name)
    levels = RNG.integers(0, top + 1, (5, 7, channels))
    pixels = np.rint(levels * 65535 / top).astype(np.uint16)
    np.testing.assert_array_equal(to_pixels(to_frame(pixels, name, Coding(0, True)), Coding(0, True)), pixels)


def test_chroma_keeps_its_place():
    """Columns of chroma coincide with the even ones of luma, and lines lie between two of luma."""
    x = np.arange(64)
    ramp = np.stack([100 + x, 100 + 0 * x, 100 - x], 1)[None].repeat(32, 0).astype(np.uint8)
    exact = reference(ramp / 255, 1, False, 8)[1]
    frame = to_frame(ramp, "yuv420p", BT709)
    assert np.abs(planes(frame)[1][:, 1:-1] - exact[::2, 2:-2:2]).max() < 0.51
    across = np.abs(to_pixels(frame, BT709).astype(int) - ramp)[:, 4:-4].max()
    down = np.ascontiguousarray(ramp.transpose(1, 0, 2))
    along = np.abs(to_pixels(to_frame(down, "yuv420p", BT709), BT709).astype(int) - down)[4:-4].max()
    assert (across, along) <= (2, 2)


def test_what_is_not_specified_is_what_players_assume():
    def found(size, name="yuv420p", colorspace=2, color_range=0):
        frame = av.VideoFrame(*size, name)
        frame.colorspace, frame.color_range = colorspace, color_range
        return coding_of(frame)

    assert found((720, 576)) == Coding(5, False)
    assert found((640, 480)) == Coding(6, False)
    assert found((1280, 720)) == Coding(1, False)
    assert found((640, 480), colorspace=9, color_range=2) == Coding(9, True)
    assert found((640, 480), "yuvj420p") == Coding(6, True)
    assert found((640, 480), "gray") == Coding(6, True)
    with pytest.raises(VideoError, match="got 8; convert the film"):
        found((640, 480), colorspace=8)


def test_formats_that_are_not_converted_are_known():
    names = ["grayf32le", "gbrpf16le", "bayer_rggb8", "xyz12le", "cuda", "p010le", "rgb565le"]
    assert not any(map(is_supported, names))
    assert all(map(is_supported, (YUV + " " + RGB + " pal8 monow yuvj444p").split()))
