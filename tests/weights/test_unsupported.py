"""The error for a file that is not an ESRGAN generator states in one line what the file is."""

import io
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from PIL import Image

from esrgan.cli import main
from esrgan.errors import WeightsError
from esrgan.models import UNetDiscriminator, VGGDiscriminator
from esrgan.weights import RRDBNetArchitecture, load_generator, save_file
from tests.helpers.tiny_generator import load_error
from tests.helpers.weight_files import TINY, earlier, esrgan_old, random_state

STATE = random_state(TINY)
OPTION = "pass the generator's file (esrgan train takes this one with --load-discriminator)"


def error_text(path):
    with pytest.raises(WeightsError) as error:
        load_generator(path)
    text = str(error.value)
    assert "\n" not in text
    assert text.isprintable()
    assert len(text) < len(str(path)) + 300
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


# Other networks, recognised by their tensor names

ONLY_ESRGAN = "; only RRDBNet and SRVGGNetCompact are supported"
NETWORKS = {
    "SwinIR" + ONLY_ESRGAN: ["conv_first.weight", "layers.0.residual_group.blocks.0.norm1.weight", "conv_last.weight"],
    "Swin2SR" + ONLY_ESRGAN: ["conv_first.weight", "layers.0.residual_group.blocks.0.attn.logit_scale"],
    "HAT" + ONLY_ESRGAN: ["conv_first.weight", "layers.0.residual_group.overlap_attn.qkv.weight", "conv_last.weight"],
    "DAT" + ONLY_ESRGAN: ["conv_first.weight", "before_RG.1.weight", "layers.0.blocks.0.attn.qkv.weight"],
    "ATD" + ONLY_ESRGAN: ["conv_first.weight", "layers.0.residual_group.layers.0.attn_atd.wq.weight"],
    "DRCT" + ONLY_ESRGAN: ["conv_first.weight", "layers.0.swin1.norm1.weight"],
    "Real-CUGAN or waifu2x" + ONLY_ESRGAN: ["unet1.conv1.conv.0.weight", "unet2.conv1.conv.0.weight"],
    "SPAN" + ONLY_ESRGAN: ["conv_1.sk.weight", "block_1.c1_r.sk.weight"],
    "PLKSR" + ONLY_ESRGAN: ["feats.0.weight", "feats.1.lk.conv.weight"],
    "OmniSR" + ONLY_ESRGAN: ["residual_layer.0.residual_layer.0.layer.0.fn.0.weight", "input.weight"],
    "RCAN" + ONLY_ESRGAN: ["head.0.weight", "body.0.body.0.body.0.weight", "body.0.body.0.body.3.conv_du.0.weight"],
    "EDSR" + ONLY_ESRGAN: ["head.0.weight", "body.0.body.0.weight", "tail.1.weight"],
    "EDSR or SRResNet" + ONLY_ESRGAN: ["conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight"],
    "GFPGAN, which restores faces" + ONLY_ESRGAN: ["stylegan_decoder.style_mlp.1.weight"],
    "a ResNet image classifier": ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight"],
    "LPIPS, an image metric": ["lin0.model.1.weight", "lin1.model.1.weight"],
    "a LoRA adapter of a diffusion model": ["lora_unet_mid_block_attn.lora_down.weight"],
    "a Stable Diffusion checkpoint": ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.x"],
    "a diffusion model": ["down_blocks.0.resnets.0.conv1.weight"],
    "a VGG discriminator; pass the generator's file": [
        "features.0.weight",
        "classifier.0.weight",
        "classifier.2.weight",
    ],
    "2 tensors of another network (a.weight, b, …)": ["a.weight", "b\nc"],
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_other_networks_are_named_in_the_error(tmp_path, kind, suffix):
    path = tmp_path / f"a{suffix}"
    state = {name: torch.zeros(1) for name in NETWORKS[kind]}
    torch.save({"params": state}, path) if suffix == ".pth" else safetensors.torch.save_file(state, path)
    assert error_text(path) == f"expected a generator of the ESRGAN family, got {kind}"


def vgg():
    with torch.device("meta"):
        shapes = torchvision.models.vgg11(weights=None).state_dict()
    return {name: torch.zeros(1) for name in shapes}


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: VGGDiscriminator(3, (4, 4), (2,)).state_dict(), f"a VGG discriminator; {OPTION}"),
        (lambda: UNetDiscriminator(3, 2).state_dict(), f"a U-Net discriminator; {OPTION}"),
        (vgg, "a VGG image classifier"),
    ],
)
def test_real_networks_are_named_in_the_error(tmp_path, make, kind):
    torch.save({f"module.{name}": value for name, value in make().items()}, tmp_path / "a.pth")
    assert error_text(tmp_path / "a.pth") == f"expected a generator of the ESRGAN family, got {kind}"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_discriminators_and_vgg_are_named_in_the_error(tmp_path, suffix):
    with torch.device("meta"):
        shapes = torchvision.models.vgg11(weights=None).features[:4].state_dict()
    vgg = {f"features.{name}": torch.zeros(value.shape) for name, value in shapes.items()}
    path = tmp_path / f"a{suffix}"
    for state, kind in (
        (VGGDiscriminator(3, (4, 4), (2,)).state_dict(), "discriminator"),
        (UNetDiscriminator(3, 2).state_dict(), "discriminator"),
        (vgg, "VGG"),
        (torch.nn.Linear(2, 2).state_dict(), "2 tensors of another network"),
    ):
        save_file(path, {"params": state})
        text = load_error(path)
        assert kind in text
        assert "expected a generator of the ESRGAN family" in text


