"""``esrgan test``: evaluate models on datasets."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from esrgan.cli import arguments, process
from esrgan.console import log
from esrgan.errors import EsrganError
from esrgan.files import check_output_path, write_text
from esrgan.paths import describe_path, expand_user

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
        type=_split_datasets,
        default="set5",
        metavar="LIST",
        help="comma-separated dataset names, HR folders, HR=LR or HR=LR=TEMPLATE[=HR_TEMPLATE] folders, or =LR folders "
        "without ground truth (default: set5)",
    )
    parser.add_argument(
        "--metrics",
        default=metrics,
        metavar="LIST",
        help=f"comma-separated psnr, ssim, niqe, lpips, dists, vgg16, vggstats, or all (default: {metrics})",
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
    arguments.add_precision(parser, "exact", "precision of the models (default: exact on every device)")
    arguments.add_device(parser)


def _split_datasets(text: str) -> list[str]:
    """Split a list at its commas, except for commas in the names of existing folders."""
    parts, datasets = text.split(","), []
    while parts:
        starts = [",".join(parts[:n]) for n in range(len(parts), 1, -1)]
        found = (name for start in starts for name in (start, start.strip()) if _are_folders(name))
        datasets.append(next(found, parts[0] if _are_folders(parts[0]) else parts[0].strip()))
        del parts[: datasets[-1].count(",") + 1]
    return datasets


def _are_folders(name: str) -> bool:
    """Return whether a folder of this name exists, or the folders of HR=LR."""
    return any(
        all(describe_path(expand_user(each)) == "a folder" for each in names if each)
        for names in ([name], name.split("=", 2)[:2])
    )


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
    with process.importing():
        from esrgan import evaluation, outputs

    num_listed = args.show_results or 0
    renderers: dict[Path | None, Callable[[Evaluation], str]] = {
        args.json: evaluation.Evaluation.to_json,
        args.csv: evaluation.Evaluation.to_csv,
    }
    if args.out_dir:
        renderers[args.out_dir / "report.md"] = lambda result: (
            f"{outputs.MARKDOWN_MARK}\n\n{evaluation.render_markdown(result, num_listed)}"
        )
        renderers[args.out_dir / "report.html"] = lambda result: evaluation.render_html(result, num_listed or 2)
    _check_outputs(args, outputs.check_replaceable)
    known = {field.name for field in fields(evaluation.EvaluationOptions)}
    options = {name: value for name, value in vars(args).items() if name in known}
    options |= {"num_shown": (num_listed or 2) if args.out_dir else 0, "strips": strips}
    measured: list[Evaluation] = []

    def show(result: Evaluation) -> None:
        log.info("\n%s", evaluation.render_dataset(result.datasets[-1], num_listed))
        measured[:] = [result]

    is_complete = True
    try:
        metrics = args.metrics.split(",")
        evaluation.evaluate(models, args.datasets, metrics, evaluation.EvaluationOptions(**options), show)
    finally:  # also if this is interrupted, for the datasets before
        for path, render in renderers.items():
            try:
                if path and measured:
                    outputs.check_replaceable(path)
                    write_text(path, render(measured[0]))
                    if path.suffix == ".html":
                        log.info("report: %s", path)
            except EsrganError as error:  # the other reports are written all the same
                log.error("%s", error)
                is_complete = False
    (result,) = measured
    return result, process.OK if is_complete and not result.errors else process.SOME_FAILED


def _check_outputs(args: argparse.Namespace, check_replaceable: Callable[[Path], None]) -> None:
    """Check that the reports can be written, each to a file of its own, which is not one of the user's."""
    out_dir: Path | None = args.out_dir
    outputs = [path for path in (args.json, args.csv) if path]
    reports = [out_dir / "report.md", out_dir / "report.html"] if out_dir else []
    for one, other in combinations([path.resolve() for path in (*outputs, *reports) if str(path) != os.devnull], 2):
        if one == other or one in other.parents or other in one.parents:
            raise EsrganError(f"{one}: cannot be written, because {other} is an output too; choose different names")
    if out_dir and out_dir.exists():  # else evaluate() creates it, unless it is in a dataset
        outputs += reports
    for path in outputs:
        check_replaceable(path)
        check_output_path(path)
