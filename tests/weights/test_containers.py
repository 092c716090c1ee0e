import errno
import io
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from esrgan.models import RRDBNet, SRVGGNetCompact
from esrgan.weights import load_file, load_generator, save_file
from tests.helpers.tiny_generator import (
    IN_TMP,
    OTHER,
    STATE,
    SUFFIXES,
    TINY,
    TINY_ARCHITECTURE,
    load_error,
    load_or_error,
    same_tensors,
)

# Containers


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize(
    "content",
    [
        STATE,
        OrderedDict(STATE),
        {"params_ema": STATE},
        {"params": OTHER, "params_ema": STATE},
        {"params_ema": STATE, "params": OTHER},
        {"params": STATE},
        {"state_dict": STATE, "epoch": 3},
        {"model_state_dict": STATE, "optimizer": {"lr": 1e-4, "momenta": [torch.zeros(2)]}},
        {"g_model_state_dict": STATE, "d_model_state_dict": {"features.block_0.conv.weight": torch.zeros(1)}},
        {"params_ema": None, "params": STATE},
        {"params_ema": {}, "params": STATE},
        {"G": STATE, "D": {"conv0.weight": torch.zeros(1, 3, 3, 3)}},
        {"netD_state_dict": {"conv0.weight": torch.zeros(1, 3, 3, 3)}, "netG_state_dict": STATE, "epoch": 3},
        {f"module.{name}": value for name, value in STATE.items()},
        {"params": {f"module.{name}": value for name, value in STATE.items()}},
        {"state_dict": OrderedDict((f"module.{name}", value) for name, value in STATE.items())},
    ],
    ids=lambda content: next(iter(content)),
)
@pytest.mark.slow
def test_generators_are_found_in_every_container(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    torch.save(content, path)
    file = load_generator(path)
    assert same_tensors(file.state, STATE)
    assert file.architecture == TINY_ARCHITECTURE


def test_legacy_pytorch_files_are_loaded(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"params": STATE}, path, _use_new_zipfile_serialization=False)
    assert same_tensors(load_generator(path).state, STATE)