def test_esrgan_plus_needs_its_1x1_convolution_in_every_dense_block(tmp_path):
    plus = esrgan_old(STATE, TINY) | {"model.1.sub.0.RDB1.conv1x1.weight": torch.zeros(2, 4, 1, 1)}
    torch.save(plus, tmp_path / "a.pth")
    assert "missing tensors: 3 (first: body.0.rdb2.conv1x1.weight)" in error_text(tmp_path / "a.pth")


# Content without weights

CONTENTS = {
    "the state of an optimiser; pass the generator's file": {
        "state": {0: {"exp_avg": torch.zeros(1)}},
        "param_groups": [{"lr": 1e-4}],
    },
    "a training state (optimisers and schedulers) without the network; pass the generator's file": {
        "epoch": 3,
        "iter": 9,
        "optimizers": [{}],
        "schedulers": [{}],
    },
    "a dictionary in which no network was found (keys: none)": {},
    "a dictionary in which no network was found (keys: a?b, c)": {"a\x1bb": 1, "c": 2},
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_dictionaries_without_weights_are_described(tmp_path, kind):
    torch.save(CONTENTS[kind], tmp_path / "a.pth")
    assert error_text(tmp_path / "a.pth") == f"expected the weights of a network, got {kind}"


def test_a_dictionary_that_holds_itself_is_rejected(tmp_path):
    content = {}
    content["params"] = content
    torch.save(content, tmp_path / "a.pth")
    assert "no network was found" in error_text(tmp_path / "a.pth")


def image(kind):
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, kind)
    return file.getvalue()


