"""Tests of what reports say about the run itself."""

from __future__ import annotations

import datetime
import sys

import pytest
import torch

import esrgan
from esrgan import EvaluationOptions, machine
from esrgan.evaluation.provenance import describe_run


def test_a_run_is_described(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["test.py", "esrgan-lite", "-d", "my photos"])
    found = describe_run(torch.device("cpu"))
    assert found["versions"] == f"esrgan {esrgan.__version__}, PyTorch {torch.__version__}"
    assert found["machine"].startswith(f"{machine.cpu_name()}, {torch.get_num_threads()} thread")
    assert found["command"] == "python test.py esrgan-lite -d 'my photos'"
    date = datetime.datetime.strptime(found["date"], "%Y-%m-%d %H:%M %z")
    assert abs((datetime.datetime.now(datetime.UTC) - date).total_seconds()) < 120


def test_a_gpu_is_named_next_to_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Some GPU {device}")
    assert describe_run(torch.device("cuda:1"))["machine"].startswith(f"Some GPU cuda:1; {machine.cpu_name()}")


@pytest.mark.parametrize(
    ("program", "start"),
    [
        ("/home/me/.venv/bin/esrgan", "esrgan test"),
        ("/lib/esrgan/__main__.py", "python -m esrgan test"),
        ("tools/mine.py", "python tools/mine.py test"),
        ("-c", "python -c test"),
        ("", "python test"),
    ],
)
def test_the_command_can_be_typed_again(monkeypatch, program, start):
    monkeypatch.setattr(sys, "argv", [program, "test"])
    assert describe_run(torch.device("cpu"))["command"] == start


def test_an_evaluation_has_its_run_and_its_files(photos, model):
    result = esrgan.evaluate([model], [photos], options=EvaluationOptions("cpu"))
    assert list(result.provenance) == ["date", "versions", "machine", "command"]
    assert result.datasets[0].inputs["0"] == {"HR": photos / "0.png"}
    assert "4 px" not in result.conventions
    assert "2 px, the scale, are cropped at each border" in result.conventions
