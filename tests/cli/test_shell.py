"""What a person at a shell has besides the work: versions, info, doctor, completion."""

import contextlib
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from esrgan import Config
from esrgan.cli import doctor, main, make_parser
from esrgan.export import export_ncnn
from esrgan.pretrained import MODELS
from esrgan.weights import load_generator
from tests.helpers.models import make_model


def test_version_names_pytorch_and_cuda(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    cuda = torch.version.cuda or "none"
    expected = f"esrgan {version('esrgan')}, torch {torch.__version__}, CUDA {cuda}, Python {sys.version.split()[0]}\n"
    assert capsys.readouterr().out == expected


def test_info_tells_what_a_file_is(tmp_path, capsys):
    hparams = json.loads(Config.model_validate({"batch_size": 3}).model_dump_json())
    path = make_model(tmp_path / "model.pth", stage="pretraining", hparams=hparams)
    assert main(["info", str(path), str(tmp_path / "none.pth")]) == 1
    output = capsys.readouterr()
    assert re.match(rf"{path}: RRDBNet ×2 8/4/1, [\d,]+ parameters, PSNR stage\n", output.out)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in output.out
    assert output.out.endswith("but for (default → here)\n    batch_size: 16 → 3\n")
    assert "there is no such file" in output.err


def test_info_counts_and_gives_json(tmp_path, capsys):
    path = make_model(tmp_path / "model.safetensors", channels=1, blocks=2)
    assert main(["info", "--json", str(path)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["channels"] == 1
    assert facts["scale"] == 2
    assert facts["stage"] == "of unknown training"
    from safetensors.torch import load_file

    assert facts["parameters"] == sum(value.numel() for value in load_file(path).values())
    assert facts["files"][str(path)]["bytes"] == path.stat().st_size


def test_info_of_a_checkpoint_names_its_step(tmp_path, capsys):
    checkpoint = {"run": "x", "step": 1234, "best": None, "stage": "training"}
    path = make_model(tmp_path / "c.pth", stage="training", checkpoint=checkpoint)
    assert main(["info", str(path)]) == 0
    assert "of step 1,234" in capsys.readouterr().out


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
def test_info_of_a_file_with_odd_values_leaves_them_out(tmp_path, capsys, content, options):
    path = make_model(tmp_path / "model.pth", **content)
    assert main(["info", str(path), *options]) == 0
    out = capsys.readouterr().out
    assert not re.search("trained with|of step|licence  |configuration", out)


def test_info_prints_no_control_characters(tmp_path, capsys):
    hparams = {"run_name": "\x1b[2Jx\x9b2J", "\x1b[31m": 1}
    path = make_model(tmp_path / "model.pth", hparams=hparams, licence="\x1b]0;MIT")
    for options in ([], ["--json"]):
        assert main(["info", str(path), *options]) == 0
        out = capsys.readouterr().out
        assert "MIT" in out
        assert all(character.isprintable() for character in out.replace("\n", ""))
    assert json.loads(out)["configuration"] == hparams


def test_info_compares_what_the_file_has(tmp_path, capsys):
    path = make_model(tmp_path / "model.pth", hparams={"seed": 7, "generator": {"num_basic_blocks": 1}})
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    changes = out.partition("but for (default → here)\n")[2].splitlines()
    assert [change.split(":")[0].strip() for change in changes] == ["generator.num_basic_blocks", "seed"]


def test_info_shows_each_checksum_under_its_file(tmp_path, capsys):
    export_ncnn(load_generator(make_model(tmp_path / "model.pth")), tmp_path / "net.param")
    assert main(["info", str(tmp_path / "net.param")]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("net.param", "net.bin"):
        number = next(i for i, line in enumerate(lines) if f"{name}, " in line)
        assert lines[number + 1].endswith(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())


def test_info_gives_a_licence_to_none_but_its_model(tmp_path, capsys, monkeypatch):
    def licence(model):
        assert main(["info", "--json", str(model)]) == 0
        return json.loads(capsys.readouterr().out)["licence"]

    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "esrgan-lite")
    assert licence("./esrgan-lite") is None
    make_model(tmp_path / "own.safetensors", licence="CC0-1.0")
    assert licence("own.safetensors") == "CC0-1.0"
    monkeypatch.setattr("esrgan.pretrained.find", lambda model: tmp_path / "esrgan-lite")
    assert licence("bsrgan") == "Apache-2.0"


def doctor_on_datasets(root, capsys, monkeypatch):
    for part in ("_versions", "_devices", "_extras", "_models"):
        monkeypatch.setattr(doctor, part, lambda: ())
    assert main(["doctor", "--data-root", str(root)]) == 0
    return capsys.readouterr().out


def test_doctor_says_what_is_wrong_with_a_dataset(tmp_path, capsys, monkeypatch, write_images):
    write_images(tmp_path / "DIV2K_train_HR", 3)
    low = tmp_path / "DIV2K_train_LR_bicubic/X4"
    low.mkdir(parents=True)
    names = sorted(path.name for path in (tmp_path / "DIV2K_train_HR").iterdir())
    (low / names[0]).write_bytes((tmp_path / "DIV2K_train_HR" / names[0]).read_bytes())
    (tmp_path / "Set5/GTmod12").mkdir(parents=True)
    write_images(tmp_path / "Flickr2K/Flickr2K_HR", 2)
    monkeypatch.setattr("esrgan.extras.missing", lambda extra: ["skimage"])
    out = doctor_on_datasets(tmp_path, capsys, monkeypatch)
    unmatched = f"{tmp_path}/DIV2K_train_HR/{names[1]}: expected an image of this name in {low}, got none; "
    assert f"  div2k                {unmatched}add it or remove this one (and 1 more)\n" in out
    assert f"\n{' ' * 23}expected the folder {tmp_path}/DIV2K_valid_HR, got nothing; download it by: " in out
    assert (
        f"  set5                 dataset {tmp_path}/Set5/GTmod12: expected images in this folder, got none; put" in out
    )
    assert f"  set14                missing; esrgan prepare set14 --data-root {tmp_path}\n" in out
    assert "  flickr2k             2 to train on\n" in out
    assert out.count("images to train on alone; validate on div2k") == 1
    assert "  skimage              expected scikit-image, got nothing; pip install 'esrgan[train]'\n" in out


def test_doctor_says_that_a_data_root_is_a_file(tmp_path, capsys, monkeypatch):
    (tmp_path / "afile").touch()
    out = doctor_on_datasets(tmp_path / "afile", capsys, monkeypatch)
    assert f"folder               {tmp_path}/afile: expected a folder, got a file\n" in out


def test_doctor_says_what_it_may_not_enter(tmp_path, capsys, monkeypatch):
    def refuse(path, *, stat=Path.stat, **options):
        if tmp_path / "closed" in path.parents:
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)  # root may enter any folder
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "closed/torch"))
    assert main(["doctor", "--data-root", str(tmp_path / "closed/data")]) == 0
    out = capsys.readouterr().out
    denied = "something that cannot be read: Permission denied"
    assert f"folder               {tmp_path}/closed/data: expected a folder, got {denied}" in out
    assert f"vgg19                for the perceptual loss: {denied}, {tmp_path}/closed/torch/" in out
    assert f"set5                 expected the folder {tmp_path}/closed/data/Set5/GTmod12, got {denied}; put" in out


