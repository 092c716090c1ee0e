"""``esrgan completion``: print a shell completion script."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import shtab

from esrgan.cli import arguments, process

EXAMPLES = """\
  mkdir -p ~/.local/share/bash-completion/completions
  esrgan completion bash > ~/.local/share/bash-completion/completions/esrgan

  mkdir -p ~/.zfunc                             # needs fpath+=~/.zfunc before compinit in ~/.zshrc
  esrgan completion zsh > ~/.zfunc/_esrgan"""

# The argparse names of the arguments that accept a model or dataset, by name or as a file.
_MODEL_ARGUMENTS = (
    *("model", "models", "model_path", "model_paths", "psnr_model_path", "esrgan_model_path"),
    *("load_checkpoint", "mix"),
)
_DATASET_ARGUMENTS = ("dataset", "datasets")


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan completion``."""
    parser = arguments.make_parser(
        "completion",
        "Print a script that completes commands, options, models, datasets and files in a shell.",
        EXAMPLES,
    )
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="shell that will run the script")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from esrgan.cli import make_parser
    from esrgan.data.datasets import DATASET_NAMES
    from esrgan.pretrained import MODELS

    parser = make_parser(with_arguments=True)
    for action in _all_actions(parser):
        if action.dest == "names" and not action.choices:  # the argument of esrgan models
            action.choices = tuple(MODELS)
        elif action.dest in _MODEL_ARGUMENTS:
            action.complete = _complete_names_and_files("models", MODELS)  # type: ignore[attr-defined]
        elif action.dest in _DATASET_ARGUMENTS:
            action.complete = _complete_names_and_files("datasets", DATASET_NAMES)  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.type is arguments.path or not (action.option_strings or action.choices):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return process.OK


def _complete_names_and_files(kind: str, names: Iterable[str]) -> dict[str, str | dict[str, str]]:
    """Return shtab's completion of an argument by names and files; in tcsh and PowerShell, by files only."""
    words, function = " ".join(names), f"_esrgan_{kind}_and_files"
    bash = f'{function}() {{\n  compgen -W "{words}" -- "$1"\n  compgen -f -- "$1"\n}}'
    zsh = f'{function}() {{\n  compadd "$@" -- {words}\n  _files "$@"\n}}'
    return {
        **shtab.FILE,
        "bash": function,
        "zsh": function,
        "fish": f"{words} {shtab.FILE['fish']}",
        "preamble": {"bash": bash, "zsh": zsh},
    }


def _all_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of all commands, which argparse does not expose publicly."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return [action for command in commands.choices.values() for action in command._actions]
