"""Tests of upscaling the frames of a file: bands, value ranges, missing samples, grey and alpha as data."""

import numpy as np
import pytest
import torch

from esrgan import Upscaler
from esrgan.images import ImageData
from esrgan.inference import upscale_image
from esrgan.inference.frames import scale_to_unit
from esrgan.weights import RRDBNetArchitecture
from tests.helpers.models import make_model, pixels

RNG = np.random.default_rng(0)


@pytest.fixture
def upscaler(tmp_path):
    return Upscaler.from_file(make_model(tmp_path / "model.pth"), "cpu", "fp32")


def floats(channels, lowest, highest):
    unit = RNG.random((6, 7, channels), np.float32)
    unit.flat[:2] = 0, 1
    return (unit * (np.float64(highest) - lowest) + lowest).astype(np.float32)


@pytest.mark.parametrize(("base", "extra"), [(1, 1), (1, 3), (3, 1), (3, 4), (4, 2)])
def test_extra_bands_are_upscaled_as_grey(upscaler, base, extra):
    frame = pixels(6, 7, base + extra)
    (high,) = upscale_image(upscaler, ImageData((frame,), extra_bands=extra)).frames
    np.testing.assert_array_equal(high[..., :base], upscaler(frame[..., :base]))
    for band in range(base, base + extra):
        np.testing.assert_array_equal(high[..., band], upscaler(np.ascontiguousarray(frame[..., band])))


@pytest.mark.parametrize("transparency", ["colour", "data"])
def test_only_grey_is_coloured(transparency):
    network = RRDBNetArchitecture(2, 3, 8, 4, 1, 1, 2, False, False, is_colouriser=True).build("trunk")
    upscaler = Upscaler(network, torch.device("cpu"), transparency=transparency)
    frame = pixels(6, 7, 3)  # grey, alpha and another band
    (high,) = upscale_image(upscaler, ImageData((frame,), extra_bands=1)).frames
    assert high.shape == (12, 14, 5)
    with torch.no_grad():
        for band in range(3):
            coloured = network.eval()(torch.from_numpy(frame[..., band] / np.float32(255))[None, None])[0]
            expected = (coloured.mean(0) if band else coloured).clamp(0, 1) * 255
            got = high[..., 2 + band] if band else high[..., :3].transpose(2, 0, 1)
            if band or transparency == "data":  # otherwise the colours of invisible pixels are filled in
                np.testing.assert_allclose(got, expected, rtol=0, atol=0.6)


@pytest.mark.parametrize(("lowest", "highest"), [(6600, 54500), (-3, 0.5), (-3e38, 3e38), (0, 1.5), (-1e-30, 0)])
def test_float_range_is_scaled_and_back(upscaler, lowest, highest):
    frame = floats(3, lowest, highest)
    result = upscale_image(upscaler, ImageData((frame,)))
    unit = ((frame.astype(np.float64) - frame.min()) / (np.float64(frame.max()) - frame.min())).astype(np.float32)
    expected = upscaler(unit) * (np.float64(frame.max()) - frame.min()) + frame.min()
    tolerance = 1e-6 * (np.float64(frame.max()) - frame.min())
    np.testing.assert_allclose(result.frames[0], expected, rtol=0, atol=tolerance)
    assert result.notes[0].startswith("float samples from ")


def test_float_range_is_that_of_all_frames_and_one_for_each_extra_band(upscaler):
    frames = floats(4, 0, 1) * [1, 1, 1, 1000], floats(4, 0, 1) * [9, 9, 9, 1]
    frames = tuple(frame.astype(np.float32) for frame in frames)
    result = upscale_image(upscaler, ImageData(frames, extra_bands=1))
    top = max(frame[..., :3].max() for frame in frames)
    low = min(frame[..., :3].min() for frame in frames)
    for frame, high in zip(frames, result.frames, strict=True):
        expected = upscaler((frame[..., :3] - low) / (top - low)) * (top - low) + low
        np.testing.assert_allclose(high[..., :3], expected, rtol=0, atol=1e-4)
    assert len(result.notes) == 2
    assert "of band 4" in result.notes[1]


