"""Measure upscaling beside other programs: python3 benchmarks/inference.py --model FILE.

Each contender lives in a process of its own, and one works at a time. They take turns, round by round, and before each
turn the machine is given time to become idle. The peers are installed into ``benchmarks/.peers``, at fixed versions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import skimage
import torch
from numpy.typing import NDArray

from esrgan import Upscaler, load_generator
from esrgan.devices import has_native_bfloat16
from esrgan.models import RRDBNet
from esrgan.resize import bicubic

HERE = Path(__file__).resolve().parent
PEERS_FOLDER = HERE / ".peers"
PEERS_PYTHON = PEERS_FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
# PyTorch is ours, so that what differs is how it is used.
# realesrgan 0.3.0 and basicsr 1.4.2 install but do not import (torchvision.transforms.functional_tensor is gone):
# spandrel has their network, layer for layer.
PEERS = ["spandrel==0.4.2", "ncnn==1.0.20261020", "openvino==2026.4.1", "onnxruntime==1.31.1", "onnx==1.23.2"]
PEERS.append(f"torch=={torch.__version__.split('+')[0]}")

CPU = (
    "PyTorch, plain",
    "PyTorch, channels_last",
    "PyTorch, bfloat16 channels_last",
    "onnxruntime",
    "OpenVINO",
    "OpenVINO, bfloat16",
    "ncnn",
    "ncnn, bf16 storage",
    "esrgan, fp32",
    "esrgan, bf16",
    "esrgan, auto",
)
GPU = ("PyTorch, plain float16", "PyTorch, float16 channels_last compiled", "esrgan, fp32", "esrgan, auto")
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
IDLE_PERCENT, PATIENCE_S = 10, 60
Row = dict[str, Any]


def prepare_peers() -> None:
    """Install the peers, unless just these are there."""
    stamp, wanted = PEERS_FOLDER / "installed.txt", "\n".join(PEERS)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing {', '.join(PEERS)}", flush=True)
    venv.create(PEERS_FOLDER, with_pip=True, clear=True)
    subprocess.check_call([PEERS_PYTHON, "-m", "pip", "install", "--quiet", *PEERS])
    stamp.write_text(wanted)


def describe_machine() -> str:
    """Say on what all this is measured."""
    model, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        model = next((line.split(":")[1].strip() for line in info.open() if line.startswith("model name")), model)
    abilities = torch.cpu.get_capabilities()
    wanted = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile", "bf16")
    has = [name for name in wanted if abilities.get(name)]
    native = "native" if has_native_bfloat16(torch.device("cpu")) else "not native: emulated where it is used"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"- CPU: {model}, {torch.get_num_threads()} threads, {memory:.0f} GiB; {', '.join(has)}\n- bfloat16: {native}\n"
        f"- GPU: {gpu}\n- Python {platform.python_version()}, PyTorch {torch.__version__}, {platform.system()}"
    )


def operations(network: RRDBNet, pixels: int) -> int:
    """Count the additions and multiplications of the convolutions for a number of low-resolution pixels."""
    total = 0
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            growth = 1
            if name.startswith("conv_up"):  # nearest-neighbour enlargement comes before the convolution
                growth = 4 ** (int(name[-1]) - network.use_subpixel_conv)
            elif name in ("conv_hr", "conv_last"):
                growth = 4**network.num_upsamplings
            total += 2 * module.weight.numel() * growth * pixels // network.unshuffle_factor**2
    return total


def compare(result: NDArray[Any], reference: NDArray[Any]) -> Row:
    """PSNR of two images in [0, 1], and what it and the worst difference are after rounding to 8 bits."""
    a, b = (np.clip(each.astype(np.float64), 0, 1) * 255 for each in (result, reference))
    rounded = np.abs(a.round() - b.round())
    return {
        "psnr": _decibels(a - b),
        "psnr8": _decibels(rounded),
        "worst": int(rounded.max()),
    }


def _decibels(difference: NDArray[Any]) -> float:
    square = float((difference**2).mean())
    return 10 * np.log10(255**2 / square) if square else np.inf


class Worker:
    """A contender, waiting for its turn."""

    def __init__(self, name: str, job: Row) -> None:
        self.name = name
        self.job = job | {"name": name}
        python = sys.executable if name.startswith("esrgan") else PEERS_PYTHON
        command = [python, HERE / "contenders.py", json.dumps(self.job)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_env())
        self.seconds: list[float] = []
        self.others: list[float] = []
        self.bytes = 0
        ready = self._answer()
        self.note = ready.get("note", "failed")
        self.is_alive = "note" in ready

    def _answer(self) -> Row:
        assert self.process.stdout is not None  # noqa: S101
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line else {}

    def order(self, what: str) -> Row:
        """Let it do something."""
        assert self.process.stdin is not None  # noqa: S101
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._answer()

    def run(self) -> None:
        """Let it run once, when the machine is idle; note the time and what share of the CPU others had meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        while psutil.cpu_percent(0.5) > IDLE_PERCENT and time.monotonic() < deadline:
            pass
        own, busy, began = _used(self.process.pid), _busy(), time.perf_counter()
        answer = self.order("run")
        wall = time.perf_counter() - began
        others = (_busy() - busy) - (_used(self.process.pid) - own)
        self.seconds.append(answer["seconds"])
        self.others.append(max(others, 0) / wall / (os.cpu_count() or 1))
        self.bytes = max(self.bytes, int(answer.get("bytes", 0)))

    def close(self) -> None:
        """End it."""
        self.process.communicate()


