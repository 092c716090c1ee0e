"""The ``esrgan train`` command, which also starts one process per GPU."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from esrgan.cli import arguments, process
from esrgan.extras import require_extra

EXAMPLES = """\
  esrgan train config.json
  esrgan train config.json --dry-run
  esrgan train config.json -a --resume auto
  esrgan train config.json -l saved_models/20261121-120000_RRDB_PSNR_x4.pth
  torchrun --nproc-per-node 4 -m esrgan train config.json -a"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan train``."""
    parser = arguments.make_parser("train", "Train an ESRGAN generator: PSNR stage, then GAN stage.", EXAMPLES)
    parser.add_argument(
        "config_file", type=arguments.path, help="JSON configuration of both stages; {} trains as in the paper"
    )
    text = "checkpoint or model to start from: a file, or a name listed by `esrgan models`"
    arguments.add_path(parser, "-l", "--load-checkpoint", help=text)
    text = "discriminator that the GAN stage starts from: a file of BasicSR, Real-ESRGAN or this project"
    arguments.add_path(parser, "--load-discriminator", help=text)
    parser.add_argument("-a", "--autocast", action="store_true", help="compute in bfloat16 or float16")
    parser.add_argument("--no-data-parallel", action="store_true", help="use one GPU even if there are several")
    arguments.add_number(
        parser,
        "-i",
        "--checkpoint-interval",
        help="write a checkpoint every N epochs (default: every epoch, at least a minute apart), besides every few "
        "minutes (checkpoint_minutes of the configuration)",
    )
    text = "do not pick a best model in the first N epochs (default: 0)"
    arguments.add_number(parser, "-w", "--best-checkpoint-warmup", at_least=0, default=0, help=text)
    text = "keep a model file every N epochs (default: off)"
    arguments.add_number(parser, "-s", "--store-model-interval", help=text)
    text = "folder for models, checkpoints and logs (default: saved_models)"
    arguments.add_path(parser, "-o", "--out-dir", metavar="DIR", default=Path("saved_models"), help=text)
    parser.add_argument(
        "--run-name", type=_parse_run_name, metavar="NAME", help="prefix of the run's files (default: timestamp)"
    )
    parser.add_argument(
        "--stage", choices=["pretraining", "training", "all"], default="all", help="stage to run (default: all)"
    )
    parser.add_argument(
        "--resume",
        choices=["auto"],
        help="resume the run called --run-name, or the newest run of this configuration, if --out-dir has one",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, estimate time and memory, and exit")
    arguments.add_number(parser, "--seed", at_least=0, help="override the configuration's seed")
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder of the named datasets (default: $ESRGAN_DATA or data)"
    )
    arguments.add_number(parser, "--max-steps", help="end each stage after N steps")
    arguments.add_device(parser)
    return parser


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments, which are kept as ``argv`` for other processes."""
    argv = _translate_earlier_options(argv)
    return make_parser().parse_args(argv, argparse.Namespace(argv=argv))


def _translate_earlier_options(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the options in the README of the earlier framework replaced by today's."""
    today = {"--config-json": [], "--load-model-path": ["--load-checkpoint"]}
    parts = ((word, *word.partition("=")) for word in argv)
    return [
        new
        for word, option, equals, value in parts
        for new in (today[option] + [value] * bool(equals) if option in today else [word])
    ]


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    # PyTorch's warnings about a lost process fill pages. The level must be set before PyTorch is imported.
    if "TORCHELASTIC_RUN_ID" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from esrgan import config as configuration

    require_extra("train")
    config = configuration.load(args.config_file)
    changes = {"seed": args.seed, "data_root": args.data_root}
    config = config.model_copy(update={key: value for key, value in changes.items() if value is not None})

    with process.importing():
        from esrgan.training import TrainOptions, train

    if (code := _launch_on_all_gpus(args, config.batch_size // config.accumulation)) is not None:
        return code
    names = {field.name for field in fields(TrainOptions)} - {"config_name", "resume"}
    options = TrainOptions(
        config_name=str(args.config_file.resolve()),
        resume=args.resume == "auto",
        **{name: getattr(args, name) for name in names},
    )
    return process.OK if train(config, options) else process.INTERRUPTED


def _parse_run_name(text: str) -> str:
    if not re.fullmatch(r"[\w+-][\w.+-]*", text):
        raise argparse.ArgumentTypeError(f"expected only letters, digits and . _ + -, got {text!r}")
    return text


def _launch_on_all_gpus(args: argparse.Namespace, batch_size: int) -> int | None:
    """Run the command again under torchrun with one process per GPU, if several GPUs can be used.

    Returns:
        The exit code of the processes; None if this process should train itself.
    """
    import torch

    from esrgan.training.interrupt import STOP_SIGNALS

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0  # a broken driver may still count them
    count = max((n for n in range(1, gpus + 1) if batch_size % n == 0), default=1)
    chosen = args.no_data_parallel or args.device not in ("auto", "cuda")
    if count == 1 or chosen or torch.distributed.is_torchelastic_launched():
        return None
    if not torch.distributed.is_nccl_available():
        print("training on one GPU: this PyTorch has no NCCL, which training on several GPUs needs", flush=True)
        return None
    print(f"training on {count} GPUs; use --no-data-parallel to train on one", flush=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    # torchrun would take back what nohup has asked for.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        from torch.distributed.run import get_args_parser

        if "--signals-to-handle" in get_args_parser().format_help():  # older versions of PyTorch lack it
            launcher.append("--signals-to-handle=SIGTERM,SIGINT,SIGQUIT")
    command = [sys.executable, *launcher, "-m", "esrgan", "train", *args.argv]
    launched = subprocess.Popen(command)  # noqa: S603  (runs this package)
    requests: list[int] = []

    def request(number: int, _: object) -> None:
        requests.append(number)
        if number != signal.SIGINT:  # a terminal sends Ctrl-C to all processes, but other signals only arrive here
            launched.terminate()

    handled = [number for number in STOP_SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    previous = {number: signal.signal(number, request) for number in handled}
    try:
        code = launched.wait()  # after a signal, the processes still write a checkpoint
        # torchrun's exit code is 1 whatever those of its processes are.
        return process.INTERRUPTED if code and requests else code
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
