"""Evaluate generators on datasets, for ``esrgan test`` and ``esrgan interpolate --sweep``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from esrgan.cli import arguments
from esrgan.errors import DatasetError, EsrganError, WeightsError
from esrgan.files import cache_dir, write_text

if TYPE_CHECKING:
    from esrgan.console import Console
    from esrgan.evaluation import DatasetImage, Evaluation
    from esrgan.evaluation.crops import ImageVersions
    from esrgan.weights import GeneratorFile


def add_evaluation_options(parser: argparse._ActionsContainer, metrics: str = "psnr,ssim") -> None:
    """Add the options for datasets, metrics and reports; ``metrics`` is the default of ``--metrics``."""
    parser.add_argument(
        "-d",
        "--datasets",
        default="set5",
        metavar="LIST",
        help="comma-separated dataset names, HR folders, HR=LR folders, or =LR folders without ground truth "
        "(default: set5)",
    )
    parser.add_argument(
        "--metrics",
        default=metrics,
        metavar="LIST",
        help=f"comma-separated psnr, ssim, niqe, lpips, dists, vgg16, or all (default: {metrics})",
    )
    parser.add_argument(
        "-s",
        "--show-results",
        type=arguments.positive_int,
        metavar="N",
        help="list the N best and worst images, and show them in the report",
    )
    parser.add_argument(
        "-o",
        "--out-dir",
        type=Path,
        metavar="DIR",
        help="write upscaled images, contact sheets, report.md and report.html",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores to a JSON file")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all scores to a CSV file")
    parser.add_argument(
        "--data-root", type=Path, metavar="DIR", help="folder of the named datasets (default: $ESRGAN_DATA or data)"
    )
    parser.add_argument(
        "--vgg-weights", type=Path, metavar="FILE", help="weights for vgg16 (default: torchvision's ImageNet weights)"
    )
    parser.add_argument("--download", action="store_true", help="download missing weights that metrics need")
    parser.add_argument("--no-cache", action="store_true", help="recompute all scores, and do not store them")
    parser.add_argument(
        "--workers",
        type=arguments.positive_int,
        default=2,
        metavar="N",
        help="threads that compute metrics (default: 2)",
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16", "fp16"],
        default="fp32",
        help="precision of the models (default: fp32 on every device)",
    )
    arguments.add_device(parser)


@dataclass(frozen=True)
class DatasetResult:
    """The results on one dataset, and where they are.

    Attributes:
        evaluation: Scores of all methods.
        dataset_images: Images of the dataset.
        out_dir: Folder of the upscaled images; None if they were not written.
    """

    evaluation: Evaluation
    dataset_images: Sequence[DatasetImage]
    out_dir: Path | None


def evaluate_models(args: argparse.Namespace, files: Mapping[str, GeneratorFile]) -> tuple[list[DatasetResult], bool]:
    """Evaluate generators, print tables and write reports.

    Args:
        args: Arguments that include the options of ``add_evaluation_options``.
        files: Generators by their names in tables.

    Returns:
        The results of each dataset, and whether everything could be evaluated.

    Raises:
        EsrganError: If the arguments, models and datasets do not fit together.
    """
    from esrgan import evaluation
    from esrgan.console import Console
    from esrgan.devices import select_device
    from esrgan.evaluation import results
    from esrgan.evaluation.html_report import render_html_report
    from esrgan.evaluation.html_tables import ReportSection
    from esrgan.inference import Upscaler

    kinds = {(file.architecture.scale_factor, file.architecture.img_channels) for file in files.values()}
    if len(kinds) > 1:
        got = ", ".join(f"{file.path}: {file.architecture}" for file in files.values())
        raise WeightsError(f"expected models of the same scale and number of channels, got {got}; test them separately")
    ((scale, channels),) = kinds
    datasets = {name: _find_dataset_images(name, scale, args.data_root) for name in args.datasets.split(",")}
    folders = _choose_out_dirs(args.out_dir, datasets, [evaluation.BICUBIC, *files])
    for path in filter(None, (args.json, args.csv)):
        arguments.create_folder(path.parent)
        if path.is_dir():
            raise EsrganError(f"{path}: expected a file name for the scores, got a folder")
    console = Console()
    scorers, missing = evaluation.make_scorers(
        args.metrics.split(","),
        device=select_device(args.device),
        may_download=args.download,
        vgg16_weights=args.vgg_weights,
    )
    for line in missing:
        console.print(line)

    usable = {
        dataset: [
            scorer for scorer in scorers if dataset_images[0].high is not None or not scorer.metric.needs_reference
        ]
        for dataset, dataset_images in datasets.items()
    }
    if unmeasurable := [dataset for dataset, usable_scorers in usable.items() if not usable_scorers]:
        raise DatasetError(
            f"{', '.join(unmeasurable)}: no ground-truth images, which all requested metrics need; use --metrics niqe"
        )

    methods: dict[str, evaluation.Method] = {evaluation.BICUBIC: evaluation.BicubicMethod(scale)}
    facts = {}
    for name, file in files.items():
        upscaler = Upscaler.from_file(file, args.device, args.precision)
        methods[name] = evaluation.ModelMethod(upscaler)
        precision = str(upscaler.dtype).removeprefix("torch.")
        facts[name] = f"{file.describe()}; on {upscaler.device} in {precision}"
    facts["conventions"] = evaluation.describe_conventions(scorers)
    description = [f"{name}: {fact}" for name, fact in facts.items()]
    for line in description:
        console.print(line)

    cache = evaluation.ResultCache(
        None if args.no_cache else cache_dir() / "figures",
        warn=lambda text: print(f"warning: {text}", file=sys.stderr),
    )
    errors: list[EsrganError] = []

    def report_error(error: EsrganError) -> None:
        console.clear()
        print(f"error: {error}", file=sys.stderr)
        errors.append(error)

    dataset_results: list[DatasetResult] = []
    sections, report = [], description[:-1]
    for dataset, dataset_images in datasets.items():
        out_dir = folders.get(dataset)
        if out_dir:
            arguments.create_folder(out_dir)
        result = evaluation.evaluate(
            dataset,
            dataset_images,
            methods,
            usable[dataset],
            scale=scale,
            channels=channels,
            cache=cache,
            out_dir=out_dir,
            workers=args.workers,
            on_error=report_error,
            on_progress=partial(_show_progress, console, dataset, len(dataset_images)),
        )
        console.clear()
        if not result.results:
            continue
        dataset_results.append(DatasetResult(result, dataset_images, out_dir))
        parts = [
            facts["conventions"],
            results.format_table(result),
            results.format_differences(result),
            results.describe_speed(result),
        ]
        if args.show_results:
            parts.append(results.describe_extremes(result, args.show_results))
        report += parts
        console.print("\n" + "\n\n".join(parts))
        if out_dir:
            sections.append(
                ReportSection(
                    dataset,
                    result.methods,
                    result.metrics,
                    result.scores(),
                    result.means(),
                    [results.INTERVALS_CAPTION, *results.describe_differences(result), results.describe_speed(result)],
                    partial(
                        _load_versions,
                        out_dir,
                        {dataset_image.name: dataset_image for dataset_image in dataset_images},
                        result.methods,
                        scale,
                        channels,
                    ),
                )
            )
    if args.json:
        content = {each.evaluation.dataset: {"of": facts, **each.evaluation.to_dict()} for each in dataset_results}
        write_text(args.json, json.dumps(content, indent=1, ensure_ascii=False))
    if args.csv:
        write_text(args.csv, results.to_csv([each.evaluation for each in dataset_results]))
    if args.out_dir:
        write_text(args.out_dir / "report.md", "\n\n".join(report) + "\n")
    if sections:
        page = render_html_report(", ".join(files), facts, sections, num_shown=args.show_results or 2)
        write_text(args.out_dir / "report.html", page)
    return dataset_results, not errors


def _load_versions(
    out_dir: Path,
    dataset_images: Mapping[str, DatasetImage],
    methods: Sequence[str],
    scale: int,
    channels: int,
    name: str,
) -> ImageVersions:
    from esrgan.evaluation import load_image_versions

    return load_image_versions(out_dir, dataset_images[name], methods, scale, channels)


def _show_progress(console: Console, dataset: str, count: int, index: int) -> None:
    console.update(f"{dataset}: {index} of {count}", keep=False)


def _choose_out_dirs(
    out_dir: Path | None, datasets: Mapping[str, Sequence[DatasetImage]], methods: Sequence[str]
) -> dict[str, Path]:
    """Choose an output folder for each dataset, named after the dataset."""
    from esrgan.evaluation import check_out_dir, unique_names

    if out_dir is None:
        return {}
    paths = [Path(dataset.partition("=")[0] or dataset[1:]).resolve() for dataset in datasets]
    names = unique_names([path.with_name(f"{path.name}.x") for path in paths])
    folders = {dataset: out_dir / name for dataset, name in zip(datasets, names, strict=True)}
    for dataset, dataset_images in datasets.items():
        check_out_dir(folders[dataset], dataset_images, methods)
    return folders


def _find_dataset_images(dataset: str, scale: int, data_root: Path | None) -> list[DatasetImage]:
    """Find the images of a dataset, which is given as a name, a folder, HR=LR, or =LR."""
    from esrgan import images
    from esrgan.data import find_pairs
    from esrgan.data.datasets import default_data_root
    from esrgan.evaluation import DatasetImage, unique_names

    high, _, low = dataset.partition("=")
    if high:
        pairs = find_pairs([(high, low) if low else high], "val", scale, data_root or default_data_root())
        names = unique_names([pair.high for pair in pairs])
        return [DatasetImage(name, pair.low, pair.high) for name, pair in zip(names, pairs, strict=True)]
    if not low:
        raise DatasetError("--datasets: expected names, folders, HR=LR or =LR folders, got an empty entry")
    paths = list(images.find_images([low]))
    return [DatasetImage(name, path, None) for name, path in zip(unique_names(paths), paths, strict=True)]
