import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esrgan.cli import main
from esrgan.errors import WeightsError
from esrgan.images import ImageData
from esrgan.interpolation import blend, interpolate, interpolate_images, mix
from esrgan.models import RRDBNet
from esrgan.weights import load_generator, save_file
from tests.helpers.weight_files import TINY as OTHER
from tests.helpers.weight_files import earlier
from tests.helpers.weight_files import random_state as random_weights

TINY = {"rrdb_channels": 4, "growth_channels": 2, "num_basic_blocks": 1, "num_dense_blocks": 1}


def random_state(seed, **arguments):
    generator = torch.Generator().manual_seed(seed)
    state = RRDBNet(**{**TINY, **arguments}).state_dict()
    return {name: torch.randn(value.shape, generator=generator) for name, value in state.items()}


PSNR, GAN = random_state(0), random_state(1)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def write(path, state, stage, **content):
    save_file(path, {"params": state, "stage": stage, **content})
    return load_generator(path)


@pytest.mark.parametrize("one", [1, 1.0])
def test_alpha_0_and_1_return_the_models(one):
    assert equal(interpolate(PSNR, GAN, one - one), PSNR)
    assert equal(interpolate(PSNR, GAN, one), GAN)


def test_middle_is_the_mean():
    blend = interpolate(PSNR, GAN, 0.5)
    assert equal(blend, {name: (PSNR[name] + GAN[name]) / 2 for name in PSNR})


@settings(max_examples=30)
@given(st.floats(0, 1))
def test_weights_are_on_the_line_from_psnr_to_gan(alpha):
    blend = interpolate(PSNR, GAN, alpha)
    for name, value in blend.items():
        expected = PSNR[name].double() + alpha * (GAN[name].double() - PSNR[name].double())
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)
        assert value.dtype == torch.float32


@pytest.mark.parametrize("alpha", [-1e-9, 1.0000001, -1, 2, math.inf, -math.inf, math.nan])
def test_alpha_outside_its_range_is_rejected(tmp_path, alpha):
    with pytest.raises(ValueError, match=r"alpha: expected a number from 0 to 1, got"):
        interpolate(PSNR, GAN, alpha)
    psnr, gan = write(tmp_path / "p.pth", PSNR, "pretraining"), write(tmp_path / "g.pth", GAN, "training")
    with pytest.raises(ValueError, match="alpha"):
        blend(psnr, gan, alpha).to_dict()


def test_states_of_different_names_or_shapes_are_rejected():
    less = {name: value for name, value in GAN.items() if name != "conv_hr.bias"}
    for pair in ((PSNR, less), (less, PSNR)):
        with pytest.raises(WeightsError, match=r"same names, got 1 in only one of them \(first: conv_hr\.bias\)"):
            interpolate(*pair, 0.5)
    with pytest.raises(
        WeightsError, match=r"conv_hr\.bias: expected two tensors of the same shape, got \(4,\) and \(1,\)"
    ):
        interpolate(PSNR, GAN | {"conv_hr.bias": torch.zeros(1)}, 0.5)


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_inputs_are_neither_changed_nor_shared(alpha):
    psnr, gan = random_state(0), random_state(1)
    for value in interpolate(psnr, gan, alpha).values():
        value.fill_(7)
    assert equal(psnr, PSNR)
    assert equal(gan, GAN)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_blend_of_files_is_a_model_file(tmp_path, suffix):
    psnr = write(tmp_path / "p.pth", PSNR, "pretraining", hparams={"seed": 1})
    gan = write(tmp_path / "g.safetensors", GAN, "training", hparams={"seed": 2})
    content = blend(psnr, gan, 0.8).to_dict()
    path = tmp_path / f"blend{suffix}"
    save_file(path, content)
    file = load_generator(path)
    assert equal(file.state, interpolate(PSNR, GAN, 0.8))
    assert file.alpha == 0.8
    assert file.stage == "training"
    assert file.hparams == {"seed": 2}
    assert file.architecture == psnr.architecture


@pytest.mark.parametrize(("alphas", "share"), [((None, None), 0.5), ((None, 0.8), 0.4), ((0.2, None), None)])
def test_blend_alpha_is_recorded_when_known(tmp_path, alphas, share):
    psnr, gan = (
        replace(write(tmp_path / "model.pth", state, "training"), alpha=alpha, licence="MIT")
        for state, alpha in zip((PSNR, GAN), alphas, strict=True)
    )
    assert blend(psnr, gan, 0.5).alpha == share
    assert blend(psnr, gan, 0.5).licence == "MIT"
    assert blend(psnr, replace(gan, licence=None), 0.5).licence is None
    save_file(tmp_path / "blend.pth", blend(psnr, gan, 0.5).to_dict())
    assert load_generator(tmp_path / "blend.pth").licence == "MIT"


def test_shares_of_a_mix_may_be_numbers_of_any_type(tmp_path):
    psnr, gan = write(tmp_path / "p.pth", PSNR, "pretraining"), write(tmp_path / "g.pth", GAN, "training")
    expected = mix([psnr, gan], [0.25, 0.75]).state
    for kind in (Fraction, np.float32, np.array, torch.tensor):
        assert equal(mix([psnr, gan], [kind(0.25), kind(0.75)]).state, expected)


