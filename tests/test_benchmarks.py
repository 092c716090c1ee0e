"""The benchmarks that only a GPU can run are tried on the CPU."""

import argparse
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from esrgan import images
from esrgan.models import RRDBNet
from tests.helpers.models import make_model

SCRIPT = Path(__file__).parent.parent / "benchmarks/gpu.py"
VARIANTS = SCRIPT.with_name("gpu_variants.py")
ARTEFACTS = SCRIPT.with_name("artefacts.py")
PHOTO = SCRIPT.parent.parent / "docs/pictures/chelsea.png"


def load_script(path=SCRIPT):
    spec = importlib.util.spec_from_file_location(f"{path.stem}_benchmark", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
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


def test_a_failing_loop_does_not_stop_the_others(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(sys, "argv", ["training.py", "plain"])  # which leaves this process as it is
    script = load_script(SCRIPT.with_name("training.py"))
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, sys\n"
        "for turn, _ in enumerate(sys.stdin):\n"
        "    if 'failing' in sys.argv and turn == 1:\n"
        "        raise RuntimeError('no C++ compiler')\n"
        "    row = {'seconds': 2.0, 'cpu_seconds': 3.0, 'memory': 0, 'losses': {'content_loss': 0.5}}\n"
        "    print(json.dumps(row), flush=True)\n"
    )
    monkeypatch.setattr(script, "__file__", str(worker))
    options = argparse.Namespace(rounds=2, deadline=math.inf, blocks=1, batch=1, patch=8)
    script.compare_loops("pretraining", ["plain", "failing", "esrgan"], options)
    failed, *rows = capsys.readouterr().out.splitlines()
    assert failed == "| pretraining | failing | failed: RuntimeError: no C++ compiler |"
    columns = ["2.000", "2.000", "1.00", "3.000"]
    assert [row.split(" | ")[1:6] for row in rows] == [[name, *columns] for name in ("plain", "esrgan")]
    options.deadline = 0.0
    assert {name: len(turns) for name, turns in script.take_turns("training", ["plain"], options).items()} == {
        "plain": 2
    }


@pytest.fixture
def variants(monkeypatch):
    monkeypatch.syspath_prepend(str(VARIANTS.parent))
    return load_script(VARIANTS)


def test_a_failing_variant_does_not_stop_the_others(variants, monkeypatch, capsys, tmp_path):
    def fail(case):
        raise RuntimeError("no such\nkernel")

    def lose_a_row(case):
        run = variants.plain(case)
        return lambda: run().index_fill(2, torch.tensor(0), 0)

    table = {"failing": variants.Variant(fail, ""), "wrong": variants.Variant(lose_a_row, ""), "right": None}
    monkeypatch.setattr(variants, "VARIANTS", table | {"right": variants.Variant(variants.strips, "")})
    options = ["--device", "cpu", "--model", str(make_model(tmp_path / "model.pth")), "--measure", "0"]
    monkeypatch.setattr(sys, "argv", ["gpu_variants.py", *options, "--sizes", "9x5", "5x4x2"])
    variants.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[4:]]
    assert [row[1] for row in rows] == ["failing", "wrong", "right"] * 2
    for failing, wrong, right in (rows[:3], rows[3:]):
        assert failing[2] == "failed: RuntimeError: no such kernel |"
        assert wrong[2].startswith("failed: ArithmeticError: differs from plain by ")
        assert len(right) == 8


def test_after_an_error_that_ends_cuda_a_new_process_goes_on(variants, monkeypatch, capsys, tmp_path):
    def fail(case):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    commands = []
    monkeypatch.setattr(subprocess, "call", lambda command: commands.append(command) or 0)
    monkeypatch.setattr(variants, "VARIANTS", {"one": variants.Variant(fail, ""), "two": variants.Variant(fail, "")})
    options = [
        "--device",
        "cpu",
        "--model",
        str(make_model(tmp_path / "model.pth")),
        "--measure",
        "0",
        "--sizes",
        "5x4",
    ]
    monkeypatch.setattr(sys, "argv", ["gpu_variants.py", *options])
    with pytest.raises(SystemExit, match="0"):
        variants.main()
    assert commands[0][2:-1] == [*options, "--begin", "1", "--end"]
    monkeypatch.setattr(sys, "argv", commands[0][1:])
    variants.main()
    assert [line.split(" | ")[1] for line in capsys.readouterr().out.splitlines()[4:]] == ["one", "two"]


