"""What spandrel, which chaiNNer and ComfyUI use, makes of our files: the bundled models and all exported forms."""

import importlib.util
from pathlib import Path

import pytest
import spandrel
import torch

from esrgan.export import export_weights
from esrgan.pretrained import MODELS, resolve
from esrgan.weights import CompactArchitecture, GeneratorFile, RRDBNetArchitecture, save_file
from tests.helpers.weight_files import random_state

SPEC = importlib.util.spec_from_file_location(
    "check_spandrel", Path(__file__).parents[2] / "integrations/check_spandrel.py"
)
check_spandrel = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check_spandrel)

RRDBNET = {
    "scale_factor": 4,
    "img_channels": 3,
    "rrdb_channels": 8,
    "growth_channels": 32,
    "num_basic_blocks": 2,
    "num_dense_blocks": 3,
    "num_residual_blocks": 5,
    "use_subpixel_conv": False,
    "pixel_unshuffle": False,
}
BUNDLED = [name for name, model in MODELS.items() if model.source is None]


def make_file(architecture):
    state = {name: value * 0.25 for name, value in random_state(architecture).items()}
    return GeneratorFile(Path("model.pth"), state, architecture, "training", None, {"seed": 1})


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.slow
def test_bundled_files_give_equal_outputs(name):
    assert check_spandrel.compare(resolve(name)) < 1e-5


@pytest.mark.parametrize(
    "architecture",
    [
        RRDBNetArchitecture(**RRDBNET),
        RRDBNetArchitecture(**RRDBNET | {"scale_factor": 2, "pixel_unshuffle": True}),
        RRDBNetArchitecture(**RRDBNET, residual_scaling=0.3),
        CompactArchitecture(scale_factor=2, img_channels=3, num_feat=8, num_conv=2),
    ],
    ids=["rrdbnet", "unshuffle", "other-scaling", "compact"],
)
@pytest.mark.slow
def test_every_exported_form_gives_equal_outputs(tmp_path, architecture):
    file = make_file(architecture)
    forms = list(check_spandrel.write_forms(file, tmp_path))
    assert len(forms) == (6 if isinstance(architecture, CompactArchitecture) else 18)
    assert max(map(check_spandrel.compare, forms)) < 1e-5
    low = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        expected, loaded = file.build()(low), spandrel.ModelLoader().load_from_file(forms[0]).model(low)
    torch.testing.assert_close(loaded, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_of_trainings_and_blends_give_equal_outputs(tmp_path, suffix):
    save_file(tmp_path / f"model{suffix}", make_file(RRDBNetArchitecture(**RRDBNET)).to_dict())
    assert check_spandrel.compare(tmp_path / f"model{suffix}") < 1e-5


# What docs/how_to/other_programs.md says cannot be loaded.


@pytest.mark.parametrize(
    "change",
    [{"growth_channels": 16}, {"num_dense_blocks": 2}, {"num_residual_blocks": 4}, {"use_subpixel_conv": True}],
)
def test_other_sizes_are_refused(tmp_path, change):
    export_weights(make_file(RRDBNetArchitecture(**RRDBNET | change)), tmp_path / "a.pth")
    with pytest.raises(RuntimeError, match="loading state_dict"):
        check_spandrel.compare(tmp_path / "a.pth")


def test_names_of_the_earlier_framework_are_unknown(tmp_path):
    export_weights(make_file(RRDBNetArchitecture(**RRDBNET)), tmp_path / "a.pth", "earlier")
    with pytest.raises(spandrel.UnsupportedModelError):
        check_spandrel.compare(tmp_path / "a.pth")


def test_unexported_residual_scaling_is_ignored(tmp_path):
    save_file(tmp_path / "a.pth", make_file(RRDBNetArchitecture(**RRDBNET, residual_scaling=0.3)).to_dict())
    assert check_spandrel.compare(tmp_path / "a.pth") > 0.01


@pytest.mark.parametrize("activation", ["relu", "leakyrelu"])
def test_compact_networks_without_prelu_are_refused(tmp_path, activation):
    architecture = CompactArchitecture(scale_factor=2, img_channels=3, num_feat=8, num_conv=2, act_type=activation)
    export_weights(make_file(architecture), tmp_path / "a.pth")
    with pytest.raises((RuntimeError, spandrel.UnsupportedModelError)):
        check_spandrel.compare(tmp_path / "a.pth")


# The script


def test_the_script_reports_each_form_that_fails(tmp_path, capsys, monkeypatch):
    save_file(tmp_path / "a.pth", make_file(RRDBNetArchitecture(**RRDBNET | {"growth_channels": 16})).to_dict())
    monkeypatch.setattr("sys.argv", ["check_spandrel.py", "realesr-animevideov3", str(tmp_path / "a.pth")])
    assert check_spandrel.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("realesr-animevideov3: 7 files loaded, 0 failed, largest difference ")
    assert lines[1].startswith(f"{tmp_path / 'a.pth'}: a.pth: refused by spandrel: Error(s) in loading state_dict")
    assert lines[-1] == f"{tmp_path / 'a.pth'}: 0 files loaded, 19 failed"
