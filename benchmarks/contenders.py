"""One contender of the benchmark; ``inference.py`` starts it as a process in the environment it needs.

The argument is a job in JSON. The process prints a line of JSON when it is ready, and then one for each line of input:
``run`` upscales and returns the seconds on the clock and of the CPU, ``save`` writes the last result to the path
``result`` of the job.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

if json.loads(sys.argv[1])["name"].startswith(("esrgan", "memory")):
    from esrgan.cli.process import keep_freed_memory
    from esrgan.cli.spinning import limit_spinning

    keep_freed_memory()  # as the commands do, before PyTorch is imported
    limit_spinning()

import numpy as np
import torch

Job = dict[str, Any]
Run = Callable[[], Any]


def esrgan(job: Job, precision: str) -> tuple[Run, str]:
    """Prepare this project; like every contender, it maps a float tensor to a float tensor."""
    from esrgan import Upscaler

    upscaler = Upscaler.from_file(job["model"], job["device"], precision)
    low = torch.from_numpy(np.load(job["input"])).to(job["device"])
    return lambda: upscaler(low), upscaler.arithmetic


def _load_reference(job: Job, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, torch.Tensor]:
    """Return spandrel's copy of BasicSR's RRDBNet, and its input."""
    from spandrel import ModelLoader

    network = ModelLoader(device=job["device"]).load_from_file(job["state"]).model.eval().requires_grad_(False)
    low = torch.from_numpy(np.load(job["input"])).to(job["device"], dtype)
    return network.to(dtype), low


def pytorch(job: Job, name: str, channels_last: bool = False) -> tuple[Run, str]:
    """Prepare a plain forward pass over the whole image, as in Real-ESRGAN, with channels_last as an option."""
    network, low = _load_reference(job, getattr(torch, name))
    if channels_last:
        network, low = network.to(memory_format=torch.channels_last), low.contiguous(memory_format=torch.channels_last)
    return torch.inference_mode()(lambda: network(low).float()), f"torch {torch.__version__}"


def ncnn(job: Job, bf16: bool) -> tuple[Run, str]:
    """Prepare ncnn on the CPU. ``low`` has to outlive the ``ncnn.Mat`` that refers to its memory."""
    import ncnn as library

    net = library.Net()
    options = net.opt
    options.num_threads, options.use_vulkan_compute, options.use_bf16_storage = job["threads"], False, bf16
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
    net.opt = options
    net.load_param(job["ncnn"] + ".param")
    net.load_model(job["ncnn"] + ".bin")
    low = np.load(job["input"])[0]

    def run() -> Any:
        extractor = net.create_extractor()
        extractor.input("data", library.Mat(low))
        _, high = extractor.extract("output")
        return np.array(high)[None]

    return run, f"ncnn {library.__version__}"


def openvino(job: Job, precision: str) -> tuple[Run, str]:
    """Prepare OpenVINO, with the network converted from PyTorch at a fixed size and tuned for latency."""
    import openvino as library

    network, low = _load_reference(job)
    model = library.convert_model(network, example_input=low, input=list(low.shape))
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": job["threads"]}
    compiled = library.Core().compile_model(model, "CPU", options | {"PERFORMANCE_HINT": "LATENCY"})
    actual = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    array = low.numpy()
    return lambda: compiled(array)[0], f"openvino {library.__version__.split('-')[0]}, {actual}"


def onnxruntime(job: Job) -> tuple[Run, str]:
    """Prepare ONNX Runtime, with the network exported from PyTorch at a fixed size."""
    import onnxruntime as library

    network, low = _load_reference(job)
    path = job["result"] + ".onnx"
    torch.onnx.export(network, (low,), path, dynamo=False)
    options = library.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: low.numpy()}
    return lambda: session.run(None, inputs)[0], f"onnxruntime {library.__version__}"


def measure_memory(job: Job) -> None:
    """Stream an image of the given width in strips, and print how much the resident memory rose."""
    from esrgan.inference.streaming import upscale_strips
    from esrgan.inference.tiling import choose_tiling
    from esrgan.inference.winograd import transform_kernels
    from esrgan.models import RRDBNet

    def resident(name: str) -> int:
        with open("/proc/self/status") as lines:  # noqa: PTH123
            return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

    network = RRDBNet(num_basic_blocks=6).eval().to(memory_format=torch.channels_last)
    kernels = transform_kernels(network) if job["precision"] == "fp32" else None
    tiling = choose_tiling(network, job["long_side"], job["short_side"], kernels)
    # The first, small image makes PyTorch load what it loads on first use.
    for short_side, rows in ((256, 128), (job["short_side"], job["rows"])):
        before = resident("VmRSS")
        began = time.perf_counter()
        sizes = [min(tiling.lines, rows - row) for row in range(0, rows, tiling.lines)]
        strips = (torch.rand(1, 3, size, short_side) for size in sizes)
        with torch.inference_mode():
            parts = upscale_strips(network, strips, 2, tiling.lines, (1, rows, short_side), kernels)
            num_values = sum(part.numel() for part, _ in parts if part is not None)
        assert num_values == 16 * 3 * rows * short_side  # noqa: S101
    risen, seconds = resident("VmHWM") - before, time.perf_counter() - began
    print(json.dumps({"bytes": risen, "lines": tiling.lines, "bands": tiling.bands, "seconds": seconds}))


CONTENDERS: dict[str, Callable[[Job], tuple[Run, str]]] = {
    "PyTorch, plain": lambda job: pytorch(job, "float32"),
    "PyTorch, channels_last": lambda job: pytorch(job, "float32", channels_last=True),
    "PyTorch, bfloat16 channels_last": lambda job: pytorch(job, "bfloat16", channels_last=True),
    "onnxruntime": onnxruntime,
    "OpenVINO": lambda job: openvino(job, "f32"),
    "OpenVINO, bfloat16": lambda job: openvino(job, "bf16"),
    "ncnn": lambda job: ncnn(job, bf16=False),
    "ncnn, bf16 storage": lambda job: ncnn(job, bf16=True),
    "esrgan, exact": lambda job: esrgan(job, "exact"),
    "esrgan, fp32": lambda job: esrgan(job, "fp32"),
    "esrgan, bf16": lambda job: esrgan(job, "bf16"),
}


def main() -> None:
    """Process commands until the end of the input."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries that print to stdout must not disturb the answers
    job: Job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    run, note = CONTENDERS[job["name"]](job)
    run()  # the first run compiles, allocates and packs weights
    print(json.dumps({"note": note}), file=answers)
    high: Any = None
    for command in sys.stdin:
        answer: dict[str, float] = {}
        if command.strip() == "run":
            high = None
            began, cpu_began = time.perf_counter(), time.process_time()
            high = run()
            answer["seconds"] = time.perf_counter() - began
            answer["cpu_seconds"] = time.process_time() - cpu_began  # of all threads
        else:
            np.save(job["result"], high.cpu().numpy() if isinstance(high, torch.Tensor) else high)
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    measure_memory(job) if job["name"] == "memory" else main()
