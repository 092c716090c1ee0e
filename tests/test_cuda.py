"""What a GPU computes, against the CPU. Each test also runs on the CPU at a small size, which tests the test itself.

Tolerances are in the tests. On a machine with a GPU: ``python -m pytest tests/test_cuda.py -v``.
"""

from __future__ import annotations

import copy
import math
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from esrgan import RRDBNet, Upscaler
from esrgan.config import Config
from esrgan.degradation import Degradation, filters
from esrgan.degradation.filters import ImageBatch
from esrgan.degradation.jpeg import compress
from esrgan.devices import exact_float32
from esrgan.errors import DeviceError
from esrgan.export import export_program
from esrgan.inference import direct, tiling
from esrgan.inference.tiling import Tiling
from esrgan.losses import ContentLoss
from esrgan.models import Generator, SRVGGNetCompact
from esrgan.training import distributed, setup
from esrgan.training.setup import make_networks, make_stage
from esrgan.training.stages import Autocast
from esrgan.training.validation import Losses
from esrgan.weights import load_generator, save_file
from tests.helpers.degradation import PUBLISHED, batch
from tests.helpers.runs import (
    after_step,
    comparable_content,
    find_differences,
    load_run_files,
    press_ctrl_c,
    read_records,
    run,
)
from tests.helpers.tiling import upscale_in_parts
from tests.helpers.tiny_generator import TINY_ARCHITECTURE, random_state

Make = Callable[..., dict[str, Any]]
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def make_network(device: torch.device, kind: str = "rrdb") -> Generator:
    """Return a network on the CPU: that of the paper with two blocks for a GPU, a tiny one for a CPU."""
    torch.manual_seed(0)
    channels, growth, blocks = (64, 32, 2) if device.type == "cuda" else (8, 4, 1)
    if kind == "compact":
        return SRVGGNetCompact(num_feat=channels, num_conv=4).eval().requires_grad_(False)
    options: dict[str, Any] = {"plus": {"plus": True}, "unshuffle": {"scale_factor": 2, "pixel_unshuffle": True}}
    network = RRDBNet(
        rrdb_channels=channels,
        growth_channels=growth,
        num_basic_blocks=blocks,
        small_init="trunk",
        **options.get(kind, {}),
    )
    network.eval().requires_grad_(False)
    # Outputs within [0, 1], as of a trained network, so that errors are comparable.
    with torch.no_grad():
        high = network(torch.rand(1, 3, 16, 16))
        network.conv_last.weight.mul_(0.15 / high.std())
        network.conv_last.bias.fill_(0.5)
    return network


def make_image(device: torch.device, shape: tuple[int, ...] = (24, 30, 3)) -> NDArray[Any]:
    """Return smooth pixels with noise, float32 in [0, 1]; for a GPU they are six times as high and wide."""
    factor = 6 if device.type == "cuda" else 1
    height, width, channels = shape[0] * factor, shape[1] * factor, shape[2]
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + 2 * c) + y / (5 + c)) for c in range(channels)]
    noise = np.random.default_rng(0).normal(0, 0.05, (height, width, channels))
    return (0.5 + 0.3 * np.stack(waves, -1) + noise).clip(0, 1).astype(np.float32)


def psnr(found: NDArray[Any], expected: NDArray[Any]) -> float:
    error = np.square(found.astype(np.float64) - expected).mean()
    return math.inf if error == 0 else float(-10 * np.log10(error))


