"""Describe how scores are computed, and when, where and with which command and versions an evaluation ran."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch

from esrgan.machine import cpu_name
from esrgan.metrics import Metric
from esrgan.text import format_count
from esrgan.version import __version__


def describe_conventions(metrics: Sequence[Metric], scale: int) -> str:
    """Describe in one line, of parts with semicolons between, how the scores are computed."""
    labels: dict[str, list[str]] = {}
    for metric in metrics:
        labels.setdefault(metric.convention, []).append(metric.label)
    return "; ".join(
        [
            "8-bit images",
            f"{scale} px, the scale, are cropped at each border",
            "Y is BT.601 in studio range (16 to 235)",
            "LR images by MATLAB bicubic where the dataset has none",
            *(f"{' and '.join(of)}: {how}" for how, of in labels.items()),
        ]
    )


def describe_run(device: torch.device) -> dict[str, str]:
    """Return the date, the versions, the machine and the command of this process, each by its name.

    Args:
        device: The device of the models; a GPU is named next to the CPU.
    """
    machine = f"{cpu_name()}, {format_count(torch.get_num_threads(), 'thread')}"
    if device.type != "cpu":
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "Apple GPU"
        machine = f"{gpu}; {machine}"
    return {
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "versions": f"esrgan {__version__}, PyTorch {torch.__version__}",
        "machine": machine,
        "command": _describe_command(),
    }


def _describe_command() -> str:
    """Return the command line of this process, as it could be typed again."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        start = ["python", "-m", program.parent.name]
    else:
        is_file = program.suffix == ".py" or sys.argv[0] == "-c"
        start = ["python", sys.argv[0]] if is_file else [program.name or "python"]
    return shlex.join([*start, *sys.argv[1:]])