def test_float_image_within_0_to_1_is_upscaled_as_it_is(upscaler):
    frame = floats(3, 0.2, 0.7)
    result = upscale_image(upscaler, ImageData((frame,)))
    np.testing.assert_array_equal(result.frames[0], upscaler(frame))
    assert result.notes == ()


@pytest.mark.parametrize("value", [np.nan, np.inf, -9999.0, np.finfo(np.float32).min, np.float32(-3.4e38)])
def test_missing_float_samples_are_put_back(upscaler, value):
    frame = floats(1, 200, 900)
    frame[2:4, 3:5] = value
    result = upscale_image(upscaler, ImageData((frame,), no_data=-9999.0))
    (high,), scale = result.frames, upscaler.scale
    expected = np.zeros(high.shape, bool)
    expected[2 * scale : 4 * scale, 3 * scale : 5 * scale] = True
    np.testing.assert_array_equal(high == value if np.isfinite(value) else ~np.isfinite(high), expected)
    assert high[~expected].min() >= 200
    assert "samples without data filled in for the network and put back" in result.notes


def test_missing_integers_are_put_back_and_do_not_multiply(upscaler):
    frame = pixels(6, 7, 3)
    frame[1, 1] = 0
    (high,) = upscale_image(upscaler, ImageData((frame,), no_data=0)).frames
    scale = upscaler.scale
    is_missing = (high == 0).all(axis=2)
    assert is_missing[scale : 2 * scale, scale : 2 * scale].all()
    assert is_missing.sum() == scale**2


def test_image_without_any_data_stays_as_it_is(upscaler):
    frame = np.full((4, 5, 1), np.nan, np.float32)
    (high,) = upscale_image(upscaler, ImageData((frame,))).frames
    assert np.isnan(high).all()


def test_pages_of_different_sizes(upscaler):
    frames = pixels(6, 7, 3), pixels(4, 9, 3)
    result = upscale_image(upscaler, ImageData(frames, "TIFF"))
    for frame, high in zip(frames, result.frames, strict=True):
        np.testing.assert_array_equal(high, upscaler(frame))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_grey_stored_as_rgb_stays_grey(upscaler, dtype):
    grey = RNG.random((6, 7, 1), np.float32)
    if dtype != np.float32:
        grey = (grey * np.iinfo(dtype).max).astype(dtype)
    np.testing.assert_array_equal(upscaler(grey.repeat(3, axis=2)), upscaler(grey).repeat(3, axis=2))


def test_one_coloured_pixel_makes_an_image_coloured(upscaler):
    image = pixels(6, 7, 1).repeat(3, axis=2)
    image[2, 3, 0] ^= 1
    low = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    expected = (upscaler(low)[0].permute(1, 2, 0).clamp(0, 1) * 255).round().numpy()
    np.testing.assert_array_equal(upscaler(image), expected.astype(np.uint8))


def test_alpha_as_data_leaves_colours_alone(upscaler):
    image = pixels(6, 7, 4)
    image[..., 3] = np.where(image[..., 3] > 99, 255, 0)
    data = Upscaler(upscaler.network, upscaler.device, transparency="data")
    np.testing.assert_array_equal(data(image)[..., :3], upscaler(np.ascontiguousarray(image[..., :3])))
    np.testing.assert_array_equal(data(image)[..., 3], upscaler(np.ascontiguousarray(image[..., 3])))
    assert not np.array_equal(upscaler(image)[..., :3], data(image)[..., :3])


def test_hard_alpha_has_two_values(upscaler):
    image = pixels(6, 7, 4)
    image[..., 3] = np.where(image[..., 3] > 99, 255, 0)
    hard, soft = Upscaler(upscaler.network, upscaler.device, transparency="hard")(image), upscaler(image)
    assert set(np.unique(hard[..., 3])) == {0, 255}
    np.testing.assert_array_equal(hard[..., 3] == 255, soft[..., 3] >= 127.5)
    np.testing.assert_array_equal(hard[..., :3], soft[..., :3])


def test_unknown_transparency_is_refused(upscaler):
    with pytest.raises(ValueError, match="transparency: expected colour, data, hard, got none"):
        Upscaler(upscaler.network, upscaler.device, transparency="none")