@pytest.mark.slow
def test_triton_kernels_convolve_like_pytorch():
    """By Triton's interpreter, which runs the kernels on the CPU."""
    pytest.importorskip("triton")
    code = """
import torch, gpu_kernels
from torch.nn.functional import conv2d, interpolate, leaky_relu, pad
torch.manual_seed(0)
allocate = lambda *shape: gpu_kernels.allocate(*shape, torch.empty(0))
random = lambda *shape: (image := allocate(*shape)).copy_(torch.randn(image.shape))
for outputs, upsampling in ((32, 1), (3, 1), (64, 2)):
    x, weight, bias = random(2, 96, 5, 4)[:, :40], torch.randn(outputs, 40, 3, 3) / 24, torch.randn(outputs)
    plain = conv2d(interpolate(x, scale_factor=upsampling), weight, padding=1)
    padded = pad(bias, (0, gpu_kernels.pad_channels(outputs) - outputs))
    inner, outer = (random(2, 70, *plain.shape[2:])[:, :outputs] for _ in range(2))
    for activate, skips in ((True, []), (False, [(inner, 0.2)]), (False, [(inner, 0.2), (outer, 0.3)])):
        expected = plain + bias[:, None, None]
        expected = leaky_relu(expected, 0.2) if activate else expected
        for skip, scale in skips:
            expected = skip + scale * expected
        y = plain.contiguous(memory_format=torch.channels_last)
        dense_skips = [(skip.contiguous(memory_format=torch.channels_last), scale) for skip, scale in skips]
        buffer = torch.full((2, *plain.shape[2:], 80), 7.0).permute(0, 3, 1, 2)
        gpu_kernels.finish(y, padded, buffer[:, 8:8 + outputs], activate=activate, skips=dense_skips)
        # Into a part of a buffer, and to where the last skip is.
        whole = allocate(2, 80, *plain.shape[2:])
        out = outer if len(skips) > 1 else whole[:, 8:8 + outputs]
        matrix = gpu_kernels.pack_weight(weight)
        gpu_kernels.convolve(x, matrix, padded, out, activate=activate, skips=skips, upsampling=upsampling)
        for found in (buffer[:, 8:8 + outputs], out):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert (buffer[:, :8] == 7).all() and (buffer[:, 8 + outputs:] == 7).all()
        written = whole._base.count_nonzero().item()
        assert written == (0 if out is outer else expected.numel())
"""
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join([str(VARIANTS.parent), str(SCRIPT.parent.parent)]),
    }
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.slow
def test_bicubic_upscaling_scores_less_on_compressed_photographs(tmp_path, no_vgg_weights):
    photos = tmp_path / "photos"
    photos.mkdir()
    images.write_pixels(photos / "cat.png", images.read_pixels(PHOTO, 3)[:90, :90])
    model = make_model(tmp_path / "model.pth", scale=4)
    command = [sys.executable, str(SCRIPT.with_name("compressed.py")), str(model), "--photos", str(photos)]
    options = ["--device", "cpu", "--crop", "80", "-o", str(tmp_path / "out")]
    lines = subprocess.check_output([*command, *options], text=True).splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines]
    assert rows[0] == ["image", "model", "PSNR Y", "PSNR RGB"]
    psnr = {row[0]: float(row[2]) for row in rows[2:] if row[1] == "bicubic"}
    assert len(rows) == 2 + 2 * len(psnr)
    assert psnr["clean"] > psnr["JPEG 90"] > psnr["JPEG 75"] > psnr["JPEG 60"]
    assert psnr["clean"] > psnr["noise 4"] > psnr["noise 4, JPEG 85"]
    assert images.read_shape(tmp_path / "out" / "JPEG_60" / "cat.png") == (20, 20, 3)


@pytest.fixture(scope="module")
def artefacts():
    return load_script(ARTEFACTS)


@pytest.fixture(scope="module")
def photo():
    """Pixels in the range 50 to 200 whose spectrum falls with frequency like that of a photograph."""
    frequencies = np.hypot(np.fft.fftfreq(320)[:, None], np.fft.rfftfreq(320))
    noise = np.fft.rfft2(np.random.default_rng(0).normal(size=(320, 320))) / np.maximum(frequencies, 1 / 320) ** 1.5
    grey = np.fft.irfft2(noise)
    grey = 50 + 150 * (grey - grey.min()) / np.ptp(grey)
    return grey.round().astype(np.uint8)[..., None].repeat(3, axis=2)


