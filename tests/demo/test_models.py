"""The models that the demo offers."""

import numpy as np
import pytest

from esrgan import Upscaler, download, load_generator, pretrained
from esrgan.demo import models
from esrgan.demo.models import CLEAN, DRAWING, LOSSY, NOISY, PLAIN_WORDS, DemoModels
from esrgan.errors import WeightsError
from esrgan.inference import UpscaleOptions
from esrgan.interpolation import blend
from tests.helpers.models import make_model


def test_models_are_those_on_disk_plus_given_files(model_pair, tmp_path):
    other = str(make_model(tmp_path / "other.pth"))
    (tmp_path / "twin").mkdir()
    twin = str(make_model(tmp_path / "twin/other.pth", scale=4))
    offered = DemoModels([other, twin], "cpu")
    assert offered.labels == {
        "other.pth": "other.pth ×2",
        "other.pth (2)": "other.pth (2) ×4",
        "gan": "with texture – gan ×2",
        "psnr": "without – psnr ×2",
    }
    assert [offered.psnr_partner(name) for name in offered.labels] == [None, None, "psnr", None]
    assert offered.list_main_models() == ["other.pth", "other.pth (2)", "gan"]
    assert offered.get_upscaler("other.pth (2)").scale == 4
    model_pair["psnr"].unlink()
    offered = DemoModels([], "cpu")
    assert list(offered.labels) == ["gan"]
    assert offered.psnr_partner("gan") is None
    model_pair["gan"].unlink()
    with pytest.raises(WeightsError, match="there is no model on this machine"):
        DemoModels([], "cpu")
    with pytest.raises(WeightsError, match="missing"):
        DemoModels(["missing"], "cpu")


def test_strength_blends_a_model_with_its_partner(model_pair):
    offered = DemoModels([], "cpu")
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    gan, psnr = load_generator("gan"), load_generator("psnr")
    for alpha, file in {1: gan, 0: psnr, 0.5: blend(psnr, gan, 0.5)}.items():
        np.testing.assert_array_equal(offered.get_upscaler("gan", alpha)(image), Upscaler.from_file(file, "cpu")(image))
    for model, alpha, message in (
        ("psnr", 0.5, "psnr: has no PSNR-oriented model"),
        ("gan", 1.1, "strength: expected a number from 0 to 1, got 1.1"),
        ("gan", float("nan"), "strength: expected a number from 0 to 1"),
        ("/etc/passwd", 1, "model: expected one of gan, psnr"),
    ):
        with pytest.raises(WeightsError, match=message):
            offered.get_upscaler(model, alpha)


def test_blends_are_cached_up_to_a_limit(model_pair):
    offered = DemoModels([], "cpu")
    first = offered.get_upscaler("gan", 0.0)
    assert offered.get_upscaler("gan", 0.0) is first
    for i in range(1, models.MAX_CACHED_MODELS + 1):
        offered.get_upscaler("gan", i / 10)
    assert offered.get_upscaler("gan", 0.0) is not first


def test_size_of_outputs_is_that_of_the_command(model_pair):
    offered = DemoModels([], "cpu")
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    result = offered.get_upscaler("gan", 1, UpscaleOptions(width=50))(image)
    np.testing.assert_array_equal(result, Upscaler.from_file("gan", "cpu", width=50)(image))
    assert not offered.get_upscaler("gan").options.has_size


def test_public_models_can_be_downloaded(model_pair, monkeypatch):
    offered = DemoModels([], "cpu")
    assert offered.downloadable == {"public": "for all – public ×2"}
    assert models.describe_download("public") == "5.0 MB, CC0-1.0"
    monkeypatch.setattr(download, "MAX_ATTEMPTS", 1)
    with pytest.raises(WeightsError, match=r"http://127.0.0.1:9/public.pth: expected .* run this again"):
        offered.download("public")

    def fetch(target):
        target.path.parent.mkdir(parents=True, exist_ok=True)
        make_model(target.path)

    monkeypatch.setattr(download, "download", fetch)
    assert offered.download("public").startswith("public: downloaded, ")
    assert not offered.downloadable
    assert list(offered.labels) == ["gan", "psnr", "public"]


def test_every_named_model_has_plain_words():
    assert PLAIN_WORDS.keys() == pretrained.MODELS.keys()
    for name in pretrained.MODELS:
        assert len(f"{PLAIN_WORDS[name].text} – {name} ×4") <= 60  # the width of the list


@pytest.mark.parametrize(
    ("kind", "model", "better"),
    [
        (LOSSY, "esrgan-photo", None),
        (NOISY, "esrgan-photo", None),
        (LOSSY, "esrgan-full", "esrgan-photo"),
        (CLEAN, "esrgan-photo", "esrgan-lite"),
        (DRAWING, "esrgan-photo", "realesr-animevideov3"),
        (DRAWING, "own.pth", None),
    ],
)
def test_a_model_that_suits_is_suggested(kind, model, better, tmp_path):
    assert DemoModels([str(make_model(tmp_path / "own.pth"))], "cpu").suggest(kind, model) == better
