"""Compare the speed of upscaling on the CPU with other programs: python3 benchmarks/inference.py --model FILE.

Each contender runs in its own process, and only one works at a time. They take turns in every round, and before each
turn the benchmark waits for the machine to become idle. Fixed versions of the peers are installed into
``benchmarks/.peers``.
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
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import skimage
import torch
from numpy.typing import NDArray

import esrgan
from esrgan import Upscaler, load_generator
from esrgan.devices import has_native_bfloat16
from esrgan.machine import cpu_name
from esrgan.models import RRDBNet
from esrgan.resize import bicubic

HERE = Path(__file__).resolve().parent
PEERS_FOLDER = HERE / ".peers"
PEERS_PYTHON = PEERS_FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
# realesrgan 0.3.0 and basicsr 1.4.2 can be installed but not imported (torchvision.transforms.functional_tensor no
# longer exists); spandrel has the same network, layer by layer. All use our version of PyTorch, so only its use
# differs.
PEERS = ["spandrel==0.4.2", "ncnn==1.0.20261020", "openvino==2026.4.1", "onnxruntime==1.31.1", "onnx==1.23.2"]
PEERS.append(f"torch=={torch.__version__.split('+')[0]}")
TORCH = ("PyTorch, plain", "PyTorch, channels_last", "PyTorch, bfloat16 channels_last")
OTHER_LIBRARIES = ("onnxruntime", "OpenVINO", "OpenVINO, bfloat16", "ncnn", "ncnn, bf16 storage")
CPU = (*TORCH, *OTHER_LIBRARIES, "esrgan, exact", "esrgan, fp32", "esrgan, bf16")
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle")
IS_NATIVE = has_native_bfloat16(torch.device("cpu"))
ENVIRONMENT = os.environ | {"PYTHONWARNINGS": "ignore"}  # also for the workers
Job = dict[str, Any]


def install_peers() -> None:
    """Install the peers, unless exactly these versions are installed."""
    stamp, wanted = PEERS_FOLDER / "installed.txt", "\n".join(PEERS)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {', '.join(PEERS)}", file=sys.stderr)
        venv.create(PEERS_FOLDER, with_pip=True, clear=True)
        subprocess.check_call([PEERS_PYTHON, "-m", "pip", "install", "--quiet", *PEERS])
        stamp.write_text(wanted)


def print_machine() -> None:
    """Print the hardware and the versions that are measured."""
    capabilities = torch.cpu.get_capabilities()
    names = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_fp16", "bf16")
    print(f"- CPU: {cpu_name()}; {', '.join(name for name in names if capabilities.get(name))}")
    print(f"- {torch.get_num_threads()} threads, {psutil.virtual_memory().total / 2**30:.0f} GiB")
    print(f"- bfloat16 on the CPU: {'native' if IS_NATIVE else 'not native; emulated where it is requested'}")
    print(f"- Python {platform.python_version()}, PyTorch {torch.__version__}, {platform.system()}")


def count_operations(network: RRDBNet, pixels: int) -> int:
    """Return the number of additions and multiplications in the convolutions for a number of LR pixels."""
    total = 0
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            doublings = network.num_upsamplings if name in ("conv_hr", "conv_last") else 0
            if name.startswith("conv_up"):  # it runs before a pixel shuffle, but after nearest-neighbour upsampling
                doublings = int(name[-1]) - network.use_subpixel_conv
            total += 2 * module.weight.numel() * 4**doublings * pixels // network.unshuffle_factor**2
    return total


def compare(result: NDArray[Any], reference: NDArray[Any]) -> tuple[float, float, int, float]:
    """Compare images with values in [0, 1].

    Returns:
        PSNR, PSNR after rounding to 8 bits, the largest error in levels after rounding, and the share of values that
        differ by at most one level.
    """
    a, b = (np.clip(each.astype(np.float64), 0, 1) * 255 for each in (result, reference))
    rounded = np.abs(a.round() - b.round())
    with np.errstate(divide="ignore"):
        exact, coarse = (float(10 * np.log10(255**2 / (each**2).mean())) for each in (a - b, rounded))
    return exact, coarse, int(rounded.max()), float((rounded <= 1).mean())


class ContenderProcess:
    """The process of a contender, which waits for commands."""

    def __init__(self, name: str, job: Job) -> None:
        print(f"starting {name}", file=sys.stderr)
        self.name, self.result = name, Path(job["result"])
        python = sys.executable if name.startswith("esrgan") else PEERS_PYTHON
        command = [python, HERE / "contenders.py", json.dumps(job | {"name": name})]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.others: list[float] = []
        self.note = self.request("").get("note")

    def request(self, command: str) -> Job:
        """Send a command and return the answer, which is empty if the process has died."""
        assert self.process.stdin is not None  # noqa: S101  both are pipes; for the type checker
        assert self.process.stdout is not None  # noqa: S101
        if command:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline() or "{}"))

    def run(self, patience: float) -> None:
        """Run once, if possible on an idle machine; record the time and the share of the CPU that others used."""
        deadline = time.monotonic() + patience
        while psutil.cpu_percent(0.5) > 10 and time.monotonic() < deadline:
            pass
        before, began = self._used_by_others(), time.perf_counter()
        answer = self.request("run")
        used, wall = self._used_by_others() - before, time.perf_counter() - began
        self.seconds.append(answer["seconds"])
        self.cpu_seconds.append(answer["cpu_seconds"])
        self.others.append(max(used, 0) / wall / (os.cpu_count() or 1))

    def _used_by_others(self) -> float:
        own, all_ = psutil.Process(self.process.pid).cpu_times(), psutil.cpu_times()
        idle = all_.idle + getattr(all_, "iowait", 0) + getattr(all_, "guest", 0)
        return float(sum(all_) - idle - own.user - own.system)


def run_contenders(names: Iterable[str], job: Job, options: argparse.Namespace, flop: int) -> None:
    """Run contenders in turns and print a table."""
    workers = [ContenderProcess(name, job | {"result": f"{job['input']}.{i}.npy"}) for i, name in enumerate(names)]
    alive = {worker.name: worker for worker in workers if worker.note}
    for i in range(options.repeats):
        print(f"round {i + 1} of {options.repeats}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        for worker in alive.values():
            worker.run(options.patience)
    for worker in workers:
        if worker.note:
            worker.request("save")
        worker.process.communicate()
    reference, first = np.load(alive["esrgan, exact"].result), next(iter(alive.values()))
    print(
        f"{flop / 1e9:.0f} GFLOP, {options.repeats} rounds. PSNR and largest 8-bit error are against `esrgan, exact`.\n"
    )
    print(f"| | software | best s | median s | CPU s | × {first.name} | GFLOP/s | others | PSNR | worst |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for worker in workers:
        if not worker.note:
            print(f"| {worker.name} | failed, see above |")
            continue
        is_emulated = not IS_NATIVE and "bf" in worker.name
        best, psnr = min(worker.seconds), compare(np.load(worker.result), reference)
        times = f"{best:.2f} | {np.median(worker.seconds):.2f} | {min(worker.cpu_seconds):.2f}"
        times += f" | {min(first.seconds) / best:.2f}"
        others = worker.others[worker.seconds.index(best)]
        print(
            f"| {worker.name} | {worker.note}{', **no native bfloat16**' * is_emulated} | {times} "
            f"| {flop / best / 1e9:.0f} | {others:.0%} | {psnr[0]:.1f} | {psnr[2]} |"
        )


def measure_accuracy(model: Path, side: int) -> None:
    """Compare the precisions with ``exact`` on photographs, at their size and downscaled by 4."""
    upscalers = {name: Upscaler.from_file(model, "cpu", name) for name in ("exact", "fp32", "bf16")}
    if not IS_NATIVE:
        print("On this machine bfloat16 is emulated, with the same rounding.\n")
    print(f"Centre crops of at most {side}×{side} px. PSNR before and after rounding to 8 bits.\n")
    print("| input | precision | PSNR | PSNR, 8 bits | largest error | within 1 level |\n|---|---|--:|--:|--:|--:|")
    for name in PHOTOGRAPHS:
        photograph = getattr(skimage.data, name)()
        if isinstance(photograph, tuple):  # two photographs and their depth
            photograph = photograph[0]
        height, width = (length // 4 * 4 for length in photograph.shape[:2])
        for kind, image in (("downscaled ×¼", bicubic(photograph[:height, :width], 0.25)), ("original", photograph)):
            top, left = (max(length - side, 0) // 2 for length in image.shape[:2])
            low = (image[top : top + side, left : left + side] / 255).astype(np.float32)
            results = {each: upscaler(low) for each, upscaler in upscalers.items()}
            for each in list(results)[1:]:
                exact, coarse, worst, within = compare(results[each], results["exact"])
                print(f"| {name}, {kind} | {each} | {exact:.1f} | {coarse:.1f} | {worst} | {within:.3%} |", flush=True)


def measure_memory(width: int, height: int) -> None:
    """Measure the memory that a large image needs beyond its canvas.

    Only the first lines are upscaled, because their number does not matter.
    """
    short_side, long_side = sorted((width, height))
    canvas = f"the 8-bit canvas of {width * height * 48 / 1e9:.2f} GB"
    print(f"{width}×{height} px, 6 blocks, ×4: memory beyond {canvas}.\n")
    print("| precision | line width | lines | lines per strip | peak | s |\n|---|--:|--:|--:|--:|--:|")
    sizes = {"name": "memory", "short_side": short_side, "long_side": long_side}
    # More lines than the network has in progress.
    for precision, rows in (("exact", 192), ("exact", 384), ("fp32", 512), ("fp32", 1024)):
        job = json.dumps(sizes | {"precision": precision, "rows": rows})
        answer = json.loads(subprocess.check_output([sys.executable, HERE / "contenders.py", job], env=ENVIRONMENT))
        strips = f"{answer['lines']}" + f", in {answer['bands']} bands" * (answer["bands"] > 1)
        peak = f"{answer['bytes'] / 1e9:.2f} GB"
        print(f"| {precision} | {short_side} px | {rows} | {strips} | {peak} | {answer['seconds']:.0f} |")


def save_input(path: str, width: int, height: int) -> None:
    """Write a photograph of the given size as (1, 3, H, W) in [0, 1], padded by mirroring if it is too small."""
    photograph = skimage.data.astronaut()
    missing = [(0, max(wanted - have, 0)) for wanted, have in zip((height, width), photograph.shape[:2], strict=True)]
    pixels = np.pad(photograph, [*missing, (0, 0)], mode="symmetric")[:height, :width]
    np.save(path, np.ascontiguousarray(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255))


def main() -> None:
    """Run the requested measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, required=True, help="generator file; ncnn is included only for an ncnn pair"
    )
    parser.add_argument(
        "--size", default="256x256", help="width and height of the input on the CPU (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="number of rounds (default: %(default)s)")
    parser.add_argument(
        "--patience", type=float, default=60, help="seconds to wait for an idle machine (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=CPU,
        choices=CPU,
        metavar="NAME",
        help="contenders to run on the CPU (default: all)",
    )
    parser.add_argument(
        "--crop", type=int, default=128, help="side of the crops that measure accuracy (default: %(default)s)"
    )
    parser.add_argument(
        "--memory", default="6000x4000", help="image size for the memory measurement (default: %(default)s)"
    )
    parts = ("speed", "accuracy", "memory")
    parser.add_argument(
        "--parts", nargs="+", choices=parts, default=parts, help="what to measure (default: everything)"
    )
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    print(f"measuring {Path(esrgan.__file__).parent}", file=sys.stderr)
    print_machine()
    print(f"- load before: {os.getloadavg()[0]:.1f}", flush=True)
    network, model = load_generator(options.model).build(), options.model.resolve()
    with tempfile.TemporaryDirectory() as folder:
        job: Job = {"model": str(model), "ncnn": str(model.with_suffix("")), "threads": torch.get_num_threads()}
        job |= {"state": f"{folder}/state.pth", "input": f"{folder}/input.npy"}
        torch.save(network.state_dict(), job["state"])
        if "speed" in options.parts:
            install_peers()
            save_input(job["input"], width, height)
            print(f"\n## CPU, {width}×{height} px → ×{network.scale_factor}\n", flush=True)
            names = [each for each in options.only if "ncnn" not in each or model.suffix in (".param", ".bin")]
            run_contenders(names, job | {"device": "cpu"}, options, count_operations(network, width * height))
    if "accuracy" in options.parts:
        print("\n## Accuracy\n", flush=True)
        measure_accuracy(model, options.crop)
    if "memory" in options.parts:
        print("\n## Memory\n", flush=True)
        measure_memory(*map(int, options.memory.split("x")))
    print(f"\nload after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