def zipped(**entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return file.getvalue()


IMAGE = "pass the model first, then the images"
UNPACK = "unpack it and pass the file inside"
ANY = "expected a weight file (PyTorch, safetensors or ncnn), got"
BYTES = {
    "expected a weight file, got an empty file; download it again": b"",
    "expected a weight file, got a web page; download it again": b"<!DOCTYPE html>\n<html>",
    "expected a weight file, got a Git LFS pointer; run `git lfs pull` to fetch the file": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 66\n"
    ),
    "expected a weight file, got JSON text; pass the file that contains the weights": b'{"error": "Entry not found"}',
    f"expected a weight file, got a PNG image; {IMAGE}": image("PNG"),
    f"expected a weight file, got a JPEG image; {IMAGE}": image("JPEG"),
    f"expected a weight file, got a WebP image or an audio file; {IMAGE}": image("WEBP"),
    f"expected a weight file, got a TIFF image; {IMAGE}": image("TIFF"),
    "expected a weight file, got an ONNX graph; use the PyTorch file it was made from": (
        b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:" + bytes(range(200))
    ),
    "expected a weight file, got an HDF5 file, as written by Keras; save the model with PyTorch or as safetensors": (
        b"\x89HDF\r\n\x1a\n" + bytes(80)
    ),
    "expected a weight file, got an OpenVINO model; use the PyTorch file it was made from": (
        b'<?xml version="1.0" ?>\r\n<net name="m" version="11">'
    ),
    "expected a weight file, got a GGUF file; use a PyTorch or safetensors file of the model": b"GGUF" + bytes(20),
    f"expected a weight file, got a gzip archive; {UNPACK}": b"\x1f\x8b\x08" + bytes(20),
    f"expected a weight file, got a 7-Zip archive; {UNPACK}": b"7z\xbc\xaf\x27\x1c" + bytes(20),
    f"expected a weight file, got a tar archive; {UNPACK}": tarred(),
    "expected a weight file, got a zip archive that contains readme.txt, model.pth; unpack it and pass the weight file "
    "inside": zipped(**{"readme.txt": "hello", "model.pth": b"\x80\x02}."}),
    "expected a weight file, got a zip archive that contains nothing; unpack it and pass the weight file inside": (
        b"PK\x05\x06" + bytes(18)
    ),
    "damaged or truncated: File is not a zip file; download it again": b"PK\x03\x04" + bytes(100),
    "expected a weight file, got a binary ncnn .param, which has no layer names; use the text .param": (
        b"\xdd\x85\x76\x00" + bytes(20)
    ),
    "expected a weight file, got a NumPy array; save a state dict with PyTorch or as safetensors": b"\x93NUMPY\x01\x00",
    f"{ANY} text; download it again": b"Not found\n",
    f"{ANY} an unknown format; download it again": bytes(range(1, 200)),
}


@pytest.mark.parametrize("message", BYTES)
def test_other_file_types_are_named_in_the_error(tmp_path, message):
    path = tmp_path / "a.pth"
    path.write_bytes(BYTES[message])
    assert error_text(path) == message


def test_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.pth")
    remedy = "save its content as a file first"
    assert error_text(tmp_path / "a.pth") == f"expected a weight file, got a named pipe; {remedy}"
    assert error_text(Path("/dev/zero")) == f"expected a weight file, got a device; {remedy}"


def test_web_addresses_are_explained():
    for address, remedy in {
        "https://huggingface.co/o/n/resolve/main/x/4x.pth?download=true": "pass hf:o/n@main/x/4x.pth",
        "https://huggingface.co/o/n/blob/refs%2Fpr%2F1/a%20b.pth#x": "pass 'hf:o/n@refs%2Fpr%2F1/a b.pth'",
        "https://huggingface.co/o/n/resolve/main/pytorch_model.bin": "download it, and pass the file",
        "http://example.org/4x.pth": "download it, and pass the file",
    }.items():
        assert error_text(Path(address)) == f"expected a weight file, got a web address; {remedy}"


def test_pickles_of_state_dicts_are_told_how_to_be_saved(tmp_path):
    for protocol in range(4):
        for write in (pickle.dump, partial(torch.save, _use_new_zipfile_serialization=False)):
            with (tmp_path / "a.pth").open("wb") as file:
                write(STATE, file, **{"protocol" if write is pickle.dump else "pickle_protocol": protocol})
            if write is pickle.dump or protocol < 2:
                assert error_text(tmp_path / "a.pth").endswith("; save it again by torch.save without pickle_protocol")


def test_names_of_wrapped_blocks_are_read(tmp_path):
    for wrapper in ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"):
        state = {f"{wrapper}.{name.replace('.rdb', f'.{wrapper}.rdb')}": value for name, value in STATE.items()}
        torch.save({"params": state}, tmp_path / "a.pth")
        assert load_generator(tmp_path / "a.pth").state.keys() == STATE.keys()


def test_folders_are_reported_as_folders(tmp_path):
    assert error_text(tmp_path) == "expected a weight file, got a folder; pass the file inside it"


def test_torchscript_is_rejected_before_it_is_loaded(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Conv2d(1, 1, 1)), path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("loaded"))
    assert error_text(path) == "expected only weights, got a TorchScript program; save its state_dict() instead"


