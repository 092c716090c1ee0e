"""Conversion of frames to RGB and back, compared with the equations of ITU-T H.273 in float64."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from esrgan.errors import EsrganError
from esrgan.video import colour
from esrgan.video.colour import Coding

# K_R and K_B (H.273, table 4).
K = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
LIMITED_709, FULL_RGB = Coding(1, False), Coding(0, True)
# Factors by which chroma is smaller down and across.
FACTORS = {"444": (1, 1), "422": (1, 2), "420": (2, 2), "440": (2, 1), "411": (1, 4), "410": (4, 4)}
# 75 % bars of 8 bits in limited range: Y, Cb, Cr (BT.601 as in SMPTE EG 1, BT.709 as in SMPTE RP 219).
BARS = {
    6: {
        (1, 1, 1): (180, 128, 128),
        (1, 1, 0): (162, 44, 142),
        (0, 1, 1): (131, 156, 44),
        (0, 1, 0): (112, 72, 58),
        (1, 0, 1): (84, 184, 198),
        (1, 0, 0): (65, 100, 212),
        (0, 0, 1): (35, 212, 114),
        (0, 0, 0): (16, 128, 128),
    },
    1: {
        (1, 1, 1): (180, 128, 128),
        (1, 1, 0): (168, 44, 136),
        (0, 1, 1): (145, 147, 44),
        (0, 1, 0): (133, 63, 52),  # luma is 133.47; 134 in some tables is the code of 10 bits, 534, rounded again
        (1, 0, 1): (63, 193, 204),
        (1, 0, 0): (51, 109, 212),
        (0, 0, 1): (28, 212, 120),
        (0, 0, 0): (16, 128, 128),
    },
}


def random(shape: tuple[int, ...], top: int, dtype: type = np.uint16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top + 1, shape).astype(dtype)


def lines(frame: VideoFrame, index: int = 0) -> np.ndarray:
    """Return a view of a plane with its padding, as integers of the width of one sample."""
    plane = frame.planes[index]
    order = ">" if frame.format.is_big_endian else "<"
    dtype = "u1" if max(each.bits for each in frame.format.components) <= 8 else f"{order}u2"
    return np.frombuffer(plane, dtype).reshape(plane.height, -1)


def make_frame(pixel_format: str, planes: list[np.ndarray]) -> VideoFrame:
    """Return a planar frame whose padding holds noise."""
    frame = VideoFrame(planes[0].shape[1], planes[0].shape[0], pixel_format)
    for index, plane in enumerate(planes):
        target = lines(frame, index)
        target[:] = random(target.shape, 255)
        target[:, : plane.shape[1]] = plane
    return frame


def read_planes(frame: VideoFrame) -> list[np.ndarray]:
    return [lines(frame, i)[:, : plane.width].copy() for i, plane in enumerate(frame.planes)]


def chroma_shape(height: int, width: int, sampling: str) -> tuple[int, int]:
    down, across = FACTORS[sampling]
    return -(-height // down), -(-width // across)


def reference_matrix(matrix: int) -> np.ndarray:
    """Return the matrix from RGB to Y', Pb, Pr."""
    red, blue = K[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    return np.stack([luma, (np.eye(3)[2] - luma) / (2 - 2 * blue), (np.eye(3)[0] - luma) / (2 - 2 * red)])


def reference_codes(rgb: np.ndarray, coding: Coding, bits: int) -> np.ndarray:
    """Return Y, Cb, Cr of RGB (..., 3) in [0, 1], not rounded."""
    values = rgb @ reference_matrix(coding.matrix).T
    if coding.is_full_range:
        return np.minimum(values * (2**bits - 1) + [0, 2 ** (bits - 1), 2 ** (bits - 1)], 2**bits - 1)
    return 2 ** (bits - 8) * (values * [219, 224, 224] + [16, 128, 128])


def reference_rgb(codes: np.ndarray, coding: Coding, bits: int) -> np.ndarray:
    """Return RGB in [0, 1] of Y, Cb, Cr (..., 3), not rounded."""
    codes = codes.astype(np.float64)
    if coding.is_full_range:
        values = (codes - [0, 2 ** (bits - 1), 2 ** (bits - 1)]) / (2**bits - 1)
    else:
        values = (codes / 2 ** (bits - 8) - [16, 128, 128]) / [219, 224, 224]
    return np.clip(values @ np.linalg.inv(reference_matrix(coding.matrix)).T, 0, 1)


def assert_rounded(actual: np.ndarray, exact: np.ndarray, slack: float = 0.004) -> None:
    """Assert that integers are the nearest ones to exact values, but for the error of float32."""
    assert np.abs(actual - exact).max() <= 0.5 + slack


def flat(rgb: tuple[float, ...], peak: int = 255, size: tuple[int, int] = (6, 10)) -> np.ndarray:
    return np.full((*size, len(rgb)), np.rint(np.array(rgb) * peak), np.uint8 if peak == 255 else np.uint16)


# Values


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
@pytest.mark.parametrize("is_full_range", [False, True])
@pytest.mark.parametrize("matrix", K)
def test_values_follow_the_equations(matrix: int, is_full_range: bool, bits: int) -> None:
    coding, name = Coding(matrix, is_full_range), "yuv444p" if bits == 8 else f"yuv444p{bits}le"
    peak, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    slack = 0.05 if bits > 8 else 0.004  # levels of 16 bits are close to the resolution of float32
    codes = random((7, 19, 3), 2**bits - 1)
    pixels = colour.to_pixels(make_frame(name, list(np.moveaxis(codes, 2, 0))), coding)
    assert pixels.dtype == dtype
    assert_rounded(pixels, reference_rgb(codes, coding, bits) * peak, slack)
    pixels = random((7, 19, 3), peak, dtype)
    pixels[0, :8] = np.indices((2, 2, 2)).reshape(3, 8).T * peak
    frame = colour.to_frame(pixels, name, coding)
    assert frame.format.name == name
    assert_rounded(np.stack(read_planes(frame), 2), reference_codes(pixels / peak, coding, bits), slack)


@pytest.mark.parametrize(("matrix", "rgb"), [(matrix, rgb) for matrix, bars in BARS.items() for rgb in bars])
def test_colour_bars_have_the_published_codes(matrix: int, rgb: tuple[int, ...]) -> None:
    # 16 bits, because 75 % is no level of 8 bits.
    pixels = flat(tuple(0.75 * each for each in rgb), 65535)
    planes = read_planes(colour.to_frame(pixels, "yuv444p", Coding(matrix, False)))
    assert tuple(int(plane[0, 0]) for plane in planes) == BARS[matrix][rgb]
    bars = colour.to_pixels(make_frame("yuv444p", planes), Coding(matrix, False))
    assert np.abs(bars - 191.25 * np.array(rgb)).max() <= 2


@pytest.mark.parametrize("matrix", K)
@pytest.mark.parametrize("is_full_range", [False, True])
@pytest.mark.parametrize(("name", "peak", "top"), [("yuv444p", 255, 255), ("yuv444p10le", 65535, 1023)])
def test_a_round_trip_is_within_one_level(matrix: int, is_full_range: bool, name: str, peak: int, top: int) -> None:
    coding = Coding(matrix, is_full_range)
    pixels = random((32, 64, 3), peak, np.uint8 if peak == 255 else np.uint16)
    result = colour.to_pixels(colour.to_frame(pixels, name, coding), coding)
    # Rounding the codes of limited range can cost 1.7 levels, since it has fewer codes than levels.
    assert np.abs(result.astype(int) - pixels).max() * top / peak <= (1.5 if is_full_range else 2.01)


@pytest.mark.parametrize("name", ["yuv444p", "yuv420p", "yuv422p10le"])
@pytest.mark.parametrize("is_full_range", [False, True])
def test_grey_pixels_survive_exactly(name: str, is_full_range: bool) -> None:
    peak, dtype = (65535, np.uint16) if "10" in name else (255, np.uint8)
    # Limited range has 220 codes of grey (877 of 10 bits), so only values that have one can survive.
    top = (2 ** colour.depth(name) - 1) if is_full_range else 219 * 2 ** (colour.depth(name) - 8)
    exact = np.linspace(0, peak, top + 1)
    pixels = np.tile(np.rint(exact).astype(dtype)[None, :, None], (2, 1, 3))
    coding = Coding(1, is_full_range)
    result = colour.to_pixels(colour.to_frame(pixels, name, coding), coding)
    assert_rounded(result, exact[None, :, None], slack=0.05)


def test_luma_beyond_the_nominal_range_is_clipped_as_rgb() -> None:
    codes = [np.array([[0, 16, 235, 255]]), np.full((1, 4), 128), np.full((1, 4), 128)]
    pixels = colour.to_pixels(make_frame("yuv444p", codes), LIMITED_709)
    assert pixels[0, :, 1].tolist() == [0, 0, 255, 255]


# Chroma


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 16), (9, 33)])
@pytest.mark.parametrize("sampling", FACTORS)
def test_one_colour_is_exact_everywhere(sampling: str, size: tuple[int, int]) -> None:
    pixels = flat((0.75, 0.25, 0.1), size=size)
    full = colour.to_frame(pixels, "yuv444p", LIMITED_709)
    frame = colour.to_frame(pixels, f"yuv{sampling}p", LIMITED_709)
    assert (frame.height, frame.width) == size
    for plane, expected in zip(read_planes(frame), read_planes(full), strict=True):
        assert np.unique(plane).tolist() == [expected[0, 0]]
    assert read_planes(frame)[1].shape == chroma_shape(*size, sampling)
    np.testing.assert_array_equal(colour.to_pixels(frame, LIMITED_709), colour.to_pixels(full, LIMITED_709))


