"""Opaque alpha is dropped where a format has none, and --background removes the rest."""

import numpy as np
import pytest

from esrgan import Upscaler, images
from esrgan.cli import inference as inference_command
from esrgan.errors import ImageError
from esrgan.images.flatten import fit_alpha, parse_colour
from tests.helpers.models import make_model, pixels, run


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("extra", [0, 2])
def test_background_is_mixed_by_alpha(dtype, colours, extra):
    peak = 1 if dtype == np.float32 else np.iinfo(dtype).max
    frame = (pixels(5, 4, colours + 1 + extra) * (peak / 255)).astype(dtype)
    flat = fit_alpha(images.ImageData((frame,), extra_bands=extra), supports_alpha=True, background=(255, 0, 51))
    alpha = frame[..., colours : colours + 1] / peak
    expected = frame[..., :colours] * alpha + np.array([1, 0, 0.2]) * peak * (1 - alpha)
    np.testing.assert_allclose(flat.frames[0][..., :3], expected, atol=peak * 1e-6 if peak == 1 else 0.5001)
    np.testing.assert_array_equal(flat.frames[0][..., 3:], frame[..., colours + 1 :])
    assert flat.frames[0].dtype == dtype
    assert flat.extra_bands == extra


@pytest.mark.parametrize(("colour", "alpha"), [(1, 1.05), (3, 1)])
def test_overshooting_alpha_and_hdr_colours_are_placed_on_a_background(colour, alpha):
    frame = np.linspace(0, 1, 80, dtype=np.float32).reshape(5, 4, 4) * np.float32([colour] * 3 + [alpha])
    flat = fit_alpha(images.ImageData((frame,)), supports_alpha=True, background=(255, 255, 255))
    expected = frame[..., :3] * frame[..., 3:] + 1 - frame[..., 3:]
    np.testing.assert_allclose(flat.frames[0], expected, atol=1e-6)


@pytest.mark.parametrize(("colour", "alpha"), [(1, 255), (1000, 1)])
def test_floats_of_another_range_are_not_placed_on_a_background(colour, alpha):
    frame = (pixels(5, 4, 4) / 255).astype(np.float32) * np.float32([colour] * 3 + [alpha])
    frame[0, 0, 3] = alpha
    image = images.ImageData((frame,))
    with pytest.raises(ImageError, match=r"a background needs samples from 0 to 1, .*scale them"):
        fit_alpha(image, supports_alpha=True, background=(255, 255, 255))
    frame[..., 3] = frame[..., 3].clip(1)
    assert fit_alpha(image, supports_alpha=False).has_alpha == (alpha > 1)


@pytest.mark.parametrize(
    ("least", "peak", "colours", "hidden", "is_refused"),
    [
        (50, 255, 3, 10, True),
        (50, 255, 3, 90, True),
        (0, 65535, 1, 0, True),
        (0, 30, 3, 0, True),  # a dark photograph
        (1.2, 6, 3, 0, False),  # a sky
        (1.2, 6, 1, 50, False),
    ],
)
def test_visible_colours_decide_whether_floats_have_another_range(least, peak, colours, hidden, is_refused):
    frame = np.ones((10, 10, colours + 1), np.float32)
    frame[..., :colours] = np.linspace(least, peak, 100 * colours).reshape(10, 10, colours)
    frame.reshape(100, -1)[:hidden] = 0  # transparent black
    frame[9, :5, :colours] = 0  # black
    image = images.ImageData((frame,))
    if is_refused:
        with pytest.raises(ImageError, match=r"a background needs samples from 0 to 1"):
            fit_alpha(image, supports_alpha=True, background=(255, 255, 255))
    else:
        flat = fit_alpha(image, supports_alpha=True, background=(255, 255, 255)).frames[0]
        np.testing.assert_allclose(flat, np.where(frame[..., -1:] > 0, frame[..., :colours], 1))


def test_grey_stays_grey_on_a_grey_background():
    frame = pixels(3, 4, 2)
    frame[0, :, 1] = 0
    flat = fit_alpha(images.ImageData((frame,)), supports_alpha=False, background=parse_colour("white"))
    assert flat.frames[0].shape == (3, 4, 1)
    assert (flat.frames[0][0] == 255).all()


def test_opaque_alpha_is_dropped_only_where_the_format_has_none(tmp_path):
    frame = pixels(6, 5, 4)
    frame[..., 3] = 255
    for suffix, channels in ((".jpg", 3), (".bmp", 3), (".png", 4)):
        images.write_image(tmp_path / f"a{suffix}", images.ImageData((frame,)))
        assert images.read_image(tmp_path / f"a{suffix}").frames[0].shape[2] == channels
    frame[5, 4, 3] = 254
    with pytest.raises(ImageError, match=r"an alpha channel; .*--background"):
        images.write_image(tmp_path / "b.jpg", images.ImageData((frame,)))


def test_transparent_images_are_refused_before_the_work_or_placed_on_a_background(tmp_path, capsys, monkeypatch):
    model, frame = make_model(tmp_path / "model.pth"), pixels(6, 5, 4)
    images.write_image(tmp_path / "a.png", images.ImageData((frame,)))
    frame[..., 3] = 255
    images.write_image(tmp_path / "opaque.png", images.ImageData((frame,)))
    arguments = ("-m", model, "--device", "cpu", "--format", "jpg")
    assert run(inference_command, *arguments, tmp_path / "opaque.png") == 0
    with monkeypatch.context() as patch:
        patch.setattr(Upscaler, "__call__", lambda *_: pytest.fail("the image was upscaled"))
        assert run(inference_command, *arguments, tmp_path / "a.png") == 1
        assert "or choose a --background" in capsys.readouterr().err
    assert run(inference_command, *arguments, "--background", "#fff", tmp_path / "a.png") == 0
    assert images.read_image(tmp_path / "a_sr.jpg").frames[0].shape == (12, 10, 3)
    for colour in ("whyte", "#ffffff80", ""):
        with pytest.raises(SystemExit):
            run(inference_command, *arguments, "--background", colour, tmp_path / "a.png")
        assert "expected an opaque colour such as white" in capsys.readouterr().err
