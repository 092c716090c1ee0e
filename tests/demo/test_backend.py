"""The backend of ``esrgan demo``, tested without a server."""

import numpy as np
import pytest
from PIL import Image

from esrgan import Upscaler, images, load_generator, pretrained
from esrgan.demo import backend
from esrgan.errors import WeightsError
from esrgan.interpolation import blend
from tests.helpers.models import make_model


@pytest.fixture
def model_pair(tmp_path, monkeypatch):
    """Register two models by name: a GAN model and its PSNR partner."""
    paths = {name: make_model(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate(("gan", "psnr"))}
    named = {
        "gan": pretrained.PretrainedModel("with texture", "MIT", 2, psnr_model="psnr"),
        "psnr": pretrained.PretrainedModel("without", "MIT"),
    }
    for module in (pretrained.catalogue, backend):
        monkeypatch.setattr(module, "MODELS", named)
    monkeypatch.setattr(pretrained.catalogue, "BUNDLED_FOLDER", tmp_path)
    return paths


def test_models_are_those_on_disk_plus_given_files(model_pair, tmp_path):
    other = str(make_model(tmp_path / "other.pth"))
    models = backend.DemoModels([other], "cpu")
    assert models.labels == {other: "other.pth ×2", "gan": "gan ×2: with texture", "psnr": "psnr ×4: without"}
    assert [models.psnr_partner(name) for name in models.labels] == [None, "psnr", None]
    model_pair["psnr"].unlink()
    models = backend.DemoModels([], "cpu")
    assert list(models.labels) == ["gan"]
    assert models.psnr_partner("gan") is None
    model_pair["gan"].unlink()
    with pytest.raises(WeightsError, match="there is no model on this machine"):
        backend.DemoModels([], "cpu")
    with pytest.raises(WeightsError, match="missing"):
        backend.DemoModels(["missing"], "cpu")


def test_strength_blends_a_model_with_its_partner(model_pair):
    models = backend.DemoModels([], "cpu")
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    gan, psnr = load_generator("gan"), load_generator("psnr")
    for alpha, file in {1: gan, 0: psnr, 0.5: blend(psnr, gan, 0.5)}.items():
        np.testing.assert_array_equal(models.get_upscaler("gan", alpha)(image), Upscaler.from_file(file, "cpu")(image))
    for model, alpha, message in (
        ("psnr", 0.5, "psnr: has no PSNR-oriented model"),
        ("gan", 1.1, "strength: expected a number from 0 to 1, got 1.1"),
        ("gan", float("nan"), "strength: expected a number from 0 to 1"),
        ("/etc/passwd", 1, "model: expected one of gan, psnr"),
    ):
        with pytest.raises(WeightsError, match=message):
            models.get_upscaler(model, alpha)


def test_blends_are_cached_up_to_a_limit(model_pair):
    models = backend.DemoModels([], "cpu")
    first = models.get_upscaler("gan", 0.0)
    assert models.get_upscaler("gan", 0.0) is first
    for i in range(1, backend.MAX_CACHED_MODELS + 1):
        models.get_upscaler("gan", i / 10)
    assert models.get_upscaler("gan", 0.0) is not first


@pytest.fixture
def upscaled(tmp_path):
    """Return a function that upscales an array with a ×2 model."""
    model = make_model(tmp_path / "model.pth")

    def upscale(array, name="a.png"):
        images.write_image(tmp_path / name, images.ImageData((array,)))
        return backend.upscale_file(Upscaler.from_file(model, "cpu"), tmp_path / name, tmp_path, 10**6, lambda _: None)

    return upscale


@pytest.mark.parametrize("shape", [(200, 300, 3), (200, 300, 1), (30, 20, 4), (400, 30, 3)])
@pytest.mark.slow
def test_detail_is_cropped_from_whole_images(upscaled, shape):
    done = upscaled(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    low, high = Image.open(done.source), Image.open(done.target)
    if shape[2] == 4:
        low, high = (Image.alpha_composite(Image.new("RGBA", x.size, "white"), x).convert("RGB") for x in (low, high))
    assert done.size == high.size
    whole = low.resize(high.size, Image.Resampling.BICUBIC)
    for across, down in ((0, 0), (1, 1), (0.5, 0.3)):
        before, after = backend.render_detail(done, across, down)
        assert before.size == after.size == tuple(min(side, backend.DETAIL_PX) for side in high.size)
        left, top = (round(x * (a - b)) for x, a, b in zip((across, down), high.size, after.size, strict=True))
        box = (left, top, left + after.width, top + after.height)
        np.testing.assert_array_equal(after, high.crop(box))
        np.testing.assert_allclose(np.asarray(before, int), np.asarray(whole.crop(box), int), atol=1)


def test_overview_is_bounded_and_sizes_match(upscaled):
    done = upscaled(np.random.default_rng(0).integers(0, 256, (40, 1000, 3), dtype=np.uint8))
    assert [image.size for image in backend.render_overview(done)] == [(backend.OVERVIEW_PX, 51)] * 2
    assert done.size == (2000, 80)


def test_deep_samples_are_shown_in_8_bits(upscaled):
    grey = np.linspace(0, 1, 30 * 40).reshape(30, 40, 1)
    for dtype, factor, name in ((np.uint16, 65535, "deep.png"), (np.float32, 1, "deep.tif")):
        done = upscaled((grey * factor).astype(dtype), name)
        before, after = backend.render_overview(done)
        assert before.mode == after.mode == "L"
        half = np.asarray(before.resize((40, 30), Image.Resampling.BOX), float)
        np.testing.assert_allclose(half, grey[..., 0] * 255, atol=2)
