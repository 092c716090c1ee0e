import io
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from esrgan.errors import WeightsError
from esrgan.models import RRDBNet
from esrgan.weights import RRDBNetArchitecture, load_file, load_generator, save_file
from tests.helpers.tiny_generator import (
    OTHER,
    STATE,
    SUFFIXES,
    TINY,
    TINY_ARCHITECTURE,
    load_error,
    one_line_message,
    same_tensors,
)

# Model files


def test_files_of_gpu_tensors_load_on_machines_without_a_gpu(tmp_path):
    """PyTorch stores the device of each tensor, and refuses to load a file that names a missing one."""
    with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):  # stands for a GPU
        weight = torch.empty(2, 3, device="cuda:0")
        save_file(tmp_path / "a.pth", {"params": {"weight": weight}, "checkpoint": {"stage": [{"step": weight}]}})
    places = []
    torch.load(tmp_path / "a.pth", map_location=lambda storage, place: places.append(place) or storage)
    assert places
    assert set(places) == {"cpu"}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("stage", ["pretraining", "training"])
def test_model_files_are_read_back(tmp_path, suffix, stage):
    hparams = {"scale_factor": 4, "generator": {"residual_scaling": 0.35, "note": "β"}, "seeds": [1, 2]}
    path = tmp_path / f"a{suffix}"
    save_file(path, {"params": STATE, "stage": stage, "hparams": hparams, "alpha": 0.8})
    file = load_generator(path)
    assert file.path == path
    assert same_tensors(file.state, STATE)
    assert file.stage == stage
    assert file.alpha == 0.8
    assert file.hparams == hparams
    assert file.architecture == RRDBNetArchitecture(**{**vars(TINY_ARCHITECTURE), "residual_scaling": 0.35})
    network = file.build()
    assert isinstance(network, RRDBNet)
    assert not network.training
    assert same_tensors(network.state_dict(), STATE)
    expected = RRDBNet(**TINY, residual_scaling=0.35)
    expected.load_state_dict(STATE)
    low = torch.rand(1, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(low), expected(low))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_without_metadata_are_loaded(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    save_file(path, {"params": STATE})
    file = load_generator(str(path))
    assert (file.stage, file.alpha, file.hparams) == (None, None, {})
    assert file.architecture == TINY_ARCHITECTURE


def test_describe_names_architecture_and_stage(tmp_path):
    path = tmp_path / "a.pth"
    for content, words in (
        ({"stage": "pretraining"}, "PSNR stage"),
        ({"stage": "training"}, "GAN stage"),
        ({"stage": "training", "alpha": 0.8}, "α = 0.8"),
        ({}, "of unknown training"),
    ):
        save_file(path, {"params": STATE, **content})
        text = load_generator(path).describe()
        assert words in text
        assert "×4 4/2/2" in text


@pytest.mark.parametrize("junk", [{"stage": "third"}, {"stage": 5, "alpha": "high", "hparams": [1]}, {"stage": None}])
def test_foreign_values_under_our_keys_are_ignored(tmp_path, junk):
    path = tmp_path / "a.pth"
    save_file(path, {"params": STATE, **junk})
    file = load_generator(path)
    assert (file.stage, file.alpha, file.hparams) == (None, None, {})


def test_half_precision_weights_are_read_as_float32(tmp_path):
    path = tmp_path / "a.pth"
    save_file(path, {"params": {name: value.half() for name, value in STATE.items()}})
    state = load_generator(path).state
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert same_tensors(state, {name: value.half().float() for name, value in STATE.items()})


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf")])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_residual_scaling_that_is_not_finite_is_rejected(tmp_path, suffix, value):
    path = tmp_path / f"a{suffix}"
    save_file(path, {"params": STATE, "hparams": {"generator": {"residual_scaling": value}}})
    assert load_error(path) == f"{path}: expected residual_scaling to be a finite number; the file is damaged"


@pytest.mark.parametrize("value", [10**30, -1, 16, 1.01, float("nan"), float("inf"), True, "0.5"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_alpha_of_other_programs_is_ignored(tmp_path, suffix, value):
    path = tmp_path / f"a{suffix}"
    save_file(path, {"params": STATE, "alpha": value})
    file = load_generator(path)
    assert (file.alpha, file.is_blend, file.origin) == (None, False, "of unknown training")


@pytest.mark.parametrize("depth", [10, 100_000])
def test_malformed_metadata_is_harmless(tmp_path, depth):
    path = tmp_path / "a.safetensors"
    metadata = {"hparams": "[" * depth, "stage": "{", "alpha": '{"a": 1}'}
    safetensors.torch.save_file(STATE, path, metadata)
    assert same_tensors(load_generator(path).state, STATE)


# Writing


def folder_contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0\nin file"), None]
)
def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix, failure):
    path = tmp_path / f"a{suffix}"
    save_file(path, {"params": STATE, "stage": "pretraining"})
    before = folder_contents(tmp_path)
    assert list(before) == [path.name]

    def fail(content, target, *_, **__):
        if isinstance(target, (str, Path)):
            Path(target).write_bytes(b"half of it")
        elif isinstance(target, io.IOBase):
            target.write(b"half of it")
        raise failure or KeyboardInterrupt

    for module, name in ((torch, "save"), (safetensors.torch, "save_file"), (safetensors.torch, "save")):
        monkeypatch.setattr(module, name, fail)
    with pytest.raises(WeightsError if failure else KeyboardInterrupt) as error:
        save_file(path, {"params": OTHER, "stage": "training"})
    if failure:
        assert "cannot be written" in one_line_message(error.value, path)
    assert folder_contents(tmp_path) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, suffix):
    resource = pytest.importorskip("resource")
    path = tmp_path / f"a{suffix}"
    save_file(path, {"params": STATE})
    before = folder_contents(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # a third of the file
    try:
        with pytest.raises(WeightsError) as error:
            save_file(path, {"params": OTHER})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written" in one_line_message(error.value, path)
    assert folder_contents(tmp_path) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_is_flushed_before_it_replaces_the_old_one(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    save_file(path, {"params": STATE})
    before = folder_contents(tmp_path)
    sizes = []

    def fail(descriptor):
        sizes.append(os.fstat(descriptor).st_size)
        assert path.read_bytes() == before[path.name]
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WeightsError):
        save_file(path, {"params": OTHER})
    assert len(sizes) == 1
    assert sizes[0] > 1000
    assert folder_contents(tmp_path) == before


def test_equal_content_makes_equal_files(tmp_path):
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for path in paths:
        save_file(path, {"params": STATE, "stage": "training", "hparams": {"seed": 1}})
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_writing_replaces_the_old_file_and_makes_folders(tmp_path):
    path = tmp_path / "new" / "folder" / "a.pth"
    save_file(path, {"params": OTHER})
    save_file(str(path), {"params": STATE})
    assert same_tensors(load_generator(path).state, STATE)
    assert [file.name for file in path.parent.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("name", ["file/a.pth", "file/folder/a.safetensors", f"{'a' * 300}.pth", "folder"])
def test_unwritable_paths_are_rejected(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError) as error:
        save_file(tmp_path / name, {"params": STATE})
    one_line_message(error.value, tmp_path / ("file" if name == "file/a.pth" else name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_weight_files_have_the_same_permissions_as_other_files(tmp_path, name):
    (tmp_path / "other").touch()
    save_file(tmp_path / name, {"params": STATE})
    assert (tmp_path / name).stat().st_mode == (tmp_path / "other").stat().st_mode


def test_safetensors_store_metadata_as_json(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(path, {"params": {"a": torch.arange(6.0).view(2, 3).T}, "stage": "training", "hparams": {"b": [1, None]}})
    with safetensors.safe_open(path, framework="pt") as file:
        assert {key: json.loads(value) for key, value in file.metadata().items()} == {
            "stage": "training",
            "hparams": {"b": [1, None]},
        }
    content = load_file(path)
    assert torch.equal(content["params"]["a"], torch.arange(6.0).view(2, 3).T)
    assert content["stage"] == "training"


@pytest.mark.parametrize(
    "content",
    [{}, {"params": [1]}, {"params": {"a": 1}}, {"params": STATE, "t": torch.ones(2)}, {"params": STATE, 1: {1}}],
)
def test_what_safetensors_cannot_store_is_named(tmp_path, content):
    path = tmp_path / "a.safetensors"
    with pytest.raises(WeightsError, match=r"cannot be written: \.safetensors stores tensors under params and JSON"):
        save_file(path, content)
    assert not list(tmp_path.iterdir())


def test_building_draws_no_random_numbers_and_copies_the_weights():
    file = load_generator("esrgan-lite")
    generator_state = torch.get_rng_state()
    network = file.build()
    assert torch.equal(torch.get_rng_state(), generator_state)
    weights = network.state_dict()
    assert weights.keys() == file.state.keys()
    assert all(weight.requires_grad and not weight.is_meta for weight in network.parameters())
    for name, value in file.state.items():
        assert torch.equal(weights[name], value)
        assert weights[name].data_ptr() != value.data_ptr()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_shared_weights_are_read_and_written(tmp_path, suffix):
    state = TINY_ARCHITECTURE.build().state_dict()
    shared = state["body.0.rdb1.conv1.bias"]
    tied = state | {name: shared for name, value in state.items() if value.shape == shared.shape}
    save_file(tmp_path / f"a{suffix}", {"params": tied})
    file = load_generator(tmp_path / f"a{suffix}")
    assert all(torch.equal(file.state[name], value) for name, value in tied.items())


def test_generator_files_can_be_compared(tmp_path):
    save_file(tmp_path / "a.pth", {"params": TINY_ARCHITECTURE.build().state_dict()})
    file = load_generator(tmp_path / "a.pth")
    assert file in {file}
    assert file != load_generator(tmp_path / "a.pth")