@pytest.mark.parametrize("sampling", ["422", "420", "411"])
def test_flat_patches_are_exact_inside(sampling: str) -> None:
    pixels = np.concatenate([flat((0.75, 0, 0), size=(16, 16)), flat((0, 0.5, 0.75), size=(16, 16))], 1)
    full = colour.to_pixels(colour.to_frame(pixels, "yuv444p", LIMITED_709), LIMITED_709)
    result = colour.to_pixels(colour.to_frame(pixels, f"yuv{sampling}p", LIMITED_709), LIMITED_709)
    for columns in (slice(0, 12), slice(20, 32)):
        np.testing.assert_array_equal(result[:, columns], full[:, columns])


def positions(length: int, factor: int, is_cosited: bool) -> np.ndarray:
    """Return the positions of chroma samples, in luma samples."""
    return np.arange(-(-length // factor)) * factor + (0 if is_cosited else (factor - 1) / 2)


def chroma_positions(length: int, sampling: str, axis: int) -> np.ndarray:
    """Return where chroma samples lie, in luma samples: on columns, and between lines."""
    factor = FACTORS[sampling][axis]
    return np.arange(0, length, factor) + (0 if axis else (factor - 1) / 2)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sampling", FACTORS)
def test_decoded_chroma_keeps_its_position(sampling: str, axis: int) -> None:
    length, coding = 16, Coding(1, True)
    at = chroma_positions(length, sampling, axis)
    ramp, shape = np.rint(40 + 11 * at), chroma_shape(length, length, sampling)
    cb = np.broadcast_to(ramp if axis else ramp[:, None], shape)
    frame = make_frame(f"yuv{sampling}p", [np.full((length, length), 128), cb, np.full(shape, 128)])
    codes = np.full((length, 3), 128.0)
    codes[:, 1] = np.interp(np.arange(length), at, ramp)  # which repeats the edges
    pixels = colour.to_pixels(frame, coding)
    lines_of_ramp = pixels if axis else pixels.swapaxes(0, 1)
    assert_rounded(lines_of_ramp, np.broadcast_to(reference_rgb(codes, coding, 8) * 255, pixels.shape))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sampling", FACTORS)
def test_encoded_chroma_keeps_its_position(sampling: str, axis: int) -> None:
    length, coding = 16, Coding(1, True)
    ramp = np.full((length, 3), 100, np.uint8)
    ramp[:, 2] = 40 + 12 * np.arange(length)
    pixels = np.tile(ramp, (length, 1, 1)) if axis else np.repeat(ramp[:, None], length, axis=1)
    exact = reference_codes(ramp / 255, coding, 8)[:, 1]
    expected = np.interp(chroma_positions(length, sampling, axis), np.arange(length), exact)
    cb = read_planes(colour.to_frame(pixels, f"yuv{sampling}p", coding))[1]
    cb = cb if axis else cb.T
    # The filter sees repeated pixels at the edges, so the ramp is not straight there.
    assert_rounded(cb[:, 1:-1], np.broadcast_to(expected, cb.shape)[:, 1:-1])


@pytest.mark.parametrize("sampling", ["422", "420"])
def test_chroma_is_filtered_by_one_two_one(sampling: str) -> None:
    pixels = np.zeros((2, 12, 3), np.uint8)
    pixels[:, 4] = 255  # on a chroma column
    pixels[:, 9, 2] = 255  # between two
    coding = Coding(1, True)
    exact = np.pad(reference_codes(pixels[0] / 255, coding, 8)[:, 1], 1, mode="edge")
    expected = [exact[i : i + 3] @ [0.25, 0.5, 0.25] for i in range(0, 12, 2)]
    cb = read_planes(colour.to_frame(pixels, f"yuv{sampling}p", coding))[1]
    assert_rounded(cb, np.broadcast_to(expected, cb.shape))


# Formats


@pytest.mark.parametrize("name", ["rgb24", "bgr24", "bgra", "argb", "0rgb", "bgr0", "gbrp", "gbrap"])
def test_rgb_of_8_bits_is_exact(name: str) -> None:
    pixels = random((3, 37, 4 if colour.has_alpha(name) else 3), 255, np.uint8)
    frame = colour.to_frame(pixels, name, FULL_RGB)
    assert (frame.format.name, colour.coding_of(frame)) == (name, FULL_RGB)
    np.testing.assert_array_equal(colour.to_pixels(frame, FULL_RGB), pixels)


def test_components_of_rgb_are_where_the_format_has_them() -> None:
    pixels = np.array([[[10, 20, 30, 40]]], np.uint8)
    stored = {name: lines(colour.to_frame(pixels, name, FULL_RGB))[0, :4].tolist() for name in ("rgba", "bgra", "argb")}
    assert stored == {"rgba": [10, 20, 30, 40], "bgra": [30, 20, 10, 40], "argb": [40, 10, 20, 30]}
    assert [int(plane[0, 0]) for plane in read_planes(colour.to_frame(pixels, "gbrap", FULL_RGB))] == [20, 30, 10, 40]
    big = colour.to_frame(pixels[..., :3].astype(np.uint16) * 257, "rgb48be", FULL_RGB)
    assert lines(big)[0, :3].tolist() == [2570, 5140, 7710]


@pytest.mark.parametrize(("name", "bits"), [("rgb555le", (5, 5)), ("rgb565le", (5, 6)), ("bgr565le", (5, 6))])
def test_rgb_of_5_and_6_bits_fills_the_range(name: str, bits: tuple[int, int]) -> None:
    """As in old AVI and QuickTime files."""
    red, green = ((1 << each) - 1 for each in bits)
    levels = {"black": (0, 0, 0), "white": (red, green, red), "first": (red, 0, 0), "dark": (8, 0, 0)}
    shifts = (bits[0] + bits[1], bits[0], 0) if name.startswith("rgb") else (0, bits[0], bits[0] + bits[1])
    frame = VideoFrame(len(levels), 1, name)
    codes = [sum(level << shift for level, shift in zip(each, shifts, strict=True)) for each in levels.values()]
    np.frombuffer(frame.planes[0], "<u2")[: len(codes)] = codes
    pixels = colour.to_pixels(frame, FULL_RGB)
    assert pixels.tolist() == [[[0, 0, 0], [255, 255, 255], [255, 0, 0], [66, 0, 0]]]


@pytest.mark.parametrize("name", ["rgb48le", "rgb48be", "bgr48le", "rgba64be", "gbrp16le", "gbrap16be"])
def test_rgb_of_16_bits_is_exact(name: str) -> None:
    pixels = random((3, 37, 4 if colour.has_alpha(name) else 3), 65535)
    np.testing.assert_array_equal(colour.to_pixels(colour.to_frame(pixels, name, FULL_RGB), FULL_RGB), pixels)


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
@pytest.mark.parametrize("kind", ["gray", "gbrp"])
def test_levels_between_8_and_16_bits_use_the_whole_range(kind: str, bits: int) -> None:
    name, top = f"{kind}{bits}le", 2**bits - 1
    codes = np.arange(top + 1).reshape(2, -1)
    planes = [codes] if kind == "gray" else [codes, codes[::-1], np.zeros_like(codes)]  # G, B, R
    coding = Coding(0 if kind == "gbrp" else 1, True)
    frame = make_frame(name, planes)
    pixels = colour.to_pixels(frame, coding)
    expected = [(2 * 65535 * plane + top) // (2 * top) for plane in planes]  # in integers, rounded to nearest
    np.testing.assert_array_equal(pixels, np.stack([expected[i] for i in ([0] if kind == "gray" else [2, 0, 1])], 2))
    for plane, again in zip(planes, read_planes(colour.to_frame(pixels, name, coding)), strict=True):
        np.testing.assert_array_equal(again, plane)


@pytest.mark.parametrize("name", ["gray", "gray10le", "gray16le", "gray16be", "ya8", "ya16le"])
def test_grey_stays_grey(name: str) -> None:
    is_deep = colour.depth(name) > 8
    shape = (3, 37, 2 if colour.has_alpha(name) else 1)
    pixels = random(shape, 255, np.uint8) if not is_deep else random(shape, 2 ** colour.depth(name) - 1)
    if name == "gray10le":
        pixels = np.rint(pixels * (65535 / 1023)).astype(np.uint16)
    coding = Coding(1, True)
    frame = colour.to_frame(pixels, name, coding)
    assert frame.format.name == name
    np.testing.assert_array_equal(colour.to_pixels(frame, coding), pixels)


@pytest.mark.parametrize(("name", "coding"), [("gray", LIMITED_709), ("gbrp", Coding(0, False))])
def test_limited_range_without_chroma(name: str, coding: Coding) -> None:
    codes = np.array([[0, 16, 126, 235, 255]])
    frame = make_frame(name, [codes] * len(VideoFrame(1, 1, name).planes))
    pixels = colour.to_pixels(frame, coding)
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert read_planes(colour.to_frame(pixels, name, coding))[0].tolist() == [[16, 16, 126, 235, 235]]


def test_black_and_white_of_one_bit() -> None:
    frame = VideoFrame(21, 1, "monow")  # where 0 is white
    lines(frame)[0, :3] = 0b01010011
    pixels = colour.to_pixels(frame, colour.coding_of(frame))
    assert pixels[0, :8, 0].tolist() == [255, 0, 255, 0, 255, 255, 0, 0]


def test_a_palette_becomes_rgba() -> None:
    frame = VideoFrame(5, 2, "pal8")
    lines(frame)[:, :5] = [[0, 1, 2, 1, 0], [2, 2, 2, 2, 2]]
    colours = np.array([[1, 2, 3, 255], [40, 50, 60, 128], [7, 8, 9, 0]], np.uint8)
    np.frombuffer(frame.planes[1], np.uint8).reshape(-1, 4)[:3] = colours[:, [2, 1, 0, 3]]  # stored as BGRA
    pixels = colour.to_pixels(frame, colour.coding_of(frame))
    np.testing.assert_array_equal(pixels, colours[[[0, 1, 2, 1, 0], [2, 2, 2, 2, 2]]])
    with pytest.raises(EsrganError, match="pal8"):
        colour.to_frame(pixels, "pal8", FULL_RGB)


@pytest.mark.parametrize("name", ["yuva420p", "yuva444p10le", "yuva422p16le"])
@pytest.mark.parametrize("is_full_range", [False, True])
def test_alpha_is_kept_exactly_in_full_range(name: str, is_full_range: bool) -> None:
    bits = colour.depth(name)
    peak, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    codes = random((5, 37), 2**bits - 1)
    alpha = np.rint(codes * (peak / (2**bits - 1))).astype(dtype)
    pixels = np.dstack([random((5, 37, 3), peak, dtype), alpha])
    coding = Coding(1, is_full_range)
    frame = colour.to_frame(pixels, name, coding)
    np.testing.assert_array_equal(read_planes(frame)[3], codes)
    np.testing.assert_array_equal(colour.to_pixels(frame, coding)[..., 3], alpha)


@pytest.mark.parametrize(("name", "coding"), [("ya8", LIMITED_709), ("gbrap", Coding(0, False))])
def test_alpha_without_chroma_is_kept_in_limited_range(name: str, coding: Coding) -> None:
    pixels = random((5, 37, 2 if name == "ya8" else 4), 255, np.uint8)
    frame = colour.to_frame(pixels, name, coding)
    alpha = lines(frame)[:, 1 : 2 * 37 : 2] if name == "ya8" else read_planes(frame)[3]
    np.testing.assert_array_equal(alpha, pixels[..., -1])
    np.testing.assert_array_equal(colour.to_pixels(frame, coding)[..., -1], pixels[..., -1])


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 38)])
@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "twin", "shift"),
    [
        ("nv12", "yuv420p", 0),
        ("nv16", "yuv422p", 0),
        ("nv24", "yuv444p", 0),
        ("p010le", "yuv420p10le", 6),
        ("p016le", "yuv420p16le", 0),
        ("p210le", "yuv422p10le", 6),
    ],
)
def test_semi_planar_frames_equal_planar_ones(
    name: str, twin: str, shift: int, color_range: int, size: tuple[int, int]
) -> None:
    bits, shape = colour.depth(twin), chroma_shape(*size, twin[3:6])
    y, u, v = random(size, 2**bits - 1), random(shape, 2**bits - 1), random((*shape, 2), 2**bits - 1)[..., 1]
    planar = make_frame(twin, [y, u, v])
    semi = make_frame(name, [y << shift, np.dstack([u, v]).reshape(len(u), -1) << shift])
    planar.color_range = semi.color_range = color_range
    coding = colour.coding_of(planar)
    assert colour.coding_of(semi) == coding
    pixels = colour.to_pixels(semi, coding)
    np.testing.assert_array_equal(pixels, colour.to_pixels(planar, coding))
    made, expected = colour.to_frame(pixels, name, coding), read_planes(colour.to_frame(pixels, twin, coding))
    assert (made.format.name, made.color_range) == (name, 2 if coding.is_full_range else 1)
    np.testing.assert_array_equal(lines(made)[:, : size[1]] >> shift, expected[0])
    chroma = lines(made, 1)[:, : 2 * shape[1]] >> shift
    np.testing.assert_array_equal(chroma[:, ::2], expected[1])
    np.testing.assert_array_equal(chroma[:, 1::2], expected[2])