def _env() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "ignore"}


def _used(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _busy() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0) - getattr(times, "guest", 0))


def race(names: Iterable[str], job: Row, repeats: int, flop: int, folder: Path) -> None:
    """Let contenders take turns, and print their table."""
    native = has_native_bfloat16(torch.device("cpu"))
    with ExitStack() as stack:
        workers = []
        for name in names:
            print(f"starting {name}", file=sys.stderr)
            workers.append(Worker(name, job | {"result": str(folder / f"{len(workers)}.npy")}))
            stack.callback(workers[-1].close)
        for i in range(repeats):
            print(f"round {i + 1} of {repeats}", file=sys.stderr)
            for worker in workers:
                if worker.is_alive:
                    worker.run()
        results = []
        for worker in workers:
            if worker.is_alive:
                worker.order("save")
                results.append(np.load(worker.job["result"]))
    alive = [worker for worker in workers if worker.is_alive]
    reference = results[[worker.name for worker in alive].index("esrgan, fp32")]
    plain = min(alive[0].seconds)
    print(f"\n{flop / 1e9:.0f} GFLOP; best and median of {repeats}; `others`: share of the CPU that other programs had")
    print("in the best round; the difference is that from `esrgan, fp32`, worst in 8-bit levels\n")
    memory = " GPU memory |" if job["device"] == "cuda" else ""
    print(f"| | what | best s | median s | × {alive[0].name} | GFLOP/s | others | PSNR | worst |{memory}")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|" + "--:|" * bool(memory))
    for worker in workers:
        if not worker.is_alive:
            print(f"| {worker.name} | {worker.note} |")
            continue
        is_emulated = not native and job["device"] == "cpu" and "bf" in worker.name.replace("bf16 storage", "")
        best = min(worker.seconds)
        others = worker.others[worker.seconds.index(best)]
        differs = compare(results[alive.index(worker)], reference)
        print(
            f"| {worker.name} | {worker.note}{', **emulated**' * is_emulated} | {best:.2f} |"
            f" {np.median(worker.seconds):.2f} | {plain / best:.2f} | {flop / best / 1e9:.0f} | {others:.0%} |"
            f" {differs['psnr']:.1f} | {differs['worst']} |" + f" {worker.bytes / 1e9:.2f} GB |" * bool(memory)
        )