def is_close(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Return whether the difference is a rounding error: one level of integers, 1e-4 of floats."""
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max()
    return found.dtype == expected.dtype and bool(difference <= (1 if expected.dtype.kind == "u" else 1e-4))


# Upscaling


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_float32_agrees_with_the_cpu_for_all_kinds_of_images(device: torch.device, channels: int, dtype: type) -> None:
    network, image = make_network(device), make_image(device, (12, 14, channels))
    if dtype != np.float32:
        image = (image * np.iinfo(dtype).max).round().astype(dtype)
    found, expected = (Upscaler(network, place)(image) for place in (device, torch.device("cpu")))
    assert is_close(found, expected)


@pytest.mark.parametrize("options", [{"self_ensemble": True}, {"outscale": 2.5}, {"color_fix": "mean"}])
def test_options_agree_with_the_cpu(device: torch.device, options: dict[str, Any]) -> None:
    network, image = make_network(device), make_image(device, (12, 14, 3))
    found, expected = (Upscaler(network, place, **options)(image) for place in (device, torch.device("cpu")))
    assert is_close(found, expected)


def test_tensors_stay_on_their_device(device: torch.device) -> None:
    upscaler = Upscaler(make_network(device), device)
    low = torch.rand(2, 3, 9, 11)
    for each in (low, low.half(), low.to(device)):
        high = upscaler(each)
        assert (high.device, high.dtype) == (each.device, each.dtype)


@pytest.mark.parametrize("precision", HALF)
def test_half_precision_is_close_to_float32(device: torch.device, precision: str) -> None:
    network, image = make_network(device), make_image(device)
    expected = Upscaler(network, torch.device("cpu"))(image)
    found = Upscaler(network, device, HALF[precision])(image)
    assert psnr(found, expected) > {"fp16": 65, "bf16": 45}[precision]
    assert not np.array_equal(found, expected)


def test_an_overflow_of_float16_is_upscaled_again_in_float32(device: torch.device) -> None:
    network = make_network(device)
    dense = network.get_submodule("body.0.rdb1")
    with torch.no_grad():
        dense.get_submodule("conv1").weight.mul_(1e7)
        for k in range(2, 6):
            conv, channels = dense.get_submodule(f"conv{k}"), network.get_submodule("conv_first").weight.shape[0]
            conv.weight[:, channels:] *= 1e-7
    image = make_image(device)
    low = torch.from_numpy(image).permute(2, 0, 1)[None]
    assert not torch.isfinite(copy.deepcopy(network).half()(low.half())).all()
    found, expected = (Upscaler(network, device, dtype)(image) for dtype in (torch.float16, torch.float32))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["rrdb", "plus", "unshuffle", "compact"])
@pytest.mark.parametrize("shape", [(56, 130), (130, 56)])
def test_strips_are_the_whole_image(device: torch.device, kind: str, shape: tuple[int, int]) -> None:
    network = make_network(device, kind).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    low = torch.rand(1, 3, *shape).repeat(1, 1, *((6, 6) if device.type == "cuda" else (1, 1)))
    low = low.repeat(1, 1, 1, 4) if kind == "unshuffle" else low
    with exact_float32(device), torch.inference_mode():
        whole = network(low.to(device, memory_format=torch.channels_last)).cpu()
    high, parts = upscale_in_parts(network, low, Tiling(lines=7))
    assert len(parts) > 3
    assert (high - whole).abs().max() <= (1e-4 if device.type == "cuda" else 0)


def test_threads_share_an_upscaler(device: torch.device) -> None:
    upscaler = Upscaler(make_network(device), device)
    images = [make_image(device, (10 + i, 20 - i, 3)) for i in range(8)]
    expected = [upscaler(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for found, each in zip(pool.map(upscaler, images), expected, strict=True):
            assert is_close(found, each)
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]


# Little memory


@contextmanager
def limit_memory(device: torch.device, num_bytes: int) -> Iterator[None]:
    """Let upscaling allocate only so many bytes. On a CPU this is simulated by a limit for each window of lines."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        index = torch.cuda.current_device()  # PyTorch 2.11 refuses a device without an index here
        total = torch.cuda.get_device_properties(index).total_memory
        fraction = (torch.cuda.memory_reserved(device) + num_bytes) / total
        torch.cuda.set_per_process_memory_fraction(min(fraction, 1.0), index)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, index)
            torch.cuda.empty_cache()
        return
    push = direct._LineBuffer.push

    def limited(self: Any, parts: list[Tensor], is_last: bool) -> Tensor | None:
        if parts[0][:, :1].numel() * self.conv.in_channels * 4 > num_bytes:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return push(self, parts, is_last)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct._LineBuffer, "push", limited)
        yield


def attempt(network: Generator, low: Tensor) -> tuple[str, Tensor | None]:
    """Upscale with strips that would need all memory; return the error if there was one, and the output if not."""
    try:
        return "", upscale_in_parts(network, low, Tiling(low.shape[2]))[0]
    except DeviceError as error:
        return str(error), None