@pytest.mark.parametrize(("name", "order"), [("yuyv422", "yuyv"), ("uyvy422", "uyvy"), ("yvyu422", "yvyu")])
def test_packed_frames_equal_planar_ones(name: str, order: str) -> None:
    y, u, v = random((3, 20), 255), random((3, 10), 200), random((3, 10), 250)
    packed = VideoFrame(20, 3, name)
    parts = {"u": [u], "v": [v], "y": [y[:, ::2], y[:, 1::2]]}
    lines(packed)[:, :40] = np.stack([parts[letter].pop(0) for letter in order], 2).reshape(3, 40)
    expected = colour.to_pixels(make_frame("yuv422p", [y, u, v]), LIMITED_709)
    np.testing.assert_array_equal(colour.to_pixels(packed, LIMITED_709), expected)


def test_frames_are_converted_in_one_thread() -> None:
    """With several, swscale returns wrong lines now and then, which a test would see too rarely."""
    threads = []

    class Frame:
        def reformat(self, **options: Any) -> VideoFrame:
            threads.append(options["threads"])
            return VideoFrame(4, 4, options["format"])

    source = Frame()
    source.format = VideoFrame(4, 4, "y210le").format
    colour.to_pixels(source, LIMITED_709)
    colour._repack(source, "y210le")
    assert threads == [1, 1]


