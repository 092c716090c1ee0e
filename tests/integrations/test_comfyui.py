"""The nodes for ComfyUI, loaded as ComfyUI loads them, next to stand-ins for its modules.

``test_comfyui_server.py`` runs them in ComfyUI itself.
"""

import importlib.util
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from esrgan import Upscaler, blend, load_generator
from esrgan.errors import DeviceError, WeightsError
from esrgan.weights import CompactArchitecture, GeneratorFile, save_file
from tests.helpers.weight_files import random_state

FOLDER = Path(__file__).parents[2] / "integrations/comfyui_esrgan"
MODEL = "realesr-animevideov3"


def load_nodes():
    spec = importlib.util.spec_from_file_location("comfyui_esrgan", FOLDER / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Interrupted(Exception):  # noqa: N818
    pass


@pytest.fixture
def comfyui(monkeypatch, tmp_path):
    """Install stand-ins for the modules of ComfyUI that the nodes use, and return what they record."""
    host = SimpleNamespace(device="cpu", interrupt_at=None, values=[], freed=[], models=tmp_path)

    class ProgressBar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value):
            host.values.append(value / self.total)

    def throw_exception_if_processing_interrupted():
        if host.interrupt_at is not None and len(host.values) >= host.interrupt_at:
            raise Interrupted

    management = ModuleType("comfy.model_management")
    management.throw_exception_if_processing_interrupted = throw_exception_if_processing_interrupted
    management.get_torch_device = lambda: torch.device(host.device)
    management.free_memory = lambda size, device: host.freed.append((size, device))
    utils = ModuleType("comfy.utils")
    utils.ProgressBar = ProgressBar
    comfy = ModuleType("comfy")
    comfy.model_management, comfy.utils = management, utils
    folder_paths = ModuleType("folder_paths")
    folder_paths.get_filename_list = lambda kind: sorted(path.name for path in tmp_path.glob("*"))
    folder_paths.get_full_path = lambda kind, name: str(tmp_path / name) if (tmp_path / name).exists() else None
    for module in (comfy, management, utils, folder_paths):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return host


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def run(nodes, name, **inputs):
    """Run a node as ComfyUI does: one method of a new instance, in inference mode."""
    node = nodes.NODE_CLASS_MAPPINGS[name]
    with torch.inference_mode():
        return getattr(node(), node.FUNCTION)(**inputs)[0]


@pytest.mark.usefixtures("comfyui")
def test_each_node_declares_what_it_takes_and_returns():
    nodes = load_nodes()
    assert set(nodes.NODE_CLASS_MAPPINGS) == set(nodes.NODE_DISPLAY_NAME_MAPPINGS)
    for node in nodes.NODE_CLASS_MAPPINGS.values():
        inputs = node.INPUT_TYPES()
        json.dumps(inputs)  # ComfyUI sends them to the browser
        assert list(inspect.signature(getattr(node, node.FUNCTION)).parameters) == ["self", *inputs["required"]]
        assert all(isinstance(kind, str) for kind in node.RETURN_TYPES)
        assert node.CATEGORY
        assert node.DESCRIPTION


@pytest.mark.usefixtures("comfyui")
def test_a_batch_is_upscaled_like_single_images():
    nodes = load_nodes()
    model = run(nodes, "EsrganLoadModel", model=MODEL)
    batch = images(3, 12, 9, 3)
    high = run(nodes, "EsrganUpscaleImage", model=model, image=batch)
    upscaler = Upscaler.from_file(MODEL, "cpu")
    assert high.shape == (3, 48, 36, 3)
    assert high.dtype == torch.float32
    for low, found in zip(batch, high, strict=True):
        assert torch.equal(found, torch.from_numpy(upscaler(low.numpy())))


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_alpha_are_upscaled(comfyui, channels):
    nodes = load_nodes()
    high = run(nodes, "EsrganUpscaleImage", model=load_generator(MODEL), image=images(2, 8, 8, channels))
    assert high.shape == (2, 32, 32, channels)
    assert 0 <= high.min() < high.max() <= 1


def test_half_precision_and_strided_images_keep_their_type(comfyui):
    nodes = load_nodes()
    batch = images(1, 3, 8, 10).half().movedim(1, -1)
    high = run(nodes, "EsrganUpscaleImage", model=load_generator(MODEL), image=batch)
    assert high.dtype == torch.float16
    expected = run(nodes, "EsrganUpscaleImage", model=load_generator(MODEL), image=batch.float())
    assert torch.equal(high, expected.half())


def test_blends_of_loaded_models(comfyui):
    nodes = load_nodes()
    psnr, gan = (run(nodes, "EsrganLoadModel", model=name) for name in ("esrgan-lite-psnr", "esrgan-lite"))
    found = run(nodes, "EsrganBlendModels", psnr=psnr, gan=gan, alpha=0.25)
    expected = blend(load_generator("esrgan-lite-psnr"), load_generator("esrgan-lite"), 0.25)
    assert found.alpha == 0.25
    assert all(torch.equal(found.state[name], value) for name, value in expected.state.items())
    assert run(nodes, "EsrganUpscaleImage", model=found, image=images(1, 8, 8, 3)).shape == (1, 32, 32, 3)


def test_files_in_the_folder_of_comfyui_are_offered_and_loaded(comfyui):
    architecture = CompactArchitecture(scale_factor=2, img_channels=3, num_feat=4, num_conv=1)
    file = GeneratorFile(Path("a.pth"), random_state(architecture), architecture, None, None, {})
    save_file(comfyui.models / "mine.pth", file.to_dict())
    nodes = load_nodes()
    choices = nodes.EsrganLoadModel.INPUT_TYPES()["required"]["model"][0]
    assert choices[0] == "esrgan-photo"
    assert choices[-1] == "mine.pth"
    assert run(nodes, "EsrganLoadModel", model="mine.pth").architecture == architecture


def test_missing_models_are_named_with_a_remedy(comfyui):
    nodes = load_nodes()
    with pytest.raises(WeightsError, match=r"bsrgan: not downloaded yet; run `esrgan models bsrgan` first"):
        run(nodes, "EsrganLoadModel", model="bsrgan")
    with pytest.raises(WeightsError, match=r"gone\.pth"):
        run(nodes, "EsrganLoadModel", model="gone.pth")


def test_progress_covers_the_whole_batch(comfyui):
    run(load_nodes(), "EsrganUpscaleImage", model=load_generator(MODEL), image=images(2, 40, 1000, 3))
    assert len(comfyui.values) >= 4
    assert comfyui.values == sorted(comfyui.values)
    assert 0.5 in comfyui.values
    assert comfyui.values[-1] == 1


def test_interruption_stops_between_parts(comfyui):
    comfyui.interrupt_at = 1
    with pytest.raises(Interrupted):
        run(load_nodes(), "EsrganUpscaleImage", model=load_generator(MODEL), image=images(2, 40, 1000, 3))
    assert len(comfyui.values) == 1
    assert comfyui.values[0] < 0.5


def test_models_of_others_leave_the_gpu_first(comfyui):
    comfyui.device = "cuda:7"  # no test machine has so many
    with pytest.raises(DeviceError, match="device cuda:7"):
        run(load_nodes(), "EsrganUpscaleImage", model=load_generator(MODEL), image=images(1, 8, 8, 3))
    assert comfyui.freed == [(4 << 30, torch.device("cuda:7"))]


@pytest.mark.usefixtures("comfyui")
def test_a_missing_package_is_named_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "esrgan", None)
    with pytest.raises(ImportError, match=r"esrgan.* is missing in the Python that runs ComfyUI; .* -m pip install"):
        load_nodes()