@pytest.mark.slow
def test_ever_less_memory_gives_the_same_image_or_a_clear_error(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strips are halved, then the image is cut into bands, and at last it is refused."""
    network = make_network(device).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    gpu_limits, cpu_limits = (8192, 2048, 512, 256, 128, 64, 48, 32, 24, 16, 8, 4), (20000, 200, 68, 1)
    side, limits = (512, gpu_limits) if device.type == "cuda" else (150, cpu_limits)
    unit = 1 << 20 if device.type == "cuda" else 1 << 10
    low, tried = torch.rand(1, 3, side, side), []
    expected, _ = upscale_in_parts(network, low, Tiling(side))
    upscale_tiles = tiling._upscale_tiles

    def noted(network: Generator, low: Tensor, peak: float, used: Tiling, kernels: None) -> Iterator[tiling.Part]:
        tried.append(used)
        yield from upscale_tiles(network, low, peak, used, kernels)

    monkeypatch.setattr(tiling, "_upscale_tiles", noted)
    ends = []
    for limit in limits:
        tried.clear()
        with limit_memory(device, limit * unit):
            error, high = attempt(network, low)
        if high is None:
            assert error.startswith(
                f"{network.device}: not enough memory to upscale {side}×{side} px even in small parts;"
            )
            ends.append(None)
            continue
        ends.append(tried[-1])
        assert (high - expected).abs().max() <= (1e-4 if tried[-1].bands == 1 else 0.02), (limit, tried)
    assert ends[0] == Tiling(side)
    assert any(end is not None and 1 <= end.lines < side and end.bands == 1 for end in ends)
    assert device.type == "cuda" or any(end is not None and end.bands > 1 for end in ends)
    assert ends[-1] is None
    assert tried[-1].bands > 1  # bands were tried before it was refused
    error, high = attempt(network, low)  # all memory is free again
    assert high is not None, error
    assert (high - expected).abs().max() <= (1e-4 if device.type == "cuda" else 0)
    assert tried[-1] == Tiling(side)


@NEEDS_GPU
def test_the_plan_fits_into_what_other_programs_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """With little free memory the first attempt succeeds, because the strips are planned for it."""
    device, attempts = torch.device("cuda"), []
    network = make_network(device).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    low = torch.rand(1, 3, 900, 1000)
    expected, _ = upscale_in_parts(network, low)
    upscale_tiles = tiling._upscale_tiles
    monkeypatch.setattr(tiling, "_upscale_tiles", lambda *each: attempts.append(each[3]) or upscale_tiles(*each))
    with limit_memory(device, 600 << 20):
        high, _ = upscale_in_parts(network, low)
    assert len(attempts) == 1
    assert (high - expected).abs().max() <= 1e-4


# Training


def train_on(device: torch.device, config: dict[str, Any], folder: Path, **options: Any) -> bool:
    return run(config, folder, device=device.type, **options)


def content_losses(folder: Path) -> list[float]:
    return [record["content_loss"] for record in read_records(folder) if record["split"] == "train"]


@pytest.mark.usefixtures("foreground_signals")
@pytest.mark.slow
def test_a_resumed_run_ends_like_an_uninterrupted_one(device: torch.device, tiny_config: Make, tmp_path: Path) -> None:
    """On a CPU bit for bit; on a GPU, where sums have no fixed order, the losses agree to 20 %."""
    assert train_on(device, tiny_config(), tmp_path / "whole")
    for stage, resume in (("pretraining", False), ("training", True)):
        with after_step(stage, 3, press_ctrl_c):
            assert train_on(device, tiny_config(), tmp_path / "stopped", resume=resume) is False
    assert train_on(device, tiny_config(), tmp_path / "stopped", resume=True)
    whole, stopped = content_losses(tmp_path / "whole"), content_losses(tmp_path / "stopped")
    assert len(whole) == 12
    assert stopped == (pytest.approx(whole, rel=0.2) if device.type == "cuda" else whole)
    if device.type == "cpu":
        files = [load_run_files(tmp_path / name) for name in ("whole", "stopped")]
        one, other = ({name: comparable_content(each) for name, each in of.items()} for of in files)
        assert not [at for at in find_differences(one, other) if "/interval/" not in at]
    places: set[str] = set()
    for path in (tmp_path / "stopped").glob("*.pth"):
        torch.load(path, map_location=lambda storage, place: places.add(place) or storage)
    assert places == {"cpu"}  # the files load on machines without a GPU


@pytest.mark.parametrize("precision", [None, "bfloat16", "float16"])
@pytest.mark.parametrize("variant", ["usual", "everything"])
@pytest.mark.usefixtures("foreground_signals")
@pytest.mark.slow
def test_both_stages_train_in_all_precisions(
    device: torch.device,
    tiny_config: Make,
    write_images: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str | None,
    variant: str,
) -> None:
    changes: dict[str, Any] = {}
    if variant == "everything":
        grey = str(write_images(tmp_path / "grey", 4, channels=1))
        stage = {"train_datasets": [grey], "val_datasets": [grey], "degradation": {}}
        changes = {"img_channels": 1, "gradient_clip": 0.1, "accumulation": 2, "activation_checkpointing": True}
        changes |= {"discriminator": {"type": "unet", "num_features": 8}, "pretraining": stage, "training": stage}
    if precision is not None:
        changes["autocast_dtype"] = precision
    if precision == "float16" and device.type == "cpu":  # refused there, but it works
        monkeypatch.setattr(setup, "low_precision_dtype", lambda *_: torch.float16)
    config = tiny_config(**changes)
    if variant == "everything":
        for name in ("vgg_blk_ch", "fc_features"):
            del config["discriminator"][name]
    assert train_on(device, config, tmp_path / "out", autocast=precision is not None, max_steps=2)
    records = [record for record in read_records(tmp_path / "out") if record["split"] == "train"]
    assert [record["step"] for record in records] == [1, 2, 1, 2]
    if precision != "float16":  # its first steps may be skipped until the scale of the loss fits
        assert not any(record["skipped_steps"] for record in records)
    for path in (tmp_path / "out").glob("*_x4.pth"):
        assert all(value.isfinite().all() for value in load_generator(path).state.values())


@pytest.mark.parametrize("discriminator", [{"vgg_blk_ch": [4, 4, 8, 8]}, {"type": "unet", "num_features": 8}])
def test_first_losses_agree_with_the_cpu(device: torch.device, discriminator: dict[str, Any]) -> None:
    sizes = {"num_basic_blocks": 1, "rrdb_channels": 16, "growth_channels": 8, "small_init": "trunk"}
    config = Config.model_validate({"batch_size": 2, "generator": sizes, "discriminator": discriminator})
    torch.manual_seed(0)
    low, high = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 64, 64)

    def losses(place: torch.device, stage: str) -> dict[str, float]:
        networks: tuple[Generator, nn.Module] = make_networks(config, place)
        step = make_stage(stage, config, *networks, Losses(ContentLoss(), None, Autocast(place))).step
        images = [each.to(place, memory_format=torch.channels_last) for each in (low, high)]
        with exact_float32(place):
            return {
                f"{name} {i}": float(value)
                for i in range(2)
                for name, value in step(*images, i).items()
                if name.endswith("loss")
            }

    for stage in ("pretraining", "training"):
        expected = losses(torch.device("cpu"), stage)
        assert losses(device, stage) == pytest.approx(expected, rel=0.01, abs=1e-5)


# Several processes


@contextmanager
def one_process_group(device: torch.device) -> Iterator[torch.device]:
    """Join a group of one process, as torchrun starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        with distributed.process_group(device.type) as own:
            yield own


def test_collective_operations_work_with_the_layouts_of_a_run(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU by NCCL. One process counts itself as two, or all operations would be skipped."""
    with one_process_group(device) as own:
        assert own == (torch.device("cuda:0") if device.type == "cuda" else device)
        monkeypatch.setattr(distributed, "world_size", lambda: 2)
        network = RRDBNet(img_channels=1, num_basic_blocks=1, rrdb_channels=8, growth_channels=4)
        network.to(own, memory_format=torch.channels_last)  # type: ignore[call-overload]
        before = {name: value.clone() for name, value in network.state_dict().items()}
        norm = nn.BatchNorm2d(4).to(own)  # has a counter
        distributed.broadcast_weights([network, norm])
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        gradients = [torch.randn_like(each) for each in network.parameters()]
        copies = [each.clone() for each in gradients]
        distributed.average_gradients(gradients)
        for found, each in zip(gradients, copies, strict=True):
            torch.testing.assert_close(found, each / 2)
        assert distributed.all_reduce_max(1.0, -2.0) == [1.0, -2.0]  # on the CPU, by gloo
        assert distributed.broadcast_object(lambda: "text") == "text"


@pytest.mark.slow
def test_torchrun_with_one_process_trains_both_stages(device: torch.device, tiny_config: Make, tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    path.write_text(Config.model_validate(tiny_config(num_workers=0)).model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "esrgan"]
    command += ["train", str(path), "-o", str(tmp_path / "out"), "--device", device.type, "--max-steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training is done" in done.stdout
    assert len(content_losses(tmp_path / "out")) == 4


# Degradation


def test_jpeg_and_sharpening_agree_with_the_cpu(device: torch.device) -> None:
    high = batch(4)
    sharp = filters.sharpen(high.to(device)).cpu()
    assert (sharp - filters.sharpen(high)).abs().max() < 1e-5
    sizes = [(64, 48)] * 4
    found = compress(ImageBatch(high.to(device), sizes), [30, 60, 90, 95]).pixels.cpu()
    expected = compress(ImageBatch(high, sizes), [30, 60, 90, 95]).pixels
    different = (found * 255).round() != (expected * 255).round()  # a GPU divides by 255 with a rounding error
    assert different.float().mean() < 0.001  # halves may round to either side


def test_degradation_agrees_with_the_cpu_except_for_its_noise(device: torch.device) -> None:
    """The random generators of devices differ, so the noise is left out."""
    quiet = {"gaussian_noise_prob": 1.0, "noise_range": (1e-6, 1e-6)}
    rounds = {name: PUBLISHED[name] | quiet for name in ("first", "second")}
    degradation = Degradation(4, 0, **PUBLISHED | rounds)
    high = batch(8)
    for found, expected in zip(degradation(high.to(device), 0), degradation(high, 0), strict=True):
        assert found.device.type == device.type
        assert (found.cpu() - expected).abs().mean() * 255 < 0.2


def test_the_noise_of_a_patch_depends_only_on_its_position(device: torch.device) -> None:
    degradation, high = Degradation(4, 0, **PUBLISHED), batch(6).to(device)
    low, _ = degradation(high, 0)
    later, _ = degradation(high[2:], 2)
    assert (low[2:] - later).abs().mean() * 255 < (0.2 if device.type == "cuda" else 1e-9)
    assert (low - degradation(high, 6)[0]).abs().mean() * 255 > 1


# Export


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.slow
def test_exported_programs_compute_the_same(device: torch.device, tmp_path: Path, half: bool) -> None:
    """On a GPU the program is compiled; for a CPU, tests/test_export.py does that."""
    save_file(tmp_path / "model.pth", {"params": random_state(scale_factor=2)})
    file = load_generator(tmp_path / "model.pth")
    file = replace(file, state={name: value * 0.3 for name, value in file.state.items()})
    assert file.architecture == replace(TINY_ARCHITECTURE, scale_factor=2)
    compiled = device if device.type == "cuda" else None
    assert export_program(file, tmp_path / "model.pt2", half=half, device=compiled) <= (2e-2 if half else 1e-4)
    if compiled is not None:
        program: Any = torch._inductor.aoti_load_package(str(tmp_path / "model.pt2"))
    else:
        program = torch.export.load(tmp_path / "model.pt2").module()
    network, low = file.build().to(device), torch.rand(1, 3, 20, 28, device=device)
    network, low = (network.half(), low.half()) if half else (network, low)
    with exact_float32(device), torch.inference_mode():
        torch.testing.assert_close(program(low), network(low), rtol=0, atol=2e-2 if half else 1e-4)


# Benchmarks


@pytest.mark.slow
def test_variants_of_the_fast_path_compute_the_same(device: torch.device) -> None:
    """Each is compared with the plain network by the script; on a CPU, those that need no GPU."""
    script = Path(__file__).parent.parent / "benchmarks/gpu_variants.py"
    sizes = ["96x64", "32x32x4"] if device.type == "cuda" else ["12x8", "4x5x2"]
    command = [sys.executable, str(script), "--device", device.type, "--model", "esrgan-lite", "--sizes", *sizes]
    command += ["--strip-pixels", str(24 if device.type == "cpu" else 1024), "--measure", "0", "--compile"]
    lines = subprocess.check_output(command, text=True, timeout=300).splitlines()[4:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert not [row for row in rows if row[2].startswith("failed")]
    done = {row[1] for row in rows if len(row) == 8}
    assert done >= {"plain", "strips", "buffers", "one by one", "copies"}
    assert len(rows) == 30
    assert device.type == "cpu" or all(len(row) == 8 for row in rows)
