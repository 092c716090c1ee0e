"""Compare training with a plain loop: python3 benchmarks/training.py.

Both train the same networks on the same batches with the same losses, in separate processes that take turns. The plain
loop re-implements a step of BasicSR's ESRGAN model: float32 (on a GPU with PyTorch's default, TF32 in convolutions),
NCHW, Adam with default settings, five passes of the discriminator, every loss read back, and the moving average updated
weight by weight. VGG19 has random weights, which cost the same as trained ones. Batches are in memory already, so
loading data is not measured. "CPU s" is the least CPU time per step, which other programs disturb less. TFLOP/s count
three passes of the generator, and nothing else. A loop that fails, such as a compiled one without a C++ compiler, ends
with its error and does not stop the others.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

from esrgan.cli.process import keep_freed_memory
from esrgan.cli.spinning import limit_spinning

if "plain" not in sys.argv:  # like the trainer, before PyTorch is imported
    keep_freed_memory()
    limit_spinning()

import torch
import torch.nn.functional as F
import torchvision
from gpu import count_operations
from torch import Tensor, nn

from esrgan.config import Config
from esrgan.devices import benchmark_convolutions, low_precision_dtype, select_device
from esrgan.losses import ContentLoss, PerceptualLoss
from esrgan.models import RRDBNet
from esrgan.models.winograd import winograd_convolutions
from esrgan.training.ema import ExponentialMovingAverage
from esrgan.training.setup import make_autocast, make_networks, make_stage
from esrgan.training.validation import Losses

STAGES = ("pretraining", "training")
Step = Callable[[Tensor, Tensor, int], dict[str, Any]]


def make_plain_step(
    stage: str, config: Config, networks: tuple[RRDBNet, nn.Module], perceptual_loss: PerceptualLoss, name: str
) -> Step:
    """Return the training step of the plain loop; in "plain -a compiled" the generator is compiled."""
    is_compiled, device = "compiled" in name, next(networks[0].parameters()).device
    layout = torch.channels_last if is_compiled else torch.contiguous_format
    generator, discriminator = (each.to(memory_format=layout) for each in networks)  # type: ignore[call-overload]
    forward = torch.compile(generator, dynamic=False) if is_compiled else generator
    mixed = partial(torch.autocast, device.type, low_precision_dtype(device), enabled="-a" in name)
    average = ExponentialMovingAverage(generator, 0.999).average
    section = config.training
    g_adam = torch.optim.Adam(generator.parameters(), section.g_lr, section.betas)
    d_adam = torch.optim.Adam(discriminator.parameters(), section.d_lr, section.betas)

    def bce(logits: Tensor, is_real: bool) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, float(is_real)).float())

    def update_average() -> None:
        for mean, value in zip(average.parameters(), generator.parameters(), strict=True):
            mean.data.mul_(0.999).add_(value.data, alpha=0.001)

    def pretraining(low: Tensor, high: Tensor, _: int) -> dict[str, float]:
        g_adam.zero_grad()
        with mixed():
            fake = forward(low)
        loss = F.l1_loss(fake.float(), high)
        loss.backward()
        g_adam.step()
        update_average()
        return {"content_loss": loss.item()}

    def training(low: Tensor, high: Tensor, _: int) -> dict[str, float]:
        discriminator.requires_grad_(False)
        g_adam.zero_grad()
        with mixed():
            fake = forward(low)
            content, perceptual = F.l1_loss(fake.float(), high), perceptual_loss(fake, high)
            real_logits, fake_logits = discriminator(high).detach(), discriminator(fake)
        adversarial = bce(real_logits - fake_logits.mean(), False) + bce(fake_logits - real_logits.mean(), True)
        total = (
            perceptual + section.g_content_loss_scaling * content + section.g_adversarial_loss_scaling * adversarial / 2
        )
        total.backward()
        g_adam.step()
        discriminator.requires_grad_(True)
        d_adam.zero_grad()
        with mixed():
            fake_logits, real_logits = discriminator(fake).detach(), discriminator(high)
        real_loss = bce(real_logits - fake_logits.mean(), True) / 2
        real_loss.backward()
        with mixed():
            fake_logits = discriminator(fake.detach())
        fake_loss = bce(fake_logits - real_logits.detach().mean(), False) / 2
        fake_loss.backward()
        d_adam.step()
        update_average()
        return {
            "content_loss": content.item(),
            "perceptual_loss": perceptual.item(),
            "g_adversarial_loss": adversarial.item() / 2,
            "g_total_loss": total.item(),
            "d_adversarial_loss": real_loss.item() + fake_loss.item(),
        }

    return pretraining if stage == "pretraining" else training


def make_esrgan_step(
    stage: str, config: Config, networks: tuple[RRDBNet, nn.Module], perceptual_loss: PerceptualLoss, name: str
) -> Step:
    """Return the training step of this project, whose losses stay on the device until they are reported.

    In "esrgan direct" it computes without Winograd's algorithm.
    """
    device, is_direct = next(networks[0].parameters()).device, "direct" in name
    autocast = make_autocast(config, device, low_precision="-a" in name)
    losses = Losses(ContentLoss(), perceptual_loss, autocast)
    training_stage = make_stage(stage, config, *networks, losses)
    if "compiled" in name:
        mode = "reduce-overhead" if "graphs" in name else None
        training_stage.generator = torch.compile(networks[0], mode=mode, dynamic=False)  # type: ignore[assignment]
    average = ExponentialMovingAverage(networks[0], config.ema_decay)

    def step(low: Tensor, high: Tensor, number: int) -> dict[str, Any]:
        with benchmark_convolutions(device), nullcontext() if is_direct else winograd_convolutions(device):
            values = training_stage.step(
                *(each.contiguous(memory_format=torch.channels_last) for each in (low, high)), number
            )
        average.update(number)
        return values

    return step


def run_worker(name: str, stage: str, options: argparse.Namespace) -> None:
    """Run a contender: for each line of input, do the steps of a turn and print time, losses and memory."""
    device = select_device(options.device)
    generator = {"num_basic_blocks": options.blocks, "small_init": "trunk"}
    config = Config.model_validate(
        {"batch_size": options.batch, "generator": generator, "activation_checkpointing": options.checkpointing}
    )
    networks = make_networks(config, device)
    torch.manual_seed(0)
    vgg = torchvision.models.vgg19(weights=None)
    perceptual_loss = PerceptualLoss(vgg.state_dict(), config.perceptual_loss.layer_weights)
    layout = torch.contiguous_format if name in ("plain", "plain -a") else torch.channels_last
    perceptual_loss.to(device, memory_format=layout)  # type: ignore[call-overload]
    arguments = (stage, config, networks, perceptual_loss)
    is_plain = name.startswith("plain")
    step = make_plain_step(*arguments, name) if is_plain else make_esrgan_step(*arguments, name)
    high = torch.rand(options.batch, 3, options.patch, options.patch, device=device)
    low, numbers = F.avg_pool2d(high, 4), itertools.count()
    for _ in sys.stdin:
        started, cpu_started = time.perf_counter(), time.process_time()
        for _ in range(options.steps):
            losses = step(low, high, next(numbers))
        results = {key: float(value) for key, value in losses.items()}  # this waits for the device
        seconds = (time.perf_counter() - started) / options.steps
        cpu_seconds = (time.process_time() - cpu_started) / options.steps
        memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
        row = {"seconds": seconds, "cpu_seconds": cpu_seconds, "memory": memory, "losses": results}
        print(json.dumps(row), flush=True)


def take_turns(stage: str, names: list[str], options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Run the loops of a stage in turns, and return what each reports; a loop that fails is left out and printed."""
    command = [sys.executable, __file__, *sys.argv[1:], "--work", stage]
    errors = {name: tempfile.TemporaryFile("w+") for name in names}  # noqa: SIM115  open as long as the processes
    processes = {
        name: subprocess.Popen(
            [*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors[name], text=True
        )
        for name in names
    }
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(options.rounds + 1):
        if number > 1 and time.perf_counter() > options.deadline:
            break
        for name in list(turns):
            process = processes[name]
            assert process.stdin is not None  # noqa: S101  both are pipes; for the type checker
            assert process.stdout is not None  # noqa: S101
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write("\n")
                process.stdin.flush()
            if line := process.stdout.readline():
                turns[name].append(json.loads(line))
                continue
            process.wait()
            errors[name].seek(0)
            lines = [line for each in errors[name] if (line := each.strip())]
            print(f"| {stage} | {name} | failed: {lines[-1][:200] if lines else process.returncode} |", flush=True)
            del turns[name]
    for process in processes.values():
        with contextlib.suppress(BrokenPipeError):
            process.communicate()
    return turns


def compare_loops(stage: str, names: list[str], options: argparse.Namespace) -> None:
    """Print a row for each loop of a stage."""
    network = RRDBNet(num_basic_blocks=options.blocks)
    operations = (
        3 * options.batch * count_operations(network, torch.empty(1, 3, options.patch // 4, options.patch // 4))
    )
    turns = take_turns(stage, names, options)
    for name, [first, *others] in turns.items() if "plain" in turns else ():
        seconds, compared = [turn["seconds"] for turn in others], turns["plain"][0]["losses"]
        deviation = max(abs(first["losses"][key] / value - 1) for key, value in compared.items())
        ratios = [each["seconds"] / turn["seconds"] for each, turn in zip(turns["plain"][1:], others, strict=True)]
        memory = f"{others[-1]['memory'] / 2**30:.2f} GiB" if others[-1]["memory"] else "–"
        cells = f"{min(seconds):.3f} | {statistics.median(seconds):.3f} | {statistics.median(ratios):.2f}"
        cells += f" | {min(turn['cpu_seconds'] for turn in others):.3f}"
        cells += f" | {operations / statistics.median(seconds) / 1e12:.2f}"
        print(f"| {stage} | {name} | {cells} | {deviation:.1e} | {memory} |", flush=True)


def main() -> None:
    """Measure both stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="as for train.py (default: auto)")
    parser.add_argument("--blocks", type=int, default=2, help="RRDBs (default: 2; 23 in the paper)")
    parser.add_argument("--batch", type=int, default=4, help="patches per batch (default: 4; 16 in the paper)")
    parser.add_argument("--patch", type=int, default=128, help="side of the HR patches in px (default: 128)")
    parser.add_argument(
        "--rounds", type=int, default=7, help="turns of each loop, after one for warming up (default: 7)"
    )
    parser.add_argument("--steps", type=int, default=1, help="steps per turn (default: 1)")
    parser.add_argument("--autocast", action="store_true", help="also measure low precision")
    parser.add_argument("--compiled", action="store_true", help="also measure a compiled generator in low precision")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="(default: both)")
    parser.add_argument(
        "--seconds", type=float, default=500, help="begin no turn after that, but do two (default: %(default)s)"
    )
    parser.add_argument("--checkpointing", action="store_true", help="use activation checkpointing")
    parser.add_argument("--work", nargs=2, metavar=("STAGE", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        try:
            run_worker(options.work[1], options.work[0], options)
        except Exception as error:  # the other process prints its last line
            sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return
    options.deadline = time.perf_counter() + options.seconds
    device = select_device(options.device)
    hardware = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    print(f"PyTorch {torch.__version__}, {hardware}; {options.blocks} blocks, {options.batch} × {options.patch} px\n")
    print("| stage | loop | best s/step | median s/step | × plain | CPU s | TFLOP/s | deviation of losses | memory |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    names = ["plain", *["esrgan direct"] * (device.type == "cpu"), "esrgan"]
    names += ["plain -a", "esrgan -a"] * options.autocast
    names += ["plain -a compiled", "esrgan -a compiled"] * options.compiled
    names += ["esrgan -a compiled with graphs"] * (options.compiled and device.type == "cuda")
    for stage in options.stages:
        compare_loops(stage, names, options)


if __name__ == "__main__":
    main()