def test_mean_colour_of_each_channel_is_compared(artefacts, photo):
    shift = artefacts.measure_shift(photo + np.array([0, 1, 3], np.uint8), photo)
    assert shift == pytest.approx([0, 1, 3])


def peaks_of(artefacts, image):
    return [np.exp(artefacts.find_peaks(artefacts.measure_spectrum(image), period).max()) for period in (2, 4)]


def test_faint_patterns_are_peaks_at_their_period(artefacts, photo):
    y, x = np.indices(photo.shape[:2])
    dither = np.random.default_rng(0).random(photo.shape)

    def add(pattern):
        return np.clip(np.floor(photo + 0.5 * pattern[..., None] + dither), 0, 255).astype(np.uint8)

    checkerboard, squares = (peaks_of(artefacts, add(1.0 - 2 * ((y // n + x // n) % 2))) for n in (1, 2))
    assert checkerboard[0] > 3
    assert checkerboard[1] < 1.1
    assert squares[0] < 1.1
    assert squares[1] > 2
    enlarged = artefacts.bicubic(photo, artefacts.Fraction(1, 4)).repeat(4, axis=0).repeat(4, axis=1)
    assert min(peaks_of(artefacts, enlarged)) > 1.5
    assert max(peaks_of(artefacts, photo)) < 1.1
    edges = photo // 2 + (y // 50 % 2 * 100).astype(np.uint8)[..., None]  # a ridge of the spectrum
    assert max(peaks_of(artefacts, edges)) < 1.1
    assert peaks_of(artefacts, np.full((64, 64, 3), 128, np.uint8)) == [1, 1]


def test_specks_are_counted_and_moved_detail_is_not(artefacts, photo):
    detail = photo.copy()
    detail[::10, ::10] = 255
    assert artefacts.count_specks(detail[:, 2:], detail[:, :-2]) == 0
    assert artefacts.count_specks(detail, photo) == 1024
    planted = photo.copy()
    for y, x in ((40, 40), (40, 200), (120, 90), (200, 30), (220, 220)):
        planted[y, x, 1] = 255 if photo[y, x, 1] < 128 else 0
    planted[90:92, 150:152] = 0 if photo[90, 150].mean() > 128 else 255
    assert artefacts.count_specks(planted, photo) == 6


def test_artefacts_of_each_method_are_one_row(artefacts, photo, tmp_path, monkeypatch, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    images.write_pixels(photos / "cat.png", photo[:90, :90])
    model = make_model(tmp_path / "model.pth", scale=4)
    options = ["--photos", str(photos), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["artefacts.py", str(model), *options, "--crop", "70"])
    artefacts.main()
    header, _, *rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert header[4:] == ["period of 2 px", "period of 4 px", "specks per MP"]
    assert [row[0] for row in rows] == ["original", "bicubic", str(model)]
    assert float(rows[1][1]) == pytest.approx(0, abs=0.3)
    assert float(rows[2][2].removesuffix(" (cat.png)")) > 0.3
    assert [row[3] for row in rows[1:]] == ["0", "1"]
    monkeypatch.setattr(sys, "argv", ["artefacts.py", str(model), *options, "--crop", "60"])
    with pytest.raises(SystemExit, match=r"cat\.png: 60×60 px remain; expected at least 64×64"):
        artefacts.main()


def test_benchmark_of_tiles_names_photographs_that_are_too_small(photo, tmp_path, monkeypatch):
    images.write_pixels(tmp_path / "cat.png", photo)
    tiles = load_script(SCRIPT.with_name("tiles.py"))
    monkeypatch.setattr(sys, "argv", ["tiles.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="expected at least 2 photographs of 992×992 px or more, got 0"):
        tiles.main()
    monkeypatch.setattr(tiles, "SIDE", 128)
    monkeypatch.setattr(tiles, "TILE", 48)
    images.write_pixels(tmp_path / "empty.png", np.full((128, 128, 3), 90, np.uint8))
    with pytest.raises(SystemExit, match="expected at least 2 photographs with tiles of enough detail"):
        tiles.main()
