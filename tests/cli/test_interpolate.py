"""Tests of ``esrgan interpolate``: blends of models and of images, and sweeps."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esrgan import Upscaler, images, metrics
from esrgan.cli import interpolate as interpolate_command
from esrgan.data import ImagePair, load_pair
from esrgan.errors import WeightsError
from esrgan.images import ImageData
from esrgan.images.image import NativeBlock
from esrgan.interpolation import interpolate_images, mix
from esrgan.weights import load_generator
from tests.helpers.evaluation import CPU, run_command, write_photos
from tests.helpers.models import make_model, run


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model.pth")


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos")


@pytest.mark.slow
def test_sweep_evaluates_blends_and_plots_their_curve(photos, model, tmp_path, capsys):
    other, out = make_model(tmp_path / "other.pth", 1), tmp_path / "out"
    rng = np.random.default_rng(0)
    images.write_pixels(photos / "large.png", rng.integers(0, 256, (112, 204, 3), np.uint8))
    pair = ["--psnr-model-path", model, "--esrgan-model-path", other]
    assert run_command(interpolate_command, *pair, "--sweep", 3, "-d", photos, "--metrics", "psnr,niqe", "-o", out) == 0
    printed = capsys.readouterr().out
    means = [line for line in printed.splitlines() if line.startswith("| **mean** |")]
    assert [line.split("|")[2].strip() for line in means] == ["bicubic", "alpha_0", "alpha_0.5", "alpha_1"]
    blend = Upscaler((load_generator(model).build()), CPU)
    low, high = load_pair(ImagePair(photos / "1.png", None), 2, 3)
    assert f"{metrics.measure(blend(low), high, 2)['psnr_y']:.2f}" in printed
    assert images.read_pixels(out / "photos/curve.png", 4).shape[0] > 200
    strip = images.read_pixels(out / "photos/1_strip.png", 3)
    assert strip.shape[1] > 5 * 2 * 30
    assert (out / "report.html").exists()
    again = [*pair, "--sweep", 3, "-d", photos, "--metrics", "psnr,niqe", "-o", out]
    assert run_command(interpolate_command, *again) == 0
    (out / "photos/curve.png").write_text("mine")
    assert run_command(interpolate_command, *again) == 2
    assert (out / "photos/curve.png").read_text() == "mine"
    (out / "photos/curve.png").unlink()
    (out / "photos/1_strip.png").write_text("mine")
    assert run_command(interpolate_command, *again) == 2
    assert (out / "photos/1_strip.png").read_text() == "mine"
    assert capsys.readouterr().err.count("not an output of an earlier run") == 2
    (photos / "large.png").unlink()
    assert run_command(interpolate_command, *pair, "--sweep", 3, "-d", photos, "-o", tmp_path / "small") == 1
    assert "too small for the perceptual metrics" in capsys.readouterr().err
    assert (tmp_path / "small/report.html").exists()
    assert run_command(interpolate_command, *pair, "--sweep", 3, "-d", f"={photos}", "-o", tmp_path / "two") == 2
    assert (
        run_command(interpolate_command, *pair, "--sweep", 3, "-d", photos, "--metrics", "niqe", "-o", tmp_path / "two")
        == 2
    )
    assert (
        run_command(interpolate_command, *pair, "--sweep", 3, "-d", photos, "--metrics", "psnr", "-o", tmp_path / "two")
        == 2
    )
    assert "a perceptual metric" in capsys.readouterr().err


@pytest.mark.slow
def test_mix_blends_any_number_of_models(tmp_path, capsys):
    paths = [make_model(tmp_path / f"{i}.pth", i) for i in range(3)]
    states = [load_generator(path).state for path in paths]
    shares = ["--mix", f"{paths[0]}=0.5", "--mix", f"{paths[1]}=0.2", "--mix", f"{paths[2]}=0.3"]
    assert run_command(interpolate_command, *shares, tmp_path / "mix.pth") == 0
    for name, value in load_generator(tmp_path / "mix.pth").state.items():
        expected = 0.5 * states[0][name] + 0.2 * states[1][name] + 0.3 * states[2][name]
        torch.testing.assert_close(value, expected)
    assert run_command(interpolate_command, *shares, tmp_path / "mix.pth") == 2
    assert "--overwrite" in capsys.readouterr().err
    for bad in (["--mix", f"{paths[0]}=0.5"], [*shares, "--mix", f"{paths[0]}=0.5"], ["--mix", "x", "--mix", "y=1"]):
        assert run_command(interpolate_command, *bad, tmp_path / "bad.pth") == 2
        assert not (tmp_path / "bad.pth").exists()
        assert "expected" in capsys.readouterr().err
    larger = load_generator(make_model(tmp_path / "larger.pth", blocks=2))
    with pytest.raises(WeightsError, match=r"body\.1\.rdb1\.conv1\.weight \(none and \(4, 8, 3, 3\)\).* and \d+ more"):
        mix([load_generator(paths[0]), larger], [0.5, 0.5])


@settings(max_examples=20)
@given(st.sampled_from([np.uint8, np.uint16, np.float32]), st.floats(0, 1), st.integers(0, 99))
def test_images_are_blended_to_the_nearest_level(dtype, alpha, seed):
    rng = np.random.default_rng(seed)
    one, other = (rng.integers(0, 256, (3, 4, 3)).astype(dtype) for _ in range(2))
    (result,) = interpolate_images(ImageData((one,)), ImageData((other,)), alpha).frames
    assert result.dtype == dtype
    exact = (1 - alpha) * one.astype(float) + alpha * other.astype(float)
    assert np.abs(result - exact).max() <= (0.5 + 1e-9 if dtype != np.float32 else 1e-4)
    if alpha in (0, 1):
        assert np.array_equal(result, other if alpha else one)


def test_colours_of_transparent_pixels_do_not_show_in_a_blend():
    clear, white = np.array([0, 0, 0, 0, 9]), np.array([255, 255, 255, 255, 3])
    one, other = (np.tile(each.astype(np.uint8), (2, 2, 1)) for each in (clear, white))
    images_of = [ImageData((each,), extra_bands=1) for each in (one, other)]
    for alpha, expected in ((0, clear), (0.5, [255, 255, 255, 128, 6]), (1, white)):
        (result,) = interpolate_images(*images_of, alpha).frames
        assert (result == expected).all()
    (result,) = interpolate_images(*[ImageData((each[..., :2] // 2,)) for each in (one, one)], 0.5).frames
    assert not result.any()


def test_pages_of_different_sizes_are_not_blended():
    first, wide, low = (np.zeros(shape, np.uint8) for shape in ((2, 3, 3), (2, 9, 3), (1, 9, 3)))
    with pytest.raises(ValueError, match=r"got \(2, \(2, 9, 3\), 'uint8'\) and \(2, \(1, 9, 3\), 'uint8'\)"):
        interpolate_images(ImageData((first, wide)), ImageData((first, low)), 0.5)
    with pytest.raises(ValueError, match=r"got \(1, .* and \(2, "):
        interpolate_images(ImageData((first,)), ImageData((first, wide)), 0.5)


def test_large_images_are_blended_in_little_memory(monkeypatch):
    monkeypatch.setattr("esrgan.images.samples.BLOCK_SAMPLES", 4096)
    one, other = (np.full((256, 256, 4), level, np.uint8) for level in (0, 255))
    tracemalloc.start()
    (result,) = interpolate_images(ImageData((one,)), ImageData((other,)), 0.5).frames
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (result == [255, 255, 255, 128]).all()
    assert peak < 4 * result.nbytes


def test_different_colour_spaces_of_blended_images_are_named():
    plain = ImageData((np.zeros((2, 2, 3), np.uint8),))
    gamma = NativeBlock("gamma or colour space", b"gAMA", b"1")
    for other in (replace(plain, icc_profile=b"x"), replace(plain, native_blocks=(gamma,))):
        assert interpolate_images(other, other, 0.5).notes == ()
        (note,) = interpolate_images(plain, other, 0.5).notes
        assert note.endswith("different colour spaces; their values were blended as if both had that of the second")


def test_command_blends_two_images(tmp_path, capsys):
    one, other = np.full((2, 3, 3), 10, np.uint8), np.full((2, 3, 3), 20, np.uint8)
    images.write_pixels(tmp_path / "one.png", one)
    images.write_pixels(tmp_path / "other.png", other)
    pair = ["--images", tmp_path / "one.png", tmp_path / "other.png"]
    assert run_command(interpolate_command, *pair, "--alpha", 0.25, tmp_path / "out.png") == 0
    assert set(images.read_pixels(tmp_path / "out.png", 3).flat) == {13}  # 12.5 is rounded up
    assert run_command(interpolate_command, *pair, "--alpha", 0.25, tmp_path / "out.png") == 2
    assert run_command(interpolate_command, *pair, "--alpha", 0.25, tmp_path / "out.xyz") == 2
    assert "--format" not in capsys.readouterr().err
    images.write_pixels(tmp_path / "other.png", other[:1], overwrite=True)
    assert run_command(interpolate_command, *pair, "--alpha", 0.25, tmp_path / "new.png") == 2
    assert "expected two images with the same number of frames, shape and depth" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--psnr-model-path", "a"],
        ["--mix", "a=1", "--images", "a", "b", "out.pth"],
        ["--mix", "a=1", "--alpha", "0.5", "out.pth"],
        ["--psnr-model-path", "a", "--esrgan-model-path", "b", "out.pth"],
        ["--psnr-model-path", "a", "--esrgan-model-path", "b", "--sweep", "3"],
        ["--psnr-model-path", "a", "--esrgan-model-path", "b", "--sweep", "1", "-o", "out"],
        ["--images", "a", "b", "--sweep", "3", "-o", "out"],
    ],
)
def test_conflicting_arguments_are_rejected(arguments, capsys):
    assert run_command(interpolate_command, *arguments) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("before_alpha", [["gan.pth"], []])
def test_a_missing_gan_option_is_named(before_alpha, capsys):
    """The README of the earlier framework has an example without it."""
    assert run_command(interpolate_command, "--psnr-model-path", "p", *before_alpha, "--alpha", "0.9", "out.pth") == 2
    assert f"--esrgan-model-path is missing{' before gan.pth' if before_alpha else ''}" in capsys.readouterr().err


def test_blend_averages_weights_and_records_alpha(tmp_path, capsys):
    psnr = make_model(tmp_path / "p.pth", 0, stage="pretraining", hparams={"seed": 1})
    gan = make_model(tmp_path / "g.pth", 1, stage="training", hparams={"seed": 2})
    out = tmp_path / "blend.safetensors"
    arguments = ["--psnr-model-path", psnr, "--esrgan-model-path", gan, "--alpha", "0.25", out]
    assert run(interpolate_command, *arguments) == 0
    blend, a, b = (load_generator(path) for path in (out, psnr, gan))
    for name, value in blend.state.items():
        torch.testing.assert_close(value, 0.75 * a.state[name] + 0.25 * b.state[name])
    assert (blend.alpha, blend.stage, blend.hparams) == (0.25, "training", {"seed": 2})
    assert "α = 0.25" in blend.describe()
    assert run(interpolate_command, *arguments) == 2
    assert "already exists; use --overwrite" in capsys.readouterr().err


def test_impossible_blends_are_rejected(tmp_path, capsys):
    psnr, gan = make_model(tmp_path / "p.pth"), make_model(tmp_path / "g.pth", scale=4)
    arguments = ["--psnr-model-path", psnr, "--esrgan-model-path", gan, "--alpha"]
    assert run(interpolate_command, *arguments, "0.5", tmp_path / "o.pth") == 2
    assert "RRDBNet ×2 8/4/1 and RRDBNet ×4 8/4/1" in capsys.readouterr().err
    for alpha in ("1.5", "-1", "much", "nan"):
        with pytest.raises(SystemExit) as stop:
            run(interpolate_command, *arguments, alpha, tmp_path / "o.pth")
        assert stop.value.code == 2
    assert not (tmp_path / "o.pth").exists()
    with pytest.raises(WeightsError):
        load_generator(tmp_path / "o.pth")
