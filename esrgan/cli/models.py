"""``esrgan models``: list the named models, and download public ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from esrgan.cli import arguments, process
from esrgan.console import log
from esrgan.errors import EsrganError, WeightsError
from esrgan.pretrained import MODELS, download_model, downloads_dir, is_on_disk
from esrgan.progress import explain_interrupt
from esrgan.text import did_you_mean, format_size

EXAMPLES = """\
  esrgan models
  esrgan models realesrgan-x4plus realesrnet-x4plus
  esrgan inference -m realesrgan-x4plus --alpha 0.7 photo.jpg"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan models``."""
    parser = arguments.make_parser(
        "models",
        "List the models that every command accepts by name, or download the models given here. Run the command again "
        "to resume an interrupted download. A download with a wrong checksum is not kept.",
        EXAMPLES,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="model to download")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return _download(args.names) if args.names else _list()


def _list() -> int:
    rows = []
    for name, model in MODELS.items():
        if model.source is None:
            place = "bundled"
        elif is_on_disk(name):
            place = "downloaded"
        else:
            place = "to download" + (f", {format_size(model.source.size)}" if model.source.size else "")
        rows.append((name, f"×{model.scale}", model.licence, place, model.summary))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    try:
        print(f"\ndownloaded models are in {downloads_dir()}; run `esrgan models NAME` to download one")
    except EsrganError as error:
        print(f"\n{error}")
    return process.OK


def _download(names: Sequence[str]) -> int:
    if unknown := [name for name in names if name not in MODELS]:
        remedies = {name: did_you_mean(name, MODELS, "`esrgan models` lists them") for name in unknown}
        raise WeightsError(f"{name}: no such model; {remedy}" for name, remedy in remedies.items())
    failed = 0
    with explain_interrupt(lambda: "the same command resumes the download"):
        for name in names:
            source = MODELS[name].source
            try:
                if source is None:
                    log.info("%s: %s, bundled with esrgan", name, download_model(name))
                    continue
                log.info("%s: %s, from %s", name, MODELS[name].licence, source.url)
                path = download_model(name)
            except EsrganError as error:
                for problem in error.problems:
                    log.error("%s", problem)
                failed += 1
            else:
                log.info("%s: %s, %s, checksum verified", name, path, format_size(path.stat().st_size))
    return process.SOME_FAILED if failed else process.OK