@pytest.mark.parametrize(("name", "twin"), [("y210le", "yuv422p10le"), ("xv30le", "yuv444p10le"), ("vuya", "yuva444p")])
def test_packed_frames_keep_the_samples_of_planar_ones(name: str, twin: str) -> None:
    shapes = [plane.shape for plane in read_planes(VideoFrame(20, 3, twin))]
    planar = make_frame(twin, [random(shape, 2 ** colour.depth(twin) - 1) for shape in shapes])
    packed = planar.reformat(format=name, threads=1)
    np.testing.assert_array_equal(colour.to_pixels(packed, LIMITED_709), colour.to_pixels(planar, LIMITED_709))


@pytest.mark.parametrize("name", ["yuv420p10be", "yuv444p16be", "yuva422p10be"])
def test_big_endian_frames_equal_little_endian_ones(name: str) -> None:
    pixels = random((3, 5, 4 if colour.has_alpha(name) else 3), 65535)
    frames = [colour.to_frame(pixels, each, LIMITED_709) for each in (name, f"{name[:-2]}le")]
    for big, little in zip(*map(read_planes, frames), strict=True):
        np.testing.assert_array_equal(big, little)
    np.testing.assert_array_equal(*(colour.to_pixels(frame, LIMITED_709) for frame in frames))


