"""``esrgan test``: evaluate models on datasets."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from esrgan.cli import arguments, process
from esrgan.console import log
from esrgan.errors import EsrganError
from esrgan.files import check_output_path, write_text

if TYPE_CHECKING:
    from esrgan.evaluation import Evaluation
    from esrgan.weights import GeneratorFile

EXAMPLES = """\
  esrgan test model.pth -d set5,set14
  esrgan test psnr.pth gan.pth -d photos/val --metrics psnr,ssim,niqe --show-results 3 -o results
  esrgan test model.pth -d photos/hr=photos/lr --json scores.json --csv scores.csv
  esrgan test model.pth -d =photos/small --metrics niqe"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan test``."""
    parser = arguments.make_parser("test", "Evaluate models on datasets and compare them with bicubic.", EXAMPLES)
    parser.add_argument("model_path", nargs="+", help="weight files, checkpoints or model names, all of the same scale")
    add_evaluation_options(parser)
    return parser


def add_evaluation_options(parser: argparse._ActionsContainer, metrics: str = "psnr,ssim") -> None:
    """Add the options for datasets, metrics and reports; ``metrics`` is the default of ``--metrics``."""
    parser.add_argument(
        "-d",
        "--datasets",
        default="set5",
        metavar="LIST",
        help="comma-separated dataset names, HR folders, HR=LR or HR=LR=TEMPLATE folders, or =LR folders without "
        "ground truth (default: set5)",
    )
    parser.add_argument(
        "--metrics",
        default=metrics,
        metavar="LIST",
        help=f"comma-separated psnr, ssim, niqe, lpips, dists, vgg16, or all (default: {metrics})",
    )
    text = "list the N best and worst images, and show them in the report"
    arguments.add_number(parser, "-s", "--show-results", help=text)
    text = "write upscaled images, contact sheets, report.md and report.html"
    arguments.add_path(parser, "-o", "--out-dir", metavar="DIR", help=text)
    arguments.add_path(parser, "--json", help="write all scores to a JSON file")
    arguments.add_path(parser, "--csv", help="write all scores to a CSV file")
    arguments.add_data_root(parser)
    arguments.add_path(parser, "--vgg-weights", help="weights for vgg16 (default: torchvision's ImageNet weights)")
    parser.add_argument("--download", action="store_true", help="download missing weights that metrics need")
    parser.add_argument(
        "--no-cache", dest="use_cache", action="store_false", help="recompute all scores, and do not store them"
    )
    arguments.add_number(parser, "--workers", default=2, help="threads that compute metrics (default: 2)")
    arguments.add_precision(parser, "fp32", "precision of the models (default: fp32 on every device)")
    arguments.add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return evaluate_and_report(args, args.model_path)[1]


def evaluate_and_report(
    args: argparse.Namespace, models: Sequence[str] | Mapping[str, GeneratorFile], strips: Sequence[str] = ()
) -> tuple[Evaluation, int]:
    """Evaluate models by the options of ``add_evaluation_options``, print the results and write the reports.

    Returns:
        The results, and the exit code: ``SOME_FAILED`` if an image or a report failed.
    """
    with process.exit_on_interrupt():
        from esrgan import evaluation

    out_dir: Path | None = args.out_dir
    outputs = [path for path in (args.json, args.csv) if path]
    if out_dir and out_dir.exists():  # else evaluate() creates it, unless it is in a dataset
        outputs += [out_dir / "report.md", out_dir / "report.html"]
    for path in outputs:
        check_output_path(path)
    known = {field.name for field in fields(evaluation.EvaluationOptions)}
    options = {name: value for name, value in vars(args).items() if name in known}
    num_listed = args.show_results or 0
    result = evaluation.evaluate(
        models,
        args.datasets.split(","),
        args.metrics.split(","),
        evaluation.EvaluationOptions(**options, num_shown=(num_listed or 2) if out_dir else 0, strips=strips),
        lambda so_far: log.info("\n%s", evaluation.render_dataset(so_far.datasets[-1], so_far.conventions, num_listed)),
    )
    reports = {args.json: result.to_json, args.csv: result.to_csv}
    if out_dir:
        reports[out_dir / "report.md"] = lambda: evaluation.render_markdown(result, num_listed)
        reports[out_dir / "report.html"] = lambda: evaluation.render_html(result, num_listed or 2)
    is_complete = not result.errors
    for path, render in reports.items():
        try:
            if path:
                write_text(path, render())
        except EsrganError as error:  # the other reports are written all the same
            log.error("%s", error)
            is_complete = False
    return result, process.OK if is_complete else process.SOME_FAILED
