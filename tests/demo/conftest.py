"""Models with names for the tests of the demo."""

import pytest

from esrgan import pretrained
from esrgan.demo import models
from tests.helpers.models import make_model


@pytest.fixture
def model_pair(tmp_path, monkeypatch):
    """Register three models by name: a GAN model, its PSNR partner, and one that is not downloaded."""
    paths = {name: make_model(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate(("gan", "psnr"))}
    source = pretrained.ModelSource("http://127.0.0.1:9/public.pth", "0" * 64, 5_000_000, "nobody")
    named = {
        "gan": pretrained.PretrainedModel("with texture", "MIT", 2, psnr_model="psnr"),
        "psnr": pretrained.PretrainedModel("without", "MIT", 2),
        "public": pretrained.PretrainedModel("for all", "CC0-1.0", 2, source=source),
    }
    for module in (pretrained.catalogue, models):
        monkeypatch.setattr(module, "MODELS", named)
    monkeypatch.setattr(pretrained.catalogue, "BUNDLED_FOLDER", tmp_path)
    monkeypatch.setenv("ESRGAN_CACHE", str(tmp_path / "cache"))
    return paths
