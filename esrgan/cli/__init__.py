"""The ``esrgan`` command; the scripts in the repository root run its sub-commands."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Sequence

from esrgan.errors import EsrganError
from esrgan.text import did_you_mean

COMMANDS = {
    "prepare": "download datasets, create LR images",
    "train": "train a generator: PSNR stage, then GAN stage",
    "test": "evaluate models on datasets",
    "inference": "upscale images",
    "video": "upscale videos",
    "bulk": "upscale images on a cluster",
    "compare": "show what several models make of an image",
    "interpolate": "blend a PSNR model and a GAN model",
    "models": "list available models, download public ones",
    "demo": "serve a web page for trying models",
    "export": "convert a generator for other programs: ONNX, ncnn, …",
    "info": "show what a model file contains",
    "doctor": "show what this machine has and what is missing",
    "completion": "print a shell completion script",
}
ALIASES = {"upscale": "inference"}


class _VersionAction(argparse.Action):
    """Show the versions and exit. PyTorch is imported only now, because that takes seconds."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002  argparse's name
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from esrgan.cli.process import versions

        print(", ".join(versions()))
        parser.exit()


def make_parser(with_arguments: bool = False) -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan``.

    Args:
        with_arguments: Include the arguments of every command, which requires importing all of them; for shell
            completion.
    """
    parser = argparse.ArgumentParser(
        prog="esrgan",
        description="Image super-resolution with ESRGAN: upscale, train, evaluate, blend.",
        epilog="help for a command: esrgan COMMAND --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_VersionAction, help="show the versions of esrgan, PyTorch, CUDA and Python"
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = [importlib.import_module(f"esrgan.cli.{name}").make_parser()] if with_arguments else []
        aliases = [alias for alias, of in ALIASES.items() if of == name]
        subparsers.add_parser(name, help=summary, aliases=aliases, parents=command, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named by the first argument and return its exit code; without arguments, print the help."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = ALIASES.get(arguments[0], arguments[0]) if arguments else "--help"
    try:
        from esrgan.cli import process

        if name in COMMANDS:
            return process.run(importlib.import_module(f"esrgan.cli.{name}"), arguments[1:])
        return process.catch_errors(lambda: _show_help(name, arguments))
    except KeyboardInterrupt:  # while the command itself was imported
        print("interrupted", file=sys.stderr)
        return 130


def _show_help(name: str, arguments: Sequence[str]) -> int:
    """Do what ``--help`` or ``--version`` asks for; without arguments, print the help.

    Raises:
        EsrganError: If the first argument, ``name``, is something else.
    """
    if name not in ("-h", "--help", "--version"):
        raise EsrganError(f"{name}: {_explain_unknown(name)}")
    parser = make_parser()
    if arguments:
        parser.parse_args(arguments)  # exits
    parser.print_help()
    return 0


def _explain_unknown(name: str) -> str:
    """Explain what is wrong with a first argument that is no command."""
    if os.path.exists(name):  # noqa: PTH110  Path.exists() raises for a name that is too long
        command = "video" if name.lower().endswith((".mp4", ".mkv", ".mov", ".webm", ".avi")) else "inference"
        return f"a command is missing; `esrgan {command} {shlex.quote(name)}` upscales"
    remedy = did_you_mean(name, [*COMMANDS, *ALIASES, "--version", "--help"], "`esrgan --help` lists the commands")
    return f"no such {'option' if name.startswith('-') else 'command'}; {remedy}"