def measure_accuracy(model: Path, side: int) -> None:
    """Compare ``auto`` and bfloat16 with float32 on photographs: as they are, and reduced to a quarter first."""
    names = ["fp32", "bf16", "auto"]
    if Upscaler.from_file(model, "cpu").dtype == torch.float32:
        names.remove("auto")
        print("On this machine `auto` is float32 itself; bfloat16 is emulated, with the same roundings.\n")
    upscalers = {name: Upscaler.from_file(model, "cpu", name) for name in names}
    print(f"From the middle of each, {side}×{side} px at most. PSNR is that of values, of 8 bits after rounding.\n")
    print("| input | precision | PSNR | PSNR, 8 bits | worst level |\n|---|---|--:|--:|--:|")
    for name in PHOTOGRAPHS:
        whole = getattr(skimage.data, name)()
        for kind, image in (
            ("reduced ×¼", bicubic(whole[: whole.shape[0] // 4 * 4, : whole.shape[1] // 4 * 4], 0.25)),
            ("itself", whole),
        ):
            top, left = (max(length - side, 0) // 2 for length in image.shape[:2])
            low = (image[top : top + side, left : left + side] / 255).astype(np.float32)
            results = {each: upscaler(low) for each, upscaler in upscalers.items()}
            for each in names[1:]:
                differs = compare(results[each], results["fp32"])
                print(
                    f"| {name}, {kind} | {each} | {differs['psnr']:.1f} | {differs['psnr8']:.1f} | {differs['worst']} |"
                )


def measure_memory(width: int, height: int) -> None:
    """Measure what a large image takes above the canvas, on its first lines; how long it is does not matter."""
    across, length = sorted((width, height))
    print(f"{width}×{height} px, 6 blocks, ×4: above the canvas of {width * height * 48 / 1e9:.2f} GB in 8 bits.\n")
    print("| lines of | how many | in strips of | peak | s |\n|--:|--:|--:|--:|--:|")
    for rows in (192, 384):  # both more than the 96 lines that are on their way through the network
        job = {"name": "memory", "across": across, "length": length, "rows": rows}
        answer = json.loads(
            subprocess.check_output([sys.executable, HERE / "contenders.py", json.dumps(job)], env=_env())
        )
        strips = f"{answer['lines']}" + f", in {answer['bands']} bands" * (answer["bands"] > 1)
        peak = answer["bytes"] / 1e9
        print(f"| {across} px | {rows} | {strips} | {peak:.2f} GB | {answer['seconds']:.0f} |", flush=True)


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a generator; ncnn takes part if it is an ncnn pair")
    parser.add_argument("--size", default="256x256", help="width and height of the input (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (%(default)s)")
    parser.add_argument("--memory", default="6000x4000", help="size for the memory's measurement (%(default)s)")
    parser.add_argument("--crop", type=int, default=128, help="side of the photographs for the accuracy (%(default)s)")
    parser.add_argument("--only", nargs="+", default=list(CPU), metavar="NAME", help="of the contenders on the CPU")
    parts = ["speed", "accuracy", "memory", "gpu"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="what to measure (everything)")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    print(f"{describe_machine()}\n- load before: {os.getloadavg()[0]:.1f}\n", flush=True)
    if {"speed", "gpu"} & set(options.parts):
        prepare_peers()
    file = load_generator(options.model)
    network = file.build()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(network.state_dict(), folder / "state.pth")
        job = {
            "model": str(options.model.resolve()),
            "state": str(folder / "state.pth"),
            "input": str(folder / "in.npy"),
        }
        job |= {"ncnn": str(options.model.resolve().with_suffix("")), "threads": torch.get_num_threads()}
        if "speed" in options.parts:
            save_input(folder / "in.npy", width, height)
            print(f"## CPU, {width}×{height} px → ×{network.scale_factor}")
            names = [each for each in options.only if "ncnn" not in each or options.model.suffix in (".param", ".bin")]
            race(names, job | {"device": "cpu"}, options.repeats, operations(network, width * height), folder)
        if "gpu" in options.parts and torch.cuda.is_available():
            save_input(folder / "in.npy", 640, 480)
            print(f"\n## GPU, 640×480 px → ×{network.scale_factor}")
            race(GPU, job | {"device": "cuda"}, options.repeats, operations(network, 640 * 480), folder)
        elif "gpu" in options.parts:
            print("\n## GPU\n\nLeft out: there is none here.")
    if "accuracy" in options.parts:
        print("\n## Accuracy\n")
        measure_accuracy(options.model, options.crop)
    if "memory" in options.parts:
        print("\n## Memory\n", flush=True)
        measure_memory(*map(int, options.memory.split("x")))
    print(f"\nload after: {os.getloadavg()[0]:.1f}")


def save_input(path: Path, width: int, height: int) -> None:
    """Write a photograph of a given size, (1, 3, H, W) in [0, 1], mirrored where it is too small."""
    photograph = skimage.data.astronaut()
    missing = [(0, max(wanted - there, 0)) for wanted, there in zip((height, width), photograph.shape[:2], strict=True)]
    pixels = np.pad(photograph, [*missing, (0, 0)], mode="symmetric")[:height, :width]
    np.save(path, np.ascontiguousarray(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255))


if __name__ == "__main__":
    main()
