"""The benchmarks that only a GPU can run are tried on the CPU."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from esrgan.models import RRDBNet
from tests.helpers.models import make_model

SCRIPT = Path(__file__).parent.parent / "benchmarks/gpu.py"


def load_script():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("options", "per_pixel"), [({}, 35.85e6), ({"scale_factor": 2, "pixel_unshuffle": True}, 8.98e6)]
)
def test_operations_are_counted_at_every_resolution(options, per_pixel):
    with torch.device("meta"):
        network = RRDBNet(**options)
        found = load_script().count_operations(network, torch.empty(1, 3, 32, 48))
    assert found / (32 * 48) == pytest.approx(per_pixel, rel=2e-3)


@pytest.mark.slow
def test_gpu_benchmark_prints_a_row_for_each_contender(tmp_path):
    model = make_model(tmp_path / "model.pth")
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--models", str(model), "--sizes", "20x12", "--compile"]
    lines = subprocess.check_output([*command, "--measure", "0.001"], text=True).splitlines()
    assert re.match(r"CPU, \d+ threads?; PyTorch .*; matrix product [\d.]+ TFLOP/s$", lines[0])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert {len(row) for row in rows} == {9}
    names = ["esrgan, fp32", "esrgan, auto", "esrgan, auto, from array to array"]
    assert [row[2] for row in rows[2:]] == [*names, "PyTorch, float32", "PyTorch, float32 channels_last"]
    assert all(row[7] in ("inf", "–") or float(row[7]) > 40 for row in rows[2:])
    done = subprocess.check_output([*command, "--seconds", "0"], text=True)
    assert done.count("not measured, because --seconds were over") == 5


@pytest.mark.slow
def test_training_benchmark_computes_the_same_losses_in_both_loops():
    script = SCRIPT.with_name("training.py")
    command = [sys.executable, str(script), "--device", "cpu", "--blocks", "1", "--batch", "1", "--patch", "32"]
    losses = []
    for name in ("plain", "esrgan"):
        text = subprocess.check_output([*command, "--work", "training", name], input="\n", text=True)
        losses.append(json.loads(text)["losses"])
    plain, esrgan = losses
    assert len(plain) == 5
    assert {name: esrgan[name] for name in plain} == pytest.approx(plain, rel=1e-4)