def alpha_image(*values):
    """Return an RGB image whose alpha has the given values in columns."""
    image = pixels(8, 8, 4)
    image[..., 3] = np.resize(values, 8)
    return image


def with_options(upscaler, **options):
    return Upscaler(upscaler.network, upscaler.device, **options)


def test_float_no_data_in_one_channel_does_not_affect_the_range(upscaler):
    frame = floats(3, 200, 900)
    frame[2, 3, 1] = -9999
    result = upscale_image(upscaler, ImageData((frame,), no_data=-9999.0))
    (high,), scale = result.frames, upscaler.scale
    expected = np.zeros(high.shape, bool)
    expected[2 * scale : 3 * scale, 3 * scale : 4 * scale, 1] = True
    np.testing.assert_array_equal(high == -9999, expected)
    assert high[~expected].min() >= 200
    assert result.notes[0] == "float samples from 200 to 900 scaled to 0–1 for the network and back"


def test_invisible_float_colours_do_not_affect_the_range(upscaler):
    frame = floats(4, 2, 9)
    frame[..., 3] = 1
    frame[:3, :, 3] = 0
    frame[3:, 0, :2] = 2, 9  # the range of the visible colours
    result = upscale_image(upscaler, ImageData((frame,)))
    frame[:3, :, :3] = 1e30
    hidden = upscale_image(upscaler, ImageData((frame,)))
    assert hidden.notes == result.notes == ("float samples from 2 to 9 scaled to 0–1 for the network and back",)
    np.testing.assert_array_equal(hidden.frames[0], result.frames[0])


def test_float_alpha_above_1_is_scaled_by_itself(upscaler):
    frame = floats(4, 0, 1)
    frame[0, :2, 3] = 0, 1
    high = upscale_image(upscaler, ImageData((frame,))).frames[0]
    frame[..., 3] *= 255
    result = upscale_image(upscaler, ImageData((frame,)))
    np.testing.assert_allclose(result.frames[0], high * [1, 1, 1, 255], rtol=1e-4, atol=1e-4)
    assert result.notes == ("float samples of alpha from 0 to 255 scaled to 0–1 for the network and back",)


def test_missing_alpha_is_put_back(upscaler):
    frame = floats(4, 0, 1)
    frame[1, 2, 3] = np.nan
    (high,), scale = upscale_image(upscaler, ImageData((frame,))).frames, upscaler.scale
    assert np.isnan(high[scale : 2 * scale, 2 * scale : 3 * scale, 3]).all()
    assert np.isnan(high).sum() == scale**2


@pytest.mark.parametrize("value", [7.5, 3e38, -3e38, 1e-40])
def test_constant_float_images_stay_constant(upscaler, value):
    frame = np.full((6, 7, 1), value, np.float32)
    (high,) = upscale_image(upscaler, ImageData((frame,))).frames
    if not 0 <= value <= 1:
        assert np.all(high == np.float32(value))
    assert np.isfinite(high).all()


def test_missing_samples_follow_outscale(upscaler):
    frame = floats(1, 200, 900)
    frame[:3] = np.nan
    (high,) = upscale_image(with_options(upscaler, outscale=1.5), ImageData((frame,))).frames
    assert high.shape == (9, 10, 1)
    np.testing.assert_array_equal(np.isnan(high).all(axis=(1, 2)), [True] * 4 + [False] * 5)


@pytest.mark.parametrize("no_data", [-9999.0, 0.5, np.nan, 65536.0, -1.7976931348623157e308])
def test_no_data_values_that_samples_cannot_have_change_nothing(upscaler, no_data):
    frame = pixels(6, 7, 3)
    result = upscale_image(upscaler, ImageData((frame,), no_data=no_data))
    np.testing.assert_array_equal(result.frames[0], upscaler(frame))
    assert result.notes == ()


def test_measured_samples_never_become_no_data(upscaler):
    """Even an image without missing samples must not get any."""
    frame = pixels(12, 12, 1)
    values, counts = np.unique(upscaler(frame), return_counts=True)
    value = values[counts.argmax()]
    frame[frame == value] = value - 1
    assert (upscaler(frame) == value).any()
    assert not (upscale_image(upscaler, ImageData((frame,), no_data=float(value))).frames[0] == value).any()