def test_a_mix_and_blends_of_it_are_recorded_as_blends(tmp_path):
    psnr, gan = write(tmp_path / "p.pth", PSNR, "pretraining"), write(tmp_path / "g.pth", GAN, "training")
    mixed = mix([psnr, gan], [0.5, 0.5])
    for result in (mixed, blend(psnr, mixed, 0.5), blend(mixed, gan, 0.5), blend(blend(psnr, gan, 0.5), gan, 0.5)):
        save_file(tmp_path / "b.safetensors", result.to_dict())
        for file in (result, load_generator(tmp_path / "b.safetensors")):
            assert (file.alpha, file.is_blend, file.origin) == (None, True, "interpolated")


def test_blend_takes_configuration_from_psnr_model_if_gan_has_none(tmp_path):
    psnr = write(tmp_path / "p.pth", PSNR, "pretraining", hparams={"seed": 1})
    gan = write(tmp_path / "g.pth", GAN, "training")
    assert blend(psnr, gan, 0.5).to_dict()["hparams"] == {"seed": 1}


@pytest.mark.parametrize(
    "other",
    [
        {"scale_factor": 2},
        {"img_channels": 1},
        {"rrdb_channels": 5},
        {"growth_channels": 3},
        {"num_basic_blocks": 2},
        {"num_dense_blocks": 2},
        {"num_residual_blocks": 4},
        {"use_subpixel_conv": True},
    ],
    ids=lambda other: next(iter(other)),
)
def test_generators_of_two_architectures_are_rejected(tmp_path, other):
    psnr = write(tmp_path / "p.pth", PSNR, "pretraining")
    gan = write(tmp_path / "g.pth", random_state(1, **other), "training")
    with pytest.raises(WeightsError) as error:
        blend(psnr, gan, 0.5).to_dict()
    text = str(error.value)
    assert "\n" not in text
    assert str(psnr.path) in text
    assert str(gan.path) in text


@pytest.mark.parametrize("hparams", [{}, {"generator": {"residual_scaling": 0.0}}, {"generator": 5}])
@pytest.mark.parametrize("beta", [0.5, 0.2])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.slow
def test_blends_keep_residual_scaling_stored_with_the_weights(tmp_path, hparams, beta, suffix):
    architecture = replace(OTHER, residual_scaling=beta)
    for seed in (0, 1):
        params = earlier(random_weights(architecture, seed), architecture)
        save_file(tmp_path / f"{seed}.pth", {"params": params, "hparams": hparams})
    result = blend(load_generator(tmp_path / "0.pth"), load_generator(tmp_path / "1.pth"), 0.5)
    save_file(tmp_path / f"blend{suffix}", result.to_dict())
    assert load_generator(tmp_path / f"blend{suffix}").architecture == architecture


def test_dangling_symlink_is_not_overwritten_by_default(tmp_path, capsys):
    write(tmp_path / "p.pth", PSNR, "pretraining")
    (tmp_path / "blend.pth").symlink_to("nowhere.pth")
    models = [f"--mix={tmp_path / 'p.pth'}=0.5"] * 2
    assert main(["interpolate", *models, str(tmp_path / "blend.pth")]) == 2
    assert "blend.pth: already exists; use --overwrite to replace it" in capsys.readouterr().err
    assert (tmp_path / "blend.pth").is_symlink()


@pytest.mark.parametrize(
    ("name", "message"), [("", "is a folder"), ("blend.onnx", "esrgan export converts a blend to other formats")]
)
def test_invalid_output_names_are_rejected(tmp_path, capsys, name, message):
    write(tmp_path / "p.pth", PSNR, "pretraining")
    models = [f"--mix={tmp_path / 'p.pth'}=0.5"] * 2
    assert main(["interpolate", *models, str(tmp_path / name), "--overwrite"]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["p.pth"]


def test_generators_of_two_residual_scalings_are_rejected(tmp_path):
    psnr = write(tmp_path / "p.pth", PSNR, "pretraining")
    gan = write(tmp_path / "g.pth", GAN, "training", hparams={"generator": {"residual_scaling": 0.1}})
    with pytest.raises(WeightsError):
        blend(psnr, gan, 0.5).to_dict()


def test_infinity_in_the_other_model_or_image_does_not_matter():
    finite, infinite = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([math.inf, 3.0])}
    assert equal(interpolate(finite, infinite, 0), finite)
    assert equal(interpolate(infinite, finite, 1.0), finite)
    one, other = (ImageData((np.array([[[value], [0.5]]], np.float32),)) for value in (1, math.inf))
    for alpha, images in ((0.0, (one, other)), (1.0, (other, one))):
        np.testing.assert_array_equal(interpolate_images(*images, alpha).frames[0], one.frames[0])
    opaque, invisible = (ImageData((np.array([[pixel]], np.float32),)) for pixel in ((0.5, 1), (math.inf, 0)))
    np.testing.assert_array_equal(interpolate_images(opaque, invisible, 0.5).frames[0], [[[0.5, 0.5]]])


def test_alpha_of_numpy_is_not_rounded():
    alpha = np.float16(0.3)
    assert equal(interpolate(PSNR, GAN, alpha), interpolate(PSNR, GAN, float(alpha)))
