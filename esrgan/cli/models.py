"""``esrgan models``: what models there are by name; download public ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from esrgan.cli import command
from esrgan.console import Console, gigabytes
from esrgan.errors import EsrganError, WeightsError
from esrgan.pretrained import MODELS, downloads_dir, fetch, is_here

EXAMPLES = """\
  esrgan models
  esrgan models realesrgan-x4plus realesrnet-x4plus
  esrgan inference -m realesrgan-x4plus --alpha 0.7 photo.jpg"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command's arguments."""
    parser = command.make_parser(
        "models",
        "List the models that every command takes by name, or download those that are named here. An interrupted "
        "download goes on with the same command; nothing is kept whose checksum is wrong.",
        EXAMPLES,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="model to download")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    return command.run(make_parser(), lambda args: _download(args.names) if args.names else _list(), argv)


def _list() -> int:
    rows = []
    for name, model in MODELS.items():
        if model.source is None:
            place = "comes with esrgan"
        elif is_here(name):
            place = "downloaded"
        else:
            place = "to download" + (f", {gigabytes(model.source.size)}" if model.source.size else "")
        rows.append((name, f"×{model.scale}", model.licence, place, model.summary))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\ndownloads are in {downloads_dir()}; `esrgan models NAME` gets one")
    return command.OK


def _download(names: Sequence[str]) -> int:
    if unknown := [name for name in names if name not in MODELS]:
        raise WeightsError(f"{name}: expected one of {', '.join(MODELS)}" for name in unknown)
    console = Console()
    failed = 0
    for name in names:
        source = MODELS[name].source
        try:
            if source is None:
                console.line(f"{name}: {fetch(name)}, comes with esrgan")
                continue
            console.line(f"{name}: {MODELS[name].licence}, from {source.url}")
            path = fetch(name, console.downloading(name), console.line)
        except EsrganError as error:
            console.end()
            print("\n".join(f"error: {problem}" for problem in error.problems), file=sys.stderr)
            failed += 1
        else:
            console.line(f"{name}: {path}, {gigabytes(path.stat().st_size)}, checksum right")
    return command.SOME_FAILED if failed else command.OK
