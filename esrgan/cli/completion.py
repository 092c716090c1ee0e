"""``esrgan completion``: tab completion."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import shtab

from esrgan.cli import command

EXAMPLES = """\
  esrgan completion bash > ~/.local/share/bash-completion/completions/esrgan
  esrgan completion zsh > ~/.zfunc/_esrgan      # with fpath+=~/.zfunc before compinit in ~/.zshrc"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command's arguments."""
    parser = command.make_parser(
        "completion", "Print a script that makes a shell complete commands, options and files.", EXAMPLES
    )
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    return command.run(make_parser(), _completion, argv)


def _completion(args: argparse.Namespace) -> int:
    from esrgan.cli import make_parser

    parser = make_parser(is_whole=True)
    for action in _arguments(parser):
        if action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar == "FILE" or not (action.option_strings or action.choices):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return command.OK


def _arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Give all arguments of all commands, which argparse tells in no other way."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return [action for command in commands.choices.values() for action in command._actions]
