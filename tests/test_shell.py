"""What a person at a shell has besides the work: versions, info, doctor, completion."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch
from test_inference import make_model

from esrgan import Config
from esrgan.cli import COMMANDS, main, make_parser


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
            {"esrgan-lite", "esrgan-lite-psnr", "esrgan-official", "esrgan-official-psnr", "esr.pth"},
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
    text = make_parser(is_whole=True).format_help()
    assert all(command in text for command in COMMANDS)
