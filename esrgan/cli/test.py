"""``esrgan test``: evaluate models on datasets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from esrgan.cli import arguments, evaluation_runner, process

EXAMPLES = """\
  esrgan test model.pth -d set5,set14
  esrgan test psnr.pth gan.pth -d photos/val --metrics psnr,ssim,niqe --show-results 3 -o results
  esrgan test model.pth -d photos/hr=photos/lr --json scores.json --csv scores.csv
  esrgan test model.pth -d =photos/small --metrics niqe"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan test``."""
    parser = arguments.make_parser("test", "Evaluate models on datasets and compare them with bicubic.", EXAMPLES)
    parser.add_argument(
        "model_path", type=Path, nargs="+", help="weight files, checkpoints or model names, all of the same scale"
    )
    evaluation_runner.add_evaluation_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return process.run(make_parser(), _test, argv)


def _test(args: argparse.Namespace) -> int:
    with process.exit_on_interrupt():
        from esrgan.evaluation import unique_names
        from esrgan.weights import load_generator

    files = [load_generator(path) for path in args.model_path]
    _, is_complete = evaluation_runner.evaluate_models(
        args, dict(zip(unique_names(args.model_path), files, strict=True))
    )
    return process.OK if is_complete else process.SOME_FAILED
