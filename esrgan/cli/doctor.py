"""``esrgan doctor``: show what this machine has and what is missing."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from esrgan import machine
from esrgan.cli import arguments, process
from esrgan.errors import EsrganError
from esrgan.extras import EXTRAS, missing_modules
from esrgan.files import check_temporary_folder
from esrgan.paths import describe_path
from esrgan.text import describe_error, format_count, format_size, one_line

EXAMPLES = """\
  esrgan doctor
  esrgan doctor --data-root /disk/data"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan doctor``."""
    parser = arguments.make_parser("doctor", "Show what this machine has and what is missing.", EXAMPLES)
    arguments.add_data_root(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    parts = {
        "versions": _versions(),
        "devices": _devices(),
        "extras": _extras(),
        "models": _models(),
        "datasets": _datasets(args.data_root),
    }
    for title, lines in parts.items():
        print(title)
        for name, state in lines:
            print(f"  {name:20} {state}")
    return process.OK


def _versions() -> Iterator[tuple[str, str]]:
    for line in process.versions():
        name, _, version = line.partition(" ")
        yield name, version


def _devices() -> Iterator[tuple[str, str]]:
    with process.importing():
        import torch

        from esrgan.devices import find_gpu_problem, has_native_bfloat16, select_device

    place = select_device("cpu")
    precisions = "float32, bfloat16" if has_native_bfloat16(place) else "float32; no fast bfloat16"
    room = f"{format_size(machine.available_memory())} of {format_size(machine.memory_limit())} free"
    yield "cpu", f"{format_count(torch.get_num_threads(), 'thread')}, {room}, {precisions}"
    yield "limits", ", ".join(_limits())
    try:
        check_temporary_folder()
        yield "temporary files", _describe_folder(Path(tempfile.gettempdir()))
    except EsrganError as error:
        yield "temporary files", str(error)
    for number in range(torch.cuda.device_count()):
        place = torch.device("cuda", number)
        name = "a GPU"
        try:
            name = torch.cuda.get_device_name(place)
            free, total = torch.cuda.mem_get_info(place)
            precisions = "float16, bfloat16, TF32" if has_native_bfloat16(place) else "float16; no fast bfloat16"
            problem = find_gpu_problem(place)
        except RuntimeError as error:  # its driver does not respond, its memory is full, or another process blocks it
            problem = one_line(describe_error(error), 200)
        if problem is not None:
            yield str(place), f"{name}, cannot be used: {problem}"
            continue
        yield str(place), f"{name}, {format_size(free)} of {format_size(total)} free, {precisions}"
    if torch.backends.mps.is_available():
        yield "mps", "Apple GPU, float16"
    if not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}, but finds no GPU or driver" if torch.version.cuda else "without CUDA"
        yield "cuda", f"none: PyTorch is built {built}"


def _limits() -> Iterator[str]:
    """Describe the limits of a container; "none" is a machine of its own."""
    quota, memory = machine.cpu_quota(), machine.memory_limit()
    is_limited = memory < psutil.virtual_memory().total
    yield f"CPU quota {f'{quota:g}' if quota else 'none'}"
    yield f"memory limit {format_size(memory) if is_limited else 'none'}"
    if (shared := machine.free_shared_memory()) is not None:
        yield f"{format_size(shared)} of shared memory free (/dev/shm)"


def _extras() -> Iterator[tuple[str, str]]:
    for extra, (_, purpose) in EXTRAS.items():
        absent = missing_modules(extra)
        remedy = f"{', '.join(absent)} missing; pip install 'esrgan[{extra}]'"
        yield f"[{extra}]", f"{purpose}: {remedy if absent else 'installed'}"


def _models() -> Iterator[tuple[str, str]]:
    from esrgan.models.vgg import torchvision_weights_path
    from esrgan.pretrained import MODELS, downloads_dir, is_on_disk

    yield "by name", f"{', '.join(name for name in MODELS if is_on_disk(name))}; `esrgan models` lists all"
    try:
        yield "downloads", _describe_folder(downloads_dir())
    except EsrganError as error:
        yield "downloads", str(error)
    if "torchvision" in missing_modules("metrics"):
        yield "vgg, alexnet", "unknown without torchvision; pip install 'esrgan[metrics]'"
        return
    for network, purpose in (("vgg19", "the perceptual loss"), ("vgg16", "--metrics vgg16"), ("alexnet", "LPIPS")):
        try:
            path = torchvision_weights_path(network)
        except EsrganError as error:
            yield network, f"for {purpose}: {error}"
            continue
        found = describe_path(path)
        state = {"a file": str(path), "nothing": "not downloaded yet"}.get(found, f"{found}, {path}")
        yield network, f"for {purpose}: {state}"


def _datasets(data_root: Path | None) -> Iterator[tuple[str, str]]:
    from esrgan.data.datasets import (
        DATASET_NAMES,
        default_data_root,
        find_pairs_and_problems,
        is_missing,
        prepare_command,
    )

    root = data_root or default_data_root()
    yield "folder", _describe_folder(root)
    for name in DATASET_NAMES:
        if is_missing(name, root):
            yield name, f"missing; download it with: {prepare_command(name, 4, root)}"
            continue
        counts, troubles = [], []
        for split in ("train", "val"):
            pairs, problems = find_pairs_and_problems([name], split, 4, root)
            if problems:
                more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
                troubles.append(str(problems[0]).removeprefix(f"dataset {name}: ") + more)
            else:
                counts.append(format_count(len(pairs), f"{'training' if split == 'train' else 'validation'} image"))
        # Both splits may have the same problem, which is shown once.
        states = list(filter(None, (", ".join(counts), *dict.fromkeys(troubles))))
        yield from ((name if state is states[0] else "", state) for state in states)


def _describe_folder(folder: Path) -> str:
    """Describe a folder: its path, whether it exists and is writable, and the free space of its disk."""
    folder = folder.absolute()
    existing, found = next(
        (path, found) for path in (folder, *folder.parents) if (found := describe_path(path)) != "nothing"
    )
    if found != "a folder":
        return f"{existing}: expected a folder, got {found}"
    can_write = "" if os.access(existing, os.W_OK) else ", not writable"
    note = "" if existing == folder else ", does not exist yet"
    return f"{folder}{note}{can_write}, {format_size(shutil.disk_usage(existing).free)} free"