def test_ranges_of_many_bands_are_one_note(upscaler):
    frame = floats(8, 3, 90)
    result = upscale_image(upscaler, ImageData((frame,), extra_bands=7))
    assert result.notes == (
        f"float samples from {frame.min():g} to {frame.max():g} scaled to 0–1 for the network and back, "
        "8 bands each by its own range",
    )


@pytest.mark.parametrize("transparency", ["colour", "data", "hard"])
def test_extra_bands_do_not_need_more_memory_than_the_output(upscaler, transparency):
    """Each band is written to its place in the output."""
    frame, places = pixels(6, 7, 6), []
    call = Upscaler.__call__

    def noted(self, image, progress, out=None):
        places.append(out)
        return call(self, image, progress, out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Upscaler, "__call__", noted)
        result = upscale_image(with_options(upscaler, transparency=transparency), ImageData((frame,), extra_bands=2))
    assert all(place.base is result.frames[0] for place in places)
    assert sum(place.shape[2] for place in places) == 6


@pytest.mark.parametrize("transparency", ["colour", "data", "hard"])
def test_constant_alpha_is_kept_whatever_it_means(upscaler, transparency):
    high = with_options(upscaler, transparency=transparency)(alpha_image(77))
    assert np.all(high[..., 3] == 77)


def test_partial_alpha_made_hard_is_noted(upscaler):
    hard = with_options(upscaler, transparency="hard")
    result = upscale_image(hard, ImageData((alpha_image(0, 99, 255),)))
    assert set(np.unique(result.frames[0][..., 3])) == {0, 255}
    assert result.notes == ("partial transparency made hard",)
    assert upscale_image(hard, ImageData((alpha_image(0, 255),))).notes == ()
    assert upscale_image(hard, ImageData((alpha_image(99),))).notes == ()


@pytest.fixture
def rgba_upscaler(tmp_path):
    return Upscaler.from_file(make_model(tmp_path / "rgba.pth", channels=4), "cpu", "fp32")


def test_network_with_alpha_keeps_grey_and_makes_alpha_hard(rgba_upscaler):
    image = alpha_image(0, 99, 200, 255)
    image[..., :3] = image[..., :1]
    high = with_options(rgba_upscaler, transparency="hard")(image)
    assert set(np.unique(high[..., 3])) <= {0, 255}
    np.testing.assert_array_equal(high[..., :3], high[..., :1].repeat(3, axis=2))
    np.testing.assert_array_equal(high[..., :3], rgba_upscaler(image)[..., :3])


@pytest.mark.parametrize("as_file", [False, True])
def test_alpha_as_data_is_independent_of_colours_in_networks_with_alpha(rgba_upscaler, as_file):
    image, data = alpha_image(0, 99, 200, 255), with_options(rgba_upscaler, transparency="data")
    high = upscale_image(data, ImageData((image,))).frames[0] if as_file else data(image)
    np.testing.assert_array_equal(high[..., :3], rgba_upscaler(np.ascontiguousarray(image[..., :3])))
    np.testing.assert_array_equal(high[..., 3], rgba_upscaler(np.ascontiguousarray(image[..., 3])))


def test_floats_are_shown_by_their_range_or_that_of_another_image():
    frame = floats(2, -50, 150)
    frame[..., 1] = np.linspace(0, 3, 42).reshape(6, 7)
    frame[0, 0, 0] = np.nan
    frame[1, 1, 0] = -9999
    (shown,) = scale_to_unit(ImageData((frame,), no_data=-9999)).frames
    assert np.isnan(shown[0, 0, 0])
    assert np.isnan(shown[1, 1, 0])
    assert (np.nanmin(shown[..., 0]), np.nanmax(shown[..., 0])) == (0, 1)
    np.testing.assert_allclose(shown[..., 1], frame[..., 1] / 3, atol=1e-6)
    part = ImageData((np.full((2, 2, 1), 50, np.float32),))
    (shown,) = scale_to_unit(part, ImageData((floats(1, 0, 200),))).frames
    np.testing.assert_allclose(shown, 0.25)
    for same in (ImageData((floats(3, 0, 1),)), ImageData((pixels(6, 7, 3),))):
        np.testing.assert_array_equal(scale_to_unit(same).frames[0], same.frames[0])