def test_exported_programs_are_named(tmp_path):
    path = tmp_path / "a.pt2"
    torch.export.save(torch.export.export(torch.nn.Conv2d(1, 1, 1), (torch.zeros(1, 1, 2, 2),)), path)
    expected = "expected a weight file, got an exported program (.pt2); use the PyTorch file it was made from"
    assert error_text(path) == expected


class Payload:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("new", [True, False])
def test_code_in_a_pickle_is_reported_and_not_run(tmp_path, monkeypatch, new):
    path = tmp_path / "a.pth"
    torch.save({"params": {**STATE, "x": Payload()}}, path, _use_new_zipfile_serialization=new)
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("ran"))
    text = error_text(path)
    assert text.startswith("not opened: it contains Python objects (")
    assert text.endswith(") as well as weights, and these could run code; save only the state_dict")


def test_a_bare_pickle_of_arrays_is_rejected(tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"conv_first.weight": np.zeros(3)}, protocol=2))
    assert "could run code" in error_text(tmp_path / "a.pth")


# Tensors that cannot be weights


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda v: v.long(), "int64 numbers"),
        (lambda v: v.to(torch.int8), "int8 numbers"),
        (lambda v: v.bool(), "bool numbers"),
        (lambda v: v.to(torch.complex64), "complex64 numbers"),
        (lambda v: v.to_sparse(), "sparse tensors"),
        (lambda v: v.flatten(1).to_sparse_csr(), "sparse tensors"),
        (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), "quantised tensors"),
        (lambda v: v.to("meta"), "tensors without data"),
        (lambda v: v.to(torch.uint8).view(torch.float4_e2m1fn_x2), "packed float4_e2m1fn_x2 numbers"),
    ],
)
@pytest.mark.parametrize("write", [lambda state, _: state, esrgan_old, earlier])
def test_unsupported_tensor_kinds_are_rejected(tmp_path, change, kind, write):
    name = "body.1.rdb2.conv3.weight"
    state = write({**STATE, name: change(STATE[name])}, TINY)
    if "float4" in kind:  # which torch.load does not read
        safetensors.torch.save_file(state, tmp_path / "a.pth")
    else:
        torch.save(state, tmp_path / "a.pth")
    text = error_text(tmp_path / "a.pth")
    assert text.startswith(f"expected floating-point weights, got {kind} in body.1.rdb2.conv3.weight")


def test_commands_show_no_pytorch_warnings_about_rejected_files(tmp_path, recwarn):
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"params": STATE}, protocol=4))
    torch.save({name: value.to_sparse() for name, value in STATE.items()}, tmp_path / "b.pth")
    recwarn.clear()
    assert [main(["info", str(tmp_path / name)]) for name in ("a.pth", "b.pth")] == [1, 1]
    assert not recwarn.list


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_diverged_weights_are_rejected(tmp_path, value, dtype):
    state = {name: tensor.to(dtype) for name, tensor in STATE.items()}
    state["conv_hr.bias"][1] = value
    torch.save(state, tmp_path / "a.pth")
    assert error_text(tmp_path / "a.pth") == (
        "NaN or infinity in 1 of 36 tensors (first: conv_hr.bias); the training diverged; use an earlier file"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2), "to be one finite number, got shape (2,)"),
        (torch.tensor(float("nan")), "to be one finite number"),
        (torch.tensor(0.3), "expected one residual_scaling for all blocks, got 0.2, 0.3"),
        (torch.tensor(1), "got int64 numbers"),
    ],
)
def test_residual_scalings_that_contradict_are_rejected(tmp_path, value, message):
    state = earlier(STATE, TINY) | {"rrdb_blocks.rrdb_1.residual_scaling": value}
    torch.save(state, tmp_path / "a.pth")
    assert message in error_text(tmp_path / "a.pth")


def test_two_generators_in_a_file_are_rejected(tmp_path):
    both = {f"a.{name}": v for name, v in STATE.items()} | {f"b.{name}": v for name, v in STATE.items()}
    torch.save(both, tmp_path / "a.pth")
    assert error_text(tmp_path / "a.pth") == (
        "expected one generator, got 2: a. (BasicSR names), b. (BasicSR names); save only one of them"
    )


