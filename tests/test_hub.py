"""Generators on the Hugging Face Hub, from a server on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from esrgan import Upscaler, extras, load_generator
from esrgan.config import Config
from esrgan.errors import EsrganError, WeightsError
from esrgan.hub import HubFile
from esrgan.training.options import TrainOptions
from esrgan.training.start import find_start
from tests.helpers.hub_server import COMMIT, run_hub
from tests.helpers.models import make_model, pixels

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return a server with one repository, for a client whose cache is empty."""
    model = make_model(tmp_path / "model.safetensors", stage="training").read_bytes()
    other = make_model(tmp_path / "other.pth", seed=1).read_bytes()
    with run_hub() as server:
        server.repos["ann/photos"] = {"model.safetensors": model, "old/4x.pth": other, "README.md": b"hello"}
        server.repos["ann/drawings"] = {"4x.pth": other, "x.pickle": other, "notes.txt": b"none"}
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.base_url + template)
        monkeypatch.setattr(constants, "ENDPOINT", server.base_url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_ENDPOINT", server.base_url)
        yield server


def test_from_hub_computes_as_the_file_itself(hub, tmp_path):
    image = pixels(9, 7, 3)
    expected = Upscaler.from_file(tmp_path / "model.safetensors", "cpu")(image)
    assert np.array_equal(Upscaler.from_hub("ann/photos", device="cpu")(image), expected)
    assert not np.array_equal(Upscaler.from_hub("ann/photos", "old/4x.pth", device="cpu")(image), expected)
    assert Upscaler.from_hub("ann/photos", width=10, device="cpu")(image).shape == (13, 10, 3)


def test_references_name_file_and_revision(hub):
    file = load_generator("hf:ann/photos")
    assert file.stage == "training"
    assert file.path.parts[-3:] == ("snapshots", COMMIT, "model.safetensors")
    assert load_generator(f"hf:ann/photos@{COMMIT}/old/4x.pth").stage is None
    assert load_generator("hf:ann/photos@v1/model.safetensors").stage == "training"


@pytest.mark.parametrize(
    ("reference", "filename", "revision"),
    [
        ("hf:a/b@refs/pr/1", "model.safetensors", "refs/pr/1"),
        ("hf:a/b@refs/pr/1/x/4x.pth", "x/4x.pth", "refs/pr/1"),
        ("hf:a/b@feature%2Fx/4x.pth", "4x.pth", "feature/x"),
        ("hf:a/b@v1/x/4x.pth", "x/4x.pth", "v1"),
        ("hf:a/b@ä+%25/4x.pth", "4x.pth", "ä+%"),
    ],
)
def test_revisions_may_have_slashes(reference, filename, revision):
    file = HubFile.parse(reference)
    assert file == HubFile("a/b", filename, revision)
    assert HubFile.parse(str(file)) == file
    assert str(file) == f"{reference.removesuffix(filename).removesuffix('/')}/{filename}"


def test_a_file_is_downloaded_once(hub):
    for _ in range(2):
        HubFile("ann/photos").download()
    files = [request for request in hub.requests if "resolve" in request]
    assert [request.split()[0] for request in files] == ["HEAD", "GET", "HEAD"]
    hub.requests.clear()
    HubFile("ann/photos", revision=COMMIT).download()
    assert not hub.requests


def test_the_cache_is_used_without_a_network(hub, monkeypatch):
    online = HubFile("ann/photos").download()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert HubFile("ann/photos").download() == online
    with pytest.raises(WeightsError, match=r"^hf:ann/photos/old/4x.pth: not in the cache, and the Hugging Face Hub "):
        HubFile("ann/photos", "old/4x.pth").download()
    assert not hub.requests


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hf:ann", "expected hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME/FILE"),
        ("hf:ann/photos@/x.pth", "expected hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME/FILE"),
        ("hf:ann/..", "cannot be downloaded: "),
        ("hf:ann/nothing", "no such repository ann/nothing; check its name, or run `hf auth login` if it is private"),
        ("hf:ann/photos@v2", "no such branch, tag or commit; check the revision"),
        ("hf:ann/drawings", "no such file; the repository has 4x.pth"),
        ("hf:ann/photos@feature/x", "got x; write / in the name of a branch as %2F"),
        ("hf:ann/drawings/x.pickle", "expected a file whose name ends in one of .safetensors, .pth, .pt, got x.pickle"),
        ("hf:ann/gated", "its authors ask for a registration; follow the steps on its page, then run `hf auth login`"),
    ],
)
def test_a_wrong_reference_is_explained_on_one_line(hub, reference, message):
    hub.repos["ann/gated"] = hub.repos["ann/photos"]
    hub.gated.add("ann/gated")
    with pytest.raises(WeightsError) as caught:
        load_generator(reference)
    text = str(caught.value)
    assert text.startswith(f"{reference}")
    assert message in text
    assert "\n" not in text


