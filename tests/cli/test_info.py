"""``esrgan info``."""

import hashlib
import json
import re

import pytest
import torch

from esrgan import Config
from esrgan.cli import main
from esrgan.export import export_ncnn
from esrgan.weights import load_generator
from tests.helpers.models import make_model


def test_info_describes_a_file(tmp_path, capsys):
    hparams = json.loads(Config.model_validate({"batch_size": 3}).model_dump_json())
    path = make_model(tmp_path / "model.pth", stage="pretraining", hparams=hparams)
    assert main(["info", str(path), str(tmp_path / "none.pth")]) == 1
    output = capsys.readouterr()
    assert re.match(rf"{path}: RRDBNet ×2 8/4/1, [\d,]+ parameters, PSNR stage\n", output.out)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in output.out
    assert output.out.endswith(", except (default → here)\n    batch_size: 16 → 3\n")
    assert "no such file" in output.err


def test_info_prints_json(tmp_path, capsys):
    path = make_model(tmp_path / "model.safetensors", channels=1, blocks=2)
    assert main(["info", "--json", str(path)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["channels"] == 1
    assert facts["scale"] == 2
    assert facts["stage"] == "of unknown training"
    from safetensors.torch import load_file

    assert facts["parameters"] == sum(value.numel() for value in load_file(path).values())
    assert facts["files"][str(path)]["bytes"] == path.stat().st_size


def test_info_shows_the_step_of_a_checkpoint(tmp_path, capsys):
    checkpoint = {"run": "x", "step": 1234, "best": None, "stage": "training"}
    path = make_model(tmp_path / "c.pth", stage="training", checkpoint=checkpoint)
    assert main(["info", str(path)]) == 0
    assert "checkpoint     step 1,234" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [
        {"hparams": {1: 2, "a": 3}},
        {"hparams": {"batch_size": torch.ones(3)}},
        {"hparams": {"generator": {"note": {torch.float32}}}},
        {"checkpoint": {"step": "abc"}},
        {"checkpoint": {"step": [1]}},
        {"licence": torch.ones(1)},
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_info_omits_invalid_values(tmp_path, capsys, content, options):
    path = make_model(tmp_path / "model.pth", **content)
    assert main(["info", str(path), *options]) == 0
    out = capsys.readouterr().out
    assert not re.search("trained with|checkpoint  |licence  |configuration", out)


def test_info_prints_no_control_characters(tmp_path, capsys):
    hparams = {"run_name": "\x1b[2Jx\x9b2J", "\x1b[31m": 1}
    path = make_model(tmp_path / "model.pth", hparams=hparams, licence="\x1b]0;MIT")
    for options in ([], ["--json"]):
        assert main(["info", str(path), *options]) == 0
        out = capsys.readouterr().out
        assert "MIT" in out
        assert all(character.isprintable() for character in out.replace("\n", ""))
    assert json.loads(out)["configuration"] == hparams


def test_info_compares_only_keys_in_the_file(tmp_path, capsys):
    path = make_model(tmp_path / "model.pth", hparams={"seed": 7, "generator": {"num_basic_blocks": 1}})
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    changes = out.partition("except (default → here)\n")[2].splitlines()
    assert [change.split(":")[0].strip() for change in changes] == ["generator.num_basic_blocks", "seed"]


def test_info_shows_each_checksum_under_its_file(tmp_path, capsys):
    export_ncnn(load_generator(make_model(tmp_path / "model.pth")), tmp_path / "net.param")
    assert main(["info", str(tmp_path / "net.param")]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("net.param", "net.bin"):
        number = next(i for i, line in enumerate(lines) if f"{name}, " in line)
        assert lines[number + 1].endswith(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())


def test_info_shows_a_licence_only_for_its_model(tmp_path, capsys, monkeypatch):
    def licence(model):
        assert main(["info", "--json", str(model)]) == 0
        return json.loads(capsys.readouterr().out)["licence"]

    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "esrgan-lite")
    assert licence("./esrgan-lite") is None
    make_model(tmp_path / "own.safetensors", licence="CC0-1.0")
    assert licence("own.safetensors") == "CC0-1.0"
    monkeypatch.setattr("esrgan.pretrained.resolve", lambda model: tmp_path / "esrgan-lite")
    assert licence("bsrgan") == "Apache-2.0"
