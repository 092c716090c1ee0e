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
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; give its exit code."""
    parser = argparse.ArgumentParser(
        prog="esrgan",
        description=__doc__,
        epilog="each command: esrgan COMMAND --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparsers.add_parser(name, help=summary, add_help=False)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        parser.parse_args(arguments)
    module = importlib.import_module(f"esrgan.cli.{arguments[0]}")
    code: int = module.main(arguments[1:])
    return code
