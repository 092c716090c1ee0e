"""The ``esrgan`` command; the root scripts are the same as its commands."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "prepare": "download datasets, make LR images",
    "train": "train a generator: PSNR stage, then GAN stage",
    "test": "measure models on datasets",
    "inference": "upscale images",
    "bulk": "upscale images on many machines",
    "interpolate": "blend a PSNR model and a GAN model",
    "models": "list the models that have names, download public ones",
    "demo": "serve a web page to try models on",
    "export": "write a generator for other programs: ONNX, ncnn, …",
    "info": "tell what a model file is",
    "doctor": "tell what this machine has and what is missing",
    "completion": "print a script that makes a shell complete commands and options",
}


class _VersionAction(argparse.Action):
    """Show versions and exit; they cost the import of PyTorch, which is not wanted before."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002  argparse's name
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from esrgan.cli.process import versions

        print(", ".join(versions()))
        parser.exit()


def make_parser(with_arguments: bool = False) -> argparse.ArgumentParser:
    """Make the parser of the commands' names.

    Args:
        with_arguments: With the arguments of each command, which takes the import of all of them; for what shows or
            completes them.
    """
    parser = argparse.ArgumentParser(
        prog="esrgan",
        description="Image super-resolution with ESRGAN: upscale, train, measure, blend.",
        epilog="each command: esrgan COMMAND --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_VersionAction, help="show the versions of esrgan, PyTorch, CUDA and Python"
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = [importlib.import_module(f"esrgan.cli.{name}").make_parser()] if with_arguments else []
        subparsers.add_parser(name, help=summary, parents=command, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; give its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        make_parser().parse_args(arguments)
    module = importlib.import_module(f"esrgan.cli.{arguments[0]}")
    code: int = module.main(arguments[1:])
    return code
