"""``esrgan prepare``: download datasets, make LR images."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from esrgan.cli import command
from esrgan.errors import DatasetError, EsrganError, Problem

EXAMPLES = """\
  esrgan prepare div2k                   # HR images and LR images of ×4, 4.3 GB, into data/
  esrgan prepare div2k set5 set14 --scale 2 --data-root /disk/data
  esrgan prepare photos/train            # LR images for a folder of your own: photos/train_LR_x4"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    parser = command.make_parser(
        "prepare",
        "Download datasets (resumed, checked, unpacked), or make the LR images of a folder. Run it again to go on.",
        EXAMPLES,
    )
    parser.add_argument("dataset", nargs="+", help="div2k, bsds500, set5, set14, flickr2k, or a folder of HR images")
    parser.add_argument("--scale", type=int, choices=(2, 3, 4, 8), default=4, help="of the LR images (default: 4)")
    parser.add_argument(
        "--data-root", type=Path, metavar="DIR", help="folder of the named datasets (default: $ESRGAN_DATA or data)"
    )
    parser.add_argument(
        "--workers", type=command.natural, metavar="N", help="processes that make LR images (default: one a CPU)"
    )
    return command.run(parser, _prepare, argv)


def _prepare(args: argparse.Namespace) -> int:
    from esrgan.console import Console
    from esrgan.data.datasets import default_data_root
    from esrgan.data.preparation import prepare_named
    from esrgan.data.reduction import prepare_folder
    from esrgan.data.sources import SOURCES

    unknown = [name for name in args.dataset if name not in SOURCES and not Path(name).is_dir()]
    if unknown:
        expected = f"{', '.join(SOURCES)} or a folder of images"
        got = {name: "nothing to prepare" if name == "skimage" else "neither" for name in unknown}
        raise DatasetError(Problem(f"dataset {name}", expected, got[name], "correct the name") for name in unknown)
    data_root = args.data_root or default_data_root()
    workers = args.workers or os.cpu_count() or 1
    console = Console()
    failed = 0
    for name in args.dataset:
        try:
            if name in SOURCES:
                prepare_named(name, args.scale, data_root, console)
                problems: Sequence[str | Problem] = ()
            else:
                problems = prepare_folder(Path(name), args.scale, workers, console)
        except EsrganError as error:
            problems = error.problems
        console.end()
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        failed += bool(problems)
    return command.SOME_FAILED if failed else command.OK
