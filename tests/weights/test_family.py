"""The networks of the family besides RRDBNet ×1 to ×8 are read, described and written in every format."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from esrgan import Upscaler
from esrgan.cli import main
from esrgan.errors import WeightsError
from esrgan.export import export_ncnn, export_weights
from esrgan.interpolation import blend, mix
from esrgan.weights import CompactArchitecture, load_generator, save_file
from tests.helpers.weight_files import TINY, esrgan_old, random_state

COMPACT = CompactArchitecture(scale_factor=4, img_channels=3, num_feat=5, num_conv=2)
PLUS = replace(TINY, plus=True, num_residual_blocks=5)
FAMILY = {
    "compact": (COMPACT, "SRVGGNetCompact ×4 5/2"),
    "compact x3": (replace(COMPACT, scale_factor=3, num_conv=0), "SRVGGNetCompact ×3 5/0"),
    "compact grey": (replace(COMPACT, scale_factor=1, img_channels=1), "SRVGGNetCompact ×1 5/2, img_channels 1"),
    "compact relu": (replace(COMPACT, act_type="relu"), "SRVGGNetCompact ×4 5/2, act_type relu"),
    "plus": (PLUS, "ESRGAN+ ×4 4/2/2, num_dense_blocks 2"),
    "x16": (replace(TINY, scale_factor=16), "RRDBNet ×16 4/2/2, num_dense_blocks 2, num_residual_blocks 3"),
    "colouriser": (
        replace(TINY, scale_factor=1, is_colouriser=True),
        "RRDBNet ×1 4/2/2, num_dense_blocks 2, num_residual_blocks 3, colours grey images",
    ),
} | {
    f"x{scale} fold {fold}": (
        replace(TINY, scale_factor=scale, pixel_unshuffle=fold),
        f"RRDBNet ×{scale} 4/2/2, num_dense_blocks 2, num_residual_blocks 3, pixel_unshuffle {shown}",
    )
    for scale, fold, shown in ((1, 2, 2), (1, 4, True), (2, 2, True), (2, 4, 4), (4, 2, 2))
}


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_architecture_is_inferred_from_the_tensors(tmp_path, kind, suffix):
    architecture, description = FAMILY[kind]
    state = random_state(architecture)
    save_file(tmp_path / f"a{suffix}", {"params": state})
    file = load_generator(tmp_path / f"a{suffix}")
    assert file.architecture == architecture
    assert str(file.architecture) == description
    assert all(torch.equal(file.build().state_dict()[name], value) for name, value in state.items())


@pytest.mark.parametrize("kind", FAMILY)
def test_ncnn_pairs_are_written_and_read_back(tmp_path, kind):
    architecture, _ = FAMILY[kind]
    state = random_state(architecture)
    save_file(tmp_path / "a.pth", {"params": state})
    file = replace(load_generator(tmp_path / "a.pth"), architecture=architecture)
    for half in (False, True):
        export_ncnn(file, tmp_path / "b.param", half=half)
        read = load_generator(tmp_path / "b.param")
        assert read.architecture == architecture
        assert read.dialect == "ncnn"
        assert read.hparams == ({"generator": {"act_type": "relu"}} if kind == "compact relu" else {})
        assert all(torch.equal(read.state[name], value) for name, value in state.items())


def test_a_leaky_activation_survives_a_model_file_and_ncnn(tmp_path):
    architecture = replace(COMPACT, act_type="leakyrelu")
    save_file(tmp_path / "a.pth", {"params": random_state(architecture)})
    assert load_generator(tmp_path / "a.pth").architecture.act_type == "relu"  # the tensors are the same
    file = replace(load_generator(tmp_path / "a.pth"), architecture=architecture)
    export_ncnn(file, tmp_path / "b.param")
    export_weights(file, tmp_path / "c.safetensors")
    assert load_generator(tmp_path / "b.param").architecture == architecture
    assert load_generator(tmp_path / "c.safetensors").architecture == architecture


def write_reduced(path, architecture, factor):
    """Write an ncnn pair whose last layer resizes the output."""
    save_file(path.with_suffix(".pth"), {"params": random_state(architecture)})
    export_ncnn(load_generator(path.with_suffix(".pth")), path)
    text = path.read_text().rstrip().replace(" output ", " whole ")
    head, counts, *layers = text.split("\n")
    counts = f"{len(layers) + 1} {int(counts.split()[1]) + 1}"
    layers.append(f"Interp reduce 1 1 whole output 0=3 1={factor:e} 2={factor:e}")
    path.write_text("\n".join([head, counts, *layers, ""]))
    return path


FOLDED = replace(TINY, scale_factor=2, pixel_unshuffle=2)
REDUCED = [(COMPACT, 0.75, 3), (TINY, 0.5, 2), (FOLDED, 0.5, 1), (replace(TINY, use_subpixel_conv=True), 0.25, 1)]


@pytest.mark.parametrize(("architecture", "factor", "outscale"), REDUCED)
def test_an_ncnn_file_that_reduces_the_output_says_its_scale(tmp_path, architecture, factor, outscale):
    file = load_generator(write_reduced(tmp_path / "b.param", architecture, factor))
    assert (file.architecture, file.outscale) == (architecture, outscale)
    assert file.describe() == f"{architecture}, reduced to ×{outscale}, ncnn, of unknown training"
    high = Upscaler.from_file(tmp_path / "b.param", "cpu")(np.zeros((8, 12, 3), np.uint8))
    assert high.shape == (8 * outscale, 12 * outscale, 3)


@pytest.mark.parametrize("name", ["c.pth", "c.safetensors", "c.param"])
def test_a_reduction_survives_exports_and_blends(tmp_path, name, capsys):
    path = write_reduced(tmp_path / "a.param", TINY, 0.5)
    assert main(["export", str(path), str(tmp_path / name)]) == 0
    reduced, plain = load_generator(tmp_path / name), load_generator(tmp_path / "a.pth")
    assert reduced.outscale == 2
    assert [blend(plain, reduced, 0.5).outscale, blend(reduced, plain, 0.5).outscale] == [2, 2]
    assert mix([plain, reduced, plain], [0.2, 0.3, 0.5]).outscale == 2
    capsys.readouterr()
    out = tmp_path / "blend.pth"
    assert main(["interpolate", "--mix", f"{tmp_path / name}=0.5", "--mix", f"{tmp_path / 'a.pth'}=0.5", str(out)]) == 0
    assert main(["info", str(out)]) == main(["info", "--json", str(out)]) == 0
    mixed, text, *_, facts = capsys.readouterr().out.splitlines()
    assert f"{out}: {TINY}, reduced to ×2, 0.5 ×" in mixed
    assert f"{out}: {TINY}, reduced to ×2, " in text
    assert json.loads(facts)["outscale"] == 2


def test_reducing_models_in_a_chain_work_one_after_the_other(tmp_path):
    path = write_reduced(tmp_path / "a.param", TINY, 0.5)
    image = np.linspace(0, 1, 8 * 6 * 3, dtype=np.float32).reshape(8, 6, 3)
    once = Upscaler.from_file(path, "cpu", "exact")
    np.testing.assert_array_equal(Upscaler.from_file([path, path], "cpu", "exact")(image), once(once(image)))


def test_a_reduction_that_a_format_cannot_keep_is_named(tmp_path, capsys):
    path = write_reduced(tmp_path / "a.param", TINY, 0.5)
    out = tmp_path / "old.pth"
    assert main(["export", str(path), str(out), "--names", "esrgan-old"]) == 0
    assert f"{out}: its output is ×4, not reduced to ×2; resize it by 0.5, or" in capsys.readouterr().err
    assert load_generator(out).outscale is None


@pytest.mark.parametrize("value", [0, 4, 7.5, -1, True, "2", float("nan"), float("inf")])
def test_a_scale_of_other_programs_is_not_taken_for_a_reduction(tmp_path, value):
    save_file(tmp_path / "a.pth", {"params": random_state(TINY), "outscale": value})
    assert load_generator(tmp_path / "a.pth").outscale is None


def test_wrappers_counters_and_other_keys_are_understood(tmp_path):
    for number, architecture in enumerate((COMPACT, TINY)):
        state = random_state(architecture)
        counters = {"total_ops": torch.tensor(5), "body.0.total_params": torch.tensor(1.0, dtype=torch.float64)}
        for key, prefix in (("params-ema", ""), ("net", "module."), ("weights", "netG.")):
            path = tmp_path / f"{key}{number}.pth"
            torch.save({key: {f"{prefix}{name}": value for name, value in {**state, **counters}.items()}}, path)
            assert load_generator(path).architecture == architecture


@pytest.mark.parametrize("architecture", [COMPACT, TINY])
def test_counters_and_zeros_beside_the_layers_are_ignored(tmp_path, architecture):
    state = random_state(architecture)
    for prefix in ("", "netG."):
        extra = {"step": torch.tensor(5), "flags": torch.tensor([True]), "mean": torch.zeros(1, 3, 1, 1)}
        torch.save({f"{prefix}{name}": value for name, value in (state | extra).items()}, tmp_path / "a.pth")
        assert load_generator(tmp_path / "a.pth").state.keys() == state.keys()
    torch.save(state | {"mean": torch.full((1, 3, 1, 1), 0.5)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"mean|another network"):
        load_generator(tmp_path / "a.pth")


@pytest.mark.parametrize("channels", [2, 5])
@pytest.mark.parametrize("architecture", [COMPACT, TINY, FOLDED])
def test_networks_for_other_numbers_of_channels_take_tensors_only(tmp_path, architecture, channels):
    torch.save(random_state(replace(architecture, img_channels=channels)), tmp_path / "a.pth")
    upscaler = Upscaler.from_file(tmp_path / "a.pth", "cpu")
    assert upscaler(torch.zeros(1, channels, 8, 8)).shape[1] == channels
    with pytest.raises(WeightsError, match=f"expected a network for grey, RGB or RGBA, got {channels} channels; pass"):
        upscaler(np.zeros((8, 8, 3), np.uint8))


def test_weights_that_are_not_averaged_or_of_another_network_are_not_preferred(tmp_path):
    raw, other = random_state(TINY), random_state(COMPACT)
    for key, value in (("params_non_ema", random_state(TINY)), ("no_ema", random_state(TINY)), ("netD_ema", other)):
        torch.save({"params": raw, key: value}, tmp_path / "a.pth")
        assert torch.equal(load_generator(tmp_path / "a.pth").state["conv_hr.bias"], raw["conv_hr.bias"])


def test_two_unknown_keys_with_tensors_are_not_guessed_at(tmp_path):
    torch.save({"a": random_state(TINY), "b": random_state(TINY)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"got 2 sets of weights \(keys: a, b\)"):
        load_generator(tmp_path / "a.pth")


def test_esrgan_plus_has_old_names(tmp_path):
    state = random_state(PLUS)
    one = {name: value for name, value in state.items() if "conv1x1" not in name}
    old = esrgan_old(one, PLUS) | {
        name.replace("body.", "model.1.sub.").replace("rdb", "RDB"): value
        for name, value in state.items()
        if "conv1x1" in name
    }
    torch.save(old, tmp_path / "a.pth")
    file = load_generator(tmp_path / "a.pth")
    assert file.architecture == PLUS
    assert all(torch.equal(file.state[name], value) for name, value in state.items())
    export_weights(file, tmp_path / "b.pth", "esrgan-old")
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    assert again.keys() == old.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"body.2.weight": None}, "expected the convolutions of SRVGGNetCompact, body.0, body.2, body.4 and so on"),
        ({"body.6.weight": torch.zeros(47, 5, 3, 3)}, "no SRVGGNetCompact has 3 input channels and 47 channels"),
        ({"body.3.weight": None}, r"missing tensors: 1 \(first: body.3.weight\)"),
        ({"body.3.weight": torch.zeros(4)}, r"tensors of the wrong shape: 1 \(first: body.3.weight\)"),
    ],
)
def test_damaged_compact_networks_are_refused(tmp_path, changes, message):
    state = random_state(COMPACT) | changes
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=message):
        load_generator(tmp_path / "a.pth")


def test_compact_networks_are_blended_and_have_one_dialect(tmp_path):
    for seed in (0, 1):
        save_file(tmp_path / f"{seed}.pth", {"params": random_state(COMPACT, seed)})
    one, other = (load_generator(tmp_path / f"{seed}.pth") for seed in (0, 1))
    mixed = blend(one, other, 0.25)
    name = "body.2.weight"
    torch.testing.assert_close(mixed.state[name], 0.75 * one.state[name] + 0.25 * other.state[name])
    with pytest.raises(WeightsError, match="expected basicsr, the only ones for SRVGGNetCompact"):
        export_weights(one, tmp_path / "c.pth", "esrgan-old")