@pytest.mark.parametrize("is_full_range", [False, True])
@pytest.mark.parametrize("sampling", ["420", "422", "444", "440", "411"])
def test_formats_of_jpeg_equal_the_others(sampling: str, is_full_range: bool) -> None:
    pixels, coding = random((5, 9, 3), 255, np.uint8), Coding(5, is_full_range)
    frames = [colour.to_frame(pixels, name, coding) for name in (f"yuv{sampling}p", f"yuvj{sampling}p")]
    for plane, of_jpeg in zip(*map(read_planes, frames), strict=True):
        np.testing.assert_array_equal(of_jpeg, plane)
    np.testing.assert_array_equal(*(colour.to_pixels(frame, coding) for frame in frames))


# Properties


def coding_of(pixel_format: str, size: tuple[int, int] = (1920, 1080), matrix: int = 2, color_range: int = 0) -> Coding:
    frame = VideoFrame(*size, pixel_format)
    frame.colorspace, frame.color_range = matrix, color_range
    return colour.coding_of(frame)


def test_unspecified_matrix_follows_the_size() -> None:
    sizes = [(720, 576), (352, 288), (720, 480), (1024, 576), (1280, 576), (720, 578), (1920, 1080)]
    assert [coding_of("yuv420p", size).matrix for size in sizes] == [5, 5, 6, 5, 1, 1, 1]
    assert coding_of("gbrp", (720, 576)).matrix == coding_of("pal8").matrix == 0


