"""Measure how long the degradation of a batch takes: python benchmarks/degradation.py [cpu|cuda].

On a CPU, the processor time of one thread is measured, which other programs hardly affect.
"""

import sys
import time

import torch

from esrgan.config.schema import Degradation as DegradationConfig
from esrgan.degradation import Degradation

REPETITIONS = 10

device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
if device.type == "cuda":
    name, clock = torch.cuda.get_device_name(device), time.perf_counter
else:
    name, clock = "CPU, one thread", time.process_time
    torch.set_num_threads(1)
degradation = Degradation(4, 0, **DegradationConfig().model_dump())
for count, side in ((4, 128), (12, 256)):
    smooth = torch.rand((count, 3, side // 8, side // 8), generator=torch.Generator().manual_seed(0))
    high = torch.nn.functional.interpolate(smooth, scale_factor=8, mode="bilinear").to(device)
    times_ms = []
    for repetition in range(REPETITIONS + 1):
        begin = clock()
        degradation(high, repetition * count)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times_ms.append((clock() - begin) * 1e3)
    median = sorted(times_ms[1:])[REPETITIONS // 2]  # the first repetition warms up
    print(f"{name}: {count} patches of {side}×{side} px: {median:.0f} ms (median of {REPETITIONS})")
