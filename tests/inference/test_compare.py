"""A sheet shows the most detailed parts of an image, upscaled by several models."""

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from esrgan import Upscaler, inference
from esrgan.cli import compare
from esrgan.errors import LostDeviceError
from esrgan.images import ImageData, read_image, write_image
from esrgan.images.image import COLOUR_SPACE, NativeBlock
from esrgan.inference import compare_models
from tests.helpers.image_files import GREY_PROFILE, PROFILE
from tests.helpers.models import make_model, pixels, run


@pytest.fixture
def models(tmp_path):
    return [make_model(tmp_path / f"{i}.pth", seed=i) for i in range(2)]


def find_on(sheet, part):
    """Return whether a part is somewhere on a sheet."""
    rows, columns = np.nonzero((sheet[: -len(part) + 1, : -part.shape[1] + 1] == part[0, 0]).all(2))
    places = zip(rows, columns, strict=True)
    return any(np.array_equal(sheet[y : y + len(part), x : x + part.shape[1]], part) for y, x in places)


def test_sheet_shows_what_each_model_makes_of_the_most_detailed_part(models):
    image = np.full((300, 200, 3), 128, np.uint8)
    image[192:288, 96:192] = pixels(96, 96, 3)
    upscalers = {path.name: Upscaler.from_file(path, "cpu", "fp32") for path in models}
    sheet = compare_models(upscalers, ImageData((image,))).frames[0]
    for upscaler in upscalers.values():
        # What is 32 pixels away does not matter to these networks, which see 20 pixels.
        assert find_on(sheet, upscaler(image)[384:576, 192:384])


@pytest.mark.parametrize(
    "frame", [pixels(20, 30, 1), pixels(20, 30, 2), pixels(20, 30, 4), pixels(90, 210, 3).astype(np.uint16) * 257]
)
def test_any_image_can_be_compared(models, frame):
    seen = []
    sheet = compare_models({"a": Upscaler.from_file(models[0], "cpu")}, ImageData((frame,)), seen.append).frames[0]
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3


def test_command_writes_a_sheet_for_each_image(models, gpu_problems, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "in" / name, ImageData((pixels(20, 30, 3),)))
    gpu_problems("it is busy")
    assert run(compare, tmp_path / "in", "-m", models[0], "-m", models[1], "-o", tmp_path / "out") == 0
    assert capsys.readouterr().err.count("device cuda: it is busy") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_compare.png", "b_compare.png"]
    assert read_image(tmp_path / "out/a_compare.png").frames[0].shape[1] > 3 * 60
    assert run(compare, tmp_path / "in", tmp_path / "none.png", "-m", models[0], "-o", tmp_path / "out") == 1
    text = capsys.readouterr().err
    assert "a_compare.png: already exists; use --overwrite to replace it" in text
    assert "none.png" in text


def test_a_lost_gpu_ends_the_command(models, tmp_path, monkeypatch, capsys):
    """Every other image would fail in the same way."""

    def lose_gpu(*_):
        raise LostDeviceError("cuda: the GPU failed")

    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, ImageData((pixels(20, 30, 3),)))
    monkeypatch.setattr(inference, "compare_models", lose_gpu)
    assert run(compare, tmp_path / "a.png", tmp_path / "b.png", "-m", models[0], "-o", tmp_path / "out") == 2
    assert capsys.readouterr().err == "error: cuda: the GPU failed\n"


@pytest.mark.parametrize("size", [{"outscale": 2.75}, {"outscale": 1.5}, {"width": 350}, {"long_side": 1500}])
def test_sheet_shows_the_same_part_at_any_size(models, size):
    image = np.full((300, 200, 3), 128, np.uint8)
    image[192:288, 96:192] = pixels(96, 96, 3)
    upscaler = Upscaler.from_file(models[0], "cpu", **size)
    whole = upscaler(image)
    factor = whole.shape[1] / 200
    side, top, left = round(96 * factor), round(192 * factor), round(96 * factor)
    sheet = compare_models({"a": upscaler}, ImageData((image,))).frames[0]
    cell = sheet[44 : 44 + side, 16 + side : 16 + 2 * side]  # right of the input, which is as large
    np.testing.assert_allclose(cell.astype(int), whole[top : top + side, left : left + side], atol=2)


def test_reduced_outputs_are_compared(models):
    upscaler = Upscaler.from_file(models[0], "cpu", width=64)
    sheet = compare_models({"a": upscaler}, ImageData((pixels(200, 300, 3),))).frames[0]
    assert sheet.shape[1] == 3 * 8 + 2 * 96


def test_floats_are_compared_by_the_range_of_the_file(models):
    image = pixels(100, 200, 3)
    image[0, 0], image[0, 1] = 0, 255
    upscalers = {"a": Upscaler.from_file(models[0], "cpu")}
    expected = compare_models(upscalers, ImageData((image,))).frames[0]
    heights = image.astype(np.float32) * 20 - 700
    np.testing.assert_array_equal(compare_models(upscalers, ImageData((heights,))).frames[0], expected)
    heights[99, 199] = -9999
    sheet = compare_models(upscalers, ImageData((heights,), no_data=-9999)).frames[0]
    assert (sheet != expected).any(axis=2).mean() < 0.1


@pytest.mark.parametrize(("channels", "profile"), [(3, PROFILE), (1, GREY_PROFILE)])
def test_sheet_has_the_colour_profile_of_the_image(models, tmp_path, channels, profile):
    write_image(tmp_path / "a.png", ImageData((pixels(20, 30, channels),), icc_profile=profile))
    assert run(compare, tmp_path / "a.png", "-m", models[0]) == 0
    sheet = read_image(tmp_path / "a_compare.png")
    assert sheet.icc_profile == profile
    assert sheet.frames[0].shape[2] == channels


def test_sheet_has_the_gamma_of_the_image(models, tmp_path):
    image = Image.fromarray(pixels(20, 30, 3))
    gamma = PngInfo()
    gamma.add(b"gAMA", (100_000).to_bytes(4, "big"))
    image.save(tmp_path / "a.png", pnginfo=gamma)
    assert run(compare, tmp_path / "a.png", "-m", models[0]) == 0
    assert Image.open(tmp_path / "a_compare.png").info["gamma"] == 1


def test_sheet_of_the_library_has_the_colour_space_of_the_image(models):
    blocks = (NativeBlock(COLOUR_SPACE, b"gAMA", (100_000).to_bytes(4, "big")), NativeBlock("comment", b"tEXt", b"x"))
    upscalers = {"a": Upscaler.from_file(models[0], "cpu")}
    for channels, profile in ((3, PROFILE), (1, GREY_PROFILE), (2, GREY_PROFILE)):
        image = ImageData((pixels(20, 30, channels),), icc_profile=profile, native_blocks=blocks)
        sheet = compare_models(upscalers, image)
        assert sheet.icc_profile == profile
        assert sheet.native_blocks == blocks[:1]
        assert sheet.base_channels == (3 if channels == 3 else 1)


def test_command_says_what_a_sheet_does_not_keep(models, tmp_path, monkeypatch, capsys):
    """No format but PNG has such a block yet."""
    image = ImageData((pixels(20, 30, 3),), "BMP", native_blocks=(NativeBlock(COLOUR_SPACE, "gamma", b"1"),))
    write_image(tmp_path / "a.png", ImageData(image.frames))
    monkeypatch.setattr("esrgan.images.read_image", lambda path: image)
    assert run(compare, tmp_path / "a.png", "-m", models[0]) == 0
    assert capsys.readouterr().err == f"warning: {tmp_path / 'a_compare.png'}: PNG cannot store gamma or colour space\n"