def test_safetensors_written_by_others_are_read(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(STATE, path, {"format": "pt"})
    assert same_tensors(load_generator(path).state, STATE)
    safetensors.torch.save_file({f"module.{name}": value for name, value in STATE.items()}, path)
    assert same_tensors(load_generator(path).state, STATE)


def test_loaded_tensors_do_not_map_their_file(tmp_path):
    """Windows replaces no file that is mapped."""
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(STATE, path)
    state = load_file(path)["params"]
    path.write_bytes(bytes(path.stat().st_size))
    assert same_tensors(state, STATE)


@pytest.mark.parametrize("key", ["params", "params_ema", "state_dict", "model", "generator"])
@pytest.mark.slow
def test_metadata_of_safetensors_is_not_taken_for_weights(tmp_path, key):
    path = tmp_path / "a.safetensors"
    for text in ('{"arch": "esrgan"}', "{}", "16697987", "none"):
        safetensors.torch.save_file(STATE, path, {key: text, "stage": "training"})
        file = load_generator(path)
        assert same_tensors(file.state, STATE)
        assert file.stage == "training"


# Files that are not weight files


def test_missing_files_are_reported(tmp_path):
    assert "no such file" in load_error(tmp_path / "a.pth")
    assert "no such file" in load_error(tmp_path / "no folder" / "a.safetensors")
    assert "no such file" in load_error(tmp_path / "a\0.pth")


def test_names_too_long_for_the_file_system_are_rejected(tmp_path):
    load_error(tmp_path / f"{'a' * 300}.pth")


@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
def test_folders_are_rejected(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"a{suffix}"
    path.mkdir()
    assert "folder" in load_error(path)

    def deny(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)  # as on Windows
    assert "expected a weight file, got a folder; pass the file inside it" in load_error(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"\n  <html>\n", "web page"),
        (b"\xef\xbb\xbf<html>\n", "web page"),
        (b"\xfd7zXZ\0" + bytes(60), "an xz archive; unpack it"),
        (b"BZh91AY&SY", "a bzip2 archive; unpack it"),
        (b"\x28\xb5\x2f\xfd" + bytes(60), "a Zstandard archive; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 66\n", ""),
        (b'{"error": "Entry not found"}', ""),
        (b"PK\x03\x04", ""),
        (b"PK\x05\x06" + bytes(18), ""),  # an empty zip archive
        (b"\x89PNG\r\n\x1a\n" + bytes(60), ""),
        (b"\xff" * 8 + b"{}", ""),  # a safetensors header longer than any file
        (bytes(4096), ""),
        (b"\x80\x02.", ""),
        (b"(" * 5000, ""),
    ],
)
def test_files_of_another_kind_are_rejected(tmp_path, suffix, content, word):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert word in load_error(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@IN_TMP
@given(content=st.binary(max_size=300))
def test_random_bytes_are_rejected(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    load_error(path)


def test_changed_weights_are_noticed(tmp_path):
    """PyTorch takes them for weights."""
    content = bytearray(INTACT[".pth"])
    content[content.index(next(iter(STATE.values())).numpy().tobytes())] ^= 1
    (tmp_path / "a.pth").write_bytes(content)
    assert "damaged: Bad CRC-32 for file 'archive/data/0'; download it again, or use an earlier" in load_error(
        tmp_path / "a.pth"
    )


def test_weights_that_are_marked_as_a_folder_are_refused(tmp_path):
    """PyTorch takes memory as it is for their content."""
    content = bytearray(INTACT[".pth"])
    entry = content.rfind(b"PK\x01\x02", 0, content.rfind(b"archive/data/0"))
    content[entry + 38] ^= 0x10
    (tmp_path / "a.pth").write_bytes(content)
    assert "damaged: archive/data/0 is marked as a folder; download it again" in load_error(tmp_path / "a.pth")


def test_folders_in_an_archive_are_allowed(tmp_path):
    with zipfile.ZipFile(io.BytesIO(INTACT[".pth"])) as archive, zipfile.ZipFile(tmp_path / "a.pth", "w") as copy:
        copy.mkdir("archive")
        for entry in archive.infolist():
            copy.writestr(entry, archive.read(entry))
    assert same_tensors(load_generator(tmp_path / "a.pth").state, STATE)


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        assert not any(entry.CRC for entry in archive.infolist())
    assert same_tensors(load_generator(tmp_path / "a.pth").state, STATE)
    with torch.serialization.skip_data():  # stores zeros, and a checksum of the other entries only
        torch.save(STATE, tmp_path / "b.pth")
    assert not any(tensor.any() for tensor in load_generator(tmp_path / "b.pth").state.values())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", "old.pth"])
def test_truncated_files_are_rejected_at_any_length(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == "old.pth":
        torch.save({"params": STATE}, path, _use_new_zipfile_serialization=False)
    else:
        save_file(path, {"params": STATE})
    whole = path.read_bytes()
    lengths = {1, 2, 7, 8, 9, 30, 64, 100, len(whole) - 1, len(whole) - 4, len(whole) - 22}
    lengths |= {len(whole) * i // 40 for i in range(1, 40)}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        load_error(path)


def intact_files():
    """Return the bytes of a model file in both formats."""
    file = io.BytesIO()
    torch.save({"params": STATE, "stage": "training", "alpha": 0.8, "hparams": {"generator": {"a": 1}}}, file)
    return {".pth": file.getvalue(), ".safetensors": safetensors.torch.save(STATE, {"hparams": '{"generator": {}}'})}


INTACT = intact_files()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@IN_TMP
@given(data=st.data())
@pytest.mark.slow
def test_damaged_files_are_loaded_or_rejected_cleanly(tmp_path, suffix, data):
    path = tmp_path / f"a{suffix}"
    content = bytearray(INTACT[suffix])
    header = st.integers(0, content.index(b"/byteorder" if suffix == ".pth" else b"}}"))  # names, shapes, metadata
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(header | st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    load_or_error(path)


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("how", ["bare pickle", "zip", "zip with weights", "old"])
def test_code_in_a_file_is_never_run(tmp_path, suffix, how):
    marker, path = tmp_path / "ran", tmp_path / f"a{suffix}"
    if how == "bare pickle":
        path.write_bytes(pickle.dumps(Payload(marker), protocol=2))
    else:
        content = {"params": Payload(marker)} if how == "zip" else {"params": STATE, "stage": Payload(marker)}
        torch.save(content, path, _use_new_zipfile_serialization=how != "old")
    text = load_error(path)
    assert not marker.exists()
    if suffix != ".safetensors":
        assert "code" in text


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("is_zip", [True, False])
def test_newer_pickle_protocols_are_named(tmp_path, protocol, is_zip):
    path = tmp_path / "a.pth"
    torch.save({"params": STATE}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    message = "saved with pickle protocol 4 or later, .*; save it again by torch.save without pickle_protocol"
    assert re.search(message, load_error(path))
    torch.save({"params": STATE, "a": Payload("x")}, path, pickle_protocol=protocol)
    assert re.search("pickle protocol 4|could run code", load_error(path))


def test_pickled_networks_are_rejected_with_advice(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(RRDBNet(**TINY), path)
    assert "state_dict" in load_error(path)


@pytest.mark.parametrize("content", [list(STATE.values()), torch.zeros(3), "params", 5, None])
def test_non_dictionaries_are_rejected(tmp_path, content):
    path = tmp_path / "a.pth"
    torch.save(content, path)
    assert type(content).__name__ in load_error(path)


def test_a_compact_generator_is_found_beside_a_discriminator(tmp_path):
    network = SRVGGNetCompact(num_feat=4, num_conv=1)
    torch.save({"G": network.state_dict(), "D": {"conv0.weight": torch.zeros(1, 3, 3, 3)}}, tmp_path / "a.pth")
    assert load_generator(tmp_path / "a.pth").describe().startswith("SRVGGNetCompact")


def add_prefix(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


WIDE = replace(TINY_ARCHITECTURE, rrdb_channels=TINY_ARCHITECTURE.rrdb_channels + 1).build().state_dict()
AVERAGED = {
    "params-ema": {"params": OTHER, "params-ema": STATE},
    "state_dict_ema": {"state_dict": OTHER, "state_dict_ema": STATE},
    "generator_ema": {"generator": OTHER, "generator_ema": STATE, "discriminator_ema": {"conv0.weight": OTHER}},
    "net_ema": {"net": OTHER, "net_ema": STATE},
    "netEMA": {"net": OTHER, "netEMA": STATE},
    "ema": {"model": OTHER, "ema": STATE},
    "shadow": {"model": OTHER, "ema": {"decay": 0.9, "shadow": STATE}},
    "inside": {"state_dict": {"net": OTHER, "net_ema": STATE}},
    "amid": {**OTHER, "ema": STATE},
    "module": {"model": add_prefix("module.", OTHER), "ema": STATE},
    "ema_pytorch": {"model": OTHER, "ema": {"initted": torch.tensor(True), **add_prefix("ema_model.", STATE)}},
    "online": {"model": OTHER, "ema": {**add_prefix("online_model.", OTHER), **add_prefix("ema_model.", STATE)}},
    "averager": {"model": OTHER, "averager": {"step": torch.tensor(3), **add_prefix("ema_model.", STATE)}},
    "discriminator": {
        "state_dict": {**add_prefix("generator.", OTHER), "discriminator.conv0.weight": torch.zeros(1)},
        "ema_state_dict": add_prefix("generator.", STATE),
    },
    "teacher": {
        "state_dict": {**add_prefix("generator.", OTHER), **add_prefix("teacher.", WIDE)},
        "ema_state_dict": add_prefix("generator.", STATE),
    },
}
NESTED = {
    "model": {"checkpoint": {"model": STATE}},
    "weights": {"data": {"weights": STATE}},
    "params": {"state_dict": {"model": {"net": {"params": STATE}}}},
    "loss": {"net": STATE, "loss": torch.tensor(0.1)},
    "losses": {"G": STATE, "losses": torch.ones(3), "D": {"conv0.weight": torch.zeros(1, 3, 3, 3)}},
    "no ema": {"model": STATE, "ema": {"decay": torch.tensor(0.9)}, "schema": OTHER},
    "raw": {"model": {"net": STATE}, "other": OTHER},
}


@pytest.mark.parametrize("name", [*AVERAGED, *NESTED])
def test_generators_are_found_under_any_keys_and_averaged_ones_first(tmp_path, name):
    torch.save((AVERAGED | NESTED)[name], tmp_path / "a.pth")
    assert same_tensors(load_generator(tmp_path / "a.pth").state, STATE)


def test_mmengine_checkpoints_have_the_averaged_weights_in_state_dict(tmp_path, capsys):
    swapped = {"steps": torch.tensor(3), **add_prefix("module.generator.", OTHER), "module.discriminator.0": OTHER}
    content = {"state_dict": add_prefix("generator.", STATE), "ema_state_dict": swapped}
    for meta, expected in (({"mmengine_version": "0.10.7"}, STATE), ({"mmcv_version": "1.7.2"}, OTHER)):
        torch.save({"meta": meta, **content}, tmp_path / "a.pth")
        assert same_tensors(load_generator(tmp_path / "a.pth").state, expected)
    assert not capsys.readouterr().err


def test_raw_weights_used_instead_of_averaged_sets_are_logged(tmp_path, capsys):
    torch.save({"params": STATE, "params_ema": WIDE}, tmp_path / "a.pth")
    assert same_tensors(load_generator(tmp_path / "a.pth").state, STATE)
    line = "using the raw weights instead of averaged ones, because params_ema.* is incomplete or of another network"
    assert capsys.readouterr().err == f"{tmp_path / 'a.pth'}: {line}\n"


@pytest.mark.parametrize(
    "content",
    [
        {"net_g": STATE, "teacher": OTHER, "teacher_ema": OTHER.copy()},
        {"model": STATE, "teacher": OTHER, "teacher_ema": OTHER.copy()},
        {"net_g": STATE, "net_psnr": OTHER, "net_psnr_ema": OTHER.copy()},
        {"params": STATE, "discriminator": {"conv0.weight": torch.ones(1)}, "pretrained": {"params_ema": OTHER}},
        {"generator": STATE, "teacher": {"params": OTHER, "params_ema": OTHER.copy()}},
    ],
    ids=lambda content: next(iter(content)),
)
def test_averaged_sets_of_other_networks_are_not_used(tmp_path, capsys, content):
    torch.save(content, tmp_path / "a.pth")
    assert same_tensors(load_generator(tmp_path / "a.pth").state, STATE)
    assert "using the raw weights instead of averaged ones, because" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "averaged"),
    [
        ("ema.shadow_params", {"ema": {"decay": 0.9, "shadow_params": list(OTHER.values())}}),
        ("emas", {"emas": [OTHER]}),
        ("swa_model.module", {"swa_model": {"n_averaged": torch.tensor(5), **add_prefix("module.", OTHER)}}),
        ("averaged_model", {"averaged_model": OTHER}),
        *((name, {name: OTHER}) for name in ("avg_model", "generator_avg", "polyak", "g_running")),
        ("callbacks.SWA.average_model_state", {"callbacks": {"SWA": {"average_model_state": OTHER}}}),
        ("", {"optimizer": {"exp_avg": OTHER, "exp_avg_sq": OTHER.copy()}}),
        ("", {"ema": {"decay": 0.9}, "averages": [0.5], "optimizer": {"state": {0: {"exp_avg": torch.ones(2, 2)}}}}),
    ],
)
def test_averaged_weights_of_unknown_form_are_named(tmp_path, capsys, path, averaged):
    torch.save({"model": STATE, **averaged}, tmp_path / "a.pth")
    assert same_tensors(load_generator(tmp_path / "a.pth").state, STATE)
    line = f"ignoring the averaged weights {path}; to use them, save them under params_ema"
    assert capsys.readouterr().err == (f"{tmp_path / 'a.pth'}: {line}\n" if path else "")


def test_dictionaries_that_contain_themselves_are_searched_once(tmp_path):
    content = {}
    content |= {f"net{i}": content for i in range(200)}
    torch.save(content, tmp_path / "a.pth")
    assert "no network was found (keys: net0, " in load_error(tmp_path / "a.pth")


def test_several_generators_in_a_file_are_named(tmp_path):
    for loose in ({}, {"loss": torch.tensor(0.1)}):
        torch.save({"G": STATE, "old": {"G": OTHER}, "G_old": OTHER.copy(), **loose}, tmp_path / "a.pth")
        assert "got 2 sets of weights (keys: G, G_old); save only the generator's" in load_error(tmp_path / "a.pth")


@pytest.mark.parametrize("suffix", ["weight_g", "weight_v", "weight_orig", "parametrizations.weight.original"])
def test_normalised_weights_are_named(tmp_path, suffix):
    for layers in ("conv_last", ""):  # one layer or all
        state = {name: value for name, value in STATE.items() if not name.startswith(layers)}
        state |= {name.replace("weight", suffix): STATE[name] for name in STATE.keys() - state.keys()}
        state = state if layers else {name.replace("weight", suffix): value for name, value in STATE.items()}
        torch.save(state, tmp_path / "a.pth")
        assert "spectral or weight normalisation; remove it" in load_error(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "content", [{}, {"params": {}}, {"stage": "training"}, {5: 6}, {"params": {"a": 1.5}}, {"params": [STATE]}]
)
def test_dictionaries_without_weights_are_rejected(tmp_path, content):
    path = tmp_path / "a.pth"
    torch.save(content, path)
    assert "no network was found" in load_error(path)


def test_threads_that_load_weights_leave_warnings_on(tmp_path):
    torch.save(STATE, tmp_path / "a.pth")
    with warnings.catch_warnings():
        filters = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(load_file, [tmp_path / "a.pth"] * 200))
        assert warnings.filters == filters
