"""The nodes in ComfyUI itself, and our files in its own upscaling node.

Skipped unless ESRGAN_TEST_COMFYUI has the command that starts ComfyUI, such as ``python /opt/ComfyUI/main.py``, where
that Python has ComfyUI's requirements and this package.
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from esrgan import Upscaler, blend, load_generator
from esrgan.export import export_weights

FOLDER = Path(__file__).parents[2] / "integrations/comfyui_esrgan"
COMMAND = os.environ.get("ESRGAN_TEST_COMFYUI")
pytestmark = pytest.mark.skipif(not COMMAND, reason="ESRGAN_TEST_COMFYUI has no command that starts ComfyUI")


class Server:
    """ComfyUI on the CPU, with its files in an empty folder."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        for name in ("input", "output", "models/upscale_models", "custom_nodes"):
            (folder / name).mkdir(parents=True)
        shutil.copytree(FOLDER, folder / "custom_nodes/comfyui_esrgan")
        export_weights(load_generator("esrgan-lite"), folder / "models/upscale_models/lite.pth")
        export_weights(load_generator("esrgan-lite"), folder / "models/upscale_models/half.safetensors", half=True)
        pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "input/small.png")
        Image.fromarray(pixels).resize((400, 400)).save(folder / "input/large.png")
        command = [*shlex.split(COMMAND), "--cpu", "--port", str(self.port), "--base-directory", str(folder)]
        self.log = (folder / "log.txt").open("w")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)

    def call(self, path, content=None):
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read() or "null")

    def wait_until_ready(self):
        for _ in range(600):
            try:
                return self.call("/object_info")
            except urllib.error.URLError:
                assert self.process.poll() is None, (self.folder / "log.txt").read_text()
                time.sleep(0.2)
        raise TimeoutError((self.folder / "log.txt").read_text())

    def submit(self, nodes):
        """Queue a workflow, given as name: (class, inputs), and return its identifier."""
        prompt = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
        return self.call("/prompt", {"prompt": prompt})["prompt_id"]

    def wait_for(self, identifier):
        """Return the messages of a finished workflow by kind, and the pixels that it saved."""
        while identifier not in (history := self.call(f"/history/{identifier}")):
            time.sleep(0.1)
        result = history[identifier]
        saved = [image["filename"] for output in result["outputs"].values() for image in output["images"]]
        pixels = [np.asarray(Image.open(self.folder / "output" / name).convert("RGB")) for name in saved]
        return dict(result["status"]["messages"]), pixels


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("comfyui"))
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.process.terminate()
        server.process.wait()
        server.log.close()


def upscaling(model, image="small.png"):
    return {
        "image": ("LoadImage", {"image": image}),
        "model": ("EsrganLoadModel", {"model": model}),
        "high": ("EsrganUpscaleImage", {"model": ["model", 0], "image": ["image", 0]}),
        "save": ("SaveImage", {"images": ["high", 0], "filename_prefix": "test"}),
    }


def assert_upscaled(server, pixels, model):
    """Compare with our upscaler. ComfyUI rounds down when it saves, and other threads may round differently."""
    low = np.asarray(Image.open(server.folder / "input/small.png"), np.float32) / 255
    expected = Upscaler.from_file(model, "cpu")(low) * 255
    (found,) = pixels
    assert found.shape == expected.shape
    assert np.abs(found - np.floor(expected)).max() <= 1
    assert np.mean(found == np.floor(expected)) > 0.999


def test_nodes_are_registered(server):
    described = server.call("/object_info")
    assert described["EsrganUpscaleImage"]["python_module"] == "custom_nodes.comfyui_esrgan"
    choices = described["EsrganLoadModel"]["input"]["required"]["model"][0]
    assert {"esrgan-photo", "lite.pth", "half.safetensors"} <= set(choices)


@pytest.mark.parametrize("model", ["esrgan-photo", "lite.pth"])
def test_a_workflow_upscales(server, model):
    messages, pixels = server.wait_for(server.submit(upscaling(model)))
    assert "execution_success" in messages
    path = server.folder / "models/upscale_models" / model
    assert_upscaled(server, pixels, path if path.exists() else model)


def test_a_workflow_blends(server):
    nodes = upscaling("esrgan-lite") | {
        "psnr": ("EsrganLoadModel", {"model": "esrgan-lite-psnr"}),
        "blend": ("EsrganBlendModels", {"psnr": ["psnr", 0], "gan": ["model", 0], "alpha": 0.5}),
        "high": ("EsrganUpscaleImage", {"model": ["blend", 0], "image": ["image", 0]}),
    }
    messages, pixels = server.wait_for(server.submit(nodes))
    assert "execution_success" in messages
    assert_upscaled(server, pixels, blend(load_generator("esrgan-lite-psnr"), load_generator("esrgan-lite"), 0.5))


def test_a_model_that_was_not_downloaded_is_named(server):
    messages, _ = server.wait_for(server.submit(upscaling("bsrgan")))
    assert messages["execution_error"]["exception_message"].startswith("bsrgan: not downloaded yet; run `esrgan models")


def test_interruption_stops_the_upscaling(server):
    identifier = server.submit(upscaling("esrgan-full", "large.png"))
    time.sleep(3)  # loading takes less, and upscaling more
    server.call("/interrupt", {})
    messages, pixels = server.wait_for(identifier)
    assert messages["execution_interrupted"]["node_type"] == "EsrganUpscaleImage"
    assert not pixels


@pytest.mark.parametrize("name", ["lite.pth", "half.safetensors"])
def test_the_own_nodes_of_comfyui_load_exported_files(server, name):
    nodes = upscaling(name) | {
        "model": ("UpscaleModelLoader", {"model_name": name}),
        "high": ("ImageUpscaleWithModel", {"upscale_model": ["model", 0], "image": ["image", 0]}),
    }
    messages, pixels = server.wait_for(server.submit(nodes))
    assert "execution_success" in messages
    assert_upscaled(server, pixels, server.folder / "models/upscale_models" / name)