def test_unspecified_range_follows_the_format() -> None:
    full = {
        name: coding_of(name).is_full_range for name in ("yuv420p", "nv12", "yuvj420p", "gray", "ya8", "rgb24", "pal8")
    }
    assert [name for name, is_full in full.items() if not is_full] == ["yuv420p", "nv12"]


@pytest.mark.parametrize("name", ["yuv420p", "gray", "gbrp"])
def test_specified_range_is_used(name: str) -> None:
    assert [coding_of(name, color_range=each).is_full_range for each in (1, 2)] == [False, True]


@pytest.mark.parametrize("matrix", K)
def test_specified_matrix_is_used(matrix: int) -> None:
    assert coding_of("yuv420p", matrix=matrix) == Coding(matrix, False)


@pytest.mark.parametrize("matrix", [8, 10, 11, 12, 13, 14])
def test_other_matrices_are_refused(matrix: int) -> None:
    with pytest.raises(EsrganError, match=rf"expected .*, got {matrix}\b.*; ") as error:
        coding_of("yuv420p", matrix=matrix)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("coding", [Coding(9, False), Coding(6, True)])
def test_frames_state_how_they_are_coded(coding: Coding) -> None:
    frame = colour.to_frame(flat((0.5, 0.5, 0.5)), "yuv420p", coding)
    assert (int(frame.colorspace), int(frame.color_range)) == (coding.matrix, 2 if coding.is_full_range else 1)
    assert colour.coding_of(frame) == coding