def test_doctor_tells_what_is_there_and_what_is_missing(tmp_path, capsys, write_images, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    write_images(tmp_path / "Set5/GTmod12", 5)
    assert main(["doctor", "--data-root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for line in (
        r"esrgan +" + re.escape(version("esrgan")),
        r"cpu +\d+ threads, [\d.]+ GB of [\d.]+ GB free, float32",
        r"cuda +none: PyTorch is built",
        r"set5 +5 to train on, 5 to test on",
        r"set14 +missing; esrgan prepare set14",
        r"skimage +4 to train on, 2 to test on",
        r"vgg19 +for the perceptual loss: not downloaded yet",
        r"by name ",
    ):
        assert re.search(rf"^  {line}", out, re.MULTILINE), line


def test_doctor_names_the_extra_that_is_missing(capsys, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchmetrics" else find(name))
    assert main(["doctor"]) == 0
    assert "torchmetrics missing; pip install 'esrgan[metrics]'" in capsys.readouterr().out


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["esrgan", "inf"], {"inference", "info"}),
        (["esrgan", "inference", "--out"], {"--out-dir", "--outscale"}),
        (["esrgan", "inference", "--precision", "b"], {"bf16"}),
        (["esrgan", "info", "mod"], {"model.pth"}),
        (["esrgan", "models", "realesrgan-x4"], {"realesrgan-x4plus", "realesrgan-x4plus-anime"}),
        (["esrgan", "prepare", "set"], {"set5", "set14"}),
        (
            ["esrgan", "inference", "-m", "esr"],
            {"esr.pth"} | {name for name in MODELS if name.startswith("esr")},
        ),
        (["esrgan", "export", "esrgan-l"], {"esrgan-lite", "esrgan-lite-psnr"}),
        (["esrgan", "export", "--names", "e"], {"esrgan-new", "esrgan-old", "earlier"}),
        (["esrgan", "interpolate", "--images", "model.pth", "i/o"], {"i/one.png"}),
        (["esrgan", "inference", "-o", ""], {"i"}),
    ],
)
def test_bash_completes(tmp_path, capsys, words, expected):
    (tmp_path / "i").mkdir()
    for name in ("model.pth", "esr.pth", "i/one.png"):
        (tmp_path / name).touch()
    assert main(["completion", "bash"]) == 0
    (tmp_path / "completion.sh").write_text(capsys.readouterr().out)
    quoted = " ".join(words)
    script = (
        f"source completion.sh; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _shtab_esrgan; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == expected, done.stderr


def test_every_command_is_in_the_whole_parser():
    parser = make_parser(is_whole=True)
    options = {"inference": "alpha", "bulk": "address", "interpolate": "mix", "export": "half", "demo": "port"}
    for command, option in options.items():
        with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
            parser.parse_args([command, "--help"])
        assert f"--{option}" in text.getvalue()
