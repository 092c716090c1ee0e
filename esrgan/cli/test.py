"""``esrgan test``: measure models on datasets."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from esrgan.cli import command
from esrgan.errors import EsrganError, WeightsError

EXAMPLES = """\
  python test.py model.pth -d set5,set14
  python test.py psnr.pth gan.pth -d photos/val --show-results 3 -o results
  python test.py model.pth -d photos/hr=photos/lr --json figures.json"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    parser = command.make_parser(
        "test", "Measure models on datasets, next to bicubic: PSNR and SSIM, Y and RGB.", EXAMPLES
    )
    parser.add_argument("model_path", type=Path, nargs="+", help="generators or checkpoints, of one scale")
    parser.add_argument(
        "-d",
        "--datasets",
        default="set5",
        metavar="LIST",
        help="names, folders or HR=LR folders, by commas (default: set5)",
    )
    parser.add_argument(
        "-s", "--show-results", type=command.natural, metavar="N", help="name the N best and worst images"
    )
    parser.add_argument("-o", "--out-dir", type=Path, metavar="DIR", help="write enlarged images, sheets and report.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a JSON file")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of the named datasets (default: data)")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto", help="default: auto")
    command.add_device(parser)
    return command.run(parser, _test, argv)


def _test(args: argparse.Namespace) -> int:
    from esrgan.console import Console
    from esrgan.data import find_pairs
    from esrgan.data.datasets import default_data_root
    from esrgan.inference import evaluation
    from esrgan.inference.upscaler import Upscaler
    from esrgan.weights import load_generator

    files = [load_generator(path) for path in args.model_path]
    if len({(file.architecture.scale_factor, file.architecture.img_channels) for file in files}) > 1:
        kinds = ", ".join(f"{file.path}: {file.architecture}" for file in files)
        raise WeightsError(f"expected models of one scale and number of channels, got {kinds}; test them one by one")
    stems = [path.stem for path in args.model_path]
    names = stems if len(set(stems)) == len(stems) else [str(path) for path in args.model_path]
    models = {
        name: Upscaler.from_file(file, args.device, args.precision) for name, file in zip(names, files, strict=True)
    }
    console = Console()
    for name, file in zip(names, files, strict=True):
        console.line(f"{name}: {file.describe()}")
    console.line(evaluation.CONVENTION)

    report, figures, failed = [evaluation.CONVENTION], {}, 0
    for dataset in args.datasets.split(","):
        high, _, low = dataset.partition("=")
        source = (high, low) if low else dataset
        root = args.data_root or default_data_root()
        pairs = find_pairs([source], "val", files[0].architecture.scale_factor, root)
        out_dir = args.out_dir / Path(high).name if args.out_dir else None
        if out_dir:
            command.make_folder(out_dir)
        result = evaluation.Evaluation(dataset)
        for i, pair in enumerate(pairs, 1):
            console.live(f"{dataset}: {i} of {len(pairs)}, {pair.high.name}", keep=False)
            try:
                result.rows[pair.high.stem] = evaluation.evaluate_pair(pair, models, out_dir)
            except EsrganError as error:
                console.end()
                print(f"error: {error}", file=sys.stderr)
                failed += 1
        console.end()
        if not result.rows:
            continue
        figures[dataset] = {"images": result.rows, "mean": result.means()}
        report.append(evaluation.table(result))
        if args.show_results:
            report.append(evaluation.extremes(result, args.show_results))
        console.line("\n" + "\n\n".join(report[-2 if args.show_results else -1 :]))
    if args.json:
        command.write_text(args.json, json.dumps(figures, indent=1, ensure_ascii=False))
    if args.out_dir:
        command.write_text(args.out_dir / "report.md", "\n\n".join(report) + "\n")
    return command.SOME_FAILED if failed else command.OK
