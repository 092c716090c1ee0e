"""The entry points for PyTorch Hub, loaded from this folder."""

import importlib.util
from pathlib import Path

import torch

from esrgan import Upscaler, load_generator

ROOT = Path(__file__).parent.parent


def test_entry_points_load_the_bundled_models():
    network = torch.hub.load(str(ROOT), "esrgan_lite", source="local")
    expected = load_generator("esrgan-lite").state
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    assert not network.training


def test_upscaler_accepts_options():
    upscaler = torch.hub.load(str(ROOT), "upscaler", "realesr-animevideov3", source="local", device="cpu", outscale=2)
    assert isinstance(upscaler, Upscaler)
    assert upscaler(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 16, 16)


def test_dependencies_are_requirements_of_the_package():
    spec = importlib.util.spec_from_file_location("hubconf", ROOT / "hubconf.py")
    hubconf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    requirements = (ROOT / "pyproject.toml").read_text("utf-8").partition("optional-dependencies")[0]
    for module in hubconf.dependencies:
        package = {"PIL": "pillow", "typing_extensions": "typing-extensions"}.get(module, module)
        assert f'"{package}' in requirements
    names = {name for name, value in vars(hubconf).items() if callable(value) and not name.startswith("_")}
    assert names == {"esrgan_full", "esrgan_lite", "esrgan_photo", "generator", "upscaler"}
    assert all(vars(hubconf)[name].__doc__ for name in names)
