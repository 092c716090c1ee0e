"""``esrgan test``: measure models on datasets."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from esrgan.cli import command
from esrgan.errors import DatasetError, EsrganError, WeightsError

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
    parser.add_argument(
        "--precision", choices=["auto", "fp32", "bf16", "fp16"], default="fp32", help="default: fp32, the same anywhere"
    )
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
    scale = files[0].architecture.scale_factor
    if len({(file.architecture.scale_factor, file.architecture.img_channels) for file in files}) > 1:
        kinds = ", ".join(f"{file.path}: {file.architecture}" for file in files)
        raise WeightsError(f"expected models of one scale and number of channels, got {kinds}; test them one by one")
    names = evaluation.unique_names(args.model_path)
    models = {
        name: Upscaler.from_file(file, args.device, args.precision) for name, file in zip(names, files, strict=True)
    }
    datasets = {
        dataset: find_pairs([_source(dataset)], "val", scale, args.data_root or default_data_root())
        for dataset in args.datasets.split(",")
    }
    console = Console()
    for name, file in zip(names, files, strict=True):
        precision = str(models[name].dtype).removeprefix("torch.")
        console.line(f"{name}: {file.describe()}; on {models[name].device} in {precision}")
    console.line(evaluation.CONVENTION)

    report, figures, failed = [evaluation.CONVENTION], {}, 0
    for dataset, pairs in datasets.items():
        out_dir = args.out_dir / Path(dataset.partition("=")[0]).name if args.out_dir else None
        if out_dir:
            command.make_folder(out_dir)
        result = evaluation.Evaluation(dataset)
        for i, (name, pair) in enumerate(zip(evaluation.unique_names([p.high for p in pairs]), pairs, strict=True), 1):
            console.live(f"{dataset}: {i} of {len(pairs)}, {pair.high.name}", keep=False)
            try:
                result.rows[name] = evaluation.evaluate_pair(name, pair, models, out_dir)
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
        command.write_text(args.json, json.dumps(_finite(figures), indent=1, ensure_ascii=False))
    if args.out_dir:
        command.write_text(args.out_dir / "report.md", "\n\n".join(report) + "\n")
    return command.SOME_FAILED if failed else command.OK


def _source(dataset: str) -> str | tuple[str, str]:
    high, _, low = dataset.partition("=")
    if not high:
        raise DatasetError("--datasets: expected names, folders or HR=LR pairs of folders, got an empty one")
    return (high, low) if low else high


def _finite(figures: Any) -> Any:
    """Replace infinity, the PSNR of equal images, by a text: JSON has no number for it."""
    if isinstance(figures, dict):
        return {key: _finite(value) for key, value in figures.items()}
    return figures if math.isfinite(figures) else str(figures)