PAGE = b"<!DOCTYPE html><html>Log in</html>"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((403, {}, b""), "the Hugging Face Hub answers with error 403; try again later"),
        ((500, {}, b""), "the Hugging Face Hub answers with error 500; try again later"),
        (
            (200, {}, PAGE),
            "the answer is not that of the Hugging Face Hub; log in to the network, or check HF_ENDPOINT",
        ),
    ],
)
def test_an_error_of_the_server_is_one_line(hub, answer, message):
    hub.answer = answer
    with pytest.raises(
        WeightsError, match=rf"^hf:ann/photos/model.safetensors: not in the cache, and {message}[^\n]*$"
    ):
        HubFile("ann/photos").download()


def test_a_cached_web_page_is_to_be_deleted(hub):
    intact = hub.repos["ann/photos"]["model.safetensors"]
    hub.repos["ann/photos"]["model.safetensors"] = PAGE
    with pytest.raises(WeightsError, match=r"got a web page, perhaps of a login; delete /.* and try again") as caught:
        load_generator("hf:ann/photos")
    hub.repos["ann/photos"]["model.safetensors"] = intact
    Path(str(caught.value).partition("; delete ")[2].removesuffix(" and try again")).unlink()
    assert load_generator("hf:ann/photos").stage == "training"


def test_suffixes_of_weight_files_may_be_capitals(hub):
    hub.repos["ann/capitals"] = {"4x.PTH": hub.repos["ann/drawings"]["4x.pth"]}
    assert load_generator("hf:ann/capitals/4x.PTH").stage is None
    with pytest.raises(WeightsError, match=r"no such file; the repository has 4x\.PTH"):
        load_generator("hf:ann/capitals")


def test_a_repository_without_weight_files_is_named(hub):
    hub.repos["ann/empty"] = {"README.md": b"hello"}
    with pytest.raises(WeightsError, match="no such file; the repository has no weight files"):
        HubFile("ann/empty").download()


def test_long_lists_of_files_are_cut_and_printable(hub):
    hub.repos["ann/many"] = {f"{i:04}\n.pth": b"" for i in range(2000)}
    with pytest.raises(WeightsError, match=r"has 0000.*, 0009[^,\n]* and 1,990 more$"):
        HubFile("ann/many").download()


def test_code_in_a_file_is_not_executed(hub):
    hub.repos["ann/evil"] = {"model.safetensors": b"\x80\x04cos\nsystem\n(S'touch evil'\ntR."}
    with pytest.raises(WeightsError, match=r"could run code|not a PyTorch weight file"):
        load_generator("hf:ann/evil")


def test_the_missing_extra_is_named(hub, monkeypatch):
    monkeypatch.setattr(extras, "missing_modules", lambda extra: ["huggingface_hub"])
    with pytest.raises(EsrganError, match=r"^huggingface_hub: not installed, .*; pip install 'esrgan\[hub\]'$"):
        HubFile("ann/photos").download()


@pytest.mark.slow
def test_commands_accept_references(hub, tmp_path):
    Image.fromarray(pixels(12, 16, 3)).save(tmp_path / "photo.png")
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "esrgan", "inference", "-m", "hf:ann/photos", "--device", "cpu", "photo.png"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hf:ann/photos: RRDBNet ×2 8/4/1")
    with Image.open(tmp_path / "photo_sr.png") as image:
        assert image.size == (32, 24)


@pytest.mark.parametrize("arguments", [(None,), ("ann/video", None), ("ann/video", 4), ("ann/video", "x.pth", 1)])
def test_arguments_of_another_type_are_refused(arguments):
    with pytest.raises(TypeError, match="expected a text"):
        HubFile(*arguments)


def test_a_dry_run_downloads_nothing(hub):
    config, options = Config(), TrainOptions(dry_run=True, stage="training", load_checkpoint=Path("hf:ann/photos"))
    with pytest.raises(WeightsError, match=r"not downloaded yet, and a dry run .*; run `esrgan info hf:ann/photos/"):
        find_start(config, options)
    assert not [request for request in hub.requests if "resolve" in request]
    HubFile("ann/photos").download()
    hub.requests.clear()
    with pytest.raises(WeightsError, match=r"architecture|blocks"):  # of another size
        find_start(config, options)
    assert not [request for request in hub.requests if "resolve" in request]