def test_properties_of_formats() -> None:
    names = ["yuv420p", "yuva444p10le", "pal8", "rgb48be", "gray12le", "monow", "ya8", "p010le", "0rgb"]
    assert [colour.depth(name) for name in names] == [8, 10, 8, 16, 12, 1, 8, 10, 8]
    assert [name for name in names if colour.has_alpha(name)] == ["yuva444p10le", "pal8", "ya8"]
    assert all(map(colour.is_supported, names))


@pytest.mark.parametrize(
    "name", ["grayf32le", "gbrpf16le", "rgbaf16le", "bayer_rggb8", "xyz12le", "cuda", "vaapi", "none?", "rgb565be"]
)
def test_other_formats_are_not_supported(name: str) -> None:
    assert not colour.is_supported(name)


def test_frames_of_other_formats_are_refused() -> None:
    with pytest.raises(EsrganError, match="xyz12le"):
        colour.to_pixels(VideoFrame(2, 2, "xyz12le"), FULL_RGB)
    with pytest.raises(EsrganError, match="grayf32le"):
        colour.to_frame(flat((0.5,)), "grayf32le", Coding(1, True))


@pytest.mark.parametrize("name", sorted(filter(colour.is_supported, av.video.format.names)))
def test_every_supported_format_can_be_read(name: str) -> None:
    frame = VideoFrame(6, 4, name)
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = 0
    pixels = colour.to_pixels(frame, colour.coding_of(frame))
    assert pixels.shape[:2] == (4, 6)
    assert pixels.dtype == (np.uint8 if colour.depth(name) <= 8 else np.uint16)
    assert (pixels.shape[2] in (2, 4)) == colour.has_alpha(name)
