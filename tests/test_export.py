"""Exported generators, run by the programs they are for where these are installed."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from esrgan import weights
from esrgan.cli import main
from esrgan.errors import EsrganError, WeightsError
from esrgan.export import export_ncnn, export_onnx, export_program, export_weights
from esrgan.weight_formats import DIALECT_KEYS
from esrgan.weights import load_file, load_generator, save_file
from tests.helpers.weight_files import DIALECT_WRITERS, TINY, NcnnWriter, earlier, random_state

NETWORKS = {
    "×4": TINY,
    "×1": replace(TINY, scale_factor=1),
    "×8 grey": replace(TINY, scale_factor=8, img_channels=1),
    "sub-pixel": replace(TINY, use_subpixel_conv=True),
    "unshuffled ×2": replace(TINY, scale_factor=2, pixel_unshuffle=True),
}
LABELS = {"basicsr": "BasicSR names", "esrgan-new": "ESRGAN new names", "esrgan-old": "ESRGAN old names"}


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def file(request, tmp_path):
    state = {name: value * 0.3 for name, value in random_state(request.param).items()}
    save_file(tmp_path / "model.pth", {"params": {name: value.half().float() for name, value in state.items()}})
    return load_generator(tmp_path / "model.pth")


@pytest.fixture
def tiny_model(tmp_path):
    save_file(tmp_path / "model.pth", {"params": random_state(TINY), "stage": "training"})
    return tmp_path / "model.pth"


def image(file, *size, dtype=torch.float32):
    return torch.rand(size[0], file.architecture.img_channels, *size[1:], dtype=dtype)


def same_weights(one, other):
    return one.state.keys() == other.state.keys() and all(
        torch.equal(value, other.state[name]) for name, value in one.state.items()
    )


@pytest.mark.slow
def test_onnx_matches_the_generator_at_any_size_and_batch(file, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert export_onnx(file, tmp_path / "model.onnx") <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", file.architecture.img_channels, "low_height", "low_width"]
    network = file.build()
    for size in ((1, 7, 33), (3, 16, 16), (1, 1, 1)):
        low = image(file, *size)
        (high,) = session.run(["high"], {"low": low.numpy()})
        assert np.abs(high - network(low).detach().numpy()).max() <= 1e-4


@pytest.mark.slow
def test_onnx_in_float16(tiny_model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = load_generator(tiny_model)
    assert export_onnx(file, tmp_path / "half.onnx", half=True) > 0
    assert (tmp_path / "half.onnx").stat().st_size < 100_000
    session = onnxruntime.InferenceSession(tmp_path / "half.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].type == "tensor(float16)"


@pytest.mark.slow
def test_exported_program_in_float16(tiny_model, tmp_path):
    file = load_generator(tiny_model)
    differences = [export_program(file, str(tmp_path / "half.pt2"), half=True) for _ in range(2)]
    assert differences[0] == differences[1] <= 2e-2
    low = image(file, 1, 12, 16, dtype=torch.float16)
    high = torch.export.load(tmp_path / "half.pt2").module()(low)
    assert high.dtype == torch.float16
    expected = file.build()(low.float())
    assert (high.float() - expected).abs().max() <= 2e-2 * max(1, expected.abs().max())


@pytest.mark.slow
def test_exported_program_matches_the_generator(file, tmp_path):
    assert export_program(file, tmp_path / "model.pt2") <= 1e-6
    run = torch.export.load(tmp_path / "model.pt2").module()
    low = image(file, 3, 8, 20)
    torch.testing.assert_close(run(low), file.build()(low))
    assert [path.name for path in tmp_path.glob("*.pt2")] == ["model.pt2"]


@pytest.mark.slow
def test_a_full_disk_is_an_error_for_programs_too(tiny_model, tmp_path):
    command = f"ulimit -f 20; exec '{sys.executable}' -m esrgan export '{tiny_model}' '{tmp_path / 'a.pt2'}'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert re.search(r"error: .*a\.pt2: cannot be written: File too large; [^\n]*\n\Z", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == [tiny_model.name]


@pytest.mark.slow
def test_compiled_program_matches_the_generator(tiny_model, tmp_path):
    file = load_generator(tiny_model)
    try:
        export_program(file, tmp_path / "model.pt2", device=torch.device("cpu"))
    except EsrganError as error:
        if "compiler" in str(error).lower():
            pytest.skip("needs a C++ compiler")
        raise
    low = image(file, 1, 9, 21)
    run = torch._inductor.aoti_load_package(str(tmp_path / "model.pt2"))
    torch.testing.assert_close(run(low), file.build()(low), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("scale", "least"), [(2, 4), (1, 8)])
@pytest.mark.slow
def test_exported_program_accepts_the_documented_sizes(tmp_path, scale, least):
    architecture = replace(TINY, scale_factor=scale, pixel_unshuffle=True)
    save_file(tmp_path / "model.pth", {"params": random_state(architecture)})
    file = load_generator(tmp_path / "model.pth")
    export_program(file, tmp_path / "model.pt2")
    run = torch.export.load(tmp_path / "model.pt2").module()
    low = image(file, 1, least, least)
    torch.testing.assert_close(run(low), file.build()(low))
    with pytest.raises(AssertionError, match="Guard failed"):
        run(image(file, 1, least // 2, least))


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.slow
def test_ncnn_files_round_trip(file, tmp_path, half):
    export_ncnn(file, tmp_path / "net.param", half=half)
    back = load_generator(tmp_path / "net.param")
    assert back.architecture == file.architecture
    assert same_weights(back, file)  # float16 represents them exactly


def test_ncnn_export_matches_the_reference_weights(tmp_path):
    state = random_state(TINY)
    save_file(tmp_path / "model.pth", {"params": state})
    export_ncnn(load_generator(tmp_path / "model.pth"), tmp_path / "net.param", half=True)
    _, weights = NcnnWriter(state, TINY).write(tmp_path / "other")
    assert (tmp_path / "net.bin").read_bytes() == weights.read_bytes()


def test_ncnn_export_requires_a_param_suffix(tiny_model, tmp_path):
    with pytest.raises(EsrganError, match=r"expected a name that ends in \.param, got \.bin"):
        export_ncnn(load_generator(tiny_model), str(tmp_path / "net.bin"))
    assert not list(tmp_path.glob("net*"))


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.slow
def test_ncnn_runs_the_exported_files(file, tmp_path, half):
    ncnn = pytest.importorskip("ncnn")
    export_ncnn(file, str(tmp_path / "net.param"), half=half)  # float16 represents these weights exactly
    net = ncnn.Net()
    net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = net.opt.use_vulkan_compute = False
    assert net.load_param(str(tmp_path / "net.param")) == 0
    assert net.load_model(str(tmp_path / "net.bin")) == 0
    low = image(file, 1, 16, 20)
    pixels = np.ascontiguousarray(low[0].numpy())  # a variable, because ncnn does not keep the array alive
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(pixels))
    _, high = extractor.extract("output")
    expected = file.build()(low)[0].detach().numpy()
    assert np.abs(np.array(high).reshape(expected.shape) - expected).max() <= 1e-4


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dialect", LABELS)
@pytest.mark.slow
def test_weights_are_exported_in_other_dialects(file, tmp_path, dialect, suffix):
    path = tmp_path / f"out{suffix}"
    export_weights(file, path, dialect)
    content = load_file(path)
    state = content.get("params", content)
    expected = DIALECT_WRITERS[LABELS[dialect]](file.state, file.architecture)
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())
    back = load_generator(path)
    assert back.dialect == LABELS[dialect]
    assert back.architecture == file.architecture
    assert same_weights(back, file)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_earlier_framework_weights_have_residual_scaling_scalars(tiny_model, tmp_path, suffix):
    file = load_generator(tiny_model)
    export_weights(file, tmp_path / f"out{suffix}", "earlier")
    content = load_file(tmp_path / f"out{suffix}")
    expected = earlier(file.state, TINY)
    assert content.get("params", content).keys() == expected.keys()
    assert same_weights(load_generator(tmp_path / f"out{suffix}"), file)


def test_basicsr_dialect_keeps_stage_and_configuration(tiny_model, tmp_path):
    assert main(["export", str(tiny_model), str(tmp_path / "half.safetensors"), "--half"]) == 0
    back = load_generator(tmp_path / "half.safetensors")
    assert back.stage == "training"
    assert {value.dtype for value in load_file(tmp_path / "half.safetensors")["params"].values()} == {torch.float16}


@pytest.mark.parametrize("beta", [0.5, 0.1, 0.0, 1.0])
@pytest.mark.parametrize("num_dense_blocks", [1, 3])
@pytest.mark.parametrize("dialect", DIALECT_KEYS)
@pytest.mark.slow
def test_weights_compute_the_same_with_any_residual_scaling(tmp_path, dialect, num_dense_blocks, beta):
    architecture = replace(TINY, residual_scaling=beta, num_dense_blocks=num_dense_blocks)
    save_file(tmp_path / "earlier.pth", earlier(random_state(architecture), architecture))
    file = load_generator(tmp_path / "earlier.pth")
    export_weights(file, tmp_path / "out.pth", dialect)
    back = load_generator(tmp_path / "out.pth")
    assert back.architecture == replace(architecture, residual_scaling=beta if dialect == "earlier" else 0.2)
    low = image(file, 2, 7, 9)
    expected = file.build()(low).detach()
    assert float((back.build()(low).detach() - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_saved_hparams_record_the_actual_residual_scaling(tmp_path):
    hparams = {"seed": 3, "generator": {"residual_scaling": 0.5, "rrdb_channels": 4}}
    save_file(tmp_path / "model.pth", {"params": random_state(TINY), "hparams": hparams})
    export_weights(load_generator(tmp_path / "model.pth"), tmp_path / "out.safetensors")
    back = load_generator(tmp_path / "out.safetensors")
    assert back.hparams == {"seed": 3, "generator": {"residual_scaling": 0.2, "rrdb_channels": 4}}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".param", ".pt2"])
def test_weights_beyond_float16_are_rejected(tmp_path, capsys, suffix):
    state = random_state(TINY)
    state["conv_hr.weight"][0, 0, 0, 0] = 7e4
    save_file(tmp_path / "model.pth", {"params": state})
    assert main(["export", str(tmp_path / "model.pth"), str(tmp_path / f"out{suffix}"), "--half"]) == 2
    place = tmp_path / "model.pth"
    expected = f"{place}: expected weights in the range of float16, got 70000 in conv_hr.weight; export without --half"
    assert capsys.readouterr().err == f"error: {expected}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


def test_biases_of_ncnn_files_stay_float32(tmp_path):
    state = random_state(TINY)
    state["conv_hr.bias"][0] = 7e4
    save_file(tmp_path / "model.pth", {"params": state})
    export_ncnn(load_generator(tmp_path / "model.pth"), tmp_path / "net.param", half=True)
    assert load_generator(tmp_path / "net").state["conv_hr.bias"][0] == 7e4


@pytest.mark.parametrize("taken", ["net.param", "net.bin"])
def test_ncnn_pair_is_replaced_as_a_pair(tiny_model, tmp_path, taken):
    other = {"net.param": "net.bin", "net.bin": "net.param"}[taken]
    (tmp_path / taken).mkdir()
    (tmp_path / other).write_text("mine")
    with pytest.raises(EsrganError, match=f"{taken}: expected a file to write, got a folder; choose another name"):
        export_ncnn(load_generator(tiny_model), tmp_path / "net.param")
    assert (tmp_path / other).read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"model.pth", taken, other}


@pytest.mark.parametrize("dialect", ["foo", "ncnn"])
def test_unknown_dialects_are_rejected(tiny_model, tmp_path, dialect):
    with pytest.raises(WeightsError, match=f"dialect: expected one of {', '.join(DIALECT_KEYS)}, got {dialect}"):
        export_weights(load_generator(tiny_model), tmp_path / "out.pth", dialect)
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("name", ["OUT.PTH", "out.pt", "OUT.SafeTensors", "OUT.PARAM"])
@pytest.mark.slow
def test_suffixes_are_case_insensitive(tiny_model, tmp_path, name):
    assert main(["export", str(tiny_model), str(tmp_path / name)]) == 0
    assert same_weights(load_generator(tmp_path / name), load_generator(tiny_model))
    if name == "OUT.SafeTensors":
        assert (tmp_path / name).read_bytes()[8:9] == b"{"


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.pt2", "a.param", "a.bin", "blend.pth", "hub"])
def test_a_file_that_comes_during_the_work_is_kept(tiny_model, tmp_path, monkeypatch, capsys, name):
    taken = tmp_path / name / "config.json" if name == "hub" else tmp_path / name
    out = tmp_path / "a.param" if name == "a.bin" else tmp_path / name
    command = ["interpolate", f"--mix={tiny_model}=0.5", f"--mix={tiny_model}=0.5", str(out)]
    if name != "blend.pth":
        command = ["export", str(tiny_model), str(out)]
    if name == "hub":
        command += ["--hub", "owner/name", "--licence", "MIT"]
    build = weights.load_generator

    def load_slowly(path):
        taken.parent.mkdir(exist_ok=True)
        taken.write_text("mine")
        return build(path)

    monkeypatch.setattr(weights, "load_generator", load_slowly)
    assert main(command) == 2
    assert "expected a new file, got a file; choose another name, or allow overwriting" in capsys.readouterr().err
    assert taken.read_text() == "mine"
    assert main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(("dialect", "warns"), [("basicsr", True), ("esrgan-new", True), ("esrgan-old", False)])
def test_names_under_which_other_programs_misread_esrgan_plus_are_named(tmp_path, capsys, dialect, warns):
    model, out = tmp_path / "model.pth", tmp_path / "out.pth"
    save_file(model, {"params": random_state(replace(TINY, plus=True, num_residual_blocks=5))})
    assert main(["export", str(model), str(out), "--names", dialect]) == 0
    warning = f"{out}: chaiNNer and ComfyUI ignore the 1×1 convolutions of ESRGAN+ in this file"
    assert (warning in capsys.readouterr().err) == warns
    assert main(["interpolate", f"--mix={model}=0.5", f"--mix={model}=0.5", str(out), "--overwrite"]) == 0
    assert warning in capsys.readouterr().err


def test_command_reports_what_it_wrote(tiny_model, tmp_path, capsys):
    out = tmp_path / "new" / "net.param"
    assert main(["export", str(tiny_model), str(out)]) == 0
    pattern = rf"{out} and {out.with_suffix('.bin')}: [\d,]+ bytes, from {tiny_model} \(RRDBNet ×4 4/2/2, .*\)"
    assert re.match(pattern, capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.tflite"], "expected one of .onnx, .pt2, .param, .safetensors, .pth, .pt, got .tflite"),
        (["x.onnx", "--names", "esrgan-old"], "--names: only for .safetensors, .pth, .pt, got .onnx"),
        (["x.pth", "--compile"], "--compile: only for .pt2"),
        (["x.pt2", "--device", "cpu"], "--device: only for --compile; add --compile or omit --device"),
        (["there.param"], "there.bin: already exists; use --overwrite to replace it"),
        (["link.pth"], "link.pth: already exists; use --overwrite to replace it"),
    ],
)
def test_command_checks_arguments_before_loading(tiny_model, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.bin").write_text("mine")
    (tmp_path / "link.pth").symlink_to("nowhere.pth")
    assert main(["export", str(tiny_model), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "there.bin").read_text() == "mine"


@pytest.mark.slow
def test_wrong_result_is_not_written(tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    file = load_generator(tiny_model)
    other = replace(file, state={name: value + 0.01 for name, value in file.state.items()})
    monkeypatch.setattr(
        torch.onnx,
        "export",
        lambda *args, export=torch.onnx.export, **options: export(other.build(), *args[1:], **options),
    )
    with pytest.raises(EsrganError, match="not written, because its outputs differ"):
        export_onnx(file, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.slow
def test_autocast_of_the_caller_does_not_matter(tiny_model, tmp_path):
    pytest.importorskip("onnxruntime")
    with torch.autocast("cpu", torch.bfloat16):
        assert export_onnx(load_generator(tiny_model), tmp_path / "a.onnx") < 1e-4
        assert export_program(load_generator(tiny_model), tmp_path / "a.pt2") < 1e-4