def test_incomplete_generators_are_reported(tmp_path):
    torch.save({name: v for name, v in STATE.items() if "rdb" not in name}, tmp_path / "a.pth")
    message = "12 tensors of one (conv_first.weight, conv_first.bias, conv_body.weight, …) but none of its dense blocks"
    assert message in error_text(tmp_path / "a.pth")


def test_missing_tensors_are_named(tmp_path):
    torch.save({name: v for name, v in STATE.items() if "conv_hr" not in name}, tmp_path / "a.pth")
    assert error_text(tmp_path / "a.pth") == "the ESRGAN generator lacks conv_hr.weight; the file is damaged"
    torch.save({name: v for name, v in STATE.items() if "body.0.rdb2" not in name}, tmp_path / "a.pth")
    assert error_text(tmp_path / "a.pth") == (
        "expected 2 blocks of 2 × 3 convolutions in the trunk, got 9 in all; the file is damaged"
    )
    torch.save(STATE | {"conv_hr.weight": torch.zeros(4, 4, 1, 1)}, tmp_path / "a.pth")
    assert error_text(tmp_path / "a.pth").startswith("tensors of the wrong shape: 1 (first: conv_hr.weight)")


def test_old_names_of_impossible_scales_are_rejected(tmp_path):
    state = {name: v for name, v in esrgan_old(STATE, TINY).items() if not name.startswith("model.10.")}
    torch.save(state, tmp_path / "a.pth")
    assert "got model.3, model.6, model.8; the file is damaged" in error_text(tmp_path / "a.pth")


def test_sub_pixel_upsampling_by_three_is_rejected(tmp_path):
    state = random_state(RRDBNetArchitecture(**{**vars(TINY), "scale_factor": 2, "use_subpixel_conv": True}))
    state |= {"conv_up1.weight": torch.zeros(36, 4, 3, 3), "conv_up1.bias": torch.zeros(36)}
    torch.save(esrgan_old(state, RRDBNetArchitecture(**{**vars(TINY), "use_subpixel_conv": True})), tmp_path / "a.pth")
    assert error_text(tmp_path / "a.pth") == "expected a scale of 1, 2, 4, 8 or 16, got sub-pixel upsampling by 3"


# Claims larger than the file


def resident_mb():
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_shapes_without_data_are_rejected_before_allocation(tmp_path, dtype):
    with torch.device("meta"):  # a complete and consistent network of 16 GB
        shapes = (
            RRDBNetArchitecture(**{**vars(TINY), "rrdb_channels": 10_000, "growth_channels": 1000}).build().state_dict()
        )
    torch.save({name: torch.zeros(1, dtype=dtype).expand(v.shape) for name, v in shapes.items()}, tmp_path / "a.pth")
    before = resident_mb()
    assert "its shapes claim" in error_text(tmp_path / "a.pth")
    assert resident_mb() < before + 100


@pytest.mark.parametrize("how", ["storage", "old storage", "inflated"])
@pytest.mark.slow
def test_oversized_claims_in_files_allocate_no_memory(tmp_path, how):
    path = tmp_path / "a.pth"
    torch.save({"conv_first.weight": torch.zeros(4, 3, 3, 3)}, path, _use_new_zipfile_serialization="old" not in how)

    def with_larger_claim(data):
        data = data.replace(b"K\x6c", b"J" + struct.pack("<i", 2_000_000_000))  # the size of the storage
        data = data.replace(struct.pack("<q", 108), struct.pack("<q", 2_000_000_000))
        return data.replace(b"(K\x04K\x03K\x03K\x03t", b"(J" + struct.pack("<i", 70_000_000) + b"K\x03K\x03K\x03t")

    if how == "old storage":
        path.write_bytes(with_larger_claim(path.read_bytes()))
    else:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if how == "inflated" else zipfile.ZIP_STORED) as archive:
            for name, data in entries.items():
                big = bytes(200_000_000) if how == "inflated" and name.endswith("data/0") else data
                archive.writestr(
                    name, with_larger_claim(big) if name.endswith("data.pkl") and how == "storage" else big
                )
    before = resident_mb()
    text = error_text(path)
    assert "weights never compress so well" in text if how == "inflated" else "damaged" in text
    assert resident_mb() < before + 100
